//! More of the driver against an API server in memory: how failures are told, which pods are meant, and what is declared
//! without effect.

use k8s_openapi::api::core::v1::Pod;
use kbbackup_api::names::labels;
use kbbackup_api::v1alpha1::{ActionPhase, Backup};
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::decide::{self, Next};
use super::driver_tests::{AT, action_set, backup, look, owned, phase, pod, policy, running, sound};
use super::observe::{self, SeenAction};
use super::tests::{now, started};
use crate::context::Context;
use crate::fake::{Fake, from, holding, job};
use crate::worker::Outcome;

/// The server's only running backup, whose Job has failed in this namespace; its pod ended as `ended` says.
fn failed_in(home: &str, ended: &Value) -> (Fake, Context) {
    let fake = sound();
    let mut status = running();
    status["actions"][0]["objectRef"]["namespace"] = json!(home);
    fake.put(AT, backup(json!({}), json!({}), status));
    fake.put(&format!("{home}/pods/worker/log"), json!("  it broke\n"));
    let mut meta = owned("dp-backup-0-b1-6f1c2d3e");
    meta["namespace"] = json!(home);
    meta["labels"][labels::BACKUP_NAMESPACE] = json!("demo");
    if home != "demo" {
        // Owners are of the same namespace only.
        meta["ownerReferences"] = json!([]);
    }
    let mut ctx = fake.context();
    let mut of_pod = meta.clone();
    of_pod["name"] = json!("worker");
    of_pod["ownerReferences"] =
        json!([{ "apiVersion": "batch/v1", "kind": "Job", "name": meta["name"], "uid": meta["uid"] }]);
    ctx.stores.jobs = holding([job(meta, Some("Failed"))]);
    let container = json!({ "name": "main", "image": "", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"terminated": ended} });
    let state = json!({ "phase": "Failed", "reason": ended["podReason"], "containerStatuses": [container] });
    ctx.stores.pods = holding([from(json!({ "metadata": of_pod, "status": state }))]);
    (fake, ctx)
}

#[tokio::test]
async fn behaviour_8_5_the_log_and_what_it_cannot_know_explain_the_failure() {
    let log = "Log Collector Output: it broke";
    let oom = "container main of pod worker ended with exit code 137 (OOMKilled)";
    let cases = [
        (json!({ "exitCode": 1, "reason": "Error" }), log.to_owned()),
        (json!({ "exitCode": 137, "reason": "Error" }), log.to_owned()),
        (json!({ "exitCode": 137, "reason": "OOMKilled" }), format!("{log}\n{oom}")),
        (
            json!({ "exitCode": 137, "reason": "Error", "podReason": "Evicted" }),
            format!("{log}\npod worker failed (Evicted)"),
        ),
    ];
    for (ended, wanted) in cases {
        // Exec actions, whose Jobs are in the manager's namespace, have their logs told as well.
        for home in ["demo", "kbbackup"] {
            let (fake, ctx) = failed_in(home, &ended);
            look(&fake, &ctx).await.unwrap();
            let status = fake.get(AT).unwrap()["status"].clone();
            assert_eq!(status["phase"], "Failed");
            assert_eq!(status["actions"][0]["failureReason"], wanted, "{home} {ended}");
            assert_eq!(status["failureReason"], format!("action dp-backup-0 failed: {wanted}"));
            look(&fake, &ctx).await.unwrap();
            assert_eq!(fake.get(AT).unwrap()["status"], status, "told once");
        }
    }
}

