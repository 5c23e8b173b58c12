//! What a backup takes snapshots of, and the snapshots, as plain values.

use k8s_openapi::api::core::v1::Pod;
use kbbackup_api::names::labels;
use kbbackup_api::snapshot::{VolumeSnapshot, VolumeSnapshotSource, VolumeSnapshotSpec};
use kbbackup_api::v1alpha1::{Backup, BackupMethod, VolumeSnapshotStatus};
use kbbackup_core::names;
use kube::core::ObjectMeta;
use kube::{Resource as _, ResourceExt as _};

use crate::backup::build::worker_labels;
use crate::worker::error::Refusal;

/// A volume of a pod that is to be snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Name in the pod.
    pub name: String,
    /// The claim behind it.
    pub claim: String,
}

/// The names of the volumes that a method takes.
pub fn wanted(method: &BackupMethod) -> &[String] {
    method.target_volumes.as_ref().map(|volumes| volumes.volumes.as_slice()).unwrap_or_default()
}

/// The volumes of `pod` that a method takes, in the order of the method.
///
/// # Errors
/// [`Refusal::Fatal`] when there is none, or one is no claim.
pub fn volumes(pod: &Pod, method: &BackupMethod) -> Result<Vec<Volume>, Refusal> {
    let of_pod = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    let mut found: Vec<Volume> = Vec::new();
    for name in wanted(method) {
        let Some(volume) = of_pod.iter().find(|volume| volume.name == *name) else { continue };
        if found.iter().any(|volume| volume.name == *name) {
            continue;
        }
        let Some(claim) = &volume.persistent_volume_claim else {
            return Err(Refusal::fatal(format!(
                "volume {name} of pod {} is no PersistentVolumeClaim, so no snapshot can be taken of it; take it out of \
                 targetVolumes.volumes of method {}",
                pod.name_any(),
                method.name
            )));
        };
        found.push(Volume { name: name.clone(), claim: claim.claim_name.clone() });
    }
    if found.is_empty() {
        let has = of_pod.iter().filter(|volume| volume.persistent_volume_claim.is_some());
        let has = has.map(|volume| volume.name.as_str()).collect::<Vec<_>>().join(", ");
        return Err(Refusal::fatal(format!(
            "pod {} has none of the volumes that method {} takes snapshots of ({}); name some of its claims in \
             targetVolumes.volumes: {has}",
            pod.name_any(),
            method.name,
            wanted(method).join(", ")
        )));
    }
    Ok(found)
}

/// A name that no pod has is a slip of the pen, and would cost a volume.
///
/// # Errors
/// [`Refusal::Fatal`] naming it.
pub fn all_exist(pods: &[&Pod], method: &BackupMethod) -> Result<(), Refusal> {
    let has = |pod: &Pod, name: &String| {
        pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()).any(|volume| volume.name == *name)
    };
    match wanted(method).iter().find(|name| !pods.iter().any(|pod| has(pod, name))) {
        None => Ok(()),
        Some(name) => Err(Refusal::fatal(format!(
            "no pod of the target has a volume {name}, which targetVolumes.volumes of method {} names",
            method.name
        ))),
    }
}

/// What an action is going to take.
pub fn planned(backup: &str, target: &str, pod_index: usize, volumes: &[Volume]) -> Vec<VolumeSnapshotStatus> {
    let one = |volume: &Volume| VolumeSnapshotStatus {
        name: Some(names::volume_snapshot(backup, target, pod_index, &volume.name)),
        volume_name: Some(volume.name.clone()),
        target_name: (!target.is_empty()).then(|| target.to_owned()),
        ..VolumeSnapshotStatus::default()
    };
    volumes.iter().map(one).collect()
}

/// The snapshot `name` of a claim.
pub fn snapshot(backup: &Backup, name: &str, claim: &str, class: &str) -> VolumeSnapshot {
    let mut own = worker_labels(backup);
    own.insert(labels::MANAGED_BY.to_owned(), labels::MANAGED_BY_DATAPROTECTION.to_owned());
    VolumeSnapshot {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: backup.namespace(),
            labels: Some(own),
            owner_references: backup.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: VolumeSnapshotSpec {
            source: VolumeSnapshotSource {
                persistent_volume_claim_name: Some(claim.to_owned()),
                volume_snapshot_content_name: None,
            },
            volume_snapshot_class_name: Some(class.to_owned()),
        },
        status: None,
    }
}
