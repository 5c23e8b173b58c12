//! Removing a backup and its bytes: behaviour 4.14, with our differences. The object goes when the bytes are gone; what
//! stays behind is said in `status.deletionFailureReason` and tried again.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kbbackup_api::names::labels;
use kbbackup_api::v1alpha1::{
    ActionSet, Backup, BackupPhase, BackupRepo, BackupStatus, DeletionPolicy, PodSelector, Restore, RestorePhase,
};
use kube::api::DeleteParams;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt as _};

use super::terminating::{self, Site};
use super::{apply, build, continuous, observe, plan, volumes};
use crate::cluster::record;
use crate::context::Context;
use crate::error::{Classified as _, is_not_found};
use crate::pool;
use crate::status;
use crate::worker::error::{Doing as _, Error, Refusal};
use crate::worker::repo::Way;
use crate::worker::{self, Outcome, RepoAccess, account, logs, read, select};

/// How long to wait for what a watch will tell.
const SLOWLY: Duration = Duration::from_secs(60);
/// What we have just learned changes the next step.
const AT_ONCE: Duration = Duration::from_millis(100);

/// One step of the deletion; repeated until the object is gone.
pub async fn reconcile(ctx: &Context, backup: &Backup) -> Result<Action, Error> {
    if backup.finalizers().iter().all(|name| name != kbbackup_api::names::FINALIZER) {
        return Ok(Action::await_change());
    }
    let mut status = backup.status.clone().unwrap_or_default();
    status.phase = Some(BackupPhase::Deleting);
    let restores: Vec<_> = ctx.stores.restores.state();
    let readable: Vec<_> = restores.iter().filter_map(|guarded| guarded.0.as_ref().ok()).collect();
    let step = match reading(backup, &readable) {
        Some(restore) => {
            Step::Wait(Some(format!("restore {restore} is reading this backup; it is deleted when that is over")))
        }
        None => match remove(ctx, backup, &status).await {
            Ok(step) => step,
            Err(Error::Refused(refusal)) => Step::Wait(Some(refusal.to_string())),
            Err(error) if error.is_conflict() => return Err(error),
            Err(error) => {
                // Kept where people look, then retried with growing waits.
                status.deletion_failure_reason = Some(crate::run::chain(&error));
                apply::publish(&ctx.client, backup.clone(), &status).await?;
                tracing::debug!(reason = error.reason(), "deletion is retried");
                return Err(error);
            }
        },
    };
    match step {
        Step::Done => {
            let api = apply::api(&ctx.client, backup);
            match status::hold(&api, backup, false).await {
                Err(error) if !is_not_found(&error) => Err(error).doing(|| "releasing the backup".to_owned()),
                _ => Ok(Action::await_change()),
            }
        }
        Step::Wait(why) => {
            status.deletion_failure_reason = why;
            apply::publish(&ctx.client, backup.clone(), &status).await?;
            Ok(Action::requeue(SLOWLY))
        }
        Step::Again(why, wait) => {
            let is_new = status.deletion_failure_reason.as_ref() != Some(&why);
            status.deletion_failure_reason = Some(why.clone());
            let backup = apply::publish(&ctx.client, backup.clone(), &status).await?;
            if is_new {
                ctx.event(&backup, EventType::Warning, "DeleteBackupFilesFailed", why).await;
            }
            Ok(Action::requeue(wait))
        }
    }
}

/// Where the deletion stands.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// Everything is gone.
    Done,
    /// A watch will tell; the text is an obstacle for people.
    Wait(Option<String>),
    /// It failed and is tried again after a while.
    Again(String, Duration),
}

/// A restore that is not over and reads `backup`: it names it, or one that builds on it.
pub fn reading(backup: &Backup, restores: &[&Restore]) -> Option<String> {
    let name = backup.name_any();
    let reads = |restore: &&&Restore| {
        let phase = restore.status.as_ref().and_then(|status| status.phase);
        let over = matches!(phase, Some(RestorePhase::Completed | RestorePhase::Failed));
        let of = &restore.spec.backup;
        !over
            && restore.metadata.deletion_timestamp.is_none()
            && (of.name == name || crate::restore::reads(restore).any(|read| read == name))
            && Some(of.namespace.as_str()) == backup.namespace().as_deref()
    };
    restores
        .iter()
        .find(reads)
        .map(|restore| format!("{}/{}", restore.namespace().unwrap_or_default(), restore.name_any()))
}

