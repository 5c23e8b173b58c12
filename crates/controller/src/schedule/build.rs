//! What a schedule makes, as plain values: behaviour 5.2 and 5.3.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, Job, JobSpec, JobTemplateSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kbbackup_api::names::{TRUE, annotations, labels};
use kbbackup_api::v1alpha1::{
    Backup, BackupMethod, BackupPolicy, BackupSchedule, BackupSpec, BackupTarget, PodSelector, SchedulePolicy,
};
use kbbackup_core::cron::Cron;
use kbbackup_core::names;
use kube::{Resource as _, ResourceExt as _};

use crate::settings::Settings;
use crate::worker::pod::{self as worker_pod, Account};

/// UID that names of a schedule's objects begin with: that of its first owner, else its own.
pub fn naming_uid(schedule: &BackupSchedule) -> String {
    schedule.owner_references().first().map(|owner| owner.uid.clone()).or_else(|| schedule.uid()).unwrap_or_default()
}

/// Name of the CronJob of an entry.
pub fn cron_job_name(schedule: &BackupSchedule, entry: &str) -> String {
    let namespace = schedule.namespace().unwrap_or_default();
    names::cron_job(&naming_uid(schedule), &schedule.name_any(), &namespace, entry)
}

/// The CronJob of an entry.
pub fn cron_job(
    schedule: &BackupSchedule,
    policy: &BackupPolicy,
    entry: &SchedulePolicy,
    cron: &Cron,
    settings: &Settings,
) -> CronJob {
    let own = BTreeMap::from(
        [
            (labels::BACKUP_SCHEDULE, schedule.name_any()),
            (labels::BACKUP_METHOD, entry.backup_method.clone()),
            (labels::MANAGED_BY, labels::MANAGED_BY_DATAPROTECTION.to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value)),
    );
    let mut set = schedule.labels().clone();
    set.extend(own.clone());
    let notes = BTreeMap::from([(annotations::SCHEDULE_ENTRY.to_owned(), entry.name().to_owned())]);
    // The operator makes the Backup. The pod only lets the Job come to its end.
    let command = ["/kbbackup-controller", "--version"].map(str::to_owned).to_vec();
    let mut container = worker_pod::container("backup-schedule", &settings.controller_image, command, settings);
    // Another controller's arguments do not survive beside our command.
    container.args = Some(Vec::new());
    if let Some(security) = &mut container.security_context {
        security.run_as_user = None;
    }
    worker_pod::zero_limits(&mut container, settings);
    let mut pod = worker_pod::empty(&Account::Worker, settings);
    worker_pod::run_anywhere(&mut pod, settings);
    pod.containers = vec![container];
    CronJob {
        metadata: ObjectMeta {
            name: Some(cron_job_name(schedule, entry.name())),
            namespace: schedule.namespace(),
            labels: Some(set.clone()),
            annotations: Some(notes.clone()),
            owner_references: schedule.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(CronJobSpec {
            schedule: cron.expression.clone(),
            time_zone: Some(cron.zone.clone().unwrap_or_else(|| "UTC".to_owned())),
            concurrency_policy: Some("Forbid".to_owned()),
            successful_jobs_history_limit: Some(0),
            failed_jobs_history_limit: Some(1),
            starting_deadline_seconds: schedule.spec.starting_deadline_minutes.map(|minutes| minutes * 60),
            suspend: Some(false),
            job_template: JobTemplateSpec {
                metadata: Some(ObjectMeta { labels: Some(set), annotations: Some(notes), ..ObjectMeta::default() }),
                spec: Some(JobSpec {
                    // Until its Backup exists.
                    suspend: Some(true),
                    backoff_limit: Some(policy.spec.backoff_limit()),
                    template: PodTemplateSpec {
                        // A schedule's labels may be those that a Service of the database selects by.
                        metadata: Some(ObjectMeta { labels: Some(own), ..ObjectMeta::default() }),
                        spec: Some(pod),
                    },
                    ..JobSpec::default()
                }),
            },
        }),
        status: None,
    }
}

/// The Backup of a run.
pub fn backup(schedule: &BackupSchedule, policy: &BackupPolicy, entry: &SchedulePolicy, job: &Job) -> Backup {
    let made = job.creation_timestamp().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    let stamp = kbbackup_core::gotime::format("20060102150405", made, jiff::tz::Offset::UTC);
    let own = [
        (labels::AUTOBACKUP, TRUE.to_owned()),
        (labels::BACKUP_SCHEDULE, schedule.name_any()),
        (labels::SCHEDULED_BY, job.uid().unwrap_or_default()),
    ];
    let notes = [(annotations::SCHEDULE_ENTRY.to_owned(), entry.name().to_owned())];
    Backup {
        metadata: ObjectMeta {
            name: Some(names::scheduled_backup(&prefix(schedule, policy, entry), entry.name(), &stamp)),
            namespace: schedule.namespace(),
            labels: Some(own.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
            annotations: Some(notes.into()),
            ..ObjectMeta::default()
        },
        spec: BackupSpec {
            backup_policy_name: schedule.spec.backup_policy_name.clone(),
            backup_method: entry.backup_method.clone(),
            retention_period: Some(entry.retention_period().to_owned()),
            parameters: entry.parameters.clone(),
            ..BackupSpec::default()
        },
        status: None,
    }
}

/// What names of scheduled Backups begin with: the cluster's name when the first target says it, else the schedule's.
fn prefix(schedule: &BackupSchedule, policy: &BackupPolicy, entry: &SchedulePolicy) -> String {
    let method = policy.spec.backup_methods.iter().find(|method| method.name == entry.backup_method);
    let labels = method.and_then(|method| first_target(policy, method)).and_then(target_labels);
    let instance = labels.and_then(|labels| labels.get(labels::INSTANCE).cloned()).filter(|name| !name.is_empty());
    instance.unwrap_or_else(|| schedule.name_any())
}

pub(super) fn first_target<'a>(policy: &'a BackupPolicy, method: &'a BackupMethod) -> Option<&'a BackupTarget> {
    let of_method = method.target.as_ref().or_else(|| method.targets.first());
    of_method.or(policy.spec.target.as_ref()).or_else(|| policy.spec.targets.first())
}

pub(super) fn target_labels(target: &BackupTarget) -> Option<BTreeMap<String, String>> {
    target.pod_selector.as_ref().map(PodSelector::label_selector)?.match_labels
}

/// The Backup of a continuous entry, as it is created.
pub fn continuous(schedule: &BackupSchedule, policy: &BackupPolicy, entry: &SchedulePolicy) -> Backup {
    let method = policy.spec.backup_methods.iter().find(|method| method.name == entry.backup_method);
    let target = method.and_then(|method| method.target.as_ref()).or(policy.spec.target.as_ref());
    let mut set = target.and_then(target_labels).unwrap_or_default();
    let own = [
        (labels::MANAGED_BY, labels::MANAGED_BY_DATAPROTECTION.to_owned()),
        (labels::BACKUP_SCHEDULE, schedule.name_any()),
        (labels::BACKUP_TYPE, "Continuous".to_owned()),
        (labels::AUTOBACKUP, TRUE.to_owned()),
    ];
    set.extend(own.into_iter().map(|(key, value)| (key.to_owned(), value)));
    let namespace = schedule.namespace().unwrap_or_default();
    let name = names::continuous_backup(&naming_uid(schedule), &schedule.name_any(), &namespace, &entry.backup_method);
    let generation = schedule.metadata.generation.unwrap_or_default().to_string();
    Backup {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(namespace),
            labels: Some(set),
            annotations: Some([(annotations::RECONCILE.to_owned(), generation)].into()),
            ..ObjectMeta::default()
        },
        spec: BackupSpec {
            backup_policy_name: schedule.spec.backup_policy_name.clone(),
            backup_method: entry.backup_method.clone(),
            retention_period: Some(entry.retention_period().to_owned()),
            parameters: entry.parameters.clone(),
            ..BackupSpec::default()
        },
        status: None,
    }
}
