//! Behaviour 5.5 against an API server in memory.

use std::sync::Arc;

use kbbackup_api::names::{annotations, labels};
use serde_json::{Value, json};

use super::reconcile;
use crate::fake::{Fake, guarded};

const AT: &str = "demo/backupschedules/s";
const LOG: &str = "demo/backups/aaaabbbb-s-demo-wal";
const ON: &str = r#"[{"key":"archive","value":"on"}]"#;

fn reference() -> String {
    json!({ "name": "conf", "key": "db.conf", "enable": {"wal": [{"key": "archive", "value": "on"}]},
        "disable": {"wal": [{"key": "archive", "value": null}]} })
    .to_string()
}

fn world(enabled: bool, notes: Value) -> Fake {
    let mut all = json!({ annotations::RECONFIGURE_REF: reference() });
    all.as_object_mut().unwrap().extend(notes.as_object().unwrap().clone());
    Fake::new([
        (
            AT,
            json!({ "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "BackupSchedule",
                "metadata": {"name": "s", "namespace": "demo", "uid": "aaaabbbb-0000", "resourceVersion": "1",
                    "annotations": all},
                "spec": {"backupPolicyName": "p", "schedules": [{"backupMethod": "wal", "enabled": enabled,
                    "cronExpression": "*/5 * * * *", "retentionPeriod": "8d"}]} }),
        ),
        (
            "demo/backuppolicies/p",
            json!({ "metadata": {"name": "p", "namespace": "demo"}, "spec": {
                "backupMethods": [{"name": "wal", "actionSetName": "wal"}], "target": {"podSelector": {"matchLabels": {
                    labels::INSTANCE: "c1", labels::COMPONENT_NAME: "db"}}}} }),
        ),
        (
            "-/actionsets/wal",
            json!({ "metadata": {"name": "wal"}, "spec": {"backupType": "Continuous",
                "backup": {"backupData": {"image": "i", "command": ["c"]}}} }),
        ),
        (
            "demo/clusters/c1",
            json!({ "apiVersion": "apps.kubeblocks.io/v1", "kind": "Cluster",
            "metadata": {"name": "c1", "namespace": "demo"}, "spec": {}, "status": {"phase": "Running"} }),
        ),
    ])
}

async fn look(fake: &Fake) {
    let object = fake.get(AT).expect("the schedule exists");
    reconcile(Arc::new(guarded(object)), Arc::new(fake.context())).await.unwrap();
}

fn note(fake: &Fake, key: &str) -> Value {
    fake.get(AT).unwrap()["metadata"]["annotations"][key].clone()
}

fn answer(fake: &Fake, name: &str, phase: &str) {
    let at = format!("demo/opsrequests/{name}");
    let mut request = fake.get(&at).unwrap();
    request["status"]["phase"] = json!(phase);
    fake.put(&at, request);
}

#[tokio::test]
async fn behaviour_5_5_parameters_are_asked_for_once_and_archiving_waits_for_them() {
    let fake = world(true, json!({}));
    look(&fake).await;
    insta::assert_yaml_snapshot!(fake.get("demo/opsrequests/s-enable-1").unwrap());
    assert_eq!(note(&fake, annotations::RECONFIGURE_GENERATION), "1");
    assert_eq!(note(&fake, annotations::LAST_APPLIED_CONFIGURATIONS), json!({ "wal": ON }).to_string());
    assert!(fake.get(LOG).is_none(), "it would archive without what it needs");
    assert!(note(&fake, annotations::WAITING_FOR).as_str().unwrap().contains("s-enable-1"));
    fake.writes();
    look(&fake).await;
    assert_eq!(fake.writes(), Vec::<String>::new());
    answer(&fake, "s-enable-1", "Succeed");
    look(&fake).await;
    assert!(fake.get(LOG).is_some());
    assert_eq!(note(&fake, annotations::WAITING_FOR), Value::Null);
}

