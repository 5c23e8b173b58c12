//! Reads that both backups and restores need: what they refer to, by store first, and the pods of somebody's database.

use std::fmt::Debug;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kbbackup_api::names::labels;
use kube::api::ListParams;
use kube::core::Selector;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;

use super::repo::Way;
use crate::watch::Guarded;

/// The object of this name: from the store, else from the API server, for the store may be a moment behind.
///
/// # Errors
/// Those of the API server.
pub async fn find<K>(
    store: &Store<Guarded<K>>,
    api: &Api<K>,
    name: &str,
    namespace: Option<&str>,
) -> kube::Result<Option<K>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let mut key = ObjectRef::<Guarded<K>>::new(name);
    if let Some(namespace) = namespace {
        key = key.within(namespace);
    }
    match store.get(&key).and_then(|guarded| guarded.0.as_ref().ok().cloned()) {
        Some(object) => Ok(Some(object)),
        None => api.get_opt(name).await,
    }
}

/// The pods of a namespace that a selector means, by name; none for a selector that selects everything.
///
/// # Errors
/// Those of the API server; a selector that cannot be read selects nothing.
pub async fn pods(client: &Client, namespace: &str, selector: LabelSelector) -> kube::Result<Vec<Pod>> {
    let Ok(selector) = Selector::try_from(selector) else { return Ok(Vec::new()) };
    if selector.selects_all() {
        return Ok(Vec::new());
    }
    let list =
        Api::<Pod>::namespaced(client.clone(), namespace).list(&ListParams::default().labels_from(&selector)).await?;
    let mut pods = list.items;
    // A worker may wear labels of its backup; it is never a database.
    pods.retain(|pod| [labels::BACKUP_NAME, labels::RESTORE].iter().all(|key| !pod.labels().contains_key(*key)));
    pods.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    Ok(pods)
}

/// Whether the namespace has the Secret or claim by which its pods reach the repository.
///
/// # Errors
/// Those of the API server.
pub async fn prepared(client: &Client, namespace: &str, way: &Way) -> kube::Result<bool> {
    Ok(match way {
        Way::Tool { secret } => {
            Api::<Secret>::namespaced(client.clone(), namespace).get_metadata_opt(secret).await?.is_some()
        }
        Way::Mount { claim } => {
            Api::<PersistentVolumeClaim>::namespaced(client.clone(), namespace).get_metadata_opt(claim).await?.is_some()
        }
    })
}
