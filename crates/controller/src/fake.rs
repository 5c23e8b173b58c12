//! An API server in memory, for tests of what is read and written, in which order.
//!
//! It keeps objects by their path, merges patches, minds resource versions and finalizers, and remembers each write. It
//! checks nothing else: of selectors it knows labels and their values, and schemas are the real server's business.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use hyper::{Method, Request, Response, StatusCode};
use k8s_openapi::api::batch::v1::Job;
use kube::Client;
use kube::client::Body;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::store::{Store, store};
use kube::runtime::watcher::Event;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::context::{Context, Stores};
use crate::pool::{Grouped, Pool};
use crate::watch::{Guarded, Watched};
use crate::worker::settings;

/// The server. Clones share their objects.
#[derive(Clone, Default)]
pub(crate) struct Fake {
    objects: Arc<Mutex<BTreeMap<String, Value>>>,
    writes: Arc<Mutex<Vec<String>>>,
    broken: Arc<Mutex<Option<String>>>,
    unserved: Arc<Mutex<Option<String>>>,
    left: Arc<Mutex<Option<usize>>>,
}

impl Fake {
    /// A server with these objects, each by its short path (see [`short`]).
    pub(crate) fn new<'a>(objects: impl IntoIterator<Item = (&'a str, Value)>) -> Self {
        let fake = Self::default();
        fake.objects.lock().unwrap().extend(objects.into_iter().map(|(path, object)| (path.to_owned(), object)));
        fake
    }

    /// A context with empty stores: what is not in the server does not exist.
    pub(crate) fn context(&self) -> Context {
        let client = Client::new(
            {
                let fake = self.clone();
                tower::service_fn(move |request: Request<Body>| {
                    let fake = fake.clone();
                    async move { fake.answer(request).await }
                })
            },
            "default",
        );
        let stores = Stores {
            providers: holding([]),
            repos: holding([]),
            action_sets: holding([]),
            policies: holding([]),
            backups: holding([]),
            restores: holding([]),
            schedules: holding([]),
            jobs: holding([]),
            pods: holding([]),
            cron_jobs: holding([]),
            stateful_sets: holding([]),
            channels: holding([]),
            csi_drivers: holding([]),
            templates: holding([]),
            clusters: holding([]),
            component_definitions: holding([]),
            volume_snapshots: holding([]),
        };
        Context::new(client, settings(), stores, Arc::default(), tokio_util::sync::CancellationToken::new())
    }

    /// Puts an object there.
    pub(crate) fn put(&self, path: &str, object: Value) {
        self.objects.lock().unwrap().insert(path.to_owned(), object);
    }

    /// Takes an object away.
    pub(crate) fn remove(&self, path: &str) {
        self.objects.lock().unwrap().remove(path);
    }

    /// From now on answers to requests for this short path, or for all below it when it ends in a slash, with an error that
    /// will pass.
    pub(crate) fn fails_at(&self, path: &str) {
        *self.broken.lock().unwrap() = Some(path.to_owned());
    }

    /// Takes so many writes; after them every request fails, as if the caller had been killed. `None` takes all.
    pub(crate) fn takes(&self, writes: Option<usize>) {
        *self.left.lock().unwrap() = writes;
    }

    fn is_dead(&self, method: &Method) -> bool {
        match &mut *self.left.lock().unwrap() {
            Some(0) => true,
            Some(left) if method != Method::GET => {
                *left -= 1;
                false
            }
            _ => false,
        }
    }

    /// From now on answers to requests for this short path as if its kind were not served.
    pub(crate) fn lacks(&self, path: &str) {
        *self.unserved.lock().unwrap() = Some(path.to_owned());
    }

    /// The object at this short path.
    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.objects.lock().unwrap().get(path).cloned()
    }

    /// Everything written since the last call, as `VERB path`; events as `EVENT reason`.
    pub(crate) fn writes(&self) -> Vec<String> {
        std::mem::take(&mut *self.writes.lock().unwrap())
    }

    async fn answer(&self, request: Request<Body>) -> Result<Response<Body>, std::convert::Infallible> {
        let (head, body) = request.into_parts();
        let body = body.collect_bytes().await.unwrap_or_default();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let path = short(head.uri.path());
        let broken = self.broken.lock().unwrap().clone();
        let is_broken = broken.is_some_and(|at| at == path || at.ends_with('/') && path.starts_with(&at));
        let is_broken = is_broken || self.is_dead(&head.method);
        let is_unserved = self.unserved.lock().unwrap().as_ref() == Some(&path);
        let (status, answer) = match head.method {
            _ if is_unserved => refusal(StatusCode::NOT_FOUND, "NotFound", &path),
            _ if is_broken => refusal(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", &path),
            Method::GET => self.read(&path, &selector(head.uri.query().unwrap_or_default())),
            method => {
                let kind = head.headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
                let applies = kind.contains("apply-patch");
                if applies && self.get(&path).is_none() {
                    self.put(&path, json!({}));
                }
                self.write(&method, &path, body)
            }
        };
        // Logs are kept as texts.
        let text = answer.as_str().map_or_else(|| answer.to_string(), str::to_owned);
        let mut response = Response::new(Body::from(text.into_bytes()));
        *response.status_mut() = status;
        Ok(response)
    }

    fn read(&self, path: &str, selector: &[(String, String)]) -> (StatusCode, Value) {
        let objects = self.objects.lock().unwrap();
        if let Some(object) = objects.get(path) {
            return (StatusCode::OK, object.clone());
        }
        let is_collection = path.split('/').count() != 3;
        if is_collection {
            // A list without a namespace is one of all namespaces.
            let (home, plural) = path.split_once('/').unwrap_or_default();
            let is_item = |key: &str| match key.split('/').collect::<Vec<_>>()[..] {
                [namespace, kind, _] => kind == plural && (home == "-" || home == namespace),
                _ => false,
            };
            let wears = |item: &Value| selector.iter().all(|(key, value)| item["metadata"]["labels"][key] == **value);
            let items = objects.iter().filter(|(key, item)| is_item(key) && wears(item));
            let items: Vec<_> = items.map(|(_, item)| item).collect();
            return (StatusCode::OK, json!({ "kind": "List", "apiVersion": "v1", "metadata": {}, "items": items }));
        }
        refusal(StatusCode::NOT_FOUND, "NotFound", path)
    }

    fn write(&self, method: &Method, path: &str, body: Value) -> (StatusCode, Value) {
        if path.split('/').nth(1) == Some("events") {
            let reason = body["reason"].as_str().unwrap_or_default();
            self.writes.lock().unwrap().push(format!("EVENT {reason}"));
            return (StatusCode::CREATED, body);
        }
        self.writes.lock().unwrap().push(format!("{method} {path}"));
        let mut objects = self.objects.lock().unwrap();
        match *method {
            Method::POST => {
                let name = body["metadata"]["name"].as_str().unwrap_or_default();
                let key = format!("{path}/{name}");
                if objects.contains_key(&key) {
                    return refusal(StatusCode::CONFLICT, "AlreadyExists", &key);
                }
                let mut object = body;
                object["metadata"]["uid"] = json!(format!("uid-of-{key}"));
                bump(&mut object);
                objects.insert(key, object.clone());
                (StatusCode::CREATED, object)
            }
            Method::DELETE => {
                let Some(object) = objects.get_mut(path) else {
                    return refusal(StatusCode::NOT_FOUND, "NotFound", path);
                };
                if object["metadata"]["finalizers"].as_array().is_some_and(|list| !list.is_empty()) {
                    object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
                } else {
                    objects.remove(path);
                }
                (StatusCode::OK, json!({ "kind": "Status", "apiVersion": "v1", "status": "Success" }))
            }
            _ => {
                let key = path.trim_end_matches("/status");
                let Some(object) = objects.get_mut(key) else {
                    return refusal(StatusCode::NOT_FOUND, "NotFound", key);
                };
                let seen = &body["metadata"]["resourceVersion"];
                if !seen.is_null() && *seen != object["metadata"]["resourceVersion"] {
                    return refusal(StatusCode::CONFLICT, "Conflict", key);
                }
                merge(object, body);
                bump(object);
                let object = object.clone();
                let finalizers = object["metadata"]["finalizers"].as_array().is_some_and(|list| !list.is_empty());
                if !object["metadata"]["deletionTimestamp"].is_null() && !finalizers {
                    objects.remove(key);
                }
                (StatusCode::OK, object)
            }
        }
    }
}

