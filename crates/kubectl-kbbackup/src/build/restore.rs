//! A Restore from a backup and the manifest of the workload that it carries.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        core::v1::{EnvVar, PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements},
    },
    apimachinery::pkg::api::resource::Quantity,
};
use kbbackup_api::{
    names::annotations,
    v1alpha1::{
        Backup, BackupRef, DataRestorePolicy, EmbeddedObjectMeta, PodSelectionStrategy, PrepareDataConfig,
        RequiredPolicyForAllPodSelection, Restore, RestoreSpec, RestoreVolumeClaim, RestoreVolumeClaimsTemplate,
        VolumeClaimRestorePolicy, VolumeConfig,
    },
};
use kube::{ResourceExt, api::ObjectMeta};
use serde::Deserialize;

use super::backup::parameters;
use crate::error::{CliError, Result};

/// The workload as the operator recorded it when the backup began.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Recorded {
    pub stateful_set: StatefulSet,
    #[serde(default)]
    pub services: Vec<serde_json::Value>,
    #[serde(default)]
    pub config_maps: Vec<serde_json::Value>,
    /// Names of Secrets that the pods need.
    #[serde(default)]
    pub secrets: Vec<String>,
    /// ConfigMaps whose content was too long to keep.
    #[serde(default)]
    pub omitted: Vec<String>,
}

impl Recorded {
    /// The manifest on a backup; `None` when it carries none.
    pub(crate) fn of(backup: &Backup) -> Result<Option<Self>> {
        let Some(text) = backup.annotations().get(annotations::WORKLOAD) else { return Ok(None) };
        serde_json::from_str(text).map(Some).map_err(|error| {
            CliError::usage(
                format!("the workload recorded in backup/{} cannot be read", backup.name_any()),
                error.to_string(),
            )
        })
    }

    pub(crate) fn name(&self) -> String {
        self.stateful_set.name_any()
    }

    /// The room that the claims of a volume asked for.
    pub(crate) fn size_of(&self, volume: &str) -> Option<String> {
        let templates = self.stateful_set.spec.as_ref()?.volume_claim_templates.as_ref()?;
        storage(templates.iter().find(|template| template.name_any() == volume)?)
    }
}

/// A claim given by hand: `data=10Gi:fast`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub volume: String,
    pub size: String,
    pub class: Option<String>,
}

impl std::str::FromStr for Claim {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (volume, rest) = text
            .split_once('=')
            .filter(|(volume, _)| !volume.is_empty())
            .ok_or("not of the form VOLUME=SIZE[:CLASS]")?;
        let (size, class) = match rest.split_once(':') {
            Some((size, class)) => (size, Some(class.to_owned())),
            None => (rest, None),
        };
        kbbackup_core::layout::parse_size(size).ok_or_else(|| format!("{size} is not a size such as 10Gi"))?;
        Ok(Self { volume: volume.to_owned(), size: size.to_owned(), class })
    }
}

/// What the person asked for, resolved.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wish {
    /// Name of the Restore object.
    pub name: String,
    pub namespace: String,
    /// Name of the new workload, or of the group of claims.
    pub target: String,
    /// A running workload, or volumes only.
    pub run: bool,
    pub replicas: Option<i32>,
    pub storage_class: Option<String>,
    pub claims: Vec<Claim>,
    pub parameters: Vec<(String, String)>,
    pub env: Vec<(String, String)>,
    pub policy: VolumeClaimRestorePolicy,
    /// The moment to go back to, with a continuous backup.
    pub time: Option<Timestamp>,
    /// `target` runs, and is taken back itself.
    pub in_place: Option<InPlace>,
}

/// A running StatefulSet whose claims get the restored volumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InPlace {
    /// Its first ordinal.
    pub first: i32,
    /// How many pods it is to have.
    pub replicas: i32,
    /// Take snapshots of the old volumes as well.
    pub snapshots: bool,
}

