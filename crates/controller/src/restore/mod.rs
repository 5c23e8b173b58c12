//! Restore: claims filled, a copy of the workload started, actions run against it.
//!
//! A reconcile may be killed at any line and repeated: objects have fixed names, steps are computed from what exists.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kbbackup_api::conditions::{self, RestoreCondition, RestoreReason};
use kbbackup_api::events::EventReason;
use kbbackup_api::names::{FINALIZER, TRUE, annotations, labels};
use kbbackup_api::v1alpha1::{
    Backup, BackupRepo, Restore, RestorePhase, RestoreStatus, RestoreStatusAction, VolumeClaimRestorePolicy,
};
use kbbackup_core::names;
use kube::ResourceExt as _;
use kube::core::ObjectMeta;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::runtime::reflector::{ObjectRef, Store};

use self::decide::{Next, Task, Work};
use self::observe::Repo;
use self::sets::{Set, SourcePod};
use crate::backup::decide::stamp;
use crate::context::{Context, readable};
use crate::error::is_not_found;
use crate::status;
use crate::watch::Guarded;
use crate::worker::error::{Doing as _, Error, LONG, Refusal};
use crate::worker::{RepoAccess, account, apply as jobs};

pub mod apply;
pub mod build;
pub mod decide;
pub mod observe;
pub mod sets;
#[cfg(test)]
mod tests;
pub mod workload;

/// Somebody wrote first, or the store is behind our own writing.
const AT_ONCE: Duration = Duration::from_millis(100);
/// A waiting restore looks again by itself, for not everything that it waits for is watched.
const SOON: Duration = Duration::from_secs(3);
/// Watches wake a running restore; this is the safety net.
const SLOWLY: Duration = Duration::from_secs(60);

/// Brings one restore a step further.
///
/// # Errors
/// What is to be retried with growing waits.
pub async fn reconcile(object: Arc<Guarded<Restore>>, ctx: Arc<Context>) -> Result<Action, Error> {
    let restore = readable(&object)?;
    let result = if restore.metadata.deletion_timestamp.is_some() {
        remove(&ctx, restore).await
    } else {
        match restore.status.as_ref().and_then(|status| status.phase) {
            None => Box::pin(begin(&ctx, restore.clone())).await,
            Some(RestorePhase::Running) => Box::pin(advance(&ctx, restore.clone())).await,
            Some(RestorePhase::Completed) => delete_jobs(&ctx, restore).await.map(|()| Action::await_change()),
            Some(RestorePhase::Failed | RestorePhase::AsDataSource) => Ok(Action::await_change()),
        }
    };
    match result {
        Err(error) if error.is_conflict() => Ok(Action::requeue(AT_ONCE)),
        other => other,
    }
}

/// What names this restore on the objects that it creates.
pub fn mark(restore: &Restore) -> String {
    format!("{}/{}/{}", restore.namespace().unwrap_or_default(), restore.name_any(), restore.uid().unwrap_or_default())
}

/// Everything that a restore rests on.
struct Ground {
    backup: Backup,
    sets: Vec<Set>,
    access: Option<RepoAccess>,
    copy: Option<workload::Copy>,
}

