//! What a restore to a point in time rests on, read from the objects: the log, its possible bases, and whose they are.
//! Behaviour 6.4; the rules themselves are those of `kbbackup_core::pitr`. Shared by the controller, which goes by them, and
//! by the plugin, which shows them.

use jiff::Timestamp;
use kbbackup_core::{
    chain::Kind,
    pitr::{self, Base, Log},
};
use kube::ResourceExt as _;

use crate::{
    names::{TRUE, annotations, labels},
    v1alpha1::{ActionSet, Backup, BackupPhase, RestoreActionSpec},
};

/// When the data of a backup begins: `status.timeRange.start`, else `status.startTimestamp`.
pub fn start(backup: &Backup) -> Option<Timestamp> {
    let status = backup.status.as_ref()?;
    let range = status.time_range.as_ref().and_then(|range| range.start.as_ref());
    range.or(status.start_timestamp.as_ref()).map(|time| time.0)
}

/// When the data of a backup ends: `status.timeRange.end`, else `status.completionTimestamp`.
pub fn end(backup: &Backup) -> Option<Timestamp> {
    let status = backup.status.as_ref()?;
    let range = status.time_range.as_ref().and_then(|range| range.end.as_ref());
    range.or(status.completion_timestamp.as_ref()).map(|time| time.0)
}

/// Whether a backup is completed.
pub fn is_completed(backup: &Backup) -> bool {
    backup.status.as_ref().and_then(|status| status.phase) == Some(BackupPhase::Completed)
}

/// Full or incremental; `None` for backups that no chain is built of.
pub fn kind(backup: &Backup) -> Option<Kind> {
    match backup.labels().get(labels::BACKUP_TYPE).map(String::as_str) {
        Some("Full") => Some(Kind::Full),
        Some("Incremental") => Some(Kind::Incremental),
        _ => None,
    }
}

/// Whether `other` is of the same database as the continuous backup `log`: by the labels that name a cluster, those that the
/// log has; without any, by the policy. Our own labels tell plain StatefulSets apart, which may share
/// `app.kubernetes.io/instance` with their neighbours.
pub fn same_database(log: &Backup, other: &Backup) -> bool {
    const THEIRS: [&str; 3] = [labels::CLUSTER_UID, labels::INSTANCE, labels::COMPONENT_NAME];
    const OURS: [&str; 2] = [labels::WORKLOAD_KIND, labels::WORKLOAD_NAME];
    let has = |key: &&str| log.labels().contains_key(*key);
    let same = |key: &&str| !has(key) || log.labels().get(*key) == other.labels().get(*key);
    if !OURS.iter().all(|key| same(key) || !other.labels().contains_key(*key)) {
        return false;
    }
    if THEIRS.iter().any(has) {
        return THEIRS.iter().all(same);
    }
    other.spec.backup_policy_name == log.spec.backup_policy_name || (OURS.iter().any(has) && OURS.iter().all(same))
}

/// What a continuous backup covers, by the recipe that made it.
///
/// # Errors
/// In words, when it tells of a gap that cannot be understood.
pub fn log(backup: &Backup, action_set: &ActionSet) -> Result<Log, String> {
    let name = backup.name_any();
    let extras = backup.status.as_ref().map(|status| status.extras.as_slice()).unwrap_or_default();
    let gaps = pitr::gaps(extras).map_err(|why| format!("backup {name}: {why}"))?;
    let recipe = action_set.spec.restore.as_ref();
    Ok(Log {
        name,
        start: start(backup),
        end: end(backup),
        gaps,
        needs_base: recipe.is_none_or(RestoreActionSpec::base_backup_required),
        full_base_only: skips_base(action_set),
    })
}

/// Whether the recipe of a log brings the base back by itself.
pub fn skips_base(action_set: &ActionSet) -> bool {
    let text = action_set.annotations().get(annotations::SKIP_BASE_BACKUP_RESTORE_IN_PITR);
    text.map(String::as_str) == Some(TRUE)
}