/// The Restore of `backup`, into what `origin` was made from: the same backup, or the base of a log.
pub(crate) fn restore(backup: &Backup, origin: &Backup, recorded: Option<&Recorded>, wish: &Wish) -> Result<Restore> {
    let templates = claim_templates(origin, recorded, wish)?;
    let replicas = wish.in_place.map_or_else(|| replicas(origin, wish), |it| it.replicas);
    let mut annotations = BTreeMap::new();
    if let Some(it) = wish.in_place {
        annotations.insert(annotations::IN_PLACE.to_owned(), wish.target.clone());
        if !it.snapshots {
            annotations.insert(annotations::SAFETY_SNAPSHOT.to_owned(), "false".to_owned());
        }
    } else if wish.run {
        annotations.insert(annotations::RESTORE_WORKLOAD.to_owned(), wish.target.clone());
        annotations.insert(annotations::REPLICAS.to_owned(), replicas.to_string());
    }
    Ok(Restore {
        metadata: ObjectMeta {
            name: Some(wish.name.clone()),
            namespace: Some(wish.namespace.clone()),
            annotations: (!annotations.is_empty()).then_some(annotations),
            ..ObjectMeta::default()
        },
        spec: RestoreSpec {
            backup: BackupRef {
                name: backup.name_any(),
                namespace: backup.namespace().unwrap_or_default(),
                source_target_name: None,
            },
            restore_time: wish.time.map(|time| time.to_string()),
            prepare_data_config: Some(PrepareDataConfig {
                volume_claims_template: Some(RestoreVolumeClaimsTemplate {
                    templates,
                    replicas,
                    starting_index: wish.in_place.map(|it| it.first).filter(|first| *first != 0),
                }),
                volume_claim_restore_policy: wish.policy,
                required_policy_for_all_pod_selection: wish.in_place.filter(|_| keeps_pods_apart(origin)).map(|_| {
                    RequiredPolicyForAllPodSelection {
                        data_restore_policy: DataRestorePolicy::OneToOne,
                        source_of_one_to_many: None,
                    }
                }),
                ..PrepareDataConfig::default()
            }),
            env: wish
                .env
                .iter()
                .map(|(name, value)| EnvVar { name: name.clone(), value: Some(value.clone()), ..EnvVar::default() })
                .collect(),
            parameters: parameters(&wish.parameters),
            ..RestoreSpec::default()
        },
        status: None,
    })
}

/// One per pod that was backed up, unless told otherwise.
fn replicas(backup: &Backup, wish: &Wish) -> i32 {
    let target = backup.status.as_ref().and_then(|status| status.target.as_ref());
    let sources =
        target.filter(|_| keeps_pods_apart(backup)).map_or(1, |target| target.selected_target_pods.len().max(1));
    wish.replicas.unwrap_or_else(|| i32::try_from(sources).unwrap_or(1))
}

/// Whether a backup holds the data of each pod.
fn keeps_pods_apart(backup: &Backup) -> bool {
    let target = backup.status.as_ref().and_then(|status| status.target.as_ref());
    let selector = target.and_then(|target| target.target.pod_selector.as_ref());
    selector.is_some_and(|selector| selector.strategy() == PodSelectionStrategy::All)
}

/// The room that a claim asks for.
fn storage(claim: &PersistentVolumeClaim) -> Option<String> {
    let requests = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    requests.get("storage").map(|size| size.0.clone())
}

/// Lets a claim ask for the largest of `sizes`, if that is more than it asks for.
pub(crate) fn at_least(claim: &mut PersistentVolumeClaim, sizes: impl Iterator<Item = String>) {
    let all = storage(claim).into_iter().chain(sizes);
    let Some(largest) = all.max_by_key(|size| kbbackup_core::layout::parse_size(size)) else { return };
    let resources = claim.spec.get_or_insert_default().resources.get_or_insert_default();
    resources.requests.get_or_insert_default().insert("storage".to_owned(), Quantity(largest));
}

