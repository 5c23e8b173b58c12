//! Volume snapshots through a real CSI driver: taken, restored, missed, and deleted.

use std::time::Duration;

use kbbackup_e2e::{LIMIT, ended, must_fail, phase};
use kbbackup_testing::fixtures::{self, list};
use kbbackup_testing::kubectl::Kubectl;
use kbbackup_testing::ledger::Ledger;
use kbbackup_testing::namespace::TempNamespace;
use kbbackup_testing::postgres::Postgres;
use serde_json::{Value, json};

use crate::{begin, files};

const METHOD: &str = "snapshot";

/// The pods of [`two_volumes`] and of `files`.
pub(crate) fn policy(strategy: &str, volumes: &[&str]) -> Value {
    policy_of(&json!({"app.kubernetes.io/name": "files"}), strategy, volumes)
}

/// A policy with one method that takes snapshots of these volumes, without an ActionSet.
fn policy_of(selector: &Value, strategy: &str, volumes: &[&str]) -> Value {
    json!({
        "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "BackupPolicy", "metadata": {"name": "snap"},
        "spec": {
            "target": {"podSelector": {"strategy": strategy, "matchLabels": selector}},
            "backupMethods": [{"name": METHOD, "snapshotVolumes": true, "targetVolumes": {"volumes": volumes}}],
        },
    })
}

pub(crate) fn take(space: &TempNamespace, name: &str) -> Value {
    space.kubectl.apply(&fixtures::backup(name, "snap", METHOD).to_string()).unwrap();
    let object = ended(space, name, LIMIT).unwrap();
    assert_eq!(phase(&object), "Completed", "{}", object["status"]);
    object
}

fn restore(space: &TempNamespace, name: &str, backup: &str, prepare: &Value) -> Value {
    space.kubectl.apply(&files::restore(space, name, backup, prepare, None).to_string()).unwrap();
    space.kubectl.wait_for("restore", name, LIMIT, |object| matches!(phase(object), "Completed" | "Failed")).unwrap()
}

/// Names of all VolumeSnapshots.
pub(crate) fn snapshots(kubectl: &Kubectl) -> Vec<String> {
    let found = kubectl.get(&["volumesnapshots"]).unwrap();
    let items = found["items"].as_array().cloned().unwrap_or_default();
    let mut names: Vec<String> =
        items.iter().filter_map(|item| Some(item["metadata"]["name"].as_str()?.to_owned())).collect();
    names.sort();
    names
}

/// A StatefulSet `files` with two volumes per pod.
pub(crate) fn two_volumes(space: &TempNamespace, replicas: u32) {
    let labels = json!({"app.kubernetes.io/name": "files"});
    let claim = |name: &str| json!({"metadata": {"name": name}, "spec": files::claim(name)["volumeClaimSpec"]});
    let mount = |name: &str| json!({"name": name, "mountPath": format!("/{name}")});
    let set = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "files"},
        "spec": {
            "serviceName": "files", "replicas": replicas, "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
                "name": "files", "image": fixtures::POSTGRES_IMAGE, "imagePullPolicy": "IfNotPresent",
                "command": ["sleep", "infinity"], "volumeMounts": [mount("data"), mount("wal")],
            }]}},
            "volumeClaimTemplates": [claim("data"), claim("wal")],
        },
    });
    space.kubectl.apply(&set.to_string()).unwrap();
    space.kubectl.wait_for("statefulset", "files", LIMIT, |set| set["status"]["readyReplicas"] == replicas).unwrap();
}

