//! Clusters of KubeBlocks get policies and schedules, and take their backups along, on a cluster whose API comes and goes.

use std::time::Duration;

use kbbackup_testing::fixtures::list;
use kbbackup_testing::kubectl::Kubectl;
use serde_json::{Value, json};

use crate::begin;

const LIMIT: Duration = Duration::from_secs(180);
const KINDS: [(&str, &str, &str); 3] = [
    ("Cluster", "clusters", "Namespaced"),
    ("Component", "components", "Namespaced"),
    ("ComponentDefinition", "componentdefinitions", "Cluster"),
];

/// A definition that takes anything: what of KubeBlocks' kinds we read is in the objects.
fn definition((kind, plural, scope): (&str, &str, &str)) -> Value {
    let anything = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    json!({ "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.apps.kubeblocks.io")},
        "spec": {"group": "apps.kubeblocks.io", "scope": scope,
            "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase(), "listKind": format!("{kind}List")},
            "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": anything}}]} })
}

/// KubeBlocks' kinds, for the time of a test.
struct Served(Kubectl);

impl Served {
    fn new(cluster: &Kubectl) -> Self {
        let definitions: Vec<_> = KINDS.into_iter().map(definition).collect();
        cluster.apply(&list(&definitions).to_string()).unwrap();
        for (_, plural, _) in KINDS {
            let name = format!("crd/{plural}.apps.kubeblocks.io");
            cluster.run(&["wait", "--for=condition=Established", "--timeout=180s", &name]).unwrap();
        }
        Self(cluster.clone())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        for (_, plural, _) in KINDS {
            drop(self.0.try_run(&["delete", "crd", &format!("{plural}.apps.kubeblocks.io"), "--timeout=180s"]));
        }
    }
}

fn methods(policy: &Value) -> usize {
    policy["spec"]["backupMethods"].as_array().map_or(0, Vec::len)
}

#[test]
fn a_cluster_of_kubeblocks_gets_a_policy_and_a_schedule_and_takes_its_backups_along() {
    let (cluster, space) = begin("kubeblocks").unwrap();
    // Twice: the API goes away, and comes back.
    for round in 0..2 {
        let served = Served::new(&cluster);
        let definition = format!("{}-def-1.0", space.name);
        let template = format!("{}-{round}", space.name);
        let snapshot =
            |name: &str| json!({"name": name, "snapshotVolumes": true, "targetVolumes": {"volumes": ["data"]}});
        cluster
            .apply(
                &list(&[
                    json!({ "apiVersion": "apps.kubeblocks.io/v1", "kind": "ComponentDefinition",
                        "metadata": {"name": definition}, "spec": {} }),
                    json!({ "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "BackupPolicyTemplate",
                        "metadata": {"name": template}, "spec": {"compDefs": [format!("{}-def", space.name)],
                            "backupMethods": [snapshot("snapshot"), snapshot("other")],
                            "schedules": [{"backupMethod": "snapshot", "enabled": false, "cronExpression": "0 2 * * *"}]} }),
                ])
                .to_string(),
            )
            .unwrap();
        cluster
            .wait_for("backuppolicytemplate", &template, LIMIT, |template| {
                template["status"]["phase"] == "Available"
                    && template["status"]["matchedCompDefs"] == json!([definition])
            })
            .unwrap();
        space
            .kubectl
            .apply(
                &json!({ "apiVersion": "apps.kubeblocks.io/v1", "kind": "Cluster", "metadata": {"name": "c1"},
                    "spec": {"terminationPolicy": "WipeOut", "componentSpecs": [
                        {"name": "db", "componentDef": definition, "serviceVersion": "1.0", "replicas": 1}]} })
                .to_string(),
            )
            .unwrap();
        let policy = space
            .kubectl
            .wait_for("backuppolicy", "c1-db-backup-policy", LIMIT, |policy| methods(policy) == 2)
            .unwrap();
        let made = space.kubectl.get(&["clusters.apps.kubeblocks.io", "c1"]).unwrap();
        let uid = made["metadata"]["uid"].as_str().unwrap();
        assert_eq!(policy["spec"]["pathPrefix"], format!("/c1-{uid}/db"));
        space.kubectl.wait_for("backupschedule", "c1-db-backup-schedule", LIMIT, |_| true).unwrap();

        let wish = json!({"spec": {"backup": {"enabled": true, "method": "snapshot", "retentionPeriod": "3d"}}});
        let change = wish.to_string();
        space.kubectl.run(&["patch", "clusters.apps.kubeblocks.io", "c1", "--type=merge", "-p", &change]).unwrap();
        space
            .kubectl
            .wait_for("backupschedule", "c1-db-backup-schedule", LIMIT, |schedule| {
                let entry = &schedule["spec"]["schedules"][0];
                entry["enabled"] == true && entry["retentionPeriod"] == "3d"
            })
            .unwrap();

        space
            .kubectl
            .apply(
                &json!({ "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "Backup",
                    "metadata": {"name": "b1", "labels": {"dataprotection.kubeblocks.io/cluster-uid": uid}},
                    "spec": {"backupPolicyName": "none", "backupMethod": "none"} })
                .to_string(),
            )
            .unwrap();
        space.kubectl.run(&["delete", "clusters.apps.kubeblocks.io", "c1", "--wait=false"]).unwrap();
        space.kubectl.wait_gone("backup", "b1", LIMIT).unwrap();
        space.kubectl.wait_gone("clusters.apps.kubeblocks.io", "c1", LIMIT).unwrap();
        space.kubectl.wait_gone("backuppolicy", "c1-db-backup-policy", LIMIT).unwrap();
        cluster.run(&["delete", "backuppolicytemplate", &template]).unwrap();
        drop(served);
    }
}
