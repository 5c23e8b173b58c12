//! Every ActionSet that is shipped is sound: it fits its type to the last field, its parameters have a schema and defaults
//! that pass it, its scripts are shell that shellcheck finds nothing in, and the page beside it speaks of it.

#![allow(clippy::panic, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use kbbackup_api::v1alpha1::ActionSet;
use kbbackup_core::parameters;
use serde_json::{Map, Value};

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/actionsets")
}

/// What is shipped, by name of the file: as written and as read.
fn sets() -> BTreeMap<String, (Value, ActionSet)> {
    let mut sets = BTreeMap::new();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let text = std::fs::read_to_string(&path).unwrap();
            let written: Value = serde_norway::from_str(&text).unwrap();
            let read = serde_json::from_value(written.clone()).unwrap();
            sets.insert(path.file_stem().unwrap().to_string_lossy().into_owned(), (written, read));
        }
    }
    assert!(sets.len() > 2, "the folder is not where it was");
    sets
}

/// The scripts of a set, by their place in it.
fn scripts(value: &Value, at: &str, into: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(map) => {
            if let Some([Value::String(shell), Value::String(flag), Value::String(script)]) =
                map.get("command").and_then(Value::as_array).map(Vec::as_slice)
            {
                assert_eq!((shell.as_str(), flag.as_str()), ("bash", "-c"), "{at}");
                into.insert(at.to_owned(), script.clone());
            }
            map.iter().for_each(|(key, value)| scripts(value, &format!("{at}.{key}"), into));
        }
        Value::Array(items) => items.iter().for_each(|value| scripts(value, at, into)),
        _ => {}
    }
}

fn scripts_of(name: &str, set: &Value) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    scripts(&set["spec"], name, &mut found);
    assert!(!found.is_empty(), "{name} runs nothing");
    found
}

/// Fields of `written` that are not in `read`.
fn lost(written: &Value, read: &Value, at: &str, into: &mut Vec<String>) {
    match (written, read) {
        (Value::Object(one), Value::Object(other)) => {
            for (key, value) in one {
                lost(value, other.get(key).unwrap_or(&Value::Null), &format!("{at}.{key}"), into);
            }
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            one.iter().zip(other).for_each(|(one, other)| lost(one, other, at, into));
        }
        _ if written == read => {}
        _ => into.push(at.to_owned()),
    }
}

#[test]
fn every_field_is_known_and_the_name_is_that_of_the_file() {
    for (name, (written, read)) in sets() {
        let mut fields = Vec::new();
        lost(&written, &serde_json::to_value(&read).unwrap(), &name, &mut fields);
        assert!(fields.is_empty(), "nobody reads {fields:?}");
        assert_eq!(read.metadata.name.as_deref(), Some(&*name));
        assert!(written["metadata"]["labels"]["kbbackup.io/engine"].is_string(), "{name} names no engine");
    }
}

#[test]
fn every_parameter_has_a_schema_a_reader_and_a_default_that_passes() {
    for (name, (written, set)) in sets() {
        let schema: Option<&Map<String, Value>> =
            set.spec.parameters_schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref());
        let declared = schema.and_then(|schema| schema["properties"].as_object()).into_iter().flatten();
        let takes = |part: &str| -> Vec<String> {
            let names = written["spec"][part]["withParameters"].as_array().into_iter().flatten();
            names.map(|name| name.as_str().unwrap().to_owned()).collect()
        };
        let (backup, restore) = (takes("backup"), takes("restore"));
        let text: String = scripts_of(&name, &written).into_values().collect();
        for (parameter, property) in declared {
            assert!(property["description"].is_string(), "{name} does not say what {parameter} is");
            let default = property["default"].as_str().map_or_else(|| property["default"].to_string(), str::to_owned);
            let env = set.spec.env.iter().find(|env| env.name == *parameter);
            let given = env.and_then(|env| env.value.as_deref());
            let taken = if backup.contains(parameter) { &backup } else { &restore };
            if given.is_some() || backup.contains(parameter) {
                assert_eq!(given, Some(&*default), "{name}: what {parameter} is when it is not given");
                assert!(text.contains(&format!("${parameter}")), "{name} never reads {parameter}");
            } else {
                // Where the set's env wins over what a restore is given, as in the contract, the default is the script's.
                let read = format!("${{{parameter}:-{default}}}");
                assert!(text.contains(&read), "{name} does not read {parameter} as {read}");
            }
            parameters::check(taken, schema, [(parameter.as_str(), &*default)]).unwrap();
        }
        for parameter in backup.iter().chain(&restore) {
            let known = schema.is_some_and(|schema| schema["properties"].get(parameter).is_some());
            assert!(known, "{name} takes {parameter}, which has no schema");
        }
    }
}

