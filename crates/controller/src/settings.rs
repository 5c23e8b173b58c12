//! What an administrator sets: environment variables, named as the contract names them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, LocalObjectReference, SecretKeySelector, Toleration};
use kbbackup_api::v1alpha1::EncryptionConfig;
use kbbackup_core::accounts;
use serde::de::DeserializeOwned;

pub mod page;
pub mod registries;

/// Settings of the operator, read once at start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `CM_NAMESPACE`: where exec Jobs, pre-checks and the operator's own Secrets live.
    pub manager_namespace: String,
    /// `DATASAFED_IMAGE`: image of the mover (`/datasafed`), used by init containers, reporters and file Jobs.
    pub mover_image: String,
    /// `KBBACKUP_CONTROLLER_IMAGE`: image of this program, used by exec Jobs.
    pub controller_image: String,
    /// `KUBEBLOCKS_IMAGE_PULL_POLICY`.
    pub pull_policy: Option<String>,
    /// `KUBEBLOCKS_IMAGE_PULL_SECRETS`: JSON list, put on the worker account.
    pub pull_secrets: Vec<LocalObjectReference>,
    /// `WORKER_SERVICE_ACCOUNT_NAME`.
    pub worker_service_account: String,
    /// `WORKER_SERVICE_ACCOUNT_ANNOTATIONS`: JSON map, for example a cloud's IAM role.
    pub worker_service_account_annotations: BTreeMap<String, String>,
    /// `EXEC_WORKER_SERVICE_ACCOUNT_NAME`.
    pub exec_service_account: String,
    /// `CM_TOLERATIONS`, for workers that are not bound to a target's node.
    pub tolerations: Vec<Toleration>,
    /// `CM_AFFINITY`.
    pub affinity: Option<Affinity>,
    /// `CM_NODE_SELECTOR`.
    pub node_selector: BTreeMap<String, String>,
    /// `DATAPROTECTION_ZERO_RESOURCE_FOR_UNSET`: write a limit of 0 where neither request nor limit is set.
    pub zero_resources: bool,
    /// `DATAPROTECTION_RECONCILE_WORKERS`: concurrent reconciles of Backups.
    pub workers: u16,
    /// `GC_FREQUENCY_SECONDS`: longest time between two looks at expired backups.
    pub gc_seconds: u64,
    /// `KBBACKUP_JOB_DEADLINE_SECONDS`: longest run of one worker Job.
    pub job_deadline_seconds: i64,
    /// `DP_BACKUP_ENCRYPTION_SECRET_KEY_REF` and `DP_BACKUP_ENCRYPTION_ALGORITHM`: what the policies of KubeBlocks' Clusters
    /// encrypt with.
    pub policy_encryption: Option<EncryptionConfig>,
    /// `DP_ENCRYPTION_KEY`: what the passwords of system accounts on Backups are sealed with. Unset: they are neither
    /// recorded nor restored.
    pub accounts_key: Option<accounts::Key>,
    /// `registries` of `config.yaml`: where images are pulled from.
    pub registries: registries::Live,
}

/// A setting that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("setting {name}={value:?} is not {wanted}: {source}")]
pub struct SettingsError {
    name: &'static str,
    value: String,
    wanted: &'static str,
    source: serde_json::Error,
}

