//! The contract's fine print about backups, point by point: behaviour 4.3 to 4.14.

use kbbackup_api::names::{annotations, labels};
use kbbackup_api::v1alpha1::{ActionSet, Backup, BackupPhase, BackupStatus};
use kube::ResourceExt as _;
use rstest::rstest;
use serde_json::{Value, json};

use super::build::{self, Site};
use super::decide;
use super::expire::{self, Verdict};
use super::observe::{Graph, Parent};
use super::tests::{backup, from, graph, ingredients, now, pod, started};
use crate::cluster::record::Record;
use crate::worker::repo::Way;
use crate::worker::settings;

fn begun(backup: &Backup, graph: &Graph) -> decide::Begin {
    decide::begin(backup, graph, &settings(), now()).unwrap()
}

#[test]
fn behaviour_4_3_12_somebody_s_own_managed_by_stays() {
    let mut own = backup();
    own.labels_mut().insert(labels::MANAGED_BY.to_owned(), "argocd".to_owned());
    let set = begun(&own, &graph("Any", &["pg-0"])).labels;
    assert!(!set.contains_key(labels::MANAGED_BY));
    assert_eq!(set[labels::INSTANCE], "c1", "of the first pod of the last target");
}

#[test]
fn behaviour_4_3_14_a_mounted_repository_names_its_claim_and_kopia_its_place() {
    let mut graph = graph("Any", &["pg-0"]);
    graph.repo = Some(from(json!({"metadata": {"name": "main"}, "spec": {"storageProviderRef": "nfs",
        "accessMethod": "Mount", "pvReclaimPolicy": "Retain", "pathPrefix": "prod"}, "status": {"backupPVCName": "claim"}})));
    graph.way = Some(Way::Mount { claim: "claim".into() });
    graph.policy.spec.use_kopia = Some(true);
    let status = begun(&backup(), &graph).status;
    assert_eq!(status.persistent_volume_claim_name.as_deref(), Some("claim"));
    assert_eq!(status.kopia_repo_path.as_deref(), Some("/prod/demo/c1/pg/kopia"));
    assert_eq!(status.format_version.as_deref(), Some("0.1.0"));
}

#[test]
fn behaviour_4_3_14_a_child_has_the_encryption_of_its_parent_even_if_that_has_none() {
    let mut graph = graph("Any", &["pg-0"]);
    assert!(begun(&backup(), &graph).status.encryption_config.is_some(), "the policy's");
    graph.parent = Some(Parent { name: "i1".into(), base: "f".into(), encryption: None, targets: vec![] });
    let status = begun(&backup(), &graph).status;
    assert_eq!(status.encryption_config, None);
    assert_eq!((status.parent_backup_name.as_deref(), status.base_backup_name.as_deref()), (Some("i1"), Some("f")));
}

/// The env of the main container of `dp-backup-…`, by a backup that was changed before it was built.
fn env(change: impl FnOnce(&mut Backup, &mut BackupStatus, &mut super::observe::Ingredients)) -> Vec<(String, Value)> {
    let (mut backup, mut status) = started("Any", &["pg-0"]);
    let mut ingredients = ingredients(&["pg-0"]);
    change(&mut backup, &mut status, &mut ingredients);
    let name =
        status.actions.iter().filter_map(|action| action.name.clone()).find(|name| name.starts_with("dp-backup"));
    let site = Site { backup: &backup, status: &status, ingredients: &ingredients, settings: &settings() };
    let job = serde_json::to_value(site.job(&name.unwrap(), "").unwrap()).unwrap();
    let list = job["spec"]["template"]["spec"]["containers"][0]["env"].as_array().unwrap().clone();
    list.iter().map(|entry| (entry["name"].as_str().unwrap().to_owned(), entry["value"].clone())).collect()
}

#[test]
fn behaviour_4_7_group_7_only_for_what_builds_on_another() {
    let list = env(|backup, status, _| {
        backup.labels_mut().insert(labels::CLUSTER_UID.to_owned(), "cluster-uid".to_owned());
        status.parent_backup_name = Some("i1".into());
        status.base_backup_name = Some("f".into());
    });
    let from = list.iter().position(|(name, _)| name == "KB_CLUSTER_UID").unwrap();
    let told: Vec<_> =
        list[from..].iter().take(9).map(|(name, value)| format!("{name}={}", value.as_str().unwrap())).collect();
    assert_eq!(
        told,
        [
            "KB_CLUSTER_UID=cluster-uid",
            "KB_CLUSTER_NAME=c1",
            "KB_COMP_NAME=mysql",
            "KB_NAMESPACE=demo",
            "DP_PARENT_BACKUP_NAME=i1",
            "DP_BASE_BACKUP_NAME=f",
            "DP_TARGET_RELATIVE_PATH=",
            "DP_BACKUP_ROOT_PATH=/prod/demo/c1/pg",
            "EXTRA=x",
        ]
    );
    let alone = env(|_, _, _| {});
    assert!(alone.iter().all(|(name, _)| name != "DP_PARENT_BACKUP_NAME" && name != "DP_BACKUP_ROOT_PATH"));
}

