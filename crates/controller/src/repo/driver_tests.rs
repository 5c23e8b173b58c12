//! What is read and written for a repository, in which order: behaviour 1.2, 1.6 and 1.8.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::context::Context;
use crate::fake::{Fake, from, guarded, holding, job};

const AT: &str = "-/backuprepos/main";

fn repo() -> Value {
    json!({ "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "BackupRepo",
        "metadata": { "name": "main", "uid": "0a1b2c3d-0000", "resourceVersion": "1", "generation": 1 },
        "spec": { "storageProviderRef": "disk", "accessMethod": "Tool", "pvReclaimPolicy": "Retain",
            "config": { "root": "/a" }, "credential": { "name": "keys", "namespace": "default" } } })
}

fn keys(value: &str) -> Value {
    json!({ "metadata": { "name": "keys", "namespace": "default" },
        "data": { "key": k8s_openapi::ByteString(value.as_bytes().to_vec()) } })
}

fn provider() -> Value {
    json!({ "metadata": { "name": "disk" }, "status": { "phase": "Ready" },
        "spec": { "datasafedConfigTemplate": "[storage]\ntype = local\nroot = {{ .Parameters.root }}\nkey = {{ .Parameters.key }}",
            "parametersSchema": { "openAPIV3Schema": { "type": "object",
                "properties": { "root": { "type": "string" }, "key": { "type": "string" } } }, "credentialFields": ["key"] } } })
}

fn waiting(name: &str, namespace: &str) -> Value {
    json!({ "metadata": { "name": name, "namespace": namespace, "labels": {
            "dataprotection.kubeblocks.io/backup-repo-name": "main",
            "dataprotection.kubeblocks.io/wait-repo-preparation": "true" } },
        "spec": { "backupPolicyName": "p", "backupMethod": "m" } })
}

/// A server with the repository and its credentials, and what the watches know.
fn sound() -> (Fake, Context) {
    let fake = Fake::new([(AT, repo()), ("default/secrets/keys", keys("k1"))]);
    let mut ctx = fake.context();
    ctx.stores.providers = holding([guarded(provider())]);
    (fake, ctx)
}

async fn look(fake: &Fake, ctx: &Context) {
    let repo = guarded(fake.get(AT).unwrap());
    super::reconcile(Arc::new(repo), Arc::new(ctx.clone())).await.unwrap();
}

/// The pre-check's Job as it was made, in a state that its watch tells.
fn checked(fake: &Fake, ctx: &mut Context, condition: Option<&str>) {
    let made = fake.get("kbbackup/jobs/pre-check-0a1b2c3d-main").unwrap();
    ctx.stores.jobs = holding([job(made["metadata"].clone(), condition)]);
}

fn conditions(fake: &Fake) -> String {
    let repo = fake.get(AT).unwrap();
    let told = |condition: &Value| format!("{}={}", condition["type"], condition["status"]).replace('"', "");
    repo["status"]["conditions"].as_array().unwrap().iter().map(told).collect::<Vec<_>>().join(" ")
}

fn config(fake: &Fake, path: &str) -> String {
    let secret: k8s_openapi::api::core::v1::Secret = from(fake.get(path).unwrap());
    let data = secret.data.unwrap_or_default();
    let text = secret.string_data.unwrap_or_default().get("datasafed.conf").cloned();
    text.unwrap_or_else(|| String::from_utf8(data["datasafed.conf"].0.clone()).unwrap())
}

#[tokio::test]
async fn behaviour_1_2_from_the_first_look_to_ready() {
    let (fake, mut ctx) = sound();
    look(&fake, &ctx).await;
    assert_eq!(
        conditions(&fake),
        "StorageProviderReady=True ParametersChecked=True StorageClassCreated=True PVCTemplateChecked=True \
         PreCheckPassed=Unknown"
    );
    assert_eq!(fake.get(AT).unwrap()["status"]["phase"], "PreChecking");
    let writes = fake.writes();
    let at = |part: &str| {
        writes.iter().position(|write| write.contains(part)).unwrap_or_else(|| panic!("{part}: {writes:?}"))
    };
    let check = "kbbackup/secrets/pre-check-0a1b2c3d-main";
    assert_eq!(writes[0], format!("PATCH {AT}"), "the finalizer comes first");
    assert!(at(&format!("PATCH {AT}/status")) < at("kbbackup/jobs"), "names are written before anything carries them");
    assert!(config(&fake, check).contains("root = /a\nkey = k1"));

    checked(&fake, &mut ctx, None);
    look(&fake, &ctx).await;
    fake.writes();
    look(&fake, &ctx).await;
    assert_eq!(fake.writes(), [""; 0], "a check that runs is awaited");

    checked(&fake, &mut ctx, Some("Complete"));
    look(&fake, &ctx).await;
    assert!(conditions(&fake).ends_with("PreCheckPassed=True"));
    let ready = fake.get(AT).unwrap();
    assert_eq!(ready["status"]["phase"], "Ready");
    assert_eq!(ready["metadata"]["annotations"]["dataprotection.kubeblocks.io/need-update-tool-config"], "false");
    for gone in [check, "kbbackup/jobs/pre-check-0a1b2c3d-main"] {
        assert!(fake.get(gone).is_none(), "{gone}");
    }
    ctx.stores.jobs = holding([]);
    fake.writes();
    look(&fake, &ctx).await;
    assert_eq!(fake.writes(), [""; 0], "nothing is left to do");
}

