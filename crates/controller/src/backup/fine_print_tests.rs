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
            let how = "Failed:; container main of pod worker ended with exit code";
            let told =
                if wanted == log { format!("{wanted}\n{how} {} (Error)", ended["exitCode"]) } else { wanted.clone() };
            assert_eq!(status["failureReason"], format!("action dp-backup-0 failed: {told}"), "the cause stands once");
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

#[tokio::test]
async fn behaviour_9_a_phase_that_nobody_writes_goes_on_as_running() {
    let fake = sound();
    let mut status = running();
    status["phase"] = json!("InProgress");
    fake.put(AT, backup(json!({}), json!({}), status));
    look(&fake, &fake.context()).await.unwrap();
    assert_eq!(phase(&fake), "InProgress", "neither failed nor changed");
    assert!(fake.get("demo/jobs/dp-backup-0-b1-6f1c2d3e").is_some(), "its next action starts");
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

#[tokio::test]
async fn what_a_failed_backup_still_has_under_way_is_ended_and_what_has_ended_stays_for_its_log() {
    let fake = sound();
    let mut status = running();
    status["phase"] = json!("Failed");
    fake.put(AT, backup(json!({}), json!({}), status));
    let mut ctx = fake.context();
    let jobs = [("late", None), ("broken", Some("Failed")), ("good", Some("Complete"))];
    for (name, _) in jobs {
        fake.put(&format!("demo/jobs/{name}"), json!({ "metadata": owned(name) }));
    }
    ctx.stores.jobs = holding(jobs.map(|(name, condition)| job(owned(name), condition)));
    look(&fake, &ctx).await.unwrap();
    let exists = |name: &str| fake.get(&format!("demo/jobs/{name}")).is_some();
    assert_eq!(jobs.map(|(name, _)| exists(name)), [false, true, true]);
}
