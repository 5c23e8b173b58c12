//! Backups as the operator holds them. Nearly all of ten thousand are over: of those it keeps dates, place and relations.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kbbackup_api::names::{annotations, labels};
use kbbackup_api::v1alpha1::{Backup, BackupPhase, BackupStatus, BackupTimeRange, BackupType};
use kube::core::ObjectMeta;
use kube::{Resource, ResourceExt as _};
use serde::{Deserialize, Deserializer};

use crate::context::readable;
use crate::error::Unreadable;
use crate::pool::{Grouped, Pool};
use crate::watch::{Guarded, hollow_out};

/// A backup that a watch knows. `Resource::meta` has name, namespace, UID, version and dates; labels and annotations are read
/// from [`Self::backup`].
#[derive(Clone, Debug)]
pub enum Entry {
    /// Under way, continuous, being deleted, or not to be read: as the API server sent it, long annotations blanked.
    Whole(Box<Guarded<Backup>>),
    /// Completed or failed.
    Over(Box<Over>),
}

/// A backup that is over, without method, targets, actions, extras, parameters and most annotations: who needs how it was
/// made (to restore or to delete it) reads the object itself.
#[derive(Clone, Debug)]
pub struct Over {
    meta: ObjectMeta,
    /// All that it has in common with others of its kind: one value for all of them.
    like: Arc<Backup>,
    expiration: Option<Time>,
    start: Option<Time>,
    completion: Option<Time>,
    duration: Option<Box<str>>,
    size: Option<Box<str>>,
    path: Option<Box<str>>,
    failure: Option<Box<str>>,
    parent: Option<Box<str>>,
    base: Option<Box<str>>,
    range: Option<Box<BackupTimeRange>>,
}

/// What is read of the annotations of a backup that is over, by the store: whether it is left alone, and which entry of a
/// schedule made it.
const READ_WHEN_OVER: [&str; 2] = [annotations::SKIP_RECONCILIATION, annotations::SCHEDULE_ENTRY];

impl Entry {
    /// The backup; without what a store does not keep once it is over.
    pub fn backup(&self) -> Option<Cow<'_, Backup>> {
        self.readable().ok()
    }

    /// The same, or why it cannot be read.
    ///
    /// # Errors
    /// [`Unreadable`] when what the API server sent does not fit the type.
    pub fn readable(&self) -> Result<Cow<'_, Backup>, Unreadable> {
        match self {
            Self::Whole(guarded) => readable(guarded).map(Cow::Borrowed),
            Self::Over(over) => Ok(Cow::Owned(over.backup())),
        }
    }

    /// The backup unless it is over.
    pub fn under_way(&self) -> Option<&Backup> {
        match self {
            Self::Whole(guarded) => guarded.0.as_ref().ok(),
            Self::Over(_) => None,
        }
    }

    /// When the backup may be removed.
    pub fn expiration(&self) -> Option<Timestamp> {
        let time = match self {
            Self::Whole(guarded) => guarded.0.as_ref().ok()?.status.as_ref()?.expiration.as_ref(),
            Self::Over(over) => over.expiration.as_ref(),
        };
        time.map(|time| time.0)
    }

    fn policy(&self) -> Option<&str> {
        match self {
            Self::Whole(guarded) => guarded.0.as_ref().ok().map(|backup| backup.spec.backup_policy_name.as_str()),
            Self::Over(over) => Some(&over.like.spec.backup_policy_name),
        }
    }
}

impl From<Guarded<Backup>> for Entry {
    fn from(mut guarded: Guarded<Backup>) -> Self {
        hollow_out(&mut guarded);
        match guarded.0 {
            Ok(backup) if is_over(&backup) => Self::Over(Box::new(Over::new(backup))),
            other => Self::Whole(Box::new(kube::core::DeserializeGuard(other))),
        }
    }
}

/// Whether the backup has come to its end and stays. A continuous one may be resumed.
fn is_over(backup: &Backup) -> bool {
    let phase = backup.status.as_ref().and_then(|status| status.phase);
    let continuous =
        backup.labels().get(labels::BACKUP_TYPE).is_some_and(|type_| type_ == BackupType::Continuous.as_str());
    matches!(phase, Some(BackupPhase::Completed | BackupPhase::Failed))
        && !continuous
        && backup.metadata.deletion_timestamp.is_none()
}

