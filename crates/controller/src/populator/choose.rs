//! Which recorded volume, target and pod a claim gets its data from: behaviour 6.9. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kbbackup_api::names::labels;
use kbbackup_api::v1alpha1::{Backup, BackupMethod, BackupStatusTarget, PodSelectionStrategy};
use kube::ResourceExt as _;

use super::wish::{self, Wish};
use crate::backup::plan;
use crate::worker::error::Refusal;

/// What becomes of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// It gets this data.
    Data {
        /// The recorded volume.
        volume: String,
        /// The recorded target; empty when the backup has one without a name.
        target: String,
        /// The recorded pod, when the backup keeps pods apart.
        pod: Option<String>,
    },
    /// The backup has nothing for it: an empty volume. Never for a claim that somebody made by hand.
    Empty,
}

/// Chooses for `claim`. `shards` are the components of its sharding in name order, when it belongs to one.
///
/// # Errors
/// [`Refusal::Fatal`] when the backup does not tell, with what it holds.
pub fn choose(
    backup: &Backup,
    claim: &PersistentVolumeClaim,
    wish: &Wish,
    shards: Option<&[String]>,
) -> Result<Choice, Refusal> {
    let Some(target) = target(backup, claim, wish, shards)? else { return Ok(Choice::Empty) };
    let Some(volume) = volume(backup, claim)? else { return Ok(Choice::Empty) };
    let pod = source_pod(target, claim, wish.pod.as_deref())?;
    Ok(Choice::Data { volume, target: target.target.name.clone().unwrap_or_default(), pod })
}

/// Names of the volumes that a backup holds.
pub fn volumes(method: Option<&BackupMethod>) -> Vec<String> {
    let Some(info) = method.and_then(|method| method.target_volumes.as_ref()) else { return Vec::new() };
    let mut names = info.volumes.clone();
    for mount in &info.volume_mounts {
        if !names.contains(&mount.name) {
            names.push(mount.name.clone());
        }
    }
    names
}

/// The volume for `claim`; `None` when a claim of KubeBlocks is for one that the backup does not hold.
fn volume(backup: &Backup, claim: &PersistentVolumeClaim) -> Result<Option<String>, Refusal> {
    let held = volumes(backup.status.as_ref().and_then(|status| status.backup_method.as_deref()));
    let wanted = wish::volume(claim);
    if held.contains(&wanted) {
        return Ok(Some(wanted));
    }
    if !wish::is_plain(claim) {
        return Ok(None);
    }
    match held.as_slice() {
        [only] => Ok(Some(only.clone())),
        [] => Err(Refusal::fatal(format!(
            "backup {} records no volume; create a Restore with prepareDataConfig.dataSourceRef.mountPath and name that as the claim's source",
            backup.name_any()
        ))),
        several => Err(Refusal::fatal(format!(
            "backup {} holds the volumes {}; say which one by annotation {}",
            backup.name_any(),
            several.join(", "),
            kbbackup_api::names::annotations::RESTORE_VOLUME_TEMPLATE
        ))),
    }
}

/// The recorded target for `claim`; `None` when none applies.
fn target<'a>(
    backup: &'a Backup,
    claim: &PersistentVolumeClaim,
    wish: &Wish,
    shards: Option<&[String]>,
) -> Result<Option<&'a BackupStatusTarget>, Refusal> {
    let all = backup.status.as_ref().map(plan::targets).unwrap_or_default();
    let named = |target: &&BackupStatusTarget| target.target.name == wish.target;
    if wish.target.is_some() {
        return match all.iter().find(named) {
            Some(target) => Ok(Some(target)),
            None => Err(Refusal::fatal(format!(
                "backup {} has no target {:?} ({})",
                backup.name_any(),
                wish.target.as_deref().unwrap_or_default(),
                names(all)
            ))),
        };
    }
    if let [only] = all {
        // A claim made by hand says by its name alone what it wants; its labels mean nothing to us.
        return Ok((wish::is_plain(claim) || applies(only, claim)).then_some(only));
    }
    if let Some(shards) = shards {
        let sharding = claim.labels().get(labels::SHARDING_NAME);
        let of_sharding = |target: &&BackupStatusTarget| selector(target).get(labels::SHARDING_NAME) == sharding;
        let mut sources: Vec<_> = all.iter().filter(of_sharding).collect();
        if sources.is_empty() {
            sources = all.iter().collect();
        }
        if sources.len() > shards.len() {
            return Err(Refusal::fatal(format!(
                "backup {} holds {} shards, and the new cluster has only {}",
                backup.name_any(),
                sources.len(),
                shards.len()
            )));
        }
        let own = claim.labels().get(labels::COMPONENT_NAME);
        let index = own.and_then(|own| shards.iter().position(|shard| shard == own));
        return match index {
            Some(index) => Ok(sources.get(index).copied()),
            None => Err(Refusal::not_yet(
                crate::worker::error::A_WHILE,
                format!("component {} is not among the shards of the cluster", own.map_or("", String::as_str)),
            )),
        };
    }
    let mut fitting = all.iter().filter(|target| applies(target, claim));
    match (fitting.next(), fitting.next()) {
        (Some(only), None) => Ok(Some(only)),
        _ => Err(Refusal::fatal(format!(
            "backup {} holds several targets ({}), and the claim does not say which; set annotation {}",
            backup.name_any(),
            names(all),
            kbbackup_api::names::annotations::SOURCE_TARGET_NAME
        ))),
    }
}

