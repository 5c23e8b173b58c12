//! `repo update`: what is not given is not touched.

use std::path::PathBuf;

use clap::Args;
use k8s_openapi::api::core::v1::Secret;
use kbbackup_api::{
    names::{TRUE, annotations},
    v1alpha1::{BackupRepo, StorageProvider},
};
use kube::{
    Api, ResourceExt,
    api::{ApiResource, DynamicObject},
};
use serde_json::{Value, json};

use super::create::credentials_of_file;
use crate::{
    app::{App, get},
    args::{DryRun, WaitArgs, WriteArgs, pair},
    build::repo as build,
    error::{CliError, Result},
    exit::Exit,
    manifest,
    patch::{self, Change},
    provider_flags::{ProviderFlags, secrets_given},
    ui::{Mark, Ui},
};

/// Change credentials, parameters or the default mark; what is not given is not touched
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup repo update s3-main --default=true
  kubectl kbbackup repo update s3-main --credential-file keys.env
  kubectl kbbackup repo update s3-main --param region=eu-central-1 --dry-run -o yaml")]
pub(crate) struct UpdateArgs {
    /// Repository to change
    pub name: String,

    /// Parameter of the provider; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub param: Vec<(String, String)>,

    /// File with new credentials: KEY=VALUE lines, or JSON
    #[arg(long, value_name = "FILE")]
    pub credential_file: Option<PathBuf>,

    /// Set or take away the default mark
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub default: Option<bool>,

    #[command(flatten)]
    pub wait: WaitArgs,

    #[command(flatten)]
    pub write: WriteArgs,

    #[command(flatten)]
    pub flags: ProviderFlags,
}

pub(super) async fn run(ui: &Ui, app: &App, args: &UpdateArgs) -> Result<Exit> {
    let name = &args.name;
    let repo = get(&app.everywhere::<BackupRepo>(), &format!("backuprepo/{name}")).await?;
    let mut given: build::Parameters = args.flags.0.clone();
    given.extend(args.param.iter().cloned());
    if let Some(path) = &args.credential_file {
        given.extend(credentials_of_file(path)?);
    }
    if given.is_empty() && args.default.is_none() {
        return Err(CliError::usage(
            format!("backuprepo/{name}: nothing to change"),
            "give --default, --credential-file or a parameter",
        ));
    }
    for flag in secrets_given(&args.flags) {
        ui.warn(&format!("--{flag} stands in the shell's history now; a file is safer"));
    }
    let tested = !given.is_empty();
    let (secrets, config) = if tested { sorted(app, &repo, given).await? } else { Default::default() };
    let mut changes = Vec::new();
    if !secrets.is_empty() {
        changes.push(secret(app, &repo, &secrets, args.write.dry_run).await?);
    }
    let mut patch = json!({});
    if !config.is_empty() {
        patch["spec"]["config"] = json!(config);
    }
    let mut others = Vec::new();
    match args.default {
        Some(true) if !super::is_default(&repo) => {
            patch["metadata"] = mark(true)["metadata"].take();
            // Behind the new one: for a moment there are two, which is an error that passes; none would be the worse gap.
            let all = super::all(app).await?;
            others.extend(all.iter().filter(|repo| super::is_default(repo)).map(ResourceExt::name_any));
        }
        Some(false) => patch["metadata"] = mark(false)["metadata"].take(),
        _ => {}
    }
    if patch != json!({}) {
        changes.push(of(app, name, patch).await?);
    }
    for other in &others {
        changes.push(of(app, other, mark(false)).await?);
    }
    if patch::previewed(app, ui, &changes, &args.write).await? {
        return Ok(Exit::Done);
    }
    patch::send(app, &changes).await?;
    let written = get(&of_kind(app), &format!("backuprepo/{name}")).await?;
    manifest::announce(ui, &[written], "updated", args.write.output)?;
    if tested && args.wait.wait != Some(false) {
        super::check::request_and_wait(ui, app, name, args.wait.limit()).await?;
        ui.say(&ui.marked(Mark::Good, &format!("backuprepo/{name} is ready")));
    }
    Ok(Exit::Done)
}

/// What was given, as credentials and as configuration.
async fn sorted(
    app: &App,
    repo: &BackupRepo,
    given: build::Parameters,
) -> Result<(build::Parameters, build::Parameters)> {
    let provider: StorageProvider =
        get(&app.everywhere(), &format!("storageprovider/{}", repo.spec.storage_provider_ref)).await?;
    let known = build::parameters(&provider);
    let mut whole = repo.spec.config.clone();
    whole.extend(given.clone());
    let wrong = build::problems(&known, &whole, true);
    if !wrong.is_empty() {
        return Err(CliError::usage(format!("backuprepo/{} cannot be changed so", repo.name_any()), wrong.join("; ")));
    }
    let secret = |key: &String| known.iter().any(|parameter| parameter.name == *key && parameter.secret);
    Ok(given.into_iter().partition(|(key, _)| secret(key)))
}

/// The change of the repository's Secret.
async fn secret(app: &App, repo: &BackupRepo, secrets: &build::Parameters, dry_run: DryRun) -> Result<Change> {
    let reference = repo.spec.credential.as_ref();
    let found = reference.and_then(|credential| Some((credential.name.clone()?, credential.namespace.clone()?)));
    let Some((name, namespace)) = found else {
        return Err(CliError::usage(
            format!("backuprepo/{} has no credential Secret", repo.name_any()),
            "make a new repository with credentials",
        ));
    };
    let kind = ApiResource::erase::<Secret>(&());
    let api = Api::namespaced_with(app.client.clone(), &namespace, &kind);
    // Who may change keys need not be one who may read them.
    let present = match dry_run {
        DryRun::Client => get(&api, &format!("secret/{name}")).await?,
        _ => DynamicObject::new(&name, &kind),
    };
    Ok(Change { api, present, patch: json!({"stringData": secrets}), as_read: false })
}

fn of_kind(app: &App) -> Api<DynamicObject> {
    Api::all_with(app.client.clone(), &ApiResource::erase::<BackupRepo>(&()))
}

async fn of(app: &App, name: &str, patch: Value) -> Result<Change> {
    let api = of_kind(app);
    let present = get(&api, &format!("backuprepo/{name}")).await?;
    Ok(Change { api, present, patch, as_read: false })
}

/// The patch that gives or takes the default mark. In so many words: what a manifest says nothing of, `kubectl apply` leaves
/// as it is.
fn mark(default: bool) -> Value {
    let value = if default { TRUE } else { "false" };
    json!({"metadata": {"annotations": {annotations::IS_DEFAULT_REPO: value}}})
}

/// Moves the default mark, to the new one first.
pub(super) async fn move_default(app: &App, to: &str, from: &[String]) -> Result<()> {
    let mut changes = vec![of(app, to, mark(true)).await?];
    for other in from.iter().filter(|other| *other != to) {
        changes.push(of(app, other, mark(false)).await?);
    }
    patch::send(app, &changes).await.map(drop)
}
