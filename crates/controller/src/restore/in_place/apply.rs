//! Everything that a restore in place writes. Volumes and the StatefulSet are changed at the very version that was read.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements,
};
use kbbackup_api::in_place::Exchange;
use kbbackup_api::names::{annotations, labels};
use kbbackup_api::snapshot::{VolumeSnapshot, VolumeSnapshotSource, VolumeSnapshotSpec};
use kbbackup_api::v1alpha1::Restore;
use kube::api::{Patch, PatchParams};
use kube::core::ObjectMeta;
use kube::{Api, ResourceExt as _};
use serde_json::json;

use super::decide::RETAIN;
use super::observe::snapshot_name;
use crate::context::Context;
use crate::populator::apply::delete;
use crate::populator::observe::claims;
use crate::restore::apply::{MANAGER, create};
use crate::restore::mark;
use crate::worker::error::{Doing as _, Error};

fn params() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() }
}

/// Scales the StatefulSet, and marks it: by that a watch wakes the restore.
pub(super) async fn scale(ctx: &Context, restore: &Restore, set: &StatefulSet, replicas: i32) -> Result<(), Error> {
    let (name, namespace) = (set.name_any(), set.namespace().unwrap_or_default());
    let patch = json!({
        "metadata": {
            "resourceVersion": set.resource_version(),
            "labels": { labels::RESTORED_FROM: restore.spec.backup.name },
            "annotations": { annotations::RESTORED_BY: mark(restore) },
        },
        "spec": { "replicas": replicas },
    });
    let api = Api::<StatefulSet>::namespaced(ctx.client.clone(), &namespace);
    let written = api.patch(&name, &params(), &Patch::Merge(patch)).await;
    written.doing(|| format!("scaling statefulset {name} to {replicas}")).map(drop)
}

/// Takes a snapshot of an old volume. It has no owner: it outlives the restore.
pub(super) async fn snapshot(ctx: &Context, restore: &Restore, one: &Exchange, class: &str) -> Result<(), Error> {
    let mut own = own_labels(restore);
    own.insert(labels::MANAGED_BY.to_owned(), labels::MANAGED_BY_DATAPROTECTION.to_owned());
    let snapshot = VolumeSnapshot {
        metadata: ObjectMeta {
            name: Some(snapshot_name(restore, &one.claim)),
            namespace: restore.namespace(),
            labels: Some(own),
            annotations: Some([(annotations::RESTORED_BY.to_owned(), mark(restore))].into()),
            ..ObjectMeta::default()
        },
        spec: VolumeSnapshotSpec {
            source: VolumeSnapshotSource {
                persistent_volume_claim_name: Some(one.claim.clone()),
                volume_snapshot_content_name: None,
            },
            volume_snapshot_class_name: Some(class.to_owned()),
        },
        status: None,
    };
    create(ctx, &snapshot).await.map(drop)
}

fn own_labels(restore: &Restore) -> BTreeMap<String, String> {
    [(labels::IN_PLACE.to_owned(), restore.name_any())].into()
}

/// The old volume outlives its claim, and says whose it was.
pub(super) async fn keep(
    ctx: &Context,
    restore: &Restore,
    one: &Exchange,
    old: &PersistentVolume,
) -> Result<(), Error> {
    let former = format!("{}/{}", restore.namespace().unwrap_or_default(), one.claim);
    let patch = json!({
        "metadata": { "resourceVersion": old.resource_version(), "labels": own_labels(restore),
            "annotations": { annotations::FORMER_CLAIM: former } },
        "spec": { "persistentVolumeReclaimPolicy": RETAIN },
    });
    patch_volume(ctx, old, patch, "keeping").await
}

/// The new volume outlives the temporary claim; its policy comes back once it belongs to the claim.
pub(super) async fn hold(ctx: &Context, new: &PersistentVolume) -> Result<(), Error> {
    let policy = new.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.clone());
    let patch = json!({
        "metadata": { "resourceVersion": new.resource_version(), "annotations": { annotations::RECLAIM_POLICY: policy } },
        "spec": { "persistentVolumeReclaimPolicy": RETAIN },
    });
    patch_volume(ctx, new, patch, "holding").await
}

async fn patch_volume(
    ctx: &Context,
    volume: &PersistentVolume,
    patch: serde_json::Value,
    story: &str,
) -> Result<(), Error> {
    let api = Api::<PersistentVolume>::all(ctx.client.clone());
    let written = api.patch(&volume.name_any(), &params(), &Patch::Merge(patch)).await;
    written.doing(|| format!("{story} persistentvolume {}", volume.name_any())).map(drop)
}

/// Deletes a claim; before that it gets our label, by which a watch tells when it is gone.
pub(super) async fn drop_claim(ctx: &Context, restore: &Restore, claim: &PersistentVolumeClaim) -> Result<(), Error> {
    let api = claims(ctx, &restore.namespace().unwrap_or_default());
    if claim.labels().get(labels::IN_PLACE) != Some(&restore.name_any()) {
        let patch =
            json!({ "metadata": { "resourceVersion": claim.resource_version(), "labels": own_labels(restore) } });
        let written = api.patch_metadata(&claim.name_any(), &params(), &Patch::Merge(patch)).await;
        written.doing(|| format!("marking claim {}", claim.name_any()))?;
    }
    delete(&api, claim).await
}

/// Creates the claim again, for the new volume.
pub(super) async fn create_claim(
    ctx: &Context,
    restore: &Restore,
    one: &Exchange,
    new: &PersistentVolume,
) -> Result<(), Error> {
    create(ctx, &successor(restore, one, new)).await.map(drop)
}

/// The claim that takes the place of the old one: its labels and annotations, and what the new volume offers.
pub(super) fn successor(restore: &Restore, one: &Exchange, new: &PersistentVolume) -> PersistentVolumeClaim {
    let spec = new.spec.clone().unwrap_or_default();
    let storage = spec.capacity.unwrap_or_default().remove("storage").unwrap_or_default();
    let mut own = one.labels.clone();
    own.extend(own_labels(restore));
    let mut notes = one.annotations.clone();
    notes.insert(annotations::RESTORED_BY.to_owned(), mark(restore));
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(one.claim.clone()),
            namespace: restore.namespace(),
            labels: Some(own),
            annotations: Some(notes),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: spec.access_modes,
            resources: Some(VolumeResourceRequirements {
                requests: Some([("storage".to_owned(), storage)].into()),
                ..VolumeResourceRequirements::default()
            }),
            storage_class_name: Some(spec.storage_class_name.unwrap_or_default()),
            volume_mode: spec.volume_mode,
            volume_attributes_class_name: spec.volume_attributes_class_name,
            volume_name: Some(new.name_any()),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}