async fn remove(ctx: &Context, backup: &Backup, status: &BackupStatus) -> Result<Step, Error> {
    delete_children(ctx, backup).await?;
    for job in jobs(ctx, backup).iter().filter(|job| !terminating::removes_files(job)) {
        worker::apply::delete_job(&ctx.client, job).await?;
    }
    for set in continuous::observe::sets(ctx, backup) {
        worker::apply::delete(&ctx.client, set.as_ref()).await?;
    }
    if backup.spec.deletion_policy == DeletionPolicy::Retain {
        let kept = if takes_snapshots(status) { volumes::apply::release(ctx, backup).await? } else { Vec::new() };
        if !kept.is_empty() {
            let note = format!("deletionPolicy is Retain: the volumesnapshots stay: {}", kept.join(", "));
            ctx.event(backup, EventType::Warning, "Retain", note).await;
        }
        if !kept.is_empty() && status.backup_repo_name.is_none() {
            return Ok(Step::Done);
        }
        let path = status.path.as_deref().unwrap_or("nothing");
        let repo = status.backup_repo_name.as_deref().unwrap_or("no repository");
        let note = format!("deletionPolicy is Retain: the data stays at {path} in {repo}");
        ctx.event(backup, EventType::Warning, "Retain", note).await;
        return Ok(Step::Done);
    }
    let name = backup.name_any();
    let pods = ctx.stores.pods.group(&pool::workers_of_backup(&name));
    if pods.iter().any(|pod| pod.namespace() == backup.namespace()) {
        return Ok(Step::Wait(None));
    }
    if takes_snapshots(status) {
        let left = volumes::apply::remove(ctx, backup).await?;
        if !left.is_empty() {
            return Ok(Step::Wait(Some(format!("waiting for the volumesnapshots to be gone: {}", left.join(", ")))));
        }
    }
    match terminating::site(ctx, backup).await? {
        Site::Home => remove_files(ctx, backup, status, Site::Home).await,
        Site::Manager => remove_files_elsewhere(ctx, backup, status).await,
        Site::Nowhere => {
            terminating::leave_behind(ctx, status, "the operator's own namespace is being deleted");
            Ok(Step::Done)
        }
    }
}

fn takes_snapshots(status: &BackupStatus) -> bool {
    status.backup_method.as_ref().is_some_and(|method| method.snapshot_volumes())
}

/// Removes the files of a backup whose namespace is being deleted: for a while, then the namespace may go.
async fn remove_files_elsewhere(ctx: &Context, backup: &Backup, status: &BackupStatus) -> Result<Step, Error> {
    let result = remove_files(ctx, backup, status, Site::Manager).await;
    let why = match &result {
        Ok(Step::Done) => return result,
        Err(error) if error.is_conflict() => return result,
        Ok(Step::Wait(why)) => why.clone().unwrap_or_else(|| "the deletion did not end in time".to_owned()),
        Ok(Step::Again(why, _)) => why.clone(),
        Err(error) => crate::run::chain(error),
    };
    match (terminating::time_left(ctx, backup, status), result) {
        (Some(left), Ok(Step::Wait(Some(why)))) => Ok(Step::Again(why, left.min(SLOWLY))),
        (Some(left), Ok(Step::Again(why, wait))) => Ok(Step::Again(why, wait.min(left))),
        (Some(left), Err(Error::Refused(refusal))) => Ok(Step::Again(refusal.to_string(), left.min(SLOWLY))),
        (Some(_), other) => other,
        (None, _) => {
            terminating::leave_behind(ctx, status, &why);
            Ok(Step::Done)
        }
    }
}

/// Backups that build on this one go with it.
async fn delete_children(ctx: &Context, backup: &Backup) -> Result<(), Error> {
    let name = backup.name_any();
    let home = backup.namespace().unwrap_or_default();
    for other in &ctx.stores.backups.of_policy(&home, &backup.spec.backup_policy_name) {
        let status = other.status.as_ref();
        let builds_on = |parent: fn(&BackupStatus) -> Option<&String>| status.and_then(parent) == Some(&name);
        let is_child = other.name_any() != name
            && other.metadata.deletion_timestamp.is_none()
            && (builds_on(|status| status.parent_backup_name.as_ref())
                || builds_on(|status| status.base_backup_name.as_ref()));
        if is_child {
            delete(ctx, other).await?;
        }
    }
    Ok(())
}

/// Deletes a Backup object in the background.
pub async fn delete(ctx: &Context, backup: &Backup) -> Result<(), Error> {
    let api = apply::api(&ctx.client, backup);
    match api.delete(&backup.name_any(), &DeleteParams::background()).await {
        Err(error) if !is_not_found(&error) => Err(error).doing(|| format!("deleting backup {}", backup.name_any())),
        _ => Ok(()),
    }
}