/// First handling: behaviour 6.2.
async fn begin(ctx: &Context, restore: Restore) -> Result<Action, Error> {
    let mut own = BTreeMap::new();
    if !restore.labels().contains_key(labels::MANAGED_BY) {
        own.insert(labels::MANAGED_BY, labels::MANAGED_BY_DATAPROTECTION.to_owned());
    }
    let restore = apply::metadata(&ctx.client, restore, &own, &BTreeMap::new(), true).await?;
    let mut status = restore.status.clone().unwrap_or_default();
    let generation = restore.metadata.generation;
    let now = ctx.now();

    let found = async {
        let backup = observe::source(ctx, &restore).await?;
        let repo = observe::repo(ctx, &restore, &backup).await?;
        Ok::<_, Error>((backup, repo))
    };
    let (backup, repo) = match found.await {
        Err(Error::Refused(refusal)) => {
            let reason = match refusal {
                Refusal::Fatal(_) => RestoreReason::CheckBackupRepoFailed,
                Refusal::NotYet { .. } => RestoreReason::UnknownError,
            };
            decide::condition(
                &mut status,
                generation,
                RestoreCondition::CheckBackupRepo,
                false,
                reason,
                refusal.to_string(),
                now,
            );
            return refuse(ctx, restore, status, &refusal).await;
        }
        other => other?,
    };
    let access = match repo {
        Repo::Unprepared(name) => {
            let own = BTreeMap::from([
                (labels::BACKUP_REPO_NAME, name.clone()),
                (labels::WAIT_REPO_PREPARATION, TRUE.to_owned()),
            ]);
            let restore = apply::metadata(&ctx.client, restore, &own, &BTreeMap::new(), true).await?;
            let why = format!(
                "waiting for the access to BackupRepo {name} in namespace {}",
                restore.namespace().unwrap_or_default()
            );
            let reason = RestoreReason::WaitForBackupRepo;
            decide::condition(
                &mut status,
                generation,
                RestoreCondition::CheckBackupRepo,
                false,
                reason,
                why.clone(),
                now,
            );
            return refuse(ctx, restore, status, &Refusal::not_yet(LONG, why)).await;
        }
        Repo::None => None,
        Repo::Ready(access) => Some(access),
    };
    let reason = RestoreReason::CheckBackupRepoSuccessfully;
    decide::condition(&mut status, generation, RestoreCondition::CheckBackupRepo, true, reason, "", now);
    if restore.spec.prepare_data_config.as_ref().is_some_and(|config| config.data_source_ref.is_some()) {
        status.phase = Some(RestorePhase::AsDataSource);
        apply::publish(&ctx.client, restore, &status).await?;
        return Ok(Action::await_change());
    }
    match validate(ctx, &restore, backup, access).await {
        Err(Error::Refused(refusal)) => {
            let message = refusal.to_string();
            decide::condition(
                &mut status,
                generation,
                RestoreCondition::ValidationPassed,
                false,
                RestoreReason::ValidateFailed,
                message,
                now,
            );
            return refuse(ctx, restore, status, &refusal).await;
        }
        other => drop(other?),
    }
    decide::condition(
        &mut status,
        generation,
        RestoreCondition::ValidationPassed,
        true,
        RestoreReason::ValidateSuccessfully,
        "",
        now,
    );
    status.phase = Some(RestorePhase::Running);
    status.start_timestamp = Some(stamp(now));
    let notes = BTreeMap::from([(annotations::WAITING_FOR, None)]);
    let restore = apply::metadata(&ctx.client, restore, &BTreeMap::new(), &notes, true).await?;
    let restore = apply::publish(&ctx.client, restore, &status).await?;
    let note = format!("restoring backup {}/{}", restore.spec.backup.namespace, restore.spec.backup.name);
    ctx.event(&restore, EventType::Normal, EventReason::RestoreStarting.as_str(), note).await;
    Box::pin(advance(ctx, restore)).await
}

