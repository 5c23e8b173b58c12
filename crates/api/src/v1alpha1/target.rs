//! What is backed up: pods, how to log in to them, and what else belongs to them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    schema::{self, core_types},
    words::words,
};

/// One thing to back up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupTarget {
    /// Name of the target. In a list of targets it is mandatory and unique. It becomes a folder in the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,

    /// Which pods to back up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<PodSelector>,

    /// Secret with which to log in to the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_credential: Option<ConnectionCredential>,

    /// Kubernetes objects to back up along with the data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<KubeResources>,

    /// ServiceAccount of the backup's pods. Default: the shared one for workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<String>,

    /// Port of the database, handed to scripts as `DP_DB_PORT`. Default: the first port of the first container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_port: Option<ContainerPort>,
}

/// A target, and the pods that were chosen for it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupStatusTarget {
    /// The target as it was configured.
    #[serde(flatten)]
    pub target: BackupTarget,

    /// Names of the pods chosen when the backup started, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub selected_target_pods: Vec<String>,
}

/// Which pods: a label selector, and what to do if it finds several or none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct PodSelector {
    /// Labels that a pod must carry, all of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,

    /// Further demands on the labels, all of which must be met.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "core_types::label_selector_requirements")]
    pub match_expressions: Vec<LabelSelectorRequirement>,

    /// Second choice, tried when the labels above find no usable pod. Only for strategy `Any`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "core_types::label_selector")]
    pub fallback_label_selector: Option<LabelSelector>,

    /// `Any`: one pod is backed up. `All`: every matching pod is, each into a folder of its own. Default: `Any`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = PodSelectionStrategy::default()))]
    pub strategy: Option<PodSelectionStrategy>,

    /// Whether an incremental backup takes the pods that its parent took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub use_parent_selected_pods: Option<bool>,
}

impl PodSelector {
    /// One pod or all; one unless said otherwise.
    pub fn strategy(&self) -> PodSelectionStrategy {
        self.strategy.unwrap_or_default()
    }

    /// The labels alone, as Kubernetes writes them.
    pub fn label_selector(&self) -> LabelSelector {
        LabelSelector {
            match_labels: (!self.match_labels.is_empty()).then(|| self.match_labels.clone()),
            match_expressions: (!self.match_expressions.is_empty()).then(|| self.match_expressions.clone()),
        }
    }
}

/// Secret with which to log in to a database. It is looked for in the namespace where the Job runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionCredential {
    /// Name of the Secret.
    #[schemars(extend("pattern" = schema::NAME))]
    pub secret_name: String,

    /// Key of the user name. Default: `username`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = ConnectionCredential::USERNAME_KEY))]
    pub username_key: Option<String>,

    /// Key of the password. Default: `password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = ConnectionCredential::PASSWORD_KEY))]
    pub password_key: Option<String>,

    /// Key of the host. Default: the DNS name or the address of the target pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_key: Option<String>,

    /// Key of the port. Default: the port of the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_key: Option<String>,
}

impl ConnectionCredential {
    /// Key of the user name unless said otherwise.
    pub const USERNAME_KEY: &'static str = "username";
    /// Key of the password unless said otherwise.
    pub const PASSWORD_KEY: &'static str = "password";

    /// Key of the user name.
    pub fn username_key(&self) -> &str {
        self.username_key.as_deref().unwrap_or(Self::USERNAME_KEY)
    }

    /// Key of the password.
    pub fn password_key(&self) -> &str {
        self.password_key.as_deref().unwrap_or(Self::PASSWORD_KEY)
    }
}

/// A port of a pod, by its names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContainerPort {
    /// Container that has the port.
    pub container_name: String,

    /// Name of the port in that container.
    pub port_name: String,
}

/// Kubernetes objects to back up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct KubeResources {
    /// Labels of the objects. Without it none are taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "core_types::label_selector")]
    pub selector: Option<LabelSelector>,

    /// Namespaced resource types to take.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub included: Vec<String>,

    /// Namespaced resource types to leave out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excluded: Vec<String>,
}

words! {
    /// How many of the matching pods are backed up.
    #[derive(Default)]
    pub enum PodSelectionStrategy {
        /// One.
        #[default]
        Any = "Any",
        /// Every one.
        All = "All",
    }
}
