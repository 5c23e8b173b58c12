//! Restore in place: a running StatefulSet is taken back, and keeps its name and the names of its claims.
//!
//! The data is restored beside the running workload, into claims of other names, by the same Jobs as everywhere. Only when
//! they have succeeded is it stopped, and its claims get the new volumes; the old volumes are kept. What fails before that
//! has touched nothing of the old data: the workload runs on with it, or again.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use kbbackup_api::conditions::{self, RestoreCondition, RestoreReason};
use kbbackup_api::events::EventReason;
pub(super) use kbbackup_api::in_place::target;
use kbbackup_api::in_place::{Exchange, Record, pods};
use kbbackup_api::names::annotations;
use kbbackup_api::v1alpha1::{Restore, RestorePhase, RestoreStatus};
use kube::ResourceExt as _;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;

use self::decide::{Act, SeenClaim, Step, Whose};
use super::decide::condition;
use super::stages::{self, Stage};
use super::{SOON, ending, mark};
use crate::context::Context;
use crate::populator::apply as volumes;
use crate::worker::error::{Error, Refusal};

mod apply;
mod back;
mod check;
mod decide;
#[cfg(test)]
mod driver_tests;
mod observe;
mod place;
#[cfg(test)]
mod tests;

pub(super) use self::back::{go_back, goes_back, undo};
pub(super) use self::check::check;
pub(super) use self::place::place;

/// How long a workload may stand still before anything is exchanged, beyond the time that its pods are given to end: pods that
/// do not, snapshots that are not taken.
const PATIENCE: Duration = Duration::from_secs(600);

/// The turn of a restore in place: the exchange, from the volumes being filled to the workload being ready. `None`: it is not
/// its turn, or over.
pub(super) async fn turn(
    ctx: &Context,
    restore: Restore,
    status: &mut RestoreStatus,
) -> Result<(Restore, Option<Stage>), Error> {
    let Some(name) = target(&restore).map(str::to_owned) else { return Ok((restore, None)) };
    if let Some(why) = restore.annotations().get(annotations::IN_PLACE_FAILURE).cloned() {
        return Ok((restore, Some(Stage::Failed(why))));
    }
    let is_true = |status: &RestoreStatus, of: RestoreCondition| conditions::is_true(&status.conditions, of.as_str());
    if !is_true(status, RestoreCondition::PrepareData) || is_true(status, RestoreCondition::WorkloadReady) {
        return Ok((restore, None));
    }
    // The Jobs have mounted the claims that are exchanged; their success is on record.
    ending::delete_jobs(ctx, &restore).await?;
    let (restore, record) = noted(ctx, restore, &name).await?;
    let (restore, record, pause) = Box::pin(exchange(ctx, restore, record, &name)).await?;
    let generation = restore.metadata.generation;
    let mut tell =
        |of, holds, reason, message: String| condition(status, generation, of, holds, reason, message, ctx.now());
    match pause {
        Pause::Done => {
            let kept = record.kept();
            let kept = if kept.is_empty() { String::new() } else { format!("kept: {}", kept.join(", ")) };
            tell(RestoreCondition::VolumesExchanged, true, RestoreReason::Succeed, kept);
            let stage = stages::workload_ready(ctx, &restore, &name, record.after).await?;
            let stage = stages::concluded(stage, status, generation, RestoreCondition::WorkloadReady, ctx);
            Ok((restore, Some(stage).filter(|stage| !matches!(stage, Stage::Done))))
        }
        Pause::Fail(why) => {
            tell(RestoreCondition::VolumesExchanged, false, RestoreReason::Failed, why.clone());
            Ok((restore, Some(Stage::Failed(why))))
        }
        Pause::Wait(why) => {
            tell(RestoreCondition::VolumesExchanged, false, RestoreReason::Processing, why.clone());
            let begun = conditions::find(&status.conditions, RestoreCondition::VolumesExchanged.as_str());
            let since = begun.map_or(ctx.now(), |condition| condition.last_transition_time.0);
            let waited = Duration::try_from(ctx.now().duration_since(since)).unwrap_or_default();
            let due = Refusal::not_yet(PATIENCE + Duration::from_secs(record.grace), &why)
                .due(waited)
                .filter(|_| !record.exchanging);
            Ok((restore, Some(due.map_or(Stage::Waiting(Some(why)), Stage::Failed))))
        }
    }
}

/// Why [`exchange`] takes no more steps.
enum Pause {
    Wait(String),
    Fail(String),
    Done,
}

/// The record, made now unless it was before.
async fn noted(ctx: &Context, restore: Restore, name: &str) -> Result<(Restore, Record), Error> {
    let key = annotations::IN_PLACE_RECORD;
    let found =
        Record::of(&restore).map_err(|error| Refusal::fatal(format!("annotation {key} cannot be read: {error}")))?;
    if let Some(record) = found {
        return Ok((restore, record));
    }
    let record = check::record(ctx, &restore, name).await?;
    Ok((note(ctx, restore, &record).await?, record))
}

async fn note(ctx: &Context, restore: Restore, record: &Record) -> Result<Restore, Error> {
    let text = serde_json::to_string(record).map_err(|error| Refusal::fatal(error.to_string()))?;
    let notes = BTreeMap::from([(annotations::IN_PLACE_RECORD, Some(text))]);
    super::apply::metadata(&ctx.client, restore, &BTreeMap::new(), &notes, false).await
}

