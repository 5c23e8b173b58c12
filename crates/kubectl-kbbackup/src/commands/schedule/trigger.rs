//! `schedule trigger`: the backup of an entry now, instead of at its next time.

use clap::Args;
use kbbackup_api::{
    names::{annotations, labels},
    v1alpha1::DeletionPolicy,
};

use super::{EntryArgs, find};
use crate::{
    app::App,
    args::{WaitArgs, WriteArgs},
    commands::backup::{self, BackupArgs},
    error::Result,
    exit::Exit,
    ui::Ui,
};

/// Make the backup of an entry now, with its method, parameters and retention
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup schedule trigger statefulset/pg --method full --wait
  kubectl kbbackup schedule trigger schedule/pg --entry weekly")]
pub(crate) struct TriggerArgs {
    #[command(flatten)]
    pub entry: EntryArgs,

    /// Name of the backup [default: source, method and time]
    #[arg(long)]
    pub name: Option<String>,

    #[command(flatten)]
    pub wait: WaitArgs,

    /// Show the log of the backup while waiting
    #[arg(long)]
    pub follow_logs: bool,

    #[command(flatten)]
    pub write: WriteArgs,
}

pub(super) async fn run(ui: &Ui, app: &App, args: &TriggerArgs) -> Result<Exit> {
    let found = find::schedule(ui, app, args.entry.source.as_deref()).await?;
    let index = find::entry(ui, &found.schedule, args.entry.entry.as_deref(), args.entry.method.as_deref())?;
    let entry = &found.schedule.spec.schedules[index];
    let backup = BackupArgs {
        source: None,
        name: args.name.clone(),
        method: Some(entry.backup_method.clone()),
        policy: Some(found.schedule.spec.backup_policy_name.clone()),
        parent: None,
        retention: Some(entry.retention_period().to_owned()),
        keep: false,
        deletion_policy: DeletionPolicy::Delete,
        param: entry.parameters.iter().map(|pair| (pair.name.clone(), pair.value.clone())).collect(),
        label: vec![(labels::BACKUP_SCHEDULE.to_owned(), found.name())],
        wait: args.wait.clone(),
        follow_logs: args.follow_logs,
        yes: true,
        write: args.write.clone(),
        notes: vec![(annotations::SCHEDULE_ENTRY.to_owned(), entry.name().to_owned())],
    };
    backup::run(ui, app, &backup).await
}
