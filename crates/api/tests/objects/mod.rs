//! Objects made from the generated definitions.

#![allow(clippy::panic, clippy::unwrap_used, dead_code)]

use kbbackup_api::schema;
use serde_json::{Value, json};

/// As many as the longest enum has members.
const VARIANTS: usize = 6;

/// Objects with every field that the definitions have.
pub(crate) fn full_objects() -> Vec<Value> {
    let mut objects = Vec::new();
    for crd in kbbackup_api::crds() {
        let root = schema::to_value(&crd).unwrap();
        let schema = &root["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        for variant in 0..VARIANTS {
            let mut object = sample(schema, variant);
            object["apiVersion"] = json!("dataprotection.kubeblocks.io/v1alpha1");
            object["kind"] = json!(crd.spec.names.kind);
            object["metadata"] = json!({ "name": format!("full-{variant}"), "labels": { "a": "b" } });
            objects.push(object);
        }
    }
    objects
}

/// A value that the schema accepts, with every property.
fn sample(schema: &Value, variant: usize) -> Value {
    if let Some(members) = schema["enum"].as_array() {
        return members[variant % members.len()].clone();
    }
    if schema["x-kubernetes-int-or-string"] == true {
        return json!("1500Mi");
    }
    match (schema["type"].as_str().unwrap(), schema["format"].as_str()) {
        ("boolean", _) => json!(variant.is_multiple_of(2)),
        ("integer", _) => json!(variant + 1),
        ("string", Some("date-time")) => json!(format!("2025-03-02T01:00:0{variant}Z")),
        ("string", _) => json!(text(schema["pattern"].as_str(), variant)),
        ("array", _) => json!([sample(&schema["items"], variant)]),
        ("object", _) => {
            if let Some(properties) = schema["properties"].as_object() {
                properties.iter().map(|(name, schema)| (name.clone(), sample(schema, variant))).collect()
            } else if schema["additionalProperties"].is_object() {
                json!({ "key": sample(&schema["additionalProperties"], variant) })
            } else {
                json!({ "type": "object", "properties": { "LEVEL": { "type": "integer", "minimum": variant } } })
            }
        }
        other => panic!("what is a sample of {other:?}?"),
    }
}

fn text(pattern: Option<&str>, variant: usize) -> String {
    match pattern {
        Some(schema::TIME_ZONE) => format!("+0{variant}:30"),
        Some(schema::RESTORE_TIME) => format!("2025-03-02T09:30:0{variant}Z"),
        _ => format!("text{variant}"),
    }
}

/// Objects with nothing but what is required.
pub(crate) fn sparse_objects() -> Vec<Value> {
    let object = |kind: &str, spec: Value| {
        json!({ "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": kind, "metadata": { "name": "sparse" },
            "spec": spec })
    };
    vec![
        object("StorageProvider", json!({})),
        object("BackupRepo", json!({ "storageProviderRef": "s3", "pvReclaimPolicy": "Retain" })),
        object("ActionSet", json!({ "backupType": "Continuous" })),
        object("BackupPolicyTemplate", json!({ "compDefs": ["pg"], "backupMethods": [{ "name": "full" }] })),
        object("BackupPolicy", json!({ "target": {}, "backupMethods": [{ "name": "full" }] })),
        object(
            "BackupSchedule",
            json!({ "backupPolicyName": "pg", "schedules": [{ "backupMethod": "full", "cronExpression": "0 2 * * *" }] }),
        ),
        object("Backup", json!({ "backupPolicyName": "pg", "backupMethod": "full", "deletionPolicy": "Retain" })),
        object("Restore", json!({ "backup": { "name": "b", "namespace": "n" } })),
    ]
}

/// Fails with every place where two objects differ.
pub(crate) fn assert_same(expected: &Value, found: &Value) {
    let mut differences = Vec::new();
    compare(expected["kind"].as_str().unwrap_or("?"), expected, found, &mut differences);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

fn compare(path: &str, expected: &Value, found: &Value, differences: &mut Vec<String>) {
    match (expected, found) {
        (Value::Object(left), Value::Object(right)) => {
            for (name, value) in left {
                compare(&format!("{path}.{name}"), value, right.get(name).unwrap_or(&Value::Null), differences);
            }
            for name in right.keys().filter(|name| !left.contains_key(*name)) {
                differences.push(format!("{path}.{name} came from nowhere"));
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            for (index, (left, right)) in left.iter().zip(right).enumerate() {
                compare(&format!("{path}[{index}]"), left, right, differences);
            }
        }
        _ if expected == found => {}
        _ => differences.push(format!("{path}: {expected} became {found}")),
    }
}