/// A full or incremental backup as a possible base.
pub fn base(backup: &Backup) -> Option<Base> {
    let completed = is_completed(backup) && backup.metadata.deletion_timestamp.is_none();
    Some(Base { name: backup.name_any(), kind: kind(backup)?, completed, end: end(backup) })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn backup(name: &str, kind: &str, status: &Value) -> Backup {
        serde_json::from_value(json!({ "metadata": {"name": name, "labels": {(labels::BACKUP_TYPE): kind}},
            "spec": {"backupPolicyName": "p", "backupMethod": "m"}, "status": status }))
        .unwrap()
    }

    fn set(kind: &str) -> ActionSet {
        serde_json::from_value(json!({ "metadata": {"name": "a"}, "spec": {"backupType": kind} })).unwrap()
    }

    #[test]
    fn behaviour_6_4_bases_are_of_the_same_database() {
        let with = |policy: &str, labels: &Value| -> Backup {
            serde_json::from_value(json!({ "metadata": {"name": "b", "namespace": "n", "labels": labels},
                "spec": {"backupPolicyName": policy, "backupMethod": "m"} }))
            .unwrap()
        };
        let (uid, instance, component) = (labels::CLUSTER_UID, labels::INSTANCE, labels::COMPONENT_NAME);
        let (kind, name) = (labels::WORKLOAD_KIND, labels::WORKLOAD_NAME);
        for (log, other, policy, holds) in [
            // Without labels the policy tells.
            (json!({}), json!({}), "p", true),
            (json!({}), json!({ (uid): "u" }), "p", true),
            (json!({}), json!({}), "q", false),
            // Each label that the log has must be equal; those that it lacks do not matter.
            (
                json!({ (uid): "u", (instance): "c" }),
                json!({ (uid): "u", (instance): "c", (component): "x" }),
                "q",
                true,
            ),
            (json!({ (uid): "u", (instance): "c" }), json!({ (uid): "v", (instance): "c" }), "p", false),
            (json!({ (uid): "u", (component): "x" }), json!({ (uid): "u" }), "p", false),
            // Neighbours in one release share the instance, but are other workloads.
            (
                json!({ (instance): "r", (kind): "statefulset", (name): "pg" }),
                json!({ (instance): "r", (kind): "statefulset", (name): "redis" }),
                "p",
                false,
            ),
            (json!({ (instance): "r", (kind): "statefulset", (name): "pg" }), json!({ (instance): "r" }), "q", true),
            // Plain StatefulSets by our own labels, whatever the policy.
            (json!({ (kind): "statefulset", (name): "pg" }), json!({ (kind): "statefulset", (name): "pg" }), "q", true),
            (json!({ (kind): "statefulset", (name): "pg" }), json!({}), "q", false),
            (json!({ (kind): "statefulset", (name): "pg" }), json!({}), "p", true),
        ] {
            assert_eq!(same_database(&with("p", &log), &with(policy, &other)), holds, "{log} {other} {policy}");
        }
    }

    #[test]
    fn behaviour_6_4_what_a_log_says() {
        let wal = backup(
            "wal",
            "Continuous",
            &json!({ "phase": "Running", "startTimestamp": "2026-01-01T00:00:00Z",
            "timeRange": {"start": "2026-01-01T01:00:00Z", "end": "2026-01-02T00:00:00Z"},
            "extras": [{"gapStart": "2026-01-01T05:00:00Z", "gapEnd": "2026-01-01T06:00:00Z"}] }),
        );
        let found = log(&wal, &set("Continuous")).unwrap();
        assert_eq!(found.start.unwrap().to_string(), "2026-01-01T01:00:00Z");
        assert_eq!(found.gaps.len(), 1);
        assert!(found.needs_base && !found.full_base_only);
        let recipe: ActionSet = serde_json::from_value(json!({
            "metadata": {"name": "a", "annotations": {(annotations::SKIP_BASE_BACKUP_RESTORE_IN_PITR): "true"}},
            "spec": {"backupType": "Continuous", "restore": {"baseBackupRequired": false}} }))
        .unwrap();
        let found = log(&wal, &recipe).unwrap();
        assert!(!found.needs_base && found.full_base_only);
        let broken = backup("wal", "Continuous", &json!({ "extras": [{"gapStart": "yesterday", "gapEnd": ""}] }));
        assert!(log(&broken, &set("Continuous")).unwrap_err().contains("yesterday"));
    }
}
