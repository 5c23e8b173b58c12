//! `describe`.

use clap::Args;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kbbackup_api::{
    names::{annotations, labels},
    v1alpha1::{ActionStatus, Backup, BackupPhase},
};
use kube::ResourceExt;

use super::list::{backup, duration, shown_status};
use crate::{
    app::App,
    args::OutputArgs,
    build::restore::Recorded,
    diagnose,
    error::Result,
    exit::Exit,
    follow,
    output::{human, object, table::Sheet},
    source,
    ui::Ui,
};

/// Show backups: what was done, what lies where, what went wrong and what to do next
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup describe pg-full-20260102030405
  kubectl kbbackup describe pg-full-20260102030405 -o yaml")]
pub(crate) struct DescribeArgs {
    /// Backups to show
    #[arg(required = true)]
    pub names: Vec<String>,

    #[command(flatten)]
    pub output: OutputArgs,
}

pub(crate) async fn run(ui: &Ui, app: &App, args: &DescribeArgs) -> Result<Exit> {
    let mut backups = Vec::new();
    for name in &args.names {
        backups.push(backup(app, name).await?);
    }
    let format = args.output.format();
    if format.is_object() {
        ui.result(&object::render(&backups, args.names.len() == 1, format, args.output.show_managed_fields)?);
        return Ok(Exit::Done);
    }
    for (index, backup) in backups.iter().enumerate() {
        if index > 0 {
            ui.result("\n");
        }
        let name = backup.name_any();
        let events = diagnose::events(app, &app.namespace, "Backup", &name).await.unwrap_or_default();
        let pods =
            diagnose::pods(app, &app.namespace, &format!("{}={name}", labels::BACKUP_NAME)).await.unwrap_or_default();
        ui.result(&describe(backup, &pods, &events, Timestamp::now()));
        for hint in next(backup, &app.namespace_flag()) {
            ui.hint(&hint);
        }
    }
    Ok(Exit::Done)
}

fn describe(backup: &Backup, pods: &[Pod], events: &[String], now: Timestamp) -> String {
    let mut sheet = Sheet::default();
    let status = backup.status.clone().unwrap_or_default();
    sheet
        .line("Name", backup.name_any())
        .line("Namespace", backup.namespace().unwrap_or_default())
        .line("Source", source::of_backup(backup))
        .line("Policy", &backup.spec.backup_policy_name)
        .line("Method", &backup.spec.backup_method)
        .line("Type", backup.labels().get(labels::BACKUP_TYPE).cloned().unwrap_or_default())
        .line(
            "Parent",
            status.parent_backup_name.clone().or_else(|| backup.spec.parent_backup_name.clone()).unwrap_or_default(),
        )
        .line("Deletion", deletion(backup));
    for parameter in &backup.spec.parameters {
        sheet.line("Parameter", format!("{}={}", parameter.name, parameter.value));
    }
    sheet
        .title("Status")
        .item("Phase", shown_status(backup))
        .item("Reason", follow::backup_reason(backup))
        .item("Deletion", status.deletion_failure_reason.clone().unwrap_or_default())
        .item("Waiting for", backup.annotations().get(annotations::WAITING_FOR).cloned().unwrap_or_default())
        .item("Started", when(status.start_timestamp.as_ref(), now))
        .item("Completed", when(status.completion_timestamp.as_ref(), now))
        .item("Duration", duration(backup, now))
        .item("Size", status.total_size.as_deref().map(human::size).unwrap_or_default())
        .item("Expires", expiry(backup, now));
    if let Some(range) = &status.time_range {
        sheet.item("From", human::utc(range.start.as_ref())).item("To", human::utc(range.end.as_ref()));
    }
    sheet
        .title("Stored")
        .item("Repository", status.backup_repo_name.clone().unwrap_or_default())
        .item("Path", status.path.clone().unwrap_or_default())
        .item(
            "Encryption",
            status.encryption_config.as_ref().map(|config| config.algorithm.to_string()).unwrap_or_default(),
        )
        .item("Seal", backup.annotations().get(annotations::SEAL).cloned().unwrap_or_default());
    for snapshot in status.actions.iter().flat_map(|action| &action.volume_snapshots).chain(&status.volume_snapshots) {
        let size = snapshot.size.as_deref().map(human::size).unwrap_or_default();
        sheet.item(
            "Snapshot",
            format!(
                "{} of volume {} {size}",
                snapshot.name.clone().unwrap_or_default(),
                snapshot.volume_name.clone().unwrap_or_default()
            ),
        );
    }
    if let Ok(Some(recorded)) = Recorded::of(backup) {
        sheet.title("Workload").item("StatefulSet", recorded.name());
        let names = |list: &[serde_json::Value]| {
            list.iter().filter_map(|object| object["metadata"]["name"].as_str()).collect::<Vec<_>>().join(", ")
        };
        sheet
            .item("Services", names(&recorded.services))
            .item("ConfigMaps", names(&recorded.config_maps))
            .item("Secrets", recorded.secrets.join(", "))
            .item("Not kept", recorded.omitted.join(", "));
    }
    if !status.actions.is_empty() {
        sheet.title("Actions");
        for action in &status.actions {
            sheet.block(&action_line(action, now));
            if let Some(reason) = action.failure_reason.as_deref().filter(|reason| !reason.is_empty()) {
                for line in reason.trim().lines() {
                    sheet.block(&format!("    {line}"));
                }
            }
        }
    }
    // The newest pod that is in trouble; earlier tries tell the same.
    let last = pods.iter().rev().find(|pod| !diagnose::troubles(pod).is_empty());
    let troubles: Vec<String> = last
        .into_iter()
        .flat_map(|pod| {
            diagnose::troubles(pod)
                .into_iter()
                .map(|(container, why)| format!("pod/{} {container}: {why}", pod.name_any()))
        })
        .collect();
    if !troubles.is_empty() {
        sheet.title("Pods");
        sheet.blocks(&troubles);
    }
    for extra in &status.extras {
        sheet.title("Extras");
        for (key, value) in extra {
            sheet.item(key, value);
        }
    }
    if !events.is_empty() {
        sheet.title("Events");
        sheet.blocks(events);
    }
    sheet.finish()
}

