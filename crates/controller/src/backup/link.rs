//! Backups as links of chains, and the times that the rules go by.

use jiff::Timestamp;
use kbbackup_api::names::labels;
use kbbackup_api::v1alpha1::{Backup, BackupPhase};
use kbbackup_core::chain::{Kind, Link};
use kube::ResourceExt as _;

use super::plan;

/// When the data of a backup begins: `status.timeRange.start`, else `status.startTimestamp`.
pub fn start(backup: &Backup) -> Option<Timestamp> {
    let status = backup.status.as_ref()?;
    let range = status.time_range.as_ref().and_then(|range| range.start.as_ref());
    range.or(status.start_timestamp.as_ref()).map(|time| time.0)
}

/// When the data of a backup ends: `status.timeRange.end`, else `status.completionTimestamp`.
pub fn end(backup: &Backup) -> Option<Timestamp> {
    let status = backup.status.as_ref()?;
    let range = status.time_range.as_ref().and_then(|range| range.end.as_ref());
    range.or(status.completion_timestamp.as_ref()).map(|time| time.0)
}

/// Whether a backup is completed.
pub fn is_completed(backup: &Backup) -> bool {
    backup.status.as_ref().and_then(|status| status.phase) == Some(BackupPhase::Completed)
}

/// The backup as the rules of chains see it.
pub fn link(backup: &Backup) -> Link {
    let status = backup.status.clone().unwrap_or_default();
    let label = |key: &str| backup.labels().get(key).map(String::as_str);
    let method = status.backup_method.as_ref();
    Link {
        name: backup.name_any(),
        kind: match label(labels::BACKUP_TYPE) {
            Some("Full") => Some(Kind::Full),
            Some("Incremental") => Some(Kind::Incremental),
            _ => None,
        },
        policy: backup.spec.backup_policy_name.clone(),
        method: backup.spec.backup_method.clone(),
        compatible_method: method.and_then(|method| method.compatible_method.clone()).unwrap_or_default(),
        repo: status.backup_repo_name.clone().unwrap_or_default(),
        parent: status.parent_backup_name.clone().unwrap_or_default(),
        base: status.base_backup_name.clone().unwrap_or_default(),
        completed: is_completed(backup),
        end: end(backup),
        // A store keeps no targets of a backup that is over.
        targets: Some(plan::targets(&status).len()).filter(|count| *count > 0),
    }
}
