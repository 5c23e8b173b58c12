//! `status`: is it protected, since when, and what fails.

use std::{collections::BTreeMap, time::Duration};

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use kbbackup_api::v1alpha1::{ActionSet, Backup, BackupPhase, BackupPolicy, BackupSchedule};
use kbbackup_core::cron::Cron;
use kube::{ResourceExt, api::ListParams};
use serde::Serialize;

use crate::{
    app::{App, list_all},
    args::{OutputArgs, duration},
    error::Result,
    exit::Exit,
    follow, moment,
    output::{Format, Table, human, object},
    recoverable::{self, Recoverable},
    source::{self, Source},
    ui::Ui,
};

/// Show per source whether it is protected, when it was last backed up, and what failed
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup status
  kubectl kbbackup status -A
  kubectl kbbackup status statefulset/pg --max-age 24h --fail-on-unprotected")]
pub(crate) struct StatusArgs {
    /// Only these sources
    pub sources: Vec<String>,

    /// In all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,

    /// Exit with 4 when a source has no good backup, or none younger than --max-age
    #[arg(long)]
    pub fail_on_unprotected: bool,

    /// Oldest last good backup that still counts as protection, such as 24h
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub max_age: Option<Duration>,

    #[command(flatten)]
    pub output: OutputArgs,
}

/// What is known of one source.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SourceStatus {
    pub namespace: String,
    pub source: String,
    pub protected: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_good: Option<LastBackup>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<LastBackup>,
    pub running: Vec<String>,
    pub backups: usize,
    pub bytes: u64,
    pub policies: Vec<String>,
    /// Cron expressions of enabled schedules, UTC.
    pub schedules: Vec<String>,
    /// The next run of any of them, RFC 3339, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<Timestamp>,
    /// The last point in time that it can be brought back to, RFC 3339, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pitr_to: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LastBackup {
    pub backup: String,
    /// RFC 3339, UTC.
    pub at: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(skip)]
    pub time: Timestamp,
}

pub(crate) async fn run(ui: &Ui, app: &App, args: &StatusArgs) -> Result<Exit> {
    let all = args.all_namespaces;
    let policies = list_all(&app.scoped::<BackupPolicy>(all), ListParams::default(), "policies").await?;
    let backups = list_all(&app.scoped::<Backup>(all), ListParams::default(), "backups").await?;
    let schedules = list_all(&app.scoped::<BackupSchedule>(all), ListParams::default(), "schedules").await?;
    let sets = list_all(&app.everywhere::<ActionSet>(), ListParams::default(), "action sets").await?;
    let now = Timestamp::now();
    let mut statuses = judge(&policies, &backups, &schedules, args.max_age, now);
    reach(&mut statuses, &recoverable::of(&backups, &sets));
    if !args.sources.is_empty() {
        let wanted = args.sources.iter().map(|source| Source::parse(source)).collect::<Result<Vec<_>>>()?;
        statuses.retain(|status| {
            wanted.iter().any(|source| {
                source.name() == status.source || status.policies.iter().any(|policy| policy == source.name())
            })
        });
        for source in &wanted {
            // A source without policy and backups is a fact worth a row.
            if !statuses.iter().any(|status| {
                status.source == source.name() || status.policies.iter().any(|policy| policy == source.name())
            }) {
                statuses.push(nothing(&app.namespace, source.name()));
            }
        }
    }
    show(ui, app, args, &statuses, now)?;
    let unprotected = statuses.iter().any(|status| !status.protected);
    Ok(if unprotected && (args.fail_on_unprotected || args.max_age.is_some()) { Exit::Failed } else { Exit::Done })
}

fn nothing(namespace: &str, source: &str) -> SourceStatus {
    SourceStatus {
        namespace: namespace.to_owned(),
        source: source.to_owned(),
        protected: false,
        last_good: None,
        last_failure: None,
        running: Vec::new(),
        backups: 0,
        bytes: 0,
        policies: Vec::new(),
        schedules: Vec::new(),
        next: None,
        pitr_to: None,
    }
}

/// How close to now each source can be brought back.
pub(super) fn reach(statuses: &mut [SourceStatus], logs: &[Recoverable]) {
    for status in statuses {
        let own = logs.iter().filter(|log| log.namespace() == status.namespace);
        let own = own
            .filter(|log| log.source == status.source || status.policies.contains(&log.backup.spec.backup_policy_name));
        status.pitr_to = own.filter_map(Recoverable::latest).max().map(moment::whole);
    }
}

type Sources = BTreeMap<(String, String), SourceStatus>;

fn entry(sources: &mut Sources, namespace: String, source: String) -> &mut SourceStatus {
    let fresh = nothing(&namespace, &source);
    sources.entry((namespace, source)).or_insert(fresh)
}

