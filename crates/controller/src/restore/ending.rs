//! Waiting, failing and going away.

use std::collections::BTreeMap;
use std::time::Duration;

use kbbackup_api::events::EventReason;
use kbbackup_api::names::{FINALIZER, annotations, labels};
use kbbackup_api::v1alpha1::{Restore, RestorePhase, RestoreStatus, RestoreStatusAction};
use kube::ResourceExt as _;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;

use super::{SOON, apply, decide, observe};
use crate::context::Context;
use crate::error::is_not_found;
use crate::status;
use crate::worker::apply as jobs;
use crate::worker::error::{Doing as _, Error, Refusal};

/// What the scripts reported: that of the first replica that did.
pub(super) fn reported(status: &RestoreStatus) -> Option<String> {
    let actions: &[RestoreStatusAction] =
        status.actions.as_ref().map(|actions| actions.prepare_data.as_slice()).unwrap_or_default();
    actions.iter().rev().find_map(|action| action.message.clone().filter(|message| message.starts_with('{')))
}

pub(super) async fn note(
    ctx: &Context,
    restore: Restore,
    notes: BTreeMap<&str, Option<String>>,
) -> Result<Restore, Error> {
    let told = notes.get(annotations::WAITING_FOR).cloned().flatten();
    let is_new = told.is_some() && restore.annotations().get(annotations::WAITING_FOR) != told.as_ref();
    let restore = apply::metadata(&ctx.client, restore, &BTreeMap::new(), &notes, false).await?;
    if let Some(told) = told.filter(|_| is_new) {
        ctx.event(&restore, EventType::Warning, EventReason::Warning.as_str(), told).await;
    }
    Ok(restore)
}

/// A new restore that cannot start: it waits, or its time is up.
pub(super) async fn refuse(
    ctx: &Context,
    restore: Restore,
    status: RestoreStatus,
    refusal: &Refusal,
) -> Result<Action, Error> {
    let created = restore.creation_timestamp().map_or(ctx.now(), |time| time.0);
    let waited = Duration::try_from(ctx.now().duration_since(created)).unwrap_or_default();
    wait_or_fail(ctx, restore, status, refusal, waited).await
}

pub(super) async fn wait_or_fail(
    ctx: &Context,
    restore: Restore,
    status: RestoreStatus,
    refusal: &Refusal,
    waited: Duration,
) -> Result<Action, Error> {
    if let Some(why) = refusal.due(waited) {
        return fail(ctx, restore, status, &why).await;
    }
    let notes = BTreeMap::from([(annotations::WAITING_FOR, Some(refusal.to_string()))]);
    let restore = note(ctx, restore, notes).await?;
    apply::publish(&ctx.client, restore, &status).await?;
    Ok(Action::requeue(SOON))
}

pub(super) async fn fail(ctx: &Context, restore: Restore, status: RestoreStatus, why: &str) -> Result<Action, Error> {
    let notes = BTreeMap::from([(annotations::WAITING_FOR, None)]);
    let restore = apply::metadata(&ctx.client, restore, &BTreeMap::new(), &notes, false).await?;
    let ended = decide::ended(&restore, status, RestorePhase::Failed, ctx.now());
    let restore = apply::publish(&ctx.client, restore, &ended).await?;
    ctx.event(&restore, EventType::Warning, EventReason::RestoreFailed.as_str(), why.to_owned()).await;
    ctx.metrics.finished("Restore", RestorePhase::Failed.as_str(), "RestoreFailed");
    Ok(Action::await_change())
}

pub(super) async fn delete_jobs(ctx: &Context, restore: &Restore) -> Result<(), Error> {
    let name = restore.name_any();
    let mut all = ctx.stores.jobs.state();
    all.retain(|job| job.labels().get(labels::RESTORE) == Some(&name) && observe::is_ours(job, restore));
    for job in all.iter().filter(|job| job.metadata.deletion_timestamp.is_none()) {
        jobs::delete_job(&ctx.client, job).await?;
    }
    Ok(())
}

/// Deletion: Jobs go; claims, data and workloads stay.
pub(super) async fn remove(ctx: &Context, restore: &Restore) -> Result<Action, Error> {
    if restore.finalizers().iter().all(|name| name != FINALIZER) {
        return Ok(Action::await_change());
    }
    delete_jobs(ctx, restore).await?;
    match status::hold(&apply::api(&ctx.client, restore), restore, false).await {
        Err(error) if !is_not_found(&error) => Err(error).doing(|| "releasing the restore".to_owned()),
        _ => Ok(Action::await_change()),
    }
}
