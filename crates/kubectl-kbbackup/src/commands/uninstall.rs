//! `uninstall`: the operator goes; definitions, backups and data stay unless told otherwise.

use std::time::Duration;

use clap::Args;
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, StatefulSet},
        core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount},
        rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kbbackup_api::{
    apps::{self, Cluster},
    names::{FINALIZER, labels},
    v1alpha1::BackupRepo,
};
use kube::{
    Api, Resource, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::Instant;

use super::repo;
use crate::{
    app::{App, PART_OPERATOR, PART_STORE, list_all},
    args::DryRun,
    ask,
    error::{CliError, Doing, Result},
    exit::Exit,
    install::{self, store},
    output::human,
    ui::Ui,
};

/// The operator gets 30 seconds to end; a node that is gone may hold its pod for longer.
const OPERATOR_ENDS: Duration = Duration::from_secs(90);

/// Remove the operator; definitions, backups and their data stay
///
/// A later install finds everything again.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup uninstall
  kubectl kbbackup uninstall --delete-embedded-data
  kubectl kbbackup uninstall --delete-crds --dry-run
  kubectl kbbackup uninstall --delete-crds --yes")]
#[allow(clippy::struct_excessive_bools)] // each is a flag
pub(crate) struct UninstallArgs {
    /// Remove the definitions as well, and with them every Backup, policy and schedule object; data in repositories stays
    #[arg(long)]
    pub delete_crds: bool,

    /// Remove the embedded repository with everything that lies in it
    #[arg(long)]
    pub delete_embedded_data: bool,

    /// Don't ask
    #[arg(short, long)]
    pub yes: bool,

    /// Only say what would go
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_value = "none", default_missing_value = "client", hide_default_value = true, hide_possible_values = true, value_name = "WHERE")]
    pub dry_run: DryRun,
}

/// Removes objects, or only says which.
struct Hand<'a> {
    ui: &'a Ui,
    dry: bool,
}

pub(crate) async fn run(ui: &Ui, app: &App, args: &UninstallArgs) -> Result<Exit> {
    let operator = app.operator().await?;
    let namespace = app.operator_namespace().await;
    if let (None, Some(elsewhere)) = (&operator, app.operator_anywhere().await?) {
        let place = elsewhere.namespace().unwrap_or_default();
        let why = format!("there is one in namespace {place}, and it would lose its rights");
        return Err(CliError::usage(format!("there is no operator in namespace {namespace}"), why)
            .hint(format!("kubectl kbbackup uninstall --operator-namespace {place}")));
    }
    let hand = &Hand { ui, dry: args.dry_run != DryRun::None };
    let yes = args.yes || hand.dry;
    if args.delete_embedded_data {
        let backups = repo::backups_in(app, store::REPO).await.unwrap_or_default();
        let question =
            format!("Erase the embedded repository and {} in it?", human::count(backups.len(), "backup", "backups"));
        ask::confirm(ui, yes, &question, Some(store::REPO))?;
    }
    let objects = if args.delete_crds { custom_objects(app).await? } else { Vec::new() };
    if args.delete_crds {
        let count = objects.len().to_string();
        ask::confirm(ui, yes, &format!("Remove the definitions and {count} objects of theirs?"), Some(&count))?;
    }
    if !args.delete_crds && !args.delete_embedded_data {
        match &operator {
            Some(_) => ask::confirm(ui, yes, &format!("Remove the operator from namespace {namespace}?"), None)?,
            None if has_rights(app).await? => {
                ask::confirm(ui, yes, "Remove what is left of the operator, in all of the cluster?", None)?;
            }
            None => {}
        }
    }
    if operator.is_none() {
        ui.say("the operator is not installed");
    }
    let mut gone = 0;
    gone += hand.remove_part::<Deployment>(&app.within(&namespace), PART_OPERATOR).await?;
    gone += hand.remove_part::<Service>(&app.within(&namespace), PART_OPERATOR).await?;
    gone += hand.remove_part::<ConfigMap>(&app.within(&namespace), PART_OPERATOR).await?;
    gone += hand.remove_part::<RoleBinding>(&app.within(&namespace), PART_OPERATOR).await?;
    gone += hand.remove_part::<Role>(&app.within(&namespace), PART_OPERATOR).await?;
    gone += hand.remove_part::<ServiceAccount>(&app.within(&namespace), PART_OPERATOR).await?;
    gone += hand.remove_part::<ClusterRoleBinding>(&app.everywhere(), PART_OPERATOR).await?;
    gone += hand.remove_part::<ClusterRole>(&app.everywhere(), PART_OPERATOR).await?;
    let kubeblocks = !hand.dry && serves_clusters(app).await?;
    if !hand.dry && (args.delete_embedded_data || args.delete_crds || kubeblocks) {
        operator_ended(ui, app, &namespace).await?;
    }
    if kubeblocks {
        release_clusters(ui, app).await?;
    }
    if args.delete_embedded_data {
        gone += hand.embedded(app, &namespace).await?;
    }
    if args.delete_crds {
        gone += hand.definitions(app, &objects).await?;
    }
    if gone == 0 {
        ui.say("nothing was left to remove");
    }
    if !args.delete_crds {
        ui.say("definitions and backups stay");
    }
    Ok(Exit::Done)
}

