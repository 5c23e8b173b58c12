//! `list`.

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use kbbackup_api::{
    names::labels,
    v1alpha1::{Backup, BackupPhase, BackupPolicy, BackupType},
};
use kube::{ResourceExt, api::ListParams};

use crate::{
    app::{App, PAGE, each_page, get},
    args::{OutputArgs, SelectArgs, retention, words},
    error::{CliError, Result},
    exit::Exit,
    follow,
    output::{Spool, Table, human, object},
    rows,
    source::{self, Source},
    ui::Ui,
};

/// List backups, newest first
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup list
  kubectl kbbackup list -A -o wide
  kubectl kbbackup list --source statefulset/pg --status Completed --since 7d
  kubectl kbbackup list -o name")]
pub(crate) struct ListArgs {
    /// Only these backups
    pub names: Vec<String>,

    /// Only backups of this source; may be repeated
    #[arg(long, value_name = "SOURCE")]
    pub source: Vec<String>,

    /// Only backups by this method
    #[arg(long)]
    pub method: Option<String>,

    /// Full, Incremental, Differential, Continuous or Selective
    #[arg(long = "type", value_name = "TYPE", value_parser = words::<BackupType>(BackupType::WORDS), hide_possible_values = true)]
    pub backup_type: Option<BackupType>,

    /// Completed, Failed, Running, …
    #[arg(long, value_name = "PHASE", value_parser = words::<BackupPhase>(BackupPhase::WORDS), hide_possible_values = true)]
    pub status: Option<BackupPhase>,

    /// Only backups in this repository
    #[arg(long, value_name = "NAME")]
    pub repo: Option<String>,

    /// Only backups not older than this, such as 7d
    #[arg(long, value_name = "TIME", value_parser = retention)]
    pub since: Option<String>,

    #[command(flatten)]
    pub select: SelectArgs,

    #[command(flatten)]
    pub output: OutputArgs,
}

pub(crate) async fn run(ui: &Ui, app: &App, args: &ListArgs) -> Result<Exit> {
    args.select.beside(&args.names)?;
    let filter = Filter::new(app, args).await?;
    if args.output.format().is_object() {
        return objects(ui, app, args, &filter).await;
    }
    let (namespaces, wide) = (args.select.all_namespaces, args.output.format().is_wide());
    let mut lines = Vec::new();
    let add = |page: Vec<Backup>| {
        lines
            .extend(page.iter().filter(|one| filter.keeps(one)).map(|one| Line::of(one, namespaces, wide, filter.now)));
    };
    visit(ui, app, args, Parts::Rows { wide }, add).await?;
    if lines.is_empty() {
        let place = if namespaces { "the cluster".to_owned() } else { format!("namespace {}", app.namespace) };
        ui.say(&format!("no such backups in {place}"));
    } else {
        ui.result(&table(lines, namespaces, wide).to_string());
    }
    Ok(Exit::Done)
}

/// Programs get the objects themselves, in the same order.
async fn objects(ui: &Ui, app: &App, args: &ListArgs, filter: &Filter) -> Result<Exit> {
    let (format, managed) = (args.output.format(), args.output.show_managed_fields);
    if args.names.len() == 1 {
        let backups = named(app, &args.names).await?;
        let kept: Vec<Backup> = backups.into_iter().filter(|one| filter.keeps(one)).collect();
        ui.result(&object::render(&kept, true, format, managed)?);
        return Ok(Exit::Done);
    }
    let mut spool = Spool::new(format)?;
    let mut spooled = Ok(());
    visit(ui, app, args, Parts::Objects, |page| {
        for backup in page.iter().filter(|one| filter.keeps(one)) {
            let added = object::shown(backup, managed)
                .and_then(|value| spool.add(order(backup), &object::name(backup), &value));
            if spooled.is_ok() {
                spooled = added;
            }
        }
    })
    .await?;
    spooled?;
    ui.long_result(|out| spool.write(out))?;
    Ok(Exit::Done)
}

/// Newest first, then by name.
fn order(backup: &Backup) -> (std::cmp::Reverse<Option<Timestamp>>, String) {
    (std::cmp::Reverse(backup.creation_timestamp().map(|time| time.0)), backup.name_any())
}

