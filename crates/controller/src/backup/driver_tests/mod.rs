//! The driver of a backup against an API server in memory: what is read and written, in which order.

mod continuous;
mod deletion;

use std::sync::Arc;

use kbbackup_api::names::{FINALIZER, annotations, labels};
use kbbackup_api::v1alpha1::Backup;
use serde_json::{Value, json};

use super::{observe, reconcile};
use crate::catalogue::Entry;
use crate::context::Context;
use crate::fake::{Fake, from, guarded, holding, job};
use crate::worker::error::Error;

pub(super) const AT: &str = "demo/backups/b1";

pub(super) fn backup(labels: Value, spec: Value, status: Value) -> Value {
    let mut whole = json!({ "backupPolicyName": "p", "backupMethod": "full" });
    whole.as_object_mut().unwrap().extend(spec.as_object().cloned().unwrap_or_default());
    json!({ "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "Backup",
        "metadata": {"name": "b1", "namespace": "demo", "uid": "6f1c2d3e-0000", "resourceVersion": "1", "labels": labels,
            "creationTimestamp": jiff::Timestamp::now().to_string()}, "spec": whole, "status": status })
}

/// One reconcile of the backup as the server has it.
pub(super) async fn look(fake: &Fake, ctx: &Context) -> Result<(), Error> {
    let object = fake.get(AT).expect("the backup exists");
    reconcile(Arc::new(Entry::from(guarded(object))), Arc::new(ctx.clone())).await.map(drop)
}

fn note(fake: &Fake) -> String {
    let object = fake.get(AT).unwrap();
    object["metadata"]["annotations"][annotations::WAITING_FOR].as_str().unwrap_or_default().to_owned()
}

pub(super) fn phase(fake: &Fake) -> Value {
    fake.get(AT).unwrap()["status"]["phase"].clone()
}

pub(super) fn policy(methods: Value) -> Value {
    json!({ "metadata": {"name": "p", "namespace": "demo"}, "spec": {"backupRepoName": "main", "backupMethods": methods,
        "encryptionConfig": {"passPhraseSecretKeyRef": {"name": "phrase", "key": "k"}},
        "target": {"podSelector": {"matchLabels": {"app": "pg"}}}} })
}

pub(super) fn action_set() -> Value {
    json!({ "metadata": {"name": "a"}, "spec": {"backupType": "Full",
        "backup": {"backupData": {"image": "pg:1", "command": ["c"]}}} })
}

fn repo(phase: &str, status: Value) -> Value {
    let mut whole = json!({ "phase": phase });
    whole.as_object_mut().unwrap().extend(status.as_object().cloned().unwrap());
    json!({ "metadata": {"name": "main"}, "spec": {"storageProviderRef": "s3", "accessMethod": "Tool",
        "pvReclaimPolicy": "Retain"}, "status": whole })
}

pub(super) fn pod() -> Value {
    json!({ "metadata": {"name": "pg-0", "namespace": "demo", "labels": {"app": "pg"}},
        "spec": {"subdomain": "pg", "containers": [{"name": "pg", "image": "pg:1"}]},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]} })
}

/// Everything that a backup rests on.
pub(super) fn sound() -> Fake {
    Fake::new([
        (AT, backup(json!({}), json!({}), json!({}))),
        ("demo/backuppolicies/p", policy(json!([{"name": "full", "actionSetName": "a"}]))),
        ("-/actionsets/a", action_set()),
        ("-/backuprepos/main", repo("Ready", json!({ "toolConfigSecretName": "tool" }))),
        ("demo/secrets/phrase", json!({ "metadata": {"name": "phrase"}, "data": {"k": "cGFzcw=="} })),
        ("demo/secrets/tool", json!({ "metadata": {"name": "tool"} })),
        ("demo/pods/pg-0", pod()),
        ("-/namespaces/demo", json!({ "metadata": {"name": "demo"} })),
        ("demo/serviceaccounts/kubeblocks-dataprotection-worker", json!({ "metadata": {"name": "w"} })),
    ])
}

