//! `timeline`: a picture of backups, logs and gaps of a source.

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use kbbackup_api::{
    names::labels,
    recovery,
    v1alpha1::{ActionSet, Backup, BackupPhase},
};
use kbbackup_core::retention::RetentionPeriod;
use kube::{ResourceExt, api::ListParams};

use crate::{
    app::{App, list_all},
    args::retention,
    error::{CliError, Result},
    exit::Exit,
    follow,
    output::human,
    recoverable::{self, Recoverable},
    source::{self, Source},
    ui::Ui,
};

/// Width of a picture that goes to no terminal.
const WIDTH: usize = 100;
/// Width of the names in front.
const NAMES: usize = 14;
const NARROWEST: usize = 20;

/// Show backups, logs and gaps of a source on a line of time
///
/// A full backup is ●, one that builds on another ○, one that failed ✗. A log is a line that is broken where it has a gap; below
/// it stands to which times the source can be brought back.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup timeline statefulset/pg
  kubectl kbbackup timeline pg --since 2d")]
pub(crate) struct TimelineArgs {
    /// Source to show
    pub source: String,

    /// How far to look back, such as 7d [default: to the oldest backup]
    #[arg(long, value_name = "TIME", value_parser = retention)]
    pub since: Option<String>,
}

pub(crate) async fn run(ui: &Ui, app: &App, args: &TimelineArgs) -> Result<Exit> {
    let source = Source::parse(&args.source)?;
    let all = list_all(&app.here::<Backup>(), ListParams::default(), "backups").await?;
    let sets = list_all(&app.everywhere::<ActionSet>(), ListParams::default(), "action sets").await?;
    let policies = source::policies(app).await?;
    let sources = [source];
    let mut logs = recoverable::of(&all, &sets);
    logs.retain(|log| source::is_of(&log.backup, &sources, &policies));
    let backups: Vec<Backup> = all.into_iter().filter(|backup| source::is_of(backup, &sources, &policies)).collect();
    if backups.is_empty() {
        return Err(CliError::not_found(format!("{} has no backups", args.source), "there is nothing to show")
            .hint(format!("kubectl kbbackup status -n {}", app.namespace)));
    }
    let now = Timestamp::now();
    let since = args.since.as_deref().and_then(|text| RetentionPeriod::parse(text).ok());
    let since = since.and_then(|period| {
        now.checked_sub(SignedDuration::from_secs(i64::try_from(period.seconds()).unwrap_or(i64::MAX))).ok()
    });
    let width = dialoguer::console::Term::stdout().size_checked().map_or(WIDTH, |(_, columns)| usize::from(columns));
    ui.result(&picture(&backups, &logs, since, now, width));
    Ok(Exit::Done)
}

/// A stretch of time on a number of columns.
struct Axis {
    from: Timestamp,
    to: Timestamp,
    columns: usize,
}

impl Axis {
    /// The column of a moment; `None` when it lies outside.
    fn column(&self, time: Timestamp) -> Option<usize> {
        if time < self.from || time > self.to {
            return None;
        }
        Some(self.place(time))
    }

    /// The column of a moment; the nearest one for what lies outside.
    fn place(&self, time: Timestamp) -> usize {
        let whole = self.to.duration_since(self.from).as_secs_f64().max(1.0);
        let part = time.duration_since(self.from).as_secs_f64() / whole;
        ((part.clamp(0.0, 1.0) * (self.columns - 1) as f64).round() as usize).min(self.columns - 1)
    }

    fn empty(&self) -> Vec<char> {
        vec![' '; self.columns]
    }

    /// Draws a stretch, as far as it is seen.
    fn stretch(&self, line: &mut [char], from: Timestamp, to: Timestamp, sign: char) {
        if to < self.from || from > self.to {
            return;
        }
        line[self.place(from)..=self.place(to)].fill(sign);
    }
}