impl Over {
    fn new(mut backup: Backup) -> Self {
        backup.annotations_mut().retain(|key, _| READ_WHEN_OVER.contains(&key.as_str()));
        backup.metadata.managed_fields = None;
        backup.spec.parameters = Vec::new();
        let text = |text: Option<String>| text.map(String::into_boxed_str);
        let mut status = backup.status.take().unwrap_or_default();
        let own = &mut backup.metadata;
        let meta = ObjectMeta {
            name: own.name.take(),
            namespace: own.namespace.take(),
            uid: own.uid.take(),
            resource_version: own.resource_version.take(),
            generation: own.generation.take(),
            creation_timestamp: own.creation_timestamp.take(),
            ..ObjectMeta::default()
        };
        let over = Self {
            meta,
            like: Arc::default(),
            expiration: status.expiration.take(),
            start: status.start_timestamp.take(),
            completion: status.completion_timestamp.take(),
            duration: text(status.duration.take()),
            size: text(status.total_size.take()),
            path: text(status.path.take()),
            failure: text(status.failure_reason.take()),
            parent: text(status.parent_backup_name.take()),
            base: text(status.base_backup_name.take()),
            range: status.time_range.take().map(Box::new),
        };
        let kept = BackupStatus {
            backup_method: None,
            target: None,
            targets: Vec::new(),
            actions: Vec::new(),
            volume_snapshots: Vec::new(),
            extras: Vec::new(),
            ..status
        };
        backup.status = Some(kept);
        Self { like: shared(backup), ..over }
    }

    fn backup(&self) -> Backup {
        let text = |text: &Option<Box<str>>| text.as_deref().map(str::to_owned);
        let mut backup = Backup::clone(&self.like);
        let own = self.meta.clone();
        backup.metadata = ObjectMeta {
            annotations: backup.metadata.annotations.take(),
            finalizers: backup.metadata.finalizers.take(),
            generate_name: backup.metadata.generate_name.take(),
            labels: backup.metadata.labels.take(),
            owner_references: backup.metadata.owner_references.take(),
            ..own
        };
        backup.status = backup.status.take().map(|like| BackupStatus {
            expiration: self.expiration.clone(),
            start_timestamp: self.start.clone(),
            completion_timestamp: self.completion.clone(),
            duration: text(&self.duration),
            total_size: text(&self.size),
            path: text(&self.path),
            failure_reason: text(&self.failure),
            parent_backup_name: text(&self.parent),
            base_backup_name: text(&self.base),
            time_range: self.range.as_deref().cloned(),
            ..like
        });
        backup
    }
}

/// Values that many backups have in common, by their hashes. Those that nobody has any more are dropped now and then.
#[derive(Default)]
struct Likes {
    all: HashMap<u64, Vec<Weak<Backup>>>,
    held: usize,
    limit: usize,
}

static LIKES: LazyLock<(RandomState, Mutex<Likes>)> = LazyLock::new(Default::default);

/// The one value that is equal to `backup`.
fn shared(backup: Backup) -> Arc<Backup> {
    let (state, likes) = &*LIKES;
    let hash = state.hash_one(serde_json::to_vec(&backup).unwrap_or_default());
    let mut likes = likes.lock().unwrap_or_else(PoisonError::into_inner);
    let same = likes.all.get(&hash).into_iter().flatten().filter_map(Weak::upgrade).find(|known| **known == backup);
    if let Some(same) = same {
        return same;
    }
    if likes.held >= likes.limit {
        likes.all.retain(|_, known| {
            known.retain(|known| known.strong_count() > 0);
            !known.is_empty()
        });
        likes.held = likes.all.values().map(Vec::len).sum();
        likes.limit = 2 * likes.held.max(LEAST);
    }
    let new = Arc::new(backup);
    likes.all.entry(hash).or_default().push(Arc::downgrade(&new));
    likes.held += 1;
    new
}

/// So many values are kept before anybody looks which are still needed.
const LEAST: usize = 512;

impl Resource for Entry {
    type DynamicType = ();
    type Scope = <Backup as Resource>::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        Backup::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        Backup::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        Backup::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        Backup::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        match self {
            Self::Whole(guarded) => guarded.meta(),
            Self::Over(over) => &over.meta,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Whole(guarded) => guarded.meta_mut(),
            Self::Over(over) => &mut over.meta,
        }
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Guarded::<Backup>::deserialize(deserializer).map(Self::from)
    }
}

impl Grouped for Entry {
    fn groups(&self) -> Vec<String> {
        let namespace = self.meta().namespace.as_deref().unwrap_or_default();
        self.policy().map(|policy| of_policy(namespace, policy)).into_iter().collect()
    }
}

fn of_policy(namespace: &str, policy: &str) -> String {
    format!("{namespace}/{policy}")
}

impl Pool<Entry> {
    /// The backups of a policy.
    pub fn of_policy(&self, namespace: &str, policy: &str) -> Vec<Backup> {
        backups(&self.group(&of_policy(namespace, policy)))
    }

    /// The backups of a namespace.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Backup> {
        backups(&self.groups_below(&of_policy(namespace, "")))
    }
}

