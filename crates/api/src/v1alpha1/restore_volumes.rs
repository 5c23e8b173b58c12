//! First stage of a restore: volumes to create and fill.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, PersistentVolumeClaimSpec, Toleration, TopologySpreadConstraint};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    lenient,
    schema::{self, core_types},
    words::{open_words, words},
};

/// Volumes to create and fill.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = schema::require("volumeClaimRestorePolicy"))]
pub struct PrepareDataConfig {
    /// Which backed-up pod feeds which new one. Needed if the backup was made of all pods (strategy `All`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required_policy_for_all_pod_selection: Option<RequiredPolicyForAllPodSelection>,

    /// Makes this Restore a source of data that claims can name in their `dataSourceRef`. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = schema::immutable_source_or_path(
        "forbidden to update spec.prepareDataConfig.dataSourceRef"
    )))]
    pub data_source_ref: Option<VolumeConfig>,

    /// Claims to fill. Missing ones are created; existing ones are used as they are. Cannot be changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-validations" = schema::immutable(
        "forbidden to update spec.prepareDataConfig.volumeClaims"
    )))]
    pub volume_claims: Vec<RestoreVolumeClaim>,

    /// Claims to make for each replica and to fill. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = schema::immutable(
        "forbidden to update spec.prepareDataConfig.volumeClaimsTemplate"
    )))]
    pub volume_claims_template: Option<RestoreVolumeClaimsTemplate>,

    /// `Parallel`: the volumes of all replicas are filled at once. `Serial`: one replica after the other. Default:
    /// `Parallel`.
    #[serde(default)]
    pub volume_claim_restore_policy: VolumeClaimRestorePolicy,

    /// Where the pods that fill the volumes may run. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = schema::immutable(
        "forbidden to update spec.prepareDataConfig.schedulingSpec"
    )))]
    pub scheduling_spec: Option<SchedulingSpec>,
}

/// Which data goes to which path. At least one of the two must be given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeConfig {
    /// Name of the backed-up volume. Needed if the backup is a volume snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_source: Option<String>,

    /// Where the volume is mounted while it is filled. Default: the path that the backup recorded for `volumeSource`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount_path: Option<String>,
}

/// A claim to fill.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::source_or_path()))]
pub struct RestoreVolumeClaim {
    /// Name, labels and annotations of the claim. It is made in the namespace of the Restore.
    pub metadata: EmbeddedObjectMeta,

    /// The claim itself.
    #[serde(deserialize_with = "lenient::quantities")]
    #[schemars(schema_with = "core_types::persistent_volume_claim_spec")]
    pub volume_claim_spec: PersistentVolumeClaimSpec,

    /// Which data it gets.
    #[serde(flatten)]
    pub volume: VolumeConfig,
}

/// Name, labels and annotations of an object to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EmbeddedObjectMeta {
    /// Name of the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,

    /// Not used: the object is made in the namespace of the Restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,

    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,

    /// Its annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,

    /// Its finalizers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub finalizers: Vec<String>,
}

/// Claims to make for each replica.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreVolumeClaimsTemplate {
    /// The claims of one replica. Their names get `-<ordinal>` appended.
    pub templates: Vec<RestoreVolumeClaim>,

    /// Number of replicas, at least 1.
    #[schemars(range(min = 1))]
    pub replicas: i32,

    /// Ordinal of the first replica, at least 0. Counts as 0 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub starting_index: Option<i32>,
}

impl RestoreVolumeClaimsTemplate {
    /// Ordinal of the first replica.
    pub fn starting_index(&self) -> i32 {
        self.starting_index.unwrap_or(0)
    }
}

/// Where the pods of a restore may run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SchedulingSpec {
    /// Taints they tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "core_types::tolerations")]
    pub tolerations: Vec<Toleration>,

    /// Labels of the node.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("x-kubernetes-map-type" = "atomic"))]
    pub node_selector: BTreeMap<String, String>,

    /// The node itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,

    /// What they want to be near to or away from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "core_types::affinity")]
    pub affinity: Option<Affinity>,

    /// How they spread.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "core_types::topology_spread_constraints")]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,

    /// Who schedules them. Default: the default scheduler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler_name: Option<String>,
}

/// Which backed-up pod feeds which new one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = schema::require("dataRestorePolicy"))]
pub struct RequiredPolicyForAllPodSelection {
    /// `OneToOne`: the first backed-up pod feeds the first new one and so on. `OneToMany`: one feeds all. Default:
    /// `OneToOne`.
    #[serde(default)]
    pub data_restore_policy: DataRestorePolicy,

    /// The one that feeds all. Needed for `OneToMany`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_of_one_to_many: Option<SourceOfOneToMany>,
}

/// The pod that feeds all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceOfOneToMany {
    /// Name of the backed-up pod.
    pub target_pod_name: String,
}

words! {
    /// Whether the volumes of replicas are filled at once.
    #[derive(Default)]
    pub enum VolumeClaimRestorePolicy {
        /// At once.
        #[default]
        Parallel = "Parallel",
        /// One replica after the other.
        Serial = "Serial",
    }
}

open_words! {
    /// Which backed-up pod feeds which new one. Any word but `OneToMany` acts as `OneToOne`.
    #[derive(Default)]
    pub enum DataRestorePolicy {
        /// The first feeds the first, and so on.
        #[default]
        OneToOne = "OneToOne",
        /// One feeds all.
        OneToMany = "OneToMany",
    }
}
