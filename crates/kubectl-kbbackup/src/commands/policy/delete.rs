//! `policy delete`: the policy goes, its backups stay.

use clap::Args;
use kbbackup_api::{
    names::labels,
    v1alpha1::{Backup, BackupPolicy, BackupSchedule},
};
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams},
};

use crate::{
    app::{App, get, list_all},
    ask,
    error::{CliError, Doing, Result},
    exit::Exit,
    output::human,
    ui::Ui,
};

/// Delete policies; their backups stay and can be restored
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup policy delete pg
  kubectl kbbackup policy delete pg --yes")]
pub(crate) struct DeleteArgs {
    /// Policies to delete
    #[arg(required = true)]
    pub names: Vec<String>,

    /// Don't ask
    #[arg(short, long)]
    pub yes: bool,
}

pub(super) async fn run(ui: &Ui, app: &App, args: &DeleteArgs) -> Result<Exit> {
    let api = app.here::<BackupPolicy>();
    let schedules = list_all(&app.here::<BackupSchedule>(), ListParams::default(), "schedules").await?;
    for name in &args.names {
        let policy = get(&api, &format!("backuppolicy/{name}")).await?;
        if let Some(schedule) = schedules.iter().find(|schedule| schedule.spec.backup_policy_name == *name) {
            return Err(CliError::usage(
                format!("backuppolicy/{name} is in use"),
                format!("backupschedule/{} makes backups by it", schedule.name_any()),
            )
            .hint(format!(
                "kubectl kbbackup schedule delete schedule/{}{}",
                schedule.name_any(),
                app.namespace_flag()
            )));
        }
        let selector = format!("{}={name}", labels::BACKUP_POLICY);
        let backups = list_all(&app.here::<Backup>(), ListParams::default().labels(&selector), "backups").await?;
        let kept = human::count(backups.len(), "backup stays", "backups stay");
        ask::confirm(ui, args.yes, &format!("Delete backuppolicy/{} ({kept})?", policy.name_any()), None)?;
    }
    for name in &args.names {
        api.delete(name, &DeleteParams::default()).await.doing(|| format!("backuppolicy/{name} cannot be deleted"))?;
        ui.result(&format!("backuppolicy.dataprotection.kubeblocks.io/{name} deleted"));
    }
    Ok(Exit::Done)
}
