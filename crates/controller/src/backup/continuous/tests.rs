//! The state machine of a continuous backup fed with what happens to its archivers, and what is built for them.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kbbackup_api::v1alpha1::{ActionPhase, Backup, BackupPhase, BackupSchedule, BackupStatus};
use kube::ResourceExt as _;
use rstest::rstest;
use serde_json::{Value, json};

use super::build;
use super::decide::{self, Archiver, Health, Look};
use crate::backup::build::Site;
use crate::backup::decide as common;
use crate::backup::observe::{Graph, Ingredients};
use crate::worker::error::{LONG, Refusal, SOON};
use crate::worker::repo::Way;
use crate::worker::{RepoAccess, settings};

fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn now() -> Timestamp {
    "2026-08-20T03:00:00Z".parse().unwrap()
}

fn ago(seconds: i64) -> String {
    now().checked_sub(jiff::SignedDuration::from_secs(seconds)).unwrap().to_string()
}

fn backup() -> Backup {
    from(json!({
        "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "Backup",
        "metadata": {"name": "aaaabbbb-c1-archive-wal", "namespace": "demo", "uid": "6f1c2d3e-0000-4000-8000-000000000000",
            "creationTimestamp": "2026-08-20T02:59:00Z",
            "labels": {"dataprotection.kubeblocks.io/backup-schedule": "s", "dataprotection.kubeblocks.io/backup-type": "Continuous"}},
        "spec": {"backupPolicyName": "p", "backupMethod": "archive-wal", "retentionPeriod": "7d"}
    }))
}