/// A backup that is being deleted, with all that it has made.
fn going(spec: Value, status: Value) -> Value {
    let mut object = backup(json!({}), spec, status);
    object["metadata"]["deletionTimestamp"] = json!(jiff::Timestamp::now().to_string());
    object["metadata"]["finalizers"] = json!([FINALIZER]);
    object
}

fn stored() -> Value {
    json!({ "phase": "Completed", "path": "/demo/b1", "backupRepoName": "main",
        "backupMethod": {"name": "full", "actionSetName": "a"} })
}

pub(super) fn owned(name: &str) -> Value {
    json!({ "name": name, "namespace": "demo", "uid": format!("uid-of-{name}"),
        "labels": {labels::BACKUP_NAME: "b1"}, "finalizers": [FINALIZER],
        "ownerReferences": [{"apiVersion": "x", "kind": "Backup", "name": "b1", "uid": "6f1c2d3e-0000"}] })
}

#[tokio::test]
async fn behaviour_4_3_what_is_checked_in_which_order() {
    let fake = Fake::default();
    let backup: Backup = from(backup(json!({}), json!({"parameters": [{"name": "speed", "value": "1"}]}), json!({})));
    let told = async || match observe::graph(&fake.context(), &backup).await {
        Err(Error::Refused(refusal)) => refusal.to_string(),
        Err(other) => format!("{other:?}"),
        Ok(_) => String::new(),
    };
    // Each line mends what the one before complained of, and meets the next check.
    assert_eq!(told().await, "BackupPolicy p does not exist in demo");
    let mut unavailable = policy(json!([]));
    unavailable["status"] = json!({ "phase": "Unavailable", "message": "no selector" });
    fake.put("demo/backuppolicies/p", unavailable);
    assert_eq!(told().await, "BackupPolicy p is Unavailable: no selector");
    fake.put("demo/backuppolicies/p", policy(json!([{"name": "other"}])));
    assert_eq!(told().await, "BackupPolicy p has no method full (it has: other)");
    fake.put("demo/backuppolicies/p", policy(json!([{"name": "full"}])));
    assert_eq!(told().await, "method full names neither an actionSetName nor snapshotVolumes");
    fake.put("demo/backuppolicies/p", policy(json!([{"name": "full", "actionSetName": "a"}])));
    assert_eq!(told().await, "ActionSet a does not exist");
    fake.put("-/actionsets/a", action_set());
    assert!(told().await.contains("parameter speed"), "{}", told().await);
    let mut takes = action_set();
    takes["spec"]["backup"]["withParameters"] = json!(["speed"]);
    takes["spec"]["parametersSchema"] =
        json!({ "openAPIV3Schema": {"type": "object", "properties": {"speed": {"type": "string"}}} });
    fake.put("-/actionsets/a", takes);
    assert_eq!(told().await, "BackupRepo main does not exist");
    fake.put("-/backuprepos/main", repo("PreChecking", json!({})));
    assert_eq!(told().await, "BackupRepo main is PreChecking, not Ready");
    fake.put("-/backuprepos/main", repo("Ready", json!({})));
    assert!(told().await.contains("main"), "an empty name in its status: {}", told().await);
    fake.put("-/backuprepos/main", repo("Ready", json!({ "toolConfigSecretName": "tool" })));
    assert_eq!(told().await, "Secret phrase of the encryption does not exist in demo");
    fake.put("demo/secrets/phrase", json!({ "metadata": {"name": "phrase"}, "data": {} }));
    assert_eq!(told().await, "Secret phrase of the encryption has no key k in demo");
    fake.put("demo/secrets/phrase", json!({ "metadata": {"name": "phrase"}, "data": {"k": "cGFzcw=="} }));
    assert!(told().await.contains("pod"), "{}", told().await);
    fake.put("demo/pods/pg-0", pod());
    assert_eq!(told().await, "");
    assert!(fake.writes().is_empty(), "nothing is written before everything holds");
}

