//! How far a running backup is, in bytes and of how many: noted in an annotation, for people.
//!
//! No watch can tell it, for workers have no token; so the reporters' last words are read, for backups that take long, and
//! seldom.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kbbackup_api::names::{annotations, labels};
use kbbackup_api::v1alpha1::{ActionPhase, ActionStatus, Backup, BackupStatus};
use kbbackup_core::contract::progress::Line;
use kbbackup_core::layout;
use kube::ResourceExt as _;
use serde::{Deserialize, Serialize};

use super::link;
use crate::context::Context;
use crate::pool;
use crate::worker::logs;

/// Between two looks, and before the first.
const EVERY: SignedDuration = SignedDuration::from_secs(30);

/// What the annotation holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Progress {
    /// Stored so far, by all pods.
    bytes: u64,
    /// What the last backup of this method came to: what may be expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
    /// When it was so.
    at: Timestamp,
}

/// The annotation as it should be now; `None` to leave it as it is.
pub(super) async fn look(ctx: &Context, backup: &Backup, status: &BackupStatus) -> Option<String> {
    let before = recorded(backup);
    let running: Vec<&ActionStatus> = status.actions.iter().filter(|action| is_running(action)).collect();
    if running.is_empty() || !is_due(before.as_ref(), status, ctx.now()) {
        return None;
    }
    let mut bytes = 0;
    for action in &running {
        if let Some(pod) = pod_of(ctx, backup, action) {
            let namespace = pod.namespace().unwrap_or_default();
            bytes += logs::last_line(&ctx.client, &namespace, &pod.name_any(), "manager")
                .await
                .map_or(0, |line| read(&line));
        }
    }
    let total = before.and_then(|before| before.total).or_else(|| expected(ctx, backup));
    next(before.as_ref(), status, bytes, total, ctx.now())
}

/// How long to wait for the next look; `None` when there is nothing to look at.
pub(super) fn pause(status: &BackupStatus) -> Option<Duration> {
    status.actions.iter().any(is_running).then_some(EVERY.unsigned_abs())
}

fn recorded(backup: &Backup) -> Option<Progress> {
    serde_json::from_str(backup.annotations().get(annotations::PROGRESS)?).ok()
}

/// Whether an action that writes data is at work.
fn is_running(action: &ActionStatus) -> bool {
    is_data(action) && action.phase == Some(ActionPhase::Running)
}

fn is_data(action: &ActionStatus) -> bool {
    action.name.as_deref().is_some_and(|name| name.starts_with("dp-backup-"))
}

/// Short backups are not looked at, and long ones not often.
fn is_due(before: Option<&Progress>, status: &BackupStatus, now: Timestamp) -> bool {
    let since = before.map(|before| before.at).or_else(|| status.start_timestamp.as_ref().map(|time| time.0));
    since.is_some_and(|since| now.duration_since(since) >= EVERY)
}

fn next(
    before: Option<&Progress>,
    status: &BackupStatus,
    running: u64,
    total: Option<u64>,
    now: Timestamp,
) -> Option<String> {
    let over = status.actions.iter().filter(|action| is_data(action) && !is_running(action));
    let over: u64 = over.filter_map(|action| layout::parse_size(action.total_size.as_deref()?)).sum();
    let bytes = over + running;
    // A pod that began anew, or whose log is not to be had for a moment, is further than nothing.
    if bytes == 0 && before.is_none() {
        return None;
    }
    serde_json::to_string(&Progress { bytes, total, at: super::decide::stamp(now).0 }).ok()
}

/// The figure in the reporter's last line.
fn read(line: &str) -> u64 {
    serde_json::from_str::<Line>(line.trim()).map_or(0, |line| line.bytes)
}

/// The pod that does an action now.
fn pod_of(ctx: &Context, backup: &Backup, action: &ActionStatus) -> Option<Arc<Pod>> {
    let (backup, home) = (backup.name_any(), backup.namespace());
    let action = action.name.as_deref()?;
    let label = |pod: &Pod, key: &str, wanted: &str| pod.labels().get(key).is_some_and(|value| value == wanted);
    ctx.stores.pods.group(&pool::workers_of_backup(&backup)).into_iter().find(|pod| {
        pod.namespace() == home
            && label(pod, labels::ACTION, &kbbackup_core::names::cut63(action))
            && pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
    })
}

