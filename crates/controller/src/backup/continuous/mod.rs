//! Continuous backups: an archiver per target that runs as long as a schedule wants it: behaviour 4.9 and 4.10.
//!
//! Such a backup is never sealed, for it may go on after it was completed; `Completed` means that archiving has ended. A
//! failed one is looked after like a running one, and is running again when its archivers are.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::ObjectReference;
use kbbackup_api::names::{annotations, labels};
use kbbackup_api::v1alpha1::{ActionPhase, ActionStatus, ActionType, Backup, BackupPhase, BackupStatus, BackupType};
use kube::ResourceExt as _;
use kube::core::ObjectMeta;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::runtime::reflector::{ObjectRef, Store};

use self::decide::{Archiver, Health, Look, Wait};
use self::observe::Ground;
use super::build::Site;
use super::{apply as common, decide as common_decide, plan};
use crate::catalogue::Entry;
use crate::cluster;
use crate::context::Context;
use crate::worker::error::{Error, Refusal};
use crate::worker::{self, account};

pub mod apply;
mod before;
pub mod build;
pub mod decide;
pub mod observe;
pub mod record;
#[cfg(test)]
mod tests;

/// Watches wake an archiving backup. What they cannot tell, that another pod is to be archived now, is looked for in
/// these intervals.
const SLOWLY: Duration = Duration::from_secs(60);
/// The archiver lacks something whose arrival is not watched.
const SOON: Duration = Duration::from_secs(5);

/// Whether a backup is continuous.
pub fn is_continuous(backup: &Backup) -> bool {
    backup.labels().get(labels::BACKUP_TYPE).is_some_and(|type_| type_ == BackupType::Continuous.as_str())
}

/// The action of one target as it stands in the status.
pub fn action(backup: &Backup, planned: &plan::Planned, set: String) -> ActionStatus {
    ActionStatus {
        name: Some(planned.name.clone()),
        target_pod_name: (!planned.pod.is_empty()).then(|| planned.pod.clone()),
        phase: Some(ActionPhase::New),
        action_type: Some(ActionType::StatefulSet),
        object_ref: Some(ObjectReference {
            api_version: Some("apps/v1".to_owned()),
            kind: Some("StatefulSet".to_owned()),
            namespace: backup.namespace(),
            name: Some(set),
            ..ObjectReference::default()
        }),
        ..ActionStatus::default()
    }
}

/// A continuous backup that is running, or has failed and may come back.
///
/// # Errors
/// What is to be retried with growing waits.
pub async fn advance(ctx: &Context, backup: Backup) -> Result<Action, Error> {
    let Some(status) = backup.status.clone() else { return Ok(Action::requeue(SOON)) };
    let ended = match observe::ended(ctx, &backup).await {
        // Without a schedule it could not have begun: somebody has taken the label off.
        Err(Error::Refused(refusal)) => Some(refusal.to_string()),
        other => other?,
    };
    if let Some(why) = ended {
        return complete(ctx, backup, &status, &why).await;
    }
    if let Some(name) = cluster::restoring(ctx, &backup) {
        return super::postpone(ctx, backup, &name).await;
    }
    let since = backup.annotations().get(annotations::WAITING_SINCE).and_then(|text| text.parse::<Timestamp>().ok());
    let mut look = Look { since, ..Look::default() };
    let (mut status, mut is_known) = (status, false);
    match observe::ground(ctx, &backup, &status).await {
        Err(Error::Refused(refusal)) => look.refusal = Some(refusal),
        Err(error) => return Err(error),
        Ok(ground) => {
            status = ground.status.clone();
            status.actions = actions(ctx, &backup, &ground);
            match archive(ctx, &backup, &ground, &mut status).await {
                Err(Error::Refused(refusal)) => look.refusal = Some(refusal),
                Err(error) => return Err(error),
                Ok(waits) => look.waits = waits,
            }
            look.archivers = archivers(ctx, &backup, &ground, &look.waits);
            is_known = true;
        }
    }
    if !is_known {
        // What runs goes on, whatever has become of the objects that it was made from.
        look.archivers = running(ctx, &backup, &status);
    }
    Box::pin(publish(ctx, backup, &status, &look)).await
}

async fn publish(ctx: &Context, backup: Backup, status: &BackupStatus, look: &Look) -> Result<Action, Error> {
    let verdict = decide::judge(&backup, status, look, ctx.now());
    let mut notes = BTreeMap::new();
    notes.insert(annotations::WAITING_FOR, verdict.obstacle.clone());
    notes.insert(annotations::WAITING_SINCE, verdict.since.map(|since| super::decide::stamp(since).0.to_string()));
    let backup = super::note(ctx, backup, &notes, verdict.obstacle.as_deref()).await?;
    let before = backup.status.as_ref().and_then(|status| status.phase);
    let backup = common::publish(&ctx.client, backup, &verdict.status).await?;
    if before != verdict.status.phase {
        tell(ctx, &backup, &verdict.status).await;
    }
    let longest = if verdict.obstacle.is_some() { SOON } else { SLOWLY };
    // What lasts is not looked at every few seconds for ever.
    let longest = if verdict.status.phase == Some(BackupPhase::Failed) { SLOWLY.min(longest * 6) } else { longest };
    Ok(Action::requeue(verdict.again.map_or(longest, |again| again.min(longest))))
}

