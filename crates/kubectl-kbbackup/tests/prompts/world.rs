//! Objects of a small cluster, by their paths.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::api::Api;

const KINDS: &str = "/apis/dataprotection.kubeblocks.io/v1alpha1";

/// What a cluster holds.
#[derive(Default)]
pub(crate) struct World(BTreeMap<String, Value>);

impl World {
    pub(crate) fn start(self) -> Api {
        Api::start(self.0)
    }

    /// Adds an object of namespace `demo`, or of the whole cluster when `plural` has no namespace.
    fn add(mut self, path: &str, kind: &str, mut object: Value) -> Self {
        let api_version = if path.starts_with(KINDS) { "dataprotection.kubeblocks.io/v1alpha1" } else { "apps/v1" };
        object["apiVersion"] = json!(api_version);
        object["kind"] = json!(kind);
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        self.0.insert(format!("{path}/{name}"), object);
        self
    }

    /// A storage provider with a choice, a plain and a secret parameter that are needed, and one that is not.
    pub(crate) fn provider(self, name: &str) -> Self {
        let properties = json!({"bucket": {"type": "string"}, "region": {"type": "string", "enum": ["north", "south"], "default": "south"},
            "secretAccessKey": {"type": "string"}, "endpoint": {"type": "string"}});
        let schema = json!({"openAPIV3Schema": {"type": "object", "required": ["bucket", "region", "secretAccessKey"],
            "properties": properties}, "credentialFields": ["secretAccessKey"]});
        let spec = json!({"datasafedConfigTemplate": "[storage]", "parametersSchema": schema});
        self.add(
            &format!("{KINDS}/storageproviders"),
            "StorageProvider",
            json!({"metadata": {"name": name}, "spec": spec}),
        )
    }

    pub(crate) fn repo(self, name: &str, default: bool) -> Self {
        let mark = json!({"dataprotection.kubeblocks.io/is-default-repo": default.to_string()});
        let spec = json!({"storageProviderRef": "s3", "pvReclaimPolicy": "Retain"});
        let repo = json!({"metadata": {"name": name, "annotations": mark}, "spec": spec, "status": {"phase": "Ready"}});
        self.add(&format!("{KINDS}/backuprepos"), "BackupRepo", repo)
    }

    pub(crate) fn action_set(self, name: &str, kind: &str) -> Self {
        let set = json!({"metadata": {"name": name}, "spec": {"backupType": kind}, "status": {"phase": "Available"}});
        self.add(&format!("{KINDS}/actionsets"), "ActionSet", set)
    }

    /// A policy for the pod of `pg`, with methods and their action sets.
    pub(crate) fn policy(self, name: &str, methods: &[(&str, &str)]) -> Self {
        let methods: Vec<Value> =
            methods.iter().map(|(name, set)| json!({"name": name, "actionSetName": set})).collect();
        let spec = json!({"target": {"podSelector": {"matchLabels": {"app": "pg"}}}, "backupMethods": methods});
        let labels = json!({"kbbackup.io/workload-kind": "statefulset", "kbbackup.io/workload-name": "pg"});
        let policy = json!({"metadata": {"name": name, "namespace": "demo", "labels": labels}, "spec": spec});
        self.add(&format!("{KINDS}/namespaces/demo/backuppolicies"), "BackupPolicy", policy)
    }

    /// The ready pod of `pg`.
    pub(crate) fn pod(mut self) -> Self {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pg-0", "namespace": "demo", "labels": {"app": "pg"}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        self.0.insert("/api/v1/namespaces/demo/pods/pg-0".to_owned(), pod);
        self
    }