/// Whether the restore can be done at all, and from what.
async fn validate(
    ctx: &Context,
    restore: &Restore,
    backup: Backup,
    access: Option<RepoAccess>,
) -> Result<Ground, Error> {
    let sets = observe::sets(ctx, restore, &backup).await?;
    let copy = match restore.annotations().get(annotations::RESTORE_WORKLOAD).filter(|name| !name.is_empty()) {
        None => None,
        Some(name) => {
            let recorded = observe::recorded_workload(&backup)?;
            if !recorded.omitted.is_empty() {
                tracing::warn!(restore = restore.name_any(), omitted = ?recorded.omitted, "ConfigMaps were too large to be recorded");
            }
            let namespace = restore.namespace().unwrap_or_default();
            let wish = workload::Wish {
                name,
                namespace: &namespace,
                replicas: wanted_replicas(restore, &backup)?,
                backup: &backup.name_any(),
                restored_by: &mark(restore),
            };
            let copy = workload::copy(&recorded, &wish);
            let same_name = recorded.stateful_set.name_any() == *name;
            observe::workload_is_possible(ctx, restore, &copy, &recorded.secrets, same_name).await?;
            Some(copy)
        }
    };
    let started = restore.status.as_ref().is_some_and(|status| status.phase.is_some());
    if !started {
        // All that only an edit could mend is found out now, before anything is touched.
        for (set, wanted) in sets.iter().enumerate() {
            for task in prepare_tasks(restore, set, wanted)? {
                let Work::Prepare { replica, .. } = task.work else { continue };
                for claim in build::claims(restore, replica) {
                    sets::mount_path(&wanted.backup, claim.wish)?;
                }
            }
            if access.is_none() && wanted.action_set.spec.restore.is_some() {
                return Err(Refusal::fatal(format!(
                    "backup {} names no repository to restore from",
                    wanted.backup.name_any()
                ))
                .into());
            }
        }
        let names: BTreeSet<String> = all_claims(restore);
        let existing = observe::existing_claims(ctx, &restore.namespace().unwrap_or_default(), &names).await?;
        observe::claims_are_free(ctx, restore, &existing).await?;
    }
    Ok(Ground { backup, sets, access, copy })
}

fn wanted_replicas(restore: &Restore, backup: &Backup) -> Result<i32, Refusal> {
    match restore.annotations().get(annotations::REPLICAS).filter(|text| !text.is_empty()) {
        None => Ok(i32::try_from(observe::recorded_pods(backup)).unwrap_or(1)),
        Some(text) => text.parse::<i32>().ok().filter(|replicas| *replicas >= 0).ok_or_else(|| {
            Refusal::fatal(format!("annotation {}={text:?} is not a number of replicas", annotations::REPLICAS))
        }),
    }
}

fn all_claims(restore: &Restore) -> BTreeSet<String> {
    (0..build::replicas(restore)).flat_map(|replica| build::claims(restore, replica)).map(|claim| claim.name).collect()
}

/// A running restore: the stages one after another, each skipped when there is nothing to do for it.
async fn advance(ctx: &Context, restore: Restore) -> Result<Action, Error> {
    let mut status = restore.status.clone().unwrap_or_default();
    let ground = async {
        let backup = observe::source(ctx, &restore).await?;
        let access = match observe::repo(ctx, &restore, &backup).await? {
            Repo::None => None,
            Repo::Ready(access) => Some(access),
            Repo::Unprepared(name) => {
                return Err(Refusal::not_yet(
                    LONG,
                    format!("the access to BackupRepo {name} is gone from the namespace"),
                )
                .into());
            }
        };
        validate(ctx, &restore, backup, access).await
    };
    let result = match Box::pin(ground).await {
        Ok(ground) => stages(ctx, &restore, &ground, &mut status).await,
        Err(error) => Err(error),
    };
    match result {
        Ok(Stage::Waiting(obstacle)) => {
            let notes = BTreeMap::from([(annotations::WAITING_FOR, obstacle)]);
            let restore = note(ctx, restore, notes).await?;
            apply::publish(&ctx.client, restore, &status).await?;
            Ok(Action::requeue(SLOWLY))
        }
        Ok(Stage::Failed(why)) => fail(ctx, restore, status, &why).await,
        Ok(Stage::Done) => {
            let mut notes = BTreeMap::from([(annotations::WAITING_FOR, None)]);
            notes.extend(reported(&status).map(|text| (annotations::RESTORED, Some(text))));
            let restore = apply::metadata(&ctx.client, restore, &BTreeMap::new(), &notes, false).await?;
            let ended = decide::ended(&restore, status, RestorePhase::Completed, ctx.now());
            let restore = apply::publish(&ctx.client, restore, &ended).await?;
            let note = format!(
                "restored backup {} in {}",
                restore.spec.backup.name,
                ended.duration.as_deref().unwrap_or_default()
            );
            ctx.event(&restore, EventType::Normal, EventReason::RestoreCompleted.as_str(), note).await;
            ctx.metrics.finished("Restore", RestorePhase::Completed.as_str(), "");
            Ok(Action::requeue(AT_ONCE))
        }
        Err(Error::Refused(refusal)) => {
            let changed = status.conditions.iter().map(|condition| condition.last_transition_time.0).max();
            let last = changed.or(status.start_timestamp.as_ref().map(|time| time.0)).unwrap_or_else(|| ctx.now());
            let waited = Duration::try_from(ctx.now().duration_since(last)).unwrap_or_default();
            wait_or_fail(ctx, restore, status, &refusal, waited).await
        }
        Err(error) => Err(error),
    }
}