#[test]
fn behaviour_4_7_of_equal_names_the_later_wins_and_the_method_replaces_the_last() {
    let list = env(|backup, status, ingredients| {
        let target = ingredients.pods.get_mut("pg-0").unwrap();
        let own = from(
            json!([{"name": "X", "value": "pod"}, {"name": "Y", "value": "pod"}, {"name": "DP_TTL", "value": "pod"}]),
        );
        target.spec.as_mut().unwrap().containers[0].env = Some(own);
        ingredients.action_set.spec.env = from(
            json!([{"name": "X", "value": "set"}, {"name": "Y", "value": "set"}, {"name": "DP_TTL", "value": "set"}]),
        );
        backup.spec.parameters = from(json!([{"name": "X", "value": "parameter"}]));
        status.backup_method.as_mut().unwrap().env =
            from(json!([{"name": "X", "value": "method"}, {"name": "NEW", "value": "method"}]));
    });
    let values = |wanted: &str| -> Vec<String> {
        list.iter().filter(|(name, _)| name == wanted).map(|(_, value)| value.as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(values("X"), ["pod", "set", "method"], "in place of the parameter, which was the last");
    assert_eq!(values("Y"), ["pod", "set"], "nothing is taken out");
    assert_eq!(values("DP_TTL"), ["pod", "7d", "set"]);
    assert_eq!(values("NEW"), ["method"]);
    let place = |wanted: &str| list.iter().rposition(|(name, _)| name == wanted).unwrap();
    assert!(place("X") < place("KB_NAMESPACE") && place("KB_NAMESPACE") < place("NEW"));
}

#[test]
fn behaviour_4_5_the_data_path_of_a_pod_of_a_named_target() {
    let mut graph = graph("All", &["c1-shard-a-0", "c1-shard-a-1"]);
    graph.targets[0].0.name = Some("shard-a".into());
    graph.several = true;
    let status = begun(&backup(), &graph).status;
    assert_eq!(status.path.as_deref(), Some("/prod/demo/c1/pg/b1"));
    let found = ingredients(&["c1-shard-a-0", "c1-shard-a-1"]);
    let (backup, settings) = (backup(), settings());
    let site = Site { backup: &backup, status: &status, ingredients: &found, settings: &settings };
    let job = serde_json::to_value(site.job("dp-backup-shard-a-1", "").unwrap()).unwrap();
    assert_eq!(job["metadata"]["name"], "dp-backup-shard-a-1-b1-6f1c2d3e");
    let list = job["spec"]["template"]["spec"]["containers"][0]["env"].as_array().unwrap();
    let value = |wanted: &str| list.iter().find(|entry| entry["name"] == wanted).unwrap()["value"].clone();
    assert_eq!(value("DP_BACKUP_BASE_PATH"), "/prod/demo/c1/pg/b1/shard-a/c1-shard-a-1");
    assert_eq!(value("DP_TARGET_POD_NAME"), "c1-shard-a-1");
}

/// The pod of `dp-backup-0`, with an ActionSet, target and settings that were changed before.
fn data_pod(change: impl FnOnce(&mut ActionSet, &mut BackupStatus, &mut crate::settings::Settings)) -> Value {
    let (backup, mut status) = started("Any", &["pg-0"]);
    let (mut ingredients, mut settings) = (ingredients(&["pg-0"]), settings());
    change(&mut ingredients.action_set, &mut status, &mut settings);
    let site = Site { backup: &backup, status: &status, ingredients: &ingredients, settings: &settings };
    serde_json::to_value(site.job("dp-backup-0", "").unwrap()).unwrap()["spec"]["template"]["spec"].clone()
}

#[test]
fn behaviour_4_8_1_elsewhere_than_beside_the_target_pod() {
    let pod = data_pod(|set, _, settings| {
        set.spec.backup.as_mut().unwrap().backup_data.as_mut().unwrap().job.run_on_target_pod_node = Some(false);
        settings.tolerations = from(json!([{"key": "backup", "operator": "Exists"}]));
        settings.node_selector = [("disk".to_owned(), "slow".to_owned())].into();
        settings.affinity = Some(from(json!({"nodeAffinity": {}})));
    });
    assert_eq!(pod["tolerations"], json!([{"key": "backup", "operator": "Exists"}]));
    assert_eq!(pod["nodeSelector"], json!({"disk": "slow"}));
    assert_eq!(pod["affinity"], json!({"nodeAffinity": {}}));
    let volumes: Vec<_> = pod["volumes"].as_array().unwrap().iter().map(|volume| volume["name"].clone()).collect();
    assert_eq!(volumes, ["manager-shared-volume", "dp-datasafed-config", "dp-datasafed-bin"], "none of the target's");
}

#[test]
fn behaviour_4_8_1_the_account_that_the_target_names() {
    let pod = data_pod(|_, status, _| status.target.as_mut().unwrap().target.service_account_name = Some("own".into()));
    assert_eq!((&pod["serviceAccountName"], &pod["automountServiceAccountToken"]), (&json!("own"), &json!(true)));
}

#[rstest]
#[case::unset(json!(null))]
#[case::off(json!({"enabled": false, "intervalSeconds": 60}))]
fn behaviour_4_8_2_the_side_car_is_beside_backup_data_whatever_sync_progress_says(#[case] progress: Value) {
    let pod = data_pod(|set, _, _| {
        let data = set.spec.backup.as_mut().unwrap().backup_data.as_mut().unwrap();
        data.sync_progress = serde_json::from_value(progress).unwrap();
    });
    let side_cars = pod["initContainers"].as_array().unwrap();
    let manager = side_cars.iter().find(|container| container["name"] == "manager").unwrap();
    let main = &pod["containers"][0];
    assert_eq!(main["name"], "backupdata");
    for part in ["env", "envFrom", "volumeMounts", "securityContext"] {
        assert_eq!(manager[part], main[part], "a copy of the main container: {part}");
    }
    assert_eq!(manager["restartPolicy"], "Always", "it outlives the script, and ends with it");
}

#[rstest]
#[case::completed("Completed", "Full", Some("2026-08-21T00:00:00Z"), Some("2026-08-28T00:00:00Z"))]
#[case::failed("Failed", "Full", Some("2026-08-21T00:00:00Z"), Some("2026-08-27T03:00:00Z"))]
#[case::forever("Completed", "", Some("2026-08-21T00:00:00Z"), None)]
#[case::zero("Completed", "0d", Some("2026-08-21T00:00:00Z"), None)]
fn behaviour_4_12_expiration(
    #[case] phase: &str,
    #[case] period: &str,
    #[case] at: Option<&str>,
    #[case] wanted: Option<&str>,
) {
    let (mut backup, mut status) = started("Any", &["pg-0"]);
    backup.spec.retention_period = Some(if period == "Full" { "7d" } else { period }.to_owned());
    status.expiration = None;
    let at = at.unwrap().parse().unwrap();
    let status = match phase {
        "Completed" => decide::completed(&backup, &status, at),
        _ => decide::failed(&backup, &status, "why", at),
    };
    let found = serde_json::to_value(&status.expiration).unwrap();
    assert_eq!(found.as_str(), wanted);
}

#[test]
fn behaviour_4_12_what_is_set_stays_when_the_backup_fails() {
    let (mut backup, status) = started("Any", &["pg-0"]);
    assert_eq!(serde_json::to_value(&status.expiration).unwrap(), "2026-08-27T03:00:00Z", "from its start");
    backup.spec.retention_period = Some("1d".into());
    let failed = decide::failed(&backup, &status, "why", now());
    assert_eq!(failed.expiration, status.expiration);
}

#[test]
fn behaviour_4_13_the_newest_of_the_same_cluster_policy_and_method_is_spared() {
    let expired = |name: &str, method: &str, uid: &str, end: &str| -> Backup {
        from(
            json!({"metadata": {"name": name, "namespace": "demo", "labels": {labels::BACKUP_TYPE: "Full", labels::CLUSTER_UID: uid}},
            "spec": {"backupPolicyName": "p", "backupMethod": method},
            "status": {"phase": "Completed", "completionTimestamp": end, "expiration": "2026-02-01T00:00:00Z"}}),
        )
    };
    let policy = from(
        json!({"metadata": {"name": "p"}, "spec": {"backupMethods": [], "retentionPolicy": "retainLatestBackup"}}),
    );
    let kept = |of: &Backup, others: &[&Backup]| {
        let all: Vec<_> = others.iter().copied().chain([of]).collect();
        expire::judge(of, Some(&policy), &all, false, now()) != Verdict::Remove
    };
    let old = expired("old", "full", "u1", "2026-01-01T00:00:00Z");
    assert!(!kept(&old, &[&expired("new", "full", "u1", "2026-01-02T00:00:00Z")]));
    for other in [
        expired("new", "other", "u1", "2026-01-02T00:00:00Z"),
        expired("new", "full", "u2", "2026-01-02T00:00:00Z"),
        expired("older", "full", "u1", "2025-12-31T00:00:00Z"),
        expired("a", "full", "u1", "2026-01-01T00:00:00Z"),
    ] {
        assert!(kept(&old, &[&other]), "{}", other.name_any());
    }
    let twin = expired("z", "full", "u1", "2026-01-01T00:00:00Z");
    assert!(!kept(&old, &[&twin]), "of two that end together the greater name is the newer one");
}

fn pre_delete(
    status: &BackupStatus,
    pods: &[Option<k8s_openapi::api::core::v1::Pod>],
) -> Vec<k8s_openapi::api::batch::v1::Job> {
    let (backup, ingredients) = (started("Any", &["pg-0"]).0, ingredients(&[]));
    let mut set = ingredients.action_set.spec;
    set.backup.as_mut().unwrap().pre_delete = Some(from(json!({"image": "pg:$(TAG)", "command": ["forget"]})));
    build::pre_delete(&backup, status, &set, pods, &ingredients.access.unwrap(), &settings()).unwrap()
}

#[test]
fn behaviour_4_14_pre_delete_job() {
    let (_, status) = started("Any", &["pg-0"]);
    let jobs = pre_delete(&status, &[Some(pod("pg-0"))]);
    assert_eq!(jobs.len(), 1);
    insta::assert_yaml_snapshot!(jobs[0]);
    let gone = serde_json::to_value(&pre_delete(&status, &[None])[0]).unwrap();
    let list = gone["spec"]["template"]["spec"]["containers"][0]["env"].as_array().unwrap();
    let names: Vec<_> = list.iter().map(|entry| entry["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "KBB_IMAGE",
            "DP_BACKUP_BASE_PATH",
            "DP_BACKUP_NAME",
            "TAG",
            "TAG",
            "EXTRA",
            "DP_DATASAFED_BIN_PATH",
            "DATASAFED_ENCRYPTION_ALGORITHM",
            "DATASAFED_ENCRYPTION_PASS_PHRASE"
        ],
        "without the database neither its env nor its address; the method's env is appended, not merged"
    );
}

#[test]
fn behaviour_4_14_one_pre_delete_job_per_target() {
    let mut graph = graph("Any", &["pg-0"]);
    let mut second = graph.targets[0].clone();
    (graph.targets[0].0.name, second.0.name) = (Some("shard-a".into()), Some("shard-b".into()));
    graph.targets.push(second);
    graph.several = true;
    let jobs = pre_delete(&begun(&backup(), &graph).status, &[None, None]);
    let path = |job: &k8s_openapi::api::batch::v1::Job| {
        let env = job.spec.clone().unwrap().template.spec.unwrap().containers[0].env.clone().unwrap();
        env.into_iter().find(|entry| entry.name == "DP_BACKUP_BASE_PATH").unwrap().value.unwrap()
    };
    let told: Vec<_> = jobs.iter().map(|job| (job.name_any(), path(job))).collect();
    assert_eq!(
        told,
        [
            ("6f1c2d3e-predelete-0-shard-a-b1".to_owned(), "/prod/demo/c1/pg/b1/shard-a".to_owned()),
            ("6f1c2d3e-predelete-1-shard-b-b1".to_owned(), "/prod/demo/c1/pg/b1/shard-b".to_owned())
        ]
    );
}

#[test]
fn behaviour_7_2_cluster_and_accounts_are_noted_once_and_kept() {
    let mut graph = graph("Any", &["pg-0"]);
    graph.cluster = Some(Record { uid: "u1".into(), snapshot: "{\"spec\":{}}".into(), accounts: "{}".into() });
    let begin = begun(&backup(), &graph);
    assert_eq!(begin.labels[labels::CLUSTER_UID], "u1");
    assert_eq!(begin.annotations[annotations::CLUSTER_SNAPSHOT], "{\"spec\":{}}");
    assert_eq!(begin.annotations[annotations::ENCRYPTED_SYSTEM_ACCOUNTS], "{}");
    let mut again = backup();
    again.annotations_mut().insert(annotations::ENCRYPTED_SYSTEM_ACCOUNTS.to_owned(), "sealed before".to_owned());
    let begin = begun(&again, &graph);
    assert!(!begin.annotations.contains_key(annotations::ENCRYPTED_SYSTEM_ACCOUNTS), "what a try before wrote stays");
    // What the seal stores beside the data, and so what an import brings back, has them too.
    let mut whole = backup();
    whole.annotations_mut().insert(annotations::CLUSTER_SNAPSHOT.to_owned(), "{}".to_owned());
    let (ingredients, status) = (ingredients(&["pg-0"]), begun(&backup(), &graph).status);
    let site = Site { backup: &whole, status: &status, ingredients: &ingredients, settings: &settings() };
    let job = site.job("dp-seal", "").unwrap();
    let text = job.spec.unwrap().template.metadata.unwrap().annotations.unwrap()["kbbackup.io/backup"].clone();
    let stored: Backup = serde_json::from_str(&text).unwrap();
    assert!(stored.annotations().contains_key(annotations::CLUSTER_SNAPSHOT));
    assert_eq!(stored.status.unwrap().phase, Some(BackupPhase::Running), "behaviour 4.8.2: the copy says Running");
}

#[rstest]
#[case::before("dp-prebackup-0-0")]
#[case::data("dp-backup-0")]
#[case::after("dp-postbackup-0-0")]
fn behaviour_9_what_is_declared_without_effect_changes_no_job(#[case] name: &str) {
    let built = |declared: bool| {
        let (backup, mut status) = started("Any", &["pg-0"]);
        let mut ingredients = ingredients(&["pg-0"]);
        if declared {
            let mut set = serde_json::to_value(&ingredients.action_set).unwrap();
            let actions = &mut set["spec"]["backup"];
            actions["preBackup"][0]["exec"]["onError"] = json!("Continue");
            actions["postBackup"][0]["job"]["onError"] = json!("Continue");
            actions["backupData"]["onError"] = json!("Continue");
            actions["backupData"]["syncProgress"] = json!({ "enabled": true });
            ingredients.action_set = from(set);
            let target = status.target.as_mut().unwrap();
            let mut with = serde_json::to_value(&target.target).unwrap();
            with["resources"] = json!({ "included": ["secrets"] });
            target.target = from(with);
        }
        let site = Site { backup: &backup, status: &status, ingredients: &ingredients, settings: &settings() };
        let mut job = serde_json::to_value(site.job(name, "").unwrap()).unwrap();
        // The whole object goes along as a text.
        job["spec"]["template"]["metadata"]["annotations"].take();
        job
    };
    let plain = built(false);
    assert_eq!(built(true), plain);
    for never in ["DP_DB_ENDPOINT", "DP_TIME_ZONE"] {
        assert!(!plain.to_string().contains(never), "{never}");
    }
}

#[rstest]
#[case::exec("dp-prebackup-0-0", true)]
#[case::data("dp-backup-0", false)]
#[case::job("dp-postbackup-0-0", false)]
fn behaviour_0_4_workers_wear_their_backup_s_labels_except_the_component_s(#[case] name: &str, #[case] abroad: bool) {
    let (mut backup, status) = started("Any", &["pg-0"]);
    let own = [
        (labels::CLUSTER_UID, "u1"),
        (labels::BACKUP_SCHEDULE, "nightly"),
        (labels::MANAGED_BY, "argocd"),
        ("example.com/team", "db"),
    ];
    backup.labels_mut().extend(own.map(|(key, value)| (key.to_owned(), value.to_owned())));
    assert_eq!(backup.labels()[labels::COMPONENT_NAME], "mysql");
    let ingredients = ingredients(&["pg-0"]);
    let site = Site { backup: &backup, status: &status, ingredients: &ingredients, settings: &settings() };
    let job = serde_json::to_value(site.job(name, "").unwrap()).unwrap();
    for worn in [&job["metadata"]["labels"], &job["spec"]["template"]["metadata"]["labels"]] {
        let value = |key: &str| worn[key].as_str();
        assert_eq!(value(labels::BACKUP_NAME), Some("b1"));
        assert_eq!(value(labels::CLUSTER_UID), Some("u1"));
        assert_eq!(value(labels::BACKUP_SCHEDULE), Some("nightly"));
        assert_eq!(value("example.com/team"), Some("db"));
        assert_eq!(value(labels::MANAGED_BY), Some(labels::MANAGED_BY_DATAPROTECTION), "our watches look for it");
        assert_eq!(value(labels::COMPONENT_NAME), None, "or it would be taken for a pod of the database");
        assert_eq!(value(labels::BACKUP_NAMESPACE), abroad.then_some("demo"));
    }
}
