//! What the populator asks of KubeBlocks' own kinds, where a cluster has them. They are read as plain JSON: only a few
//! fields matter, and their other versions may differ.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kbbackup_api::names::labels;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::{Api, ResourceExt as _};

use crate::context::Context;
use crate::error::is_not_found;
use crate::worker::error::{Doing as _, Error};

/// API group of Clusters and Components.
pub const APPS: &str = "apps.kubeblocks.io";
/// API group of what runs their pods.
pub const WORKLOADS: &str = "workloads.kubeblocks.io";

fn resource(group: &str, kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind))
}

/// An object of KubeBlocks; `None` when it, or its kind, is not there. Without a namespace, a cluster-scoped one.
///
/// # Errors
/// Those of the API server.
pub async fn get(
    ctx: &Context,
    group: &str,
    kind: &str,
    namespace: Option<&str>,
    name: &str,
) -> Result<Option<DynamicObject>, Error> {
    let resource = resource(group, kind);
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(ctx.client.clone(), namespace, &resource),
        None => Api::all_with(ctx.client.clone(), &resource),
    };
    api.get_opt(name).await.doing(|| format!("reading {kind} {name}"))
}

/// The cluster and component that a claim belongs to.
pub fn component(claim: &PersistentVolumeClaim) -> Option<(&str, &str)> {
    let label = |key: &str| claim.labels().get(key).map(String::as_str).filter(|value| !value.is_empty());
    Some((label(labels::INSTANCE)?, label(labels::COMPONENT_NAME)?))
}

/// A label selector for all that belongs to the claim's component.
pub fn component_selector(claim: &PersistentVolumeClaim) -> Option<String> {
    let (cluster, component) = component(claim)?;
    Some(format!("{}={cluster},{}={component}", labels::INSTANCE, labels::COMPONENT_NAME))
}

/// The labels of [`component_selector`].
pub fn component_labels(claim: &PersistentVolumeClaim) -> BTreeMap<String, String> {
    let Some((cluster, component)) = component(claim) else { return BTreeMap::new() };
    [(labels::INSTANCE.to_owned(), cluster.to_owned()), (labels::COMPONENT_NAME.to_owned(), component.to_owned())]
        .into()
}

/// The components of the claim's sharding in name order; `None` when it belongs to none.
///
/// # Errors
/// Those of the API server.
pub async fn shards(ctx: &Context, claim: &PersistentVolumeClaim) -> Result<Option<Vec<String>>, Error> {
    let Some(sharding) = claim.labels().get(labels::SHARDING_NAME).filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    let Some((cluster, _)) = component(claim) else { return Ok(None) };
    let namespace = claim.namespace().unwrap_or_default();
    let api: Api<DynamicObject> = Api::namespaced_with(ctx.client.clone(), &namespace, &resource(APPS, "Component"));
    let selector = format!("{}={cluster},{}={sharding}", labels::INSTANCE, labels::SHARDING_NAME);
    let list = match api.list(&ListParams::default().labels(&selector)).await {
        Err(error) if is_not_found(&error) => return Ok(None),
        other => other.doing(|| format!("listing the components of sharding {sharding}"))?,
    };
    let mut all: Vec<_> = list.items.into_iter().map(|component| component_name(&component, cluster)).collect();
    all.sort();
    Ok(Some(all))
}

fn component_name(component: &DynamicObject, cluster: &str) -> String {
    let name = component.name_any();
    let short = name.strip_prefix(cluster).and_then(|rest| rest.strip_prefix('-')).unwrap_or(&name).to_owned();
    component.labels().get(labels::COMPONENT_NAME).cloned().unwrap_or(short)
}

/// For what belongs to `object`.
pub fn owner_reference(object: &DynamicObject) -> Option<OwnerReference> {
    let types = object.types.as_ref()?;
    Some(OwnerReference {
        api_version: types.api_version.clone(),
        kind: types.kind.clone(),
        name: object.metadata.name.clone()?,
        uid: object.metadata.uid.clone()?,
        controller: Some(true),
        block_owner_deletion: None,
    })
}

/// Whether the object's phase is Running.
pub fn is_running(object: &DynamicObject) -> bool {
    object.data["status"]["phase"] == "Running"
}

/// Whether a Component still runs its actions after creation.
pub fn is_in_post_provision(component: &DynamicObject) -> bool {
    let conditions = component.data["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|condition| {
        condition["type"] == "Progressing"
            && condition["status"] == "True"
            && condition["reason"].as_str().is_some_and(|reason| reason.starts_with("PostProvision"))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn behaviour_6_9_post_provision_is_awaited() {
        let component = |status: serde_json::Value| -> DynamicObject {
            serde_json::from_value(json!({ "apiVersion": "apps.kubeblocks.io/v1", "kind": "Component",
                "metadata": {"name": "c-pg"}, "status": {"phase": "Running", "conditions": [
                    {"type": "Progressing", "status": status, "reason": "PostProvision"}]} }))
            .unwrap()
        };
        assert!(is_running(&component(json!("True"))));
        assert!(is_in_post_provision(&component(json!("True"))));
        assert!(!is_in_post_provision(&component(json!("False"))));
    }
}
