//! The state machine of a backup fed with what happens to its Jobs, and the Jobs that are built.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kbbackup_api::v1alpha1::{ActionPhase, Backup, BackupPhase, BackupStatus};
use rstest::rstest;
use serde_json::{Value, json};

use super::build;
use super::build::Site;
use super::decide::{self, Advance, Next};
use super::observe::{Graph, Ingredients, SeenAction};
use crate::worker::repo::Way;
use crate::worker::{Outcome, RepoAccess, settings};

pub(super) fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

pub(super) fn now() -> Timestamp {
    "2026-08-20T03:00:00Z".parse().unwrap()
}

pub(super) fn backup() -> Backup {
    from(json!({
        "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "Backup",
        "metadata": {"name": "b1", "namespace": "demo", "uid": "6f1c2d3e-0000-4000-8000-000000000000",
            "creationTimestamp": "2026-08-20T02:59:00Z", "labels": {"mine": "kept", "apps.kubeblocks.io/component-name": "mysql"}},
        "spec": {"backupPolicyName": "p", "backupMethod": "full", "retentionPeriod": "7d",
            "parameters": [{"name": "LEVEL", "value": "3"}]}
    }))
}

pub(super) fn pod(name: &str) -> Pod {
    from(json!({
        "metadata": {"name": name, "namespace": "demo", "labels": {"kubeblocks.io/role": "leader", "app.kubernetes.io/instance": "c1"}},
        "spec": {"subdomain": "pg", "nodeName": "node-1", "tolerations": [{"key": "db", "operator": "Exists"}],
            "containers": [{"name": "postgres", "image": "postgres:15", "ports": [{"containerPort": 5432}],
                "env": [{"name": "PGDATA", "value": "/data"}, {"name": "CPU", "valueFrom": {"resourceFieldRef": {"containerName": "postgres", "resource": "limits.cpu"}}}],
                "envFrom": [{"secretRef": {"name": "pod-env"}}]}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data-pg-0"}}]},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]}
    }))
}

pub(super) fn graph(strategy: &str, pods: &[&str]) -> Graph {
    let hook = json!({"exec": {"command": ["psql", "-c", "checkpoint"], "timeout": "30s"}});
    let after = json!({"job": {"image": "busybox:$(TAG)", "command": ["true"]}});
    Graph {
        policy: from(json!({"metadata": {"name": "p"}, "spec": {"pathPrefix": "/c1/pg", "backupMethods": [],
            "encryptionConfig": {"passPhraseSecretKeyRef": {"name": "phrase", "key": "k"}}}})),
        method: from(
            json!({"name": "full", "actionSetName": "a", "env": [{"name": "TAG", "value": "2"}, {"name": "EXTRA", "value": "x"}],
            "targetVolumes": {"volumeMounts": [{"name": "data", "mountPath": "/data"}]},
            "runtimeSettings": {"resources": {"limits": {"memory": "1Gi"}}}}),
        ),
        action_set: from(json!({"metadata": {"name": "a"}, "spec": {"env": [{"name": "TAG", "value": "1"}],
            "envFrom": [{"configMapRef": {"name": "set-env"}}],
            "backup": {"preBackup": [hook], "postBackup": [after],
                "backupData": {"image": "", "command": ["bash", "-c", "true"], "runOnTargetPodNode": true}}}})),
        repo: from(json!({"metadata": {"name": "main"}, "spec": {"storageProviderRef": "s3", "accessMethod": "Tool",
            "pvReclaimPolicy": "Retain", "pathPrefix": "prod"}, "status": {"toolConfigSecretName": "tool"}})),
        way: Some(Way::Tool { secret: "tool".into() }),
        prepared: true,
        targets: vec![(
            from(
                json!({"podSelector": {"matchLabels": {"app": "pg"}, "strategy": strategy}, "connectionCredential": {"secretName": "auth"}}),
            ),
            pods.iter().map(|name| pod(name)).collect(),
        )],
        several: false,
        parent: None,
        cluster: None,
        workload: Some("{}".into()),
    }
}

pub(super) fn started(strategy: &str, pods: &[&str]) -> (Backup, BackupStatus) {
    let begin = decide::begin(&backup(), &graph(strategy, pods), &settings(), now()).unwrap();
    let mut backup = backup();
    let labels = backup.metadata.labels.get_or_insert_default();
    labels.extend(begin.labels);
    backup.metadata.annotations = Some(begin.annotations);
    backup.status = Some(begin.status.clone());
    (backup, begin.status)
}

pub(super) fn ingredients(pods: &[&str]) -> Ingredients {
    let graph = graph("Any", pods);
    Ingredients {
        backoff_limit: 2,
        action_set: graph.action_set,
        access: graph.way.map(|way| RepoAccess {
            way,
            kopia_path: None,
            encryption: graph.policy.spec.encryption_config,
        }),
        pods: pods.iter().map(|name| ((*name).to_owned(), pod(name))).collect(),
    }
}

fn built(name: &str) -> Value {
    let (backup, status) = started("Any", &["pg-0"]);
    let ingredients = ingredients(&["pg-0"]);
    let site = Site { backup: &backup, status: &status, ingredients: &ingredients, settings: &settings() };
    let mut job = serde_json::to_value(site.job(name, "dp-backup-0=u1").unwrap()).unwrap();
    // The whole object is compared in a test of its own.
    if let Some(text) = job.pointer_mut("/spec/template/metadata/annotations/kbbackup.io~1backup") {
        *text = json!("(the Backup)");
    }
    job
}

#[test]
fn behaviour_4_3_how_a_backup_starts() {
    let begin = decide::begin(&backup(), &graph("All", &["pg-0", "pg-1"]), &settings(), now()).unwrap();
    insta::assert_json_snapshot!(
        json!({"labels": begin.labels, "annotations": begin.annotations, "status": begin.status})
    );
}

#[rstest]
#[case::before("dp-prebackup-0-0")]
#[case::data("dp-backup-0")]
#[case::after("dp-postbackup-0-0")]
#[case::seal("dp-seal")]
fn behaviour_4_8_jobs(#[case] name: &str) {
    insta::assert_yaml_snapshot!(name, built(name));
}

#[test]
fn behaviour_4_14_delete_job() {
    let (backup, status) = started("Any", &["pg-0"]);
    insta::assert_yaml_snapshot!(build::delete_files(
        &backup,
        &status,
        ingredients(&[]).access.as_ref().unwrap(),
        &settings()
    ));
}

#[test]
fn behaviour_4_7_env_order() {
    let job = built("dp-backup-0");
    let env = job["spec"]["template"]["spec"]["containers"][0]["env"].as_array().unwrap().clone();
    let names: Vec<_> = env.iter().map(|entry| entry["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "KBB_IMAGE",
            "PGDATA",
            "CPU",
            "DP_BACKUP_NAME",
            "DP_TARGET_POD_NAME",
            "DP_TARGET_POD_ROLE",
            "DP_BACKUP_BASE_PATH",
            "DP_BACKUP_INFO_FILE",
            "DP_TTL",
            "DP_DB_HOST",
            "DP_DB_PORT",
            "DP_DB_PASSWORD",
            "DP_DB_USER",
            "TAG",
            "LEVEL",
            "KB_CLUSTER_NAME",
            "KB_COMP_NAME",
            "KB_NAMESPACE",
            "EXTRA",
            "KBBACKUP_BACKUP_PATH",
            "KBBACKUP_BACKUP_UID",
            "KBBACKUP_ACTION",
            "KBBACKUP_ATTEMPT",
            "KBBACKUP_JOURNAL",
            "DP_DATASAFED_BIN_PATH",
            "DATASAFED_ENCRYPTION_ALGORITHM",
            "DATASAFED_ENCRYPTION_PASS_PHRASE",
        ]
    );
    let tag = env.iter().find(|entry| entry["name"] == "TAG").unwrap();
    assert_eq!(tag["value"], "2", "the method's value takes the place of the action set's");
}

#[test]
fn no_secret_reaches_the_stored_object() {
    let (backup, status) = started("Any", &["pg-0"]);
    let ingredients = ingredients(&["pg-0"]);
    let site = Site { backup: &backup, status: &status, ingredients: &ingredients, settings: &settings() };
    let job = site.job("dp-seal", "").unwrap();
    let text = &job.spec.unwrap().template.metadata.unwrap().annotations.unwrap()["kbbackup.io/backup"];
    let stored: Backup = serde_json::from_str(text).unwrap();
    assert_eq!(stored.status, Some(status));
    assert!(stored.metadata.annotations.unwrap().keys().all(|key| key != "kbbackup.io/workload"));
}

#[test]
fn a_worker_is_never_taken_for_the_database() {
    let mut backup = backup();
    backup.metadata.labels.get_or_insert_default().insert("app.kubernetes.io/instance".into(), "c1".into());
    let has_instance = |backup: &Backup| build::worker_labels(backup).contains_key("app.kubernetes.io/instance");
    assert!(has_instance(&backup), "the contract's label stays where components tell pods apart");
    backup.metadata.labels.get_or_insert_default().remove("apps.kubeblocks.io/component-name");
    assert!(!has_instance(&backup));
}

fn seen(outcome: Outcome) -> SeenAction {
    SeenAction::of_job(outcome, None)
}

fn absent() -> SeenAction {
    seen(Outcome::Absent)
}

fn running() -> SeenAction {
    seen(Outcome::Running { obstacle: None })
}

fn failed() -> SeenAction {
    let outcome = Outcome::Failed { why: "BackoffLimitExceeded:too often".into(), pod: None };
    SeenAction::of_job(outcome, Some("Log Collector Output: it broke".into()))
}

fn ended(container: &str, message: &str) -> SeenAction {
    let status = json!({"name": container, "image": "", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"terminated": {"exitCode": 0, "message": message}}});
    let pod: Pod = from(json!({"metadata": {"name": "x", "namespace": "demo", "uid": format!("uid-of-{container}")},
        "status": {"phase": "Succeeded", "initContainerStatuses": [status]}}));
    seen(Outcome::Succeeded { pod: Some(Box::new(pod)) })
}

fn data(size: &str, end: &str) -> SeenAction {
    let info =
        json!({"totalSize": size, "timeRange": {"start": "2026-08-20T02:00:00Z", "end": end}, "extras": [{"a": size}]});
    ended("manager", &json!({"version": 1, "info": info}).to_string())
}

fn advance(status: &BackupStatus, seen: &[SeenAction]) -> Advance {
    decide::advance("demo", status, seen, now())
}

fn start(indexes: &[usize]) -> Next {
    Next::Work { start: indexes.to_vec(), redo: vec![], obstacle: None }
}

#[test]
fn behaviour_4_4_actions_follow_one_another_and_the_seal_is_last() {
    let (backup, status) = started("Any", &["pg-0"]);
    let step = advance(&status, &[absent(), absent(), absent(), absent()]);
    assert_eq!(step.next, start(&[0]));
    assert_eq!(step.status.actions[0].phase, Some(ActionPhase::Running));
    let step = advance(&step.status, &[ended("x", ""), absent(), absent(), absent()]);
    assert_eq!(step.next, start(&[1]));
    let step = advance(&step.status, &[absent(), data("10", "2026-08-20T02:30:00Z"), absent(), absent()]);
    assert_eq!(step.next, start(&[2]));
    assert_eq!(step.attempts, [("dp-backup-0".to_owned(), "uid-of-manager".to_owned())]);
    assert_eq!(step.status.total_size.as_deref(), Some("10"));
    let step = advance(&step.status, &[absent(), absent(), ended("x", ""), absent()]);
    assert_eq!(step.next, start(&[3]));
    let step =
        advance(&step.status, &[absent(), absent(), absent(), ended("seal", r#"{"version":1,"seal":"digest"}"#)]);
    assert_eq!(step.next, Next::Complete { seal: Some("digest".into()) });
    let done = decide::completed(&backup, &step.status, now());
    assert_eq!(done.phase, Some(BackupPhase::Completed));
    assert_eq!(serde_json::to_value(&done.expiration).unwrap(), json!("2026-08-27T03:00:00Z"));
    // Killed before the status was written: the same look gives the same end.
    let again =
        advance(&step.status, &[absent(), absent(), absent(), ended("seal", r#"{"version":1,"seal":"digest"}"#)]);
    assert_eq!(again.next, Next::Complete { seal: Some("digest".into()) });
}

#[test]
fn behaviour_4_4_pods_go_on_independently_and_a_failure_waits_for_the_others() {
    let (_, status) = started("All", &["pg-0", "pg-1"]);
    let all_absent = vec![absent(); 7];
    assert_eq!(advance(&status, &all_absent).next, start(&[0, 3]));
    let mut look = all_absent.clone();
    look[0] = failed();
    look[3] = running();
    let step = advance(&status, &look);
    assert_eq!(step.next, start(&[]), "the other pod's list is awaited");
    assert_eq!(step.status.actions[0].failure_reason.as_deref(), Some("Log Collector Output: it broke"));
    let mut look = all_absent.clone();
    look[3] = failed();
    let step = advance(&step.status, &look);
    assert_eq!(step.next, Next::Fail("action dp-prebackup-0-0 failed: Log Collector Output: it broke".into()));
}

#[test]
fn behaviour_8_5_the_end_of_the_pod_is_told_beside_the_last_words() {
    let (_, status) = started("Any", &["pg-0"]);
    let mut look = vec![absent(); status.actions.len()];
    look[0] = failed();
    let step = advance(&status, &look);
    assert_eq!(step.status.actions[0].failure_reason.as_deref(), Some("Log Collector Output: it broke"));
    let Next::Fail(why) = step.next else { panic!("{:?}", step.next) };
    assert_eq!(why, "action dp-prebackup-0-0 failed: Log Collector Output: it broke\nBackoffLimitExceeded:too often");
}

#[test]
fn behaviour_4_10_7_sizes_are_summed_and_times_span_all_pods() {
    let (_, mut status) = started("All", &["pg-0", "pg-1"]);
    for index in [0, 3] {
        status.actions[index].phase = Some(ActionPhase::Completed);
    }
    let mut look = vec![absent(); 7];
    look[1] = data("1Ki", "2026-08-20T02:30:00Z");
    look[4] = data("10", "2026-08-20T02:40:00Z");
    let step = advance(&status, &look);
    assert_eq!(step.status.total_size.as_deref(), Some("1034"));
    assert_eq!(serde_json::to_value(&step.status.time_range).unwrap()["end"], "2026-08-20T02:40:00Z");
    assert_eq!(step.status.extras.len(), 2);
    assert_eq!(step.next, start(&[2, 5]));
}

#[rstest]
#[case::no_info(r#"{"version":1}"#, "the script ended without writing its result file DP_BACKUP_INFO_FILE")]
#[case::bad_key(r#"{"version":1,"info":{"phase":"Completed"}}"#, "the result file sets \"phase\"")]
#[case::error(r#"{"version":1,"error":"no journal","cause":"AccessDenied"}"#, "no journal (AccessDenied)")]
#[case::garbage("killed", "container manager of pod x ended without a report")]
fn behaviour_4_8_2_never_completed_without_a_sound_report(#[case] message: &str, #[case] wanted: &str) {
    let (_, mut status) = started("Any", &["pg-0"]);
    status.actions[0].phase = Some(ActionPhase::Completed);
    let step = advance(&status, &[absent(), ended("manager", message), absent(), absent()]);
    let Next::Fail(why) = step.next else { panic!("{:?}", step.next) };
    assert!(why.contains(wanted), "{why}");
}

#[test]
fn a_seal_that_fails_fails_the_backup() {
    let (_, mut status) = started("Any", &["pg-0"]);
    for action in &mut status.actions[..3] {
        action.phase = Some(ActionPhase::Completed);
    }
    for (message, wanted) in
        [(r#"{"version":1}"#, "reported no seal"), (r#"{"version":1,"error":"bucket gone"}"#, "bucket gone")]
    {
        let step = advance(&status, &[absent(), absent(), absent(), ended("seal", message)]);
        assert!(matches!(&step.next, Next::Fail(why) if why.contains(wanted)), "{:?}", step.next);
    }
}

#[test]
fn a_job_that_vanished_is_made_again_and_a_lost_result_is_redone() {
    let (_, mut status) = started("Any", &["pg-0"]);
    status.actions[0].phase = Some(ActionPhase::Running);
    assert_eq!(advance(&status, &[absent(), absent(), absent(), absent()]).next, start(&[0]));
    let lost = seen(Outcome::Succeeded { pod: None });
    let step = advance(&status, &[lost, absent(), absent(), absent()]);
    assert!(
        matches!(step.next, Next::Work { ref redo, ref start, .. } if redo == &[0] && start.is_empty()),
        "{:?}",
        step.next
    );
    assert_eq!(step.status.actions[0].phase, Some(ActionPhase::Running));
}

#[test]
fn an_obstacle_is_told_while_it_lasts() {
    let (_, status) = started("Any", &["pg-0"]);
    let stuck = seen(Outcome::Running { obstacle: Some("no such image".into()) });
    let step = advance(&status, &[stuck, absent(), absent(), absent()]);
    assert_eq!(step.next, Next::Work { start: vec![], redo: vec![], obstacle: Some("no such image".into()) });
}

#[test]
fn a_second_look_with_nothing_new_changes_nothing() {
    let (_, status) = started("Any", &["pg-0"]);
    let first = advance(&status, &[running(), absent(), absent(), absent()]);
    let later = decide::advance(
        "demo",
        &first.status,
        &[running(), absent(), absent(), absent()],
        "2026-08-20T04:00:00Z".parse().unwrap(),
    );
    assert_eq!(first.status, later.status);
}

#[test]
fn attempts_name_the_last_pod_of_each_action() {
    let pair = |action: &str, uid: &str| (action.to_owned(), uid.to_owned());
    assert_eq!(decide::attempts(None, &[]), "");
    assert_eq!(decide::attempts(Some("a=1,b=2"), &[pair("a", "3"), pair("c", "4")]), "b=2,a=3,c=4");
}

#[test]
fn behaviour_4_12_expiration_of_a_failed_backup_counts_from_its_start() {
    let (backup, mut status) = started("Any", &["pg-0"]);
    status.expiration = None;
    let failed = decide::failed(&backup, &status, "why", "2026-08-21T00:00:00Z".parse().unwrap());
    assert_eq!(serde_json::to_value(&failed.expiration).unwrap(), json!("2026-08-27T03:00:00Z"));
    assert_eq!(failed.failure_reason.as_deref(), Some("why"));
}

#[test]
fn a_changed_action_set_is_told() {
    let (backup, status) = started("Any", &["pg-0"]);
    let mut ingredients = ingredients(&["pg-0"]);
    ingredients.action_set.spec.backup.as_mut().unwrap().pre_backup.clear();
    let site = Site { backup: &backup, status: &status, ingredients: &ingredients, settings: &settings() };
    assert!(site.job("dp-prebackup-0-0", "").unwrap_err().to_string().contains("was changed while the backup ran"));
}

#[test]
fn an_image_that_cannot_be_told_is_refused() {
    let (backup, status) = started("Any", &["pg-0"]);
    let mut ingredients = ingredients(&["pg-0"]);
    ingredients.action_set.spec.backup.as_mut().unwrap().backup_data.as_mut().unwrap().job.image =
        "x:$(NOWHERE)".into();
    let site = Site { backup: &backup, status: &status, ingredients: &ingredients, settings: &settings() };
    assert!(site.job("dp-backup-0", "").unwrap_err().to_string().contains("$(NOWHERE)"));
}

#[test]
fn behaviour_4_2_workers_are_mapped_to_their_backup() {
    let of = |meta: Value| {
        super::of_worker(&from(meta)).map(|found| format!("{}/{}", found.namespace.unwrap_or_default(), found.name))
    };
    let name = "dataprotection.kubeblocks.io/backup-name";
    let home = "dataprotection.kubeblocks.io/backup-namespace";
    assert_eq!(of(json!({"namespace": "demo", "labels": {name: "b1"}})), Some("demo/b1".into()));
    assert_eq!(of(json!({"namespace": "manager", "labels": {name: "b1", home: "demo"}})), Some("demo/b1".into()));
    let owner = json!([{"apiVersion": "x", "kind": "Backup", "name": "b2", "uid": "u"}]);
    assert_eq!(of(json!({"namespace": "demo", "ownerReferences": owner})), Some("demo/b2".into()));
    assert_eq!(of(json!({"namespace": "demo", "labels": BTreeMap::from([("x", "y")])})), None);
}

/// A backup of snapshots alone: no ActionSet, no repository.
fn snapshot_graph(pods: &[&str]) -> Graph {
    Graph {
        method: from(json!({"name": "snap", "snapshotVolumes": true, "targetVolumes": {"volumes": ["data"]}})),
        action_set: kbbackup_api::v1alpha1::ActionSet::default(),
        repo: None,
        way: None,
        ..graph("All", pods)
    }
}

#[test]
fn behaviour_4_3_snapshots_need_no_repository() {
    let begin = decide::begin(&backup(), &snapshot_graph(&["pg-0", "pg-1"]), &settings(), now()).unwrap();
    assert!(!begin.labels.contains_key("dataprotection.kubeblocks.io/backup-repo-name"));
    assert_eq!(begin.labels["dataprotection.kubeblocks.io/backup-type"], "Full");
    assert!(begin.annotations.contains_key("kbbackup.io/workload"), "a restore can bring the workload back");
    assert_eq!((&begin.status.path, &begin.status.backup_repo_name), (&None, &None));
    insta::assert_json_snapshot!(begin.status.actions);
}

#[test]
fn a_snapshot_backup_is_completed_when_every_snapshot_is_ready_and_not_before() {
    let mut status = decide::begin(&backup(), &snapshot_graph(&["pg-0", "pg-1"]), &settings(), now()).unwrap().status;
    let step = |status: &BackupStatus, seen: &[SeenAction]| decide::advance("demo", status, seen, now());
    let begun = step(&status, &[absent(), absent()]);
    assert!(matches!(&begun.next, Next::Work { start, .. } if *start == [0, 1]), "{:?}", begun.next);
    let taken = super::volumes::decide::Taken { size: Some("1Gi".into()), ..Default::default() };
    let ready = SeenAction { snapshots: vec![taken], ..seen(Outcome::Succeeded { pod: None }) };
    let half = step(&begun.status, &[ready.clone(), running()]);
    assert!(matches!(half.next, Next::Work { .. }));
    let whole = step(&half.status, &[absent(), ready]);
    assert_eq!(whole.next, Next::Complete { seal: None });
    assert_eq!(whole.status.total_size.as_deref(), Some("2147483648"));
    status = whole.status;
    assert_eq!(step(&status, &[absent(), absent()]).next, Next::Complete { seal: None }, "again after a crash");
    let broken = step(&begun.status, &[failed(), running()]);
    assert!(matches!(broken.next, Next::Work { .. }), "the other snapshot is awaited");
}
