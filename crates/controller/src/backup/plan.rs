//! Which actions a backup consists of, and in which order: behaviour 4.4. Pure.

use std::ops::Range;

use kbbackup_api::v1alpha1::{
    ActionSetSpec, ActionStatus, BackupActionSpec, BackupStatus, BackupStatusTarget, BackupType, PodSelectionStrategy,
    PodSelector,
};
use kbbackup_core::{layout, names};

/// What an action is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `preBackup` entry of this index.
    Before(usize),
    /// `backupData`.
    Data,
    /// Snapshots of the pod's volumes.
    Snapshot,
    /// `postBackup` entry of this index.
    After(usize),
    /// Ours: the manifest and the seal.
    Seal,
}

/// One action on one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Name in `status.actions`.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Index of the target.
    pub target: usize,
    /// The pod.
    pub pod: String,
}

/// Whether a backup of this kind writes to a repository: snapshots alone need none.
pub fn needs_repo(set: &ActionSetSpec, snapshots: bool) -> bool {
    !snapshots || set.backup.as_ref().is_some_and(|backup| backup.backup_data.is_some())
}

/// All actions of a backup, list after list, the seal last where there is something to seal. A list belongs to one pod of
/// one target.
pub fn plan(set: &ActionSetSpec, targets: &[BackupStatusTarget], snapshots: bool) -> Vec<Planned> {
    if set.backup_type == BackupType::Continuous {
        return archiving(set, targets);
    }
    let mut all = Vec::new();
    for (target, chosen) in targets.iter().enumerate() {
        let target_name = chosen.target.name.as_deref().unwrap_or_default();
        for (index, pod) in chosen.selected_target_pods.iter().enumerate() {
            let mut add = |name, kind| all.push(Planned { name, kind, target, pod: pod.clone() });
            let none = BackupActionSpec::default();
            let backup = set.backup.as_ref().unwrap_or(&none);
            for before in 0..backup.pre_backup.len() {
                add(names::pre_backup_action(target_name, before, index), Kind::Before(before));
            }
            if backup.backup_data.is_some() {
                add(names::backup_action(target_name, index), Kind::Data);
            }
            if snapshots {
                add(names::snapshot_action(target_name, index), Kind::Snapshot);
            }
            for after in 0..backup.post_backup.len() {
                add(names::post_backup_action(target_name, after, index), Kind::After(after));
            }
        }
    }
    if !all.is_empty() && needs_repo(set, snapshots) {
        all.push(Planned { name: names::SEAL_ACTION.to_owned(), kind: Kind::Seal, target: 0, pod: String::new() });
    }
    all
}

/// The archivers of a continuous backup: one per target, on its first pod, without an end and so without a seal.
pub fn archivers(targets: &[BackupStatusTarget]) -> Vec<Planned> {
    let action = |(target, chosen): (usize, &BackupStatusTarget)| Planned {
        name: names::backup_action(chosen.target.name.as_deref().unwrap_or_default(), 0),
        kind: Kind::Data,
        target,
        pod: chosen.selected_target_pods.first().cloned().unwrap_or_default(),
    };
    targets.iter().enumerate().map(action).collect()
}

/// The actions of a continuous backup: before each archiver what has to be done first. What would come after it is left
/// out, for it never ends.
fn archiving(set: &ActionSetSpec, targets: &[BackupStatusTarget]) -> Vec<Planned> {
    let first = set.backup.as_ref().map_or(0, |backup| backup.pre_backup.len());
    let of_target = |archiver: Planned| {
        let name = targets[archiver.target].target.name.clone().unwrap_or_default();
        let before = (0..first)
            .map(|index| Planned {
                name: names::pre_backup_action(&name, index, 0),
                kind: Kind::Before(index),
                ..archiver.clone()
            })
            .collect::<Vec<_>>();
        before.into_iter().chain([archiver])
    };
    archivers(targets).into_iter().flat_map(of_target).collect()
}

/// Whether an action runs inside the database's own pod.
pub fn is_exec(set: &ActionSetSpec, kind: Kind) -> bool {
    let Some(backup) = &set.backup else { return false };
    let hook = match kind {
        Kind::Before(index) => backup.pre_backup.get(index),
        Kind::After(index) => backup.post_backup.get(index),
        Kind::Data | Kind::Snapshot | Kind::Seal => None,
    };
    hook.is_some_and(|hook| hook.exec.is_some())
}

