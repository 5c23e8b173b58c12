//! `delete`: says what else becomes unusable, and waits until the data is gone.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use clap::Args;
use jiff::Timestamp;
use kbbackup_api::{
    names::{FINALIZER, TRUE, annotations},
    v1alpha1::{ActionSet, Backup, BackupPhase, DeletionPolicy, Restore, RestorePhase},
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
};

use super::list::backup;
use crate::{
    app::{App, list_all},
    args::{DryRun, WaitArgs, duration},
    ask,
    error::{CliError, Doing, Result},
    exit::Exit,
    follow,
    output::human,
    recoverable::{self, Recoverable, Window},
    source::{self, Source},
    ui::Ui,
    wait::{self, Seen, Waiting},
};

/// Delete backups, and their data unless their deletion policy is Retain
///
/// Says what else becomes unusable, asks, and waits until the data is gone.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup delete pg-full-20260102030405
  kubectl kbbackup delete one two --yes --timeout 5m
  kubectl kbbackup delete --source statefulset/pg --all
  kubectl kbbackup delete one --dry-run")]
#[allow(clippy::struct_excessive_bools)] // each is a flag
pub(crate) struct DeleteArgs {
    /// Backups to delete
    pub names: Vec<String>,

    /// All backups of this source, with --all
    #[arg(long, value_name = "SOURCE", conflicts_with = "names", requires = "all")]
    pub source: Option<String>,

    /// All backups with these labels
    #[arg(short = 'l', long, value_name = "LABELS", conflicts_with = "names")]
    pub selector: Option<String>,

    /// Everything that was selected; without a selection every backup of the namespace
    #[arg(long, conflicts_with = "names")]
    pub all: bool,

    /// Delete backups that build on them as well
    #[arg(long)]
    pub cascade: bool,

    /// Don't ask
    #[arg(short, long)]
    pub yes: bool,

    /// Only say what would go
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_value = "none", default_missing_value = "client", hide_default_value = true, hide_possible_values = true, value_name = "WHERE")]
    pub dry_run: DryRun,

    /// Don't wait for the data to be gone, with --wait=false
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", value_name = "BOOL", hide_possible_values = true)]
    pub wait: bool,

    /// Stop waiting after this time; 0 is no limit
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<Duration>,
}

pub(crate) async fn run(ui: &Ui, app: &App, args: &DeleteArgs) -> Result<Exit> {
    let api = app.here::<Backup>();
    let all = list_all(&api, ListParams::default(), "backups").await?;
    let mut chosen = choose(app, args, &all).await?;
    if chosen.is_empty() {
        ui.say("no such backups");
        return Ok(Exit::Done);
    }
    let children = dependants(&chosen, &all);
    let now = Timestamp::now();
    if args.dry_run != DryRun::None {
        for backup in chosen.iter().chain(&children) {
            ui.result(&line(backup, now));
        }
    }
    if !children.is_empty() {
        if !args.cascade {
            let names: Vec<String> = children.iter().map(ResourceExt::name_any).collect();
            return Err(CliError::usage(
                format!("{} cannot be deleted", subject(&chosen)),
                format!("{} build on it", names.join(", ")),
            )
            .hint("add --cascade to delete those as well"));
        }
        chosen.extend(children);
    }
    in_use(app, &chosen).await?;
    for backup in chosen.iter().filter(|_| args.dry_run == DryRun::None) {
        ui.say(&line(backup, now));
    }
    let sets = list_all(&app.everywhere::<ActionSet>(), ListParams::default(), "action sets").await.unwrap_or_default();
    for warning in last_ones(&chosen, &all).into_iter().chain(lost_windows(&chosen, &all, &sets)) {
        ui.warn(&warning);
    }
    if args.dry_run != DryRun::None {
        return Ok(Exit::Done);
    }
    let many = !args.names.is_empty() && args.names.len() == 1 && chosen.len() == 1;
    let count = chosen.len().to_string();
    let word = (!many).then_some(count.as_str());
    ask::confirm(ui, args.yes, &format!("Delete {}?", subject(&chosen)), word)?;
    // Newest first: what builds on another goes before it.
    chosen.sort_by_key(|backup| std::cmp::Reverse(backup.creation_timestamp().map(|time| time.0)));
    let done = |backup: &Backup, how: &str| {
        ui.result(&format!("backup.dataprotection.kubeblocks.io/{} {how}", backup.name_any()));
    };
    if args.wait {
        let wait = WaitArgs { wait: Some(true), timeout: args.timeout };
        erase(ui, app, &chosen, wait.limit(), |backup| done(backup, "deleted")).await?;
    } else {
        for backup in &chosen {
            request(&api, backup).await?;
            done(backup, "deletion requested");
        }
    }
    Ok(Exit::Done)
}

