//! Schedules by the objects they make, and by what they say when something is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use kbbackup_api::names::{annotations, labels};
use kbbackup_api::v1alpha1::{ActionSet, BackupPolicy, BackupSchedule, BackupSchedulePhase};
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::decide::{Plan, decide, next_runs};
use super::observe::Seen;
use crate::worker::settings;

const UID: &str = "aaaabbbb-0000-4000-8000-000000000000";

fn now() -> Timestamp {
    "2026-11-25T22:30:15Z".parse().unwrap()
}

fn schedule(spec: Value) -> BackupSchedule {
    serde_json::from_value(json!({ "metadata": {"name": "nightly", "namespace": "demo", "uid": UID, "generation": 3,
        "labels": {"app.kubernetes.io/instance": "c1"}}, "spec": spec }))
    .unwrap()
}

fn entries(list: Value) -> BackupSchedule {
    schedule(json!({ "backupPolicyName": "pg", "startingDeadlineMinutes": 10, "schedules": list }))
}

fn seen() -> Seen {
    let set = |name: &str, kind: &str| -> ActionSet {
        serde_json::from_value(json!({ "metadata": {"name": name}, "spec": {"backupType": kind,
            "parametersSchema": {"openAPIV3Schema": {"type": "object", "properties": {"threads": {"type": "integer"}}}},
            "backup": {"withParameters": ["threads"], "backupData": {"image": "i", "command": ["c"]}}} }))
        .unwrap()
    };
    let policy: BackupPolicy = serde_json::from_value(json!({ "metadata": {"name": "pg"}, "spec": {
        "backoffLimit": 1,
        "target": {"podSelector": {"matchLabels": {"app.kubernetes.io/instance": "c1", "app": "pg"}}},
        "backupMethods": [{"name": "full", "actionSetName": "full"},
            {"name": "incr", "actionSetName": "incr", "compatibleMethod": "full"},
            {"name": "wal", "actionSetName": "wal"}, {"name": "lost", "actionSetName": "lost"},
            {"name": "snapshot", "snapshotVolumes": true}]} }))
    .unwrap();
    let sets = [set("full", "Full"), set("incr", "Incremental"), set("wal", "Continuous")];
    Seen { policy: Some(policy), action_sets: sets.map(|set| (set.name_any(), set)).into(), ..Seen::default() }
}

fn plan(schedule: &BackupSchedule, seen: &Seen) -> Plan {
    decide(schedule, seen, &settings(), now())
}

fn faults(schedule: &BackupSchedule, seen: &Seen) -> String {
    plan(schedule, seen).entries.status(schedule).failure_reason.unwrap_or_default()
}

fn full() -> Value {
    json!({ "enabled": true, "backupMethod": "full", "cronExpression": "0 2 * * *", "retentionPeriod": "3d" })
}

fn job(entry: &str, uid: &str, made: &str) -> Arc<Job> {
    Arc::new(
        serde_json::from_value(json!({ "metadata": {"name": "j", "namespace": "demo", "uid": uid,
            "creationTimestamp": made, "annotations": {annotations::SCHEDULE_ENTRY: entry}}, "spec": {"suspend": true, "template": {}} }))
        .unwrap(),
    )
}

#[test]
fn behaviour_5_2_cron_job() {
    let found = plan(&entries(json!([full()])), &seen());
    assert_eq!(found.cron_jobs.len(), 1);
    insta::assert_yaml_snapshot!(found.cron_jobs[0].1);
}

#[test]
fn behaviour_5_2_a_zone_goes_into_the_cron_job() {
    let mut zoned = full();
    zoned["cronExpression"] = json!("CRON_TZ=Asia/Tokyo 0 2 * * *");
    let found = plan(&entries(json!([zoned])), &seen());
    let spec = found.cron_jobs[0].1.spec.clone().unwrap();
    assert_eq!((spec.schedule.as_str(), spec.time_zone.as_deref()), ("0 2 * * *", Some("Asia/Tokyo")));
}

#[test]
fn behaviour_5_2_backup_of_a_run() {
    let mut given = full();
    given["parameters"] = json!([{ "name": "threads", "value": "4" }]);
    let seen = Seen { due: vec![job("full", "u1", "2026-11-25T22:30:01Z")], ..seen() };
    let found = plan(&entries(json!([given])), &seen);
    insta::assert_yaml_snapshot!(found.runs[0].backup.as_ref().unwrap());
}