fn database(name: &str) -> Pod {
    from(json!({
        "metadata": {"name": name, "namespace": "demo", "labels": {"kubeblocks.io/role": "primary"}},
        "spec": {"subdomain": "pg", "nodeName": "node-1", "containers": [{"name": "postgres", "image": "postgres:15",
            "ports": [{"containerPort": 5432}], "env": [{"name": "PGDATA", "value": "/data"}]}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data-pg-0"}}]},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]}
    }))
}

fn graph(targets: &[Option<&str>]) -> Graph {
    Graph {
        policy: from(json!({"metadata": {"name": "p"}, "spec": {"pathPrefix": "/c1/pg", "backupMethods": [],
            "encryptionConfig": {"passPhraseSecretKeyRef": {"name": "phrase", "key": "k"}}}})),
        method: from(json!({"name": "archive-wal", "actionSetName": "a", "env": [{"name": "EXTRA", "value": "x"}],
            "targetVolumes": {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}})),
        action_set: from(json!({"metadata": {"name": "a"}, "spec": {"backupType": "Continuous",
            "backup": {"backupData": {"image": "", "command": ["bash", "-c", "archive"], "runOnTargetPodNode": true,
                "syncProgress": {"enabled": true, "intervalSeconds": 3}}}}})),
        repo: from(json!({"metadata": {"name": "main"}, "spec": {"storageProviderRef": "s3", "accessMethod": "Tool",
            "pvReclaimPolicy": "Retain", "pathPrefix": "prod"}, "status": {"toolConfigSecretName": "tool"}})),
        way: Some(Way::Tool { secret: "tool".into() }),
        prepared: true,
        targets: targets
            .iter()
            .map(|name| {
                (from(json!({"name": name, "podSelector": {"matchLabels": {"app": "pg"}}})), vec![database("pg-0")])
            })
            .collect(),
        several: targets.len() > 1,
        parent: None,
        cluster: None,
        workload: None,
    }
}

fn begun(targets: &[Option<&str>]) -> (Backup, BackupStatus) {
    let begin = common::begin(&backup(), &graph(targets), &settings(), now()).unwrap();
    let mut backup = backup();
    backup.labels_mut().extend(begin.labels);
    backup.status = Some(begin.status.clone());
    (backup, begin.status)
}

fn set(found: Option<&k8s_openapi::api::apps::v1::StatefulSet>, cron: &str) -> k8s_openapi::api::apps::v1::StatefulSet {
    let (backup, status) = begun(&[None]);
    let graph = graph(&[None]);
    let ingredients = Ingredients {
        backoff_limit: 2,
        action_set: graph.action_set,
        access: graph.way.map(|way| RepoAccess {
            way,
            kopia_path: None,
            encryption: graph.policy.spec.encryption_config,
        }),
        pods: [("pg-0".to_owned(), database("pg-0"))].into(),
    };
    let site = Site { backup: &backup, status: &status, ingredients: &ingredients, settings: &settings() };
    build::stateful_set(&site, 0, cron, found).unwrap()
}

#[test]
fn behaviour_4_9_stateful_set() {
    insta::assert_yaml_snapshot!(set(None, "*/5 * * * *"));
}

#[test]
fn behaviour_4_9_channel() {
    let channel = build::channel(&backup(), "aaaabbbb-c1-archive-wal", "worker");
    insta::assert_yaml_snapshot!(json!({"map": channel.map, "role": channel.role, "binding": channel.binding}));
}

#[test]
fn behaviour_4_3_how_a_continuous_backup_starts() {
    let (_, status) = begun(&[Some("a"), Some("b")]);
    let actions: Vec<_> = status.actions.iter().map(|action| serde_json::to_value(action).unwrap()).collect();
    assert_eq!(
        actions,
        ["a", "b"].map(|target| json!({
            "name": format!("dp-backup-{target}-0"), "targetPodName": "pg-0", "phase": "New", "actionType": "StatefulSet",
            "objectRef": {"apiVersion": "apps/v1", "kind": "StatefulSet", "namespace": "demo",
                "name": format!("dp-backup-{target}-aaaabbbb-c1-archive-wal")}
        }))
    );
    assert_eq!(status.expiration, None, "behaviour 4.12");
}

#[test]
fn behaviour_4_7_group_10_comes_last_and_only_in_the_main_container() {
    let built = serde_json::to_value(set(None, "0 */2 * * *")).unwrap();
    let pod = &built["spec"]["template"]["spec"];
    let names = |container: &Value| -> Vec<String> {
        let list = container["env"].as_array().unwrap();
        list.iter().map(|entry| entry["name"].as_str().unwrap().to_owned()).collect()
    };
    let main = &pod["containers"][0];
    assert_eq!(names(main)[names(main).len() - 2..], ["DP_ARCHIVE_INTERVAL", "DP_TTL_SECONDS"]);
    let value = |name: &str| {
        main["env"].as_array().unwrap().iter().find(|entry| entry["name"] == name).unwrap()["value"].clone()
    };
    assert_eq!(value("DP_ARCHIVE_INTERVAL"), "7200s");
    assert_eq!(value("DP_TTL_SECONDS"), (7 * 86_400).to_string());
    assert!(
        !names(main).contains(&"KBBACKUP_JOURNAL".to_owned()),
        "a log's pushes are noted in the repository at once"
    );
    let manager = pod["initContainers"].as_array().unwrap().last().unwrap();
    assert_eq!(names(manager), ["DP_BACKUP_NAME", "DP_BACKUP_INFO_FILE", "DP_CHECK_INTERVAL"]);
}

#[test]
fn only_the_side_car_has_a_token() {
    let pod = set(None, "").spec.unwrap().template.spec.unwrap();
    assert_eq!(pod.automount_service_account_token, Some(false));
    let token = |container: &k8s_openapi::api::core::v1::Container| {
        container.volume_mounts.iter().flatten().any(|mount| mount.mount_path.contains("serviceaccount"))
    };
    assert!(!pod.containers.iter().any(token));
    let with: Vec<_> = pod.init_containers.unwrap().into_iter().filter(token).map(|container| container.name).collect();
    assert_eq!(with, ["manager"]);
}

#[test]
fn what_is_built_again_is_the_same_and_a_change_is_seen() {
    let one = set(None, "*/5 * * * *");
    let again = set(Some(&one), "*/5 * * * *");
    assert!(build::is_up_to_date(&one, &again));
    assert!(!build::is_up_to_date(&one, &set(Some(&one), "*/6 * * * *")));
    let mut asleep = one.clone();
    asleep.spec.as_mut().unwrap().replicas = Some(0);
    assert!(!build::is_up_to_date(&asleep, &again), "somebody scaled it down");
}

#[test]
fn a_selector_cannot_be_changed_and_is_kept() {
    let mut old = set(None, "");
    let selector = old.spec.as_mut().unwrap().selector.match_labels.as_mut().unwrap();
    selector.insert("then".into(), "there".into());
    let spec = set(Some(&old), "").spec.unwrap();
    assert_eq!(spec.selector.match_labels.unwrap()["then"], "there");
    assert_eq!(spec.template.metadata.unwrap().labels.unwrap()["then"], "there");
}

fn archiver_pod(status: Value) -> Pod {
    from(json!({ "metadata": {"name": "x-0"}, "status": status }))
}

fn conditions(ready: &str, since: i64) -> Value {
    json!([{"type": "Initialized", "status": "True", "lastTransitionTime": ago(1000)},
        {"type": "ContainersReady", "status": ready, "lastTransitionTime": ago(since)}])
}

#[rstest]
#[case::works(json!({}), "True", 60, "Working")]
#[case::has_just_come_up(json!({}), "True", 3, "Settling")]
#[case::is_being_created(json!({}), "False", 60, "Settling")]
#[case::has_just_died(json!({"state": {"terminated": {"exitCode": 1}}}), "False", 3, "Settling")]
#[case::is_dead(json!({"state": {"terminated": {"exitCode": 1}}}), "False", 11, "Failing")]
#[case::has_ended_well_and_is_started_again(json!({"state": {"terminated": {"exitCode": 0}}}), "False", 60, "Settling")]
#[case::waits_without_a_word(json!({"state": {"waiting": {"reason": "ContainerCreating"}}}), "False", 60, "Settling")]
#[case::crashes_again_and_again(
    json!({"state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}}), "False", 11, "Failing")]
fn behaviour_4_9_health(#[case] container: Value, #[case] ready: &str, #[case] since: i64, #[case] wanted: &str) {
    let mut container = container;
    container["name"] = json!("backupdata");
    let base = json!({"name": "backupdata", "image": "", "imageID": "", "ready": false, "restartCount": 0});
    let mut whole = base.as_object().unwrap().clone();
    whole.extend(container.as_object().unwrap().clone());
    let pod = archiver_pod(json!({"conditions": conditions(ready, since), "containerStatuses": [whole]}));
    let health = decide::health(&pod, now());
    assert!(format!("{health:?}").starts_with(wanted), "{health:?}");
}

#[test]
fn a_crash_is_told_with_the_last_lines_of_its_log() {
    let pod = archiver_pod(json!({"conditions": conditions("False", 11), "containerStatuses": [
        {"name": "backupdata", "image": "", "imageID": "", "ready": false, "restartCount": 3,
         "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}},
         "lastState": {"terminated": {"exitCode": 3, "message": "slot is gone\n"}}}]}));
    let Health::Failing(why) = decide::health(&pod, now()) else { panic!("it fails") };
    assert_eq!(why, "container backupdata of pod x-0 fails (CrashLoopBackOff, exit code 3): slot is gone");
}

#[test]
fn behaviour_4_9_init_containers_are_looked_at_first() {
    let failing = |name: &str| {
        json!({"name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "m"}}})
    };
    let pod = archiver_pod(json!({
        "conditions": [{"type": "Initialized", "status": "False", "lastTransitionTime": ago(11)},
            {"type": "ContainersReady", "status": "False", "lastTransitionTime": ago(1)}],
        "initContainerStatuses": [failing("dp-copy-datasafed")], "containerStatuses": [failing("backupdata")]}));
    assert!(matches!(decide::health(&pod, now()), Health::Failing(why) if why.contains("dp-copy-datasafed")));
}

fn archiver(health: Health) -> Archiver {
    Archiver { name: "dp-backup-0".into(), pod: "pg-0".into(), health, available: 1, report: None }
}

fn look(health: Health) -> Look {
    Look { archivers: vec![archiver(health)], ..Look::default() }
}

/// The status after each of the looks, one after the other.
fn after(looks: &[Look]) -> BackupStatus {
    let (backup, mut status) = begun(&[None]);
    for look in looks {
        status = decide::judge(&backup, &status, look, now()).status;
    }
    status
}

#[rstest]
#[case::starts(vec![look(Health::Settling(None))], BackupPhase::Running)]
#[case::works(vec![look(Health::Working)], BackupPhase::Running)]
#[case::fails_at_once(vec![look(Health::Working), look(Health::Failing("x".into()))], BackupPhase::Failed)]
#[case::failure_is_not_forgotten(
    vec![look(Health::Failing("x".into())), look(Health::Settling(None))], BackupPhase::Failed)]
#[case::comes_back(vec![look(Health::Failing("x".into())), look(Health::Working)], BackupPhase::Running)]
#[case::short_idleness(vec![look(Health::Idle("x".into()))], BackupPhase::Running)]
#[case::long_idleness(
    vec![Look { since: Some(ago(61).parse().unwrap()), ..look(Health::Idle("x".into())) }], BackupPhase::Failed)]
#[case::wakes_up(
    vec![Look { since: Some(ago(61).parse().unwrap()), ..look(Health::Idle("x".into())) }, look(Health::Working)],
    BackupPhase::Running)]
