//! A BackupRepo and the Secret with its credentials, checked against the provider's schema.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Secret, SecretReference},
    apimachinery::pkg::api::resource::Quantity,
};
use kbbackup_api::{
    names::{TRUE, annotations, labels},
    v1alpha1::{AccessMethod, BackupRepo, BackupRepoSpec, PvReclaimPolicy, StorageProvider},
};
use kube::{ResourceExt, api::ObjectMeta};
use serde_json::Value;

use crate::error::{CliError, Result};

/// Parameters, by the names of the schema.
pub(crate) type Parameters = BTreeMap<String, String>;

/// What the person asked for, resolved.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wish {
    pub name: String,
    pub parameters: Parameters,
    /// An existing Secret with the credentials.
    pub credential: Option<SecretReference>,
    /// Where a new Secret goes.
    pub operator_namespace: String,
    pub access_method: Option<AccessMethod>,
    pub default: bool,
    pub path_prefix: Option<String>,
    pub pv_reclaim_policy: PvReclaimPolicy,
    pub volume_capacity: Option<Quantity>,
}

/// A parameter of a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parameter {
    pub name: String,
    pub required: bool,
    pub secret: bool,
    pub kind: String,
    pub description: String,
    pub default: Option<String>,
    pub choices: Vec<String>,
}

