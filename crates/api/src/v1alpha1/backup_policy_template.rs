//! `BackupPolicyTemplate`: policies and schedules for all databases of a sort.

use k8s_openapi::api::core::v1::EnvVar;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Availability, BackupPolicySpec, ContainerPort, PodSelectionStrategy, RetentionPolicy, RuntimeSettings,
    SchedulePolicy, TargetVolumeInfo,
};
use crate::schema;

/// From which policy and schedule are made for each matching component of a KubeBlocks cluster.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "dataprotection.kubeblocks.io",
    version = "v1alpha1",
    kind = "BackupPolicyTemplate",
    doc = "The pattern from which a BackupPolicy and a BackupSchedule are made for each matching component of a KubeBlocks \
           cluster.",
    plural = "backuppolicytemplates",
    shortname = "bpt",
    status = "BackupPolicyTemplateStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(
        name = "SERVICE-KIND",
        type_ = "string",
        json_path = ".spec.serviceKind",
        description = "service kind of the backupPolicyTemplate."
    ),
    printcolumn(name = "STATUS", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct BackupPolicyTemplateSpec {
    /// Well-known name of the service, for example `PostgreSQL`; at most 32 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub service_kind: Option<String>,

    /// Component definitions served: full name, beginning of the name, or regular expression. 1 to 128 entries.
    #[schemars(length(min = 1, max = 128))]
    pub comp_defs: Vec<String>,

    /// Which replica to back up, with which account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetInstance>,

    /// Entries of the schedule.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub schedules: Vec<SchedulePolicy>,

    /// Methods of the policy.
    pub backup_methods: Vec<BackupMethodTemplate>,

    /// How often a failed Job is tried again, 0 to 10. Default: 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10), extend("default" = BackupPolicySpec::BACKOFF_LIMIT))]
    pub backoff_limit: Option<i32>,

    /// `retainLatestBackup` spares the newest completed backup of each method from expiry; `none`, the default, does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_policy: Option<RetentionPolicy>,
}

/// Result of the template's own check.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupPolicyTemplateStatus {
    /// The generation of the object that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Whether the template is sound. Empty until it was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Availability>,

    /// Everything wrong with it, each ended by `;`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,

    /// Component definitions that `compDefs` matches now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matched_comp_defs: Vec<String>,
}

/// A method of the policies that are made. Like a BackupMethod, with an environment that depends on the service version.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupMethodTemplate {
    /// Name of the method.
    #[schemars(extend("pattern" = schema::NAME))]
    pub name: String,

    /// For incremental methods: name of the full method that it builds on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = schema::NAME))]
    pub compatible_method: Option<String>,

    /// Whether to take CSI snapshots of the volumes. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = false))]
    pub snapshot_volumes: Option<bool>,

    /// Name of the ActionSet with the recipe. Needed unless the method takes snapshots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action_set_name: Option<String>,

    /// Volumes of the target pod: which to snapshot, or where to mount them into Jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_volumes: Option<TargetVolumeInfo>,

    /// Environment variables for the Jobs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVarTemplate>,

    /// Settings for the containers of the Jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_settings: Option<RuntimeSettings>,

    /// Which replica to back up with this method, in place of the template's `target`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetInstance>,
}

/// An environment variable whose value may depend on the version of the service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvVarTemplate {
    /// Name of the variable.
    pub name: String,

    /// Its value. It wins over `valueFrom`, even when it is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,

    /// Where its value comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<ValueFrom>,
}

impl EnvVarTemplate {
    /// The variable with its literal value, if it has one.
    pub fn literal(&self) -> Option<EnvVar> {
        let value = self.value.clone()?;
        Some(EnvVar { name: self.name.clone(), value: Some(value), ..EnvVar::default() })
    }
}

/// Where the value of a variable comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ValueFrom {
    /// A choice by the version of the service. Exact matches are tried in all entries first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub version_mapping: Vec<VersionMapping>,
}

/// The value for some versions of the service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionMapping {
    /// The versions: exact, beginning, or regular expression.
    pub service_versions: Vec<String>,

    /// The value, usually the tag of an image.
    pub mapped_value: String,
}

/// Which replica to back up, with which account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetInstance {
    /// Role of the replica; an empty text means any. It does not matter when there is a single replica.
    pub role: String,

    /// Second choice when no replica has `role`. Only for strategy `Any`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback_role: Option<String>,

    /// System account whose Secret is used to log in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,

    /// `Any`: one replica. `All`: every replica. Counts as `Any` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<PodSelectionStrategy>,

    /// Whether an incremental backup takes the pods that its parent took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub use_parent_selected_pods: Option<bool>,

    /// Port of the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_port: Option<ContainerPort>,
}

impl TargetInstance {
    /// One replica or all; one unless said otherwise.
    pub fn strategy(&self) -> PodSelectionStrategy {
        self.strategy.unwrap_or_default()
    }
}
