//! `install`: definitions, operator, providers, action sets, and a repository to start with. And `upgrade`: the same for what
//! is there.

mod embedded;
mod rollout;
pub(crate) mod upgrade;

use clap::Args;
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;

use self::rollout::RolloutArgs;
use super::repo;
use crate::{
    app::{App, DEFAULT_OPERATOR_NAMESPACE, check_name},
    args::DryRun,
    error::{CliError, Result},
    exit::Exit,
    install::{self, Settings, VERSION, present::Present},
    manifest::{self, How, Manifest},
    ui::Ui,
};

/// Install the operator, its definitions, storage providers and action sets, and a repository to start with
///
/// Everything is written by server-side apply and can be repeated; images that were chosen before are kept. --dry-run
/// prints it all.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup install
  kubectl kbbackup install --embedded-repo --embedded-size 50Gi
  kubectl kbbackup install --embedded-repo=false --no-input
  kubectl kbbackup install --dry-run -o yaml > kbbackup.yaml")]
pub(crate) struct InstallArgs {
    /// Only the definitions
    #[arg(long)]
    pub crds_only: bool,

    /// Make a repository inside this cluster: an S3 store on one volume [default: asked, when there is no repository]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true)]
    pub embedded_repo: Option<bool>,

    /// Size of its volume
    #[arg(long, default_value = "20Gi", value_name = "SIZE")]
    pub embedded_size: String,

    /// Storage class of its volume [default: the cluster's default]
    #[arg(long, value_name = "NAME")]
    pub embedded_storage_class: Option<String>,

    #[command(flatten)]
    pub rollout: RolloutArgs,
}

pub(crate) async fn run(ui: &Ui, app: &App, args: &InstallArgs) -> Result<Exit> {
    let settings = settings(ui, app, args).await?;
    let crds = install::crds()?;
    let dry = args.rollout.write.dry_run;
    if dry == DryRun::Client {
        // Complete and without a question: what `kubectl apply` would need.
        manifest::previewed(app, ui, &everything(app, args, &settings, crds).await?, How::Apply, &args.rollout.write)
            .await?;
        return Ok(Exit::Done);
    }
    rollout::refuse_foreign(ui, app, args.rollout.adopt_crds, &crds).await?;
    if dry == DryRun::Server {
        let manifests =
            if rollout::definitions_exist(app, &crds).await && namespace_exists(app, &settings.namespace).await {
                everything(app, args, &settings, crds).await?
            } else {
                ui.warn("the server can only judge the definitions until they, and the namespace, exist");
                crds
            };
        manifest::previewed(app, ui, &manifests, How::Apply, &args.rollout.write).await?;
        return Ok(Exit::Done);
    }

    rollout::definitions(ui, app, &crds, args.rollout.write.output).await?;
    if args.crds_only {
        return Ok(Exit::Done);
    }
    rollout::operator(ui, app, &settings, args.rollout.write.output, &args.rollout.wait).await?;
    let repos = repo::all(app).await?;
    if embedded::wanted(ui, args, &repos)? {
        embedded::make(ui, app, args, &settings, &repos).await?;
    }
    ui.equivalent();
    next_steps(ui, app).await;
    Ok(Exit::Done)
}

async fn settings(ui: &Ui, app: &App, args: &InstallArgs) -> Result<Settings> {
    let operator = app.operator().await.ok().flatten();
    // `-n` means the namespace of the operator here: nothing else is installed.
    let namespace = if app.namespace_given() {
        app.namespace.clone()
    } else {
        let found = operator.as_ref().and_then(ResourceExt::namespace);
        found.unwrap_or_else(|| DEFAULT_OPERATOR_NAMESPACE.to_owned())
    };
    check_name("namespace", &namespace)?;
    kbbackup_core::layout::parse_size(&args.embedded_size).ok_or_else(|| {
        CliError::usage(format!("--embedded-size {} is not a size", args.embedded_size), "write it as 20Gi")
    })?;
    let here = operator.filter(|operator| operator.namespace().as_deref() == Some(&namespace));
    let present = here.as_ref().map(Present::of).unwrap_or_default();
    if let Some(version) = present.version.as_ref().filter(|_| present.is_newer()) {
        ui.warn(&format!("the operator is of version {version}, newer than what this plugin installs, {VERSION}"));
    }
    Ok(args.rollout.settings(namespace, &present))
}

async fn everything(app: &App, args: &InstallArgs, settings: &Settings, crds: Vec<Manifest>) -> Result<Vec<Manifest>> {
    let mut manifests = crds;
    if args.crds_only {
        return Ok(manifests);
    }
    manifests.extend(install::operator(settings)?);
    manifests.extend(install::catalogue()?);
    if args.embedded_repo == Some(true) {
        // Where nobody can be asked there is none yet.
        let default = repo::all(app).await.map_or(true, |repos| embedded::may_be_default(&repos));
        let (store, repo) = embedded::planned(app, args, settings, default).await?;
        manifests.extend(store);
        manifests.push(repo);
    }
    Ok(manifests)
}

async fn namespace_exists(app: &App, name: &str) -> bool {
    matches!(app.everywhere::<Namespace>().get_opt(name).await, Ok(Some(_)))
}

async fn next_steps(ui: &Ui, app: &App) {
    if repo::all(app).await.is_ok_and(|repos| repos.is_empty()) {
        ui.hint("kubectl kbbackup repo create");
    }
    ui.hint("kubectl kbbackup backup statefulset/NAME --wait");
}