#[test]
fn scripts_are_sound_shell() {
    let shellcheck = std::env::var_os("KBBACKUP_TEST_SHELLCHECK");
    let programs = [
        // Parameters and the operator's variables come from outside.
        (shellcheck.clone().unwrap_or_else(|| "shellcheck".into()), &["--shell=bash", "--exclude=SC2154", "-"][..]),
        ("bash".into(), &["-n", "/dev/stdin"][..]),
    ];
    for (name, (written, _)) in sets() {
        for (at, script) in scripts_of(&name, &written) {
            for (program, args) in &programs {
                let child = Command::new(program).args(*args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
                let Ok(mut child) = child else {
                    assert!(shellcheck.is_none(), "{} cannot be run", program.display());
                    continue;
                };
                child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
                let done = child.wait_with_output().unwrap();
                assert!(
                    done.status.success(),
                    "{at}, {}:\n{}",
                    program.display(),
                    String::from_utf8_lossy(&done.stdout)
                );
            }
        }
    }
}

/// `set -e` does not end a script in front of a pipe's end, and a password among arguments is everybody's.
#[test]
fn scripts_stop_at_the_first_failure_and_keep_passwords_out_of_arguments() {
    for (name, (written, _)) in sets() {
        for (at, script) in scripts_of(&name, &written) {
            assert!(script.starts_with("set -Eeuo pipefail\n"), "{at} goes on after failures");
            for line in script.lines().filter(|line| line.contains("DP_DB_PASSWORD")) {
                let line = line.trim();
                // Exported, written to a file by the shell itself, told to a client by its standard input, or read by one that
                // runs a script of its own from its environment.
                let ways = [
                    "export ",
                    "echo \"password=",
                    "echo \"password: ",
                    "identified by $(text ",
                    "quoted(env.DP_DB_PASSWORD",
                ];
                let kept = ways.iter().any(|way| line.contains(way));
                assert!(kept, "{at}: {line}");
            }
        }
    }
}

/// One script for both: what an increment does otherwise, it does because it has a parent.
#[test]
fn a_full_method_and_its_increments_share_their_scripts() {
    let sets = sets();
    let increments: Vec<_> = sets.keys().filter(|name| name.ends_with("-incremental")).collect();
    assert!(!increments.is_empty());
    for name in increments {
        let base = name.trim_end_matches("-incremental");
        let full = [format!("{base}-full"), base.to_owned()].into_iter().find(|full| sets.contains_key(full)).unwrap();
        let text = |name: &str| scripts_of("", &sets[name].0);
        assert_eq!(text(name), text(&full), "{name} and {full}");
        assert_eq!(sets[name].0["spec"]["parametersSchema"], sets[&full].0["spec"]["parametersSchema"]);
    }
}

#[test]
fn the_page_speaks_of_every_set_and_parameter() {
    let page = std::fs::read_to_string(folder().join("README.md")).unwrap();
    for (name, (written, _)) in sets() {
        let section =
            page.split("\n## ").find(|section| section.lines().next().unwrap().contains(&format!("`{name}`")));
        let section = section.unwrap_or_else(|| panic!("no section about {name}"));
        for parameter in
            written["spec"]["parametersSchema"]["openAPIV3Schema"]["properties"].as_object().into_iter().flatten()
        {
            assert!(section.contains(&format!("`{}`", parameter.0)), "{name}: nothing about {}", parameter.0);
        }
    }
}
