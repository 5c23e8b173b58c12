//! Writes a change of an entry where it counts: into the schedule, or into the Cluster whose `spec.backup` overrules it.

use kbbackup_api::{
    apps::{Cluster, ClusterBackup},
    names::labels,
    v1alpha1::{BackupSchedule, BackupType, SchedulePolicy},
};
use kube::{ResourceExt, api::DynamicObject};
use serde_json::{Map, Value, json};

use super::find::{self, Found};
use crate::{
    app::App,
    args::WriteArgs,
    build::schedule::Change,
    error::{CliError, Doing, Result},
    manifest, patch,
    ui::Ui,
};

/// The Cluster that overrules a schedule: KubeBlocks writes its `spec.backup` into the schedule again and again.
pub(super) async fn ruler(app: &App, schedule: &BackupSchedule) -> Result<Option<Cluster>> {
    let Some(name) = schedule.labels().get(labels::INSTANCE) else { return Ok(None) };
    if schedule.labels().get(labels::MANAGED_BY).map(String::as_str) != Some(labels::MANAGED_BY_KUBEBLOCKS) {
        return Ok(None);
    }
    match app.here::<Cluster>().get_opt(name).await {
        Ok(cluster) => Ok(cluster.filter(|cluster| cluster.spec.backup.is_some())),
        // The API may not be served here.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(error).doing(|| format!("cluster/{name} cannot be read")),
    }
}

/// The change as one of `spec.backup`; only fields that change are named.
///
/// # Errors
/// When `spec.backup` cannot say it.
fn as_cluster_says(
    backup: &ClusterBackup,
    cluster: &str,
    entry: &SchedulePolicy,
    kind: Option<BackupType>,
    change: &Change,
) -> Result<Value> {
    let what = format!("entry {} cannot be changed", entry.name());
    let refuse = |why: String| Err(CliError::usage(what.clone(), format!("cluster/{cluster} overrules it, and {why}")));
    if change.parameters.is_some() {
        return refuse("its spec.backup has no parameters".to_owned());
    }
    let mut fields = Map::new();
    match kind {
        Some(BackupType::Continuous) => {
            if change.cron.is_some() || change.retention.is_some() {
                return refuse("its spec.backup only switches continuous backups on and off".to_owned());
            }
            fields.extend(change.enabled.map(|enabled| ("pitrEnabled".to_owned(), json!(enabled))));
        }
        Some(BackupType::Incremental) => {
            if change.retention.is_some() {
                return refuse("incremental backups are kept as long as full ones there".to_owned());
            }
            fields.extend(change.enabled.map(|enabled| ("incrementalBackupEnabled".to_owned(), json!(enabled))));
            fields.extend(change.cron.as_ref().map(|cron| ("incrementalCronExpression".to_owned(), json!(cron))));
        }
        _ => {
            let chosen = backup.method.as_deref().filter(|method| !method.is_empty());
            if chosen.is_some_and(|method| method != entry.backup_method) && change.enabled != Some(true) {
                return refuse(format!("makes its backups by method {}", chosen.unwrap_or_default()));
            }
            fields.insert("method".to_owned(), json!(entry.backup_method));
            fields.extend(change.enabled.map(|enabled| ("enabled".to_owned(), json!(enabled))));
            fields.extend(change.cron.as_ref().map(|cron| ("cronExpression".to_owned(), json!(cron))));
            fields.extend(change.retention.as_ref().map(|time| ("retentionPeriod".to_owned(), json!(time))));
        }
    }
    Ok(json!({"spec": {"backup": fields}}))
}

/// Changes an entry of a schedule, wherever that counts, and says where.
pub(super) async fn entry(
    ui: &Ui,
    app: &App,
    found: &Found,
    index: usize,
    kind: Option<BackupType>,
    change: &Change,
    write: &WriteArgs,
) -> Result<()> {
    let entry = &found.schedule.spec.schedules[index];
    if let Some(cluster) = ruler(app, &found.schedule).await? {
        return in_cluster(ui, app, &cluster, entry, kind, change, write).await;
    }
    let mut entries = found.entries();
    crate::build::schedule::change(&mut entries, index, change);
    save(ui, app, found, json!({"spec": {"schedules": entries}}), write).await
}