/// Where a running restore stands.
enum Stage {
    Waiting(Option<String>),
    Failed(String),
    Done,
}

async fn stages(ctx: &Context, restore: &Restore, ground: &Ground, status: &mut RestoreStatus) -> Result<Stage, Error> {
    let generation = restore.metadata.generation;
    let has_prepare =
        |set: &Set| set.action_set.spec.restore.as_ref().is_some_and(|restore| restore.prepare_data.is_some());
    if build::has_claims(restore) && !is_true(status, RestoreCondition::PrepareData) {
        let steps = ground.sets.iter().enumerate().filter(|(_, set)| has_prepare(set));
        for (index, set) in steps {
            let tasks = prepare_tasks(restore, index, set)?;
            match run_step(ctx, restore, ground, status, &tasks, true).await? {
                Stage::Done => {}
                stage => return Ok(concluded(stage, status, generation, RestoreCondition::PrepareData, ctx)),
            }
        }
        concluded(Stage::Done, status, generation, RestoreCondition::PrepareData, ctx);
    }
    if let Some(copy) = &ground.copy
        && !is_true(status, RestoreCondition::WorkloadReady)
    {
        apply::workload(ctx, restore, copy).await?;
        let stage = workload_ready(ctx, restore, copy).await?;
        let done = matches!(stage, Stage::Done);
        let stage = concluded(stage, status, generation, RestoreCondition::WorkloadReady, ctx);
        if !done {
            return Ok(stage);
        }
    }
    if restore.spec.ready_config.is_some() && !is_true(status, RestoreCondition::PostReady) {
        let mut any = false;
        for (index, set) in ground.sets.iter().enumerate() {
            let entries =
                set.action_set.spec.restore.as_ref().map(|restore| restore.post_ready.len()).unwrap_or_default();
            for entry in 0..entries {
                any = true;
                let tasks = match post_ready_tasks(ctx, restore, index, set, entry, status).await {
                    Ok(tasks) => tasks,
                    Err(error) => {
                        concluded(Stage::Waiting(None), status, generation, RestoreCondition::PostReady, ctx);
                        return Err(error);
                    }
                };
                match run_step(ctx, restore, ground, status, &tasks, false).await? {
                    Stage::Done => {}
                    stage => return Ok(concluded(stage, status, generation, RestoreCondition::PostReady, ctx)),
                }
            }
        }
        if any {
            concluded(Stage::Done, status, generation, RestoreCondition::PostReady, ctx);
        }
    }
    Ok(Stage::Done)
}

fn is_true(status: &RestoreStatus, condition: RestoreCondition) -> bool {
    conditions::is_true(&status.conditions, condition.as_str())
}

/// Records in the stage's condition how it stands.
fn concluded(
    stage: Stage,
    status: &mut RestoreStatus,
    generation: Option<i64>,
    condition: RestoreCondition,
    ctx: &Context,
) -> Stage {
    let (holds, reason, message) = match &stage {
        Stage::Waiting(obstacle) => (false, RestoreReason::Processing, obstacle.clone().unwrap_or_default()),
        Stage::Failed(why) => (false, RestoreReason::Failed, why.clone()),
        Stage::Done => (true, RestoreReason::Succeed, String::new()),
    };
    decide::condition(status, generation, condition, holds, reason, message, ctx.now());
    stage
}

