//! What a restore runs through, in order: behaviour 6.3. Pure, over backups that were read before (see
//! [`super::lineage`]).

use std::collections::BTreeSet;

use kbbackup_api::v1alpha1::{
    ActionSet, ActionStatus, Backup, BackupPhase, BackupStatusTarget, BackupType, JobActionSpec, PodSelectionStrategy,
    RequiredPolicyForAllPodSelection, RestoreVolumeClaim, VolumeConfig,
};
use kbbackup_core::chain::{self, Chain, Link};
use kbbackup_core::names;
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
    /// Whether its data are volume snapshots, from which the claims are made before its Jobs run.
    pub uses_snapshots: bool,
    /// The backup that its recipe builds on: the full one of an incremental, the base of a log.
    pub base: Option<Backup>,
    /// Incremental backups between, oldest first.
    pub ancestors: Vec<Backup>,
}

impl Set {
    /// A backup that stands alone.
    pub fn alone(backup: Backup, action_set: ActionSet) -> Self {
        let method = backup.status.as_ref().and_then(|status| status.backup_method.as_ref());
        let uses_snapshots = method.is_some_and(|method| method.snapshot_volumes());
        Self { backup, action_set, uses_snapshots, base: None, ancestors: Vec::new() }
    }

    /// What its recipe does to fill claims.
    pub fn prepare_data(&self) -> Option<&JobActionSpec> {
        self.action_set.spec.restore.as_ref()?.prepare_data.as_ref()
    }

    /// An incremental backup with the chain below it, which must hold.
    ///
    /// # Errors
    /// [`Refusal::Fatal`] for a broken chain.
    pub fn with_chain(backup: Backup, action_set: ActionSet, below: &[Backup], started: bool) -> Result<Self, Refusal> {
        let links: Vec<Link> = below.iter().map(|backup| judged(backup, started)).collect();
        let own = judged(&backup, started);
        let find = |name: &str| links.iter().find(|link| link.name == name);
        let Chain { base, ancestors } = chain::walk(&own, find).map_err(Refusal::fatal)?;
        let named = |name: &String| below.iter().find(|backup| backup.name_any() == *name).cloned();
        let ancestors = ancestors.iter().filter_map(named).collect();
        Ok(Self { base: named(&base), ancestors, ..Self::alone(backup, action_set) })
    }
}

/// A restore under way goes on with a backup whose deletion was asked for meanwhile: the deletion waits for it.
fn judged(backup: &Backup, started: bool) -> Link {
    Link { completed: is_usable(backup, started), ..link::link(backup) }
}

fn is_usable(backup: &Backup, started: bool) -> bool {
    let phase = backup.status.as_ref().and_then(|status| status.phase);
    link::is_completed(backup) || (started && phase == Some(BackupPhase::Deleting))
}

/// Behaviour 6.3: only what is completed can be restored; a log in any phase.
///
/// # Errors
/// [`Refusal::Fatal`] naming the phase.
pub fn usable(backup: &Backup, type_: BackupType, started: bool) -> Result<(), Refusal> {
    if type_ == BackupType::Continuous || is_usable(backup, started) {
        return Ok(());
    }
    let phase = backup.status.as_ref().and_then(|status| status.phase).map_or("new", |phase| phase.as_str());
    Err(Refusal::fatal(format!("backup {} is {phase}, not Completed", backup.name_any())))
}

/// The parent that a differential backup names.
///
/// # Errors
/// [`Refusal::Fatal`] when it names none.
pub fn parent_name(backup: &Backup) -> Result<&str, Refusal> {
    let recorded = backup.status.as_ref().and_then(|status| status.parent_backup_name.as_deref());
    let asked = backup.spec.parent_backup_name.as_deref();
    asked.filter(|name| !name.is_empty()).or(recorded.filter(|name| !name.is_empty())).ok_or_else(|| {
        Refusal::fatal(format!("differential backup {} names no parent, so it cannot be restored", backup.name_any()))
    })
}

/// Whether `parent` can carry the differential backup `child`.
///
/// # Errors
/// [`Refusal::Fatal`] saying why not.
pub fn carries(parent: &Backup, child: &Backup, started: bool) -> Result<(), Refusal> {
    let (below, above) = (judged(parent, started), judged(child, started));
    let rules = [
        (below.kind == Some(chain::Kind::Full), "it is no full backup"),
        (below.completed, "it is not completed"),
        (below.policy == above.policy, "they belong to different policies"),
        ((below.end, &below.name) < (above.end, &above.name), "it does not end earlier"),
    ];
    match rules.into_iter().find(|(holds, _)| !holds) {
        None => Ok(()),
        Some((_, why)) => {
            let (child, parent) = (child.name_any(), parent.name_any());
            Err(Refusal::fatal(format!("differential backup {child} cannot build on backup {parent}: {why}")))
        }
    }
}

