//! The driver of a schedule against an API server in memory.

use std::sync::Arc;

use kbbackup_api::names::{FINALIZER, annotations, labels};
use serde_json::{Value, json};

use super::reconcile;
use crate::context::Context;
use crate::fake::{Fake, from, guarded, holding};

const AT: &str = "demo/backupschedules/s";
const LOG: &str = "demo/backups/aaaabbbb-s-demo-wal";

fn schedule(entries: Value) -> Value {
    json!({ "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "BackupSchedule",
        "metadata": {"name": "s", "namespace": "demo", "uid": "aaaabbbb-0000", "resourceVersion": "1", "generation": 3},
        "spec": {"backupPolicyName": "p", "schedules": entries} })
}

fn sound(entries: Value) -> Fake {
    let set = |name: &str, kind: &str| json!({ "metadata": {"name": name}, "spec": {"backupType": kind, "backup": {"backupData": {"image": "i", "command": ["c"]}}} });
    Fake::new([
        (AT, schedule(entries)),
        (
            "demo/backuppolicies/p",
            json!({ "metadata": {"name": "p", "namespace": "demo"}, "spec": {"backupMethods": [
                {"name": "full", "actionSetName": "full"}, {"name": "wal", "actionSetName": "wal"}],
                "target": {"podSelector": {"matchLabels": {"app": "pg"}}}} }),
        ),
        ("-/actionsets/full", set("full", "Full")),
        ("-/actionsets/wal", set("wal", "Continuous")),
        ("demo/serviceaccounts/kubeblocks-dataprotection-worker", json!({ "metadata": {"name": "w"} })),
    ])
}

async fn look(fake: &Fake, ctx: &Context) {
    let object = fake.get(AT).expect("the schedule exists");
    reconcile(Arc::new(guarded(object)), Arc::new(ctx.clone())).await.unwrap();
}

fn wal(enabled: Value) -> Value {
    json!([{ "backupMethod": "wal", "enabled": enabled, "cronExpression": "*/5 * * * *", "retentionPeriod": "8d" }])
}

#[tokio::test]
async fn behaviour_5_1_finalizer_label_and_account_before_the_first_entry() {
    let fake = sound(json!([{ "backupMethod": "full", "enabled": true, "cronExpression": "0 2 * * *" }]));
    look(&fake, &fake.context()).await;
    let found = fake.get(AT).unwrap();
    assert_eq!(found["metadata"]["finalizers"], json!([FINALIZER]));
    assert_eq!(found["metadata"]["labels"][labels::BACKUP_POLICY], "p");
    assert_eq!((&found["status"]["phase"], &found["status"]["observedGeneration"]), (&json!("Available"), &json!(3)));
}

#[tokio::test]
async fn behaviour_5_1_a_fault_is_told_once_and_mended_when_its_cause_is() {
    let fake = sound(json!([{ "backupMethod": "none", "enabled": true, "cronExpression": "0 2 * * *" }]));
    look(&fake, &fake.context()).await;
    assert!(fake.writes().contains(&"EVENT HandleBackupScheduleFailed".to_owned()));
    assert_eq!(fake.get(AT).unwrap()["status"]["phase"], "Failed");
    look(&fake, &fake.context()).await;
    assert_eq!(fake.writes(), Vec::<String>::new());
    let mut mended = fake.get(AT).unwrap();
    mended["spec"]["schedules"] = wal(json!(false));
    fake.put(AT, mended);
    look(&fake, &fake.context()).await;
    let status = fake.get(AT).unwrap()["status"].clone();
    assert_eq!((&status["phase"], &status["failureReason"]), (&json!("Available"), &json!(null)));
}

#[tokio::test]
async fn behaviour_5_3_absent_backups_are_made_unless_the_entry_is_off() {
    for (enabled, made) in [(json!(true), true), (json!(null), true), (json!(false), false)] {
        let fake = sound(wal(enabled.clone()));
        look(&fake, &fake.context()).await;
        assert_eq!(fake.get(LOG).is_some(), made, "{enabled}");
    }
}

