//! Parts of a backup's status.

use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    schema::{self, core_types},
    words::open_words,
};

/// A span of time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupTimeRange {
    /// Offset such as `+08:00` in which scripts are told times. The times themselves are UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = schema::TIME_ZONE))]
    pub time_zone: Option<String>,

    /// The first instant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "core_types::time")]
    pub start: Option<Time>,

    /// The last instant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "core_types::time")]
    pub end: Option<Time>,
}

/// How one action on one target pod went.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActionStatus {
    /// Name of the action, unique in the backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,

    /// The pod it works on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_pod_name: Option<String>,

    /// How far it is: `New`, `Running`, `Completed` or `Failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<ActionPhase>,

    /// When it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "core_types::time")]
    pub start_timestamp: Option<Time>,

    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "core_types::time")]
    pub completion_timestamp: Option<Time>,

    /// Why it failed, with the last lines of its log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_reason: Option<String>,

    /// What runs it: `Job`, `StatefulSet`, or nothing for a volume snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action_type: Option<ActionType>,

    /// Ready pods of a StatefulSet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available_replicas: Option<i32>,

    /// The object that runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "core_types::object_reference")]
    pub object_ref: Option<ObjectReference>,

    /// Size of the data it stored, for example `1Gi`; a bare number is bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_size: Option<String>,

    /// Time span that its data covers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_range: Option<BackupTimeRange>,

    /// Snapshots it took.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volume_snapshots: Vec<VolumeSnapshotStatus>,
}

/// One volume snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeSnapshotStatus {
    /// Name of the VolumeSnapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,

    /// Name of its VolumeSnapshotContent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_name: Option<String>,

    /// Name of the volume in the target pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_name: Option<String>,

    /// Size of a volume made from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,

    /// Target that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_name: Option<String>,
}

open_words! {
    /// How far an action of a backup is.
    pub enum ActionPhase {
        /// Not started.
        New = "New",
        /// Under way.
        Running = "Running",
        /// Done and good.
        Completed = "Completed",
        /// Not done.
        Failed = "Failed",
    }
}

open_words! {
    /// What runs an action of a backup.
    pub enum ActionType {
        /// A Job.
        Job = "Job",
        /// A StatefulSet, for continuous backups.
        StatefulSet = "StatefulSet",
    }
}
