use kbbackup_api::apps::{Cluster, Component};
use kbbackup_api::names::annotations;
use kbbackup_api::v1alpha1::{
    Backup, BackupMethod, BackupPolicy, BackupPolicyTemplate, BackupSchedule, BackupType, EncryptionConfig,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::parts::{Part, parts};
use super::policy::Recipe;
use super::{delete, schedule, unmet};

fn from<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn cluster(spec: Value) -> Cluster {
    from(json!({ "apiVersion": "apps.kubeblocks.io/v1", "kind": "Cluster",
        "metadata": {"name": "c1", "namespace": "demo", "uid": "uid-1", "resourceVersion": "42"}, "spec": spec }))
}

fn template() -> BackupPolicyTemplate {
    from(json!({ "metadata": {"name": "mysql-bpt", "annotations": {
            "dataprotection.kubeblocks.io/reconfigure-ref": "{\"name\":\"cfg\"}"}},
        "spec": {"compDefs": ["^mysql-8"], "backoffLimit": 1, "retentionPolicy": "retainLatestBackup",
            "target": {"role": "secondary", "fallbackRole": "primary", "account": "kb_backup", "useParentSelectedPods": true},
            "backupMethods": [
                {"name": "xtrabackup", "actionSetName": "full", "targetVolumes": {"volumeMounts": [{"name": "data", "mountPath": "/d"}]},
                    "env": [{"name": "EMPTY", "value": "", "valueFrom": {"versionMapping": [{"serviceVersions": ["8"], "mappedValue": "no"}]}},
                        {"name": "TAG", "valueFrom": {"versionMapping": [
                            {"serviceVersions": ["8"], "mappedValue": "any"}, {"serviceVersions": ["8.0.30"], "mappedValue": "8.0"}]}},
                        {"name": "NONE", "valueFrom": {"versionMapping": [{"serviceVersions": ["5.7"], "mappedValue": "x"}]}},
                        {"name": "OF_A_LATER_KIND", "valueFrom": {"componentVarRef": {"compDef": "x", "podFQDNs": "Required"}}}]},
                {"name": "xtrabackup-inc", "compatibleMethod": "xtrabackup", "actionSetName": "inc"},
                {"name": "archive-binlog", "actionSetName": "log", "target": {"role": "primary"}},
                {"name": "volume-snapshot", "snapshotVolumes": true, "targetVolumes": {"volumes": ["data"]}}],
            "schedules": [
                {"backupMethod": "xtrabackup", "enabled": false, "cronExpression": "0 2 * * *", "retentionPeriod": "7d"},
                {"backupMethod": "xtrabackup-inc", "enabled": false, "cronExpression": "0 3 * * *"},
                {"backupMethod": "archive-binlog", "enabled": false, "cronExpression": "*/30 * * * *"},
                {"backupMethod": "volume-snapshot", "enabled": true, "cronExpression": "0 4 * * *"}]} }))
}

fn type_of(method: &BackupMethod) -> Option<BackupType> {
    match method.action_set_name.as_deref() {
        Some("full") | None => Some(BackupType::Full),
        Some("inc") => Some(BackupType::Incremental),
        Some("log") => Some(BackupType::Continuous),
        Some(_) => None,
    }
}

fn component(replicas: i32) -> Part {
    Part { name: "mysql".into(), definition: "mysql-8.0-1".into(), version: "8.0.30".into(), replicas, shards: None }
}

fn sharding(shards: &[&str]) -> Part {
    let shards = Some(shards.iter().map(|shard| (*shard).to_owned()).collect());
    Part { name: "shard".into(), replicas: 2, shards, ..component(2) }
}

fn policy(cluster: &Cluster, part: &Part, existing: Option<&BackupPolicy>) -> BackupPolicy {
    Recipe { cluster, part, template: &template(), encryption: None }.policy(existing)
}

fn scheduled(cluster: &Cluster, existing: Option<&BackupSchedule>) -> Option<BackupSchedule> {
    let (template, part) = (template(), component(2));
    let recipe = Recipe { cluster, part: &part, template: &template, encryption: None };
    schedule::schedule(&recipe, &recipe.policy(None), existing, &type_of)
}

/// The entries as `method enabled cron retention`.
fn entries(schedule: &BackupSchedule) -> Vec<String> {
    let entry = |entry: &kbbackup_api::v1alpha1::SchedulePolicy| {
        let enabled = entry.enabled.map_or("-", |on| if on { "on" } else { "off" });
        let keep = entry.retention_period.as_deref().unwrap_or("-");
        format!("{} {enabled} {} {keep}", entry.backup_method, entry.cron_expression)
    };
    schedule.spec.schedules.iter().map(entry).collect()
}

#[test]
fn behaviour_3_6_policy_of_a_component() {
    insta::assert_yaml_snapshot!(policy(&cluster(json!({ "backup": {"repoName": "main"} })), &component(2), None));
}

#[test]
fn behaviour_3_6_policy_of_a_sharding() {
    let policy = policy(&cluster(json!({})), &sharding(&["shard-a", "shard-b"]), None);
    insta::assert_yaml_snapshot!((policy.metadata.labels, policy.spec.targets, &policy.spec.backup_methods[2].targets));
}

#[test]
fn behaviour_3_6_schedule_of_a_component() {
    insta::assert_yaml_snapshot!(scheduled(&cluster(json!({})), None).unwrap());
}

#[test]
fn behaviour_3_6_long_names_keep_a_hash() {
    let mut cluster = cluster(json!({}));
    cluster.metadata.name = Some("c".repeat(60));
    let template = template();
    let part = component(1);
    let recipe = Recipe { cluster: &cluster, part: &part, template: &template, encryption: None };
    assert!(recipe.policy_name().len() <= 63 && recipe.schedule_name().len() <= 63);
    assert_ne!(recipe.policy_name(), recipe.schedule_name());
}

#[test]
fn behaviour_3_6_a_single_replica_has_no_role() {
    let cluster = cluster(json!({}));
    let selector = |policy: &BackupPolicy| policy.spec.target.clone().unwrap().pod_selector.unwrap();
    let single = policy(&cluster, &component(1), None);
    assert!(!selector(&single).match_labels.contains_key("kubeblocks.io/role"));
    let several = policy(&cluster, &component(3), Some(&single));
    assert_eq!(selector(&several).match_labels["kubeblocks.io/role"], "secondary");
    assert!(selector(&several).fallback_label_selector.is_some());
    assert_eq!(policy(&cluster, &component(1), Some(&several)).spec.target, single.spec.target);
}

#[test]
fn behaviour_3_6_a_second_look_changes_nothing() {
    let cluster = cluster(json!({ "backup": {"enabled": true, "method": "xtrabackup", "pitrEnabled": true} }));
    for part in [component(1), component(2), sharding(&["shard-a"])] {
        let first = policy(&cluster, &part, None);
        assert_eq!(policy(&cluster, &part, Some(&first)), first);
    }
    let first = scheduled(&cluster, None).unwrap();
    assert_eq!(scheduled(&cluster, Some(&first)), Some(first));
}

#[test]
fn behaviour_3_6_what_people_changed() {
    let cluster = cluster(json!({}));
    let mut edited = policy(&cluster, &component(2), None);
    edited.spec.backup_methods.truncate(1);
    edited.spec.backoff_limit = Some(5);
    edited.spec.backup_repo_name = Some("mine".into());
    edited.spec.target.as_mut().unwrap().service_account_name = Some("mine".into());
    edited.metadata.annotations.as_mut().unwrap().insert("mine".into(), "stays".into());
    let again = policy(&cluster, &component(2), Some(&edited));
    assert_eq!(again.spec.backup_methods.len(), 4, "methods follow the template");
    assert_eq!((again.spec.backoff_limit, again.spec.backup_repo_name.as_deref()), (Some(5), Some("mine")));
    assert_eq!(again.spec.target, edited.spec.target, "a target stays");
    assert_eq!(again.metadata.annotations.as_ref().unwrap()["mine"], "stays");
    let note = (annotations::DISABLE_SYNC_FROM_TEMPLATE.to_owned(), "true".to_owned());
    edited.metadata.annotations.as_mut().unwrap().extend([note]);
    assert_eq!(policy(&cluster, &component(2), Some(&edited)).spec, edited.spec);
}

#[test]
fn behaviour_3_6_encryption_of_the_settings() {
    let (cluster, template, part) = (cluster(json!({})), template(), component(1));
    let encryption: EncryptionConfig =
        from(json!({ "algorithm": "AES-256-CFB", "passPhraseSecretKeyRef": {"name": "s", "key": "k"} }));
    let recipe = Recipe { cluster: &cluster, part: &part, template: &template, encryption: Some(&encryption) };
    assert_eq!(recipe.policy(None).spec.encryption_config, Some(encryption.clone()));
}

#[test]
fn behaviour_3_6_shards_come_and_go_and_known_targets_stay() {
    let cluster = cluster(json!({}));
    let mut two = policy(&cluster, &sharding(&["shard-a", "shard-b"]), None);
    two.spec.targets[0].service_account_name = Some("mine".into());
    let next = policy(&cluster, &sharding(&["shard-a", "shard-c"]), Some(&two));
    let names: Vec<_> = next.spec.targets.iter().filter_map(|target| target.name.as_deref()).collect();
    assert_eq!(names, ["shard-a", "shard-c"]);
    assert_eq!(next.spec.targets[0].service_account_name.as_deref(), Some("mine"));
}

#[test]
fn behaviour_3_6_automatic_backups_of_the_cluster() {
    let wish = json!({ "enabled": true, "method": "xtrabackup", "retentionPeriod": "3d", "cronExpression": "0 1 * * *",
        "startingDeadlineMinutes": 10, "incrementalBackupEnabled": true, "incrementalCronExpression": "0 * * * *" });
    let schedule = scheduled(&cluster(json!({ "backup": wish })), None).unwrap();
    assert_eq!(
        entries(&schedule),
        [
            "xtrabackup on 0 1 * * * 3d",
            "xtrabackup-inc on 0 * * * * -",
            "archive-binlog off */30 * * * * -",
            "volume-snapshot off 0 4 * * * -"
        ]
    );
    assert_eq!(schedule.spec.starting_deadline_minutes, Some(10));
}

#[test]
fn behaviour_3_6_increments_of_another_method_are_switched_off() {
    let mut before = scheduled(&cluster(json!({})), None).unwrap();
    before.spec.schedules[1].enabled = Some(true);
    let wish = json!({ "enabled": true, "method": "volume-snapshot", "incrementalBackupEnabled": true });
    let schedule = scheduled(&cluster(json!({ "backup": wish })), Some(&before)).unwrap();
    assert_eq!(entries(&schedule)[1], "xtrabackup-inc off 0 3 * * * -");
}

#[test]
fn behaviour_3_6_points_in_time() {
    let with = |wish: Value| entries(&scheduled(&cluster(json!({ "backup": wish })), None).unwrap())[2].clone();
    assert_eq!(with(json!({ "pitrEnabled": true, "retentionPeriod": "8d" })), "archive-binlog on */30 * * * * 8d");
    assert_eq!(with(json!({ "pitrEnabled": false })), "archive-binlog off */30 * * * * -");
    let other = json!({ "pitrEnabled": true, "continuousMethod": "none" });
    assert_eq!(with(other), "archive-binlog off */30 * * * * -", "not the one that was named");
}

#[test]
fn behaviour_3_6_an_entry_that_only_the_cluster_asks_for() {
    let mut bare = template();
    bare.spec.schedules.clear();
    let part = component(1);
    let look = |wish: Value| {
        let cluster = cluster(json!({ "backup": wish }));
        let recipe = Recipe { cluster: &cluster, part: &part, template: &bare, encryption: None };
        schedule::schedule(&recipe, &recipe.policy(None), None, &type_of).map(|schedule| entries(&schedule))
    };
    assert_eq!(look(Value::Null), None, "nothing to schedule");
    assert_eq!(look(json!({ "enabled": false, "method": "xtrabackup" })), None);
    assert_eq!(look(json!({ "enabled": true, "method": "xtrabackup" })).unwrap(), ["xtrabackup on 0 18 * * * -"]);
    assert_eq!(look(json!({ "enabled": true, "method": "other" })), None);
}

#[test]
fn behaviour_3_6_only_new_entries_are_added_later() {
    let cluster = cluster(json!({}));
    let mut existing = scheduled(&cluster, None).unwrap();
    existing.spec.schedules.remove(1);
    existing.spec.schedules[0].cron_expression = "5 5 * * *".into();
    let again = scheduled(&cluster, Some(&existing)).unwrap();
    assert_eq!(entries(&again)[0], "xtrabackup off 5 5 * * * 7d");
    assert!(entries(&again)[3].starts_with("xtrabackup-inc off"));
}

#[test]
fn behaviour_3_6_a_wish_that_nobody_can_meet_is_told() {
    let wish = cluster(json!({ "backup": {"enabled": true, "method": "dump"} }));
    assert_eq!(unmet(&wish, &[]).unwrap().0.as_str(), "BackupPolicyNotFound");
    let methods = vec![vec![BackupMethod { name: "xtrabackup".into(), ..BackupMethod::default() }]];
    let (reason, why) = unmet(&wish, &methods).unwrap();
    assert_eq!(reason.as_str(), "BackupMethodNotFound");
    assert!(why.contains("xtrabackup"), "{why}");
    assert!(unmet(&cluster(json!({})), &[]).is_none());
}

#[test]
fn behaviour_3_6_what_runs_resolves_what_the_cluster_says() {
    let cluster = cluster(
        json!({ "componentSpecs": [{"name": "mysql", "componentDef": "mysql-8", "replicas": 3}, {"name": "proxy"}],
        "shardings": [{"name": "shard", "shards": 2, "template": {"componentDef": "redis"}}] }),
    );
    let running = |name: &str, labels: Value, def: &str| -> Component {
        from(
            json!({ "metadata": {"name": name, "labels": labels}, "spec": {"compDef": def, "serviceVersion": "8.0.30", "replicas": 1} }),
        )
    };
    let shard = |name: &str| {
        running(
            &format!("c1-{name}"),
            json!({"apps.kubeblocks.io/sharding-name": "shard", "apps.kubeblocks.io/component-name": name}),
            "redis-7",
        )
    };
    let found = parts(&cluster, &[running("c1-mysql", json!({}), "mysql-8.0-1"), shard("shard-b"), shard("shard-a")]);
    assert_eq!(
        (found[0].definition.as_str(), found[0].version.as_str(), found[0].replicas),
        ("mysql-8.0-1", "8.0.30", 3)
    );
    assert_eq!((found[1].definition.as_str(), found[1].replicas), ("", 1));
    assert_eq!(found[2].definition, "redis-7");
    assert_eq!(found[2].shards.as_deref().unwrap(), ["shard-a", "shard-b"]);
    let template = template();
    assert!(found[0].template(&[&template]).is_some() && found[1].template(&[&template]).is_none());
}

#[test]
fn a_template_that_gives_way_counts_only_where_there_is_no_other() {
    let addon = template();
    let mut ours = template();
    ours.metadata.name = Some("kbb-mysql".into());
    ours.metadata.annotations = Some([(annotations::GIVES_WAY.to_owned(), "true".to_owned())].into());
    let chosen = |templates: &[&BackupPolicyTemplate]| component(1).template(templates).unwrap().metadata.name.clone();
    assert_eq!(chosen(&[&ours, &addon]).as_deref(), Some("mysql-bpt"));
    assert_eq!(chosen(&[&ours]).as_deref(), Some("kbb-mysql"));
}

#[test]
fn behaviour_4_15_which_backups_go_with_their_cluster() {
    let backup = |name: &str, labels: Value, phase: &str, policy: &str| -> Backup {
        from(json!({ "metadata": {"name": name, "namespace": "demo", "labels": labels}, "status": {"phase": phase},
            "spec": {"backupPolicyName": "p", "backupMethod": "m", "deletionPolicy": policy} }))
    };
    let uid = |uid: &str| json!({"dataprotection.kubeblocks.io/cluster-uid": uid, "app.kubernetes.io/instance": "c1"});
    let continuous = json!({"dataprotection.kubeblocks.io/cluster-uid": "uid-1", "dataprotection.kubeblocks.io/backup-type": "Continuous"});
    let backups = [
        backup("done", uid("uid-1"), "Completed", "Delete"),
        backup("failed", uid("uid-1"), "Failed", "Delete"),
        backup("kept", uid("uid-1"), "Completed", "Retain"),
        backup("before", uid("uid-0"), "Failed", "Delete"),
        backup("by-name", json!({"app.kubernetes.io/instance": "c1"}), "Failed", "Delete"),
        backup("other", json!({"app.kubernetes.io/instance": "c2"}), "Failed", "Delete"),
        backup("log", continuous, "Failed", "Delete"),
    ];
    let mut elsewhere = backup("elsewhere", uid("uid-1"), "Failed", "Delete");
    elsewhere.metadata.namespace = Some("other".into());
    let all: Vec<_> = backups.iter().chain([&elsewhere]).collect();
    let doomed = |policy: &str| -> Vec<String> {
        let cluster = cluster(json!({ "terminationPolicy": policy }));
        delete::doomed(&cluster, &all).iter().filter_map(|backup| backup.metadata.name.clone()).collect()
    };
    assert_eq!(doomed("WipeOut"), ["done", "failed", "by-name", "log"]);
    assert_eq!(doomed("Delete"), ["failed", "by-name"]);
}

#[test]
fn behaviour_4_10_a_cluster_that_is_being_restored() {
    let with = |conditions: Value, restore: Value| {
        let mut cluster = cluster(json!({ "restore": restore }));
        cluster.status = Some(from(json!({ "conditions": conditions })));
        cluster.is_being_restored()
    };
    let condition = |status: &str| json!([{"type": "Restore", "status": status, "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    assert!(with(json!([]), json!({})) && with(condition("Unknown"), json!({})));
    assert!(!with(condition("True"), json!({})) && !with(condition("False"), json!({})));
    assert!(!with(json!([]), Value::Null));
}
