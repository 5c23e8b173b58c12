//! Claims that are made from volume snapshots: behaviour 6.5. Each replica gets the snapshots of its own source pod, where
//! the reference gives all of them the first pod's; and what has no snapshot is refused, where it gives an empty volume.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, TypedLocalObjectReference};
use kbbackup_api::events::EventReason;
use kbbackup_api::names::labels;
use kbbackup_api::snapshot::{GROUP, VolumeSnapshot};
use kbbackup_api::v1alpha1::Restore;
use kbbackup_core::layout;
use kube::runtime::events::EventType;
use kube::{Api, ResourceExt as _};

use super::apply;
use super::build::{self, Claim};
use super::sets::{self, Set, SourcePod};
use crate::context::Context;
use crate::error::is_not_found;
use crate::worker::error::{Doing as _, Error, LONG, Refusal};

/// A claim and the VolumeSnapshot that it is made from.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// The claim.
    pub claim: Claim<'a>,
    /// Name of the snapshot.
    pub snapshot: String,
}

/// Every claim of the restore with its snapshot. Replicas beyond the recorded pods get none, as with Jobs.
///
/// # Errors
/// [`Refusal::Fatal`] when the backup recorded no snapshot of a volume, or lies in another namespace.
pub fn wanted<'a>(restore: &'a Restore, set: &Set) -> Result<Vec<Wanted<'a>>, Refusal> {
    let name = set.backup.name_any();
    if set.backup.namespace() != restore.namespace() {
        return Err(Refusal::fatal(format!(
            "backup {name} consists of volume snapshots, which can only be used in their own namespace; restore it in {}",
            set.backup.namespace().unwrap_or_default()
        )));
    }
    let config = restore.spec.prepare_data_config.as_ref();
    let policy = config.and_then(|config| config.required_policy_for_all_pod_selection.as_ref());
    let target = sets::source_target(&set.backup, restore.spec.backup.source_target_name.as_deref())?;
    let mut all = Vec::new();
    for replica in 0..build::replicas(restore) {
        let pod = match sets::source_pod(target, policy, replica)? {
            SourcePod::Any => None,
            SourcePod::Pod(pod) => Some(pod),
            SourcePod::None => continue,
        };
        for claim in build::claims(restore, replica) {
            let volume = claim.wish.volume.volume_source.as_deref().unwrap_or_default();
            let found = sets::snapshot_of(&set.backup, target.target.name.as_deref(), volume, pod.as_deref());
            let snapshot = found.ok_or_else(|| {
                let of = pod.as_ref().map(|pod| format!(" of pod {pod}")).unwrap_or_default();
                Refusal::fatal(format!(
                    "backup {name} recorded no snapshot of volume {volume:?}{of}, from which claim {} is to be made; its \
                     volumeSource must be one of: {}",
                    claim.name,
                    sets::snapshot_volumes(&set.backup).join(", ")
                ))
            })?;
            all.push(Wanted { claim, snapshot });
        }
    }
    Ok(all)
}

/// Whether a claim can be made from a snapshot.
///
/// # Errors
/// [`Refusal`] when the snapshot is missing, not ready, or larger than the claim.
pub fn fits(backup: &str, wanted: &Wanted<'_>, snapshot: Option<&VolumeSnapshot>) -> Result<(), Refusal> {
    let Wanted { claim, snapshot: name } = wanted;
    let going = |snapshot: &&VolumeSnapshot| snapshot.metadata.deletion_timestamp.is_none();
    let snapshot = snapshot.filter(going).ok_or_else(|| {
        Refusal::fatal(format!(
            "volumesnapshot {name}, which backup {backup} recorded, does not exist any more: nothing can be restored into \
             claim {} from this backup",
            claim.name
        ))
    })?;
    let status = snapshot.status.clone().unwrap_or_default();
    if status.ready_to_use != Some(true) {
        let said = status.error.and_then(|error| error.message).map(|said| format!(": {said}")).unwrap_or_default();
        return Err(Refusal::not_yet(LONG, format!("volumesnapshot {name} is not ready to use{said}")));
    }
    let requests = claim.wish.volume_claim_spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let size = requests.and_then(|requests| requests.get("storage")).map(|size| size.0.as_str());
    let least = status.restore_size.as_deref();
    match (size.and_then(layout::parse_size), least.and_then(layout::parse_size)) {
        (Some(has), Some(needs)) if has < needs => Err(Refusal::fatal(format!(
            "claim {} requests {}, but volumesnapshot {name} needs {} at least; ask for more",
            claim.name,
            size.unwrap_or_default(),
            least.unwrap_or_default()
        ))),
        _ => Ok(()),
    }
}