#[test]
fn behaviour_5_2_the_schedule_names_backups_of_targets_without_an_instance() {
    let mut seen = Seen { due: vec![job("full", "u1", "2026-11-25T22:30:01Z")], ..seen() };
    seen.policy.as_mut().unwrap().spec.target = None;
    let found = plan(&entries(json!([full()])), &seen);
    assert_eq!(found.runs[0].backup.as_ref().unwrap().name_any(), "nightly-full-20261125223001");
}

#[test]
fn behaviour_5_2_an_incremental_run_needs_a_full_backup() {
    let list = json!([{ "enabled": true, "backupMethod": "incr", "cronExpression": "* * * * *" }]);
    let mut seen = Seen { due: vec![job("incr", "u1", "2026-11-25T22:30:01Z")], ..seen() };
    assert!(plan(&entries(list.clone()), &seen).runs[0].backup.is_err());
    seen.full = BTreeSet::from(["full".to_owned()]);
    assert!(plan(&entries(list), &seen).runs[0].backup.is_ok());
}

#[test]
fn behaviour_5_2_a_run_that_is_later_than_allowed_is_left_out() {
    let run = |made: &str| {
        let seen = Seen { due: vec![job("full", "u1", made)], ..seen() };
        plan(&entries(json!([full()])), &seen).runs[0].backup.clone()
    };
    assert!(run("2026-11-25T22:21:00Z").is_ok());
    assert!(run("2026-11-25T22:10:00Z").unwrap_err().contains("startingDeadlineMinutes allows 10"));
}

#[test]
fn a_run_of_an_entry_that_is_gone_or_off_makes_no_backup() {
    let seen = Seen { due: vec![job("full", "u1", "2026-11-25T22:30:01Z")], ..seen() };
    let mut off = full();
    off["enabled"] = json!(false);
    assert!(plan(&entries(json!([off])), &seen).runs.is_empty());
    let mut renamed = full();
    renamed["name"] = json!("other");
    assert!(plan(&entries(json!([renamed])), &seen).runs.is_empty());
}

#[test]
fn behaviour_5_2_what_no_entry_claims_is_removed() {
    let cron_job = |name: &str| -> Arc<CronJob> {
        Arc::new(serde_json::from_value(json!({ "metadata": {"name": name, "namespace": "demo"} })).unwrap())
    };
    let seen = Seen {
        cron_jobs: vec![cron_job("aaaabbbb-nightly-demo-full"), cron_job("aaaabbbb-nightly-demo-old")],
        ..seen()
    };
    let removed =
        |list: Value| plan(&entries(list), &seen).remove.iter().map(|found| found.name_any()).collect::<Vec<_>>();
    assert_eq!(removed(json!([full()])), ["aaaabbbb-nightly-demo-old"]);
    let mut off = full();
    off["enabled"] = json!(false);
    assert_eq!(removed(json!([off.clone()])).len(), 2);
    off.as_object_mut().unwrap().remove("enabled");
    assert_eq!(removed(json!([off])).len(), 2, "an entry that does not say so is off");
    let mut wrong = full();
    wrong["cronExpression"] = json!("now and then");
    assert_eq!(removed(json!([wrong])), ["aaaabbbb-nightly-demo-old"], "a typing error does not stop what ran");
    let lost = Seen { policy: None, ..seen.clone() };
    assert!(plan(&entries(json!([full()])), &lost).remove.is_empty());
}

