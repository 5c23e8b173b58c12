//! What a claim asks for: its data source and the annotations of behaviour 7.1 and 0.5. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EnvVar, PersistentVolumeClaim};
use kbbackup_api::GROUP;
use kbbackup_api::names::{TRUE, annotations, labels};
use kbbackup_api::v1alpha1::{ParameterPair, VolumeClaimRestorePolicy};
use kube::ResourceExt as _;

use crate::worker::error::Refusal;

/// Where the data of a claim comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A Restore of the claim's namespace, which serves as a data source.
    Restore(String),
    /// A Backup.
    Backup {
        /// Namespace of the Backup.
        namespace: String,
        /// Its name.
        name: String,
    },
}

impl Source {
    /// The name in `dataSourceRef`.
    pub fn name(&self) -> &str {
        match self {
            Self::Restore(name) | Self::Backup { name, .. } => name,
        }
    }
}

/// Whether a claim names a data source that is ours.
pub fn is_ours(claim: &PersistentVolumeClaim) -> bool {
    let reference = claim.spec.as_ref().and_then(|spec| spec.data_source_ref.as_ref());
    reference.is_some_and(|reference| {
        reference.api_group.as_deref() == Some(GROUP) && ["Restore", "Backup"].contains(&reference.kind.as_str())
    })
}

/// The data source of a claim; `None` when it is not ours.
///
/// # Errors
/// [`Refusal::Fatal`] for a Restore of another namespace, and when reference and annotation disagree.
pub fn source(claim: &PersistentVolumeClaim) -> Result<Option<Source>, Refusal> {
    let reference = claim.spec.as_ref().and_then(|spec| spec.data_source_ref.as_ref());
    let Some(reference) = reference.filter(|_| is_ours(claim)) else { return Ok(None) };
    let own = claim.namespace().unwrap_or_default();
    let named = reference.namespace.as_deref().filter(|namespace| !namespace.is_empty());
    let name = reference.name.clone();
    if reference.kind == "Restore" {
        if named.is_some_and(|namespace| namespace != own) {
            return Err(Refusal::fatal(format!(
                "restore {name} lies in another namespace; a claim can only be filled by a Restore of its own"
            )));
        }
        return Ok(Some(Source::Restore(name)));
    }
    let noted = annotation(claim, annotations::RESTORE_SOURCE_NAMESPACE);
    if let (Some(named), Some(noted)) = (named, noted)
        && named != noted
    {
        return Err(Refusal::fatal(format!(
            "dataSourceRef names namespace {named}, and annotation {} names {noted}; make them agree",
            annotations::RESTORE_SOURCE_NAMESPACE
        )));
    }
    let namespace = named.or(noted).map_or(own, str::to_owned);
    Ok(Some(Source::Backup { namespace, name }))
}

/// What the annotations of a claim say about its restore.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wish {
    /// UTC, whole seconds, `Z`: as `Restore.spec.restoreTime` wants it.
    pub restore_time: Option<String>,
    /// For the recipe.
    pub parameters: Vec<ParameterPair>,
    /// Merged over that of backup and recipe.
    pub env: Vec<EnvVar>,
    /// Whether the claims of a component are filled one after another.
    pub policy: VolumeClaimRestorePolicy,
    /// The recorded target to take.
    pub target: Option<String>,
    /// The recorded pod to take.
    pub pod: Option<String>,
    /// Whether actions after start wait for the whole cluster.
    pub defer_post_ready: bool,
}

