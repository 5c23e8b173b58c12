//! `cancel`: ends a running backup. What it has stored so far is removed with the Backup.

use clap::Args;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use kbbackup_api::{
    names::labels,
    v1alpha1::{Backup, BackupPhase},
};
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::json;

use super::list;
use crate::{
    app::App,
    ask,
    error::{CliError, Doing, Result},
    exit::Exit,
    follow,
    output::human,
    ui::Ui,
};

/// Why a cancelled backup failed.
const REASON: &str = "cancelled by kubectl kbbackup cancel";

/// End running backups; they count as failed, and what they stored goes when they are deleted
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup cancel pg-full-20260102030405
  kubectl kbbackup cancel pg-full-20260102030405 --yes")]
pub(crate) struct CancelArgs {
    /// Backups to end
    #[arg(required = true)]
    pub names: Vec<String>,

    /// Don't ask
    #[arg(short, long)]
    pub yes: bool,
}

pub(crate) async fn run(ui: &Ui, app: &App, args: &CancelArgs) -> Result<Exit> {
    let mut backups = Vec::new();
    for name in &args.names {
        let backup = list::backup(app, name).await?;
        check(&backup, &app.namespace_flag())?;
        backups.push(backup);
    }
    for backup in &backups {
        ask::confirm(ui, args.yes, &format!("Cancel backup/{}?", backup.name_any()), None)?;
    }
    for backup in &backups {
        cancel(app, backup).await?;
        let name = backup.name_any();
        ui.result(&format!("backup.dataprotection.kubeblocks.io/{name} cancelled"));
        ui.hint(&format!("kubectl kbbackup delete {name}{}", app.namespace_flag()));
    }
    Ok(Exit::Done)
}

/// Whether there is anything to end. `flag` goes into hints.
fn check(backup: &Backup, flag: &str) -> Result<()> {
    let what = || format!("backup/{} cannot be cancelled", backup.name_any());
    if follow::is_continuous(backup) {
        return Err(CliError::usage(what(), "it is continuous, and goes on until its schedule ends it")
            .hint(format!("kubectl kbbackup schedule disable {}{flag} --pitr", crate::source::of_backup(backup))));
    }
    if backup.metadata.deletion_timestamp.is_some() {
        return Err(CliError::usage(what(), "it is being deleted"));
    }
    match follow::backup_phase(backup) {
        None | Some(BackupPhase::New | BackupPhase::Running) => Ok(()),
        Some(phase) => Err(CliError::usage(what(), format!("it is {phase}"))),
    }
}

/// First the word that it has failed, so that no controller starts its work again; then the work itself.
async fn cancel(app: &App, backup: &Backup) -> Result<()> {
    let name = backup.name_any();
    let what = || format!("backup/{name} cannot be cancelled");
    let now = human::stamp(Timestamp::now());
    let mut patch =
        json!({"status": {"phase": BackupPhase::Failed, "failureReason": REASON, "completionTimestamp": now}});
    let params = PatchParams { field_manager: Some(app.field_manager.clone()), ..PatchParams::default() };
    let api = app.here::<Backup>();
    loop {
        // As it was seen: a backup that has completed in this moment stays completed.
        let present = api.get(&name).await.doing(what)?;
        check(&present, &app.namespace_flag())?;
        patch["metadata"] = json!({"resourceVersion": present.resource_version()});
        match api.patch_status(&name, &params, &Patch::Merge(&patch)).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            other => {
                other.doing(what)?;
                break;
            }
        }
    }
    let jobs = ListParams::default().labels(&format!("{}={name}", labels::BACKUP_NAME));
    app.here::<Job>()
        .delete_collection(&DeleteParams::background(), &jobs)
        .await
        .doing(|| format!("the jobs of backup/{name} cannot be deleted"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backup(kind: &str, phase: Option<&str>, deleted: bool) -> Backup {
        serde_json::from_value(json!({
            "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "Backup",
            "metadata": {"name": "one", "labels": {labels::BACKUP_TYPE: kind, labels::WORKLOAD_NAME: "pg"},
                "deletionTimestamp": deleted.then_some("2026-01-01T00:00:00Z")},
            "spec": {"backupPolicyName": "pg", "backupMethod": "full"}, "status": {"phase": phase}
        }))
        .unwrap()
    }

    #[test]
    fn only_what_runs_can_be_ended() {
        for phase in [None, Some("New"), Some("Running")] {
            assert!(check(&backup("Full", phase, false), "").is_ok(), "{phase:?}");
        }
        for phase in ["Completed", "Failed", "Deleting"] {
            let error = check(&backup("Full", Some(phase), false), "").unwrap_err();
            assert!(error.why.contains(phase), "{error}");
        }
        assert!(check(&backup("Full", Some("Running"), true), "").is_err());
        let log = check(&backup("Continuous", Some("Running"), false), " -n demo").unwrap_err();
        assert_eq!(log.hints, ["kubectl kbbackup schedule disable pg -n demo --pitr"]);
    }
}