/// Whether roles of an operator that is not there any more are left.
async fn has_rights(app: &App) -> Result<bool> {
    let params = ListParams::default().labels(&format!("{}={PART_OPERATOR}", labels::PART));
    let roles = list_all(&app.everywhere::<ClusterRole>(), params.clone(), "clusterroles").await?;
    let bindings = list_all(&app.everywhere::<ClusterRoleBinding>(), params, "clusterrolebindings").await?;
    Ok(!roles.is_empty() || !bindings.is_empty())
}

/// Waits until no pod of the operator is left: one that still runs would take the end of a catalogue for the wish to erase
/// its data.
async fn operator_ended(ui: &Ui, app: &App, namespace: &str) -> Result<()> {
    let params = ListParams::default().labels(&format!("{}={PART_OPERATOR}", labels::PART));
    let end = Instant::now() + OPERATOR_ENDS;
    while Instant::now() < end {
        let pods = list_all(&app.within::<Pod>(namespace), params.clone(), "pods").await?;
        // A pod that was never placed on a node runs nowhere.
        if pods.iter().all(|pod| pod.spec.as_ref().is_none_or(|spec| spec.node_name.is_none())) {
            return Ok(());
        }
        ui.progress_if_live("waiting for the operator to end");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Err(CliError::failed("the operator does not end", "its pod is still there; definitions and data stay")
        .hint(format!("kubectl get pods -n {namespace}")))
}

impl Hand<'_> {
    /// Deletes all objects of a kind that carry the label of a part.
    async fn remove_part<K>(&self, api: &Api<K>, part: &str) -> Result<usize>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        let kind = K::kind(&()).to_lowercase();
        let selector = format!("{}={part}", labels::PART);
        let all = list_all(api, ListParams::default().labels(&selector), &format!("{kind}s")).await?;
        for object in &all {
            self.remove(api, &kind, &object.name_any()).await?;
        }
        Ok(all.len())
    }

    async fn remove<K>(&self, api: &Api<K>, kind: &str, name: &str) -> Result<()>
    where
        K: Clone + DeserializeOwned + std::fmt::Debug,
    {
        if self.dry {
            self.ui.result(&format!("{kind}/{name} would be deleted"));
            return Ok(());
        }
        match api.delete(name, &DeleteParams::background()).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(error) => Err(error).doing(|| format!("{kind}/{name} cannot be deleted")),
            Ok(_) => {
                self.ui.result(&format!("{kind}/{name} deleted"));
                Ok(())
            }
        }
    }

    /// The store with its volume and keys. The repository object has no controller any more that would release it.
    async fn embedded(&self, app: &App, namespace: &str) -> Result<usize> {
        let mut gone = self.remove_part::<StatefulSet>(&app.within(namespace), PART_STORE).await?;
        gone += self.remove_part::<Service>(&app.within(namespace), PART_STORE).await?;
        gone += self.remove_part::<Secret>(&app.within(namespace), PART_STORE).await?;
        gone += self.remove_part::<PersistentVolumeClaim>(&app.within(namespace), PART_STORE).await?;
        let api = app.everywhere::<BackupRepo>();
        if let Ok(Some(found)) = api.get_opt(store::REPO).await {
            if !self.dry {
                release(&api, &found).await?;
            }
            self.remove(&api, "backuprepo", store::REPO).await?;
            gone += 1;
        }
        Ok(gone)
    }

    /// Releases the objects first: with the operator gone a finalizer would hold the definitions for ever, and no data in a
    /// repository may be erased just because its catalogue goes.
    async fn definitions(&self, app: &App, objects: &[(ApiResource, DynamicObject)]) -> Result<usize> {
        let operator = if self.dry { None } else { app.operator().await? };
        if operator.is_some_and(|operator| operator.metadata.deletion_timestamp.is_none()) {
            return Err(CliError::refused("the definitions stay", "the operator still runs and would erase data"));
        }
        for (resource, object) in objects {
            if self.dry {
                let within = object.namespace().map(|name| format!("{name}/")).unwrap_or_default();
                let kind = resource.kind.to_lowercase();
                self.ui.result(&format!("{kind} {within}{} would be deleted", object.name_any()));
                continue;
            }
            let api: Api<DynamicObject> = match object.namespace() {
                Some(namespace) => Api::namespaced_with(app.client.clone(), &namespace, resource),
                None => Api::all_with(app.client.clone(), resource),
            };
            release(&api, object).await?;
        }
        let api = app.everywhere::<CustomResourceDefinition>();
        let crds = install::crds()?;
        for crd in &crds {
            self.remove(&api, "customresourcedefinition", crd.name()).await?;
        }
        Ok(crds.len())
    }
}