/// A store, or a pool, of these objects.
pub(crate) fn holding<S: Filled>(objects: impl IntoIterator<Item = S::Item>) -> S {
    let (store, mut writer) = store();
    for event in [Event::Init].into_iter().chain(objects.into_iter().map(Event::InitApply)).chain([Event::InitDone]) {
        writer.apply_watcher_event(&event);
    }
    S::over(store)
}

/// What a watch fills.
pub(crate) trait Filled {
    type Item: Watched;

    fn over(store: Store<Self::Item>) -> Self;
}

impl<K: Watched> Filled for Store<K> {
    type Item = K;

    fn over(store: Store<K>) -> Self {
        store
    }
}

impl<K: Grouped> Filled for Pool<K> {
    type Item = K;

    fn over(store: Store<K>) -> Self {
        let pool = Self::grouped(store);
        pool.refill();
        pool
    }
}

/// An object as a watch of its kind gives it.
pub(crate) fn guarded<K: Watched>(object: Value) -> Guarded<K> {
    DeserializeGuard(Ok(from(object)))
}

/// An object out of JSON.
pub(crate) fn from<T: DeserializeOwned>(object: Value) -> T {
    serde_json::from_value(object).unwrap()
}

/// A Job with this state, for a store.
pub(crate) fn job(metadata: Value, condition: Option<&str>) -> Job {
    let conditions: Vec<_> = condition.iter().map(|type_| json!({ "type": type_, "status": "True" })).collect();
    from(json!({ "metadata": metadata, "status": { "conditions": conditions } }))
}