async fn tell(ctx: &Context, backup: &Backup, status: &BackupStatus) {
    if let Some(why) = &status.failure_reason {
        ctx.metrics.finished("Backup", BackupPhase::Failed.as_str(), "ArchiverFailed");
        ctx.event(backup, EventType::Warning, "ArchiverFailed", why.clone()).await;
    } else {
        ctx.event(backup, EventType::Normal, "Archiving", "the archivers work again".to_owned()).await;
    }
}

/// The actions as the plan wants them; those that were there keep what they know.
fn actions(ctx: &Context, backup: &Backup, ground: &Ground) -> Vec<ActionStatus> {
    let targets = plan::targets(&ground.status);
    let set = &ground.ingredients.action_set.spec;
    let new = |planned: &plan::Planned| match planned.kind {
        plan::Kind::Data => action(backup, planned, build::set_name(backup, &targets[planned.target])),
        kind if plan::is_exec(set, kind) => common_decide::job_action(backup, planned, &ctx.settings.manager_namespace),
        _ => common_decide::job_action(backup, planned, &backup.namespace().unwrap_or_default()),
    };
    plan::plan(set, targets, false)
        .iter()
        .map(|planned| {
            let known = ground.status.actions.iter().find(|known| known.name.as_ref() == Some(&planned.name));
            known.cloned().unwrap_or_else(|| new(planned))
        })
        .collect()
}

/// Brings the StatefulSets to what they should be; tells of the targets whose archiver has to wait.
async fn archive(
    ctx: &Context,
    backup: &Backup,
    ground: &Ground,
    status: &mut BackupStatus,
) -> Result<Vec<Wait>, Error> {
    let mut waits = Vec::new();
    let found = observe::sets(ctx, backup);
    let find = |name: &str| found.iter().find(|set| set.name_any() == name).map(AsRef::as_ref);
    let targets = plan::targets(&ground.status);
    let site = Site { backup, status: &ground.status, ingredients: &ground.ingredients, settings: &ctx.settings };
    for (index, target) in targets.iter().enumerate() {
        let name = build::set_name(backup, target);
        let set = find(&name);
        if set.is_some_and(is_going) {
            // The one of this name is made when the old one is gone.
            continue;
        }
        match (&ground.missing[index], set) {
            (Some(missing), Some(set)) if missing.gone => apply::rest(&ctx.client, set).await?,
            (Some(_), _) => {}
            (None, Some(_)) => make(ctx, &site, index, &ground.cron, set).await?,
            (None, None) => match before::prepare(ctx, &site, index, status).await? {
                Some(wait) => waits.push(wait),
                None => make(ctx, &site, index, &ground.cron, set).await?,
            },
        }
    }
    for set in found.iter().filter(|set| targets.iter().all(|target| build::set_name(backup, target) != set.name_any()))
    {
        worker::apply::delete(&ctx.client, set.as_ref()).await?;
    }
    Ok(waits)
}

fn is_going(set: &StatefulSet) -> bool {
    set.metadata.deletion_timestamp.is_some()
}

async fn make(
    ctx: &Context,
    site: &Site<'_>,
    index: usize,
    cron: &str,
    found: Option<&StatefulSet>,
) -> Result<(), Error> {
    let built = build::stateful_set(site, index, cron, found)?;
    let (name, namespace) = (built.name_any(), built.namespace().unwrap_or_default());
    let up_to_date = found.is_some_and(|found| build::is_up_to_date(found, &built));
    let ails = || {
        let pod = observe::pod(ctx, found?)?;
        matches!(decide::health(&pod, ctx.now()), Health::Failing(_)).then_some(())
    };
    // An archiver that fails may do so because its channel was taken away.
    if !up_to_date || observe::report(ctx, site.backup, &name).is_none() || ails().is_some() {
        let pod = built.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
        let account = pod.and_then(|pod| pod.service_account_name.clone()).unwrap_or_default();
        if account == ctx.settings.worker_service_account {
            use crate::worker::error::Doing as _;
            account::ensure(&ctx.client, &namespace, &ctx.settings)
                .await
                .doing(|| format!("ensuring the workers' account in {namespace}"))?;
        }
        apply::channel(&ctx.client, site.backup, &build::channel(site.backup, &name, &account)).await?;
    }
    if up_to_date { Ok(()) } else { apply::archiver(ctx, site.backup, &built, found).await }
}

/// What is seen of the archivers that should be.
fn archivers(ctx: &Context, backup: &Backup, ground: &Ground, waits: &[Wait]) -> Vec<Archiver> {
    let targets = plan::targets(&ground.status);
    let mut planned = plan::archivers(targets);
    planned.retain(|planned| waits.iter().all(|wait| wait.target != planned.target));
    let seen = |planned: &plan::Planned| {
        let name = build::set_name(backup, &targets[planned.target]);
        let seen = see(ctx, backup, &planned.name, &name, &planned.pod);
        match &ground.missing[planned.target] {
            // An archiver that still works, or fails, says more than a pod that is not ready for a moment.
            Some(missing) if missing.gone || matches!(seen.health, Health::Idle(_)) => {
                Archiver { health: Health::Idle(missing.why.clone()), ..seen }
            }
            _ => seen,
        }
    };
    planned.iter().map(seen).collect()
}

