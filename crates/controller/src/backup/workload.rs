//! The manifest of the protected workload, kept with its backup so that a restore can bring back a running database.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, PodSpec, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;
use serde::{Deserialize, Serialize};

/// A manifest larger than this loses the contents of its ConfigMaps: annotations of an object may hold 256 KiB in all.
const MAX: usize = 200 * 1024;

/// What the annotation `kbbackup.io/workload` holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// The StatefulSet, without what the API server set.
    pub stateful_set: StatefulSet,
    /// The Services that lead to its pods.
    #[serde(default)]
    pub services: Vec<Service>,
    /// The ConfigMaps that its template refers to.
    #[serde(default)]
    pub config_maps: Vec<ConfigMap>,
    /// The Secrets that its template refers to, by name.
    #[serde(default)]
    pub secrets: Vec<String>,
    /// ConfigMaps whose content did not fit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub omitted: Vec<String>,
}

/// Name of the StatefulSet that controls `pod`.
pub fn controller_of(pod: &Pod) -> Option<&str> {
    let owner = pod.owner_references().iter().find(|owner| owner.controller == Some(true))?;
    (owner.kind == "StatefulSet" && owner.api_version.starts_with("apps/")).then_some(owner.name.as_str())
}

/// ConfigMaps and Secrets that a pod template refers to.
pub fn references(pod: &PodSpec) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut maps, mut secrets) = (BTreeSet::new(), BTreeSet::new());
    let containers = pod.containers.iter().chain(pod.init_containers.iter().flatten());
    for container in containers {
        for from in container.env_from.iter().flatten() {
            maps.extend(from.config_map_ref.iter().map(|map| map.name.clone()));
            secrets.extend(from.secret_ref.iter().map(|secret| secret.name.clone()));
        }
        for source in container.env.iter().flatten().filter_map(|env| env.value_from.as_ref()) {
            maps.extend(source.config_map_key_ref.iter().map(|map| map.name.clone()));
            secrets.extend(
                source.secret_key_ref.iter().filter(|key| key.optional != Some(true)).map(|key| key.name.clone()),
            );
        }
    }
    for volume in pod.volumes.iter().flatten() {
        maps.extend(volume.config_map.iter().map(|map| map.name.clone()));
        let secret = volume.secret.as_ref().filter(|secret| secret.optional != Some(true));
        secrets.extend(secret.and_then(|secret| secret.secret_name.clone()));
        for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
            maps.extend(source.config_map.iter().map(|map| map.name.clone()));
            secrets.extend(
                source.secret.iter().filter(|secret| secret.optional != Some(true)).map(|secret| secret.name.clone()),
            );
        }
    }
    secrets.extend(pod.image_pull_secrets.iter().flatten().map(|secret| secret.name.clone()));
    maps.retain(|name| !name.is_empty());
    secrets.retain(|name| !name.is_empty());
    (maps, secrets)
}

/// Whether a Service leads to the pods of a StatefulSet.
fn serves(service: &Service, set: &StatefulSet) -> bool {
    let Some(spec) = &set.spec else { return false };
    if spec.service_name.as_deref() == Some(service.name_any().as_str()) {
        return true;
    }
    let selector =
        service.spec.as_ref().and_then(|spec| spec.selector.as_ref()).filter(|selector| !selector.is_empty());
    let labels = spec.template.metadata.as_ref().and_then(|meta| meta.labels.as_ref());
    match (selector, labels) {
        (Some(selector), Some(labels)) => selector.iter().all(|(key, value)| labels.get(key) == Some(value)),
        _ => false,
    }
}

/// The manifest of `set` as JSON: cleaned of what belongs to this cluster and this moment.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn manifest(mut set: StatefulSet, services: Vec<Service>, maps: Vec<ConfigMap>) -> serde_json::Result<String> {
    let services = services.into_iter().filter(|service| serves(service, &set)).map(clean_service).collect();
    set.metadata = clean(set.metadata);
    set.status = None;
    let mut secrets = BTreeSet::new();
    if let Some(spec) = &mut set.spec {
        if let Some(pod) = &spec.template.spec {
            secrets = references(pod).1;
        }
        for claim in spec.volume_claim_templates.iter_mut().flatten() {
            claim.status = None;
        }
    }
    let config_maps = maps.into_iter().map(|mut map| {
        map.metadata = clean(map.metadata);
        map
    });
    let mut workload = Workload {
        stateful_set: set,
        services,
        config_maps: config_maps.collect(),
        secrets: secrets.into_iter().collect(),
        omitted: Vec::new(),
    };
    let text = serde_json::to_string(&workload)?;
    if text.len() <= MAX {
        return Ok(text);
    }
    workload.omitted = workload.config_maps.drain(..).map(|map| map.name_any()).collect();
    serde_json::to_string(&workload)
}

