//! What stands for Job controller, scheduler and kubelet: every Job gets a pod that has already succeeded.

use std::collections::BTreeMap;

use anyhow::Result;
use futures::TryStreamExt as _;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::api::{Api, DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, Resource as _, ResourceExt as _};
use serde_json::{Value, json};

/// Lets every Job succeed, until dropped.
pub(super) async fn run(client: Client) -> Result<()> {
    let jobs = watcher(Api::<Job>::all(client.clone()), watcher::Config::default()).default_backoff().applied_objects();
    jobs.try_for_each_concurrent(8, |job| {
        let client = client.clone();
        async move {
            if job.metadata.deletion_timestamp.is_none() && job.status.as_ref().is_none_or(|s| s.succeeded.is_none()) {
                // An object that went meanwhile is no trouble; anything else shows in backups that never end.
                drop(succeed(&client, &job).await);
            } else if job.metadata.deletion_timestamp.is_some() {
                drop(release(&client, &job).await);
            }
            Ok(())
        }
    })
    .await?;
    Ok(())
}

async fn succeed(client: &Client, job: &Job) -> kube::Result<()> {
    let namespace = job.namespace().unwrap_or_default();
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let Some(template) = job.spec.as_ref().map(|spec| spec.template.clone()) else { return Ok(()) };
    let mut labels: BTreeMap<_, _> = template.metadata.and_then(|meta| meta.labels).unwrap_or_default();
    labels.insert("batch.kubernetes.io/job-name".into(), job.name_any());
    labels.insert("batch.kubernetes.io/controller-uid".into(), job.uid().unwrap_or_default());
    let Some(mut spec) = template.spec else { return Ok(()) };
    spec.service_account_name = None;
    let init = spec.init_containers.clone().unwrap_or_default();
    let containers = spec.containers.clone();
    let pod = Pod {
        metadata: ObjectMeta {
            name: Some(job.name_any()),
            labels: Some(labels),
            owner_references: job.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: None,
    };
    pods.create(&PostParams::default(), &pod).await?;
    let ended = json!({ "status": { "phase": "Succeeded", "initContainerStatuses": statuses(&init),
        "containerStatuses": statuses(&containers) } });
    pods.patch_status(&job.name_any(), &PatchParams::default(), &Patch::Merge(ended)).await?;
    let now = job.creation_timestamp();
    let condition =
        |type_: &str| json!({ "type": type_, "status": "True", "lastProbeTime": now, "lastTransitionTime": now });
    let status = json!({ "status": { "startTime": now, "completionTime": now, "succeeded": 1,
        "conditions": [condition("SuccessCriteriaMet"), condition("Complete")] } });
    let jobs: Api<Job> = Api::namespaced(client.clone(), &namespace);
    jobs.patch_status(&job.name_any(), &PatchParams::default(), &Patch::Merge(status)).await.map(drop)
}

fn statuses(containers: &[Container]) -> Vec<Value> {
    containers
        .iter()
        .map(|container| {
            let report = match container.name.as_str() {
                "manager" => json!({ "version": 1, "info": { "totalSize": "1048576" }, "stored": { "objects": 3, "bytes": 1_048_576 } }),
                "seal" => json!({ "version": 1, "seal": "5".repeat(64) }),
                _ => json!({ "version": 1 }),
            };
            json!({ "name": container.name, "image": "bench", "imageID": "bench", "ready": false, "restartCount": 0,
                "state": { "terminated": { "exitCode": 0, "reason": "Completed", "message": report.to_string() } } })
        })
        .collect()
}

const TRIES: usize = 3;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// What the garbage collector would do to a Job that is deleted.
async fn release(client: &Client, job: &Job) -> kube::Result<()> {
    let namespace = job.namespace().unwrap_or_default();
    let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    // The pod may be about to appear: it is made when its Job is seen.
    for _ in 0..TRIES {
        if pods.delete(&job.name_any(), &now).await.is_ok() {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    let bare = json!({ "metadata": { "finalizers": null } });
    let jobs: Api<Job> = Api::namespaced(client.clone(), &namespace);
    jobs.patch(&job.name_any(), &PatchParams::default(), &Patch::Merge(bare)).await.map(drop)
}