#[tokio::test]
async fn behaviour_1_2_a_step_that_fails_is_recorded_and_the_later_ones_are_left() {
    let (fake, mut ctx) = sound();
    ctx.stores.providers = holding([]);
    look(&fake, &ctx).await;
    assert_eq!(conditions(&fake), "StorageProviderReady=False");
    assert_eq!(fake.get(AT).unwrap()["status"]["phase"], "Failed");

    let (fake, ctx) = sound();
    fake.remove("default/secrets/keys");
    look(&fake, &ctx).await;
    assert_eq!(conditions(&fake), "StorageProviderReady=True ParametersChecked=False");
    assert!(!fake.writes().iter().any(|write| write.contains("jobs") || write.contains("secrets")));
}

#[tokio::test]
async fn behaviour_1_6_changed_credentials_are_checked_and_then_reach_every_namespace() {
    let (fake, mut ctx) = sound();
    look(&fake, &ctx).await;
    checked(&fake, &mut ctx, Some("Complete"));
    ctx.stores.backups = holding([from(waiting("b", "demo"))]);
    fake.put("demo/backups/b", waiting("b", "demo"));
    look(&fake, &ctx).await;
    let name = fake.get(AT).unwrap()["status"]["toolConfigSecretName"].as_str().unwrap().to_owned();
    let (tool, check) = (format!("demo/secrets/{name}"), "kbbackup/secrets/pre-check-0a1b2c3d-main");
    assert!(config(&fake, &tool).contains("key = k1"));

    fake.put("default/secrets/keys", keys("k2"));
    (ctx.stores.jobs, ctx.stores.backups) = (holding([]), holding([]));
    look(&fake, &ctx).await;
    let now = fake.get(AT).unwrap();
    let last = now["status"]["conditions"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&last["status"], &last["reason"]), (&json!("Unknown"), &json!("DigestChanged")));
    assert_eq!(now["status"]["phase"], "PreChecking");
    assert_eq!(now["metadata"]["annotations"]["dataprotection.kubeblocks.io/need-update-tool-config"], "true");
    assert!(config(&fake, check).contains("key = k2"));
    assert!(config(&fake, &tool).contains("key = k1"), "only what was checked reaches the namespaces");

    checked(&fake, &mut ctx, Some("Complete"));
    look(&fake, &ctx).await;
    assert!(config(&fake, &tool).contains("key = k2"));
    let now = fake.get(AT).unwrap();
    assert_eq!(now["metadata"]["annotations"]["dataprotection.kubeblocks.io/need-update-tool-config"], "false");
}

#[tokio::test]
async fn behaviour_1_8_who_waits_is_prepared_and_woken_and_one_failure_holds_up_nobody() {
    let (fake, mut ctx) = sound();
    look(&fake, &ctx).await;
    checked(&fake, &mut ctx, Some("Complete"));
    let restore = json!({ "metadata": waiting("r", "third")["metadata"],
        "spec": { "backup": { "name": "b", "namespace": "demo" } } });
    ctx.stores.backups = holding([from(waiting("b", "demo")), from(waiting("c", "other"))]);
    ctx.stores.restores = holding([guarded(restore.clone())]);
    for (path, object) in [
        ("demo/backups/b", waiting("b", "demo")),
        ("other/backups/c", waiting("c", "other")),
        ("third/restores/r", restore),
    ] {
        fake.put(path, object);
    }
    let name = fake.get(AT).unwrap()["status"]["toolConfigSecretName"].as_str().unwrap().to_owned();
    fake.fails_at(&format!("demo/secrets/{name}"));
    let seen = guarded(fake.get(AT).unwrap());
    assert!(super::reconcile(Arc::new(seen), Arc::new(ctx.clone())).await.is_err(), "the failure is tried again");
    let label = |path: &str| {
        fake.get(path).unwrap()["metadata"]["labels"]["dataprotection.kubeblocks.io/wait-repo-preparation"].clone()
    };
    assert_eq!(label("demo/backups/b"), "true", "it still waits");
    assert_eq!((label("other/backups/c"), label("third/restores/r")), (Value::Null, Value::Null));
    for namespace in ["other", "third"] {
        assert!(fake.get(&format!("{namespace}/secrets/{name}")).is_some(), "{namespace}");
    }
}
