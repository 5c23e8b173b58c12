//! What follows from a repository, its provider and its credentials.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kbbackup_api::conditions::{
    self, BackupRepoCondition, BackupRepoReason, ConditionStatus, StorageProviderCondition,
};
use kbbackup_api::v1alpha1::{
    AccessMethod, BackupRepoPhase, BackupRepoSpec, BackupRepoStatus, StorageProvider, StorageProviderSpec,
};
use md5::{Digest as _, Md5};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::template::render;

/// Why a repository cannot be used, as its condition will say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{condition}: {message}")]
pub(super) struct Finding {
    /// The condition that is False.
    pub condition: BackupRepoCondition,
    /// Why.
    pub reason: BackupRepoReason,
    /// Why, in words.
    pub message: String,
}

impl Finding {
    pub(super) fn new(condition: BackupRepoCondition, reason: BackupRepoReason, message: impl Into<String>) -> Self {
        Self { condition, reason, message: message.into() }
    }
}

fn is_set(template: Option<&String>) -> bool {
    template.is_some_and(|text| !text.trim().is_empty())
}

/// Whether the provider offers what the access method needs.
pub(super) fn provider<'a>(
    spec: &BackupRepoSpec,
    provider: Option<&'a StorageProvider>,
) -> Result<&'a StorageProviderSpec, Finding> {
    let finding = |reason, message: String| Finding::new(BackupRepoCondition::StorageProviderReady, reason, message);
    let name = &spec.storage_provider_ref;
    let found = provider.ok_or_else(|| {
        finding(BackupRepoReason::StorageProviderNotFound, format!("StorageProvider {name} does not exist"))
    })?;
    let offered = &found.spec;
    match spec.access_method() {
        AccessMethod::Tool if !is_set(offered.datasafed_config_template.as_ref()) => Err(finding(
            BackupRepoReason::InvalidStorageProvider,
            format!(
                "StorageProvider {name} has no datasafedConfigTemplate, so accessMethod Tool cannot be used with it"
            ),
        )),
        AccessMethod::Mount
            if !is_set(offered.storage_class_template.as_ref())
                && !is_set(offered.persistent_volume_claim_template.as_ref()) =>
        {
            Err(finding(
                BackupRepoReason::InvalidStorageProvider,
                format!(
                    "StorageProvider {name} has neither storageClassTemplate nor persistentVolumeClaimTemplate, so accessMethod Mount cannot be used with it; try Tool"
                ),
            ))
        }
        AccessMethod::Mount => {
            let conditions = found.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
            let installed = conditions::find(conditions, StorageProviderCondition::CsiDriverInstalled.as_str());
            match installed {
                Some(condition) if condition.status == ConditionStatus::True.as_str() => Ok(offered),
                Some(condition) => Err(finding(BackupRepoReason::StorageProviderNotReady, condition.message.clone())),
                None => Err(finding(
                    BackupRepoReason::StorageProviderNotReady,
                    format!("StorageProvider {name} has not been checked yet"),
                )),
            }
        }
        AccessMethod::Tool => Ok(offered),
    }
}

/// Defaults of the schema, overridden by `spec.config`, overridden by the credential Secret.
pub(super) fn parameters(
    spec: &BackupRepoSpec,
    provider: &StorageProviderSpec,
    credential: Option<&Secret>,
) -> Result<BTreeMap<String, String>, Finding> {
    let schema = provider.parameters_schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref());
    let properties = schema.and_then(|schema| schema.get("properties")?.as_object());
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    for (name, property) in properties.into_iter().flatten() {
        match property.get("default") {
            None => {}
            Some(Value::String(text)) => drop(all.insert(name.clone(), text.clone())),
            Some(other) => drop(all.insert(name.clone(), other.to_string())),
        }
    }
    all.extend(spec.config.clone());
    if let Some(reference) = &spec.credential {
        let secret = credential.ok_or_else(|| {
            let name = reference.name.as_deref().unwrap_or_default();
            let namespace = reference.namespace.as_deref().unwrap_or_default();
            Finding::new(
                BackupRepoCondition::ParametersChecked,
                BackupRepoReason::CredentialSecretNotFound,
                format!("Secret {namespace}/{name} of spec.credential does not exist"),
            )
        })?;
        let data = secret.data.iter().flatten();
        all.extend(data.map(|(key, value)| (key.clone(), String::from_utf8_lossy(&value.0).into_owned())));
    }
    Ok(all)
}

/// Parameters that the provider's schema requires and that are not given. Not an error: a provider may be more
/// demanding than the storage, which the pre-check will tell; then these are the first suspects.
pub(super) fn not_given(provider: &StorageProviderSpec, parameters: &BTreeMap<String, String>) -> Vec<String> {
    let schema = provider.parameters_schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref());
    let required = schema.and_then(|schema| schema.get("required")?.as_array());
    let names = required.into_iter().flatten().filter_map(Value::as_str);
    names.filter(|name| parameters.get(*name).is_none_or(String::is_empty)).map(str::to_owned).collect()
}

/// MD5 of parameters and templates in the contract's order, as lower-case hex: it tells a change, it protects nothing.
pub(super) fn digest(provider: &StorageProviderSpec, parameters: &BTreeMap<String, String>) -> String {
    let mut hash = Md5::new();
    for (key, value) in parameters {
        hash.update(format!("{key}={value};"));
    }
    let templates = [
        &provider.storage_class_template,
        &provider.persistent_volume_claim_template,
        &provider.csi_driver_secret_template,
        &provider.datasafed_config_template,
    ];
    for template in templates.into_iter().flatten() {
        hash.update(template);
    }
    hex::encode(hash.finalize())
}

