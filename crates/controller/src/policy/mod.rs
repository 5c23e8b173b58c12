//! BackupPolicy: checked when it is written, not when the first backup fails.
//!
//! The phase means what the contract says: only what makes a policy unusable for certain is `Unavailable`. Whatever else
//! would make a backup fail today (no such repository, ActionSet, Secret or pod) stands in the message of a policy that
//! stays `Available`, because it may be there by the time a backup runs.

mod decide;
mod observe;

use std::sync::Arc;
use std::time::Duration;

use kbbackup_api::v1alpha1::{Availability, BackupPolicy, BackupPolicyStatus};
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt as _};

use crate::context::{Context, readable};
use crate::error::{Class, Classified, Unreadable, api_class};
use crate::status;
use crate::watch::Guarded;

/// How long until a policy with a note is looked at again: Secrets and pods of databases are not watched.
const LOOK_AGAIN: Duration = Duration::from_secs(300);

/// Why a policy was not reconciled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object does not fit its type.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// The finalizer could not be put on or taken off.
    #[error("finalizer could not be changed")]
    Hold(#[source] kube::Error),
    /// What the policy refers to could not be read.
    #[error("{what} could not be read")]
    Observe {
        /// Kind and name.
        what: String,
        /// The API server's answer.
        source: kube::Error,
    },
    /// The status could not be written.
    #[error("status could not be written")]
    Publish(#[source] kube::Error),
}

impl Classified for Error {
    fn class(&self) -> Class {
        match self {
            Self::Unreadable(_) => Class::Invalid,
            Self::Hold(source) | Self::Observe { source, .. } | Self::Publish(source) => api_class(source),
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "Unreadable",
            Self::Hold(_) => "Hold",
            Self::Observe { .. } => "Observe",
            Self::Publish(_) => "Publish",
        }
    }
}

/// Checks the policy and says so in its status.
pub async fn reconcile(policy: Arc<Guarded<BackupPolicy>>, ctx: Arc<Context>) -> Result<Action, Error> {
    let policy = readable(&policy)?;
    let api: Api<BackupPolicy> = Api::namespaced(ctx.client.clone(), &policy.namespace().unwrap_or_default());
    let going = policy.metadata.deletion_timestamp.is_some();
    let held = status::hold(&api, policy, !going).await.map_err(Error::Hold)?;
    if going {
        return Ok(Action::await_change());
    }
    let policy = held.as_ref().unwrap_or(policy);
    let verdict = match decide::fault(&policy.spec) {
        Some(fault) => decide::Verdict { phase: Availability::Unavailable, message: Some(fault) },
        None => decide::decide(&policy.spec, &observe::observe(&ctx, policy).await?),
    };
    let notes = verdict.phase == Availability::Available && verdict.message.is_some();
    let new = BackupPolicyStatus {
        phase: Some(verdict.phase),
        message: verdict.message,
        observed_generation: policy.metadata.generation,
    };
    status::publish(&api, policy, policy.status.as_ref(), &new).await.map_err(Error::Publish)?;
    Ok(if notes { Action::requeue(LOOK_AGAIN) } else { Action::await_change() })
}

/// The policies of which a method uses the ActionSet `name`.
pub fn using_action_set(policies: &[Arc<Guarded<BackupPolicy>>], name: &str) -> Vec<ObjectRef<Guarded<BackupPolicy>>> {
    those(policies, |policy| {
        policy.spec.backup_methods.iter().any(|method| method.action_set_name.as_deref() == Some(name))
    })
}

/// The policies that use the repository `name`, or whichever is the default one.
pub fn using_repo(policies: &[Arc<Guarded<BackupPolicy>>], name: &str) -> Vec<ObjectRef<Guarded<BackupPolicy>>> {
    those(policies, |policy| policy.spec.backup_repo_name.as_deref().is_none_or(|repo| repo.is_empty() || repo == name))
}

fn those(
    policies: &[Arc<Guarded<BackupPolicy>>],
    wanted: impl Fn(&BackupPolicy) -> bool,
) -> Vec<ObjectRef<Guarded<BackupPolicy>>> {
    policies
        .iter()
        .filter(|policy| policy.0.as_ref().is_ok_and(&wanted))
        .map(|policy| ObjectRef::from_obj(policy.as_ref()))
        .collect()
}
