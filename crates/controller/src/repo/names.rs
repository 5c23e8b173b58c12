//! Names of what is made for a repository: chosen once, and kept in its status before anything carries them.

use k8s_openapi::api::core::v1::SecretReference;
use kbbackup_api::v1alpha1::{BackupRepoStatus, StorageProviderSpec};
use kbbackup_core::names::cut;

/// No vowels and no look-alikes, so that no words and no mistakes come about.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Gives `status` the names that it lacks. `random` yields any number each time it is asked.
pub(super) fn assign(
    status: &mut BackupRepoStatus,
    repo: &str,
    provider: &StorageProviderSpec,
    manager_namespace: &str,
    mut random: impl FnMut() -> usize,
) {
    let mut name = |prefix: &str| {
        let base = cut(&format!("{prefix}-{repo}"), 56);
        let tail: String = (0..6).map(|_| char::from(ALPHABET[random() % ALPHABET.len()])).collect();
        format!("{base}-{tail}")
    };
    let set = |template: Option<&String>| template.is_some_and(|text| !text.trim().is_empty());
    if set(provider.csi_driver_secret_template.as_ref()) && status.generated_csi_driver_secret.is_none() {
        status.generated_csi_driver_secret =
            Some(SecretReference { name: Some(name("secret")), namespace: Some(manager_namespace.to_owned()) });
    }
    if set(provider.storage_class_template.as_ref()) && missing(status.generated_storage_class_name.as_ref()) {
        status.generated_storage_class_name = Some(name("sc"));
    }
    // Both, whatever the access method: it may be changed later.
    if missing(status.backup_pvc_name.as_ref()) {
        status.backup_pvc_name = Some(name("pvc"));
    }
    if missing(status.tool_config_secret_name.as_ref()) {
        status.tool_config_secret_name = Some(name("tool-config"));
    }
}

fn missing(name: Option<&String>) -> bool {
    name.is_none_or(String::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provider() -> StorageProviderSpec {
        StorageProviderSpec {
            csi_driver_secret_template: Some("a: b".into()),
            storage_class_template: Some("provisioner: x".into()),
            ..StorageProviderSpec::default()
        }
    }

    #[test]
    fn behaviour_1_5_names_are_made_once() {
        let mut status = BackupRepoStatus::default();
        assign(&mut status, "main", &provider(), "kb", || 0);
        assert_eq!(status.tool_config_secret_name.as_deref(), Some("tool-config-main-bbbbbb"));
        assert_eq!(status.backup_pvc_name.as_deref(), Some("pvc-main-bbbbbb"));
        assert_eq!(status.generated_storage_class_name.as_deref(), Some("sc-main-bbbbbb"));
        assert_eq!(status.generated_csi_driver_secret.as_ref().unwrap().namespace.as_deref(), Some("kb"));
        let before = status.clone();
        assign(&mut status, "main", &provider(), "kb", || 1);
        assert_eq!(status, before);
    }

    #[test]
    fn behaviour_1_5_a_long_name_leaves_room_for_the_random_part() {
        let mut status = BackupRepoStatus::default();
        assign(&mut status, &"r".repeat(80), &StorageProviderSpec::default(), "kb", || 26);
        let name = status.backup_pvc_name.unwrap();
        assert_eq!(name.len(), 63);
        assert!(name.ends_with("-999999"));
        assert_eq!(status.generated_storage_class_name, None);
    }
}
