//! A BackupPolicy for a StatefulSet, and the Secret it may need.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{EnvVar, EnvVarSource, Secret, SecretKeySelector, VolumeMount},
};
use kbbackup_api::{
    names::{TRUE, annotations, labels},
    v1alpha1::{
        BackupMethod, BackupPolicy, BackupPolicySpec, BackupTarget, ConnectionCredential, ContainerPort,
        EncryptionConfig, PodSelector, TargetVolumeInfo,
    },
};
use kube::{ResourceExt, api::ObjectMeta};

use crate::{
    detect::{Credential, DataVolume, Found, Login, Value},
    error::{CliError, Result},
};

/// What the person asked for, resolved.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wish {
    pub name: String,
    /// Method names and their ActionSets; never empty.
    pub methods: Vec<(String, String)>,
    pub repo: Option<String>,
    pub path_prefix: Option<String>,
    pub backoff_limit: Option<i32>,
    pub default: bool,
    /// Volumes instead of the detected one.
    pub volumes: Vec<DataVolume>,
    /// A Secret with user and password, instead of what was detected.
    pub credential: Option<ConnectionCredential>,
    pub encryption: Option<EncryptionConfig>,
}

/// The objects to write, in order, and what a person should know of them.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub secrets: Vec<Secret>,
    pub policy: BackupPolicy,
    pub notes: Vec<String>,
}

pub(crate) fn policy(workload: &StatefulSet, found: &Found, wish: &Wish) -> Result<Planned> {
    let workload_name = workload.name_any();
    let namespace = workload.namespace();
    let spec = workload.spec.as_ref();
    let selector = spec.map(|spec| spec.selector.clone()).unwrap_or_default();
    let pod_labels = spec.and_then(|spec| spec.template.metadata.as_ref()?.labels.clone()).unwrap_or_default();
    let mut notes = Vec::new();

    let (credential, secret, env) = match &wish.credential {
        Some(credential) => (Some(credential.clone()), None, Vec::new()),
        None => login(&workload_name, namespace.as_deref(), found, &mut notes)?,
    };
    let volumes = if wish.volumes.is_empty() { found.volume.iter().cloned().collect() } else { wish.volumes.clone() };
    if volumes.is_empty() {
        notes
            .push("no persistent volume holds the data; a restore into a new workload will not be possible".to_owned());
    }
    let target_volumes = (!volumes.is_empty()).then(|| TargetVolumeInfo {
        volumes: Vec::new(),
        volume_mounts: volumes
            .iter()
            .map(|volume| VolumeMount {
                name: volume.name.clone(),
                mount_path: volume.mount_path.clone(),
                ..VolumeMount::default()
            })
            .collect(),
    });
    let methods = wish
        .methods
        .iter()
        .map(|(name, action_set)| BackupMethod {
            name: name.clone(),
            action_set_name: Some(action_set.clone()),
            compatible_method: continues(found, action_set, wish),
            target_volumes: target_volumes.clone(),
            env: env.clone(),
            ..BackupMethod::default()
        })
        .collect();
    let container_port = found
        .port
        .name
        .as_ref()
        .map(|port| ContainerPort { container_name: found.container.clone(), port_name: port.clone() });
    if container_port.is_none() && !found.port.is_first && found.port.number != found.engine.port {
        notes.push(format!("port {} has no name in the pod template; give it one to have it used", found.port.number));
    }

    let instance = pod_labels.get(labels::INSTANCE).cloned().unwrap_or_else(|| workload_name.clone());
    let policy = BackupPolicy {
        metadata: ObjectMeta {
            name: Some(wish.name.clone()),
            namespace,
            labels: Some(BTreeMap::from([
                (labels::INSTANCE.to_owned(), instance),
                (labels::ENGINE.to_owned(), found.engine.name.to_owned()),
                (labels::WORKLOAD_KIND.to_owned(), "statefulset".to_owned()),
                (labels::WORKLOAD_NAME.to_owned(), workload_name.clone()),
            ])),
            annotations: wish
                .default
                .then(|| BTreeMap::from([(annotations::IS_DEFAULT_POLICY.to_owned(), TRUE.to_owned())])),
            ..ObjectMeta::default()
        },
        spec: BackupPolicySpec {
            backup_repo_name: wish.repo.clone(),
            path_prefix: Some(wish.path_prefix.clone().unwrap_or_else(|| path_prefix(workload))),
            backoff_limit: wish.backoff_limit,
            target: Some(BackupTarget {
                pod_selector: Some(PodSelector {
                    match_labels: selector.match_labels.unwrap_or_default(),
                    match_expressions: selector.match_expressions.unwrap_or_default(),
                    ..PodSelector::default()
                }),
                connection_credential: credential,
                container_port,
                ..BackupTarget::default()
            }),
            backup_methods: methods,
            encryption_config: wish.encryption.clone(),
            ..BackupPolicySpec::default()
        },
        status: None,
    };
    Ok(Planned { secrets: secret.into_iter().collect(), policy, notes })
}

