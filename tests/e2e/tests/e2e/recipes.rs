//! What the tests of the shipped ActionSets have in common: policies and restores as a person writes them, and the page
//! with the accounts.

use kbbackup_e2e::{LIMIT, phase};
use kbbackup_testing::namespace::TempNamespace;
use serde_json::{Value, json};

const API: &str = "dataprotection.kubeblocks.io/v1alpha1";
/// The page beside the ActionSets.
const PAGE: &str = include_str!("../../../../deploy/actionsets/README.md");

/// The statements of the page's section that create the account for backups; `…` stands for the password.
pub(crate) fn account(section: &str) -> String {
    let section = PAGE.split("\n## ").find(|part| part.starts_with(section)).expect("the section");
    let block = section.split("```sql\n").nth(1).expect("a block of SQL");
    block.split("```").next().unwrap_or_default().to_owned()
}

/// A method with its volume `data` at `path`, and its full method if it is incremental.
pub(crate) fn method(name: &str, action_set: &str, path: &str, full: Option<&str>) -> Value {
    let mut method = json!({
        "name": name, "actionSetName": action_set,
        "targetVolumes": {"volumeMounts": [{"name": "data", "mountPath": path}]},
    });
    if let Some(full) = full {
        method["compatibleMethod"] = json!(full);
    }
    method
}

/// A policy for the pods with these labels and the login of the Secret `<name>-auth`.
pub(crate) fn policy(name: &str, labels: &Value, container: &str, port: &str, methods: &[Value]) -> Value {
    json!({
        "apiVersion": API, "kind": "BackupPolicy", "metadata": {"name": name},
        "spec": {
            "pathPrefix": format!("/{name}"), "retentionPolicy": "none", "backoffLimit": 0,
            "target": {
                "podSelector": {"matchLabels": labels},
                "connectionCredential": {"secretName": format!("{name}-auth")},
                "containerPort": {"containerName": container, "portName": port},
            },
            "backupMethods": methods,
        },
    })
}

/// A restore of `backup` in namespace `from` that fills `claim`, seen at `path`.
pub(crate) fn restore(name: &str, backup: &str, from: &str, claim: &str, path: &str) -> Value {
    json!({
        "apiVersion": API, "kind": "Restore", "metadata": {"name": name},
        "spec": {
            "backup": {"name": backup, "namespace": from}, "backoffLimit": 0,
            "prepareDataConfig": {"volumeClaims": [{
                "metadata": {"name": claim}, "volumeSource": "data", "mountPath": path,
                "volumeClaimSpec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
            }]},
        },
    })
}

/// Waits for the end of a restore that must end well, and gives what it recorded.
pub(crate) fn restored(space: &TempNamespace, name: &str) -> Value {
    let over = |object: &Value| matches!(phase(object), "Completed" | "Failed");
    let object = space.kubectl.wait_for("restore", name, LIMIT, over).unwrap();
    assert_eq!(phase(&object), "Completed", "{}", object["status"]);
    let text = object["metadata"]["annotations"]["kbbackup.io/restored"].as_str().expect("what was restored");
    serde_json::from_str(text).unwrap()
}
