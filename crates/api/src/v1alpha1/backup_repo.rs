//! `BackupRepo`: one place where backups are kept.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::SecretReference,
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Condition},
};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    lenient,
    schema::{self, core_types},
    words::words,
};

/// Where backups are kept: a provider and the parameters it asks for.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "dataprotection.kubeblocks.io",
    version = "v1alpha1",
    kind = "BackupRepo",
    doc = "One place where backups are kept, for example a bucket. The annotation \
           dataprotection.kubeblocks.io/is-default-repo: \"true\" makes it the one that policies use unless they name another.",
    plural = "backuprepos",
    status = "BackupRepoStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(name = "STATUS", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "STORAGEPROVIDER", type_ = "string", json_path = ".spec.storageProviderRef"),
    printcolumn(name = "ACCESSMETHOD", type_ = "string", json_path = ".spec.accessMethod"),
    printcolumn(name = "DEFAULT", type_ = "boolean", json_path = ".status.isDefault"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct BackupRepoSpec {
    /// Name of the StorageProvider. Cannot be changed.
    #[schemars(extend("x-kubernetes-validations" = schema::immutable("StorageProviderRef is immutable")))]
    pub storage_provider_ref: String,

    /// How Jobs reach the storage. `Mount`: they mount a claim. `Tool`: they talk to it with the `datasafed` tool. Do not
    /// change it while backups lie in the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = AccessMethod::default()))]
    pub access_method: Option<AccessMethod>,

    /// Size of the claim, for example `100Gi`. Only for `Mount`, and only if the provider's template sets none. May be
    /// changed; claims that exist keep their size.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient::quantity")]
    #[schemars(schema_with = "core_types::quantity")]
    pub volume_capacity: Option<Quantity>,

    /// What happens to the volume when its claim is deleted: `Delete` or `Retain`. Written into the generated
    /// StorageClass. May be changed; a class that exists stays as it is.
    pub pv_reclaim_policy: PvReclaimPolicy,

    /// Values of the provider's parameters that are no secrets. May be changed; the repository is checked again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub config: BTreeMap<String, String>,

    /// Secret whose keys are the values of the secret parameters. It may lie in any namespace. May be changed; the
    /// repository is checked again, also when the content of the Secret changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "core_types::secret_reference")]
    pub credential: Option<SecretReference>,

    /// Folder within the storage below which all backups of this repository lie, without a leading slash, for example
    /// `prod/eu1`. A change counts for new backups; those that exist stay at the path recorded in their status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = schema::PATH_PREFIX))]
    pub path_prefix: Option<String>,
}

impl BackupRepoSpec {
    /// How Jobs reach the storage; `Mount` unless said otherwise.
    pub fn access_method(&self) -> AccessMethod {
        self.access_method.unwrap_or_default()
    }
}

/// What the operator found out about the repository and made for it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupRepoStatus {
    /// Summary: only a `Ready` repository takes backups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<BackupRepoPhase>,

    /// The findings one by one, each with its reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "core_types::conditions")]
    pub conditions: Vec<Condition>,

    /// The generation of the object that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Secret made for the CSI driver, in the operator's namespace.
    #[serde(rename = "generatedCSIDriverSecret", default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "core_types::secret_reference")]
    pub generated_csi_driver_secret: Option<SecretReference>,

    /// StorageClass made for the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generated_storage_class_name: Option<String>,

    /// Name of the repository's claim in every namespace that uses it.
    #[serde(rename = "backupPVCName", default, skip_serializing_if = "Option::is_none")]
    pub backup_pvc_name: Option<String>,

    /// Name of the Secret with the tool's configuration in every namespace that uses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_config_secret_name: Option<String>,

    /// Whether this is the default repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_default: Option<bool>,
}

words! {
    /// How Jobs reach the storage.
    #[derive(Default)]
    pub enum AccessMethod {
        /// As a mounted volume.
        #[default]
        Mount = "Mount",
        /// With the `datasafed` tool and a configuration Secret.
        Tool = "Tool",
    }
}

words! {
    /// What happens to a volume without its claim.
    #[derive(Default)]
    pub enum PvReclaimPolicy {
        /// It is deleted.
        Delete = "Delete",
        /// It is kept. The choice when someone writes Rust and does not say.
        #[default]
        Retain = "Retain",
    }
}

words! {
    /// Life of a repository.
    pub enum BackupRepoPhase {
        /// A Job is trying it.
        PreChecking = "PreChecking",
        /// It cannot be used; the conditions say why.
        Failed = "Failed",
        /// It takes backups.
        Ready = "Ready",
        /// It is on its way out. It never comes back from here.
        Deleting = "Deleting",
    }
}
