//! The cluster's objects are lost and the bucket is not: everything comes back from what lies there.

use std::time::Duration;

use anyhow::Result;
use kbbackup_e2e::{LIMIT, S3_KEYS, drop_s3_repo, ended, phase, s3_repo};
use kbbackup_testing::fixtures::{self, list};
use kbbackup_testing::kubectl::Kubectl;
use kbbackup_testing::namespace::TempNamespace;
use serde_json::{Value, json};

use crate::{begin, files};

/// Two backups of `files`, whose data stays when they are deleted.
fn backed_up(space: &TempNamespace, repo: &str) -> Result<String> {
    files::create(space, 1)?;
    let write = "head -c 300000 /dev/urandom > /data/noise; mkdir /data/deep; echo precious > /data/deep/word; sync";
    space.kubectl.run(&["exec", "files-0", "--", "sh", "-c", write])?;
    let set = format!("{}-tar", space.name);
    let mut policy = files::policy("Any", &[("full", &set, None)]);
    policy["spec"]["backupRepoName"] = json!(repo);
    let kept = |name: &str| {
        let mut backup = fixtures::backup(name, "files", "full");
        backup["spec"]["deletionPolicy"] = json!("Retain");
        backup
    };
    let objects = [files::recipe(&set, "Full", files::PACK, files::UNPACK), policy, kept("one"), kept("two")];
    space.kubectl.apply(&list(&objects).to_string())?;
    for name in ["one", "two"] {
        let object = ended(space, name, LIMIT)?;
        assert_eq!(phase(&object), "Completed", "{}", object["status"]);
    }
    sums(&space.kubectl, "files-0")
}

fn sums(kubectl: &Kubectl, pod: &str) -> Result<String> {
    let list = "cd /data && find . -type f -not -path './lost+found*' | sort | xargs sha256sum";
    kubectl.run(&["exec", pod, "--", "sh", "-c", list])
}

fn states(cluster: &Kubectl, repo: &str, namespace: &str) -> Result<Vec<(String, String)>> {
    let text = cluster.run(&["kbbackup", "repo", "contents", repo, "--from-namespace", namespace, "-o", "json"])?;
    let value: Value = serde_json::from_str(&text)?;
    let text = |item: &Value, key: &str| item[key].as_str().unwrap_or_default().to_owned();
    let items = value["backups"].as_array().cloned().unwrap_or_default();
    let mut states: Vec<_> = items.iter().map(|item| (text(item, "name"), text(item, "state"))).collect();
    // The command goes by time, and two that run at once end in either order.
    states.sort();
    Ok(states)
}

fn both(state: &str) -> Vec<(String, String)> {
    ["one", "two"].map(|name| (name.to_owned(), state.to_owned())).to_vec()
}

#[test]
fn backups_are_imported_from_the_bucket_alone_and_restored() {
    let (cluster, space) = begin("recover").unwrap();
    let (lost, found) = (format!("repo-{}", space.name), format!("again-{}", space.name));
    s3_repo(&cluster, &lost, "versitygw", &space.name, S3_KEYS).unwrap();
    let before = backed_up(&space, &lost).unwrap();
    assert_eq!(states(&cluster, &lost, &space.name).unwrap(), both("known"));
    cluster.run(&["delete", "namespace", &space.name, "--timeout=180s"]).unwrap();
    drop_s3_repo(&cluster, &lost);

    // As in a new cluster: the same bucket, a repository of another name, no objects.
    s3_repo(&cluster, &found, "versitygw", &space.name, S3_KEYS).unwrap();
    cluster.wait_for("backuprepo", &found, LIMIT, |repo| phase(repo) == "Ready").unwrap();
    assert_eq!(states(&cluster, &found, &space.name).unwrap(), both("orphan"));
    let import = ["kbbackup", "repo", "import", &found];
    let refused = cluster.try_run(&import).unwrap();
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(refused.stderr.contains("--create-namespaces"), "{}", refused.stderr);
    let shown = cluster.run(&[&import[..], &["--dry-run=client", "-o", "name"]].concat()).unwrap();
    assert_eq!(shown.lines().count(), 3, "a namespace and two backups: {shown}");
    assert!(
        space.kubectl.get(&["backups"]).unwrap()["items"].as_array().unwrap().is_empty(),
        "a dry run writes nothing"
    );

    let done = cluster.run(&[&import[..], &["--create-namespaces"]].concat()).unwrap();
    assert_eq!(done.lines().count(), 2, "{done}");
    for name in ["one", "two"] {
        let object = space.kubectl.get(&["backup", name]).unwrap();
        let annotations = &object["metadata"]["annotations"];
        assert_eq!((phase(&object), &object["status"]["backupRepoName"]), ("Completed", &json!(found)));
        assert_eq!(object["spec"]["deletionPolicy"], "Retain");
        assert_eq!(annotations["dataprotection.kubeblocks.io/skip-reconciliation"], json!(null));
    }
    assert_eq!(states(&cluster, &found, &space.name).unwrap(), both("known"));
    let version = |name: &str| space.kubectl.get(&["backup", name]).unwrap()["metadata"]["uid"].clone();
    let uids = ["one", "two"].map(version);
    let again = cluster.try_run(&import).unwrap();
    assert_eq!((again.code, again.stdout.as_str()), (0, ""), "{}", again.stderr);
    assert!(again.stderr.contains("2 backups exist"), "{}", again.stderr);
    assert_eq!(["one", "two"].map(version), uids);

    let verified = space.kubectl.run(&["kbbackup", "verify", "one", "--level", "full"]).unwrap();
    assert!(verified.contains("all as sealed"), "{verified}");
    // The seal that an object carries is what counts: data of somebody else in its place is told.
    let forged = format!("kbbackup.io/seal={}", "0".repeat(64));
    space.kubectl.run(&["annotate", "backup", "two", "--overwrite", &forged]).unwrap();
    let wrong = space.kubectl.try_run(&["kbbackup", "verify", "two"]).unwrap();
    assert_eq!(wrong.code, 4, "{}", wrong.stderr);
    assert!(wrong.stdout.contains("has digest"), "{}", wrong.stdout);

    let restore = ["kbbackup", "restore", "files-back", "--from", "one", "--wait", "--timeout", "4m"];
    space.kubectl.run(&restore).unwrap();
    assert_eq!(sums(&space.kubectl, "files-back-0").unwrap(), before);

    // What another cluster may still use stays.
    space.kubectl.run(&["kbbackup", "delete", "two", "--yes", "--timeout", "2m"]).unwrap();
    space.kubectl.wait_gone("backup", "two", Duration::from_secs(10)).unwrap();
    let left = states(&cluster, &found, &space.name).unwrap();
    assert_eq!(left, [("one".to_owned(), "known".to_owned()), ("two".to_owned(), "orphan".to_owned())]);

    let set = format!("{}-tar", space.name);
    drop(space);
    drop(cluster.try_run(&["delete", "actionset", &set, "--wait=false"]));
    drop_s3_repo(&cluster, &found);
}