/// What the newest completed backup of the same policy and method came to.
fn expected(ctx: &Context, backup: &Backup) -> Option<u64> {
    let home = backup.namespace().unwrap_or_default();
    of_last(ctx.stores.backups.of_policy(&home, &backup.spec.backup_policy_name).iter(), backup)
}

fn of_last<'a>(all: impl Iterator<Item = &'a Backup>, backup: &Backup) -> Option<u64> {
    let same = |other: &&Backup| {
        other.namespace() == backup.namespace()
            && other.spec.backup_policy_name == backup.spec.backup_policy_name
            && other.spec.backup_method == backup.spec.backup_method
            && link::is_completed(other)
    };
    let last = all.filter(same).max_by_key(|other| link::end(other))?;
    layout::parse_size(last.status.as_ref()?.total_size.as_deref()?)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fake::from;

    fn status(actions: Value) -> BackupStatus {
        from(json!({ "phase": "Running", "startTimestamp": "2026-01-01T00:00:00Z", "actions": actions }))
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn pods_that_are_done_and_pods_at_work_count_together() {
        let status = status(json!([
            {"name": "dp-prebackup-0-0", "phase": "Completed", "totalSize": "7"},
            {"name": "dp-backup-0", "phase": "Completed", "totalSize": "1Ki"},
            {"name": "dp-backup-1", "phase": "Running"}]));
        let told = next(None, &status, 976, Some(4000), at("2026-01-01T00:00:30.5Z")).unwrap();
        assert_eq!(told, r#"{"bytes":2000,"total":4000,"at":"2026-01-01T00:00:30Z"}"#);
        assert_eq!(read("{\"bytes\":976}\n"), 976);
        assert_eq!(read("something else"), 0);
    }

    #[test]
    fn nothing_is_told_before_there_is_something_to_tell() {
        assert_eq!(
            next(
                None,
                &status(json!([{"name": "dp-backup-0", "phase": "Running"}])),
                0,
                None,
                at("2026-01-01T00:01:00Z")
            ),
            None
        );
    }

    #[test]
    fn short_backups_are_not_looked_at_and_long_ones_seldom() {
        let status = status(json!([]));
        assert!(!is_due(None, &status, at("2026-01-01T00:00:29Z")));
        assert!(is_due(None, &status, at("2026-01-01T00:00:30Z")));
        let before = Progress { bytes: 1, total: None, at: at("2026-01-01T00:00:30Z") };
        assert!(!is_due(Some(&before), &status, at("2026-01-01T00:00:31Z")), "its own note wakes the backup");
        assert!(is_due(Some(&before), &status, at("2026-01-01T00:01:00Z")));
    }

    #[test]
    fn the_last_backup_of_the_same_method_tells_what_may_be_expected() {
        let backup = |name: &str, method: &str, phase: &str, end: &str, size: &str| -> Backup {
            from(
                json!({ "metadata": {"name": name, "namespace": "demo"}, "spec": {"backupPolicyName": "p", "backupMethod": method},
                "status": {"phase": phase, "completionTimestamp": end, "totalSize": size} }),
            )
        };
        let all = [
            backup("a", "full", "Completed", "2026-01-01T00:00:00Z", "100"),
            backup("b", "full", "Completed", "2026-01-02T00:00:00Z", "2Ki"),
            backup("c", "full", "Failed", "2026-01-03T00:00:00Z", "300"),
            backup("d", "incr", "Completed", "2026-01-04T00:00:00Z", "400"),
        ];
        let own = backup("e", "full", "Running", "2026-01-05T00:00:00Z", "1");
        assert_eq!(of_last(all.iter(), &own), Some(2048));
        assert_eq!(of_last(all[2..].iter(), &own), None);
    }
}
