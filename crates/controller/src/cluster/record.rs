//! What a Backup remembers of the cluster that its database belongs to: behaviour 7.2.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kbbackup_api::apps;
use kbbackup_api::names::labels;
use kbbackup_core::accounts::{Accounts, Key, NONCE};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::is_not_found;
use crate::worker::error::{Doing as _, Error};

/// Annotations that say nothing about the database.
const NOT_KEPT: [&str; 2] = ["kubeblocks.io/ops-request", "kubectl.kubernetes.io/last-applied-configuration"];

/// What is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// UID of the cluster.
    pub uid: String,
    /// JSON of the cluster.
    pub snapshot: String,
    /// JSON of the sealed passwords of its accounts.
    pub accounts: String,
}

/// Reads cluster `name` and its accounts; `None` when there is no such cluster, or no such kind.
///
/// # Errors
/// Those of the API server.
pub async fn read(ctx: &Context, namespace: &str, name: &str) -> Result<Option<Record>, Error> {
    let Some(cluster) = cluster(ctx, namespace, name).await? else { return Ok(None) };
    let accounts = match &ctx.settings.accounts_key {
        None => Accounts::new(),
        Some(key) => {
            let selector =
                format!("{}={},{}={name}", labels::MANAGED_BY, labels::MANAGED_BY_KUBEBLOCKS, labels::INSTANCE);
            let api: Api<Secret> = Api::namespaced(ctx.client.clone(), namespace);
            let secrets = api.list(&ListParams::default().labels(&selector)).await;
            let secrets = secrets.doing(|| format!("listing the accounts of cluster {name}"))?;
            accounts(&cluster, &secrets.items, key, rand::random)
        }
    };
    let uid = cluster.uid().unwrap_or_default();
    Ok(Some(Record { uid, snapshot: snapshot(&cluster), accounts: json!(accounts).to_string() }))
}

/// The whole cluster; `None` when it, or its kind, is not there.
///
/// # Errors
/// Those of the API server.
pub async fn cluster(ctx: &Context, namespace: &str, name: &str) -> Result<Option<DynamicObject>, Error> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(apps::GROUP, "v1", "Cluster"));
    let api: Api<DynamicObject> = Api::namespaced_with(ctx.client.clone(), namespace, &kind);
    match api.get_opt(name).await {
        Err(error) if is_not_found(&error) => Ok(None),
        other => other.doing(|| format!("reading cluster {name}")),
    }
}

/// The cluster as it can be created again.
fn snapshot(cluster: &DynamicObject) -> String {
    let mut annotations = cluster.annotations().clone();
    annotations.retain(|key, _| !NOT_KEPT.contains(&key.as_str()));
    let mut metadata = json!({ "name": cluster.metadata.name, "namespace": cluster.metadata.namespace });
    if !annotations.is_empty() {
        metadata["annotations"] = json!(annotations);
    }
    let api_version = format!("{}/v1", apps::GROUP);
    let spec = cluster.data.get("spec").cloned().unwrap_or_else(|| json!({}));
    json!({ "apiVersion": api_version, "kind": "Cluster", "metadata": metadata, "spec": spec }).to_string()
}

/// The passwords of system accounts, sealed, by component or sharding.
fn accounts(cluster: &DynamicObject, secrets: &[Secret], key: &Key, nonce: impl Fn() -> [u8; NONCE]) -> Accounts {
    let mut all = Accounts::new();
    for secret in secrets {
        let text = |key: &str| {
            let bytes = secret.data.as_ref().and_then(|data| data.get(key));
            bytes.and_then(|bytes| String::from_utf8(bytes.0.clone()).ok())
        };
        let (Some(user), Some(password)) = (text("username"), text("password")) else { continue };
        let Some(owner) = owner(cluster, secret, &user) else { continue };
        all.entry(owner).or_default().extend(key.seal(&password, nonce()).map(|sealed| (user, sealed)));
    }
    all
}

/// The component or sharding whose account a Secret is; `None` for other Secrets.
fn owner(cluster: &DynamicObject, secret: &Secret, user: &str) -> Option<String> {
    let (name, cluster_name) = (secret.name_any(), cluster.name_any());
    let shardings = cluster.data.pointer("/spec/shardings").and_then(Value::as_array).into_iter().flatten();
    let mut shardings = shardings.filter_map(|sharding| sharding.get("name")?.as_str());
    if let Some(sharding) = shardings.find(|sharding| name == format!("{cluster_name}-{sharding}-{user}")) {
        return Some(sharding.to_owned());
    }
    let labels: &BTreeMap<String, String> = secret.labels();
    labels.get(labels::SYSTEM_ACCOUNT)?;
    labels.get(labels::COMPONENT_NAME).or_else(|| labels.get(labels::SHARDING_NAME)).cloned()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    fn cluster() -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "apps.kubeblocks.io/v1", "kind": "Cluster",
            "metadata": {"name": "c", "namespace": "demo", "uid": "u", "resourceVersion": "7", "labels": {"l": "x"},
                "annotations": {"keep": "me", "kubeblocks.io/ops-request": "[]",
                    "kubectl.kubernetes.io/last-applied-configuration": "{}"}},
            "spec": {"terminationPolicy": "Delete", "unknown": {"is": ["kept"]}, "shardings": [{"name": "shard"}]},
            "status": {"phase": "Running"},
        }))
        .unwrap()
    }

    fn secret(name: &str, labels: Value, user: &str) -> Secret {
        let data = [("username", user), ("password", "secret")]
            .map(|(key, value)| (key.to_owned(), ByteString(value.as_bytes().to_vec())));
        let metadata = serde_json::from_value(json!({ "name": name, "labels": labels })).unwrap();
        Secret { metadata, data: Some(data.into()), ..Secret::default() }
    }

    #[test]
    fn behaviour_7_2_the_cluster_as_it_can_be_created_again() {
        let kept: Value = serde_json::from_str(&snapshot(&cluster())).unwrap();
        assert_eq!(
            kept,
            json!({ "apiVersion": "apps.kubeblocks.io/v1", "kind": "Cluster",
                "metadata": {"name": "c", "namespace": "demo", "annotations": {"keep": "me"}},
                "spec": {"terminationPolicy": "Delete", "unknown": {"is": ["kept"]}, "shardings": [{"name": "shard"}]} })
        );
    }

    #[test]
    fn behaviour_7_2_accounts_are_sealed_by_component_or_sharding() {
        let key = Key::derive("key");
        let account =
            json!({ "apps.kubeblocks.io/system-account": "root", "apps.kubeblocks.io/component-name": "mysql" });
        let secrets = [
            secret("c-mysql-account-root", account, "root"),
            secret("c-shard-admin", json!({}), "admin"),
            secret("c-conn-credential", json!({}), "root"),
        ];
        let found = accounts(&cluster(), &secrets, &key, || [7; NONCE]);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["mysql", "shard"]);
        assert_eq!(key.open(&found["mysql"]["root"]).unwrap(), "secret");
        assert_eq!(key.open(&found["shard"]["admin"]).unwrap(), "secret");
    }
}
