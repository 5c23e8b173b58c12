//! Everything that the populator reads.

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kbbackup_api::names::{annotations, labels};
use kbbackup_api::v1alpha1::{
    Backup, BackupPhase, BackupRef, BackupType, DataRestorePolicy, EmbeddedObjectMeta, PrepareDataConfig,
    RequiredPolicyForAllPodSelection, Restore, RestorePhase, RestoreSpec, RestoreVolumeClaim, SourceOfOneToMany,
    VolumeClaimRestorePolicy, VolumeConfig,
};
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use super::build::{self, Filling};
use super::choose::{self, Choice};
use super::decide;
use super::wish::{self, Source, Wish};
use super::{grant, kubeblocks};
use crate::context::Context;
use crate::restore::{lineage, observe as restore_observe, sets};
use crate::worker::error::{A_WHILE, Doing as _, Error, LONG, Refusal, SOON};

/// The claims of a namespace.
pub fn claims(ctx: &Context, namespace: &str) -> Api<PersistentVolumeClaim> {
    Api::namespaced(ctx.client.clone(), namespace)
}

/// The objects by which a claim is filled.
#[derive(Clone, Debug, Default)]
pub struct Children {
    /// The object with the temporary claim's name.
    pub temporary: Option<PersistentVolumeClaim>,
    /// The object with the internal Restore's name.
    pub restore: Option<Restore>,
    /// The volume of the claim, else that of the temporary claim.
    pub volume: Option<PersistentVolume>,
}

impl Children {
    /// Reads them for `claim`.
    ///
    /// # Errors
    /// Those of the API server.
    pub async fn of(ctx: &Context, claim: &PersistentVolumeClaim) -> Result<Self, Error> {
        let (name, namespace) = (build::name(claim), claim.namespace().unwrap_or_default());
        let restores = Api::<Restore>::namespaced(ctx.client.clone(), &namespace);
        let claims = claims(ctx, &namespace);
        let (temporary, restore) = tokio::try_join!(claims.get_opt(&name), restores.get_opt(&name))
            .doing(|| format!("looking for the temporary claim and the restore {name}"))?;
        let volume = match volume_name(claim).or_else(|| temporary.as_ref().and_then(volume_name)) {
            None => None,
            Some(name) => Api::<PersistentVolume>::all(ctx.client.clone())
                .get_opt(&name)
                .await
                .doing(|| format!("reading persistentvolume {name}"))?,
        };
        Ok(Self { temporary, restore, volume })
    }

    /// For [`decide`].
    pub fn seen<'a>(&'a self, claim: &'a PersistentVolumeClaim) -> decide::Seen<'a> {
        decide::Seen {
            claim,
            temporary: self.temporary.as_ref(),
            restore: self.restore.as_ref(),
            volume: self.volume.as_ref(),
        }
    }
}

fn volume_name(claim: &PersistentVolumeClaim) -> Option<String> {
    claim.spec.as_ref()?.volume_name.clone().filter(|name| !name.is_empty())
}

/// What a claim that is to be filled rests on.
#[derive(Clone, Debug)]
pub struct Ground {
    /// What fills it.
    pub filling: Filling,
    /// The backup, when the claim names one itself.
    pub backup: Option<Backup>,
    /// What has to happen first; not a fault.
    pub waiting_for: Option<String>,
}

/// Behaviour 6.9, steps 1 to 3.
///
/// # Errors
/// [`Error::Refused`] when the claim cannot be filled, with the reason.
pub async fn ground(ctx: &Context, claim: &PersistentVolumeClaim, source: &Source) -> Result<Ground, Error> {
    let wish = Wish::of(claim)?;
    let (filling, backup) = match source {
        Source::Restore(name) => (of_restore(ctx, claim, &wish, name).await?, None),
        Source::Backup { namespace, name } => {
            let backup = backup(ctx, claim, namespace, name).await?;
            (of_backup(ctx, claim, &wish, &backup).await?, Some(backup))
        }
    };
    let mut waiting_for = class(ctx, claim).await?;
    if waiting_for.is_none() && wish.policy == VolumeClaimRestorePolicy::Serial {
        waiting_for = predecessor(ctx, claim).await?.map(|name| format!("claim {name} is filled first"));
    }
    Ok(Ground { filling, backup, waiting_for })
}

