//! `schedule enable` and `schedule disable`.

use clap::Args;
use kbbackup_api::v1alpha1::{ActionSet, BackupPolicy, BackupType};
use kube::{ResourceExt, api::ListParams};

use super::{EntryArgs, change, find};
use crate::{
    app::{App, list_all},
    args::WriteArgs,
    build::schedule::Change,
    error::{CliError, Doing, Result},
    exit::Exit,
    ui::Ui,
};

pub(super) const ENABLE_EXAMPLES: &str = "Examples:
  kubectl kbbackup schedule enable statefulset/pg --method full
  kubectl kbbackup schedule enable statefulset/pg --pitr";

pub(super) const DISABLE_EXAMPLES: &str = "Examples:
  kubectl kbbackup schedule disable statefulset/pg --method full
  kubectl kbbackup schedule disable schedule/pg --entry weekly";

#[derive(Clone, Debug, Default, Args)]
pub(crate) struct SwitchArgs {
    #[command(flatten)]
    pub entry: EntryArgs,

    /// The entry that archives the log, for restores to a point in time
    #[arg(long, conflicts_with_all = ["method", "entry"])]
    pub pitr: bool,

    #[command(flatten)]
    pub write: WriteArgs,
}

pub(super) async fn run(ui: &Ui, app: &App, args: &SwitchArgs, on: bool) -> Result<Exit> {
    let found = find::schedule(ui, app, args.entry.source.as_deref()).await?;
    let schedule = &found.schedule;
    let name = &schedule.spec.backup_policy_name;
    let policy =
        app.here::<BackupPolicy>().get_opt(name).await.doing(|| format!("backuppolicy/{name} cannot be read"))?;
    let sets = list_all(&app.everywhere::<ActionSet>(), ListParams::default(), "action sets").await?;
    let kind = |method: &str| find::kind(policy.as_ref(), &sets, method);
    let index = if args.pitr {
        let entries = &schedule.spec.schedules;
        let continuous = entries.iter().position(|entry| kind(&entry.backup_method) == Some(BackupType::Continuous));
        continuous.ok_or_else(|| {
            CliError::not_found(
                format!("backupschedule/{} has no entry that archives the log", found.name()),
                format!("no method of backuppolicy/{name} in it is continuous"),
            )
            .hint(format!("kubectl kbbackup policy describe {name}{}", app.namespace_flag()))
        })?
    } else {
        find::entry(ui, schedule, args.entry.entry.as_deref(), args.entry.method.as_deref())?
    };
    let entry = &schedule.spec.schedules[index];
    let kind = kind(&entry.backup_method);
    if find::is_on(entry, kind) == on && change::ruler(app, schedule).await?.is_none() && entry.enabled.is_some() {
        let state = if on { "on" } else { "off" };
        ui.say(&format!("entry {} of backupschedule/{} is {state} already", entry.name(), schedule.name_any()));
        return Ok(Exit::Done);
    }
    let wish = Change { enabled: Some(on), ..Change::default() };
    change::entry(ui, app, &found, index, kind, &wish, &args.write).await?;
    Ok(Exit::Done)
}
