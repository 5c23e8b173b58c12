//! BackupRepo: a place for backups, checked before it is used, and prepared in every namespace that needs it.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kbbackup_api::names::labels;
use kbbackup_api::v1alpha1::BackupRepo;
use kube::runtime::controller::Action;
use kube::runtime::reflector::{ObjectRef, Store};

use crate::context::{Context, readable};
use crate::error::{Class, Classified, Unreadable};
use crate::watch::Guarded;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object does not fit its type.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
}

impl Classified for Error {
    fn class(&self) -> Class {
        Class::Invalid
    }
    fn reason(&self) -> &'static str {
        "Unreadable"
    }
}

pub async fn reconcile(repo: Arc<Guarded<BackupRepo>>, _ctx: Arc<Context>) -> Result<Action, Error> {
    let _repo = readable(&repo)?;
    Ok(Action::await_change())
}

/// The repositories of the provider `name`.
pub fn using_provider(repos: &[Arc<Guarded<BackupRepo>>], name: &str) -> Vec<ObjectRef<Guarded<BackupRepo>>> {
    those(repos, |repo| repo.spec.storage_provider_ref == name)
}

/// The repositories whose credentials the Secret holds, or that the Secret was made for.
pub fn using_secret(repos: &[Arc<Guarded<BackupRepo>>], secret: &ObjectMeta) -> Vec<ObjectRef<Guarded<BackupRepo>>> {
    let mut found = those(repos, |repo| {
        repo.spec.credential.as_ref().is_some_and(|credential| {
            credential.name == secret.name
                && credential.namespace.as_deref().unwrap_or_default()
                    == secret.namespace.as_deref().unwrap_or_default()
        })
    });
    found.extend(made_for(secret));
    found
}

/// The repository that an object was made for.
pub fn made_for(object: &ObjectMeta) -> Option<ObjectRef<Guarded<BackupRepo>>> {
    object.labels.as_ref()?.get(labels::BACKUP_REPO_NAME).map(|name| ObjectRef::new(name))
}

/// The repository that a Backup or Restore waits for, or that waits for a Backup to go.
pub fn concerned(repos: &Store<Guarded<BackupRepo>>, object: &ObjectMeta) -> Option<ObjectRef<Guarded<BackupRepo>>> {
    let repo = made_for(object)?;
    let waits = object.labels.as_ref().is_some_and(|labels| labels.contains_key(labels::WAIT_REPO_PREPARATION));
    let going = || repos.get(&repo).is_some_and(|repo| repo_meta(&repo).deletion_timestamp.is_some());
    (waits || going()).then_some(repo)
}

fn repo_meta(repo: &Guarded<BackupRepo>) -> &ObjectMeta {
    kube::Resource::meta(repo)
}

fn those(
    repos: &[Arc<Guarded<BackupRepo>>],
    wanted: impl Fn(&BackupRepo) -> bool,
) -> Vec<ObjectRef<Guarded<BackupRepo>>> {
    repos
        .iter()
        .filter(|repo| repo.0.as_ref().is_ok_and(&wanted))
        .map(|repo| ObjectRef::from_obj(repo.as_ref()))
        .collect()
}
