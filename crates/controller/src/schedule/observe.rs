//! Everything the BackupSchedule controller reads, from the stores where they have it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use kbbackup_api::names::labels;
use kbbackup_api::v1alpha1::{ActionSet, Backup, BackupPolicy, BackupSchedule};
use kube::{Api, ResourceExt as _};

use super::{decide, is_ours, policies};
use crate::backup::link;
use crate::context::Context;
use crate::pool;
use crate::worker::error::{Doing as _, Error};
use crate::worker::read;

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The policy, if it exists.
    pub policy: Option<BackupPolicy>,
    /// ActionSets that its methods name, as far as they exist.
    pub action_sets: BTreeMap<String, ActionSet>,
    /// CronJobs of this very schedule.
    pub cron_jobs: Vec<Arc<CronJob>>,
    /// Jobs of those CronJobs that wait for their Backup.
    pub due: Vec<Arc<Job>>,
    /// Names of the policy's methods of which there is a completed full backup.
    pub full: BTreeSet<String>,
    /// When the newest backup of an entry was completed.
    pub succeeded: BTreeMap<String, Timestamp>,
}

pub(super) async fn observe(ctx: &Context, schedule: &BackupSchedule) -> Result<Seen, Error> {
    let namespace = schedule.namespace().unwrap_or_default();
    let name = &schedule.spec.backup_policy_name;
    let policy = read::find(&ctx.stores.policies, &policies(ctx, schedule), name, Some(&namespace))
        .await
        .doing(|| format!("reading BackupPolicy {name}"))?;
    let mut seen = Seen { cron_jobs: cron_jobs(ctx, schedule), ..Seen::default() };
    let methods = policy.as_ref().map(|policy| policy.spec.backup_methods.as_slice()).unwrap_or_default();
    for set in methods.iter().filter_map(|method| method.action_set_name.as_deref()).filter(|name| !name.is_empty()) {
        let api = Api::<ActionSet>::all(ctx.client.clone());
        let found =
            read::find(&ctx.stores.action_sets, &api, set, None).await.doing(|| format!("reading ActionSet {set}"))?;
        seen.action_sets.extend(found.map(|found| (set.to_owned(), found)));
    }
    let runs = seen.cron_jobs.iter().filter_map(|cron_job| cron_job.uid());
    seen.due = runs.flat_map(|uid| ctx.stores.jobs.group(&pool::runs_of(&uid))).collect();
    seen.due.retain(|job| {
        job.metadata.deletion_timestamp.is_none() && job.spec.as_ref().and_then(|spec| spec.suspend) == Some(true)
    });
    for backup in ctx.stores.backups.of_policy(&namespace, name) {
        if backup.metadata.deletion_timestamp.is_none() && link::is_completed(&backup) {
            note(&mut seen, schedule, &backup);
        }
    }
    seen.policy = policy;
    Ok(seen)
}

fn note(seen: &mut Seen, schedule: &BackupSchedule, backup: &Backup) {
    if backup.labels().get(labels::BACKUP_TYPE).is_some_and(|kind| kind == "Full") {
        seen.full.insert(backup.spec.backup_method.clone());
    }
    if backup.labels().get(labels::BACKUP_SCHEDULE) != Some(&schedule.name_any()) {
        return;
    }
    let ended = backup.status.as_ref().and_then(|status| status.completion_timestamp.as_ref());
    if let (Some(entry), Some(ended)) = (decide::entry_of(schedule, backup), ended) {
        let newest = seen.succeeded.entry(entry).or_insert(ended.0);
        *newest = (*newest).max(ended.0);
    }
}

/// The CronJobs of this very schedule.
pub(super) fn cron_jobs(ctx: &Context, schedule: &BackupSchedule) -> Vec<Arc<CronJob>> {
    let mut all = ctx.stores.cron_jobs.state();
    all.retain(|cron_job| cron_job.namespace() == schedule.namespace() && is_ours(cron_job, schedule));
    all
}