fn picture(backups: &[Backup], logs: &[Recoverable], since: Option<Timestamp>, now: Timestamp, width: usize) -> String {
    let oldest = backups.iter().filter_map(|backup| recovery::start(backup).or_else(|| moment(backup))).min();
    let columns = width.saturating_sub(NAMES + 1).max(NARROWEST);
    let axis = Axis { from: since.or(oldest).unwrap_or(now), to: now, columns };
    let mut lines = vec![scale(&axis)];
    let mut methods: Vec<&str> = Vec::new();
    for backup in backups.iter().filter(|backup| !follow::is_continuous(backup)) {
        if !methods.contains(&backup.spec.backup_method.as_str()) {
            methods.push(&backup.spec.backup_method);
        }
    }
    for method in methods {
        let mut line = axis.empty();
        let own = backups.iter().filter(|backup| backup.spec.backup_method == method && !follow::is_continuous(backup));
        for (column, sign) in own.filter_map(|backup| Some((axis.column(moment(backup)?)?, sign(backup)))) {
            line[column] = sign;
        }
        lines.push(row(method, &line));
    }
    for log in logs {
        let mut line = axis.empty();
        if let (Some(start), Some(end)) = (log.log.start, log.log.end) {
            axis.stretch(&mut line, start, end, '─');
        }
        for gap in &log.log.gaps {
            axis.stretch(&mut line, gap.start, gap.end, ' ');
        }
        lines.push(row(&log.backup.spec.backup_method, &line));
        let mut reached = axis.empty();
        for window in log.windows() {
            axis.stretch(&mut reached, window.from, window.to, '▒');
        }
        lines.push(row("back to", &reached));
    }
    lines.join("\n") + "\n"
}

/// The ends of the axis, in UTC.
fn scale(axis: &Axis) -> String {
    let (from, to) = (human::stamp(axis.from), human::stamp(axis.to));
    let room = axis.columns.saturating_sub(from.len() + to.len()).max(1);
    format!("{:NAMES$} {from}{}{to}", "", " ".repeat(room))
}

fn row(name: &str, line: &[char]) -> String {
    let name: String = name.chars().take(NAMES).collect();
    format!("{name:NAMES$} {}", line.iter().collect::<String>()).trim_end().to_owned()
}

/// When a backup's data ends; before that, when it began.
fn moment(backup: &Backup) -> Option<Timestamp> {
    recovery::end(backup).or_else(|| recovery::start(backup)).or_else(|| backup.creation_timestamp().map(|time| time.0))
}

fn sign(backup: &Backup) -> char {
    match follow::backup_phase(backup) {
        Some(BackupPhase::Failed) => '✗',
        Some(BackupPhase::Completed) => match backup.labels().get(labels::BACKUP_TYPE).map(String::as_str) {
            Some("Incremental" | "Differential") => '○',
            _ => '●',
        },
        _ => '…',
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::windows::tests::{objects, running};

    fn drawn(since: Option<&str>, width: usize) -> String {
        let (mut backups, sets) = objects(&running());
        let mut failed = backups[3].clone();
        failed.metadata.name = Some("wednesday".into());
        let status = failed.status.get_or_insert_default();
        status.phase = Some(BackupPhase::Failed);
        status.completion_timestamp = serde_json::from_str("\"2026-01-07T02:00:00Z\"").unwrap();
        backups.push(failed);
        let now = "2026-01-08T06:00:00Z".parse().unwrap();
        let logs = recoverable::of(&backups, &sets);
        picture(&backups, &logs, since.map(|text| text.parse().unwrap()), now, width)
    }

    #[test]
    fn backups_logs_gaps_and_windows_stand_below_each_other() {
        insta::assert_snapshot!(drawn(None, 100));
    }

    #[test]
    fn a_narrow_look_at_the_last_days() {
        insta::assert_snapshot!(drawn(Some("2026-01-06T12:00:00Z"), 60));
    }
}
