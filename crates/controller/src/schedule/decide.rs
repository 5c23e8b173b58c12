//! What a schedule wants, and what is wrong with it: pure. An entry that is wrong does not stop the others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kbbackup_api::names::{annotations, labels};
use kbbackup_api::v1alpha1::{
    ActionSet, Backup, BackupMethod, BackupPolicy, BackupSchedule, BackupSchedulePhase, BackupScheduleStatus,
    BackupType, SchedulePhase, SchedulePolicy, ScheduleStatus,
};
use kbbackup_core::cron::Cron;
use kbbackup_core::retention::RetentionPeriod;
use kube::ResourceExt as _;

use super::build;
use super::observe::Seen;
use crate::settings::Settings;

/// What is to be done for a schedule.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Labels of the schedule itself.
    pub labels: BTreeMap<String, String>,
    /// The state of its entries.
    pub entries: Entries,
    /// CronJobs that should exist, each with its entry.
    pub cron_jobs: Vec<(String, CronJob)>,
    /// CronJobs that no entry claims.
    pub remove: Vec<Arc<CronJob>>,
    /// Continuous backups that should exist, each with its entry.
    pub continuous: Vec<(String, Continuous)>,
    /// Runs that are due.
    pub runs: Vec<Run>,
}

/// A continuous entry's wish.
#[derive(Clone, Debug, PartialEq)]
pub struct Continuous {
    /// The Backup as it is created.
    pub backup: Backup,
    /// Whether it is to be created when it does not exist.
    pub create: bool,
    /// Whether it is to run again when it is completed.
    pub restart: bool,
}

/// A Job that waits for its Backup.
#[derive(Clone, Debug)]
pub struct Run {
    /// Name of the entry.
    pub entry: String,
    /// The Job.
    pub job: Arc<Job>,
    /// The Backup, or why none is made.
    pub backup: Result<Backup, String>,
}

/// The state of all entries while they are handled.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entries {
    all: BTreeMap<String, ScheduleStatus>,
    /// What is wrong with the schedule as a whole.
    fault: Option<String>,
}

impl Entries {
    /// Records what is wrong with an entry.
    pub fn fault(&mut self, entry: &str, why: String) {
        let state = self.all.entry(entry.to_owned()).or_default();
        state.phase = Some(SchedulePhase::Failed);
        state.failure_reason = Some(why);
    }

    fn is_sound(&self, entry: &str) -> bool {
        self.all.get(entry).is_none_or(|state| state.failure_reason.is_none())
    }

    /// The schedule's status: `Failed` as soon as one entry is.
    pub fn status(&self, schedule: &BackupSchedule) -> BackupScheduleStatus {
        let of_entries = self
            .all
            .iter()
            .filter_map(|(name, state)| state.failure_reason.as_ref().map(|why| format!("entry {name}: {why}")));
        let faults: Vec<String> = self.fault.iter().cloned().chain(of_entries).collect();
        let failed = !faults.is_empty();
        BackupScheduleStatus {
            phase: Some(if failed { BackupSchedulePhase::Failed } else { BackupSchedulePhase::Available }),
            observed_generation: schedule.metadata.generation,
            failure_reason: failed.then(|| faults.join("; ")),
            schedules: self.all.clone(),
        }
    }
}

