//! What a repository refers to, and what was made for it.

use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim, Pod, Secret};
use kbbackup_api::names::{TRUE, annotations, labels};
use kbbackup_api::v1alpha1::{BackupPhase, BackupRepo, BackupType, RestorePhase, StorageProvider};
use kube::api::ListParams;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt as _};

use super::Error;
use crate::context::Context;

/// What was found.
pub(super) struct Seen {
    pub(super) provider: Option<StorageProvider>,
    /// The Secret of `spec.credential`.
    pub(super) credential: Option<Secret>,
}

pub(super) async fn observe(ctx: &Context, repo: &BackupRepo) -> Result<Seen, Error> {
    let provider = ctx.stores.providers.get(&ObjectRef::new(&repo.spec.storage_provider_ref));
    let provider = provider.and_then(|guarded| guarded.0.as_ref().ok().cloned());
    let mut credential = None;
    if let Some(reference) = &repo.spec.credential {
        let namespace = reference.namespace.as_deref().filter(|namespace| !namespace.is_empty());
        let namespace = namespace.unwrap_or(&ctx.settings.manager_namespace);
        let name = reference.name.as_deref().unwrap_or_default();
        let api: Api<Secret> = Api::namespaced(ctx.client.clone(), namespace);
        if !name.is_empty() {
            let what = || format!("Secret {namespace}/{name}");
            credential = api.get_opt(name).await.map_err(|source| Error::Read { what: what(), source })?;
        }
    }
    Ok(Seen { provider, credential })
}

/// The pre-check's Job and pods, as the watches know them.
pub(super) fn pre_check(ctx: &Context, name: &str) -> (Option<Arc<Job>>, Vec<Arc<Pod>>) {
    let namespace = &ctx.settings.manager_namespace;
    let job = ctx.stores.jobs.get(&ObjectRef::new(name).within(namespace));
    let pods = ctx.stores.pods.state_filter(|pod| {
        pod.metadata.namespace.as_ref() == Some(namespace)
            && pod.labels().get("batch.kubernetes.io/job-name").is_some_and(|job| job == name)
    });
    (job, pods)
}

/// The Job of an errand, as the watch knows it.
pub(super) fn errand(ctx: &Context, repo: &BackupRepo, id: &str) -> Option<Arc<Job>> {
    ctx.stores.jobs.get(&ObjectRef::new(&super::errand::name(repo, id)).within(&ctx.settings.manager_namespace))
}

/// Events about the pre-check's newest pod, its claim and its Job.
pub(super) async fn events(
    ctx: &Context,
    name: &str,
    job: Option<&Job>,
    pods: &[Arc<Pod>],
) -> Result<Vec<Event>, Error> {
    let namespace = &ctx.settings.manager_namespace;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(ctx.client.clone(), namespace);
    let read = |source| Error::Read { what: format!("events of {namespace}/{name}"), source };
    let claim = claims.get_metadata_opt(name).await.map_err(read)?;
    let newest = pods.iter().max_by_key(|pod| pod.creation_timestamp().map(|time| time.0));
    let uids = [
        newest.and_then(|pod| pod.uid()),
        claim.and_then(|claim| claim.metadata.uid),
        job.and_then(|job| job.metadata.uid.clone()),
    ];
    let api: Api<Event> = Api::namespaced(ctx.client.clone(), namespace);
    let mut events = Vec::new();
    for uid in uids.into_iter().flatten() {
        let about = ListParams::default().fields(&format!("involvedObject.uid={uid}")).limit(50);
        events.extend(api.list(&about).await.map_err(read)?.items);
    }
    Ok(events)
}

/// A Backup or Restore that waits for the repository in its namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) kind: WaitingKind,
    pub(super) namespace: String,
    pub(super) name: String,
    /// Where it is needed: the namespace, or the manager's when that one is being deleted.
    pub(super) place: String,
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitingKind {
    Backup,
    Restore,
}

/// Those who wait for `repo`: backups first.
pub(super) fn waiting(ctx: &Context, repo: &str) -> Vec<Waiting> {
    let entry =
        |kind, object: &dyn Named, place| Waiting { kind, namespace: object.space(), name: object.title(), place };
    let mut all = Vec::new();
    for known in ctx.stores.backups.state() {
        let Some(backup) = known.under_way() else { continue };
        if waits(backup, repo) && counts(backup) {
            let elsewhere = backup.annotations().get(annotations::PREPARE_MANAGER_NAMESPACE).is_some_and(|v| v == TRUE);
            let place = if elsewhere { ctx.settings.manager_namespace.clone() } else { backup.space() };
            all.push(entry(WaitingKind::Backup, backup, place));
        }
    }
    for restore in ctx.stores.restores.state() {
        let Ok(restore) = restore.0.as_ref() else { continue };
        let failed = restore.status.as_ref().and_then(|status| status.phase) == Some(RestorePhase::Failed);
        if waits(restore, repo) && !failed {
            all.push(entry(WaitingKind::Restore, restore, restore.space()));
        }
    }
    all
}

trait Named {
    fn space(&self) -> String;
    fn title(&self) -> String;
}

impl<K: Resource> Named for K {
    fn space(&self) -> String {
        self.namespace().unwrap_or_default()
    }

    fn title(&self) -> String {
        self.name_any()
    }
}

fn waits<K: Resource>(object: &K, repo: &str) -> bool {
    let label = |key: &str| object.labels().get(key).map(String::as_str);
    label(labels::BACKUP_REPO_NAME) == Some(repo) && label(labels::WAIT_REPO_PREPARATION) == Some("true")
}

/// Whether a Backup counts as one of its repository's: those that failed do not, unless they are continuous.
pub(super) fn counts(backup: &kbbackup_api::v1alpha1::Backup) -> bool {
    let failed = backup.status.as_ref().and_then(|status| status.phase) == Some(BackupPhase::Failed);
    let type_ = backup.labels().get(labels::BACKUP_TYPE).map(String::as_str);
    !failed || type_ == Some(BackupType::Continuous.as_str())
}
