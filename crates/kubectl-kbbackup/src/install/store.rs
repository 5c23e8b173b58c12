//! The embedded repository: an S3 endpoint of our own on one volume, and the BackupRepo on it. Values only.

use k8s_openapi::api::core::v1::Secret;
use kbbackup_api::names::{TRUE, annotations, labels};
use serde_json::{Value, json};

use super::Settings;
use crate::{app::PART_STORE, manifest::Manifest};

/// Name of the store's objects.
pub(crate) const STORE: &str = "kbbackup-store";
/// Name of the repository.
pub(crate) const REPO: &str = "embedded";
/// Its bucket.
const BUCKET: &str = "backups";
const PORT: i32 = 9000;
const HEALTH: i32 = 9001;
/// The account that runs the store; it owns its volume.
const USER: i64 = 65_532;

/// What the person asked for, resolved.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wish {
    pub size: String,
    pub storage_class: Option<String>,
    /// Make it the default repository.
    pub default: bool,
    /// Storage provider that the repository uses.
    pub provider: String,
}

/// Access key and secret key. Never shown.
#[derive(Clone)]
pub(crate) struct Keys {
    pub access: String,
    pub secret: String,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(…)")
    }
}

impl Keys {
    /// The keys of a store that exists already.
    pub(crate) fn of(secret: &Secret) -> Option<Self> {
        let text = |key: &str| String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).ok();
        Some(Self { access: text("accessKeyId")?, secret: text("secretAccessKey")? })
    }
}

fn object_labels() -> Value {
    json!({"app.kubernetes.io/name": STORE, "app.kubernetes.io/part-of": "kbbackup", labels::PART: PART_STORE})
}

/// Secret, Service and StatefulSet, in the order of writing.
pub(crate) fn store(settings: &Settings, wish: &Wish, keys: &Keys) -> Vec<Manifest> {
    let namespace = &settings.namespace;
    let metadata = json!({"name": STORE, "namespace": namespace, "labels": object_labels()});
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque",
        "stringData": {"accessKeyId": keys.access, "secretAccessKey": keys.secret}
    });
    let selector = json!({"app.kubernetes.io/name": STORE});
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata,
        "spec": {"selector": selector, "ports": [{"name": "s3", "port": PORT, "targetPort": "s3"}]}
    });
    let mut container = json!({
        "name": "store",
        "image": settings.mover_image(),
        // Keys come by files: neither arguments nor the environment of a process show them.
        "command": [
            "/datasafed", "serve", "--root", "/data", "--listen", format!("0.0.0.0:{PORT}"), "--health", format!("0.0.0.0:{HEALTH}"),
            "--bucket", BUCKET, "--credentials", "/credentials"
        ],
        "ports": [{"name": "s3", "containerPort": PORT}, {"name": "health", "containerPort": HEALTH}],
        "readinessProbe": {"httpGet": {"port": "health", "path": "/healthz"}, "periodSeconds": 2},
        "livenessProbe": {"httpGet": {"port": "health", "path": "/healthz"}, "periodSeconds": 20, "failureThreshold": 6},
        "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}
        },
        "volumeMounts": [
            {"name": "data", "mountPath": "/data"}, {"name": "credentials", "mountPath": "/credentials", "readOnly": true}
        ]
    });
    if let Some(policy) = &settings.pull_policy {
        container["imagePullPolicy"] = json!(policy);
    }
    let mut claim = json!({
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": wish.size}}
    });
    if let Some(class) = &wish.storage_class {
        claim["storageClassName"] = json!(class);
    }
    let stateful_set = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": metadata,
        "spec": {
            "serviceName": STORE, "replicas": 1, "selector": {"matchLabels": selector},
            // The data outlives the StatefulSet and a change of its size.
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
            "template": {
                "metadata": {"labels": object_labels()},
                "spec": {
                    "automountServiceAccountToken": false,
                    "enableServiceLinks": false,
                    "securityContext": {
                        "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
                        "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": {"type": "RuntimeDefault"}
                    },
                    "containers": [container],
                    "volumes": [{"name": "credentials", "secret": {"secretName": STORE, "defaultMode": 0o440}}]
                }
            },
            "volumeClaimTemplates": [{"metadata": {"name": "data", "labels": object_labels()}, "spec": claim}]
        }
    });
    [secret, service, stateful_set].into_iter().map(Manifest::from_value).collect()
}

/// The BackupRepo on the store.
pub(crate) fn repo(settings: &Settings, wish: &Wish) -> Manifest {
    let namespace = &settings.namespace;
    let mut repo = json!({
        "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "BackupRepo",
        "metadata": {"name": REPO, "labels": {labels::PART: PART_STORE}},
        "spec": {
            "storageProviderRef": wish.provider,
            "accessMethod": "Tool",
            "pvReclaimPolicy": "Retain",
            "config": {
                "bucket": BUCKET, "region": "us-east-1", "forcePathStyle": "true",
                "endpoint": format!("http://{STORE}.{namespace}.svc:{PORT}")
            },
            "credential": {"name": STORE, "namespace": namespace}
        }
    });
    if wish.default {
        repo["metadata"]["annotations"] = json!({annotations::IS_DEFAULT_REPO: TRUE});
    }
    Manifest::from_value(repo)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_and_its_repository() {
        let settings =
            Settings { namespace: "kbbackup-system".into(), pull_policy: Some("Never".into()), ..Settings::default() };
        let wish = Wish { size: "20Gi".into(), default: true, provider: "s3-compatible".into(), storage_class: None };
        let keys = Keys { access: "AK".into(), secret: "SK".into() };
        let mut manifests = store(&settings, &wish, &keys);
        manifests.push(repo(&settings, &wish));
        assert!(manifests[1..].iter().all(|manifest| !manifest.value().to_string().contains("SK")));
        let values: Vec<&Value> = manifests.iter().map(Manifest::value).collect();
        insta::assert_yaml_snapshot!(values);
    }
}
