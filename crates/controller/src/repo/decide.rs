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

/// What a person should know about the parameters that were given: the provider's schema does not expect them so. Only
/// words in a condition, for the contract takes every parameter, and the templates decide what to do with it. Values are
/// not told, they may be secrets.
pub(super) fn remarks(provider: &StorageProviderSpec, parameters: &BTreeMap<String, String>) -> String {
    let schema = provider.parameters_schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref());
    let properties = schema.and_then(|schema| schema.get("properties")?.as_object());
    let mut remarks = Vec::new();
    let mut remark = |what: &str, names: Vec<String>| {
        if !names.is_empty() {
            remarks.push(format!("{what}: {}", names.join(", ")));
        }
    };
    remark("required by the provider and not given", not_given(provider, parameters));
    let Some(properties) = properties else { return remarks.join("; ") };
    let known = |name: &&String| properties.contains_key(*name);
    remark("not known to the provider", parameters.keys().filter(|name| !known(name)).cloned().collect());
    let odd = |(name, value): (&String, &String)| {
        let property = properties.get(name).filter(|_| !value.is_empty())?;
        let chosen = property.get("enum").and_then(Value::as_array);
        if let Some(choices) = chosen.filter(|choices| !choices.iter().any(|choice| choice.as_str() == Some(value))) {
            let choices: Vec<_> = choices
                .iter()
                .map(|choice| choice.as_str().map_or_else(|| choice.to_string(), str::to_owned))
                .collect();
            return (!choices.contains(value)).then(|| format!("{name} (one of {})", choices.join(", ")));
        }
        let fits = match property.get("type").and_then(Value::as_str)? {
            "boolean" => matches!(value.as_str(), "true" | "false"),
            "integer" => value.parse::<i64>().is_ok(),
            "number" => value.parse::<f64>().is_ok(),
            _ => true,
        };
        (!fits).then(|| format!("{name} ({})", property["type"].as_str().unwrap_or_default()))
    };
    remark("not of the kind that the provider expects", parameters.iter().filter_map(odd).collect());
    remarks.join("; ")
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
    pub(super) storage: Result<Storage, Finding>,
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

/// Data of the CSI Secret, and the class.
type Storage = (Option<BTreeMap<String, String>>, Option<StorageClass>);

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
    let mut value: Value = serde_norway::from_str(text).map_err(|error| format!("not YAML: {error}"))?;
    let of_texts =
        ["/parameters", "/mountOptions", "/metadata/labels", "/metadata/annotations", "/spec/selector/matchLabels"];
    for pointer in of_texts {
        match value.pointer_mut(pointer) {
            Some(Value::Object(map)) => map.values_mut().for_each(to_text),
            Some(Value::Array(list)) => list.iter_mut().for_each(to_text),
            _ => {}
        }
    }
    serde_json::from_value(value).map_err(|error| error.to_string())
}

