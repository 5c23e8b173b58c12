//! Environment lists: order matters, a later entry of the same name wins in the pod.

use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod, SecretKeySelector};
use kbbackup_api::v1alpha1::{ConnectionCredential, ContainerPort};

/// A plain variable.
pub fn var(name: &str, value: impl Into<String>) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.into()), value_from: None }
}

/// A variable from a key of a Secret, which must exist.
pub fn secret(name: &str, secret: &str, key: &str) -> EnvVar {
    let selector = SecretKeySelector { name: secret.to_owned(), key: key.to_owned(), optional: None };
    let source = EnvVarSource { secret_key_ref: Some(selector), ..EnvVarSource::default() };
    EnvVar { name: name.to_owned(), value: None, value_from: Some(source) }
}

/// A variable from a field of the pod itself.
pub fn field(name: &str, path: &str) -> EnvVar {
    let selector = ObjectFieldSelector { field_path: path.to_owned(), ..ObjectFieldSelector::default() };
    let source = EnvVarSource { field_ref: Some(selector), ..EnvVarSource::default() };
    EnvVar { name: name.to_owned(), value: None, value_from: Some(source) }
}

/// Merges `others` into `list`: the last entry of an equal name is replaced in place, other names are appended.
pub fn merge(list: &mut Vec<EnvVar>, others: &[EnvVar]) {
    for other in others {
        match list.iter_mut().rev().find(|entry| entry.name == other.name) {
            Some(entry) => *entry = other.clone(),
            None => list.push(other.clone()),
        }
    }
}

/// The plain value that `name` has in the pod, as far as it is known before the pod runs.
pub fn literal(list: &[EnvVar], name: &str) -> Option<String> {
    let entry = list.iter().rev().find(|entry| entry.name == name)?;
    if entry.value_from.is_some() { None } else { Some(entry.value.clone().unwrap_or_default()) }
}

/// Our variable for the image of the database itself; recipes without an image of their own use it.
pub const KBB_IMAGE: &str = "KBB_IMAGE";

/// The image of an action: `$(NAME)` is replaced from plain variables; an empty image means the database's own.
pub fn image(image: &str, list: &[EnvVar]) -> String {
    let image = if image.is_empty() { "$(KBB_IMAGE)" } else { image };
    kbbackup_core::env::expand(image, |name| literal(list, name))
}

/// A port name that no container of the pod has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("pod {pod} has no port {port:?} in a container {container:?}, which the target's containerPort names")]
pub struct PortMissing {
    pod: String,
    container: String,
    port: String,
}

/// Where the database of `pod` listens and how to log in: behaviour 3.4, in its order.
///
/// # Errors
/// [`PortMissing`] when `port` names one that the pod lacks.
pub fn connection(
    pod: &Pod,
    credential: Option<&ConnectionCredential>,
    port: Option<&ContainerPort>,
) -> Result<Vec<EnvVar>, PortMissing> {
    let from_secret = |name: &str, key: Option<&str>| {
        let key = key.filter(|key| !key.is_empty())?;
        Some(secret(name, &credential?.secret_name, key))
    };
    let port = match from_secret("DP_DB_PORT", credential.and_then(|credential| credential.port_key.as_deref())) {
        Some(port) => port,
        None => var("DP_DB_PORT", named_port(pod, port)?.to_string()),
    };
    let mut list = vec![
        from_secret("DP_DB_HOST", credential.and_then(|credential| credential.host_key.as_deref()))
            .unwrap_or_else(|| var("DP_DB_HOST", host(pod))),
        port,
    ];
    if let Some(credential) = credential {
        list.push(secret("DP_DB_PASSWORD", &credential.secret_name, credential.password_key()));
        list.push(secret("DP_DB_USER", &credential.secret_name, credential.username_key()));
    }
    Ok(list)
}

/// `<hostname or pod name>.<subdomain>` when the pod has a subdomain, else its address.
fn host(pod: &Pod) -> String {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let spec = pod.spec.as_ref();
    match spec.and_then(|spec| spec.subdomain.as_deref()).filter(|subdomain| !subdomain.is_empty()) {
        Some(subdomain) => {
            let hostname = spec.and_then(|spec| spec.hostname.as_deref()).filter(|hostname| !hostname.is_empty());
            format!("{}.{subdomain}", hostname.unwrap_or(name))
        }
        None => pod.status.as_ref().and_then(|status| status.pod_ip.clone()).unwrap_or_default(),
    }
}

