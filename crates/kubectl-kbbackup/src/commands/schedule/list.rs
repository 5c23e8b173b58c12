//! `schedule list`: a line for each entry.

use clap::Args;
use jiff::Timestamp;
use kbbackup_api::{
    names::{annotations, labels},
    v1alpha1::{
        ActionSet, Backup, BackupPhase, BackupPolicy, BackupSchedule, BackupType, SchedulePhase, SchedulePolicy,
    },
};
use kbbackup_core::{cron::Cron, names};
use kube::{ResourceExt, api::ListParams};

use super::find;
use crate::{
    app::{App, get, list_all},
    args::{OutputArgs, SelectArgs},
    commands::list::no_source,
    error::{CliError, Result},
    exit::Exit,
    follow,
    output::{Table, human, object},
    source,
    ui::Ui,
};

/// List what is backed up by itself, and when next
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup schedule list
  kubectl kbbackup schedule list statefulset/pg -o wide
  kubectl kbbackup schedule list -A")]
pub(crate) struct ListArgs {
    /// Only schedules of these sources, or schedule/NAME
    pub sources: Vec<String>,

    #[command(flatten)]
    pub select: SelectArgs,

    #[command(flatten)]
    pub output: OutputArgs,
}

/// What belongs to schedules.
pub(super) struct Around {
    pub policies: Vec<BackupPolicy>,
    pub sets: Vec<ActionSet>,
    /// Backups that schedules made.
    pub backups: Vec<Backup>,
}

impl Around {
    pub(super) async fn read(app: &App, all_namespaces: bool) -> Result<Self> {
        let made = ListParams::default().labels(labels::BACKUP_SCHEDULE);
        Ok(Self {
            policies: list_all(&app.scoped(all_namespaces), ListParams::default(), "policies").await?,
            sets: list_all(&app.everywhere(), ListParams::default(), "action sets").await?,
            backups: list_all(&app.scoped(all_namespaces), made, "backups").await?,
        })
    }

    pub(super) fn policy(&self, schedule: &BackupSchedule) -> Option<&BackupPolicy> {
        self.policies.iter().find(|policy| {
            policy.name_any() == schedule.spec.backup_policy_name && policy.namespace() == schedule.namespace()
        })
    }

    /// Backups of an entry, newest first. Those of KubeBlocks' own schedules tell only the method.
    pub(super) fn backups(&self, schedule: &BackupSchedule, entry: &SchedulePolicy) -> Vec<&Backup> {
        let name = schedule.name_any();
        let of = |backup: &&Backup| {
            backup.namespace() == schedule.namespace()
                && backup.labels().get(labels::BACKUP_SCHEDULE) == Some(&name)
                && match backup.annotations().get(annotations::SCHEDULE_ENTRY) {
                    Some(own) => own == entry.name(),
                    None => backup.spec.backup_method == entry.backup_method,
                }
        };
        let mut found: Vec<&Backup> = self.backups.iter().filter(of).collect();
        found.sort_by_key(|backup| std::cmp::Reverse(backup.creation_timestamp()));
        found
    }
}

pub(super) async fn run(ui: &Ui, app: &App, args: &ListArgs) -> Result<Exit> {
    args.select.beside(&args.sources)?;
    let all = args.select.all_namespaces;
    let mut schedules = Vec::new();
    if args.sources.is_empty() {
        let mut params = ListParams::default();
        params.label_selector.clone_from(&args.select.selector);
        schedules = list_all(&app.scoped::<BackupSchedule>(all), params, "schedules").await?;
    } else {
        let mut names: Vec<String> = Vec::new();
        for source in &args.sources {
            let found = find::names(app, source).await?;
            if found.is_empty() && !find::has_policy(app, source).await? {
                let why = format!("no policy in namespace {} is for it", app.namespace);
                let error = CliError::not_found(format!("{source} has no schedule"), why)
                    .hint("kubectl kbbackup schedule list");
                return Err(no_source(app, source, error).await);
            }
            names.extend(found);
        }
        names.sort();
        names.dedup();
        for name in &names {
            schedules.push(get(&app.here::<BackupSchedule>(), &format!("backupschedule/{name}")).await?);
        }
    }
    let format = args.output.format();
    if format.is_object() {
        ui.result(&object::render(&schedules, false, format, args.output.show_managed_fields)?);
    } else if schedules.is_empty() {
        let place = if all { "the cluster".to_owned() } else { format!("namespace {}", app.namespace) };
        ui.say(&format!("no schedules in {place}"));
        ui.hint("kubectl kbbackup schedule create SOURCE --method METHOD --cron \"0 2 * * *\"");
    } else {
        let around = Around::read(app, all).await?;
        ui.result(&table(&schedules, &around, all, format.is_wide(), Timestamp::now()).to_string());
    }
    Ok(Exit::Done)
}

