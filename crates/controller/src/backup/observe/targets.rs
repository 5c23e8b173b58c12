//! Which pods a backup is of, and what runs them.

use futures::future::{try_join, try_join_all};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use kbbackup_api::v1alpha1::{
    Backup, BackupMethod, BackupPolicy, BackupStatusTarget, BackupTarget, PodSelectionStrategy, PodSelector,
};
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};

use super::Parent;
use crate::backup::{plan, workload};
use crate::context::Context;
use crate::worker::error::{A_WHILE, Doing as _, Error, LONG, Refusal};
use crate::worker::read;
use crate::worker::select::{self, SelectError};

/// Behaviour 3.3: the method's target or targets, else the policy's. Says whether they come from a list.
pub(in crate::backup) fn effective_targets(
    policy: &BackupPolicy,
    method: &BackupMethod,
) -> Result<(bool, Vec<BackupTarget>), Refusal> {
    let one = |target: &Option<BackupTarget>| target.clone().map(|target| (false, vec![target]));
    let many = |targets: &Vec<BackupTarget>| (!targets.is_empty()).then(|| (true, targets.clone()));
    one(&method.target)
        .or_else(|| many(&method.targets))
        .or_else(|| one(&policy.spec.target))
        .or_else(|| many(&policy.spec.targets))
        .ok_or_else(|| Refusal::fatal(format!("neither method {} nor its policy names a target", method.name)))
}

/// The pods that an earlier look, or the parent when the target says so, has chosen.
pub(super) fn recorded(backup: &Backup, target: &BackupTarget, parent: Option<&Parent>) -> Vec<String> {
    let of = |targets: &[BackupStatusTarget]| {
        targets
            .iter()
            .find(|chosen| chosen.target.name == target.name)
            .map(|chosen| chosen.selected_target_pods.clone())
    };
    let own = backup.status.as_ref().and_then(|status| of(plan::targets(status))).filter(|pods| !pods.is_empty());
    let wants_parents =
        target.pod_selector.as_ref().is_some_and(|selector| selector.use_parent_selected_pods == Some(true));
    own.or_else(|| {
        let parent = parent.filter(|_| wants_parents)?;
        of(&parent.targets)
    })
    .unwrap_or_default()
}

pub(super) async fn target_pods(
    ctx: &Context,
    namespace: &str,
    target: &BackupTarget,
    recorded: Vec<String>,
) -> Result<Vec<Pod>, Error> {
    if let (PodSelectionStrategy::Any, Some(name)) = (strategy(target), recorded.first()) {
        // By its name alone: it may have another role than when it was chosen, and need not be ready.
        let pod = Api::<Pod>::namespaced(ctx.client.clone(), namespace).get_opt(name).await;
        let pod = pod.doing(|| format!("reading pod {name}"))?;
        return Ok(vec![pod.ok_or_else(|| not_selected(&SelectError::Gone(name.clone()), target))?]);
    }
    let (matching, fallback) = pods_of(ctx, namespace, target).await?;
    let chosen = select::choose(strategy(target), &recorded, matching, fallback);
    Ok(chosen.map_err(|error| not_selected(&error, target))?)
}

pub(in crate::backup) fn strategy(target: &BackupTarget) -> PodSelectionStrategy {
    target.pod_selector.as_ref().map(PodSelector::strategy).unwrap_or_default()
}

/// Why no pod of a target can be used, and how long to wait for one.
pub(in crate::backup) fn not_selected(error: &SelectError, target: &BackupTarget) -> Refusal {
    let of = of_target(target);
    let patience = match error {
        SelectError::NoSelector => return Refusal::fatal(format!("{error}{of}")),
        SelectError::NoMatch | SelectError::Gone(_) => A_WHILE,
        SelectError::NoneReady(_) => LONG,
    };
    Refusal::not_yet(patience, format!("{error}{of}"))
}

fn of_target(target: &BackupTarget) -> String {
    let name = target.name.as_deref().filter(|name| !name.is_empty());
    name.map(|name| format!(" (target {name})")).unwrap_or_default()
}

/// The pods that a target's selector means, and those of its fallback when none of them is ready.
pub(in crate::backup) async fn pods_of(
    ctx: &Context,
    namespace: &str,
    target: &BackupTarget,
) -> Result<(Vec<Pod>, Vec<Pod>), Error> {
    let story = || format!("listing the pods of the target{}", of_target(target));
    let no_selector = || not_selected(&SelectError::NoSelector, target);
    let selector = target.pod_selector.as_ref().ok_or_else(no_selector)?;
    let own = selector.label_selector();
    if own.match_labels.is_none() && own.match_expressions.is_none() {
        return Err(no_selector().into());
    }
    let matching = read::pods(&ctx.client, namespace, own).await.doing(story)?;
    let fallback = match &selector.fallback_label_selector {
        Some(fallback) if !matching.iter().any(select::available) => {
            read::pods(&ctx.client, namespace, fallback.clone()).await.doing(story)?
        }
        _ => Vec::new(),
    };
    Ok((matching, fallback))
}

/// The manifest of the workload that runs `pod`. A reading that is refused costs the copy, not the backup.
pub(super) async fn workload_of(ctx: &Context, pod: &Pod) -> Result<Option<String>, Error> {
    let Some(name) = workload::controller_of(pod) else { return Ok(None) };
    let namespace = pod.namespace().unwrap_or_default();
    let story = || format!("reading the workload statefulset/{name}");
    let sets = Api::<StatefulSet>::namespaced(ctx.client.clone(), &namespace);
    let services = Api::<Service>::namespaced(ctx.client.clone(), &namespace);
    let all = ListParams::default();
    let (set, services) = try_join(sets.get_opt(name), services.list(&all)).await.doing(story)?;
    let Some(set) = set else { return Ok(None) };
    let pod = set.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    let maps = pod.map(|pod| workload::references(pod).0).unwrap_or_default();
    let api = Api::<ConfigMap>::namespaced(ctx.client.clone(), &namespace);
    let maps = try_join_all(maps.iter().map(|name| api.get_opt(name))).await.doing(story)?;
    let text = workload::manifest(set, services.items, maps.into_iter().flatten().collect());
    Ok(text.inspect_err(|error| tracing::warn!(%error, name, "the workload's manifest was not recorded")).ok())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn behaviour_3_3_the_methods_target_wins() {
        let policy = |spec: Value| -> BackupPolicy {
            serde_json::from_value(json!({ "metadata": {"name": "p"}, "spec": spec })).unwrap()
        };
        let method = |value: Value| -> BackupMethod { serde_json::from_value(value).unwrap() };
        let names = |policy: &BackupPolicy, method: &BackupMethod| {
            effective_targets(policy, method)
                .map(|(many, list)| (many, list.into_iter().filter_map(|target| target.name).collect::<Vec<_>>()))
        };
        let both = method(json!({ "name": "m", "target": {"name": "t"}, "targets": [{"name": "u"}] }));
        let list = method(json!({ "name": "m", "targets": [{"name": "u"}, {"name": "v"}] }));
        let none = method(json!({ "name": "m" }));
        let single = policy(json!({ "backupMethods": [], "target": {"name": "w"} }));
        assert_eq!(names(&single, &both), Ok((false, vec!["t".into()])));
        assert_eq!(names(&single, &list), Ok((true, vec!["u".into(), "v".into()])));
        assert_eq!(names(&single, &none), Ok((false, vec!["w".into()])));
        assert!(names(&policy(json!({ "backupMethods": [] })), &none).is_err());
    }
}
