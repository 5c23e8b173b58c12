//! `update`: how long backups are kept, and whether their data goes with them.

use clap::Args;
use jiff::Timestamp;
use kbbackup_api::v1alpha1::{Backup, DeletionPolicy};
use kbbackup_core::retention::RetentionPeriod;
use kube::{
    Api, ResourceExt,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
};
use serde_json::{Map, Value, json};

use super::list;
use crate::{
    app::{App, get},
    args::{WriteArgs, retention, words},
    error::{CliError, Doing, Result},
    exit::Exit,
    follow, manifest,
    output::human,
    patch,
    ui::Ui,
};

/// Change how long backups are kept, and whether their data goes with them
///
/// The new time counts from the end of the backup. A backup whose time would be over by then is refused: delete it instead.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup update pg-full-20260102030405 --retention 30d
  kubectl kbbackup update pg-full-20260102030405 --keep --deletion-policy Retain
  kubectl kbbackup update pg-full-20260102030405 --retention 1y --dry-run -o json")]
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

    #[command(flatten)]
    pub write: WriteArgs,
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
    let api =
        Api::<DynamicObject>::namespaced_with(app.client.clone(), &app.namespace, &ApiResource::erase::<Backup>(&()));
    let (mut changes, mut more) = (Vec::new(), Vec::new());
    for name in &args.names {
        let backup = list::backup(app, name).await?;
        let Change { spec, status } = change(&backup, args, now)?;
        let present = get(&api, &format!("backup/{}", backup.name_any())).await?;
        more.push((kept(&backup, args, status.as_ref()), status));
        changes.push(patch::Change { api: api.clone(), present, patch: spec, as_read: false });
    }
    if patch::previewed(app, ui, &changes, &args.write).await? {
        for (change, (kept, status)) in changes.iter().zip(&more) {
            let date = if status.is_some() { "; that date is in its status, which no manifest changes" } else { "" };
            ui.say(&format!("backup/{} would be {kept}{date}", change.present.name_any()));
        }
        return Ok(Exit::Done);
    }
    let params = PatchParams { field_manager: Some(app.field_manager.clone()), ..PatchParams::default() };
    let mut all = Vec::new();
    for (change, (kept, status)) in changes.iter().zip(more) {
        let name = change.present.name_any();
        let written = patch::send(app, std::slice::from_ref(change)).await?;
        let Some((mut object, _)) = written.into_iter().next() else { continue };
        if let Some(status) = status {
            let sent = api.patch_status(&name, &params, &Patch::Merge(&status)).await;
            object = sent.doing(|| format!("backup/{name} cannot be changed"))?;
        }
        if args.write.is_for_program() {
            all.push(object);
        } else {
            ui.result(&format!("backup.dataprotection.kubeblocks.io/{name} changed: {kept}"));
        }
    }
    if !all.is_empty() {
        manifest::announce(ui, &all, "changed", args.write.output)?;
    }
    Ok(Exit::Done)
}

/// How long a backup is kept after the change, in words.
fn kept(backup: &Backup, args: &UpdateArgs, status: Option<&Value>) -> String {
    let date = match status {
        Some(status) => status["status"]["expiration"].as_str().map(str::to_owned),
        None => backup.status.as_ref().and_then(|status| status.expiration.as_ref()).map(|date| human::stamp(date.0)),
    };
    let open = args.retention.is_some() || (!args.keep && backup.spec.retention_period.is_some());
    match date {
        Some(date) => format!("kept until {date}"),
        None if open && status.is_none() => "its time counts from its end".to_owned(),
        None => "kept until it is deleted".to_owned(),
    }
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
        let write = WriteArgs::default();
        UpdateArgs { names: vec![], retention: retention.map(str::to_owned), keep, deletion_policy: None, write }
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
        let told = |args: &UpdateArgs, change: &Change| super::kept(&backup(&ended()), args, change.status.as_ref());
        assert_eq!(told(&args(Some("30d"), false), &found), "kept until 2026-02-01T00:00:00Z");
        assert_eq!(told(&args(None, true), &kept), "kept until it is deleted");
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
        let kept = kept(&backup(&json!({})), &args(Some("1d"), false), None);
        assert_eq!(kept, "its time counts from its end");
    }
}