fn table(schedules: &[BackupSchedule], around: &Around, namespaces: bool, wide: bool, now: Timestamp) -> Table {
    let mut header = vec!["SOURCE", "METHOD", "ENABLED", "CRON (UTC)", "RETENTION", "LAST", "LAST-RESULT", "NEXT"];
    if namespaces {
        header.insert(0, "NAMESPACE");
    }
    if wide {
        header.extend(["SCHEDULE", "ENTRY", "POLICY", "CRONJOB", "LAST-SUCCESS"]);
    }
    let mut table = Table::new(header);
    for schedule in schedules {
        let policy = around.policy(schedule);
        let source = policy.map_or_else(|| schedule.spec.backup_policy_name.clone(), source::of_policy);
        for entry in &schedule.spec.schedules {
            let kind = find::kind(policy, &around.sets, &entry.backup_method);
            let made = around.backups(schedule, entry);
            let mut row = vec![
                source.clone(),
                entry.backup_method.clone(),
                find::is_on(entry, kind).to_string(),
                entry.cron_expression.clone(),
                entry.retention_period().to_owned(),
                human::ago(made.first().and_then(|backup| backup.creation_timestamp()).as_ref(), now),
                result(schedule, entry, kind, &made, now),
                next(entry, kind, now)
                    .map(|next| format!("in {}", human::span(next.duration_since(now))))
                    .unwrap_or_default(),
            ];
            if namespaces {
                row.insert(0, schedule.namespace().unwrap_or_default());
            }
            if wide {
                let success = made.iter().find(|backup| follow::backup_phase(backup) == Some(BackupPhase::Completed));
                row.extend([
                    schedule.name_any(),
                    entry.name().to_owned(),
                    schedule.spec.backup_policy_name.clone(),
                    if kind == Some(BackupType::Continuous) { String::new() } else { cron_job(schedule, entry) },
                    human::utc(success.and_then(|backup| backup.status.as_ref()?.completion_timestamp.as_ref())),
                ]);
            }
            table.row(row);
        }
    }
    table
}

fn cron_job(schedule: &BackupSchedule, entry: &SchedulePolicy) -> String {
    let owner = schedule.owner_references().iter().find(|owner| owner.controller == Some(true));
    let uid = owner.map(|owner| owner.uid.clone()).or_else(|| schedule.uid()).unwrap_or_default();
    names::cron_job(&uid, &schedule.name_any(), &schedule.namespace().unwrap_or_default(), entry.name())
}

/// The next run of a periodic entry that is on.
pub(super) fn next(entry: &SchedulePolicy, kind: Option<BackupType>, now: Timestamp) -> Option<Timestamp> {
    if !find::is_on(entry, kind) || kind == Some(BackupType::Continuous) {
        return None;
    }
    Cron::parse(&entry.cron_expression).ok()?.next(now)
}

/// How the last run ended, and whether the entry is behind: no success for two periods.
fn result(
    schedule: &BackupSchedule,
    entry: &SchedulePolicy,
    kind: Option<BackupType>,
    made: &[&Backup],
    now: Timestamp,
) -> String {
    let state = schedule.status.as_ref().and_then(|status| status.schedules.get(entry.name()));
    if state.and_then(|state| state.phase.as_ref()) == Some(&SchedulePhase::Failed) && find::is_on(entry, kind) {
        return "not in effect".to_owned();
    }
    let mut text = made.first().map(|backup| crate::commands::list::shown_status(backup)).unwrap_or_default();
    if is_late(schedule, entry, kind, made, now) {
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str("late");
    }
    text
}

