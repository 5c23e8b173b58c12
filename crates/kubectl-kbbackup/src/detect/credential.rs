//! How to log in: user and password from a container's environment.

use k8s_openapi::api::core::v1::{Container, EnvVar, PodSpec};

use super::Engine;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// It stands in the pod template.
    Literal(String),
    /// It is a key of a Secret of the same namespace.
    Secret { name: String, key: String },
}

/// User and password of the database.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credential {
    pub user: Value,
    pub password: Value,
}

/// Never shows a password.
impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let password = match &self.password {
            Value::Literal(_) => "(literal)".to_owned(),
            Value::Secret { name, key } => format!("{name}/{key}"),
        };
        f.debug_struct("Credential").field("user", &self.user).field("password", &password).finish()
    }
}

/// What the environment says about logging in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Login {
    /// User and password are known.
    Known(Credential),
    /// The server lets everybody in.
    Open { user: Value },
    /// No password was found: neither a variable nor a mounted Secret.
    Unknown { looked_for: Vec<&'static str> },
}

pub(crate) fn login(pod: &PodSpec, container: &Container, engine: &Engine) -> Login {
    let env = container.env.as_deref().unwrap_or_default();
    let user =
        lookup(pod, container, env, engine.user_env).unwrap_or_else(|| Value::Literal(engine.default_user.to_owned()));
    if let Some(password) = lookup(pod, container, env, engine.password_env) {
        return Login::Known(Credential { user, password });
    }
    if env.iter().any(lets_everybody_in) {
        return Login::Open { user };
    }
    Login::Unknown { looked_for: engine.password_env.to_vec() }
}

fn lets_everybody_in(variable: &EnvVar) -> bool {
    let value = variable.value.as_deref().unwrap_or_default();
    match variable.name.as_str() {
        "POSTGRES_HOST_AUTH_METHOD" => value == "trust",
        "ALLOW_EMPTY_PASSWORD" | "MYSQL_ALLOW_EMPTY_PASSWORD" | "MARIADB_ALLOW_EMPTY_ROOT_PASSWORD" => {
            matches!(value, "yes" | "true" | "1")
        }
        _ => false,
    }
}

/// The first of `names` that is set, directly or as a file of a mounted Secret.
fn lookup(pod: &PodSpec, container: &Container, env: &[EnvVar], names: &[&str]) -> Option<Value> {
    names.iter().find_map(|name| {
        let direct = env.iter().rev().find(|variable| variable.name == *name).and_then(|variable| value(variable, env));
        direct.or_else(|| {
            let file = format!("{name}_FILE");
            let path = env.iter().rev().find(|variable| variable.name == file)?.value.as_deref()?;
            mounted_secret(pod, container, path)
        })
    })
}

fn value(variable: &EnvVar, env: &[EnvVar]) -> Option<Value> {
    if let Some(literal) = variable.value.as_deref().filter(|literal| !literal.is_empty()) {
        // `$(OTHER)` alone is a reference to a variable before it.
        let reference = literal.strip_prefix("$(").and_then(|rest| rest.strip_suffix(')'));
        return match reference
            .and_then(|name| env.iter().find(|other| other.name == name && other.name != variable.name))
        {
            Some(other) => value(other, &[]),
            None => Some(Value::Literal(literal.to_owned())),
        };
    }
    let key = variable.value_from.as_ref()?.secret_key_ref.as_ref()?;
    Some(Value::Secret { name: key.name.clone(), key: key.key.clone() })
}

/// The Secret whose volume holds the file at `path`.
fn mounted_secret(pod: &PodSpec, container: &Container, path: &str) -> Option<Value> {
    container.volume_mounts.iter().flatten().find_map(|mount| {
        let rest = path.strip_prefix(mount.mount_path.trim_end_matches('/'))?;
        let file = match mount.sub_path.as_deref() {
            Some(sub_path) if rest.is_empty() => sub_path,
            _ => rest.strip_prefix('/')?,
        };
        let volume = pod.volumes.iter().flatten().find(|volume| volume.name == mount.name)?;
        let secret = volume.secret.as_ref()?;
        let key = match secret.items.as_deref() {
            None | Some([]) => file.to_owned(),
            Some(items) => items.iter().find(|item| item.path == file)?.key.clone(),
        };
        Some(Value::Secret { name: secret.secret_name.clone()?, key })
    })
}
