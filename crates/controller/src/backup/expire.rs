//! Whether retention may remove a backup: behaviour 4.13. A verdict with its reason, pure; deleting is the driver's job.

use std::time::Duration;

use jiff::Timestamp;
use kbbackup_api::names::labels;
use kbbackup_api::v1alpha1::{Backup, BackupPhase, BackupPolicy, RetentionPolicy};
use kube::ResourceExt as _;

use super::{continuous, link};

/// What retention says about a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stays, at least for now.
    Keep(&'static str),
    /// Its time has not come; look again then.
    Until(Duration),
    /// It may go.
    Remove,
}

/// Judges `backup` among all backups of its namespace. `read` says that a restore is reading it, or one that needs it.
pub fn judge(backup: &Backup, policy: Option<&BackupPolicy>, all: &[&Backup], read: bool, now: Timestamp) -> Verdict {
    let Some(status) = &backup.status else { return Verdict::Keep("it has not started") };
    let Some(expiration) = &status.expiration else { return Verdict::Keep("it has no expiration") };
    match status.phase {
        Some(BackupPhase::Completed | BackupPhase::Failed) => {}
        _ => return Verdict::Keep("it is not over"),
    }
    let left = expiration.0.duration_since(now);
    if left.is_positive() {
        // A second more, so that the clock has passed the moment when we look again.
        return Verdict::Until(left.unsigned_abs() + Duration::from_secs(1));
    }
    if read {
        return Verdict::Keep("a restore is reading it");
    }
    if status.phase == Some(BackupPhase::Failed) {
        // What it has archived is as good as before; its schedule resumes it, or ends it and then it expires.
        let resumes = continuous::is_continuous(backup);
        return if resumes { Verdict::Keep("its archiving may be resumed") } else { Verdict::Remove };
    }
    let Some(policy) = policy else { return Verdict::Remove };
    if is_incremental(backup) {
        return Verdict::Keep("it goes with the backup that it builds on");
    }
    let name = backup.name_any();
    let needs_it = |other: &&&Backup| {
        let status = other.status.as_ref();
        let builds_on = |parent: Option<&String>| parent == Some(&name);
        status.is_some_and(|status| {
            builds_on(status.base_backup_name.as_ref()) || builds_on(status.parent_backup_name.as_ref())
        })
    };
    let is_live = |other: &Backup| {
        let expiration = other.status.as_ref().and_then(|status| status.expiration.as_ref());
        let failed = other.status.as_ref().and_then(|status| status.phase) == Some(BackupPhase::Failed);
        !failed && expiration.is_none_or(|expiration| expiration.0 > now)
    };
    if all.iter().filter(needs_it).any(|other| is_live(other)) {
        return Verdict::Keep("an incremental backup that is to be kept builds on it");
    }
    if all.iter().any(|other| is_window(other, backup, now) && needs(other, backup, all)) {
        return Verdict::Keep("it is the last base that a continuous backup which is kept can be restored from");
    }
    if policy.spec.retention_policy() == RetentionPolicy::RetainLatestBackup && is_newest(backup, all) {
        return Verdict::Keep("it is the newest completed backup of its method");
    }
    Verdict::Remove
}

fn is_incremental(backup: &Backup) -> bool {
    backup.labels().get(labels::BACKUP_TYPE).map(String::as_str) == Some("Incremental")
}

/// Whether `other` is a continuous backup of the same database that is not to be removed now.
fn is_window(other: &Backup, backup: &Backup, now: Timestamp) -> bool {
    let Some(status) = &other.status else { return false };
    let is_over = status.phase == Some(BackupPhase::Completed)
        && status.expiration.as_ref().is_some_and(|expiration| expiration.0 <= now);
    continuous::is_continuous(other)
        && other.metadata.deletion_timestamp.is_none()
        && !is_over
        && other.namespace() == backup.namespace()
        && other.spec.backup_policy_name == backup.spec.backup_policy_name
}

