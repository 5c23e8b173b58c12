//! From kubeconfig files and flags to a configuration of the client, as kubectl does it.

use std::path::{Path, PathBuf};

use kube::config::{
    AuthInfo, Cluster, Config, Context, KubeConfigOptions, Kubeconfig, KubeconfigError, NamedAuthInfo, NamedCluster,
    NamedContext,
};
use serde_json::{Map, Value, json};

use crate::{
    args::Globals,
    error::{CliError, Result, root_cause},
    exit::Exit,
};

/// Name of the entries made for flags when the kubeconfig has none.
const OURS: &str = "kbbackup-flags";

/// Reads the files, lays the flags over them and loads certificates.
pub(crate) async fn load(globals: &Globals) -> Result<Config> {
    let read = match &globals.kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => read(),
    };
    let kubeconfig = match read {
        Ok(kubeconfig) => kubeconfig,
        // No file at all: a pod's own account, or flags alone.
        Err(KubeconfigError::ReadConfig(error, _))
            if error.kind() == std::io::ErrorKind::NotFound && globals.kubeconfig.is_none() =>
        {
            if globals.server.is_none() && in_cluster() {
                let config = Config::incluster().map_err(|error| unusable("the pod's service account", &error))?;
                return Ok(with_flags_in_cluster(config, globals));
            }
            Kubeconfig::default()
        }
        Err(error) => return Err(unusable(&place(globals.kubeconfig.as_deref()), &error)),
    };
    let (kubeconfig, options) = overlay(kubeconfig, globals)?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .map_err(|error| unusable(&place(globals.kubeconfig.as_deref()), &error))?;
    if let Some(limit) = globals.request_timeout.filter(|limit| !limit.is_zero()) {
        config.connect_timeout = Some(limit);
        config.read_timeout = Some(limit);
        config.write_timeout = Some(limit);
    } else {
        // kubectl gives up on an address that does not answer after a while; so do we, just not after half a minute.
        config.connect_timeout = Some(std::time::Duration::from_secs(10));
    }
    Ok(config)
}

/// The files that the variable names, else the usual one.
fn read() -> std::result::Result<Kubeconfig, KubeconfigError> {
    let named = std::env::var_os("KUBECONFIG").unwrap_or_default();
    let files: Vec<PathBuf> = std::env::split_paths(&named).filter(|path| !path.as_os_str().is_empty()).collect();
    if files.is_empty() { Kubeconfig::read() } else { merged(&files) }
}

/// All of them that are there, as kubectl does it: the first one that says something wins.
fn merged(files: &[PathBuf]) -> std::result::Result<Kubeconfig, KubeconfigError> {
    let (mut whole, mut missing) = (None::<Kubeconfig>, None);
    for file in files {
        match Kubeconfig::read_from(file) {
            Err(KubeconfigError::ReadConfig(error, path)) if error.kind() == std::io::ErrorKind::NotFound => {
                missing = Some(KubeconfigError::ReadConfig(error, path));
            }
            other => whole = Some(whole.unwrap_or_default().merge(other?)?),
        }
    }
    match (whole, missing) {
        (None, Some(missing)) => Err(missing),
        (whole, _) => Ok(whole.unwrap_or_default()),
    }
}

fn in_cluster() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

fn place(given: Option<&Path>) -> String {
    match given {
        Some(path) => format!("kubeconfig {}", path.display()),
        None => "the kubeconfig".to_owned(),
    }
}