async fn backup(ctx: &Context, claim: &PersistentVolumeClaim, namespace: &str, name: &str) -> Result<Backup, Error> {
    let api = Api::<Backup>::namespaced(ctx.client.clone(), namespace);
    let found = api.get_opt(name).await.doing(|| format!("reading backup {namespace}/{name}"))?;
    let backup = found
        .ok_or_else(|| Refusal::not_yet(SOON, format!("backup {name} does not exist in namespace {namespace}")))?;
    let own = claim.namespace().unwrap_or_default();
    if let Err(refusal) = restore_observe::allowed(&backup, &own)
        && !grant::by_cluster(ctx, claim, &backup).await?
    {
        return Err(refusal.into());
    }
    let status = backup.status.as_ref();
    let phase = status.and_then(|status| status.phase);
    let continuous =
        backup.labels().get(labels::BACKUP_TYPE).is_some_and(|type_| type_ == BackupType::Continuous.as_str());
    if !continuous && matches!(phase, None | Some(BackupPhase::New | BackupPhase::InProgress | BackupPhase::Running)) {
        return Err(Refusal::not_yet(LONG, format!("backup {name} is not Completed yet")).into());
    }
    Ok(backup)
}

async fn of_backup(
    ctx: &Context,
    claim: &PersistentVolumeClaim,
    wish: &Wish,
    backup: &Backup,
) -> Result<Filling, Error> {
    let shards = kubeblocks::shards(ctx, claim).await?;
    let Choice::Data { volume, target, pod } = choose::choose(backup, claim, wish, shards.as_deref())? else {
        return Ok(empty());
    };
    let config = PrepareDataConfig {
        required_policy_for_all_pod_selection: pod.clone().map(of_pod),
        volume_claim_restore_policy: wish.policy,
        ..PrepareDataConfig::default()
    };
    let spec = RestoreSpec {
        backup: BackupRef {
            name: backup.name_any(),
            namespace: backup.namespace().unwrap_or_default(),
            source_target_name: Some(target).filter(|name| !name.is_empty()),
        },
        restore_time: wish.restore_time.clone(),
        prepare_data_config: Some(config),
        env: wish.env.clone(),
        parameters: wish.parameters.clone(),
        ..RestoreSpec::default()
    };
    let volume = VolumeConfig { volume_source: Some(volume), mount_path: None };
    filling(ctx, claim, backup, spec, volume, pod.as_deref()).await
}

async fn of_restore(ctx: &Context, claim: &PersistentVolumeClaim, wish: &Wish, name: &str) -> Result<Filling, Error> {
    let namespace = claim.namespace().unwrap_or_default();
    let api = Api::<Restore>::namespaced(ctx.client.clone(), &namespace);
    let found = api.get_opt(name).await.doing(|| format!("reading restore {name}"))?;
    let source = found
        .ok_or_else(|| Refusal::not_yet(SOON, format!("restore {name} does not exist in namespace {namespace}")))?;
    let config = source.spec.prepare_data_config.clone().unwrap_or_default();
    let volume = config.data_source_ref.ok_or_else(|| {
        Refusal::fatal(format!(
            "restore {name} has no prepareDataConfig.dataSourceRef, so it is no data source; name a Backup instead"
        ))
    })?;
    match source.status.as_ref().and_then(|status| status.phase) {
        Some(RestorePhase::AsDataSource) => {}
        Some(RestorePhase::Failed) => {
            return Err(Refusal::fatal(format!("restore {name} has failed, so it is no data source")).into());
        }
        _ => return Err(Refusal::not_yet(A_WHILE, format!("restore {name} is not checked yet")).into()),
    }
    let backup = restore_observe::source(ctx, &source).await?;
    let target = sets::source_target(&backup, source.spec.backup.source_target_name.as_deref())?;
    let chosen = config
        .required_policy_for_all_pod_selection
        .filter(|policy| policy.data_restore_policy == DataRestorePolicy::OneToMany);
    let pods = match chosen {
        Some(policy) => Some(policy),
        None => choose::source_pod(target, claim, wish.pod.as_deref())?.map(of_pod),
    };
    let pod = pods.as_ref().and_then(|policy| policy.source_of_one_to_many.clone()).map(|one| one.target_pod_name);
    let spec = RestoreSpec {
        prepare_data_config: Some(PrepareDataConfig {
            required_policy_for_all_pod_selection: pods,
            volume_claim_restore_policy: config.volume_claim_restore_policy,
            ..PrepareDataConfig::default()
        }),
        resources: None,
        ready_config: None,
        ..source.spec.clone()
    };
    filling(ctx, claim, &backup, spec, volume, pod.as_deref()).await
}

