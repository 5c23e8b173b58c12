//! The way back of a restore in place that fails, or is deleted, before anything was exchanged.

use std::collections::BTreeMap;

use kbbackup_api::conditions::{self, RestoreCondition, RestoreReason};
use kbbackup_api::events::EventReason;
use kbbackup_api::in_place::{Record, pods};
use kbbackup_api::names::annotations;
use kbbackup_api::snapshot::VolumeSnapshot;
use kbbackup_api::v1alpha1::{Restore, RestorePhase, RestoreStatus};
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::{Api, ResourceExt as _};

use super::{apply, decide, observe, target};
use crate::context::Context;
use crate::error::is_not_found;
use crate::populator::apply::delete;
use crate::populator::observe::claims;
use crate::restore::{apply as restore_apply, build, decide as restore_decide, ending, mark};
use crate::worker::error::{Doing as _, Error};

/// Whether a restore that ends badly has something to put back: it has begun, and exchanged nothing.
pub(in crate::restore) fn goes_back(restore: &Restore) -> bool {
    let runs = restore.status.as_ref().and_then(|status| status.phase) == Some(RestorePhase::Running);
    // A record that cannot be read is no leave to touch anything.
    runs && target(restore).is_some() && Record::of(restore).is_ok_and(|record| record.is_none_or(|it| !it.exchanging))
}

/// Fails the restore. That it has failed is on record before the first thing is put back: a Job that is gone would be
/// started again.
pub(in crate::restore) async fn go_back(
    ctx: &Context,
    restore: Restore,
    mut status: RestoreStatus,
    why: &str,
) -> Result<Action, Error> {
    let restore = restore_apply::publish(&ctx.client, restore, &status).await?;
    let notes = BTreeMap::from([(annotations::IN_PLACE_FAILURE, Some(why.to_owned()))]);
    let restore = restore_apply::metadata(&ctx.client, restore, &BTreeMap::new(), &notes, false).await?;
    let name = target(&restore).unwrap_or_default().to_owned();
    undo(ctx, &restore, &name).await?;
    let told = format!("nothing was exchanged: statefulset {name} has its volumes and its data as before");
    let (type_, generation) = (RestoreCondition::VolumesExchanged, restore.metadata.generation);
    let said = conditions::find(&status.conditions, type_.as_str()).is_some_and(|own| own.message == why);
    let told = if said { format!("{why}; {told}") } else { told };
    restore_decide::condition(&mut status, generation, type_, false, RestoreReason::Failed, told, ctx.now());
    ending::close(ctx, restore, status, why).await
}

/// Starts the workload again, and removes what was made for the exchange.
pub(in crate::restore) async fn undo(ctx: &Context, restore: &Restore, name: &str) -> Result<(), Error> {
    let mark = mark(restore);
    let record = Record::of(restore).ok().flatten();
    if let (Some(record), Some(set)) = (&record, observe::set(ctx, restore, name).await?)
        && set.uid().as_deref() == Some(&record.stateful_set)
        && decide::is_marked(&set, &mark)
        && pods(&set).1 == 0
        && record.before > 0
    {
        apply::scale(ctx, restore, &set, record.before).await?;
        let note = format!("starting statefulset {name} again with its old data ({} replicas)", record.before);
        ctx.event(restore, EventType::Normal, EventReason::StartingWorkload.as_str(), note).await;
    }
    ending::delete_jobs(ctx, restore).await?;
    let namespace = restore.namespace().unwrap_or_default();
    for claim in (0..build::replicas(restore)).flat_map(|replica| build::claims(restore, replica)) {
        let found = observe::claim(ctx, restore, &claim.name).await?;
        if let Some(found) = found.filter(|claim| claim.annotations().get(annotations::RESTORED_BY) == Some(&mark)) {
            delete(&claims(ctx, &namespace), &found).await?;
        }
    }
    let snapshots = Api::<VolumeSnapshot>::namespaced(ctx.client.clone(), &namespace);
    for one in record.iter().flat_map(|record| &record.claims) {
        let snapshot = observe::snapshot_name(restore, &one.claim);
        let found = match snapshots.get_opt(&snapshot).await {
            // Where the kind is not served there is none.
            Err(error) if is_not_found(&error) => None,
            other => other.doing(|| format!("reading volumesnapshot {snapshot}"))?,
        };
        if let Some(found) = found.filter(|found| found.annotations().get(annotations::RESTORED_BY) == Some(&mark)) {
            delete(&snapshots, &found).await?;
        }
    }
    Ok(())
}