fn unusable(what: &str, error: &(dyn std::error::Error + 'static)) -> CliError {
    let (text, cause) = (error.to_string(), root_cause(error));
    let why = if text.contains(&cause) { text } else { format!("{text}: {cause}") };
    CliError::new(Exit::Refused, format!("{what} cannot be used"), why).hint("kubectl config view")
}

fn with_flags_in_cluster(mut config: Config, globals: &Globals) -> Config {
    config.auth_info.impersonate = globals.as_user.clone().or(config.auth_info.impersonate);
    if !globals.as_group.is_empty() {
        config.auth_info.impersonate_groups = Some(globals.as_group.clone());
    }
    config.auth_info.impersonate_uid = globals.as_uid.clone().or(config.auth_info.impersonate_uid);
    config
}

/// Lays the flags over the entries that the chosen context names. A flag wins over a file.
fn overlay(mut kubeconfig: Kubeconfig, globals: &Globals) -> Result<(Kubeconfig, KubeConfigOptions)> {
    let context_name = globals.context.clone().or_else(|| kubeconfig.current_context.clone());
    let context = match &context_name {
        Some(name) => {
            let found =
                kubeconfig.contexts.iter().find(|entry| &entry.name == name).and_then(|entry| entry.context.clone());
            Some(found.ok_or_else(|| no_context(name, &kubeconfig))?)
        }
        None => None,
    };
    if context.is_none() && globals.server.is_none() && globals.cluster.is_none() {
        return Err(CliError::refused("no cluster to talk to", "there is no kubeconfig with a current context")
            .hint("kubectl config get-contexts"));
    }
    let cluster_name = globals.cluster.clone().or_else(|| context.as_ref().map(|context| context.cluster.clone()));
    let user_name = globals.user.clone().or_else(|| context.as_ref().and_then(|context| context.user.clone()));

    let cluster = find_cluster(&kubeconfig, cluster_name.as_deref(), globals.cluster.is_some())?;
    let user = find_user(&kubeconfig, user_name.as_deref(), globals.user.is_some())?;
    let cluster = patched(cluster, cluster_flags(globals))?;
    let user = patched(user, user_flags(globals))?;

    // The merged pair goes under names of our own, so that no entry of a file is changed for other contexts.
    kubeconfig.clusters.push(named(json!({"name": OURS, "cluster": cluster}))?);
    kubeconfig.auth_infos.push(named::<NamedAuthInfo>(json!({"name": OURS, "user": user}))?);
    let namespace = context.and_then(|context| context.namespace);
    let context = Context { cluster: OURS.to_owned(), user: Some(OURS.to_owned()), namespace, ..Context::default() };
    kubeconfig.contexts.push(NamedContext { name: OURS.to_owned(), context: Some(context), ..NamedContext::default() });
    Ok((kubeconfig, KubeConfigOptions { context: Some(OURS.to_owned()), cluster: None, user: None }))
}

fn no_context(name: &str, kubeconfig: &Kubeconfig) -> CliError {
    let known: Vec<&str> = kubeconfig.contexts.iter().map(|entry| entry.name.as_str()).collect();
    let why = if known.is_empty() {
        "the kubeconfig has no contexts".to_owned()
    } else {
        format!("the kubeconfig has {}", known.join(", "))
    };
    CliError::usage(format!("context {name} does not exist"), why)
}

fn find_cluster(kubeconfig: &Kubeconfig, name: Option<&str>, asked: bool) -> Result<Cluster> {
    let found = name.and_then(|name| {
        let entry: Option<&NamedCluster> = kubeconfig.clusters.iter().find(|entry| entry.name == name);
        entry.and_then(|entry| entry.cluster.clone())
    });
    match found {
        None if asked => Err(CliError::usage(
            format!("cluster {} is not in the kubeconfig", name.unwrap_or_default()),
            "--cluster names an entry of the kubeconfig, not a database",
        )),
        found => Ok(found.unwrap_or_default()),
    }
}

fn find_user(kubeconfig: &Kubeconfig, name: Option<&str>, asked: bool) -> Result<AuthInfo> {
    let found = name.and_then(|name| {
        kubeconfig.auth_infos.iter().find(|entry| entry.name == name).and_then(|entry| entry.auth_info.clone())
    });
    match found {
        None if asked => Err(CliError::usage(
            format!("user {} is not in the kubeconfig", name.unwrap_or_default()),
            "--user names an entry of the kubeconfig",
        )),
        found => Ok(found.unwrap_or_default()),
    }
}

fn cluster_flags(globals: &Globals) -> Map<String, Value> {
    let mut flags = Map::new();
    if let Some(server) = &globals.server {
        flags.insert("server".into(), json!(server));
    }
    if let Some(file) = &globals.certificate_authority {
        flags.insert("certificate-authority".into(), json!(file));
        flags.insert("certificate-authority-data".into(), Value::Null);
    }
    if globals.insecure_skip_tls_verify {
        flags.insert("insecure-skip-tls-verify".into(), json!(true));
        flags.insert("certificate-authority".into(), Value::Null);
        flags.insert("certificate-authority-data".into(), Value::Null);
    }
    if let Some(name) = &globals.tls_server_name {
        flags.insert("tls-server-name".into(), json!(name));
    }
    flags
}

fn user_flags(globals: &Globals) -> Map<String, Value> {
    let mut flags = Map::new();
    if let Some(token) = &globals.token {
        // A token given by hand replaces every other way to log in.
        for key in ["tokenFile", "exec", "auth-provider", "username", "password"] {
            flags.insert(key.into(), Value::Null);
        }
        flags.insert("token".into(), json!(token));
    }
    for (key, data, file) in [
        ("client-certificate", "client-certificate-data", &globals.client_certificate),
        ("client-key", "client-key-data", &globals.client_key),
    ] {
        if let Some(file) = file {
            flags.insert(key.into(), json!(file));
            flags.insert(data.into(), Value::Null);
        }
    }
    if let Some(user) = &globals.as_user {
        flags.insert("as".into(), json!(user));
    }
    if !globals.as_group.is_empty() {
        flags.insert("as-groups".into(), json!(globals.as_group));
    }
    if let Some(uid) = &globals.as_uid {
        flags.insert("as-uid".into(), json!(uid));
    }
    flags
}

fn patched<T: serde::Serialize + serde::de::DeserializeOwned>(entry: T, flags: Map<String, Value>) -> Result<T> {
    let mut value = serde_json::to_value(entry)?;
    if let Value::Object(fields) = &mut value {
        for (key, flag) in flags {
            if flag.is_null() {
                fields.remove(&key);
            } else {
                fields.insert(key, flag);
            }
        }
    }
    Ok(serde_json::from_value(value)?)
}

fn named<T: serde::de::DeserializeOwned>(value: Value) -> Result<T> {
    Ok(serde_json::from_value(value)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "
apiVersion: v1
kind: Config
current-context: a
contexts:
- name: a
  context: {cluster: ca, user: ua, namespace: demo}
clusters:
- name: ca
  cluster: {server: 'https://a:6443', certificate-authority-data: QQ==}
users:
- name: ua
  user: {client-certificate-data: QQ==, client-key-data: QQ==}
";

    fn load(globals: &Globals) -> Value {
        let (kubeconfig, options) = overlay(Kubeconfig::from_yaml(FILE).unwrap(), globals).unwrap();
        assert_eq!(options.context.as_deref(), Some(OURS));
        let value = serde_json::to_value(kubeconfig).unwrap();
        let last = |list: &str| value[list].as_array().unwrap().last().unwrap().clone();
        json!({"cluster": last("clusters")["cluster"], "user": last("users")["user"], "namespace": last("contexts")["context"]["namespace"]})
    }

    #[test]
    fn files_that_are_not_there_are_passed_over_and_broken_ones_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).unwrap();
            dir.path().join(name)
        };
        let (good, missing) = (file("good", FILE), dir.path().join("missing"));
        let other = file("other", &FILE.replace("current-context: a", "current-context: z").replace("//a:", "//z:"));
        let current = |files: &[PathBuf]| merged(files).unwrap().current_context;
        assert_eq!(current(&[missing.clone(), good.clone()]).as_deref(), Some("a"));
        assert_eq!(current(&[good.clone(), missing.clone(), other.clone()]).as_deref(), Some("a"));
        assert_eq!(current(&[other, good.clone()]).as_deref(), Some("z"));
        assert!(matches!(merged(&[missing]), Err(KubeconfigError::ReadConfig(..))));
        assert!(merged(&[good, file("broken", "a: [")]).is_err());
    }

    #[test]
    fn without_flags_the_context_is_taken_as_it_is() {
        let loaded = load(&Globals::default());
        assert_eq!(loaded["cluster"]["server"], "https://a:6443");
        assert_eq!(loaded["namespace"], "demo");
    }

    #[test]
    fn a_flag_wins_over_the_file() {
        let globals = Globals {
            server: Some("https://b".into()),
            insecure_skip_tls_verify: true,
            token: Some("t".into()),
            as_user: Some("joe".into()),
            as_group: vec!["ops".into(), "dev".into()],
            ..Globals::default()
        };
        let loaded = load(&globals);
        assert_eq!(loaded["cluster"]["server"], "https://b");
        assert_eq!(loaded["cluster"].get("certificate-authority-data"), None);
        assert_eq!(loaded["user"]["token"], "t");
        assert_eq!(loaded["user"]["as"], "joe");
        assert_eq!(loaded["user"]["as-groups"], json!(["ops", "dev"]));
    }

    #[test]
    fn an_unknown_context_names_those_there_are() {
        let globals = Globals { context: Some("b".into()), ..Globals::default() };
        let error = overlay(Kubeconfig::from_yaml(FILE).unwrap(), &globals).err().unwrap();
        assert_eq!(error.to_string(), "context b does not exist — the kubeconfig has a");
        assert_eq!(error.exit, Exit::Usage);
    }

    #[test]
    fn flags_alone_are_enough() {
        let globals = Globals { server: Some("https://b".into()), ..Globals::default() };
        assert!(overlay(Kubeconfig::default(), &globals).is_ok());
        assert!(overlay(Kubeconfig::default(), &Globals::default()).is_err());
    }
}