/// Takes steps as long as they have an effect.
async fn exchange(
    ctx: &Context,
    mut restore: Restore,
    mut record: Record,
    name: &str,
) -> Result<(Restore, Record, Pause), Error> {
    // A handful of steps for each claim, and some around them; what has no effect is tried again later.
    for _ in 0..8 * (record.claims.len() + 1) {
        let seen = observe::seen(ctx, &restore, name, &record).await?;
        let (own, mark) = (restore.name_any(), mark(&restore));
        let step = decide::next(&record, Whose { set: name, restore: &own, mark: &mark }, &seen);
        let done = match step {
            Step::Wait(why) => return Ok((restore, record, Pause::Wait(why))),
            Step::Fail(why) => return Ok((restore, record, Pause::Fail(why))),
            Step::Done => return Ok((restore, record, Pause::Done)),
            Step::Commit => {
                record.exchanging = true;
                restore = note(ctx, restore, &record).await?;
                Ok(())
            }
            Step::Stop => scale(ctx, &restore, seen.set.as_ref(), 0).await,
            Step::Start => scale(ctx, &restore, seen.set.as_ref(), record.after).await,
            Step::Claim(at, act) => carry_out(ctx, &restore, &record.claims[at], &seen.claims[at], act).await,
        };
        match done {
            // From here on there is only the way forward: whoever is in the way may go out of it.
            Err(Error::Refused(refusal)) if record.exchanging => {
                return Ok((restore, record, Pause::Wait(refusal.to_string())));
            }
            other => other?,
        }
    }
    Ok((restore, record, Pause::Wait(format!("the volumes of statefulset {name} are being exchanged"))))
}

async fn scale(ctx: &Context, restore: &Restore, set: Option<&StatefulSet>, replicas: i32) -> Result<(), Error> {
    let Some(set) = set else { return Ok(()) };
    apply::scale(ctx, restore, set, replicas).await?;
    let (name, before) = (set.name_any(), pods(set).1);
    let (reason, note) = match replicas {
        0 => (EventReason::StoppingWorkload, format!("stopping statefulset {name} ({before} replicas)")),
        _ => (EventReason::StartingWorkload, format!("starting statefulset {name} ({replicas} replicas)")),
    };
    ctx.event(restore, EventType::Normal, reason.as_str(), note).await;
    Ok(())
}

async fn carry_out(ctx: &Context, restore: &Restore, one: &Exchange, seen: &SeenClaim, act: Act) -> Result<(), Error> {
    match (act, seen) {
        (Act::Snapshot(class), _) => apply::snapshot(ctx, restore, one, &class).await,
        (Act::Keep, SeenClaim { old: Some(old), .. }) => apply::keep(ctx, restore, one, old).await,
        (Act::Hold, SeenClaim { new: Some(new), .. }) => apply::hold(ctx, new).await,
        (Act::DropTemporary, SeenClaim { temporary: Some(claim), .. })
        | (Act::DropClaim, SeenClaim { claim: Some(claim), .. }) => apply::drop_claim(ctx, restore, claim).await,
        (Act::CreateClaim, SeenClaim { new: Some(new), .. }) => apply::create_claim(ctx, restore, one, new).await,
        (Act::HandOver, SeenClaim { new: Some(new), claim: Some(claim), .. }) => {
            volumes::hand_over(ctx, new, claim, &restore.spec.backup.name).await?;
            let kept = one.old_volume.as_ref().map(|old| format!("; persistentvolume {old} is kept"));
            let note =
                format!("claim {} gets persistentvolume {}{}", one.claim, one.new_volume, kept.unwrap_or_default());
            ctx.event(restore, EventType::Normal, EventReason::VolumeExchanged.as_str(), note).await;
            Ok(())
        }
        (Act::GiveBack, SeenClaim { new: Some(new), .. }) => volumes::give_back(ctx, new).await,
        // Nothing is asked for of what is not there; the next look tells.
        _ => Ok(()),
    }
}

/// The restore is being deleted: it goes back, or, when claims have been exchanged already, to the end. `Some`: not yet.
pub(super) async fn leave(ctx: &Context, restore: &Restore) -> Result<Option<Action>, Error> {
    let status = restore.status.clone().unwrap_or_default();
    let Some(name) = target(restore).filter(|_| status.phase == Some(RestorePhase::Running)) else { return Ok(None) };
    if goes_back(restore) {
        undo(ctx, restore, name).await?;
        return Ok(None);
    }
    let over = conditions::is_true(&status.conditions, RestoreCondition::WorkloadReady.as_str());
    let Some(record) = Record::of(restore).ok().flatten().filter(|_| !over) else { return Ok(None) };
    // Without the workload, whose namespace may be going as well, nobody needs the claims; the volumes are kept.
    let set = observe::set(ctx, restore, name).await?;
    if set.is_none_or(|set| set.uid().as_deref() != Some(&record.stateful_set)) {
        return Ok(None);
    }
    match Box::pin(exchange(ctx, restore.clone(), record, name)).await? {
        (restore, _, Pause::Wait(why)) => {
            let notes = BTreeMap::from([(annotations::WAITING_FOR, Some(why))]);
            ending::note(ctx, restore, notes).await?;
            Ok(Some(Action::requeue(SOON)))
        }
        _ => Ok(None),
    }
}
