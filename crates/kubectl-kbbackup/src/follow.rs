//! What the state of an object means to somebody who waits for its end. Pure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kbbackup_api::{
    names::{annotations, labels},
    v1alpha1::{
        ActionPhase, Backup, BackupPhase, BackupRepo, BackupRepoPhase, BackupSchedule, BackupSchedulePhase, BackupType,
        Restore, RestoreActionPhase, RestorePhase, RestoreStatusAction,
    },
};
use kube::ResourceExt;

use crate::{output::human, wait::Seen};

/// How something ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Good,
    /// With the reason from its status.
    Bad(String),
    /// It was deleted meanwhile.
    Gone,
}

pub(crate) fn is_continuous(backup: &Backup) -> bool {
    backup.labels().get(labels::BACKUP_TYPE).is_some_and(|value| value == BackupType::Continuous.as_str())
}

pub(crate) fn backup_phase(backup: &Backup) -> Option<BackupPhase> {
    backup.status.as_ref().and_then(|status| status.phase)
}

/// Names of the backups that this one cannot be restored without.
pub(crate) fn parents(backup: &Backup) -> Vec<String> {
    let status = backup.status.as_ref();
    let mut parents: Vec<String> = [
        status.and_then(|status| status.parent_backup_name.clone()),
        status.and_then(|status| status.base_backup_name.clone()),
        backup.spec.parent_backup_name.clone(),
    ]
    .into_iter()
    .flatten()
    .filter(|name| *name != backup.name_any() && !name.is_empty())
    .collect();
    parents.sort();
    parents.dedup();
    parents
}

/// A backup: `Completed` or `Failed`; a continuous one has arrived when it runs with a pod.
pub(crate) fn backup(backup: Option<&Backup>) -> Seen<Ending> {
    let Some(backup) = backup else { return Seen::End(Ending::Gone) };
    match backup_phase(backup) {
        Some(BackupPhase::Completed) => Seen::End(Ending::Good),
        Some(BackupPhase::Failed) => Seen::End(Ending::Bad(backup_reason(backup))),
        Some(BackupPhase::Deleting) => Seen::End(Ending::Gone),
        Some(BackupPhase::Running) if is_continuous(backup) && has_pod(backup) => Seen::End(Ending::Good),
        phase => Seen::Going(backup_line(backup, phase)),
    }
}

fn has_pod(backup: &Backup) -> bool {
    backup.status.iter().flat_map(|status| &status.actions).any(|action| action.available_replicas.unwrap_or(0) > 0)
}

fn backup_line(backup: &Backup, phase: Option<BackupPhase>) -> String {
    let status = backup.status.as_ref();
    let mut parts = vec![match phase {
        None | Some(BackupPhase::New) => "waiting for the operator".to_owned(),
        Some(_) => "running".to_owned(),
    }];
    let actions = || status.into_iter().flat_map(|status| &status.actions);
    let now = actions().find(|action| action.phase == Some(ActionPhase::Running)).or_else(|| {
        actions().find(|action| !matches!(action.phase, Some(ActionPhase::Completed | ActionPhase::Failed)))
    });
    if let Some(action) = now {
        parts[0] = action.name.clone().unwrap_or_default();
        if let Some(pod) = &action.target_pod_name {
            parts[0] = format!("{} on {pod}", parts[0]);
        }
    }
    parts.extend(bytes_done(backup.annotations().get(annotations::PROGRESS)));
    parts.extend(obstacle(backup.annotations()));
    format!("backup/{}: {}", backup.name_any(), parts.join(" · "))
}

/// What the operator is waiting for or trying again.
fn obstacle(annotations: &BTreeMap<String, String>) -> Option<String> {
    let text = annotations.get(annotations::WAITING_FOR).filter(|text| !text.is_empty())?;
    Some(text.lines().next().unwrap_or_default().to_owned())
}

/// The operator's figure of bytes; with a total also in percent.
fn bytes_done(progress: Option<&String>) -> Option<String> {
    let progress: serde_json::Value = serde_json::from_str(progress?).ok()?;
    let bytes = progress["bytes"].as_u64()?;
    let done = human::bytes(bytes);
    match progress["total"].as_u64().filter(|total| *total > 0) {
        Some(total) => Some(format!("{done} of {} ({}%)", human::bytes(total), (bytes * 100 / total).min(100))),
        None => Some(done),
    }
}

