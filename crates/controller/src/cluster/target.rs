//! From a template's methods and targets to those of a policy: behaviour 3.6. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::EnvVar;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kbbackup_api::names::labels;
use kbbackup_api::v1alpha1::{
    BackupMethod, BackupMethodTemplate, BackupTarget, ConnectionCredential, PodSelectionStrategy, PodSelector,
    TargetInstance,
};
use kbbackup_core::pattern;

use super::parts::Part;

/// A target, or those of a sharding's components.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Targets {
    /// Of a component.
    One(Box<BackupTarget>),
    /// Of a sharding.
    Many(Vec<BackupTarget>),
}

/// The targets of `part` in cluster `cluster`.
pub(super) fn targets(cluster: &str, part: &Part, wish: &TargetInstance) -> Targets {
    match &part.shards {
        None => Targets::One(Box::new(target(cluster, part, &part.name, wish))),
        Some(shards) => {
            let named =
                |shard: &String| BackupTarget { name: Some(shard.clone()), ..target(cluster, part, shard, wish) };
            Targets::Many(shards.iter().map(named).collect())
        }
    }
}

fn target(cluster: &str, part: &Part, component: &str, wish: &TargetInstance) -> BackupTarget {
    let mut selector = PodSelector {
        match_labels: pod_labels(cluster, part, component),
        strategy: Some(wish.strategy()),
        use_parent_selected_pods: wish.use_parent_selected_pods,
        ..PodSelector::default()
    };
    if part.replicas > 1 {
        add_roles(&mut selector, wish);
    }
    let account = wish.account.as_deref().filter(|account| !account.is_empty());
    BackupTarget {
        pod_selector: Some(selector),
        connection_credential: account.map(|account| ConnectionCredential {
            secret_name: account_secret(cluster, component, account),
            username_key: Some(ConnectionCredential::USERNAME_KEY.to_owned()),
            password_key: Some(ConnectionCredential::PASSWORD_KEY.to_owned()),
            ..ConnectionCredential::default()
        }),
        container_port: wish.container_port.clone(),
        ..BackupTarget::default()
    }
}

/// Name of the Secret with the password of a system account.
pub(super) fn account_secret(cluster: &str, component: &str, account: &str) -> String {
    format!("{cluster}-{component}-account-{}", account.replace('_', "-"))
}

fn pod_labels(cluster: &str, part: &Part, component: &str) -> BTreeMap<String, String> {
    let sharding = part.shards.is_some().then_some((labels::SHARDING_NAME, part.name.as_str()));
    [
        (labels::MANAGED_BY, labels::MANAGED_BY_KUBEBLOCKS),
        (labels::INSTANCE, cluster),
        (labels::COMPONENT_NAME, component),
    ]
    .into_iter()
    .chain(sharding)
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}

/// Asks for the role that the template wishes, and for its second choice when one pod is enough.
fn add_roles(selector: &mut PodSelector, wish: &TargetInstance) {
    let with = |labels: &BTreeMap<String, String>, role: &str| {
        let mut labels = labels.clone();
        labels.insert(labels::ROLE.to_owned(), role.to_owned());
        labels
    };
    let plain = selector.match_labels.clone();
    if !wish.role.is_empty() {
        selector.match_labels = with(&plain, &wish.role);
    }
    let fallback = wish.fallback_role.as_deref().filter(|role| !role.is_empty());
    if let Some(role) = fallback.filter(|_| selector.strategy() == PodSelectionStrategy::Any) {
        let match_labels = Some(with(&plain, role));
        selector.fallback_label_selector = Some(LabelSelector { match_labels, ..LabelSelector::default() });
    }
}

/// An existing target as it should be now: it stays as people have it, only the roles come and go with the replicas, and
/// whether the parent's pods are taken follows the template.
pub(super) fn follow(target: &mut BackupTarget, part: &Part, wish: &TargetInstance) {
    let Some(selector) = &mut target.pod_selector else { return };
    selector.use_parent_selected_pods = wish.use_parent_selected_pods;
    if part.replicas > 1 {
        if !selector.match_labels.contains_key(labels::ROLE) {
            add_roles(selector, wish);
        }
    } else {
        selector.match_labels.remove(labels::ROLE);
        selector.fallback_label_selector = None;
    }
}

/// The methods of a policy for `part`.
pub(super) fn methods(cluster: &str, part: &Part, templates: &[BackupMethodTemplate]) -> Vec<BackupMethod> {
    let method = |template: &BackupMethodTemplate| {
        let (target, several) = match template.target.as_ref().filter(|wish| **wish != TargetInstance::default()) {
            None => (None, Vec::new()),
            Some(wish) => match targets(cluster, part, wish) {
                Targets::One(target) => (Some(*target), Vec::new()),
                Targets::Many(targets) => (None, targets),
            },
        };
        BackupMethod {
            name: template.name.clone(),
            compatible_method: template.compatible_method.clone(),
            snapshot_volumes: template.snapshot_volumes,
            action_set_name: template.action_set_name.clone(),
            target_volumes: template.target_volumes.clone(),
            env: env(template, &part.version),
            runtime_settings: template.runtime_settings.clone(),
            target,
            targets: several,
        }
    };
    templates.iter().map(method).collect()
}

/// The variables of a method. A literal value wins, even an empty one; a version that no entry means sets nothing.
fn env(template: &BackupMethodTemplate, version: &str) -> Vec<EnvVar> {
    let value = |variable: &kbbackup_api::v1alpha1::EnvVarTemplate| {
        if let Some(literal) = variable.literal() {
            return Some(literal);
        }
        let mapping = &variable.value_from.as_ref()?.version_mapping;
        let entries: Vec<_> =
            mapping.iter().map(|entry| (entry.service_versions.as_slice(), entry.mapped_value.as_str())).collect();
        let chosen = pattern::by_version(&entries, version)?;
        Some(EnvVar { name: variable.name.clone(), value: Some(chosen.to_owned()), ..EnvVar::default() })
    };
    template.env.iter().filter_map(value).collect()
}