/// `<namespace>/<plural>/<name>[/status]`, without group and version; `-` stands for no namespace.
fn short(path: &str) -> String {
    let rest = match path.trim_matches('/').split_once('/') {
        Some(("api", rest)) => rest.split_once('/').map_or("", |(_, rest)| rest),
        Some(("apis", rest)) => rest.splitn(3, '/').nth(2).unwrap_or_default(),
        _ => path,
    };
    match rest.strip_prefix("namespaces/") {
        Some(inner) if inner.contains('/') => inner.to_owned(),
        _ => format!("-/{rest}"),
    }
}

fn bump(object: &mut Value) {
    let version = object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0_u64);
    object["metadata"]["resourceVersion"] = json!((version + 1).to_string());
}

/// A JSON merge patch.
fn merge(object: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *object = patch;
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    for (key, value) in patch {
        if key == "resourceVersion" || value.is_null() {
            if value.is_null() {
                object.as_object_mut().unwrap().remove(&key);
            }
            continue;
        }
        merge(&mut object[&key], value);
    }
}

/// The labels, with their values, that a list asks for.
fn selector(query: &str) -> Vec<(String, String)> {
    let wanted = query.split('&').find_map(|part| part.strip_prefix("labelSelector=")).unwrap_or_default();
    let wanted = wanted.replace("%2F", "/").replace("%3D", "=").replace("%2C", ",");
    let pairs = wanted.split(',').filter_map(|term| term.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn refusal(status: StatusCode, reason: &str, path: &str) -> (StatusCode, Value) {
    let name = path.rsplit('/').next().unwrap_or_default();
    let answer = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason,
        "message": format!("{reason}: {path}"), "code": status.as_u16(), "details": { "name": name } });
    (status, answer)
}
