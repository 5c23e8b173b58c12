//! What is written for a repository, besides its status.

use std::collections::BTreeMap;
use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret};
use k8s_openapi::api::storage::v1::StorageClass;
use kbbackup_api::errand::Errand;
use kbbackup_api::names::{TRUE, annotations, labels};
use kbbackup_api::v1alpha1::{AccessMethod, Backup, BackupRepo, BackupRepoStatus, Restore};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::observe::{Waiting, WaitingKind};
use super::pre_check::{self, Wanted};
use super::{Error, build, errand};
use crate::context::Context;
use crate::error::{is_conflict, is_not_found};
use crate::worker::account;
use crate::worker::repo::Way;

/// Our name as a writer.
const MANAGER: &str = "kbbackup/repo";

async fn apply<K>(api: &Api<K>, object: &K) -> kube::Result<()>
where
    K: Resource + Clone + DeserializeOwned + Debug + Serialize,
{
    let params = PatchParams::apply(MANAGER).force();
    api.patch(&object.name_any(), &params, &Patch::Apply(object)).await.map(drop)
}

/// Creates what does not exist; what exists stays as it is.
async fn create<K>(api: &Api<K>, object: &K) -> kube::Result<()>
where
    K: Resource + Clone + DeserializeOwned + Debug + Serialize,
{
    match api.create(&PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() }, object).await {
        Err(error) if is_conflict(&error) => Ok(()),
        other => other.map(drop),
    }
}

async fn remove<K>(api: &Api<K>, name: &str) -> kube::Result<()>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    match api.delete(name, &DeleteParams::background()).await {
        Err(error) if is_not_found(&error) => Ok(()),
        other => other.map(drop),
    }
}

/// Everything that a write needs to know about the repository.
pub(super) struct Facts<'a> {
    pub(super) repo: &'a BackupRepo,
    pub(super) status: &'a BackupRepoStatus,
    pub(super) digest: &'a str,
    pub(super) csi_secret: Option<&'a BTreeMap<String, String>>,
    pub(super) storage_class: Option<&'a StorageClass>,
    pub(super) claim: Option<&'a PersistentVolumeClaim>,
    pub(super) tool_config: Option<&'a str>,
}

/// The CSI driver's Secret, written when it is not of this digest.
pub(super) async fn csi_secret(ctx: &Context, facts: &Facts<'_>) -> kube::Result<()> {
    let (Some(data), Some(reference)) = (facts.csi_secret, &facts.status.generated_csi_driver_secret) else {
        return Ok(());
    };
    let name = reference.name.as_deref().unwrap_or_default();
    let namespace = reference.namespace.as_deref().unwrap_or(&ctx.settings.manager_namespace);
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), namespace);
    if api.get_metadata_opt(name).await?.is_some_and(|secret| is_of(&secret, facts.digest)) {
        return Ok(());
    }
    apply(&api, &build::csi_secret(facts.repo, name, namespace, data, facts.digest)).await
}

/// The StorageClass, created once.
pub(super) async fn storage_class(ctx: &Context, facts: &Facts<'_>) -> kube::Result<()> {
    let (Some(template), Some(name)) = (facts.storage_class, &facts.status.generated_storage_class_name) else {
        return Ok(());
    };
    let api: Api<StorageClass> = Api::all(ctx.client.clone());
    if api.get_metadata_opt(name).await?.is_some() {
        return Ok(());
    }
    create(&api, &build::storage_class(facts.repo, name, template)).await
}

fn is_of<K: Resource>(object: &K, digest: &str) -> bool {
    object.annotations().get(annotations::BACKUP_REPO_DIGEST).is_some_and(|stamp| stamp == digest)
}

