//! Waiting, failing and going away.

use std::collections::BTreeMap;
use std::time::Duration;

use kbbackup_api::conditions::{RestoreCondition, RestoreReason};
use kbbackup_api::events::EventReason;
use kbbackup_api::names::{FINALIZER, annotations};
use kbbackup_api::v1alpha1::{Restore, RestorePhase, RestoreStatus, RestoreStatusAction};
use kube::ResourceExt as _;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;

use super::{SOON, apply, decide, in_place, observe};
use crate::context::Context;
use crate::error::is_not_found;
use crate::pool;
use crate::status;
use crate::worker::apply as jobs;
use crate::worker::error::{Doing as _, Error, Refusal};

/// What the scripts reported: the last step that did so wins, and of its replicas the first. What each step said stays in
/// its action.
pub(super) fn reported(status: &RestoreStatus) -> Option<String> {
    let actions = status.actions.as_ref()?;
    let said = |action: &&RestoreStatusAction| action.message.as_ref().is_some_and(|message| message.starts_with('{'));
    let last = actions.post_ready.iter().rev().chain(actions.prepare_data.iter().rev()).find(said)?;
    let mut all = actions.prepare_data.iter().chain(&actions.post_ready);
    let same = |action: &&RestoreStatusAction| action.name == last.name && action.backup_name == last.backup_name;
    all.find(|action| same(action) && said(action))?.message.clone()
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

/// A running restore that cannot go on with `stage`. The time counts from the last change.
pub(super) async fn stuck(
    ctx: &Context,
    restore: Restore,
    mut status: RestoreStatus,
    refusal: &Refusal,
    stage: RestoreCondition,
) -> Result<Action, Error> {
    let changed = status.conditions.iter().map(|condition| condition.last_transition_time.0).max();
    let last = changed.or(status.start_timestamp.as_ref().map(|time| time.0)).unwrap_or_else(|| ctx.now());
    let waited = Duration::try_from(ctx.now().duration_since(last)).unwrap_or_default();
    if let Some(why) = refusal.due(waited) {
        let reason = match stage {
            RestoreCondition::ValidationPassed => RestoreReason::ValidateFailed,
            _ => RestoreReason::Failed,
        };
        decide::condition(&mut status, restore.metadata.generation, stage, false, reason, why, ctx.now());
    }
    wait_or_fail(ctx, restore, status, refusal, waited).await
}

async fn wait_or_fail(
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
    if in_place::goes_back(&restore) {
        return Box::pin(in_place::go_back(ctx, restore, status, why)).await;
    }
    close(ctx, restore, status, why).await
}

/// Puts on record that a restore has failed.
pub(super) async fn close(ctx: &Context, restore: Restore, status: RestoreStatus, why: &str) -> Result<Action, Error> {
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
    let mut all = ctx.stores.jobs.group(&pool::workers_of_restore(&name));
    all.retain(|job| observe::is_ours(job, restore));
    for job in all.iter().filter(|job| job.metadata.deletion_timestamp.is_none()) {
        jobs::delete_job(&ctx.client, job).await?;
    }
    Ok(())
}

/// Deletion: Jobs go; claims, data and workloads stay. One in place puts back what it has begun, or ends it.
pub(super) async fn remove(ctx: &Context, restore: &Restore) -> Result<Action, Error> {
    if restore.finalizers().iter().all(|name| name != FINALIZER) {
        return Ok(Action::await_change());
    }
    if let Some(later) = Box::pin(in_place::leave(ctx, restore)).await? {
        return Ok(later);
    }
    delete_jobs(ctx, restore).await?;
    match status::hold(&apply::api(&ctx.client, restore), restore, false).await {
        Err(error) if !is_not_found(&error) => Err(error).doing(|| "releasing the restore".to_owned()),
        _ => Ok(Action::await_change()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_last_step_that_reported_tells_the_position_that_was_reached() {
        let action = |name: &str, backup: &str, job: &str, message: serde_json::Value| {
            json!({ "name": name, "backupName": backup, "objectKey": format!("Job/{job}"), "status": "Completed",
                "message": message })
        };
        let status = |prepare: serde_json::Value, post: serde_json::Value| -> RestoreStatus {
            serde_json::from_value(json!({ "actions": {"prepareData": prepare, "postReady": post} })).unwrap()
        };
        let base = action("prepareData-0", "full", "a", json!("{\"lsn\":\"1\"}"));
        let (one, two) = (
            action("prepareData-1", "wal", "b", json!("{\"lsn\":\"2\"}")),
            action("prepareData-1", "wal", "c", json!("{\"lsn\":\"3\"}")),
        );
        let silent = action("prepareData-2", "wal", "d", json!(null));
        let told = reported(&status(json!([base, one, two, silent]), json!([])));
        assert_eq!(told.as_deref(), Some("{\"lsn\":\"2\"}"));
        let replayed = action("postReady-0", "wal", "e", json!("{\"gtid\":\"9\"}"));
        assert_eq!(reported(&status(json!([base, one]), json!([replayed]))).as_deref(), Some("{\"gtid\":\"9\"}"));
        let failed = action("prepareData-0", "full", "a", json!("Log Collector Output: no"));
        assert_eq!(reported(&status(json!([failed]), json!([]))), None);
    }
}
