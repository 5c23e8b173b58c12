//! A running database taken back in place: what it holds then, what is kept of it, the way back, and one that fails.

use std::process::Command;

use kbbackup_e2e::{LIMIT, S3_BUCKET, S3_KEYS, S3_NAMESPACE, drop_s3_repo, phase, s3_port, s3_repo};
use kbbackup_testing::kubectl::Kubectl;
use kbbackup_testing::ledger::Ledger;
use kbbackup_testing::lsn::Lsn;
use kbbackup_testing::namespace::TempNamespace;
use kbbackup_testing::postgres::Postgres;
use kbbackup_testing::s3::Bucket;
use serde_json::Value;

use crate::snapshots::{self, snapshots};
use crate::{begin, files};

/// `kubectl kbbackup`, and what it said on both streams; the exit code must be `code`.
fn kbbackup(space: &TempNamespace, code: i32, args: &[&str]) -> String {
    let done = space.kubectl.try_run(&[&["kbbackup"], args].concat()).unwrap();
    let said = format!("{}{}", done.stdout, done.stderr);
    assert_eq!(done.code, code, "{said}");
    said
}

/// Name and volume of each claim.
fn claims(space: &TempNamespace) -> Vec<(String, String)> {
    let all = space.kubectl.get(&["pvc"]).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let items = all["items"].as_array().unwrap().iter();
    items.map(|claim| (text(&claim["metadata"]["name"]), text(&claim["spec"]["volumeName"]))).collect()
}

fn uid(space: &TempNamespace, object: &[&str]) -> String {
    space.kubectl.get(object).unwrap()["metadata"]["uid"].as_str().unwrap().to_owned()
}

/// The only Restore.
fn restore(space: &TempNamespace) -> Value {
    let all = space.kubectl.get(&["restores"]).unwrap();
    let items = all["items"].as_array().unwrap();
    assert_eq!(items.len(), 1, "{all}");
    items[0].clone()
}