/// The targets of a status: the single one, or the list.
pub fn targets(status: &BackupStatus) -> &[BackupStatusTarget] {
    match &status.target {
        Some(target) => std::slice::from_ref(target),
        None => &status.targets,
    }
}

/// How the pods of a target are chosen.
pub fn strategy(target: &BackupStatusTarget) -> PodSelectionStrategy {
    target.target.pod_selector.as_ref().map(PodSelector::strategy).unwrap_or_default()
}

/// `[<target>/][<pod>]` of a target's pod.
pub fn relative_path(target: &BackupStatusTarget, pod: &str) -> String {
    let pod = (strategy(target) == PodSelectionStrategy::All).then_some(pod);
    layout::target_relative(target.target.name.as_deref().unwrap_or_default(), pod)
}

/// Absolute directories of all pods' data.
pub fn data_paths(status: &BackupStatus) -> Vec<String> {
    let path = status.path.as_deref().unwrap_or_default();
    let mut paths: Vec<_> = targets(status)
        .iter()
        .flat_map(|target| target.selected_target_pods.iter().map(move |pod| (target, pod)))
        .map(|(target, pod)| layout::join([path, &relative_path(target, pod)]))
        .collect();
    paths.dedup();
    paths
}

/// The lists that `actions` consists of, without the seal: a new list begins with another pod, or when the order of an
/// action set begins anew.
pub fn lists(actions: &[ActionStatus]) -> Vec<Range<usize>> {
    let rank = |action: &ActionStatus| {
        let name = action.name.as_deref().unwrap_or_default();
        if name.starts_with("dp-prebackup-") {
            0
        } else if is_snapshot(action) {
            2
        } else if name.starts_with("dp-postbackup-") {
            3
        } else {
            1
        }
    };
    let mut lists: Vec<Range<usize>> = Vec::new();
    for (index, action) in actions.iter().enumerate() {
        if is_seal(action) {
            continue;
        }
        let goes_on = index > 0 && lists.last().is_some_and(|list| list.end == index) && {
            let before = &actions[index - 1];
            let ranks = (rank(before), rank(action));
            before.target_pod_name == action.target_pod_name && ranks.0 <= ranks.1 && !matches!(ranks, (1, 1) | (2, 2))
        };
        match lists.last_mut() {
            Some(list) if goes_on => list.end = index + 1,
            _ => lists.push(index..index + 1),
        }
    }
    lists
}

/// Whether this action takes snapshots.
pub fn is_snapshot(action: &ActionStatus) -> bool {
    let name = action.name.as_deref().unwrap_or_default();
    name.strip_prefix(names::SNAPSHOT_ACTION).is_some_and(|rest| rest.starts_with('-'))
}

