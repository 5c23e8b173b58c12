//! The objects that are made for a repository, as plain values.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret, VolumeResourceRequirements};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kbbackup_api::names::{TRUE, annotations, labels};
use kbbackup_api::v1alpha1::BackupRepo;
use kube::{Resource as _, ResourceExt as _};

/// Key of the mover's configuration in its Secret.
pub(super) const TOOL_CONFIG_KEY: &str = "datasafed.conf";

/// Metadata of everything that is made for `repo`: its label, and its ownership.
pub(super) fn meta(repo: &BackupRepo, name: &str, namespace: Option<&str>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: namespace.map(str::to_owned),
        labels: Some(BTreeMap::from([(labels::BACKUP_REPO_NAME.to_owned(), repo.name_any())])),
        owner_references: repo.controller_owner_ref(&()).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}

fn stamped(mut meta: ObjectMeta, digest: &str) -> ObjectMeta {
    meta.annotations.get_or_insert_default().insert(annotations::BACKUP_REPO_DIGEST.to_owned(), digest.to_owned());
    meta
}

/// The Secret for the CSI driver.
pub(super) fn csi_secret(
    repo: &BackupRepo,
    name: &str,
    namespace: &str,
    data: &BTreeMap<String, String>,
    digest: &str,
) -> Secret {
    Secret {
        metadata: stamped(meta(repo, name, Some(namespace)), digest),
        data: Some(bytes(data)),
        ..Secret::default()
    }
}

/// The StorageClass: the template's body, with what a repository demands of it.
pub(super) fn storage_class(repo: &BackupRepo, name: &str, template: &StorageClass) -> StorageClass {
    let own = meta(repo, name, None);
    let mut class = template.clone();
    class.metadata.labels.get_or_insert_default().extend(own.labels.unwrap_or_default());
    class.metadata.name = own.name;
    class.metadata.namespace = None;
    class.metadata.owner_references = own.owner_references;
    class.volume_binding_mode = Some("Immediate".to_owned());
    class.reclaim_policy = Some(repo.spec.pv_reclaim_policy.to_string());
    class
}

/// The repository's claim in `namespace`: the template's body, or a claim of the generated class.
pub(super) fn claim(
    repo: &BackupRepo,
    name: &str,
    namespace: &str,
    template: Option<&PersistentVolumeClaim>,
) -> PersistentVolumeClaim {
    let own = meta(repo, name, Some(namespace));
    let mut claim = template.cloned().unwrap_or_default();
    claim.metadata.labels.get_or_insert_default().extend(own.labels.unwrap_or_default());
    claim.metadata.name = own.name;
    claim.metadata.namespace = own.namespace;
    claim.metadata.owner_references = own.owner_references;
    claim.status = None;
    let from_class = template.is_none();
    let spec = claim.spec.get_or_insert_default();
    if from_class {
        spec.storage_class_name = repo.status.as_ref().and_then(|status| status.generated_storage_class_name.clone());
    }
    if spec.access_modes.as_ref().is_none_or(Vec::is_empty) {
        spec.access_modes = Some(vec!["ReadWriteMany".to_owned()]);
    }
    if spec.volume_mode.is_none() {
        spec.volume_mode = Some("Filesystem".to_owned());
    }
    let requests =
        spec.resources.get_or_insert_with(VolumeResourceRequirements::default).requests.get_or_insert_default();
    if let (None, Some(capacity)) = (requests.get("storage"), &repo.spec.volume_capacity) {
        requests.insert("storage".to_owned(), capacity.clone());
    }
    claim
}

/// The Secret with the mover's configuration, in a namespace that uses the repository.
pub(super) fn tool_config(repo: &BackupRepo, name: &str, namespace: &str, text: &str, digest: &str) -> Secret {
    let mut metadata = stamped(meta(repo, name, Some(namespace)), digest);
    metadata.labels.get_or_insert_default().insert(labels::IS_TOOL_CONFIG.to_owned(), TRUE.to_owned());
    Secret { metadata, data: Some(config(text)), ..Secret::default() }
}

/// Content of a Secret with the mover's configuration.
pub(super) fn config(text: &str) -> BTreeMap<String, ByteString> {
    BTreeMap::from([(TOOL_CONFIG_KEY.to_owned(), ByteString(text.as_bytes().to_vec()))])
}

fn bytes(data: &BTreeMap<String, String>) -> BTreeMap<String, ByteString> {
    data.iter().map(|(key, value)| (key.clone(), ByteString(value.as_bytes().to_vec()))).collect()
}

/// What the pre-check leaves behind carries the same marks as what it uses.
pub(super) fn pre_check_meta(
    repo: &BackupRepo,
    name: &str,
    namespace: &str,
    digest: &str,
    request: Option<&str>,
) -> ObjectMeta {
    let mut metadata = stamped(meta(repo, name, Some(namespace)), digest);
    if let Some(request) = request {
        let annotations = metadata.annotations.get_or_insert_default();
        annotations.insert(annotations::CHECK_REQUESTED_AT.to_owned(), request.to_owned());
    }
    metadata
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn repo() -> BackupRepo {
        serde_json::from_value(json!({
            "metadata": { "name": "main", "uid": "12345678-9" },
            "spec": { "storageProviderRef": "nfs", "pvReclaimPolicy": "Retain", "volumeCapacity": "100Gi" },
            "status": { "generatedStorageClassName": "sc-main-bbbbbb" },
        }))
        .unwrap()
    }

    #[test]
    fn behaviour_1_5_a_claim_without_a_template_is_of_the_generated_class() {
        insta::assert_yaml_snapshot!(claim(&repo(), "pvc-main-bbbbbb", "demo", None));
    }

    #[test]
    fn behaviour_1_5_a_claim_s_template_wins_where_it_says_something() {
        let template = json!({ "metadata": { "name": "ignored", "labels": { "kept": "yes" } }, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } });
        let template = serde_json::from_value(template).unwrap();
        insta::assert_yaml_snapshot!(claim(&repo(), "pvc-main-bbbbbb", "demo", Some(&template)));
    }

    #[test]
    fn behaviour_1_5_a_storage_class_binds_at_once_and_reclaims_as_the_repo_says() {
        let template = json!({ "provisioner": "nfs.csi.k8s.io", "parameters": { "share": "/" },
            "volumeBindingMode": "WaitForFirstConsumer", "reclaimPolicy": "Delete" });
        insta::assert_yaml_snapshot!(storage_class(
            &repo(),
            "sc-main-bbbbbb",
            &serde_json::from_value(template).unwrap()
        ));
    }

    #[test]
    fn behaviour_1_5_a_tool_secret_carries_both_labels_and_the_digest() {
        insta::assert_yaml_snapshot!(tool_config(&repo(), "tool-config-main-bbbbbb", "demo", "[storage]\n", "d1"));
    }

    #[test]
    fn behaviour_1_5_a_csi_secret_lies_in_the_manager_namespace() {
        let data = [("accessKeyID".to_owned(), "AK".to_owned())].into();
        insta::assert_yaml_snapshot!(csi_secret(&repo(), "secret-main-bbbbbb", "kb", &data, "d1"));
    }
}
