//! `delete`: what is asked before something goes.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::api::Api;
use crate::terminal::{self, Terminal};

const BACKUPS: &str = "/apis/dataprotection.kubeblocks.io/v1alpha1/namespaces/demo/backups";

fn backup(name: &str) -> Value {
    json!({"apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "Backup",
        "metadata": {"name": name, "namespace": "demo", "uid": name, "creationTimestamp": "2026-01-02T03:04:05Z",
            "labels": {"app.kubernetes.io/instance": "pg"}},
        "spec": {"backupPolicyName": "pg", "backupMethod": "full", "deletionPolicy": "Delete"},
        "status": {"phase": "Completed", "totalSize": "4404019"}})
}

fn two() -> Api {
    Api::start(["one", "two"].map(|name| (format!("{BACKUPS}/{name}"), backup(name))).into())
}

fn deleted(api: &Api) -> Vec<String> {
    let gone = |line: &String| line.strip_prefix(&format!("DELETE {BACKUPS}/")).map(str::to_owned);
    api.requests().iter().filter_map(gone).collect()
}

const ONE: [&str; 3] = ["delete", "one", "--wait=false"];
const ALL: [&str; 5] = ["delete", "--source", "pg", "--all", "--wait=false"];

#[test]
fn one_backup_is_a_question_of_yes_or_no_and_says_what_goes() {
    let api = two();
    let mut terminal = Terminal::open(&api, &ONE);
    terminal.until("Delete backup/one?");
    assert!(terminal.seen().contains("4.2 MiB"), "{}", terminal.seen());
    terminal.types("y");
    assert_eq!(terminal.end(), 0);
    assert_eq!(deleted(&api), ["one"]);
    let again = "kubectl kbbackup delete one --wait=false -n demo --yes";
    assert_eq!(terminal.seen().matches(again).count(), 1, "{}", terminal.seen());
}

#[test]
fn no_and_escape_change_nothing() {
    for (answer, code) in [("n", 6), ("\r", 6), ("\x1b", 130)] {
        let api = two();
        let mut terminal = Terminal::open(&api, &ONE);
        terminal.until("Delete backup/one?");
        terminal.types(answer);
        assert_eq!(terminal.end(), code, "{answer:?}: {}", terminal.seen());
        assert_eq!(deleted(&api), Vec::<String>::new(), "{answer:?}");
    }
}

#[test]
fn several_backups_want_their_number_typed() {
    let api = two();
    let mut terminal = Terminal::open(&api, &ALL);
    terminal.until("Type 2 to go on");
    terminal.types("1\r");
    assert_eq!(terminal.end(), 6, "{}", terminal.seen());
    assert_eq!(deleted(&api), Vec::<String>::new());

    let mut terminal = Terminal::open(&api, &ALL);
    terminal.until("Type 2 to go on");
    terminal.types("2\r");
    assert_eq!(terminal.end(), 0, "{}", terminal.seen());
    let mut gone = deleted(&api);
    gone.sort();
    assert_eq!(gone, ["one", "two"]);
}

#[test]
fn nobody_is_asked_with_no_input_or_in_ci() {
    let api = two();
    let mut terminal = Terminal::open(&api, &[&ONE[..], &["--no-input"]].concat());
    assert_eq!(terminal.end(), 6);
    assert!(terminal.seen().contains("confirmation is needed"), "{}", terminal.seen());
    let mut command = terminal::command(&api, &ONE);
    let ended = command.stdin(Stdio::null()).output().unwrap();
    assert_eq!(ended.status.code(), Some(6), "{}", String::from_utf8_lossy(&ended.stderr));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("hint: add --yes"));
    assert_eq!(deleted(&api), Vec::<String>::new());
}