/// What YAML takes for a number, or for nothing because a parameter was not given, is a text where only texts can be.
fn to_text(value: &mut Value) {
    match value {
        Value::Null => *value = Value::String(String::new()),
        Value::Bool(_) | Value::Number(_) => *value = Value::String(value.to_string()),
        Value::String(_) | Value::Array(_) | Value::Object(_) => {}
    }
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

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use k8s_openapi::ByteString;
    use k8s_openapi::api::core::v1::SecretReference;
    use kbbackup_api::conditions::ConditionStatus::{False, True, Unknown};
    use rstest::rstest;

    use super::*;

    fn spec(value: &Value) -> BackupRepoSpec {
        let mut spec = json!({ "storageProviderRef": "p", "pvReclaimPolicy": "Retain", "accessMethod": "Tool" });
        spec.as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
        serde_json::from_value(spec).unwrap()
    }

    fn sort(value: &Value) -> StorageProvider {
        StorageProvider { spec: serde_json::from_value(value.clone()).unwrap(), ..StorageProvider::default() }
    }

    fn reason_of(spec: &BackupRepoSpec, found: Option<&StorageProvider>) -> Option<BackupRepoReason> {
        provider(spec, found).err().map(|finding| finding.reason)
    }

    #[test]
    fn behaviour_1_3_a_provider_must_offer_the_access_method() {
        let (tool, mount) = (spec(&json!({})), spec(&json!({ "accessMethod": "Mount" })));
        assert_eq!(reason_of(&tool, None), Some(BackupRepoReason::StorageProviderNotFound));
        let only_tool = sort(&json!({ "datasafedConfigTemplate": "[storage]" }));
        assert_eq!(reason_of(&tool, Some(&only_tool)), None);
        assert_eq!(reason_of(&mount, Some(&only_tool)), Some(BackupRepoReason::InvalidStorageProvider));
        let only_mount = sort(&json!({ "persistentVolumeClaimTemplate": "spec: {}" }));
        assert_eq!(reason_of(&tool, Some(&only_mount)), Some(BackupRepoReason::InvalidStorageProvider));
    }

    #[test]
    fn behaviour_1_3_a_mount_needs_the_csi_driver_and_the_tool_does_not() {
        let mut both =
            sort(&json!({ "datasafedConfigTemplate": "[storage]", "storageClassTemplate": "provisioner: x" }));
        let mount = spec(&json!({ "accessMethod": "Mount" }));
        assert_eq!(reason_of(&mount, Some(&both)), Some(BackupRepoReason::StorageProviderNotReady));
        let installed = |status: ConditionStatus| {
            serde_json::from_value(
                json!({ "conditions": [{ "type": "CSIDriverInstalled", "status": status, "reason": "r",
                "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z" }] }),
            )
            .unwrap()
        };
        both.status = Some(installed(Unknown));
        assert_eq!(reason_of(&mount, Some(&both)), Some(BackupRepoReason::StorageProviderNotReady));
        assert_eq!(reason_of(&spec(&json!({})), Some(&both)), None);
        both.status = Some(installed(True));
        assert_eq!(reason_of(&mount, Some(&both)), None);
    }

    #[test]
    fn behaviour_1_4_later_sources_of_parameters_win() {
        let schema = json!({ "properties": { "a": { "default": "1" }, "b": { "default": 512 }, "c": { "default": false },
            "d": { "type": "string" } }, "required": ["a", "d"] });
        let offered = sort(&json!({ "parametersSchema": { "openAPIV3Schema": schema } })).spec;
        let wanted = spec(
            &json!({ "config": { "b": "config", "c": "config" }, "credential": { "name": "s", "namespace": "n" } }),
        );
        let missing = parameters(&wanted, &offered, None).unwrap_err();
        assert_eq!(missing.reason, BackupRepoReason::CredentialSecretNotFound);
        let secret =
            Secret { data: Some([("c".to_owned(), ByteString(b"secret".to_vec()))].into()), ..Secret::default() };
        let all = parameters(&wanted, &offered, Some(&secret)).unwrap();
        let wanted =
            [("a", "1"), ("b", "config"), ("c", "secret")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(all, BTreeMap::from(wanted));
        assert_eq!(not_given(&offered, &all), ["d"]);
    }

    /// `printf 'bucket=b;region=r;SCPVCCSITOOL' | md5sum`
    #[test]
    fn behaviour_1_6_digest() {
        let offered = sort(&json!({ "storageClassTemplate": "SC", "persistentVolumeClaimTemplate": "PVC",
            "csiDriverSecretTemplate": "CSI", "datasafedConfigTemplate": "TOOL" }))
        .spec;
        let parameters = [("region", "r"), ("bucket", "b")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(digest(&offered, &parameters.into()), "b7087b8e95f75120e3a8928daf85a56f");
    }

    #[rstest]
    #[case::all_well(&[True, True, True, True, True], BackupRepoPhase::Ready)]
    #[case::under_way(&[True, True, True, True, Unknown], BackupRepoPhase::PreChecking)]
    #[case::check_failed(&[True, True, True, True, False], BackupRepoPhase::Failed)]
    #[case::never_checked(&[True, True, True, True], BackupRepoPhase::Failed)]
    #[case::a_step_before_failed(&[True, False, True, True, True], BackupRepoPhase::Failed)]
    #[case::nothing_known(&[], BackupRepoPhase::Failed)]
    fn behaviour_1_3_phases(#[case] states: &[ConditionStatus], #[case] wanted: BackupRepoPhase) {
        let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH);
        let conditions: Vec<_> = BackupRepoCondition::ALL
            .iter()
            .zip(states)
            .map(|(type_, status)| {
                conditions::new(*type_, *status, BackupRepoReason::UnknownError, "", None, now.clone())
            })
            .collect();
        assert_eq!(phase(&conditions, false), wanted);
        assert_eq!(phase(&conditions, true), BackupRepoPhase::Deleting);
    }

    #[test]
    fn a_fault_of_a_template_does_not_tell_secrets() {
        let offered = sort(&json!({ "csiDriverSecretTemplate": "- {{ .Parameters.key }}" })).spec;
        let parameters = BTreeMap::from([("key".to_owned(), "hunter2".to_owned())]);
        let made = rendered(&spec(&json!({})), &BackupRepoStatus::default(), &offered, &parameters).unwrap();
        let finding = made.storage.unwrap_err();
        assert_eq!(finding.reason, BackupRepoReason::PrepareCsiSecretFailed);
        assert!(!finding.message.contains("hunter2"), "{finding}");
    }

    #[test]
    fn behaviour_2_parameters_that_the_schema_does_not_expect_are_told_and_taken() {
        let schema = json!({ "properties": { "bucket": { "type": "string" }, "insecure": { "type": "boolean" },
            "port": { "type": "integer" }, "mode": { "enum": ["A", "B"] } }, "required": ["bucket"] });
        let offered = sort(&json!({ "parametersSchema": { "openAPIV3Schema": schema },
            "datasafedConfigTemplate": "x={{ .Parameters.buckt }}" }))
        .spec;
        let config = json!({ "buckt": "hunter2", "insecure": "perhaps", "port": "x", "mode": "C" });
        let wanted = spec(&json!({ "config": config }));
        let all = parameters(&wanted, &offered, None).unwrap();
        assert_eq!(
            remarks(&offered, &all),
            "required by the provider and not given: bucket; not known to the provider: buckt; \
             not of the kind that the provider expects: insecure (boolean), mode (one of A, B), port (integer)"
        );
        let made = rendered(&wanted, &BackupRepoStatus::default(), &offered, &all).unwrap();
        assert_eq!(made.tool_config.as_deref(), Some("x=hunter2"));
        assert_eq!(remarks(&sort(&json!({})).spec, &all), "", "without a schema everything is welcome");
    }

    #[test]
    fn behaviour_1_4_a_parameter_that_was_not_given_is_an_empty_text_in_a_class() {
        let offered = sort(&json!({ "storageClassTemplate":
            "provisioner: nfs\nparameters:\n  subDir: {{ .Parameters.dir }}\n  retries: {{ .Parameters.retries }}\n\
             mountOptions: [{{ .Parameters.version }}]\nallowVolumeExpansion: {{ .Parameters.grows }}\n",
            "persistentVolumeClaimTemplate": "metadata:\n  labels: {generation: {{ .Parameters.retries }}}\n\
             spec:\n  storageClassName: {{ .Parameters.class }}\n" }))
        .spec;
        let wanted = spec(&json!({ "config": { "retries": "3", "version": "4.1" }, "accessMethod": "Mount" }));
        let all = parameters(&wanted, &offered, None).unwrap();
        let made = rendered(&wanted, &BackupRepoStatus::default(), &offered, &all).unwrap();
        let (class, claim) = (made.storage.unwrap().1.unwrap(), made.claim.unwrap().unwrap());
        let text = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(class.parameters, Some(BTreeMap::from([text("subDir", ""), text("retries", "3")])));
        assert_eq!(class.mount_options, Some(vec!["4.1".to_owned()]));
        assert_eq!(class.allow_volume_expansion, None);
        assert_eq!(claim.metadata.labels, Some(BTreeMap::from([text("generation", "3")])));
        assert_eq!(claim.spec.unwrap().storage_class_name, None, "the cluster's default");
    }

    /// A repository as the reference's command line writes it: every value a text, defaults among them, secrets apart.
    #[test]
    fn behaviour_1_4_a_repository_of_the_command_line() {
        let text = include_str!("../../../../deploy/providers/s3.yaml");
        let offered: StorageProvider = serde_norway::from_str(text).unwrap();
        let wanted = spec(
            &json!({ "volumeCapacity": "100Gi", "credential": {"name": "kb-backuprepo-x", "namespace": "kb"},
            "config": {"bucket": "b", "region": "us-west-1", "endpoint": "", "mountOptions": "", "geesefsMemoryLimit": "512",
                "geesefsReadAheadLarge": "20480", "insecure": "false"} }),
        );
        let secret: Secret = serde_json::from_value(json!({ "metadata": {"name": "kb-backuprepo-x"},
            "data": {"accessKeyId": "QUs=", "secretAccessKey": "U0s="} }))
        .unwrap();
        assert_eq!(
            parameters(&wanted, &offered.spec, None).unwrap_err().reason,
            BackupRepoReason::CredentialSecretNotFound
        );
        let all = parameters(&wanted, &offered.spec, Some(&secret)).unwrap();
        assert_eq!(remarks(&offered.spec, &all), "");
        let made = rendered(&wanted, &BackupRepoStatus::default(), &offered.spec, &all).unwrap().tool_config.unwrap();
        for line in
            ["access_key_id = AK", "secret_access_key = SK", "region = us-west-1", "no_check_certificate = false"]
        {
            assert!(made.contains(line), "{line}: {made}");
        }
    }

    /// What the reference renders must render here: providers as other people write them.
    #[rstest]
    #[case::nothing_given(json!({}))]
    #[case::all_given(json!({ "endpoint": "https://s3.example:9000", "prefix": "/deep/down/", "insecure": "true", "region": "cn-1",
        "options": "a=1,b=2", "accessKeyId": "AK" }))]
    fn behaviour_1_4_templates_of_others(#[case] config: Value) {
        let offered = sort(&json!({
            "parametersSchema": { "openAPIV3Schema": { "properties": { "tries": { "default": 3 }, "deep": { "default": { "a": 1 } } } } },
            "datasafedConfigTemplate": r#"
{{- define "line" }}{{ if .value }}{{ printf "%s = %v\n" .key .value }}{{ end }}{{ end -}}
[storage]
type = s3
{{ template "line" (dict "key" "region" "value" .Parameters.region) -}}
{{- $endpoint := .Parameters.endpoint }}
{{- with $endpoint }}
{{- $url := urlParse . }}
endpoint = {{ $url.scheme | default "https" }}://{{ $url.host }}
{{- end }}
{{- range $option := splitList "," (default "" .Parameters.options) }}
{{- $pair := splitList "=" $option }}
{{- if eq (len $pair) 2 }}
{{ index $pair 0 }} = {{ index $pair 1 | quote }}
{{- end }}
{{- end }}
root = {{ printf "%s/%s" (coalesce .Parameters.bucket "backups") (.Parameters.prefix | default "" | trimAll "/") | trimSuffix "/" }}
no_check_certificate = {{ ternary "true" "false" (eq "true" (toString .Parameters.insecure)) }}
tries = {{ int .Parameters.tries }}
missing = [{{ .Parameters.no_such_thing }}{{ printf "%s" .Parameters.no_such_thing }}]
class = {{ .GeneratedStorageClassName }} {{ .CSIDriverSecretRef.Name }}"#,
            "csiDriverSecretTemplate": "{{ if .Parameters.accessKeyId }}key: {{ .Parameters.accessKeyId | b64enc | quote }}{{ else }}{}{{ end }}",
            "storageClassTemplate": "provisioner: x\nparameters:\n{{- range $k, $v := .Parameters }}\n  {{ $k }}: {{ $v | toJson }}\n{{- end }}",
            "persistentVolumeClaimTemplate": "spec:\n  storageClassName: {{ .GeneratedStorageClassName }}\n  {{- if not .Parameters.size }}\n  resources: {requests: {storage: 1Gi}}\n  {{- end }}",
        }))
        .spec;
        let wanted = spec(&json!({ "config": config, "accessMethod": "Mount" }));
        let status: BackupRepoStatus = serde_json::from_value(json!({ "generatedStorageClassName": "sc-r",
            "generatedCSIDriverSecret": { "name": "secret-r", "namespace": "kb" } }))
        .unwrap();
        let made = rendered(&wanted, &status, &offered, &parameters(&wanted, &offered, None).unwrap()).unwrap();
        let mut out = made.tool_config.unwrap();
        let (secret, class) = made.storage.unwrap();
        writeln!(out, "\n--- {}", serde_json::to_string(&secret).unwrap()).unwrap();
        writeln!(out, "--- {}", serde_json::to_string(&class).unwrap()).unwrap();
        writeln!(out, "--- {}", serde_json::to_string(&made.claim.unwrap()).unwrap()).unwrap();
        assert!(!out.contains("no value") && !out.contains("<nil>"), "{out}");
        insta::assert_snapshot!(format!("others_{}", if config == json!({}) { "few" } else { "many" }), out);
    }

    /// Every template that we ship, with as few and with as many parameters as it takes. The same text comes from Go's
    /// text/template with Sprig.
    #[rstest]
    fn behaviour_2_2_and_2_3_shipped_providers_render(
        #[files("../../deploy/providers/*.yaml")] file: std::path::PathBuf,
    ) {
        let shipped: StorageProvider = serde_norway::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        let schema = shipped.spec.parameters_schema.as_ref().unwrap();
        let declared = schema.open_api_v3_schema.as_ref().unwrap();
        let properties = declared["properties"].as_object().unwrap();
        let required: Vec<&str> = declared
            .get("required")
            .and_then(Value::as_array)
            .map_or(vec![], |names| names.iter().filter_map(Value::as_str).collect());
        assert!(schema.credential_fields.iter().all(|name| properties.contains_key(name)));
        let status = BackupRepoStatus {
            generated_csi_driver_secret: Some(SecretReference {
                name: Some("secret-r".into()),
                namespace: Some("kb".into()),
            }),
            generated_storage_class_name: Some("sc-r".into()),
            ..BackupRepoStatus::default()
        };
        let mut out = String::new();
        for (title, all) in [("few", false), ("many", true)] {
            let given = |name: &str| all || required.contains(&name);
            let value = |name: &str| match properties[name]["type"].as_str() {
                Some("integer") => "7".to_owned(),
                Some("boolean") => "true".to_owned(),
                _ if name == "region" => "cn-north-1".to_owned(),
                _ => format!("my {name}: \"x\""),
            };
            let config: BTreeMap<_, _> =
                properties.keys().filter(|name| given(name)).map(|name| (name.clone(), value(name))).collect();
            let wanted = spec(&json!({ "config": config, "accessMethod": "Mount" }));
            let parameters = parameters(&wanted, &shipped.spec, None).unwrap();
            assert_eq!(not_given(&shipped.spec, &parameters), Vec::<String>::new());
            let made = rendered(&wanted, &status, &shipped.spec, &parameters).unwrap();
            writeln!(out, "=== {title}\n{}", made.tool_config.as_deref().unwrap_or("no tool config")).unwrap();
            let (secret, class) = made.storage.unwrap();
            writeln!(out, "--- {}", serde_json::to_string(&secret).unwrap()).unwrap();
            writeln!(out, "--- {}", serde_json::to_string(&class).unwrap()).unwrap();
            writeln!(out, "--- {}", serde_json::to_string(&made.claim.unwrap()).unwrap()).unwrap();
        }
        insta::assert_snapshot!(format!("provider_{}", shipped.metadata.name.unwrap()), out);
    }
}