/// Writes the change into the Cluster that overrules the schedule.
pub(super) async fn in_cluster(
    ui: &Ui,
    app: &App,
    cluster: &Cluster,
    entry: &SchedulePolicy,
    kind: Option<BackupType>,
    change: &Change,
    write: &WriteArgs,
) -> Result<()> {
    let name = cluster.name_any();
    let present = cluster.spec.backup.clone().unwrap_or_default();
    let patch = as_cluster_says(&present, &name, entry, kind, change)?;
    ui.say(&format!("cluster/{name} says how its backups are scheduled, so the change goes into its spec.backup"));
    let api = kube::Api::<DynamicObject>::namespaced_with(
        app.client.clone(),
        &app.namespace,
        &kube::api::ApiResource::erase::<Cluster>(&()),
    );
    let present = crate::app::get(&api, &format!("cluster/{name}")).await?;
    written(ui, app, patch::Change { api, present, patch, as_read: true }, write).await
}

/// Patches the schedule as it was read: a change by somebody else in between is a conflict.
pub(super) async fn save(ui: &Ui, app: &App, found: &Found, patch: Value, write: &WriteArgs) -> Result<()> {
    let change = patch::Change { api: find::api(app), present: found.raw().clone(), patch, as_read: true };
    written(ui, app, change, write).await
}

async fn written(ui: &Ui, app: &App, change: patch::Change, write: &WriteArgs) -> Result<()> {
    let changes = [change];
    if patch::previewed(app, ui, &changes, write).await? {
        return Ok(());
    }
    for (object, changed) in patch::send(app, &changes).await? {
        manifest::announce(ui, &[object], if changed { "changed" } else { "unchanged" }, write.output)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> SchedulePolicy {
        SchedulePolicy {
            backup_method: "full".into(),
            cron_expression: "0 2 * * *".into(),
            ..SchedulePolicy::default()
        }
    }

    #[test]
    fn a_cluster_s_own_fields_are_changed_and_no_others() {
        let backup = ClusterBackup { method: Some("full".into()), ..ClusterBackup::default() };
        let change = Change { enabled: Some(false), retention: Some("3d".into()), ..Change::default() };
        let patch = as_cluster_says(&backup, "pg", &full(), Some(BackupType::Full), &change).unwrap();
        assert_eq!(patch, json!({"spec": {"backup": {"method": "full", "enabled": false, "retentionPeriod": "3d"}}}));
        let on = Change { enabled: Some(true), ..Change::default() };
        let patch = as_cluster_says(&backup, "pg", &full(), Some(BackupType::Continuous), &on).unwrap();
        assert_eq!(patch, json!({"spec": {"backup": {"pitrEnabled": true}}}));
    }

    #[test]
    fn what_a_cluster_cannot_say_is_refused() {
        let backup = ClusterBackup { method: Some("snapshot".into()), ..ClusterBackup::default() };
        let off = Change { enabled: Some(false), ..Change::default() };
        let error = as_cluster_says(&backup, "pg", &full(), Some(BackupType::Full), &off).unwrap_err();
        assert!(error.why.contains("cluster/pg overrules it") && error.why.contains("snapshot"), "{error}");
        let its_own = ClusterBackup { method: Some("full".into()), ..ClusterBackup::default() };
        let parameters = Change { parameters: Some(vec![]), ..Change::default() };
        let error = as_cluster_says(&its_own, "pg", &full(), Some(BackupType::Full), &parameters).unwrap_err();
        assert!(error.why.contains("no parameters"), "{error}");
        let retention = Change { retention: Some("3d".into()), ..Change::default() };
        for kind in [BackupType::Continuous, BackupType::Incremental] {
            assert!(as_cluster_says(&its_own, "pg", &full(), Some(kind), &retention).is_err(), "{kind}");
        }
    }
}
