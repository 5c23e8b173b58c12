//! Second stage of a restore: actions against running pods.

use k8s_openapi::{api::core::v1::VolumeMount, apimachinery::pkg::apis::meta::v1::LabelSelector};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ConnectionCredential, PodSelector, RequiredPolicyForAllPodSelection};
use crate::schema::core_types;

/// How the actions after the start of the database find it. At least one of `jobAction` and `execAction` must be given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReadyConfig {
    /// For actions that run as a Job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_action: Option<JobAction>,

    /// For actions that run inside a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec_action: Option<ExecAction>,

    /// Secret with which Jobs log in to the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_credential: Option<ConnectionCredential>,

    /// How to find out that the database is ready. KubeBlocks stores it and does not run it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness_probe: Option<ReadinessProbe>,
}

/// For actions that run as a Job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobAction {
    /// Which backed-up pod feeds which new one. Needed if the backup was made of all pods (strategy `All`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required_policy_for_all_pod_selection: Option<RequiredPolicyForAllPodSelection>,

    /// The pods that the Jobs serve.
    pub target: JobActionTarget,
}

/// Pods that Jobs serve.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobActionTarget {
    /// Which pods. `Any`: one Job for the first ready pod. `All`: one Job per pod, in the order of their names.
    pub pod_selector: PodSelector,

    /// Volumes of the pod to mount into the Job, if the action runs on the pod's node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "core_types::volume_mounts")]
    pub volume_mounts: Vec<VolumeMount>,
}

/// For actions that run inside a pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExecAction {
    /// The pods in which they run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<ExecActionTarget>,
}

/// Pods in which commands run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExecActionTarget {
    /// Which pods: every one that matches.
    #[schemars(schema_with = "core_types::label_selector")]
    pub pod_selector: LabelSelector,
}

/// How to find out that a database is ready.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReadinessProbe {
    /// Seconds before the first try, at least 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0), extend("format" = null))]
    pub initial_delay_seconds: Option<i64>,

    /// Seconds that a try may take, at least 1. Default: 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend("default" = 30, "format" = null))]
    pub timeout_seconds: Option<i64>,

    /// Seconds between two tries, at least 1. Default: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend("default" = 5, "format" = null))]
    pub period_seconds: Option<i64>,

    /// What to try.
    pub exec: ReadinessProbeExec,
}

/// A command that ends well when the database is ready.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReadinessProbeExec {
    /// Container image.
    pub image: String,

    /// Command and arguments.
    pub command: Vec<String>,
}
