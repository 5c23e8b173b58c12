//! How an installation is brought to a cluster: definitions first, then what needs them, then it is waited for.

use std::time::Duration;

use clap::Args;
use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::Pod},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{ResourceExt, api::ListParams};

use crate::{
    app::{App, list_all},
    args::{WaitArgs, WriteArgs},
    diagnose,
    error::{CliError, Result},
    exit::Exit,
    install::{self, Settings, foreign, present::Present},
    manifest::{self, How, Manifest},
    output::{Format, human},
    ui::{Mark, Ui},
    wait::{self, Seen, Waiting},
};

/// How long images may take to be pulled and pods to start, unless told otherwise.
pub(super) const USUAL_LIMIT: Duration = Duration::from_secs(300);

/// What installing and upgrading are told alike.
#[derive(Clone, Debug, Args)]
pub(crate) struct RolloutArgs {
    /// Image of the operator
    #[arg(long, value_name = "IMAGE")]
    pub controller_image: Option<String>,

    /// Image of the data mover
    #[arg(long, value_name = "IMAGE")]
    pub mover_image: Option<String>,

    /// When images are pulled: Always, IfNotPresent or Never
    #[arg(long, value_name = "POLICY", value_parser = ["Always", "IfNotPresent", "Never"], hide_possible_values = true)]
    pub image_pull_policy: Option<String>,

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

impl RolloutArgs {
    /// The settings that were asked for, and the rest as it is.
    pub(super) fn settings(&self, namespace: String, present: &Present) -> Settings {
        present.keep(Settings {
            namespace,
            controller_image: self.controller_image.clone(),
            mover_image: self.mover_image.clone(),
            pull_policy: self.image_pull_policy.clone(),
        })
    }
}

/// Stops where somebody else looks after the same kinds, unless they are to be taken over.
pub(super) async fn refuse_foreign(ui: &Ui, app: &App, adopt: bool, crds: &[Manifest]) -> Result<()> {
    let names: Vec<String> = crds.iter().map(|crd| crd.name().to_owned()).collect();
    let foreign = foreign::look(app, &names).await?;
    if foreign.is_empty() {
        return Ok(());
    }
    if adopt {
        ui.warn(&format!("taking over: {}", foreign.describe()));
        return Ok(());
    }
    Err(CliError::refused("this cluster's backups are looked after already", foreign.describe())
        .hint("the plugin works with that installation as it is; try kubectl kbbackup doctor")
        .hint("add --adopt-crds to take over, after its controller was scaled to zero"))
}

pub(super) async fn definitions_exist(app: &App, crds: &[Manifest]) -> bool {
    let api = app.everywhere::<CustomResourceDefinition>();
    for crd in crds {
        if !matches!(api.get_opt(crd.name()).await, Ok(Some(_))) {
            return false;
        }
    }
    true
}

/// Definitions, until their kinds are served.
pub(super) async fn definitions(ui: &Ui, app: &App, crds: &[Manifest], output: Option<Format>) -> Result<()> {
    apply(ui, app, crds, output).await?;
    established(app, crds).await?;
    ui.say(&ui.marked(Mark::Good, &human::count(crds.len(), "definition", "definitions")));
    Ok(())
}

/// Operator, providers and action sets; waits for the operator unless told not to.
pub(super) async fn operator(
    ui: &Ui,
    app: &App,
    settings: &Settings,
    output: Option<Format>,
    wait: &WaitArgs,
) -> Result<()> {
    apply(ui, app, &install::operator(settings)?, output).await?;
    let catalogue = install::catalogue()?;
    apply(ui, app, &catalogue, output).await?;
    let providers = catalogue.iter().filter(|manifest| manifest.kind() == "StorageProvider").count();
    ui.say(&ui.marked(
        Mark::Good,
        &format!(
            "{}, {}",
            human::count(providers, "storage provider", "storage providers"),
            human::count(catalogue.len() - providers, "action set", "action sets")
        ),
    ));
    if wait.wait != Some(false) {
        operator_ready(ui, app, &settings.namespace, wait.limit_or(USUAL_LIMIT)).await?;
        ui.say(&ui.marked(Mark::Good, &format!("the operator runs in namespace {}", settings.namespace)));
    }
    Ok(())
}

pub(super) async fn apply(ui: &Ui, app: &App, manifests: &[Manifest], output: Option<Format>) -> Result<()> {
    let mut written = Vec::with_capacity(manifests.len());
    for manifest in manifests {
        ui.progress_if_live(&format!("applying {}", manifest.short()));
        written.push(manifest::send(app, manifest, How::Apply, false).await?);
    }
    ui.clear();
    if output.is_some() {
        manifest::announce(ui, &written, "applied", output)?;
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
    let waiting = Waiting { what: &what, limit, hints };
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
pub(super) async fn pod_troubles(ui: &Ui, app: &App, namespace: &str) {
    let pods = list_all(&app.within::<Pod>(namespace), ListParams::default(), "pods").await.unwrap_or_default();
    for pod in &pods {
        for (container, why) in diagnose::troubles(pod) {
            ui.say(&format!("pod/{} {container}: {why}", pod.name_any()));
        }
    }
}
