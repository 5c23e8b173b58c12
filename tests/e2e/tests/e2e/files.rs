//! A database that is only files: a StatefulSet whose pods sleep on a volume, recipes made of tar, and claims to compare.

use std::collections::BTreeMap;

use anyhow::Result;
use kbbackup_e2e::LIMIT;
use kbbackup_testing::fixtures::{POSTGRES_IMAGE, list};
use kbbackup_testing::kubectl::Kubectl;
use kbbackup_testing::namespace::TempNamespace;
use serde_json::{Value, json};

/// Beginning of every script: fails on anything, finds the mover, and talks to the backup's own place.
pub(crate) const BEGIN: &str = r#"set -eo pipefail
export PATH="$PATH:$DP_DATASAFED_BIN_PATH" DATASAFED_BACKEND_BASE_PATH="$DP_BACKUP_BASE_PATH""#;
/// Restores one archive of this backup.
pub(crate) const UNPACK: &str = "datasafed pull -d zstd /data.tar.zst - | tar -C /data -xf -";
/// Stores all files.
pub(crate) const PACK: &str =
    "tar -C /data -cf - . | datasafed push -z zstd - /data.tar.zst\necho '{}' > $DP_BACKUP_INFO_FILE";

/// Creates the StatefulSet `files` and waits for its pods.
pub(crate) fn create(space: &TempNamespace, replicas: u32) -> Result<()> {
    let labels = json!({"app.kubernetes.io/name": "files"});
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "files"},
        "spec": {"clusterIP": "None", "selector": labels, "ports": [{"name": "none", "port": 1}]},
    });
    let set = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "files"},
        "spec": {
            "serviceName": "files", "replicas": replicas, "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
                "name": "files", "image": POSTGRES_IMAGE, "imagePullPolicy": "IfNotPresent",
                "command": ["sleep", "infinity"], "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim_spec()}],
        },
    });
    space.kubectl.apply(&list(&[service, set]).to_string())?;
    space.kubectl.wait_for("statefulset", "files", LIMIT, |set| set["status"]["readyReplicas"] == replicas)?;
    Ok(())
}

/// A recipe of this type by two scripts.
pub(crate) fn recipe(name: &str, kind: &str, backup: &str, restore: &str) -> Value {
    let run = |script: &str| json!(["bash", "-c", format!("{BEGIN}\n{script}")]);
    json!({
        "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "ActionSet", "metadata": {"name": name},
        "spec": {
            "backupType": kind,
            "backup": {"backupData": {"image": POSTGRES_IMAGE, "runOnTargetPodNode": true, "command": run(backup)}},
            "restore": {"prepareData": {"image": POSTGRES_IMAGE, "command": run(restore)}},
        },
    })
}

/// A policy for `files` that never keeps what is expired, with these methods of name, recipe and full method.
pub(crate) fn policy(strategy: &str, methods: &[(&str, &str, Option<&str>)]) -> Value {
    let method = |(name, recipe, full): &(&str, &str, Option<&str>)| {
        let mut method = json!({"name": name, "actionSetName": recipe,
            "targetVolumes": {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}});
        if let Some(full) = full {
            method["compatibleMethod"] = json!(full);
        }
        method
    };
    json!({
        "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "BackupPolicy", "metadata": {"name": "files"},
        "spec": {
            "pathPrefix": "/files", "retentionPolicy": "none",
            "target": {"podSelector": {"strategy": strategy, "matchLabels": {"app.kubernetes.io/name": "files"}}},
            "backupMethods": methods.iter().map(method).collect::<Vec<_>>(),
        },
    })
}

/// A claim as a restore creates it.
pub(crate) fn claim(name: &str) -> Value {
    json!({"metadata": {"name": name}, "volumeSource": "data", "volumeClaimSpec": claim_spec()})
}

fn claim_spec() -> Value {
    json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "64Mi"}}})
}

/// A restore of `backup` that fills what `prepare` says.
pub(crate) fn restore(space: &TempNamespace, name: &str, backup: &str, prepare: &Value, time: Option<&str>) -> Value {
    let mut spec = json!({"backup": {"name": backup, "namespace": space.name}, "prepareDataConfig": prepare});
    if let Some(time) = time {
        spec["restoreTime"] = json!(time);
    }
    json!({
        "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "Restore", "metadata": {"name": name}, "spec": spec,
    })
}

/// Runs a script in a pod of `files`.
pub(crate) fn run(kubectl: &Kubectl, pod: &str, script: &str) -> Result<String> {
    kubectl.run(&["exec", pod, "--", "bash", "-ec", script])
}

/// Name and digest of every file below `/data` of a pod.
pub(crate) fn digests(kubectl: &Kubectl, pod: &str, dir: &str) -> Result<BTreeMap<String, String>> {
    let script = format!("cd {dir} && find . -type f -exec sha256sum {{}} +");
    let lines = run(kubectl, pod, &script)?;
    let pair = |line: &str| line.split_once("  ").map(|(digest, name)| (name.to_owned(), digest.to_owned()));
    Ok(lines.lines().filter_map(pair).collect())
}

/// A pod that shows `claims` below `/claims/<name>`.
pub(crate) fn show(space: &TempNamespace, pod: &str, claims: &[String]) -> Result<()> {
    let mount = |name: &String| json!({"name": name, "mountPath": format!("/claims/{name}")});
    let volume = |name: &String| json!({"name": name, "persistentVolumeClaim": {"claimName": name}});
    let object = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "show", "image": POSTGRES_IMAGE, "imagePullPolicy": "IfNotPresent",
                "command": ["sleep", "infinity"], "volumeMounts": claims.iter().map(mount).collect::<Vec<_>>()}],
            "volumes": claims.iter().map(volume).collect::<Vec<_>>(),
        },
    });
    space.kubectl.apply(&object.to_string())?;
    space.kubectl.wait_for("pod", pod, LIMIT, |pod| pod["status"]["phase"] == "Running").map(drop)
}