#[tokio::test]
async fn behaviour_4_3_7_the_repository_of_label_policy_or_default() {
    let fake = sound();
    let chosen = async |own: Value, of_policy: Value| {
        let mut policy = policy(json!([{"name": "full", "actionSetName": "a"}]));
        policy["spec"]["backupRepoName"] = of_policy;
        fake.put("demo/backuppolicies/p", policy);
        let mut ctx = fake.context();
        let mut default = repo("Ready", json!({ "toolConfigSecretName": "tool" }));
        default["metadata"] = json!({ "name": "usual", "annotations": {annotations::IS_DEFAULT_REPO: "true"} });
        ctx.stores.repos = holding([guarded(default)]);
        let graph = observe::graph(&ctx, &from(backup(own, json!({}), json!({})))).await.unwrap();
        graph.repo.unwrap().metadata.name.unwrap()
    };
    let mut own = repo("Ready", json!({ "toolConfigSecretName": "tool" }));
    own["metadata"]["name"] = json!("own");
    fake.put("-/backuprepos/own", own);
    assert_eq!(chosen(json!({ labels::BACKUP_REPO_NAME: "own" }), json!("main")).await, "own");
    assert_eq!(chosen(json!({}), json!("main")).await, "main");
    assert_eq!(chosen(json!({}), json!(null)).await, "usual");
}

/// A policy with an incremental method whose parent is there: `pg-1` was its pod.
fn increment(selector: Value) -> (Fake, Context) {
    let fake = sound();
    let mut policy = policy(json!([{"name": "full", "actionSetName": "a"},
        {"name": "incr", "actionSetName": "i", "compatibleMethod": "full"}]));
    policy["spec"]["target"]["podSelector"] = selector;
    fake.put("demo/backuppolicies/p", policy);
    let mut set = action_set();
    set["metadata"]["name"] = json!("i");
    set["spec"]["backupType"] = json!("Incremental");
    fake.put("-/actionsets/i", set);
    let parent = json!({ "metadata": {"name": "parent", "namespace": "demo", "labels": {labels::BACKUP_TYPE: "Full"}},
        "spec": {"backupPolicyName": "p", "backupMethod": "full"},
        "status": {"phase": "Completed", "path": "/demo/parent", "backupRepoName": "main",
            "backupMethod": {"name": "full", "actionSetName": "a"},
            "startTimestamp": "2026-01-01T00:00:00Z", "completionTimestamp": "2026-01-01T00:01:00Z",
            "target": {"podSelector": {"strategy": "Any"}, "selectedTargetPods": ["pg-1"]}} });
    fake.put("demo/backups/parent", parent.clone());
    fake.put(AT, backup(json!({}), json!({ "backupMethod": "incr" }), json!({})));
    let mut ctx = fake.context();
    ctx.stores.backups = holding([from(parent)]);
    (fake, ctx)
}

#[tokio::test]
async fn behaviour_3_3_an_increment_is_taken_from_the_pod_of_its_parent_if_the_target_says_so() {
    let chosen = async |selector: Value, changed: Option<Value>| {
        let (fake, ctx) = increment(selector);
        if let Some(pod) = changed {
            fake.put("demo/pods/pg-1", pod);
        }
        let graph = observe::graph(&ctx, &from(fake.get(AT).unwrap())).await;
        graph.map(|graph| graph.targets[0].1[0].metadata.name.clone().unwrap()).map_err(|error| match error {
            Error::Refused(refusal) => refusal.to_string(),
            other => format!("{other:?}"),
        })
    };
    // It is of another role by now, and not ready either.
    let mut other = pod();
    other["metadata"] = json!({ "name": "pg-1", "namespace": "demo", "labels": {"app": "other"} });
    other["status"] = json!({});
    let parents = json!({ "matchLabels": {"app": "pg"}, "useParentSelectedPods": true });
    assert_eq!(chosen(parents.clone(), Some(other.clone())).await.as_deref(), Ok("pg-1"));
    assert_eq!(chosen(json!({ "matchLabels": {"app": "pg"} }), Some(other)).await.as_deref(), Ok("pg-0"));
    let gone = chosen(parents, None).await.unwrap_err();
    assert!(gone.contains("pg-1") && gone.contains("does not exist"), "{gone}");
}

