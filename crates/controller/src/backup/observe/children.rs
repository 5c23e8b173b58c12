//! What a backup has started: its Jobs and snapshots, as far as they are.

use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kbbackup_api::names::labels;
use kbbackup_api::v1alpha1::{ActionPhase, ActionStatus, Backup};
use kube::api::ListParams;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt as _};

use crate::backup::{plan, volumes};
use crate::context::Context;
use crate::pool;
use crate::worker::error::{Doing as _, Error};
use crate::worker::{Outcome, logs, refused};

/// One action and what its Job shows.
#[derive(Clone, Debug, PartialEq)]
pub struct SeenAction {
    /// How far its Job is.
    pub outcome: Outcome,
    /// The last words of a failed pod.
    pub words: Option<String>,
    /// Of snapshots: those that are ready.
    pub snapshots: Vec<volumes::decide::Taken>,
}

impl SeenAction {
    /// What a Job shows.
    pub fn of_job(outcome: Outcome, words: Option<String>) -> Self {
        Self { outcome, words, snapshots: Vec::new() }
    }
}

/// Looks at the Jobs of all actions that are not over, by the stores; what is decisive is asked of the API server.
///
/// # Errors
/// Those of the API server.
pub async fn children(ctx: &Context, backup: &Backup, actions: &[ActionStatus]) -> Result<Vec<SeenAction>, Error> {
    let name = backup.name_any();
    let pods = ctx.stores.pods.group(&pool::workers_of_backup(&name));
    let mut seen = Vec::with_capacity(actions.len());
    for action in actions {
        if matches!(action.phase, Some(ActionPhase::Completed | ActionPhase::Failed)) {
            seen.push(SeenAction::of_job(Outcome::Absent, None));
            continue;
        }
        if plan::is_snapshot(action) {
            seen.push(volumes::observe::look(ctx, backup, action));
            continue;
        }
        let job = action.object_ref.as_ref().and_then(|reference| stored_job(ctx, backup, reference));
        let pods: Vec<&Pod> = pods.iter().map(AsRef::as_ref).collect();
        let mut outcome = Outcome::of(job.as_deref(), &pods);
        if let (Outcome::Running { obstacle: obstacle @ None }, Some(job)) = (&mut outcome, &job) {
            *obstacle = refused::obstacle(&ctx.client, job, &pods, ctx.now()).await;
        }
        if let (Outcome::Succeeded { pod: None } | Outcome::Failed { pod: None, .. }, Some(job)) = (&outcome, &job) {
            // The Job's end was seen before its pod's: ask.
            let fresh = job_pods(ctx, job).await?;
            outcome = Outcome::of(Some(job.as_ref()), &fresh);
        }
        let words = match (&outcome, &action.object_ref) {
            (Outcome::Failed { pod: Some(pod), .. }, Some(reference)) => {
                logs::of_failed(&ctx.client, reference.namespace.as_deref().unwrap_or_default(), pod).await
            }
            _ => None,
        };
        seen.push(SeenAction::of_job(outcome, words));
    }
    Ok(seen)
}

/// The Job that an action refers to, if it is this backup's.
pub(in crate::backup) fn stored_job(ctx: &Context, backup: &Backup, reference: &ObjectReference) -> Option<Arc<Job>> {
    let key = ObjectRef::new(reference.name.as_deref()?).within(reference.namespace.as_deref()?);
    ctx.stores.jobs.get(&key).filter(|job| is_ours(job.as_ref(), backup))
}

/// Whether a Job, or whatever else a backup makes, belongs to this very backup: by owner where owners are possible, else
/// by labels.
pub fn is_ours<K: kube::Resource>(found: &K, backup: &Backup) -> bool {
    if found.namespace() == backup.namespace() {
        return found.owner_references().iter().any(|owner| Some(owner.uid.as_str()) == backup.uid().as_deref());
    }
    let label = |key: &str| found.labels().get(key).cloned();
    // The name of the Job ends in the backup's UID, so that a namesake's is not taken for ours.
    label(labels::BACKUP_NAME) == Some(backup.name_any()) && label(labels::BACKUP_NAMESPACE) == backup.namespace()
}

async fn job_pods(ctx: &Context, job: &Job) -> Result<Vec<Pod>, Error> {
    let namespace = job.namespace().unwrap_or_default();
    let selector = format!("batch.kubernetes.io/controller-uid={}", job.uid().unwrap_or_default());
    let list =
        Api::<Pod>::namespaced(ctx.client.clone(), &namespace).list(&ListParams::default().labels(&selector)).await;
    Ok(list.doing(|| format!("listing the pods of Job {}", job.name_any()))?.items)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_job_of_a_namesake_is_not_ours() {
        let backup: Backup = serde_json::from_value(json!({ "metadata": {"name": "b", "namespace": "n", "uid": "u1"},
            "spec": {"backupPolicyName": "p", "backupMethod": "m"} }))
        .unwrap();
        let job = |namespace: &str, uid: &str| -> Job {
            serde_json::from_value(json!({ "metadata": {"name": "j", "namespace": namespace,
                "labels": {labels::BACKUP_NAME: "b", labels::BACKUP_NAMESPACE: "n"},
                "ownerReferences": [{"apiVersion": "x", "kind": "Backup", "name": "b", "uid": uid}]} }))
            .unwrap()
        };
        assert!(is_ours(&job("n", "u1"), &backup));
        assert!(!is_ours(&job("n", "u2"), &backup));
        assert!(is_ours(&job("manager", "u2"), &backup));
    }
}
