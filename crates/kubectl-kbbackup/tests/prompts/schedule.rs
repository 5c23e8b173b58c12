//! `schedule create`: source, method, when, and for how long.

use serde_json::{Value, json};

use crate::terminal::Terminal;
use crate::world::World;
use crate::{CTRL_C, DOWN, ENTER};

const CREATE: [&str; 2] = ["schedule", "create"];

fn cluster() -> World {
    let sets = World::default().action_set("full-set", "Full").action_set("wal-set", "Continuous");
    sets.policy("pg", &[("full", "full-set"), ("log", "wal-set")])
}

#[test]
fn everything_is_asked_in_turn() {
    let api = cluster().start();
    let mut terminal = Terminal::open(&api, &CREATE);
    terminal.answers("pg  by policy pg", ENTER);
    terminal.until("full  Full · full-set");
    terminal.answers("log  Continuous · wal-set", &format!("{DOWN}{ENTER}"));
    terminal.answers("every day at 02:00 UTC", &format!("{DOWN}{DOWN}{ENTER}"));
    terminal.answers("Keep each backup for [7d]", &format!("soon{ENTER}"));
    terminal.answers("Keep each backup for", &format!("14d{ENTER}"));
    assert_eq!(terminal.end(), 0, "{}", terminal.seen());
    let again =
        "kubectl kbbackup schedule create -n demo policy/pg --method log --cron \"0 */6 * * *\" --retention 14d";
    assert!(terminal.seen().contains(again), "{}", terminal.seen());
    let spec = api.only("BackupSchedule")["spec"].clone();
    assert_eq!(spec["backupPolicyName"], "pg");
    let entry = &spec["schedules"][0];
    let found = json!([entry["backupMethod"], entry["cronExpression"], entry["retentionPeriod"], entry["enabled"]]);
    assert_eq!(found, json!(["log", "0 */6 * * *", "14d", true]));
}

#[test]
fn a_rule_of_one_s_own_is_read_while_it_is_typed() {
    let api = cluster().start();
    let mut terminal = Terminal::open(&api, &[&CREATE[..], &["statefulset/pg", "--method", "full"]].concat());
    terminal.answers("something else", &format!("{}{ENTER}", DOWN.repeat(4)));
    terminal.answers("Cron expression, in UTC", &format!("61 * * * *{ENTER}"));
    terminal.answers("Cron expression, in UTC", &format!("30 1 * * 0{ENTER}"));
    terminal.answers("Keep each backup for", ENTER);
    assert_eq!(terminal.end(), 0, "{}", terminal.seen());
    let again = "create statefulset/pg --method full -n demo --cron \"30 1 * * 0\" --retention 7d";
    assert!(terminal.seen().contains(again), "{}", terminal.seen());
    assert_eq!(api.only("BackupSchedule")["spec"]["schedules"][0]["cronExpression"], "30 1 * * 0");
}

#[test]
fn ctrl_c_at_any_question_writes_nothing() {
    let questions = ["Back up", "Method", "When", "Keep each backup for"];
    for stop in 0..questions.len() {
        let api = cluster().start();
        let mut terminal = Terminal::open(&api, &CREATE);
        for question in &questions[..stop] {
            terminal.answers(question, ENTER);
        }
        terminal.answers(questions[stop], CTRL_C);
        assert_eq!(terminal.end(), 130, "{}: {}", questions[stop], terminal.seen());
        assert_eq!(api.written(), Vec::<Value>::new());
    }
}
