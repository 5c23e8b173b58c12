//! What a restore runs through, in order: behaviour 6.3. Pure, over backups that were read before.

use kbbackup_api::v1alpha1::{
    ActionSet, Backup, BackupStatusTarget, BackupType, PodSelectionStrategy, RequiredPolicyForAllPodSelection,
    RestoreVolumeClaim, VolumeConfig,
};
use kbbackup_core::chain::{self, Chain, Link};
use kube::ResourceExt as _;

use crate::backup::{link, plan};
use crate::worker::error::Refusal;

/// One backup to restore, with what it builds on.
#[derive(Clone, Debug)]
pub struct Set {
    /// The backup.
    pub backup: Backup,
    /// Its recipe.
    pub action_set: ActionSet,
    /// The full backup at the root of an incremental one.
    pub base: Option<Backup>,
    /// Incremental backups between, oldest first.
    pub ancestors: Vec<Backup>,
}

/// The sets of a backup of this type.
///
/// # Errors
/// [`Refusal::Fatal`] for a broken chain, and for types that this version cannot restore.
pub fn sets(backup: Backup, action_set: ActionSet, siblings: &[Backup]) -> Result<Vec<Set>, Refusal> {
    let name = backup.name_any();
    if !link::is_completed(&backup) && action_set.spec.backup_type != BackupType::Continuous {
        let phase = backup.status.as_ref().and_then(|status| status.phase).map_or("new", |phase| phase.as_str());
        return Err(Refusal::fatal(format!("backup {name} is {phase}, not Completed")));
    }
    match action_set.spec.backup_type {
        BackupType::Full | BackupType::Selective => {
            Ok(vec![Set { backup, action_set, base: None, ancestors: Vec::new() }])
        }
        BackupType::Incremental => {
            let links: Vec<Link> = siblings.iter().map(link::link).collect();
            let own = link::link(&backup);
            let find = |name: &str| links.iter().find(|link| link.name == name);
            let Chain { base, ancestors } = chain::walk(&own, find).map_err(Refusal::fatal)?;
            let named = |name: &String| siblings.iter().find(|sibling| sibling.name_any() == *name).cloned();
            let ancestors = ancestors.iter().filter_map(named).collect();
            Ok(vec![Set { base: named(&base), ancestors, backup, action_set }])
        }
        other => {
            Err(Refusal::fatal(format!("backup {name} is {other}, which this version of kbbackup cannot restore yet")))
        }
    }
}

/// The recorded target that a restore takes its data from.
///
/// # Errors
/// [`Refusal::Fatal`] when the backup has several and the name fits none.
pub fn source_target<'a>(backup: &'a Backup, name: Option<&str>) -> Result<&'a BackupStatusTarget, Refusal> {
    let status = backup.status.as_ref();
    if let Some(target) = status.and_then(|status| status.target.as_ref()) {
        return Ok(target);
    }
    let targets = status.map(|status| status.targets.as_slice()).unwrap_or_default();
    let name = name.unwrap_or_default();
    targets.iter().find(|target| target.target.name.as_deref().unwrap_or_default() == name).ok_or_else(|| {
        let names: Vec<_> = targets.iter().filter_map(|target| target.target.name.clone()).collect();
        Refusal::fatal(format!(
            "backup {} has no target {name:?}; set spec.backup.sourceTargetName to one of: {}",
            backup.name_any(),
            names.join(", ")
        ))
    })
}

/// Whose data replica `index` gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourcePod {
    /// The backup does not keep pods apart.
    Any,
    /// This pod's.
    Pod(String),
    /// Nobody's: there are more replicas than recorded pods.
    None,
}

/// Behaviour 6.5: the source pod of replica `index`.
///
/// # Errors
/// [`Refusal::Fatal`] when the backup keeps pods apart and the restore does not say which to take.
pub fn source_pod(
    target: &BackupStatusTarget,
    policy: Option<&RequiredPolicyForAllPodSelection>,
    index: usize,
) -> Result<SourcePod, Refusal> {
    if plan::strategy(target) == PodSelectionStrategy::Any {
        return Ok(SourcePod::Any);
    }
    let policy = policy.ok_or_else(|| {
        Refusal::fatal("the backup holds the data of every pod, so requiredPolicyForAllPodSelection must say which pods' data goes where")
    })?;
    if policy.data_restore_policy == kbbackup_api::v1alpha1::DataRestorePolicy::OneToMany {
        let source = policy.source_of_one_to_many.as_ref().map(|source| source.target_pod_name.clone());
        let source = source.filter(|name| !name.is_empty());
        let source = source
            .ok_or_else(|| Refusal::fatal("dataRestorePolicy OneToMany needs sourceOfOneToMany.targetPodName"))?;
        if !target.selected_target_pods.contains(&source) {
            let known = target.selected_target_pods.join(", ");
            return Err(Refusal::fatal(format!("the backup holds no data of pod {source} (it has: {known})")));
        }
        return Ok(SourcePod::Pod(source));
    }
    Ok(target.selected_target_pods.get(index).cloned().map_or(SourcePod::None, SourcePod::Pod))
}

