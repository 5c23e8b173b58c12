//! Which volumes are taken, by which class, and how far snapshots are.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kbbackup_api::snapshot::{VolumeSnapshot, VolumeSnapshotClass};
use kbbackup_api::v1alpha1::{ActionPhase, ActionStatus, Backup, BackupMethod};
use serde_json::{Value, json};

use super::build::{self, Volume};
use super::decide;
use crate::worker::Outcome;

fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn now() -> Timestamp {
    "2026-08-20T03:00:00Z".parse().unwrap()
}

fn method(volumes: &[&str]) -> BackupMethod {
    from(json!({ "name": "snap", "snapshotVolumes": true, "targetVolumes": {"volumes": volumes} }))
}

fn pod() -> Pod {
    from(json!({ "metadata": {"name": "pg-0"}, "spec": {"containers": [], "volumes": [
        {"name": "config", "emptyDir": {}},
        {"name": "data", "persistentVolumeClaim": {"claimName": "data-pg-0"}},
        {"name": "wal", "persistentVolumeClaim": {"claimName": "wal-pg-0"}}]} }))
}

#[test]
fn behaviour_4_8_5_every_named_volume_is_taken() {
    let volume = |name: &str, claim: &str| Volume { name: name.into(), claim: claim.into() };
    let found = build::volumes(&pod(), &method(&["wal", "data", "wal"])).unwrap();
    assert_eq!(found, [volume("wal", "wal-pg-0"), volume("data", "data-pg-0")]);
    assert_eq!(build::volumes(&pod(), &method(&["data"])).unwrap().len(), 1, "only those that are named");
    let planned = build::planned("b1", "shard-a", 1, &found);
    let names: Vec<_> = planned.iter().map(|snapshot| snapshot.name.as_deref().unwrap()).collect();
    assert_eq!(names, ["b1-shard-a-1-wal", "b1-shard-a-1-data"]);
}

#[test]
fn behaviour_4_8_5_preconditions_are_told_by_name() {
    let why = |volumes: &[&str]| build::volumes(&pod(), &method(volumes)).unwrap_err().to_string();
    assert!(why(&["data", "config"]).contains("volume config of pod pg-0 is no PersistentVolumeClaim"));
    let none = why(&["other"]);
    assert!(none.contains("pod pg-0 has none") && none.contains("data, wal"), "{none}");
    let pod = pod();
    let pods = [&pod];
    assert!(build::all_exist(&pods, &method(&["data"])).is_ok());
    let typo = build::all_exist(&pods, &method(&["data", "wall"])).unwrap_err().to_string();
    assert!(typo.contains("a volume wall"), "{typo}");
}

fn class(name: &str, driver: &str, default: bool) -> VolumeSnapshotClass {
    let key = "snapshot.storage.kubernetes.io/is-default-class";
    from(json!({ "metadata": {"name": name, "annotations": {key: default.to_string()}},
        "driver": driver, "deletionPolicy": "Delete" }))
}

#[test]
fn behaviour_4_8_5_the_class_is_the_drivers_default_one() {
    let classes =
        [class("b", "btrfs", false), class("a", "btrfs", false), class("c", "ebs", true), class("d", "btrfs", true)];
    let chosen = |classes: &[VolumeSnapshotClass]| decide::class(classes, "btrfs").unwrap().metadata.name.clone();
    assert_eq!(chosen(&classes).as_deref(), Some("d"));
    assert_eq!(chosen(&classes[..3]).as_deref(), Some("a"));
    let why = decide::class(&classes[2..3], "btrfs").unwrap_err().to_string();
    assert!(why.contains("CSI driver btrfs") && why.contains("create one"), "{why}");
}

#[test]
fn behaviour_4_8_5_the_snapshot() {
    let backup: Backup = from(json!({
        "metadata": {"name": "b1", "namespace": "demo", "uid": "6f1c2d3e-0000",
            "labels": {"dataprotection.kubeblocks.io/backup-type": "Full", "apps.kubeblocks.io/component-name": "pg"}},
        "spec": {"backupPolicyName": "p", "backupMethod": "snap"}
    }));
    insta::assert_yaml_snapshot!(build::snapshot(&backup, "b1-0-data", "data-pg-0", "btrfs"));
}

