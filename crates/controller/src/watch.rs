//! One watch per kind, shared by every controller that looks at it.
//!
//! kube's own shared streams forget deletions and can stall on one; here a deletion wakes its owner like any change.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::store::{Store, Writer};
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::wait::{Condition as _, await_condition, conditions};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;

use crate::error::is_not_found;
use crate::pool::{Grouped, Pool};

/// An object as the API server sent it, or why it could not be read. One bad object must not stop a watch.
pub type Guarded<K> = DeserializeGuard<K>;

/// Every bound that watching a kind needs, in one name.
pub trait Watched: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static {}

impl<K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static> Watched for K {}

/// A watch in the making: hand out readers and subscriptions first, then [`Shared::run`] it.
pub struct Shared<K: Watched> {
    api: Api<K>,
    config: watcher::Config,
    strip: fn(&mut K),
    keep: fn(&K) -> bool,
    scope: Scope,
    served_by: Option<(Client, &'static str)>,
    writer: Writer<K>,
    pool: Pool<K>,
    subscribers: Vec<UnboundedSender<Arc<K>>>,
}

/// The namespaces whose objects are looked at. Objects without a namespace always are.
#[derive(Clone, Debug, Default)]
pub struct Scope(Option<Arc<[String]>>);

impl Scope {
    /// These namespaces; all when there is none.
    pub fn of(namespaces: &[String]) -> Self {
        Self((!namespaces.is_empty()).then(|| namespaces.into()))
    }

    /// Whether an object of this namespace is looked at.
    pub fn includes(&self, namespace: Option<&str>) -> bool {
        match (&self.0, namespace) {
            (Some(list), Some(namespace)) => list.iter().any(|included| included == namespace),
            _ => true,
        }
    }
}

impl<K: Watched> Shared<K> {
    /// A watch of all objects of `api` that `config` selects. `strip` drops what nobody reads before it is stored.
    pub fn new(api: Api<K>, config: watcher::Config, strip: fn(&mut K)) -> Self {
        let (store, writer) = reflector::store();
        let (keep, scope) = (|_: &K| true, Scope::default());
        let pool = Pool::plain(store);
        Self { api, config, strip, keep, scope, served_by: None, writer, pool, subscribers: Vec::new() }
    }

    /// For kinds that no label selects: holds, and tells of, only the objects that `keep` says; one that it says no longer
    /// is told once, as if it were deleted. It is asked after stripping.
    #[must_use]
    pub fn keep(self, keep: fn(&K) -> bool) -> Self {
        Self { keep, ..self }
    }

    /// Leaves out the objects of other namespaces.
    #[must_use]
    pub fn within(self, scope: &Scope) -> Self {
        Self { scope: scope.clone(), ..self }
    }

    /// For a kind that a cluster may lack: watches once the API server serves the custom resource definition `crd`.
    #[must_use]
    pub fn when_served(self, client: &Client, crd: &'static str) -> Self {
        Self { served_by: Some((client.clone(), crd)), ..self }
    }

    /// Keeps the objects by the groups that they name, for [`Self::pool`].
    #[must_use]
    pub fn grouped(self) -> Self
    where
        K: Grouped,
    {
        Self { pool: Pool::grouped(Store::clone(&self.pool)), ..self }
    }

    /// The objects as they are now, also by their groups; empty unless the watch is [`Self::grouped`].
    pub fn pool(&self) -> Pool<K> {
        self.pool.clone()
    }

    /// The objects as they are now, once the first list is in.
    pub fn reader(&self) -> Store<K> {
        Store::clone(&self.pool)
    }

    /// Every object that appears, changes or goes away.
    pub fn subscribe(&mut self) -> UnboundedReceiver<Arc<K>> {
        let (sender, receiver) = unbounded();
        self.subscribers.push(sender);
        receiver
    }