/// How much of a backup is wanted.
#[derive(Clone, Copy)]
enum Parts {
    Objects,
    /// What a line of the table shows.
    Rows {
        wide: bool,
    },
}

/// The named backups, or all of them page by page: of thousands only their lines are kept.
async fn visit(ui: &Ui, app: &App, args: &ListArgs, parts: Parts, mut visit: impl FnMut(Vec<Backup>)) -> Result<()> {
    if !args.names.is_empty() {
        visit(named(app, &args.names).await?);
        return Ok(());
    }
    let mut selectors: Vec<String> = args.select.selector.iter().cloned().collect();
    selectors.extend(args.repo.as_ref().map(|repo| format!("{}={repo}", labels::BACKUP_REPO_NAME)));
    selectors.extend(args.backup_type.map(|kind| format!("{}={kind}", labels::BACKUP_TYPE)));
    let mut params = ListParams::default();
    if !selectors.is_empty() {
        params = params.labels(&selectors.join(","));
    }
    ui.progress_if_live("reading backups");
    let mut read = 0;
    let told = |page: Vec<Backup>| {
        read += page.len();
        // The newest comes first, so nothing can be shown before everything is read.
        if read >= PAGE as usize {
            ui.progress_if_live(&format!("{read} backups so far"));
        }
        visit(page);
    };
    let all = args.select.all_namespaces;
    match parts {
        Parts::Objects => each_page(&app.scoped::<Backup>(all), params, "backups", told).await,
        Parts::Rows { wide } => rows::each_page(app, all, wide, params, told).await,
    }
}

async fn named(app: &App, names: &[String]) -> Result<Vec<Backup>> {
    let mut backups = Vec::new();
    for name in names {
        backups.push(backup(app, name).await?);
    }
    Ok(backups)
}

/// A backup by name. A source in its place is recognised and said.
pub(crate) async fn backup(app: &App, name: &str) -> Result<Backup> {
    let plain = name.strip_prefix("backup/").unwrap_or(name);
    match get(&app.here::<Backup>(), &format!("backup/{plain}")).await {
        Err(error) if error.exit == Exit::NotFound => {
            let flag = app.namespace_flag();
            let error = CliError::not_found(
                format!("backup/{plain} does not exist in namespace {}", app.namespace),
                "no such backup",
            );
            let as_source = Source::parse(name)?;
            let policies = source::policies(app).await.unwrap_or_default();
            if source::matching(&policies, &as_source, None).is_empty() {
                Err(error.hint(format!("kubectl kbbackup list{flag}")))
            } else {
                Err(CliError::not_found(error.what, format!("{plain} is a source, and this command wants a backup"))
                    .hint(format!("kubectl kbbackup list --source {plain}{flag}")))
            }
        }
        other => other,
    }
}

/// The error about a source that was not found. A backup in its place is recognised and said.
pub(crate) async fn no_source(app: &App, name: &str, error: CliError) -> CliError {
    let name = name.strip_prefix("backup/").unwrap_or(name);
    let found = if name.contains('/') { None } else { app.here::<Backup>().get_opt(name).await.ok().flatten() };
    let Some(backup) = found else { return error };
    let source = source::of_backup(&backup);
    CliError::not_found(error.what, format!("{name} is a backup of {source}, and this command wants a source"))
        .hint(format!("kubectl kbbackup describe {name}"))
}

/// What the flags ask for beside what the server can select.
struct Filter {
    now: Timestamp,
    method: Option<String>,
    status: Option<BackupPhase>,
    /// The server selects by these two as well, but not what is named.
    repo: Option<String>,
    kind: Option<BackupType>,
    oldest: Option<Timestamp>,
    sources: Vec<Source>,
    policies: Vec<BackupPolicy>,
}

impl Filter {
    async fn new(app: &App, args: &ListArgs) -> Result<Self> {
        let sources = args.source.iter().map(|source| Source::parse(source)).collect::<Result<Vec<_>>>()?;
        let policies = if sources.is_empty() { Vec::new() } else { source::policies(app).await? };
        Ok(Self { sources, policies, ..Self::of(args, Timestamp::now()) })
    }

