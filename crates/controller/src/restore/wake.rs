//! Which restore, or whose backup, is to be looked at when something else has changed.

use kbbackup_api::names::{annotations, labels};
use kbbackup_api::v1alpha1::{BackupRepo, Restore};
use kube::ResourceExt as _;
use kube::core::ObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store};

use crate::catalogue::Entry;
use crate::watch::Guarded;

/// The restore that a Job, Pod or workload belongs to, or a claim or snapshot of one in place.
pub fn of_worker(meta: &ObjectMeta) -> Option<ObjectRef<Guarded<Restore>>> {
    let label = |key: &str| meta.labels.as_ref().and_then(|labels| labels.get(key)).cloned();
    if let Some(name) = label(labels::RESTORE).or_else(|| label(labels::IN_PLACE)) {
        let home = label(labels::RESTORE_NAMESPACE).or_else(|| meta.namespace.clone())?;
        return Some(ObjectRef::new(&name).within(&home));
    }
    let mark = meta.annotations.as_ref()?.get(annotations::RESTORED_BY)?;
    let mut parts = mark.split('/');
    let (namespace, name) = (parts.next()?, parts.next()?);
    Some(ObjectRef::new(name).within(namespace))
}

/// The restores that wait for a repository to change: those that have not started.
pub fn waiting_for_repo(
    store: &Store<Guarded<Restore>>,
    _repo: &Guarded<BackupRepo>,
) -> Vec<ObjectRef<Guarded<Restore>>> {
    let all = store.state();
    let waiting = all
        .iter()
        .filter_map(|guarded| guarded.0.as_ref().ok())
        .filter(|restore| restore.status.as_ref().is_none_or(|status| status.phase.is_none()));
    waiting
        .map(|restore| ObjectRef::new(&restore.name_any()).within(&restore.namespace().unwrap_or_default()))
        .collect()
}

/// The backups whose deletion may go on now that a restore has changed: the one that it names, and those it reads as well.
pub fn backup_of(restore: &Guarded<Restore>) -> Vec<ObjectRef<Entry>> {
    let Ok(restore) = &restore.0 else { return Vec::new() };
    let of = &restore.spec.backup;
    let mut names: Vec<&str> = reads(restore).collect();
    if !names.contains(&of.name.as_str()) {
        names.push(&of.name);
    }
    names.into_iter().map(|name| ObjectRef::new(name).within(&of.namespace)).collect()
}

/// The backups that a restore under way reads, all in the namespace of the one that it names.
pub fn reads(restore: &Restore) -> impl Iterator<Item = &str> {
    let names = restore.annotations().get(annotations::READS).map(String::as_str).unwrap_or_default();
    names.split(',').filter(|name| !name.is_empty())
}