    /// A StatefulSet that is recognised as PostgreSQL, with its password in plain sight.
    pub(crate) fn workload(self, name: &str, password: &str) -> Self {
        let container = json!({"name": "postgres", "image": "postgres:17", "ports": [{"name": "postgres", "containerPort": 5432}],
            "env": [{"name": "POSTGRES_PASSWORD", "value": password}],
            "volumeMounts": [{"name": "data", "mountPath": "/var/lib/postgresql/data"}]});
        let template = json!({"metadata": {"labels": {"app": "pg"}}, "spec": {"containers": [container]}});
        let claim = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}});
        let spec = json!({"serviceName": name, "selector": {"matchLabels": {"app": "pg"}}, "template": template,
            "volumeClaimTemplates": [claim]});
        let set = json!({"metadata": {"name": name, "namespace": "demo", "uid": "0000-1111"}, "spec": spec});
        self.add("/apis/apps/v1/namespaces/demo/statefulsets", "StatefulSet", set)
    }

    /// A backup of `pg` with its volume.
    pub(crate) fn backup(self, name: &str, kind: &str, status: Value) -> Self {
        self.add(&format!("{KINDS}/namespaces/demo/backups"), "Backup", backup(name, kind, status))
    }

    /// A claim of this size, bound to a volume of this driver.
    pub(crate) fn claim(mut self, name: &str, size: &str, volume: &str, driver: &str) -> Self {
        let spec = json!({"volumeName": volume, "resources": {"requests": {"storage": size}}});
        let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "namespace": "demo"}, "spec": spec});
        self.0.insert(format!("/api/v1/namespaces/demo/persistentvolumeclaims/{name}"), claim);
        let spec = json!({"csi": {"driver": driver, "volumeHandle": "h"}});
        let object =
            json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": volume}, "spec": spec});
        self.0.insert(format!("/api/v1/persistentvolumes/{volume}"), object);
        self
    }

    /// How the volumes of a driver are snapshot.
    pub(crate) fn snapshot_class(mut self, name: &str, driver: &str) -> Self {
        let class = json!({"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotClass",
            "metadata": {"name": name}, "driver": driver, "deletionPolicy": "Delete"});
        self.0.insert(format!("/apis/snapshot.storage.k8s.io/v1/volumesnapshotclasses/{name}"), class);
        self
    }

    /// Something that scales a StatefulSet.
    pub(crate) fn scaler(mut self, name: &str, of: &str) -> Self {
        let of = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": of});
        let scaler = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": name, "namespace": "demo"}, "spec": {"maxReplicas": 3, "scaleTargetRef": of}});
        self.0.insert(format!("/apis/autoscaling/v2/namespaces/demo/horizontalpodautoscalers/{name}"), scaler);
        self
    }

    /// KubeBlocks' own controller.
    pub(crate) fn kubeblocks(self) -> Self {
        let labels = json!({"app.kubernetes.io/name": "kubeblocks"});
        let metadata = json!({"name": "kubeblocks-dataprotection", "namespace": "kb-system", "labels": labels});
        let spec = json!({"selector": {}, "template": {}});
        let path = "/apis/apps/v1/namespaces/kb-system/deployments";
        self.add(path, "Deployment", json!({"metadata": metadata, "spec": spec}))
    }

    /// Changes an object that is there.
    pub(crate) fn with(mut self, path: &str, change: impl FnOnce(&mut Value)) -> Self {
        change(self.0.get_mut(path).unwrap());
        self
    }

    /// The embedded store, on a volume of this size.
    pub(crate) fn store(self, size: &str) -> Self {
        let claim = json!({"metadata": {"name": "data"}, "spec": {"resources": {"requests": {"storage": size}}}});
        let spec = json!({"serviceName": "s", "selector": {}, "template": {}, "volumeClaimTemplates": [claim]});
        let metadata = json!({"name": "kbbackup-store", "namespace": "kbbackup-system"});
        let path = "/apis/apps/v1/namespaces/kbbackup-system/statefulsets";
        self.add(path, "StatefulSet", json!({"metadata": metadata, "spec": spec}))
    }

    /// Marks the operator as a part of a release.
    pub(crate) fn helm(mut self, release: &str) -> Self {
        let operator = self.0.values_mut().find(|object| object["kind"] == "Deployment").unwrap();
        operator["metadata"]["annotations"] = json!({"meta.helm.sh/release-name": release});
        self
    }

    /// The operator's Deployment.
    pub(crate) fn operator(self, version: &str, image: &str) -> Self {
        let labels = json!({"kbbackup.io/part": "operator", "app.kubernetes.io/version": version});
        let containers = json!([{"name": "controller", "image": image}]);
        let spec = json!({"selector": {}, "template": {"spec": {"containers": containers}}});
        let metadata = json!({"name": "kbbackup-controller", "namespace": "kbbackup-system", "labels": labels});
        let path = "/apis/apps/v1/namespaces/kbbackup-system/deployments";
        self.add(path, "Deployment", json!({"metadata": metadata, "spec": spec}))
    }
}

/// A backup of `pg` with its volume.
pub(crate) fn backup(name: &str, kind: &str, status: Value) -> Value {
    let method = if kind == "Continuous" { "wal" } else { "full" };
    let metadata = json!({"name": name, "namespace": "demo", "uid": name, "creationTimestamp": "2026-01-02T03:04:05Z"});
    let spec = json!({"backupPolicyName": "pg", "backupMethod": method});
    let mut backup = json!({"apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "Backup",
        "metadata": metadata, "spec": spec});
    recorded(&mut backup, kind, status);
    backup
}

/// What the operator notes at a backup: its status, of what it is, and the workload.
pub(crate) fn recorded(backup: &mut Value, kind: &str, mut status: Value) {
    let set = if kind == "Continuous" { "wal" } else { "full" };
    let volumes = json!({"volumeMounts": [{"name": "data", "mountPath": "/d"}]});
    status["backupMethod"] = json!({"name": set, "actionSetName": set, "targetVolumes": volumes});
    let claim = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "10Gi"}}}});
    let workload = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "pg"},
        "spec": {"serviceName": "pg", "selector": {}, "template": {}, "volumeClaimTemplates": [claim]}});
    let manifest = json!({"statefulSet": workload, "services": [], "secrets": []}).to_string();
    backup["metadata"]["labels"]["dataprotection.kubeblocks.io/backup-type"] = json!(kind);
    backup["metadata"]["labels"]["kbbackup.io/workload-name"] = json!("pg");
    backup["metadata"]["annotations"]["kbbackup.io/workload"] = json!(manifest);
    backup["status"] = status;
}

/// The StatefulSet of an operator that knows no restore in place.
pub(crate) const OLDER: &str = "older";

/// What the operator notes at a restore in place; an older one would note nothing.
pub(crate) fn exchanged(restore: &mut Value) {
    let annotations = &mut restore["metadata"]["annotations"];
    let Some(set) = annotations["kbbackup.io/in-place"].as_str().map(str::to_owned) else { return };
    if set == OLDER {
        return;
    }
    let claim = json!({"claim": format!("data-{set}-0"), "oldUid": "o", "oldVolume": "pv-old", "temporary": "t",
        "temporaryUid": "t", "newVolume": "pv-new"});
    let record = json!({"statefulSet": "s", "before": 1, "after": 1, "exchanging": true, "claims": [claim]});
    annotations["kbbackup.io/in-place-record"] = json!(record.to_string());
}
