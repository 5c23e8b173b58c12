//! The objects: as many finished backups as wanted, as large as real ones are, and the burst.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use futures::{StreamExt as _, TryStreamExt as _};
use kbbackup_testing::fixtures;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};

/// The operator's namespace.
pub(super) const MANAGER_NAMESPACE: &str = "kbbackup-system";
/// Where the burst happens.
const BURST: &str = "burst";
const NAMESPACES: usize = 10;
const REPO: &str = "bench";
/// Requests under way at once.
const AT_ONCE: usize = 24;

fn api(client: &Client, kind: &str, plural: &str, namespace: Option<&str>) -> Api<DynamicObject> {
    let (group, version) = match kind {
        "Namespace" | "Pod" | "Secret" => ("", "v1"),
        _ => ("dataprotection.kubeblocks.io", "v1alpha1"),
    };
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

/// Creates an object and gives it its status; one that is there already stays.
async fn create(api: &Api<DynamicObject>, mut value: Value) -> Result<()> {
    let status = value.as_object_mut().and_then(|map| map.remove("status"));
    let object: DynamicObject = serde_json::from_value(value)?;
    match api.create(&PostParams::default(), &object).await {
        Err(kube::Error::Api(answer)) if answer.code == 409 => return Ok(()),
        other => drop(other?),
    }
    if let Some(status) = status {
        let patch = Patch::Merge(json!({ "status": status }));
        api.patch_status(&object.name_any(), &PatchParams::default(), &patch).await?;
    }
    Ok(())
}

/// Fills the cluster.
pub(crate) async fn fill(client: &Client, backups: usize, policies: usize) -> Result<()> {
    let namespaces = api(client, "Namespace", "namespaces", None);
    let names = (0..NAMESPACES).map(|index| format!("ns-{index}")).chain([BURST, MANAGER_NAMESPACE].map(str::to_owned));
    for name in names {
        create(&namespaces, json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } })).await?;
    }
    create(&api(client, "ActionSet", "actionsets", None), fixtures::scripted_action_set("bench", "true")).await?;
    let repo = json!({ "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "BackupRepo", "metadata": { "name": REPO },
        "spec": { "storageProviderRef": "s3-compatible", "accessMethod": "Tool", "pvReclaimPolicy": "Retain", "config": {
            "bucket": "b", "endpoint": "http://nowhere", "accessKeyId": "a", "secretAccessKey": "s" } } });
    create(&api(client, "BackupRepo", "backuprepos", None), repo).await?;
    target(client).await?;
    let each = |count: usize, make: fn(usize) -> Value, kind: &'static str, plural: &'static str| async move {
        let create = |index: usize| async move {
            let namespace = format!("ns-{}", index % NAMESPACES);
            create(&api(client, kind, plural, Some(&namespace)), make(index)).await
        };
        futures::stream::iter(0..count).map(create).buffer_unordered(AT_ONCE).try_collect::<Vec<_>>().await.map(drop)
    };
    each(policies, policy, "BackupPolicy", "backuppolicies").await?;
    each(policies, schedule, "BackupSchedule", "backupschedules").await?;
    each(backups, finished, "Backup", "backups").await
}

/// The pod that the burst's backups are of.
async fn target(client: &Client) -> Result<()> {
    let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "pg-0", "labels": {
            "app.kubernetes.io/name": "postgres", "app.kubernetes.io/instance": "pg" } },
        "spec": { "nodeName": "node", "containers": [{ "name": "postgres", "image": "bench", "ports": [{ "name": "postgres", "containerPort": 5432 }] }] },
        "status": { "phase": "Running", "podIP": "10.0.0.9", "conditions": [{ "type": "Ready", "status": "True" }] } });
    create(&api(client, "Pod", "pods", Some(BURST)), pod).await?;
    let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "pg-auth" },
        "stringData": { "username": "postgres", "password": "x" } });
    create(&api(client, "Secret", "secrets", Some(BURST)), secret).await?;
    let mut policy = fixtures::policy("pg", "pg", "bench", Some(REPO));
    // Nothing of the target's is mounted: there are no volumes here.
    drop(policy["spec"]["backupMethods"][0].as_object_mut().and_then(|method| method.remove("targetVolumes")));
    create(&api(client, "BackupPolicy", "backuppolicies", Some(BURST)), policy).await
}

fn policy(index: usize) -> Value {
    fixtures::policy(&format!("policy-{index}"), &format!("pg-{index}"), "bench", Some(REPO))
}

fn schedule(index: usize) -> Value {
    json!({ "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "BackupSchedule",
        "metadata": { "name": format!("schedule-{index}") },
        "spec": { "backupPolicyName": format!("policy-{index}"), "schedules": [{ "backupMethod": "full", "enabled": false,
            "cronExpression": "0 3 * * *", "retentionPeriod": "7d" }] } })
}