#[test]
fn behaviour_5_1_what_is_wrong_is_told_and_the_rest_goes_on() {
    let with = |key: &str, value: Value| {
        let mut entry = full();
        entry[key] = value;
        entry["name"] = json!("wrong");
        entries(json!([full(), entry]))
    };
    for (schedule, wanted) in [
        (with("backupMethod", json!("none")), "has no method none (it has: full, incr, wal, lost, snapshot)"),
        (with("backupMethod", json!("lost")), "ActionSet lost of method lost does not exist"),
        (with("cronExpression", json!("61 * * * *")), "cron expression \"61 * * * *\""),
        (with("retentionPeriod", json!("3d3d")), "names the unit d twice"),
        (with("parameters", json!([{"name": "speed", "value": "1"}])), "parameter speed"),
    ] {
        let found = plan(&schedule, &seen());
        assert_eq!(found.cron_jobs.len(), 1, "{wanted}");
        let status = found.entries.status(&schedule);
        assert_eq!(status.phase, Some(BackupSchedulePhase::Failed));
        let why = status.failure_reason.unwrap();
        assert!(why.starts_with("entry wrong: ") && why.contains(wanted), "{why}");
    }
    let twice = entries(json!([full(), full()]));
    assert!(faults(&twice, &seen()).contains("two entries have this name"));
    assert!(plan(&twice, &seen()).cron_jobs.is_empty());
    let lost = Seen { policy: None, ..seen() };
    assert!(faults(&entries(json!([full()])), &lost).contains("BackupPolicy pg does not exist"));
    assert_eq!(faults(&entries(json!([full()])), &seen()), "");
}

#[test]
fn behaviour_5_3_continuous_backup() {
    let list = json!([{ "enabled": true, "name": "log", "backupMethod": "wal", "cronExpression": "*/5 * * * *", "retentionPeriod": "8d" }]);
    let found = plan(&entries(list), &seen());
    assert!(found.cron_jobs.is_empty());
    insta::assert_yaml_snapshot!(found.continuous[0].1.backup);
}

#[test]
fn behaviour_5_3_a_continuous_entry_is_on_unless_it_says_otherwise() {
    let wish = |enabled: Value| {
        let list = json!([{ "enabled": enabled, "backupMethod": "wal", "cronExpression": "* * * * *" }]);
        let found = plan(&entries(list), &seen());
        (found.continuous[0].1.create, found.continuous[0].1.restart)
    };
    assert_eq!(wish(json!(true)), (true, true));
    assert_eq!(wish(json!(null)), (true, false));
    assert_eq!(wish(json!(false)), (false, false));
}

#[test]
fn the_status_tells_the_last_and_the_next_run_of_each_entry() {
    let cron_job = json!({ "metadata": {"name": "aaaabbbb-nightly-demo-full", "namespace": "demo"},
        "status": {"lastScheduleTime": "2026-11-25T02:00:00Z"} });
    let seen = Seen {
        cron_jobs: vec![Arc::new(serde_json::from_value(cron_job).unwrap())],
        succeeded: BTreeMap::from([("full".to_owned(), "2026-11-25T02:03:00Z".parse().unwrap())]),
        ..seen()
    };
    let schedule = entries(json!([full()]));
    let found = plan(&schedule, &seen);
    let status = serde_json::to_value(found.entries.status(&schedule)).unwrap();
    assert_eq!(
        status,
        json!({ "phase": "Available", "observedGeneration": 3, "schedules": {"full": {"phase": "Running",
            "lastScheduleTime": "2026-11-25T02:00:00Z", "lastSuccessfulTime": "2026-11-25T02:03:00Z"}} })
    );
    let next = next_runs(&schedule, &found.entries, now());
    assert_eq!(next.as_deref(), Some(r#"{"full":"2026-11-26T02:00:00Z"}"#));
    assert_eq!(next_runs(&entries(json!([])), &found.entries, now()), None);
}

#[test]
fn only_what_was_made_for_this_very_schedule_is_ours() {
    let cron_job = |uid: &str| -> CronJob {
        serde_json::from_value(json!({ "metadata": {"name": "c", "ownerReferences": [
            {"apiVersion": "x", "kind": "BackupSchedule", "name": "nightly", "uid": uid}]} }))
        .unwrap()
    };
    let schedule = entries(json!([full()]));
    assert!(super::is_ours(&cron_job(UID), &schedule));
    assert!(!super::is_ours(&cron_job("other"), &schedule));
}

#[test]
fn the_jobs_of_a_backup_do_not_wake_its_schedule() {
    let meta = |own: Value| serde_json::from_value(json!({ "namespace": "demo", "labels": own })).unwrap();
    let woken = |own: Value| super::of_worker(&meta(own)).map(|found| found.name);
    assert_eq!(woken(json!({ labels::BACKUP_SCHEDULE: "nightly" })).as_deref(), Some("nightly"));
    assert_eq!(woken(json!({ labels::BACKUP_SCHEDULE: "nightly", labels::BACKUP_NAME: "b" })), None);
}
