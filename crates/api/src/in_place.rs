//! Restore in place: a running StatefulSet keeps its name and the names of its claims, which get other volumes. What such a
//! restore notes, and what stands against one. Shared by the controller, which goes by it, and by the plugin, which shows it.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::ResourceExt as _;
use serde::{Deserialize, Serialize};

use crate::names::annotations;
use crate::v1alpha1::Restore;

/// What is exchanged for what: noted on the Restore ([`annotations::IN_PLACE_RECORD`]) before the workload is stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// UID of the StatefulSet.
    pub stateful_set: String,
    /// Its replicas before it was stopped.
    pub before: i32,
    /// Its replicas once the volumes are exchanged.
    pub after: i32,
    /// Seconds that its pods are given to end.
    #[serde(default)]
    pub grace: u64,
    /// Whether claims may have been deleted by now: from here on there is only the way forward.
    #[serde(default)]
    pub exchanging: bool,
    /// The claims, in the order in which they are exchanged.
    pub claims: Vec<Exchange>,
}

/// One claim that gets another volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exchange {
    /// Name of the claim, before and after.
    pub claim: String,
    /// UID of the claim that goes; none when the pod has never had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_uid: Option<String>,
    /// The volume that is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_volume: Option<String>,
    /// Name of the claim into which the data was restored.
    pub temporary: String,
    /// Its UID.
    pub temporary_uid: String,
    /// The volume with the restored data.
    pub new_volume: String,
    /// Labels of the claim.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the claim, without those by which it was bound.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Record {
    /// The note on a restore; `None` before it was made.
    ///
    /// # Errors
    /// When somebody has written something else there.
    pub fn of(restore: &Restore) -> Result<Option<Self>, serde_json::Error> {
        restore.annotations().get(annotations::IN_PLACE_RECORD).map(|text| serde_json::from_str(text)).transpose()
    }

    /// The old volumes, each with the claim that it was of: `persistentvolume pv-1 (claim data-pg-0)`.
    pub fn kept(&self) -> Vec<String> {
        let kept =
            |one: &Exchange| Some(format!("persistentvolume {} (claim {})", one.old_volume.as_ref()?, one.claim));
        self.claims.iter().filter_map(kept).collect()
    }
}

/// The StatefulSet that a restore takes back in place, if it is one that does.
pub fn target(restore: &Restore) -> Option<&str> {
    restore.annotations().get(annotations::IN_PLACE).map(String::as_str).filter(|name| !name.is_empty())
}

/// Name of the claim of a StatefulSet's pod.
pub fn claim_name(volume: &str, set: &str, ordinal: i32) -> String {
    format!("{volume}-{set}-{ordinal}")
}

/// The first ordinal of a StatefulSet, and how many pods it is to have.
pub fn pods(set: &StatefulSet) -> (i32, i32) {
    let spec = set.spec.as_ref();
    let start = spec.and_then(|spec| spec.ordinals.as_ref()).and_then(|ordinals| ordinals.start).unwrap_or(0);
    (start, spec.and_then(|spec| spec.replicas).unwrap_or(1))
}

/// Why the volumes of a StatefulSet must not be exchanged: whoever else starts its pods, or deletes its claims, would do so
/// in the middle. In words, with what to do.
pub fn obstacle(set: &StatefulSet, scalers: &[HorizontalPodAutoscaler]) -> Option<String> {
    let name = set.name_any();
    if set.metadata.deletion_timestamp.is_some() {
        return Some(format!("statefulset {name} is being deleted"));
    }
    if let Some(owner) = set.owner_references().iter().find(|owner| owner.controller == Some(true)) {
        return Some(format!(
            "statefulset {name} is managed by {} {}, which would start it again while its volumes are exchanged; restore \
             under another name",
            owner.kind.to_lowercase(),
            owner.name
        ));
    }
    let spec = set.spec.as_ref();
    let policy = spec.and_then(|spec| spec.persistent_volume_claim_retention_policy.as_ref());
    if policy.and_then(|policy| policy.when_scaled.as_deref()) == Some("Delete") {
        return Some(format!(
            "statefulset {name} deletes its claims when it is scaled down, and the old data with them; set \
             spec.persistentVolumeClaimRetentionPolicy.whenScaled to Retain first"
        ));
    }
    let scales = |scaler: &&HorizontalPodAutoscaler| {
        let of = scaler.spec.as_ref().map(|spec| &spec.scale_target_ref);
        of.is_some_and(|of| of.kind == "StatefulSet" && of.name == name)
    };
    scalers.iter().find(scales).map(|scaler| {
        format!(
            "horizontalpodautoscaler {} scales statefulset {name} and would start it again; delete it for the time of the \
             restore",
            scaler.name_any()
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn set(change: impl FnOnce(&mut Value)) -> StatefulSet {
        let mut set = json!({ "metadata": {"name": "pg"}, "spec": {"replicas": 2, "selector": {}, "template": {}, "serviceName": "pg"} });
        change(&mut set);
        serde_json::from_value(set).unwrap()
    }

    fn told(change: impl FnOnce(&mut Value), scalers: &[HorizontalPodAutoscaler]) -> String {
        obstacle(&set(change), scalers).unwrap_or_default()
    }

    #[test]
    fn whoever_would_start_it_or_delete_its_claims_is_named() {
        assert_eq!(told(|_| (), &[]), "");
        let owned = |set: &mut Value| {
            set["metadata"]["ownerReferences"] =
                json!([{ "apiVersion": "x/v1", "kind": "Postgres", "name": "db", "uid": "u", "controller": true }]);
        };
        assert!(told(owned, &[]).contains("managed by postgres db"));
        let deletes = |policy: &'static str| {
            move |set: &mut Value| set["spec"]["persistentVolumeClaimRetentionPolicy"] = json!({ "whenScaled": policy })
        };
        assert!(told(deletes("Delete"), &[]).contains("whenScaled to Retain"));
        assert_eq!(told(deletes("Retain"), &[]), "");
        assert!(
            told(|set| set["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"), &[]).contains("deleted")
        );
        let scaler = |name: &str| -> HorizontalPodAutoscaler {
            let of = json!({ "apiVersion": "apps/v1", "kind": "StatefulSet", "name": name });
            serde_json::from_value(
                json!({ "metadata": {"name": "h"}, "spec": {"maxReplicas": 3, "scaleTargetRef": of} }),
            )
            .unwrap()
        };
        assert!(told(|_| (), &[scaler("other"), scaler("pg")]).contains("horizontalpodautoscaler h scales"));
        assert_eq!(told(|_| (), &[scaler("other")]), "");
    }

    #[test]
    fn ordinals_may_begin_elsewhere() {
        assert_eq!(pods(&set(|_| ())), (0, 2));
        assert_eq!(pods(&set(|set| set["spec"]["ordinals"] = json!({ "start": 3 }))), (3, 2));
    }
}
