//! The temporary claim and the internal Restore as plain values: behaviour 6.9, steps 5 and 6.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, Toleration, TypedLocalObjectReference, TypedObjectReference,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kbbackup_api::names::{annotations, labels};
use kbbackup_api::v1alpha1::{
    EmbeddedObjectMeta, Restore, RestoreSpec, RestoreVolumeClaim, SchedulingSpec, VolumeConfig,
};
use kube::{Resource as _, ResourceExt as _};

use super::wish::{Source, Wish};
use crate::worker::error::Refusal;

/// Beginning of the name of everything that a claim is filled with.
pub const PREFIX: &str = "kb-populate-";

/// Name of the temporary claim and of the internal Restore of a claim.
pub fn name(claim: &PersistentVolumeClaim) -> String {
    format!("{PREFIX}{}", claim.uid().unwrap_or_default())
}

/// What fills a claim.
#[derive(Clone, Debug, PartialEq)]
pub struct Filling {
    /// The restore without claims and scheduling; `None` for an empty volume.
    pub restore: Option<RestoreSpec>,
    /// What is restored, and where it is mounted meanwhile.
    pub volume: VolumeConfig,
    /// The VolumeSnapshot that holds the data, for snapshot backups.
    pub snapshot: Option<String>,
}

/// The claim that is filled in place of `claim`. It goes with `claim`; its volume does not, once that has been handed over.
pub fn temporary(claim: &PersistentVolumeClaim, filling: &Filling) -> PersistentVolumeClaim {
    let selected = claim.annotations().get(annotations::SELECTED_NODE);
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(name(claim)),
            namespace: claim.namespace(),
            labels: Some(managed()),
            annotations: selected.map(|node| [(annotations::SELECTED_NODE.to_owned(), node.clone())].into()),
            owner_references: claim.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(temporary_spec(claim, filling)),
        status: None,
    }
}

fn temporary_spec(claim: &PersistentVolumeClaim, filling: &Filling) -> PersistentVolumeClaimSpec {
    let spec = claim.spec.clone().unwrap_or_default();
    let group = "snapshot.storage.k8s.io".to_owned();
    let snapshot = filling.snapshot.as_ref();
    PersistentVolumeClaimSpec {
        access_modes: spec.access_modes,
        resources: spec.resources,
        storage_class_name: spec.storage_class_name,
        volume_mode: spec.volume_mode,
        volume_attributes_class_name: spec.volume_attributes_class_name,
        data_source: snapshot.map(|name| TypedLocalObjectReference {
            api_group: Some(group.clone()),
            kind: "VolumeSnapshot".to_owned(),
            name: name.clone(),
        }),
        data_source_ref: snapshot.map(|name| TypedObjectReference {
            api_group: Some(group.clone()),
            kind: "VolumeSnapshot".to_owned(),
            name: name.clone(),
            namespace: None,
        }),
        ..PersistentVolumeClaimSpec::default()
    }
}

/// The Restore that fills the temporary claim of this UID. `hostname` is that of the node where the volume is.
pub fn restore(
    claim: &PersistentVolumeClaim,
    filling: &Filling,
    temporary_uid: &str,
    hostname: Option<&str>,
) -> Option<Restore> {
    let mut spec = filling.restore.clone()?;
    let (name, namespace) = (name(claim), claim.namespace().unwrap_or_default());
    let config = spec.prepare_data_config.get_or_insert_default();
    config.volume_claims = vec![RestoreVolumeClaim {
        metadata: EmbeddedObjectMeta { name: Some(name.clone()), ..EmbeddedObjectMeta::default() },
        volume_claim_spec: temporary_spec(claim, filling),
        volume: filling.volume.clone(),
    }];
    config.scheduling_spec = Some(SchedulingSpec {
        tolerations: vec![Toleration { operator: Some("Exists".to_owned()), ..Toleration::default() }],
        node_selector: hostname
            .map(|name| ("kubernetes.io/hostname".to_owned(), name.to_owned()))
            .into_iter()
            .collect(),
        ..SchedulingSpec::default()
    });
    let mut own = managed();
    own.extend([
        (labels::RESTORE.to_owned(), name.clone()),
        (labels::RESTORE_NAMESPACE.to_owned(), namespace.clone()),
        (labels::POPULATE_PVC.to_owned(), name.clone()),
        (labels::BACKUP_NAME.to_owned(), spec.backup.name.clone()),
    ]);
    let copied =
        [labels::INSTANCE, labels::COMPONENT_NAME, labels::SHARDING_NAME, labels::VOLUME_CLAIM_TEMPLATE].into_iter();
    own.extend(copied.filter_map(|key| Some((key.to_owned(), claim.labels().get(key)?.clone()))));
    let mut restore = Restore::new(&name, spec);
    restore.metadata.namespace = Some(namespace);
    restore.metadata.labels = Some(own);
    restore.metadata.annotations = Some([(annotations::POPULATED_CLAIM.to_owned(), temporary_uid.to_owned())].into());
    restore.metadata.owner_references = claim.controller_owner_ref(&()).map(|owner| vec![owner]);
    Some(restore)
}

/// An existing internal Restore as the annotations of `claim` would have it now.
///
/// # Errors
/// [`Refusal::Fatal`] naming the annotation that cannot be read.
pub fn with_wishes(restore: &Restore, claim: &PersistentVolumeClaim, source: &Source) -> Result<Restore, Refusal> {
    let mut wanted = restore.clone();
    if let Source::Backup { namespace, name } = source {
        let wish = Wish::of(claim)?;
        wanted.spec.backup.namespace.clone_from(namespace);
        wanted.spec.backup.name.clone_from(name);
        wanted.spec.restore_time = wish.restore_time;
        wanted.spec.parameters = wish.parameters;
        wanted.spec.env = wish.env;
    }
    Ok(wanted)
}

/// Whether an existing internal Restore is the one that would be made now.
pub fn is_same(existing: &Restore, wanted: &Restore) -> bool {
    let essence = |restore: &Restore| {
        let spec = &restore.spec;
        let config = spec.prepare_data_config.as_ref();
        let claim = config.and_then(|config| config.volume_claims.first());
        (
            spec.backup.clone(),
            spec.restore_time.clone(),
            spec.parameters.clone(),
            spec.env.clone(),
            config.and_then(|config| config.required_policy_for_all_pod_selection.clone()),
            claim.map(|claim| (claim.metadata.name.clone(), claim.volume.clone())),
        )
    };
    essence(existing) == essence(wanted)
}

fn managed() -> BTreeMap<String, String> {
    [(labels::MANAGED_BY.to_owned(), labels::MANAGED_BY_DATAPROTECTION.to_owned())].into()
}
