//! Backups as a repository remembers them, made ready for another cluster. Pure.

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kbbackup_api::{
    names::{FINALIZER, TRUE, annotations, labels},
    v1alpha1::{ActionPhase, Backup, BackupPhase, BackupStatus, DeletionPolicy},
};
use kbbackup_core::catalogue::Found;
use kube::{ResourceExt, api::ObjectMeta};
use serde_json::json;

use crate::follow;

/// How backups are brought back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Import {
    /// The repository in this cluster; it may have had another name where the backup was made.
    pub repo: String,
    /// Namespace in place of the stored one.
    pub into: Option<String>,
    pub deletion_policy: DeletionPolicy,
    pub now: Timestamp,
}

/// Annotations that tell of the work on a backup, not of the backup.
const PASSING: [&str; 5] = [
    annotations::WAITING_FOR,
    annotations::PROGRESS,
    annotations::ATTEMPTS,
    annotations::WAITING_SINCE,
    "kubectl.kubernetes.io/last-applied-configuration",
];

impl Import {
    /// The Backup, with its status.
    ///
    /// # Errors
    /// Why it cannot come back, in words.
    pub(crate) fn backup(&self, found: &Found) -> Result<Backup, String> {
        if found.locked {
            return Err("it is encrypted; give its key with --passphrase-secret".to_owned());
        }
        if found.unfinished {
            return Err(
                "it has no seal: it was never finished, or it is a log that has not told yet what it is".to_owned()
            );
        }
        let Some(stored) = &found.object else {
            let why = found.trouble.clone().unwrap_or_else(|| "nothing but its seal tells what it is".to_owned());
            return Err(format!("its object is not there: {why}"));
        };
        let backup: Backup =
            serde_json::from_value(stored.clone()).map_err(|error| format!("its object is no Backup: {error}"))?;
        let (name, home) = (backup.name_any(), backup.namespace().unwrap_or_default());
        if name.is_empty() || home.is_empty() {
            return Err("its object has no name or no namespace".to_owned());
        }
        if follow::is_continuous(&backup) && recovery_range(&backup).is_none() {
            return Err("it is a log that does not reach any time yet".to_owned());
        }
        let mut spec = backup.spec.clone();
        spec.deletion_policy = self.deletion_policy;
        let status = self.status(&backup, found)?;
        let metadata = ObjectMeta {
            name: Some(name),
            namespace: Some(self.into.clone().unwrap_or(home)),
            labels: Some(self.labels(&backup)),
            annotations: Some(self.annotations(&backup, found)),
            finalizers: Some(vec![FINALIZER.to_owned()]),
            ..ObjectMeta::default()
        };
        Ok(Backup { metadata, spec, status: Some(status) })
    }

    fn labels(&self, backup: &Backup) -> std::collections::BTreeMap<String, String> {
        let mut kept = backup.labels().clone();
        kept.remove(labels::WAIT_REPO_PREPARATION);
        kept.insert(labels::BACKUP_REPO_NAME.to_owned(), self.repo.clone());
        kept
    }

    /// As stored, with the seal that a restore goes by. The controller leaves the object alone until its status is there.
    fn annotations(&self, backup: &Backup, found: &Found) -> std::collections::BTreeMap<String, String> {
        let mut kept = backup.annotations().clone();
        kept.retain(|key, _| !PASSING.contains(&key.as_str()));
        if let Some(seal) = &found.seal {
            kept.insert(annotations::SEAL.to_owned(), seal.digest.clone());
        }
        if let Some(workload) = &found.workload {
            kept.insert(annotations::WORKLOAD.to_owned(), workload.to_string());
        }
        kept.insert(annotations::IMPORTED_FROM.to_owned(), format!("{}:{}", self.repo, found.path));
        kept.insert(annotations::SKIP_RECONCILIATION.to_owned(), TRUE.to_owned());
        kept
    }

    /// What was stored was written just before the end: the phase still is `Running`, and the last times are missing.
    fn status(&self, backup: &Backup, found: &Found) -> Result<BackupStatus, String> {
        let mut status = backup.status.clone().ok_or("its object has no status")?;
        if status.backup_method.is_none() {
            return Err("its status does not record the method".to_owned());
        }
        status.phase = Some(BackupPhase::Completed);
        status.path = Some(found.path.clone());
        status.backup_repo_name = Some(self.repo.clone());
        let sealed = found.seal.as_ref().and_then(|seal| seal.sealed_at.parse().ok()).map(Time);
        let covered = status.time_range.as_ref().and_then(|range| range.end.clone());
        let started = status.start_timestamp.clone();
        status.completion_timestamp = status.completion_timestamp.take().or(sealed).or(covered).or(started);
        if status.total_size.is_none() {
            status.total_size = found.seal.as_ref().map(|seal| seal.bytes.to_string());
        }
        // What would be over at once is kept instead: nobody imports a backup to have it removed.
        status.expiration = status.expiration.take().filter(|end| end.0 > self.now);
        for action in &mut status.actions {
            action.phase = Some(ActionPhase::Completed);
        }
        Ok(status)
    }
}

/// From when to when a log reaches.
fn recovery_range(backup: &Backup) -> Option<(Timestamp, Timestamp)> {
    let range = backup.status.as_ref()?.time_range.as_ref()?;
    Some((range.start.as_ref()?.0, range.end.as_ref()?.0))
}

