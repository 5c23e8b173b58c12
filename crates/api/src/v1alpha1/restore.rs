//! `Restore`: one restore and its result.

use k8s_openapi::{
    api::core::v1::{EnvVar, ResourceRequirements},
    apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time},
};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{ParameterPair, PrepareDataConfig, ReadyConfig};
use crate::{
    lenient,
    schema::{self, core_types},
    words::words,
};

/// The wish for a restore.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "dataprotection.kubeblocks.io",
    version = "v1alpha1",
    kind = "Restore",
    namespaced,
    doc = "One restore: first volumes are created and filled, then actions run against the database that uses them.",
    plural = "restores",
    status = "RestoreStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(name = "BACKUP", type_ = "string", json_path = ".spec.backup.name"),
    printcolumn(
        name = "RESTORE-TIME",
        type_ = "string",
        json_path = ".spec.restoreTime",
        description = "Point in time for restoring"
    ),
    printcolumn(name = "STATUS", type_ = "string", json_path = ".status.phase", description = "Restore Status."),
    printcolumn(name = "DURATION", type_ = "string", json_path = ".status.duration"),
    printcolumn(name = "CREATION-TIME", type_ = "string", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "COMPLETION-TIME", type_ = "string", json_path = ".status.completionTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::fixed_presence("parameters")))]
pub struct RestoreSpec {
    /// The backup to restore. Cannot be changed.
    #[schemars(extend("x-kubernetes-validations" = schema::immutable("forbidden to update spec.backupName")))]
    pub backup: BackupRef,

    /// Point in time to restore to, in UTC and whole seconds, for example `2025-03-02T09:30:00Z`. Needed for continuous
    /// backups, whose time range it must lie in. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "pattern" = schema::RESTORE_TIME,
        "x-kubernetes-validations" = schema::immutable("forbidden to update spec.restoreTime")
    ))]
    pub restore_time: Option<String>,

    /// Kubernetes objects to restore. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = schema::immutable("forbidden to update spec.resources")))]
    pub resources: Option<RestoreResources>,

    /// First stage: volumes to create and fill.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepare_data_config: Option<PrepareDataConfig>,

    /// ServiceAccount of the restore's pods. Default: the shared one for workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<String>,

    /// Second stage: actions against running pods. Without it there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = schema::rule(
        "has(self.jobAction) || has(self.execAction)",
        "at least one exists for jobAction and execAction.",
    )))]
    pub ready_config: Option<ReadyConfig>,

    /// Environment variables for the Jobs. They win over those of the backup and of the action set.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "lenient::quantities")]
    #[schemars(schema_with = "core_types::open_env_vars")]
    pub env: Vec<EnvVar>,

    /// Requests and limits of the container that restores.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "lenient::quantities")]
    #[schemars(schema_with = "core_types::resource_requirements")]
    pub container_resources: Option<ResourceRequirements>,

    /// How often a failed Job is tried again, 0 to 10. Counts as 1 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10))]
    pub backoff_limit: Option<i32>,

    /// Parameters for the action set, by name. Can be neither changed nor added later.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), extend(
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = json!(["name"]),
        "x-kubernetes-validations" = schema::immutable("forbidden to update spec.parameters")
    ))]
    pub parameters: Vec<ParameterPair>,
}

impl RestoreSpec {
    /// How often a failed Job is tried again unless said otherwise.
    pub const BACKOFF_LIMIT: i32 = 1;

    /// How often a failed Job is tried again.
    pub fn backoff_limit(&self) -> i32 {
        self.backoff_limit.unwrap_or(Self::BACKOFF_LIMIT)
    }
}

/// A backup, in whichever namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupRef {
    /// Name of the Backup.
    pub name: String,

    /// Namespace of the Backup. It may differ from that of the Restore.
    pub namespace: String,

    /// Which target of the backup to restore from, if it has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_target_name: Option<String>,
}

/// Kubernetes objects to restore.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RestoreResources {
    /// Which ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub included: Vec<IncludeResource>,
}

/// Kubernetes objects of one type.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IncludeResource {
    /// The type as `resource.group`, for example `statefulsets.apps`.
    pub group_resource: String,

    /// Labels of the objects. Without it all are taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "core_types::label_selector")]
    pub label_selector: Option<LabelSelector>,
}

/// What became of the restore.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreStatus {
    /// How far it is. Empty until it was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<RestorePhase>,

    /// When it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "core_types::time")]
    pub start_timestamp: Option<Time>,

    /// When it ended, well or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "core_types::time")]
    pub completion_timestamp: Option<Time>,

    /// How long it took, in whole seconds, for example `3m12s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,

    /// The actions of both stages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actions: Option<RestoreStatusActions>,

    /// The findings one by one, each with its reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "core_types::conditions")]
    pub conditions: Vec<Condition>,
}

/// The actions of a restore, by stage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreStatusActions {
    /// Those that fill volumes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prepare_data: Vec<RestoreStatusAction>,

    /// Those against the started database.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub post_ready: Vec<RestoreStatusAction>,
}

/// How one action of a restore went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreStatusAction {
    /// Name of the action: `prepareData-<i>` or `postReady-<i>`.
    pub name: String,

    /// The backup that it restores from.
    pub backup_name: String,

    /// What runs it, as `Job/<name>`. Unique in the stage.
    pub object_key: String,

    /// What there is to say about it, with the last lines of its log if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,

    /// How far it is.
    pub status: RestoreActionPhase,

    /// When it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "core_types::time")]
    pub start_time: Option<Time>,

    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "core_types::time")]
    pub end_time: Option<Time>,
}

words! {
    /// How far a restore is.
    pub enum RestorePhase {
        /// Under way.
        Running = "Running",
        /// Done and good.
        Completed = "Completed",
        /// Not done; conditions and actions say why.
        Failed = "Failed",
        /// Does nothing itself; claims name it as the source of their data.
        AsDataSource = "AsDataSource",
    }
}

words! {
    /// How far an action of a restore is.
    pub enum RestoreActionPhase {
        /// Under way.
        Processing = "Processing",
        /// Done and good.
        Completed = "Completed",
        /// Not done.
        Failed = "Failed",
    }
}