/// Takes the finalizers off, as nobody is left to answer them.
async fn release<K: ResourceExt + Clone + DeserializeOwned + std::fmt::Debug>(api: &Api<K>, object: &K) -> Result<()> {
    if object.finalizers().is_empty() {
        return Ok(());
    }
    let name = object.name_any();
    let patch = json!({"metadata": {"finalizers": null}});
    match api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other.map(|_| ()).doing(|| format!("{name} cannot be released")),
    }
}

/// Whether there is a kind of which our finalizer may hold objects.
async fn serves_clusters(app: &App) -> Result<bool> {
    let named = ListParams::default().fields(&format!("metadata.name={}", apps::CLUSTERS));
    let found = list_all(&app.everywhere::<CustomResourceDefinition>(), named, "definitions").await?;
    let version = Cluster::version(&());
    Ok(found.iter().flat_map(|found| &found.spec.versions).any(|offered| offered.name == version && offered.served))
}

/// KubeBlocks' Clusters are not ours: without the operator nobody would let them go any more.
async fn release_clusters(ui: &Ui, app: &App) -> Result<()> {
    let all = list_all(&app.everywhere::<Cluster>(), ListParams::default(), "clusters").await?;
    for cluster in all.iter().filter(|cluster| cluster.finalizers().iter().any(|name| name == FINALIZER)) {
        let (name, namespace) = (cluster.name_any(), cluster.namespace().unwrap_or_default());
        let others: Vec<_> = cluster.finalizers().iter().filter(|finalizer| *finalizer != FINALIZER).collect();
        // Without the version that we read, a finalizer that somebody adds meanwhile would be lost.
        let patch = json!({"metadata": {"finalizers": others, "resourceVersion": cluster.resource_version()}});
        let api = app.within::<Cluster>(&namespace);
        match api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            other => {
                other.map(|_| ()).doing(|| format!("cluster {namespace}/{name} cannot be released"))?;
                ui.say(&format!("cluster {namespace}/{name} is released"));
            }
        }
    }
    Ok(())
}

/// Every object of our kinds, with the way to reach it.
async fn custom_objects(app: &App) -> Result<Vec<(ApiResource, DynamicObject)>> {
    let mut all = Vec::new();
    for crd in install::crds()? {
        let definition: CustomResourceDefinition =
            match app.everywhere::<CustomResourceDefinition>().get_opt(crd.name()).await {
                Ok(Some(definition)) => definition,
                _ => continue,
            };
        let resource = ApiResource {
            group: definition.spec.group.clone(),
            version: "v1alpha1".to_owned(),
            api_version: format!("{}/v1alpha1", definition.spec.group),
            kind: definition.spec.names.kind.clone(),
            plural: definition.spec.names.plural.clone(),
        };
        let api: Api<DynamicObject> = Api::all_with(app.client.clone(), &resource);
        let objects = list_all(&api, ListParams::default(), &resource.plural).await?;
        all.extend(objects.into_iter().map(|object| (resource.clone(), object)));
    }
    Ok(all)
}
