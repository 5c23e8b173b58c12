//! BackupSchedule: CronJobs for what runs at times, Backups for what runs all the time.
//!
//! A CronJob makes a suspended Job when a backup is due. This controller makes the Backup of that Job, then lets the Job run
//! its empty course. So the pods of schedules need no token, a run that falls into an operator's absence waits for its
//! return, and a Backup is made once, however often any of it is killed.

mod apply;
pub mod build;
pub mod decide;
#[cfg(test)]
mod driver_tests;
mod observe;
mod reconfigure;
#[cfg(test)]
mod reconfigure_tests;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::CronJob;
use kbbackup_api::events::EventReason;
use kbbackup_api::names::{annotations, labels};
use kbbackup_api::v1alpha1::{ActionSet, Backup, BackupPhase, BackupPolicy, BackupSchedule};
use kube::core::ObjectMeta;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt as _};

use self::decide::{Plan, Run};
use self::reconfigure::Step;
use crate::context::{Context, readable};
use crate::error::is_not_found;
use crate::status;
use crate::watch::Guarded;
use crate::worker::error::{Doing as _, Error};

/// Somebody wrote first.
const AT_ONCE: Duration = Duration::from_millis(100);
/// A run that could not be made is tried again.
const AGAIN: Duration = Duration::from_secs(30);

/// Brings what exists in line with the schedule.
///
/// # Errors
/// What is to be retried with growing waits.
pub async fn reconcile(object: Arc<Guarded<BackupSchedule>>, ctx: Arc<Context>) -> Result<Action, Error> {
    let schedule = readable(&object)?;
    let result = if schedule.metadata.deletion_timestamp.is_some() {
        remove(&ctx, schedule).await
    } else {
        Box::pin(follow(&ctx, schedule)).await
    };
    match result {
        Err(error) if error.is_conflict() => Ok(Action::requeue(AT_ONCE)),
        other => other,
    }
}

async fn follow(ctx: &Context, schedule: &BackupSchedule) -> Result<Action, Error> {
    let api = apply::api(&ctx.client, schedule);
    let held = status::hold(&api, schedule, true).await.doing(|| "holding the schedule".to_owned())?;
    let schedule = held.as_ref().unwrap_or(schedule);
    let seen = observe::observe(ctx, schedule).await?;
    let Plan { labels: own, mut entries, cron_jobs, remove, continuous, runs } =
        decide::decide(schedule, &seen, &ctx.settings, ctx.now());
    let schedule = apply::metadata(&ctx.client, schedule.clone(), &own, &BTreeMap::new()).await?;
    if !cron_jobs.is_empty() {
        let namespace = schedule.namespace().unwrap_or_default();
        crate::worker::account::ensure(&ctx.client, &namespace, &ctx.settings)
            .await
            .doing(|| format!("ensuring the workers' account in {namespace}"))?;
    }
    for (entry, cron_job) in cron_jobs {
        if let Err(refused) = apply::cron_job(ctx, &schedule, &cron_job).await? {
            entries.fault(&entry, refused);
        }
    }
    for cron_job in &remove {
        apply::delete_cron_job(ctx, cron_job).await?;
    }
    let mut waiting = BTreeMap::new();
    let mut schedule = schedule;
    for (entry, wish) in continuous {
        let step = reconfigure::step(ctx, &mut schedule, seen.policy.as_ref(), &entry).await?;
        let goes_on = reconfigure::goes_on(&step, &wish);
        match step {
            Step::Nothing => {}
            Step::Untold(why) | Step::Waiting(why) => drop(waiting.insert(entry.clone(), why)),
            Step::Failed(why) => entries.fault(&entry, why),
        }
        if !goes_on {
            continue;
        }
        if let Err(refused) = apply::continuous(ctx, &schedule, wish).await? {
            entries.fault(&entry, refused);
        }
    }
    let mut again = false;
    for run in runs {
        again |= !carry_out(ctx, &schedule, run, &mut entries).await?;
    }
    let next = decide::next_runs(&schedule, &entries, ctx.now());
    let waiting = reconfigure::told(&waiting);
    let is_new = waiting.as_ref() != schedule.annotations().get(annotations::WAITING_FOR);
    if let Some(why) = waiting.clone().filter(|_| is_new) {
        ctx.event(&schedule, EventType::Warning, EventReason::ReconfigureFailed.as_str(), why).await;
    }
    let notes = BTreeMap::from([(annotations::NEXT_RUNS, next), (annotations::WAITING_FOR, waiting)]);
    let schedule = apply::metadata(&ctx.client, schedule, &BTreeMap::new(), &notes).await?;
    let new = entries.status(&schedule);
    let failed = new.failure_reason.clone();
    let is_new = schedule.status.as_ref().and_then(|status| status.failure_reason.as_ref()) != failed.as_ref();
    let written = status::publish(&api, &schedule, schedule.status.as_ref(), &new).await;
    written.doing(|| "writing the schedule's status".to_owned())?;
    if let Some(why) = failed.filter(|_| is_new) {
        ctx.event(&schedule, EventType::Warning, EventReason::HandleBackupScheduleFailed.as_str(), why).await;
    }
    Ok(if again { Action::requeue(AGAIN) } else { Action::await_change() })
}

