//! What a claim needs next: pure, over what exists. Each step may be repeated; the next one follows from its effect.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kbbackup_api::conditions::{ClaimCondition, ClaimReason};
use kbbackup_api::names::{FINALIZER, annotations};
use kbbackup_api::v1alpha1::{Restore, RestorePhase};
use kube::ResourceExt as _;

/// What is there, read from the API server just now.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The claim to be filled.
    pub claim: &'a PersistentVolumeClaim,
    /// The object with the temporary claim's name.
    pub temporary: Option<&'a PersistentVolumeClaim>,
    /// The object with the internal Restore's name.
    pub restore: Option<&'a Restore>,
    /// The volume of the claim, else that of the temporary claim.
    pub volume: Option<&'a PersistentVolume>,
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Nothing more; a watch tells when that changes.
    Rest,
    /// The claim goes: children go with it, the volume gets its policy back, our finalizer comes off.
    Abandon,
    /// Hold the claim and say that it is being filled.
    Begin,
    /// Create the temporary claim.
    CreateTemporary,
    /// Create the internal Restore.
    CreateRestore,
    /// Delete the temporary claim: it is over, or its content cannot be trusted.
    DropTemporary,
    /// Delete an internal Restore that filled another temporary claim than the one that exists.
    DropRestore,
    /// Hand the volume over: from now on it belongs to the claim.
    HandOver,
    /// Name the volume in the claim.
    NameVolume,
    /// The volume gets the reclaim policy back that it had.
    GiveBack,
    /// All is done, with this reason.
    Conclude(ClaimReason),
    /// Wait for others; in words, for people.
    Wait(String),
    /// It cannot be done; in words, for people.
    Fail(String),
}

/// What has to be done whatever the source says, for it may be gone by now: claims that leave, that are bound, or whose
/// volume has been handed over. `None`: the claim is still to be filled.
pub fn settle(seen: Seen<'_>) -> Option<Step> {
    let Seen { claim, temporary, restore, volume } = seen;
    let held = claim.finalizers().iter().any(|name| name == FINALIZER);
    if claim.metadata.deletion_timestamp.is_some() {
        return Some(if held { Step::Abandon } else { Step::Rest });
    }
    let named = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).filter(|name| !name.is_empty());
    let volume = volume.filter(|volume| belongs_to(volume, claim));
    if is_bound(claim) {
        if !held {
            return Some(Step::Rest);
        }
        let temporary = temporary.filter(|temporary| is_child(*temporary, claim));
        return Some(match (temporary, volume) {
            (Some(temporary), _) if temporary.metadata.deletion_timestamp.is_none() => Step::DropTemporary,
            (Some(_), _) => Step::Wait("the temporary claim is being deleted".to_owned()),
            (None, Some(volume)) if volume.annotations().contains_key(annotations::RECLAIM_POLICY) => Step::GiveBack,
            (None, Some(volume)) if volume.annotations().contains_key(annotations::POPULATE_FROM) => {
                let filled = restore.is_some_and(|restore| is_child(restore, claim));
                Step::Conclude(if filled { ClaimReason::Succeed } else { ClaimReason::Provisioned })
            }
            (None, _) => {
                let named = named.unwrap_or_default();
                Step::Fail(format!("the claim was bound to volume {named} by somebody else; it was not filled"))
            }
        });
    }
    if volume.is_some() {
        return Some(if named.is_none() {
            Step::NameVolume
        } else {
            Step::Wait("the volume is handed over and is being bound".to_owned())
        });
    }
    // Somebody chose a volume: Kubernetes binds it, and there is nothing to fill.
    named.map(|named| if held { Step::Wait(format!("the claim names volume {named} itself")) } else { Step::Rest })
}

/// What a claim that is still to be filled needs next. `wanted` is the internal Restore as it would be made now, `None`
/// for an empty volume.
pub fn fill(seen: Seen<'_>, wanted: Option<&Restore>) -> Step {
    let step = next(seen, wanted);
    // What cannot be done is found out before anything is changed.
    let begun = seen.claim.finalizers().iter().any(|name| name == FINALIZER)
        && reason(seen.claim) == Some(ClaimReason::Processing.as_str());
    if begun || matches!(step, Step::Fail(_)) { step } else { Step::Begin }
}

