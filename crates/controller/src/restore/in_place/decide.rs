//! What a restore in place does next: pure, over what is recorded and what is there. Each step may be repeated; the next one
//! follows from its effect, so the process may be killed between any two.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kbbackup_api::in_place::{Exchange, Record, pods};
use kbbackup_api::names::{annotations, labels};
use kube::ResourceExt as _;

use crate::populator::decide::{belongs_to, is_bound};

/// What is there, read from the API server just now.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// The object with the StatefulSet's name.
    pub(super) set: Option<StatefulSet>,
    /// The pods that belong to it or use one of the claims, running or over.
    pub(super) pods: Vec<String>,
    /// The claims, in the order of the record.
    pub(super) claims: Vec<SeenClaim>,
    /// Another restore in place that has the StatefulSet.
    pub(super) rival: Option<String>,
}

/// One claim, and what it is exchanged by.
#[derive(Clone, Debug, Default)]
pub(super) struct SeenClaim {
    /// The object with the claim's name.
    pub(super) claim: Option<PersistentVolumeClaim>,
    /// The object with the temporary claim's name.
    pub(super) temporary: Option<PersistentVolumeClaim>,
    /// The volume that is kept.
    pub(super) old: Option<PersistentVolume>,
    /// The volume with the restored data.
    pub(super) new: Option<PersistentVolume>,
    /// The snapshot of the old volume.
    pub(super) snapshot: Snapshot,
}

/// The snapshot of a volume that is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Snapshot {
    /// Not asked for, or its driver takes none.
    #[default]
    None,
    /// To be taken, by this class.
    Wanted(String),
    /// Not cut yet; in words.
    Pending(String),
    /// Cut: what happens to the volume now does not change it.
    Taken,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Scale the StatefulSet to nothing.
    Stop,
    /// Record that the exchange begins.
    Commit,
    /// Do this for the claim at this place of the record.
    Claim(usize, Act),
    /// Scale the StatefulSet to what it was.
    Start,
    /// Wait for others; in words, for people.
    Wait(String),
    /// It cannot be done, and nothing has been exchanged; in words.
    Fail(String),
    /// The claims have their volumes, and the StatefulSet is started.
    Done,
}

/// What is done for a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Take a snapshot of the old volume by this class.
    Snapshot(String),
    /// See to it that the old volume outlives its claim.
    Keep,
    /// See to it that the new volume outlives the temporary claim.
    Hold,
    /// Delete the temporary claim.
    DropTemporary,
    /// Delete the old claim.
    DropClaim,
    /// Create the claim again, for the new volume.
    CreateClaim,
    /// Give the new volume to the claim.
    HandOver,
    /// The new volume gets the reclaim policy back that it had.
    GiveBack,
}

/// Whose step it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whose<'a> {
    /// Name of the StatefulSet.
    pub(super) set: &'a str,
    /// Name of the restore.
    pub(super) restore: &'a str,
    /// What names the restore on objects.
    pub(super) mark: &'a str,
}

/// The next step.
pub(super) fn next(record: &Record, whose: Whose<'_>, seen: &Seen) -> Step {
    let name = whose.set;
    let set = seen.set.as_ref().filter(|set| set.uid().as_deref() == Some(&record.stateful_set));
    let Some(set) = set else {
        let gone = format!("statefulset {name} is gone, or another one has its name");
        return if record.exchanging { Step::Wait(gone) } else { Step::Fail(gone) };
    };
    let (_, replicas) = pods(set);
    let open =
        record.claims.iter().zip(&seen.claims).enumerate().find_map(|(at, (one, seen))| exchange(at, one, whose, seen));
    if record.exchanging && open.is_none() {
        return if replicas == 0 && record.after > 0 { Step::Start } else { Step::Done };
    }
    if let Some(rival) = &seen.rival {
        let why = format!("restore {rival} takes statefulset {name} back in place as well");
        return if record.exchanging { Step::Wait(why) } else { Step::Fail(why) };
    }
    if replicas != 0 || !is_marked(set, whose.mark) {
        return Step::Stop;
    }
    if !seen.pods.is_empty() {
        return Step::Wait(format!(
            "statefulset {name} is stopped; waiting for pod {} to be gone",
            seen.pods.join(", ")
        ));
    }
    match open {
        Some(step) if record.exchanging => step,
        _ => commit(record, seen),
    }
}