#[tokio::test]
async fn behaviour_5_3_an_existing_backup_is_brought_up_to_date_and_restarted() {
    for (enabled, phase, wanted) in [
        (true, "Completed", "Running"),
        (true, "Failed", "Failed"),
        (true, "Running", "Running"),
        (false, "Completed", "Completed"),
        (false, "Running", "Running"),
    ] {
        let fake = sound(wal(json!(enabled)));
        fake.put(
            LOG,
            json!({ "metadata": {"name": "aaaabbbb-s-demo-wal", "namespace": "demo", "resourceVersion": "1",
                    "labels": {labels::BACKUP_SCHEDULE: "s"}},
                "spec": {"backupPolicyName": "p", "backupMethod": "wal", "retentionPeriod": "1d"},
                "status": {"phase": phase, "failureReason": "before"} }),
        );
        look(&fake, &fake.context()).await;
        let found = fake.get(LOG).unwrap();
        assert_eq!(found["status"]["phase"], wanted, "{enabled}, {phase}");
        assert_eq!(found["status"]["failureReason"].is_null(), phase != wanted, "{enabled}, {phase}");
        assert_eq!(found["spec"]["retentionPeriod"], "8d");
        assert_eq!(found["metadata"]["labels"]["app"], "pg");
        let touched = found["metadata"]["annotations"][annotations::RECONCILE].clone();
        assert_eq!(touched, "3", "so that the backup looks at its schedule again");
        fake.writes();
        look(&fake, &fake.context()).await;
        assert!(fake.writes().iter().all(|write| !write.contains("backups/")), "only once");
    }
}

#[tokio::test]
async fn behaviour_5_3_a_backup_of_somebody_else_is_not_taken_over() {
    let fake = sound(wal(json!(true)));
    fake.put(
        LOG,
        json!({ "metadata": {"name": "aaaabbbb-s-demo-wal", "namespace": "demo"},
            "spec": {"backupPolicyName": "p", "backupMethod": "wal"} }),
    );
    look(&fake, &fake.context()).await;
    let why = fake.get(AT).unwrap()["status"]["failureReason"].clone();
    assert!(why.as_str().unwrap().contains("does not belong to this schedule"), "{why}");
    assert!(fake.get(LOG).unwrap()["metadata"]["labels"].is_null());
}

#[tokio::test]
async fn behaviour_5_4_cron_jobs_go_with_their_schedule_and_backups_stay() {
    let mut going = schedule(wal(json!(true)));
    going["metadata"]["finalizers"] = json!([FINALIZER]);
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let fake = sound(json!([]));
    fake.put(AT, going);
    fake.put(
        LOG,
        json!({ "metadata": {"name": "log", "namespace": "demo", "labels": {labels::BACKUP_SCHEDULE: "s"}} }),
    );
    let cron_job = |name: &str, uid: &str| {
        json!({ "metadata": {"name": name, "namespace": "demo", "labels": {labels::BACKUP_SCHEDULE: "s"}, "finalizers": [FINALIZER],
            "ownerReferences": [{"apiVersion": "x", "kind": "BackupSchedule", "name": "s", "uid": uid}]} })
    };
    let (own, namesakes) = (cron_job("own", "aaaabbbb-0000"), cron_job("before", "another-uid"));
    fake.put("demo/cronjobs/own", own.clone());
    fake.put("demo/cronjobs/before", namesakes.clone());
    let mut ctx = fake.context();
    ctx.stores.cron_jobs = holding([from(own), from(namesakes)]);
    look(&fake, &ctx).await;
    assert_eq!(
        fake.writes(),
        ["PATCH demo/cronjobs/own", "DELETE demo/cronjobs/own", "PATCH demo/backupschedules/s"],
        "the reference's finalizer is taken off first"
    );
    assert!(fake.get(AT).is_none() && fake.get(LOG).is_some() && fake.get("demo/cronjobs/before").is_some());
}