impl Wish {
    /// Reads the annotations of a claim.
    ///
    /// # Errors
    /// [`Refusal::Fatal`] naming the annotation that cannot be read.
    pub fn of(claim: &PersistentVolumeClaim) -> Result<Self, Refusal> {
        let restore_time = annotation(claim, annotations::RESTORE_PITR).map(restore_time).transpose()?;
        let mut given: BTreeMap<String, String> = match annotation(claim, annotations::RESTORE_PARAMETERS) {
            None => BTreeMap::new(),
            Some(text) => serde_json::from_str(text).map_err(|error| {
                Refusal::fatal(format!(
                    "annotation {} is not a JSON map of strings: {error}",
                    annotations::RESTORE_PARAMETERS
                ))
            })?,
        };
        let mut take = |key: &str| given.remove(key).filter(|value| !value.is_empty());
        let or_noted = |value: Option<String>, key| value.or_else(|| annotation(claim, key).map(str::to_owned));
        let target = or_noted(take(annotations::SOURCE_TARGET_NAME), annotations::SOURCE_TARGET_NAME);
        let pod = or_noted(take(annotations::SOURCE_TARGET_POD_NAME), annotations::SOURCE_TARGET_POD_NAME);
        let env = match take(annotations::RESTORE_ENV) {
            None => Vec::new(),
            Some(text) => serde_json::from_str(&text).map_err(|error| {
                Refusal::fatal(format!(
                    "restore parameter {} is not a JSON list of env: {error}",
                    annotations::RESTORE_ENV
                ))
            })?,
        };
        let policy = match take(annotations::VOLUME_RESTORE_POLICY).as_deref() {
            None | Some("Parallel") => VolumeClaimRestorePolicy::Parallel,
            Some("Serial") => VolumeClaimRestorePolicy::Serial,
            Some(other) => {
                return Err(Refusal::fatal(format!(
                    "restore parameter {} is {other:?}; it must be Parallel or Serial",
                    annotations::VOLUME_RESTORE_POLICY
                )));
            }
        };
        let defer_post_ready = take(annotations::DEFER_POST_READY).is_some_and(|value| value == TRUE);
        let parameters = given.into_iter().map(|(name, value)| ParameterPair { name, value }).collect();
        Ok(Self { restore_time, parameters, env, policy, target, pod, defer_post_ready })
    }
}

/// Whether KubeBlocks made the claim for a Cluster that is being restored.
pub fn of_cluster(claim: &PersistentVolumeClaim) -> bool {
    annotation(claim, annotations::RESTORE_SOURCE_KIND).is_some()
}

/// Whether a claim says nothing of KubeBlocks: somebody's own.
pub fn is_plain(claim: &PersistentVolumeClaim) -> bool {
    !of_cluster(claim)
        && annotation(claim, annotations::RESTORE_VOLUME_TEMPLATE).is_none()
        && !claim.labels().contains_key(labels::VOLUME_CLAIM_TEMPLATE)
}

/// Name of the backed-up volume that a claim is for.
pub fn volume(claim: &PersistentVolumeClaim) -> String {
    let noted = annotation(claim, annotations::RESTORE_VOLUME_TEMPLATE).map(str::to_owned);
    noted.or_else(|| claim.labels().get(labels::VOLUME_CLAIM_TEMPLATE).cloned()).unwrap_or_else(|| claim.name_any())
}

/// An annotation that says something.
pub fn annotation<'a>(claim: &'a PersistentVolumeClaim, key: &str) -> Option<&'a str> {
    claim.annotations().get(key).map(String::as_str).filter(|value| !value.is_empty())
}

