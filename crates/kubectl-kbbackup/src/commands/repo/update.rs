//! `repo update`: what is not given is not touched.

use clap::Args;
use k8s_openapi::api::core::v1::Secret;
use kbbackup_api::{
    names::{TRUE, annotations},
    v1alpha1::{BackupRepo, StorageProvider},
};
use kube::{
    ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Map, json};

use crate::{
    app::{App, get},
    args::{WaitArgs, pair},
    build::repo as build,
    error::{CliError, Doing, Result},
    exit::Exit,
    provider_flags::{ProviderFlags, secrets_given},
    ui::{Mark, Ui},
};

/// Change credentials, parameters or the default mark; what is not given is not touched
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup repo update s3-main --default=true
  KBBACKUP_KEY=… kubectl kbbackup repo update s3-main --param secretAccessKey=\"$KBBACKUP_KEY\"")]
pub(crate) struct UpdateArgs {
    /// Repository to change
    pub name: String,

    /// Parameter of the provider; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub param: Vec<(String, String)>,

    /// Set or take away the default mark
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub default: Option<bool>,

    #[command(flatten)]
    pub wait: WaitArgs,

    #[command(flatten)]
    pub flags: ProviderFlags,
}

pub(super) async fn run(ui: &Ui, app: &App, args: &UpdateArgs) -> Result<Exit> {
    let api = app.everywhere::<BackupRepo>();
    let repo = get(&api, &format!("backuprepo/{}", args.name)).await?;
    let mut given: build::Parameters = args.flags.0.clone();
    given.extend(args.param.iter().cloned());
    if given.is_empty() && args.default.is_none() {
        return Err(CliError::usage(
            format!("backuprepo/{}: nothing to change", args.name),
            "give --default or a parameter",
        ));
    }
    for flag in secrets_given(&args.flags) {
        ui.warn(&format!("--{flag} stands in the shell's history now"));
    }
    let changed = !given.is_empty();
    if changed {
        change(app, &repo, given).await?;
    }
    match args.default {
        Some(true) if !super::is_default(&repo) => {
            let all = super::all(app).await?;
            let others: Vec<String> =
                all.iter().filter(|repo| super::is_default(repo)).map(ResourceExt::name_any).collect();
            move_default(app, &args.name, &others).await?;
        }
        Some(false) => mark(app, &args.name, false).await?,
        _ => {}
    }
    ui.result(&format!("backuprepo.dataprotection.kubeblocks.io/{} updated", args.name));
    if changed && args.wait.wait != Some(false) {
        super::check::request_and_wait(ui, app, &args.name, args.wait.limit()).await?;
        ui.say(&ui.marked(Mark::Good, &format!("backuprepo/{} is ready", args.name)));
    }
    Ok(Exit::Done)
}

/// Credentials go to the repository's Secret, the rest to its configuration.
async fn change(app: &App, repo: &BackupRepo, given: build::Parameters) -> Result<()> {
    let name = repo.name_any();
    let provider: StorageProvider =
        get(&app.everywhere(), &format!("storageprovider/{}", repo.spec.storage_provider_ref)).await?;
    let known = build::parameters(&provider);
    let mut whole = repo.spec.config.clone();
    whole.extend(given.clone());
    let wrong = build::problems(&known, &whole, true);
    if !wrong.is_empty() {
        return Err(CliError::usage(format!("backuprepo/{name} cannot be changed so"), wrong.join("; ")));
    }
    let (secrets, config): (build::Parameters, build::Parameters) = given
        .into_iter()
        .partition(|(key, _)| known.iter().any(|parameter| parameter.name == *key && parameter.secret));
    if !secrets.is_empty() {
        let Some((secret, namespace)) = repo
            .spec
            .credential
            .as_ref()
            .and_then(|credential| Some((credential.name.clone()?, credential.namespace.clone()?)))
        else {
            return Err(CliError::usage(
                format!("backuprepo/{name} has no credential Secret"),
                "make a new repository with credentials",
            ));
        };
        let patch = json!({"stringData": secrets});
        app.within::<Secret>(&namespace)
            .patch(&secret, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .doing(|| format!("secret/{secret} in namespace {namespace} cannot be changed"))?;
    }
    if !config.is_empty() {
        let values: Map<String, serde_json::Value> =
            config.into_iter().map(|(key, value)| (key, json!(value))).collect();
        app.everywhere::<BackupRepo>()
            .patch(&name, &PatchParams::default(), &Patch::Merge(json!({"spec": {"config": values}})))
            .await
            .doing(|| format!("backuprepo/{name} cannot be changed"))?;
    }
    Ok(())
}

/// Moves the default mark. The new one gets it first: for a moment there are two, which is an error that passes; none would
/// be the worse gap.
pub(super) async fn move_default(app: &App, to: &str, from: &[String]) -> Result<()> {
    mark(app, to, true).await?;
    for other in from.iter().filter(|other| *other != to) {
        mark(app, other, false).await?;
    }
    Ok(())
}

async fn mark(app: &App, name: &str, default: bool) -> Result<()> {
    let value = if default { json!(TRUE) } else { json!(null) };
    let patch = json!({"metadata": {"annotations": {annotations::IS_DEFAULT_REPO: value}}});
    app.everywhere::<BackupRepo>()
        .patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .doing(|| format!("backuprepo/{name} cannot be changed"))?;
    Ok(())
}