/// The full method that the ActionSet's backups continue, if the policy has it.
fn continues(found: &Found, action_set: &str, wish: &Wish) -> Option<String> {
    let full = found.engine.methods.iter().find(|method| method.action_set == action_set)?.full?;
    wish.methods.iter().any(|(name, _)| name == full).then(|| full.to_owned())
}

/// `/<name>-<uid8>`: a workload made anew under the same name never writes into the old one's directory.
fn path_prefix(workload: &StatefulSet) -> String {
    let uid = workload.uid().unwrap_or_default();
    let name = workload.name_any();
    if uid.is_empty() { format!("/{name}") } else { format!("/{name}-{}", kbbackup_core::names::uid8(&uid)) }
}

/// Name of the Secret made for a workload whose password stands in its template.
pub(crate) fn secret_name(workload: &str) -> String {
    kbbackup_core::names::shorten63(&format!("{workload}-kbbackup"))
}

type LoginParts = (Option<ConnectionCredential>, Option<Secret>, Vec<EnvVar>);

/// How workers log in. One Secret with both: a connection credential. A Secret with the password alone: variables, so that
/// the password keeps following its Secret. A password written into the template: a Secret of ours.
fn login(workload: &str, namespace: Option<&str>, found: &Found, notes: &mut Vec<String>) -> Result<LoginParts> {
    let credential = match &found.login {
        Login::Known(credential) => credential,
        Login::Open { user } => {
            let Value::Literal(user) = user else { return Ok((None, None, Vec::new())) };
            return Ok((None, None, vec![plain("DP_DB_USER", user)]));
        }
        Login::Unknown { looked_for } => {
            return Err(CliError::usage(
                format!("no password was found for statefulset/{workload}"),
                format!("container {} has none of {}", found.container, looked_for.join(", ")),
            )
            .hint(format!(
                "kubectl create secret generic {workload}-backup --from-literal=username={} --from-literal=password=…",
                found.engine.default_user
            ))
            .hint(format!("kubectl kbbackup policy create --for statefulset/{workload} --secret {workload}-backup")));
        }
    };
    match credential {
        Credential {
            user: Value::Secret { name: user_secret, key: user_key },
            password: Value::Secret { name, key },
        } if user_secret == name => {
            let credential = ConnectionCredential {
                secret_name: name.clone(),
                username_key: Some(user_key.clone()),
                password_key: Some(key.clone()),
                ..ConnectionCredential::default()
            };
            Ok((Some(credential), None, Vec::new()))
        }
        Credential { user, password: Value::Secret { name, key } } => {
            let user = match user {
                Value::Literal(user) => plain("DP_DB_USER", user),
                Value::Secret { name, key } => from_secret("DP_DB_USER", name, key),
            };
            Ok((None, None, vec![user, from_secret("DP_DB_PASSWORD", name, key)]))
        }
        Credential { user, password: Value::Literal(password) } => {
            let Value::Literal(user) = user else {
                return Err(CliError::usage(
                    format!("the login of statefulset/{workload} is split"),
                    "the user comes from a Secret and the password from the template; put both into one Secret and name it with --secret",
                ));
            };
            let secret_name = secret_name(workload);
            notes.push(format!(
                "the password stands in the pod template, so secret/{secret_name} is made with a copy of it; when the password changes, change it there too"
            ));
            let secret = Secret {
                metadata: ObjectMeta {
                    name: Some(secret_name.clone()),
                    namespace: namespace.map(str::to_owned),
                    labels: Some(BTreeMap::from([(labels::WORKLOAD_NAME.to_owned(), workload.to_owned())])),
                    ..ObjectMeta::default()
                },
                type_: Some("Opaque".to_owned()),
                string_data: Some(BTreeMap::from([
                    (ConnectionCredential::USERNAME_KEY.to_owned(), user.clone()),
                    (ConnectionCredential::PASSWORD_KEY.to_owned(), password.clone()),
                ])),
                ..Secret::default()
            };
            let credential = ConnectionCredential { secret_name, ..ConnectionCredential::default() };
            Ok((Some(credential), Some(secret), Vec::new()))
        }
    }
}

fn plain(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.to_owned()), ..EnvVar::default() }
}