/// All Jobs of a backup's actions, wherever they are.
pub fn jobs(ctx: &Context, backup: &Backup) -> Vec<Arc<Job>> {
    let name = backup.name_any();
    let mut jobs = ctx.stores.jobs.group(&pool::workers_of_backup(&name));
    jobs.retain(|job| observe::is_ours(job.as_ref(), backup));
    jobs
}

async fn remove_files(ctx: &Context, backup: &Backup, status: &BackupStatus, site: Site) -> Result<Step, Error> {
    let path = status.path.as_deref().unwrap_or_default();
    // A path that does not name this backup would take others with it.
    if !path.split('/').any(|part| part == backup.name_any()) {
        return Ok(Step::Done);
    }
    if let Some(way) = Way::without_repo(status) {
        return remove_files_on_claim(ctx, backup, status, way, site).await;
    }
    let Some(repo) = status.backup_repo_name.as_deref().filter(|name| !name.is_empty()) else { return Ok(Step::Done) };
    let namespace = site.namespace(backup, &ctx.settings);
    let repos = Api::<BackupRepo>::all(ctx.client.clone());
    let found =
        read::find(&ctx.stores.repos, &repos, repo, None).await.doing(|| format!("reading BackupRepo {repo}"))?;
    if found.is_none() {
        let note = format!("BackupRepo {repo} does not exist any more: whatever lies at {path} stays there");
        ctx.event(backup, EventType::Warning, "DeleteBackupFilesFailed", note).await;
        return Ok(Step::Done);
    }
    let mut access = observe::access(ctx, status).await?;
    if site != Site::Home {
        // The pass phrase lies in the namespace that goes; names are not encrypted, so removing does not need it.
        access.encryption = None;
    }
    if !read::prepared(&ctx.client, &namespace, &access.way)
        .await
        .doing(|| "looking for the repository's Secret or claim".to_owned())?
    {
        let waiting = [(labels::WAIT_REPO_PREPARATION, kbbackup_api::names::TRUE), (labels::BACKUP_REPO_NAME, repo)];
        let waiting = waiting.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let place = (site == Site::Manager).then(|| kbbackup_api::names::TRUE.to_owned());
        let notes = [(kbbackup_api::names::annotations::PREPARE_MANAGER_NAMESPACE, place)].into();
        apply::metadata(&ctx.client, backup.clone(), &waiting, &notes, false).await?;
        return Ok(Step::Wait(Some(format!("waiting for the access to BackupRepo {repo} in namespace {namespace}"))));
    }
    remove_files_by(ctx, backup, status, &access, site).await
}

/// As [`remove_files`], for a backup that lies on a claim of its own namespace and in no repository.
async fn remove_files_on_claim(
    ctx: &Context,
    backup: &Backup,
    status: &BackupStatus,
    way: Way,
    site: Site,
) -> Result<Step, Error> {
    if site != Site::Home {
        tracing::warn!(path = status.path, "the claim that this backup lies on goes with its namespace");
        return Ok(Step::Done);
    }
    let home = backup.namespace().unwrap_or_default();
    let exists = read::prepared(&ctx.client, &home, &way).await;
    if !exists.doing(|| "looking for the claim that the backup lies on".to_owned())? {
        let claim = status.persistent_volume_claim_name.as_deref().unwrap_or_default();
        let path = status.path.as_deref().unwrap_or_default();
        let note =
            format!("PersistentVolumeClaim {claim} does not exist any more: whatever lies at {path} stays there");
        ctx.event(backup, EventType::Warning, "DeleteBackupFilesFailed", note).await;
        return Ok(Step::Done);
    }
    let access = RepoAccess::to(way, status);
    remove_files_by(ctx, backup, status, &access, site).await
}

/// Runs the Jobs that remove the files, `preDelete` first.
async fn remove_files_by(
    ctx: &Context,
    backup: &Backup,
    status: &BackupStatus,
    access: &RepoAccess,
    site: Site,
) -> Result<Step, Error> {
    account::ensure(&ctx.client, &site.namespace(backup, &ctx.settings), &ctx.settings)
        .await
        .doing(|| "ensuring the workers' account".to_owned())?;
    match before_files(ctx, backup, status, access, site).await {
        Ok(Step::Done) => {}
        // What it wanted to reach is going with the namespace: the files matter more than its words.
        Ok(Step::Again(why, _)) | Err(Error::Refused(Refusal::Fatal(why))) if site == Site::Manager => {
            tracing::warn!(why, "preDelete is left out");
        }
        other => return other,
    }
    let job = build::delete_files(backup, status, access, &ctx.settings);
    carry_out(ctx, backup, &site.place(job, backup, &ctx.settings)).await
}

