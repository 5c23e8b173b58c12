//! What every reconcile gets: client, clock, settings, event recorder, memory of failures.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::api::storage::v1::CSIDriver;
use kbbackup_api::apps::{Cluster, ComponentDefinition};
use kbbackup_api::snapshot::VolumeSnapshot;
use kbbackup_api::v1alpha1::{
    ActionSet, BackupPolicy, BackupPolicyTemplate, BackupRepo, BackupSchedule, Restore, StorageProvider,
};
use kube::Client;
use kube::core::PartialObjectMeta;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::reflector::Store;
use kube::{Resource, ResourceExt as _};
use tokio_util::sync::CancellationToken;

use crate::catalogue::Entry;
use crate::error::{Class, Unreadable, backoff};
use crate::metrics::Metrics;
use crate::pool::Pool;
use crate::settings::Settings;
use crate::watch::Guarded;

/// What the watches know. Objects are stripped of what nobody reads (see [`crate::run`]); they may be a moment old, so
/// they serve to decide what to look at, and what is written is protected by names that are the same each time.
#[derive(Clone)]
#[expect(missing_docs, reason = "each is the store of the kind it is named after")]
pub struct Stores {
    pub providers: Store<Guarded<StorageProvider>>,
    pub repos: Store<Guarded<BackupRepo>>,
    pub action_sets: Store<Guarded<ActionSet>>,
    pub policies: Store<Guarded<BackupPolicy>>,
    pub backups: Pool<Entry>,
    pub restores: Store<Guarded<Restore>>,
    pub schedules: Store<Guarded<BackupSchedule>>,
    /// Jobs labelled `managed-by=kubeblocks-dataprotection`, without their pod template.
    pub jobs: Pool<Job>,
    /// Pods labelled `managed-by=kubeblocks-dataprotection`, without their spec.
    pub pods: Pool<Pod>,
    /// CronJobs labelled `managed-by=kubeblocks-dataprotection`, without their Job template.
    pub cron_jobs: Store<CronJob>,
    /// StatefulSets labelled `managed-by=kubeblocks-dataprotection`, without their pod template.
    pub stateful_sets: Store<StatefulSet>,
    /// ConfigMaps labelled so: what archivers have reported.
    pub channels: Store<ConfigMap>,
    pub csi_drivers: Store<CSIDriver>,
    pub templates: Store<Guarded<BackupPolicyTemplate>>,
    /// Empty, and never ready, where KubeBlocks' API is not served; so are the definitions.
    pub clusters: Store<Guarded<Cluster>>,
    /// Their metadata only.
    pub component_definitions: Store<PartialObjectMeta<ComponentDefinition>>,
    /// Those of backups. Never filled where the cluster does not serve them.
    pub volume_snapshots: Store<VolumeSnapshot>,
}

/// Shared by all controllers of the process.
#[derive(Clone)]
pub struct Context {
    /// The API client.
    pub client: Client,
    /// What the administrator set.
    pub settings: Arc<Settings>,
    /// What the watches know.
    pub stores: Stores,
    /// What Prometheus reads.
    pub metrics: Arc<Metrics>,
    /// Cancelled when the process is told to end.
    pub stop: CancellationToken,
    /// When this process began to work.
    pub started: jiff::Timestamp,
    recorder: Recorder,
    failures: Arc<Mutex<HashMap<String, u32>>>,
}

impl Context {
    /// A context for `client`; events are reported as `kbbackup`.
    pub fn new(
        client: Client,
        settings: Settings,
        stores: Stores,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) -> Self {
        let reporter = Reporter { controller: "kbbackup".to_owned(), instance: std::env::var("POD_NAME").ok() };
        let recorder = Recorder::new(client.clone(), reporter);
        Self {
            client,
            settings: Arc::new(settings),
            stores,
            metrics,
            stop,
            started: jiff::Timestamp::now(),
            recorder,
            failures: Arc::default(),
        }
    }

    /// The clock.
    pub fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }

    /// Publishes an event about `object`; a failure to do so is only logged, for events are a courtesy.
    pub async fn event<K>(&self, object: &K, type_: EventType, reason: &str, note: String)
    where
        K: Resource,
        K::DynamicType: Default,
    {
        let mut note = note;
        note.truncate(note.floor_char_boundary(MAX_NOTE));
        let event =
            Event { type_, reason: reason.to_owned(), note: Some(note), action: reason.to_owned(), secondary: None };
        if let Err(error) = self.recorder.publish(&event, &object.object_ref(&K::DynamicType::default())).await {
            tracing::debug!(%error, reason, "event was not accepted");
        }
    }

    /// How long to wait after a failure of `class` on `object`; trouble doubles the wait, [`Self::succeeded`] forgets it.
    pub fn retry_after<K: Resource>(&self, object: &K, class: Class) -> Option<Duration>
    where
        K::DynamicType: Default,
    {
        match class {
            Class::Invalid => None,
            Class::NotYet => Some(Duration::from_secs(30)),
            Class::Trouble => {
                let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
                let count = failures.entry(key(object)).or_default();
                *count = count.saturating_add(1);
                Some(backoff(*count, rand::random::<f64>()))
            }
        }
    }

    /// Forgets the failures of `object`.
    pub fn succeeded<K: Resource>(&self, object: &K)
    where
        K::DynamicType: Default,
    {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(&key(object));
    }
}

/// Longest note that the events API takes, in bytes.
const MAX_NOTE: usize = 1024;

/// The object, unless what the API server sent does not fit its type.
pub fn readable<K: Resource>(guarded: &Guarded<K>) -> Result<&K, Unreadable> {
    guarded.0.as_ref().map_err(|invalid| Unreadable(Box::new(invalid.clone())))
}

fn key<K: Resource>(object: &K) -> String
where
    K::DynamicType: Default,
{
    let kind = K::kind(&K::DynamicType::default()).into_owned();
    format!("{kind}/{}/{}", object.namespace().unwrap_or_default(), object.name_any())
}
