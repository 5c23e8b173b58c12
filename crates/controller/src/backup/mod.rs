//! Backup: from the wish to the sealed catalogue entry, and to its removal.
//!
//! A reconcile may be killed at any line and repeated: Jobs have fixed names, statuses are computed from what exists.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use kbbackup_api::events::EventReason;
use kbbackup_api::names::{annotations, labels};
use kbbackup_api::v1alpha1::{Backup, BackupPhase, BackupRepo, BackupStatus};
use kube::core::ObjectMeta;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Resource as _, ResourceExt as _};

use self::decide::Next;
use self::expire::Verdict;
use crate::catalogue::Entry;
use crate::cluster;
use crate::context::Context;
use crate::pool;
use crate::watch::Guarded;
use crate::worker;
use crate::worker::Outcome;
use crate::worker::error::{Doing as _, Error, LONG, Refusal};

pub mod alarm;
pub mod apply;
pub mod build;
pub mod continuous;
#[cfg(test)]
mod contract_tests;
pub mod decide;
pub mod delete;
#[cfg(test)]
mod driver_tests;
pub mod expire;
#[cfg(test)]
mod fine_print_tests;
pub mod link;
pub mod observe;
pub mod plan;
mod progress;
#[cfg(test)]
mod recipe_tests;
pub mod terminating;
#[cfg(test)]
mod tests;
pub mod volumes;
pub mod workload;

/// Somebody wrote first, or the store is behind our own writing.
const AT_ONCE: Duration = Duration::from_millis(100);
/// A waiting backup looks again by itself, for not everything that it waits for is watched.
const SOON: Duration = Duration::from_secs(3);
/// Watches wake a running backup; this is the safety net.
const SLOWLY: Duration = Duration::from_secs(60);

/// Brings one backup a step further.
///
/// # Errors
/// What is to be retried with growing waits.
pub async fn reconcile(object: Arc<Entry>, ctx: Arc<Context>) -> Result<Action, Error> {
    let backup = object.readable()?;
    let backup = backup.as_ref();
    if is_skipped(backup) {
        return Ok(Action::await_change());
    }
    let result = if backup.metadata.deletion_timestamp.is_some() {
        Box::pin(delete::reconcile(&ctx, backup)).await
    } else {
        match backup.status.as_ref().and_then(|status| status.phase) {
            None | Some(BackupPhase::New) => Box::pin(begin(&ctx, backup)).await,
            Some(BackupPhase::Running | BackupPhase::InProgress) => Box::pin(advance(&ctx, backup.clone())).await,
            Some(BackupPhase::Failed) if continuous::is_continuous(backup) => {
                if continuous::not_begun(backup) {
                    Box::pin(begin(&ctx, backup)).await
                } else {
                    Box::pin(continuous::advance(&ctx, backup.clone())).await
                }
            }
            Some(BackupPhase::Completed) => rest(&ctx, backup, true).await,
            Some(BackupPhase::Failed) => rest(&ctx, backup, false).await,
            Some(BackupPhase::Deleting) => Ok(Action::await_change()),
        }
    };
    match result {
        Err(error) if error.is_conflict() => Ok(Action::requeue(AT_ONCE)),
        other => other,
    }
}

