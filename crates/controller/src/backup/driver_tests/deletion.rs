//! Backups that go: what goes with them, and in which order.

use super::*;

#[tokio::test]
async fn behaviour_4_14_what_goes_in_which_order() {
    let fake = sound();
    fake.put(AT, going(json!({}), stored()));
    fake.put("demo/jobs/dp-backup-0", json!({ "metadata": owned("dp-backup-0") }));
    fake.put("demo/statefulsets/log", json!({ "metadata": owned("log") }));
    let child = |name: &str, policy: &str| {
        json!({ "metadata": {"name": name, "namespace": "demo"}, "spec": {"backupPolicyName": policy, "backupMethod": "incr"},
            "status": {"phase": "Completed", "parentBackupName": "b1", "baseBackupName": "b1"} })
    };
    fake.put("demo/backups/child", child("child", "p"));
    let mut ctx = fake.context();
    ctx.stores.backups = holding([from(child("child", "p")), from(child("stranger", "q"))]);
    ctx.stores.jobs = holding([job(owned("dp-backup-0"), Some("Complete"))]);
    ctx.stores.stateful_sets = holding([from(json!({ "metadata": owned("log") }))]);
    ctx.stores.pods = holding([from(json!({ "metadata": {"name": "x", "namespace": "demo",
        "labels": {labels::BACKUP_NAME: "b1"}} }))]);
    look(&fake, &ctx).await.unwrap();
    assert_eq!(
        fake.writes(),
        [
            "DELETE demo/backups/child",
            "PATCH demo/jobs/dp-backup-0",
            "DELETE demo/jobs/dp-backup-0",
            "PATCH demo/statefulsets/log",
            "DELETE demo/statefulsets/log",
            "PATCH demo/backups/b1/status"
        ],
        "then its last pod is awaited"
    );
    assert_eq!(phase(&fake), "Deleting");

    // Its pod is gone: now the files.
    let ctx = fake.context();
    look(&fake, &ctx).await.unwrap();
    assert_eq!(fake.writes().into_iter().filter(|write| write.starts_with("POST demo/jobs")).count(), 1);
    let name = "6f1c2d3e-delete-b1";
    let made = fake.get(&format!("demo/jobs/{name}")).expect("the job that removes the files");
    let state = |condition: &str| {
        let mut ctx = fake.context();
        ctx.stores.jobs = holding([job(made["metadata"].clone(), Some(condition))]);
        ctx
    };
    look(&fake, &state("Failed")).await.unwrap();
    let why = fake.get(AT).unwrap()["status"]["deletionFailureReason"].clone();
    assert!(why.as_str().unwrap().contains(name), "{why}");
    assert!(fake.writes().contains(&"EVENT DeleteBackupFilesFailed".to_owned()));
    look(&fake, &state("Complete")).await.unwrap();
    assert!(fake.get(AT).is_none(), "the object goes when the bytes are gone");
    assert_eq!(fake.writes(), ["PATCH demo/backups/b1"]);
}

#[tokio::test]
async fn behaviour_4_14_retain_keeps_the_data_and_lets_the_object_go() {
    let fake = sound();
    fake.put(AT, going(json!({ "deletionPolicy": "Retain" }), stored()));
    look(&fake, &fake.context()).await.unwrap();
    assert_eq!(fake.writes(), ["EVENT Retain", "PATCH demo/backups/b1"]);
    assert!(fake.get(AT).is_none());
}

#[tokio::test]
async fn behaviour_4_14_what_has_no_files_of_its_own_is_gone_at_once() {
    for (what, status) in [
        ("no repository", json!({ "phase": "Failed" })),
        ("no path", json!({ "phase": "Failed", "backupRepoName": "main" })),
        ("another one's path", json!({ "phase": "Failed", "backupRepoName": "main", "path": "/demo/b10" })),
        ("a repository that is gone", json!({ "phase": "Failed", "backupRepoName": "gone", "path": "/demo/b1" })),
    ] {
        let fake = sound();
        fake.put(AT, going(json!({}), status));
        look(&fake, &fake.context()).await.unwrap();
        assert!(fake.get(AT).is_none(), "{what}");
        assert!(fake.writes().iter().all(|write| !write.starts_with("POST")), "{what}");
    }
}

#[tokio::test]
async fn behaviour_10_files_on_a_claim_without_a_repository_are_removed_there() {
    let old = json!({ "phase": "Completed", "path": "/demo/b1", "persistentVolumeClaimName": "old-claim",
        "backupMethod": {"name": "full", "actionSetName": "a"} });
    let fake = sound();
    fake.put(AT, going(json!({}), old.clone()));
    fake.put("demo/persistentvolumeclaims/old-claim", json!({ "metadata": {"name": "old-claim"} }));
    look(&fake, &fake.context()).await.unwrap();
    let made = fake.get("demo/jobs/6f1c2d3e-delete-b1").expect("the job that removes the files");
    let volumes = &made["spec"]["template"]["spec"]["volumes"];
    let on_claim = |volume: &Value| volume["persistentVolumeClaim"]["claimName"] == "old-claim";
    assert!(volumes.as_array().unwrap().iter().any(on_claim), "{volumes}");
    assert!(fake.get(AT).is_some(), "the object waits for it");

    let fake = sound();
    fake.put(AT, going(json!({}), old));
    look(&fake, &fake.context()).await.unwrap();
    assert!(fake.get(AT).is_none(), "nothing can be removed from a claim that is gone");
    assert!(fake.writes().contains(&"EVENT DeleteBackupFilesFailed".to_owned()));
}

#[tokio::test]
async fn behaviour_4_14_a_preparation_that_the_recipe_has_runs_before() {
    let fake = sound();
    let mut set = action_set();
    set["spec"]["backup"]["preDelete"] = json!({ "image": "pg:1", "command": ["forget"] });
    fake.put("-/actionsets/a", set);
    fake.put(AT, going(json!({}), stored()));
    look(&fake, &fake.context()).await.unwrap();
    let made = fake.get("demo/jobs/6f1c2d3e-predelete-b1").expect("the recipe's own Job");
    assert!(fake.get("demo/jobs/6f1c2d3e-delete-b1").is_none(), "the files wait for it");
    let mut ctx = fake.context();
    ctx.stores.jobs = holding([job(made["metadata"].clone(), Some("Complete"))]);
    look(&fake, &ctx).await.unwrap();
    assert!(fake.get("demo/jobs/6f1c2d3e-delete-b1").is_some());
}