#[test]
fn two_pods_with_two_volumes_give_four_snapshots_and_come_back_one_to_one() {
    let (_cluster, space) = begin("snapshots").unwrap();
    two_volumes(&space, 2);
    space.kubectl.apply(&policy("All", &["data", "wal"]).to_string()).unwrap();
    let pods = ["files-0", "files-1"];
    for pod in pods {
        files::run(&space.kubectl, pod, "for v in data wal; do echo $v $(hostname) > /$v/whose; done; sync").unwrap();
    }
    let wanted: Vec<_> = ["data", "wal"]
        .iter()
        .flat_map(|volume| pods.map(|pod| files::digests(&space.kubectl, pod, &format!("/{volume}")).unwrap()))
        .collect();
    let done = take(&space, "all");
    let names = ["all-0-data", "all-0-wal", "all-1-data", "all-1-wal"];
    assert_eq!(snapshots(&space.kubectl), names);
    for action in done["status"]["actions"].as_array().unwrap() {
        assert_eq!(action["volumeSnapshots"].as_array().map(Vec::len), Some(2), "{action}");
        assert!(action["volumeSnapshots"].as_array().unwrap().iter().all(|one| one["contentName"].is_string()));
        assert!(action["timeRange"]["end"].is_string(), "{action}");
    }

    let claim = |name: &str, volume: &str| {
        let mut claim = files::claim(name);
        claim["volumeSource"] = json!(volume);
        claim
    };
    let prepare = json!({
        "requiredPolicyForAllPodSelection": {"dataRestorePolicy": "OneToOne"},
        "volumeClaimsTemplate": {"replicas": 2, "templates": [claim("new-data", "data"), claim("new-wal", "wal")]},
    });
    let restored = restore(&space, "one-to-one", "all", &prepare);
    assert_eq!(phase(&restored), "Completed", "{}", restored["status"]);
    let claims: Vec<String> = ["data", "wal"]
        .iter()
        .flat_map(|volume| (0..2).map(move |ordinal| format!("new-{volume}-{ordinal}")))
        .collect();
    files::show(&space, "show", &claims).unwrap();
    for (claim, wanted) in claims.iter().zip(&wanted) {
        let found = files::digests(&space.kubectl, "show", &format!("/claims/{claim}")).unwrap();
        assert_eq!(&found, wanted, "{claim}");
    }

    // A snapshot that somebody has deleted is told, and no empty volume takes its place.
    space.kubectl.run(&["delete", "volumesnapshot", "all-1-wal"]).unwrap();
    let prepare = json!({
        "requiredPolicyForAllPodSelection": {"dataRestorePolicy": "OneToOne"},
        "volumeClaimsTemplate": {"replicas": 2, "templates": [claim("late", "wal")]},
    });
    let refused = restore(&space, "too-late", "all", &prepare);
    assert_eq!(phase(&refused), "Failed", "{}", refused["status"]);
    assert!(refused["status"].to_string().contains("volumesnapshot all-1-wal"), "{}", refused["status"]);
    let late = space.kubectl.try_run(&["get", "pvc", "late-0", "late-1", "-o", "name"]).unwrap();
    assert_eq!(late.stdout.trim(), "", "nothing was created");

    space.kubectl.run(&["delete", "backup", "all", "--wait=false"]).unwrap();
    space.kubectl.wait_gone("backup", "all", LIMIT).unwrap();
    assert!(snapshots(&space.kubectl).is_empty(), "the backup goes after its snapshots");

    // What is retained outlives its backup, although that owned it.
    let mut kept = fixtures::backup("kept", "snap", METHOD);
    kept["spec"]["deletionPolicy"] = json!("Retain");
    space.kubectl.apply(&kept.to_string()).unwrap();
    assert_eq!(phase(&ended(&space, "kept", LIMIT).unwrap()), "Completed");
    space.kubectl.run(&["delete", "backup", "kept", "--wait=false"]).unwrap();
    space.kubectl.wait_gone("backup", "kept", LIMIT).unwrap();
    let left = space.kubectl.get(&["volumesnapshot", "kept-0-data"]).unwrap();
    assert!(left["metadata"]["ownerReferences"].is_null(), "{left}");
}

#[test]
fn a_postgresql_under_load_comes_back_under_a_new_name() {
    let (_cluster, space) = begin("snapshot-load").unwrap();
    let postgres = Postgres::create(&space.kubectl, "pg", "256Mi").unwrap();
    postgres.fill(1).unwrap();
    let labels = json!({"app.kubernetes.io/name": "postgres", "app.kubernetes.io/instance": "pg"});
    space.kubectl.apply(&policy_of(&labels, "Any", &["data"]).to_string()).unwrap();
    let ledger = Ledger::start(&space.kubectl, &postgres.pod()).unwrap();
    let load = postgres.load(2, 200, Duration::from_secs(120)).unwrap();
    ledger.wait_for(20).unwrap();
    let before = ledger.len();
    take(&space, "now");
    let taken = ledger.len();
    ledger.wait_for(taken + 5).unwrap();
    let acknowledged = ledger.stop().unwrap();
    drop(load);

    let mut object = files::restore(
        &space,
        "again",
        "now",
        &json!({"volumeClaimsTemplate": {"replicas": 1, "templates": [{
            "metadata": {"name": "data-copy"}, "volumeSource": "data", "volumeClaimSpec":
                {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "256Mi"}}},
        }]}}),
        None,
    );
    object["metadata"]["annotations"] = json!({"kbbackup.io/restore-workload": "copy"});
    space.kubectl.apply(&object.to_string()).unwrap();
    let done = space
        .kubectl
        .wait_for("restore", "again", LIMIT, |object| matches!(phase(object), "Completed" | "Failed"))
        .unwrap();
    assert_eq!(phase(&done), "Completed", "{}", done["status"]);

    // A snapshot is a moment: every commit acknowledged before it is there, and what is there is a prefix.
    let rows = Postgres::existing(&space.kubectl, "copy").ledger_rows().unwrap();
    let ids: Vec<u64> = rows.keys().copied().collect();
    assert!(rows.len() >= before, "{} commits were acknowledged before, {} came back", before, rows.len());
    assert!(rows.len() < acknowledged.len(), "later ones did not come back");
    assert!(ids.windows(2).all(|pair| pair[1] == pair[0] + 1), "no gap: {ids:?}");
    assert!(rows.values().all(|whole| *whole), "every row is whole");
}

#[test]
fn what_cannot_be_snapshot_is_refused_before_anything_is_created() {
    let (_cluster, space) = begin("snapshot-refused").unwrap();
    files::create(&space, 1).unwrap();
    space.kubectl.apply(&policy("Any", &["data", "wall"]).to_string()).unwrap();
    space.kubectl.apply(&list(&[fixtures::backup("typo", "snap", METHOD)]).to_string()).unwrap();
    let why = must_fail(&space, "typo", LIMIT).unwrap();
    assert!(why.contains("volume wall"), "{why}");
    assert!(snapshots(&space.kubectl).is_empty());
}