/// The names of everything that `sets` read: see [`annotations::READS`].
pub fn reads(sets: &[Set]) -> Vec<String> {
    let all = sets.iter().flat_map(|set| set.base.iter().chain(&set.ancestors).chain(std::iter::once(&set.backup)));
    let mut names: Vec<String> = Vec::new();
    for name in all.map(kube::ResourceExt::name_any) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
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

/// The VolumeSnapshot that a backup recorded of a volume: of this pod and target, where they are given.
pub fn snapshot_of(backup: &Backup, target: Option<&str>, volume: &str, pod: Option<&str>) -> Option<String> {
    let actions = &backup.status.as_ref()?.actions;
    let of_target = |action: &&ActionStatus| {
        // The target is a part of the action's name, before the index of the pod.
        let name = action.name.as_deref().and_then(|name| name.rsplit_once('-')).map_or("", |(name, _)| name);
        let prefix = names::SNAPSHOT_ACTION;
        target.is_none_or(|target| name.strip_prefix(prefix).is_some_and(|rest| rest.trim_start_matches('-') == target))
    };
    let mut of_pod =
        actions.iter().filter(of_target).filter(|action| pod.is_none() || action.target_pod_name.as_deref() == pod);
    of_pod.find_map(|action| {
        let found = action.volume_snapshots.iter().find(|snapshot| snapshot.volume_name.as_deref() == Some(volume))?;
        found.name.clone().filter(|name| !name.is_empty())
    })
}

/// The volumes that a backup recorded snapshots of.
pub fn snapshot_volumes(backup: &Backup) -> Vec<String> {
    let actions = backup.status.as_ref().map(|status| status.actions.as_slice()).unwrap_or_default();
    let all = actions.iter().flat_map(|action| &action.volume_snapshots);
    let names: BTreeSet<_> = all.filter_map(|snapshot| snapshot.volume_name.clone()).collect();
    names.into_iter().collect()
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
    fn behaviour_6_3_an_incremental_backup_is_one_set_with_its_chain() {
        let below = [
            backup("f", "Full", done("2026-01-01T00:00:00Z", None, None)),
            backup("i1", "Incremental", done("2026-01-02T00:00:00Z", Some("f"), Some("f"))),
        ];
        let own = backup("i2", "Incremental", done("2026-01-03T00:00:00Z", Some("i1"), Some("f")));
        let found = Set::with_chain(own.clone(), set("Incremental"), &below, false).unwrap();
        assert_eq!(found.base.as_ref().unwrap().name_any(), "f");
        assert_eq!(found.ancestors.iter().map(kube::ResourceExt::name_any).collect::<Vec<_>>(), ["i1"]);
        assert!(Set::with_chain(own, set("Incremental"), &below[..1], false).is_err());
        assert_eq!(reads(&[found]), ["f", "i1", "i2"]);
    }

    #[test]
    fn behaviour_6_3_only_what_is_completed_is_restored() {
        let at = |phase: &str| backup("b", "Full", json!({ "phase": phase }));
        assert_eq!(
            usable(&at("Running"), BackupType::Full, false).unwrap_err().to_string(),
            "backup b is Running, not Completed"
        );
        assert!(usable(&at("Running"), BackupType::Continuous, false).is_ok());
        assert!(usable(&at("Failed"), BackupType::Continuous, false).is_ok());
        assert!(usable(&at("Completed"), BackupType::Selective, false).is_ok());
        assert!(usable(&at("Deleting"), BackupType::Full, false).is_err());
    }

    #[test]
    fn a_deletion_that_waits_for_a_restore_does_not_fail_it() {
        let mut below = [backup("f", "Full", done("2026-01-01T00:00:00Z", None, None))];
        let mut own = backup("i1", "Incremental", done("2026-01-02T00:00:00Z", Some("f"), Some("f")));
        for backup in below.iter_mut().chain([&mut own]) {
            backup.status.as_mut().unwrap().phase = Some(BackupPhase::Deleting);
        }
        assert!(usable(&own, BackupType::Incremental, true).is_ok());
        assert!(Set::with_chain(own.clone(), set("Incremental"), &below, true).is_ok());
        assert!(Set::with_chain(own, set("Incremental"), &below, false).is_err(), "but none begins with it");
    }

    #[test]
    fn behaviour_6_3_a_differential_backup_needs_its_full_one() {
        let full = backup("f", "Full", done("2026-01-01T00:00:00Z", None, None));
        let own = backup("d", "Differential", done("2026-01-02T00:00:00Z", Some("f"), None));
        assert_eq!(parent_name(&own), Ok("f"));
        let mut asked = own.clone();
        asked.spec.parent_backup_name = Some("g".into());
        assert_eq!(parent_name(&asked), Ok("g"), "spec wins");
        assert!(parent_name(&backup("d", "Differential", json!({}))).is_err());
        assert_eq!(carries(&full, &own, false), Ok(()));
        let later = backup("f", "Full", done("2026-01-03T00:00:00Z", None, None));
        assert!(carries(&later, &own, false).unwrap_err().to_string().contains("it does not end earlier"));
        let incremental = backup("f", "Incremental", done("2026-01-01T00:00:00Z", None, None));
        assert!(carries(&incremental, &own, false).unwrap_err().to_string().contains("it is no full backup"));
        let sets = [Set::alone(full, set("Full")), Set::alone(own, set("Differential"))];
        assert_eq!(reads(&sets), ["f", "d"]);
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
