//! What has to be done before a target is archived: the `preBackup` entries of a continuous recipe, one after the other.
//!
//! They are done once for each archiver that is made. While one runs, nothing is done again; when archiving has ended and
//! is wanted anew, they are.

use std::time::Duration;

use jiff::Timestamp;
use kbbackup_api::v1alpha1::{ActionPhase, ActionStatus, ActionType, BackupStatus};

use super::SLOWLY;
use super::decide::Wait;
use crate::backup::build::Site;
use crate::backup::decide::stamp;
use crate::backup::observe::{self, SeenAction};
use crate::backup::plan;
use crate::context::Context;
use crate::worker::error::{Doing as _, Error};
use crate::worker::outcome::Outcome;
use crate::worker::{account, apply};

/// One that has failed is tried again after this time.
const PAUSE: Duration = SLOWLY;

/// Brings the preparations of the target at `index` a step further; `None` when they are over.
///
/// # Errors
/// [`Error::Refused`] when a Job cannot be made, else those of the API server.
pub(super) async fn prepare(
    ctx: &Context,
    site: &Site<'_>,
    index: usize,
    status: &mut BackupStatus,
) -> Result<Option<Wait>, Error> {
    let backup = site.backup;
    let planned = plan::plan(&site.ingredients.action_set.spec, plan::targets(status), false);
    let names: Vec<_> = planned
        .iter()
        .filter(|planned| planned.target == index && planned.kind != plan::Kind::Data)
        .map(|planned| planned.name.as_str())
        .collect();
    let is_one = |action: &ActionStatus| {
        action.action_type == Some(ActionType::Job) && action.name.as_deref().is_some_and(|name| names.contains(&name))
    };
    let mut all: Vec<_> = status.actions.iter_mut().filter(|action| is_one(action)).collect();
    // Whatever an earlier archiver's were: these Jobs count.
    let open: Vec<_> = all.iter().map(|action| ActionStatus { phase: None, ..(**action).clone() }).collect();
    let seen = observe::children(ctx, backup, &open).await?;
    match decide(&mut all, &seen, ctx.now()) {
        Step::Over => return Ok(None),
        Step::Wait { obstacle, again } => return Ok(Some(Wait { target: index, obstacle, again })),
        Step::Start(name) => {
            let namespace = backup.metadata.namespace.clone().unwrap_or_default();
            account::ensure(&ctx.client, &namespace, &ctx.settings)
                .await
                .doing(|| format!("ensuring the workers' account in {namespace}"))?;
            crate::backup::create(ctx, backup, &site.job(&name, "")?).await?;
        }
        Step::Redo(name) => {
            let action = open.iter().find(|action| action.name.as_ref() == Some(&name));
            let job = action.and_then(|action| observe::stored_job(ctx, backup, action.object_ref.as_ref()?));
            if let Some(job) = job {
                apply::delete_job(&ctx.client, &job).await?;
            }
        }
    }
    Ok(Some(Wait { target: index, ..Wait::default() }))
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Over,
    Start(String),
    Redo(String),
    Wait { obstacle: Option<String>, again: Option<Duration> },
}

/// Walks to the first one that is not over. Pure.
fn decide(actions: &mut [&mut ActionStatus], seen: &[SeenAction], now: Timestamp) -> Step {
    for (action, seen) in actions.iter_mut().zip(seen) {
        let name = action.name.clone().unwrap_or_default();
        match &seen.outcome {
            Outcome::Absent => {
                begin(action, now);
                return Step::Start(name);
            }
            Outcome::Running { obstacle } => {
                begin(action, now);
                return Step::Wait { obstacle: obstacle.clone(), again: None };
            }
            Outcome::Succeeded { .. } => {
                action.phase = Some(ActionPhase::Completed);
                action.failure_reason = None;
                action.completion_timestamp.get_or_insert_with(|| stamp(now));
            }
            Outcome::Failed { why, .. } => {
                if action.phase != Some(ActionPhase::Failed) {
                    action.phase = Some(ActionPhase::Failed);
                    action.failure_reason = Some(seen.words.clone().unwrap_or_else(|| why.clone()));
                    action.completion_timestamp = Some(stamp(now));
                }
                let failed = action.completion_timestamp.as_ref().map_or(now, |time| time.0);
                let waited = Duration::try_from(now.duration_since(failed)).unwrap_or_default();
                return match PAUSE.checked_sub(waited).filter(|left| !left.is_zero()) {
                    Some(left) => Step::Wait { obstacle: action.failure_reason.clone(), again: Some(left) },
                    None => Step::Redo(name),
                };
            }
        }
    }
    Step::Over
}

/// A new try, unless one is under way.
fn begin(action: &mut ActionStatus, now: Timestamp) {
    if action.phase == Some(ActionPhase::Running) {
        return;
    }
    action.phase = Some(ActionPhase::Running);
    action.failure_reason = None;
    action.start_timestamp = Some(stamp(now));
    action.completion_timestamp = None;
}