/// Why a backup failed: its own words, else those of its actions.
pub(crate) fn backup_reason(backup: &Backup) -> String {
    let Some(status) = &backup.status else { return String::new() };
    let action = || {
        let failed = status.actions.iter().find(|action| action.phase == Some(ActionPhase::Failed));
        failed.and_then(|action| action.failure_reason.clone())
    };
    status.failure_reason.clone().filter(|reason| !reason.is_empty()).or_else(action).unwrap_or_default()
}

/// A schedule: in effect or not, in its present generation.
pub(crate) fn schedule(schedule: Option<&BackupSchedule>) -> Seen<Ending> {
    let Some(schedule) = schedule else { return Seen::End(Ending::Gone) };
    let status = schedule.status.as_ref().filter(|status| status.observed_generation >= schedule.metadata.generation);
    match status.and_then(|status| status.phase.as_ref()) {
        Some(BackupSchedulePhase::Available) => Seen::End(Ending::Good),
        Some(BackupSchedulePhase::Failed) => {
            Seen::End(Ending::Bad(status.and_then(|status| status.failure_reason.clone()).unwrap_or_default()))
        }
        _ => Seen::Going(format!("backupschedule/{}: waiting for the operator", schedule.name_any())),
    }
}

/// A restore: `Completed` or `Failed`.
pub(crate) fn restore(restore: Option<&Restore>) -> Seen<Ending> {
    let Some(restore) = restore else { return Seen::End(Ending::Gone) };
    let status = restore.status.as_ref();
    match status.and_then(|status| status.phase) {
        Some(RestorePhase::Completed | RestorePhase::AsDataSource) => Seen::End(Ending::Good),
        Some(RestorePhase::Failed) => Seen::End(Ending::Bad(restore_reason(restore))),
        Some(RestorePhase::Running) => Seen::Going(restore_line(restore)),
        None => Seen::Going(format!("restore/{}: waiting for the operator", restore.name_any())),
    }
}

fn restore_line(restore: &Restore) -> String {
    let actions = restore.status.as_ref().and_then(|status| status.actions.as_ref());
    let stage = |name: &str, list: &[RestoreStatusAction]| {
        let done = list.iter().filter(|action| action.status == RestoreActionPhase::Completed).count();
        (!list.is_empty()).then(|| format!("{name} {done}/{}", list.len()))
    };
    let mut parts: Vec<String> = actions
        .into_iter()
        .flat_map(|actions| [stage("volumes", &actions.prepare_data), stage("post-ready", &actions.post_ready)])
        .flatten()
        .collect();
    let conditions = restore.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    if let Some(condition) = conditions.iter().find(|condition| {
        ["VolumesExchanged", "WorkloadReady"].contains(&condition.type_.as_str()) && condition.status != "True"
    }) {
        parts.push(if condition.message.is_empty() {
            "starting the workload".into()
        } else {
            condition.message.clone()
        });
    }
    parts.extend(bytes_done(restore.annotations().get(annotations::PROGRESS)));
    // The same obstacle may stand in a condition as well.
    parts.extend(obstacle(restore.annotations()).filter(|text| !parts.contains(text)));
    if parts.is_empty() {
        parts.push("running".to_owned());
    }
    format!("restore/{}: {}", restore.name_any(), parts.join(" · "))
}

/// Why a restore failed: the conditions that say no, then the messages of failed actions.
pub(crate) fn restore_reason(restore: &Restore) -> String {
    let Some(status) = &restore.status else { return String::new() };
    let actions = status.actions.iter().flat_map(|actions| actions.prepare_data.iter().chain(&actions.post_ready));
    let failed = actions
        .filter(|action| action.status == RestoreActionPhase::Failed)
        .filter_map(|action| action.message.clone());
    let mut reasons: Vec<String> =
        bad(&status.conditions).map(|condition| condition.message.clone()).chain(failed).collect();
    reasons.retain(|reason| !reason.is_empty());
    reasons.dedup();
    reasons.join("\n")
}