fn backups(entries: &[Arc<Entry>]) -> Vec<Backup> {
    entries.iter().filter_map(|entry| entry.backup().map(Cow::into_owned)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fake::from;

    fn entry(backup: Value) -> Entry {
        from(backup)
    }

    fn full(name: &str, status: Value) -> Value {
        json!({ "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "Backup",
            "metadata": { "name": name, "namespace": "demo", "uid": name, "resourceVersion": "7", "generation": 1,
                "creationTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["f"],
                "ownerReferences": [{ "apiVersion": "v1", "kind": "K", "name": "o", "uid": "u" }],
                "labels": { labels::BACKUP_TYPE: "Full", labels::BACKUP_SCHEDULE: "s" },
                "annotations": { "example.com/a": "b", annotations::SCHEDULE_ENTRY: "nightly" } },
            "spec": { "backupPolicyName": "p", "backupMethod": "m", "deletionPolicy": "Retain", "retentionPeriod": "7d",
                "parameters": [{ "name": "k", "value": "v" }] },
            "status": status })
    }

    fn completed() -> Value {
        json!({ "phase": "Completed", "formatVersion": "0.1.0", "expiration": "2026-01-08T00:00:00Z",
            "startTimestamp": "2026-01-01T00:00:00Z", "completionTimestamp": "2026-01-01T00:01:00Z", "duration": "1m0s",
            "totalSize": "1Gi", "path": "/demo/p", "backupRepoName": "r", "persistentVolumeClaimName": "c",
            "timeRange": { "end": "2026-01-01T00:00:30Z" }, "parentBackupName": "a", "baseBackupName": "b",
            "encryptionConfig": { "algorithm": "AES-256-CFB", "passPhraseSecretKeyRef": { "name": "n", "key": "k" } },
            "failureReason": "none", "backupMethod": { "name": "m" }, "target": { "name": "t" },
            "actions": [{ "name": "x" }], "extras": [{ "k": "v" }] })
    }

    #[test]
    fn what_is_kept_of_a_backup_that_is_over_comes_back_as_it_was() {
        let whole = full("b1", completed());
        let over = entry(whole.clone());
        assert!(matches!(over, Entry::Over(_)));
        let mut wanted = whole;
        for gone in ["backupMethod", "target", "actions", "extras"] {
            wanted["status"].as_object_mut().unwrap().remove(gone);
        }
        wanted["metadata"]["annotations"].as_object_mut().unwrap().remove("example.com/a");
        wanted["spec"].as_object_mut().unwrap().remove("parameters");
        assert_eq!(serde_json::to_value(over.backup().unwrap()).unwrap(), wanted);
        assert_eq!((over.name_any(), over.uid()), ("b1".to_owned(), Some("b1".to_owned())));
        assert_eq!(over.expiration(), Some("2026-01-08T00:00:00Z".parse().unwrap()));
    }

    #[test]
    fn backups_of_a_kind_share_what_they_have_in_common() {
        let like = |entry: &Entry| match entry {
            Entry::Over(over) => Arc::clone(&over.like),
            Entry::Whole(_) => panic!("not over"),
        };
        let mut later = completed();
        later["completionTimestamp"] = json!("2026-01-02T00:01:00Z");
        let (a, b) = (entry(full("b1", completed())), entry(full("b2", later)));
        assert!(Arc::ptr_eq(&like(&a), &like(&b)));
        let mut other = full("b3", completed());
        other["metadata"]["labels"][labels::BACKUP_SCHEDULE] = json!("t");
        assert!(!Arc::ptr_eq(&like(&a), &like(&entry(other))));
    }

    #[test]
    fn only_a_backup_that_is_over_loses_how_it_was_made() {
        let is_over = |change: fn(&mut Value)| {
            let mut backup = full("b", completed());
            change(&mut backup);
            let entry = entry(backup);
            let has_method = entry.backup().unwrap().status.as_ref().unwrap().backup_method.is_some();
            assert_ne!(entry.under_way().is_none(), has_method);
            !has_method
        };
        assert!(is_over(|_| ()));
        assert!(is_over(|backup| backup["status"]["phase"] = json!("Failed")));
        assert!(!is_over(|backup| backup["status"]["phase"] = json!("Running")));
        assert!(!is_over(|backup| backup["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z")));
        assert!(!is_over(|backup| backup["metadata"]["labels"][labels::BACKUP_TYPE] = json!("Continuous")));
    }

    #[test]
    fn one_that_cannot_be_read_is_kept_as_such() {
        let mut bad = full("b", completed());
        bad["spec"]["backupPolicyName"] = json!(7);
        let entry = entry(bad);
        assert!(entry.backup().is_none() && entry.name_any() == "b" && entry.groups().is_empty());
    }

    /// Each byte counts ten thousand times.
    #[test]
    fn an_entry_is_small() {
        let size = size_of::<Over>();
        assert!(size <= 560, "{size} bytes");
    }
}