/// What is seen of the archivers that were recorded.
fn running(ctx: &Context, backup: &Backup, status: &BackupStatus) -> Vec<Archiver> {
    let is_archiver = |action: &&ActionStatus| decide::archives(action);
    let seen = |action: &ActionStatus| {
        let set = action.object_ref.as_ref()?.name.as_deref()?;
        Some(see(ctx, backup, action.name.as_deref()?, set, action.target_pod_name.as_deref().unwrap_or_default()))
    };
    status.actions.iter().filter(is_archiver).filter_map(seen).collect()
}

fn see(ctx: &Context, backup: &Backup, action: &str, set: &str, pod: &str) -> Archiver {
    let found = observe::sets(ctx, backup).into_iter().find(|found| found.name_any() == set);
    let archiver = found.as_ref().and_then(|found| observe::pod(ctx, found));
    let health = match &archiver {
        Some(archiver) => decide::health(archiver, ctx.now()),
        // Its StatefulSet is seen to be there a moment after it was made.
        None if found.as_ref().is_none_or(|found| is_young(found, ctx.now())) => Health::Settling(Some(SOON)),
        None => Health::Idle(format!("statefulset {set} has no pod")),
    };
    let status = found.as_ref().and_then(|found| found.status.as_ref());
    Archiver {
        name: action.to_owned(),
        pod: pod.to_owned(),
        health,
        available: status.and_then(|status| status.available_replicas).unwrap_or(0),
        report: observe::report(ctx, backup, set).flatten(),
    }
}

fn is_young(set: &StatefulSet, now: Timestamp) -> bool {
    set.creation_timestamp().is_none_or(|created| now.duration_since(created.0) < jiff::SignedDuration::from_secs(10))
}

/// Ends the archivers, waits for their last word, and then calls the backup completed.
async fn complete(ctx: &Context, backup: Backup, status: &BackupStatus, why: &str) -> Result<Action, Error> {
    for set in observe::sets(ctx, &backup) {
        worker::apply::delete(&ctx.client, set.as_ref()).await?;
    }
    // What came before the archivers is done anew when they are wanted again.
    for job in super::delete::jobs(ctx, &backup) {
        worker::apply::delete_job(&ctx.client, &job).await?;
    }
    if observe::has_pods(ctx, &backup) {
        return Ok(Action::requeue(SLOWLY));
    }
    let look = Look { archivers: running(ctx, &backup, status), ..Look::default() };
    let last = decide::judge(&backup, status, &look, ctx.now()).status;
    let done = decide::completed(&backup, &last, ctx.now());
    let notes = BTreeMap::from([(annotations::WAITING_FOR, None), (annotations::WAITING_SINCE, None)]);
    let backup = common::metadata(&ctx.client, backup, &BTreeMap::new(), &notes, false).await?;
    let backup = common::publish(&ctx.client, backup, &done).await?;
    let note = format!("archiving of {} has ended: {why}", backup.name_any());
    ctx.event(&backup, EventType::Normal, "CreatedBackup", note).await;
    ctx.metrics.finished("Backup", BackupPhase::Completed.as_str(), "");
    Ok(Action::requeue(Duration::from_millis(100)))
}

/// Why a backup that has never begun cannot: it is tried again for as long as its schedule wants it.
pub fn not_begun(backup: &Backup) -> bool {
    let status = backup.status.as_ref();
    status.is_some_and(|status| status.phase == Some(BackupPhase::Failed) && status.start_timestamp.is_none())
}

/// Writes why it cannot begin, once.
pub async fn postpone(ctx: &Context, backup: Backup, refusal: &Refusal) -> Result<Action, Error> {
    let status = backup.status.clone().unwrap_or_default();
    if status.failure_reason.as_deref() != Some(&refusal.to_string()) {
        let failed = BackupStatus { failure_reason: Some(refusal.to_string()), ..status };
        let backup = common::publish(&ctx.client, backup, &failed).await?;
        ctx.event(&backup, EventType::Warning, "ReconcileFailed", refusal.to_string()).await;
    }
    Ok(Action::requeue(SLOWLY))
}

/// The continuous backups of a schedule.
pub fn of_schedule(store: &Store<Entry>, schedule: &ObjectMeta) -> Vec<ObjectRef<Entry>> {
    let is_its = |backup: &Backup| {
        is_continuous(backup)
            && backup.namespace() == schedule.namespace
            && backup.labels().get(labels::BACKUP_SCHEDULE) == schedule.name.as_ref()
    };
    let all = store.state();
    let its = all.iter().filter_map(|entry| entry.under_way()).filter(|backup| is_its(backup));
    its.map(|backup| ObjectRef::new(&backup.name_any()).within(&backup.namespace().unwrap_or_default())).collect()
}
