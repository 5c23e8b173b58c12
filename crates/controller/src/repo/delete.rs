//! The end of a repository: not while it holds backups, and never touching what lies in the storage.

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret};
use k8s_openapi::api::storage::v1::StorageClass;
use kbbackup_api::conditions::{BackupRepoCondition, BackupRepoReason};
use kbbackup_api::events::EventReason;
use kbbackup_api::names::{FINALIZER, labels};
use kbbackup_api::v1alpha1::{Backup, BackupRepo};
use kube::api::ListParams;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::{Api, Client, Resource, ResourceExt as _};

use super::{Draft, Error, apply, observe};
use crate::context::Context;
use crate::status;

/// One step towards the end; the watches on backups and claims bring the next.
pub(super) async fn delete(ctx: &Context, api: &Api<BackupRepo>, repo: &BackupRepo) -> Result<Action, Error> {
    if !repo.finalizers().iter().any(|name| name == FINALIZER) {
        return Ok(Action::await_change());
    }
    let mut draft = Draft::new(repo, ctx.now());
    let first = draft.status.phase != Some(kbbackup_api::v1alpha1::BackupRepoPhase::Deleting);
    if first {
        ctx.event(repo, EventType::Normal, EventReason::DeletingCr.as_str(), "the repository is being deleted".into())
            .await;
    }
    let end = attempt(ctx, repo).await;
    let gone = BackupRepoCondition::DerivedObjectsDeleted;
    match &end {
        Ok(None) => draft.holds(gone, BackupRepoReason::DerivedObjectsDeleted, ""),
        Ok(Some((reason, message))) => draft.fails(gone, *reason, message),
        // Tried again; the status stays as it is.
        Err(_) => (),
    }
    let now = draft.publish(api, repo).await?;
    let repo = now.as_ref().unwrap_or(repo);
    // The watches on backups and claims tell when there is more to do.
    if end?.is_none() {
        status::hold(api, repo, false).await.map_err(Error::Hold)?;
        let note = "the repository is gone; what lies in the storage stays".to_owned();
        ctx.event(repo, EventType::Normal, EventReason::DeletedCr.as_str(), note).await;
    }
    Ok(Action::await_change())
}

/// Why it cannot end yet; `None` when nothing is left.
type Obstacle = Option<(BackupRepoReason, String)>;

async fn attempt(ctx: &Context, repo: &BackupRepo) -> Result<Obstacle, Error> {
    let name = repo.name_any();
    let client = &ctx.client;
    // Asked from the server, not from the store: a backup that was created this moment counts.
    let backups: Api<Backup> = Api::all(client.clone());
    let label = format!("{}={name}", labels::BACKUP_REPO_NAME);
    let read = |source| Error::Read { what: format!("backups of {name}"), source };
    let backups = backups.list(&ListParams::default().labels(&label)).await.map_err(read)?;
    let count = backups.items.iter().filter(|backup| observe::counts(backup)).count();
    if count > 0 {
        let lie = if count == 1 { "1 backup lies".to_owned() } else { format!("{count} backups lie") };
        let message = format!("{lie} in the repository; the repository goes when the last one is deleted");
        return Ok(Some((BackupRepoReason::HaveAssociatedBackups, message)));
    }
    let write = |what: &'static str| move |source| Error::Write { what: what.to_owned(), source };
    remove_all::<Job>(client, repo).await.map_err(write("Jobs of the repository"))?;
    let claims = remove_all::<PersistentVolumeClaim>(client, repo).await.map_err(write("claims of the repository"))?;
    if claims > 0 {
        let message = format!("{claims} claims of the repository are being removed; a pod that uses one keeps it");
        return Ok(Some((BackupRepoReason::HaveResidualPvcs, message)));
    }
    let classes: Api<StorageClass> = Api::all(client.clone());
    let narrow = |client: &Client, _: &str| Api::all(client.clone());
    apply::remove_children(&classes, narrow, client, repo).await.map_err(write("StorageClass of the repository"))?;
    remove_all::<Secret>(client, repo).await.map_err(write("Secrets of the repository"))?;
    Ok(None)
}

async fn remove_all<K>(client: &Client, repo: &BackupRepo) -> kube::Result<usize>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug,
{
    let narrow = |client: &Client, namespace: &str| Api::namespaced(client.clone(), namespace);
    apply::remove_children(&Api::<K>::all(client.clone()), narrow, client, repo).await
}
