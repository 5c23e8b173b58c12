//! Archivers: when they begin, what comes before, and when they rest.

use super::*;

fn cluster(phase: &str, spec: Value, conditions: Value) -> Value {
    json!({ "apiVersion": "apps.kubeblocks.io/v1", "kind": "Cluster",
        "metadata": {"name": "c1", "namespace": "demo", "uid": "u1"},
        "spec": spec, "status": {"phase": phase, "conditions": conditions} })
}

/// A continuous backup, whose schedule lies in the store.
fn archiving(cluster: Value, status: Value) -> (Fake, Context) {
    let own = json!({ labels::BACKUP_TYPE: "Continuous", labels::BACKUP_SCHEDULE: "s", labels::INSTANCE: "c1" });
    let mut made = backup(own, json!({}), status);
    made["metadata"]["finalizers"] = json!([FINALIZER]);
    let fake = Fake::new([(AT, made), ("demo/clusters/c1", cluster.clone())]);
    let mut ctx = fake.context();
    ctx.stores.clusters = holding([guarded(cluster)]);
    ctx.stores.schedules = holding([guarded(json!({ "metadata": {"name": "s", "namespace": "demo"},
        "spec": {"backupPolicyName": "p", "schedules": [{"backupMethod": "full", "enabled": true,
            "cronExpression": "* * * * *"}]}, "status": {"phase": "Available"} }))]);
    (fake, ctx)
}

#[tokio::test]
async fn behaviour_4_3_10_archiving_begins_when_the_cluster_is_created() {
    let (fake, ctx) = archiving(cluster("Creating", json!({}), json!([])), json!({}));
    look(&fake, &ctx).await.unwrap();
    assert_eq!(
        (phase(&fake), note(&fake).as_str()),
        (json!(null), "cluster c1 is being created; archiving begins when that is over")
    );
    let (fake, ctx) = archiving(cluster("Running", json!({}), json!([])), json!({}));
    look(&fake, &ctx).await.unwrap();
    assert!(note(&fake).contains("BackupPolicy p does not exist"), "it went on: {}", note(&fake));
}