#[test]
fn behaviour_4_4_what_follows_a_failed_action_is_left_out() {
    let (_, status) = started("Any", &["pg-0"]);
    let absent = || SeenAction::of_job(Outcome::Absent, None);
    let failed = || SeenAction::of_job(Outcome::Failed { why: "Failed:m".into(), pod: None }, None);
    let mut recorded = status;
    recorded.actions[0].phase = Some(ActionPhase::Completed);
    let step = decide::advance("demo", &recorded, &[absent(), failed(), absent(), absent()], now());
    assert_eq!(step.next, Next::Fail("action dp-backup-0 failed: Failed:m".into()));
    assert_eq!(step.status.actions[2].name.as_deref(), Some("dp-postbackup-0-0"));
    for left in &step.status.actions[2..] {
        assert_eq!(left.phase, Some(ActionPhase::New), "neither what comes after the data nor the seal");
    }
}

/// The pods chosen for the backup, or why none is.
async fn chosen(ctx: &Context, backup: &Backup) -> Result<Vec<String>, String> {
    let graph = observe::graph(ctx, backup).await.map_err(|error| error.to_string())?;
    Ok(graph.targets.iter().flat_map(|(_, pods)| pods.iter().map(Pod::name_any)).collect())
}

fn named(name: &str, role: &str, ready: &str) -> Value {
    let mut object = pod();
    object["metadata"]["name"] = json!(name);
    object["metadata"]["labels"]["kubeblocks.io/role"] = json!(role);
    object["status"]["conditions"][0]["status"] = json!(ready);
    object
}

#[tokio::test]
async fn behaviour_3_3_no_pod_the_fallback_role_and_strategy_all() {
    let fake = sound();
    fake.remove("demo/pods/pg-0");
    let own = from(backup(json!({}), json!({}), json!({})));
    let ctx = fake.context();
    let select = |strategy: &str| {
        let mut object = policy(json!([{"name": "full", "actionSetName": "a"}]));
        object["spec"]["target"]["podSelector"] = json!({ "strategy": strategy,
            "matchLabels": {"app": "pg", "kubeblocks.io/role": "secondary"},
            "fallbackLabelSelector": {"matchLabels": {"app": "pg", "kubeblocks.io/role": "primary"}} });
        fake.put("demo/backuppolicies/p", object);
    };
    select("Any");
    let none = chosen(&ctx, &own).await.unwrap_err();
    assert!(none.contains("no pod in the namespace matches"), "{none}");
    fake.put("demo/pods/pg-0", named("pg-0", "primary", "True"));
    assert_eq!(chosen(&ctx, &own).await.unwrap(), ["pg-0"], "the fallback's");
    fake.put("demo/pods/pg-2", named("pg-2", "secondary", "True"));
    fake.put("demo/pods/pg-1", named("pg-1", "secondary", "False"));
    assert_eq!(chosen(&ctx, &own).await.unwrap(), ["pg-2"], "the first that is ready");
    select("All");
    assert_eq!(chosen(&ctx, &own).await.unwrap(), ["pg-1", "pg-2"], "ready or not");
    fake.remove("demo/pods/pg-1");
    fake.remove("demo/pods/pg-2");
    let none = chosen(&ctx, &own).await.unwrap_err();
    assert!(none.contains("no pod in the namespace matches"), "the fallback is for Any: {none}");
}

/// An incremental backup on top of a full one that was taken from `pg-2`.
fn increment(method: Value, use_parents: bool) -> (Fake, Context, Backup) {
    let fake = sound();
    let mut set = action_set();
    set["spec"]["backupType"] = json!("Incremental");
    fake.put("-/actionsets/a", set);
    let mut object = policy(json!([method]));
    object["spec"]["target"]["podSelector"]["useParentSelectedPods"] = json!(use_parents);
    fake.put("demo/backuppolicies/p", object);
    fake.put("demo/pods/pg-2", named("pg-2", "secondary", "False"));
    let mut parent = backup(
        json!({ labels::BACKUP_POLICY: "p", labels::BACKUP_TYPE: "Full", labels::BACKUP_REPO_NAME: "main" }),
        json!({}),
        json!({ "phase": "Completed", "backupRepoName": "main", "completionTimestamp": "2026-01-01T00:00:00Z",
            "backupMethod": {"name": "full", "actionSetName": "f"},
            "target": {"podSelector": {"matchLabels": {"app": "pg"}}, "selectedTargetPods": ["pg-2"]} }),
    );
    parent["metadata"]["name"] = json!("f1");
    fake.put("demo/backups/f1", parent.clone());
    let mut ctx = fake.context();
    ctx.stores.backups = holding([from(parent)]);
    (fake, ctx, from(backup(json!({}), json!({ "backupMethod": "incr" }), json!({}))))
}