/// Sets annotations of the repository, if it still is as we know it. Returns it as it is now.
pub(super) async fn annotate(
    api: &Api<BackupRepo>,
    repo: &BackupRepo,
    values: &BTreeMap<&str, &str>,
) -> kube::Result<BackupRepo> {
    let patch = json!({ "metadata": { "resourceVersion": repo.resource_version(), "annotations": values } });
    api.patch(&repo.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await
}

/// Starts the pre-check. What an earlier one left under the same names must be gone.
pub(super) async fn start_check(ctx: &Context, facts: &Facts<'_>, wanted: Wanted<'_>) -> Result<(), Error> {
    let namespace = &ctx.settings.manager_namespace;
    let name = check_name(facts.repo);
    let write = |source| Error::Write { what: format!("pre-check {namespace}/{name}"), source };
    // The watch may lag behind our own writes: a check that has just ended must not start again.
    let repos: Api<BackupRepo> = Api::all(ctx.client.clone());
    let now = repos.get_metadata(&facts.repo.name_any()).await.map_err(write)?;
    if now.resource_version() != facts.repo.resource_version() {
        return Err(Error::Outdated);
    }
    account::ensure(&ctx.client, namespace, &ctx.settings).await.map_err(write)?;
    let marks = build::pre_check_meta(facts.repo, &name, namespace, wanted.digest, wanted.request);
    let way = match facts.repo.spec.access_method() {
        AccessMethod::Tool => {
            let config = build::config(facts.tool_config.unwrap_or_default());
            let secret = Secret { metadata: marks, data: Some(config), ..Secret::default() };
            apply(&Api::namespaced(ctx.client.clone(), namespace), &secret).await.map_err(write)?;
            Way::Tool { secret: name.clone() }
        }
        AccessMethod::Mount => {
            let api: Api<PersistentVolumeClaim> = Api::namespaced(ctx.client.clone(), namespace);
            let old = api.get_metadata_opt(&name).await.map_err(write)?;
            if old.is_some_and(|claim| claim.metadata.deletion_timestamp.is_some()) {
                return Err(Error::Outdated);
            }
            let mut claim = build::claim(facts.repo, &name, namespace, facts.claim);
            claim.metadata.annotations.get_or_insert_default().extend(marks.annotations.unwrap_or_default());
            create(&api, &claim).await.map_err(write)?;
            Way::Mount { claim: name.clone() }
        }
    };
    let check = pre_check::build(facts.repo, &name, wanted, way, &ctx.settings);
    create(&Api::namespaced(ctx.client.clone(), namespace), &check).await.map_err(write)
}

/// Starts an errand. Its Job removes itself when it is over.
pub(super) async fn start_errand(ctx: &Context, facts: &Facts<'_>, errand: &Errand) -> Result<(), Error> {
    let namespace = &ctx.settings.manager_namespace;
    let name = errand::name(facts.repo, &errand.id);
    let write = |source| Error::Write { what: format!("job {namespace}/{name}"), source };
    account::ensure(&ctx.client, namespace, &ctx.settings).await.map_err(write)?;
    access(ctx, facts, namespace).await?;
    let way = match facts.repo.spec.access_method() {
        AccessMethod::Tool => Way::Tool { secret: facts.status.tool_config_secret_name.clone().unwrap_or_default() },
        AccessMethod::Mount => Way::Mount { claim: facts.status.backup_pvc_name.clone().unwrap_or_default() },
    };
    let job = errand::build(facts.repo, errand, way, &ctx.settings);
    create(&Api::namespaced(ctx.client.clone(), namespace), &job).await.map_err(write)
}

/// Removes the pre-check. The Job goes last: as long as it is there, we know that something may be left.
pub(super) async fn clear_check(ctx: &Context, repo: &BackupRepo) -> Result<(), Error> {
    let namespace = &ctx.settings.manager_namespace;
    let name = check_name(repo);
    let write = |source| Error::Write { what: format!("pre-check {namespace}/{name}"), source };
    remove(&Api::<Secret>::namespaced(ctx.client.clone(), namespace), &name).await.map_err(write)?;
    remove(&Api::<PersistentVolumeClaim>::namespaced(ctx.client.clone(), namespace), &name).await.map_err(write)?;
    remove(&Api::<Job>::namespaced(ctx.client.clone(), namespace), &name).await.map_err(write)
}

/// Name of the pre-check's Job, and of the Secret or claim that it uses.
pub(super) fn check_name(repo: &BackupRepo) -> String {
    kbbackup_core::names::pre_check(&repo.name_any(), repo.metadata.uid.as_deref().unwrap_or_default())
}

/// Gives every tool Secret that has another digest the new configuration. Pods that run keep what they have mounted until
/// the kubelet shows them the new one; both work at this moment.
pub(super) async fn refresh(ctx: &Context, facts: &Facts<'_>) -> Result<(), Error> {
    let Some(text) = facts.tool_config else { return Ok(()) };
    let all: Api<Secret> = Api::all(ctx.client.clone());
    let repo = facts.repo.name_any();
    let ours = format!("{}={repo},{}={TRUE}", labels::BACKUP_REPO_NAME, labels::IS_TOOL_CONFIG);
    let read = |source| Error::Read { what: format!("tool Secrets of {repo}"), source };
    let secrets = all.list_metadata(&ListParams::default().labels(&ours)).await.map_err(read)?;
    for secret in secrets.items.iter().filter(|secret| !is_of(*secret, facts.digest)) {
        let (name, namespace) = (secret.name_any(), secret.namespace().unwrap_or_default());
        let write = |source| Error::Write { what: format!("Secret {namespace}/{name}"), source };
        let new = build::tool_config(facts.repo, &name, &namespace, text, facts.digest);
        apply(&Api::namespaced(ctx.client.clone(), &namespace), &new).await.map_err(write)?;
    }
    Ok(())
}

/// Brings what workers reach the repository with into the namespace `place`.
pub(super) async fn access(ctx: &Context, facts: &Facts<'_>, place: &str) -> Result<(), Error> {
    let client = &ctx.client;
    let write = |source| Error::Write { what: format!("repository in namespace {place}"), source };
    match facts.repo.spec.access_method() {
        AccessMethod::Tool => {
            let secret = facts.status.tool_config_secret_name.as_deref().unwrap_or_default();
            let text = facts.tool_config.unwrap_or_default();
            let secret = build::tool_config(facts.repo, secret, place, text, facts.digest);
            apply(&Api::namespaced(client.clone(), place), &secret).await.map_err(write)?;
        }
        AccessMethod::Mount => {
            let claim = facts.status.backup_pvc_name.as_deref().unwrap_or_default();
            let claim = build::claim(facts.repo, claim, place, facts.claim);
            create(&Api::namespaced(client.clone(), place), &claim).await.map_err(write)?;
        }
    }
    Ok(())
}

/// Prepares the namespace of one that waits, then lets it go on.
pub(super) async fn prepare(ctx: &Context, facts: &Facts<'_>, waiting: &Waiting) -> Result<(), Error> {
    let Waiting { kind, namespace, name, place } = waiting;
    let client = &ctx.client;
    access(ctx, facts, place).await?;
    match kind {
        WaitingKind::Backup => wake(&Api::<Backup>::namespaced(client.clone(), namespace), name).await,
        WaitingKind::Restore => wake(&Api::<Restore>::namespaced(client.clone(), namespace), name).await,
    }
    .map_err(|source| Error::Write { what: format!("label of {kind:?} {namespace}/{name}"), source })
}

async fn wake<K>(api: &Api<K>, name: &str) -> kube::Result<()>
where
    K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let patch = json!({ "metadata": { "labels": { labels::WAIT_REPO_PREPARATION: null } } });
    match api.patch_metadata(name, &PatchParams::default(), &Patch::Merge(patch)).await {
        // It was deleted while it waited.
        Err(error) if is_not_found(&error) => Ok(()),
        other => other.map(drop),
    }
}

/// Removes all children of `repo` of one kind that carry its label and are owned by it. Returns how many there were.
pub(super) async fn remove_children<K>(
    all: &Api<K>,
    narrow: impl Fn(&Client, &str) -> Api<K>,
    client: &Client,
    repo: &BackupRepo,
) -> kube::Result<usize>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let label = format!("{}={}", labels::BACKUP_REPO_NAME, repo.name_any());
    let children = all.list_metadata(&ListParams::default().labels(&label)).await?;
    let owned = |owner: &k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference| {
        Some(&owner.uid) == repo.metadata.uid.as_ref()
    };
    let mut count = 0;
    for child in children.items.iter().filter(|child| child.owner_references().iter().any(owned)) {
        count += 1;
        if child.metadata.deletion_timestamp.is_none() {
            remove(&narrow(client, &child.namespace().unwrap_or_default()), &child.name_any()).await?;
        }
    }
    Ok(count)
}
