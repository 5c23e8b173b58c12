//! `schedule describe`: each entry, its next runs, and what came of the last ones.

use clap::Args;
use jiff::Timestamp;
use kbbackup_api::v1alpha1::{BackupPhase, BackupSchedule, BackupType, SchedulePolicy};
use kube::ResourceExt;

use super::{
    find,
    list::{Around, next},
};
use crate::{
    app::{App, get},
    args::OutputArgs,
    commands::list::shown_status,
    error::{CliError, Result},
    exit::Exit,
    follow,
    output::{human, object, table::Sheet},
    source,
    ui::Ui,
};

/// How many next runs are told.
const RUNS: usize = 3;

/// Show schedules: each entry, its next runs and its last backups
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup schedule describe statefulset/pg
  kubectl kbbackup schedule describe schedule/pg")]
pub(crate) struct DescribeArgs {
    /// Sources whose schedules to show, or schedule/NAME
    #[arg(required = true)]
    pub sources: Vec<String>,

    #[command(flatten)]
    pub output: OutputArgs,
}

pub(super) async fn run(ui: &Ui, app: &App, args: &DescribeArgs) -> Result<Exit> {
    let mut schedules = Vec::new();
    for source in &args.sources {
        let names = find::names(app, source).await?;
        if names.is_empty() {
            return Err(CliError::not_found(
                format!("{source} has no schedule"),
                "nothing is backed up by itself there",
            )
            .hint("kubectl kbbackup schedule create SOURCE --method METHOD --cron \"0 2 * * *\""));
        }
        for name in names {
            schedules.push(get(&app.here::<BackupSchedule>(), &format!("backupschedule/{name}")).await?);
        }
    }
    let format = args.output.format();
    if format.is_object() {
        ui.result(&object::render(&schedules, schedules.len() == 1, format, args.output.show_managed_fields)?);
        return Ok(Exit::Done);
    }
    let around = Around::read(app, false).await?;
    let sheets: Vec<String> = schedules.iter().map(|schedule| sheet(schedule, &around, Timestamp::now())).collect();
    ui.result(&sheets.join("\n"));
    Ok(Exit::Done)
}

fn sheet(schedule: &BackupSchedule, around: &Around, now: Timestamp) -> String {
    let policy = around.policy(schedule);
    let status = schedule.status.clone().unwrap_or_default();
    let mut sheet = Sheet::default();
    sheet
        .line("Name", schedule.name_any())
        .line("Namespace", schedule.namespace().unwrap_or_default())
        .line("Source", policy.map(source::of_policy).unwrap_or_default())
        .line("Policy", &schedule.spec.backup_policy_name)
        .line("Status", status.phase.map_or_else(|| "new".to_owned(), |phase| phase.to_string()))
        .line("Reason", status.failure_reason.clone().unwrap_or_default());
    if let Some(minutes) = schedule.spec.starting_deadline_minutes {
        sheet.line("A missed run", format!("may start up to {minutes} min late"));
    }
    for entry in &schedule.spec.schedules {
        let kind = find::kind(policy, &around.sets, &entry.backup_method);
        let state = status.schedules.get(entry.name());
        sheet.title(&format!("Entry {}", entry.name()));
        sheet
            .item("Method", method(entry, kind))
            .item("Enabled", find::is_on(entry, kind).to_string())
            .item(if kind == Some(BackupType::Continuous) { "Archives" } else { "Runs" }, &entry.cron_expression)
            .item("Next", runs(entry, kind, now).join(", "))
            .item("Retention", entry.retention_period());
        let pairs = entry.parameters.iter().map(|pair| format!("{}={}", pair.name, pair.value));
        sheet.item("Parameters", pairs.collect::<Vec<_>>().join(", "));
        if let Some(state) = state {
            sheet.item("Status", state.phase.as_ref().map(ToString::to_string).unwrap_or_default());
            sheet.item("Reason", state.failure_reason.clone().unwrap_or_default());
        }
        let made = around.backups(schedule, entry);
        let told = |label: &str, backup: Option<&&kbbackup_api::v1alpha1::Backup>| {
            let text = backup.map(|backup| {
                let age = human::ago(backup.creation_timestamp().as_ref(), now);
                format!("{}, {}, {age}", backup.name_any(), shown_status(backup))
            });
            (label.to_owned(), text.unwrap_or_default())
        };
        let good = made.iter().find(|backup| follow::backup_phase(backup) == Some(BackupPhase::Completed));
        for (label, text) in [told("Last backup", made.first()), told("Last good", good)] {
            sheet.item(&label, text);
        }
    }
    sheet.finish()
}

fn method(entry: &SchedulePolicy, kind: Option<BackupType>) -> String {
    match kind {
        Some(kind) => format!("{} ({kind})", entry.backup_method),
        None => entry.backup_method.clone(),
    }
}

/// The next runs, as times that can be pasted.
fn runs(entry: &SchedulePolicy, kind: Option<BackupType>, now: Timestamp) -> Vec<String> {
    let following = std::iter::successors(next(entry, kind, now), |time| next(entry, kind, *time));
    following.take(RUNS).map(human::stamp).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::schedule::list::tests::{around, now, schedule};

    #[test]
    fn each_entry_with_its_runs_and_its_last_backups() {
        insta::assert_snapshot!(sheet(&schedule(), &around(), now()));
    }
}
