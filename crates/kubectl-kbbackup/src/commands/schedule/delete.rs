//! `schedule delete`: an entry, or the whole schedule. The backups stay.

use clap::Args;
use kbbackup_api::v1alpha1::{BackupSchedule, SchedulePolicy};
use kube::api::{DeleteParams, Preconditions};
use serde_json::json;

use super::{EntryArgs, change, find};
use crate::{
    app::App,
    args::WriteArgs,
    ask,
    error::{CliError, Doing, Result},
    exit::Exit,
    ui::Ui,
};

/// Delete a schedule, or one entry of it; the backups that it made stay
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup schedule delete statefulset/pg
  kubectl kbbackup schedule delete statefulset/pg --entry weekly --yes")]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    pub entry: EntryArgs,

    /// Don't ask
    #[arg(short, long)]
    pub yes: bool,
}

pub(super) async fn run(ui: &Ui, app: &App, args: &DeleteArgs) -> Result<Exit> {
    let found = find::schedule(ui, app, args.entry.source.as_deref()).await?;
    let name = found.name();
    if let Some(cluster) = change::ruler(app, &found.schedule).await? {
        return Err(CliError::usage(
            format!("backupschedule/{name} cannot be deleted"),
            format!("cluster/{} would make it again", cluster.metadata.name.unwrap_or_default()),
        )
        .hint(format!("kubectl kbbackup schedule disable schedule/{name}{}", app.namespace_flag())));
    }
    let all: Vec<&str> = found.schedule.spec.schedules.iter().map(SchedulePolicy::name).collect();
    let one = args.entry.entry.is_some() || args.entry.method.is_some();
    if one && all.len() > 1 {
        let index = find::entry(ui, &found.schedule, args.entry.entry.as_deref(), args.entry.method.as_deref())?;
        ask::confirm(ui, args.yes, &format!("Delete entry {} of backupschedule/{name}?", all[index]), None)?;
        let mut entries = found.entries();
        entries.remove(index);
        let patch = json!({"spec": {"schedules": entries}});
        change::save(ui, app, &found, patch, &WriteArgs::default()).await?;
        return Ok(Exit::Done);
    }
    if one {
        find::entry(ui, &found.schedule, args.entry.entry.as_deref(), args.entry.method.as_deref())?;
    }
    ask::confirm(ui, args.yes, &format!("Delete backupschedule/{name} with {}?", all.join(", ")), None)?;
    let only_this = Preconditions { uid: found.schedule.metadata.uid.clone(), resource_version: None };
    let params = DeleteParams { preconditions: Some(only_this), ..DeleteParams::default() };
    app.here::<BackupSchedule>()
        .delete(&name, &params)
        .await
        .doing(|| format!("backupschedule/{name} cannot be deleted"))?;
    ui.result(&format!("backupschedule.dataprotection.kubeblocks.io/{name} deleted"));
    Ok(Exit::Done)
}