#[case::a_wish_that_cannot_be(
    vec![Look { refusal: Some(Refusal::fatal("x")), ..look(Health::Working) }], BackupPhase::Failed)]
#[case::a_short_lack(
    vec![Look { refusal: Some(Refusal::not_yet(SOON, "x")), since: Some(ago(5).parse().unwrap()), ..look(Health::Working) }],
    BackupPhase::Running)]
#[case::a_long_lack(
    vec![Look { refusal: Some(Refusal::not_yet(SOON, "x")), since: Some(ago(11).parse().unwrap()), ..look(Health::Working) }],
    BackupPhase::Failed)]
#[case::a_repository_that_is_checked(
    vec![Look { refusal: Some(Refusal::not_yet(LONG, "x")), since: Some(ago(90).parse().unwrap()), ..look(Health::Working) }],
    BackupPhase::Running)]
fn behaviour_4_10_phases(#[case] looks: Vec<Look>, #[case] wanted: BackupPhase) {
    let status = after(&looks);
    assert_eq!(status.phase, Some(wanted));
    assert_eq!(status.failure_reason.is_some(), wanted == BackupPhase::Failed);
    assert_eq!(status.expiration.is_some(), wanted == BackupPhase::Failed, "behaviour 4.12");
}

#[test]
fn the_time_without_a_pod_is_counted_from_its_beginning() {
    let (backup, status) = begun(&[None]);
    let idle = look(Health::Idle("no pod".into()));
    let first = decide::judge(&backup, &status, &idle, now());
    assert_eq!((first.since, first.again), (Some(now()), Some(Duration::from_secs(61))));
    assert_eq!(first.obstacle.as_deref(), Some("no pod"));
    let later = Look { since: first.since, ..idle };
    let second = decide::judge(&backup, &first.status, &later, now() + Duration::from_secs(61));
    assert_eq!(second.status.actions[0].phase, Some(ActionPhase::Failed));
    assert_eq!(second.since, first.since);
    let well = decide::judge(&backup, &second.status, &Look { since: second.since, ..look(Health::Working) }, now());
    assert_eq!((well.since, well.obstacle), (None, None));
}

