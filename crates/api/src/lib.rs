//! The custom resources of kbbackup: group `dataprotection.kubeblocks.io`, version `v1alpha1`.
//!
//! Names, defaults, patterns and rules are a contract shared with KubeBlocks: objects written by either side are read
//! by the other. [`crds`] turns the types into the `CustomResourceDefinition`s that are installed in a cluster. KubeBlocks'
//! own kinds, which are only read, stand in [`apps`].
//!
//! Three conventions hold for all types:
//! * A field that may be absent is an `Option` (or an empty list or map) and is not written when it is. Where the API
//!   server would fill in a default, a method of the same name gives the effective value.
//! * A field that is required *and* has a default is a plain value and always written.
//! * Structures that Kubernetes defines (`EnvVar`, `LabelSelector`, `ResourceRequirements`, …) are those of
//!   `k8s-openapi`; what the API server keeps of them is the subset listed in [`schema`].
#![warn(missing_docs)]
// `kubectl explain` shows these comments as plain text, in which names of kinds need no marks.
#![allow(clippy::doc_markdown)]
// The lint takes two printer columns for one attribute written twice.
#![allow(clippy::duplicated_attributes)]

pub mod apps;
pub mod conditions;
pub mod errand;
pub mod events;
pub mod in_place;
mod lenient;
pub mod names;
pub mod recovery;
pub mod schema;
pub mod snapshot;
pub mod v1alpha1;
mod words;

pub use words::UnknownWord;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use v1alpha1::{
    ActionSet, Backup, BackupPolicy, BackupPolicyTemplate, BackupRepo, BackupSchedule, Restore, StorageProvider,
};

/// API group of all kinds.
pub const GROUP: &str = "dataprotection.kubeblocks.io";

/// The only version of the group, served and stored.
pub const VERSION: &str = "v1alpha1";

/// All eight definitions, ready to be applied to a cluster, in the order of their names.
pub fn crds() -> Vec<CustomResourceDefinition> {
    [
        ActionSet::crd(),
        BackupPolicy::crd(),
        BackupPolicyTemplate::crd(),
        BackupRepo::crd(),
        Backup::crd(),
        BackupSchedule::crd(),
        Restore::crd(),
        StorageProvider::crd(),
    ]
    .into_iter()
    .map(schema::finish)
    .collect()
}