#[tokio::test]
async fn behaviour_4_10_1_nothing_is_archived_or_backed_up_while_the_cluster_is_restored() {
    let from_backup = json!({ "restore": {"source": {"kind": "Backup", "name": "old"}} });
    let begun = json!({ "phase": "Running", "startTimestamp": "2026-01-01T00:00:00Z", "actions": [] });
    let (fake, ctx) = archiving(cluster("Running", from_backup.clone(), json!([])), begun.clone());
    look(&fake, &ctx).await.unwrap();
    assert_eq!(note(&fake), "cluster c1 is being restored; the backup goes on when that is over");
    assert_eq!(fake.writes(), ["PATCH demo/backups/b1", "EVENT RestoreInProgress"]);
    look(&fake, &ctx).await.unwrap();
    assert_eq!(fake.writes(), Vec::<String>::new(), "told once");

    for over in ["True", "False"] {
        let condition = json!([{ "type": "Restore", "status": over, "reason": "r", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z" }]);
        let (fake, ctx) = archiving(cluster("Running", from_backup.clone(), condition), begun.clone());
        look(&fake, &ctx).await.unwrap();
        assert!(!note(&fake).contains("being restored"), "{over}");
    }
    let (fake, ctx) = archiving(cluster("Running", from_backup, json!([])), begun);
    let mut skips = fake.get(AT).unwrap();
    skips["metadata"]["annotations"] = json!({ annotations::SKIP_RESTORATION_CHECK: "true" });
    fake.put(AT, skips);
    look(&fake, &ctx).await.unwrap();
    assert!(!note(&fake).contains("being restored"));
}

#[tokio::test]
async fn behaviour_4_1_a_continuous_backup_that_never_began_begins_again() {
    let (fake, ctx) = archiving(cluster("Running", json!({}), json!([])), json!({ "phase": "Failed" }));
    look(&fake, &ctx).await.unwrap();
    let why = fake.get(AT).unwrap()["status"]["failureReason"].clone();
    assert!(why.as_str().unwrap().contains("BackupPolicy p does not exist"), "it was tried: {why}");
    let begun = json!({ "phase": "Failed", "startTimestamp": "2026-01-01T00:00:00Z", "actions": [] });
    let (fake, ctx) = archiving(cluster("Stopped", json!({}), json!([])), begun);
    let mut of_cluster = fake.get(AT).unwrap();
    of_cluster["metadata"]["labels"][labels::CLUSTER_UID] = json!("u1");
    fake.put(AT, of_cluster);
    look(&fake, &ctx).await.unwrap();
    assert_eq!(phase(&fake), "Completed", "a failed one is looked after like a running one: behaviour 4.10.2");
}

/// A continuous recipe with something to do first, its backup running.
fn prepared_archive() -> (Fake, impl Fn(&[Value], bool) -> Context) {
    let fake = sound();
    let own = json!({ labels::BACKUP_TYPE: "Continuous", labels::BACKUP_SCHEDULE: "s" });
    fake.put(AT, backup(own, json!({}), json!({})));
    fake.put(
        "-/actionsets/a",
        json!({ "metadata": {"name": "a"}, "spec": {"backupType": "Continuous", "env": [{"name": "TAG", "value": "1"}],
            "backup": {"preBackup": [{"job": {"image": "db:$(TAG)", "command": ["c"]}}], "postBackup": [],
                "backupData": {"image": "db:1", "command": ["c"]}}} }),
    );
    let schedule = json!({ "metadata": {"name": "s", "namespace": "demo"}, "spec": {"backupPolicyName": "p",
        "schedules": [{"backupMethod": "full", "enabled": true, "cronExpression": "*/5 * * * *"}]},
        "status": {"phase": "Available"} });
    fake.put("demo/backupschedules/s", schedule.clone());
    let server = fake.clone();
    let ctx = move |jobs: &[Value], archives: bool| {
        let mut ctx = server.context();
        ctx.stores.jobs = holding(jobs.iter().cloned().map(from));
        let set = server.get("demo/statefulsets/b1").filter(|_| archives);
        ctx.stores.stateful_sets = holding(set.map(from));
        ctx
    };
    (fake, ctx)
}

/// Its first Job as the server has it, with this condition.
fn first_job(fake: &Fake, condition: &str) -> Value {
    let mut made = fake.get("demo/jobs/dp-prebackup-0-0-b1-6f1c2d3e").expect("what comes first is made");
    made["status"] = json!({ "conditions": [{"type": condition, "status": "True", "reason": "r", "message": "m"}] });
    made
}

#[tokio::test]
async fn behaviour_4_4_what_comes_before_an_archiver_is_done_first_and_once() {
    let (fake, ctx) = prepared_archive();
    look(&fake, &ctx(&[], false)).await.unwrap();
    assert!(fake.get("demo/statefulsets/b1").is_none(), "the archiver waits");
    let job = first_job(&fake, "Complete");
    assert_eq!(job["spec"]["template"]["spec"]["containers"][0]["image"], "db:1");
    let actions = fake.get(AT).unwrap()["status"]["actions"].clone();
    assert_eq!(
        (&actions[0]["name"], &actions[0]["phase"], &actions[0]["actionType"]),
        (&json!("dp-prebackup-0-0"), &json!("Running"), &json!("Job"))
    );
    assert_eq!((&actions[1]["name"], &actions[1]["phase"]), (&json!("dp-backup-0"), &json!("New")));

    look(&fake, &ctx(std::slice::from_ref(&job), false)).await.unwrap();
    assert!(fake.get("demo/statefulsets/b1").is_some());
    assert_eq!(fake.get(AT).unwrap()["status"]["actions"][0]["phase"], "Completed");
    assert_eq!(phase(&fake), "Running");

    // The Job is gone, removed by whomever: what archives is not prepared again.
    fake.writes();
    look(&fake, &ctx(&[], true)).await.unwrap();
    assert!(!fake.writes().iter().any(|write| write.starts_with("POST demo/jobs")));

    // The schedule wants no more: all goes, so that the next time begins as this one did.
    let mut off = fake.get("demo/backupschedules/s").unwrap();
    off["spec"]["schedules"][0]["enabled"] = json!(false);
    fake.put("demo/backupschedules/s", off);
    look(&fake, &ctx(&[job], true)).await.unwrap();
    assert!(fake.get("demo/jobs/dp-prebackup-0-0-b1-6f1c2d3e").is_none());
    let status = fake.get(AT).unwrap()["status"].clone();
    assert_eq!(status["phase"], "Completed");
    assert_eq!(status["actions"][0]["availableReplicas"], json!(null), "a Job has no replicas");
}

#[tokio::test]
async fn behaviour_3_3_an_archiver_rests_while_its_database_has_no_pod() {
    let (fake, ctx) = prepared_archive();
    look(&fake, &ctx(&[], false)).await.unwrap();
    let job = first_job(&fake, "Complete");
    look(&fake, &ctx(std::slice::from_ref(&job), false)).await.unwrap();
    let replicas = || fake.get("demo/statefulsets/b1").unwrap()["spec"]["replicas"].clone();
    assert_eq!(replicas(), 1);
    let target = fake.get("demo/pods/pg-0").unwrap();
    let mut starting = target.clone();
    starting["status"] = json!({});
    fake.put("demo/pods/pg-0", starting);
    look(&fake, &ctx(std::slice::from_ref(&job), true)).await.unwrap();
    assert_eq!(replicas(), 1, "a pod that is starting is one");
    fake.remove("demo/pods/pg-0");
    look(&fake, &ctx(std::slice::from_ref(&job), true)).await.unwrap();
    assert_eq!(replicas(), 0);
    fake.put("demo/pods/pg-0", target);
    look(&fake, &ctx(&[job], true)).await.unwrap();
    assert_eq!(replicas(), 1, "it goes on when there is one again");
}

#[tokio::test]
async fn behaviour_4_10_an_archiver_whose_preparation_fails_is_failed_until_a_later_try_goes_well() {
    let (fake, ctx) = prepared_archive();
    look(&fake, &ctx(&[], false)).await.unwrap();
    let failed = first_job(&fake, "Failed");
    look(&fake, &ctx(std::slice::from_ref(&failed), false)).await.unwrap();
    let status = fake.get(AT).unwrap()["status"].clone();
    assert_eq!(status["phase"], "Failed");
    assert_eq!(status["failureReason"], "action dp-prebackup-0-0 failed: r:m");
    assert!(fake.get("demo/statefulsets/b1").is_none());
    assert!(fake.get("demo/jobs/dp-prebackup-0-0-b1-6f1c2d3e").is_some(), "its logs can be read for a while");

    let mut later = fake.get(AT).unwrap();
    later["status"]["actions"][0]["completionTimestamp"] = json!("2026-01-01T00:00:00Z");
    fake.put(AT, later);
    look(&fake, &ctx(&[failed], false)).await.unwrap();
    assert!(fake.get("demo/jobs/dp-prebackup-0-0-b1-6f1c2d3e").is_none());
    assert_eq!(phase(&fake), "Failed", "until the next try is under way");
    look(&fake, &ctx(&[], false)).await.unwrap();
    assert_eq!(phase(&fake), "Running");
    let job = first_job(&fake, "Complete");
    look(&fake, &ctx(&[job], false)).await.unwrap();
    assert!(fake.get("demo/statefulsets/b1").is_some());
}