impl Settings {
    /// Reads the settings from `lookup`, usually the process environment.
    ///
    /// # Errors
    /// The first setting that does not parse; a wrong setting stops the start rather than being ignored.
    pub fn from_env(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let text = |name: &str, default: &str| {
            lookup(name).filter(|value| !value.trim().is_empty()).unwrap_or_else(|| default.to_owned())
        };
        Ok(Self {
            manager_namespace: text("CM_NAMESPACE", "default"),
            mover_image: text("DATASAFED_IMAGE", concat!("ghcr.io/kbbackup/mover:", env!("CARGO_PKG_VERSION"))),
            controller_image: text(
                "KBBACKUP_CONTROLLER_IMAGE",
                concat!("ghcr.io/kbbackup/controller:", env!("CARGO_PKG_VERSION")),
            ),
            pull_policy: lookup("KUBEBLOCKS_IMAGE_PULL_POLICY").filter(|value| !value.is_empty()),
            pull_secrets: json(&lookup, "KUBEBLOCKS_IMAGE_PULL_SECRETS", "a JSON list of {name}")?,
            worker_service_account: text("WORKER_SERVICE_ACCOUNT_NAME", "kubeblocks-dataprotection-worker"),
            worker_service_account_annotations: json(
                &lookup,
                "WORKER_SERVICE_ACCOUNT_ANNOTATIONS",
                "a JSON map of strings",
            )?,
            exec_service_account: text("EXEC_WORKER_SERVICE_ACCOUNT_NAME", "kubeblocks-dataprotection-exec-worker"),
            tolerations: json(&lookup, "CM_TOLERATIONS", "a JSON list of tolerations")?,
            affinity: json(&lookup, "CM_AFFINITY", "a JSON affinity")?,
            node_selector: json(&lookup, "CM_NODE_SELECTOR", "a JSON map of strings")?,
            zero_resources: json_or(&lookup, "DATAPROTECTION_ZERO_RESOURCE_FOR_UNSET", "true or false", true)?,
            workers: json_or(&lookup, "DATAPROTECTION_RECONCILE_WORKERS", "a number", 16)?,
            gc_seconds: json_or(&lookup, "GC_FREQUENCY_SECONDS", "a number of seconds", 3600)?,
            job_deadline_seconds: json_or(&lookup, "KBBACKUP_JOB_DEADLINE_SECONDS", "a number of seconds", 7 * 86_400)?,
            policy_encryption: policy_encryption(&lookup)?,
            accounts_key: lookup("DP_ENCRYPTION_KEY")
                .filter(|secret| !secret.is_empty())
                .map(|secret| accounts::Key::derive(&secret)),
            registries: registries::Live::default(),
        })
    }
}

fn policy_encryption(lookup: &impl Fn(&str) -> Option<String>) -> Result<Option<EncryptionConfig>, SettingsError> {
    let reference: Option<SecretKeySelector> =
        json(lookup, "DP_BACKUP_ENCRYPTION_SECRET_KEY_REF", "a JSON object with name and key")?;
    let name = "DP_BACKUP_ENCRYPTION_ALGORITHM";
    let value = lookup(name).filter(|value| !value.trim().is_empty());
    let algorithm = value.map(|value| {
        serde_json::from_value(value.clone().into()).map_err(|source| SettingsError {
            name,
            value,
            wanted: "a known cipher",
            source,
        })
    });
    let algorithm = algorithm.transpose()?.unwrap_or_default();
    Ok(reference.map(|pass_phrase_secret_key_ref| EncryptionConfig { algorithm, pass_phrase_secret_key_ref }))
}

fn json<T: DeserializeOwned + Default>(
    lookup: &impl Fn(&str) -> Option<String>,
    name: &'static str,
    wanted: &'static str,
) -> Result<T, SettingsError> {
    json_or(lookup, name, wanted, T::default())
}

fn json_or<T: DeserializeOwned>(
    lookup: &impl Fn(&str) -> Option<String>,
    name: &'static str,
    wanted: &'static str,
    default: T,
) -> Result<T, SettingsError> {
    match lookup(name).filter(|value| !value.trim().is_empty()) {
        None => Ok(default),
        Some(value) => serde_json::from_str(&value).map_err(|source| SettingsError { name, value, wanted, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behaviour_8_2_nothing_set_means_the_contract_s_defaults() {
        let settings = Settings::from_env(|_| None).unwrap();
        assert_eq!(settings.manager_namespace, "default");
        assert_eq!(settings.worker_service_account, "kubeblocks-dataprotection-worker");
        assert_eq!(settings.exec_service_account, "kubeblocks-dataprotection-exec-worker");
        assert!(settings.zero_resources);
        assert_eq!(settings.gc_seconds, 3600);
        assert_eq!(settings.pull_policy, None);
        assert!(settings.pull_secrets.is_empty() && settings.worker_service_account_annotations.is_empty());
        assert!(settings.tolerations.is_empty() && settings.affinity.is_none() && settings.node_selector.is_empty());
        assert!(settings.policy_encryption.is_none() && settings.accounts_key.is_none());
        assert_eq!(settings.registries.rewrite("mysql:8"), "mysql:8");
    }

    #[test]
    fn behaviour_8_2_a_wrong_setting_stops_the_start_and_is_named() {
        let odd = |name: &str| (name == "DP_BACKUP_ENCRYPTION_ALGORITHM").then(|| "ROT13".to_owned());
        assert!(Settings::from_env(odd).unwrap_err().to_string().contains("ROT13"));
        let error = Settings::from_env(|name| (name == "CM_TOLERATIONS").then(|| "{".to_owned())).unwrap_err();
        assert!(error.to_string().contains("CM_TOLERATIONS"), "{error}");
    }
}