fn names(targets: &[BackupStatusTarget]) -> String {
    let names: Vec<_> = targets.iter().filter_map(|target| target.target.name.as_deref()).collect();
    if names.is_empty() { "it has none with a name".to_owned() } else { format!("it has: {}", names.join(", ")) }
}

fn selector(target: &BackupStatusTarget) -> BTreeMap<String, String> {
    target.target.pod_selector.as_ref().map(|selector| selector.match_labels.clone()).unwrap_or_default()
}

/// Whether the selector of a target, but for cluster and role, fits the labels of a claim.
fn applies(target: &BackupStatusTarget, claim: &PersistentVolumeClaim) -> bool {
    let ignored = [labels::INSTANCE, labels::ROLE];
    selector(target)
        .iter()
        .filter(|(key, _)| !ignored.contains(&key.as_str()))
        .all(|(key, value)| claim.labels().get(key) == Some(value))
}

/// The pod whose data a claim gets, when the backup keeps pods apart.
///
/// # Errors
/// [`Refusal::Fatal`] with the recorded pods when none fits.
pub fn source_pod(
    target: &BackupStatusTarget,
    claim: &PersistentVolumeClaim,
    wanted: Option<&str>,
) -> Result<Option<String>, Refusal> {
    if plan::strategy(target) == PodSelectionStrategy::Any {
        return Ok(None);
    }
    let pods = &target.selected_target_pods;
    let refuse = |why: String| {
        Err(Refusal::fatal(format!(
            "{why}; the backup holds the data of {}: name one by annotation {}",
            pods.join(", "),
            kbbackup_api::names::annotations::SOURCE_TARGET_POD_NAME
        )))
    };
    if let Some(wanted) = wanted {
        return match pods.iter().find(|pod| *pod == wanted) {
            Some(pod) => Ok(Some(pod.clone())),
            None => refuse(format!("no data of pod {wanted} was recorded")),
        };
    }
    if let [only] = pods.as_slice() {
        return Ok(Some(only.clone()));
    }
    let own = claim.labels().get(labels::POD_NAME).cloned();
    if let Some(same) = own.as_ref().and_then(|own| pods.iter().find(|pod| *pod == own)) {
        return Ok(Some(same.clone()));
    }
    let own = own.unwrap_or_else(|| claim.name_any());
    let mut fitting = pods.iter().filter(|pod| ordinal(&own).is_some() && ordinal(pod) == ordinal(&own));
    match (fitting.next(), fitting.next()) {
        (Some(only), None) => Ok(Some(only.clone())),
        _ => refuse(format!("which pod's data {} gets cannot be told by its name", claim.name_any())),
    }
}

