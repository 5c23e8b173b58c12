//! Objects pass between our types and those of the reference without loss, in both directions.
//!
//! The objects are made from the generated definitions: every field there is, in several variants so that every member
//! of every enum occurs. What the types generated from the reference's definitions make of them is told by the program
//! in `reference`, which says why it stands alone.

#![allow(clippy::panic, clippy::unwrap_used)]

mod objects;

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use kbbackup_api::v1alpha1::{
    ActionSet, Backup, BackupPolicy, BackupPolicyTemplate, BackupRepo, BackupSchedule, Restore, StorageProvider,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use objects::{assert_same, full_objects, sparse_objects};

/// Fields of the contract that are younger than the definitions from which the reference's types were generated. Those
/// types drop them.
const YOUNGER: &[(&str, &str)] = &[("Backup", "deletionFailureReason"), ("BackupPolicyTemplate", "matchedCompDefs")];

#[test]
fn every_field_survives_our_types() {
    for object in full_objects() {
        assert_same(&object, &through_ours(&object).unwrap());
    }
}

#[test]
fn every_field_survives_the_reference_and_comes_back() {
    let written: Vec<_> = full_objects()
        .iter()
        .map(|object| through_ours(object).unwrap())
        // `age` is our addition to the contract; the reference may refuse it.
        .filter(|object| !object.to_string().contains(r#""algorithm":"age""#))
        .collect();
    let returned = through_the_reference(&written);
    assert_eq!(written.len(), returned.len());
    for (mut ours, theirs) in written.into_iter().zip(returned) {
        let kind = ours["kind"].clone();
        for (_, field) in YOUNGER.iter().filter(|(younger, _)| kind == *younger) {
            let dropped = ours["status"].as_object_mut().unwrap().remove(*field);
            assert!(dropped.is_some() && theirs["status"].get(field).is_none(), "the reference learned {field}");
        }
        assert_same(&ours, &theirs);
        assert_same(&ours, &through_ours(&theirs).unwrap());
    }
}

#[test]
fn sparse_objects_stay_sparse() {
    let written: Vec<_> = sparse_objects().iter().map(|object| through_ours(object).unwrap()).collect();
    assert_eq!(written, sparse_objects());
    assert_eq!(through_the_reference(&written), written);
}

#[test]
fn zero_values_that_other_clients_send_are_read() {
    let object = |kind: &str, spec: Value, status: Value| {
        json!({ "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": kind,
            "metadata": { "name": "zero", "creationTimestamp": null }, "spec": spec, "status": status })
    };
    let restore = json!({
        "backup": { "name": "b", "namespace": "n" },
        "containerResources": {},
        "prepareDataConfig": {
            "volumeClaimRestorePolicy": "Parallel",
            "schedulingSpec": {},
            "volumeClaims": [{ "metadata": { "creationTimestamp": null }, "volumeClaimSpec": { "resources": {} } }],
        },
        "readyConfig": { "execAction": { "target": { "podSelector": {} } } },
        "resources": { "included": [{ "groupResource": "pods", "labelSelector": {} }] },
    });
    let action = json!({ "name": "a", "backupName": "b", "objectKey": "Job/j", "status": "Completed",
        "startTime": null, "endTime": null });
    let template = json!({
        "compDefs": ["pg"], "target": { "role": "" },
        "backupMethods": [{ "name": "full", "target": null, "runtimeSettings": { "resources": {} } }],
    });
    let actions = json!({ "backupType": "Full",
        "backup": { "preBackup": [{ "exec": { "command": ["true"], "timeout": "0s" } }] } });
    for object in [
        object(
            "BackupRepo",
            json!({ "storageProviderRef": "s", "pvReclaimPolicy": "Retain", "volumeCapacity": "0" }),
            json!({}),
        ),
        object("BackupPolicy", json!({ "backupMethods": [], "useKopia": false, "target": {} }), json!({})),
        object("BackupPolicyTemplate", template, json!({})),
        object("ActionSet", actions, json!({})),
        object("Restore", restore, json!({ "actions": { "prepareData": [action] } })),
        object("Restore", json!({ "backup": { "name": "b", "namespace": "n" } }), json!({ "actions": {} })),
    ] {
        through_ours(&object).unwrap();
    }
}

#[test]
fn defaults_that_the_server_fills_are_the_ones_our_types_assume() {
    let read = |spec: Value| serde_json::from_value::<kbbackup_api::v1alpha1::BackupSpec>(spec).unwrap();
    let bare = read(json!({ "backupPolicyName": "p", "backupMethod": "m" }));
    assert_eq!(serde_json::to_value(bare).unwrap()["deletionPolicy"], "Delete");
    let policy: kbbackup_api::v1alpha1::BackupPolicySpec =
        serde_json::from_value(json!({ "backupMethods": [] })).unwrap();
    assert_eq!((policy.backoff_limit(), policy.use_kopia()), (2, false));
    let restore = kbbackup_api::v1alpha1::RestoreActionSpec::default();
    assert!(restore.base_backup_required());
}

fn through_ours(object: &Value) -> serde_json::Result<Value> {
    fn again<T: Serialize + DeserializeOwned>(object: &Value) -> serde_json::Result<Value> {
        serde_json::to_value(serde_json::from_value::<T>(object.clone())?)
    }
    match object["kind"].as_str().unwrap() {
        "ActionSet" => again::<ActionSet>(object),
        "Backup" => again::<Backup>(object),
        "BackupPolicy" => again::<BackupPolicy>(object),
        "BackupPolicyTemplate" => again::<BackupPolicyTemplate>(object),
        "BackupRepo" => again::<BackupRepo>(object),
        "BackupSchedule" => again::<BackupSchedule>(object),
        "Restore" => again::<Restore>(object),
        "StorageProvider" => again::<StorageProvider>(object),
        kind => panic!("no kind {kind}"),
    }
}

fn through_the_reference(objects: &[Value]) -> Vec<Value> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/Cargo.toml");
    let mut program = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--locked", "--manifest-path"])
        .arg(manifest)
        .arg("--target-dir")
        .arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join("reference"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = program.stdin.take().unwrap();
    let text = serde_json::to_vec(objects).unwrap();
    // The program reads everything before it writes anything.
    input.write_all(&text).unwrap();
    drop(input);
    let output = program.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}