    fn of(args: &ListArgs, now: Timestamp) -> Self {
        let since = args.since.as_deref().and_then(|text| kbbackup_core::retention::RetentionPeriod::parse(text).ok());
        let oldest = since
            .and_then(|period| now.checked_sub(SignedDuration::from_secs(i64::try_from(period.seconds()).ok()?)).ok());
        let (method, status) = (args.method.clone(), args.status);
        let (repo, kind) = if args.names.is_empty() { (None, None) } else { (args.repo.clone(), args.backup_type) };
        Self { now, method, status, repo, kind, oldest, sources: Vec::new(), policies: Vec::new() }
    }

    fn keeps(&self, backup: &Backup) -> bool {
        self.method.as_ref().is_none_or(|method| backup.spec.backup_method == *method)
            && self.repo.as_ref().is_none_or(|repo| backup.labels().get(labels::BACKUP_REPO_NAME) == Some(repo))
            && self
                .kind
                .is_none_or(|kind| backup.labels().get(labels::BACKUP_TYPE).is_some_and(|label| label == kind.as_str()))
            && self.status.is_none_or(|phase| follow::backup_phase(backup) == Some(phase))
            && self.oldest.is_none_or(|oldest| backup.creation_timestamp().is_some_and(|time| time.0 >= oldest))
            && source::is_of(backup, &self.sources, &self.policies)
    }
}

/// A line of the table, and its place.
struct Line {
    place: (std::cmp::Reverse<Option<Timestamp>>, String),
    cells: Vec<String>,
}

impl Line {
    fn of(backup: &Backup, namespaces: bool, wide: bool, now: Timestamp) -> Self {
        let mut cells = cells(backup, now);
        if namespaces || wide {
            cells.insert(0, backup.namespace().unwrap_or_default());
        }
        if wide {
            cells.extend(more_cells(backup));
        }
        Self { place: order(backup), cells }
    }
}

fn cells(backup: &Backup, now: Timestamp) -> Vec<String> {
    let status = backup.status.as_ref();
    vec![
        backup.name_any(),
        source::of_backup(backup),
        backup.spec.backup_method.clone(),
        backup.labels().get(labels::BACKUP_TYPE).cloned().unwrap_or_default(),
        shown_status(backup),
        status.and_then(|status| status.total_size.as_deref()).map(human::size).unwrap_or_default(),
        duration(backup, now),
        human::age(backup.creation_timestamp().as_ref(), now),
        human::until(status.and_then(|status| status.expiration.as_ref()), now),
    ]
}

fn more_cells(backup: &Backup) -> [String; 7] {
    let status = backup.status.clone().unwrap_or_default();
    let parent = status.parent_backup_name.or_else(|| backup.spec.parent_backup_name.clone());
    [
        status.backup_repo_name.unwrap_or_default(),
        backup.spec.backup_policy_name.clone(),
        backup.spec.deletion_policy.to_string(),
        parent.unwrap_or_default(),
        human::utc(status.start_timestamp.as_ref()),
        human::utc(status.completion_timestamp.as_ref()),
        short_reason(backup),
    ]
}

fn table(mut lines: Vec<Line>, namespaces: bool, wide: bool) -> Table {
    let mut header = vec!["NAME", "SOURCE", "METHOD", "TYPE", "STATUS", "SIZE", "DURATION", "AGE", "EXPIRES"];
    if namespaces || wide {
        header.insert(0, "NAMESPACE");
    }
    if wide {
        header.extend(["REPO", "POLICY", "DELETION", "PARENT", "STARTED", "COMPLETED", "REASON"]);
    }
    lines.sort_by(|a, b| a.place.cmp(&b.place));
    let mut table = Table::new(header);
    for line in lines {
        table.row(line.cells);
    }
    table
}

/// The phase; for continuous backups with the number of pods that run.
pub(crate) fn shown_status(backup: &Backup) -> String {
    if backup.metadata.deletion_timestamp.is_some() {
        return BackupPhase::Deleting.to_string();
    }
    let phase = follow::backup_phase(backup).map_or_else(|| "New".to_owned(), |phase| phase.to_string());
    if !follow::is_continuous(backup) {
        return phase;
    }
    let pods: i32 =
        backup.status.iter().flat_map(|status| &status.actions).filter_map(|action| action.available_replicas).sum();
    format!("{phase} ({})", human::count(usize::try_from(pods).unwrap_or(0), "pod", "pods"))
}