/// The number at the end of a pod's or claim's name.
fn ordinal(name: &str) -> Option<u32> {
    name.rsplit_once('-')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn claim(name: &str, labels: Value, notes: Value) -> PersistentVolumeClaim {
        serde_json::from_value(
            json!({ "metadata": {"name": name, "namespace": "n", "labels": labels, "annotations": notes} }),
        )
        .unwrap()
    }

    fn backup(volumes: &[&str], status: Value) -> Backup {
        let mut status = status;
        status["backupMethod"] = json!({ "name": "m", "targetVolumes": {"volumes": volumes} });
        serde_json::from_value(json!({ "metadata": {"name": "b", "namespace": "n"},
            "spec": {"backupPolicyName": "p", "backupMethod": "m"}, "status": status }))
        .unwrap()
    }

    fn target(name: &str, strategy: &str, pods: &[&str]) -> Value {
        json!({ "name": name, "selectedTargetPods": pods, "podSelector": {"strategy": strategy, "matchLabels":
            {labels::INSTANCE: "old", labels::COMPONENT_NAME: name}} })
    }

    fn one() -> Value {
        json!({ "target": {"podSelector": {"matchLabels": {labels::INSTANCE: "old"}}, "selectedTargetPods": ["pg-0"]} })
    }

    fn data(volume: &str, target: &str, pod: Option<&str>) -> Choice {
        Choice::Data { volume: volume.into(), target: target.into(), pod: pod.map(str::to_owned) }
    }

    fn chosen(backup: &Backup, claim: &PersistentVolumeClaim) -> Result<Choice, Refusal> {
        choose(backup, claim, &Wish::of(claim).unwrap(), None)
    }

    #[test]
    fn a_claim_made_by_hand_gets_the_only_volume_or_a_clear_answer() {
        let mine = claim("mine", json!({ "app": "x" }), json!({}));
        assert_eq!(chosen(&backup(&["data"], one()), &mine), Ok(data("data", "", None)));
        assert_eq!(
            chosen(&backup(&["data", "mine"], one()), &mine),
            Ok(data("mine", "", None)),
            "its own name is a choice"
        );
        let told = chosen(&backup(&["data", "logs"], one()), &mine).unwrap_err().to_string();
        assert!(told.contains("data, logs") && told.contains("restore-volume-template"), "{told}");
        assert!(chosen(&backup(&[], one()), &mine).is_err(), "never an empty volume");
    }

    #[test]
    fn behaviour_6_9_a_volume_that_the_backup_lacks_is_provisioned_empty() {
        let by_label = claim("logs-pg-0", json!({ labels::VOLUME_CLAIM_TEMPLATE: "logs" }), json!({}));
        assert_eq!(chosen(&backup(&["data"], one()), &by_label), Ok(Choice::Empty));
        assert_eq!(chosen(&backup(&["data", "logs"], one()), &by_label), Ok(data("logs", "", None)));
    }

    #[test]
    fn behaviour_6_9_a_single_target_whose_selector_does_not_match_gives_an_empty_volume() {
        let held = backup(&["data"], json!({ "target": target("mysql", "Any", &["old-mysql-0"]) }));
        let of = |component: &str| {
            let labels = json!({ labels::VOLUME_CLAIM_TEMPLATE: "data", labels::INSTANCE: "new", labels::COMPONENT_NAME: component });
            chosen(&held, &claim("data-new-0", labels, json!({})))
        };
        assert_eq!(of("mysql"), Ok(data("data", "mysql", None)));
        assert_eq!(of("proxy"), Ok(Choice::Empty));
    }

    #[test]
    fn behaviour_6_9_one_of_several_targets() {
        let held =
            backup(&["data"], json!({ "targets": [target("a", "Any", &["a-0"]), target("b", "Any", &["b-0"])] }));
        let labelled = |component: &str, notes: Value| {
            claim("c-0", json!({ labels::VOLUME_CLAIM_TEMPLATE: "data", labels::COMPONENT_NAME: component }), notes)
        };
        assert_eq!(chosen(&held, &labelled("b", json!({}))), Ok(data("data", "b", None)));
        let key = kbbackup_api::names::annotations::SOURCE_TARGET_NAME;
        assert_eq!(chosen(&held, &labelled("b", json!({ key: "a" }))), Ok(data("data", "a", None)));
        assert!(chosen(&held, &labelled("b", json!({ key: "c" }))).unwrap_err().to_string().contains("a, b"));
        assert!(chosen(&held, &claim("plain", json!({}), json!({}))).unwrap_err().to_string().contains(key));
    }

    #[test]
    fn behaviour_6_9_shards_in_name_order() {
        let held =
            backup(&["data"], json!({ "targets": [target("x", "Any", &["x-0"]), target("y", "Any", &["y-0"])] }));
        let of = |component: &str, shards: &[&str]| {
            let labels = json!({ labels::VOLUME_CLAIM_TEMPLATE: "data", labels::SHARDING_NAME: "s", labels::COMPONENT_NAME: component });
            let shards: Vec<_> = shards.iter().map(|shard| (*shard).to_owned()).collect();
            choose(&held, &claim("c-0", labels, json!({})), &Wish::default(), Some(&shards))
        };
        assert_eq!(of("s-b", &["s-a", "s-b"]), Ok(data("data", "y", None)));
        assert_eq!(of("s-c", &["s-a", "s-b", "s-c"]), Ok(Choice::Empty), "an extra shard");
        assert!(matches!(of("s-a", &["s-a"]), Err(Refusal::Fatal(_))), "more sources than shards");
    }

    #[test]
    fn behaviour_6_9_the_source_pod_of_strategy_all() {
        let of = |name: &str, pod: Option<&str>, wanted: Option<&str>, pods: &[&str]| {
            let target = serde_json::from_value(target("", "All", pods)).unwrap();
            let labels = pod.map_or(json!({}), |pod| json!({ labels::POD_NAME: pod }));
            source_pod(&target, &claim(name, labels, json!({})), wanted)
        };
        let found = |pod: &str| Ok(Some(pod.to_owned()));
        let three = ["old-0", "old-1", "old-2"];
        assert_eq!(of("c", None, Some("old-2"), &three), found("old-2"));
        assert!(of("c", None, Some("other"), &three).unwrap_err().to_string().contains("old-0, old-1, old-2"));
        assert_eq!(of("c", None, None, &["old-7"]), found("old-7"));
        assert_eq!(of("c", Some("old-1"), None, &three), found("old-1"));
        assert_eq!(of("c", Some("new-2"), None, &three), found("old-2"));
        assert_eq!(of("data-new-1", None, None, &three), found("old-1"), "by the claim's own name");
        assert!(of("c", Some("new-5"), None, &three).is_err());
        assert!(of("c", None, None, &three).is_err());
    }
}