/// Whether the window of `log` could not be restored at all without `backup`: it is, or carries, the newest base that ends
/// in it. Older bases may go: their going shortens the window, which is what retention is for.
fn needs(log: &Backup, backup: &Backup, all: &[&Backup]) -> bool {
    let Some(start) = link::start(log) else { return false };
    let is_base = |other: &&&Backup| {
        let kind = other.labels().get(labels::BACKUP_TYPE).map(String::as_str);
        matches!(kind, Some("Full" | "Incremental"))
            && other.spec.backup_policy_name == log.spec.backup_policy_name
            && other.metadata.deletion_timestamp.is_none()
            && link::is_completed(other)
            && link::end(other).is_some_and(|end| end >= start)
    };
    let Some(last) = all.iter().filter(is_base).max_by_key(|base| (link::end(base), base.name_any())) else {
        return false;
    };
    let name = backup.name_any();
    let below = last.status.as_ref().into_iter();
    last.name_any() == name
        || below
            .flat_map(|status| [&status.base_backup_name, &status.parent_backup_name])
            .any(|parent| parent.as_ref() == Some(&name))
}

fn is_newest(backup: &Backup, all: &[&Backup]) -> bool {
    let same = |other: &&&Backup| {
        other.labels().get(labels::CLUSTER_UID) == backup.labels().get(labels::CLUSTER_UID)
            && other.spec.backup_policy_name == backup.spec.backup_policy_name
            && other.spec.backup_method == backup.spec.backup_method
            && other.metadata.deletion_timestamp.is_none()
            && link::is_completed(other)
    };
    let rank = |backup: &Backup| (link::end(backup), backup.name_any());
    all.iter().filter(same).all(|other| rank(other) <= rank(backup))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: &str = "2026-03-01T00:00:00Z";

    fn backup(name: &str, kind: &str, status: Value) -> Backup {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "demo", "labels": {labels::BACKUP_TYPE: kind}},
            "spec": {"backupPolicyName": "p", "backupMethod": "full"}, "status": status }))
        .unwrap()
    }

    fn over(phase: &str, completed: &str, expiration: &str) -> Value {
        json!({ "phase": phase, "completionTimestamp": completed, "expiration": expiration })
    }

    fn policy(retention: &str) -> BackupPolicy {
        serde_json::from_value(
            json!({ "metadata": {"name": "p"}, "spec": {"backupMethods": [], "retentionPolicy": retention} }),
        )
        .unwrap()
    }

    fn verdict(backup: &Backup, policy: Option<&BackupPolicy>, all: &[&Backup]) -> Verdict {
        judge(backup, policy, all, false, NOW.parse().unwrap())
    }

    #[test]
    fn behaviour_4_13_what_is_expired_goes() {
        let none = policy("none");
        let old = over("Completed", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z");
        let expired = backup("a", "Full", old.clone());
        assert_eq!(verdict(&expired, Some(&none), &[&expired]), Verdict::Remove);
        assert_eq!(verdict(&backup("a", "Incremental", old.clone()), None, &[]), Verdict::Remove);
        assert!(matches!(verdict(&backup("a", "Incremental", old), Some(&none), &[]), Verdict::Keep(_)));
        let failed = backup("f", "Incremental", over("Failed", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"));
        assert_eq!(verdict(&failed, Some(&none), &[]), Verdict::Remove);
        for status in
            [json!({ "phase": "Running", "expiration": "2026-02-01T00:00:00Z" }), json!({ "phase": "Completed" })]
        {
            assert!(matches!(verdict(&backup("r", "Full", status), Some(&none), &[]), Verdict::Keep(_)));
        }
    }

    #[test]
    fn what_expires_later_is_looked_at_then() {
        let fresh = backup("a", "Full", over("Completed", "2026-01-01T00:00:00Z", "2026-03-01T00:01:00Z"));
        assert_eq!(verdict(&fresh, None, &[]), Verdict::Until(Duration::from_secs(61)));
    }

    #[test]
    fn behaviour_4_13_the_newest_backup_is_retained() {
        let retain = policy("retainLatestBackup");
        let old = backup("old", "Full", over("Completed", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"));
        let new = backup("new", "Full", over("Completed", "2026-01-02T00:00:00Z", "2026-02-01T00:00:00Z"));
        assert_eq!(verdict(&old, Some(&retain), &[&old, &new]), Verdict::Remove);
        assert!(matches!(verdict(&new, Some(&retain), &[&old, &new]), Verdict::Keep(_)));
    }

    #[test]
    fn the_last_base_of_a_window_is_kept() {
        let none = policy("none");
        let old = backup("old", "Full", over("Completed", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"));
        let new = backup("new", "Full", over("Completed", "2026-01-02T00:00:00Z", "2026-02-01T00:00:00Z"));
        let log = |status: Value| backup("log", "Continuous", status);
        let window = |start: &str| json!({ "start": start, "end": "2026-02-28T00:00:00Z" });
        let running = log(json!({ "phase": "Running", "timeRange": window("2025-12-01T00:00:00Z") }));
        let judged = |which: &Backup, log: &Backup| verdict(which, Some(&none), &[&old, &new, log]);
        assert_eq!(judged(&old, &running), Verdict::Remove, "the window only shrinks");
        assert!(matches!(judged(&new, &running), Verdict::Keep(_)));
        // A window that begins later cannot be restored from either of them.
        let later = log(json!({ "phase": "Running", "timeRange": window("2026-02-01T00:00:00Z") }));
        assert_eq!(judged(&new, &later), Verdict::Remove);
        let failed = log(json!({ "phase": "Failed", "timeRange": window("2025-12-01T00:00:00Z") }));
        assert!(matches!(judged(&new, &failed), Verdict::Keep(_)));
        let ended = |expiration: &str| {
            log(json!({ "phase": "Completed", "timeRange": window("2025-12-01T00:00:00Z"), "expiration": expiration }))
        };
        assert!(matches!(judged(&new, &ended("2026-04-01T00:00:00Z")), Verdict::Keep(_)));
        assert_eq!(judged(&new, &ended("2026-02-01T00:00:00Z")), Verdict::Remove);
        let mut other = running.clone();
        other.spec.backup_policy_name = "q".into();
        assert_eq!(judged(&new, &other), Verdict::Remove);
    }

    #[test]
    fn the_last_base_of_a_window_is_kept_with_what_it_builds_on() {
        let none = policy("none");
        let full = backup("full", "Full", over("Completed", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"));
        let mut chain = over("Completed", "2026-01-02T00:00:00Z", "2026-02-01T00:00:00Z");
        chain["baseBackupName"] = json!("full");
        chain["parentBackupName"] = json!("full");
        let last = backup("last", "Incremental", chain);
        let log = backup("log", "Continuous", json!({ "phase": "Running", "startTimestamp": "2025-12-01T00:00:00Z" }));
        assert!(matches!(verdict(&full, Some(&none), &[&full, &last, &log]), Verdict::Keep(_)));
        assert_eq!(verdict(&full, Some(&none), &[&full, &last]), Verdict::Remove);
    }

    #[test]
    fn behaviour_4_13_a_failed_continuous_backup_is_not_collected_and_a_completed_one_is() {
        let none = policy("none");
        let failed = backup("log", "Continuous", over("Failed", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"));
        assert!(matches!(verdict(&failed, Some(&none), &[&failed]), Verdict::Keep(_)));
        let ended = backup("log", "Continuous", over("Completed", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"));
        assert_eq!(verdict(&ended, Some(&none), &[&ended]), Verdict::Remove);
    }

    #[test]
    fn a_full_backup_stays_as_long_as_a_differential_one_and_the_latter_goes_by_itself() {
        let none = policy("none");
        let base = backup("base", "Full", over("Completed", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"));
        let child = |expiration: &str| {
            backup(
                "child",
                "Differential",
                json!({ "phase": "Completed", "baseBackupName": "base",
                "parentBackupName": "base", "expiration": expiration }),
            )
        };
        let live = child("2026-04-01T00:00:00Z");
        assert!(matches!(verdict(&base, Some(&none), &[&base, &live]), Verdict::Keep(_)));
        let dead = child("2026-02-15T00:00:00Z");
        assert_eq!(verdict(&dead, Some(&none), &[&base, &dead]), Verdict::Remove);
        assert_eq!(verdict(&base, Some(&none), &[&base, &dead]), Verdict::Remove);
    }

    #[test]
    fn a_backup_that_is_needed_is_kept() {
        let none = policy("none");
        let base = backup("base", "Full", over("Completed", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"));
        let child = |expiration: &str| {
            backup(
                "child",
                "Incremental",
                json!({ "phase": "Completed", "baseBackupName": "base", "parentBackupName": "base",
                "expiration": expiration }),
            )
        };
        let live = child("2026-04-01T00:00:00Z");
        assert!(matches!(verdict(&base, Some(&none), &[&base, &live]), Verdict::Keep(_)));
        let dead = child("2026-02-15T00:00:00Z");
        assert_eq!(verdict(&base, Some(&none), &[&base, &dead]), Verdict::Remove);
        assert!(matches!(judge(&base, Some(&none), &[&base], true, NOW.parse().unwrap()), Verdict::Keep(_)));
    }
}
