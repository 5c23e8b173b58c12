//! `ActionSet`: how a database is backed up and restored.

use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Availability, BackupActionSpec, ParametersSchema, RestoreActionSpec};
use crate::{
    lenient,
    schema::{self, core_types},
    words::words,
};

/// Images, commands and environment for one way to back up a database, and to restore what it made.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "dataprotection.kubeblocks.io",
    version = "v1alpha1",
    kind = "ActionSet",
    doc = "The recipe for one way to back up a database, and to restore what it made: images, commands, environment.",
    plural = "actionsets",
    shortname = "as",
    status = "ActionSetStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(name = "BACKUP-TYPE", type_ = "string", json_path = ".spec.backupType"),
    printcolumn(name = "STATUS", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = schema::require("backupType"))]
pub struct ActionSetSpec {
    /// What a backup made with this recipe holds. `Full`: everything. `Incremental`: the changes since its parent.
    /// `Differential`: the changes since the last full backup. `Continuous`: the log, for restores to a point in time.
    /// `Selective`: the part that its parameters name.
    #[serde(default)]
    pub backup_type: BackupType,

    /// The parameters that users may give. May be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters_schema: Option<ParametersSchema>,

    /// Environment variables for every Job made from this recipe. May be changed; running Jobs keep theirs.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "lenient::quantities")]
    #[schemars(schema_with = "core_types::open_env_vars")]
    pub env: Vec<EnvVar>,

    /// Secrets and ConfigMaps whose keys become environment variables of backup Jobs. Restores do not get them. Better not
    /// changed, because backups that exist may depend on them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "core_types::open_env_from_sources")]
    pub env_from: Vec<EnvFromSource>,

    /// How to back up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupActionSpec>,

    /// How to restore. Restores read it when they run, so a change reaches backups that exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<RestoreActionSpec>,
}

/// Result of the recipe's own check.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActionSetStatus {
    /// Whether the recipe is sound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Availability>,

    /// Why it is in this phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,

    /// The generation of the object that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

words! {
    /// What a backup holds.
    #[derive(Default)]
    pub enum BackupType {
        /// Everything.
        #[default]
        Full = "Full",
        /// The changes since its parent.
        Incremental = "Incremental",
        /// The changes since the last full backup.
        Differential = "Differential",
        /// The log, for restores to a point in time.
        Continuous = "Continuous",
        /// The part that its parameters name.
        Selective = "Selective",
    }
}