/// The Jobs that fill the claims from one set.
fn prepare_tasks(restore: &Restore, set: usize, of: &Set) -> Result<Vec<Task>, Refusal> {
    if of.action_set.spec.restore.as_ref().is_none_or(|restore| restore.prepare_data.is_none())
        || !build::has_claims(restore)
    {
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
            job: names::prepare_data_job(&backup, &uid, replica),
            work: Work::Prepare { set, replica, source },
        });
    }
    Ok(tasks)
}

/// The Jobs of a `postReady` entry: those recorded when it began, else one per pod.
async fn post_ready_tasks(
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
        job: names::post_ready_job(&backup, &uid, entry, pod),
        work: Work::PostReady { set, entry, pod },
    };
    let recorded = status.actions.as_ref().map(|actions| actions.post_ready.as_slice()).unwrap_or_default();
    let begun = recorded.iter().filter(|action| action.name == name && action.backup_name == backup).count();
    if begun > 0 {
        return Ok((0..begun).map(task).collect());
    }
    let pods = observe::ready_pods(ctx, restore, is_exec(of, entry)).await?;
    Ok((0..pods.len()).map(task).collect())
}

fn is_exec(set: &Set, entry: usize) -> bool {
    let entries = set.action_set.spec.restore.as_ref().map(|restore| restore.post_ready.as_slice()).unwrap_or_default();
    entries.get(entry).is_some_and(|action| action.exec.is_some())
}

/// Brings the Jobs of one step further.
async fn run_step(
    ctx: &Context,
    restore: &Restore,
    ground: &Ground,
    status: &mut RestoreStatus,
    tasks: &[Task],
    prepare: bool,
) -> Result<Stage, Error> {
    let config = restore.spec.prepare_data_config.as_ref();
    let serial =
        prepare && config.is_some_and(|config| config.volume_claim_restore_policy == VolumeClaimRestorePolicy::Serial);
    let all = status.actions.get_or_insert_default();
    let actions = if prepare { &mut all.prepare_data } else { &mut all.post_ready };
    let seen = observe::tasks(ctx, restore, actions, tasks).await?;
    match decide::step(actions, tasks, &seen, serial, ctx.now()) {
        Next::Done => Ok(Stage::Done),
        Next::Fail(why) => Ok(Stage::Failed(why)),
        Next::Work { start, release, obstacle } => {
            for index in release {
                if let Some(job) = observe::stored_job(ctx, restore, &tasks[index].job) {
                    jobs::delete_job(&ctx.client, &job).await?;
                }
            }
            if !start.is_empty() {
                let starting: Vec<&Task> = start.iter().map(|index| &tasks[*index]).collect();
                start_jobs(ctx, restore, ground, &starting).await?;
            }
            Ok(Stage::Waiting(obstacle))
        }
    }
}

async fn start_jobs(ctx: &Context, restore: &Restore, ground: &Ground, tasks: &[&Task]) -> Result<(), Error> {
    let namespace = restore.namespace().unwrap_or_default();
    account::ensure(&ctx.client, &namespace, &ctx.settings)
        .await
        .doing(|| format!("ensuring the workers' account in {namespace}"))?;
    let mut pods: Option<Vec<Pod>> = None;
    for task in tasks {
        let (Work::Prepare { set, .. } | Work::PostReady { set, .. }) = task.work;
        let set = &ground.sets[set];
        let recipe = set.action_set.spec.restore.as_ref();
        let site = || {
            let access = ground.access.as_ref();
            let access = access
                .ok_or_else(|| Refusal::fatal(format!("backup {} names no repository", ground.backup.name_any())))?;
            Ok::<_, Refusal>(build::Site { restore, set, access, settings: &ctx.settings })
        };
        let job = match &task.work {
            Work::Prepare { replica, source, .. } => {
                apply::claims(ctx, restore, *replica).await?;
                let action = recipe.and_then(|recipe| recipe.prepare_data.as_ref());
                let action = action.ok_or_else(|| Refusal::fatal("the recipe has no prepareData any more"))?;
                site()?.prepare(&task.job, action, *replica, source.as_deref())?
            }
            Work::PostReady { entry, pod, .. } => {
                let action = recipe.and_then(|recipe| recipe.post_ready.get(*entry));
                let action = action.ok_or_else(|| Refusal::fatal("the recipe has no such postReady entry any more"))?;
                if pods.is_none() {
                    pods = Some(observe::ready_pods(ctx, restore, action.exec.is_some()).await?);
                }
                let target = pods.as_ref().and_then(|pods| pods.get(*pod));
                let target = target.ok_or_else(|| Refusal::not_yet(LONG, "a pod that an action works for is gone"))?;
                match (&action.exec, &action.job) {
                    (Some(exec), None) => build::post_ready_exec(restore, &task.job, exec, target, &ctx.settings),
                    (None, Some(job)) => {
                        let config = restore.spec.ready_config.as_ref().and_then(|config| config.job_action.as_ref());
                        let policy = config.and_then(|config| config.required_policy_for_all_pod_selection.as_ref());
                        let from = sets::source_target(&set.backup, restore.spec.backup.source_target_name.as_deref())?;
                        let source = match sets::source_pod(from, policy, *pod)? {
                            SourcePod::Pod(name) => Some(name),
                            SourcePod::Any | SourcePod::None => None,
                        };
                        site()?.post_ready(&task.job, job, target, source.as_deref())?
                    }
                    _ => return Err(Refusal::fatal("each postReady entry needs exactly one of exec and job").into()),
                }
            }
        };
        apply::job(ctx, restore, &job).await?;
    }
    Ok(())
}

