//! KubeBlocks' own kinds as far as this program reads them. They are KubeBlocks': nothing but metadata is ever written,
//! and an [`OpsRequest`] made, so fields that are not read are not listed here.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Their API group.
pub const GROUP: &str = "apps.kubeblocks.io";
/// Name of the definition of [`Cluster`].
pub const CLUSTERS: &str = "clusters.apps.kubeblocks.io";
/// Name of the definition of [`ComponentDefinition`].
pub const COMPONENT_DEFINITIONS: &str = "componentdefinitions.apps.kubeblocks.io";

/// A database cluster.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "apps.kubeblocks.io",
    version = "v1",
    kind = "Cluster",
    namespaced,
    schema = "disabled",
    status = "ClusterStatus",
    derive = "Default",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSpec {
    /// `DoNotTerminate`, `Delete` or `WipeOut`; the last takes the backups along.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub termination_policy: Option<String>,
    /// Its components.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub component_specs: Vec<ClusterComponent>,
    /// Its shardings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shardings: Vec<ClusterSharding>,
    /// What people wish for its backups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<ClusterBackup>,
    /// From which it is restored; only whether there is one is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<Value>,
}

/// State of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// `Creating`, `Running`, `Stopped`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// Conditions, by type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// A component of a cluster, or the pattern of a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterComponent {
    /// Name; empty in the pattern of a shard.
    #[serde(default)]
    pub name: String,
    /// The definition: its name, or a prefix or pattern that KubeBlocks resolves.
    #[serde(default)]
    pub component_def: String,
    /// Version of the database.
    #[serde(default)]
    pub service_version: String,
    /// Number of replicas.
    #[serde(default)]
    pub replicas: Option<i32>,
}

/// Components of the same pattern that share the data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSharding {
    /// Name.
    pub name: String,
    /// The pattern of its shards.
    #[serde(default)]
    pub template: ClusterComponent,
}

/// `spec.backup` of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterBackup {
    /// Whether to make periodic backups.
    #[serde(default)]
    pub enabled: Option<bool>,
    /// How long to keep them.
    #[serde(default)]
    pub retention_period: Option<String>,
    /// The method.
    #[serde(default)]
    pub method: Option<String>,
    /// When.
    #[serde(default)]
    pub cron_expression: Option<String>,
    /// How many minutes late a run may start.
    #[serde(default)]
    pub starting_deadline_minutes: Option<i64>,
    /// The repository.
    #[serde(default)]
    pub repo_name: Option<String>,
    /// Whether to archive the log.
    #[serde(default)]
    pub pitr_enabled: Option<bool>,
    /// The method that archives the log.
    #[serde(default)]
    pub continuous_method: Option<String>,
    /// Whether to make incremental backups.
    #[serde(default)]
    pub incremental_backup_enabled: Option<bool>,
    /// When to make them.
    #[serde(default)]
    pub incremental_cron_expression: Option<String>,
}

/// A component as KubeBlocks runs it.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "apps.kubeblocks.io",
    version = "v1",
    kind = "Component",
    namespaced,
    schema = "disabled",
    derive = "Default",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct ComponentSpec {
    /// Name of its definition, in full.
    #[serde(default)]
    pub comp_def: String,
    /// Version of the database.
    #[serde(default)]
    pub service_version: String,
    /// Number of replicas.
    #[serde(default)]
    pub replicas: Option<i32>,
}

/// Name of the definition of [`OpsRequest`].
pub const OPS_REQUESTS: &str = "opsrequests.operations.kubeblocks.io";

/// A change that KubeBlocks is asked to make to a cluster. It is the one kind of KubeBlocks that is created here.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "operations.kubeblocks.io",
    version = "v1alpha1",
    kind = "OpsRequest",
    namespaced,
    schema = "disabled",
    status = "OpsRequestStatus",
    derive = "Default",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct OpsRequestSpec {
    /// `Reconfiguring` for those that are created here.
    #[serde(default, rename = "type")]
    pub kind: String,
    /// The cluster.
    #[serde(default)]
    pub cluster_name: String,
    /// Which parameters of which components change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reconfigures: Vec<Value>,
}

/// State of a change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpsRequestStatus {
    /// `Succeed`, `Failed`, `Cancelled` and `Aborted` are final.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
}

/// What a component is made of; only its name is read.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "apps.kubeblocks.io",
    version = "v1",
    kind = "ComponentDefinition",
    schema = "disabled",
    derive = "Default",
    derive = "PartialEq"
)]
pub struct ComponentDefinitionSpec {}

impl Cluster {
    /// Whether the cluster is being filled from a backup at this moment.
    pub fn is_being_restored(&self) -> bool {
        let conditions = self.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        let over = |condition: &Condition| condition.type_ == "Restore" && condition.status != "Unknown";
        self.spec.restore.is_some() && !conditions.iter().any(over)
    }
}