/// Checks that a restore of `spec` can fill a volume.
async fn filling(
    ctx: &Context,
    claim: &PersistentVolumeClaim,
    backup: &Backup,
    spec: RestoreSpec,
    volume: VolumeConfig,
    pod: Option<&str>,
) -> Result<Filling, Error> {
    let mut restore = Restore::new(&build::name(claim), spec.clone());
    restore.metadata.namespace = claim.namespace();
    let name = backup.name_any();
    let sets = Box::pin(lineage::sets(ctx, &restore, backup)).await?;
    let snapshot = match sets.iter().find(|set| set.uses_snapshots) {
        Some(set) => Some(snapshot(&set.backup, claim, volume.volume_source.as_deref(), pod)?),
        None => None,
    };
    let fills = |set: &sets::Set| set.action_set.spec.restore.as_ref().is_some_and(|it| it.prepare_data.is_some());
    if snapshot.is_none() && !sets.iter().any(fills) {
        let acts_later = sets
            .iter()
            .any(|set| set.action_set.spec.restore.as_ref().is_some_and(|restore| !restore.post_ready.is_empty()));
        if acts_later && !wish::is_plain(claim) {
            return Ok(empty());
        }
        return Err(
            Refusal::fatal(format!("the recipe of backup {name} fills no volumes (it has no prepareData)")).into()
        );
    }
    let place = RestoreVolumeClaim {
        metadata: EmbeddedObjectMeta { name: Some(claim.name_any()), ..EmbeddedObjectMeta::default() },
        volume: volume.clone(),
        ..RestoreVolumeClaim::default()
    };
    for set in sets.iter().filter(|set| fills(set)) {
        sets::mount_path(&set.backup, &place)?;
    }
    Ok(Filling { restore: Some(spec), volume, snapshot })
}

/// The VolumeSnapshot that a claim is made from.
fn snapshot(
    backup: &Backup,
    claim: &PersistentVolumeClaim,
    volume: Option<&str>,
    pod: Option<&str>,
) -> Result<String, Refusal> {
    let name = backup.name_any();
    if backup.namespace() != claim.namespace() {
        return Err(Refusal::fatal(format!(
            "backup {name} is a volume snapshot, which Kubernetes can only use in its own namespace"
        )));
    }
    let volume = volume.unwrap_or_default();
    sets::snapshot_of(backup, None, volume, pod).ok_or_else(|| {
        Refusal::fatal(format!("backup {name} recorded no snapshot of volume {volume:?}, so nothing can be restored"))
    })
}

fn empty() -> Filling {
    Filling { restore: None, volume: VolumeConfig::default(), snapshot: None }
}

fn of_pod(pod: String) -> RequiredPolicyForAllPodSelection {
    RequiredPolicyForAllPodSelection {
        data_restore_policy: DataRestorePolicy::OneToMany,
        source_of_one_to_many: Some(SourceOfOneToMany { target_pod_name: pod }),
    }
}

/// In-tree provisioners that Kubernetes has handed over to CSI drivers for good.
const MIGRATED: [&str; 7] =
    ["aws-ebs", "azure-disk", "azure-file", "cinder", "gce-pd", "portworx-volume", "vsphere-volume"];

/// Whether the claim's class can make a volume now: `None` when it can, else what it waits for.
async fn class(ctx: &Context, claim: &PersistentVolumeClaim) -> Result<Option<String>, Error> {
    let Some(name) = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref()) else {
        return Ok(Some("the claim has no StorageClass, and the cluster has no default one yet".to_owned()));
    };
    if name.is_empty() {
        let why =
            "the claim wants a volume that exists (its storageClassName is empty); to fill a new one, name a class";
        return Err(Refusal::fatal(why).into());
    }
    let found = Api::<StorageClass>::all(ctx.client.clone())
        .get_opt(name)
        .await
        .doing(|| format!("reading storageclass {name}"))?;
    let class = found.ok_or_else(|| Refusal::not_yet(SOON, format!("storageclass {name} does not exist")))?;
    let selected = wish::annotation(claim, annotations::SELECTED_NODE);
    Ok(class_allows(&class, selected.is_some())?)
}

fn class_allows(class: &StorageClass, selected: bool) -> Result<Option<String>, Refusal> {
    let name = class.name_any();
    if let Some(in_tree) = class.provisioner.strip_prefix("kubernetes.io/")
        && !MIGRATED.contains(&in_tree)
    {
        return Err(Refusal::fatal(format!(
            "storageclass {name} is served by {}, which cannot make a volume to fill; use the class of a CSI driver",
            class.provisioner
        )));
    }
    let waits = class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer");
    Ok((waits && !selected).then(|| format!("storageclass {name} waits for the first pod that uses the claim")))
}

