//! The driver of a repository against an API server in memory: from its first look to a change of its parameters.

use std::sync::Arc;

use kbbackup_api::names::{FINALIZER, annotations, labels};
use serde_json::{Value, json};

use super::reconcile;
use crate::context::Context;
use crate::error::Classified as _;
use crate::fake::{Fake, from, guarded, holding, job};

const REPO: &str = "-/backuprepos/main";

fn repo(access: &str) -> Value {
    json!({ "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "BackupRepo",
        "metadata": {"name": "main", "uid": "6f1c2d3e-0000", "resourceVersion": "1"},
        "spec": {"storageProviderRef": "s", "accessMethod": access, "pvReclaimPolicy": "Retain", "config": {"bucket": "one"}} })
}

fn provider() -> Value {
    json!({ "metadata": {"name": "s"}, "status": {"phase": "Ready",
            "conditions": [{"type": "CSIDriverInstalled", "status": "True", "reason": "CSIDriverObjectFound", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
        "spec": {"csiDriverName": "s.csi",
            "datasafedConfigTemplate": "[storage]\ntype = s3\nbucket = {{ index .Parameters \"bucket\" }}\n",
            "csiDriverSecretTemplate": "bucket: {{ index .Parameters \"bucket\" }}\n",
            "storageClassTemplate": "provisioner: s.csi\nparameters:\n  bucket: {{ index .Parameters \"bucket\" }}\n"} })
}

fn waiting(kind: &str, name: &str, namespace: &str, phase: Option<&str>) -> Value {
    let spec = match kind {
        "Backup" => json!({ "backupPolicyName": "p", "backupMethod": "m" }),
        _ => json!({ "backup": {"name": "b", "namespace": namespace} }),
    };
    json!({ "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": kind,
        "metadata": {"name": name, "namespace": namespace, "uid": name,
            "labels": {labels::BACKUP_REPO_NAME: "main", labels::WAIT_REPO_PREPARATION: "true"}},
        "spec": spec, "status": {"phase": phase} })
}

/// A context in which the provider is known, and the pre-check's Job when it has ended so.
fn context(fake: &Fake, ended: Option<&str>) -> Context {
    let mut ctx = fake.context();
    ctx.stores.providers = holding([guarded(provider())]);
    if let Some(condition) = ended {
        let (_, check) = check(fake).expect("the check was started");
        ctx.stores.jobs = holding([job(check["metadata"].clone(), Some(condition))]);
    }
    ctx
}

fn check(fake: &Fake) -> Option<(String, Value)> {
    let namespace = crate::worker::settings().manager_namespace;
    let path = format!("{namespace}/jobs/pre-check-6f1c2d3e-main");
    fake.get(&path).map(|job| (path, job))
}

async fn look(fake: &Fake, ctx: &Context) {
    if let Err(error) = reconcile(Arc::new(guarded(fake.get(REPO).unwrap())), Arc::new(ctx.clone())).await {
        panic!("{}: {error}", error.reason());
    }
}

/// A repository that has passed its check.
async fn ready(access: &str) -> Fake {
    let fake = Fake::new([(REPO, repo(access))]);
    look(&fake, &context(&fake, None)).await;
    look(&fake, &context(&fake, Some("Complete"))).await;
    assert_eq!(status(&fake)["phase"], "Ready", "{}", status(&fake));
    fake
}

fn status(fake: &Fake) -> Value {
    fake.get(REPO).unwrap()["status"].clone()
}

fn annotation(fake: &Fake, key: &str) -> String {
    fake.get(REPO).unwrap()["metadata"]["annotations"][key].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn behaviour_1_2_finalizer_names_objects_and_check_in_order() {
    let fake = Fake::new([(REPO, repo("Mount"))]);
    look(&fake, &context(&fake, None)).await;
    assert_eq!(fake.get(REPO).unwrap()["metadata"]["finalizers"], json!([FINALIZER]));
    assert_eq!(status(&fake)["phase"], "PreChecking");
    let types: Vec<_> = status(&fake)["conditions"].as_array().unwrap().iter().map(|one| one["type"].clone()).collect();
    assert_eq!(
        types,
        ["StorageProviderReady", "ParametersChecked", "StorageClassCreated", "PVCTemplateChecked", "PreCheckPassed"]
    );
    let writes = fake.writes();
    let at = |part: &str| writes.iter().position(|write| write.contains(part)).unwrap_or_else(|| panic!("{writes:?}"));
    assert!(at("backuprepos/main/status") < at("secrets/"), "names are recorded before anything carries them");
    assert!(at("secrets/") < at("storageclasses") && at("storageclasses") < at("persistentvolumeclaims"), "{writes:?}");
    assert!(at("persistentvolumeclaims") < at("jobs"), "{writes:?}");

    look(&fake, &context(&fake, Some("Complete"))).await;
    assert_eq!(status(&fake)["phase"], "Ready");
    assert!(check(&fake).is_none(), "a check that is over leaves nothing");
    fake.writes();
    look(&fake, &context(&fake, None)).await;
    assert_eq!(fake.writes(), Vec::<String>::new(), "another look changes nothing");
}

#[tokio::test]
async fn a_repository_whose_names_are_recorded_has_not_failed_yet() {
    let fake = Fake::new([(REPO, repo("Mount"))]);
    fake.fails_at(&format!("{}/secrets/", crate::worker::settings().manager_namespace));
    let first = reconcile(Arc::new(guarded(fake.get(REPO).unwrap())), Arc::new(context(&fake, None))).await;
    assert!(first.is_err());
    assert!(status(&fake)["generatedStorageClassName"].is_string(), "{}", status(&fake));
    assert_eq!(status(&fake)["phase"], Value::Null);
}

#[tokio::test]
async fn behaviour_1_2_a_step_that_fails_is_told_in_its_condition() {
    let fake = Fake::new([(REPO, repo("Tool"))]);
    look(&fake, &fake.context()).await;
    let first = status(&fake)["conditions"][0].clone();
    assert_eq!(
        (&first["type"], &first["status"], &first["reason"]),
        (&json!("StorageProviderReady"), &json!("False"), &json!("StorageProviderNotFound"))
    );
    assert_eq!(status(&fake)["phase"], "Failed");
    assert!(fake.writes().iter().all(|write| !write.starts_with("POST")));
    look(&fake, &context(&fake, None)).await;
    look(&fake, &context(&fake, Some("Failed"))).await;
    let conditions = status(&fake)["conditions"].clone();
    let last = conditions.as_array().unwrap().iter().find(|one| one["type"] == "PreCheckPassed").unwrap().clone();
    assert_eq!((&last["status"], &last["reason"]), (&json!("False"), &json!("PreCheckFailed")));
    assert_eq!(status(&fake)["phase"], "Failed");
    assert!(check(&fake).is_none(), "a check that failed leaves nothing either");
}

#[tokio::test]
async fn behaviour_1_8_who_waits_gets_its_namespace_prepared_and_is_let_go_on() {
    for (access, plural, name) in
        [("Tool", "secrets", "toolConfigSecretName"), ("Mount", "persistentvolumeclaims", "backupPVCName")]
    {
        let fake = ready(access).await;
        let all = [
            ("a/backups/b1", waiting("Backup", "b1", "a", None)),
            ("b/restores/r1", waiting("Restore", "r1", "b", None)),
            ("c/restores/r2", waiting("Restore", "r2", "c", Some("Failed"))),
        ];
        for (path, object) in &all {
            fake.put(path, object.clone());
        }
        let mut ctx = context(&fake, None);
        ctx.stores.backups = holding([from(all[0].1.clone())]);
        ctx.stores.restores = holding([guarded(all[1].1.clone()), guarded(all[2].1.clone())]);
        look(&fake, &ctx).await;
        let name = status(&fake)[name].as_str().unwrap().to_owned();
        let there = |namespace: &str| fake.get(&format!("{namespace}/{plural}/{name}"));
        let waits =
            |path: &str| fake.get(path).unwrap()["metadata"]["labels"].get(labels::WAIT_REPO_PREPARATION).is_some();
        for (namespace, path) in [("a", "a/backups/b1"), ("b", "b/restores/r1")] {
            let made = there(namespace).unwrap_or_else(|| panic!("{access}: nothing in {namespace}"));
            assert_eq!(made["metadata"]["labels"][labels::BACKUP_REPO_NAME], "main");
            assert!(!waits(path), "{access}: {path}");
        }
        assert!(there("c").is_none() && waits("c/restores/r2"), "{access}: it has failed and waits no more");
    }
}

#[tokio::test]
async fn behaviour_1_8_a_namespace_that_refuses_does_not_hold_up_the_others() {
    let fake = ready("Tool").await;
    let all = [waiting("Restore", "r1", "a", None), waiting("Restore", "r2", "b", None)];
    fake.put("a/restores/r1", all[0].clone());
    fake.put("b/restores/r2", all[1].clone());
    let mut ctx = context(&fake, None);
    ctx.stores.restores = holding(all.map(guarded));
    let name = status(&fake)["toolConfigSecretName"].as_str().unwrap().to_owned();
    fake.fails_at(&format!("a/secrets/{name}"));
    let result = reconcile(Arc::new(guarded(fake.get(REPO).unwrap())), Arc::new(ctx)).await;
    assert!(result.is_err(), "the first error is told when all were tried");
    assert!(fake.get(&format!("b/secrets/{name}")).is_some());
}

#[tokio::test]
async fn behaviour_11_19_secrets_follow_new_parameters_and_claims_and_classes_do_not() {
    let fake = ready("Tool").await;
    let (old, old_status) = (annotation(&fake, annotations::BACKUP_REPO_DIGEST), status(&fake));
    let class = format!("-/storageclasses/{}", old_status["generatedStorageClassName"].as_str().unwrap());
    let csi = &old_status["generatedCSIDriverSecret"];
    let csi = format!("{}/secrets/{}", csi["namespace"].as_str().unwrap(), csi["name"].as_str().unwrap());
    let user = json!({ "metadata": {"name": "tool", "namespace": "a",
        "labels": {labels::BACKUP_REPO_NAME: "main", labels::IS_TOOL_CONFIG: "true"},
        "annotations": {annotations::BACKUP_REPO_DIGEST: old.clone()}}, "data": {} });
    fake.put("a/secrets/tool", user);
    let before = (fake.get(&class).unwrap(), fake.get(&csi).unwrap());

    let mut changed = fake.get(REPO).unwrap();
    changed["spec"]["config"]["bucket"] = json!("two");
    fake.put(REPO, changed);
    look(&fake, &context(&fake, None)).await;
    assert_ne!(annotation(&fake, annotations::BACKUP_REPO_DIGEST), old);
    assert_eq!(annotation(&fake, annotations::NEED_UPDATE_TOOL_CONFIG), "true");
    assert_eq!(status(&fake)["phase"], "PreChecking", "it is checked again");
    assert_eq!(fake.get("a/secrets/tool").unwrap()["data"], json!({}), "and the new ones are used when they work");
    look(&fake, &context(&fake, Some("Complete"))).await;
    assert_eq!(annotation(&fake, annotations::NEED_UPDATE_TOOL_CONFIG), "false");
    let secret = fake.get("a/secrets/tool").unwrap();
    assert_ne!(secret["data"]["datasafed.conf"], json!(null), "{secret}");
    let mark = &secret["metadata"]["annotations"][annotations::BACKUP_REPO_DIGEST];
    assert_eq!(*mark, annotation(&fake, annotations::BACKUP_REPO_DIGEST));
    assert_ne!(fake.get(&csi).unwrap()["data"], before.1["data"]);
    assert_eq!(fake.get(&class).unwrap(), before.0);
    for name in ["generatedStorageClassName", "generatedCSIDriverSecret", "backupPVCName", "toolConfigSecretName"] {
        assert_eq!(status(&fake)[name], old_status[name], "{name}");
    }
}

#[tokio::test]
async fn an_errand_is_run_once_with_the_repository_s_own_access() {
    let text = r#"{"id":"a1","task":{"catalogue":{"brief":true}}}"#;
    let fake = ready("Tool").await;
    let mut asked = fake.get(REPO).unwrap();
    asked["metadata"]["annotations"][annotations::ERRAND] = json!(text);
    fake.put(REPO, asked);
    look(&fake, &context(&fake, None)).await;
    let namespace = crate::worker::settings().manager_namespace;
    let path = format!("{namespace}/jobs/errand-6f1c2d3e-a1");
    let made = fake.get(&path).expect("the errand's Job");
    let pod = &made["spec"]["template"]["spec"];
    assert_eq!(pod["containers"][0]["command"], json!(["/datasafed", "catalogue", "--brief", "--", "/"]));
    assert_eq!(pod["automountServiceAccountToken"], false);
    let secret = pod["volumes"].as_array().unwrap().iter().find_map(|volume| volume["secret"]["secretName"].as_str());
    assert!(fake.get(&format!("{namespace}/secrets/{}", secret.unwrap())).is_some(), "its configuration is there");
    assert_eq!(annotation(&fake, annotations::ERRAND_DONE), "");

    let mut over = context(&fake, None);
    over.stores.jobs = holding([job(made["metadata"].clone(), Some("Complete"))]);
    look(&fake, &over).await;
    assert_eq!(annotation(&fake, annotations::ERRAND_DONE), text);
    fake.writes();
    look(&fake, &context(&fake, None)).await;
    assert_eq!(fake.writes(), Vec::<String>::new(), "what was done is not done again, even when its Job is gone");
}

#[tokio::test]
async fn an_errand_that_cannot_be_read_is_answered_without_a_job() {
    let fake = ready("Tool").await;
    let mut asked = fake.get(REPO).unwrap();
    asked["metadata"]["annotations"][annotations::ERRAND] = json!("rm -rf");
    fake.put(REPO, asked);
    fake.writes();
    look(&fake, &context(&fake, None)).await;
    assert_eq!(annotation(&fake, annotations::ERRAND_DONE), "rm -rf");
    assert!(fake.writes().iter().all(|write| !write.contains("jobs")));
}
