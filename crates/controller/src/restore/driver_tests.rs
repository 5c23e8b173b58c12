//! The driver of a restore against an API server in memory: what is found, written and told, in which order.

use std::sync::Arc;

use kbbackup_api::names::{FINALIZER, labels};
use serde_json::{Value, json};

use super::reconcile;
use crate::context::Context;
use crate::error::Classified as _;
use crate::fake::{Fake, from, guarded, holding, job};

const AT: &str = "demo/restores/r1";

fn restore(spec: Value, status: Value) -> Value {
    let mut whole = json!({ "backup": {"name": "b1", "namespace": "demo"} });
    whole.as_object_mut().unwrap().extend(spec.as_object().cloned().unwrap());
    json!({ "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "Restore",
        "metadata": {"name": "r1", "namespace": "demo", "uid": "12345678-0000", "resourceVersion": "1",
            "creationTimestamp": jiff::Timestamp::now().to_string()}, "spec": whole, "status": status })
}

fn backup() -> Value {
    json!({ "metadata": {"name": "b1", "namespace": "demo", "labels": {labels::BACKUP_TYPE: "Full"},
            "annotations": {"kbbackup.io/target-image": "pg:1"}},
        "spec": {"backupPolicyName": "p", "backupMethod": "full"},
        "status": {"phase": "Completed", "path": "/demo/b1", "backupRepoName": "main",
            "completionTimestamp": "2026-01-01T00:00:00Z",
            "target": {"podSelector": {"strategy": "Any"}, "selectedTargetPods": ["pg-0"]},
            "backupMethod": {"name": "full", "actionSetName": "a",
                "targetVolumes": {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}}} })
}

fn repo(phase: &str, status: Value) -> Value {
    let mut whole = json!({ "phase": phase });
    whole.as_object_mut().unwrap().extend(status.as_object().cloned().unwrap());
    json!({ "metadata": {"name": "main"}, "spec": {"storageProviderRef": "s3", "accessMethod": "Tool",
        "pvReclaimPolicy": "Retain"}, "status": whole })
}

fn sound(restore: Value) -> Fake {
    let action = json!({ "image": "pg:1", "command": ["c"] });
    Fake::new([
        (AT, restore),
        ("demo/backups/b1", backup()),
        (
            "-/actionsets/a",
            json!({ "metadata": {"name": "a"}, "spec": {"backupType": "Full", "restore": {"prepareData": action,
                "postReady": [{"exec": {"command": ["hello"]}}, {"job": action}]}} }),
        ),
        ("-/backuprepos/main", repo("Ready", json!({ "toolConfigSecretName": "tool" }))),
        ("demo/secrets/tool", json!({ "metadata": {"name": "tool"} })),
        ("-/namespaces/demo", json!({ "metadata": {"name": "demo"} })),
        ("demo/serviceaccounts/kubeblocks-dataprotection-worker", json!({ "metadata": {"name": "w"} })),
    ])
}