#[tokio::test]
async fn behaviour_5_5_a_change_that_failed_fails_the_schedule() {
    for phase in ["Failed", "Cancelled"] {
        let fake = world(true, json!({}));
        look(&fake).await;
        answer(&fake, "s-enable-1", phase);
        look(&fake).await;
        let status = fake.get(AT).unwrap()["status"].clone();
        assert_eq!(status["phase"], "Failed");
        assert!(status["failureReason"].as_str().unwrap().contains("opsrequest s-enable-1 is"), "{status}");
        assert!(fake.get(LOG).is_none());
    }
}

#[tokio::test]
async fn behaviour_5_5_nothing_is_undone_that_was_never_done() {
    let fake = world(false, json!({}));
    look(&fake).await;
    assert!(!fake.writes().iter().any(|write| write.contains("opsrequests")));
    // The older annotation counts, and becomes the newer one.
    let fake =
        world(false, json!({ annotations::LAST_APPLIED_CONFIGURATION: ON, annotations::RECONFIGURE_GENERATION: "4" }));
    look(&fake).await;
    let made = fake.get("demo/opsrequests/s-disable-5").unwrap();
    assert_eq!(made["spec"]["reconfigures"][0]["parameters"], json!([{ "key": "archive", "value": null }]));
    assert_eq!(note(&fake, annotations::LAST_APPLIED_CONFIGURATION), Value::Null);
    assert!(note(&fake, annotations::LAST_APPLIED_CONFIGURATIONS).as_str().unwrap().contains("wal"));
}

#[tokio::test]
async fn behaviour_5_5_what_the_reference_has_applied_is_not_asked_for_again() {
    let text = r#"{"wal":"[{\"value\":\"on\", \"key\":\"archive\"}]"}"#;
    let fake = world(true, json!({ annotations::LAST_APPLIED_CONFIGURATIONS: text }));
    look(&fake).await;
    assert!(!fake.writes().iter().any(|write| write.contains("opsrequests")));
    assert!(fake.get(LOG).is_some());
}

#[tokio::test]
async fn behaviour_5_5_the_cluster_has_to_run() {
    let fake = world(true, json!({}));
    let mut cluster = fake.get("demo/clusters/c1").unwrap();
    cluster["status"]["phase"] = json!("Creating");
    fake.put("demo/clusters/c1", cluster);
    look(&fake).await;
    assert!(fake.get("demo/opsrequests/s-enable-1").is_none() && fake.get(LOG).is_none());
    assert!(note(&fake, annotations::WAITING_FOR).as_str().unwrap().contains("c1 runs; it is Creating"));
}

#[tokio::test]
async fn behaviour_5_5_without_kubeblocks_it_is_told_once_and_archiving_goes_on() {
    let fake = world(true, json!({}));
    fake.lacks("demo/opsrequests");
    look(&fake).await;
    assert!(fake.writes().contains(&"EVENT ErrorTypeReconfigureFailed".to_owned()));
    assert!(note(&fake, annotations::WAITING_FOR).as_str().unwrap().contains("does not serve KubeBlocks' OpsRequests"));
    assert_eq!(fake.get(AT).unwrap()["status"]["phase"], "Available");
    assert!(fake.get(LOG).is_some());
    look(&fake).await;
    assert_eq!(fake.writes(), Vec::<String>::new());
}

#[tokio::test]
async fn behaviour_5_5_a_try_that_was_killed_is_taken_up_and_a_foreign_request_is_not() {
    let fake = world(true, json!({}));
    look(&fake).await;
    let mut schedule = fake.get(AT).unwrap();
    schedule["metadata"]["annotations"] = json!({ annotations::RECONFIGURE_REF: reference() });
    fake.put(AT, schedule);
    look(&fake).await;
    assert_eq!(note(&fake, annotations::LAST_APPLIED_CONFIGURATIONS), json!({ "wal": ON }).to_string());
    assert!(fake.get("demo/opsrequests/s-enable-2").is_none());

    let fake = world(true, json!({ annotations::RECONFIGURE_REF: "{" }));
    look(&fake).await;
    assert!(
        fake.get(AT).unwrap()["status"]["failureReason"].as_str().unwrap().contains("reconfigure-ref cannot be read")
    );
}
