//! The stages of a running restore, one after another: claims filled, the workload started, actions run against it.

use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kbbackup_api::conditions::{self, RestoreCondition, RestoreReason};
use kbbackup_api::names::annotations;
use kbbackup_api::v1alpha1::{Restore, RestoreStatus, VolumeClaimRestorePolicy};
use kube::ResourceExt as _;

use super::decide::{self, Next, Task, Work};
use super::ground::Ground;
use super::sets::SourcePod;
use super::{apply, build, in_place, observe, tasks, volumes};
use crate::context::Context;
use crate::worker::error::{Doing as _, Error, LONG, Refusal};
use crate::worker::{account, apply as jobs};

/// Where a running restore stands.
pub(super) enum Stage {
    Waiting(Option<String>),
    Failed(String),
    Done,
}

pub(super) async fn run(
    ctx: &Context,
    restore: &Restore,
    ground: &Ground,
    status: &mut RestoreStatus,
) -> Result<Stage, Error> {
    let generation = restore.metadata.generation;
    if build::has_claims(restore) && !is_true(status, RestoreCondition::PrepareData) {
        for (index, set) in ground.sets.iter().enumerate() {
            if set.uses_snapshots {
                volumes::create(ctx, restore, set).await?;
            }
            if !tasks::fills(restore, set) {
                continue;
            }
            let tasks = tasks::prepare(restore, index, set)?;
            match run_step(ctx, restore, ground, status, &tasks, true).await? {
                Stage::Done => {}
                stage => return Ok(concluded(stage, status, generation, RestoreCondition::PrepareData, ctx)),
            }
        }
        concluded(Stage::Done, status, generation, RestoreCondition::PrepareData, ctx);
        if in_place::target(restore).is_some() {
            // That they are filled is on record before anything is exchanged.
            return Ok(Stage::Waiting(None));
        }
    }
    if let Some(copy) = &ground.copy
        && !is_true(status, RestoreCondition::WorkloadReady)
    {
        apply::workload(ctx, restore, copy).await?;
        let set = &copy.stateful_set;
        let wanted = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let stage = workload_ready(ctx, restore, &set.name_any(), wanted).await?;
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
                let tasks = match tasks::post_ready(ctx, restore, index, set, entry, status).await {
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

/// The stage that is not over.
pub(super) fn current(restore: &Restore, status: &RestoreStatus) -> RestoreCondition {
    let copies = restore.annotations().get(annotations::RESTORE_WORKLOAD).is_some_and(|name| !name.is_empty());
    match () {
        () if build::has_claims(restore) && !is_true(status, RestoreCondition::PrepareData) => {
            RestoreCondition::PrepareData
        }
        () if in_place::target(restore).is_some() && !is_true(status, RestoreCondition::WorkloadReady) => {
            RestoreCondition::VolumesExchanged
        }
        () if copies && !is_true(status, RestoreCondition::WorkloadReady) => RestoreCondition::WorkloadReady,
        () => RestoreCondition::PostReady,
    }
}

fn is_true(status: &RestoreStatus, condition: RestoreCondition) -> bool {
    conditions::is_true(&status.conditions, condition.as_str())
}

/// Records in the stage's condition how it stands.
pub(super) fn concluded(
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
        let (set, access) = (&ground.sets[set], ground.access[set].as_ref());
        let recipe = set.action_set.spec.restore.as_ref();
        let site = || {
            let access = access
                .ok_or_else(|| Refusal::fatal(format!("backup {} names no repository", set.backup.name_any())))?;
            Ok::<_, Refusal>(build::Site { restore, set, access, settings: &ctx.settings })
        };
        let job = match &task.work {
            Work::Prepare { replica, source, .. } => {
                let place = match in_place::target(restore) {
                    Some(name) => in_place::place(ctx, restore, name, *replica).await?,
                    None => None,
                };
                apply::claims(ctx, restore, *replica).await?;
                let mut job = match set.prepare_data() {
                    Some(action) => site()?.prepare(&task.job, action, *replica, source.as_deref())?,
                    None if set.uses_snapshots => build::bind(restore, &task.job, *replica, &ctx.settings),
                    None => return Err(Refusal::fatal("the recipe has no prepareData any more").into()),
                };
                if let Some(place) = place {
                    place.send(&mut job);
                }
                job
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
                        let source = match tasks::post_ready_source(restore, set, *pod)? {
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
pub(super) async fn workload_ready(ctx: &Context, restore: &Restore, name: &str, wanted: i32) -> Result<Stage, Error> {
    let (found, obstacle) = observe::stateful_set(ctx, restore, name).await?;
    // What is said of a state before ours counts for nothing.
    let seen = |set: &&StatefulSet| {
        let seen = set.status.as_ref().and_then(|status| status.observed_generation);
        seen.is_none_or(|seen| set.metadata.generation.is_none_or(|generation| seen >= generation))
    };
    let status = found.as_ref().filter(seen).and_then(|set| set.status.as_ref());
    let ready = status.and_then(|status| status.ready_replicas).unwrap_or(0);
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
