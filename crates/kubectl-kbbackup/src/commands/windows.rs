//! `windows`: to which times a source can be brought back.

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    app::App,
    args::OutputArgs,
    commands::list,
    error::{CliError, Result},
    exit::Exit,
    moment,
    output::{Format, Table, human, object},
    recoverable::{self, Recoverable},
    source::{self, Source},
    ui::Ui,
};

/// Show to which times a source can be brought back, oldest first
///
/// A window begins where a full or incremental backup ends, and lasts as long as the log behind it has no hole. Its times
/// can be given to `restore --to-time` as they stand.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup windows
  kubectl kbbackup windows statefulset/pg -o wide
  kubectl kbbackup windows -A -o json")]
pub(crate) struct WindowsArgs {
    /// Only these sources
    pub sources: Vec<String>,

    /// In all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,

    #[command(flatten)]
    pub output: OutputArgs,
}

/// A stretch of time, or a log in which there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    namespace: String,
    source: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    component: String,
    /// RFC 3339, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    /// Seconds from the end of the last window to now, while the log goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    lag_seconds: Option<i64>,
    bases: Vec<String>,
    log_backup: String,
    holes: Vec<Hole>,
    /// Why there is no window.
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
}

/// What a log does not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Hole {
    from: String,
    to: String,
}

pub(crate) async fn run(ui: &Ui, app: &App, args: &WindowsArgs) -> Result<Exit> {
    let mut logs = recoverable::all(app, args.all_namespaces).await?;
    if !args.sources.is_empty() {
        let sources = args.sources.iter().map(|source| Source::parse(source)).collect::<Result<Vec<_>>>()?;
        let policies = source::policies(app).await?;
        for source in &sources {
            if !logs.iter().any(|log| source::is_of(&log.backup, std::slice::from_ref(source), &policies)) {
                let error = none(&app.namespace, &source.to_string());
                return Err(list::no_source(app, source.name(), error).await);
            }
        }
        logs.retain(|log| source::is_of(&log.backup, &sources, &policies));
    }
    let now = Timestamp::now();
    let rows: Vec<Row> = logs.iter().flat_map(|log| rows(log, now)).collect();
    match args.output.format() {
        format @ (Format::Json | Format::Yaml) => {
            let value =
                serde_json::json!({"apiVersion": "cli.kbbackup.io/v1alpha1", "kind": "Windows", "windows": rows});
            ui.result(&object::text(&value, format)?);
        }
        Format::Name => {
            for log in &logs {
                ui.result(&object::name(&log.backup));
            }
        }
        format if !rows.is_empty() => {
            ui.result(&table(&rows, args.all_namespaces, format.is_wide()).to_string());
        }
        _ => {
            let place =
                if args.all_namespaces { "the cluster".to_owned() } else { format!("namespace {}", app.namespace) };
            ui.say(&format!("no log is archived in {place}, so nothing can be brought back to a point in time"));
            ui.hint("kubectl kbbackup schedule create SOURCE --method METHOD --cron \"*/5 * * * *\"");
        }
    }
    Ok(Exit::Done)
}

/// The error of a source without a log.
pub(crate) fn none(namespace: &str, source: &str) -> CliError {
    let what = format!("{source} has no point in time in namespace {namespace}");
    CliError::not_found(what, "no log of it is archived")
        .hint(format!("kubectl kbbackup list --source {source} -n {namespace}"))
}

fn rows(log: &Recoverable, now: Timestamp) -> Vec<Row> {
    let holes: Vec<Hole> =
        log.log.gaps.iter().map(|gap| Hole { from: human::stamp(gap.start), to: human::stamp(gap.end) }).collect();
    let row = Row {
        namespace: log.namespace(),
        source: log.source.clone(),
        component: log.component.clone(),
        from: None,
        to: None,
        lag_seconds: None,
        bases: Vec::new(),
        log_backup: log.log.name.clone(),
        holes,
        reason: String::new(),
    };
    let windows = log.windows();
    if windows.is_empty() {
        let reason = log.trouble.clone().unwrap_or_else(|| why_none(log));
        return vec![Row { reason, ..row }];
    }
    let last = windows.len() - 1;
    let one = |(index, window): (usize, recoverable::Window)| Row {
        from: Some(human::stamp(moment::up(window.from))),
        to: Some(human::stamp(window.to)),
        lag_seconds: (index == last && log.is_running()).then(|| now.duration_since(window.to).as_secs().max(0)),
        bases: window.bases,
        ..row.clone()
    };
    windows.into_iter().enumerate().map(one).collect()
}