fn deletion(backup: &Backup) -> String {
    let retention = backup.spec.retention_period.clone().filter(|text| !text.is_empty());
    let kept = retention.map_or_else(|| "kept until deleted by hand".to_owned(), |period| format!("kept for {period}"));
    format!("{} ({kept})", backup.spec.deletion_policy)
}

fn when(time: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>, now: Timestamp) -> String {
    time.map(|time| format!("{} ({})", human::utc(Some(time)), human::ago(Some(time), now))).unwrap_or_default()
}

fn expiry(backup: &Backup, now: Timestamp) -> String {
    let expiration = backup.status.as_ref().and_then(|status| status.expiration.as_ref());
    expiration.map(|time| format!("{} ({})", human::utc(Some(time)), human::until(Some(time), now))).unwrap_or_default()
}

fn action_line(action: &ActionStatus, now: Timestamp) -> String {
    let mut line = format!(
        "{}  {}",
        action.name.clone().unwrap_or_default(),
        action.phase.as_ref().map(ToString::to_string).unwrap_or_default()
    );
    if let Some(pod) = &action.target_pod_name {
        line.push_str(&format!("  pod {pod}"));
    }
    if let Some(start) = &action.start_timestamp {
        let end = action.completion_timestamp.as_ref().map_or(now, |end| end.0);
        line.push_str(&format!("  {}", human::span(end.duration_since(start.0))));
    }
    if let Some(size) = &action.total_size {
        line.push_str(&format!("  {}", human::size(size)));
    }
    if let Some(object) = &action.object_ref {
        line.push_str(&format!(
            "  {}/{}",
            object.kind.clone().unwrap_or_default().to_lowercase(),
            object.name.clone().unwrap_or_default()
        ));
    }
    line
}

/// What one would do next.
fn next(backup: &Backup, flag: &str) -> Vec<String> {
    let name = backup.name_any();
    match follow::backup_phase(backup) {
        Some(BackupPhase::Completed) => vec![format!("kubectl kbbackup restore NEW --from {name}{flag}")],
        Some(BackupPhase::Failed) => vec![
            format!("kubectl kbbackup logs {name}{flag}"),
            format!(
                "kubectl kbbackup backup policy/{} --method {}{flag} --wait",
                backup.spec.backup_policy_name, backup.spec.backup_method
            ),
        ],
        Some(BackupPhase::Running) => vec![format!("kubectl kbbackup logs {name} -f{flag}")],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_failed_backup_says_why_and_what_next() {
        let backup: Backup = serde_json::from_value(json!({
            "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "Backup",
            "metadata": {"name": "one", "namespace": "demo"},
            "spec": {"backupPolicyName": "pg", "backupMethod": "full", "deletionPolicy": "Delete"},
            "status": {"phase": "Failed", "failureReason": "action dp-backup-0 failed",
                "startTimestamp": "2026-01-02T03:04:05Z", "backupRepoName": "embedded", "path": "/demo/pg/one",
                "actions": [{"name": "dp-backup-0", "phase": "Failed", "targetPodName": "pg-0", "actionType": "Job",
                    "objectRef": {"kind": "Job", "name": "dp-backup-0-one-1234"},
                    "startTimestamp": "2026-01-02T03:04:05Z", "completionTimestamp": "2026-01-02T03:04:15Z",
                    "failureReason": "Log Collector Output: error: role app lacks REPLICATION\nbye"}]}
        }))
        .unwrap();
        let now = "2026-01-02T04:04:05Z".parse().unwrap();
        insta::assert_snapshot!(describe(&backup, &[], &["1h ago Warning Failed".to_owned()], now));
        assert_eq!(next(&backup, " -n demo")[0], "kubectl kbbackup logs one -n demo");
    }
}
