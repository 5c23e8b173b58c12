//! The actions of an action set.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::words::words;

/// How to back up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupActionSpec {
    /// The action that stores the data: a Job, or for `Continuous` a StatefulSet that runs as long as the schedule is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_data: Option<BackupDataActionSpec>,

    /// What runs before it, one after the other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pre_backup: Vec<ActionSpec>,

    /// What runs after it, one after the other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub post_backup: Vec<ActionSpec>,

    /// Job that runs before the files of a backup are deleted, once per target that the backup recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pre_delete: Option<BaseJobActionSpec>,

    /// Names of the parameters that a backup may be given. Each must be in `parametersSchema`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub with_parameters: Vec<String>,
}

/// How to restore.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreActionSpec {
    /// Job that fills the volumes before the database starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepare_data: Option<JobActionSpec>,

    /// What runs against the started database, one after the other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub post_ready: Vec<ActionSpec>,

    /// Whether a restore to a point in time first restores a base backup and then the log. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = true))]
    pub base_backup_required: Option<bool>,

    /// Names of the parameters that a restore may be given. Each must be in `parametersSchema`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub with_parameters: Vec<String>,
}

impl RestoreActionSpec {
    /// Whether a restore to a point in time needs a base backup; it does unless said otherwise.
    pub fn base_backup_required(&self) -> bool {
        self.base_backup_required.unwrap_or(true)
    }
}

/// An image and what to run in it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BaseJobActionSpec {
    /// Container image. `$(NAME)` stands for the value of that environment variable, if it is a literal one.
    pub image: String,

    /// Command and arguments.
    pub command: Vec<String>,
}

/// A Job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobActionSpec {
    /// Container image. `$(NAME)` stands for the value of that environment variable, if it is a literal one.
    pub image: String,

    /// Command and arguments.
    pub command: Vec<String>,

    /// Whether the Job runs on the node of the target pod, with the pod's volumes mounted. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = false))]
    pub run_on_target_pod_node: Option<bool>,

    /// What an error does. `Fail`: it fails the backup or restore. `Continue`: it is recorded and the next action runs;
    /// KubeBlocks treats it like `Fail`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = ActionErrorMode::default()))]
    pub on_error: Option<ActionErrorMode>,
}

impl JobActionSpec {
    /// Whether the Job runs on the node of the target pod; it does not unless said otherwise.
    pub fn run_on_target_pod_node(&self) -> bool {
        self.run_on_target_pod_node.unwrap_or(false)
    }

    /// What an error does; `Fail` unless said otherwise.
    pub fn on_error(&self) -> ActionErrorMode {
        self.on_error.unwrap_or_default()
    }
}

/// The action that stores the data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupDataActionSpec {
    /// The Job.
    #[serde(flatten)]
    pub job: JobActionSpec,

    /// How progress is reported while the action runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync_progress: Option<SyncProgress>,
}

/// How progress is reported while an action runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SyncProgress {
    /// Whether progress is reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,

    /// Seconds between two looks at the result file, for scripts that rely on polling. Zero or less counts as 5.
    /// Default: 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = 60))]
    pub interval_seconds: Option<i32>,
}

/// One action: exactly one of `exec` and `job`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ActionSpec {
    /// Runs inside a pod that exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecActionSpec>,

    /// Runs as a Job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobActionSpec>,
}

/// A command inside a pod that exists.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExecActionSpec {
    /// Container of the target pod. Default: its first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,

    /// Command and arguments.
    #[schemars(length(min = 1))]
    pub command: Vec<String>,

    /// What an error does, see the same field of a Job. Default: `Fail`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = ActionErrorMode::default()))]
    pub on_error: Option<ActionErrorMode>,

    /// How long the command may take, for example `1m30s`; `0s` or nothing means no limit. KubeBlocks does not enforce it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
}

impl ExecActionSpec {
    /// What an error does; `Fail` unless said otherwise.
    pub fn on_error(&self) -> ActionErrorMode {
        self.on_error.unwrap_or_default()
    }
}

words! {
    /// What an error in an action does.
    #[derive(Default)]
    pub enum ActionErrorMode {
        /// It is recorded and the next action runs.
        Continue = "Continue",
        /// It fails the backup or restore.
        #[default]
        Fail = "Fail",
    }
}
