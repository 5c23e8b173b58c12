//! `restore --in-place`: the plan, the name that has to be typed, and what is refused before anything is written.

use std::process::{Output, Stdio};

use serde_json::{Value, json};

use crate::api::Api;
use crate::terminal::{self, Terminal};
use crate::world::{OLDER, World};

const SETS: &str = "/apis/apps/v1/namespaces/demo/statefulsets";
const BACKUPS: &str = "/apis/dataprotection.kubeblocks.io/v1alpha1/namespaces/demo/backups";

/// `name` runs on a volume whose driver takes snapshots, and has a sealed backup.
fn cluster_of(name: &str) -> World {
    let done = json!({"phase": "Completed", "completionTimestamp": "2026-01-05T02:10:00Z", "totalSize": "4404019"});
    World::default()
        .operator("0.1.0", "c:0.1.0")
        .workload(name, "x")
        .claim(&format!("data-{name}-0"), "12Gi", "pv-old", "disk.example.com")
        .claim(&format!("data-{name}-1"), "12Gi", "pv-spare", "disk.example.com")
        .snapshot_class("quick", "disk.example.com")
        .backup("monday", "Full", done)
        .with(&format!("{BACKUPS}/monday"), |backup| backup["metadata"]["annotations"]["kbbackup.io/seal"] = json!("s"))
}

fn cluster() -> World {
    cluster_of("pg")
}

const ARGS: [&str; 5] = ["restore", "pg", "--in-place", "--from", "monday"];

/// Runs without a terminal.
fn run(api: &Api, args: &[&str]) -> Output {
    terminal::command(api, args).stdin(Stdio::null()).output().unwrap()
}

fn said(ended: &Output) -> String {
    String::from_utf8_lossy(&ended.stderr).into_owned()
}

#[test]
fn the_plan_comes_first_and_the_name_has_to_be_typed() {
    let api = cluster().start();
    let mut terminal = Terminal::open(&api, &[&ARGS[..], &["--wait"]].concat());
    terminal.until("Take statefulset/pg back? Type pg to go on");
    for told in [
        "statefulset/pg in namespace demo",
        "(12Gi), while it runs on",
        "then stops:    1 pod",
        "the volumes of data-pg-0",
        "persistentvolume/pv-old (data-pg-0)",
        "data-pg-0 by class quick",
        "leaves:        data-pg-1",
    ] {
        assert!(terminal.seen().contains(told), "{told}: {}", terminal.seen());
    }
    assert_eq!(api.written(), Vec::<Value>::new());
    terminal.types("pg\r");
    terminal.until("kubectl scale statefulset pg --replicas=0 -n demo");
    terminal.until("kubectl patch pv pv-old");
    assert_eq!(terminal.end(), 0, "{}", terminal.seen());
    let again = "kubectl kbbackup restore pg --in-place --from monday --wait -n demo --yes";
    assert!(terminal.seen().contains(again), "{}", terminal.seen());
    let restore = api.only("Restore");
    let notes = &restore["metadata"]["annotations"];
    assert_eq!(notes["kbbackup.io/in-place"], "pg");
    assert_eq!(
        (&notes["kbbackup.io/restore-workload"], &notes["kbbackup.io/safety-snapshot"]),
        (&Value::Null, &Value::Null)
    );
    let template = &restore["spec"]["prepareDataConfig"]["volumeClaimsTemplate"];
    assert_eq!(template["replicas"], 1);
    let claim = &template["templates"][0];
    let name = restore["metadata"]["name"].as_str().unwrap();
    assert_eq!(claim["metadata"]["name"], format!("data-{name}"), "none of the workload's own");
    assert_eq!(claim["volumeClaimSpec"]["resources"]["requests"]["storage"], "12Gi", "as large as it has become");
}

