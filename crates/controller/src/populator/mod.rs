//! Volume populator: claims whose `dataSourceRef` names a Backup, or a Restore that serves as a data source.
//!
//! Kubernetes leaves such a claim alone, so nothing is bound to it before we say so. A temporary claim gets a volume and
//! is filled by an internal Restore; then the volume changes hands. Each step follows from what exists, so the process
//! may be killed at any line.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kbbackup_api::conditions::{ClaimCondition, ClaimReason, ConditionStatus};
use kbbackup_api::events::EventReason;
use kbbackup_api::names::FINALIZER;
use kbbackup_api::v1alpha1::Restore;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Resource as _, ResourceExt};

use self::apply::Told;
use self::decide::Step;
use self::observe::Children;
use self::post_ready::After;
use self::wish::Source;
use crate::catalogue::Entry;
use crate::context::{Context, readable};
use crate::watch::Guarded;
use crate::worker::error::{Doing as _, Error, Refusal};

pub mod accounts;
pub mod apply;
pub mod build;
pub mod choose;
pub mod decide;
pub mod grant;
pub mod kubeblocks;
pub mod observe;
pub mod post_ready;
#[cfg(test)]
mod tests;
pub mod wish;

/// Somebody wrote first.
const AT_ONCE: Duration = Duration::from_millis(100);
/// What a claim may wait for without any watch of ours: its class, a node, KubeBlocks' own objects.
const SOON: Duration = Duration::from_secs(10);
/// Watches wake a claim that is being filled; this is the safety net.
const SLOWLY: Duration = Duration::from_secs(60);
/// Steps that one reconcile takes at most; a step that has no effect is tried again later.
const STEPS: usize = 12;

/// A claim in the watch.
pub type Claim = Guarded<PersistentVolumeClaim>;

/// Whether the watch keeps a claim: one that is to be filled or is being filled, and the temporary ones. Those that are
/// done, and everybody else's, cost no memory.
pub fn concerns_us(claim: &Claim) -> bool {
    let Ok(claim) = &claim.0 else { return false };
    if claim.name_any().starts_with(build::PREFIX) {
        return true;
    }
    let held = claim.finalizers().iter().any(|name| name == FINALIZER);
    let open = decide::condition(claim, ClaimCondition::Restore)
        .is_some_and(|condition| condition.status == ConditionStatus::Unknown.as_str());
    wish::is_ours(claim) && (held || open || !decide::is_bound(claim))
}

/// Keeps of a claim what [`concerns_us`] and the wake-ups ask for.
pub fn slim_down(claim: &mut Claim) {
    let Ok(claim) = &mut claim.0 else { return };
    claim
        .annotations_mut()
        .retain(|key, _| key == "pv.kubernetes.io/bind-completed" || key.ends_with("restore-source-namespace"));
    if let Some(spec) = &mut claim.spec {
        let source = spec.data_source_ref.take();
        *spec = k8s_openapi::api::core::v1::PersistentVolumeClaimSpec { data_source_ref: source, ..Default::default() };
    }
}

/// Brings one claim a step further.
///
/// # Errors
/// What is to be retried with growing waits.
pub async fn reconcile(object: Arc<Claim>, ctx: Arc<Context>) -> Result<Action, Error> {
    let known = readable(&object)?;
    if !wish::is_ours(known) {
        return Ok(Action::await_change());
    }
    let (name, namespace) = (known.name_any(), known.namespace().unwrap_or_default());
    for _ in 0..STEPS {
        // The store keeps little of a claim, and what is decided here must hold now.
        let found = observe::claims(&ctx, &namespace).get_opt(&name).await.doing(|| format!("reading claim {name}"))?;
        let Some(claim) = found else { return Ok(Action::await_change()) };
        match Box::pin(step(&ctx, &claim)).await {
            Ok(None) => {}
            Ok(Some(action)) => return Ok(action),
            Err(error) if error.is_conflict() => return Ok(Action::requeue(AT_ONCE)),
            Err(Error::Refused(refusal)) => return refused(&ctx, &claim, &refusal).await,
            Err(error) => return Err(error),
        }
    }
    Ok(Action::requeue(AT_ONCE))
}