fn is_skipped(backup: &Backup) -> bool {
    backup.annotations().get(annotations::SKIP_RECONCILIATION).is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

/// A new backup: check what it rests on, record it, and go on with the first Job at once.
async fn begin(ctx: &Context, backup: &Backup) -> Result<Action, Error> {
    if continuous::is_continuous(backup)
        && let Some(name) = cluster::creating(ctx, backup)
    {
        let why = format!("cluster {name} is being created; archiving begins when that is over");
        let notes = BTreeMap::from([(annotations::WAITING_FOR, Some(why.clone()))]);
        note(ctx, backup.clone(), &notes, Some(&why)).await?;
        return Ok(Action::requeue(SLOWLY));
    }
    let graph = match observe::graph(ctx, backup).await {
        Err(Error::Refused(refusal)) => return Box::pin(refuse(ctx, backup.clone(), refusal)).await,
        other => other?,
    };
    let begin = match decide::begin(backup, &graph, &ctx.settings, ctx.now()) {
        Err(refusal) => return Box::pin(refuse(ctx, backup.clone(), refusal)).await,
        Ok(begin) => begin,
    };
    let mut notes: BTreeMap<&str, Option<String>> =
        begin.annotations.iter().map(|(key, value)| (key.as_str(), Some(value.clone()))).collect();
    notes.insert(annotations::WAITING_FOR, None);
    let backup = if graph.prepared {
        apply::metadata(&ctx.client, backup.clone(), &begin.labels, &notes, true).await?
    } else {
        notes.remove(annotations::WAITING_FOR);
        let backup = apply::metadata(&ctx.client, backup.clone(), &begin.labels, &notes, true).await?;
        let namespace = backup.namespace().unwrap_or_default();
        let repo = graph.repo.as_ref().map(kube::ResourceExt::name_any).unwrap_or_default();
        let why = format!("waiting for the access to BackupRepo {repo} in namespace {namespace}");
        return Box::pin(refuse(ctx, backup, Refusal::not_yet(LONG, why))).await;
    };
    let backup = apply::publish(&ctx.client, backup, &begin.status).await?;
    Box::pin(advance(ctx, backup)).await
}

/// A running backup: see how its Jobs are, start the next ones, and conclude when none is left.
async fn advance(ctx: &Context, backup: Backup) -> Result<Action, Error> {
    if continuous::is_continuous(&backup) {
        return Box::pin(continuous::advance(ctx, backup)).await;
    }
    let Some(status) = backup.status.clone() else { return Ok(Action::requeue(AT_ONCE)) };
    if let Some(name) = cluster::restoring(ctx, &backup) {
        return postpone(ctx, backup, &name).await;
    }
    let seen = observe::children(ctx, &backup, &status.actions).await?;
    let step = decide::advance(&backup.namespace().unwrap_or_default(), &status, &seen, ctx.now());
    let mut notes = BTreeMap::new();
    let recorded = backup.annotations().get(annotations::ATTEMPTS).map(String::as_str);
    let attempts = decide::attempts(recorded, &step.attempts);
    if !attempts.is_empty() {
        notes.insert(annotations::ATTEMPTS, Some(attempts.clone()));
    }
    match step.next {
        Next::Work { start, redo, obstacle } => {
            notes.insert(annotations::WAITING_FOR, obstacle.clone());
            let told = progress::look(ctx, &backup, &step.status).await;
            notes.extend(told.map(|told| (annotations::PROGRESS, Some(told))));
            let backup = note(ctx, backup, &notes, obstacle.as_deref()).await?;
            if let Err(error) = start_jobs(ctx, &backup, &step.status, &start, &attempts).await {
                return match error {
                    Error::Refused(refusal) => stuck(ctx, backup, &step.status, refusal).await,
                    other => Err(other),
                };
            }
            for index in redo {
                if let Some(job) = job_of(ctx, &step.status, index) {
                    worker::apply::delete_job(&ctx.client, &job).await?;
                }
            }
            apply::publish(&ctx.client, backup, &step.status).await?;
            Ok(Action::requeue(progress::pause(&step.status).unwrap_or(SLOWLY)))
        }
        Next::Fail(why) => {
            notes.extend([(annotations::WAITING_FOR, None), (annotations::PROGRESS, None)]);
            let last = backup.annotations().get(annotations::WAITING_FOR).cloned();
            let backup = apply::metadata(&ctx.client, backup, &BTreeMap::new(), &notes, false).await?;
            let why = told_with_obstacle(why, last);
            fail(ctx, backup, &step.status, &why, "BackupJobFailed").await
        }
        Next::Complete { seal } => {
            notes.extend([(annotations::WAITING_FOR, None), (annotations::PROGRESS, None)]);
            let how = if seal.is_some() { "completed and sealed" } else { "completed" };
            notes.extend(seal.map(|seal| (annotations::SEAL, Some(seal))));
            let backup = apply::metadata(&ctx.client, backup, &BTreeMap::new(), &notes, false).await?;
            let done = decide::completed(&backup, &step.status, ctx.now());
            let backup = apply::publish(&ctx.client, backup, &done).await?;
            let size = done.total_size.as_deref().unwrap_or("unknown size");
            let took = done.duration.as_deref().unwrap_or_default();
            let note = format!("backup {} is {how} ({size}, {took})", backup.name_any());
            ctx.event(&backup, EventType::Normal, "CreatedBackup", note).await;
            ctx.metrics.finished("Backup", BackupPhase::Completed.as_str(), "");
            Ok(Action::requeue(AT_ONCE))
        }
    }
}

/// Behaviour 4.10, step 1: a database that is being restored is not backed up. The cluster's change wakes the backup.
async fn postpone(ctx: &Context, backup: Backup, cluster: &str) -> Result<Action, Error> {
    let why = format!("cluster {cluster} is being restored; the backup goes on when that is over");
    let is_new = backup.annotations().get(annotations::WAITING_FOR) != Some(&why);
    let notes = BTreeMap::from([(annotations::WAITING_FOR, Some(why.clone()))]);
    let backup = apply::metadata(&ctx.client, backup, &BTreeMap::new(), &notes, false).await?;
    if is_new {
        ctx.event(&backup, EventType::Warning, EventReason::RestoreInProgress.as_str(), why).await;
    }
    Ok(Action::requeue(SLOWLY))
}

/// A deadline removes the pod that would explain it; what was in the way until then explains it better.
fn told_with_obstacle(why: String, last: Option<String>) -> String {
    match last {
        Some(obstacle) if why.contains("DeadlineExceeded") => format!("{why}; until then: {obstacle}"),
        _ => why,
    }
}

async fn start_jobs(
    ctx: &Context,
    backup: &Backup,
    status: &BackupStatus,
    start: &[usize],
    attempts: &str,
) -> Result<(), Error> {
    let (snapshots, start): (Vec<usize>, Vec<usize>) =
        start.iter().partition(|index| plan::is_snapshot(&status.actions[**index]));
    for index in snapshots {
        volumes::apply::take(ctx, backup, status, &status.actions[index]).await?;
    }
    if start.is_empty() {
        return Ok(());
    }
    let mut pods: Vec<_> = start.iter().filter_map(|index| status.actions[*index].target_pod_name.clone()).collect();
    pods.sort();
    pods.dedup();
    let ingredients = observe::ingredients(ctx, backup, status, &pods).await?;
    // A store keeps long annotations empty; the seal needs the workload's manifest as it is.
    let seals = start.iter().any(|index| plan::is_seal(&status.actions[*index]));
    let hollow = seals && backup.annotations().get(annotations::WORKLOAD).is_some_and(String::is_empty);
    let whole = if hollow {
        let name = backup.name_any();
        Some(apply::api(&ctx.client, backup).get(&name).await.doing(|| format!("reading backup {name}"))?)
    } else {
        None
    };
    let backup = whole.as_ref().unwrap_or(backup);
    let site = build::Site { backup, status, ingredients: &ingredients, settings: &ctx.settings };
    for index in start {
        let job = site.job(status.actions[index].name.as_deref().unwrap_or_default(), attempts)?;
        create(ctx, backup, &job).await?;
    }
    Ok(())
}

pub(super) async fn create(ctx: &Context, backup: &Backup, job: &Job) -> Result<(), Error> {
    let is_ours = |found: &Job| observe::is_ours(found, backup);
    worker::apply::create(ctx, backup, job, apply::MANAGER, EventReason::CreatingJob.as_str(), is_ours).await
}

fn job_of(ctx: &Context, status: &BackupStatus, index: usize) -> Option<Arc<Job>> {
    let reference = status.actions[index].object_ref.as_ref()?;
    ctx.stores.jobs.get(&ObjectRef::new(reference.name.as_deref()?).within(reference.namespace.as_deref()?))
}

/// Writes notes, and tells a new obstacle as an event.
async fn note(
    ctx: &Context,
    backup: Backup,
    notes: &BTreeMap<&str, Option<String>>,
    obstacle: Option<&str>,
) -> Result<Backup, Error> {
    let is_new =
        obstacle.is_some() && backup.annotations().get(annotations::WAITING_FOR).map(String::as_str) != obstacle;
    let backup = apply::metadata(&ctx.client, backup, &BTreeMap::new(), notes, false).await?;
    if let Some(obstacle) = obstacle.filter(|_| is_new) {
        ctx.event(&backup, EventType::Warning, "ReconcileFailed", obstacle.to_owned()).await;
    }
    Ok(backup)
}

/// A new backup that cannot start: it waits, or its time is up.
async fn refuse(ctx: &Context, backup: Backup, refusal: Refusal) -> Result<Action, Error> {
    if continuous::is_continuous(&backup) && continuous::not_begun(&backup) {
        return continuous::postpone(ctx, backup, &refusal).await;
    }
    let created = backup.creation_timestamp().map_or(ctx.now(), |time| time.0);
    let waited = Duration::try_from(ctx.now().duration_since(created)).unwrap_or_default();
    let status = backup.status.clone().unwrap_or_default();
    Box::pin(wait_or_fail(ctx, backup, &status, &refusal, waited)).await
}

/// A running backup whose next Job cannot be made. The time counts from the last thing that went well.
async fn stuck(ctx: &Context, backup: Backup, status: &BackupStatus, refusal: Refusal) -> Result<Action, Error> {
    let ends = status.actions.iter().filter_map(|action| action.completion_timestamp.as_ref());
    let last = ends.chain(&status.start_timestamp).max().map_or(ctx.now(), |time| time.0);
    let waited = Duration::try_from(ctx.now().duration_since(last)).unwrap_or_default();
    Box::pin(wait_or_fail(ctx, backup, status, &refusal, waited)).await
}

async fn wait_or_fail(
    ctx: &Context,
    backup: Backup,
    status: &BackupStatus,
    refusal: &Refusal,
    waited: Duration,
) -> Result<Action, Error> {
    if let Some(why) = refusal.due(waited) {
        let notes = BTreeMap::from([(annotations::WAITING_FOR, None)]);
        let backup = apply::metadata(&ctx.client, backup, &BTreeMap::new(), &notes, false).await?;
        return fail(ctx, backup, status, &why, "Fatal").await;
    }
    let why = refusal.to_string();
    note(ctx, backup, &BTreeMap::from([(annotations::WAITING_FOR, Some(why.clone()))]), Some(&why)).await?;
    Ok(Action::requeue(SOON))
}

async fn fail(
    ctx: &Context,
    backup: Backup,
    status: &BackupStatus,
    why: &str,
    reason: &'static str,
) -> Result<Action, Error> {
    let failed = decide::failed(&backup, status, why, ctx.now());
    let backup = apply::publish(&ctx.client, backup, &failed).await?;
    ctx.event(&backup, EventType::Warning, reason, why.to_owned()).await;
    ctx.metrics.finished("Backup", BackupPhase::Failed.as_str(), reason);
    rest(ctx, &backup, false).await
}

/// A backup that is over: a completed one needs its Jobs no more, a failed one keeps those that have ended, for their logs.
/// Every backup goes when its time has come.
async fn rest(ctx: &Context, backup: &Backup, completed: bool) -> Result<Action, Error> {
    if completed {
        for set in continuous::observe::sets(ctx, backup) {
            worker::apply::delete(&ctx.client, set.as_ref()).await?;
        }
    }
    let pods = ctx.stores.pods.group(&pool::workers_of_backup(&backup.name_any()));
    // Whoever cancels a backup cannot see a Job that is just being created.
    let goes_on = |job: &Job| matches!(Outcome::of(Some(job), &pods), Outcome::Running { .. });
    for job in delete::jobs(ctx, backup) {
        if job.metadata.deletion_timestamp.is_none() && (completed || goes_on(&job)) {
            worker::apply::delete_job(&ctx.client, &job).await?;
        }
    }
    let namespace = backup.namespace();
    let expires = backup.status.as_ref().and_then(|status| status.expiration.as_ref());
    // Siblings matter only once the time has come; until then a look at one field is enough.
    let due = expires.is_some_and(|expires| expires.0 <= ctx.now());
    let policy = &backup.spec.backup_policy_name;
    let home = namespace.as_deref().unwrap_or_default();
    let siblings = if due { ctx.stores.backups.of_policy(home, policy) } else { Vec::new() };
    let siblings: Vec<&Backup> = siblings.iter().collect();
    let restores = if due { ctx.stores.restores.state() } else { Vec::new() };
    let restores: Vec<_> = restores.iter().filter_map(|guarded| guarded.0.as_ref().ok()).collect();
    let read = delete::reading(backup, &restores).is_some();
    let name = &backup.spec.backup_policy_name;
    let policy = if due {
        let api = Api::namespaced(ctx.client.clone(), namespace.as_deref().unwrap_or_default());
        worker::read::find(&ctx.stores.policies, &api, name, namespace.as_deref())
            .await
            .doing(|| format!("reading BackupPolicy {name}"))?
    } else {
        None
    };
    if !completed && continuous::is_continuous(backup) {
        return Ok(Action::requeue(SLOWLY));
    }
    match expire::judge(backup, policy.as_ref(), &siblings, read, ctx.now()) {
        // The alarm wakes it.
        Verdict::Until(_) => Ok(Action::await_change()),
        Verdict::Keep(reason) => {
            if due {
                tracing::debug!(reason, "expired, but kept");
            }
            Ok(Action::await_change())
        }
        Verdict::Remove => {
            tracing::info!("expired: removing");
            if let Err(error) = delete::delete(ctx, backup).await {
                ctx.event(backup, EventType::Warning, "RemoveExpiredBackupsFailed", crate::run::chain(&error)).await;
                return Err(error);
            }
            Ok(Action::await_change())
        }
    }
}

/// The backup that a Job or Pod works for: by labels, else by owner.
pub fn of_worker(meta: &ObjectMeta) -> Option<ObjectRef<Entry>> {
    let label = |key: &str| meta.labels.as_ref().and_then(|labels| labels.get(key)).cloned();
    let home = label(labels::BACKUP_NAMESPACE).or_else(|| meta.namespace.clone())?;
    let owner = || {
        let owner = meta.owner_references.iter().flatten().find(|owner| owner.kind == Backup::kind(&()))?;
        Some(owner.name.clone())
    };
    Some(ObjectRef::new(&label(labels::BACKUP_NAME).or_else(owner)?).within(&home))
}

/// The backups under way of a cluster that changed: they may have waited for it.
pub fn of_cluster(store: &Store<Entry>, cluster: &Guarded<kbbackup_api::apps::Cluster>) -> Vec<ObjectRef<Entry>> {
    let (name, namespace) = (cluster.name_any(), cluster.namespace());
    let concerned = |backup: &&Backup| {
        let phase = backup.status.as_ref().and_then(|status| status.phase);
        let has_failed = phase == Some(BackupPhase::Failed) && !continuous::is_continuous(backup);
        let over = has_failed || phase == Some(BackupPhase::Completed);
        !over && backup.namespace() == namespace && backup.labels().get(labels::INSTANCE) == Some(&name)
    };
    let all = store.state();
    let concerned = all.iter().filter_map(|entry| entry.under_way()).filter(concerned);
    concerned.map(|backup| ObjectRef::new(&backup.name_any()).within(&backup.namespace().unwrap_or_default())).collect()
}

/// The backups that wait for a repository to change: those that have not started, and those being deleted.
pub fn waiting_for_repo(store: &Store<Entry>, _repo: &Guarded<BackupRepo>) -> Vec<ObjectRef<Entry>> {
    let waits = |backup: &Backup| {
        let phase = backup.status.as_ref().and_then(|status| status.phase);
        backup.metadata.deletion_timestamp.is_some() || matches!(phase, None | Some(BackupPhase::New))
    };
    let all = store.state();
    let waiting = all.iter().filter_map(|entry| entry.under_way()).filter(|backup| waits(backup));
    waiting.map(|backup| ObjectRef::new(&backup.name_any()).within(&backup.namespace().unwrap_or_default())).collect()
}