fn is_late(
    schedule: &BackupSchedule,
    entry: &SchedulePolicy,
    kind: Option<BackupType>,
    made: &[&Backup],
    now: Timestamp,
) -> bool {
    let Some(first) = next(entry, kind, now) else { return false };
    let Some(second) = next(entry, kind, first) else { return false };
    let two_periods = second.duration_since(first) * 2;
    let success = made
        .iter()
        .filter(|backup| follow::backup_phase(backup) == Some(BackupPhase::Completed))
        .filter_map(|backup| backup.creation_timestamp())
        .max();
    // Who was made a moment ago is not behind.
    let since = success.or_else(|| schedule.creation_timestamp()).map(|time| time.0);
    since.is_some_and(|since| now.duration_since(since) > two_periods)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::{Value, json};

    pub(crate) fn now() -> Timestamp {
        "2026-01-08T06:00:00Z".parse().unwrap()
    }

    pub(crate) fn schedule() -> BackupSchedule {
        serde_json::from_value(json!({
            "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "BackupSchedule",
            "metadata": {"name": "pg", "namespace": "demo", "uid": "0123456789ab", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"backupPolicyName": "pg", "schedules": [
                {"enabled": true, "backupMethod": "full", "cronExpression": "0 2 * * *", "retentionPeriod": "7d"},
                {"name": "weekly", "backupMethod": "full", "cronExpression": "0 3 * * 0", "retentionPeriod": "1mo"},
                {"backupMethod": "wal", "cronExpression": "*/5 * * * *"},
                {"enabled": true, "name": "broken", "backupMethod": "gone", "cronExpression": "0 4 * * *"}]},
            "status": {"phase": "Available", "schedules": {"broken": {"phase": "Failed", "failureReason": "no method gone"}}}
        }))
        .unwrap()
    }

    fn backup(name: &str, created: &str, phase: &str, entry: &str, method: &str) -> Value {
        json!({
            "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "Backup",
            "metadata": {"name": name, "namespace": "demo", "creationTimestamp": created,
                "labels": {labels::BACKUP_SCHEDULE: "pg"}, "annotations": {annotations::SCHEDULE_ENTRY: entry}},
            "spec": {"backupPolicyName": "pg", "backupMethod": method},
            "status": {"phase": phase, "completionTimestamp": created}
        })
    }

    pub(crate) fn around() -> Around {
        let policy = json!({
            "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "BackupPolicy",
            "metadata": {"name": "pg", "namespace": "demo", "labels": {labels::WORKLOAD_NAME: "postgres"}},
            "spec": {"backupMethods": [
                {"name": "full", "actionSetName": "pg-full"}, {"name": "wal", "actionSetName": "pg-wal"}]}
        });
        let set = |name: &str, kind: &str| {
            json!({"apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "ActionSet", "metadata": {"name": name},
                "spec": {"backupType": kind}})
        };
        let backups = json!([
            backup("one", "2026-01-05T02:00:00Z", "Completed", "full", "full"),
            backup("two", "2026-01-08T02:00:00Z", "Failed", "full", "full"),
            backup("three", "2026-01-08T05:00:00Z", "Completed", "other", "full"),
        ]);
        Around {
            policies: vec![serde_json::from_value(policy).unwrap()],
            sets: vec![
                serde_json::from_value(set("pg-full", "Full")).unwrap(),
                serde_json::from_value(set("pg-wal", "Continuous")).unwrap(),
            ],
            backups: serde_json::from_value(backups).unwrap(),
        }
    }

    #[test]
    fn the_table_for_people() {
        insta::assert_snapshot!(table(&[schedule()], &around(), false, false, now()));
    }

    #[test]
    fn the_wide_table_of_all_namespaces() {
        insta::assert_snapshot!(table(&[schedule()], &around(), true, true, now()));
    }

    #[test]
    fn an_entry_is_late_after_two_periods_without_success() {
        let (schedule, around) = (schedule(), around());
        let entry = &schedule.spec.schedules[0];
        let made = around.backups(&schedule, entry);
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let late = |now: &str| is_late(&schedule, entry, Some(BackupType::Full), &made, at(now));
        assert!(!late("2026-01-07T01:00:00Z"));
        assert!(late("2026-01-07T02:00:01Z"));
        // Switched off, it owes nothing.
        assert!(!is_late(
            &schedule,
            &schedule.spec.schedules[1],
            Some(BackupType::Full),
            &[],
            at("2027-01-01T00:00:00Z")
        ));
    }
}
