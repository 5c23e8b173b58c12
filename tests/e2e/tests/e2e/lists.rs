//! `list` shows the same whether it reads columns or objects. Named backups are read as objects, unnamed ones by columns.

use std::collections::BTreeMap;

use kbbackup_testing::namespace::TempNamespace;
use serde_json::{Value, json};

use crate::begin;

const NAME: &str = "dataprotection.kubeblocks.io";
const FINALIZER: &str = "kbbackup.test/stays";

/// A backup that no operator touches.
fn backup(name: &str, kind: &str, workload: Option<&str>, spec: &Value) -> Value {
    let mut labels =
        BTreeMap::from([(format!("{NAME}/backup-type"), kind), ("app.kubernetes.io/instance".into(), "inst")]);
    labels.extend(workload.map(|workload| ("kbbackup.io/workload-name".to_owned(), workload)));
    let mut object = json!({
        "apiVersion": format!("{NAME}/v1alpha1"), "kind": "Backup",
        "metadata": {"name": name, "labels": labels, "annotations": {format!("{NAME}/skip-reconciliation"): "true"}},
        "spec": {"backupPolicyName": "rules", "backupMethod": "full", "deletionPolicy": "Retain"},
    });
    object["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    object
}

/// The times and sizes that make its line the same at any second but for its age.
fn ended(phase: &str, more: &Value) -> Value {
    let mut status = json!({"phase": phase, "backupRepoName": "store", "totalSize": "4404019", "duration": "2m8s",
        "startTimestamp": "2026-01-02T03:04:05Z", "completionTimestamp": "2026-01-02T03:06:13Z",
        "expiration": "2126-01-09T03:06:13Z"});
    status.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    status
}

/// One of each kind that a line shows in its own way.
fn fill(space: &TempNamespace) -> Vec<&'static str> {
    let none = json!({});
    let parent = json!({"parentBackupName": "full"});
    let failed_action =
        json!({"actions": [{"name": "dp-backup-0", "phase": "Failed", "failureReason": "the disk is full"}]});
    let pods = json!({"actions": [{"name": "dp-backup-0", "phase": "Running", "availableReplicas": 2}],
        "completionTimestamp": null});
    let all = [
        (backup("full", "Full", Some("pg"), &none), Some(ended("Completed", &none))),
        (backup("foreign", "Full", None, &none), Some(ended("Completed", &none))),
        (backup("increment", "Incremental", Some("pg"), &none), Some(ended("Completed", &parent))),
        (backup("told", "Incremental", Some("pg"), &parent), Some(ended("Completed", &none))),
        (backup("broken", "Full", Some("pg"), &none), Some(ended("Failed", &json!({"failureReason": "no\nroom"})))),
        (backup("action", "Full", Some("pg"), &none), Some(ended("Failed", &failed_action))),
        (backup("log", "Continuous", Some("pg"), &none), Some(ended("Running", &pods))),
        (backup("fresh", "Full", Some("other"), &none), None),
        (backup("going", "Full", Some("pg"), &none), Some(ended("Completed", &none))),
    ];
    for (object, status) in &all {
        space.kubectl.apply(&object.to_string()).unwrap();
        let name = object["metadata"]["name"].as_str().unwrap();
        if let Some(status) = status {
            let patch = json!({ "status": status }).to_string();
            space
                .kubectl
                .run(&["patch", "backup", name, "--subresource=status", "--type=merge", "-p", &patch])
                .unwrap();
        }
    }
    held(space, &json!([FINALIZER]));
    space.kubectl.run(&["delete", "backup", "going", "--wait=false"]).unwrap();
    vec!["full", "foreign", "increment", "told", "broken", "action", "log", "fresh", "going"]
}

fn held(space: &TempNamespace, finalizers: &Value) {
    let patch = json!({"metadata": {"finalizers": finalizers}}).to_string();
    space.kubectl.run(&["patch", "backup", "going", "--type=merge", "-p", &patch]).unwrap();
}

#[test]
fn lists_by_columns_are_lists_of_the_objects() {
    let (_, space) = begin("lists").unwrap();
    let names = fill(&space);
    let list = |words: &[&str]| space.kubectl.try_run(&[&["kbbackup", "list"], words].concat()).unwrap();

    for format in [&[][..], &["-o", "wide"]] {
        // Ages are in seconds: both have to be of the same one.
        let same = (0..30).any(|_| list(format).stdout == list(&[&names, format].concat()).stdout);
        assert!(same, "{}\n{}", list(format).stdout, list(&[&names, format].concat()).stdout);
    }
    let wide = list(&["-o", "wide"]).stdout;
    assert_eq!(wide.lines().count(), names.len() + 1, "{wide}");
    for part in ["Running (2 pods)", "the disk is full", "Deleting", "foreign", "inst"] {
        assert!(wide.contains(part), "no {part}: {wide}");
    }

    let shown = |words: &[&str]| {
        let done = list(words);
        let mut names: Vec<String> =
            done.stdout.lines().skip(1).filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
        names.sort();
        names
    };
    assert_eq!(shown(&["--source", "other"]), ["fresh"]);
    assert_eq!(shown(&["--status", "Failed"]), ["action", "broken"]);
    assert_eq!(shown(&["--type", "Incremental"]), ["increment", "told"]);

    // Whole backups are not asked for as long as their lines can do without.
    let requests = list(&["--type", "Incremental", "-v", "6"]).stderr;
    assert!(requests.contains("includeObject=None") && !requests.contains("metadata.name"), "{requests}");
    let requests = list(&["--type", "Continuous", "-v", "6"]).stderr;
    assert!(requests.contains("includeObject=None") && requests.contains("metadata.name"), "{requests}");

    held(&space, &Value::Null);
}
