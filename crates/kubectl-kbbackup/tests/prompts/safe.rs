//! What must not happen: more goes than was chosen, something goes before all of it was agreed to, and a program reads what is
//! no object, or a secret.

use std::collections::BTreeMap;
use std::process::Stdio;

use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::api::Api;
use crate::terminal::{self, run};
use crate::world::World;

const KINDS: &str = "/apis/dataprotection.kubeblocks.io/v1alpha1";
const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";

fn deleted(api: &Api) -> Vec<String> {
    api.requests().iter().filter_map(|line| line.strip_prefix("DELETE ")).map(str::to_owned).collect()
}

fn backup(name: &str, instance: &str, tier: &str) -> (String, Value) {
    let object = json!({"apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "Backup",
        "metadata": {"name": name, "namespace": "demo", "uid": name, "creationTimestamp": "2026-01-02T03:04:05Z",
            "labels": {"app.kubernetes.io/instance": instance, "tier": tier}},
        "spec": {"backupPolicyName": "pg", "backupMethod": "full", "deletionPolicy": "Delete"},
        "status": {"phase": "Completed", "totalSize": "4404019"}});
    (format!("{KINDS}/namespaces/demo/backups/{name}"), object)
}

#[test]
fn a_source_and_labels_together_choose_what_is_both() {
    let api =
        Api::start([backup("old", "pg", "test"), backup("dear", "pg", "gold"), backup("other", "my", "test")].into());
    let words = ["delete", "--source", "pg", "-l", "tier=test", "--all", "--yes", "--wait=false"];
    let (code, shown, told) = run(&api, &words);
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(deleted(&api), [format!("{KINDS}/namespaces/demo/backups/old")], "{shown}");
}

#[test]
fn of_several_repositories_none_goes_when_one_cannot() {
    let api = World::default().repo("one", false).repo("two", false).start();
    for (words, wanted) in
        [(&["one", "typo", "--yes", "--timeout", "1s"][..], 3), (&["one", "two", "--timeout", "1s"], 6)]
    {
        let (code, _, told) = run(&api, &[&["repo", "delete"], words].concat());
        assert_eq!(code, Some(wanted), "{told}");
        assert_eq!(deleted(&api), Vec::<String>::new());
    }
}

#[test]
fn the_rights_of_an_operator_elsewhere_stay() {
    let api = World::default().operator("0.1.0", "x").start();
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "kbbackup-controller", "labels": {"kbbackup.io/part": "operator"}}});
    api.put(format!("{ROLES}/kbbackup-controller"), role.clone());
    let (code, _, told) = run(&api, &["uninstall", "--operator-namespace", "wrong", "--yes"]);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("kubectl kbbackup uninstall --operator-namespace kbbackup-system"), "{told}");
    assert_eq!(deleted(&api), Vec::<String>::new());
    // Where there is none at all, what is left of one does not go unasked.
    let api = Api::start(BTreeMap::from([(format!("{ROLES}/kbbackup-controller"), role)]));
    let (code, _, told) = run(&api, &["uninstall"]);
    assert_eq!((code, deleted(&api)), (Some(6), vec![]), "{told}");
}

#[test]
fn a_program_gets_the_objects_alone_and_no_secret_among_them() {
    let create = ["repo", "create", "fresh", "--provider", "s3", "--param", "bucket=b", "--wait=false"];
    let api = || World::default().provider("s3").start();
    let run = |format: &str| {
        let mut command = terminal::command(&api(), &[&create[..], &["-o", format]].concat());
        let ended = command.env("KBBACKUP_SECRET_ACCESS_KEY", "hush-hush").stdin(Stdio::null()).output().unwrap();
        assert!(ended.status.success(), "{ended:?}");
        let (shown, told) = (ended.stdout, ended.stderr);
        let shown = String::from_utf8(shown).unwrap();
        assert!(!shown.contains("hush-hush") && !String::from_utf8_lossy(&told).contains("hush-hush"), "{shown}");
        shown
    };
    let list: Value = serde_json::from_str(&run("json")).unwrap();
    let kinds: Vec<&str> = list["items"].as_array().unwrap().iter().map(|one| one["kind"].as_str().unwrap()).collect();
    assert_eq!((list["kind"].as_str(), kinds), (Some("List"), vec!["Secret", "BackupRepo"]));
    let yaml = run("yaml");
    let documents = serde_norway::Deserializer::from_str(&yaml).map(|one| Value::deserialize(one).unwrap());
    assert_eq!(documents.map(|one| one["kind"].clone()).collect::<Vec<_>>(), ["Secret", "BackupRepo"]);
    assert_eq!(run("name").lines().count(), 2);
}

#[test]
fn a_backup_that_is_waited_for_is_one_object_too() {
    let world = || {
        World::default().repo("main", true).action_set("full", "Full").policy("pg", &[("full", "full")]).pod().start()
    };
    let words = ["backup", "policy/pg", "--wait", "-o", "json"];
    let (code, shown, told) = run(&world(), &words);
    assert_eq!(code, Some(0), "{told}");
    let object: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(object["kind"], "Backup");
    assert!(told.contains("completed"), "{told}");
    let (code, shown, told) = run(&world(), &["backup", "policy/pg", "--follow-logs", "-o", "json"]);
    assert_eq!((code, shown.as_str()), (Some(2), ""), "{told}");
}