/// A completed backup as the operator leaves it: target, method, actions, notes of 2 KiB and a workload of 6 KiB.
fn finished(index: usize) -> Value {
    let database = index / NAMESPACES % 50 * NAMESPACES + index % NAMESPACES;
    let (name, policy) = (format!("backup-of-policy-{index:05}"), format!("policy-{database}"));
    let uid = format!("{database:08x}-1111-4222-8333-444444444444");
    let labels = json!({
        "app.kubernetes.io/managed-by": "kubeblocks-dataprotection", "app.kubernetes.io/instance": "pg",
        "dataprotection.kubeblocks.io/backup-policy": policy, "dataprotection.kubeblocks.io/backup-method": "full",
        "dataprotection.kubeblocks.io/backup-type": "Full", "dataprotection.kubeblocks.io/backup-repo-name": REPO,
        "dataprotection.kubeblocks.io/cluster-uid": uid, "apps.kubeblocks.io/component-name": "postgresql",
    });
    let notes = json!({
        "kbbackup.io/seal": "5".repeat(64), "kbbackup.io/workload": "w".repeat(6 << 10),
        "dataprotection.kubeblocks.io/target-pod-name": "pg-0", "example.com/one": "1".repeat(1000), "example.com/two": "2".repeat(1000),
    });
    let action = |name: &str| {
        json!({ "name": name, "phase": "Completed", "actionType": "Job", "targetPodName": "pg-0",
        "startTimestamp": "2026-01-01T03:00:00Z", "completionTimestamp": "2026-01-01T03:01:00Z", "totalSize": "1048576",
        "objectRef": { "apiVersion": "batch/v1", "kind": "Job", "namespace": "ns", "name": format!("{name}-backup-{index}"), "uid": uid } })
    };
    let selector = json!({ "matchLabels": { "app.kubernetes.io/name": "postgres", "app.kubernetes.io/instance": "pg" }, "strategy": "Any" });
    let target = json!({ "podSelector": selector, "connectionCredential": { "secretName": "pg-auth", "usernameKey": "username", "passwordKey": "password" },
        "selectedTargetPods": ["pg-0"] });
    json!({
        "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "Backup",
        "metadata": { "name": name, "labels": labels, "annotations": notes,
            "finalizers": ["dataprotection.kubeblocks.io/finalizer"] },
        "spec": { "backupPolicyName": policy, "backupMethod": "full", "deletionPolicy": "Delete", "retentionPeriod": "10y" },
        "status": { "formatVersion": "0.1.0", "phase": "Completed", "path": format!("/ns/{policy}/{name}"), "backupRepoName": REPO,
            "startTimestamp": "2026-01-01T03:00:00Z", "completionTimestamp": "2026-01-01T03:01:00Z", "duration": "1m0s",
            "expiration": "2126-01-01T03:01:00Z", "totalSize": "1048576",
            "timeRange": { "start": "2026-01-01T03:00:00Z", "end": "2026-01-01T03:01:00Z" },
            "target": target, "actions": [action("dp-backup-0"), action("dp-seal")],
            "extras": [{ "engine": "postgresql", "version": "15.8", "position": "0/3000028" }],
            "backupMethod": { "name": "full", "actionSetName": "bench", "targetVolumes": { "volumeMounts": [{ "name": "data", "mountPath": "/data" }] } } },
    })
}

/// How many backups there are.
pub(super) async fn count(client: &Client) -> Result<usize> {
    let mut params = ListParams::default().limit(500);
    let mut count = 0;
    loop {
        let page = api(client, "Backup", "backups", None).list_metadata(&params).await?;
        count += page.items.len();
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(count),
        }
    }
}

/// Waits until the repository is Ready.
pub(super) async fn repo_is_ready(client: &Client, limit: Duration) -> Result<()> {
    let api = api(client, "BackupRepo", "backuprepos", None);
    let begin = Instant::now();
    loop {
        let repo = api.get(REPO).await?;
        if repo.data["status"]["phase"] == "Ready" {
            return Ok(());
        }
        if begin.elapsed() > limit {
            bail!("the repository is not Ready: {}", repo.data["status"]);
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// The backups of the burst that have ended, as (completed, failed).
async fn ended(client: &Client, run: &str) -> Result<(usize, usize)> {
    let all = api(client, "Backup", "backups", Some(BURST)).list(&ListParams::default()).await?;
    let count = |phase: &str| {
        all.items.iter().filter(|one| one.name_any().starts_with(run) && one.data["status"]["phase"] == phase).count()
    };
    Ok((count("Completed"), count("Failed")))
}

/// Creates `count` backups as fast as the API server takes them, and waits until each is Completed.
pub(super) async fn burst(client: &Client, count: usize, limit: Duration) -> Result<()> {
    let begin = Instant::now();
    let run = format!("b{}", milliseconds());
    let backups = &api(client, "Backup", "backups", Some(BURST));
    let create = |index: usize| {
        let object = fixtures::backup(&format!("{run}-{index}"), "pg", "full");
        async move { create(backups, object).await }
    };
    futures::stream::iter(0..count).map(create).buffer_unordered(AT_ONCE).try_collect::<Vec<_>>().await?;
    loop {
        let (completed, failed) = ended(client, &run).await?;
        if failed > 0 {
            bail!("{failed} backups of the burst failed");
        }
        if completed == count {
            return Ok(());
        }
        if begin.elapsed() > limit {
            bail!("{completed} of {count} backups are completed after {limit:?}");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Milliseconds since 1970: names of two runs in one cluster differ.
fn milliseconds() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_millis())
}
