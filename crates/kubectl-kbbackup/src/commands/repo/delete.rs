//! `repo delete`.

use std::time::Duration;

use clap::Args;
use kbbackup_api::v1alpha1::{Backup, BackupRepo};
use kube::{ResourceExt, api::DeleteParams};

use crate::{
    app::{App, get},
    args::duration,
    ask, commands,
    error::{CliError, Doing, Result},
    exit::Exit,
    output::human,
    ui::Ui,
    wait::{self, Seen, Waiting},
};

/// Delete repositories; what lies in the storage stays there
///
/// Refused while backups refer to it. --cascade deletes those first, and with them their data.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup repo delete old
  kubectl kbbackup repo delete old --cascade --yes")]
pub(crate) struct DeleteArgs {
    /// Repositories to delete
    #[arg(required = true)]
    pub names: Vec<String>,

    /// Delete the backups in it first, and their data
    #[arg(long)]
    pub cascade: bool,

    /// Don't ask
    #[arg(short, long)]
    pub yes: bool,

    /// Stop waiting after this time
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "0")]
    pub timeout: Duration,
}

pub(super) async fn run(ui: &Ui, app: &App, args: &DeleteArgs) -> Result<Exit> {
    let api = app.everywhere::<BackupRepo>();
    let limit = Some(args.timeout).filter(|limit| !limit.is_zero());
    // All of them are looked at and asked about before anything goes.
    let mut chosen = Vec::with_capacity(args.names.len());
    for name in &args.names {
        get(&api, &format!("backuprepo/{name}")).await?;
        let mut backups = super::backups_in(app, name).await?;
        // What builds on another goes before it.
        backups.sort_by_key(|backup| std::cmp::Reverse(backup.creation_timestamp().map(|time| time.0)));
        if !backups.is_empty() && !args.cascade {
            return Err(holds(name, &backups));
        }
        if chosen.iter().all(|(other, _)| *other != name) {
            chosen.push((name, backups));
        }
    }
    for (name, backups) in &chosen {
        if backups.is_empty() {
            ask::confirm(ui, args.yes, &format!("Delete backuprepo/{name}?"), None)?;
        } else {
            let count = human::count(backups.len(), "backup", "backups");
            let question = format!("Delete backuprepo/{name} and {count} with their data?");
            ask::confirm(ui, args.yes, &question, Some(name))?;
        }
    }
    for (name, backups) in &chosen {
        commands::delete::erase(ui, app, backups, limit, |_| ()).await?;
        api.delete(name, &DeleteParams::default()).await.doing(|| format!("backuprepo/{name} cannot be deleted"))?;
        let what = format!("backuprepo/{name}");
        let waiting = Waiting { what: &what, limit, hints: vec![format!("kubectl kbbackup repo describe {name}")] };
        wait::until(ui, api.clone(), name, &waiting, |repo: Option<&BackupRepo>| match repo {
            None => Seen::End(()),
            Some(_) => Seen::Going(format!("{what}: removing what was made for it")),
        })
        .await?;
        ui.result(&format!("backuprepo.dataprotection.kubeblocks.io/{name} deleted"));
    }
    Ok(Exit::Done)
}

/// The refusal of a repository that is in use, with the oldest of its backups.
fn holds(name: &str, backups: &[Backup]) -> CliError {
    let place = |backup: &Backup| format!("{}/{}", backup.namespace().unwrap_or_default(), backup.name_any());
    let oldest: Vec<String> = backups.iter().rev().take(5).map(place).collect();
    let more = match backups.len() - oldest.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    CliError::usage(
        format!("backuprepo/{name} holds {}", human::count(backups.len(), "backup", "backups")),
        format!("{}{more}", oldest.join(", ")),
    )
    .hint(format!("kubectl kbbackup repo delete {name} --cascade"))
}