/// Behaviour 5.1 to 5.3.
pub fn decide(schedule: &BackupSchedule, seen: &Seen, settings: &Settings, now: Timestamp) -> Plan {
    let spec = &schedule.spec;
    let mut plan = Plan {
        labels: BTreeMap::from([(labels::BACKUP_POLICY.to_owned(), spec.backup_policy_name.clone())]),
        entries: Entries::default(),
        cron_jobs: Vec::new(),
        remove: Vec::new(),
        continuous: Vec::new(),
        runs: Vec::new(),
    };
    let Some(policy) = &seen.policy else {
        // What is there goes on, and says why when it cannot: a policy that is written anew is no reason to lose runs.
        plan.entries.fault = Some(format!(
            "BackupPolicy {} does not exist in this namespace; create it, or name another one",
            spec.backup_policy_name
        ));
        return plan;
    };
    let mut names = BTreeSet::new();
    for entry in &spec.schedules {
        if !names.insert(entry.name()) {
            plan.entries.fault(entry.name(), "two entries have this name; give each a name of its own".to_owned());
        }
    }
    let mut claimed: BTreeSet<String> = BTreeSet::new();
    for entry in spec.schedules.iter().filter(|entry| plan_has_no_twin(spec.schedules.as_slice(), entry)) {
        match sound(policy, entry, seen) {
            Ok(Sound::Periodic(cron)) => {
                if entry.enabled == Some(true) {
                    let cron_job = build::cron_job(schedule, policy, entry, &cron, settings);
                    claimed.insert(cron_job.name_any());
                    record(&mut plan.entries, entry, seen, &cron_job.name_any());
                    plan.cron_jobs.push((entry.name().to_owned(), cron_job));
                }
            }
            Ok(Sound::Continuous) => {
                plan.entries.all.entry(entry.name().to_owned()).or_default().phase =
                    (entry.enabled != Some(false)).then_some(SchedulePhase::Running);
                plan.continuous.push((
                    entry.name().to_owned(),
                    Continuous {
                        backup: build::continuous(schedule, policy, entry),
                        create: entry.enabled != Some(false),
                        restart: entry.enabled == Some(true),
                    },
                ));
            }
            Err(why) => {
                // Its last good state goes on until the entry is mended, unless it was switched off.
                if entry.enabled == Some(true) {
                    claimed.insert(build::cron_job_name(schedule, entry.name()));
                    plan.entries.fault(entry.name(), why);
                }
            }
        }
    }
    for entry in spec.schedules.iter().filter(|entry| !plan_has_no_twin(&spec.schedules, entry)) {
        claimed.insert(build::cron_job_name(schedule, entry.name()));
    }
    plan.remove = seen.cron_jobs.iter().filter(|job| !claimed.contains(&job.name_any())).cloned().collect();
    for job in &seen.due {
        plan.runs.extend(run(schedule, policy, seen, job, &plan.entries, now));
    }
    plan
}

fn plan_has_no_twin(all: &[SchedulePolicy], entry: &SchedulePolicy) -> bool {
    all.iter().filter(|other| other.name() == entry.name()).count() == 1
}

enum Sound {
    Periodic(Cron),
    Continuous,
}

/// Checks an entry against its policy and recipe.
fn sound(policy: &BackupPolicy, entry: &SchedulePolicy, seen: &Seen) -> Result<Sound, String> {
    let method = method(policy, entry).ok_or_else(|| {
        let names: Vec<_> = policy.spec.backup_methods.iter().map(|method| method.name.as_str()).collect();
        let (name, wanted) = (policy.name_any(), &entry.backup_method);
        format!("BackupPolicy {name} has no method {wanted} (it has: {})", names.join(", "))
    })?;
    RetentionPeriod::parse(entry.retention_period()).map_err(|error| error.to_string())?;
    let set = recipe(method, seen)?;
    let takes = set
        .and_then(|set| set.spec.backup.as_ref())
        .map(|backup| backup.with_parameters.as_slice())
        .unwrap_or_default();
    let schema = set.and_then(|set| set.spec.parameters_schema.as_ref()?.open_api_v3_schema.as_ref());
    let given = entry.parameters.iter().map(|pair| (pair.name.as_str(), pair.value.as_str()));
    kbbackup_core::parameters::check(takes, schema, given).map_err(|error| error.to_string())?;
    if set.is_some_and(|set| set.spec.backup_type == BackupType::Continuous) {
        return Ok(Sound::Continuous);
    }
    Cron::parse(&entry.cron_expression).map(Sound::Periodic).map_err(|error| error.to_string())
}

fn method<'a>(policy: &'a BackupPolicy, entry: &SchedulePolicy) -> Option<&'a BackupMethod> {
    policy.spec.backup_methods.iter().find(|method| method.name == entry.backup_method)
}

