//! Everything that a restore in place reads.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kbbackup_api::in_place::{self, Exchange, Record};
use kbbackup_api::names::{TRUE, annotations};
use kbbackup_api::snapshot::{VolumeSnapshot, VolumeSnapshotClass};
use kbbackup_api::v1alpha1::{Restore, RestorePhase};
use kbbackup_core::names;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};

use super::decide::{Seen, SeenClaim, Snapshot};
use crate::backup::volumes::decide::class;
use crate::context::Context;
use crate::error::is_not_found;
use crate::populator::observe::claims;
use crate::restore::apply;
use crate::worker::error::{Doing as _, Error};

/// The StatefulSet of this name beside the restore.
pub(super) async fn set(ctx: &Context, restore: &Restore, name: &str) -> Result<Option<StatefulSet>, Error> {
    let api = Api::<StatefulSet>::namespaced(ctx.client.clone(), &restore.namespace().unwrap_or_default());
    api.get_opt(name).await.doing(|| format!("reading statefulset {name}"))
}

/// Who scales workloads of the restore's namespace.
pub(super) async fn scalers(ctx: &Context, restore: &Restore) -> Result<Vec<HorizontalPodAutoscaler>, Error> {
    let api = Api::<HorizontalPodAutoscaler>::namespaced(ctx.client.clone(), &restore.namespace().unwrap_or_default());
    Ok(api.list(&ListParams::default()).await.doing(|| "listing the horizontalpodautoscalers".to_owned())?.items)
}

/// A claim beside the restore.
pub(super) async fn claim(
    ctx: &Context,
    restore: &Restore,
    name: &str,
) -> Result<Option<PersistentVolumeClaim>, Error> {
    let found = claims(ctx, &restore.namespace().unwrap_or_default()).get_opt(name).await;
    found.doing(|| format!("reading claim {name}"))
}

/// A volume.
pub(super) async fn volume(ctx: &Context, name: &str) -> Result<Option<PersistentVolume>, Error> {
    let api = Api::<PersistentVolume>::all(ctx.client.clone());
    api.get_opt(name).await.doing(|| format!("reading persistentvolume {name}"))
}

/// The volume that a claim is bound to.
pub(super) fn volume_name(claim: &PersistentVolumeClaim) -> Option<String> {
    claim.spec.as_ref()?.volume_name.clone().filter(|name| !name.is_empty())
}

/// The pods beside the restore.
pub(super) async fn pods(ctx: &Context, restore: &Restore) -> Result<Vec<Pod>, Error> {
    let namespace = restore.namespace().unwrap_or_default();
    let api = Api::<Pod>::namespaced(ctx.client.clone(), &namespace);
    Ok(api.list(&ListParams::default()).await.doing(|| format!("listing the pods of {namespace}"))?.items)
}

/// Whether a pod was made by the StatefulSet with this UID.
pub(super) fn belongs_to_set(pod: &Pod, uid: &str) -> bool {
    pod.owner_references().iter().any(|owner| owner.uid == uid)
}

/// Whether a pod has mounted one of the claims, running or over: a claim that a pod names is not deleted.
pub(super) fn uses(pod: &Pod, wanted: impl Fn(&str) -> bool) -> bool {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let mut named = volumes.filter_map(|volume| volume.persistent_volume_claim.as_ref());
    named.any(|claim| wanted(&claim.claim_name))
}