#[tokio::test]
async fn behaviour_3_3_without_a_pod_a_backup_waits_and_then_fails() {
    let fake = sound();
    fake.remove("demo/pods/pg-0");
    look(&fake, &fake.context()).await.unwrap();
    assert_eq!(phase(&fake), json!(null), "it may be moving to another node");
    assert!(note(&fake).contains("no pod in the namespace matches"), "{}", note(&fake));
    let mut late = fake.get(AT).unwrap();
    late["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
    fake.put(AT, late);
    look(&fake, &fake.context()).await.unwrap();
    assert_eq!(phase(&fake), "Failed");
    assert!(fake.writes().iter().all(|write| !write.starts_with("POST")));
}

#[tokio::test]
async fn behaviour_3_5_an_increment_builds_on_a_backup_of_the_method_that_it_names() {
    let (fake, ctx) = increment(json!({ "matchLabels": {"app": "pg"} }));
    let of = async |compatible: &str| {
        let mut policy = fake.get("demo/backuppolicies/p").unwrap();
        policy["spec"]["backupMethods"][1]["compatibleMethod"] = json!(compatible);
        fake.put("demo/backuppolicies/p", policy);
        let graph = observe::graph(&ctx, &from(fake.get(AT).unwrap())).await;
        graph.map(|graph| graph.parent.unwrap().name).map_err(|error| matches!(error, Error::Refused(_)))
    };
    assert_eq!(of("full").await.as_deref(), Ok("parent"));
    assert_eq!(of("dump").await, Err(true), "there is none of that method");
}

#[tokio::test]
async fn behaviour_3_1_the_phase_of_a_recipe_is_for_people_only() {
    let fake = sound();
    let mut set = action_set();
    set["status"] = json!({ "phase": "Unavailable", "message": "a parameter is not declared" });
    fake.put("-/actionsets/a", set);
    look(&fake, &fake.context()).await.unwrap();
    assert_eq!(phase(&fake), "Running", "{}", note(&fake));
}

#[tokio::test]
async fn behaviour_3_3_what_a_backup_has_recorded_stays_its_pod_and_the_fallback_is_a_second_choice() {
    let fake = sound();
    let mut policy = policy(json!([{"name": "full", "actionSetName": "a"}]));
    policy["spec"]["target"]["podSelector"] =
        json!({ "matchLabels": {"role": "secondary"}, "fallbackLabelSelector": {"matchLabels": {"role": "primary"}} });
    fake.put("demo/backuppolicies/p", policy);
    let wearing = |name: &str, role: &str| {
        let mut pod = pod();
        pod["metadata"] = json!({ "name": name, "namespace": "demo", "labels": {"role": role} });
        pod
    };
    fake.put("demo/pods/pg-0", wearing("pg-0", "primary"));
    let chosen = async |status: Value| {
        let graph = observe::graph(&fake.context(), &from(backup(json!({}), json!({}), status))).await.unwrap();
        graph.targets[0].1[0].metadata.name.clone().unwrap()
    };
    assert_eq!(chosen(json!({})).await, "pg-0", "there is no secondary");
    fake.put("demo/pods/pg-1", wearing("pg-1", "secondary"));
    assert_eq!(chosen(json!({})).await, "pg-1");
    let recorded = json!({ "target": {"selectedTargetPods": ["pg-0"]} });
    assert_eq!(chosen(recorded).await, "pg-0", "a secondary that comes up later changes nothing");
}

#[tokio::test]
async fn behaviour_4_3_12_labels_before_status_before_the_first_job() {
    let fake = sound();
    look(&fake, &fake.context()).await.unwrap();
    let found = fake.get(AT).unwrap();
    assert_eq!(found["metadata"]["finalizers"], json!([FINALIZER]));
    assert_eq!(found["status"]["phase"], "Running");
    let writes: Vec<_> = fake.writes().into_iter().filter(|write| !write.contains("serviceaccounts")).collect();
    assert_eq!(
        writes,
        [
            "PATCH demo/backups/b1",
            "PATCH demo/backups/b1/status",
            "POST demo/jobs",
            "EVENT CreatingJob",
            "PATCH demo/backups/b1/status"
        ]
    );
    // Killed at any line, the next look finds its own Job and makes no second one.
    let mut ctx = fake.context();
    ctx.stores.jobs = holding([from(fake.get("demo/jobs/dp-backup-0-b1-6f1c2d3e").unwrap())]);
    look(&fake, &ctx).await.unwrap();
    assert_eq!(fake.writes(), Vec::<String>::new());
}

/// Backups that an `OpsRequest` of the command line leads to, and those that KubeBlocks 0.9 made to add replicas.
#[tokio::test]
async fn behaviour_10_backups_made_for_requests_keep_their_labels_and_our_jobs_are_ours() {
    let of_request = json!({ "app.kubernetes.io/instance": "c1", "operations.kubeblocks.io/ops-name": "c1-backup-x",
        "operations.kubeblocks.io/ops-type": "Backup" });
    let of_scaling = json!({ "app.kubernetes.io/instance": "c1", "app.kubernetes.io/managed-by": "cluster",
        "apps.kubeblocks.io/component-name": "db", "kubeblocks.io/managed-by": "cluster" });
    for own in [of_request, of_scaling] {
        let fake = sound();
        let spec =
            json!({ "deletionPolicy": "Delete", "retentionPeriod": "1mo1d", "parentBackupName": "", "parameters": [] });
        fake.put(AT, backup(own.clone(), spec, json!({})));
        look(&fake, &fake.context()).await.unwrap();
        let found = fake.get(AT).unwrap();
        assert_eq!(found["status"]["phase"], "Running", "{own}: {}", note(&fake));
        for (key, value) in own.as_object().unwrap() {
            assert_eq!(&found["metadata"]["labels"][key], value, "{key}: the request finds its backup by it");
        }
        let job = fake.get("demo/jobs/dp-backup-0-b1-6f1c2d3e").unwrap();
        assert_eq!(
            job["metadata"]["labels"][labels::MANAGED_BY],
            labels::MANAGED_BY_DATAPROTECTION,
            "we watch no others"
        );
    }
}

#[tokio::test]
async fn behaviour_4_3_13_the_access_of_the_namespace_is_asked_for_and_awaited() {
    let fake = sound();
    fake.put("-/backuprepos/main", repo("Ready", json!({ "toolConfigSecretName": "absent" })));
    look(&fake, &fake.context()).await.unwrap();
    let found = fake.get(AT).unwrap();
    assert_eq!(found["metadata"]["labels"][labels::WAIT_REPO_PREPARATION], "true");
    assert_eq!(found["metadata"]["labels"][labels::BACKUP_REPO_NAME], "main");
    assert_eq!(note(&fake), "waiting for the access to BackupRepo main in namespace demo");
    assert_eq!(found["status"], json!({}), "the status follows when the access is there");
    assert!(fake.writes().iter().all(|write| !write.starts_with("POST")));
}

#[tokio::test]
async fn behaviour_4_11_what_may_come_right_is_awaited_and_then_fails_with_its_reason() {
    let fake = sound();
    fake.put("-/backuprepos/main", repo("PreChecking", json!({})));
    look(&fake, &fake.context()).await.unwrap();
    assert_eq!((phase(&fake), note(&fake)), (json!(null), "BackupRepo main is PreChecking, not Ready".to_owned()));
    assert!(fake.writes().contains(&"EVENT ReconcileFailed".to_owned()), "a warning tells so");
    let mut late = fake.get(AT).unwrap();
    late["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
    late["spec"]["retentionPeriod"] = json!("9y");
    fake.put(AT, late);
    look(&fake, &fake.context()).await.unwrap();
    let status = fake.get(AT).unwrap()["status"].clone();
    assert_eq!(status["phase"], "Failed");
    assert!(status["failureReason"].as_str().unwrap().starts_with("BackupRepo main is PreChecking"), "{status}");
    assert_eq!(status["expiration"], "2034-12-30T00:00:00Z");
    assert_eq!(note(&fake), "");
}

#[tokio::test]
async fn behaviour_11_3_a_running_backup_goes_on_while_its_repository_is_checked_again() {
    let fake = sound();
    look(&fake, &fake.context()).await.unwrap();
    let job = "demo/jobs/dp-backup-0-b1-6f1c2d3e";
    fake.remove(job);
    fake.put("-/backuprepos/main", repo("PreChecking", json!({ "toolConfigSecretName": "tool" })));
    look(&fake, &fake.context()).await.unwrap();
    assert_eq!(phase(&fake), "Running");
    assert!(fake.get(job).is_some(), "{}", note(&fake));
}

#[tokio::test]
async fn behaviour_11_4_failed_is_final() {
    let fake = sound();
    fake.put(AT, backup(json!({}), json!({}), json!({ "phase": "Failed", "failureReason": "no pod" })));
    look(&fake, &fake.context()).await.unwrap();
    assert_eq!(phase(&fake), "Failed", "although everything is there by now");
    assert!(fake.writes().iter().all(|write| !write.starts_with("POST")));
}

#[tokio::test]
async fn behaviour_0_2_a_server_that_fails_for_a_moment_fails_no_backup() {
    for path in ["-/actionsets/a", "demo/pods", "demo/backups/b1/status", "demo/jobs"] {
        let fake = sound();
        fake.fails_at(path);
        assert!(look(&fake, &fake.context()).await.is_err(), "{path}: tried again with growing waits");
        assert_ne!(phase(&fake), "Failed", "{path}");
        fake.fails_at("");
        look(&fake, &fake.context()).await.unwrap();
        assert_eq!(phase(&fake), "Running", "{path}");
        assert!(fake.get("demo/jobs/dp-backup-0-b1-6f1c2d3e").is_some(), "{path}");
    }
}

#[tokio::test]
async fn behaviour_4_1_what_is_to_be_skipped_is_not_touched() {
    for going_away in [false, true] {
        let mut object = if going_away { going(json!({}), stored()) } else { backup(json!({}), json!({}), json!({})) };
        object["metadata"]["annotations"] = json!({ annotations::SKIP_RECONCILIATION: "True" });
        let fake = sound();
        fake.put(AT, object);
        look(&fake, &fake.context()).await.unwrap();
        assert_eq!(fake.writes(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn behaviour_4_1_a_completed_backup_lets_its_workers_go_and_a_failed_one_keeps_them() {
    for (phase, gone) in [("Completed", true), ("Failed", false)] {
        let fake = sound();
        let mut status = stored();
        status["phase"] = json!(phase);
        fake.put(AT, backup(json!({}), json!({}), status));
        fake.put("demo/jobs/dp-backup-0", json!({ "metadata": owned("dp-backup-0") }));
        let mut ctx = fake.context();
        ctx.stores.jobs = holding([job(owned("dp-backup-0"), Some("Complete"))]);
        look(&fake, &ctx).await.unwrap();
        assert_eq!(fake.get("demo/jobs/dp-backup-0").is_none(), gone, "{phase}");
    }
}

#[tokio::test]
async fn behaviour_4_6_a_scheduled_backup_may_not_name_its_parent() {
    let fake = sound();
    let mut set = action_set();
    set["spec"]["backupType"] = json!("Incremental");
    fake.put("-/actionsets/a", set);
    let named = json!({ "parentBackupName": "i1" });
    let scheduled: Backup = from(backup(json!({ labels::BACKUP_SCHEDULE: "s" }), named.clone(), json!({})));
    let why = observe::graph(&fake.context(), &scheduled).await.unwrap_err().to_string();
    assert_eq!(why, "a scheduled backup may not name its parent");
    let by_hand: Backup = from(backup(json!({}), named, json!({})));
    let why = observe::graph(&fake.context(), &by_hand).await.unwrap_err().to_string();
    assert!(why.contains("i1"), "{why}");
}

/// A running backup whose Job is at work.
pub(super) fn running() -> Value {
    json!({ "phase": "Running", "path": "/demo/b1", "backupRepoName": "main", "startTimestamp": "2026-01-01T00:00:00Z",
        "backupMethod": {"name": "full", "actionSetName": "a"},
        "target": {"podSelector": {"matchLabels": {"app": "pg"}}, "selectedTargetPods": ["pg-0"]},
        "actions": [{"name": "dp-backup-0", "targetPodName": "pg-0", "phase": "New", "actionType": "Job",
            "objectRef": {"apiVersion": "batch/v1", "kind": "Job", "namespace": "demo", "name": "dp-backup-0-b1-6f1c2d3e"}}] })
}

#[tokio::test]
async fn a_repository_that_is_checked_again_fails_no_running_backup() {
    let fake = sound();
    fake.put(AT, backup(json!({}), json!({}), running()));
    fake.put("-/backuprepos/main", repo("PreChecking", json!({ "toolConfigSecretName": "tool" })));
    look(&fake, &fake.context()).await.unwrap();
    assert_eq!(phase(&fake), "Running");
    assert!(fake.get("demo/jobs/dp-backup-0-b1-6f1c2d3e").is_some(), "its next action starts: the mover will tell");
}

#[tokio::test]
async fn a_worker_that_never_ran_is_given_up_at_its_deadline_and_what_was_in_the_way_is_told() {
    let fake = sound();
    fake.put(AT, backup(json!({}), json!({}), running()));
    look(&fake, &fake.context()).await.unwrap();
    let name = "demo/jobs/dp-backup-0-b1-6f1c2d3e";
    let made = fake.get(name).unwrap();
    assert_eq!(made["spec"]["activeDeadlineSeconds"], 7 * 86_400);
    let pod = json!({ "metadata": { "name": "worker", "namespace": "demo", "labels": made["metadata"]["labels"],
            "ownerReferences": [{ "apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": made["metadata"]["uid"] }] },
        "status": { "phase": "Pending", "conditions": [{ "type": "PodScheduled", "status": "False",
            "reason": "Unschedulable", "message": "0/1 nodes are available" }] } });
    let mut ctx = fake.context();
    ctx.stores.jobs = holding([job(made["metadata"].clone(), None)]);
    ctx.stores.pods = holding([from(pod)]);
    look(&fake, &ctx).await.unwrap();
    assert!(note(&fake).contains("0/1 nodes are available"), "{}", note(&fake));

    // The Job controller removes the pod when the time is up.
    let late = json!({ "metadata": made["metadata"], "status": { "conditions": [{ "type": "Failed", "status": "True",
        "reason": "DeadlineExceeded", "message": "too long" }] } });
    (ctx.stores.jobs, ctx.stores.pods) = (holding([from(late)]), holding([]));
    look(&fake, &ctx).await.unwrap();
    let status = fake.get(AT).unwrap()["status"].clone();
    assert_eq!(status["phase"], "Failed");
    let why = status["failureReason"].as_str().unwrap();
    assert!(why.contains("DeadlineExceeded:too long") && why.contains("0/1 nodes are available"), "{why}");
}

#[tokio::test]
async fn a_job_that_was_made_for_something_else_is_not_taken_over() {
    let fake = sound();
    fake.put(AT, backup(json!({}), json!({}), running()));
    let foreign = json!({ "metadata": {"name": "dp-backup-0-b1-6f1c2d3e", "namespace": "demo", "uid": "x",
        "labels": {labels::BACKUP_NAME: "b1"}} });
    fake.put("demo/jobs/dp-backup-0-b1-6f1c2d3e", foreign.clone());
    look(&fake, &fake.context()).await.unwrap();
    let status = fake.get(AT).unwrap()["status"].clone();
    assert_eq!(status["phase"], "Failed");
    assert!(status["failureReason"].as_str().unwrap().contains("was made for something else"), "{status}");
    assert_eq!(fake.get("demo/jobs/dp-backup-0-b1-6f1c2d3e"), Some(foreign));
}

#[tokio::test]
async fn behaviour_4_13_expired_backups_are_deleted_whatever_their_deletion_policy() {
    for policy in ["Delete", "Retain"] {
        let fake = sound();
        let mut status = stored();
        status["expiration"] = json!("2026-01-01T00:00:00Z");
        fake.put(AT, backup(json!({}), json!({ "deletionPolicy": policy }), status.clone()));
        look(&fake, &fake.context()).await.unwrap();
        assert_eq!(fake.writes(), ["DELETE demo/backups/b1"], "{policy}");
        fake.put(AT, backup(json!({}), json!({}), status));
        fake.writes();
        fake.fails_at(AT);
        let object = guarded(backup(json!({}), json!({}), fake.get(AT).unwrap()["status"].clone()));
        assert!(reconcile(Arc::new(Entry::from(object)), Arc::new(fake.context())).await.is_err());
        assert_eq!(fake.writes(), ["EVENT RemoveExpiredBackupsFailed"]);
    }
}

#[tokio::test]
async fn how_far_a_long_backup_is_is_told_now_and_then_and_forgotten_at_its_end() {
    let fake = sound();
    let mut status = running();
    status["actions"][0]["phase"] = json!("Running");
    fake.put(AT, backup(json!({}), json!({}), status));
    fake.put("demo/pods/worker/log", json!("{\"bytes\":1048576}\n"));
    let at_work = |phase: &str, condition: Option<&str>| {
        let mut ctx = fake.context();
        let mut meta = owned("dp-backup-0-b1-6f1c2d3e");
        meta["labels"][labels::ACTION] = json!("dp-backup-0");
        ctx.stores.jobs = holding([job(meta.clone(), condition)]);
        meta["name"] = json!("worker");
        ctx.stores.pods = holding([from(json!({ "metadata": meta, "status": {"phase": phase} }))]);
        let mut last = backup(json!({}), json!({}), stored());
        last["metadata"]["name"] = json!("last");
        last["status"]["totalSize"] = json!("4Mi");
        last["status"]["completionTimestamp"] = json!("2026-01-01T00:00:00Z");
        ctx.stores.backups = holding([from(last)]);
        ctx
    };
    let told = || fake.get(AT).unwrap()["metadata"]["annotations"][annotations::PROGRESS].clone();
    look(&fake, &at_work("Running", None)).await.unwrap();
    let progress: Value = serde_json::from_str(told().as_str().unwrap()).unwrap();
    assert_eq!((&progress["bytes"], &progress["total"]), (&json!(1_048_576), &json!(4_194_304)));
    fake.writes();
    look(&fake, &at_work("Running", None)).await.unwrap();
    assert_eq!(fake.writes(), Vec::<String>::new(), "its own note wakes it, and changes nothing");
    look(&fake, &at_work("Failed", Some("Failed"))).await.unwrap();
    assert_eq!((phase(&fake), told()), (json!("Failed"), json!(null)));
}
