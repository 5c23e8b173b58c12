//! What a person calls a source: a StatefulSet, a policy, or just a name.

use k8s_openapi::api::apps::v1::StatefulSet;
use kbbackup_api::{
    names::{TRUE, annotations, labels},
    v1alpha1::{Backup, BackupPolicy},
};
use kube::{ResourceExt, api::ListParams};

use crate::{
    app::{App, list_all},
    error::{CliError, Result},
};

/// A source as it was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// `statefulset/pg`.
    Workload(String),
    /// `policy/pg`.
    Policy(String),
    /// `pg`: a policy, a StatefulSet or the name on the label `app.kubernetes.io/instance`.
    Any(String),
}

impl Source {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let Some((kind, name)) = text.split_once('/') else { return Ok(Self::Any(text.to_owned())) };
        if name.is_empty() || name.contains('/') {
            return Err(CliError::usage(format!("source {text} cannot be understood"), "write it as statefulset/NAME"));
        }
        match kind.to_lowercase().as_str() {
            "statefulset" | "statefulsets" | "sts" | "statefulset.apps" | "statefulsets.apps" => {
                Ok(Self::Workload(name.to_owned()))
            }
            "policy" | "policies" | "backuppolicy" | "backuppolicies" | "bp" => Ok(Self::Policy(name.to_owned())),
            _ => Err(CliError::usage(
                format!("source {text} cannot be understood"),
                format!("{kind} is neither statefulset nor policy"),
            )),
        }
    }

    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Workload(name) | Self::Policy(name) | Self::Any(name) => name,
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Workload(name) => write!(f, "statefulset/{name}"),
            Self::Policy(name) => write!(f, "backuppolicy/{name}"),
            Self::Any(name) => f.write_str(name),
        }
    }
}

/// The policies of a namespace.
pub(crate) async fn policies(app: &App) -> Result<Vec<BackupPolicy>> {
    list_all(&app.here::<BackupPolicy>(), ListParams::default(), "policies").await
}

/// Policies that protect the source, the default one first. `workload` is the StatefulSet of that name, if there is one.
pub(crate) fn matching<'a>(
    all: &'a [BackupPolicy],
    source: &Source,
    workload: Option<&StatefulSet>,
) -> Vec<&'a BackupPolicy> {
    let name = source.name();
    let mut found: Vec<&BackupPolicy> = all
        .iter()
        .filter(|policy| match source {
            Source::Policy(_) => policy.name_any() == name,
            Source::Workload(_) => protects(policy, name, workload),
            Source::Any(_) => {
                policy.name_any() == name || instance(*policy) == Some(name) || protects(policy, name, workload)
            }
        })
        .collect();
    // A policy that is named exactly wins over those that merely belong to the source.
    if matches!(source, Source::Any(_)) && found.iter().any(|policy| policy.name_any() == name && workload.is_none()) {
        found.retain(|policy| policy.name_any() == name);
    }
    found.sort_by_key(|policy| (!is_default(policy), policy.name_any()));
    found
}

pub(crate) fn is_default(policy: &BackupPolicy) -> bool {
    policy.annotations().get(annotations::IS_DEFAULT_POLICY).is_some_and(|value| value == TRUE)
}

fn protects(policy: &BackupPolicy, name: &str, workload: Option<&StatefulSet>) -> bool {
    let label = |key: &str| policy.labels().get(key).map(String::as_str);
    if label(labels::WORKLOAD_NAME) == Some(name) {
        return label(labels::WORKLOAD_KIND).is_none_or(|kind| kind == "statefulset");
    }
    workload.is_some_and(|workload| selects(policy, workload))
}