/// Optional, because a restore elsewhere gets the same variables and must not need the Secret.
fn from_secret(name: &str, secret: &str, key: &str) -> EnvVar {
    let selector = SecretKeySelector { name: secret.to_owned(), key: key.to_owned(), optional: Some(true) };
    EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource { secret_key_ref: Some(selector), ..EnvVarSource::default() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::detect;
    use serde_json::json;

    fn workload(env: &serde_json::Value) -> StatefulSet {
        serde_json::from_value(json!({
            "metadata": {"name": "pg", "namespace": "demo", "uid": "6f1c2d3e-0000-4000-8000-000000000000"},
            "spec": {
                "serviceName": "pg",
                "selector": {"matchLabels": {"app": "pg"}},
                "template": {"metadata": {"labels": {"app": "pg"}}, "spec": {"containers": [{
                    "name": "postgres", "image": "postgres:16", "env": env,
                    "ports": [{"containerPort": 5432, "name": "sql"}],
                    "volumeMounts": [{"name": "data", "mountPath": "/var/lib/postgresql/data"}]
                }]}},
                "volumeClaimTemplates": [{"metadata": {"name": "data"}}]
            }
        }))
        .unwrap()
    }

    fn plan(env: &serde_json::Value) -> Result<Planned> {
        let workload = workload(env);
        let found = detect(&workload, None, None).unwrap();
        let wish =
            Wish { name: "pg".into(), methods: vec![("full".into(), "pg-basebackup".into())], ..Wish::default() };
        policy(&workload, &found, &wish)
    }

    #[test]
    fn a_password_in_a_secret_is_followed_not_copied() {
        let planned = plan(
            &json!([{"name": "POSTGRES_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "pg", "key": "password"}}}]),
        )
        .unwrap();
        assert!(planned.secrets.is_empty());
        insta::assert_yaml_snapshot!(planned.policy);
    }

    #[test]
    fn user_and_password_of_one_secret_are_a_connection_credential() {
        let planned = plan(&json!([
            {"name": "POSTGRES_USER", "valueFrom": {"secretKeyRef": {"name": "pg", "key": "user"}}},
            {"name": "POSTGRES_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "pg", "key": "password"}}}
        ]))
        .unwrap();
        let credential = planned.policy.spec.target.unwrap().connection_credential.unwrap();
        assert_eq!(
            (credential.secret_name.as_str(), credential.username_key(), credential.password_key()),
            ("pg", "user", "password")
        );
        assert!(planned.policy.spec.backup_methods[0].env.is_empty());
    }

    #[test]
    fn a_password_in_the_template_moves_to_a_secret_and_nowhere_else() {
        let planned = plan(&json!([{"name": "POSTGRES_PASSWORD", "value": "hunter2"}])).unwrap();
        let secret = planned.secrets[0].clone();
        assert_eq!(secret.string_data.unwrap()["password"], "hunter2");
        assert!(!serde_json::to_string(&planned.policy).unwrap().contains("hunter2"));
        assert!(!planned.notes.join(" ").contains("hunter2"));
        assert_eq!(planned.policy.spec.target.unwrap().connection_credential.unwrap().secret_name, "pg-kbbackup");
    }

    #[test]
    fn an_incremental_method_names_the_full_one_that_the_policy_has() {
        let mut workload = workload(&json!([{"name": "MARIADB_ROOT_PASSWORD", "value": "hunter2"}]));
        let pod = workload.spec.as_mut().unwrap().template.spec.as_mut().unwrap();
        pod.containers[0].image = Some("mariadb:11.8".into());
        let found = detect(&workload, None, None).unwrap();
        let names = |methods: &[(&str, &str)]| {
            let methods = methods.iter().map(|(name, set)| ((*name).into(), (*set).into())).collect();
            let planned = policy(&workload, &found, &Wish { methods, ..Wish::default() }).unwrap();
            planned.policy.spec.backup_methods.into_iter().map(|method| method.compatible_method).collect::<Vec<_>>()
        };
        let both: Vec<_> = found.engine.methods.iter().map(|method| (method.name, method.action_set)).collect();
        assert_eq!(names(&both), [None, Some("full".to_owned()), None]);
        assert_eq!(names(&[("alone", "kbb-mariadb-incremental")]), [None]);
    }

    #[test]
    fn no_password_is_an_error_that_says_what_to_do() {
        let error = plan(&json!([{"name": "PGDATA", "value": "/x"}])).unwrap_err();
        assert!(error.to_string().contains("POSTGRES_PASSWORD"), "{error}");
        assert!(error.hints[1].contains("--secret"), "{error:?}");
    }
}
