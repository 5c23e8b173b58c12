//! The Jobs of a step, by name: what is recorded binds, the rest follows from the sets.

use kbbackup_api::v1alpha1::{Restore, RestoreStatus};
use kbbackup_core::names;
use kube::ResourceExt as _;

use super::decide::{Task, Work};
use super::sets::{self, Set, SourcePod};
use super::{build, in_place, observe};
use crate::context::Context;
use crate::worker::error::{Error, Refusal};

/// Whether Jobs fill the claims from a set. In place, where volumes are exchanged, those that a driver fills from snapshots must
/// exist first, and a Job makes them wanted.
pub(super) fn fills(restore: &Restore, of: &Set) -> bool {
    of.prepare_data().is_some() || (of.uses_snapshots && in_place::target(restore).is_some())
}

/// The Jobs that fill the claims from one set.
pub(super) fn prepare(restore: &Restore, set: usize, of: &Set) -> Result<Vec<Task>, Refusal> {
    if !fills(restore, of) || !build::has_claims(restore) {
        return Ok(Vec::new());
    }
    let (backup, uid) = (of.backup.name_any(), restore.uid().unwrap_or_default());
    let config = restore.spec.prepare_data_config.as_ref();
    let policy = config.and_then(|config| config.required_policy_for_all_pod_selection.as_ref());
    let target = sets::source_target(&of.backup, restore.spec.backup.source_target_name.as_deref())?;
    let mut tasks = Vec::new();
    for replica in 0..build::replicas(restore) {
        let source = match sets::source_pod(target, policy, replica)? {
            SourcePod::Any => None,
            SourcePod::Pod(pod) => Some(pod),
            SourcePod::None => continue,
        };
        tasks.push(Task {
            name: format!("prepareData-{set}"),
            backup: backup.clone(),
            job: names::prepare_data_job(&backup, &uid, set, replica),
            work: Work::Prepare { set, replica, source },
        });
    }
    Ok(tasks)
}

/// The Jobs of a `postReady` entry: those recorded when it began, else one per pod.
pub(super) async fn post_ready(
    ctx: &Context,
    restore: &Restore,
    set: usize,
    of: &Set,
    entry: usize,
    status: &RestoreStatus,
) -> Result<Vec<Task>, Error> {
    let (backup, uid) = (of.backup.name_any(), restore.uid().unwrap_or_default());
    let name = format!("postReady-{entry}");
    let task = |pod: usize| Task {
        name: name.clone(),
        backup: backup.clone(),
        job: names::post_ready_job(&backup, &uid, set, entry, pod),
        work: Work::PostReady { set, entry, pod },
    };
    let recorded = status.actions.as_ref().map(|actions| actions.post_ready.as_slice()).unwrap_or_default();
    let begun = recorded.iter().filter(|action| action.name == name && action.backup_name == backup).count();
    if begun > 0 {
        return Ok((0..begun).map(task).collect());
    }
    let exec = is_exec(of, entry);
    let pods = observe::ready_pods(ctx, restore, exec).await?.len();
    Ok((0..if exec { pods } else { with_source(restore, of, pods)? }).map(task).collect())
}

/// How many of `pods` get data: pods beyond those of the backup are skipped.
pub(super) fn with_source(restore: &Restore, of: &Set, pods: usize) -> Result<usize, Refusal> {
    for pod in 0..pods {
        if post_ready_source(restore, of, pod)? == SourcePod::None {
            return Ok(pod);
        }
    }
    Ok(pods)
}

/// Whose data the Job for the pod at index `pod` works with: behaviour 6.7.
pub(super) fn post_ready_source(restore: &Restore, of: &Set, pod: usize) -> Result<SourcePod, Refusal> {
    let config = restore.spec.ready_config.as_ref().and_then(|config| config.job_action.as_ref());
    let policy = config.and_then(|config| config.required_policy_for_all_pod_selection.as_ref());
    let from = sets::source_target(&of.backup, restore.spec.backup.source_target_name.as_deref())?;
    sets::source_pod(from, policy, pod)
}

fn is_exec(set: &Set, entry: usize) -> bool {
    let entries = set.action_set.spec.restore.as_ref().map(|restore| restore.post_ready.as_slice()).unwrap_or_default();
    entries.get(entry).is_some_and(|action| action.exec.is_some())
}
