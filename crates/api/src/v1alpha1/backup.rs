//! `Backup`: one backup and its result.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    ActionStatus, BackupMethod, BackupStatusTarget, BackupTimeRange, EncryptionConfig, ParameterPair,
    VolumeSnapshotStatus,
};
use crate::{
    schema::{self, core_types},
    words::words,
};

/// The wish for a backup.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "dataprotection.kubeblocks.io",
    version = "v1alpha1",
    kind = "Backup",
    namespaced,
    doc = "One backup: created to have it made, kept as its catalogue entry, deleted to have its data removed.",
    plural = "backups",
    status = "BackupStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(name = "POLICY", type_ = "string", json_path = ".spec.backupPolicyName"),
    printcolumn(name = "METHOD", type_ = "string", json_path = ".spec.backupMethod"),
    printcolumn(name = "REPO", type_ = "string", json_path = ".status.backupRepoName"),
    printcolumn(name = "STATUS", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "TOTAL-SIZE", type_ = "string", json_path = ".status.totalSize"),
    printcolumn(name = "DURATION", type_ = "string", json_path = ".status.duration"),
    printcolumn(name = "DELETION-POLICY", type_ = "string", json_path = ".spec.deletionPolicy"),
    printcolumn(name = "CREATION-TIME", type_ = "string", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "COMPLETION-TIME", type_ = "string", json_path = ".status.completionTimestamp"),
    printcolumn(name = "EXPIRATION-TIME", type_ = "string", json_path = ".status.expiration"),
    // Not in the contract: what lists without objects need besides. Their names are an interface to the plugin.
    printcolumn(name = "IN-NAMESPACE", type_ = "string", json_path = ".metadata.namespace", priority = 1),
    printcolumn(
        name = "TYPE",
        type_ = "string",
        json_path = ".metadata.labels['dataprotection\\.kubeblocks\\.io/backup-type']",
        priority = 1
    ),
    printcolumn(
        name = "WORKLOAD",
        type_ = "string",
        json_path = ".metadata.labels['kbbackup\\.io/workload-name']",
        priority = 1
    ),
    printcolumn(
        name = "INSTANCE",
        type_ = "string",
        json_path = ".metadata.labels['app\\.kubernetes\\.io/instance']",
        priority = 1
    ),
    printcolumn(name = "PARENT", type_ = "string", json_path = ".status.parentBackupName", priority = 1),
    printcolumn(name = "START-TIME", type_ = "string", json_path = ".status.startTimestamp", priority = 1),
    printcolumn(name = "DELETION-TIME", type_ = "string", json_path = ".metadata.deletionTimestamp", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[schemars(
    transform = schema::require("deletionPolicy"),
    extend("x-kubernetes-validations" = schema::fixed_presence("parameters"))
)]
pub struct BackupSpec {
    /// Name of the BackupPolicy in the same namespace. Cannot be changed.
    #[schemars(extend(
        "pattern" = schema::NAME,
        "x-kubernetes-validations" = schema::immutable("forbidden to update spec.backupPolicyName")
    ))]
    pub backup_policy_name: String,

    /// Name of one of the policy's methods. Cannot be changed.
    #[schemars(extend(
        "x-kubernetes-validations" = schema::immutable("forbidden to update spec.backupMethod")
    ))]
    pub backup_method: String,

    /// What happens to the data when this object is deleted. `Delete`: it is removed from the repository first. `Retain`: it
    /// stays there. Default: `Delete`. May be changed at any time.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// Keep the backup for this long after its completion, for example `30d` or `1y6mo` (units `y`, `mo`, `w`, `d`, `h`,
    /// `m`). Zero or nothing: until it is deleted by hand. A change after completion does not move `status.expiration`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_period: Option<String>,

    /// For incremental backups: the backup to build on. Default: the newest suitable one. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-kubernetes-validations" = schema::immutable("forbidden to update spec.parentBackupName")
    ))]
    pub parent_backup_name: Option<String>,

    /// Parameters for the action set, by name. Can be neither changed nor added later.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), extend(
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = json!(["name"]),
        "x-kubernetes-validations" = schema::immutable("forbidden to update spec.parameters")
    ))]
    pub parameters: Vec<ParameterPair>,
}

/// What became of the backup. Restores need nothing else to read it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupStatus {
    /// Version of the layout in the repository: `0.1.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format_version: Option<String>,

    /// How far it is. Empty until it was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<BackupPhase>,

    /// When it may be removed. Without it: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "core_types::time")]
    pub expiration: Option<Time>,

    /// When it started to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "core_types::time")]
    pub start_timestamp: Option<Time>,

    /// When it was finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "core_types::time")]
    pub completion_timestamp: Option<Time>,

    /// How long it took, in whole seconds, for example `3m12s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,

    /// Size of the data, for example `1Gi`; a bare number is bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_size: Option<String>,

    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_reason: Option<String>,

    /// Why it could not be deleted yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_failure_reason: Option<String>,

    /// Repository it lies in. Empty for volume snapshots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_repo_name: Option<String>,

    /// Its folder in the repository, from the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,

    /// Path of the Kopia repository, if one is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kopia_repo_path: Option<String>,

    /// Claim of the repository, if it is mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim_name: Option<String>,

    /// Time span that the data covers. For a continuous backup: the window to which it can restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_range: Option<BackupTimeRange>,

    /// The target, if there is a single one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Box<BackupStatusTarget>>,

    /// The targets, if there is a list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<BackupStatusTarget>,

    /// The method as it was when the backup started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_method: Option<Box<BackupMethod>>,

    /// How the data is encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption_config: Option<EncryptionConfig>,

    /// One entry per action and target pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<ActionStatus>,

    /// Snapshots of the whole backup. Kept if present; the ones taken are found in `actions`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volume_snapshots: Vec<VolumeSnapshotStatus>,

    /// The backup that this one builds on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_backup_name: Option<String>,

    /// The full backup at the root of the chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_backup_name: Option<String>,

    /// What the backup's script wants the restore's script to know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extras: Vec<BTreeMap<String, String>>,
}

words! {
    /// How far a backup is.
    pub enum BackupPhase {
        /// Looked at, not started.
        New = "New",
        /// Allowed by the contract, never written.
        InProgress = "InProgress",
        /// Under way.
        Running = "Running",
        /// Done and good.
        Completed = "Completed",
        /// Not done; the failure reason says why.
        Failed = "Failed",
        /// Its data is being removed.
        Deleting = "Deleting",
    }
}

words! {
    /// What happens to the data when the object is deleted.
    #[derive(Default)]
    pub enum DeletionPolicy {
        /// It is removed first.
        #[default]
        Delete = "Delete",
        /// It stays in the repository.
        Retain = "Retain",
    }
}