/// One step. `None`: it had an effect, look again.
async fn step(ctx: &Context, claim: &PersistentVolumeClaim) -> Result<Option<Action>, Error> {
    let children = Children::of(ctx, claim).await?;
    let seen = children.seen(claim);
    if let Some(step) = decide::settle(seen) {
        return carry_out(ctx, claim, &children, step, None).await;
    }
    let Some(source) = wish::source(claim)? else { return Ok(Some(Action::await_change())) };
    // A restore under way, or over, is not judged anew: its backup may be gone by now.
    if let Some(restore) = children.restore.as_ref().filter(|restore| decide::is_child(*restore, claim)) {
        let wanted = build::with_wishes(restore, claim, &source)?;
        return carry_out(ctx, claim, &children, decide::fill(seen, Some(&wanted)), None).await;
    }
    let ground = Box::pin(observe::ground(ctx, claim, &source)).await?;
    if let Some(why) = &ground.waiting_for {
        // Nobody's fault and nothing to do: the scheduler, or the claim before, wakes us.
        tracing::debug!(claim = claim.name_any(), namespace = claim.namespace(), "{why}");
        let unwatched = claim.spec.as_ref().is_none_or(|spec| spec.storage_class_name.is_none());
        return Ok(Some(if unwatched { Action::requeue(SLOWLY) } else { Action::await_change() }));
    }
    let uid = children.temporary.as_ref().and_then(ResourceExt::uid).unwrap_or_default();
    let wanted = build::restore(claim, &ground.filling, &uid, None);
    let step = decide::fill(seen, wanted.as_ref());
    carry_out(ctx, claim, &children, step, Some(&ground)).await
}

async fn carry_out(
    ctx: &Context,
    claim: &PersistentVolumeClaim,
    children: &Children,
    step: Step,
    ground: Option<&observe::Ground>,
) -> Result<Option<Action>, Error> {
    let namespace = claim.namespace().unwrap_or_default();
    let restores = || Api::<Restore>::namespaced(ctx.client.clone(), &namespace);
    let claims = observe::claims(ctx, &namespace);
    match step {
        Step::Rest => return rest(ctx, claim).await.map(Some),
        Step::Abandon => {
            abandon(ctx, claim, children).await?;
            return Ok(Some(Action::await_change()));
        }
        Step::Begin => {
            if let Some(backup) = ground.and_then(|ground| ground.backup.as_ref()) {
                accounts::restore(ctx, claim, backup).await?;
            }
            apply::hold(ctx, claim, true).await?;
            let told = [
                populating(ClaimReason::Processing, String::new()),
                restored(ConditionStatus::Unknown, ClaimReason::Processing, String::new()),
            ];
            apply::conditions(ctx, claim, &told).await?;
            let note = format!("filling the volume from {}", source_name(claim));
            ctx.event(claim, EventType::Normal, EventReason::StartToVolumePopulate.as_str(), note).await;
        }
        Step::CreateTemporary => {
            if let Some(ground) = ground {
                apply::temporary(ctx, claim, &ground.filling).await?;
            }
        }
        Step::CreateRestore => {
            let hostname = observe::hostname(ctx, claim).await?;
            if let (Some(ground), Some(temporary)) = (ground, &children.temporary)
                && let Some(restore) =
                    build::restore(claim, &ground.filling, &temporary.uid().unwrap_or_default(), hostname.as_deref())
            {
                apply::restore(ctx, temporary, &restore).await?;
            }
        }
        Step::DropTemporary => {
            if let Some(temporary) = &children.temporary {
                apply::delete(&claims, temporary).await?;
            }
        }
        Step::DropRestore => {
            if let Some(restore) = &children.restore {
                apply::delete(&restores(), restore).await?;
            }
        }
        Step::HandOver => {
            if let Some(volume) = &children.volume {
                apply::hand_over(ctx, volume, claim, &source_name(claim)).await?;
            }
        }
        Step::NameVolume => {
            if let Some(volume) = &children.volume {
                apply::name_volume(ctx, claim, &volume.name_any()).await?;
            }
        }
        Step::GiveBack => {
            if let Some(volume) = &children.volume {
                apply::give_back(ctx, volume).await?;
            }
        }
        Step::Conclude(reason) => conclude(ctx, claim, reason).await?,
        Step::Wait(why) => {
            apply::conditions(ctx, claim, &[populating(ClaimReason::Processing, why)]).await?;
            return Ok(Some(Action::requeue(SLOWLY)));
        }
        Step::Fail(why) => {
            fail(ctx, claim, &why).await?;
            if decide::is_bound(claim) {
                // Bound behind our back: there is nothing left for us to fill, so nothing of ours stays.
                abandon(ctx, claim, children).await?;
            }
            return Ok(Some(Action::await_change()));
        }
    }
    Ok(None)
}