/// Whether this is the sealing action.
pub fn is_seal(action: &ActionStatus) -> bool {
    action.name.as_deref() == Some(names::SEAL_ACTION)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn target(name: Option<&str>, strategy: &str, pods: &[&str]) -> BackupStatusTarget {
        serde_json::from_value(
            json!({ "name": name, "podSelector": {"strategy": strategy}, "selectedTargetPods": pods }),
        )
        .unwrap()
    }

    fn set() -> ActionSetSpec {
        let job = json!({ "job": {"image": "i", "command": ["c"]} });
        serde_json::from_value(json!({ "backup": { "preBackup": [job, job], "postBackup": [job],
            "backupData": {"image": "i", "command": ["c"]} } }))
        .unwrap()
    }

    #[test]
    fn behaviour_4_4_one_list_per_pod_in_order() {
        let targets = [target(Some("shard-a"), "All", &["p-0", "p-1"]), target(Some("shard-b"), "Any", &["q-0"])];
        let planned = plan(&set(), &targets, false);
        let names: Vec<_> = planned.iter().map(|action| action.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "dp-prebackup-shard-a-0-0",
                "dp-prebackup-shard-a-1-0",
                "dp-backup-shard-a-0",
                "dp-postbackup-shard-a-0-0",
                "dp-prebackup-shard-a-0-1",
                "dp-prebackup-shard-a-1-1",
                "dp-backup-shard-a-1",
                "dp-postbackup-shard-a-0-1",
                "dp-prebackup-shard-b-0-0",
                "dp-prebackup-shard-b-1-0",
                "dp-backup-shard-b-0",
                "dp-postbackup-shard-b-0-0",
                "dp-seal",
            ]
        );
        let actions: Vec<_> = planned
            .iter()
            .map(|action| ActionStatus {
                name: Some(action.name.clone()),
                target_pod_name: Some(action.pod.clone()),
                ..ActionStatus::default()
            })
            .collect();
        assert_eq!(lists(&actions), [0..4, 4..8, 8..12]);
    }

    #[test]
    fn behaviour_4_9_one_archiver_per_target_on_its_first_pod() {
        let continuous = ActionSetSpec { backup_type: BackupType::Continuous, ..set() };
        let targets = [target(Some("a"), "All", &["p-0", "p-1"]), target(Some("b"), "Any", &["q-0"])];
        let planned = plan(&continuous, &targets, false);
        let told: Vec<_> = planned.iter().map(|action| (action.name.as_str(), action.pod.as_str())).collect();
        assert_eq!(
            told,
            [
                ("dp-prebackup-a-0-0", "p-0"),
                ("dp-prebackup-a-1-0", "p-0"),
                ("dp-backup-a-0", "p-0"),
                ("dp-prebackup-b-0-0", "q-0"),
                ("dp-prebackup-b-1-0", "q-0"),
                ("dp-backup-b-0", "q-0")
            ],
            "what comes after an archiver never comes"
        );
    }

    #[test]
    fn behaviour_4_4_snapshots_come_before_post_backup() {
        let targets = [target(None, "All", &["p-0", "p-1"])];
        let named = |planned: Vec<Planned>| planned.into_iter().map(|action| action.name).collect::<Vec<_>>();
        let planned = named(plan(&set(), &targets[..1], true));
        assert_eq!(
            planned[..5],
            ["dp-prebackup-0-0", "dp-prebackup-1-0", "dp-backup-0", "createVolumeSnapshot-0", "dp-postbackup-0-0"]
        );
        assert_eq!(planned.last().unwrap(), "dp-seal", "what backupData wrote is sealed");
        let alone = named(plan(&ActionSetSpec::default(), &targets, true));
        assert_eq!(alone, ["createVolumeSnapshot-0", "createVolumeSnapshot-1"], "nothing lies in a repository");
        let status = |name: &String, pod: &str| ActionStatus {
            name: Some(name.clone()),
            target_pod_name: Some(pod.into()),
            ..ActionStatus::default()
        };
        assert_eq!(
            lists(&planned[..5].iter().map(|name| status(name, "p-0")).collect::<Vec<_>>()).first(),
            Some(&(0..5))
        );
        assert_eq!(lists(&alone.iter().map(|name| status(name, "p-0")).collect::<Vec<_>>()), [0..1, 1..2]);
    }

    #[test]
    fn lists_of_one_pod_in_two_targets_stay_apart() {
        let action = |name: &str| ActionStatus {
            name: Some(name.into()),
            target_pod_name: Some("p".into()),
            ..ActionStatus::default()
        };
        assert_eq!(lists(&[action("dp-backup-a-0"), action("dp-backup-b-0")]), [0..1, 1..2]);
        assert_eq!(lists(&[action("dp-postbackup-a-0-0"), action("dp-prebackup-b-0-0")]), [0..1, 1..2]);
        assert!(lists(&[]).is_empty());
    }

    #[test]
    fn behaviour_4_5_data_paths() {
        let mut status = BackupStatus { path: Some("/r/ns/b".into()), ..BackupStatus::default() };
        status.targets = vec![target(Some("a"), "All", &["p-0", "p-1"]), target(Some("b"), "Any", &["q-0"])];
        assert_eq!(data_paths(&status), ["/r/ns/b/a/p-0", "/r/ns/b/a/p-1", "/r/ns/b/b"]);
        status.targets = vec![];
        status.target = Some(Box::new(target(None, "Any", &["p-0"])));
        assert_eq!(data_paths(&status), ["/r/ns/b"]);
    }
}
