//! Which backups go with their cluster: behaviour 4.15. Pure.

use kbbackup_api::apps::Cluster;
use kbbackup_api::names::labels;
use kbbackup_api::v1alpha1::{Backup, BackupPhase, BackupType, DeletionPolicy};
use kube::ResourceExt as _;

/// The termination policy that takes the backups along.
const WIPE_OUT: &str = "WipeOut";

/// The backups that have to be gone before `cluster` may go. Those labelled with another cluster's UID belong to one of
/// the same name before it, and stay.
pub(super) fn doomed<'a>(cluster: &Cluster, backups: &[&'a Backup]) -> Vec<&'a Backup> {
    let (name, uid) = (cluster.name_any(), cluster.uid().unwrap_or_default());
    let wipe_out = cluster.spec.termination_policy.as_deref() == Some(WIPE_OUT);
    let is_its = |backup: &Backup| match backup.labels().get(labels::CLUSTER_UID).filter(|uid| !uid.is_empty()) {
        Some(of) => *of == uid,
        None => backup.labels().get(labels::INSTANCE) == Some(&name),
    };
    let is_useless = |backup: &Backup| {
        let continuous =
            backup.labels().get(labels::BACKUP_TYPE).map(String::as_str) == Some(BackupType::Continuous.as_str());
        backup.status.as_ref().and_then(|status| status.phase) == Some(BackupPhase::Failed) && !continuous
    };
    backups
        .iter()
        .copied()
        .filter(|backup| backup.namespace() == cluster.namespace() && is_its(backup))
        .filter(|backup| backup.spec.deletion_policy != DeletionPolicy::Retain)
        // One that is going already is awaited, whatever it was before.
        .filter(|backup| wipe_out || is_useless(backup) || is_going_failed(backup))
        .collect()
}

/// A failed backup that is being deleted shows phase `Deleting`; what it was before shows by the reason that stays.
fn is_going_failed(backup: &Backup) -> bool {
    backup.metadata.deletion_timestamp.is_some()
        && backup.status.as_ref().is_some_and(|status| status.failure_reason.is_some())
}
