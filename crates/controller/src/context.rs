//! What every reconcile gets: client, clock, settings, event recorder, memory of failures.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Resource, ResourceExt as _};

use crate::error::{Class, backoff};
use crate::settings::Settings;

/// Shared by all controllers of the process.
#[derive(Clone)]
pub struct Context {
    /// The API client.
    pub client: Client,
    /// What the administrator set.
    pub settings: Arc<Settings>,
    recorder: Recorder,
    failures: Arc<Mutex<HashMap<String, u32>>>,
}

impl Context {
    /// A context for `client`; events are reported as `kbbackup`.
    pub fn new(client: Client, settings: Settings) -> Self {
        let reporter = Reporter { controller: "kbbackup".to_owned(), instance: std::env::var("POD_NAME").ok() };
        let recorder = Recorder::new(client.clone(), reporter);
        Self { client, settings: Arc::new(settings), recorder, failures: Arc::default() }
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
        note.truncate(note.floor_char_boundary(1024));
        let event = Event { type_, reason: reason.to_owned(), note: Some(note), action: reason.to_owned(), secondary: None };
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

fn key<K: Resource>(object: &K) -> String
where
    K::DynamicType: Default,
{
    let kind = K::kind(&K::DynamicType::default()).into_owned();
    format!("{kind}/{}/{}", object.namespace().unwrap_or_default(), object.name_any())
}