/// What the provider's templates give for this repository. A fault of a template is told when its turn comes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rendered {
    pub(super) tool_config: Option<String>,
    /// The CSI Secret's data, and the StorageClass.
    pub(super) storage: Result<(Option<BTreeMap<String, String>>, Option<StorageClass>), Finding>,
    pub(super) claim: Result<Option<PersistentVolumeClaim>, Finding>,
}

/// Renders every template that the provider has. The names in `status` must have been assigned.
pub(super) fn rendered(
    spec: &BackupRepoSpec,
    status: &BackupRepoStatus,
    provider: &StorageProviderSpec,
    parameters: &BTreeMap<String, String>,
) -> Result<Rendered, Finding> {
    let secret = status.generated_csi_driver_secret.as_ref();
    let data = json!({
        "Parameters": parameters,
        "CSIDriverSecretRef": {
            "Name": secret.and_then(|secret| secret.name.as_deref()).unwrap_or_default(),
            "Namespace": secret.and_then(|secret| secret.namespace.as_deref()).unwrap_or_default(),
        },
        "GeneratedStorageClassName": status.generated_storage_class_name.as_deref().unwrap_or_default(),
    });
    let text = |template: Option<&String>, name: &str, condition, reason| {
        let template = template.filter(|text| is_set(Some(text)));
        template.map(|template| render(template, &data)).transpose().map_err(|error| {
            Finding::new(condition, reason, format!("{name} of StorageProvider {}: {error}", spec.storage_provider_ref))
        })
    };
    let provider_name = &spec.storage_provider_ref;
    let tool_config = text(
        provider.datasafed_config_template.as_ref(),
        "datasafedConfigTemplate",
        BackupRepoCondition::ParametersChecked,
        BackupRepoReason::UnknownError,
    )?;
    let class = BackupRepoCondition::StorageClassCreated;
    let csi_secret = || {
        let (name, reason) = ("csiDriverSecretTemplate", BackupRepoReason::PrepareCsiSecretFailed);
        let text = text(provider.csi_driver_secret_template.as_ref(), name, class, reason)?;
        let data = text.map(|text| flat_map(&text)).transpose();
        data.map_err(|why| Finding::new(class, reason, bad(name, provider_name, &why)))
    };
    let storage_class = || {
        let (name, reason) = ("storageClassTemplate", BackupRepoReason::PrepareStorageClassFailed);
        let text = text(provider.storage_class_template.as_ref(), name, class, reason)?;
        let class_ = text.map(|text| object(&text)).transpose();
        class_.map_err(|why| Finding::new(class, reason, bad(name, provider_name, &why)))
    };
    let claim = || {
        let (name, reason) = ("persistentVolumeClaimTemplate", BackupRepoReason::BadPvcTemplate);
        // Of no matter to a repository that is not mounted.
        let template = provider.persistent_volume_claim_template.as_ref();
        let template = template.filter(|_| spec.access_method() == AccessMethod::Mount);
        let text = text(template, name, BackupRepoCondition::PvcTemplateChecked, reason)?;
        let claim = text.map(|text| object(&text)).transpose();
        claim.map_err(|why| {
            Finding::new(BackupRepoCondition::PvcTemplateChecked, reason, bad(name, provider_name, &why))
        })
    };
    let storage = csi_secret().and_then(|secret| Ok((secret, storage_class()?)));
    Ok(Rendered { tool_config, storage, claim: claim() })
}

/// The text may hold secrets, so it is not told; what is wrong with it is.
fn bad(template: &str, provider: &str, why: &str) -> String {
    format!("{template} of StorageProvider {provider} does not give what it should: {why}")
}

/// A flat YAML map. Numbers and the like count as texts, as they do when a person writes a Secret's `stringData`.
fn flat_map(text: &str) -> Result<BTreeMap<String, String>, String> {
    let map: BTreeMap<String, Value> = serde_norway::from_str(text).map_err(|_| "not a YAML map".to_owned())?;
    map.into_iter()
        .map(|(key, value)| match value {
            Value::String(text) => Ok((key, text)),
            Value::Null => Ok((key, String::new())),
            Value::Array(_) | Value::Object(_) => Err(format!("the value of {key} is not a text")),
            other => Ok((key, other.to_string())),
        })
        .collect()
}

fn object<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let value: Value = serde_norway::from_str(text).map_err(|error| format!("not YAML: {error}"))?;
    serde_json::from_value(value).map_err(|error| error.to_string())
}

/// The phase that the conditions add up to.
pub(super) fn phase(conditions: &[Condition], going: bool) -> BackupRepoPhase {
    if going {
        return BackupRepoPhase::Deleting;
    }
    let prepared = [
        BackupRepoCondition::StorageProviderReady,
        BackupRepoCondition::ParametersChecked,
        BackupRepoCondition::StorageClassCreated,
        BackupRepoCondition::PvcTemplateChecked,
    ];
    if !prepared.iter().all(|condition| conditions::is_true(conditions, condition.as_str())) {
        return BackupRepoPhase::Failed;
    }
    match conditions::find(conditions, BackupRepoCondition::PreCheckPassed.as_str()).map(|check| check.status.as_str())
    {
        Some("True") => BackupRepoPhase::Ready,
        Some("Unknown") => BackupRepoPhase::PreChecking,
        _ => BackupRepoPhase::Failed,
    }
}