/// Where a claim is mounted in the restore container.
///
/// # Errors
/// [`Refusal::Fatal`] when neither the claim nor the backup says so.
pub fn mount_path(backup: &Backup, claim: &RestoreVolumeClaim) -> Result<String, Refusal> {
    let VolumeConfig { volume_source, mount_path } = &claim.volume;
    if let Some(path) = mount_path.as_ref().filter(|path| !path.is_empty()) {
        return Ok(path.clone());
    }
    let source = volume_source.as_deref().unwrap_or_default();
    let method = backup.status.as_ref().and_then(|status| status.backup_method.as_ref());
    let mounts =
        method.and_then(|method| method.target_volumes.as_ref()).map(|volumes| volumes.volume_mounts.as_slice());
    mounts
        .unwrap_or_default()
        .iter()
        .find(|mount| mount.name == source)
        .map(|mount| mount.mount_path.clone())
        .ok_or_else(|| {
            let claim = claim.metadata.name.as_deref().unwrap_or_default();
            Refusal::fatal(format!(
                "claim {claim} names no mountPath, and backup {} recorded none for volume {source:?}",
                backup.name_any()
            ))
        })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn backup(name: &str, kind: &str, status: Value) -> Backup {
        serde_json::from_value(json!({ "metadata": {"name": name, "namespace": "n",
            "labels": {"dataprotection.kubeblocks.io/backup-type": kind}},
            "spec": {"backupPolicyName": "p", "backupMethod": if kind == "Full" { "full" } else { "incr" }}, "status": status }))
        .unwrap()
    }

    fn set(kind: &str) -> ActionSet {
        serde_json::from_value(json!({ "metadata": {"name": "a"}, "spec": {"backupType": kind} })).unwrap()
    }

    fn done(end: &str, parent: Option<&str>, base: Option<&str>) -> Value {
        json!({ "phase": "Completed", "completionTimestamp": end, "parentBackupName": parent, "baseBackupName": base,
            "backupMethod": {"name": "incr", "compatibleMethod": "full"}, "backupRepoName": "r" })
    }

    #[test]
    fn behaviour_6_3_a_full_backup_is_one_set() {
        let sets = sets(backup("b", "Full", done("2026-01-01T00:00:00Z", None, None)), set("Full"), &[]).unwrap();
        assert_eq!(sets.len(), 1);
        assert!(sets[0].base.is_none());
    }

    #[test]
    fn behaviour_6_3_an_incremental_backup_is_one_set_with_its_chain() {
        let siblings = [
            backup("f", "Full", done("2026-01-01T00:00:00Z", None, None)),
            backup("i1", "Incremental", done("2026-01-02T00:00:00Z", Some("f"), Some("f"))),
        ];
        let own = backup("i2", "Incremental", done("2026-01-03T00:00:00Z", Some("i1"), Some("f")));
        let found = sets(own.clone(), set("Incremental"), &siblings).unwrap();
        assert_eq!(found[0].base.as_ref().unwrap().name_any(), "f");
        assert_eq!(found[0].ancestors.iter().map(kube::ResourceExt::name_any).collect::<Vec<_>>(), ["i1"]);
        assert!(sets(own, set("Incremental"), &siblings[..1]).is_err());
    }

    #[test]
    fn what_cannot_be_restored_is_refused() {
        let running = backup("b", "Full", json!({ "phase": "Running" }));
        assert_eq!(sets(running, set("Full"), &[]).unwrap_err().to_string(), "backup b is Running, not Completed");
        for kind in ["Continuous", "Differential"] {
            let whole = backup("b", kind, done("2026-01-01T00:00:00Z", None, None));
            assert!(matches!(sets(whole, set(kind), &[]), Err(Refusal::Fatal(_))), "{kind}");
        }
    }

    #[test]
    fn behaviour_6_5_source_pods() {
        let target = |strategy: &str| -> BackupStatusTarget {
            serde_json::from_value(
                json!({ "podSelector": {"strategy": strategy}, "selectedTargetPods": ["p-0", "p-1"] }),
            )
            .unwrap()
        };
        let policy = |value: Value| -> RequiredPolicyForAllPodSelection { serde_json::from_value(value).unwrap() };
        let one = policy(json!({ "dataRestorePolicy": "OneToOne" }));
        let many = policy(json!({ "dataRestorePolicy": "OneToMany", "sourceOfOneToMany": {"targetPodName": "p-1"} }));
        assert_eq!(source_pod(&target("Any"), None, 5), Ok(SourcePod::Any));
        assert!(source_pod(&target("All"), None, 0).is_err());
        assert_eq!(source_pod(&target("All"), Some(&one), 1), Ok(SourcePod::Pod("p-1".into())));
        assert_eq!(source_pod(&target("All"), Some(&one), 2), Ok(SourcePod::None));
        assert_eq!(source_pod(&target("All"), Some(&many), 7), Ok(SourcePod::Pod("p-1".into())));
        assert!(source_pod(&target("All"), Some(&policy(json!({ "dataRestorePolicy": "OneToMany" }))), 0).is_err());
    }

    #[test]
    fn behaviour_6_5_mount_paths() {
        let with = backup(
            "b",
            "Full",
            json!({ "backupMethod": {"name": "m", "targetVolumes":
            {"volumeMounts": [{"name": "data", "mountPath": "/var/lib/db"}]}} }),
        );
        let claim = |volume: Value| -> RestoreVolumeClaim {
            let mut value = json!({ "metadata": {"name": "c"}, "volumeClaimSpec": {} });
            value.as_object_mut().unwrap().extend(volume.as_object().unwrap().clone());
            serde_json::from_value(value).unwrap()
        };
        assert_eq!(mount_path(&with, &claim(json!({ "volumeSource": "data" }))), Ok("/var/lib/db".into()));
        assert_eq!(mount_path(&with, &claim(json!({ "volumeSource": "data", "mountPath": "/x" }))), Ok("/x".into()));
        assert!(mount_path(&with, &claim(json!({ "volumeSource": "logs" }))).is_err());
    }
}
