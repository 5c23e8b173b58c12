//! `restore`: from a backup, or to a point in time that is refused while it is typed.

use serde_json::{Value, json};

use crate::terminal::Terminal;
use crate::world::World;
use crate::{CTRL_C, DOWN, ENTER};

const UP: &str = "\x1b[A";

/// Two full backups and a log with a gap.
fn cluster() -> World {
    let full = |end: &str| json!({"phase": "Completed", "completionTimestamp": end, "totalSize": "4404019"});
    let log = json!({"phase": "Running", "timeRange": {"start": "2026-01-04T00:00:00Z", "end": "2026-01-08T05:59:30Z"},
        "extras": [{"gapStart": "2026-01-07T01:00:00Z", "gapEnd": "2026-01-07T03:00:00Z"}]});
    World::default()
        .action_set("wal", "Continuous")
        .backup("monday", "Full", full("2026-01-05T02:10:00Z"))
        .backup("thursday", "Full", full("2026-01-08T02:10:00Z"))
        .backup("pg-wal", "Continuous", log)
}

#[test]
fn a_backup_is_picked_the_name_is_asked_and_the_plan_comes_before_the_last_question() {
    let api = cluster().start();
    let mut terminal = Terminal::open(&api, &["restore", "--wait"]);
    terminal.until("a point in time of pg, by pg-wal");
    terminal.answers("> monday  pg · full · 4.2 MiB", &format!("{DOWN}{ENTER}"));
    terminal.answers("Name of the new workload [pg-restored]", &format!("copy{ENTER}"));
    terminal.until("backup/thursday");
    terminal.until("statefulset/copy in namespace demo");
    terminal.answers("Go on?", ENTER);
    assert_eq!(terminal.end(), 0, "{}", terminal.seen());
    let again = "kubectl kbbackup restore --wait -n demo --from thursday copy --yes";
    assert!(terminal.seen().contains(again), "{}", terminal.seen());
    let restore = api.only("Restore");
    assert_eq!(restore["spec"]["backup"]["name"], "thursday");
    assert_eq!(restore["spec"]["restoreTime"], Value::Null);
}

#[test]
fn a_time_outside_of_the_windows_is_refused_while_it_is_typed() {
    let api = cluster().start();
    let mut terminal = Terminal::open(&api, &["restore"]);
    terminal.answers("a point in time of pg", &format!("{UP}{ENTER}"));
    // The windows stand above the question, and the last moment is offered.
    terminal.until("2026-01-05T02:10:00Z to 2026-01-07T01:00:00Z");
    terminal.until("2026-01-08T02:10:00Z to 2026-01-08T05:59:30Z");
    terminal.until("To which time [2026-01-08T05:59:30Z]");
    for (typed, told) in [
        ("soon", "is not a time such as"),
        ("2026-01-04T12:00:00Z", "2026-01-05T02:10:00Z"),
        ("2026-01-07T02:00:00Z", "2026-01-07T01:00:00Z"),
        ("2026-01-08T05:59:31Z", "2026-01-08T05:59:30Z"),
    ] {
        terminal.types(&format!("{typed}{ENTER}"));
        terminal.until(told);
        terminal.until("To which time");
    }
    assert_eq!(api.written(), Vec::<Value>::new());
    terminal.types(&format!("2026-01-06 12:00:00{ENTER}"));
    terminal.answers("Name of the new workload", &format!("copy{ENTER}"));
    terminal.until("backup/monday");
    terminal.answers("Go on?", "y");
    assert_eq!(terminal.end(), 0, "{}", terminal.seen());
    let again = "kubectl kbbackup restore -n demo --from pg-wal --to-time 2026-01-06T12:00:00Z copy --yes";
    assert!(terminal.seen().contains(again), "{}", terminal.seen());
    let restore = api.only("Restore");
    assert_eq!(restore["spec"]["backup"]["name"], "pg-wal");
    assert_eq!(restore["spec"]["restoreTime"], "2026-01-06T12:00:00Z");
}

#[test]
fn of_a_source_that_was_named_only_the_time_is_asked() {
    let api = cluster().start();
    let mut terminal = Terminal::open(&api, &["restore", "copy", "--source", "pg", "--replicas", "1", "--yes"]);
    terminal.answers("To which time", ENTER);
    assert_eq!(terminal.end(), 0, "{}", terminal.seen());
    let again = "kubectl kbbackup restore copy --source pg --replicas 1 --yes -n demo --to-time 2026-01-08T05:59:30Z";
    assert!(terminal.seen().contains(again), "{}", terminal.seen());
    assert_eq!(api.only("Restore")["spec"]["restoreTime"], "2026-01-08T05:59:30Z");
}

#[test]
fn a_name_that_is_taken_is_refused_while_it_is_typed() {
    let api = cluster().workload("taken", "x").workload("pg-restored", "x").start();
    let mut terminal = Terminal::open(&api, &["restore"]);
    terminal.answers("Restore", ENTER);
    terminal.answers("Name of the new workload [pg-restored-2]", &format!("taken{ENTER}"));
    terminal.until("statefulset/taken exists");
    terminal.answers("Name of the new workload", &format!("Copy{ENTER}"));
    terminal.until("lower-case letters");
    terminal.answers("Name of the new workload", &format!("copy{ENTER}"));
    terminal.answers("Go on?", "y");
    assert_eq!(terminal.end(), 0, "{}", terminal.seen());
}

#[test]
fn among_many_backups_typing_narrows_the_list() {
    let done = || json!({"phase": "Completed", "completionTimestamp": "2026-01-05T02:10:00Z"});
    let many = (10..24).fold(World::default(), |world, day| world.backup(&format!("day-{day}"), "Full", done()));
    let api = many.start();
    let mut terminal = Terminal::open(&api, &["restore", "copy", "--yes"]);
    terminal.answers("Restore", &format!("day-17{ENTER}"));
    assert_eq!(terminal.end(), 0, "{}", terminal.seen());
    assert_eq!(api.only("Restore")["spec"]["backup"]["name"], "day-17");
}

#[test]
fn no_and_ctrl_c_write_nothing() {
    let questions = [("Restore", UP), ("To which time", ""), ("Name of the new workload", "copy"), ("Go on?", "")];
    for stop in 0..questions.len() {
        let api = cluster().start();
        let mut terminal = Terminal::open(&api, &["restore"]);
        for (question, keys) in &questions[..stop] {
            terminal.answers(question, &format!("{keys}{ENTER}"));
        }
        terminal.answers(questions[stop].0, CTRL_C);
        assert_eq!(terminal.end(), 130, "{}: {}", questions[stop].0, terminal.seen());
        assert_eq!(api.written(), Vec::<Value>::new());
    }
    let api = cluster().start();
    let mut terminal = Terminal::open(&api, &["restore", "copy", "--from", "monday"]);
    terminal.answers("Go on?", "n");
    assert_eq!(terminal.end(), 6, "{}", terminal.seen());
    assert_eq!(api.written(), Vec::<Value>::new());
}