/// A claim that is going, or is not ours to fill: what fills it goes, and its volume is as its class wants it.
async fn abandon(ctx: &Context, claim: &PersistentVolumeClaim, children: &Children) -> Result<(), Error> {
    let Children { temporary, restore, volume } = children;
    let namespace = claim.namespace().unwrap_or_default();
    if let Some(restore) = restore.as_ref().filter(|restore| decide::is_child(*restore, claim)) {
        apply::delete(&Api::namespaced(ctx.client.clone(), &namespace), restore).await?;
    }
    if let Some(temporary) = temporary.as_ref().filter(|temporary| decide::is_child(*temporary, claim)) {
        apply::delete(&observe::claims(ctx, &namespace), temporary).await?;
    }
    if let Some(volume) = volume.as_ref().filter(|volume| decide::belongs_to(volume, claim)) {
        apply::give_back(ctx, volume).await?;
    }
    apply::hold(ctx, claim, false).await
}

async fn conclude(ctx: &Context, claim: &PersistentVolumeClaim, reason: ClaimReason) -> Result<(), Error> {
    let note = match reason {
        ClaimReason::Provisioned => "the backup does not hold this volume: it is empty".to_owned(),
        _ => format!("filled from {}", source_name(claim)),
    };
    let mut told = vec![populating(reason, note.clone())];
    if !wish::of_cluster(claim) {
        told.push(restored(ConditionStatus::True, reason, String::new()));
    }
    let written = apply::conditions(ctx, claim, &told).await?;
    if written.is_some() {
        ctx.event(claim, EventType::Normal, EventReason::VolumePopulateSucceed.as_str(), note).await;
        ctx.metrics.finished("PersistentVolumeClaim", reason.as_str(), "");
    }
    apply::hold(ctx, written.as_ref().unwrap_or(claim), false).await
}

/// A claim that is bound: the actions after start of its component, when it has some.
async fn rest(ctx: &Context, claim: &PersistentVolumeClaim) -> Result<Action, Error> {
    let open = decide::condition(claim, ClaimCondition::Restore)
        .is_some_and(|condition| condition.status == ConditionStatus::Unknown.as_str());
    if !open || claim.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let Some(source) = wish::source(claim)? else { return Ok(Action::await_change()) };
    let after = match post_ready::advance(ctx, claim, &source).await {
        Err(Error::Refused(Refusal::Fatal(why))) => After::Failed(why),
        Err(Error::Refused(Refusal::NotYet { why, .. })) => After::Wait(why),
        other => other?,
    };
    let (status, reason, why) = match after {
        After::Done => (ConditionStatus::True, ClaimReason::Succeed, String::new()),
        After::Failed(why) => (ConditionStatus::False, ClaimReason::Failed, why),
        After::Wait(why) => {
            let told = restored(ConditionStatus::Unknown, ClaimReason::Processing, why);
            apply::conditions(ctx, claim, &[told]).await?;
            return Ok(Action::requeue(SOON));
        }
    };
    apply::conditions(ctx, claim, &[restored(status, reason, why.clone())]).await?;
    if reason == ClaimReason::Failed {
        ctx.event(claim, EventType::Warning, EventReason::VolumePopulateFailed.as_str(), why).await;
    }
    Ok(Action::await_change())
}

/// A claim that cannot be filled now: it waits, or its patience is at an end. Either way it is looked at again when what
/// it names changes.
async fn refused(ctx: &Context, claim: &PersistentVolumeClaim, refusal: &Refusal) -> Result<Action, Error> {
    let created = claim.creation_timestamp().map_or(ctx.now(), |time| time.0);
    let waited = Duration::try_from(ctx.now().duration_since(created)).unwrap_or_default();
    let failed = decide::reason(claim) == Some(ClaimReason::Failed.as_str());
    match (refusal, refusal.due(waited)) {
        (Refusal::Fatal(why), _) => {
            fail(ctx, claim, why).await?;
            Ok(Action::await_change())
        }
        (Refusal::NotYet { why, .. }, Some(_)) => {
            fail(ctx, claim, why).await?;
            Ok(Action::requeue(SLOWLY))
        }
        (Refusal::NotYet { why, .. }, None) => {
            if !failed {
                apply::conditions(ctx, claim, &[populating(ClaimReason::Processing, why.clone())]).await?;
            }
            Ok(Action::requeue(SOON))
        }
    }
}

