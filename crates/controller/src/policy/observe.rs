//! What a policy refers to, as far as it exists.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kbbackup_api::names::{TRUE, annotations};
use kbbackup_api::v1alpha1::{Availability, BackupPolicy, BackupRepo, BackupRepoPhase, BackupTarget};
use kube::api::ListParams;
use kube::core::Selector;
use kube::{Api, ResourceExt as _};

use super::{Error, decide};
use crate::context::Context;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Seen {
    /// All repositories: name, phase, and whether it is marked as the default one.
    pub(super) repos: Vec<(String, Option<BackupRepoPhase>, bool)>,
    /// All ActionSets: name, and why it is unsound if it is.
    pub(super) action_sets: BTreeMap<String, Option<String>>,
    /// Keys of the Secrets that the policy names; a Secret that does not exist is not in here.
    pub(super) secrets: BTreeMap<String, BTreeSet<String>>,
    /// For each target, in the order of [`decide::targets`]: whether a pod matches its selector.
    pub(super) pods: Vec<bool>,
}

pub(super) async fn observe(ctx: &Context, policy: &BackupPolicy) -> Result<Seen, Error> {
    let namespace = policy.namespace().unwrap_or_default();
    let mut seen = Seen {
        repos: ctx.stores.repos.state().iter().filter_map(|guarded| guarded.0.as_ref().ok().map(repo)).collect(),
        ..Seen::default()
    };
    for set in ctx.stores.action_sets.state() {
        let Ok(set) = set.0.as_ref() else { continue };
        let status = set.status.as_ref().filter(|status| status.phase == Some(Availability::Unavailable));
        seen.action_sets.insert(set.name_any(), status.map(|status| status.message.clone().unwrap_or_default()));
    }
    let secrets: Api<Secret> = Api::namespaced(ctx.client.clone(), &namespace);
    for name in decide::secrets(&policy.spec) {
        let what = || format!("Secret {namespace}/{name}");
        let secret = secrets.get_opt(name).await.map_err(|source| Error::Observe { what: what(), source })?;
        if let Some(secret) = secret {
            seen.secrets.insert(name.to_owned(), secret.data.unwrap_or_default().into_keys().collect());
        }
    }
    for target in decide::targets(&policy.spec) {
        seen.pods.push(any_pod(ctx, &namespace, target).await?);
    }
    Ok(seen)
}

fn repo(repo: &BackupRepo) -> (String, Option<BackupRepoPhase>, bool) {
    let default = repo.annotations().get(annotations::IS_DEFAULT_REPO).is_some_and(|value| value == TRUE);
    (repo.name_any(), repo.status.as_ref().and_then(|status| status.phase), default)
}

async fn any_pod(ctx: &Context, namespace: &str, target: &BackupTarget) -> Result<bool, Error> {
    let Some(pods) = &target.pod_selector else { return Ok(false) };
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), namespace);
    let choices = [Some(pods.label_selector()), pods.fallback_label_selector.clone()];
    for choice in choices.into_iter().flatten() {
        let Some(selector) = selector(choice) else { continue };
        let params = ListParams::default().labels_from(&selector).limit(1);
        let what = || format!("pods of namespace {namespace}");
        let found = api.list_metadata(&params).await.map_err(|source| Error::Observe { what: what(), source })?;
        if !found.items.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The selector, unless it is invalid or selects everything.
pub(super) fn selector(labels: LabelSelector) -> Option<Selector> {
    Selector::try_from(labels).ok().filter(|selector| !selector.selects_all())
}