/// The ActionSet of a method; a method of volume snapshots needs none.
fn recipe<'a>(method: &BackupMethod, seen: &'a Seen) -> Result<Option<&'a ActionSet>, String> {
    match method.action_set_name.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => match seen.action_sets.get(name) {
            Some(set) => Ok(Some(set)),
            None => Err(format!("ActionSet {name} of method {} does not exist; create it", method.name)),
        },
        None if method.snapshot_volumes() => Ok(None),
        None => Err(format!("method {} names neither an actionSetName nor snapshotVolumes", method.name)),
    }
}

fn record(entries: &mut Entries, entry: &SchedulePolicy, seen: &Seen, cron_job: &str) {
    let state = entries.all.entry(entry.name().to_owned()).or_default();
    state.phase = Some(SchedulePhase::Running);
    let found = seen.cron_jobs.iter().find(|found| found.name_any() == cron_job);
    state.last_schedule_time = found.and_then(|found| found.status.as_ref()?.last_schedule_time.clone());
    state.last_successful_time = seen.succeeded.get(entry.name()).copied().map(Time);
}

/// The Backup of a Job that waits for one. `None`: its CronJob is on its way out.
fn run(
    schedule: &BackupSchedule,
    policy: &BackupPolicy,
    seen: &Seen,
    job: &Arc<Job>,
    entries: &Entries,
    now: Timestamp,
) -> Option<Run> {
    let name = job.annotations().get(annotations::SCHEDULE_ENTRY)?;
    let entry = schedule.spec.schedules.iter().find(|entry| entry.name() == name && entry.enabled == Some(true))?;
    if !entries.is_sound(name) {
        return None;
    }
    let of = |backup| Some(Run { entry: name.clone(), job: Arc::clone(job), backup });
    let late = job.creation_timestamp().map_or(0, |made| now.duration_since(made.0).as_secs());
    if let Some(minutes) = schedule.spec.starting_deadline_minutes.filter(|minutes| late > minutes * 60 + GRACE) {
        return of(Err(format!(
            "the run was due {} ago, and startingDeadlineMinutes allows {minutes}: no backup was made",
            kbbackup_core::gotime::duration(u64::try_from(late).unwrap_or(0))
        )));
    }
    let method = method(policy, entry)?;
    let kind = recipe(method, seen).ok().flatten().map(|set| set.spec.backup_type);
    if matches!(kind, Some(BackupType::Incremental | BackupType::Differential)) {
        let base = method.compatible_method.as_deref().unwrap_or_default();
        if !seen.full.contains(base) {
            return of(Err(format!(
                "there is no completed backup of method {base:?} to build on yet: no {} backup was made",
                method.name
            )));
        }
    }
    of(Ok(build::backup(schedule, policy, entry, job)))
}

/// A Job is seen a moment after it was made: that is not late, even with a deadline of 0.
const GRACE: i64 = 60;

/// The entry that a backup was made for.
pub fn entry_of(schedule: &BackupSchedule, backup: &Backup) -> Option<String> {
    let own = backup.annotations().get(annotations::SCHEDULE_ENTRY).cloned();
    // Backups that KubeBlocks' own schedules have made say only the method.
    own.or_else(|| {
        let mut entries =
            schedule.spec.schedules.iter().filter(|entry| entry.backup_method == backup.spec.backup_method);
        entries.next().map(|entry| entry.name().to_owned())
    })
}

/// When each periodic entry runs next, as a JSON map from entry to RFC 3339; `None` when none does.
pub fn next_runs(schedule: &BackupSchedule, entries: &Entries, now: Timestamp) -> Option<String> {
    let periodic = schedule.spec.schedules.iter().filter(|entry| entry.enabled == Some(true));
    let runs: BTreeMap<&str, String> = periodic
        .filter(|entry| entries.is_sound(entry.name()))
        .filter(|entry| entries.all.get(entry.name()).is_some_and(|state| state.phase.is_some()))
        .filter_map(|entry| {
            let next = Cron::parse(&entry.cron_expression).ok()?.next(now)?;
            Some((entry.name(), next.to_string()))
        })
        .collect();
    if runs.is_empty() { None } else { serde_json::to_string(&runs).ok() }
}
