//! What becomes of a KubeBlocks Cluster by the templates that are shipped: a sound policy and schedule for each engine.

use std::collections::BTreeMap;
use std::path::Path;

use kbbackup_api::apps::Cluster;
use kbbackup_api::v1alpha1::{ActionSet, Availability, BackupMethod, BackupPolicyTemplate, BackupType};
use rstest::rstest;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::parts::parts;
use super::policy::Recipe;
use super::schedule;
use crate::policy_template;

fn shipped<T: DeserializeOwned>(folder: &str) -> BTreeMap<String, T> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(folder);
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let value = serde_norway::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            found.insert(path.file_stem().unwrap().to_string_lossy().into_owned(), value);
        }
    }
    found
}

#[test]
fn every_template_is_available_beside_the_shipped_action_sets() {
    let sets: BTreeMap<String, ActionSet> = shipped("actionsets");
    let sets: Vec<_> = sets.values().collect();
    let templates: BTreeMap<String, BackupPolicyTemplate> = shipped("policytemplates");
    assert!(!templates.is_empty());
    for (name, template) in templates {
        assert_eq!(policy_template::check(&template.spec, &sets), (Availability::Available, None), "{name}");
    }
}

/// Policy and schedule of a Cluster whose `spec.backup` switches on whatever the engine has.
#[rstest]
#[case("postgres", "postgresql-17-1.0.0", "17.5.0", json!({"method": "full", "pitrEnabled": true, "incrementalBackupEnabled": true}))]
#[case("mariadb", "mariadb-10.11-1.0.0", "10.11.8", json!({"method": "full", "incrementalBackupEnabled": true}))]
#[case("mysql", "mysql-8.4-1.0.0", "8.4.2", json!({"method": "full"}))]
#[case("redis", "redis-7-1.0.0", "7.2.7", json!({"method": "full"}))]
#[case("mongodb", "mongodb-7-1.0.0", "7.0.12", json!({"method": "full"}))]
#[case("etcd", "etcd-3-1.0.0", "3.5.15", json!({"method": "volume-snapshot"}))]
fn a_cluster_gets_policy_and_schedule(
    #[case] engine: &str,
    #[case] definition: &str,
    #[case] version: &str,
    #[case] mut wish: Value,
) {
    wish["enabled"] = json!(true);
    wish["cronExpression"] = json!("30 1 * * *");
    wish["retentionPeriod"] = json!("14d");
    let cluster: Cluster = serde_json::from_value(json!({ "apiVersion": "apps.kubeblocks.io/v1", "kind": "Cluster",
        "metadata": {"name": "c1", "namespace": "demo", "uid": "uid-1", "resourceVersion": "42"},
        "spec": {"backup": wish, "componentSpecs": [
            {"name": "db", "componentDef": definition, "serviceVersion": version, "replicas": 2}]} }))
    .unwrap();
    let templates: BTreeMap<String, BackupPolicyTemplate> = shipped("policytemplates");
    let templates: Vec<_> = templates.values().collect();
    let part = parts(&cluster, &[]).remove(0);
    let template = part.template(&templates).expect("one is for the component");
    let recipe = Recipe { cluster: &cluster, part: &part, template, encryption: None };
    let policy = recipe.policy(None);
    let sets: BTreeMap<String, ActionSet> = shipped("actionsets");
    let type_of = |method: &BackupMethod| -> Option<BackupType> {
        let Some(name) = &method.action_set_name else { return Some(BackupType::Full) };
        Some(sets[name].spec.backup_type)
    };
    let schedule = schedule::schedule(&recipe, &policy, None, &type_of).expect("there is something to schedule");
    insta::with_settings!({snapshot_suffix => engine}, {
        insta::assert_yaml_snapshot!((policy.metadata.name, policy.spec, schedule.metadata.name, schedule.spec));
    });
}
