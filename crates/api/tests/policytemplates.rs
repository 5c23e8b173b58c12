//! Every BackupPolicyTemplate that is shipped fits its definition, and names what is shipped as well: ActionSets that make what
//! its methods promise, and methods that its schedules switch on.

#![allow(clippy::panic, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use kbbackup_api::names::{TRUE, annotations};
use kbbackup_api::v1alpha1::{ActionSet, BackupPolicyTemplate, BackupType};
use kbbackup_core::{cron::Cron, pattern, retention::RetentionPeriod};
use kube::ResourceExt as _;
use serde_json::Value;

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy")
}

/// The files of a folder, by name.
fn files(folder: &str) -> BTreeMap<String, Value> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(deploy().join(folder)).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let value = serde_norway::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            files.insert(path.file_stem().unwrap().to_string_lossy().into_owned(), value);
        }
    }
    files
}

fn templates() -> BTreeMap<String, BackupPolicyTemplate> {
    files("policytemplates").into_iter().map(|(name, value)| (name, serde_json::from_value(value).unwrap())).collect()
}

fn sets() -> BTreeMap<String, ActionSet> {
    files("actionsets").into_iter().map(|(name, value)| (name, serde_json::from_value(value).unwrap())).collect()
}

/// What an API server would refuse or drop: fields that the schema does not know, lacks, or wants otherwise.
fn faults(value: &Value, schema: &Value, at: &str, into: &mut Vec<String>) {
    let fits = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64(),
        _ => true,
    };
    if !fits {
        into.push(format!("{at} is no {}", schema["type"]));
        return;
    }
    if schema["enum"].as_array().is_some_and(|words| !words.contains(value)) {
        into.push(format!("{at} is none of {}", schema["enum"]));
    }
    let within = |size: usize, least: &str, most: &str| {
        size as u64 >= schema[least].as_u64().unwrap_or(0) && size as u64 <= schema[most].as_u64().unwrap_or(u64::MAX)
    };
    match value {
        Value::Object(fields) => {
            for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                if !fields.contains_key(required) {
                    into.push(format!("{at} lacks {required}"));
                }
            }
            for (key, field) in fields {
                match (&schema["properties"][key], &schema["additionalProperties"]) {
                    (Value::Null, Value::Null) => into.push(format!("{at}.{key} is not known")),
                    (Value::Null, any) => faults(field, any, &format!("{at}.{key}"), into),
                    (known, _) => faults(field, known, &format!("{at}.{key}"), into),
                }
            }
        }
        Value::Array(items) => {
            if !within(items.len(), "minItems", "maxItems") {
                into.push(format!("{at} has {} entries", items.len()));
            }
            for item in items {
                faults(item, &schema["items"], at, into);
            }
        }
        Value::String(text) => {
            let matches =
                schema["pattern"].as_str().is_none_or(|rule| regex_lite::Regex::new(rule).unwrap().is_match(text));
            if !matches || !within(text.len(), "minLength", "maxLength") {
                into.push(format!("{at} may not be {text:?}"));
            }
        }
        _ => {}
    }
}

#[test]
fn each_fits_the_definition_to_the_last_field() {
    let crd = &files("crds")["backuppolicytemplates"];
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let found = |spec: &Value| {
        let mut into = Vec::new();
        faults(spec, schema, "spec", &mut into);
        into
    };
    let all = files("policytemplates");
    for (name, written) in &all {
        assert_eq!(found(&written["spec"]), [""; 0], "{name}");
        assert_eq!(written["metadata"]["name"], Value::String(name.clone()));
    }
    // The walk finds what a server would.
    let mut wrong = all.into_values().next().unwrap()["spec"].clone();
    wrong["compDefs"] = Value::Array(Vec::new());
    wrong["backupMethods"][0].as_object_mut().unwrap().remove("name");
    wrong["schedules"][0]["enabled"] = "no".into();
    wrong["retentionPolicy"] = "some".into();
    wrong["surplus"] = 1.into();
    assert_eq!(found(&wrong).len(), 5, "{:?}", found(&wrong));
}

#[test]
fn there_is_one_for_each_engine_that_kubeblocks_has() {
    let engines = |files: BTreeMap<String, Value>| -> BTreeSet<String> {
        let engine = |file: Value| file["metadata"]["labels"]["kbbackup.io/engine"].as_str().unwrap().to_owned();
        files.into_values().map(engine).collect()
    };
    let mut wanted = engines(files("actionsets"));
    // Of any workload: no component definition is theirs.
    wanted.remove("files");
    assert_eq!(engines(files("policytemplates")), wanted);
}

