//! Objects that tests create.

use serde_json::{Value, json};

/// Image of the PostgreSQL under test.
pub const POSTGRES_IMAGE: &str = "kbbackup.test/postgres:15";

/// A plain PostgreSQL as people run it: Secret, headless Service, StatefulSet with one claim.
pub fn postgres(name: &str, storage: &str) -> Value {
    postgres_of(POSTGRES_IMAGE, name, storage)
}

/// The same of another version.
pub fn postgres_of(image: &str, name: &str, storage: &str) -> Value {
    let labels = json!({"app.kubernetes.io/name": "postgres", "app.kubernetes.io/instance": name});
    list(&[
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": format!("{name}-auth"), "labels": labels},
            "stringData": {"username": "postgres", "password": "correct-horse-7"},
        }),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "labels": labels},
            "spec": {"clusterIP": "None", "selector": labels, "ports": [{"name": "postgres", "port": 5432}]},
        }),
        json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": name, "labels": labels},
            "spec": {
                "serviceName": name, "replicas": 1, "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {
                    "terminationGracePeriodSeconds": 10,
                    "containers": [{
                        "name": "postgres", "image": image, "imagePullPolicy": "IfNotPresent",
                        "env": [
                            {"name": "POSTGRES_PASSWORD",
                             "valueFrom": {"secretKeyRef": {"name": format!("{name}-auth"), "key": "password"}}},
                            {"name": "PGDATA", "value": "/var/lib/postgresql/data/pgdata"},
                        ],
                        "ports": [{"name": "postgres", "containerPort": 5432}],
                        "volumeMounts": [{"name": "data", "mountPath": "/var/lib/postgresql/data"}],
                        // Not asked again once it answers: each question is a process in the container.
                        "startupProbe": {
                            "exec": {"command": ["pg_isready", "-h", "127.0.0.1", "-U", "postgres"]},
                            "periodSeconds": 1, "failureThreshold": 600,
                        },
                    }],
                }},
                "volumeClaimTemplates": [{
                    "metadata": {"name": "data"},
                    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage}}},
                }],
            },
        }),
    ])
}

/// Several objects as one.
pub fn list(items: &[Value]) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

/// An ActionSet whose backup runs `script` in the PostgreSQL image, and whose restore writes nothing.
pub fn scripted_action_set(name: &str, script: &str) -> Value {
    json!({
        "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "ActionSet", "metadata": {"name": name},
        "spec": {
            "backupType": "Full",
            "backup": {"backupData": {"image": POSTGRES_IMAGE, "command": ["bash", "-c", script]}},
            "restore": {"prepareData": {"image": POSTGRES_IMAGE, "command": ["bash", "-c", "true"]}},
        },
    })
}

/// A policy for the StatefulSet of [`postgres`], with one method `full` by `action_set`.
pub fn policy(name: &str, statefulset: &str, action_set: &str, repo: Option<&str>) -> Value {
    let mut spec = json!({
        "pathPrefix": format!("/{statefulset}"),
        "target": {
            "podSelector": {"matchLabels": {"app.kubernetes.io/name": "postgres", "app.kubernetes.io/instance": statefulset}},
            "connectionCredential": {"secretName": format!("{statefulset}-auth")},
            "containerPort": {"containerName": "postgres", "portName": "postgres"},
        },
        "backupMethods": [{
            "name": "full", "actionSetName": action_set,
            "targetVolumes": {"volumeMounts": [{"name": "data", "mountPath": "/var/lib/postgresql/data"}]},
        }],
    });
    if let Some(repo) = repo {
        spec["backupRepoName"] = json!(repo);
    }
    json!({
        "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "BackupPolicy", "metadata": {"name": name},
        "spec": spec,
    })
}

/// A Backup as a person would write it.
pub fn backup(name: &str, policy: &str, method: &str) -> Value {
    json!({
        "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "Backup", "metadata": {"name": name},
        "spec": {"backupPolicyName": policy, "backupMethod": method, "deletionPolicy": "Delete"},
    })
}
