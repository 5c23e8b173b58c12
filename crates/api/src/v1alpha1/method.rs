//! How a backup is made: methods, volumes, runtime and encryption.

use k8s_openapi::api::core::v1::{EnvVar, ResourceRequirements, SecretKeySelector, VolumeMount};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::BackupTarget;
use crate::{
    lenient,
    schema::{self, core_types},
    words::words,
};

/// One way to back up the target of a policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupMethod {
    /// Name of the method, by which backups and schedules call it.
    #[schemars(extend("pattern" = schema::NAME))]
    pub name: String,

    /// For incremental methods: name of the full method that it builds on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = schema::NAME))]
    pub compatible_method: Option<String>,

    /// Whether to take CSI snapshots of the volumes. Then no action set is needed. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = false))]
    pub snapshot_volumes: Option<bool>,

    /// Name of the ActionSet with the recipe. Needed unless the method takes snapshots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action_set_name: Option<String>,

    /// Volumes of the target pod: which to snapshot, or where to mount them into Jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_volumes: Option<TargetVolumeInfo>,

    /// Environment variables for the Jobs. They win over those of the action set.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "lenient::quantities")]
    #[schemars(schema_with = "core_types::env_vars")]
    pub env: Vec<EnvVar>,

    /// Settings for the containers of the Jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_settings: Option<RuntimeSettings>,

    /// Target of this method, in place of the policy's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<BackupTarget>,

    /// Targets of this method, in place of the policy's. If `target` is set too, that one counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<BackupTarget>,
}

impl BackupMethod {
    /// Whether the method takes snapshots; it does not unless said otherwise.
    pub fn snapshot_volumes(&self) -> bool {
        self.snapshot_volumes.unwrap_or(false)
    }
}

/// Volumes of the target pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetVolumeInfo {
    /// Names of the volumes to snapshot or to mount.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,

    /// Where volumes of the pod are mounted in Jobs that run on its node. Restores look here for the path of a volume.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "core_types::volume_mounts")]
    pub volume_mounts: Vec<VolumeMount>,
}

/// Settings for the containers of Jobs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RuntimeSettings {
    /// Requests and limits of the container that runs the script.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient::quantities")]
    #[schemars(schema_with = "core_types::resource_requirements")]
    pub resources: Option<ResourceRequirements>,
}

/// How the data of backups is encrypted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = schema::require("algorithm"))]
pub struct EncryptionConfig {
    /// The cipher. `age` writes the age v1 format: authenticated, readable with the standard tool; KubeBlocks cannot read
    /// it. The AES-CFB ciphers exchange data with KubeBlocks; they hide the content but do not notice when it is altered.
    #[serde(default)]
    pub algorithm: EncryptionAlgorithm,

    /// Key of a Secret that holds the pass phrase, in the namespace where the Job runs. Whoever loses it loses the backups.
    #[schemars(schema_with = "core_types::secret_key_selector")]
    pub pass_phrase_secret_key_ref: SecretKeySelector,
}

words! {
    /// A cipher for backup data.
    #[derive(Default)]
    pub enum EncryptionAlgorithm {
        /// AES-128 in CFB mode, not authenticated.
        Aes128Cfb = "AES-128-CFB",
        /// AES-192 in CFB mode, not authenticated.
        Aes192Cfb = "AES-192-CFB",
        /// AES-256 in CFB mode, not authenticated.
        #[default]
        Aes256Cfb = "AES-256-CFB",
        /// The age v1 file format, authenticated. An addition of kbbackup that KubeBlocks does not know.
        Age = "age",
    }
}