/// One entry per source that has a policy or a backup.
pub(super) fn judge(
    policies: &[BackupPolicy],
    backups: &[Backup],
    schedules: &[BackupSchedule],
    max_age: Option<Duration>,
    now: Timestamp,
) -> Vec<SourceStatus> {
    let mut sources = Sources::new();
    for policy in policies {
        let namespace = policy.namespace().unwrap_or_default();
        let status = entry(&mut sources, namespace.clone(), source::of_policy(policy));
        status.policies.push(policy.name_any());
        let own = schedules.iter().filter(|schedule| {
            schedule.namespace().unwrap_or_default() == namespace
                && schedule.spec.backup_policy_name == policy.name_any()
        });
        let enabled = own.flat_map(|schedule| &schedule.spec.schedules).filter(|entry| entry.enabled.unwrap_or(false));
        for entry in enabled {
            status.schedules.push(entry.cron_expression.clone());
            let next = Cron::parse(&entry.cron_expression).ok().and_then(|cron| cron.next(now));
            status.next = status.next.into_iter().chain(next).min();
        }
    }
    for backup in backups {
        let namespace = backup.namespace().unwrap_or_default();
        let of_policy = policies.iter().find(|policy| {
            policy.namespace().unwrap_or_default() == namespace && policy.name_any() == backup.spec.backup_policy_name
        });
        let source = of_policy.map_or_else(|| source::of_backup(backup), source::of_policy);
        add(entry(&mut sources, namespace, source), backup);
    }
    let mut statuses: Vec<SourceStatus> = sources.into_values().collect();
    for status in &mut statuses {
        let limit = max_age.and_then(|age| SignedDuration::try_from(age).ok());
        status.protected = status
            .last_good
            .as_ref()
            .is_some_and(|good| limit.is_none_or(|limit| now.duration_since(good.time) <= limit));
    }
    statuses
}

fn add(status: &mut SourceStatus, backup: &Backup) {
    let state = backup.status.clone().unwrap_or_default();
    status.backups += 1;
    let created = backup.creation_timestamp().map(|time| time.0).unwrap_or_default();
    let last = |time: Timestamp, reason: String| LastBackup {
        backup: backup.name_any(),
        at: human::stamp(time),
        reason,
        time,
    };
    match state.phase {
        Some(BackupPhase::Completed) => {
            status.bytes += state.total_size.as_deref().and_then(kbbackup_core::layout::parse_size).unwrap_or(0);
            // A backup is as old as the moment it shows.
            let end =
                state.time_range.as_ref().and_then(|range| range.end.as_ref()).or(state.completion_timestamp.as_ref());
            let time = end.map_or(created, |end| end.0);
            // A log alone brings nothing back.
            if !follow::is_continuous(backup) && status.last_good.as_ref().is_none_or(|good| good.time < time) {
                status.last_good = Some(last(time, String::new()));
            }
        }
        Some(BackupPhase::Failed) if status.last_failure.as_ref().is_none_or(|failure| failure.time < created) => {
            let reason = follow::backup_reason(backup).lines().next().unwrap_or_default().to_owned();
            status.last_failure = Some(last(created, reason));
        }
        Some(BackupPhase::Running) => status.running.push(backup.name_any()),
        _ => {}
    }
}

fn show(ui: &Ui, app: &App, args: &StatusArgs, statuses: &[SourceStatus], now: Timestamp) -> Result<()> {
    let format = args.output.format();
    if matches!(format, Format::Json | Format::Yaml) {
        let value =
            serde_json::json!({"apiVersion": "cli.kbbackup.io/v1alpha1", "kind": "Status", "sources": statuses});
        ui.result(&object::text(&value, format)?);
        return Ok(());
    }
    if format == Format::Name {
        for status in statuses {
            ui.result(&status.source);
        }
        return Ok(());
    }
    if statuses.is_empty() {
        let place = if args.all_namespaces { "the cluster".to_owned() } else { format!("namespace {}", app.namespace) };
        ui.say(&format!("nothing is protected in {place}"));
        ui.hint("kubectl kbbackup backup statefulset/NAME");
        return Ok(());
    }
    ui.result(&table(statuses, args.all_namespaces, format.is_wide(), now).to_string());
    Ok(())
}