async fn choose(app: &App, args: &DeleteArgs, all: &[Backup]) -> Result<Vec<Backup>> {
    if !args.names.is_empty() {
        let mut chosen = Vec::new();
        for name in &args.names {
            chosen.push(backup(app, name).await?);
        }
        return Ok(chosen);
    }
    if args.source.is_none() && args.selector.is_none() && !args.all {
        return Err(CliError::usage("nothing was named", "name backups, or select them with -l or --source and --all"));
    }
    // Each of the two narrows what the other one selects.
    let mut chosen = match &args.selector {
        Some(selector) => list_all(&app.here::<Backup>(), ListParams::default().labels(selector), "backups").await?,
        None => all.to_vec(),
    };
    if let Some(source) = &args.source {
        let (sources, policies) = ([Source::parse(source)?], source::policies(app).await?);
        chosen.retain(|backup| source::is_of(backup, &sources, &policies));
    }
    Ok(chosen)
}

fn subject(backups: &[Backup]) -> String {
    match backups {
        [only] => format!("backup/{}", only.name_any()),
        several => human::count(several.len(), "backup", "backups"),
    }
}

/// Backups that need one of the chosen ones, not being chosen themselves.
fn dependants(chosen: &[Backup], all: &[Backup]) -> Vec<Backup> {
    let mut gone: Vec<String> = chosen.iter().map(ResourceExt::name_any).collect();
    let mut found = Vec::new();
    loop {
        let more: Vec<&Backup> = all
            .iter()
            .filter(|backup| !gone.contains(&backup.name_any()))
            .filter(|backup| follow::parents(backup).iter().any(|parent| gone.contains(parent)))
            .collect();
        if more.is_empty() {
            return found;
        }
        gone.extend(more.iter().map(|backup| backup.name_any()));
        found.extend(more.into_iter().cloned());
    }
}

/// A backup that a restore is reading stays.
async fn in_use(app: &App, chosen: &[Backup]) -> Result<()> {
    let restores = list_all(&app.here::<Restore>(), ListParams::default(), "restores").await.unwrap_or_default();
    let reading = restores.iter().find(|restore| {
        let phase = restore.status.as_ref().and_then(|status| status.phase);
        !matches!(phase, Some(RestorePhase::Completed | RestorePhase::Failed))
            && chosen.iter().any(|backup| {
                backup.name_any() == restore.spec.backup.name
                    && backup.namespace().as_ref() == Some(&restore.spec.backup.namespace)
            })
    });
    match reading {
        None => Ok(()),
        Some(restore) => Err(CliError::usage(
            format!("backup/{} is in use", restore.spec.backup.name),
            format!("restore/{} is reading it", restore.name_any()),
        )
        .hint(format!("kubectl kbbackup restores describe {}{}", restore.name_any(), app.namespace_flag()))),
    }
}

fn line(backup: &Backup, now: Timestamp) -> String {
    let size = backup
        .status
        .as_ref()
        .and_then(|status| status.total_size.as_deref())
        .map_or_else(|| "no size".to_owned(), human::size);
    let fate = match backup.spec.deletion_policy {
        DeletionPolicy::Delete => "its data is erased",
        DeletionPolicy::Retain => "its data stays in the repository",
    };
    format!(
        "backup/{}  of {}, {}, {size}, {}: {fate}",
        backup.name_any(),
        source::of_backup(backup),
        super::list::shown_status(backup),
        human::ago(backup.creation_timestamp().as_ref(), now),
    )
}

/// A source that would be left without any good backup.
fn last_ones(chosen: &[Backup], all: &[Backup]) -> Vec<String> {
    let good = |backup: &Backup| follow::backup_phase(backup) == Some(BackupPhase::Completed);
    let mut sources: Vec<String> = chosen.iter().filter(|backup| good(backup)).map(source::of_backup).collect();
    sources.sort();
    sources.dedup();
    sources
        .into_iter()
        .filter(|name| {
            !all.iter().any(|backup| {
                good(backup)
                    && source::of_backup(backup) == *name
                    && !chosen.iter().any(|gone| gone.name_any() == backup.name_any())
            })
        })
        .map(|name| format!("{name} has no other completed backup in this namespace"))
        .collect()
}

/// Points in time that could be reached and would not be any more: with the windows before and after.
fn lost_windows(chosen: &[Backup], all: &[Backup], sets: &[ActionSet]) -> Vec<String> {
    let gone: BTreeSet<String> = chosen.iter().map(ResourceExt::name_any).collect();
    let kept: Vec<Backup> = all.iter().filter(|backup| !gone.contains(&backup.name_any())).cloned().collect();
    let after = recoverable::of(&kept, sets);
    let told = |log: Option<&Recoverable>| {
        let windows = log.map(Recoverable::windows).unwrap_or_default();
        let stretches = windows.iter().map(Window::text);
        if windows.is_empty() { "no time at all".to_owned() } else { stretches.collect::<Vec<_>>().join(", ") }
    };
    recoverable::of(all, sets)
        .iter()
        .filter(|before| !before.windows().is_empty())
        .filter_map(|before| {
            let left = after.iter().find(|left| left.log.name == before.log.name);
            let (was, is) = (told(Some(before)), told(left));
            let source = &before.source;
            (was != is).then(|| format!("{source} can be brought back to {was} now, and to {is} afterwards"))
        })
        .collect()
}