fn why_none(log: &Recoverable) -> String {
    if log.log.start.is_none() || log.log.end.is_none() {
        "its archiver has stored nothing yet".to_owned()
    } else if log.bases.iter().any(|base| base.completed) {
        "no full backup ends inside the log".to_owned()
    } else {
        "there is no completed full backup".to_owned()
    }
}

fn table(rows: &[Row], namespaces: bool, wide: bool) -> Table {
    let mut header = vec!["SOURCE", "COMPONENT", "FROM", "TO", "LAG", "BASE", "LOG-BACKUP"];
    if namespaces {
        header.insert(0, "NAMESPACE");
    }
    if wide {
        header.extend(["BASES", "HOLES", "REASON"]);
    }
    let mut table = Table::new(header);
    for row in rows {
        let lag = row.lag_seconds.map(|seconds| human::span(jiff::SignedDuration::from_secs(seconds)));
        let mut cells = vec![
            row.source.clone(),
            row.component.clone(),
            row.from.clone().unwrap_or_default(),
            row.to.clone().unwrap_or_default(),
            lag.unwrap_or_default(),
            row.bases.first().cloned().unwrap_or_default(),
            row.log_backup.clone(),
        ];
        if namespaces {
            cells.insert(0, row.namespace.clone());
        }
        if wide {
            let holes: Vec<String> = row.holes.iter().map(|hole| format!("{}..{}", hole.from, hole.to)).collect();
            cells.extend([row.bases.join(","), holes.join(","), row.reason.clone()]);
        }
        table.row(cells);
    }
    table
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use kbbackup_api::{
        names::labels,
        v1alpha1::{ActionSet, Backup},
    };
    use serde_json::{Value, json};

    fn backup(name: &str, kind: &str, status: &Value) -> Backup {
        serde_json::from_value(json!({
            "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "Backup",
            "metadata": {"name": name, "namespace": "demo", "labels": {labels::BACKUP_TYPE: kind, labels::WORKLOAD_NAME: "pg"}},
            "spec": {"backupPolicyName": "pg", "backupMethod": "m"}, "status": status
        }))
        .unwrap()
    }

    pub(crate) fn objects(wal: &Value) -> (Vec<Backup>, Vec<ActionSet>) {
        let set: ActionSet = serde_json::from_value(json!({
            "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "ActionSet", "metadata": {"name": "wal"},
            "spec": {"backupType": "Continuous"}
        }))
        .unwrap();
        let full =
            |name: &str, end: &str| backup(name, "Full", &json!({"phase": "Completed", "completionTimestamp": end}));
        let backups = vec![
            full("before", "2026-01-01T00:00:00Z"),
            full("monday", "2026-01-05T02:10:00.5Z"),
            full("tuesday", "2026-01-06T02:10:00Z"),
            full("thursday", "2026-01-08T02:10:00Z"),
            backup("pg-wal", "Continuous", wal),
        ];
        (backups, vec![set])
    }

    pub(crate) fn logs(wal: &Value) -> Vec<Recoverable> {
        let (backups, sets) = objects(wal);
        recoverable::of(&backups, &sets)
    }

    pub(crate) fn running() -> Value {
        json!({"phase": "Running", "backupMethod": {"name": "wal", "actionSetName": "wal"},
            "timeRange": {"start": "2026-01-04T00:00:00Z", "end": "2026-01-08T05:59:30Z"},
            "extras": [{"gapStart": "2026-01-07T01:00:00Z", "gapEnd": "2026-01-07T03:00:00Z"}]})
    }

    fn now() -> Timestamp {
        "2026-01-08T06:00:00Z".parse().unwrap()
    }

    #[test]
    fn windows_begin_at_bases_and_end_at_holes() {
        let rows: Vec<Row> = logs(&running()).iter().flat_map(|log| rows(log, now())).collect();
        insta::assert_snapshot!(table(&rows, true, true));
        insta::assert_json_snapshot!(rows);
    }

    #[test]
    fn a_log_without_a_window_says_why() {
        let reason = |status: &Value| rows(&logs(status)[0], now())[0].reason.clone();
        let mut status = running();
        status["timeRange"] = json!({});
        status["extras"] = json!([]);
        assert_eq!(reason(&status), "its archiver has stored nothing yet");
        status["timeRange"] = json!({"start": "2026-02-01T00:00:00Z", "end": "2026-02-02T00:00:00Z"});
        assert_eq!(reason(&status), "no full backup ends inside the log");
        status["backupMethod"] = json!({"name": "wal", "actionSetName": "gone"});
        assert_eq!(reason(&status), "actionset/gone does not exist");
    }
}