/// The parameters of a provider in the order of its schema, required ones first.
pub(crate) fn parameters(provider: &StorageProvider) -> Vec<Parameter> {
    let Some(schema) = &provider.spec.parameters_schema else { return Vec::new() };
    let Some(object) = &schema.open_api_v3_schema else { return Vec::new() };
    let required: Vec<&str> =
        object.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let properties = object.get("properties").and_then(Value::as_object);
    let mut parameters: Vec<Parameter> = properties
        .into_iter()
        .flatten()
        .map(|(name, property)| Parameter {
            name: name.clone(),
            required: required.contains(&name.as_str()),
            secret: schema.credential_fields.contains(name),
            kind: property["type"].as_str().unwrap_or("string").to_owned(),
            description: property["description"].as_str().unwrap_or_default().to_owned(),
            default: property.get("default").map(text),
            choices: property["enum"].as_array().into_iter().flatten().map(text).collect(),
        })
        .collect();
    let place = |parameter: &Parameter| required.iter().position(|name| *name == parameter.name).unwrap_or(usize::MAX);
    parameters.sort_by_key(place);
    parameters
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Every violation of the schema, one sentence each.
pub(crate) fn problems(parameters: &[Parameter], given: &Parameters, has_credential: bool) -> Vec<String> {
    let mut problems = Vec::new();
    for parameter in parameters {
        match given.get(&parameter.name).filter(|value| !value.is_empty()) {
            None if parameter.required && parameter.default.is_none() && !(parameter.secret && has_credential) => {
                problems.push(format!("{} is required", parameter.name));
            }
            None => {}
            Some(value) => {
                if !parameter.choices.is_empty() && !parameter.choices.contains(value) {
                    problems.push(format!("{} is none of {}", parameter.name, parameter.choices.join(", ")));
                }
                let fits = match parameter.kind.as_str() {
                    "boolean" => matches!(value.as_str(), "true" | "false"),
                    "integer" => value.parse::<i64>().is_ok(),
                    "number" => value.parse::<f64>().is_ok(),
                    _ => true,
                };
                if !fits {
                    problems.push(format!("{} is not of type {}", parameter.name, parameter.kind));
                }
            }
        }
    }
    for name in given.keys().filter(|name| !parameters.iter().any(|parameter| parameter.name == **name)) {
        problems.push(format!("{name} is no parameter of this provider"));
    }
    problems
}

/// How the provider can be reached; the tool is preferred.
pub(crate) fn access_method(provider: &StorageProvider, wanted: Option<AccessMethod>) -> Result<AccessMethod> {
    let spec = &provider.spec;
    let set = |field: &Option<String>| field.as_deref().is_some_and(|text| !text.trim().is_empty());
    let tool = set(&spec.datasafed_config_template);
    let mount = set(&spec.storage_class_template) || set(&spec.persistent_volume_claim_template);
    let supported: Vec<AccessMethod> = [(tool, AccessMethod::Tool), (mount, AccessMethod::Mount)]
        .into_iter()
        .filter(|(has, _)| *has)
        .map(|(_, method)| method)
        .collect();
    match (wanted, supported.first()) {
        (Some(method), _) if supported.contains(&method) => Ok(method),
        (None, Some(method)) => Ok(*method),
        _ => Err(CliError::usage(
            format!(
                "storageprovider/{} cannot be used {}",
                provider.name_any(),
                wanted.map_or_else(String::new, |method| format!("by {method}"))
            ),
            match supported.first() {
                Some(method) => format!("it supports {method}"),
                None => "it has neither a tool nor a mount template".to_owned(),
            },
        )),
    }
}

/// The objects to write, in order: the Secret first.
pub(crate) fn repo(provider: &StorageProvider, wish: &Wish) -> Result<(Option<Secret>, BackupRepo)> {
    let known = parameters(provider);
    let wrong = problems(&known, &wish.parameters, wish.credential.is_some());
    if !wrong.is_empty() {
        return Err(CliError::usage(
            format!("backuprepo/{} does not fit storageprovider/{}", wish.name, provider.name_any()),
            wrong.join("; "),
        )
        .hint(format!("kubectl kbbackup repo providers {}", provider.name_any())));
    }
    let is_secret = |name: &str| known.iter().any(|parameter| parameter.name == name && parameter.secret);
    let is_default = |name: &str, value: &str| {
        known.iter().any(|parameter| parameter.name == name && parameter.default.as_deref() == Some(value))
    };
    let (secrets, config): (Parameters, Parameters) = wish
        .parameters
        .iter()
        .filter(|(name, value)| !value.is_empty() && !is_default(name, value))
        .map(|(name, value)| (name.clone(), value.clone()))
        .partition(|(name, _)| is_secret(name));
    let secret = (wish.credential.is_none() && !secrets.is_empty()).then(|| credential(wish, secrets));
    let credential = wish.credential.clone().or_else(|| {
        secret.as_ref().map(|secret| SecretReference {
            name: secret.metadata.name.clone(),
            namespace: secret.metadata.namespace.clone(),
        })
    });
    let access_method = access_method(provider, wish.access_method)?;
    let repo = BackupRepo {
        metadata: ObjectMeta {
            name: Some(wish.name.clone()),
            annotations: wish
                .default
                .then(|| BTreeMap::from([(annotations::IS_DEFAULT_REPO.to_owned(), TRUE.to_owned())])),
            ..ObjectMeta::default()
        },
        spec: BackupRepoSpec {
            storage_provider_ref: provider.name_any(),
            access_method: Some(access_method),
            volume_capacity: wish.volume_capacity.clone().filter(|_| access_method == AccessMethod::Mount),
            pv_reclaim_policy: wish.pv_reclaim_policy,
            config,
            credential,
            path_prefix: wish.path_prefix.clone(),
        },
        status: None,
    };
    Ok((secret, repo))
}

/// Name of the Secret made for a repository.
pub(crate) fn secret_name(repo: &str) -> String {
    kbbackup_core::names::shorten63(&format!("backuprepo-{repo}"))
}

fn credential(wish: &Wish, values: Parameters) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: Some(secret_name(&wish.name)),
            namespace: Some(wish.operator_namespace.clone()),
            labels: Some(BTreeMap::from([(labels::BACKUP_REPO_NAME.to_owned(), wish.name.clone())])),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".to_owned()),
        string_data: Some(values),
        ..Secret::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn provider() -> StorageProvider {
        serde_json::from_value(json!({
            "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "StorageProvider", "metadata": {"name": "s3"},
            "spec": {
                "datasafedConfigTemplate": "[storage]",
                "parametersSchema": {
                    "credentialFields": ["accessKeyId", "secretAccessKey"],
                    "openAPIV3Schema": {
                        "type": "object",
                        "required": ["bucket", "accessKeyId", "secretAccessKey"],
                        "properties": {
                            "accessKeyId": {"type": "string"}, "secretAccessKey": {"type": "string"},
                            "bucket": {"type": "string"}, "region": {"type": "string", "default": "us-east-1"},
                            "insecure": {"type": "boolean", "default": false}
                        }
                    }
                }
            }
        }))
        .unwrap()
    }

    fn wish(pairs: &[(&str, &str)]) -> Wish {
        Wish {
            name: "main".into(),
            operator_namespace: "kbbackup-system".into(),
            default: true,
            parameters: pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            ..Wish::default()
        }
    }

    #[test]
    fn secrets_go_to_a_secret_and_defaults_are_left_out() {
        let wish = wish(&[
            ("bucket", "b"),
            ("accessKeyId", "AK"),
            ("secretAccessKey", "SK"),
            ("insecure", "false"),
            ("region", ""),
        ]);
        let (secret, repo) = repo(&provider(), &wish).unwrap();
        assert!(!serde_json::to_string(&repo).unwrap().contains("SK"));
        insta::assert_yaml_snapshot!(repo);
        assert_eq!(secret.unwrap().string_data.unwrap().keys().collect::<Vec<_>>(), ["accessKeyId", "secretAccessKey"]);
    }

    #[test]
    fn all_violations_are_told_at_once() {
        let error = repo(&provider(), &wish(&[("insecure", "maybe"), ("buckett", "b")])).unwrap_err();
        assert_eq!(
            error.why,
            "bucket is required; accessKeyId is required; secretAccessKey is required; insecure is not of type boolean; buckett is no parameter of this provider"
        );
    }

    #[test]
    fn an_existing_secret_stands_for_the_credentials() {
        let credential = SecretReference { name: Some("keys".into()), namespace: Some("x".into()) };
        let wish = Wish { credential: Some(credential.clone()), ..wish(&[("bucket", "b")]) };
        let (secret, repo) = repo(&provider(), &wish).unwrap();
        assert!(secret.is_none());
        assert_eq!(repo.spec.credential, Some(credential));
    }

    #[test]
    fn a_provider_without_a_mount_template_is_not_mounted() {
        assert_eq!(access_method(&provider(), None).unwrap(), AccessMethod::Tool);
        assert!(access_method(&provider(), Some(AccessMethod::Mount)).is_err());
    }
}