    /// Watches until dropped.
    pub async fn run(self) {
        let Self { api, config, strip, keep, scope, served_by, mut writer, pool, subscribers } = self;
        loop {
            if let Some((client, crd)) = &served_by {
                served(client, crd, &K::version(&())).await;
            }
            let optional = served_by.is_some();
            let events = Self::events(&api, &config, strip, keep, &scope, Store::clone(&pool));
            fan_out(events, &mut writer, &pool, &subscribers, optional).await;
            if !optional {
                return;
            }
            // The definition is gone, and every object with it. A new one may come.
            tracing::info!(kind = %K::kind(&()), "this kind is served no more");
            let none = futures::stream::iter([Ok(Event::Init), Ok(Event::InitDone)]);
            fan_out(none, &mut writer, &pool, &subscribers, false).await;
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn events(
        api: &Api<K>,
        config: &watcher::Config,
        strip: fn(&mut K),
        keep: fn(&K) -> bool,
        scope: &Scope,
        known: Store<K>,
    ) -> impl Stream<Item = watcher::Result<Event<K>>> + use<K> {
        let scope = scope.clone();
        let events = watch(api.clone(), config.clone()).default_backoff().modify(move |object| {
            drop_bookkeeping(object);
            strip(object);
        });
        let events = events.try_filter(move |event| futures::future::ready(is_within(&scope, event)));
        events.try_filter_map(move |event| {
            let holds = |object: &K| known.get(&ObjectRef::from_obj(object)).is_some();
            futures::future::ready(Ok(sift(event, keep, holds)))
        })
    }
}

/// Between two looks at a kind that went away: a definition may be established a moment before it answers.
const PAUSE: Duration = Duration::from_secs(1);

/// Waits until a definition is there and this version of its kind is served.
async fn served(client: &Client, crd: &str, version: &str) {
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    let mut pause = PAUSE;
    let is_served = |definition: Option<&CustomResourceDefinition>| {
        let has = |definition: &CustomResourceDefinition| {
            definition.spec.versions.iter().any(|offered| offered.name == version && offered.served)
        };
        definition.is_some_and(has) && conditions::is_crd_established().matches_object(definition)
    };
    while let Err(error) = await_condition(api.clone(), crd, is_served).await {
        tracing::warn!(crd, %error, "cannot tell whether this kind is served");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(300));
    }
}

fn is_within<K: Resource>(scope: &Scope, event: &Event<K>) -> bool {
    match event {
        Event::Apply(object) | Event::InitApply(object) | Event::Delete(object) => {
            scope.includes(object.meta().namespace.as_deref())
        }
        Event::Init | Event::InitDone => true,
    }
}

/// What is left of an event when only some objects are kept; `holds` tells whether the store has an object.
fn sift<K>(event: Event<K>, keep: fn(&K) -> bool, holds: impl Fn(&K) -> bool) -> Option<Event<K>> {
    match event {
        Event::Apply(object) if !keep(&object) => holds(&object).then_some(Event::Delete(object)),
        Event::Delete(object) => (keep(&object) || holds(&object)).then_some(Event::Delete(object)),
        Event::InitApply(object) => keep(&object).then_some(Event::InitApply(object)),
        other @ (Event::Apply(_) | Event::Init | Event::InitDone) => Some(other),
    }
}

async fn fan_out<K: Watched>(
    events: impl Stream<Item = watcher::Result<Event<K>>>,
    writer: &mut Writer<K>,
    pool: &Pool<K>,
    subscribers: &[UnboundedSender<Arc<K>>],
    optional: bool,
) {
    let tell = |object: &Arc<K>| {
        for subscriber in subscribers {
            // An error means that this controller has stopped; the others go on.
            subscriber.unbounded_send(Arc::clone(object)).ok();
        }
    };
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        let event = match event {
            Ok(event) => event,
            Err(error) if optional && is_gone(&error) => return,
            Err(error) => {
                tracing::warn!(kind = %K::kind(&()), error = &error as &dyn std::error::Error, "watch was interrupted");
                continue;
            }
        };
        // A list replaces the store at its end. Those who vanished while we were not watching are told, too.
        let before = if matches!(event, Event::InitDone) { pool.state() } else { Vec::new() };
        let this = match &event {
            Event::Apply(object) | Event::Delete(object) => Some(ObjectRef::from_obj(object)),
            Event::Init | Event::InitApply(_) | Event::InitDone => None,
        };
        let old = this.as_ref().and_then(|this| pool.get(this));
        writer.apply_watcher_event(&event);
        let new = this.as_ref().and_then(|this| pool.get(this));
        pool.exchange(old.as_ref(), new.as_ref());
        match event {
            Event::Apply(object) | Event::Delete(object) => tell(&new.unwrap_or_else(|| Arc::new(object))),
            Event::Init | Event::InitApply(_) => {}
            Event::InitDone => {
                pool.refill();
                before.iter().filter(|object| pool.get(&ObjectRef::from_obj(object.as_ref())).is_none()).for_each(tell);
                pool.state().iter().for_each(tell);
            }
        }
    }
}

/// Whether the API server does not know the kind any more.
fn is_gone(error: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, WatchError, WatchFailed, WatchStartFailed};
    match error {
        InitialListFailed(source) | WatchStartFailed(source) | WatchFailed(source) => is_not_found(source),
        WatchError(status) => status.code == 404,
        watcher::Error::NoResourceVersion => false,
    }
}

/// Longest annotation value that a store keeps, in bytes.
const LONG: usize = 1024;