/// How long it took, or has been running.
pub(crate) fn duration(backup: &Backup, now: Timestamp) -> String {
    let Some(status) = &backup.status else { return String::new() };
    let Some(start) = &status.start_timestamp else { return String::new() };
    match (&status.completion_timestamp, status.phase) {
        (Some(end), _) => human::span(end.0.duration_since(start.0)),
        (None, Some(BackupPhase::Running)) => human::span(now.duration_since(start.0)),
        _ => status.duration.clone().unwrap_or_default(),
    }
}

fn short_reason(backup: &Backup) -> String {
    let status = backup.status.as_ref();
    let deletion = status.and_then(|status| status.deletion_failure_reason.clone());
    let reason = deletion.unwrap_or_else(|| follow::backup_reason(backup));
    let line = reason.lines().next().unwrap_or_default();
    if line.chars().count() > 60 { line.chars().take(59).collect::<String>() + "…" } else { line.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn backup() -> Backup {
        serde_json::from_value(json!({
            "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "Backup",
            "metadata": {"name": "pg-full-20260102030405", "namespace": "demo", "creationTimestamp": "2026-01-02T03:04:05Z",
                "labels": {labels::BACKUP_TYPE: "Full", labels::INSTANCE: "pg"}},
            "spec": {"backupPolicyName": "pg", "backupMethod": "full", "deletionPolicy": "Delete"},
            "status": {"phase": "Completed", "totalSize": "4404019", "backupRepoName": "embedded",
                "startTimestamp": "2026-01-02T03:04:05Z", "completionTimestamp": "2026-01-02T03:06:13Z",
                "expiration": "2026-01-09T03:06:13Z"}
        }))
        .unwrap()
    }

    fn now() -> Timestamp {
        "2026-01-02T06:04:05Z".parse().unwrap()
    }

    fn shown(backups: &[Backup], wide: bool) -> Table {
        table(backups.iter().map(|one| Line::of(one, false, wide, now())).collect(), false, wide)
    }

    #[test]
    fn the_table_for_people() {
        insta::assert_snapshot!(shown(&[backup()], false));
    }

    #[test]
    fn the_wide_table() {
        insta::assert_snapshot!(shown(&[backup()], true));
    }

    #[test]
    fn the_newest_comes_first_and_names_decide_between_equals() {
        let named = |name: &str, at: &str| {
            let mut one = backup();
            one.metadata.name = Some(name.to_owned());
            one.metadata.creation_timestamp = serde_json::from_value(json!(at)).unwrap();
            one
        };
        let (old, new) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        let text = shown(&[named("a", old), named("c", new), named("b", new)], false).to_string();
        let names: Vec<&str> = text.lines().skip(1).filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(names, ["b", "c", "a"]);
    }

    #[test]
    fn filters_join() {
        let day = ListArgs { since: Some("1d".into()), status: Some(BackupPhase::Completed), ..ListArgs::default() };
        assert!(Filter::of(&day, now()).keeps(&backup()));
        let hour = ListArgs { since: Some("1h".into()), ..ListArgs::default() };
        assert!(!Filter::of(&hour, now()).keeps(&backup()));
        let failed = ListArgs { status: Some(BackupPhase::Failed), ..ListArgs::default() };
        assert!(!Filter::of(&failed, now()).keeps(&backup()));
        let named = |kind| ListArgs { names: vec!["x".into()], backup_type: Some(kind), ..ListArgs::default() };
        assert!(Filter::of(&named(BackupType::Full), now()).keeps(&backup()));
        assert!(!Filter::of(&named(BackupType::Incremental), now()).keeps(&backup()));
        let elsewhere = ListArgs { names: vec!["x".into()], repo: Some("other".into()), ..ListArgs::default() };
        assert!(!Filter::of(&elsewhere, now()).keeps(&backup()));
        let sources = vec![Source::parse("statefulset/other").unwrap()];
        assert!(!Filter { sources, ..Filter::of(&ListArgs::default(), now()) }.keeps(&backup()));
    }
}