/// Parents before their children; what has no parent here keeps its order.
pub(crate) fn parents_first(mut backups: Vec<Backup>) -> Vec<Backup> {
    backups.sort_by_key(|backup| (backup.namespace(), backup.status.as_ref().map(started), backup.name_any()));
    let places: HashMap<(Option<String>, String), usize> =
        backups.iter().enumerate().map(|(at, backup)| ((backup.namespace(), backup.name_any()), at)).collect();
    let mut children = vec![Vec::new(); backups.len()];
    let mut waits = vec![0; backups.len()];
    for (at, backup) in backups.iter().enumerate() {
        for parent in follow::parents(backup) {
            if let Some(parent) = places.get(&(backup.namespace(), parent)) {
                children[*parent].push(at);
                waits[at] += 1;
            }
        }
    }
    let mut ready: BTreeSet<usize> = (0..backups.len()).filter(|at| waits[*at] == 0).collect();
    let mut order = Vec::with_capacity(backups.len());
    while let Some(at) = ready.pop_first() {
        order.push(at);
        for child in &children[at] {
            waits[*child] -= 1;
            if waits[*child] == 0 {
                ready.insert(*child);
            }
        }
    }
    // A circle cannot be right, and must not hold up the others.
    order.extend((0..backups.len()).filter(|at| waits[*at] > 0));
    let mut backups: Vec<Option<Backup>> = backups.into_iter().map(Some).collect();
    order.into_iter().filter_map(|at| backups[at].take()).collect()
}

fn started(status: &BackupStatus) -> Option<Timestamp> {
    status.start_timestamp.as_ref().map(|time| time.0)
}

/// The patch that takes the controller's blindfold off.
pub(crate) fn released() -> serde_json::Value {
    json!({"metadata": {"annotations": {annotations::SKIP_RECONCILIATION: null}}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use kbbackup_core::catalogue::SealFound;

    fn found(name: &str, status: serde_json::Value) -> Found {
        let mut whole = json!({"phase": "Running", "startTimestamp": "2026-01-02T03:04:05Z", "path": "/old/path",
            "backupRepoName": "old", "backupMethod": {"name": "full", "actionSetName": "a"},
            "actions": [{"name": "dp-seal", "phase": "Running"}]});
        whole.as_object_mut().unwrap().extend(status.as_object().unwrap().clone());
        let object = json!({
            "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "Backup",
            "metadata": {"name": name, "namespace": "demo", "uid": "u", "creationTimestamp": "2026-01-02T03:04:00Z",
                "labels": {labels::BACKUP_REPO_NAME: "old", labels::INSTANCE: "pg", labels::WAIT_REPO_PREPARATION: "true"},
                "annotations": {annotations::PROGRESS: "{}", "mine": "kept"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "x", "uid": "x"}]},
            "spec": {"backupPolicyName": "pg", "backupMethod": "full", "deletionPolicy": "Delete", "retentionPeriod": "7d"},
            "status": whole});
        let seal =
            SealFound { digest: "abc".into(), objects: 2, bytes: 2048, sealed_at: "2026-01-02T03:05:05Z".into() };
        Found {
            path: format!("/prod/demo/pg/{name}"),
            seal: Some(seal),
            object: Some(object),
            workload: Some(json!({"statefulSet": {}})),
            ..Found::default()
        }
    }

    fn import() -> Import {
        Import {
            repo: "new".into(),
            into: None,
            deletion_policy: DeletionPolicy::Retain,
            now: "2026-02-01T00:00:00Z".parse().unwrap(),
        }
    }

    #[test]
    fn a_stored_object_becomes_a_completed_backup_of_this_cluster() {
        let backup = import().backup(&found("one", json!({"expiration": "2026-01-09T03:04:05Z"}))).unwrap();
        insta::assert_json_snapshot!(backup);
    }

    #[test]
    fn a_time_that_is_not_over_is_kept_and_a_namespace_may_be_another() {
        let import = Import { into: Some("dr".into()), ..import() };
        let backup = import.backup(&found("one", json!({"expiration": "2027-01-09T03:04:05Z"}))).unwrap();
        assert_eq!(backup.namespace().as_deref(), Some("dr"));
        assert!(backup.status.unwrap().expiration.is_some());
    }

    #[test]
    fn what_cannot_come_back_says_why() {
        let refused = |found: Found| import().backup(&found).unwrap_err();
        let whole = || found("one", json!({}));
        assert!(refused(Found { unfinished: true, ..whole() }).contains("never finished"));
        assert!(refused(Found { locked: true, ..whole() }).contains("--passphrase-secret"));
        assert!(refused(Found { object: None, ..whole() }).contains("not there"));
        assert!(refused(Found { object: Some(json!({"kind": 1})), ..whole() }).contains("no Backup"));
        assert!(refused(found("one", json!({"backupMethod": null}))).contains("method"));
    }

    #[test]
    fn parents_come_before_their_children_whatever_the_clocks_said() {
        let backup = |name: &str, parent: Option<&str>, start: &str| {
            let mut backup = import().backup(&found(name, json!({"parentBackupName": parent}))).unwrap();
            backup.status.as_mut().unwrap().start_timestamp = Some(Time(start.parse().unwrap()));
            backup
        };
        let all = vec![
            backup("grandchild", Some("child"), "2026-01-01T00:00:00Z"),
            backup("child", Some("base"), "2026-01-02T00:00:00Z"),
            backup("base", None, "2026-01-03T00:00:00Z"),
            backup("a", Some("b"), "2026-01-04T00:00:00Z"),
            backup("b", Some("a"), "2026-01-05T00:00:00Z"),
        ];
        let names: Vec<String> = parents_first(all).iter().map(ResourceExt::name_any).collect();
        assert_eq!(names, ["base", "child", "grandchild", "a", "b"]);
    }
}