fn claims(policy: &str, replicas: i32) -> Value {
    json!({ "prepareDataConfig": {"volumeClaimRestorePolicy": policy, "volumeClaimsTemplate": {"replicas": replicas,
        "startingIndex": 3, "templates": [{"metadata": {"name": "data-pg"}, "volumeSource": "data",
            "volumeClaimSpec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]}} })
}

async fn look(fake: &Fake, ctx: &Context) {
    let object = fake.get(AT).expect("the restore exists");
    if let Err(error) = reconcile(Arc::new(guarded(object)), Arc::new(ctx.clone())).await {
        panic!("{}: {error}", error.reason());
    }
}

/// The server's Jobs in the store, each in the state that `state` says by its name.
fn with_jobs(fake: &Fake, names: &[(&str, &str)]) -> Context {
    let mut ctx = fake.context();
    let of = |(path, condition): &(&str, &str)| {
        let found = fake.get(path).unwrap_or_else(|| panic!("no {path}"));
        job(found["metadata"].clone(), Some(*condition).filter(|condition| !condition.is_empty()))
    };
    ctx.stores.jobs = holding(names.iter().map(of));
    // Without its pod a Job that has ended says less, but it has ended.
    ctx.stores.pods = holding([]);
    ctx
}

fn status(fake: &Fake) -> Value {
    fake.get(AT).unwrap()["status"].clone()
}

fn condition(fake: &Fake, type_: &str) -> (String, String) {
    let status = status(fake);
    let all = status["conditions"].as_array().cloned().unwrap_or_default();
    let found = all.into_iter().find(|condition| condition["type"] == type_).unwrap_or_default();
    let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"))
}

fn jobs_made(fake: &Fake) -> Vec<String> {
    fake.writes().into_iter().filter(|write| write.starts_with("POST") && write.ends_with("jobs")).collect()
}

#[tokio::test]
async fn behaviour_10_what_lies_on_a_claim_without_a_repository_is_restored_from_there() {
    let mut old = backup();
    old["status"].as_object_mut().unwrap().remove("backupRepoName");
    old["status"]["persistentVolumeClaimName"] = json!("old-claim");
    let fake = sound(restore(claims("Parallel", 1), json!({})));
    fake.put("demo/backups/b1", old.clone());
    look(&fake, &fake.context()).await;
    assert_eq!(status(&fake)["phase"], "Failed");
    let (_, reason) = condition(&fake, "CheckBackupRepo");
    assert_eq!(reason, "CheckBackupRepoFailed", "the claim is not there");

    let fake = sound(restore(claims("Parallel", 1), json!({})));
    fake.put("demo/backups/b1", old);
    fake.put("demo/persistentvolumeclaims/old-claim", json!({ "metadata": {"name": "old-claim"} }));
    for _ in 0..3 {
        look(&fake, &fake.context()).await;
    }
    let job = fake.get("demo/jobs/restore-preparedata-12345678-b1-0").unwrap_or_else(|| panic!("{:?}", fake.writes()));
    let volumes = &job["spec"]["template"]["spec"]["volumes"];
    let on_claim = |volume: &Value| volume["persistentVolumeClaim"]["claimName"] == "old-claim";
    assert!(volumes.as_array().unwrap().iter().any(on_claim), "{volumes}");
}

#[tokio::test]
async fn behaviour_0_2_a_server_that_fails_for_a_moment_fails_no_restore() {
    for path in ["demo/backups/b1", "-/actionsets/a", "demo/secrets/tool", "demo/restores/r1/status"] {
        let fake = sound(restore(claims("Parallel", 1), json!({})));
        fake.fails_at(path);
        let result = reconcile(Arc::new(guarded(fake.get(AT).unwrap())), Arc::new(fake.context())).await;
        assert!(result.is_err(), "{path}: tried again with growing waits");
        assert_eq!(status(&fake)["phase"], json!(null), "{path}");
        fake.fails_at("");
        look(&fake, &fake.context()).await;
        assert_eq!(status(&fake)["phase"], "Running", "{path}");
    }
}

#[tokio::test]
async fn behaviour_0_4_a_restore_is_marked_as_managed_unless_somebody_has_done_so() {
    for (own, wanted) in
        [(json!({}), labels::MANAGED_BY_DATAPROTECTION), (json!({ labels::MANAGED_BY: "argocd" }), "argocd")]
    {
        let mut wish = restore(claims("Parallel", 1), json!({}));
        wish["metadata"]["labels"] = own;
        let fake = sound(wish);
        look(&fake, &fake.context()).await;
        assert_eq!(fake.get(AT).unwrap()["metadata"]["labels"][labels::MANAGED_BY], wanted);
    }
}

#[tokio::test]
async fn behaviour_6_2_the_repository_is_checked_first() {
    let check = "CheckBackupRepo";
    let is = |found: (String, String), status: &str, reason: &str| assert_eq!(found, (status.into(), reason.into()));

    let fake = sound(restore(claims("Parallel", 1), json!({})));
    let mut gone = restore(claims("Parallel", 1), json!({}));
    gone["spec"]["backup"]["name"] = json!("gone");
    fake.put(AT, gone);
    look(&fake, &fake.context()).await;
    is(condition(&fake, check), "False", "CheckBackupRepoFailed");
    assert_eq!(status(&fake)["phase"], "Failed");
    assert!(!status(&fake)["completionTimestamp"].is_null());
    assert!(fake.writes().contains(&"EVENT RestoreFailed".to_owned()));

    for unusable in [None, Some(repo("Ready", json!({})))] {
        let fake = sound(restore(claims("Parallel", 1), json!({})));
        let mut elsewhere = backup();
        elsewhere["status"]["backupRepoName"] = json!("other");
        fake.put("demo/backups/b1", elsewhere);
        if let Some(nameless) = unusable {
            fake.put("-/backuprepos/other", nameless);
        }
        look(&fake, &fake.context()).await;
        is(condition(&fake, check), "False", "CheckBackupRepoFailed");
        assert_eq!(status(&fake)["phase"], "Failed");
    }

    let fake = sound(restore(claims("Parallel", 1), json!({})));
    fake.put("-/backuprepos/main", repo("Failed", json!({})));
    look(&fake, &fake.context()).await;
    is(condition(&fake, check), "False", "UnknownError");
    assert_eq!(status(&fake)["phase"], json!(null), "tried again");

    let fake = sound(restore(claims("Parallel", 1), json!({})));
    fake.put("-/backuprepos/main", repo("Ready", json!({ "toolConfigSecretName": "absent" })));
    look(&fake, &fake.context()).await;
    is(condition(&fake, check), "False", "WaitForBackupRepo");
    let own = fake.get(AT).unwrap()["metadata"]["labels"].clone();
    assert_eq!((&own[labels::BACKUP_REPO_NAME], &own[labels::WAIT_REPO_PREPARATION]), (&json!("main"), &json!("true")));
    assert_eq!(own[labels::MANAGED_BY], labels::MANAGED_BY_DATAPROTECTION);
    assert_eq!(jobs_made(&fake), Vec::<String>::new());
}

#[tokio::test]
async fn behaviour_6_2_a_source_for_claims_goes_no_further() {
    let config = json!({ "prepareDataConfig": {"dataSourceRef": {"volumeSource": "data", "mountPath": "/data"}} });
    let fake = sound(restore(config, json!({})));
    look(&fake, &fake.context()).await;
    assert_eq!(status(&fake)["phase"], "AsDataSource");
    assert_eq!(condition(&fake, "CheckBackupRepo").0, "True");
    assert_eq!(jobs_made(&fake), Vec::<String>::new());
}

#[tokio::test]
async fn behaviour_6_2_what_cannot_be_restored_fails_before_anything_is_made() {
    let fake = sound(restore(claims("Parallel", 1), json!({})));
    let mut half = backup();
    half["status"]["phase"] = json!("Failed");
    fake.put("demo/backups/b1", half);
    look(&fake, &fake.context()).await;
    assert_eq!(condition(&fake, "ValidationPassed"), ("False".into(), "ValidateFailed".into()));
    assert_eq!(status(&fake)["phase"], "Failed");
    assert!(fake.writes().iter().all(|write| !write.starts_with("POST")));
}

#[tokio::test]
async fn behaviour_6_5_all_at_once_from_the_starting_index() {
    let fake = sound(restore(claims("Parallel", 2), json!({})));
    look(&fake, &fake.context()).await;
    assert_eq!(condition(&fake, "ValidationPassed"), ("True".into(), "ValidateSuccessfully".into()));
    assert_eq!(condition(&fake, "PrepareData"), ("False".into(), "Processing".into()));
    let told: Vec<_> = fake
        .writes()
        .into_iter()
        .filter(|write| !write.contains("PATCH") && !write.contains("serviceaccounts"))
        .collect();
    assert_eq!(
        told,
        [
            "EVENT RestoreStarting",
            "POST demo/persistentvolumeclaims",
            "EVENT CreateRestorePVC",
            "POST demo/jobs",
            "EVENT CreateRestoreJob",
            "POST demo/persistentvolumeclaims",
            "EVENT CreateRestorePVC",
            "POST demo/jobs",
            "EVENT CreateRestoreJob",
        ]
    );
    for index in [3, 4] {
        let claim = fake.get(&format!("demo/persistentvolumeclaims/data-pg-{index}")).expect("the claim");
        assert!(claim["metadata"]["ownerReferences"].is_null(), "data outlives the restore");
    }
    let actions = status(&fake)["actions"]["prepareData"].clone();
    assert_eq!(actions[1]["objectKey"], "Job/restore-preparedata-12345678-b1-1");
}

#[tokio::test]
async fn behaviour_6_5_serial_frees_the_claim_before_the_next_begins() {
    let fake = sound(restore(claims("Serial", 2), json!({})));
    look(&fake, &fake.context()).await;
    assert_eq!(jobs_made(&fake).len(), 1);
    let first = "restore-preparedata-12345678-b1-0";
    let ctx = with_jobs(&fake, &[(&format!("demo/jobs/{first}"), "Complete")]);
    fake.writes();
    look(&fake, &ctx).await;
    assert_eq!(status(&fake)["actions"]["prepareData"][0]["status"], "Completed");
    let writes = fake.writes();
    assert!(!writes.iter().any(|write| write.contains("/jobs")), "its success is on record first: {writes:?}");
    look(&fake, &ctx).await;
    let writes = fake.writes();
    let place = |wanted: &str| writes.iter().position(|write| write == wanted).unwrap_or_else(|| panic!("{writes:?}"));
    assert!(place(&format!("DELETE demo/jobs/{first}")) < place("POST demo/jobs"));
}

#[tokio::test]
async fn behaviour_6_7_an_exec_job_per_pod_then_the_next_step() {
    let ready = json!({ "readyConfig": {
        "execAction": {"target": {"podSelector": {"matchLabels": {"app": "pg"}}}},
        "jobAction": {"target": {"podSelector": {"matchLabels": {"app": "pg"}}}},
        "readinessProbe": {"exec": {"image": "never", "command": ["never"]}}} });
    let fake = sound(restore(ready, json!({})));
    look(&fake, &fake.context()).await;
    assert_eq!(condition(&fake, "PostReady"), ("False".into(), "Processing".into()), "no pod yet");
    assert_eq!(jobs_made(&fake), Vec::<String>::new());
    for name in ["pg-0", "pg-1"] {
        fake.put(
            &format!("demo/pods/{name}"),
            json!({ "metadata": {"name": name, "namespace": "demo", "labels": {"app": "pg"}},
                "spec": {"containers": [{"name": "pg"}]}, "status": {"conditions": [{"type": "Ready", "status": "True"}]} }),
        );
    }
    look(&fake, &fake.context()).await;
    assert_eq!(
        jobs_made(&fake),
        ["POST kbbackup/jobs", "POST kbbackup/jobs"],
        "one per pod, in the manager's namespace"
    );
    let (one, two) =
        ("kbbackup/jobs/restore-post-ready-12345678-b1-0-0", "kbbackup/jobs/restore-post-ready-12345678-b1-0-1");
    let ctx = with_jobs(&fake, &[(one, "Complete"), (two, "")]);
    look(&fake, &ctx).await;
    assert_eq!(jobs_made(&fake), Vec::<String>::new(), "all of a step end before the next begins");
    let ctx = with_jobs(&fake, &[(one, "Complete"), (two, "Complete")]);
    look(&fake, &ctx).await;
    assert_eq!(jobs_made(&fake), ["POST demo/jobs"], "strategy Any: one ready pod");
    assert_eq!(status(&fake)["actions"]["postReady"][2]["name"], "postReady-1");
    let third = "demo/jobs/restore-post-ready-12345678-b1-1-0";
    let ctx = with_jobs(&fake, &[(one, "Complete"), (two, "Complete"), (third, "Complete")]);
    look(&fake, &ctx).await;
    assert_eq!(condition(&fake, "PostReady"), ("True".into(), "Succeed".into()));
    assert_eq!(status(&fake)["phase"], "Completed");
}

/// What KubeBlocks 1.0 writes before a component starts: claims for each replica, as its own would be.
fn of_component() -> Value {
    let labels = json!({ labels::INSTANCE: "new", labels::COMPONENT_NAME: "db", labels::MANAGED_BY: "kubeblocks",
        "apps.kubeblocks.io/vct-name": "data" });
    let mut object = restore(
        json!({ "containerResources": {}, "env": [], "prepareDataConfig": {
            "schedulingSpec": {"tolerations": [{"key": "db", "operator": "Exists"}], "affinity": {"podAntiAffinity": {}}},
            "volumeClaimRestorePolicy": "Parallel",
            "volumeClaimsTemplate": {"replicas": 2, "startingIndex": 0, "templates": [{
                "metadata": {"name": "data-new-db", "creationTimestamp": null, "labels": labels}, "volumeSource": "data",
                "volumeClaimSpec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]}} }),
        json!({ "actions": {} }),
    );
    object["metadata"]["labels"] = labels;
    object["metadata"]["ownerReferences"] = json!([{ "apiVersion": "apps.kubeblocks.io/v1", "kind": "Component",
        "name": "new-db", "uid": "u", "controller": true, "blockOwnerDeletion": true }]);
    object
}

#[tokio::test]
async fn behaviour_10_the_claims_of_a_component_are_filled_as_its_own() {
    let fake = sound(of_component());
    look(&fake, &fake.context()).await;
    for index in [0, 1] {
        let claim = fake.get(&format!("demo/persistentvolumeclaims/data-new-db-{index}")).expect("the claim");
        let set = &claim["metadata"]["labels"];
        assert_eq!(set["workloads.kubeblocks.io/instance"], "new-db");
        assert_eq!(set[labels::POD_NAME], format!("new-db-{index}"), "the instance finds it by that");
        let job = fake.get(&format!("demo/jobs/restore-preparedata-12345678-b1-{index}")).expect("its job");
        let pod = &job["spec"]["template"];
        assert_eq!(pod["metadata"]["labels"][labels::MANAGED_BY], labels::MANAGED_BY_DATAPROTECTION);
        assert_eq!(pod["spec"]["tolerations"][0]["key"], "db");
        assert_eq!(pod["spec"]["affinity"], json!({ "podAntiAffinity": {} }));
    }
    assert_eq!(
        fake.get(AT).unwrap()["metadata"]["labels"][labels::MANAGED_BY],
        "kubeblocks",
        "the Restore is not ours"
    );
}

#[tokio::test]
async fn behaviour_10_claims_that_the_recipe_does_not_fill_are_left_to_kubeblocks() {
    let fake = sound(of_component());
    let loads = json!({ "job": {"image": "pg:1", "command": ["load"]} });
    fake.put(
        "-/actionsets/a",
        json!({ "metadata": {"name": "a"}, "spec": {"backupType": "Full", "restore": {"postReady": [loads]}} }),
    );
    look(&fake, &fake.context()).await;
    assert_eq!(status(&fake)["phase"], "Completed");
    assert!(!fake.writes().iter().any(|write| write.starts_with("POST demo/")), "it makes its own, empty");

    // And then, when the component runs, on every pod of a role.
    let wish = json!({ "containerResources": {}, "readyConfig": {
        "execAction": {"target": {"podSelector": {"matchLabels": {"app": "pg"}}}},
        "jobAction": {"requiredPolicyForAllPodSelection": {"dataRestorePolicy": "OneToOne"},
            "target": {"podSelector": {"matchLabels": {"app": "pg", "kubeblocks.io/role": "primary"}, "strategy": "All"},
                "volumeMounts": [{"name": "data", "mountPath": "/data"}]}}} });
    fake.put(AT, restore(wish, json!({})));
    let mut all = backup();
    all["status"]["target"] = json!({ "podSelector": {"strategy": "All"}, "selectedTargetPods": ["pg-0"] });
    fake.put("demo/backups/b1", all);
    fake.put(
        "demo/pods/new-0",
        json!({ "metadata": {"name": "new-0", "namespace": "demo", "labels": {"app": "pg", "kubeblocks.io/role": "primary"}},
            "spec": {"containers": [{"name": "pg"}]}, "status": {"conditions": [{"type": "Ready", "status": "True"}]} }),
    );
    look(&fake, &fake.context()).await;
    assert_eq!(jobs_made(&fake), ["POST demo/jobs"]);
    let job = fake.get("demo/jobs/restore-post-ready-12345678-b1-0-0").unwrap();
    let list = job["spec"]["template"]["spec"]["containers"][0]["env"].as_array().unwrap().clone();
    let path = list.iter().find(|entry| entry["name"] == "DP_BACKUP_BASE_PATH").unwrap();
    assert_eq!(path["value"], "/demo/b1/pg-0", "the first pod of the role gets what the first pod had");
}

#[tokio::test]
async fn behaviour_10_a_rebuilt_instance_gets_claims_one_by_one_with_their_own_places() {
    let claim = |name: &str, place: Value| {
        let mut whole = json!({ "metadata": {"name": name, "namespace": "demo", "creationTimestamp": null,
                "annotations": {"a": "b"}}, "volumeClaimSpec": {"resources": {"requests": {"storage": "1Gi"}}} });
        whole.as_object_mut().unwrap().extend(place.as_object().cloned().unwrap());
        whole
    };
    let wish = json!({ "env": [{"name": "REBUILD", "value": "true"}], "prepareDataConfig": {
        "schedulingSpec": {"nodeSelector": {"kubernetes.io/hostname": "n1"}}, "volumeClaimRestorePolicy": "Serial",
        "volumeClaims": [claim("tmp-data", json!({ "volumeSource": "data" })), claim("tmp-log", json!({ "mountPath": "/log" }))]} });
    let fake = sound(restore(wish, json!({})));
    look(&fake, &fake.context()).await;
    assert_eq!(jobs_made(&fake), ["POST demo/jobs"], "one job mounts both");
    assert_eq!(
        fake.get("demo/persistentvolumeclaims/tmp-data").unwrap()["metadata"]["annotations"],
        json!({ "a": "b" })
    );
    let job = fake.get("demo/jobs/restore-preparedata-12345678-b1-0").unwrap();
    let pod = &job["spec"]["template"]["spec"];
    assert_eq!(pod["nodeSelector"], json!({ "kubernetes.io/hostname": "n1" }));
    let mounts: Vec<_> = pod["containers"][0]["volumeMounts"].as_array().unwrap().clone();
    let at = |name: &str| mounts.iter().find(|mount| mount["name"] == name).map(|mount| mount["mountPath"].clone());
    assert_eq!((at("dp-claim-tmp-data"), at("dp-claim-tmp-log")), (Some(json!("/data")), Some(json!("/log"))));
}

#[tokio::test]
async fn behaviour_6_8_without_a_stage_it_is_completed_at_once() {
    let fake = sound(restore(json!({}), json!({})));
    look(&fake, &fake.context()).await;
    let status = status(&fake);
    assert_eq!(status["phase"], "Completed");
    assert!(!status["completionTimestamp"].is_null() && !status["duration"].is_null(), "{status}");
    assert!(fake.writes().contains(&"EVENT RestoreCompleted".to_owned()));
}

#[tokio::test]
async fn behaviour_8_5_a_restore_s_action_tells_the_log_and_what_it_cannot_know() {
    let fake = sound(restore(claims("Parallel", 1), json!({})));
    look(&fake, &fake.context()).await;
    let one = "demo/jobs/restore-preparedata-12345678-b1-0";
    fake.put("demo/pods/worker/log", json!("it broke\n"));
    let mut ctx = with_jobs(&fake, &[(one, "Failed")]);
    let made = fake.get(one).unwrap()["metadata"].clone();
    let state = json!({ "terminated": {"exitCode": 137, "reason": "OOMKilled"} });
    ctx.stores.pods =
        holding([from(json!({ "metadata": {"name": "worker", "namespace": "demo", "labels": made["labels"],
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": made["name"], "uid": made["uid"]}]},
        "status": {"phase": "Failed", "containerStatuses": [{"name": "restore", "image": "", "imageID": "",
            "ready": false, "restartCount": 0, "state": state}]} }))]);
    look(&fake, &ctx).await;
    let told = "Log Collector Output: it broke\ncontainer restore of pod worker ended with exit code 137 (OOMKilled)";
    let status = status(&fake);
    assert_eq!((&status["phase"], &status["actions"]["prepareData"][0]["message"]), (&json!("Failed"), &json!(told)));
}

#[tokio::test]
async fn behaviour_6_8_a_failed_job_fails_stage_and_restore() {
    let fake = sound(restore(claims("Parallel", 2), json!({})));
    look(&fake, &fake.context()).await;
    let (one, two) = ("demo/jobs/restore-preparedata-12345678-b1-0", "demo/jobs/restore-preparedata-12345678-b1-1");
    look(&fake, &with_jobs(&fake, &[(one, "Failed"), (two, "")])).await;
    assert_eq!(status(&fake)["phase"], "Running", "the other one is awaited");
    look(&fake, &with_jobs(&fake, &[(one, "Failed"), (two, "Complete")])).await;
    assert_eq!(condition(&fake, "PrepareData"), ("False".into(), "Failed".into()));
    let status = status(&fake);
    assert_eq!(status["phase"], "Failed");
    let told = |index: usize| status["actions"]["prepareData"][index]["status"].clone();
    assert_eq!((told(0), told(1)), (json!("Failed"), json!("Completed")));
    assert!(fake.get(one).is_some() && fake.get("demo/persistentvolumeclaims/data-pg-3").is_some());
}

#[tokio::test]
async fn behaviour_6_2_jobs_go_when_it_is_completed_or_deleted_and_data_never() {
    for (phase, deleted, gone) in [("Completed", false, true), ("Failed", false, false), ("Failed", true, true)] {
        let mut object = restore(claims("Parallel", 1), json!({ "phase": phase }));
        object["metadata"]["finalizers"] = json!([FINALIZER]);
        if deleted {
            object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        let fake = sound(object);
        let own = |namespace: &str| {
            json!({ "name": "j", "namespace": namespace, "uid": "u", "labels": {labels::RESTORE: "r1", labels::RESTORE_NAMESPACE: "demo"},
                "ownerReferences": [{"apiVersion": "x", "kind": "Restore", "name": "r1", "uid": "12345678-0000"}] })
        };
        for namespace in ["demo", "kbbackup"] {
            fake.put(&format!("{namespace}/jobs/j"), json!({ "metadata": own(namespace) }));
        }
        fake.put("demo/persistentvolumeclaims/data-pg-3", json!({ "metadata": {"name": "data-pg-3"} }));
        let mut ctx = fake.context();
        ctx.stores.jobs = holding(["demo", "kbbackup"].map(|namespace| from(json!({ "metadata": own(namespace) }))));
        look(&fake, &ctx).await;
        let left = ["demo/jobs/j", "kbbackup/jobs/j"].map(|path| fake.get(path).is_some());
        assert_eq!(left, [!gone, !gone], "{phase}, deleted: {deleted}");
        assert_eq!(fake.get(AT).is_none(), deleted);
        assert!(fake.get("demo/persistentvolumeclaims/data-pg-3").is_some());
    }
}

#[tokio::test]
async fn behaviour_6_3_a_differential_backup_is_restored_after_its_full_one() {
    let fake = sound(restore(claims("Parallel", 1), json!({})));
    let mut set = fake.get("-/actionsets/a").unwrap();
    set["spec"]["backupType"] = json!("Differential");
    fake.put("-/actionsets/diff", set);
    let mut full = backup();
    full["metadata"]["name"] = json!("full");
    let mut own = backup();
    own["status"]["backupMethod"]["actionSetName"] = json!("diff");
    own["status"]["completionTimestamp"] = json!("2026-01-02T00:00:00Z");
    own["spec"]["parentBackupName"] = json!("full");
    fake.put("demo/backups/full", full);
    fake.put("demo/backups/b1", own);
    look(&fake, &fake.context()).await;
    let first = "demo/jobs/restore-preparedata-12345678-full-0";
    assert!(fake.get(first).is_some() && jobs_made(&fake).len() == 1, "sets go one after another");
    look(&fake, &with_jobs(&fake, &[(first, "Complete")])).await;
    assert!(fake.get("demo/jobs/restore-preparedata-12345678-b1-0").is_some());
    assert_eq!(status(&fake)["actions"]["prepareData"][1]["name"], "prepareData-1");
}

#[tokio::test]
async fn behaviour_6_3_what_records_no_method_cannot_be_restored() {
    let fake = sound(restore(claims("Parallel", 1), json!({})));
    let mut bare = backup();
    bare["status"]["backupMethod"] = json!(null);
    fake.put("demo/backups/b1", bare);
    look(&fake, &fake.context()).await;
    assert_eq!(status(&fake)["phase"], "Failed");
    assert!(condition(&fake, "ValidationPassed").1 == "ValidateFailed");
}

/// A restore to a point in time: a log, and the base that `base` makes of a full backup. The store knows both.
fn point_in_time(recipe: Value, base: impl FnOnce(&mut Value)) -> (Fake, Context) {
    let mut wish = claims("Parallel", 1);
    wish["restoreTime"] = json!("2026-01-01T12:00:00Z");
    let fake = sound(restore(wish, json!({})));
    let action = json!({ "image": "pg:1", "command": ["c"] });
    let mut set = json!({ "metadata": {"name": "wal"}, "spec": {"backupType": "Continuous", "restore": {"prepareData": action}} });
    set["metadata"]["annotations"] = recipe;
    fake.put("-/actionsets/wal", set);
    let mut log = backup();
    log["metadata"]["labels"][labels::BACKUP_TYPE] = json!("Continuous");
    log["status"]["phase"] = json!("Running");
    log["status"]["backupMethod"]["actionSetName"] = json!("wal");
    log["status"]["timeRange"] = json!({ "start": "2025-12-31T00:00:00Z", "end": "2026-01-02T00:00:00Z" });
    let mut full = backup();
    full["metadata"]["name"] = json!("full");
    base(&mut full);
    fake.put("demo/backups/b1", log.clone());
    fake.put("demo/backups/full", full.clone());
    let mut ctx = fake.context();
    ctx.stores.backups = holding([from(log), from(full)]);
    (fake, ctx)
}

fn env(fake: &Fake, job: &str, name: &str) -> Value {
    let job = fake.get(job).unwrap();
    let list = job["spec"]["template"]["spec"]["containers"][0]["env"].as_array().unwrap().clone();
    list.into_iter().find(|entry| entry["name"] == name).map(|entry| entry["value"].clone()).unwrap_or_default()
}

#[tokio::test]
async fn behaviour_6_4_the_base_first_and_then_the_log() {
    let (fake, ctx) = point_in_time(json!({}), |_| {});
    look(&fake, &ctx).await;
    let (base, log) = ("demo/jobs/restore-preparedata-12345678-full-0", "demo/jobs/restore-preparedata-12345678-b1-0");
    assert_eq!(jobs_made(&fake).len(), 1);
    let mut after = with_jobs(&fake, &[(base, "Complete")]);
    after.stores.backups = ctx.stores.backups.clone();
    look(&fake, &after).await;
    assert_eq!(env(&fake, log, "DP_BASE_BACKUP_NAME"), "full");
    assert_eq!(env(&fake, log, "DP_RESTORE_TIME"), "2026-01-01T12:00:00Z");
}

#[tokio::test]
async fn behaviour_6_4_a_recipe_that_brings_its_base_back_by_itself() {
    let annotation = json!({ "dataprotection.kubeblocks.io/skip-base-backup-restore-in-pitr": "true" });
    let (fake, ctx) = point_in_time(annotation, |_| {});
    look(&fake, &ctx).await;
    assert!(fake.writes().contains(&"EVENT SkipBaseBackupRestoreInPitr".to_owned()));
    assert!(fake.get("demo/jobs/restore-preparedata-12345678-full-0").is_none());
    assert_eq!(env(&fake, "demo/jobs/restore-preparedata-12345678-b1-0", "DP_BASE_BACKUP_NAME"), "full");
}

#[tokio::test]
async fn behaviour_6_4_a_base_of_snapshots_makes_the_claims_or_is_refused() {
    let of_snapshots = |full: &mut Value| {
        full["status"]["backupMethod"] = json!({ "name": "snap", "snapshotVolumes": true });
        full["status"]["actions"] = json!([{ "name": "createVolumeSnapshot-0", "targetPodName": "pg-0",
            "volumeSnapshots": [{"name": "full-0-data", "volumeName": "data"}]}]);
    };
    let (fake, ctx) = point_in_time(json!({}), of_snapshots);
    look(&fake, &ctx).await;
    assert_eq!(status(&fake)["phase"], "Failed", "the reference would have gone on with an empty volume");
    assert!(status(&fake).to_string().contains("volumesnapshot full-0-data"), "{}", status(&fake));
    assert!(fake.get("demo/persistentvolumeclaims/data-pg-3").is_none());

    let (fake, ctx) = point_in_time(json!({}), of_snapshots);
    fake.put(
        "demo/volumesnapshots/full-0-data",
        json!({ "metadata": {"name": "full-0-data", "namespace": "demo"}, "spec": {"source": {}},
            "status": {"readyToUse": true, "restoreSize": "1Gi"} }),
    );
    look(&fake, &ctx).await;
    let claim = fake.get("demo/persistentvolumeclaims/data-pg-3").expect("made from the snapshot");
    assert_eq!(claim["spec"]["dataSource"]["name"], "full-0-data");
    assert!(fake.get("demo/jobs/restore-preparedata-12345678-b1-0").is_some(), "then the log is replayed");
}

#[tokio::test]
async fn behaviour_6_5_a_stage_that_is_over_is_not_run_again() {
    let over = json!({ "phase": "Running", "startTimestamp": "2026-01-01T00:00:00Z", "conditions": [
        {"type": "PrepareData", "status": "True", "reason": "Succeed", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}] });
    let fake = sound(restore(claims("Parallel", 2), over));
    look(&fake, &fake.context()).await;
    assert_eq!((jobs_made(&fake), status(&fake)["phase"].clone()), (vec![], json!("Completed")));
}

#[tokio::test]
async fn behaviour_6_6_a_job_that_was_made_for_something_else_is_fatal() {
    let fake = sound(restore(claims("Parallel", 1), json!({})));
    let path = "demo/jobs/restore-preparedata-12345678-b1-0";
    let foreign = json!({ "metadata": {"name": "restore-preparedata-12345678-b1-0", "namespace": "demo", "uid": "x"} });
    fake.put(path, foreign.clone());
    look(&fake, &fake.context()).await;
    assert_eq!(status(&fake)["phase"], "Failed");
    assert_eq!(fake.get(path), Some(foreign));
}
