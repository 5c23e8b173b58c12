//! `StorageProvider`: one sort of remote storage.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    schema::{self, core_types},
    words::words,
};

/// What is special about one sort of storage: how to mount it through CSI, how to reach it with the `datasafed` tool, and
/// which parameters either needs. Templates are Go templates with the Sprig functions; the parameters of a repository are
/// `.Parameters`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "dataprotection.kubeblocks.io",
    version = "v1alpha1",
    kind = "StorageProvider",
    doc = "One sort of remote storage, for example S3: how to mount it, how to reach it with the datasafed tool, and which \
           parameters a BackupRepo has to give.",
    plural = "storageproviders",
    status = "StorageProviderStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(name = "STATUS", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "CSIDRIVER", type_ = "string", json_path = ".spec.csiDriverName"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct StorageProviderSpec {
    /// Name of the CSI driver that can mount this storage. Leave it out if the storage is reached with the tool only.
    /// May be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csi_driver_name: Option<String>,

    /// Template of the content of the Secret for the CSI driver: a flat YAML map of texts. May be changed; the Secrets of
    /// existing repositories follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csi_driver_secret_template: Option<String>,

    /// Template of the YAML of the StorageClass. Name, binding mode and reclaim policy are set by the operator. May be
    /// changed; the classes of existing repositories stay as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class_template: Option<String>,

    /// Template of the YAML of a repository's PersistentVolumeClaim; `.GeneratedStorageClassName` is the class made from
    /// `storageClassTemplate`. Access mode is `ReadWriteMany` and size the repository's `volumeCapacity` unless it says
    /// otherwise. May be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim_template: Option<String>,

    /// Template of the file `datasafed.conf`, which tells the tool how to reach the storage. Leave it out if the storage
    /// can only be mounted. May be changed; the Secrets of existing repositories follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datasafed_config_template: Option<String>,

    /// The parameters that the templates use. May be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters_schema: Option<StorageProviderParameters>,
}

/// The parameters that the templates of a provider use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StorageProviderParameters {
    /// OpenAPI v3 schema of the parameters: an object with one property per parameter. Defaults in it count as given.
    #[serde(rename = "openAPIV3Schema", default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub open_api_v3_schema: Option<Map<String, Value>>,

    /// Names of the parameters that are secret. They belong into the Secret of a repository, not into its `config`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub credential_fields: Vec<String>,
}

/// What the operator found out about the provider.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StorageProviderStatus {
    /// Whether repositories can use this provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<StorageProviderPhase>,

    /// The findings one by one: `CSIDriverInstalled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "core_types::conditions")]
    pub conditions: Vec<Condition>,
}

words! {
    /// Whether a provider can be used.
    pub enum StorageProviderPhase {
        /// Its CSI driver is missing.
        NotReady = "NotReady",
        /// Nothing it needs is missing.
        Ready = "Ready",
    }
}
