//! Chains of incremental backups: restored exactly, kept while something builds on them, gone together.

use std::collections::BTreeMap;

use kbbackup_e2e::{LIMIT, ended, phase};
use kbbackup_testing::fixtures::{self, list};
use kbbackup_testing::namespace::TempNamespace;
use serde_json::json;

use crate::{begin, files};

/// Each archive comes with tar's own list of what it has seen, which the next one starts from.
const FULL: &str = "
tar -C /data --no-check-device --listed-incremental=/tmp/seen -cf - . | datasafed push -z zstd - /data.tar.zst
datasafed push - /seen < /tmp/seen
echo '{}' > $DP_BACKUP_INFO_FILE";
const INCREMENTAL: &str = r#"
test "$DP_PARENT_BACKUP_NAME" && test "$DP_BASE_BACKUP_NAME"
parent="$DP_BACKUP_ROOT_PATH/$DP_PARENT_BACKUP_NAME/$DP_TARGET_RELATIVE_PATH"
DATASAFED_BACKEND_BASE_PATH="$parent" datasafed pull /seen - > /tmp/seen
tar -C /data --no-check-device --listed-incremental=/tmp/seen -cf - . | datasafed push -z zstd - /data.tar.zst
datasafed push - /seen < /tmp/seen
echo '{}' > $DP_BACKUP_INFO_FILE"#;
/// All that has changed since the full backup, whatever was taken in between.
const DIFFERENTIAL: &str = r#"
test "$DP_PARENT_BACKUP_NAME" = full
parent="$DP_BACKUP_ROOT_PATH/$DP_PARENT_BACKUP_NAME/$DP_TARGET_RELATIVE_PATH"
DATASAFED_BACKEND_BASE_PATH="$parent" datasafed pull /seen - > /tmp/seen
tar -C /data --no-check-device --listed-incremental=/tmp/seen -cf - . | datasafed push -z zstd - /data.tar.zst
echo '{}' > $DP_BACKUP_INFO_FILE"#;
/// One set of files: a differential backup is two Jobs, that of its full backup first.
const LAYER: &str = "datasafed pull -d zstd /data.tar.zst - | tar -C /data --listed-incremental=/dev/null -xf -";
/// Base, ancestors and the backup itself, oldest first; tar removes what had vanished.
const RESTORE: &str = r#"
sleep "${PAUSE:-0}"
for name in $DP_BASE_BACKUP_NAME ${DP_ANCESTOR_INCREMENTAL_BACKUP_NAMES//,/ } $DP_BACKUP_NAME; do
  echo "unpacking $name"
  DATASAFED_BACKEND_BASE_PATH="$DP_BACKUP_ROOT_PATH/$name/$DP_TARGET_RELATIVE_PATH" datasafed pull -d zstd /data.tar.zst - |
    tar -C /data --listed-incremental=/dev/null -xf -
done"#;

fn take(space: &TempNamespace, name: &str, method: &str) -> BTreeMap<String, String> {
    space.kubectl.apply(&fixtures::backup(name, "files", method).to_string()).unwrap();
    let object = ended(space, name, LIMIT).unwrap();
    assert_eq!(phase(&object), "Completed", "{}", object["status"]);
    files::digests(&space.kubectl, "files-0", "/data").unwrap()
}

fn expire(space: &TempNamespace, name: &str) {
    let patch = json!({"status": {"expiration": "2020-01-01T00:00:00Z"}}).to_string();
    space.kubectl.run(&["patch", "backup", name, "--subresource=status", "--type=merge", "-p", &patch]).unwrap();
}

#[test]
fn a_chain_of_three_restores_exactly_outlives_retention_and_goes_as_a_whole() {
    let (cluster, space) = begin("chain").unwrap();
    let recipes = [format!("{}-full", space.name), format!("{}-incr", space.name)];
    files::create(&space, 1).unwrap();
    let sets = [
        files::recipe(&recipes[0], "Full", FULL, RESTORE),
        files::recipe(&recipes[1], "Incremental", INCREMENTAL, RESTORE),
        files::policy("Any", &[("full", &recipes[0], None), ("incr", &recipes[1], Some("full"))]),
    ];
    space.kubectl.apply(&list(&sets).to_string()).unwrap();
    let change = |script: &str| files::run(&space.kubectl, "files-0", script).unwrap();

    change("cd /data; mkdir d; head -c 300000 /dev/urandom > a; echo b > b; echo c > d/c");
    take(&space, "alone", "full");
    take(&space, "full", "full");
    change("cd /data; echo more >> a; echo new > e");
    take(&space, "i1", "incr");
    change("cd /data; rm b; mv d/c d/moved; echo two > e");
    let second = take(&space, "i2", "incr");
    change("cd /data; head -c 200000 /dev/urandom > f; rm -r d; echo three > e");
    let third = take(&space, "i3", "incr");
    let parent = |name: &str| space.kubectl.get(&["backup", name]).unwrap()["status"]["parentBackupName"].clone();
    assert_eq!(["i1", "i2", "i3"].map(parent), [json!("full"), json!("i1"), json!("i2")]);

    // Both are expired; the one that nothing builds on goes, and has been judged after the other.
    expire(&space, "full");
    expire(&space, "alone");
    space.kubectl.wait_gone("backup", "alone", LIMIT).unwrap();
    let full = space.kubectl.get(&["backup", "full"]).unwrap();
    assert!(full["metadata"]["deletionTimestamp"].is_null(), "retention deletes a backup that others build on");

    let over = |object: &serde_json::Value| matches!(phase(object), "Completed" | "Failed");
    for (name, reads) in [("i2", "full,i1,i2"), ("i3", "full,i1,i2,i3")] {
        let prepare = json!({"volumeClaims": [files::claim(&format!("new-{name}"))]});
        let restore = files::restore(&space, &format!("r-{name}"), name, &prepare, None);
        space.kubectl.apply(&restore.to_string()).unwrap();
        let done = space.kubectl.wait_for("restore", &format!("r-{name}"), LIMIT, over).unwrap();
        assert_eq!(phase(&done), "Completed", "{}", done["status"]);
        assert_eq!(done["metadata"]["annotations"]["kbbackup.io/reads"], reads);
    }
    let claims = ["new-i2".to_owned(), "new-i3".to_owned()];
    files::show(&space, "show", &claims).unwrap();
    for (claim, wanted) in [("new-i2", &second), ("new-i3", &third)] {
        assert_eq!(&files::digests(&space.kubectl, "show", &format!("/claims/{claim}")).unwrap(), wanted, "{claim}");
    }

    // A deletion waits for the restore that reads the chain, and does not fail it.
    let prepare = json!({"volumeClaims": [files::claim("last")]});
    let mut restore = files::restore(&space, "last", "i3", &prepare, None);
    restore["spec"]["env"] = json!([{"name": "PAUSE", "value": "30"}]);
    space.kubectl.apply(&restore.to_string()).unwrap();
    let begun = |object: &serde_json::Value| object["status"]["actions"]["prepareData"][0]["status"] == "Processing";
    space.kubectl.wait_for("restore", "last", LIMIT, begun).unwrap();
    space.kubectl.run(&["delete", "backup", "full", "--wait=false"]).unwrap();
    let told = |object: &serde_json::Value| {
        object["status"]["deletionFailureReason"].as_str().is_some_and(|why| why.contains("is reading this backup"))
    };
    space.kubectl.wait_for("backup", "full", LIMIT, told).unwrap();
    let done = space.kubectl.wait_for("restore", "last", LIMIT, over).unwrap();
    assert_eq!(phase(&done), "Completed", "{}", done["status"]);
    files::show(&space, "show-last", &["last".to_owned()]).unwrap();
    assert_eq!(files::digests(&space.kubectl, "show-last", "/claims/last").unwrap(), third);
    for name in ["i3", "i2", "i1", "full"] {
        space.kubectl.wait_gone("backup", name, LIMIT).unwrap();
    }
    drop(space);
    for recipe in &recipes {
        drop(cluster.try_run(&["delete", "actionset", recipe, "--wait=false"]));
    }
}

#[test]
fn differential_backups_rest_on_the_full_one_alone_and_restore_exactly() {
    let (cluster, space) = begin("differential").unwrap();
    let recipes = [format!("{}-full", space.name), format!("{}-diff", space.name)];
    files::create(&space, 1).unwrap();
    let sets = [
        files::recipe(&recipes[0], "Full", FULL, LAYER),
        files::recipe(&recipes[1], "Differential", DIFFERENTIAL, LAYER),
        files::policy("Any", &[("full", &recipes[0], None), ("diff", &recipes[1], Some("full"))]),
    ];
    space.kubectl.apply(&list(&sets).to_string()).unwrap();
    let change = |script: &str| files::run(&space.kubectl, "files-0", script).unwrap();

    change("cd /data; mkdir d; head -c 300000 /dev/urandom > a; echo b > b; echo c > d/c");
    take(&space, "full", "full");
    change("cd /data; echo more >> a; echo new > e");
    take(&space, "d1", "diff");
    change("cd /data; rm b e; mv d/c d/moved; echo f > f");
    let wanted = take(&space, "d2", "diff");
    let parent = |name: &str| space.kubectl.get(&["backup", name]).unwrap()["status"]["parentBackupName"].clone();
    assert_eq!(["d1", "d2"].map(parent), [json!("full"), json!("full")]);

    // What lies between the two is needed by nobody.
    space.kubectl.run(&["delete", "backup", "d1", "--timeout=180s"]).unwrap();
    let prepare = json!({"volumeClaims": [files::claim("new")]});
    space.kubectl.apply(&files::restore(&space, "again", "d2", &prepare, None).to_string()).unwrap();
    let over = |object: &serde_json::Value| matches!(phase(object), "Completed" | "Failed");
    let done = space.kubectl.wait_for("restore", "again", LIMIT, over).unwrap();
    assert_eq!(phase(&done), "Completed", "{}", done["status"]);
    assert_eq!(done["metadata"]["annotations"]["kbbackup.io/reads"], "full,d2");
    files::show(&space, "show", &["new".to_owned()]).unwrap();
    assert_eq!(files::digests(&space.kubectl, "show", "/claims/new").unwrap(), wanted);

    space.kubectl.run(&["delete", "backup", "d2", "full", "--timeout=180s"]).unwrap();
    drop(space);
    for recipe in &recipes {
        drop(cluster.try_run(&["delete", "actionset", recipe, "--wait=false"]));
    }
}
