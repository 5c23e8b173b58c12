//! `backup`.

pub(crate) mod check;
mod choose;

use clap::Args;
use jiff::Timestamp;
use kbbackup_api::{
    names::labels,
    v1alpha1::{Backup, DeletionPolicy},
};
use kube::ResourceExt;

use crate::{
    app::{App, check_name, get},
    args::{DryRun, WaitArgs, WriteArgs, pair, retention, words},
    build::backup::{self as build, Wish},
    commands::{logs, policy, repo},
    diagnose,
    error::{CliError, Result},
    exit::Exit,
    follow::{self, Ending},
    manifest::{self, How, Manifest},
    output::human,
    source,
    ui::{Mark, Ui},
    wait::{self, Waiting},
};

/// Back up a database now
///
/// SOURCE is a StatefulSet (statefulset/pg), a policy (policy/pg) or just a name. A StatefulSet without a policy gets
/// one first. Creates a Backup and prints its name; with --wait, follows it to its end and exits with its result.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup backup statefulset/pg --wait
  kubectl kbbackup backup statefulset/pg --retention 7d --name before-upgrade --wait --timeout 30m
  kubectl kbbackup backup policy/pg --method full --param checkpoint=spread
  kubectl kbbackup backup statefulset/pg --dry-run -o yaml")]
pub(crate) struct BackupArgs {
    /// What to back up
    pub source: Option<String>,

    /// Name of the backup [default: source, method and time]
    #[arg(long)]
    pub name: Option<String>,

    /// Method of the policy [default: its first full one]
    #[arg(short, long)]
    pub method: Option<String>,

    /// Policy, when the source has several
    #[arg(short, long)]
    pub policy: Option<String>,

    /// Parent of an incremental backup
    #[arg(long, value_name = "BACKUP")]
    pub parent: Option<String>,

    /// Delete it after this time, such as 7d or 1mo
    #[arg(long, value_name = "TIME", value_parser = retention)]
    pub retention: Option<String>,

    /// Keep it until it is deleted by hand
    #[arg(long, conflicts_with = "retention")]
    pub keep: bool,

    /// Whether the data goes with the Backup object: Delete or Retain
    #[arg(long, default_value = "Delete", value_name = "POLICY", value_parser = words::<DeletionPolicy>(DeletionPolicy::WORDS), hide_possible_values = true)]
    pub deletion_policy: DeletionPolicy,

    /// Parameter of the method; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub param: Vec<(String, String)>,

    /// Label of the backup; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub label: Vec<(String, String)>,

    #[command(flatten)]
    pub wait: WaitArgs,

    /// Show the log of the backup while waiting
    #[arg(long)]
    pub follow_logs: bool,

    /// Don't ask; make a policy where there is none
    #[arg(short, long)]
    pub yes: bool,

    #[command(flatten)]
    pub write: WriteArgs,

    /// Annotations, from commands that make a backup in their turn
    #[arg(skip)]
    pub notes: Vec<(String, String)>,
}

