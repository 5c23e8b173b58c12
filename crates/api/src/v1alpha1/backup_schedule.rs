//! `BackupSchedule`: when to make backups.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::SchedulePolicy;
use crate::{
    schema::{self, core_types},
    words::open_words,
};

/// When to make backups with the methods of one policy.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "dataprotection.kubeblocks.io",
    version = "v1alpha1",
    kind = "BackupSchedule",
    namespaced,
    doc = "When to make backups with the methods of one policy, and how long to keep them.",
    plural = "backupschedules",
    shortname = "bs",
    status = "BackupScheduleStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(name = "STATUS", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct BackupScheduleSpec {
    /// Name of the BackupPolicy in the same namespace. May be changed.
    #[schemars(extend("pattern" = schema::NAME))]
    pub backup_policy_name: String,

    /// How many minutes late a missed run may still start, 0 to 1440. Without it there is no limit. May be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1440))]
    pub starting_deadline_minutes: Option<i64>,

    /// The entries, at least one. May be changed.
    #[schemars(length(min = 1))]
    pub schedules: Vec<SchedulePolicy>,
}

/// What became of the schedule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupScheduleStatus {
    /// Whether the schedule is in effect: `Available` or `Failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<BackupSchedulePhase>,

    /// The generation of the object that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// The last error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_reason: Option<String>,

    /// State of the entries, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub schedules: BTreeMap<String, ScheduleStatus>,
}

/// State of one entry of a schedule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScheduleStatus {
    /// `Running` or `Failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<SchedulePhase>,

    /// The last error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_reason: Option<String>,

    /// When a backup was last started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "core_types::time")]
    pub last_schedule_time: Option<Time>,

    /// When a backup last succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "core_types::time")]
    pub last_successful_time: Option<Time>,
}

open_words! {
    /// Whether a schedule is in effect.
    pub enum BackupSchedulePhase {
        /// It is.
        Available = "Available",
        /// It is not; the failure reason says why.
        Failed = "Failed",
    }
}

open_words! {
    /// State of one entry of a schedule.
    pub enum SchedulePhase {
        /// It is in effect.
        Running = "Running",
        /// It is not.
        Failed = "Failed",
    }
}