fn table(statuses: &[SourceStatus], namespaces: bool, wide: bool, now: Timestamp) -> Table {
    let mut header = vec!["SOURCE", "PROTECTED", "LAST-GOOD", "AGE", "NEXT", "PITR-TO", "LAST-FAILURE"];
    if namespaces {
        header.insert(0, "NAMESPACE");
    }
    if wide {
        header.extend(["BACKUPS", "SIZE", "SCHEDULE", "POLICIES", "RUNNING", "REASON"]);
    }
    let mut table = Table::new(header);
    for status in statuses {
        // A failure that a later success made good is history.
        let failure = status
            .last_failure
            .as_ref()
            .filter(|failure| status.last_good.as_ref().is_none_or(|good| good.time < failure.time));
        let mut row = vec![
            status.source.clone(),
            if status.protected { "yes" } else { "no" }.to_owned(),
            status.last_good.as_ref().map(|good| good.backup.clone()).unwrap_or_default(),
            status.last_good.as_ref().map(|good| human::span(now.duration_since(good.time))).unwrap_or_default(),
            status.next.map(|next| format!("in {}", human::span(next.duration_since(now)))).unwrap_or_default(),
            status.pitr_to.map(human::stamp).unwrap_or_default(),
            failure
                .map(|failure| format!("{} ({} ago)", failure.backup, human::span(now.duration_since(failure.time))))
                .unwrap_or_default(),
        ];
        if namespaces {
            row.insert(0, status.namespace.clone());
        }
        if wide {
            row.extend([status.backups.to_string(), human::bytes(status.bytes), status.schedules.join("; ")]);
            row.push(status.policies.join(","));
            row.push(status.running.join(","));
            row.push(failure.map(|failure| failure.reason.clone()).unwrap_or_default());
        }
        table.row(row);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn backup(name: &str, phase: &str, at: &str) -> Backup {
        serde_json::from_value(json!({
            "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "Backup",
            "metadata": {"name": name, "namespace": "demo", "creationTimestamp": at},
            "spec": {"backupPolicyName": "pg", "backupMethod": "full"},
            "status": {"phase": phase, "totalSize": "1024", "completionTimestamp": at, "failureReason": "no space"}
        }))
        .unwrap()
    }

    #[test]
    fn protection_ends_with_the_age_of_the_last_good_backup() {
        let now: Timestamp = "2026-01-03T00:00:00Z".parse().unwrap();
        let backups =
            [backup("one", "Completed", "2026-01-01T00:00:00Z"), backup("two", "Failed", "2026-01-02T00:00:00Z")];
        let any = judge(&[], &backups, &[], None, now);
        assert!(any[0].protected);
        let day = judge(&[], &backups, &[], Some(Duration::from_secs(86_400)), now);
        assert!(!day[0].protected);
        insta::assert_snapshot!(table(&day, true, false, now));
    }

    #[test]
    fn the_next_run_and_the_last_point_in_time_are_told() {
        let now: Timestamp = "2026-01-08T06:00:00Z".parse().unwrap();
        let (backups, sets) = crate::commands::windows::tests::objects(&crate::commands::windows::tests::running());
        let object = |kind: &str, spec: serde_json::Value| {
            json!({"apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": kind,
                "metadata": {"name": "pg", "namespace": "demo"}, "spec": spec})
        };
        let policy = serde_json::from_value(object("BackupPolicy", json!({"backupMethods": []}))).unwrap();
        let entries = json!([
            {"enabled": true, "backupMethod": "full", "cronExpression": "0 2 * * *"},
            {"enabled": true, "backupMethod": "incr", "cronExpression": "0 * * * *"},
            {"backupMethod": "off", "cronExpression": "* * * * *"}]);
        let schedule = object("BackupSchedule", json!({"backupPolicyName": "pg", "schedules": entries}));
        let schedule = serde_json::from_value(schedule).unwrap();
        let mut statuses = judge(&[policy], &backups, &[schedule], None, now);
        reach(&mut statuses, &recoverable::of(&backups, &sets));
        assert_eq!(statuses.len(), 1);
        assert_eq!(statuses[0].next.unwrap().to_string(), "2026-01-08T07:00:00Z");
        assert_eq!(statuses[0].pitr_to.unwrap().to_string(), "2026-01-08T05:59:30Z");
        assert_eq!(statuses[0].last_good.as_ref().unwrap().backup, "thursday");
        insta::assert_snapshot!(table(&statuses, false, true, now));
    }

    #[test]
    fn a_log_alone_is_no_protection() {
        let mut log = backup("wal", "Completed", "2026-01-01T00:00:00Z");
        log.labels_mut().insert(kbbackup_api::names::labels::BACKUP_TYPE.to_owned(), "Continuous".to_owned());
        let alone = judge(&[], &[log], &[], None, "2026-01-01T01:00:00Z".parse().unwrap());
        assert!(!alone[0].protected && alone[0].last_good.is_none());
        assert_eq!(alone[0].backups, 1);
    }
}