fn action() -> ActionStatus {
    from(json!({ "name": "createVolumeSnapshot-0", "startTimestamp": "2026-08-20T02:59:00Z", "volumeSnapshots":
        [{"name": "b1-0-data", "volumeName": "data"}, {"name": "b1-0-wal", "volumeName": "wal"}] }))
}

fn snapshot(name: &str, status: Value) -> VolumeSnapshot {
    from(json!({ "metadata": {"name": name}, "spec": {"source": {}}, "status": status }))
}

fn ready(name: &str, size: &str, created: &str) -> VolumeSnapshot {
    snapshot(
        name,
        json!({ "readyToUse": true, "restoreSize": size, "creationTime": created,
        "boundVolumeSnapshotContentName": format!("content-of-{name}") }),
    )
}

fn judged(found: &[Option<&VolumeSnapshot>], deadline: u64) -> Outcome {
    decide::judge(&action(), found, Duration::from_secs(deadline), now()).outcome
}

#[test]
fn behaviour_4_8_5_done_when_all_are_ready() {
    let data = ready("b1-0-data", "1Gi", "2026-08-20T02:59:02Z");
    let wal = ready("b1-0-wal", "1Mi", "2026-08-20T02:59:01Z");
    let waiting = snapshot("b1-0-wal", json!({ "readyToUse": false }));
    assert_eq!(judged(&[Some(&data), None], 3600), Outcome::Absent);
    assert_eq!(judged(&[Some(&data), Some(&waiting)], 3600), Outcome::Running { obstacle: None });
    let seen = decide::judge(&action(), &[Some(&data), Some(&wal)], Duration::from_secs(1), now());
    assert_eq!(seen.outcome, Outcome::Succeeded { pod: None }, "in time or not: it is ready");

    let mut done = action();
    decide::complete(&mut done, &seen.snapshots, now());
    assert_eq!(done.phase, Some(ActionPhase::Completed));
    assert_eq!(done.total_size.as_deref(), Some("1074790400"), "the sum");
    insta::assert_json_snapshot!(json!({ "range": done.time_range, "snapshots": done.volume_snapshots }));
}

#[test]
fn behaviour_4_8_5_configuration_errors_fail_and_others_are_awaited() {
    let with = |message: &str| snapshot("b1-0-data", json!({ "readyToUse": false, "error": {"message": message} }));
    let data = ready("b1-0-wal", "1Gi", "2026-08-20T02:59:02Z");
    for message in [
        "Failed to set default snapshot class with error no default",
        "Failed to get snapshot class with error not found",
        "Failed to create snapshot content with error cannot find CSI PersistentVolumeSource for volume pv-1",
    ] {
        let outcome = judged(&[Some(&with(message)), Some(&data)], 3600);
        assert!(matches!(&outcome, Outcome::Failed { why, .. } if why.contains(message)), "{outcome:?}");
    }
    let busy = with("rpc error: the array is busy");
    let outcome = judged(&[Some(&busy), Some(&data)], 3600);
    let obstacle = Some("volumesnapshot b1-0-data: rpc error: the array is busy".to_owned());
    assert_eq!(outcome, Outcome::Running { obstacle });
}

#[test]
fn a_snapshot_that_never_becomes_ready_fails_the_backup_in_the_end() {
    let data = ready("b1-0-data", "1Gi", "2026-08-20T02:59:02Z");
    let waiting = snapshot("b1-0-wal", json!({ "readyToUse": false }));
    let outcome = judged(&[Some(&data), Some(&waiting)], 60);
    assert!(
        matches!(&outcome, Outcome::Failed { why, .. } if why.contains("b1-0-wal") && why.contains("waited for 1m0s")),
        "{outcome:?}"
    );
}