/// Names of the volumes that the backup holds.
pub(crate) fn volumes(backup: &Backup) -> Vec<String> {
    let method = backup.status.as_ref().and_then(|status| status.backup_method.as_ref());
    let Some(volumes) = method.and_then(|method| method.target_volumes.as_ref()) else { return Vec::new() };
    let mut names = volumes.volumes.clone();
    if method.is_some_and(|method| method.snapshot_volumes()) {
        return names;
    }
    names.extend(volumes.volume_mounts.iter().map(|mount| mount.name.clone()));
    names.dedup();
    names
}

fn claim_templates(backup: &Backup, recorded: Option<&Recorded>, wish: &Wish) -> Result<Vec<RestoreVolumeClaim>> {
    let what = || format!("backup/{} cannot be restored into claims", backup.name_any());
    if !wish.claims.is_empty() {
        return Ok(wish.claims.iter().map(|claim| template(&claim.volume, by_hand(claim, wish), wish, None)).collect());
    }
    let volumes = volumes(backup);
    if volumes.is_empty() {
        return Err(
            CliError::usage(what(), "its method recorded no volumes").hint("add --claim VOLUME=SIZE for each volume")
        );
    }
    let Some(recorded) = recorded else {
        return Err(CliError::usage(what(), "it carries no manifest of the workload that it was made from").hint(
            format!(
                "add --to pvc {}",
                volumes.iter().map(|volume| format!("--claim {volume}=SIZE")).collect::<Vec<_>>().join(" ")
            ),
        ));
    };
    let spec = recorded.stateful_set.spec.as_ref();
    let known = spec.and_then(|spec| spec.volume_claim_templates.as_deref()).unwrap_or_default();
    volumes
        .iter()
        .map(|volume| {
            let claim = known.iter().find(|claim| claim.name_any() == *volume).ok_or_else(|| {
                CliError::usage(
                    what(),
                    format!("volume {volume} is no claim template of statefulset/{}", recorded.name()),
                )
                .hint(format!("add --to pvc --claim {volume}=SIZE"))
            })?;
            let mut spec = claim.spec.clone().unwrap_or_default();
            // What binds a claim to one volume or source must not follow it.
            spec.volume_name = None;
            spec.data_source = None;
            spec.data_source_ref = None;
            if wish.storage_class.is_some() {
                spec.storage_class_name.clone_from(&wish.storage_class);
            }
            Ok(template(volume, spec, wish, claim.metadata.labels.as_ref()))
        })
        .collect()
}

fn template(
    volume: &str,
    spec: PersistentVolumeClaimSpec,
    wish: &Wish,
    labels: Option<&BTreeMap<String, String>>,
) -> RestoreVolumeClaim {
    // In place, those of the workload have their names already, and these are gone in the end.
    let group = if wish.in_place.is_some() { &wish.name } else { &wish.target };
    RestoreVolumeClaim {
        metadata: EmbeddedObjectMeta {
            name: Some(format!("{volume}-{group}")),
            labels: labels.filter(|_| wish.in_place.is_none()).cloned().unwrap_or_default(),
            ..EmbeddedObjectMeta::default()
        },
        volume_claim_spec: spec,
        volume: VolumeConfig { volume_source: Some(volume.to_owned()), mount_path: None },
    }
}

fn by_hand(claim: &Claim, wish: &Wish) -> PersistentVolumeClaimSpec {
    PersistentVolumeClaimSpec {
        access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
        storage_class_name: claim.class.clone().or_else(|| wish.storage_class.clone()),
        resources: Some(VolumeResourceRequirements {
            requests: Some(BTreeMap::from([("storage".to_owned(), Quantity(claim.size.clone()))])),
            ..VolumeResourceRequirements::default()
        }),
        ..PersistentVolumeClaimSpec::default()
    }
}