/// A repository: `Ready` or `Failed`, of the generation that is there.
pub(crate) fn repo(repo: Option<&BackupRepo>) -> Seen<Ending> {
    let Some(repo) = repo else { return Seen::End(Ending::Gone) };
    let name = repo.name_any();
    let Some(status) = &repo.status else { return Seen::Going(format!("backuprepo/{name}: waiting for the operator")) };
    let current = status.observed_generation.is_none_or(|seen| Some(seen) >= repo.metadata.generation);
    match status.phase {
        Some(BackupRepoPhase::Ready) if current => Seen::End(Ending::Good),
        // Before the first look is complete a repository is called Failed as well, without any condition saying so.
        Some(BackupRepoPhase::Failed) if current && !repo_reason(repo).is_empty() => {
            Seen::End(Ending::Bad(repo_reason(repo)))
        }
        Some(BackupRepoPhase::Deleting) => Seen::End(Ending::Gone),
        Some(BackupRepoPhase::PreChecking) => {
            Seen::Going(format!("backuprepo/{name}: checking by writing and reading a file"))
        }
        _ => Seen::Going(format!("backuprepo/{name}: waiting for the operator")),
    }
}

/// Why a repository is not ready.
pub(crate) fn repo_reason(repo: &BackupRepo) -> String {
    let conditions = repo.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    bad(conditions)
        .map(|condition| {
            if condition.message.is_empty() {
                condition.reason.clone()
            } else {
                format!("{}: {}", condition.reason, condition.message)
            }
        })
        .collect::<Vec<_>>()
        .join("\n")
}

fn bad(conditions: &[Condition]) -> impl Iterator<Item = &Condition> {
    conditions.iter().filter(|condition| condition.status == "False")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn backup_with(status: serde_json::Value, annotations: serde_json::Value) -> Backup {
        serde_json::from_value(json!({
            "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "Backup",
            "metadata": {"name": "one", "annotations": annotations},
            "spec": {"backupPolicyName": "pg", "backupMethod": "full"}, "status": status
        }))
        .unwrap()
    }

    #[test]
    fn a_running_backup_says_what_it_does_and_how_far_it_is() {
        let status = json!({"phase": "Running", "actions": [
            {"name": "dp-prebackup-0", "phase": "Completed"},
            {"name": "dp-backup-0", "phase": "Running", "targetPodName": "pg-0"}]});
        let seen =
            backup(Some(&backup_with(status, json!({annotations::PROGRESS: r#"{"bytes":1048576,"total":4194304}"#}))));
        let Seen::Going(line) = seen else { panic!("{seen:?}") };
        assert_eq!(line, "backup/one: dp-backup-0 on pg-0 · 1.0 MiB of 4.0 MiB (25%)");
    }

    #[test]
    fn the_reason_of_a_failed_action_is_the_reason() {
        let status = json!({"phase": "Failed", "actions": [{"name": "dp-backup-0", "phase": "Failed", "failureReason": "no space"}]});
        let Seen::End(ending) = backup(Some(&backup_with(status, json!({})))) else { panic!() };
        assert_eq!(ending, Ending::Bad("no space".into()));
    }

    #[test]
    fn an_old_ready_does_not_count_for_a_new_generation() {
        let repo = |seen: i64| -> BackupRepo {
            serde_json::from_value(json!({
                "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "BackupRepo",
                "metadata": {"name": "main", "generation": 2},
                "spec": {"storageProviderRef": "s3", "pvReclaimPolicy": "Retain"},
                "status": {"phase": "Ready", "observedGeneration": seen}
            }))
            .unwrap()
        };
        assert!(matches!(super::repo(Some(&repo(1))), Seen::Going(_)));
        assert!(matches!(super::repo(Some(&repo(2))), Seen::End(Ending::Good)));
    }

    #[test]
    fn a_failure_without_a_reason_is_none_yet() {
        let repo = |conditions: serde_json::Value| -> BackupRepo {
            serde_json::from_value(json!({
                "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "BackupRepo",
                "metadata": {"name": "main"},
                "spec": {"storageProviderRef": "s3", "pvReclaimPolicy": "Retain"},
                "status": {"phase": "Failed", "conditions": conditions}
            }))
            .unwrap()
        };
        assert!(matches!(super::repo(Some(&repo(json!([])))), Seen::Going(_)));
        let said = json!([{"type": "PreCheckPassed", "status": "False", "reason": "PreCheckFailed", "message": "no",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
        assert!(matches!(super::repo(Some(&repo(said))), Seen::End(Ending::Bad(_))));
    }
}