/// A claim that the driver fills from a snapshot.
pub fn claim(restore: &Restore, wanted: &Wanted<'_>) -> PersistentVolumeClaim {
    let mut claim = build::claim(restore, &wanted.claim);
    let spec = claim.spec.get_or_insert_default();
    spec.data_source = Some(source(&wanted.snapshot));
    spec.data_source_ref = None;
    claim
}

fn source(snapshot: &str) -> TypedLocalObjectReference {
    TypedLocalObjectReference {
        api_group: Some(GROUP.to_owned()),
        kind: "VolumeSnapshot".to_owned(),
        name: snapshot.to_owned(),
    }
}

/// The populator's temporary claim is made by it, from the snapshot already.
fn is_populators(restore: &Restore) -> bool {
    restore.labels().contains_key(labels::POPULATE_PVC)
}

/// Looks at everything that the claims of a set are made from, before anything is created.
///
/// # Errors
/// [`Error::Refused`] when a snapshot or a claim is in the way, else those of the API server.
pub async fn check(ctx: &Context, restore: &Restore, set: &Set) -> Result<(), Error> {
    if is_populators(restore) {
        return Ok(());
    }
    for wanted in wanted(restore, set)? {
        if !exists(ctx, restore, &wanted).await? {
            fits(&set.backup.name_any(), &wanted, snapshot(ctx, restore, &wanted.snapshot).await?.as_ref())?;
        }
    }
    Ok(())
}

/// Makes the claims of a set that do not exist.
///
/// # Errors
/// As [`check`].
pub async fn create(ctx: &Context, restore: &Restore, set: &Set) -> Result<(), Error> {
    if is_populators(restore) {
        return Ok(());
    }
    for wanted in wanted(restore, set)? {
        if exists(ctx, restore, &wanted).await? {
            continue;
        }
        fits(&set.backup.name_any(), &wanted, snapshot(ctx, restore, &wanted.snapshot).await?.as_ref())?;
        if apply::create(ctx, &claim(restore, &wanted)).await? {
            let Wanted { claim, snapshot } = &wanted;
            let note = format!("created persistentvolumeclaim {} from volumesnapshot {snapshot}", claim.name);
            ctx.event(restore, EventType::Normal, EventReason::CreateRestorePvc.as_str(), note).await;
        }
    }
    Ok(())
}

async fn snapshot(ctx: &Context, restore: &Restore, name: &str) -> Result<Option<VolumeSnapshot>, Error> {
    let api = Api::<VolumeSnapshot>::namespaced(ctx.client.clone(), &restore.namespace().unwrap_or_default());
    match api.get_opt(name).await {
        Err(error) if is_not_found(&error) => Ok(None),
        other => other.doing(|| format!("reading volumesnapshot {name}")),
    }
}

/// Whether the claim is there, made from this very snapshot. Another one of its name holds something else.
async fn exists(ctx: &Context, restore: &Restore, wanted: &Wanted<'_>) -> Result<bool, Error> {
    let (namespace, name) = (restore.namespace().unwrap_or_default(), &wanted.claim.name);
    let api = Api::<PersistentVolumeClaim>::namespaced(ctx.client.clone(), &namespace);
    let found = api.get_opt(name).await.doing(|| format!("looking for claim {name}"))?;
    let Some(found) = found else { return Ok(false) };
    if found.spec.and_then(|spec| spec.data_source).is_some_and(|from| from == source(&wanted.snapshot)) {
        return Ok(true);
    }
    Err(Refusal::fatal(format!(
        "claim {name} exists in {namespace} and was not made from volumesnapshot {}; delete it, or restore into new claims",
        wanted.snapshot
    ))
    .into())
}