/// Whether every replica of the restored workload is ready.
async fn workload_ready(ctx: &Context, restore: &Restore, copy: &workload::Copy) -> Result<Stage, Error> {
    let name = copy.stateful_set.name_any();
    let (found, obstacle) = observe::stateful_set(ctx, restore, &name).await?;
    let wanted = copy.stateful_set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let ready =
        found.as_ref().and_then(|set| set.status.as_ref()).and_then(|status| status.ready_replicas).unwrap_or(0);
    if found.is_some() && ready >= wanted {
        return Ok(Stage::Done);
    }
    let begun = conditions::find(
        restore.status.as_ref().map_or(&[], |status| &status.conditions),
        RestoreCondition::WorkloadReady.as_str(),
    );
    let waited = begun.map_or(Duration::ZERO, |condition| {
        Duration::try_from(ctx.now().duration_since(condition.last_transition_time.0)).unwrap_or_default()
    });
    let told = obstacle.map(|obstacle| format!(": {obstacle}")).unwrap_or_default();
    let told = format!("{ready} of {wanted} pods of statefulset {name} are ready{told}");
    Ok(if waited > LONG { Stage::Failed(told) } else { Stage::Waiting(Some(told)) })
}

/// What the scripts reported: that of the first replica that did.
fn reported(status: &RestoreStatus) -> Option<String> {
    let actions: &[RestoreStatusAction] =
        status.actions.as_ref().map(|actions| actions.prepare_data.as_slice()).unwrap_or_default();
    actions.iter().rev().find_map(|action| action.message.clone().filter(|message| message.starts_with('{')))
}

async fn note(ctx: &Context, restore: Restore, notes: BTreeMap<&str, Option<String>>) -> Result<Restore, Error> {
    let told = notes.get(annotations::WAITING_FOR).cloned().flatten();
    let is_new = told.is_some() && restore.annotations().get(annotations::WAITING_FOR) != told.as_ref();
    let restore = apply::metadata(&ctx.client, restore, &BTreeMap::new(), &notes, false).await?;
    if let Some(told) = told.filter(|_| is_new) {
        ctx.event(&restore, EventType::Warning, EventReason::Warning.as_str(), told).await;
    }
    Ok(restore)
}

/// A new restore that cannot start: it waits, or its time is up.
async fn refuse(ctx: &Context, restore: Restore, status: RestoreStatus, refusal: &Refusal) -> Result<Action, Error> {
    let created = restore.creation_timestamp().map_or(ctx.now(), |time| time.0);
    let waited = Duration::try_from(ctx.now().duration_since(created)).unwrap_or_default();
    wait_or_fail(ctx, restore, status, refusal, waited).await
}