fn restore_time(text: &str) -> Result<String, Refusal> {
    let time: jiff::Timestamp = text.parse().map_err(|error| {
        Refusal::fatal(format!("annotation {}={text:?} is not an RFC 3339 time: {error}", annotations::RESTORE_PITR))
    })?;
    Ok(time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn claim(reference: Value, notes: Value) -> PersistentVolumeClaim {
        serde_json::from_value(json!({ "metadata": {"name": "data-pg-0", "namespace": "n", "annotations": notes},
            "spec": {"dataSourceRef": reference} }))
        .unwrap()
    }

    fn backup(namespace: Option<&str>) -> Value {
        json!({ "apiGroup": GROUP, "kind": "Backup", "name": "b", "namespace": namespace })
    }

    #[test]
    fn behaviour_6_9_which_claims_are_ours() {
        assert!(is_ours(&claim(backup(None), json!({}))));
        let others = [("snapshot.storage.k8s.io", "VolumeSnapshot"), ("other.io", "Backup"), (GROUP, "BackupRepo")];
        for (group, kind) in others {
            assert!(!is_ours(&claim(json!({ "apiGroup": group, "kind": kind, "name": "b" }), json!({}))));
        }
    }

    #[test]
    fn behaviour_6_9_the_namespace_of_the_source() {
        let key = annotations::RESTORE_SOURCE_NAMESPACE;
        let of = |reference: Option<&str>, noted: &str| source(&claim(backup(reference), json!({ key: noted })));
        let found = |namespace: &str| Ok(Some(Source::Backup { namespace: namespace.into(), name: "b".into() }));
        assert_eq!(of(None, ""), found("n"));
        assert_eq!(of(None, "x"), found("x"));
        assert_eq!(of(Some("x"), ""), found("x"));
        assert_eq!(of(Some("x"), "x"), found("x"));
        assert!(of(Some("x"), "y").is_err());
        let elsewhere = json!({ "apiGroup": GROUP, "kind": "Restore", "name": "r", "namespace": "x" });
        assert!(source(&claim(elsewhere, json!({}))).is_err());
    }

    #[test]
    fn behaviour_0_5_restore_parameters_and_their_special_keys() {
        let parameters = json!({
            annotations::VOLUME_RESTORE_POLICY: "Serial",
            annotations::RESTORE_ENV: r#"[{"name": "A", "value": "1"}]"#,
            annotations::SOURCE_TARGET_NAME: "shard-a",
            annotations::DEFER_POST_READY: "true",
            "level": "3",
        });
        let notes = json!({
            annotations::RESTORE_PITR: "2026-08-20T11:00:00.7+08:00",
            annotations::RESTORE_PARAMETERS: parameters.to_string(),
            annotations::SOURCE_TARGET_NAME: "shard-b",
            annotations::SOURCE_TARGET_POD_NAME: "pg-1",
        });
        let wish = Wish::of(&claim(backup(None), notes)).unwrap();
        assert_eq!(wish.restore_time.as_deref(), Some("2026-08-20T03:00:00Z"));
        assert_eq!(wish.parameters, [ParameterPair { name: "level".into(), value: "3".into() }]);
        assert_eq!((wish.env[0].name.as_str(), wish.policy), ("A", VolumeClaimRestorePolicy::Serial));
        assert_eq!((wish.target.as_deref(), wish.pod.as_deref()), (Some("shard-a"), Some("pg-1")));
        assert!(wish.defer_post_ready);
    }

    #[test]
    fn an_annotation_that_cannot_be_read_is_named() {
        let policy = json!({ annotations::VOLUME_RESTORE_POLICY: "Sometimes" }).to_string();
        let bad = [
            (annotations::RESTORE_PITR, "yesterday"),
            (annotations::RESTORE_PARAMETERS, "[]"),
            (annotations::RESTORE_PARAMETERS, policy.as_str()),
        ];
        for (key, value) in bad {
            let told = Wish::of(&claim(backup(None), json!({ key: value }))).unwrap_err().to_string();
            assert!(told.contains(key) || told.contains("Sometimes"), "{told}");
        }
    }

    #[test]
    fn behaviour_6_9_the_volume_is_named_by_annotation_label_or_name() {
        let mut claim = claim(backup(None), json!({}));
        assert!(is_plain(&claim));
        assert_eq!(volume(&claim), "data-pg-0");
        claim.labels_mut().insert(labels::VOLUME_CLAIM_TEMPLATE.into(), "data".into());
        assert_eq!(volume(&claim), "data");
        claim.annotations_mut().insert(annotations::RESTORE_VOLUME_TEMPLATE.into(), "logs".into());
        assert_eq!(volume(&claim), "logs");
        assert!(!is_plain(&claim));
    }
}