/// All pods are gone and nothing is touched yet: the last look, and the snapshots.
fn commit(record: &Record, seen: &Seen) -> Step {
    let claims = || record.claims.iter().zip(&seen.claims).enumerate();
    if let Some(why) = claims().find_map(|(_, (one, seen))| changed(one, seen)) {
        return Step::Fail(why);
    }
    // All are begun before the first is waited for.
    let wanted = claims().find_map(|(at, (_, seen))| match &seen.snapshot {
        Snapshot::Wanted(class) => Some(Step::Claim(at, Act::Snapshot(class.clone()))),
        _ => None,
    });
    let pending = claims().find_map(|(_, (_, seen))| match &seen.snapshot {
        Snapshot::Pending(why) => Some(Step::Wait(why.clone())),
        _ => None,
    });
    wanted.or(pending).unwrap_or(Step::Commit)
}

/// What is not as it was recorded, before anything was exchanged.
fn changed(one: &Exchange, seen: &SeenClaim) -> Option<String> {
    let Exchange { claim, temporary, new_volume, .. } = one;
    if seen.claim.as_ref().and_then(kube::ResourceExt::uid) != one.old_uid {
        return Some(format!("claim {claim} is not the one any more that it was when the restore began"));
    }
    if let Some(old) = &one.old_volume
        && !seen.old.as_ref().zip(seen.claim.as_ref()).is_some_and(|(volume, claim)| belongs_to(volume, claim))
    {
        return Some(format!("persistentvolume {old} does not belong to claim {claim} any more"));
    }
    let filled = seen.temporary.as_ref().filter(|claim| claim.uid().as_deref() == Some(&one.temporary_uid));
    let bound =
        seen.new.as_ref().zip(filled).is_some_and(|(volume, claim)| belongs_to(volume, claim) && is_bound(claim));
    if !bound || filled.is_some_and(|claim| claim.metadata.deletion_timestamp.is_some()) {
        return Some(format!("claim {temporary} with the restored data has lost its volume {new_volume}"));
    }
    None
}

/// What one claim still needs; `None` when it has its new volume.
fn exchange(at: usize, one: &Exchange, whose: Whose<'_>, seen: &SeenClaim) -> Option<Step> {
    let Exchange { claim: name, temporary, new_volume, .. } = one;
    let Some(new) = &seen.new else {
        return Some(Step::Wait(format!("persistentvolume {new_volume}, which has the data of claim {name}, is gone")));
    };
    if seen.old.as_ref().is_some_and(|old| !is_kept(old, whose.restore)) {
        return Some(Step::Claim(at, Act::Keep));
    }
    if let Some(filled) = seen.temporary.as_ref().filter(|claim| claim.uid().as_deref() == Some(&one.temporary_uid)) {
        return Some(match filled.metadata.deletion_timestamp {
            _ if !is_retained(new) => Step::Claim(at, Act::Hold),
            None => Step::Claim(at, Act::DropTemporary),
            Some(_) => Step::Wait(format!("claim {temporary} is being deleted")),
        });
    }
    let Some(claim) = &seen.claim else { return Some(Step::Claim(at, Act::CreateClaim)) };
    if claim.uid().is_some() && claim.uid() == one.old_uid {
        return Some(match claim.metadata.deletion_timestamp {
            None => Step::Claim(at, Act::DropClaim),
            Some(_) => Step::Wait(format!("claim {name} is being deleted")),
        });
    }
    if claim.annotations().get(annotations::RESTORED_BY).map(String::as_str) != Some(whose.mark) {
        return Some(Step::Wait(format!(
            "a claim {name} was made by somebody else meanwhile; delete it, and it is made again for persistentvolume \
             {new_volume} with the restored data"
        )));
    }
    if !belongs_to(new, claim) {
        return Some(Step::Claim(at, Act::HandOver));
    }
    if !is_bound(claim) {
        return Some(Step::Wait(format!("claim {name} is being bound to persistentvolume {new_volume}")));
    }
    new.annotations().contains_key(annotations::RECLAIM_POLICY).then_some(Step::Claim(at, Act::GiveBack))
}

/// Whether a StatefulSet carries the mark of the restore.
pub(super) fn is_marked(set: &StatefulSet, mark: &str) -> bool {
    set.annotations().get(annotations::RESTORED_BY).map(String::as_str) == Some(mark)
}

fn is_kept(old: &PersistentVolume, restore: &str) -> bool {
    is_retained(old) && old.labels().get(labels::IN_PLACE).map(String::as_str) == Some(restore)
}

fn is_retained(volume: &PersistentVolume) -> bool {
    volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref()) == Some(RETAIN)
}

/// The policy of a volume that outlives its claim.
pub(super) const RETAIN: &str = "Retain";