async fn wait_or_fail(
    ctx: &Context,
    restore: Restore,
    status: RestoreStatus,
    refusal: &Refusal,
    waited: Duration,
) -> Result<Action, Error> {
    if let Some(why) = refusal.due(waited) {
        return fail(ctx, restore, status, &why).await;
    }
    let notes = BTreeMap::from([(annotations::WAITING_FOR, Some(refusal.to_string()))]);
    let restore = note(ctx, restore, notes).await?;
    apply::publish(&ctx.client, restore, &status).await?;
    Ok(Action::requeue(SOON))
}

async fn fail(ctx: &Context, restore: Restore, status: RestoreStatus, why: &str) -> Result<Action, Error> {
    let notes = BTreeMap::from([(annotations::WAITING_FOR, None)]);
    let restore = apply::metadata(&ctx.client, restore, &BTreeMap::new(), &notes, false).await?;
    let ended = decide::ended(&restore, status, RestorePhase::Failed, ctx.now());
    let restore = apply::publish(&ctx.client, restore, &ended).await?;
    ctx.event(&restore, EventType::Warning, EventReason::RestoreFailed.as_str(), why.to_owned()).await;
    ctx.metrics.finished("Restore", RestorePhase::Failed.as_str(), "RestoreFailed");
    Ok(Action::await_change())
}

async fn delete_jobs(ctx: &Context, restore: &Restore) -> Result<(), Error> {
    let name = restore.name_any();
    let mut all = ctx.stores.jobs.state();
    all.retain(|job| job.labels().get(labels::RESTORE) == Some(&name) && observe::is_ours(job, restore));
    for job in all.iter().filter(|job| job.metadata.deletion_timestamp.is_none()) {
        jobs::delete_job(&ctx.client, job).await?;
    }
    Ok(())
}

/// Deletion: Jobs go; claims, data and workloads stay.
async fn remove(ctx: &Context, restore: &Restore) -> Result<Action, Error> {
    if restore.finalizers().iter().all(|name| name != FINALIZER) {
        return Ok(Action::await_change());
    }
    delete_jobs(ctx, restore).await?;
    match status::hold(&apply::api(&ctx.client, restore), restore, false).await {
        Err(error) if !is_not_found(&error) => Err(error).doing(|| "releasing the restore".to_owned()),
        _ => Ok(Action::await_change()),
    }
}

/// The restore that a Job, Pod or workload belongs to.
pub fn of_worker(meta: &ObjectMeta) -> Option<ObjectRef<Guarded<Restore>>> {
    let label = |key: &str| meta.labels.as_ref().and_then(|labels| labels.get(key)).cloned();
    if let Some(name) = label(labels::RESTORE) {
        let home = label(labels::RESTORE_NAMESPACE).or_else(|| meta.namespace.clone())?;
        return Some(ObjectRef::new(&name).within(&home));
    }
    let mark = meta.annotations.as_ref()?.get(annotations::RESTORED_BY)?;
    let mut parts = mark.split('/');
    let (namespace, name) = (parts.next()?, parts.next()?);
    Some(ObjectRef::new(name).within(namespace))
}

/// The restores that wait for a repository to change: those that have not started.
pub fn waiting_for_repo(
    store: &Store<Guarded<Restore>>,
    _repo: &Guarded<BackupRepo>,
) -> Vec<ObjectRef<Guarded<Restore>>> {
    let all = store.state();
    let waiting = all
        .iter()
        .filter_map(|guarded| guarded.0.as_ref().ok())
        .filter(|restore| restore.status.as_ref().is_none_or(|status| status.phase.is_none()));
    waiting
        .map(|restore| ObjectRef::new(&restore.name_any()).within(&restore.namespace().unwrap_or_default()))
        .collect()
}

/// The backup whose deletion may go on now that a restore has changed.
pub fn backup_of(restore: &Guarded<Restore>) -> Option<ObjectRef<Guarded<Backup>>> {
    let of = &restore.0.as_ref().ok()?.spec.backup;
    Some(ObjectRef::new(&of.name).within(&of.namespace))
}
