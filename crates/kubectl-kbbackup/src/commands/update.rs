//! `update`: how long backups are kept, and whether their data goes with them.

use clap::Args;
use jiff::Timestamp;
use kbbackup_api::v1alpha1::{Backup, DeletionPolicy};
use kbbackup_core::retention::RetentionPeriod;
use kube::{
    ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Map, Value, json};

use super::list;
use crate::{
    app::App,
    args::{retention, words},
    error::{CliError, Doing, Result},
    exit::Exit,
    follow,
    output::human,
    ui::Ui,
};

/// Change how long backups are kept, and whether their data goes with them
///
/// The new time counts from the end of the backup. A backup whose time would be over by then is refused: delete it instead.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup update pg-full-20260102030405 --retention 30d
  kubectl kbbackup update pg-full-20260102030405 --keep --deletion-policy Retain")]
pub(crate) struct UpdateArgs {
    /// Backups to change
    #[arg(required = true)]
    pub names: Vec<String>,

    /// Delete them this time after their end, such as 30d or 1y
    #[arg(long, value_name = "TIME", value_parser = retention)]
    pub retention: Option<String>,

    /// Keep them until they are deleted by hand
    #[arg(long, conflicts_with = "retention")]
    pub keep: bool,

    /// Whether the data goes with the Backup object: Delete or Retain
    #[arg(long, value_name = "POLICY", value_parser = words::<DeletionPolicy>(DeletionPolicy::WORDS), hide_possible_values = true)]
    pub deletion_policy: Option<DeletionPolicy>,
}

/// The patches of the object and of its status.
#[derive(Debug, PartialEq)]
struct Change {
    spec: Value,
    /// The date of its end stands in the status, and no controller moves it by itself.
    status: Option<Value>,
}

pub(crate) async fn run(ui: &Ui, app: &App, args: &UpdateArgs) -> Result<Exit> {
    if args.retention.is_none() && !args.keep && args.deletion_policy.is_none() {
        return Err(CliError::usage("nothing to change", "give --retention, --keep or --deletion-policy"));
    }
    let now = Timestamp::now();
    let mut changes = Vec::new();
    for name in &args.names {
        let backup = list::backup(app, name).await?;
        let change = change(&backup, args, now)?;
        changes.push((backup, change));
    }
    let api = app.here::<Backup>();
    let params = PatchParams { field_manager: Some(app.field_manager.clone()), ..PatchParams::default() };
    for (backup, change) in changes {
        let name = backup.name_any();
        let what = || format!("backup/{name} cannot be changed");
        let mut changed = api.patch(&name, &params, &Patch::Merge(&change.spec)).await.doing(what)?;
        if let Some(status) = &change.status {
            changed = api.patch_status(&name, &params, &Patch::Merge(status)).await.doing(what)?;
        }
        let expires = changed.status.as_ref().and_then(|status| status.expiration.as_ref());
        let kept = match expires {
            Some(_) => format!("kept until {}", human::utc(expires)),
            None if args.keep || changed.spec.retention_period.is_none() => "kept until it is deleted".to_owned(),
            None => "its time counts from its end".to_owned(),
        };
        ui.result(&format!("backup.dataprotection.kubeblocks.io/{name} changed: {kept}"));
    }
    Ok(Exit::Done)
}

fn change(backup: &Backup, args: &UpdateArgs, now: Timestamp) -> Result<Change> {
    let what = || format!("backup/{} cannot be changed", backup.name_any());
    if backup.metadata.deletion_timestamp.is_some() {
        return Err(CliError::usage(what(), "it is being deleted"));
    }
    let mut spec = Map::new();
    if let Some(policy) = &args.deletion_policy {
        spec.insert("deletionPolicy".to_owned(), json!(policy));
    }
    let mut status = None;
    if args.keep {
        spec.insert("retentionPeriod".to_owned(), Value::Null);
        status = has_date(backup).then(|| json!({"status": {"expiration": null}}));
    }
    if let Some(text) = &args.retention {
        spec.insert("retentionPeriod".to_owned(), json!(text));
        status = date(backup, text, now)?.map(|date| json!({"status": {"expiration": date}}));
    }
    Ok(Change { spec: json!({ "spec": spec }), status })
}

fn has_date(backup: &Backup) -> bool {
    backup.status.as_ref().is_some_and(|status| status.expiration.is_some())
}

/// When a finished backup is over by a retention; `None` for one whose date is not settled yet.
fn date(backup: &Backup, retention: &str, now: Timestamp) -> Result<Option<Value>> {
    let Some(status) = &backup.status else { return Ok(None) };
    let (Some(end), false) =
        (status.completion_timestamp.as_ref().or(status.start_timestamp.as_ref()), follow::is_continuous(backup))
    else {
        return Ok(None);
    };
    let period =
        RetentionPeriod::parse(retention).map_err(|error| CliError::usage("--retention", error.to_string()))?;
    match period.expiration(end.0) {
        Some(date) if date <= now => Err(CliError::usage(
            format!("backup/{} would be deleted at once", backup.name_any()),
            format!("it ended at {}, and {retention} later is past", human::utc(Some(end))),
        )
        .hint(format!("kubectl kbbackup delete {}", backup.name_any()))),
        Some(date) => Ok(Some(json!(human::stamp(date)))),
        None => Ok(has_date(backup).then_some(Value::Null)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backup(status: &Value) -> Backup {
        serde_json::from_value(json!({
            "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "Backup", "metadata": {"name": "one"},
            "spec": {"backupPolicyName": "pg", "backupMethod": "full", "retentionPeriod": "7d"}, "status": status
        }))
        .unwrap()
    }

    fn args(retention: Option<&str>, keep: bool) -> UpdateArgs {
        UpdateArgs { names: vec![], retention: retention.map(str::to_owned), keep, deletion_policy: None }
    }

    fn ended() -> Value {
        json!({"phase": "Completed", "completionTimestamp": "2026-01-02T00:00:00Z", "expiration": "2026-01-09T00:00:00Z"})
    }

    fn now() -> Timestamp {
        "2026-01-05T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn the_date_follows_the_retention() {
        let found = change(&backup(&ended()), &args(Some("30d"), false), now()).unwrap();
        assert_eq!(found.spec, json!({"spec": {"retentionPeriod": "30d"}}));
        assert_eq!(found.status, Some(json!({"status": {"expiration": "2026-02-01T00:00:00Z"}})));
        let kept = change(&backup(&ended()), &args(None, true), now()).unwrap();
        assert_eq!(kept.status, Some(json!({"status": {"expiration": null}})));
        assert_eq!(kept.spec, json!({"spec": {"retentionPeriod": null}}));
        let zero = change(&backup(&ended()), &args(Some("0d"), false), now()).unwrap();
        assert_eq!(zero.status, Some(json!({"status": {"expiration": null}})));
    }

    #[test]
    fn what_would_be_over_at_once_is_refused() {
        let error = change(&backup(&ended()), &args(Some("1d"), false), now()).unwrap_err();
        assert_eq!(error.exit, Exit::Usage);
        assert_eq!(error.hints, ["kubectl kbbackup delete one"]);
    }

    #[test]
    fn a_backup_that_has_not_begun_gets_its_date_later() {
        let found = change(&backup(&json!({})), &args(Some("1d"), false), now()).unwrap();
        assert_eq!(found.status, None);
    }
}
