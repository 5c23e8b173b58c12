//! `install`: definitions, operator, providers, action sets, and a repository to start with.

mod embedded;

use std::time::Duration;

use clap::Args;
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{Namespace, Pod},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{ResourceExt, api::ListParams};

use super::repo;
use crate::{
    app::{App, DEFAULT_OPERATOR_NAMESPACE, check_name, list_all},
    args::{DryRun, WaitArgs, WriteArgs},
    diagnose,
    error::{CliError, Result},
    exit::Exit,
    install::{self, Settings, foreign, store},
    manifest::{self, How, Manifest},
    output::human,
    ui::{Mark, Ui},
    wait::{self, Seen, Waiting},
};

/// Install the operator, its definitions, storage providers and action sets, and a repository to start with
///
/// Everything is written by server-side apply and can be repeated; a newer plugin upgrades. --dry-run prints it all.
#[derive(Clone, Debug, Args)]
#[command(
    visible_alias = "upgrade",
    after_help = "Examples:
  kubectl kbbackup install
  kubectl kbbackup install --embedded-repo --embedded-size 50Gi
  kubectl kbbackup install --embedded-repo=false --no-input
  kubectl kbbackup install --dry-run -o yaml > kbbackup.yaml"
)]
pub(crate) struct InstallArgs {
    /// Only the definitions
    #[arg(long)]
    pub crds_only: bool,

    /// Image of the operator
    #[arg(long, value_name = "IMAGE")]
    pub controller_image: Option<String>,

    /// Image of the data mover
    #[arg(long, value_name = "IMAGE")]
    pub mover_image: Option<String>,

    /// When images are pulled: Always, IfNotPresent or Never
    #[arg(long, value_name = "POLICY", value_parser = ["Always", "IfNotPresent", "Never"], hide_possible_values = true)]
    pub image_pull_policy: Option<String>,

    /// Make a repository inside this cluster: an S3 store on one volume [default: asked, when there is no repository]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true)]
    pub embedded_repo: Option<bool>,

    /// Size of its volume
    #[arg(long, default_value = "20Gi", value_name = "SIZE")]
    pub embedded_size: String,

    /// Storage class of its volume [default: the cluster's default]
    #[arg(long, value_name = "NAME")]
    pub embedded_storage_class: Option<String>,

    /// Take over definitions that belong to somebody else, such as KubeBlocks
    #[arg(long)]
    pub adopt_crds: bool,

    /// Don't ask
    #[arg(short, long)]
    pub yes: bool,

    #[command(flatten)]
    pub wait: WaitArgs,

    #[command(flatten)]
    pub write: WriteArgs,
}

pub(crate) async fn run(ui: &Ui, app: &App, args: &InstallArgs) -> Result<Exit> {
    let settings = settings(app, args).await?;
    let crds = install::crds()?;
    let dry = args.write.dry_run;
    if dry == DryRun::Client {
        // Complete and without a question: what `kubectl apply` would need.
        manifest::previewed(app, ui, &everything(args, &settings, crds)?, How::Apply, &args.write).await?;
        return Ok(Exit::Done);
    }
    refuse_foreign(ui, app, args, &crds).await?;
    if dry == DryRun::Server {
        let manifests = if definitions_exist(app, &crds).await && namespace_exists(app, &settings.namespace).await {
            everything(args, &settings, crds)?
        } else {
            ui.warn("the server can only judge the definitions until they, and the namespace, exist");
            crds
        };
        manifest::previewed(app, ui, &manifests, How::Apply, &args.write).await?;
        return Ok(Exit::Done);
    }

    let limit = args.wait.limit();
    apply(ui, app, &crds, args).await?;
    established(app, &crds).await?;
    ui.say(&ui.marked(Mark::Good, &human::count(crds.len(), "definition", "definitions")));
    if args.crds_only {
        return Ok(Exit::Done);
    }
    apply(ui, app, &install::operator(&settings)?, args).await?;
    let catalogue = install::catalogue()?;
    apply(ui, app, &catalogue, args).await?;
    let providers = catalogue.iter().filter(|manifest| manifest.kind() == "StorageProvider").count();
    ui.say(&ui.marked(
        Mark::Good,
        &format!(
            "{}, {}",
            human::count(providers, "storage provider", "storage providers"),
            human::count(catalogue.len() - providers, "action set", "action sets")
        ),
    ));
    let waits = args.wait.wait != Some(false);
    if waits {
        operator_ready(ui, app, &settings.namespace, limit).await?;
        ui.say(&ui.marked(Mark::Good, &format!("the operator runs in namespace {}", settings.namespace)));
    }
    let repos = repo::all(app).await?;
    if embedded::wanted(ui, args, &repos)? {
        embedded::make(ui, app, args, &settings, &repos, waits).await?;
    }
    next_steps(ui, app).await;
    Ok(Exit::Done)
}

async fn settings(app: &App, args: &InstallArgs) -> Result<Settings> {
    // `-n` means the namespace of the operator here: nothing else is installed.
    let namespace = if app.namespace_given() {
        app.namespace.clone()
    } else {
        app.operator()
            .await
            .ok()
            .flatten()
            .and_then(|operator| operator.namespace())
            .unwrap_or_else(|| DEFAULT_OPERATOR_NAMESPACE.to_owned())
    };
    check_name("namespace", &namespace)?;
    kbbackup_core::layout::parse_size(&args.embedded_size).ok_or_else(|| {
        CliError::usage(format!("--embedded-size {} is not a size", args.embedded_size), "write it as 20Gi")
    })?;
    Ok(Settings {
        namespace,
        controller_image: args.controller_image.clone(),
        mover_image: args.mover_image.clone(),
        pull_policy: args.image_pull_policy.clone(),
    })
}