async fn fail(ctx: &Context, claim: &PersistentVolumeClaim, why: &str) -> Result<(), Error> {
    let told = [
        populating(ClaimReason::Failed, why.to_owned()),
        restored(ConditionStatus::False, ClaimReason::Failed, why.to_owned()),
    ];
    if apply::conditions(ctx, claim, &told).await?.is_some() {
        ctx.event(claim, EventType::Warning, EventReason::VolumePopulateFailed.as_str(), why.to_owned()).await;
        ctx.metrics.finished("PersistentVolumeClaim", ClaimReason::Failed.as_str(), "VolumePopulateFailed");
    }
    Ok(())
}

fn populating(reason: ClaimReason, message: String) -> Told {
    Told { type_: ClaimCondition::Populating, status: ConditionStatus::True, reason, message }
}

fn restored(status: ConditionStatus, reason: ClaimReason, message: String) -> Told {
    Told { type_: ClaimCondition::Restore, status, reason, message }
}

fn source_name(claim: &PersistentVolumeClaim) -> String {
    let reference = claim.spec.as_ref().and_then(|spec| spec.data_source_ref.as_ref());
    reference.map(|reference| reference.name.clone()).unwrap_or_default()
}

/// The claims that an event of another claim concerns: the one that a temporary claim is for, and, when one of a component
/// is done, those that may wait for it.
pub fn woken_by_claim(store: &Store<Claim>, claim: &Claim) -> Vec<ObjectRef<Claim>> {
    let Ok(claim) = &claim.0 else { return Vec::new() };
    let namespace = claim.namespace().unwrap_or_default();
    if claim.name_any().starts_with(build::PREFIX) {
        let kind = PersistentVolumeClaim::kind(&());
        let owners = claim.owner_references().iter().filter(|owner| owner.kind == kind);
        return owners.map(|owner| ObjectRef::new(&owner.name).within(&namespace)).collect();
    }
    let Some(component) = kubeblocks::component(claim) else { return Vec::new() };
    let own = claim.name_any();
    waiting(store, |other| {
        other.namespace() == claim.namespace()
            && kubeblocks::component(other) == Some(component)
            && other.name_any() != own
            && decide::is_bound(claim)
    })
}

/// The claims that a Restore fills, or is the data source of.
pub fn woken_by_restore(store: &Store<Claim>, restore: &Guarded<Restore>) -> Vec<ObjectRef<Claim>> {
    let Ok(restore) = &restore.0 else { return Vec::new() };
    let (name, namespace) = (restore.name_any(), restore.namespace());
    let kind = PersistentVolumeClaim::kind(&());
    if let Some(owner) = restore.owner_references().iter().find(|owner| owner.kind == kind) {
        return vec![ObjectRef::new(&owner.name).within(&namespace.unwrap_or_default())];
    }
    waiting(store, |claim| {
        claim.namespace() == namespace && wish::source(claim) == Ok(Some(Source::Restore(name.clone())))
    })
}

/// The claims that name a Backup.
pub fn woken_by_backup(store: &Store<Claim>, backup: &Entry) -> Vec<ObjectRef<Claim>> {
    let source = Source::Backup { namespace: backup.namespace().unwrap_or_default(), name: backup.name_any() };
    waiting(store, |claim| wish::source(claim).as_ref().is_ok_and(|found| found.as_ref() == Some(&source)))
}

fn waiting(store: &Store<Claim>, fits: impl Fn(&PersistentVolumeClaim) -> bool) -> Vec<ObjectRef<Claim>> {
    let all = store.state();
    let claims = all.iter().filter_map(|guarded| guarded.0.as_ref().ok());
    let fitting = claims.filter(|claim| wish::is_ours(claim) && fits(claim));
    fitting.map(|claim| ObjectRef::new(&claim.name_any()).within(&claim.namespace().unwrap_or_default())).collect()
}
