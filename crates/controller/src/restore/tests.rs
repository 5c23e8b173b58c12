//! The claims and Jobs that a restore builds.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kbbackup_api::v1alpha1::{ActionSet, Backup, Restore};
use serde_json::{Value, json};

use super::build::{self, Site};
use super::decide::Work;
use super::sets::Set;
use super::volumes;
use crate::worker::error::Refusal;
use crate::worker::repo::Way;
use crate::worker::{RepoAccess, settings};

fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn backup(name: &str, end: &str) -> Backup {
    from(json!({
        "metadata": {"name": name, "namespace": "demo", "annotations": {"kbbackup.io/seal": format!("seal-of-{name}"),
            "kbbackup.io/target-image": "postgres:15"}},
        "spec": {"backupPolicyName": "p", "backupMethod": "full"},
        "status": {"phase": "Completed", "path": format!("/prod/demo/c1/{name}"), "extras": [{"a": "b"}],
            "timeRange": {"start": "2026-08-20T02:00:00Z", "end": end, "timeZone": "+08:00"},
            "backupMethod": {"name": "full", "env": [{"name": "FROM_METHOD", "value": "1"}, {"name": "OWN", "value": "method"}],
                "targetVolumes": {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}}}
    }))
}

fn restore() -> Restore {
    from(json!({
        "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "Restore",
        "metadata": {"name": "r1", "namespace": "demo", "uid": "12345678-0000"},
        "spec": {"backup": {"name": "b2", "namespace": "demo"}, "restoreTime": "2026-08-20T03:04:05Z",
            "env": [{"name": "OWN", "value": "restore"}], "parameters": [{"name": "LEVEL", "value": "3"}],
            "prepareDataConfig": {"volumeClaimsTemplate": {"replicas": 2, "startingIndex": 1, "templates": [
                {"metadata": {"name": "data-pg", "labels": {"app.kubernetes.io/instance": "c1", "apps.kubeblocks.io/component-name": "pg"}},
                 "volumeSource": "data", "volumeClaimSpec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]}}}
    }))
}

fn set() -> Set {
    Set {
        backup: backup("b2", "2026-08-20T03:00:00Z"),
        action_set: from(json!({"metadata": {"name": "a"}, "spec": {"backupType": "Incremental",
            "env": [{"name": "DP_TIME_FORMAT", "value": "2006-01-02 15:04:05"}, {"name": "FROM_SET", "value": "1"}],
            "restore": {"prepareData": {"image": "", "command": ["bash"]}, "postReady": [{"job": {"image": "x:1", "command": ["y"]}}]}}})),
        uses_snapshots: false,
        base: Some(backup("b0", "2026-08-20T02:30:00Z")),
        ancestors: vec![backup("b1", "2026-08-20T02:45:00Z")],
    }
}

/// Every pod of a restore of `backup` by `action_set`, with the action it is for; `target` is the started database.
pub(crate) fn pods_of(wish: &Restore, action_set: &ActionSet, backup: &Backup, target: &Pod) -> Vec<(String, PodSpec)> {
    let Some(recipe) = &action_set.spec.restore else { return Vec::new() };
    let set = Set::alone(backup.clone(), action_set.clone());
    let site = Site { restore: wish, set: &set, access: &access(), settings: &settings() };
    let pod = |job: Job| job.spec.unwrap().template.spec.unwrap();
    let prepare = recipe
        .prepare_data
        .iter()
        .map(|action| ("prepareData".to_owned(), pod(site.prepare("job-0", action, 0, None).unwrap())));
    let ready = recipe.post_ready.iter().enumerate().filter_map(|(entry, action)| {
        Some((format!("postReady-{entry}"), pod(site.post_ready("job-0", action.job.as_ref()?, target, None).unwrap())))
    });
    prepare.chain(ready).collect()
}

fn access() -> RepoAccess {
    RepoAccess { way: Way::Tool { secret: "tool".into() }, kopia_path: None, encryption: None }
}

#[test]
fn behaviour_6_5_claims_of_a_template() {
    let restore = restore();
    let claims = build::claims(&restore, 1);
    assert_eq!((claims[0].name.as_str(), claims[0].volume.as_str()), ("data-pg-2", "dp-claim-tpl-data-pg-2"));
    insta::assert_yaml_snapshot!(build::claim(&restore, &claims[0]));
}

#[test]
fn behaviour_6_6_prepare_data_job() {
    let (restore, set) = (restore(), set());
    let site = Site { restore: &restore, set: &set, access: &access(), settings: &settings() };
    let recipe = set.action_set.spec.restore.clone().unwrap();
    insta::assert_yaml_snapshot!(site.prepare("job-0", recipe.prepare_data.as_ref().unwrap(), 0, None).unwrap());
}

#[test]
fn a_parameter_is_not_hidden_by_the_recipe_s_default_of_it() {
    let (restore, mut set) = (restore(), set());
    set.action_set.spec.env.push(crate::worker::env::var("LEVEL", "1"));
    let site = Site { restore: &restore, set: &set, access: &access(), settings: &settings() };
    let recipe = set.action_set.spec.restore.clone().unwrap();
    let job = site.prepare("job-0", recipe.prepare_data.as_ref().unwrap(), 0, None).unwrap();
    let env = job.spec.unwrap().template.spec.unwrap().containers[0].env.clone().unwrap();
    let levels: Vec<_> = env.iter().filter(|entry| entry.name == "LEVEL").map(|entry| entry.value.as_deref()).collect();
    assert_eq!(levels, [Some("3")]);
}

#[test]
fn behaviour_6_6_env_and_times() {
    let (restore, set) = (restore(), set());
    let site = Site { restore: &restore, set: &set, access: &access(), settings: &settings() };
    let recipe = set.action_set.spec.restore.clone().unwrap();
    let job = site.prepare("job-0", recipe.prepare_data.as_ref().unwrap(), 0, Some("pg-1")).unwrap();
    let env = job.spec.unwrap().template.spec.unwrap().containers[0].env.clone().unwrap();
    let list: Vec<_> =
        env.iter().map(|entry| format!("{}={}", entry.name, entry.value.clone().unwrap_or_default())).collect();
    assert_eq!(
        list,
        [
            "KBB_IMAGE=postgres:15",
            "DP_BACKUP_NAME=b2",
            "DP_TARGET_RELATIVE_PATH=pg-1",
            "DP_BACKUP_ROOT_PATH=/prod/demo/c1",
            "DP_BACKUP_BASE_PATH=/prod/demo/c1/b2/pg-1",
            "DP_BASE_BACKUP_NAME=b0",
            "DP_ANCESTOR_INCREMENTAL_BACKUP_NAMES=b1",
            "DP_BACKUP_STOP_TIME=2026-08-20 11:00:00",
            "DP_BASE_BACKUP_START_TIME=2026-08-20 10:00:00",
            "DP_BASE_BACKUP_START_TIMESTAMP=1787191200",
            "DP_BASE_BACKUP_STOP_TIME=2026-08-20 10:30:00",
            "DP_BASE_BACKUP_STOP_TIMESTAMP=1787193000",
            "DP_RESTORE_TIME=2026-08-20 11:04:05",
            "DP_RESTORE_TIMESTAMP=1787195045",
            "LEVEL=3",
            "DP_TIME_FORMAT=2006-01-02 15:04:05",
            "FROM_SET=1",
            "FROM_METHOD=1",
            "OWN=restore",
            "KBBACKUP_SEALS=b0=seal-of-b0,b1=seal-of-b1,b2=seal-of-b2",
            "DP_DATASAFED_BIN_PATH=/bin/datasafed",
        ]
    );
}

#[test]
fn behaviour_6_7_post_ready_merges_the_pods_env_and_connection() {
    let (restore, set) = (restore(), set());
    let site = Site { restore: &restore, set: &set, access: &access(), settings: &settings() };
    let recipe = set.action_set.spec.restore.clone().unwrap();
    let pod: Pod = from(json!({"metadata": {"name": "pg-0"}, "status": {"podIP": "10.0.0.9"}, "spec": {"containers": [
        {"name": "db", "env": [{"name": "FROM_SET", "value": "pod"}], "ports": [{"containerPort": 5432}]}]}}));
    let job = site.post_ready("job-0", recipe.post_ready[0].job.as_ref().unwrap(), &pod, None).unwrap();
    let env = job.spec.unwrap().template.spec.unwrap().containers[0].env.clone().unwrap();
    let value = |name: &str| env.iter().rev().find(|entry| entry.name == name).and_then(|entry| entry.value.clone());
    assert_eq!(value("FROM_SET").as_deref(), Some("pod"));
    assert_eq!((value("DP_DB_HOST").as_deref(), value("DP_DB_PORT").as_deref()), (Some("10.0.0.9"), Some("5432")));
}

fn target_pod() -> Pod {
    from(json!({"metadata": {"name": "pg-0", "namespace": "demo"}, "status": {"podIP": "10.0.0.9"}, "spec": {
        "nodeName": "node1", "tolerations": [{"key": "db", "operator": "Exists"}],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data-pg-0"}}, {"name": "conf", "emptyDir": {}}],
        "containers": [{"name": "db", "ports": [{"containerPort": 5432}], "envFrom": [{"configMapRef": {"name": "conf"}}]}]}}))
}

fn ready() -> Restore {
    let mut restore = restore();
    restore.spec.prepare_data_config = None;
    restore.spec.ready_config = Some(from(json!({
        "connectionCredential": {"secretName": "auth"},
        "jobAction": {"target": {"podSelector": {"matchLabels": {"app": "pg"}},
            "volumeMounts": [{"name": "data", "mountPath": "/data"}]}},
        "readinessProbe": {"exec": {"image": "x", "command": ["y"]}}})));
    restore
}

#[test]
fn behaviour_6_7_post_ready_job() {
    let (restore, set) = (ready(), set());
    let site = Site { restore: &restore, set: &set, access: &access(), settings: &settings() };
    let action = from(json!({"image": "x:1", "command": ["y"], "runOnTargetPodNode": true}));
    insta::assert_yaml_snapshot!(site.post_ready("job-0", &action, &target_pod(), Some("pg-1")).unwrap());
}

#[test]
fn behaviour_6_7_credentials_in_the_contracts_order() {
    let (restore, set) = (ready(), set());
    let site = Site { restore: &restore, set: &set, access: &access(), settings: &settings() };
    let job = site.post_ready("j", &from(json!({"image": "x:1", "command": ["y"]})), &target_pod(), None).unwrap();
    let pod = job.spec.unwrap().template.spec.unwrap();
    let env = pod.containers[0].env.clone().unwrap();
    let names: Vec<_> = env.iter().map(|entry| entry.name.as_str()).filter(|name| name.starts_with("DP_DB_")).collect();
    assert_eq!(names, ["DP_DB_USER", "DP_DB_PASSWORD", "DP_DB_PORT", "DP_DB_HOST"]);
    // Elsewhere than beside the pod its volumes are not there.
    assert_eq!((pod.node_selector, pod.tolerations.map(|list| list.len())), (None, Some(1)));
    assert!(pod.volumes.unwrap().iter().all(|volume| volume.name != "data"));
}

#[test]
fn behaviour_6_7_exec_job() {
    let action = from(json!({"command": ["touch", "/ready"], "container": "db"}));
    insta::assert_yaml_snapshot!(build::post_ready_exec(&ready(), "job-0", &action, &target_pod(), &settings()));
}

#[test]
fn behaviour_6_6_what_a_restore_says_about_its_pods() {
    let (mut restore, set) = (restore(), set());
    restore.spec.service_account_name = Some("mine".into());
    restore.spec.backoff_limit = Some(4);
    restore.spec.container_resources = Some(from(json!({"requests": {"cpu": "1"}})));
    restore.spec.prepare_data_config.as_mut().unwrap().scheduling_spec = Some(from(json!({
        "tolerations": [{"operator": "Exists"}], "nodeSelector": {"disk": "fast"}, "nodeName": "n1", "schedulerName": "s",
        "affinity": {"nodeAffinity": {}},
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]})));
    let site = Site { restore: &restore, set: &set, access: &access(), settings: &settings() };
    let recipe = set.action_set.spec.restore.clone().unwrap();
    let job = site.prepare("j", recipe.prepare_data.as_ref().unwrap(), 0, None).unwrap().spec.unwrap();
    assert_eq!(job.backoff_limit, Some(4));
    let pod = job.template.spec.unwrap();
    assert_eq!((pod.service_account_name.as_deref(), pod.automount_service_account_token), (Some("mine"), Some(true)));
    assert_eq!((pod.node_name.as_deref(), pod.scheduler_name.as_deref()), (Some("n1"), Some("s")));
    assert_eq!(pod.node_selector.unwrap()["disk"], "fast");
    assert!(pod.affinity.is_some() && pod.tolerations.is_some() && pod.topology_spread_constraints.is_some());
    assert_eq!(
        serde_json::to_value(&pod.containers[0].resources).unwrap(),
        json!({"requests": {"cpu": "1"}, "limits": {"memory": "0"}}),
        "a zero limit only where nothing is said"
    );
}

#[test]
fn behaviour_6_6_a_log_names_its_base_and_trusts_what_is_sealed() {
    let (restore, mut set) = (restore(), set());
    set.ancestors.clear();
    set.backup.metadata.annotations = None;
    let site = Site { restore: &restore, set: &set, access: &access(), settings: &settings() };
    let recipe = set.action_set.spec.restore.clone().unwrap();
    let job = site.prepare("j", recipe.prepare_data.as_ref().unwrap(), 0, None).unwrap();
    let env = job.spec.unwrap().template.spec.unwrap().containers[0].env.clone().unwrap();
    let value = |name: &str| env.iter().find(|entry| entry.name == name).and_then(|entry| entry.value.clone());
    assert_eq!(value("DP_BASE_BACKUP_NAME").as_deref(), Some("b0"));
    assert_eq!(value("DP_BASE_BACKUP_STOP_TIMESTAMP").as_deref(), Some("1787193000"));
    assert_eq!(value("DP_ANCESTOR_INCREMENTAL_BACKUP_NAMES"), None);
    assert_eq!(value("KBBACKUP_SEALS").as_deref(), Some("b0=seal-of-b0"), "a log that still grows has no seal");
}

#[test]
fn behaviour_6_5_replicas_beyond_the_recorded_pods_get_no_data() {
    let mut restore = restore();
    let config = restore.spec.prepare_data_config.as_mut().unwrap();
    config.required_policy_for_all_pod_selection = Some(from(json!({"dataRestorePolicy": "OneToOne"})));
    config.volume_claims_template.as_mut().unwrap().replicas = 3;
    let mut set = set();
    let target = json!({"podSelector": {"strategy": "All"}, "selectedTargetPods": ["p-0", "p-1"]});
    set.backup.status.as_mut().unwrap().target = Some(from(target));
    let tasks = super::tasks::prepare(&restore, 1, &set).unwrap();
    let found: Vec<_> = tasks.iter().map(|task| (task.name.as_str(), task.work.clone())).collect();
    let work = |replica: usize, pod: &str| Work::Prepare { set: 1, replica, source: Some(pod.to_owned()) };
    assert_eq!(found, [("prepareData-1", work(0, "p-0")), ("prepareData-1", work(1, "p-1"))]);

    let mut ready = ready();
    let action = ready.spec.ready_config.as_mut().unwrap().job_action.as_mut().unwrap();
    action.required_policy_for_all_pod_selection = Some(from(json!({"dataRestorePolicy": "OneToOne"})));
    assert_eq!(super::tasks::with_source(&ready, &set, 3), Ok(2), "behaviour 6.7: neither do pods");
    assert_eq!(super::tasks::with_source(&ready, &set, 1), Ok(1));
}

#[test]
fn behaviour_6_2_a_stage_that_cannot_go_on_is_named() {
    use kbbackup_api::conditions::RestoreCondition;
    let current = |restore: &Restore, done: &[&str]| {
        let conditions: Vec<_> = done
            .iter()
            .map(|type_| {
                json!({"type": type_, "status": "True", "reason": "Succeed",
            "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"})
            })
            .collect();
        super::stages::current(restore, &from(json!({"conditions": conditions})))
    };
    assert_eq!(current(&restore(), &[]), RestoreCondition::PrepareData);
    assert_eq!(current(&restore(), &["PrepareData"]), RestoreCondition::PostReady);
    assert_eq!(current(&ready(), &[]), RestoreCondition::PostReady);
    let mut copied = restore();
    copied.metadata.annotations = Some([("kbbackup.io/restore-workload".to_owned(), "pg".to_owned())].into());
    assert_eq!(current(&copied, &["PrepareData"]), RestoreCondition::WorkloadReady);
}

#[test]
fn the_end_of_a_restore_wakes_every_backup_that_it_read() {
    let of = |reads: Option<&str>| -> Vec<String> {
        let mut restore = restore();
        restore.metadata.annotations = reads.map(|reads| [("kbbackup.io/reads".to_owned(), reads.to_owned())].into());
        super::backup_of(&kube::core::DeserializeGuard(Ok(restore))).into_iter().map(|found| found.name).collect()
    };
    assert_eq!(of(None), ["b2"]);
    assert_eq!(of(Some("b0,b1,b2")), ["b0", "b1", "b2"]);
}

#[test]
fn an_image_that_nothing_sets_is_refused_with_advice() {
    let (restore, mut set) = (restore(), set());
    let value = |set: &Set| {
        let site = Site { restore: &restore, set, access: &access(), settings: &settings() };
        let job =
            site.prepare("j", set.action_set.spec.restore.as_ref().unwrap().prepare_data.as_ref().unwrap(), 0, None);
        job.map(|job| job.spec.unwrap().template.spec.unwrap().containers[0].image.clone().unwrap())
    };
    set.backup.metadata.annotations = None;
    assert_eq!(value(&set), Ok("postgres:15".into()), "a log that noted none has the image of its base");
    set.base = None;
    let site = Site { restore: &restore, set: &set, access: &access(), settings: &settings() };
    let recipe = set.action_set.spec.restore.clone().unwrap();
    let told = site.prepare("j", recipe.prepare_data.as_ref().unwrap(), 0, None).unwrap_err().to_string();
    assert!(told.contains("KBB_IMAGE=postgres:16"), "{told}");
}

#[test]
fn workers_and_workloads_are_mapped_to_their_restore() {
    let of = |meta: Value| {
        super::of_worker(&from(meta)).map(|found| format!("{}/{}", found.namespace.unwrap_or_default(), found.name))
    };
    let (name, home) = ("dataprotection.kubeblocks.io/restore", "dataprotection.kubeblocks.io/restore-namespace");
    assert_eq!(of(json!({"namespace": "demo", "labels": {name: "r1"}})), Some("demo/r1".into()));
    assert_eq!(of(json!({"namespace": "manager", "labels": {name: "r1", home: "demo"}})), Some("demo/r1".into()));
    assert_eq!(of(json!({"annotations": {"kbbackup.io/restored-by": "demo/r2/u"}})), Some("demo/r2".into()));
    assert_eq!(of(json!({"namespace": "demo"})), None);
}

/// Two pods with two volumes each, as the reference records them.
fn snapshots() -> Set {
    let taken = |pod: usize, volume: &str| json!({"name": format!("b2-{pod}-{volume}"), "volumeName": volume});
    let action = |pod: usize| {
        json!({"name": format!("createVolumeSnapshot-{pod}"), "targetPodName": format!("pg-{pod}"),
            "volumeSnapshots": [taken(pod, "data"), taken(pod, "wal")]})
    };
    let backup: Backup = from(json!({
        "metadata": {"name": "b2", "namespace": "demo"}, "spec": {"backupPolicyName": "p", "backupMethod": "snap"},
        "status": {"phase": "Completed", "backupMethod": {"name": "snap", "snapshotVolumes": true},
            "target": {"podSelector": {"strategy": "All"}, "selectedTargetPods": ["pg-0", "pg-1"]},
            "actions": [action(0), action(1)]}
    }));
    Set::alone(backup, kbbackup_api::v1alpha1::ActionSet::default())
}

fn one_to_one(volume: &str, replicas: i32) -> Restore {
    let mut restore = restore();
    let config = restore.spec.prepare_data_config.as_mut().unwrap();
    config.required_policy_for_all_pod_selection = Some(from(json!({"dataRestorePolicy": "OneToOne"})));
    let template = config.volume_claims_template.as_mut().unwrap();
    template.replicas = replicas;
    template.templates[0].volume.volume_source = Some(volume.to_owned());
    restore
}

#[test]
fn behaviour_6_5_each_replica_gets_the_snapshot_of_its_own_pod() {
    let (set, restore) = (snapshots(), one_to_one("wal", 3));
    assert!(set.uses_snapshots);
    let wanted = volumes::wanted(&restore, &set).unwrap();
    let told: Vec<_> = wanted.iter().map(|wanted| (wanted.claim.name.as_str(), wanted.snapshot.as_str())).collect();
    // The reference gives all of them the first pod's. A third replica has no source, so it gets no claim.
    assert_eq!(told, [("data-pg-1", "b2-0-wal"), ("data-pg-2", "b2-1-wal")]);
    insta::assert_yaml_snapshot!(volumes::claim(&restore, &wanted[1]));
}

#[test]
fn behaviour_6_5_a_volume_without_a_snapshot_is_refused_and_never_left_empty() {
    let restore = one_to_one("logs", 1);
    let why = volumes::wanted(&restore, &snapshots()).unwrap_err().to_string();
    assert!(why.contains("no snapshot of volume \"logs\" of pod pg-0") && why.contains("data, wal"), "{why}");
    let mut elsewhere = one_to_one("data", 1);
    elsewhere.metadata.namespace = Some("other".into());
    let why = volumes::wanted(&elsewhere, &snapshots()).unwrap_err().to_string();
    assert!(why.contains("restore it in demo"), "{why}");
}

#[test]
fn behaviour_6_5_a_missing_snapshot_or_a_small_claim_is_refused() {
    let (set, restore) = (snapshots(), one_to_one("data", 1));
    let wanted = volumes::wanted(&restore, &set).unwrap();
    let fits = |status: Value| {
        let snapshot = from(json!({"metadata": {"name": "b2-0-data"}, "spec": {"source": {}}, "status": status}));
        volumes::fits("b2", &wanted[0], Some(&snapshot))
    };
    let why = volumes::fits("b2", &wanted[0], None).unwrap_err();
    assert!(matches!(&why, Refusal::Fatal(why) if why.contains("volumesnapshot b2-0-data")), "{why}");
    assert!(fits(json!({"readyToUse": true, "restoreSize": "1Gi"})).is_ok());
    let small = fits(json!({"readyToUse": true, "restoreSize": "2Gi"})).unwrap_err().to_string();
    assert!(small.contains("requests 1Gi") && small.contains("2Gi"), "{small}");
    assert!(matches!(fits(json!({"readyToUse": false})), Err(Refusal::NotYet { .. })));
}

#[test]
fn snapshots_of_two_targets_stay_apart() {
    let backup: Backup = from(json!({
        "metadata": {"name": "b"}, "spec": {"backupPolicyName": "p", "backupMethod": "snap"},
        "status": {"actions": [
            {"name": "createVolumeSnapshot-a-0", "volumeSnapshots": [{"name": "b-a-0-data", "volumeName": "data"}]},
            {"name": "createVolumeSnapshot-b-0", "volumeSnapshots": [{"name": "b-b-0-data", "volumeName": "data"}]}]}
    }));
    assert_eq!(super::sets::snapshot_of(&backup, Some("b"), "data", None).as_deref(), Some("b-b-0-data"));
    assert_eq!(super::sets::snapshot_of(&backup, Some("c"), "data", None), None);
}

#[test]
fn behaviour_6_5_claims_for_every_job_and_pods_of_instance_templates() {
    let mut restore = restore();
    let config = restore.spec.prepare_data_config.as_mut().unwrap();
    config.volume_claims =
        from(json!([{"metadata": {"name": "shared"}, "volumeSource": "data", "mountPath": "/shared",
        "volumeClaimSpec": {"accessModes": ["ReadWriteMany"]}}]));
    let template = &mut config.volume_claims_template.as_mut().unwrap().templates[0];
    template.metadata.labels.insert("apps.kubeblocks.io/instance-template".into(), "big".into());
    for replica in 0..2 {
        let claims = build::claims(&restore, replica);
        let told: Vec<_> = claims.iter().map(|claim| (claim.name.clone(), claim.volume.clone())).collect();
        let own = format!("data-pg-{}", replica + 1);
        assert_eq!(
            told,
            [("shared".to_owned(), "dp-claim-shared".to_owned()), (own.clone(), format!("dp-claim-tpl-{own}"))],
            "mounted together into every Job"
        );
    }
    let labels = build::claim(&restore, &build::claims(&restore, 1)[1]).metadata.labels.unwrap();
    assert_eq!(labels["apps.kubeblocks.io/pod-name"], "c1-pg-big-2");
    assert_eq!(labels["workloads.kubeblocks.io/instance"], "c1-pg");
}

#[test]
fn behaviour_6_6_labels_of_claims_never_take_the_place_of_ours() {
    let mut restore = restore();
    let template = restore.spec.prepare_data_config.as_mut().unwrap().volume_claims_template.as_mut().unwrap();
    let own = &mut template.templates[0].metadata.labels;
    own.insert("dataprotection.kubeblocks.io/restore".into(), "another".into());
    own.insert("app.kubernetes.io/managed-by".into(), "somebody".into());
    let set = set();
    let site = Site { restore: &restore, set: &set, access: &access(), settings: &settings() };
    let recipe = set.action_set.spec.restore.clone().unwrap();
    let job = site.prepare("j", recipe.prepare_data.as_ref().unwrap(), 0, None).unwrap();
    let pod = job.spec.unwrap().template.metadata.unwrap().labels.unwrap();
    for labels in [job.metadata.labels.unwrap(), pod] {
        assert_eq!(labels["dataprotection.kubeblocks.io/restore"], "r1");
        assert_eq!(labels["app.kubernetes.io/managed-by"], "kubeblocks-dataprotection");
        assert_eq!(labels["apps.kubeblocks.io/component-name"], "pg");
    }
}

#[test]
fn behaviour_6_6_the_usual_layout_no_times_that_are_not_known_and_no_empty_extras() {
    let (restore, mut set) = (restore(), set());
    set.action_set.spec.env.clear();
    let recipe = set.action_set.spec.restore.clone().unwrap();
    let env = |set: &Set| {
        let site = Site { restore: &restore, set, access: &access(), settings: &settings() };
        let job = site.prepare("j", recipe.prepare_data.as_ref().unwrap(), 0, None).unwrap();
        let template = job.spec.unwrap().template;
        let pod = template.spec.unwrap();
        let downward = pod.volumes.unwrap().iter().any(|volume| volume.name == "downward-volume");
        let list = pod.containers[0].env.clone().unwrap();
        (list, downward, template.metadata.unwrap().annotations.unwrap_or_default().len())
    };
    let (list, downward, notes) = env(&set);
    let value = |name: &str| list.iter().find(|entry| entry.name == name).and_then(|entry| entry.value.clone());
    assert_eq!(
        value("DP_BACKUP_STOP_TIME").as_deref(),
        Some("2026-08-20T11:00:00+08:00"),
        "RFC 3339 in the backup's zone"
    );
    assert!(downward && notes == 1);
    let status = set.backup.status.as_mut().unwrap();
    (status.time_range, status.extras) = (None, vec![]);
    let (list, downward, notes) = env(&set);
    assert!(list.iter().all(|entry| entry.name != "DP_BACKUP_STOP_TIME"));
    assert!(!downward && notes == 0);
}

#[test]
fn behaviour_6_6_the_source_target_is_part_of_the_path() {
    let (mut restore, set) = (restore(), set());
    restore.spec.backup.source_target_name = Some("shard-a".into());
    let site = Site { restore: &restore, set: &set, access: &access(), settings: &settings() };
    let recipe = set.action_set.spec.restore.clone().unwrap();
    let job = site.prepare("j", recipe.prepare_data.as_ref().unwrap(), 0, Some("pg-1")).unwrap();
    let list = job.spec.unwrap().template.spec.unwrap().containers[0].env.clone().unwrap();
    let value = |name: &str| list.iter().find(|entry| entry.name == name).and_then(|entry| entry.value.clone());
    assert_eq!(value("DP_TARGET_RELATIVE_PATH").as_deref(), Some("shard-a/pg-1"));
    assert_eq!(value("DP_BACKUP_BASE_PATH").as_deref(), Some("/prod/demo/c1/b2/shard-a/pg-1"));
}

#[test]
fn behaviour_9_what_is_declared_without_effect_changes_no_job() {
    let pods = |declared: bool| {
        let mut wish = serde_json::to_value(ready()).unwrap();
        wish["spec"]["env"] = json!([]);
        if declared {
            wish["spec"]["resources"] = json!({ "included": [{"groupResource": "secrets"}] });
            wish["spec"]["readyConfig"]["readinessProbe"] =
                json!({ "exec": {"image": "busybox", "command": ["false"]}, "periodSeconds": 5 });
        }
        let mut set = serde_json::to_value(set().action_set).unwrap();
        if declared {
            set["spec"]["restore"]["prepareData"]["onError"] = json!("Continue");
            set["spec"]["restore"]["postReady"][0]["job"]["onError"] = json!("Continue");
        }
        pods_of(&from(wish), &from(set), &backup("b2", "2026-08-20T03:00:00Z"), &target_pod())
    };
    assert_eq!(pods(true), pods(false));
    let all = serde_json::to_string(&pods(false)).unwrap();
    assert!(!all.contains("DP_DB_ENDPOINT") && !all.contains("DP_TIME_ZONE"), "{all}");
}