/// The ActionSet's `preDelete`, for every target.
async fn before_files(
    ctx: &Context,
    backup: &Backup,
    status: &BackupStatus,
    access: &RepoAccess,
    site: Site,
) -> Result<Step, Error> {
    for job in pre_delete(ctx, backup, status, access, site).await? {
        match carry_out(ctx, backup, &site.place(job, backup, &ctx.settings)).await? {
            Step::Done => {}
            step => return Ok(step),
        }
    }
    Ok(Step::Done)
}

async fn pre_delete(
    ctx: &Context,
    backup: &Backup,
    status: &BackupStatus,
    access: &RepoAccess,
    site: Site,
) -> Result<Vec<Job>, Error> {
    let method = status.backup_method.as_ref();
    let Some(name) = method.and_then(|method| method.action_set_name.as_deref()).filter(|name| !name.is_empty()) else {
        return Ok(Vec::new());
    };
    let api = Api::<ActionSet>::all(ctx.client.clone());
    let set =
        read::find(&ctx.stores.action_sets, &api, name, None).await.doing(|| format!("reading ActionSet {name}"))?;
    let Some(set) = set else {
        let why = format!(
            "ActionSet {name} does not exist, so its preDelete is not known; create it again to go on with the deletion"
        );
        return Err(Refusal::fatal(why).into());
    };
    if set.spec.backup.as_ref().is_none_or(|backup| backup.pre_delete.is_none()) {
        return Ok(Vec::new());
    }
    let mut pods = Vec::new();
    // References to Secrets of a pod's namespace do not work in another one.
    let known = site == Site::Home && is_still_there(ctx, backup).await?;
    for target in plan::targets(status) {
        let selector = target.target.pod_selector.as_ref().filter(|_| known);
        pods.push(match selector {
            Some(selector) => available_pod(ctx, backup, selector).await?,
            None => None,
        });
    }
    Ok(build::pre_delete(backup, status, &set.spec, &pods, access, &ctx.settings)?)
}

/// Whether the database is still the one that was backed up. Another cluster may wear the same labels by now: its pods are
/// left alone. A database without a Cluster is known by its labels only.
async fn is_still_there(ctx: &Context, backup: &Backup) -> Result<bool, Error> {
    let Some(uid) = backup.labels().get(labels::CLUSTER_UID).filter(|uid| !uid.is_empty()) else { return Ok(true) };
    let Some(name) = backup.labels().get(labels::INSTANCE) else { return Ok(false) };
    let cluster = record::cluster(ctx, &backup.namespace().unwrap_or_default(), name).await?;
    Ok(cluster.is_some_and(|cluster| cluster.uid().as_ref() == Some(uid)))
}

/// An available pod that the selector means, or else its second choice.
async fn available_pod(ctx: &Context, backup: &Backup, selector: &PodSelector) -> Result<Option<Pod>, Error> {
    let namespace = backup.namespace().unwrap_or_default();
    for labels in [Some(selector.label_selector()), selector.fallback_label_selector.clone()].into_iter().flatten() {
        let found = read::pods(&ctx.client, &namespace, labels).await;
        let found = found.doing(|| "listing the pods of the target".to_owned())?;
        if let Some(pod) = found.into_iter().find(select::available) {
            return Ok(Some(pod));
        }
    }
    Ok(None)
}