#[tokio::test]
async fn behaviour_3_3_the_parents_pods_are_used_where_the_target_says_so() {
    let method = json!({ "name": "incr", "actionSetName": "a", "compatibleMethod": "full" });
    let (_, ctx, own) = increment(method.clone(), true);
    assert_eq!(chosen(&ctx, &own).await.unwrap(), ["pg-2"], "as if recorded: it need not be ready");
    let (_, ctx, own) = increment(method.clone(), false);
    assert_eq!(chosen(&ctx, &own).await.unwrap(), ["pg-0"]);
    let (fake, ctx, own) = increment(method, true);
    fake.remove("demo/pods/pg-2");
    let gone = chosen(&ctx, &own).await.unwrap_err();
    assert!(gone.contains("pg-2"), "{gone}");
}

#[tokio::test]
async fn behaviour_3_5_the_compatible_method_is_the_full_one_beneath() {
    let (_, ctx, own) = increment(json!({ "name": "incr", "actionSetName": "a", "compatibleMethod": "full" }), false);
    let graph = observe::graph(&ctx, &own).await.unwrap();
    let parent = graph.parent.unwrap();
    assert_eq!((parent.name.as_str(), parent.base.as_str()), ("f1", "f1"));
    for other in [json!("logical"), Value::Null] {
        let method = json!({ "name": "incr", "actionSetName": "a", "compatibleMethod": other });
        let (_, ctx, own) = increment(method, false);
        assert!(observe::graph(&ctx, &own).await.is_err(), "no full backup of method {other}");
    }
}

/// What the backup's next step makes of this action set and target.
async fn made(set: Value, target: Value, state: &str) -> Value {
    let fake = sound();
    let mut status = running();
    status["phase"] = json!(state);
    for (key, value) in target.as_object().unwrap() {
        status["target"][key] = value.clone();
    }
    fake.put("-/actionsets/a", set);
    fake.put(AT, backup(json!({}), json!({}), status));
    look(&fake, &fake.context()).await.unwrap();
    assert_eq!(phase(&fake), state, "neither failed nor changed");
    fake.get("demo/jobs/dp-backup-0-b1-6f1c2d3e").expect("its Job")["spec"].clone()
}

#[tokio::test]
async fn behaviour_9_what_is_declared_without_effect_changes_no_job() {
    let plain = made(action_set(), json!({}), "Running").await;
    let mut declared = action_set();
    declared["spec"]["backup"]["backupData"]["onError"] = json!("Continue");
    declared["spec"]["backup"]["backupData"]["syncProgress"] = json!({ "enabled": false });
    let resources = json!({ "resources": {"included": ["secrets"]} });
    assert_eq!(made(declared, resources, "Running").await, plain);
    assert_eq!(made(action_set(), json!({}), "InProgress").await, plain, "a phase that nobody writes");
    let text = plain.to_string();
    for never in ["DP_DB_ENDPOINT", "DP_TIME_ZONE", "connection-password", "gemini"] {
        assert!(!text.contains(never), "{never}");
    }
}

#[tokio::test]
async fn behaviour_9_on_error_continue_does_not_hide_a_failure() {
    let (fake, ctx) = failed_in("demo", &json!({ "exitCode": 1, "reason": "Error" }));
    let mut set = action_set();
    set["spec"]["backup"]["backupData"]["onError"] = json!("Continue");
    fake.put("-/actionsets/a", set);
    look(&fake, &ctx).await.unwrap();
    assert_eq!(phase(&fake), "Failed");
}
