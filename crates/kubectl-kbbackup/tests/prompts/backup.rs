//! `backup`: source, policy, method; a policy for a database that has none; and Ctrl-C while it runs.

use serde_json::Value;

use crate::terminal::Terminal;
use crate::world::World;
use crate::{CTRL_C, DOWN, ENTER};

const BACKUP: [&str; 2] = ["backup", "--wait=false"];

fn cluster() -> World {
    let sets = World::default().action_set("full-set", "Full").action_set("wal-set", "Continuous");
    sets.repo("main", true).pod()
}

#[test]
fn source_and_method_are_asked_and_the_full_one_is_offered() {
    let api = cluster().policy("pg", &[("log", "wal-set"), ("full", "full-set")]).start();
    let mut terminal = Terminal::open(&api, &BACKUP);
    terminal.answers("pg  by policy pg", ENTER);
    terminal.until("Method");
    terminal.until("log  Continuous · wal-set · by a schedule");
    terminal.answers("> full  Full · full-set", ENTER);
    assert_eq!(terminal.end(), 0, "{}", terminal.seen());
    let again = "kubectl kbbackup backup --wait=false -n demo backuppolicy/pg --method full";
    // Once, and not again at the end.
    assert_eq!(terminal.seen().matches(again).count(), 1, "{}", terminal.seen());
    let backup = api.only("Backup");
    assert_eq!((&backup["spec"]["backupPolicyName"], &backup["spec"]["backupMethod"]), (&"pg".into(), &"full".into()));
}

#[test]
fn a_method_that_cannot_run_says_why_and_one_of_a_schedule_is_refused() {
    let api = cluster().policy("pg", &[("full", "full-set"), ("log", "wal-set"), ("odd", "gone")]).start();
    let mut terminal = Terminal::open(&api, &["backup", "statefulset/pg"]);
    terminal.until("odd  - · gone · cannot run: actionset/gone does not exist");
    terminal.types(&format!("{DOWN}{ENTER}"));
    assert_eq!(terminal.end(), 2, "{}", terminal.seen());
    assert!(terminal.seen().contains("schedule create policy/pg --method log"), "{}", terminal.seen());
    assert_eq!(api.written(), Vec::<Value>::new());
}

#[test]
fn of_several_policies_one_is_asked_for() {
    let api = cluster().policy("days", &[("full", "full-set")]).policy("weeks", &[("full", "full-set")]).start();
    let mut terminal = Terminal::open(&api, &["backup", "statefulset/pg", "--wait=false"]);
    terminal.answers("Policy", &format!("{DOWN}{ENTER}"));
    assert_eq!(terminal.end(), 0, "{}", terminal.seen());
    let again = "kubectl kbbackup backup statefulset/pg --wait=false -n demo --policy weeks";
    assert!(terminal.seen().contains(again), "{}", terminal.seen());
    assert_eq!(api.only("Backup")["spec"]["backupPolicyName"], "weeks");
}

#[test]
fn a_database_without_a_policy_gets_one_and_its_password_is_not_shown() {
    let cluster = || cluster().action_set("kbb-postgres-full", "Full").workload("pg", "hush-hush-42");
    let api = cluster().start();
    let mut terminal = Terminal::open(&api, &BACKUP);
    terminal.answers("pg  PostgreSQL, no policy yet", ENTER);
    terminal.answers("Make backuppolicy/pg so?", "y");
    assert_eq!(terminal.end(), 0, "{}", terminal.seen());
    assert!(!terminal.seen().contains("hush-hush-42"), "{}", terminal.seen());
    let again = "kubectl kbbackup backup --wait=false -n demo statefulset/pg --yes";
    assert!(terminal.seen().contains(again), "{}", terminal.seen());
    let kinds: Vec<Value> = api.written().iter().map(|object| object["kind"].clone()).collect();
    assert_eq!(kinds, ["Secret", "BackupPolicy", "Backup"]);

    for (answer, code) in [("n", 6), (CTRL_C, 130)] {
        let api = cluster().start();
        let mut terminal = Terminal::open(&api, &["backup", "statefulset/pg"]);
        terminal.answers("Make backuppolicy/pg so?", answer);
        assert_eq!(terminal.end(), code, "{answer:?}: {}", terminal.seen());
        assert_eq!(api.written(), Vec::<Value>::new(), "{answer:?}");
    }
}

#[test]
fn ctrl_c_while_it_runs_ends_the_waiting_only_and_says_how_to_go_on() {
    let api = cluster().policy("pg", &[("full", "full-set")]).start().idle();
    let mut terminal = Terminal::open(&api, &["backup", "policy/pg", "--name", "b", "--wait"]);
    terminal.until("waiting for the operator");
    terminal.interrupts();
    assert_eq!(terminal.end(), 130, "{}", terminal.seen());
    for told in
        ["it goes on in the cluster", "kubectl kbbackup describe b -n demo", "kubectl kbbackup cancel b -n demo"]
    {
        assert!(terminal.seen().contains(told), "{told}: {}", terminal.seen());
    }
    assert!(!api.requests().iter().any(|request| request.starts_with("DELETE")));
}