/// The claim of the same component that is filled before this one, when they are filled one after another.
async fn predecessor(ctx: &Context, claim: &PersistentVolumeClaim) -> Result<Option<String>, Error> {
    let namespace = claim.namespace().unwrap_or_default();
    let Some(selector) = kubeblocks::component_selector(claim) else { return Ok(None) };
    let list = claims(ctx, &namespace)
        .list(&ListParams::default().labels(&selector))
        .await
        .doing(|| "listing the claims of the component".to_owned())?;
    Ok(first_before(&list.items, &claim.name_any()))
}

fn first_before(all: &[PersistentVolumeClaim], own: &str) -> Option<String> {
    let unfilled = all.iter().filter(|other| wish::is_ours(other) && !decide::is_bound(other));
    unfilled.map(ResourceExt::name_any).filter(|name| name.as_str() < own).min()
}

/// The host name of the node that the scheduler chose; a node's label may differ from its name.
///
/// # Errors
/// Those of the API server; a refusal while the node is not there.
pub async fn hostname(ctx: &Context, claim: &PersistentVolumeClaim) -> Result<Option<String>, Error> {
    let Some(node) = wish::annotation(claim, annotations::SELECTED_NODE) else { return Ok(None) };
    let api = Api::<Node>::all(ctx.client.clone());
    let found = api.get_metadata_opt(node).await.doing(|| format!("reading node {node}"))?;
    let found = found.ok_or_else(|| Refusal::not_yet(LONG, format!("node {node}, chosen for the claim, is gone")))?;
    Ok(Some(found.labels().get("kubernetes.io/hostname").cloned().unwrap_or_else(|| node.to_owned())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn class(provisioner: &str, mode: &str) -> StorageClass {
        serde_json::from_value(
            json!({ "metadata": {"name": "c"}, "provisioner": provisioner, "volumeBindingMode": mode }),
        )
        .unwrap()
    }

    #[test]
    fn behaviour_6_9_the_first_consumer_is_awaited() {
        let lazy = class("driver.example", "WaitForFirstConsumer");
        assert!(class_allows(&lazy, false).unwrap().unwrap().contains("first pod"));
        assert_eq!(class_allows(&lazy, true), Ok(None));
        assert_eq!(class_allows(&class("driver.example", "Immediate"), false), Ok(None));
    }

    #[test]
    fn behaviour_6_9_in_tree_provisioners_that_are_not_migrated_are_refused() {
        assert!(matches!(
            class_allows(&class("kubernetes.io/no-provisioner", "Immediate"), true),
            Err(Refusal::Fatal(_))
        ));
        assert_eq!(class_allows(&class("kubernetes.io/aws-ebs", "Immediate"), true), Ok(None));
    }

    #[test]
    fn behaviour_6_9_serial_goes_in_name_order() {
        let claim = |name: &str, bound: bool| -> PersistentVolumeClaim {
            let notes = if bound { json!({ "pv.kubernetes.io/bind-completed": "yes" }) } else { json!({}) };
            serde_json::from_value(json!({ "metadata": {"name": name, "annotations": notes}, "spec": {"dataSourceRef":
                {"apiGroup": kbbackup_api::GROUP, "kind": "Backup", "name": "b"}} }))
            .unwrap()
        };
        let all = [claim("d-2", false), claim("d-0", true), claim("d-1", false)];
        assert_eq!(first_before(&all, "d-2").as_deref(), Some("d-1"));
        assert_eq!(first_before(&all, "d-1"), None);
    }

    #[test]
    fn the_snapshot_of_a_volume_and_pod() {
        let backup: Backup = serde_json::from_value(
            json!({ "metadata": {"name": "b"}, "spec": {"backupPolicyName": "p", "backupMethod": "m"},
            "status": {"actions": [
                {"targetPodName": "pg-0", "volumeSnapshots": [{"name": "s-0", "volumeName": "data"}]},
                {"targetPodName": "pg-1", "volumeSnapshots": [{"name": "s-1", "volumeName": "data"}]}]} }),
        )
        .unwrap();
        assert_eq!(sets::snapshot_of(&backup, None, "data", Some("pg-1")).as_deref(), Some("s-1"));
        assert_eq!(sets::snapshot_of(&backup, None, "data", None).as_deref(), Some("s-0"));
        assert_eq!(sets::snapshot_of(&backup, None, "logs", None), None);
    }
}
