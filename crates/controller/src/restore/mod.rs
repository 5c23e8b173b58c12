//! Restore: claims filled, a copy of the workload started, actions run against it.
//!
//! A reconcile may be killed at any line and repeated: objects have fixed names, steps are computed from what exists.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kbbackup_api::conditions::{RestoreCondition, RestoreReason};
use kbbackup_api::events::EventReason;
use kbbackup_api::names::{TRUE, annotations, labels};
use kbbackup_api::v1alpha1::{Restore, RestorePhase, RestoreStatus};
use kube::ResourceExt as _;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;

use self::ending::{fail, note, refuse, stuck};
use self::ground::validate;
use self::observe::Repo;
use self::stages::Stage;
pub use self::wake::{backup_of, of_worker, reads, waiting_for_repo};
use crate::backup::decide::stamp;
use crate::context::{Context, readable};
use crate::watch::Guarded;
use crate::worker::error::{Error, LONG, Refusal};

pub mod apply;
pub mod build;
pub mod decide;
#[cfg(test)]
mod driver_tests;
mod ending;
mod ground;
mod in_place;
pub mod lineage;
pub mod observe;
pub mod sets;
mod stages;
mod tasks;
#[cfg(test)]
mod tests;
pub mod volumes;
mod wake;
pub mod workload;

#[cfg(test)]
pub(crate) use tests::pods_of;

/// Somebody wrote first, or the store is behind our own writing.
const AT_ONCE: Duration = Duration::from_millis(100);
/// A waiting restore looks again by itself, for not everything that it waits for is watched.
const SOON: Duration = Duration::from_secs(3);
/// Watches wake a running restore; this is the safety net.
const SLOWLY: Duration = Duration::from_secs(60);

/// Brings one restore a step further.
///
/// # Errors
/// What is to be retried with growing waits.
pub async fn reconcile(object: Arc<Guarded<Restore>>, ctx: Arc<Context>) -> Result<Action, Error> {
    let restore = readable(&object)?;
    let result = if restore.metadata.deletion_timestamp.is_some() {
        ending::remove(&ctx, restore).await
    } else {
        match restore.status.as_ref().and_then(|status| status.phase) {
            None => Box::pin(begin(&ctx, restore.clone())).await,
            Some(RestorePhase::Running) => Box::pin(advance(&ctx, restore.clone())).await,
            Some(RestorePhase::Completed) => ending::delete_jobs(&ctx, restore).await.map(|()| Action::await_change()),
            Some(RestorePhase::Failed | RestorePhase::AsDataSource) => Ok(Action::await_change()),
        }
    };
    match result {
        Err(error) if error.is_conflict() => Ok(Action::requeue(AT_ONCE)),
        other => other,
    }
}

/// What names this restore on the objects that it creates.
pub fn mark(restore: &Restore) -> String {
    format!("{}/{}/{}", restore.namespace().unwrap_or_default(), restore.name_any(), restore.uid().unwrap_or_default())
}

/// First handling: behaviour 6.2.
async fn begin(ctx: &Context, restore: Restore) -> Result<Action, Error> {
    let mut own = BTreeMap::new();
    if !restore.labels().contains_key(labels::MANAGED_BY) {
        own.insert(labels::MANAGED_BY, labels::MANAGED_BY_DATAPROTECTION.to_owned());
    }
    let restore = apply::metadata(&ctx.client, restore, &own, &BTreeMap::new(), true).await?;
    let mut status = restore.status.clone().unwrap_or_default();
    let generation = restore.metadata.generation;
    let now = ctx.now();

    let found = async {
        let backup = observe::source(ctx, &restore).await?;
        let repo = observe::repo(ctx, &restore, &backup).await?;
        Ok::<_, Error>((backup, repo))
    };
    let (backup, repo) = match found.await {
        Err(Error::Refused(refusal)) => {
            let reason = match refusal {
                Refusal::Fatal(_) => RestoreReason::CheckBackupRepoFailed,
                Refusal::NotYet { .. } => RestoreReason::UnknownError,
            };
            decide::condition(
                &mut status,
                generation,
                RestoreCondition::CheckBackupRepo,
                false,
                reason,
                refusal.to_string(),
                now,
            );
            return Box::pin(refuse(ctx, restore, status, &refusal)).await;
        }
        other => other?,
    };
    let access = match repo {
        Repo::Unprepared(name) => {
            let restore = ask_for_access(ctx, restore, &name).await?;
            let why = format!(
                "waiting for the access to BackupRepo {name} in namespace {}",
                restore.namespace().unwrap_or_default()
            );
            let reason = RestoreReason::WaitForBackupRepo;
            decide::condition(
                &mut status,
                generation,
                RestoreCondition::CheckBackupRepo,
                false,
                reason,
                why.clone(),
                now,
            );
            return Box::pin(refuse(ctx, restore, status, &Refusal::not_yet(LONG, why))).await;
        }
        Repo::None => None,
        Repo::Ready(access) => Some(access),
    };
    let reason = RestoreReason::CheckBackupRepoSuccessfully;
    decide::condition(&mut status, generation, RestoreCondition::CheckBackupRepo, true, reason, "", now);
    if restore.spec.prepare_data_config.as_ref().is_some_and(|config| config.data_source_ref.is_some()) {
        status.phase = Some(RestorePhase::AsDataSource);
        apply::publish(&ctx.client, restore, &status).await?;
        return Ok(Action::await_change());
    }
    let ground = match Box::pin(validate(ctx, &restore, backup, access)).await {
        Err(Error::Refused(refusal)) => {
            let message = refusal.to_string();
            decide::condition(
                &mut status,
                generation,
                RestoreCondition::ValidationPassed,
                false,
                RestoreReason::ValidateFailed,
                message,
                now,
            );
            return Box::pin(refuse(ctx, restore, status, &refusal)).await;
        }
        other => other?,
    };
    decide::condition(
        &mut status,
        generation,
        RestoreCondition::ValidationPassed,
        true,
        RestoreReason::ValidateSuccessfully,
        "",
        now,
    );
    status.phase = Some(RestorePhase::Running);
    status.start_timestamp = Some(stamp(now));
    let reads = sets::reads(&ground.sets).join(",");
    let notes = BTreeMap::from([(annotations::WAITING_FOR, None), (annotations::READS, Some(reads))]);
    let restore = apply::metadata(&ctx.client, restore, &BTreeMap::new(), &notes, true).await?;
    let restore = apply::publish(&ctx.client, restore, &status).await?;
    let note = format!("restoring backup {}/{}", restore.spec.backup.namespace, restore.spec.backup.name);
    ctx.event(&restore, EventType::Normal, EventReason::RestoreStarting.as_str(), note).await;
    Box::pin(advance(ctx, restore)).await
}