async fn request(api: &Api<Backup>, backup: &Backup) -> Result<()> {
    let name = backup.name_any();
    match api.delete(&name, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other.map(|_| ()).doing(|| format!("backup/{name} cannot be deleted")),
    }
}

/// Requests the deletion of all of them, in this order, and then waits until the objects, and with them the data, are gone:
/// whatever ends the waiting, what was confirmed goes on. The limit is for all of it.
pub(crate) async fn erase(
    ui: &Ui,
    app: &App,
    backups: &[Backup],
    limit: Option<Duration>,
    gone: impl Fn(&Backup),
) -> Result<()> {
    let api = |backup: &Backup| app.within::<Backup>(&backup.namespace().unwrap_or_default());
    for backup in backups {
        request(&api(backup), backup).await?;
    }
    let end = limit.map(|limit| Instant::now() + limit);
    for backup in backups {
        let name = backup.name_any();
        let what = format!("backup/{name}");
        let limit = end.map(|end| end.saturating_duration_since(Instant::now()));
        let hints = vec![format!("kubectl kbbackup describe {name}")];
        let waiting = Waiting { what: &what, limit, hints };
        let uid = backup.uid();
        wait::until(ui, api(backup), &name, &waiting, |seen: Option<&Backup>| match seen {
            Some(seen) if seen.uid() == uid => Seen::Going(deleting(seen)),
            _ => Seen::End(()),
        })
        .await?;
        gone(backup);
    }
    Ok(())
}

/// What still holds a backup that is being deleted.
fn deleting(backup: &Backup) -> String {
    let name = backup.name_any();
    let reason = backup
        .status
        .as_ref()
        .and_then(|status| status.deletion_failure_reason.clone())
        .filter(|reason| !reason.is_empty());
    if let Some(reason) = reason {
        return format!("backup/{name}: {}", reason.lines().next().unwrap_or_default());
    }
    if backup.annotations().get(annotations::SKIP_RECONCILIATION).is_some_and(|value| value.eq_ignore_ascii_case(TRUE))
    {
        return format!("backup/{name}: held by annotation {}", annotations::SKIP_RECONCILIATION);
    }
    let others: Vec<&str> =
        backup.finalizers().iter().map(String::as_str).filter(|finalizer| *finalizer != FINALIZER).collect();
    if others.is_empty() {
        format!("backup/{name}: removing its data")
    } else {
        format!("backup/{name}: held by {}", others.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn backup(name: &str, parent: Option<&str>, phase: &str) -> Backup {
        serde_json::from_value(json!({
            "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "Backup", "metadata": {"name": name},
            "spec": {"backupPolicyName": "pg", "backupMethod": "full"},
            "status": {"phase": phase, "parentBackupName": parent}
        }))
        .unwrap()
    }

    #[test]
    fn everything_that_builds_on_a_backup_is_found() {
        let all = [
            backup("full", None, "Completed"),
            backup("one", Some("full"), "Completed"),
            backup("two", Some("one"), "Completed"),
            backup("other", None, "Completed"),
        ];
        let names: Vec<String> = dependants(&all[..1], &all).iter().map(ResourceExt::name_any).collect();
        assert_eq!(names, ["one", "two"]);
        assert!(dependants(&all[3..], &all).is_empty());
    }

    #[test]
    fn the_last_good_backup_is_warned_about() {
        let all = [backup("good", None, "Completed"), backup("bad", None, "Failed")];
        assert_eq!(last_ones(&all[..1], &all).len(), 1);
        assert!(last_ones(&all[1..], &all).is_empty());
    }

    #[test]
    fn a_base_that_goes_takes_its_window_along() {
        let (all, sets) = crate::commands::windows::tests::objects(&crate::commands::windows::tests::running());
        let named = |name: &str| all.iter().filter(|backup| backup.name_any() == name).cloned().collect::<Vec<_>>();
        let told = lost_windows(&named("thursday"), &all, &sets);
        assert_eq!(
            told,
            ["pg can be brought back to 2026-01-05T02:10:01Z to 2026-01-07T01:00:00Z, 2026-01-08T02:10:00Z to \
              2026-01-08T05:59:30Z now, and to 2026-01-05T02:10:01Z to 2026-01-07T01:00:00Z afterwards"]
        );
        // Another base of the same stretch is there.
        assert!(lost_windows(&named("tuesday"), &all, &sets).is_empty());
        let log = lost_windows(&named("pg-wal"), &all, &sets);
        assert!(log[0].ends_with("and to no time at all afterwards"), "{log:?}");
    }
}
