//! Backups as links of chains, and the times that the rules go by.

use kbbackup_api::recovery::kind;
pub use kbbackup_api::recovery::{end, is_completed, start};
use kbbackup_api::v1alpha1::Backup;
use kbbackup_core::chain::Link;
use kube::ResourceExt as _;

use super::plan;

/// The backup as the rules of chains see it.
pub fn link(backup: &Backup) -> Link {
    let status = backup.status.clone().unwrap_or_default();
    let method = status.backup_method.as_ref();
    Link {
        name: backup.name_any(),
        kind: kind(backup),
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
