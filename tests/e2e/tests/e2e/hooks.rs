//! What a recipe wants done before and after a volume snapshot is done before and after it.

use kbbackup_e2e::{LIMIT, ended, must_fail, phase};
use kbbackup_testing::fixtures::{self, list};
use serde_json::json;

use crate::snapshots::snapshots;
use crate::{begin, files};

/// Freezes the data, so to say; refuses where somebody has said so.
const BEFORE: &str = "test ! -e /data/refuse; test ! -e /data/after; echo frozen > /data/before; sync /data";
/// Thaws what was frozen.
const AFTER: &str = "rm /data/before; echo thawed > /data/after; sync /data";

#[test]
fn behaviour_4_4_hooks_run_before_and_after_a_volume_snapshot_and_a_refusal_takes_none() {
    let (cluster, space) = begin("hooks").unwrap();
    files::create(&space, 1).unwrap();
    let hook = |script: &str| json!([{"exec": {"container": "files", "command": ["bash", "-ec", script]}}]);
    let api = "dataprotection.kubeblocks.io/v1alpha1";
    let recipe = json!({
        "apiVersion": api, "kind": "ActionSet", "metadata": {"name": space.name},
        "spec": {"backupType": "Full", "backup": {"preBackup": hook(BEFORE), "postBackup": hook(AFTER)}},
    });
    let policy = json!({
        "apiVersion": api, "kind": "BackupPolicy", "metadata": {"name": "files"},
        "spec": {
            "target": {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "files"}}},
            "backupMethods": [{"name": "frozen", "snapshotVolumes": true, "actionSetName": space.name,
                "targetVolumes": {"volumes": ["data"]}}],
        },
    });
    space.kubectl.apply(&list(&[recipe, policy]).to_string()).unwrap();
    space.kubectl.apply(&fixtures::backup("frozen", "files", "frozen").to_string()).unwrap();
    let done = ended(&space, "frozen", LIMIT).unwrap();
    assert_eq!(phase(&done), "Completed", "{}", done["status"]);
    assert_eq!(files::run(&space.kubectl, "files-0", "cd /data; echo *").unwrap().trim(), "after");

    // What the snapshot holds is what stood there between the two.
    let prepare = json!({"volumeClaims": [files::claim("copy")]});
    space.kubectl.apply(&files::restore(&space, "copy", "frozen", &prepare, None).to_string()).unwrap();
    let over = |object: &serde_json::Value| matches!(phase(object), "Completed" | "Failed");
    let restored = space.kubectl.wait_for("restore", "copy", LIMIT, over).unwrap();
    assert_eq!(phase(&restored), "Completed", "{}", restored["status"]);
    files::show(&space, "show", &["copy".to_owned()]).unwrap();
    assert_eq!(files::run(&space.kubectl, "show", "cd /claims/copy; echo *").unwrap().trim(), "before");

    // Where the first hook refuses, nothing that comes after it happens.
    files::run(&space.kubectl, "files-0", "rm /data/after; touch /data/refuse").unwrap();
    space.kubectl.apply(&fixtures::backup("refused", "files", "frozen").to_string()).unwrap();
    must_fail(&space, "refused", LIMIT).unwrap();
    assert_eq!(snapshots(&space.kubectl), ["frozen-0-data"]);
    assert_eq!(files::run(&space.kubectl, "files-0", "cd /data; echo *").unwrap().trim(), "refuse");

    space.kubectl.run(&["delete", "restore", "copy", "--timeout=180s"]).unwrap();
    space.kubectl.run(&["delete", "backup", "frozen", "refused", "--timeout=180s"]).unwrap();
    let recipe = space.name.clone();
    drop(space);
    drop(cluster.try_run(&["delete", "actionset", &recipe, "--wait=false"]));
}