/// The named port, else the first one of the first container, else 0.
fn named_port(pod: &Pod, wanted: Option<&ContainerPort>) -> Result<i32, PortMissing> {
    let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let Some(wanted) = wanted else {
        let first = containers.first().and_then(|container| container.ports.as_ref()?.first());
        return Ok(first.map_or(0, |port| port.container_port));
    };
    containers
        .iter()
        .filter(|container| container.name == wanted.container_name)
        .flat_map(|container| container.ports.iter().flatten())
        .find(|port| port.name.as_deref() == Some(wanted.port_name.as_str()))
        .map(|port| port.container_port)
        .ok_or_else(|| PortMissing {
            pod: pod.metadata.name.clone().unwrap_or_default(),
            container: wanted.container_name.clone(),
            port: wanted.port_name.clone(),
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({ "metadata": {"name": "pg-0"}, "spec": spec, "status": {"podIP": "10.0.0.7"} }))
            .unwrap()
    }

    fn names(list: &[EnvVar]) -> Vec<&str> {
        list.iter().map(|entry| entry.name.as_str()).collect()
    }

    #[test]
    fn behaviour_4_7_a_merge_replaces_the_last_entry_in_place() {
        let mut list = vec![var("A", "1"), var("B", "1"), var("A", "2")];
        merge(&mut list, &[var("A", "3"), var("C", "1")]);
        assert_eq!(names(&list), ["A", "B", "A", "C"]);
        assert_eq!(literal(&list, "A").as_deref(), Some("3"));
        assert_eq!(list[0].value.as_deref(), Some("1"));
    }

    #[test]
    fn behaviour_4_7_images_expand_from_plain_values_only() {
        let list = [var("TAG", "16"), secret("PASSWORD", "s", "k"), var(KBB_IMAGE, "postgres:15")];
        for (given, wanted) in [
            ("repo/pg:$(TAG)", "repo/pg:16"),
            ("repo/pg:$(PASSWORD)", "repo/pg:$(PASSWORD)"),
            ("$(KBB_IMAGE)", "postgres:15"),
            ("", "postgres:15"),
        ] {
            assert_eq!(image(given, &list), wanted);
        }
    }

    #[test]
    fn behaviour_3_4_host_and_port() {
        let containers = json!([{ "name": "db", "ports": [{"containerPort": 5432, "name": "pg"}] },
            { "name": "metrics", "ports": [{"containerPort": 9187, "name": "http"}] }]);
        let port =
            |container: &str, port: &str| ContainerPort { container_name: container.into(), port_name: port.into() };
        for (spec, wanted_port, host, number) in [
            (json!({ "subdomain": "pg", "containers": containers }), None, "pg-0.pg", "5432"),
            (json!({ "subdomain": "pg", "hostname": "h", "containers": containers }), None, "h.pg", "5432"),
            (json!({ "containers": containers }), Some(port("metrics", "http")), "10.0.0.7", "9187"),
            (json!({ "containers": [{"name": "db"}] }), None, "10.0.0.7", "0"),
        ] {
            let list = connection(&pod(spec), None, wanted_port.as_ref()).unwrap();
            assert_eq!(names(&list), ["DP_DB_HOST", "DP_DB_PORT"]);
            assert_eq!(
                (literal(&list, "DP_DB_HOST").unwrap().as_str(), literal(&list, "DP_DB_PORT").unwrap().as_str()),
                (host, number)
            );
        }
        assert!(connection(&pod(json!({ "containers": containers })), None, Some(&port("db", "http"))).is_err());
    }

    #[test]
    fn behaviour_3_4_credentials_are_references() {
        let credential: ConnectionCredential =
            serde_json::from_value(json!({ "secretName": "auth", "hostKey": "host", "portKey": "port" })).unwrap();
        let missing = ContainerPort { container_name: "x".into(), port_name: "y".into() };
        let list = connection(&pod(json!({ "containers": [] })), Some(&credential), Some(&missing)).unwrap();
        assert_eq!(names(&list), ["DP_DB_HOST", "DP_DB_PORT", "DP_DB_PASSWORD", "DP_DB_USER"]);
        assert!(list.iter().all(|entry| entry.value.is_none()));
        let key = |entry: &EnvVar| entry.value_from.clone().unwrap().secret_key_ref.unwrap().key;
        assert_eq!(list.iter().map(key).collect::<Vec<_>>(), ["host", "port", "password", "username"]);
    }
}
