//! The claims and Jobs that a restore builds.

use k8s_openapi::api::core::v1::Pod;
use kbbackup_api::v1alpha1::{Backup, Restore};
use serde_json::{Value, json};

use super::build::{self, Site};
use super::sets::Set;
use crate::worker::repo::Way;
use crate::worker::{RepoAccess, settings};

fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn backup(name: &str, end: &str) -> Backup {
    from(json!({
        "metadata": {"name": name, "namespace": "demo", "annotations": {"kbbackup.io/seal": format!("seal-of-{name}"),
            "kbbackup.io/target-image": "postgres:15"}},
        "spec": {"backupPolicyName": "p", "backupMethod": "full"},
        "status": {"phase": "Completed", "path": format!("/prod/demo/c1/{name}"), "extras": [{"a": "b"}],
            "timeRange": {"start": "2026-08-20T02:00:00Z", "end": end, "timeZone": "+08:00"},
            "backupMethod": {"name": "full", "env": [{"name": "FROM_METHOD", "value": "1"}, {"name": "OWN", "value": "method"}],
                "targetVolumes": {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}}}
    }))
}

fn restore() -> Restore {
    from(json!({
        "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "Restore",
        "metadata": {"name": "r1", "namespace": "demo", "uid": "12345678-0000"},
        "spec": {"backup": {"name": "b2", "namespace": "demo"}, "restoreTime": "2026-08-20T03:04:05Z",
            "env": [{"name": "OWN", "value": "restore"}], "parameters": [{"name": "LEVEL", "value": "3"}],
            "prepareDataConfig": {"volumeClaimsTemplate": {"replicas": 2, "startingIndex": 1, "templates": [
                {"metadata": {"name": "data-pg", "labels": {"app.kubernetes.io/instance": "c1", "apps.kubeblocks.io/component-name": "pg"}},
                 "volumeSource": "data", "volumeClaimSpec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]}}}
    }))
}

fn set() -> Set {
    Set {
        backup: backup("b2", "2026-08-20T03:00:00Z"),
        action_set: from(json!({"metadata": {"name": "a"}, "spec": {"backupType": "Incremental",
            "env": [{"name": "DP_TIME_FORMAT", "value": "2006-01-02 15:04:05"}, {"name": "FROM_SET", "value": "1"}],
            "restore": {"prepareData": {"image": "", "command": ["bash"]}, "postReady": [{"job": {"image": "x:1", "command": ["y"]}}]}}})),
        uses_snapshots: false,
        base: Some(backup("b0", "2026-08-20T02:30:00Z")),
        ancestors: vec![backup("b1", "2026-08-20T02:45:00Z")],
    }
}

fn access() -> RepoAccess {
    RepoAccess { way: Way::Tool { secret: "tool".into() }, kopia_path: None, encryption: None }
}

#[test]
fn behaviour_6_5_claims_of_a_template() {
    let restore = restore();
    let claims = build::claims(&restore, 1);
    assert_eq!((claims[0].name.as_str(), claims[0].volume.as_str()), ("data-pg-2", "dp-claim-tpl-data-pg-2"));
    insta::assert_yaml_snapshot!(build::claim(&restore, &claims[0]));
}

#[test]
fn behaviour_6_6_prepare_data_job() {
    let (restore, set) = (restore(), set());
    let site = Site { restore: &restore, set: &set, access: &access(), settings: &settings() };
    let recipe = set.action_set.spec.restore.clone().unwrap();
    insta::assert_yaml_snapshot!(site.prepare("job-0", recipe.prepare_data.as_ref().unwrap(), 0, None).unwrap());
}

#[test]
fn behaviour_6_6_env_and_times() {
    let (restore, set) = (restore(), set());
    let site = Site { restore: &restore, set: &set, access: &access(), settings: &settings() };
    let recipe = set.action_set.spec.restore.clone().unwrap();
    let job = site.prepare("job-0", recipe.prepare_data.as_ref().unwrap(), 0, Some("pg-1")).unwrap();
    let env = job.spec.unwrap().template.spec.unwrap().containers[0].env.clone().unwrap();
    let list: Vec<_> =
        env.iter().map(|entry| format!("{}={}", entry.name, entry.value.clone().unwrap_or_default())).collect();
    assert_eq!(
        list,
        [
            "KBB_IMAGE=postgres:15",
            "DP_BACKUP_NAME=b2",
            "DP_TARGET_RELATIVE_PATH=pg-1",
            "DP_BACKUP_ROOT_PATH=/prod/demo/c1",
            "DP_BACKUP_BASE_PATH=/prod/demo/c1/b2/pg-1",
            "DP_BASE_BACKUP_NAME=b0",
            "DP_ANCESTOR_INCREMENTAL_BACKUP_NAMES=b1",
            "DP_BACKUP_STOP_TIME=2026-08-20 11:00:00",
            "DP_BASE_BACKUP_START_TIME=2026-08-20 10:00:00",
            "DP_BASE_BACKUP_START_TIMESTAMP=1787191200",
            "DP_BASE_BACKUP_STOP_TIME=2026-08-20 10:30:00",
            "DP_BASE_BACKUP_STOP_TIMESTAMP=1787193000",
            "DP_RESTORE_TIME=2026-08-20 11:04:05",
            "DP_RESTORE_TIMESTAMP=1787195045",
            "LEVEL=3",
            "DP_TIME_FORMAT=2006-01-02 15:04:05",
            "FROM_SET=1",
            "FROM_METHOD=1",
            "OWN=restore",
            "KBBACKUP_SEALS=b0=seal-of-b0,b1=seal-of-b1,b2=seal-of-b2",
            "DP_DATASAFED_BIN_PATH=/bin/datasafed",
        ]
    );
}

#[test]
fn behaviour_6_7_post_ready_merges_the_pods_env_and_connection() {
    let (restore, set) = (restore(), set());
    let site = Site { restore: &restore, set: &set, access: &access(), settings: &settings() };
    let recipe = set.action_set.spec.restore.clone().unwrap();
    let pod: Pod = from(json!({"metadata": {"name": "pg-0"}, "status": {"podIP": "10.0.0.9"}, "spec": {"containers": [
        {"name": "db", "env": [{"name": "FROM_SET", "value": "pod"}], "ports": [{"containerPort": 5432}]}]}}));
    let job = site.post_ready("job-0", recipe.post_ready[0].job.as_ref().unwrap(), &pod, None).unwrap();
    let env = job.spec.unwrap().template.spec.unwrap().containers[0].env.clone().unwrap();
    let value = |name: &str| env.iter().rev().find(|entry| entry.name == name).and_then(|entry| entry.value.clone());
    assert_eq!(value("FROM_SET").as_deref(), Some("pod"));
    assert_eq!((value("DP_DB_HOST").as_deref(), value("DP_DB_PORT").as_deref()), (Some("10.0.0.9"), Some("5432")));
}

#[test]
fn an_image_that_nothing_sets_is_refused_with_advice() {
    let (restore, mut set) = (restore(), set());
    let value = |set: &Set| {
        let site = Site { restore: &restore, set, access: &access(), settings: &settings() };
        let job =
            site.prepare("j", set.action_set.spec.restore.as_ref().unwrap().prepare_data.as_ref().unwrap(), 0, None);
        job.map(|job| job.spec.unwrap().template.spec.unwrap().containers[0].image.clone().unwrap())
    };
    set.backup.metadata.annotations = None;
    assert_eq!(value(&set), Ok("postgres:15".into()), "a log that noted none has the image of its base");
    set.base = None;
    let site = Site { restore: &restore, set: &set, access: &access(), settings: &settings() };
    let recipe = set.action_set.spec.restore.clone().unwrap();
    let told = site.prepare("j", recipe.prepare_data.as_ref().unwrap(), 0, None).unwrap_err().to_string();
    assert!(told.contains("KBB_IMAGE=postgres:16"), "{told}");
}

#[test]
fn workers_and_workloads_are_mapped_to_their_restore() {
    let of = |meta: Value| {
        super::of_worker(&from(meta)).map(|found| format!("{}/{}", found.namespace.unwrap_or_default(), found.name))
    };
    let (name, home) = ("dataprotection.kubeblocks.io/restore", "dataprotection.kubeblocks.io/restore-namespace");
    assert_eq!(of(json!({"namespace": "demo", "labels": {name: "r1"}})), Some("demo/r1".into()));
    assert_eq!(of(json!({"namespace": "manager", "labels": {name: "r1", home: "demo"}})), Some("demo/r1".into()));
    assert_eq!(of(json!({"annotations": {"kbbackup.io/restored-by": "demo/r2/u"}})), Some("demo/r2".into()));
    assert_eq!(of(json!({"namespace": "demo"})), None);
}