#[test]
fn the_same_look_again_changes_nothing() {
    for health in [Health::Working, Health::Failing("x".into()), Health::Idle("x".into()), Health::Settling(None)] {
        let (backup, status) = begun(&[None]);
        let mut look = look(health);
        look.archivers[0].report = Some(r#"{"totalSize":"7","extras":[{"a":"b"}]}"#.into());
        let first = decide::judge(&backup, &status, &look, now());
        let again =
            decide::judge(&backup, &first.status, &Look { since: first.since, ..look }, now() + Duration::from_secs(5));
        assert_eq!(first.status, again.status);
    }
}

#[test]
fn behaviour_4_9_a_report_sets_size_window_and_extras_and_nothing_else() {
    let (backup, status) = begun(&[None]);
    let told = |status: &BackupStatus, text: &str| {
        let mut look = look(Health::Working);
        look.archivers[0].report = Some(text.to_owned());
        decide::judge(&backup, status, &look, now())
    };
    let first = told(
        &status,
        r#"{"totalSize":"10","extras":[{"k":"v"}],
        "timeRange":{"start":"2026-08-20T01:00:00Z","end":"2026-08-20T02:00:00Z","timeZone":"+08:00"}}"#,
    );
    let range = |status: &BackupStatus| serde_json::to_value(status.time_range.clone()).unwrap();
    assert_eq!(
        range(&first.status),
        json!({"start": "2026-08-20T01:00:00Z", "end": "2026-08-20T02:00:00Z", "timeZone": "+08:00"})
    );
    assert_eq!(first.status.total_size.as_deref(), Some("10"));
    assert_eq!(first.status.extras[0]["k"], "v");
    // What is left out stays, as in a merge patch.
    let second = told(&first.status, r#"{"timeRange":{"end":"2026-08-20T02:30:00Z"}}"#);
    assert_eq!(range(&second.status)["start"], "2026-08-20T01:00:00Z");
    assert_eq!(range(&second.status)["end"], "2026-08-20T02:30:00Z");
    assert_eq!(second.status.total_size.as_deref(), Some("10"));
    // What is not allowed is told, and changes nothing.
    for text in [r#"{"phase":"Completed"}"#, "[]", "{", r#"{"timeRange":{"end":"soon"}}"#] {
        let bad = told(&second.status, text);
        assert_eq!(bad.status, second.status, "{text}");
        assert!(bad.obstacle.unwrap().contains("result file"), "{text}");
    }
}

#[test]
fn several_archivers_deliver_what_all_of_them_have() {
    let (backup, status) = begun(&[Some("a"), Some("b")]);
    let report = |name: &str, start: &str, end: &str| Archiver {
        name: format!("dp-backup-{name}-0"),
        report: Some(json!({"totalSize": "1Ki", "timeRange": {"start": start, "end": end}}).to_string()),
        ..archiver(Health::Working)
    };
    let one = report("a", "2026-08-20T01:00:00Z", "2026-08-20T02:00:00Z");
    let two = report("b", "2026-08-20T01:10:00Z", "2026-08-20T01:50:00Z");
    let silent = Archiver { report: None, ..two.clone() };
    let judged = |archivers: Vec<Archiver>| {
        decide::judge(&backup, &status, &Look { archivers, ..Look::default() }, now()).status
    };
    let both = judged(vec![one.clone(), two]);
    let range = both.time_range.unwrap();
    assert_eq!(range.start.unwrap().0.to_string(), "2026-08-20T01:10:00Z");
    assert_eq!(range.end.unwrap().0.to_string(), "2026-08-20T01:50:00Z");
    assert_eq!(both.total_size.as_deref(), Some("2048"));
    assert_eq!(judged(vec![one, silent]).time_range, None, "one of them has nothing yet");
}

#[test]
fn behaviour_4_4_what_comes_before_an_archiver_has_no_window() {
    let mut graph = graph(&[Some("a"), Some("b")]);
    let actions = graph.action_set.spec.backup.get_or_insert_default();
    actions.pre_backup = from(json!([{"exec": {"command": ["c"]}}, {"job": {"image": "i", "command": ["c"]}}]));
    actions.post_backup = from(json!([{"job": {"image": "i", "command": ["never"]}}]));
    let begin = common::begin(&backup(), &graph, &settings(), now()).unwrap();
    let names: Vec<_> = begin.status.actions.iter().filter_map(|action| action.name.clone()).collect();
    let of = |target: &str| {
        [format!("dp-prebackup-{target}-0-0"), format!("dp-prebackup-{target}-1-0"), format!("dp-backup-{target}-0")]
    };
    assert_eq!(names, [of("a"), of("b")].concat());
    let home = |index: usize| begin.status.actions[index].object_ref.clone().unwrap().namespace.unwrap();
    assert_eq!((home(0), home(1).as_str()), (settings().manager_namespace, "demo"), "an exec runs by the manager");
    let report = |target: &str| Archiver {
        name: format!("dp-backup-{target}-0"),
        report: Some(
            json!({"timeRange": {"start": "2026-08-20T01:00:00Z", "end": "2026-08-20T02:00:00Z"}}).to_string(),
        ),
        ..archiver(Health::Working)
    };
    let look = Look { archivers: vec![report("a"), report("b")], ..Look::default() };
    let judged = decide::judge(&backup(), &begin.status, &look, now()).status;
    assert_eq!(judged.time_range.unwrap().end.unwrap().0.to_string(), "2026-08-20T02:00:00Z");
}

#[test]
fn one_failed_archiver_fails_the_backup_and_the_others_go_on() {
    let (backup, status) = begun(&[Some("a"), Some("b")]);
    let of = |name: &str, health| Archiver { name: format!("dp-backup-{name}-0"), ..archiver(health) };
    let archivers = vec![of("a", Health::Working), of("b", Health::Failing("no disk".into()))];
    let judged = decide::judge(&backup, &status, &Look { archivers, ..Look::default() }, now()).status;
    assert_eq!(judged.phase, Some(BackupPhase::Failed));
    assert_eq!(judged.actions[0].phase, Some(ActionPhase::Running));
    assert_eq!(judged.failure_reason.as_deref(), Some("action dp-backup-b-0 failed: no disk"));
}

#[test]
fn behaviour_4_10_2_completed() {
    let (backup, status) = begun(&[None]);
    let running = decide::judge(&backup, &status, &look(Health::Working), now()).status;
    let done = decide::completed(&backup, &running, now() + Duration::from_secs(90));
    assert_eq!(done.phase, Some(BackupPhase::Completed));
    assert_eq!(done.duration.as_deref(), Some("1m30s"));
    assert_eq!(done.expiration.clone().unwrap().0.to_string(), "2026-08-27T03:01:30Z");
    assert_eq!(
        (done.actions[0].phase.clone(), done.actions[0].available_replicas),
        (Some(ActionPhase::Completed), Some(0))
    );
    // Behaviour 5.3: the schedule sets it running again.
    let resumed = BackupStatus { phase: Some(BackupPhase::Running), failure_reason: None, ..done };
    let again = decide::judge(&backup, &resumed, &look(Health::Settling(None)), now()).status;
    assert_eq!((again.completion_timestamp, again.duration, again.expiration), (None, None, None));
    assert_eq!(again.actions[0].phase, Some(ActionPhase::Running));
    assert_eq!(again.start_timestamp, status.start_timestamp);
}

#[rstest]
#[case::on(json!([{"backupMethod": "wal", "enabled": true, "cronExpression": "* * * * *"}]), false)]
#[case::off(json!([{"backupMethod": "wal", "enabled": false, "cronExpression": "* * * * *"}]), true)]
#[case::unset(json!([{"backupMethod": "wal", "cronExpression": "* * * * *"}]), true)]
#[case::one_of_two(json!([{"backupMethod": "wal", "enabled": false, "cronExpression": "* * * * *"},
    {"backupMethod": "wal", "name": "b", "enabled": true, "cronExpression": "* * * * *"}]), false)]