pub(crate) async fn run(ui: &Ui, app: &App, args: &BackupArgs) -> Result<Exit> {
    args.write.without_logs(args.follow_logs)?;
    let chosen = choose::choose(ui, app, args).await?;
    let policy = &chosen.policy;
    let source_name = chosen.workload.clone().unwrap_or_else(|| source::of_policy(policy));
    let method = check::method(ui, app, policy, args).await?;
    let mut repo_name = None;
    if !method.snapshot_volumes() {
        repo_name = Some(repo::resolve_ready(app, policy.spec.backup_repo_name.as_deref()).await?.name_any());
    }
    check::target_exists(app, policy, &method).await?;
    if let Some(parent) = &args.parent {
        check::check_parent(app, parent, policy).await?;
    }
    let name = args.name.clone().unwrap_or_else(|| build::default_name(&source_name, &method.name, Timestamp::now()));
    check_name("backup", &name)?;
    if app.here::<Backup>().get_opt(&name).await.is_ok_and(|backup| backup.is_some()) {
        return Err(CliError::usage(
            format!("backup/{name} exists already"),
            "give the new one another name with --name",
        ));
    }
    let backup = build::backup(&Wish {
        name: name.clone(),
        namespace: app.namespace.clone(),
        policy: policy.name_any(),
        method: method.name.clone(),
        parent: args.parent.clone(),
        retention: args.retention.clone(),
        deletion_policy: args.deletion_policy,
        parameters: args.param.clone(),
        labels: args.label.clone(),
        annotations: args.notes.clone(),
    });
    let manifest = Manifest::of(&backup)?;
    if args.write.dry_run != DryRun::None {
        let mut manifests = match &chosen.new {
            Some(planned) => planned.manifests()?,
            None => Vec::new(),
        };
        manifests.push(manifest);
        manifest::previewed(app, ui, &manifests, How::Create, &args.write).await?;
        return Ok(Exit::Done);
    }
    let mut written = Vec::new();
    if let Some(planned) = &chosen.new {
        written = policy::write(app, planned).await?;
        // A person sees at once what was made; a program gets all of it as one.
        if !args.write.is_for_program() {
            manifest::announce(ui, &std::mem::take(&mut written), "created", None)?;
        }
    }
    let place = repo_name.map_or_else(|| "volume snapshots".to_owned(), |repo| format!("backuprepo/{repo}"));
    ui.say(&format!("backing up {source_name} by method {} into {place}", method.name));
    written.push(manifest::send(app, &manifest, How::Create, false).await?);
    manifest::announce(ui, &written, "created", args.write.output)?;
    ui.equivalent();
    if args.wait.wait == Some(true) || args.follow_logs {
        return wait_for(ui, app, &name, args).await;
    }
    ui.hint(&format!("kubectl kbbackup describe {name}{}", app.namespace_flag()));
    Ok(Exit::Done)
}

/// Follows a backup to its end and tells how it was.
async fn wait_for(ui: &Ui, app: &App, name: &str, args: &BackupArgs) -> Result<Exit> {
    let what = format!("backup/{name}");
    let flag = app.namespace_flag();
    let waiting = Waiting {
        what: &what,
        limit: args.wait.limit(),
        hints: vec![format!("kubectl kbbackup describe {name}{flag}"), format!("kubectl kbbackup cancel {name}{flag}")],
    };
    let api = app.here::<Backup>();
    let ending = {
        let end = wait::until(ui, api.clone(), name, &waiting, follow::backup);
        if args.follow_logs { logs::alongside(ui, app, name, end).await? } else { end.await? }
    };
    match ending {
        Ending::Good => {
            let backup = get(&api, &what).await?;
            ui.outcome(&completed(ui, &backup), args.write.is_for_program());
            ui.hint(&format!("kubectl kbbackup restore NAME --from {name}{flag} --wait"));
            Ok(Exit::Done)
        }
        Ending::Bad(reason) => {
            ui.clear();
            let selector = format!("{}={name}", labels::BACKUP_NAME);
            diagnose::show(app, ui, &app.namespace, &selector, &[name.to_owned()]).await;
            let why = if reason.is_empty() { "its status gives no reason".to_owned() } else { reason };
            Err(CliError::failed(format!("backup/{name} failed"), why)
                .hint(format!("kubectl kbbackup describe {name}{flag}"))
                .hint(format!("kubectl kbbackup logs {name}{flag}")))
        }
        Ending::Gone => Err(CliError::failed(what, "it was deleted meanwhile")),
    }
}

/// One line about a backup that ended well.
fn completed(ui: &Ui, backup: &Backup) -> String {
    let status = backup.status.clone().unwrap_or_default();
    let mut facts = Vec::new();
    facts.extend(status.total_size.as_deref().map(human::size));
    if let (Some(start), Some(end)) = (&status.start_timestamp, &status.completion_timestamp) {
        facts.push(format!("in {}", human::span(end.0.duration_since(start.0))));
    }
    if let Some(expiration) = &status.expiration {
        facts.push(format!("kept until {}", human::utc(Some(expiration))));
    }
    ui.marked(Mark::Good, &format!("backup/{} completed: {}", backup.name_any(), facts.join(", ")))
}
