//! Which pods a target means: behaviour 3.3.

use k8s_openapi::api::core::v1::Pod;
use kbbackup_api::v1alpha1::PodSelectionStrategy;
use kube::ResourceExt;

/// Why no pods can be chosen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// The target does not say which pods it means.
    #[error("the target has no podSelector with labels, so no pod can be chosen")]
    NoSelector,
    /// No pod carries the labels.
    #[error("no pod in the namespace matches the target's selector")]
    NoMatch,
    /// Pods match, but none of them is ready.
    #[error("no pod that matches the target's selector is ready (there are: {0})")]
    NoneReady(String),
    /// A pod that was recorded at the start does not exist now.
    #[error("pod {0}, which was chosen when the backup started, does not exist")]
    Gone(String),
}

/// Ready, and not on its way out.
pub fn available(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    pod.metadata.deletion_timestamp.is_none()
        && conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Chooses from `matching`, or from `fallback` (strategy `Any` only) when there is none. What was recorded binds `All`; the
/// one pod recorded of `Any` is not chosen again but read by its name.
///
/// # Errors
/// [`SelectError`] when nothing can be chosen.
pub fn choose(
    strategy: PodSelectionStrategy,
    recorded: &[String],
    matching: Vec<Pod>,
    fallback: Vec<Pod>,
) -> Result<Vec<Pod>, SelectError> {
    match strategy {
        PodSelectionStrategy::Any => {
            any(matching).or_else(|error| any(fallback).map_err(|_| error)).map(|pod| vec![pod])
        }
        PodSelectionStrategy::All => all(recorded, matching),
    }
}

/// As [`choose`], for a backup that goes on for ever: what was recorded does not bind. A recorded pod stays as long as it is
/// available, so that an archiver does not move for nothing.
///
/// # Errors
/// [`SelectError`] when nothing can be chosen.
pub fn choose_again(
    strategy: PodSelectionStrategy,
    recorded: &[String],
    matching: Vec<Pod>,
    fallback: Vec<Pod>,
) -> Result<Vec<Pod>, SelectError> {
    let stays = |pod: &&Pod| recorded.first() == Some(&pod.name_any()) && available(pod);
    match matching.iter().chain(&fallback).find(stays) {
        Some(pod) if strategy == PodSelectionStrategy::Any => Ok(vec![pod.clone()]),
        _ => choose(strategy, &[], matching, fallback),
    }
}

fn any(mut pods: Vec<Pod>) -> Result<Pod, SelectError> {
    if pods.is_empty() {
        return Err(SelectError::NoMatch);
    }
    pods.sort_by_key(ResourceExt::name_any);
    let names = pods.iter().map(ResourceExt::name_any).collect::<Vec<_>>().join(", ");
    pods.into_iter().find(available).ok_or(SelectError::NoneReady(names))
}

fn all(recorded: &[String], mut pods: Vec<Pod>) -> Result<Vec<Pod>, SelectError> {
    if pods.is_empty() {
        return Err(SelectError::NoMatch);
    }
    if recorded.is_empty() {
        pods.sort_by_key(ResourceExt::name_any);
        return Ok(pods);
    }
    recorded
        .iter()
        .map(|name| {
            pods.iter().find(|pod| pod.name_any() == *name).cloned().ok_or_else(|| SelectError::Gone(name.clone()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, ready: bool) -> Pod {
        let status = if ready { "True" } else { "False" };
        serde_json::from_value(json!({ "metadata": {"name": name},
            "status": {"conditions": [{"type": "Ready", "status": status}]} }))
        .unwrap()
    }

    fn names(result: Result<Vec<Pod>, SelectError>) -> Result<Vec<String>, SelectError> {
        result.map(|pods| pods.iter().map(ResourceExt::name_any).collect())
    }

    #[test]
    fn behaviour_3_3_any_takes_the_first_ready_pod_by_name() {
        use PodSelectionStrategy::Any;
        let pods = || vec![pod("c", true), pod("a", false), pod("b", true)];
        assert_eq!(names(choose(Any, &[], pods(), vec![])), Ok(vec!["b".into()]));
        assert_eq!(names(choose(Any, &[], vec![], vec![pod("f", true)])), Ok(vec!["f".into()]));
        assert_eq!(names(choose(Any, &[], vec![pod("a", false)], vec![pod("f", true)])), Ok(vec!["f".into()]));
        assert_eq!(names(choose(Any, &[], vec![], vec![])), Err(SelectError::NoMatch));
        assert_eq!(names(choose(Any, &[], vec![pod("a", false)], vec![])), Err(SelectError::NoneReady("a".into())));
    }

    #[test]
    fn behaviour_3_3_all_takes_every_pod_and_the_record_binds() {
        use PodSelectionStrategy::All;
        let pods = || vec![pod("b", false), pod("a", true)];
        assert_eq!(names(choose(All, &[], pods(), vec![])), Ok(vec!["a".into(), "b".into()]));
        assert_eq!(names(choose(All, &["b".into()], pods(), vec![])), Ok(vec!["b".into()]));
        assert_eq!(names(choose(All, &["b".into(), "z".into()], pods(), vec![])), Err(SelectError::Gone("z".into())));
        assert_eq!(names(choose(All, &[], vec![], vec![pod("f", true)])), Err(SelectError::NoMatch));
    }

    #[test]
    fn behaviour_3_3_what_a_continuous_backup_recorded_does_not_bind() {
        use PodSelectionStrategy::{All, Any};
        let again = |strategy, recorded: &str, pods| names(choose_again(strategy, &[recorded.into()], pods, vec![]));
        assert_eq!(again(Any, "gone", vec![pod("b", true), pod("a", false)]), Ok(vec!["b".into()]));
        assert_eq!(again(Any, "a", vec![pod("b", true), pod("a", false)]), Ok(vec!["b".into()]));
        assert_eq!(again(Any, "b", vec![pod("b", true), pod("a", true)]), Ok(vec!["b".into()]), "no move for nothing");
        assert_eq!(again(Any, "a", vec![]), Err(SelectError::NoMatch));
        assert_eq!(again(All, "gone", vec![pod("b", true), pod("a", false)]), Ok(vec!["a".into(), "b".into()]));
    }

    #[test]
    fn behaviour_0_1_a_pod_on_its_way_out_is_not_available() {
        let mut going = pod("a", true);
        going.metadata.deletion_timestamp = Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
        assert!(!available(&going));
    }
}
