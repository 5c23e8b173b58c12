//! What the tests of the shipped ActionSets have in common: policies and restores as a person writes them, and the page
//! with the accounts.

use kbbackup_e2e::{LIMIT, ended, phase};
use kbbackup_testing::fixtures::{self, list};
use kbbackup_testing::kubectl::Kubectl;
use kbbackup_testing::ledger::Ledger;
use kbbackup_testing::namespace::TempNamespace;
use serde_json::{Value, json};

const API: &str = "dataprotection.kubeblocks.io/v1alpha1";
/// The page beside the ActionSets.
const PAGE: &str = include_str!("../../../../deploy/actionsets/README.md");

/// The statements of the page's section that create the account for backups; `…` stands for the password.
pub(crate) fn account(section: &str) -> String {
    let section = PAGE.split("\n## ").find(|part| part.starts_with(section)).expect("the section");
    let block = section.split("```").nth(1).expect("a block of statements");
    block.split_once('\n').expect("the language").1.to_owned()
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
                "volumeClaimSpec": claim_spec(),
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

/// A StatefulSet `db` of one container `main` with its Service and Secret `db-auth`: one volume at `/data`, one port.
pub(crate) fn server(image: &str, command: &[&str], port: (&str, u16), replicas: u32, auth: &Value) -> Value {
    let labels = json!({"app.kubernetes.io/name": "db"});
    list(&[
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db-auth"}, "stringData": auth}),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "db"},
            "spec": {"clusterIP": "None", "publishNotReadyAddresses": true, "selector": labels,
                "ports": [{"name": port.0, "port": port.1}]},
        }),
        json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db", "labels": labels},
            "spec": {
                "serviceName": "db", "replicas": replicas, "selector": {"matchLabels": labels},
                "podManagementPolicy": "Parallel",
                "template": {"metadata": {"labels": labels}, "spec": {"terminationGracePeriodSeconds": 10, "containers": [{
                    "name": "main", "image": image, "imagePullPolicy": "IfNotPresent", "command": command,
                    "env": [{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                    "ports": [{"name": port.0, "containerPort": port.1}],
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                    "readinessProbe": {"tcpSocket": {"port": port.1}, "periodSeconds": 1, "failureThreshold": 60},
                }]}},
                "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim_spec()}],
            },
        }),
    ])
}

fn claim_spec() -> Value {
    json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}})
}

/// Applies [`server`] and waits for its pods.
pub(crate) fn start(space: &TempNamespace, objects: &Value, replicas: u32) {
    space.kubectl.apply(&objects.to_string()).unwrap();
    space.kubectl.wait_for("statefulset", "db", LIMIT, |set| set["status"]["readyReplicas"] == replicas).unwrap();
}

/// A policy for [`server`] with the one method `full`.
pub(crate) fn full_policy(action_set: &str, port: &str) -> Value {
    policy("db", &json!({"app.kubernetes.io/name": "db"}), "main", port, &[method("full", action_set, "/data", None)])
}

/// Takes a backup by the policy `db` that must end well.
pub(crate) fn take(space: &TempNamespace, name: &str, method: &str) -> Value {
    space.kubectl.apply(&fixtures::backup(name, "db", method).to_string()).unwrap();
    let object = ended(space, name, LIMIT).unwrap();
    assert_eq!(phase(&object), "Completed", "{}", object["status"]);
    object
}

/// Does something while rows are written before, meanwhile and after; gives how many there were before as well.
pub(crate) fn amid<T>(ledger: &Ledger, action: impl FnOnce() -> T) -> (u64, T) {
    ledger.wait_for(ledger.len() + 20).unwrap();
    let before = ledger.len() as u64;
    let result = action();
    ledger.wait_for(ledger.len() + 20).unwrap();
    (before, result)
}

/// Loses the database with all that belongs to it, and gives a namespace that has never seen it but may have its backup.
pub(crate) fn lose(space: &TempNamespace, cluster: &Kubectl, backup: &str) -> TempNamespace {
    space.kubectl.run(&["delete", "statefulset", "db", "--timeout=180s"]).unwrap();
    space.kubectl.run(&["delete", "pvc,service,secret", "--all", "--timeout=180s"]).unwrap();
    let elsewhere = TempNamespace::new(cluster, "back").unwrap();
    let allowed = format!("kbbackup.io/allow-restore-to={}", elsewhere.name);
    space.kubectl.run(&["annotate", "backup", backup, &allowed]).unwrap();
    elsewhere
}
