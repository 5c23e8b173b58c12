//! What is wrong with a template, and for what it is.

use std::collections::BTreeSet;

use kbbackup_api::v1alpha1::{ActionSet, Availability, BackupPolicyTemplateSpec};
use kbbackup_core::{parameters, pattern};
use kube::ResourceExt as _;

/// Whether the template is for the component definition `name`.
pub(super) fn is_for(spec: &BackupPolicyTemplateSpec, name: &str) -> bool {
    spec.comp_defs.iter().any(|wanted| pattern::matches(wanted, name))
}

/// Those of the component definitions that the template is for, in the order of their names.
pub(super) fn matched(spec: &BackupPolicyTemplateSpec, definitions: &[String]) -> Vec<String> {
    definitions.iter().filter(|name| is_for(spec, name)).cloned().collect::<BTreeSet<_>>().into_iter().collect()
}

/// Every problem, each ended by `;`.
pub(crate) fn check(spec: &BackupPolicyTemplateSpec, sets: &[&ActionSet]) -> (Availability, Option<String>) {
    let mut problems = Vec::new();
    let set_of = |method: &str| {
        let method = spec.backup_methods.iter().find(|candidate| candidate.name == method)?;
        sets.iter().find(|set| Some(set.name_any()) == method.action_set_name)
    };
    for method in &spec.backup_methods {
        match method.action_set_name.as_deref().filter(|name| !name.is_empty()) {
            None if method.snapshot_volumes == Some(false) => {
                problems.push(format!("method {} takes no snapshots and names no actionSetName", method.name));
            }
            Some(name) if !sets.iter().any(|set| set.name_any() == name) => {
                problems.push(format!("ActionSet {name} of method {} does not exist", method.name));
            }
            _ => {}
        }
    }
    let mut names = BTreeSet::new();
    for schedule in &spec.schedules {
        let name = schedule.name();
        if !names.insert(name) {
            problems.push(format!("two schedules are named {name}"));
        }
        if !spec.backup_methods.iter().any(|method| method.name == schedule.backup_method) {
            problems.push(format!(
                "schedule {name} names method {}, which the template does not have",
                schedule.backup_method
            ));
            continue;
        }
        let Some(set) = set_of(&schedule.backup_method) else { continue };
        let takes = set.spec.backup.as_ref().map(|backup| backup.with_parameters.as_slice()).unwrap_or_default();
        let schema = set.spec.parameters_schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref());
        let given = schedule.parameters.iter().map(|pair| (pair.name.as_str(), pair.value.as_str()));
        if let Err(error) = parameters::check(takes, schema, given) {
            problems.push(format!("schedule {name}: {error}"));
        }
    }
    if problems.is_empty() {
        return (Availability::Available, None);
    }
    (
        Availability::Unavailable,
        Some(problems.iter().map(|problem| format!("{problem};")).collect::<Vec<_>>().join(" ")),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec(change: Value) -> BackupPolicyTemplateSpec {
        let mut spec = json!({
            "compDefs": ["^mysql-8\\.\\d+"],
            "backupMethods": [{"name": "xtrabackup", "actionSetName": "mysql-xtrabackup"}, {"name": "volume-snapshot", "snapshotVolumes": true}],
            "schedules": [{"backupMethod": "xtrabackup", "cronExpression": "0 2 * * *"}],
        });
        for (key, value) in change.as_object().unwrap() {
            spec[key] = value.clone();
        }
        serde_json::from_value(spec).unwrap()
    }

    fn set() -> ActionSet {
        serde_json::from_value(json!({ "metadata": {"name": "mysql-xtrabackup"}, "spec": {"backupType": "Full",
            "parametersSchema": {"openAPIV3Schema": {"properties": {"LEVEL": {"type": "integer"}}}},
            "backup": {"withParameters": ["LEVEL"]}} }))
        .unwrap()
    }

    #[test]
    fn behaviour_3_6_a_sound_template_is_available() {
        assert_eq!(check(&spec(json!({})), &[&set()]), (Availability::Available, None));
        let unset = json!({"backupMethods": [{"name": "m"}], "schedules": []});
        assert_eq!(check(&spec(unset), &[]).0, Availability::Available, "only an explicit false is a fault");
    }

    #[test]
    fn behaviour_3_6_every_problem_is_told() {
        let told = |change: Value| {
            let (phase, message) = check(&spec(change), &[&set()]);
            assert_eq!(phase, Availability::Unavailable);
            message.unwrap()
        };
        let schedule = |name: &str, method: &str, parameters: Value| json!({"name": name, "backupMethod": method, "cronExpression": "0 2 * * *", "parameters": parameters});
        let all = told(json!({
            "backupMethods": [{"name": "a", "snapshotVolumes": false}, {"name": "b", "actionSetName": "none"},
                {"name": "xtrabackup", "actionSetName": "mysql-xtrabackup"}],
            "schedules": [schedule("s", "xtrabackup", json!([])), schedule("s", "other", json!([])),
                schedule("p", "xtrabackup", json!([{"name": "LEVEL", "value": "high"}]))],
        }));
        for part in [
            "method a takes",
            "ActionSet none",
            "two schedules are named s",
            "method other",
            "schedule p: parameter LEVEL",
        ] {
            assert!(all.contains(part), "{part}: {all}");
        }
        assert!(all.ends_with(';') && all.matches(';').count() == 5, "{all}");
    }

    #[test]
    fn behaviour_3_6_matched_definitions_are_listed() {
        let names = ["mysql-8.4-1".to_owned(), "mysql-5.7-1".to_owned(), "mysql-8.0-1".to_owned()];
        assert_eq!(matched(&spec(json!({})), &names), ["mysql-8.0-1", "mysql-8.4-1"]);
    }
}