fn everything(args: &InstallArgs, settings: &Settings, crds: Vec<Manifest>) -> Result<Vec<Manifest>> {
    let mut manifests = crds;
    if args.crds_only {
        return Ok(manifests);
    }
    manifests.extend(install::operator(settings)?);
    manifests.extend(install::catalogue()?);
    if args.embedded_repo == Some(true) {
        let wish = embedded::wish(args, true);
        manifests.extend(store::store(settings, &wish, &embedded::new_keys()));
        manifests.push(store::repo(settings, &wish));
    }
    Ok(manifests)
}

async fn refuse_foreign(ui: &Ui, app: &App, args: &InstallArgs, crds: &[Manifest]) -> Result<()> {
    let names: Vec<String> = crds.iter().map(|crd| crd.name().to_owned()).collect();
    let foreign = foreign::look(app, &names).await?;
    if foreign.is_empty() {
        return Ok(());
    }
    if args.adopt_crds {
        ui.warn(&format!("taking over: {}", foreign.describe()));
        return Ok(());
    }
    Err(CliError::refused("this cluster's backups are looked after already", foreign.describe())
        .hint("the plugin works with that installation as it is; try kubectl kbbackup doctor")
        .hint("add --adopt-crds to take over, after its controller was scaled to zero"))
}

async fn definitions_exist(app: &App, crds: &[Manifest]) -> bool {
    let api = app.everywhere::<CustomResourceDefinition>();
    for crd in crds {
        if !matches!(api.get_opt(crd.name()).await, Ok(Some(_))) {
            return false;
        }
    }
    true
}

async fn namespace_exists(app: &App, name: &str) -> bool {
    matches!(app.everywhere::<Namespace>().get_opt(name).await, Ok(Some(_)))
}

async fn apply(ui: &Ui, app: &App, manifests: &[Manifest], args: &InstallArgs) -> Result<()> {
    let mut written = Vec::with_capacity(manifests.len());
    for manifest in manifests {
        ui.progress_if_live(&format!("applying {}", manifest.short()));
        written.push(manifest::send(app, manifest, How::Apply, false).await?);
    }
    ui.clear();
    if args.write.output.is_some() {
        manifest::announce(ui, &written, "applied", args.write.output)?;
    }
    Ok(())
}

/// Definitions take a moment until their kinds are served.
async fn established(app: &App, crds: &[Manifest]) -> Result<()> {
    use kube::runtime::{conditions::is_crd_established, wait::await_condition};
    let api = app.everywhere::<CustomResourceDefinition>();
    for crd in crds {
        let ready = await_condition(api.clone(), crd.name(), is_crd_established());
        match tokio::time::timeout(Duration::from_secs(60), ready).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                return Err(CliError::refused(format!("{} cannot be watched", crd.short()), error.to_string()));
            }
            Err(_) => {
                return Err(CliError::failed(
                    format!("{} is not served", crd.short()),
                    "not established after a minute",
                )
                .hint(format!("kubectl describe crd {}", crd.name())));
            }
        }
    }
    Ok(())
}

async fn operator_ready(ui: &Ui, app: &App, namespace: &str, limit: Option<Duration>) -> Result<()> {
    let operator = app.operator().await?.ok_or_else(|| {
        CliError::failed("the operator was not installed", "its Deployment is not among the applied objects")
    })?;
    let name = operator.name_any();
    let what = format!("deployment/{name}");
    let hints =
        vec![format!("kubectl get pods -n {namespace}"), format!("kubectl logs -n {namespace} deployment/{name}")];
    let waiting = Waiting { what: &what, limit: limit.or(Some(Duration::from_secs(300))), hints };
    let ready =
        wait::until(ui, app.within::<Deployment>(namespace), &name, &waiting, |deployment: Option<&Deployment>| {
            let Some(deployment) = deployment else { return Seen::Going(format!("{what}: gone")) };
            let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
            let status = deployment.status.clone().unwrap_or_default();
            let current = status.observed_generation >= deployment.metadata.generation;
            let updated = status.updated_replicas.unwrap_or(0);
            let available = status.available_replicas.unwrap_or(0);
            if current && updated >= wanted && available >= wanted && status.replicas.unwrap_or(0) == updated {
                Seen::End(())
            } else {
                Seen::Going(format!("{what}: {available} of {wanted} ready"))
            }
        })
        .await;
    if let Err(error) = &ready
        && error.exit == Exit::Timeout
    {
        pod_troubles(ui, app, namespace).await;
    }
    ready
}

/// Why pods of the installation don't start, as far as their status says it.
async fn pod_troubles(ui: &Ui, app: &App, namespace: &str) {
    let pods = list_all(&app.within::<Pod>(namespace), ListParams::default(), "pods").await.unwrap_or_default();
    for pod in &pods {
        for (container, why) in diagnose::troubles(pod) {
            ui.say(&format!("pod/{} {container}: {why}", pod.name_any()));
        }
    }
}

async fn next_steps(ui: &Ui, app: &App) {
    if repo::all(app).await.is_ok_and(|repos| repos.is_empty()) {
        ui.hint("kubectl kbbackup repo create");
    }
    ui.hint("kubectl kbbackup backup statefulset/NAME --wait");
}