fn clean(meta: ObjectMeta) -> ObjectMeta {
    let mut annotations = meta.annotations.unwrap_or_default();
    annotations.retain(|key, _| key != "kubectl.kubernetes.io/last-applied-configuration");
    ObjectMeta {
        name: meta.name,
        namespace: meta.namespace,
        labels: meta.labels,
        annotations: (!annotations.is_empty()).then_some(annotations),
        ..ObjectMeta::default()
    }
}

fn clean_service(mut service: Service) -> Service {
    service.metadata = clean(service.metadata);
    service.status = None;
    if let Some(spec) = &mut service.spec {
        // "None" is a choice of its author; an address was given by the cluster.
        if spec.cluster_ip.as_deref() != Some("None") {
            spec.cluster_ip = None;
        }
        spec.cluster_ips = None;
        spec.health_check_node_port = None;
        for port in spec.ports.iter_mut().flatten() {
            port.node_port = None;
        }
    }
    service
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn set() -> StatefulSet {
        serde_json::from_value(json!({
            "metadata": {"name": "pg", "namespace": "demo", "uid": "u", "resourceVersion": "7", "labels": {"app": "pg"},
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "mine": "kept"}},
            "spec": {"serviceName": "pg-headless", "selector": {"matchLabels": {"app": "pg"}}, "replicas": 1,
                "template": {"metadata": {"labels": {"app": "pg"}}, "spec": {
                    "imagePullSecrets": [{"name": "pull"}],
                    "containers": [{"name": "db", "image": "pg:15",
                        "env": [{"name": "P", "valueFrom": {"secretKeyRef": {"name": "auth", "key": "p"}}},
                            {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "one", "key": "c"}}}],
                        "envFrom": [{"configMapRef": {"name": "two"}}]}],
                    "volumes": [{"name": "v", "configMap": {"name": "three"}}, {"name": "s", "secret": {"secretName": "tls"}}]}},
                "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}, "status": {"phase": "Pending"}}]},
            "status": {"replicas": 1}
        }))
        .unwrap()
    }

    fn service(name: &str, spec: Value) -> Service {
        serde_json::from_value(json!({ "metadata": {"name": name, "uid": "x"}, "spec": spec })).unwrap()
    }

    #[test]
    fn a_manifest_holds_what_a_copy_needs_and_nothing_of_this_cluster() {
        let services = vec![
            service("pg-headless", json!({ "clusterIP": "None", "clusterIPs": ["None"] })),
            service(
                "pg-rw",
                json!({ "clusterIP": "10.1.2.3", "selector": {"app": "pg"}, "ports": [{"port": 5432, "nodePort": 31000}] }),
            ),
            service("other", json!({ "selector": {"app": "other"} })),
            service("bare", json!({ "clusterIP": "10.1.2.4" })),
        ];
        let map =
            serde_json::from_value(json!({ "metadata": {"name": "one", "uid": "x"}, "data": {"c": "1"} })).unwrap();
        let text = manifest(set(), services, vec![map]).unwrap();
        insta::assert_json_snapshot!(serde_json::from_str::<Value>(&text).unwrap());
    }

    #[test]
    fn references_are_found_everywhere() {
        let (maps, secrets) = references(set().spec.unwrap().template.spec.as_ref().unwrap());
        assert_eq!(maps.into_iter().collect::<Vec<_>>(), ["one", "three", "two"]);
        assert_eq!(secrets.into_iter().collect::<Vec<_>>(), ["auth", "pull", "tls"]);
    }

    #[test]
    fn a_manifest_that_is_too_large_names_what_it_lost() {
        let map =
            serde_json::from_value(json!({ "metadata": {"name": "big"}, "data": {"c": "x".repeat(MAX)} })).unwrap();
        let workload: Workload = serde_json::from_str(&manifest(set(), vec![], vec![map]).unwrap()).unwrap();
        assert_eq!(workload.omitted, ["big"]);
        assert!(workload.config_maps.is_empty());
    }

    #[test]
    fn only_a_stateful_set_is_a_workload() {
        let pod = |kind: &str| -> Pod {
            serde_json::from_value(json!({ "metadata": {"ownerReferences": [
                {"apiVersion": "apps/v1", "kind": kind, "name": "pg", "uid": "u", "controller": true}]} }))
            .unwrap()
        };
        assert_eq!(controller_of(&pod("StatefulSet")), Some("pg"));
        assert_eq!(controller_of(&pod("ReplicaSet")), None);
    }
}
