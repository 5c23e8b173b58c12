//! The workers' account of a namespace. It has no rights: it carries pull secrets, and annotations such as a cloud role.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use crate::error::is_conflict;
use crate::settings::Settings;

/// Makes sure that the account exists in `namespace` and has the annotations that are set.
///
/// # Errors
/// Those of the API server.
pub async fn ensure(client: &Client, namespace: &str, settings: &Settings) -> kube::Result<()> {
    let api = Api::<ServiceAccount>::namespaced(client.clone(), namespace);
    let name = &settings.worker_service_account;
    let Some(account) = api.get_metadata_opt(name).await? else {
        return match api.create(&PostParams::default(), &account(settings)).await {
            // Somebody else made it between our two requests.
            Err(error) if is_conflict(&error) => Ok(()),
            other => other.map(drop),
        };
    };
    let empty = BTreeMap::new();
    let has = account.metadata.annotations.as_ref().unwrap_or(&empty);
    let missing: BTreeMap<_, _> = settings
        .worker_service_account_annotations
        .iter()
        .filter(|(key, value)| has.get(*key) != Some(value))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let patch = json!({ "metadata": { "annotations": missing } });
    api.patch_metadata(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
}

fn account(settings: &Settings) -> ServiceAccount {
    let annotations = &settings.worker_service_account_annotations;
    ServiceAccount {
        metadata: ObjectMeta {
            name: Some(settings.worker_service_account.clone()),
            annotations: (!annotations.is_empty()).then(|| annotations.clone()),
            ..ObjectMeta::default()
        },
        automount_service_account_token: Some(false),
        image_pull_secrets: (!settings.pull_secrets.is_empty()).then(|| settings.pull_secrets.clone()),
        ..ServiceAccount::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behaviour_8_4_the_account_carries_annotations_and_pull_secrets() {
        let plain = serde_json::to_value(account(&crate::worker::settings())).unwrap();
        let name = "kubeblocks-dataprotection-worker";
        let mut wanted = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": name },
            "automountServiceAccountToken": false });
        assert_eq!(plain, wanted);

        let settings = Settings::from_env(|name| match name {
            "KUBEBLOCKS_IMAGE_PULL_SECRETS" => Some(r#"[{"name": "hub"}]"#.to_owned()),
            "WORKER_SERVICE_ACCOUNT_ANNOTATIONS" => Some(r#"{"eks.amazonaws.com/role-arn": "arn:x"}"#.to_owned()),
            _ => None,
        });
        wanted["metadata"]["annotations"] = json!({ "eks.amazonaws.com/role-arn": "arn:x" });
        wanted["imagePullSecrets"] = json!([{ "name": "hub" }]);
        assert_eq!(serde_json::to_value(account(&settings.unwrap())).unwrap(), wanted);
    }
}
