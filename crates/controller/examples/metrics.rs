//! Every metric of the operator once, as Prometheus reads them: what `cargo xtask test metrics` checks.

use std::time::Duration;

use kbbackup_api::v1alpha1::{BackupRepo, Restore};
use kbbackup_controller::catalogue::Entry;
use kbbackup_controller::metrics::Metrics;
use kube::core::DeserializeGuard;
use kube::runtime::reflector;
use kube::runtime::watcher::Event;
use serde_json::json;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let metrics = Metrics::default();
    metrics.leads(true);
    metrics.reconciled("Backup", Duration::from_millis(3), Some("ReconcileFailed"));
    metrics.finished("Backup", "Failed", "Fatal");
    metrics.left_behind("main");

    let (backups, mut writer) = reflector::store();
    for (name, type_, phase) in [("full", "Full", "Completed"), ("logs", "Continuous", "Running")] {
        let backup: Entry = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "demo", "labels": {"dataprotection.kubeblocks.io/backup-type": type_}},
            "spec": {"backupPolicyName": "pg", "backupMethod": name},
            "status": {
                "phase": phase, "totalSize": "1Ki", "startTimestamp": "2026-01-01T00:00:00Z",
                "completionTimestamp": "2026-01-01T00:01:00Z", "timeRange": {"end": "2026-01-01T00:01:00Z"},
            },
        }))?;
        writer.apply_watcher_event(&Event::Apply(backup));
    }
    let (restores, mut writer) = reflector::store();
    let restore: Restore = serde_json::from_value(json!({
        "metadata": {"name": "r", "namespace": "demo"}, "spec": {"backup": {"name": "full", "namespace": "demo"}},
    }))?;
    writer.apply_watcher_event(&Event::Apply(DeserializeGuard(Ok(restore))));
    let (repos, mut writer) = reflector::store();
    let repo: BackupRepo = serde_json::from_value(json!({
        "metadata": {"name": "main"}, "spec": {"storageProviderRef": "s3", "pvReclaimPolicy": "Retain"},
    }))?;
    writer.apply_watcher_event(&Event::Apply(DeserializeGuard(Ok(repo))));
    metrics.watch(backups, restores, repos);
    std::io::Write::write_all(&mut std::io::stdout(), metrics.render()?.as_bytes())?;
    Ok(())
}