/// Makes the Backup of a run, or says why there is none, and lets its Job go on. False when it is to be tried again.
async fn carry_out(
    ctx: &Context,
    schedule: &BackupSchedule,
    run: Run,
    entries: &mut decide::Entries,
) -> Result<bool, Error> {
    let (entry, job) = (run.entry.clone(), Arc::clone(&run.job));
    match run.backup {
        Ok(backup) => {
            if let Err(refused) = apply::backup(ctx, schedule, &backup, &job).await? {
                entries.fault(&entry, refused);
                return Ok(false);
            }
        }
        Err(skipped) => {
            let note = format!("entry {entry}: {skipped}");
            ctx.event(schedule, EventType::Warning, "BackupSkipped", note).await;
        }
    }
    apply::release(ctx, &job).await?;
    Ok(true)
}

/// Deletion: CronJobs go, backups stay.
async fn remove(ctx: &Context, schedule: &BackupSchedule) -> Result<Action, Error> {
    for cron_job in observe::cron_jobs(ctx, schedule) {
        apply::delete_cron_job(ctx, &cron_job).await?;
    }
    match status::hold(&apply::api(&ctx.client, schedule), schedule, false).await {
        Err(error) if !is_not_found(&error) => Err(error).doing(|| "releasing the schedule".to_owned()),
        _ => Ok(Action::await_change()),
    }
}

/// The schedule that a CronJob, or a Job of one, belongs to.
pub fn of_worker(meta: &ObjectMeta) -> Option<ObjectRef<Guarded<BackupSchedule>>> {
    let label = |key: &str| meta.labels.as_ref().and_then(|labels| labels.get(key));
    // A backup's own Jobs wear its labels: they are no concern of the schedule.
    if label(labels::BACKUP_NAME).is_some() {
        return None;
    }
    Some(ObjectRef::new(label(labels::BACKUP_SCHEDULE)?).within(meta.namespace.as_deref()?))
}

/// The schedule that made a backup, when the backup's state may change what the schedule says.
pub fn of_backup(backup: &Backup) -> Option<ObjectRef<Guarded<BackupSchedule>>> {
    let phase = backup.status.as_ref().and_then(|status| status.phase);
    let gone = backup.metadata.deletion_timestamp.is_some();
    if !gone && !matches!(phase, Some(BackupPhase::Completed)) {
        return None;
    }
    let name = backup.labels().get(labels::BACKUP_SCHEDULE)?;
    Some(ObjectRef::new(name).within(&backup.namespace()?))
}

/// The schedules of the policy.
pub fn using_policy(
    schedules: &[Arc<Guarded<BackupSchedule>>],
    policy: &Guarded<BackupPolicy>,
) -> Vec<ObjectRef<Guarded<BackupSchedule>>> {
    let (name, namespace) = (policy.name_any(), policy.namespace());
    those(schedules, |schedule| schedule.spec.backup_policy_name == name && schedule.namespace() == namespace)
}

/// The schedules that wait for something of KubeBlocks in a namespace.
pub fn waiting_in(
    schedules: &[Arc<Guarded<BackupSchedule>>],
    namespace: Option<&str>,
) -> Vec<ObjectRef<Guarded<BackupSchedule>>> {
    those(schedules, |schedule| {
        schedule.annotations().contains_key(annotations::WAITING_FOR) && schedule.namespace().as_deref() == namespace
    })
}

/// The schedules to look at when an ActionSet changes: those that found fault with something, for what they name is known
/// to their policies only.
pub fn using_action_set(
    schedules: &[Arc<Guarded<BackupSchedule>>],
    _set: &Guarded<ActionSet>,
) -> Vec<ObjectRef<Guarded<BackupSchedule>>> {
    those(schedules, |schedule| schedule.status.as_ref().is_some_and(|status| status.failure_reason.is_some()))
}

fn those(
    schedules: &[Arc<Guarded<BackupSchedule>>],
    wanted: impl Fn(&BackupSchedule) -> bool,
) -> Vec<ObjectRef<Guarded<BackupSchedule>>> {
    let readable = schedules.iter().filter(|schedule| schedule.0.as_ref().is_ok_and(&wanted));
    readable.map(|schedule| ObjectRef::from_obj(schedule.as_ref())).collect()
}

/// Whether a CronJob was made for this very schedule.
pub fn is_ours(cron_job: &CronJob, schedule: &BackupSchedule) -> bool {
    cron_job.owner_references().iter().any(|owner| Some(owner.uid.as_str()) == schedule.uid().as_deref())
}

/// The API of policies beside a schedule.
fn policies(ctx: &Context, schedule: &BackupSchedule) -> Api<BackupPolicy> {
    Api::namespaced(ctx.client.clone(), &schedule.namespace().unwrap_or_default())
}
