//! Jobs as all workers have them.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kbbackup_api::names::labels;

use crate::settings::Settings;

/// Retries of Jobs for which neither policy nor restore says a number: deletions, pre-checks, exec actions.
pub const BACKOFF_LIMIT: i32 = 2;

/// Everything about a Job but its pod.
#[derive(Clone, Debug, Default)]
pub struct Shell {
    /// Name, the same at each try.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Labels of the Job and of its pods; our `managed-by` is added.
    pub labels: BTreeMap<String, String>,
    /// Annotations of its pods.
    pub pod_annotations: BTreeMap<String, String>,
    /// The owner, if it lives in the same namespace or in none.
    pub owner: Option<OwnerReference>,
    /// How many pods may fail before the Job does.
    pub backoff_limit: i32,
}

/// The Job of `pod`.
pub fn job(shell: Shell, pod: PodSpec, settings: &Settings) -> Job {
    let Shell { name, namespace, mut labels, pod_annotations, owner, backoff_limit } = shell;
    labels.insert(labels::MANAGED_BY.to_owned(), labels::MANAGED_BY_DATAPROTECTION.to_owned());
    Job {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(namespace),
            labels: Some(labels.clone()),
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(JobSpec {
            backoff_limit: Some(backoff_limit),
            active_deadline_seconds: Some(settings.job_deadline_seconds),
            // One attempt at a time: the next pod starts when the last one is really gone.
            pod_replacement_policy: Some("Failed".to_owned()),
            // Eviction, preemption and drained nodes are nobody's failure: they do not use up the retries.
            pod_failure_policy: Some(PodFailurePolicy {
                rules: vec![PodFailurePolicyRule {
                    action: "Ignore".to_owned(),
                    on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
                        type_: "DisruptionTarget".to_owned(),
                        status: "True".to_owned(),
                    }]),
                    ..PodFailurePolicyRule::default()
                }],
            }),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels),
                    annotations: (!pod_annotations.is_empty()).then_some(pod_annotations),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod),
            },
            ..JobSpec::default()
        }),
        status: None,
    }
}