/// Blanks long annotation values (recorded manifests, snapshots of clusters): thousands of them would fill the memory,
/// and each is read once. The keys stay, so a store still tells that they are there; who needs a value gets the object.
pub fn hollow_out<K: Resource>(object: &mut K) {
    object.annotations_mut().values_mut().filter(|value| value.len() > LONG).for_each(|value| *value = String::new());
}

/// Drops what only the API server and kubectl need.
fn drop_bookkeeping<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
    object.annotations_mut().remove("kubectl.kubernetes.io/last-applied-configuration");
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn named(name: &str) -> ConfigMap {
        ConfigMap {
            metadata: kube::api::ObjectMeta { name: Some(name.into()), ..Default::default() },
            ..Default::default()
        }
    }

    async fn told(events: Vec<Event<ConfigMap>>) -> Vec<String> {
        let (store, mut writer) = reflector::store();
        let (sender, receiver) = unbounded();
        let pool = Pool::plain(store);
        fan_out(stream::iter(events.into_iter().map(Ok)), &mut writer, &pool, &[sender], false).await;
        let mut names: Vec<_> = receiver.map(|object| object.name_any()).collect().await;
        names.sort();
        names
    }

    #[test]
    fn behaviour_8_1_objects_of_other_namespaces_are_left_out() {
        let event = |namespace: Option<&str>| {
            let mut object = named("a");
            object.metadata.namespace = namespace.map(str::to_owned);
            Event::Apply(object)
        };
        let some = Scope::of(&["a".to_owned(), "b".to_owned()]);
        assert!(is_within(&some, &event(Some("b"))) && is_within(&some, &event(None)));
        assert!(!is_within(&some, &event(Some("c"))));
        assert!(is_within(&Scope::of(&[]), &event(Some("c"))));
    }

    #[test]
    fn what_nobody_needs_is_neither_held_nor_told() {
        let keep: fn(&ConfigMap) -> bool = |map| map.name_any() == "ours";
        let left = |event, held: bool| sift(event, keep, |_| held).map(|event| matches!(event, Event::Delete(_)));
        assert_eq!(left(Event::Apply(named("ours")), false), Some(false));
        assert_eq!(left(Event::Apply(named("other")), false), None);
        assert_eq!(left(Event::Apply(named("other")), true), Some(true), "it was ours: it leaves the store");
        assert_eq!(left(Event::InitApply(named("other")), true), None);
        assert_eq!(left(Event::Delete(named("other")), false), None);
        assert_eq!(left(Event::Delete(named("ours")), true), Some(true));
    }

    #[test]
    fn long_annotations_are_not_kept_but_still_seen() {
        let mut map = named("a");
        map.annotations_mut().insert("long".into(), "x".repeat(LONG + 1));
        map.annotations_mut().insert("short".into(), "kept".into());
        hollow_out(&mut map);
        assert_eq!(map.annotations()["long"], "");
        assert_eq!(map.annotations()["short"], "kept");
    }

    #[tokio::test]
    async fn groups_follow_the_store() {
        use k8s_openapi::api::core::v1::Pod;
        let pod = |name: &str| Pod {
            metadata: kube::api::ObjectMeta {
                name: Some(name.into()),
                labels: Some([("dataprotection.kubeblocks.io/backup-name".to_owned(), "b".to_owned())].into()),
                ..Default::default()
            },
            ..Default::default()
        };
        let (store, mut writer) = reflector::store();
        let pool = Pool::grouped(store);
        let mut names = Vec::new();
        for events in [
            vec![Event::Init, Event::InitApply(pod("a")), Event::InitDone],
            vec![Event::Apply(pod("c")), Event::Apply(pod("c"))],
            vec![Event::Delete(pod("a"))],
        ] {
            fan_out(stream::iter(events.into_iter().map(Ok)), &mut writer, &pool, &[], false).await;
            let found = pool.group(&crate::pool::workers_of_backup("b"));
            names.push(found.iter().map(|pod| pod.name_any()).collect::<Vec<_>>().join(","));
        }
        assert_eq!(names, ["a", "a,c", "c"]);
    }

    #[tokio::test]
    async fn a_deletion_is_told() {
        assert_eq!(told(vec![Event::Apply(named("a")), Event::Delete(named("a"))]).await, ["a", "a"]);
    }

    #[tokio::test]
    async fn an_object_that_vanished_between_two_lists_is_told() {
        let events = vec![Event::Apply(named("a")), Event::Init, Event::InitApply(named("b")), Event::InitDone];
        assert_eq!(told(events).await, ["a", "a", "b"]);
    }

    #[tokio::test]
    async fn a_list_is_told_once_it_is_in_the_store() {
        assert!(told(vec![Event::Init, Event::InitApply(named("b"))]).await.is_empty());
    }
}