/// Names of the claims that a Restore will make.
pub(crate) fn claim_names(restore: &Restore) -> Vec<String> {
    let config = restore.spec.prepare_data_config.as_ref();
    let Some(template) = config.and_then(|config| config.volume_claims_template.as_ref()) else { return Vec::new() };
    let first = template.starting_index();
    (0..template.replicas)
        .flat_map(|index| {
            template
                .templates
                .iter()
                .map(move |claim| format!("{}-{}", claim.metadata.name.as_deref().unwrap_or_default(), first + index))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn backup(workload: bool) -> Backup {
        let manifest = json!({
            "statefulSet": {
                "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "pg"},
                "spec": {
                    "serviceName": "pg", "selector": {"matchLabels": {"app": "pg"}}, "template": {},
                    "volumeClaimTemplates": [
                        {"metadata": {"name": "data", "labels": {"app": "pg"}}, "spec": {
                            "accessModes": ["ReadWriteOnce"], "volumeName": "pv-1",
                            "resources": {"requests": {"storage": "10Gi"}}, "storageClassName": "slow"}},
                        {"metadata": {"name": "scratch"}, "spec": {}}
                    ]
                }
            },
            "secrets": ["pg"]
        });
        serde_json::from_value(json!({
            "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "Backup",
            "metadata": {
                "name": "one", "namespace": "demo",
                "annotations": if workload { json!({annotations::WORKLOAD: manifest.to_string()}) } else { json!({}) }
            },
            "spec": {"backupPolicyName": "pg", "backupMethod": "full"},
            "status": {"phase": "Completed", "backupMethod": {"name": "full", "targetVolumes": {
                "volumeMounts": [{"name": "data", "mountPath": "/var/lib/postgresql/data"}]}}}
        }))
        .unwrap()
    }

    fn wish() -> Wish {
        Wish { name: "copy-1".into(), namespace: "demo".into(), target: "copy".into(), run: true, ..Wish::default() }
    }

    #[test]
    fn only_the_volumes_that_were_backed_up_are_claimed() {
        let backup = backup(true);
        let recorded = Recorded::of(&backup).unwrap();
        let restore = restore(&backup, &backup, recorded.as_ref(), &wish()).unwrap();
        assert_eq!(claim_names(&restore), ["data-copy-0"]);
        insta::assert_yaml_snapshot!(restore);
    }

    #[test]
    fn another_storage_class_and_more_replicas() {
        let backup = backup(true);
        let recorded = Recorded::of(&backup).unwrap();
        let wish = Wish { storage_class: Some("fast".into()), replicas: Some(2), ..wish() };
        let restore = restore(&backup, &backup, recorded.as_ref(), &wish).unwrap();
        assert_eq!(claim_names(&restore), ["data-copy-0", "data-copy-1"]);
        let config = restore.spec.prepare_data_config.unwrap().volume_claims_template.unwrap();
        assert_eq!(config.templates[0].volume_claim_spec.storage_class_name.as_deref(), Some("fast"));
    }

    #[test]
    fn without_a_manifest_claims_are_given_by_hand() {
        let backup = backup(false);
        let error = restore(&backup, &backup, None, &wish()).unwrap_err();
        assert_eq!(error.hints, ["add --to pvc --claim data=SIZE"]);
        let wish = Wish { claims: vec!["data=20Gi:fast".parse().unwrap()], run: false, ..wish() };
        let restore = restore(&backup, &backup, None, &wish).unwrap();
        assert_eq!(claim_names(&restore), ["data-copy-0"]);
        assert_eq!(restore.metadata.annotations, None);
    }

    #[test]
    fn a_claim_needs_a_volume_and_a_size() {
        assert_eq!("data=1Gi".parse(), Ok(Claim { volume: "data".into(), size: "1Gi".into(), class: None }));
        for text in ["data", "=1Gi", "data=big"] {
            assert!(text.parse::<Claim>().is_err(), "{text}");
        }
    }
}