#[test]
fn methods_name_action_sets_that_make_what_they_promise() {
    let sets = sets();
    for (name, template) in templates() {
        let methods = &template.spec.backup_methods;
        let kind = |method: &str| {
            let method = methods.iter().find(|candidate| candidate.name == method)?;
            let Some(set) = &method.action_set_name else { return Some(BackupType::Full) };
            Some(sets.get(set).unwrap_or_else(|| panic!("{name}: no ActionSet {set}")).spec.backup_type)
        };
        for method in methods {
            let wanted = match method.name.as_str() {
                "incremental" => BackupType::Incremental,
                "log" => BackupType::Continuous,
                "dump" => BackupType::Selective,
                _ => BackupType::Full,
            };
            assert_eq!(kind(&method.name), Some(wanted), "{name}: {}", method.name);
            let is_incremental = wanted == BackupType::Incremental;
            assert_eq!(method.compatible_method.is_some(), is_incremental, "{name}: {}", method.name);
            if let Some(full) = &method.compatible_method {
                assert_eq!(kind(full), Some(BackupType::Full), "{name}: {full}");
            }
            let volumes = method.target_volumes.clone().unwrap_or_default();
            let has = if method.snapshot_volumes == Some(true) {
                !volumes.volumes.is_empty()
            } else {
                !volumes.volume_mounts.is_empty()
            };
            assert!(has || method.name == "dump", "{name}: {} restores into nothing", method.name);
            let mapped = method.env.iter().flat_map(|env| env.value_from.iter().flat_map(|from| &from.version_mapping));
            assert!(mapped.clone().all(|entry| !entry.mapped_value.is_empty() && !entry.service_versions.is_empty()));
        }
        assert_eq!(methods.len(), methods.iter().map(|method| &method.name).collect::<BTreeSet<_>>().len());
    }
}

/// Somebody has to want backups: the Cluster's `spec.backup` or a person.
#[test]
fn schedules_are_off_and_a_log_outlives_the_backups_that_it_is_replayed_on() {
    for (name, template) in templates() {
        assert_eq!(template.annotations().get(annotations::GIVES_WAY).map(String::as_str), Some(TRUE), "{name}");
        let seconds = |method: &str| {
            let entry = template.spec.schedules.iter().find(|entry| entry.backup_method == method)?;
            Some(RetentionPeriod::parse(entry.retention_period.as_deref()?).unwrap().seconds())
        };
        for entry in &template.spec.schedules {
            assert_eq!(entry.enabled, Some(false), "{name}: {}", entry.backup_method);
            Cron::parse(&entry.cron_expression).unwrap();
        }
        for method in template.spec.backup_methods.iter().filter(|method| method.name != "dump") {
            assert!(
                seconds(&method.name).is_some_and(|seconds| seconds > 0),
                "{name}: no schedule for {}",
                method.name
            );
        }
        if let Some(log) = seconds("log") {
            assert!(log > seconds("full").unwrap(), "{name}");
        }
    }
}

#[test]
fn each_is_for_the_definitions_of_its_engine_alone() {
    let templates = templates();
    let is_for = |definition: &str| -> Vec<&str> {
        let wanted = |template: &&BackupPolicyTemplate| {
            template.spec.comp_defs.iter().any(|wanted| pattern::matches(wanted, definition))
        };
        templates.iter().filter(|(_, template)| wanted(template)).map(|(name, _)| name.as_str()).collect()
    };
    for (definition, template) in [
        ("postgresql-16-1.0.0", Some("kbb-postgres")),
        ("postgresql-12-1.0.0", None),
        ("vanilla-postgresql-14", None),
        ("mysql-8.0-1.0.0", Some("kbb-mysql")),
        ("mysql-orc-8.0-1.0.0", Some("kbb-mysql")),
        ("mysql-mgr-8.4-1.0.0", Some("kbb-mysql")),
        ("mysql-5.7-1.0.0", None),
        ("apecloud-mysql-8.0", None),
        ("mariadb-10.6-1.0.0", Some("kbb-mariadb")),
        ("redis-7-1.0.0", Some("kbb-redis")),
        ("redis-cluster-7-1.0.0", None),
        ("redis-sentinel-7-1.0.0", None),
        ("valkey-8-1.0.0", Some("kbb-redis")),
        ("mongodb-7-1.0.0", Some("kbb-mongodb")),
        ("mongo-shard-7-1.0.0", None),
        ("etcd-3-1.0.0", Some("kbb-etcd")),
    ] {
        assert_eq!(is_for(definition), template.into_iter().collect::<Vec<_>>(), "{definition}");
    }
}
