//! What holds for every command: nobody is waited for who cannot answer, and JSON is alone on standard output.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kbbackup_testing::kubectl::{self, Kubectl};
use serde_json::Value;

use crate::begin;

const REFERENCE: &str = include_str!("../../../../crates/kubectl-kbbackup/REFERENCE.md");
/// Longest that a command may take that does not wait for anything; some start a Job and read its answer.
const LIMIT: Duration = Duration::from_secs(90);

/// A command as the reference tells it.
struct Told {
    words: String,
    /// It shows something in a format.
    shows: bool,
    /// It cannot do without a name.
    needs_name: bool,
}

/// All commands that do something themselves.
fn commands() -> Vec<Told> {
    let sections = REFERENCE.split("\n## kubectl kbbackup").skip(1);
    let usage = |section: &str| section.lines().find(|line| line.starts_with("Usage: ")).unwrap_or_default().to_owned();
    let all = sections.filter(|section| !usage(section).contains("<COMMAND>"));
    let all: Vec<Told> = all
        .map(|section| Told {
            words: section.lines().next().unwrap_or_default().trim().to_owned(),
            shows: section.contains("| table, wide, json, yaml or name |"),
            needs_name: usage(section).split("[OPTIONS]").nth(1).is_some_and(|rest| rest.trim_start().starts_with('<')),
        })
        .collect();
    assert!(all.len() > 40, "only {} commands", all.len());
    all
}

/// What would change the installation or other people's namespaces is only looked at.
fn harmless(words: &str) -> &str {
    match words {
        "install" | "upgrade" | "repo import" => "--dry-run=client",
        "repo check" => "--timeout 10s",
        _ => "",
    }
}

/// Its exit code; none when it had to be ended.
fn ends(command: &mut Command) -> Option<i32> {
    let begun = Instant::now();
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while begun.elapsed() < LIMIT {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(child.kill());
    drop(child.wait());
    None
}

#[test]
fn no_command_waits_for_input() {
    let (cluster, space) = begin("input").unwrap();
    let mut waiting = Vec::new();
    for told in commands() {
        // The operator has a namespace of its own.
        let within =
            if told.words.ends_with("install") || told.words == "upgrade" { "kbbackup-system" } else { &space.name };
        let line = format!("exec kubectl-kbbackup {} -n {within} {}", told.words, harmless(&told.words));
        let closed = ends(cluster.shell(&format!("{line} <&-")).stdin(Stdio::null()).env_remove("CI"));
        // The other end stays open, and nobody ever writes.
        let silent = ends(cluster.shell(&line).stdin(Stdio::piped()).env_remove("CI"));
        println!("{closed:?} {silent:?} {}", told.words);
        // The answer of these hangs on what other tests do to the repository and to the operator.
        let of_others = ["repo check", "repo contents", "repo import", "doctor"].contains(&told.words.as_str());
        if closed.is_none() || closed != silent && !of_others {
            waiting.push(format!("{}: {closed:?} and {silent:?}", told.words));
        }
    }
    assert!(waiting.is_empty(), "{waiting:#?}");
}

#[test]
fn json_is_alone_on_standard_output_and_parses_where_there_is_nothing() {
    let (cluster, space) = begin("json").unwrap();
    let mut wrong = Vec::new();
    for told in commands().iter().filter(|told| told.shows) {
        let name = if told.needs_name { "nothing" } else { "" };
        let line = format!("exec kubectl-kbbackup {} {name} -n {} -o json", told.words, space.name);
        let ask = || kubectl::run(&mut cluster.shell(&line)).unwrap();
        let mut done = ask();
        // Only one question at a time is put to a repository, and another test may have ended the operator.
        for _ in 0..6 {
            if told.words != "repo contents" || done.code == 0 {
                break;
            }
            std::thread::sleep(Duration::from_secs(10));
            done = ask();
        }
        let parsed = serde_json::from_str::<Value>(&done.stdout);
        let good = match done.code {
            // Nothing is called so, and nothing but that is said.
            3 => told.needs_name && done.stdout.is_empty(),
            // What other tests break is broken for doctor, too.
            4 => told.words == "doctor" && parsed.is_ok(),
            0 => !told.needs_name && parsed.is_ok_and(|value| value["kind"].is_string()),
            _ => false,
        };
        if !good {
            wrong.push(format!("{line} ended with {}: {}{}", done.code, done.stdout, done.stderr));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    lists_are_lists(&cluster, &space.name);
}

/// Where there is nothing, a list is one without items, and says so in words on the other stream.
fn lists_are_lists(cluster: &Kubectl, space: &str) {
    for words in ["list", "policy list", "schedule list", "restores list"] {
        let done = kubectl::run(&mut cluster.shell(&format!("kubectl-kbbackup {words} -n {space} -o json"))).unwrap();
        let value: Value = serde_json::from_str(&done.stdout).unwrap();
        assert_eq!((&value["kind"], value["items"].as_array().map(Vec::len)), (&"List".into(), Some(0)), "{words}");
        let done = kubectl::run(&mut cluster.shell(&format!("kubectl-kbbackup {words} -n {space}"))).unwrap();
        assert_eq!((done.code, done.stdout.as_str()), (0, ""), "{words}");
        assert!(!done.stderr.is_empty(), "{words} says nothing at all");
    }
}