fn next(seen: Seen<'_>, wanted: Option<&Restore>) -> Step {
    let Seen { claim, temporary, restore, volume } = seen;
    if let Some(restore) = restore {
        if !is_child(restore, claim) {
            return foreign("restore", &restore.name_any());
        }
        if restore.metadata.deletion_timestamp.is_some() {
            return Step::Wait(format!("an earlier restore {} is being deleted", restore.name_any()));
        }
        let filled = restore.annotations().get(annotations::POPULATED_CLAIM).map(String::as_str);
        let fits = filled.is_some() && filled == temporary.and_then(|temporary| temporary.metadata.uid.as_deref());
        if !fits && phase(restore) != Some(RestorePhase::Failed) {
            return Step::DropRestore;
        }
        if phase(restore) == Some(RestorePhase::Failed) {
            return Step::Fail(format!(
                "restore {} failed{}; when the cause is mended, delete that restore to try again",
                restore.name_any(),
                told(restore)
            ));
        }
        if wanted.is_none_or(|wanted| !super::build::is_same(restore, wanted)) {
            return Step::Fail(format!(
                "restore {} was begun for other wishes than the claim has now; delete the claim, or that restore, to begin anew",
                restore.name_any()
            ));
        }
    }
    let Some(temporary) = temporary else { return Step::CreateTemporary };
    if !is_child(temporary, claim) {
        return foreign("persistentvolumeclaim", &temporary.name_any());
    }
    if temporary.metadata.deletion_timestamp.is_some() {
        return Step::Wait("an earlier temporary claim is being deleted".to_owned());
    }
    match (wanted, restore) {
        (None, _) => {}
        (Some(_), None) if temporary.annotations().contains_key(annotations::RESTORED_BY) => {
            return Step::DropTemporary;
        }
        (Some(_), None) => return Step::CreateRestore,
        (Some(_), Some(restore)) if phase(restore) == Some(RestorePhase::Completed) => {}
        (Some(_), Some(restore)) => {
            let name = restore.name_any();
            let why = restore.annotations().get(annotations::WAITING_FOR).filter(|why| !why.is_empty());
            return Step::Wait(
                why.map_or_else(|| format!("restore {name} runs"), |why| format!("restore {name}: {why}")),
            );
        }
    }
    // A volume that is being released may be deleted behind our back: only one that is bound to the temporary claim,
    // at the very version that is patched, is handed over.
    let bound = volume.filter(|volume| belongs_to(volume, temporary) && volume.metadata.deletion_timestamp.is_none());
    match bound.and_then(|volume| volume.status.as_ref()).and_then(|status| status.phase.as_deref()) {
        Some("Bound") if is_bound(temporary) => Step::HandOver,
        _ => Step::Wait("the temporary claim waits for its volume".to_owned()),
    }
}

fn foreign(kind: &str, name: &str) -> Step {
    Step::Fail(format!("a {kind} {name} exists that was not made for this claim; delete it"))
}

fn phase(restore: &Restore) -> Option<RestorePhase> {
    restore.status.as_ref().and_then(|status| status.phase)
}

/// Why a restore has failed, from its conditions and actions.
fn told(restore: &Restore) -> String {
    let Some(status) = &restore.status else { return String::new() };
    let conditions = status.conditions.iter().filter(|condition| condition.status == "False");
    let why = conditions.map(|condition| condition.message.trim()).rfind(|message| !message.is_empty());
    why.map(|why| format!(": {why}")).unwrap_or_default()
}

/// The reason in the claim's condition `Populating`.
pub fn reason(claim: &PersistentVolumeClaim) -> Option<&str> {
    condition(claim, ClaimCondition::Populating)?.reason.as_deref()
}

/// A condition of a claim.
pub fn condition(
    claim: &PersistentVolumeClaim,
    type_: ClaimCondition,
) -> Option<&k8s_openapi::api::core::v1::PersistentVolumeClaimCondition> {
    let conditions = claim.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().find(|condition| condition.type_ == type_.as_str())
}

/// Whether Kubernetes has bound the claim for good.
pub fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    claim.annotations().contains_key("pv.kubernetes.io/bind-completed")
}

/// Whether `claim` controls `object`.
pub fn is_child<K: kube::Resource>(object: &K, claim: &PersistentVolumeClaim) -> bool {
    let uid = claim.metadata.uid.as_deref();
    uid.is_some() && object.owner_references().iter().any(|owner| Some(owner.uid.as_str()) == uid)
}

/// Whether a volume is claimed by `claim`: by that very object, not by one of the same name.
pub fn belongs_to(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let owner = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()).and_then(|of| of.uid.as_deref());
    owner.is_some() && owner == claim.metadata.uid.as_deref()
}