#[test]
fn another_word_and_nobody_to_ask_write_nothing() {
    for (word, code) in [("yes\r", 6), ("\x03", 130)] {
        let api = cluster().start();
        let mut terminal = Terminal::open(&api, &ARGS);
        terminal.answers("Type pg to go on", word);
        assert_eq!(terminal.end(), code, "{word:?}: {}", terminal.seen());
        assert_eq!(api.written(), Vec::<Value>::new(), "{word:?}");
    }
    let api = cluster().start();
    let ended = run(&api, &ARGS);
    assert_eq!(ended.status.code(), Some(6), "{}", said(&ended));
    assert!(said(&ended).contains("hint: add --yes"), "{}", said(&ended));
    assert_eq!(api.written(), Vec::<Value>::new());
    let ended = run(&api, &[&ARGS[..], &["--yes", "--safety-snapshot=false"]].concat());
    assert_eq!(ended.status.code(), Some(0), "{}", said(&ended));
    assert!(said(&ended).contains("none, as asked for"), "{}", said(&ended));
    assert_eq!(api.only("Restore")["metadata"]["annotations"]["kbbackup.io/safety-snapshot"], "false");
}

#[test]
fn a_dry_run_shows_the_restore_and_writes_nothing() {
    let api = cluster().start();
    let ended = run(&api, &["restore", "--in-place", "--from", "monday", "--dry-run", "-o", "json"]);
    assert_eq!(ended.status.code(), Some(0), "{}", said(&ended));
    let shown: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(shown["metadata"]["annotations"]["kbbackup.io/in-place"], "pg", "the name that was backed up");
    assert_eq!(api.written(), Vec::<Value>::new());
}

#[test]
fn where_its_driver_takes_no_snapshots_the_plan_says_so() {
    let api = cluster().claim("data-pg-0", "1Gi", "pv-old", "other.example.com").start();
    let mut terminal = Terminal::open(&api, &ARGS);
    terminal.answers("Type pg to go on", "no\r");
    assert_eq!(terminal.end(), 6);
    assert!(terminal.seen().contains("none: no class for their driver; the volumes are kept"), "{}", terminal.seen());
}

#[test]
fn what_stands_against_it_is_refused_with_a_code_of_its_own() {
    let set = format!("{SETS}/pg");
    let owner = json!([{"apiVersion": "x/v1", "kind": "Postgres", "name": "db", "uid": "u", "controller": true}]);
    let worlds = [
        (cluster().scaler("h", "pg"), 2, "horizontalpodautoscaler h scales statefulset pg"),
        (cluster().with(&set, |set| set["metadata"]["ownerReferences"] = owner), 2, "managed by postgres db"),
        (
            cluster().with(&set, |set| {
                set["spec"]["persistentVolumeClaimRetentionPolicy"] = json!({"whenScaled": "Delete"});
            }),
            2,
            "deletes its claims when it is scaled down",
        ),
        (cluster().with(&set, |set| set["spec"]["replicas"] = json!(0)), 2, "it has no pods"),
        (
            cluster().with(&format!("{BACKUPS}/monday"), |backup| {
                backup["metadata"]["annotations"].as_object_mut().unwrap().remove("kbbackup.io/seal");
            }),
            2,
            "it has no seal",
        ),
        (cluster_of("other"), 3, "statefulset/pg cannot be read"),
        (cluster().kubeblocks(), 7, "here KubeBlocks' deployment kb-system/kubeblocks-dataprotection works"),
    ];
    for (world, code, why) in worlds {
        let api = world.start();
        let ended = run(&api, &[&ARGS[..], &["--yes"]].concat());
        assert_eq!(ended.status.code(), Some(code), "{why}: {}", said(&ended));
        assert!(said(&ended).contains(why), "{why}: {}", said(&ended));
        assert_eq!(api.written(), Vec::<Value>::new(), "{why}");
    }
    for more in [["--to", "pvc"], ["--claim", "data=1Gi"]] {
        let ended = run(&cluster().start(), &[&ARGS[..], &more].concat());
        assert_eq!(ended.status.code(), Some(2), "{}", said(&ended));
    }
    let ended = run(&cluster().start(), &[&ARGS[..], &["--replicas", "3", "--yes"]].concat());
    assert!(said(&ended).contains("hint: kubectl scale statefulset pg --replicas=3"), "{}", said(&ended));
}

#[test]
fn an_operator_that_only_filled_new_volumes_is_not_called_a_success() {
    let api = cluster_of(OLDER).start();
    let ended = run(&api, &["restore", OLDER, "--in-place", "--from", "monday", "--yes", "--wait"]);
    assert_eq!(ended.status.code(), Some(4), "{}", said(&ended));
    assert!(
        said(&ended).contains("exchanged nothing") && said(&ended).contains("kubectl kbbackup upgrade"),
        "{}",
        said(&ended)
    );
}