#[case::another_method(json!([{"backupMethod": "full", "enabled": true, "cronExpression": "* * * * *"}]), true)]
fn behaviour_4_10_2_schedule(#[case] entries: Value, #[case] over: bool) {
    let schedule: BackupSchedule =
        from(json!({"metadata": {"name": "s"}, "spec": {"backupPolicyName": "p", "schedules": entries}}));
    assert_eq!(decide::unwanted(Some(&schedule), "s", "wal").is_some(), over);
    assert!(decide::unwanted(None, "s", "wal").is_some());
}

#[test]
fn behaviour_4_10_2_cluster() {
    let cluster = |phase: &str, uid: &str| json!({"metadata": {"uid": uid}, "status": {"phase": phase}});
    let over = |cluster: Option<&Value>| decide::cluster_is_over(cluster, "c1", "u1").is_some();
    assert!(!over(Some(&cluster("Running", "u1"))));
    assert!(!over(Some(&cluster("Stopping", "u1"))));
    assert!(over(Some(&cluster("Stopped", "u1"))));
    assert!(over(Some(&cluster("Running", "u2"))));
    assert!(over(Some(&json!({"metadata": {"uid": "u1", "deletionTimestamp": "2026-08-20T03:00:00Z"}}))));
    assert!(over(None));
}