/// Runs the commands among what was said, as a person would who copies them.
fn copy(kubectl: &Kubectl, said: &str) {
    let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("  kubectl ")).collect();
    assert_eq!(lines.len(), 4, "{said}");
    let mut shell = Command::new("sh");
    for (key, value) in kubectl.command(&[]).get_envs() {
        if let Some(value) = value {
            shell.env(key, value);
        }
    }
    let done = shell.args(["-ec", &lines.join("\n")]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn a_running_database_goes_back_and_its_old_volume_is_kept() {
    let (cluster, space) = begin("in-place").unwrap();
    let postgres = Postgres::create(&space.kubectl, "pg", "1Gi").unwrap();
    postgres.fill(1).unwrap();
    let ledger = Ledger::start(&space.kubectl, &postgres.pod()).unwrap();
    ledger.wait_for(20).unwrap();
    kbbackup(&space, 0, &["backup", "statefulset/pg", "--name", "first", "--yes", "--wait", "--timeout", "10m"]);
    let written = ledger.len();
    ledger.wait_for(written + 20).unwrap();
    let acknowledged = ledger.stop().unwrap();
    let source = postgres.content().unwrap();
    postgres.sql("drop table ledger; create table later as select 42 as answer; checkpoint").unwrap();

    let before = claims(&space);
    let [(claim, old)] = &before[..] else { panic!("{before:?}") };
    assert_eq!(claim, "data-pg-0");
    let (set, pod) = (uid(&space, &["statefulset", "pg"]), uid(&space, &["pod", "pg-0"]));
    let ask = ["restore", "pg", "--in-place", "--from", "first"];
    let said = kbbackup(&space, 6, &ask);
    assert!(said.contains("Nothing was changed") && said.contains(old), "{said}");
    assert_eq!(uid(&space, &["pod", "pg-0"]), pod, "nobody has stopped it");

    let said = kbbackup(&space, 0, &[&ask[..], &["--yes", "--wait", "--timeout", "10m"]].concat());
    assert!(said.contains("statefulset/pg runs with the restored data"), "{said}");
    assert!(said.contains("data-pg-0 by class btrfs"), "{said}");
    postgres.wait_ready().unwrap();
    let object = restore(&space);
    let reached: Value =
        serde_json::from_str(object["metadata"]["annotations"]["kbbackup.io/restored"].as_str().unwrap()).unwrap();
    let position: Lsn = reached["position"].as_str().unwrap().parse().unwrap();
    let checked = postgres.check(&source, &acknowledged, position).unwrap();
    assert!(checked.rows >= 20, "{checked:?}");
    assert_eq!(postgres.sql("select to_regclass('later') is null").unwrap(), "t");

    assert_eq!(uid(&space, &["statefulset", "pg"]), set, "the same StatefulSet");
    let after = claims(&space);
    let [(claim, new)] = &after[..] else { panic!("temporary claims are left: {after:?}") };
    assert_eq!(claim, "data-pg-0");
    assert_ne!(new, old);
    let name = object["metadata"]["name"].as_str().unwrap();
    let kept = cluster.get(&["pv", "-l", &format!("kbbackup.io/in-place={name}")]).unwrap();
    assert_eq!(kept["items"].as_array().unwrap().len(), 1, "{kept}");
    assert_eq!(kept["items"][0]["metadata"]["name"], **old);
    assert_eq!(kept["items"][0]["spec"]["persistentVolumeReclaimPolicy"], "Retain");
    let policy = cluster.get(&["pv", new]).unwrap()["spec"]["persistentVolumeReclaimPolicy"].clone();
    assert_eq!(policy, "Delete", "the new one is as its class wants it");
    assert_eq!(snapshots(&space.kubectl), [format!("{name}-data-pg-0")]);
    let told = object["status"]["conditions"].as_array().unwrap().iter().any(|condition| {
        condition["type"] == "VolumesExchanged" && condition["message"].as_str().unwrap_or_default().contains(&**old)
    });
    assert!(told, "{}", object["status"]);

    // The old volume holds what it held, and the way to it is the one that was told.
    copy(&space.kubectl, &said);
    postgres.wait_ready().unwrap();
    assert_eq!(claims(&space), before);
    assert_eq!(postgres.sql("select answer from later").unwrap(), "42");
    assert_eq!(postgres.sql("select to_regclass('ledger') is null").unwrap(), "t");

    drop(space);
    drop(cluster.try_run(&["delete", "pv", old, "--wait=false"]));
}

/// Each pod gets its own data back, by snapshots alone: no repository, no tool.
#[test]
fn two_pods_with_two_volumes_go_back_to_their_snapshots() {
    let (cluster, space) = begin("in-place-two").unwrap();
    snapshots::two_volumes(&space, 2);
    space.kubectl.apply(&snapshots::policy("All", &["data", "wal"]).to_string()).unwrap();
    let pods = ["files-0", "files-1"];
    let run = |pod: &str, script: &str| files::run(&space.kubectl, pod, script).unwrap();
    for pod in pods {
        run(pod, "for v in data wal; do echo $v $(hostname) > /$v/whose; chmod 600 /$v/whose; done; sync");
    }
    snapshots::take(&space, "all");
    for pod in pods {
        run(pod, "for v in data wal; do echo lost > /$v/whose; touch /$v/later; done; sync");
    }
    let before = claims(&space);
    let ask = ["restore", "files", "--in-place", "--from", "all", "--safety-snapshot=false"];
    let said = kbbackup(&space, 0, &[&ask[..], &["--yes", "--wait", "--timeout", "10m"]].concat());
    assert!(said.contains("statefulset/files runs with the restored data"), "{said}");
    let after = claims(&space);
    assert_eq!(after.len(), 4, "temporary claims are left: {after:?}");
    for (old, new) in before.iter().zip(&after) {
        assert!(old.0 == new.0 && old.1 != new.1, "{before:?}: {after:?}");
    }
    for pod in pods {
        for volume in ["data", "wal"] {
            let found = run(pod, &format!("cat /{volume}/whose; stat -c '%a %u:%g' /{volume}/whose; ls /{volume}"));
            assert_eq!(found.trim(), format!("{volume} {pod}\n600 0:0\nwhose"), "{pod}");
        }
    }
    let name = restore(&space)["metadata"]["name"].as_str().unwrap().to_owned();
    drop(space);
    drop(cluster.try_run(&["delete", "pv", "-l", &format!("kbbackup.io/in-place={name}"), "--wait=false"]));
}

#[test]
fn one_that_fails_leaves_the_old_data_running() {
    let (cluster, space) = begin("in-place-torn").unwrap();
    let repo = format!("repo-{}", space.name);
    s3_repo(&cluster, &repo, "versitygw", &space.name, S3_KEYS).unwrap();
    let postgres = Postgres::create(&space.kubectl, "pg", "1Gi").unwrap();
    postgres.sql("create table kept as select 1 as answer").unwrap();
    kbbackup(&space, 0, &["policy", "create", "pg", "--for", "statefulset/pg", "--repo", &repo]);
    kbbackup(&space, 0, &["backup", "statefulset/pg", "--name", "torn", "--yes", "--wait", "--timeout", "10m"]);
    let bucket =
        Bucket::open(&cluster, S3_NAMESPACE, "svc/versitygw", s3_port("versitygw"), S3_KEYS, S3_BUCKET).unwrap();
    let keys = bucket.keys().unwrap();
    let largest = keys.iter().filter(|key| key.starts_with(&space.name) && key.contains("/torn/"));
    let largest = largest.max_by_key(|key| bucket.read(key).map_or(0, |bytes| bytes.len())).unwrap();
    let mut bytes = bucket.read(largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    bucket.replace(largest, &bytes).unwrap();

    postgres.sql("update kept set answer = 2").unwrap();
    let (before, pod) = (claims(&space), uid(&space, &["pod", "pg-0"]));
    let ask = ["restore", "pg", "--in-place", "--from", "torn", "--yes", "--wait", "--timeout", "10m"];
    let said = kbbackup(&space, 4, &ask);
    assert!(said.contains("statefulset pg has its volumes and its data as before"), "{said}");
    assert_eq!(phase(&restore(&space)), "Failed");
    assert_eq!(uid(&space, &["pod", "pg-0"]), pod, "it was never stopped");
    assert_eq!(postgres.sql("select answer from kept").unwrap(), "2");
    let name = restore(&space)["metadata"]["name"].as_str().unwrap().to_owned();
    space.kubectl.wait_gone("pvc", &format!("data-{name}-0"), LIMIT).unwrap();
    assert_eq!(claims(&space), before);
    drop(space);
    drop_s3_repo(&cluster, &repo);
}
