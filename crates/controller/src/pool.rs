//! What a watch knows, by what it belongs to: nobody looks through ten thousand objects to find his own three.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::Pod;
use kbbackup_api::names::labels;
use kube::ResourceExt;
use kube::runtime::reflector::Store;

use crate::watch::Watched;

/// A kind whose objects are looked up by what they belong to.
pub trait Grouped: Watched {
    /// The groups of this object, by their keys.
    fn groups(&self) -> Vec<String>;
}

impl Grouped for Job {
    fn groups(&self) -> Vec<String> {
        let runs =
            self.owner_references().iter().filter(|owner| owner.kind == <CronJob as k8s_openapi::Resource>::KIND);
        of_labels(self).into_iter().chain(runs.map(|owner| runs_of(&owner.uid))).collect()
    }
}

impl Grouped for Pod {
    fn groups(&self) -> Vec<String> {
        of_labels(self)
    }
}

fn of_labels<K: ResourceExt>(object: &K) -> Vec<String> {
    let of = |key: &str, group: fn(&str) -> String| object.labels().get(key).map(|name| group(name));
    [of(labels::BACKUP_NAME, workers_of_backup), of(labels::RESTORE, workers_of_restore)]
        .into_iter()
        .flatten()
        .collect()
}

/// Who works for a backup of this name, in any namespace.
pub fn workers_of_backup(name: &str) -> String {
    format!("backup/{name}")
}

/// Who works for a restore of this name, in any namespace.
pub fn workers_of_restore(name: &str) -> String {
    format!("restore/{name}")
}

/// The Jobs that the CronJob with this UID has made.
pub fn runs_of(uid: &str) -> String {
    format!("cronjob/{uid}")
}

/// A store whose objects are also found by their groups; the watch that fills the store keeps both.
pub struct Pool<K: Watched> {
    store: Store<K>,
    groups: Arc<RwLock<BTreeMap<String, Vec<Arc<K>>>>>,
    keys: fn(&K) -> Vec<String>,
}

impl<K: Watched> Pool<K> {
    /// A pool without groups.
    pub fn plain(store: Store<K>) -> Self {
        Self { store, groups: Arc::default(), keys: |_| Vec::new() }
    }

    /// A pool with the groups that each object names.
    pub fn grouped(store: Store<K>) -> Self
    where
        K: Grouped,
    {
        Self { store, groups: Arc::default(), keys: K::groups }
    }

    /// The objects of one group.
    pub fn group(&self, key: &str) -> Vec<Arc<K>> {
        self.groups().get(key).cloned().unwrap_or_default()
    }

    /// The objects of all groups whose key begins so.
    pub fn groups_below(&self, start: &str) -> Vec<Arc<K>> {
        let groups = self.groups();
        let below = groups.range(start.to_owned()..).take_while(|(key, _)| key.starts_with(start));
        below.flat_map(|(_, members)| members.iter().cloned()).collect()
    }

    /// The object `old` of the store became `new`.
    pub fn exchange(&self, old: Option<&Arc<K>>, new: Option<&Arc<K>>) {
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = old {
            for key in (self.keys)(old) {
                let Some(members) = groups.get_mut(&key) else { continue };
                members.retain(|member| !Arc::ptr_eq(member, old));
                if members.is_empty() {
                    groups.remove(&key);
                }
            }
        }
        if let Some(new) = new {
            for key in (self.keys)(new) {
                groups.entry(key).or_default().push(Arc::clone(new));
            }
        }
    }

    /// The store was filled anew.
    pub fn refill(&self) {
        self.groups.write().unwrap_or_else(PoisonError::into_inner).clear();
        for object in self.store.state() {
            self.exchange(None, Some(&object));
        }
    }

    fn groups(&self) -> RwLockReadGuard<'_, BTreeMap<String, Vec<Arc<K>>>> {
        self.groups.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Watched> Clone for Pool<K> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), groups: Arc::clone(&self.groups), keys: self.keys }
    }
}

impl<K: Watched> Deref for Pool<K> {
    type Target = Store<K>;

    fn deref(&self) -> &Store<K> {
        &self.store
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fake::from;

    fn pod(name: &str, backup: &str) -> Arc<Pod> {
        let labels = json!({ labels::BACKUP_NAME: backup });
        Arc::new(from(json!({ "metadata": { "name": name, "namespace": "demo", "labels": labels } })))
    }

    fn names(pool: &Pool<Pod>, backup: &str) -> String {
        let members = pool.group(&workers_of_backup(backup));
        members.iter().map(|pod| pod.name_any()).collect::<Vec<_>>().join(",")
    }

    #[test]
    fn an_object_is_in_its_groups_as_long_as_it_is_there() {
        let pool = Pool::grouped(kube::runtime::reflector::store().0);
        let (a, b) = (pod("a", "x"), pod("b", "x"));
        pool.exchange(None, Some(&a));
        pool.exchange(None, Some(&b));
        assert_eq!(names(&pool, "x"), "a,b");
        let moved = pod("a", "y");
        pool.exchange(Some(&a), Some(&moved));
        assert_eq!((names(&pool, "x"), names(&pool, "y")), ("b".to_owned(), "a".to_owned()));
        pool.exchange(Some(&b), None);
        assert!(!pool.groups().contains_key(&workers_of_backup("x")), "an empty group is gone");
    }

    #[test]
    fn a_job_is_found_by_its_backup_its_restore_and_its_cron_job() {
        let owner = json!([{ "apiVersion": "batch/v1", "kind": "CronJob", "name": "c", "uid": "u" },
            { "apiVersion": "v1", "kind": "Other", "name": "c", "uid": "v" }]);
        let labels = json!({ labels::BACKUP_NAME: "b", labels::RESTORE: "r" });
        let job: Job = from(json!({ "metadata": { "name": "j", "labels": labels, "ownerReferences": owner } }));
        assert_eq!(job.groups(), ["backup/b", "restore/r", "cronjob/u"]);
    }

    #[test]
    fn groups_of_a_namespace_are_not_those_of_one_with_a_longer_name() {
        let keys = |pod: &Pod| vec![pod.labels()[labels::BACKUP_NAME].clone()];
        let pool = Pool { keys, ..Pool::plain(kube::runtime::reflector::store().0) };
        for pod in [pod("a", "demo/p"), pod("b", "demo/q"), pod("c", "demo-2/p")] {
            pool.exchange(None, Some(&pod));
        }
        let found = |start: &str| pool.groups_below(start).iter().map(|pod| pod.name_any()).collect::<Vec<_>>();
        assert_eq!(found("demo/"), ["a", "b"]);
        assert_eq!(pool.group("demo-2/p").len(), 1);
    }
}
