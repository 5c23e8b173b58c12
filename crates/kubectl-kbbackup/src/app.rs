//! The client, the namespaces, and what every command needs to know about the cluster.

use k8s_openapi::api::apps::v1::Deployment;
use kbbackup_api::names::labels;
use kube::{Api, Client, Resource, ResourceExt, api::ListParams, core::NamespaceResourceScope};

use crate::{
    args::Globals,
    error::{CliError, Doing, Result},
    kubeconfig,
};

/// Field manager of everything we write, unless told otherwise.
pub(crate) const FIELD_MANAGER: &str = "kubectl-kbbackup";
/// Where `install` puts the operator, unless told otherwise.
pub(crate) const DEFAULT_OPERATOR_NAMESPACE: &str = "kbbackup-system";
/// Value of [`labels::PART`] on the operator's Deployment.
pub(crate) const PART_OPERATOR: &str = "operator";
/// Value of [`labels::PART`] on the definitions.
pub(crate) const PART_DEFINITIONS: &str = "definitions";
/// Value of [`labels::PART`] on everything of the embedded repository.
pub(crate) const PART_STORE: &str = "store";

/// Pages of long lists, so that memory stays flat.
pub(crate) const PAGE: u32 = 500;

#[derive(Clone)]
pub(crate) struct App {
    pub client: Client,
    /// Namespace of the database and its backups.
    pub namespace: String,
    pub field_manager: String,
    operator_namespace: Option<String>,
    /// The namespace was given on the command line, so hints repeat it.
    namespace_given: bool,
    /// Address of the API server, for messages.
    pub server: String,
}

impl App {
    pub(crate) async fn connect(globals: &Globals) -> Result<Self> {
        let config = kubeconfig::load(globals).await?;
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let namespace = globals.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).doing(|| format!("no connection to {server}"))?;
        Ok(Self {
            client,
            namespace,
            field_manager: globals.field_manager.clone(),
            operator_namespace: globals.operator_namespace.clone(),
            namespace_given: globals.namespace.is_some(),
            server,
        })
    }

    /// Whether the namespace was named on the command line.
    pub(crate) fn namespace_given(&self) -> bool {
        self.namespace_given
    }

    /// ` -n NS` when a command that is suggested needs it to mean the same.
    pub(crate) fn namespace_flag(&self) -> String {
        if self.namespace_given { format!(" -n {}", self.namespace) } else { String::new() }
    }

    /// Objects of the chosen namespace.
    pub(crate) fn here<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        self.within(&self.namespace)
    }

    /// Objects of some namespace.
    pub(crate) fn within<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Objects of the whole cluster.
    pub(crate) fn everywhere<K: Resource<DynamicType = ()>>(&self) -> Api<K> {
        Api::all(self.client.clone())
    }

    /// The chosen namespace, or all.
    pub(crate) fn scoped<K>(&self, all: bool) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        if all { self.everywhere() } else { self.here() }
    }

    /// The operator's Deployment, wherever it is.
    pub(crate) async fn operator(&self) -> Result<Option<Deployment>> {
        let selector = format!("{}={PART_OPERATOR}", labels::PART);
        let api: Api<Deployment> = match &self.operator_namespace {
            Some(namespace) => self.within(namespace),
            None => self.everywhere(),
        };
        match api.list(&ListParams::default().labels(&selector)).await {
            Ok(list) => Ok(list.items.into_iter().next()),
            // Without the right to look everywhere the usual place is tried.
            Err(kube::Error::Api(status)) if status.code == 403 && self.operator_namespace.is_none() => {
                let api: Api<Deployment> = self.within(DEFAULT_OPERATOR_NAMESPACE);
                let list = api
                    .list(&ListParams::default().labels(&selector))
                    .await
                    .doing(|| "the operator cannot be looked for".into())?;
                Ok(list.items.into_iter().next())
            }
            Err(error) => Err(error).doing(|| "the operator cannot be looked for".into()),
        }
    }

    /// An operator in whatever namespace, as far as one may look: also where another one was given.
    pub(crate) async fn operator_anywhere(&self) -> Result<Option<Deployment>> {
        Self { operator_namespace: None, ..self.clone() }.operator().await
    }

    /// Namespace of the operator: given, found, or the usual one.
    pub(crate) async fn operator_namespace(&self) -> String {
        if let Some(namespace) = &self.operator_namespace {
            return namespace.clone();
        }
        let found = self.operator().await.ok().flatten().and_then(|operator| operator.namespace());
        found.unwrap_or_else(|| DEFAULT_OPERATOR_NAMESPACE.to_owned())
    }
}

/// All objects of a list, read in pages.
pub(crate) async fn list_all<K>(api: &Api<K>, params: ListParams, what: &str) -> Result<Vec<K>>
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let mut all = Vec::new();
    each_page(api, params, what, |page| all.extend(page)).await?;
    Ok(all)
}

/// Hands a list over page by page: what is not kept of a page is gone before the next one comes.
pub(crate) async fn each_page<K>(
    api: &Api<K>,
    params: ListParams,
    what: &str,
    mut visit: impl FnMut(Vec<K>),
) -> Result<()>
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let mut params = params.limit(PAGE);
    loop {
        let page = api.list(&params).await.doing(|| format!("{what} cannot be listed"))?;
        visit(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(()),
        }
    }
}

/// A named object, or an error with exit code 3.
pub(crate) async fn get<K>(api: &Api<K>, what: &str) -> Result<K>
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let name = what.rsplit_once('/').map_or(what, |(_, name)| name);
    api.get(name).await.doing(|| format!("{what} cannot be read"))
}

/// The named objects of a kind, as in `policy`, or all of them.
pub(crate) async fn named_or_all<K>(api: &Api<K>, kind: &str, names: &[String], params: ListParams) -> Result<Vec<K>>
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    if names.is_empty() {
        return list_all(api, params, &format!("{kind} objects")).await;
    }
    let mut found = Vec::with_capacity(names.len());
    for name in names {
        found.push(get(api, &format!("{kind}/{name}")).await?);
    }
    Ok(found)
}

/// A name that Kubernetes accepts for most objects.
pub(crate) fn check_name(what: &str, name: &str) -> Result<()> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    if name.len() > kbbackup_core::names::MAX_NAME {
        return Err(CliError::usage(format!("{what} {name} is not a valid name"), "it is longer than 63 characters"));
    }
    if name.is_empty() || !name.chars().all(good) || !edge(name.chars().next()) || !edge(name.chars().last()) {
        return Err(CliError::usage(
            format!("{what} \"{name}\" is not a valid name"),
            "lower-case letters, digits and dashes, not at the ends",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_kubernetes_rules() {
        for name in ["pg", "pg-1", "1"] {
            assert!(check_name("backup", name).is_ok(), "{name}");
        }
        for name in ["", "Pg", "-pg", "pg-", "p_g", "a.b", &"x".repeat(64)] {
            assert!(check_name("backup", name).is_err(), "{name}");
        }
    }
}