/// Brings one Job of the deletion to its end. A failed one is removed after a while and made again.
async fn carry_out(ctx: &Context, backup: &Backup, job: &Job) -> Result<Step, Error> {
    let namespace = job.namespace().unwrap_or_default();
    let key = ObjectRef::new(&job.name_any()).within(&namespace);
    let Some(found) = ctx.stores.jobs.get(&key) else {
        return match super::create(ctx, backup, job).await {
            Ok(()) => Ok(Step::Wait(backup.status.as_ref().and_then(|status| status.deletion_failure_reason.clone()))),
            Err(Error::Refused(refusal)) => {
                // The namespace may have been deleted since we looked: then the next look runs the Job elsewhere.
                let going = backup.namespace().as_deref() == Some(&namespace)
                    && terminating::is_terminating(&ctx.client, &namespace).await?;
                Ok(Step::Again(refusal.to_string(), if going { AT_ONCE } else { SLOWLY }))
            }
            Err(error) => Err(error),
        };
    };
    if !observe::is_ours(found.as_ref(), backup) {
        return Ok(Step::Again(
            format!("a job {} exists that is not this backup's; delete it", found.name_any()),
            SLOWLY,
        ));
    }
    if found.metadata.deletion_timestamp.is_some() {
        return Ok(Step::Wait(backup.status.as_ref().and_then(|status| status.deletion_failure_reason.clone())));
    }
    let pods = ctx.stores.pods.group(&pool::workers_of_backup(&backup.name_any()));
    match Outcome::of(Some(&found), &pods.iter().map(AsRef::as_ref).collect::<Vec<&Pod>>()) {
        Outcome::Succeeded { .. } => Ok(Step::Done),
        Outcome::Running { obstacle } => Ok(Step::Wait(obstacle)),
        Outcome::Absent => Ok(Step::Wait(None)),
        Outcome::Failed { why, pod } => {
            let words = match &pod {
                Some(pod) => logs::last_words(&ctx.client, &namespace, &pod.name, &pod.container).await,
                None => None,
            };
            let told = words.map(|words| format!("{why}; {words}")).unwrap_or(why);
            let told = format!("job {} failed: {told}", found.name_any());
            let failed_at =
                found.status.as_ref().and_then(|status| status.conditions.as_ref()).and_then(|conditions| {
                    conditions
                        .iter()
                        .find(|condition| condition.type_ == "Failed")?
                        .last_transition_time
                        .as_ref()
                        .map(|time| time.0)
                });
            let asked_at = backup.metadata.deletion_timestamp.as_ref().map(|time| time.0);
            if let Some(wait) = left(asked_at, failed_at, ctx.now()) {
                return Ok(Step::Again(told, wait));
            }
            worker::apply::delete_job(&ctx.client, &found).await?;
            Ok(Step::Again(told, SLOWLY))
        }
    }
}

/// How long a failed attempt rests before the next: a quarter of the time that the deletion has taken, between half a
/// minute and half an hour. `None` when the rest is over.
fn left(asked: Option<Timestamp>, failed: Option<Timestamp>, now: Timestamp) -> Option<Duration> {
    let (asked, failed) = (asked?, failed?);
    let pause =
        (failed.duration_since(asked).unsigned_abs() / 4).clamp(Duration::from_secs(30), Duration::from_secs(1800));
    let rested = now.duration_since(failed);
    let rested = if rested.is_negative() { Duration::ZERO } else { rested.unsigned_abs() };
    pause.checked_sub(rested).filter(|left| !left.is_zero())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_failed_deletion_rests_longer_each_time() {
        let at = |seconds: i64| Some(Timestamp::from_second(seconds).unwrap());
        let now = |seconds: i64| Timestamp::from_second(seconds).unwrap();
        assert_eq!(left(at(0), at(10), now(10)), Some(Duration::from_secs(30)));
        assert_eq!(left(at(0), at(10), now(40)), None);
        assert_eq!(left(at(0), at(400), now(450)), Some(Duration::from_secs(50)));
        assert_eq!(left(at(0), at(1_000_000), now(1_000_000)), Some(Duration::from_secs(1800)));
        assert_eq!(left(None, at(1), now(1)), None);
    }

    #[test]
    fn a_backup_that_a_restore_reads_is_told() {
        let backup: Backup = serde_json::from_value(json!({ "metadata": {"name": "b", "namespace": "n"},
            "spec": {"backupPolicyName": "p", "backupMethod": "m"} }))
        .unwrap();
        let restore = |namespace: &str, status: Value| -> Restore {
            serde_json::from_value(json!({ "metadata": {"name": "r", "namespace": "x"},
                "spec": {"backup": {"name": "b", "namespace": namespace}}, "status": status }))
            .unwrap()
        };
        assert_eq!(reading(&backup, &[&restore("n", json!({ "phase": "Running" }))]), Some("x/r".into()));
        assert_eq!(reading(&backup, &[&restore("n", json!({}))]), Some("x/r".into()));
        assert_eq!(reading(&backup, &[&restore("n", json!({ "phase": "Failed" })), &restore("m", json!({}))]), None);
        // The base of a log and the links of a chain are read as well.
        let chained = |reads: &str, status: Value| -> Restore {
            serde_json::from_value(
                json!({ "metadata": {"name": "r", "namespace": "x", "annotations": {"kbbackup.io/reads": reads}},
                "spec": {"backup": {"name": "log", "namespace": "n"}}, "status": status }),
            )
            .unwrap()
        };
        assert_eq!(reading(&backup, &[&chained("a,b,log", json!({ "phase": "Running" }))]), Some("x/r".into()));
        assert_eq!(reading(&backup, &[&chained("a,bb,log", json!({ "phase": "Running" }))]), None);
        assert_eq!(reading(&backup, &[&chained("a,b,log", json!({ "phase": "Completed" }))]), None);
    }
}