/// All that [`super::decide`] asks for.
pub(super) async fn seen(ctx: &Context, restore: &Restore, name: &str, record: &Record) -> Result<Seen, Error> {
    let set = set(ctx, restore, name).await?;
    let mut pods = pods(ctx, restore).await?;
    pods.retain(|pod| {
        let wanted = |claim: &str| record.claims.iter().any(|one| claim == one.claim || claim == one.temporary);
        belongs_to_set(pod, &record.stateful_set) || uses(pod, wanted)
    });
    let mut seen = Seen { pods: pods.iter().map(kube::ResourceExt::name_any).collect(), set, ..Seen::default() };
    seen.rival = match &seen.set {
        Some(set) => rival(ctx, restore, set).await?,
        None => None,
    };
    for one in &record.claims {
        let volume = async |name: Option<&String>| match name {
            Some(name) => volume(ctx, name).await,
            None => Ok(None),
        };
        seen.claims.push(SeenClaim {
            claim: claim(ctx, restore, &one.claim).await?,
            temporary: claim(ctx, restore, &one.temporary).await?,
            old: volume(one.old_volume.as_ref()).await?,
            new: volume(Some(&one.new_volume)).await?,
            snapshot: Snapshot::None,
        });
    }
    // Only a volume that nobody writes to any more is worth one.
    let wanted = restore.annotations().get(annotations::SAFETY_SNAPSHOT).is_none_or(|text| text == TRUE);
    if wanted && !record.exchanging && seen.pods.is_empty() {
        let classes = classes(ctx).await?;
        for (one, seen) in record.claims.iter().zip(&mut seen.claims) {
            seen.snapshot = snapshot(ctx, restore, one, seen.old.as_ref(), &classes).await?;
        }
    }
    Ok(seen)
}

/// Another restore in place whose mark the StatefulSet carries, as long as it is under way.
async fn rival(ctx: &Context, restore: &Restore, set: &StatefulSet) -> Result<Option<String>, Error> {
    let Some(mark) = set.annotations().get(annotations::RESTORED_BY) else { return Ok(None) };
    let mut parts = mark.split('/');
    let (Some(_), Some(name), Some(uid)) = (parts.next(), parts.next(), parts.next()) else { return Ok(None) };
    if restore.uid().as_deref() == Some(uid) {
        return Ok(None);
    }
    let found = apply::api(&ctx.client, restore).get_opt(name).await.doing(|| format!("reading restore {name}"))?;
    let found = found.filter(|other| other.uid().as_deref() == Some(uid) && in_place::target(other).is_some());
    let runs = |other: &Restore| other.status.as_ref().and_then(|status| status.phase) == Some(RestorePhase::Running);
    Ok(found.filter(runs).map(|other| other.name_any()))
}

async fn classes(ctx: &Context) -> Result<Vec<VolumeSnapshotClass>, Error> {
    match Api::<VolumeSnapshotClass>::all(ctx.client.clone()).list(&ListParams::default()).await {
        Err(error) if is_not_found(&error) => Ok(Vec::new()),
        other => Ok(other.doing(|| "listing the VolumeSnapshotClasses".to_owned())?.items),
    }
}

/// Name of the snapshot of a claim that a restore takes.
pub(super) fn snapshot_name(restore: &Restore, claim: &str) -> String {
    names::shorten63(&format!("{}-{claim}", restore.name_any()))
}

async fn snapshot(
    ctx: &Context,
    restore: &Restore,
    one: &Exchange,
    old: Option<&PersistentVolume>,
    classes: &[VolumeSnapshotClass],
) -> Result<Snapshot, Error> {
    let csi = old.and_then(|volume| volume.spec.as_ref()).and_then(|spec| spec.csi.as_ref());
    let Some(class) = csi.and_then(|csi| class(classes, &csi.driver).ok()) else { return Ok(Snapshot::None) };
    let name = snapshot_name(restore, &one.claim);
    let api = Api::<VolumeSnapshot>::namespaced(ctx.client.clone(), &restore.namespace().unwrap_or_default());
    let found = api.get_opt(&name).await.doing(|| format!("reading volumesnapshot {name}"))?;
    let Some(found) = found else { return Ok(Snapshot::Wanted(class.name_any())) };
    let status = found.status.unwrap_or_default();
    // Some drivers need hours until it can be used; from its creation on the volume may change.
    if status.ready_to_use == Some(true) || status.creation_time.is_some() {
        return Ok(Snapshot::Taken);
    }
    let said = status.error.and_then(|error| error.message).map(|said| format!(": {said}")).unwrap_or_default();
    Ok(Snapshot::Pending(format!("volumesnapshot {name} of claim {} is not taken yet{said}", one.claim)))
}
