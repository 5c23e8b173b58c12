//! `report`: one page of HTML for people who have no terminal: the fleet, and each source over time.

mod page;
mod picture;

use std::path::PathBuf;

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use kbbackup_api::{
    recovery,
    v1alpha1::{ActionSet, Backup, BackupPolicy, BackupSchedule},
};
use kbbackup_core::retention::RetentionPeriod;
use kube::{ResourceExt, api::ListParams};

use super::status::{self, SourceStatus};
use crate::{
    app::{App, list_all},
    args::retention,
    error::{CliError, Result},
    exit::Exit,
    follow,
    recoverable::{self, Recoverable},
    source,
    ui::{Mark, Ui},
};

/// Write a page of HTML: what is protected, and each source's backups, logs, gaps and sizes over time
///
/// One file without scripts and without anything from elsewhere: it can be mailed, and opened years later.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup report --html backups.html -A
  kubectl kbbackup report --html - --since 30d -n demo")]
pub(crate) struct ReportArgs {
    /// File to write; - is standard output
    #[arg(long, value_name = "FILE")]
    pub html: PathBuf,

    /// In all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,

    /// How far to look back, such as 30d [default: to the oldest backup]
    #[arg(long, value_name = "TIME", value_parser = retention)]
    pub since: Option<String>,
}

/// Everything on the page.
#[derive(Debug)]
struct Report {
    /// `all namespaces`, or one.
    scope: String,
    server: String,
    now: Timestamp,
    sections: Vec<Section>,
}

/// One source.
#[derive(Debug)]
struct Section {
    status: SourceStatus,
    from: Timestamp,
    /// Oldest first.
    points: Vec<Point>,
    logs: Vec<Recoverable>,
}

/// A backup on the line of time.
#[derive(Clone, Debug)]
struct Point {
    name: String,
    method: String,
    kind: String,
    phase: String,
    at: Timestamp,
    bytes: Option<u64>,
}

pub(crate) async fn run(ui: &Ui, app: &App, args: &ReportArgs) -> Result<Exit> {
    let all = args.all_namespaces;
    ui.progress_if_live("reading backups");
    let policies = list_all(&app.scoped::<BackupPolicy>(all), ListParams::default(), "policies").await?;
    let backups = list_all(&app.scoped::<Backup>(all), ListParams::default(), "backups").await?;
    let schedules = list_all(&app.scoped::<BackupSchedule>(all), ListParams::default(), "schedules").await?;
    let sets = list_all(&app.everywhere::<ActionSet>(), ListParams::default(), "action sets").await?;
    let now = Timestamp::now();
    let since = args.since.as_deref().and_then(|text| RetentionPeriod::parse(text).ok()).and_then(|period| {
        now.checked_sub(SignedDuration::from_secs(i64::try_from(period.seconds()).unwrap_or(i64::MAX))).ok()
    });
    let logs = recoverable::of(&backups, &sets);
    let mut statuses = status::judge(&policies, &backups, &schedules, None, now);
    status::reach(&mut statuses, &logs);
    let sections = statuses.into_iter().map(|status| section(status, &backups, &logs, since, now)).collect();
    let scope = if all { "all namespaces".to_owned() } else { format!("namespace {}", app.namespace) };
    let text = page::html(&Report { scope, server: app.server.clone(), now, sections });
    ui.clear();
    if args.html.as_os_str() == "-" {
        ui.result(&text);
        return Ok(Exit::Done);
    }
    let file = args.html.display();
    std::fs::write(&args.html, text)
        .map_err(|error| CliError::refused(format!("{file} cannot be written"), error.to_string()))?;
    ui.say(&ui.marked(Mark::Good, &format!("{file} is written")));
    Ok(Exit::Done)
}

fn section(
    status: SourceStatus,
    backups: &[Backup],
    logs: &[Recoverable],
    since: Option<Timestamp>,
    now: Timestamp,
) -> Section {
    let logs: Vec<Recoverable> =
        logs.iter().filter(|log| log.namespace() == status.namespace && log.source == status.source).cloned().collect();
    let own = backups.iter().filter(|backup| {
        backup.namespace().unwrap_or_default() == status.namespace
            && (source::of_backup(backup) == status.source || status.policies.contains(&backup.spec.backup_policy_name))
    });
    let mut points: Vec<Point> = own.filter(|backup| !follow::is_continuous(backup)).filter_map(point).collect();
    points.sort_by(|a, b| (a.at, &a.name).cmp(&(b.at, &b.name)));
    let oldest =
        points.first().map(|point| point.at).into_iter().chain(logs.iter().filter_map(|log| log.log.start)).min();
    let from = since.or(oldest).unwrap_or(now);
    points.retain(|point| point.at >= from);
    Section { status, from, points, logs }
}

/// `None` while nothing is known of its time.
fn point(backup: &Backup) -> Option<Point> {
    let created = backup.creation_timestamp().map(|time| time.0);
    let status = backup.status.as_ref();
    Some(Point {
        name: backup.name_any(),
        method: backup.spec.backup_method.clone(),
        kind: backup.labels().get(kbbackup_api::names::labels::BACKUP_TYPE).cloned().unwrap_or_default(),
        phase: super::list::shown_status(backup),
        at: recovery::end(backup).or_else(|| recovery::start(backup)).or(created)?,
        bytes: status
            .filter(|_| follow::backup_phase(backup) == Some(kbbackup_api::v1alpha1::BackupPhase::Completed))
            .and_then(|status| kbbackup_core::layout::parse_size(status.total_size.as_deref()?)),
    })
}