#[test]
fn the_default_mark_is_not_forgotten() {
    let api = World::default().repo("main", true).provider("s3").start();
    let words =
        ["repo", "create", "fresh", "--provider", "s3", "--param", "bucket=b", "--make-default", "--wait=false"];
    let (code, _, told) = run(&api, &words);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("--make-default") && api.written().is_empty(), "{told}");
}

#[test]
fn proposed_commands_are_about_the_same_namespace() {
    let api = Api::start([backup("one", "pg", "x")].into());
    let (code, _, told) = run(&api, &["verify", "one"]);
    assert_ne!(code, Some(0));
    for hint in told.lines().filter_map(|line| line.strip_prefix("hint: kubectl kbbackup ")) {
        assert!(hint.contains("-n demo") || hint.starts_with("repo "), "{told}");
    }
    let (code, _, told) = run(&api, &["schedule", "list", "nobody"]);
    assert_eq!(code, Some(3), "{told}");
    assert!(told.contains("hint: kubectl kbbackup schedule list -n demo"), "{told}");
}

#[test]
fn the_completer_is_linked_once_more_and_over_nobody_s_file() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("kubectl_complete-kbbackup");
    let install = || {
        let api = Api::start(BTreeMap::new());
        let ended =
            terminal::bare(&api).args(["completion", "install", "--dir", dir.path().to_str().unwrap()]).output();
        ended.unwrap().status.code()
    };
    assert_eq!((install(), install()), (Some(0), Some(0)));
    assert!(std::fs::read_link(&link).unwrap().ends_with("kubectl-kbbackup"));
    // Started by that name it completes.
    let words = std::process::Command::new(&link).arg("complet").output().unwrap();
    assert!(String::from_utf8_lossy(&words.stdout).contains("completion"), "{words:?}");
    std::fs::remove_file(&link).unwrap();
    std::fs::write(&link, "somebody's").unwrap();
    assert_eq!(install(), Some(2));
    assert_eq!(std::fs::read_to_string(&link).unwrap(), "somebody's");
}

#[test]
fn all_that_was_agreed_to_is_requested_before_anything_is_waited_for() {
    // Here nothing ever goes: the waiting for the first one does not end by itself.
    let api = Api::start([backup("one", "pg", "x"), backup("two", "pg", "x")].into());
    let (code, _, told) = run(&api, &["delete", "one", "two", "--yes", "--timeout", "1s"]);
    assert_eq!(code, Some(5), "{told}");
    let mut gone = deleted(&api);
    gone.sort();
    assert_eq!(gone, ["one", "two"].map(|name| format!("{KINDS}/namespaces/demo/backups/{name}")));
}

#[test]
fn what_would_go_is_the_result_of_a_dry_run() {
    let api = Api::start([backup("one", "pg", "x"), backup("two", "pg", "x")].into());
    let (code, shown, told) = run(&api, &["delete", "--source", "pg", "--all", "--dry-run=client"]);
    assert_eq!((code, shown.lines().count()), (Some(0), 2), "{shown}{told}");
    assert!(shown.contains("backup/one  of pg") && deleted(&api).is_empty(), "{shown}");
}

#[test]
fn a_workload_whose_pods_could_not_be_made_is_refused_at_once() {
    let status = json!({"phase": "Completed", "totalSize": "4404019"});
    let api = World::default().repo("main", true).backup("one", "Full", status).start();
    let long = "a".repeat(53);
    let (code, _, told) = run(&api, &["restore", &long, "--from", "one", "--yes"]);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("52 characters") && api.written().is_empty(), "{told}");
    let (_, _, told) = run(&api, &["restore", &long[1..], "--from", "one", "--yes"]);
    assert!(!told.contains("52 characters"), "{told}");
}

#[test]
fn a_backup_in_the_place_of_a_source_is_said_and_the_reverse() {
    let status = json!({"phase": "Completed", "totalSize": "4404019"});
    let world = || World::default().repo("main", true).policy("rule", &[]).backup("one", "Full", status.clone());
    let cron = ["--cron", "0 2 * * *"];
    for words in [
        &["backup", "one", "--method", "full"][..],
        &["windows", "one"],
        &["schedule", "list", "one"],
        &["schedule", "enable", "one"],
    ] {
        let (code, _, told) = run(&world().start(), words);
        assert_eq!(code, Some(3), "{words:?}: {told}");
        assert!(told.contains("one is a backup of "), "{words:?}: {told}");
    }
    let (_, _, told) =
        run(&world().start(), &[&["schedule", "create", "nobody", "--method", "full"][..], &cron].concat());
    assert!(!told.contains("is a backup"), "{told}");
    let (code, _, told) = run(&world().start(), &["restore", "new", "--from", "rule", "--yes"]);
    assert_eq!(code, Some(3), "{told}");
    assert!(told.contains("rule is a source"), "{told}");
}

#[test]
fn names_and_a_selection_are_not_mixed_up() {
    let api = Api::start([backup("one", "pg", "x")].into());
    let mut none = terminal::bare(&api);
    none.args(["list", "one", "-A"]);
    for mut command in [none, terminal::command(&api, &["list", "one", "-l", "tier=y"])] {
        let ended = command.stdin(Stdio::null()).output().unwrap();
        assert_eq!(ended.status.code(), Some(2), "{ended:?}");
    }
    for (flag, shown) in [("Full", 0), ("", 2)] {
        let words = if flag.is_empty() { vec!["list", "one"] } else { vec!["list", "one", "--type", flag] };
        // It has no label of a type.
        assert_eq!(run(&api, &words).1.lines().count(), shown, "{flag}");
    }
}