/// Asks the repository's controller for the Secret or claim by which the namespace reaches it.
async fn ask_for_access(ctx: &Context, restore: Restore, repo: &str) -> Result<Restore, Error> {
    let own =
        BTreeMap::from([(labels::BACKUP_REPO_NAME, repo.to_owned()), (labels::WAIT_REPO_PREPARATION, TRUE.to_owned())]);
    apply::metadata(&ctx.client, restore, &own, &BTreeMap::new(), true).await
}

/// A running restore: the stages one after another, each skipped when there is nothing to do for it.
async fn advance(ctx: &Context, restore: Restore) -> Result<Action, Error> {
    let mut status = restore.status.clone().unwrap_or_default();
    // Once the volumes are filled, what they were filled from is not asked for again.
    let (restore, turn) = match Box::pin(in_place::turn(ctx, restore.clone(), &mut status)).await {
        Ok(turn) => turn,
        Err(Error::Refused(refusal)) => {
            return Box::pin(stuck(ctx, restore, status, &refusal, RestoreCondition::VolumesExchanged)).await;
        }
        Err(error) => return Err(error),
    };
    if let Some(stage) = turn {
        return Box::pin(conclude(ctx, restore, status, stage)).await;
    }
    let ground = async {
        let backup = observe::source(ctx, &restore).await?;
        let access = match observe::repo(ctx, &restore, &backup).await? {
            Repo::None => None,
            Repo::Ready(access) => Some(access),
            Repo::Unprepared(name) => {
                return Err(Refusal::not_yet(
                    LONG,
                    format!("the access to BackupRepo {name} is gone from the namespace"),
                )
                .into());
            }
        };
        Box::pin(validate(ctx, &restore, backup, access)).await
    };
    let ground = match Box::pin(ground).await {
        Ok(ground) => ground,
        Err(Error::Refused(refusal)) => {
            return Box::pin(stuck(ctx, restore, status, &refusal, RestoreCondition::ValidationPassed)).await;
        }
        Err(error) => return Err(error),
    };
    match stages::run(ctx, &restore, &ground, &mut status).await {
        Ok(stage) => Box::pin(conclude(ctx, restore, status, stage)).await,
        Err(Error::Refused(refusal)) => {
            let stage = stages::current(&restore, &status);
            Box::pin(stuck(ctx, restore, status, &refusal, stage)).await
        }
        Err(error) => Err(error),
    }
}

/// Puts on record where a running restore stands.
async fn conclude(ctx: &Context, restore: Restore, status: RestoreStatus, stage: Stage) -> Result<Action, Error> {
    match stage {
        Stage::Waiting(obstacle) => {
            let unwatched = in_place::target(&restore).is_some();
            let notes = BTreeMap::from([(annotations::WAITING_FOR, obstacle)]);
            let restore = note(ctx, restore, notes).await?;
            apply::publish(&ctx.client, restore, &status).await?;
            Ok(Action::requeue(if unwatched { SOON } else { SLOWLY }))
        }
        Stage::Failed(why) => fail(ctx, restore, status, &why).await,
        Stage::Done => {
            let mut notes = BTreeMap::from([(annotations::WAITING_FOR, None)]);
            notes.extend(ending::reported(&status).map(|text| (annotations::RESTORED, Some(text))));
            let restore = apply::metadata(&ctx.client, restore, &BTreeMap::new(), &notes, false).await?;
            let ended = decide::ended(&restore, status, RestorePhase::Completed, ctx.now());
            let restore = apply::publish(&ctx.client, restore, &ended).await?;
            let note = format!(
                "restored backup {} in {}",
                restore.spec.backup.name,
                ended.duration.as_deref().unwrap_or_default()
            );
            ctx.event(&restore, EventType::Normal, EventReason::RestoreCompleted.as_str(), note).await;
            ctx.metrics.finished("Restore", RestorePhase::Completed.as_str(), "");
            Ok(Action::requeue(AT_ONCE))
        }
    }
}
