//! `BackupPolicy`: what to back up, how, and where to.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Availability, BackupMethod, BackupTarget, EncryptionConfig};
use crate::{schema, words::words};

/// What to back up, with which methods, into which repository.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "dataprotection.kubeblocks.io",
    version = "v1alpha1",
    kind = "BackupPolicy",
    namespaced,
    doc = "What to back up, with which methods, into which repository. A Backup names a policy and one of its methods.",
    plural = "backuppolicies",
    shortname = "bp",
    status = "BackupPolicyStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(name = "BACKUP-REPO", type_ = "string", json_path = ".spec.backupRepoName"),
    printcolumn(name = "STATUS", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::rule(
    "(has(self.target) && !has(self.targets)) || (has(self.targets) && !has(self.target))",
    "either spec.target or spec.targets",
)))]
pub struct BackupPolicySpec {
    /// Name of the BackupRepo to store into. Default: the default repository. May be changed; backups that exist stay where
    /// they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = schema::NAME))]
    pub backup_repo_name: Option<String>,

    /// Folder below the repository's own folder and the namespace. Slashes at either end do not matter. Changing it starts
    /// a new place; incremental backups cannot build on those in the old one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_prefix: Option<String>,

    /// How often a failed Job is tried again, 0 to 10. Default: 2. May be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10), extend("default" = BackupPolicySpec::BACKOFF_LIMIT))]
    pub backoff_limit: Option<i32>,

    /// The one thing to back up. Either this or `targets`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<BackupTarget>,

    /// Several things to back up together, for example the shards of a database. Each needs a name. Either this or
    /// `target`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<BackupTarget>,

    /// The methods that backups and schedules may name. May be changed; a backup keeps the method as it was when it
    /// started.
    pub backup_methods: Vec<BackupMethod>,

    /// Whether to store into a Kopia repository. Default: false. Not for community editions of KubeBlocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = false))]
    pub use_kopia: Option<bool>,

    /// How the data is encrypted. Without it, it is not. May be changed; it counts for backups that start afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption_config: Option<EncryptionConfig>,

    /// `retainLatestBackup` spares the newest completed backup of each method from expiry; `none`, the default, does not.
    /// May be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_policy: Option<RetentionPolicy>,
}

impl BackupPolicySpec {
    /// How often a failed Job is tried again unless said otherwise.
    pub const BACKOFF_LIMIT: i32 = 2;

    /// How often a failed Job is tried again.
    pub fn backoff_limit(&self) -> i32 {
        self.backoff_limit.unwrap_or(Self::BACKOFF_LIMIT)
    }

    /// Whether a Kopia repository is used; it is not unless said otherwise.
    pub fn use_kopia(&self) -> bool {
        self.use_kopia.unwrap_or(false)
    }

    /// What expiry spares; nothing unless said otherwise.
    pub fn retention_policy(&self) -> RetentionPolicy {
        self.retention_policy.unwrap_or_default()
    }
}

/// Result of the policy's own check.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupPolicyStatus {
    /// Whether backups can use the policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Availability>,

    /// Why it is in this phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,

    /// The generation of the object that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

words! {
    /// What expiry spares.
    #[derive(Default)]
    pub enum RetentionPolicy {
        /// The newest completed backup of each method.
        RetainLatestBackup = "retainLatestBackup",
        /// Nothing.
        #[default]
        None = "none",
    }
}