/// Whether the policy's selector would pick the pods of the workload.
fn selects(policy: &BackupPolicy, workload: &StatefulSet) -> bool {
    let pods = workload.spec.as_ref().and_then(|spec| spec.template.metadata.as_ref()?.labels.as_ref());
    let targets = policy.spec.target.iter().chain(&policy.spec.targets);
    targets.filter_map(|target| target.pod_selector.as_ref()).any(|selector| {
        !selector.match_labels.is_empty()
            && pods.is_some_and(|pods| selector.match_labels.iter().all(|(key, value)| pods.get(key) == Some(value)))
    })
}

fn instance<K: ResourceExt>(object: &K) -> Option<&str> {
    object.labels().get(labels::INSTANCE).map(String::as_str)
}

/// Name of what a backup protects: the recorded workload, else the label, else the policy.
pub(crate) fn of_backup(backup: &Backup) -> String {
    let label = |key: &str| backup.labels().get(key).cloned();
    label(labels::WORKLOAD_NAME)
        .or_else(|| recorded_name(backup))
        .or_else(|| label(labels::INSTANCE))
        .unwrap_or_else(|| backup.spec.backup_policy_name.clone())
}

/// Name of the StatefulSet whose manifest the backup carries.
fn recorded_name(backup: &Backup) -> Option<String> {
    let text = backup.annotations().get(annotations::WORKLOAD)?;
    let manifest: serde_json::Value = serde_json::from_str(text).ok()?;
    manifest["statefulSet"]["metadata"]["name"].as_str().map(str::to_owned)
}

/// Name of what a policy protects.
pub(crate) fn of_policy(policy: &BackupPolicy) -> String {
    let label = |key: &str| policy.labels().get(key).cloned();
    label(labels::WORKLOAD_NAME).or_else(|| label(labels::INSTANCE)).unwrap_or_else(|| policy.name_any())
}

/// Whether a backup belongs to one of the sources.
pub(crate) fn is_of(backup: &Backup, sources: &[Source], policies: &[BackupPolicy]) -> bool {
    sources.is_empty()
        || sources.iter().any(|source| {
            of_backup(backup) == source.name()
                || instance(backup) == Some(source.name())
                || matching(policies, source, None)
                    .iter()
                    .any(|policy| policy.name_any() == backup.spec.backup_policy_name)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn policy(name: &str, labels: serde_json::Value, selector: serde_json::Value, default: bool) -> BackupPolicy {
        serde_json::from_value(json!({
            "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "BackupPolicy",
            "metadata": {"name": name, "labels": labels, "annotations": {annotations::IS_DEFAULT_POLICY: default.to_string()}},
            "spec": {"target": {"podSelector": {"matchLabels": selector}}, "backupMethods": []}
        }))
        .unwrap()
    }

    fn pg() -> StatefulSet {
        serde_json::from_value(json!({"metadata": {"name": "pg"}, "spec": {"serviceName": "pg", "selector": {},
            "template": {"metadata": {"labels": {"app": "pg", "tier": "db"}}}}}))
        .unwrap()
    }

    #[test]
    fn a_policy_is_found_by_label_or_selector_and_the_default_comes_first() {
        let all = [
            policy("by-selector", json!({}), json!({"app": "pg"}), false),
            policy("labelled", json!({labels::WORKLOAD_NAME: "pg"}), json!({"x": "y"}), true),
            policy("other", json!({}), json!({"app": "other"}), false),
            policy("empty", json!({}), json!({}), false),
        ];
        let source = Source::parse("sts/pg").unwrap();
        let names: Vec<String> = matching(&all, &source, Some(&pg())).iter().map(|policy| policy.name_any()).collect();
        assert_eq!(names, ["labelled", "by-selector"]);
    }

    #[test]
    fn kinds_are_understood_and_others_refused() {
        assert_eq!(Source::parse("StatefulSet/pg").unwrap(), Source::Workload("pg".into()));
        assert_eq!(Source::parse("pg").unwrap(), Source::Any("pg".into()));
        assert!(Source::parse("deployment/pg").is_err());
        assert!(Source::parse("sts/").is_err());
    }
}
