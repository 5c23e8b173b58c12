//! Version `v1alpha1`: one module per kind, the parts that kinds share beside them.

mod action_set;
mod actions;
mod backup;
mod backup_policy;
mod backup_policy_template;
mod backup_repo;
mod backup_schedule;
mod backup_status;
mod method;
mod parameters;
mod restore;
mod restore_ready;
mod restore_volumes;
mod schedule_policy;
mod storage_provider;
mod target;

pub use action_set::{ActionSet, ActionSetSpec, ActionSetStatus, BackupType};
pub use actions::{
    ActionErrorMode, ActionSpec, BackupActionSpec, BackupDataActionSpec, BaseJobActionSpec, ExecActionSpec,
    JobActionSpec, RestoreActionSpec, SyncProgress,
};
pub use backup::{Backup, BackupPhase, BackupSpec, BackupStatus, DeletionPolicy};
pub use backup_policy::{BackupPolicy, BackupPolicySpec, BackupPolicyStatus, RetentionPolicy};
pub use backup_policy_template::{
    BackupMethodTemplate, BackupPolicyTemplate, BackupPolicyTemplateSpec, BackupPolicyTemplateStatus, EnvVarTemplate,
    TargetInstance, ValueFrom, VersionMapping,
};
pub use backup_repo::{AccessMethod, BackupRepo, BackupRepoPhase, BackupRepoSpec, BackupRepoStatus, PvReclaimPolicy};
pub use backup_schedule::{
    BackupSchedule, BackupSchedulePhase, BackupScheduleSpec, BackupScheduleStatus, SchedulePhase, ScheduleStatus,
};
pub use backup_status::{ActionPhase, ActionStatus, ActionType, BackupTimeRange, VolumeSnapshotStatus};
pub use method::{BackupMethod, EncryptionAlgorithm, EncryptionConfig, RuntimeSettings, TargetVolumeInfo};
pub use parameters::{ParameterPair, ParametersSchema};
pub use restore::{
    BackupRef, IncludeResource, Restore, RestoreActionPhase, RestorePhase, RestoreResources, RestoreSpec,
    RestoreStatus, RestoreStatusAction, RestoreStatusActions,
};
pub use restore_ready::{
    ExecAction, ExecActionTarget, JobAction, JobActionTarget, ReadinessProbe, ReadinessProbeExec, ReadyConfig,
};
pub use restore_volumes::{
    DataRestorePolicy, EmbeddedObjectMeta, PrepareDataConfig, RequiredPolicyForAllPodSelection, RestoreVolumeClaim,
    RestoreVolumeClaimsTemplate, SchedulingSpec, SourceOfOneToMany, VolumeClaimRestorePolicy, VolumeConfig,
};
pub use schedule_policy::SchedulePolicy;
pub use storage_provider::{
    StorageProvider, StorageProviderParameters, StorageProviderPhase, StorageProviderSpec, StorageProviderStatus,
};
pub use target::{
    BackupStatusTarget, BackupTarget, ConnectionCredential, ContainerPort, KubeResources, PodSelectionStrategy,
    PodSelector,
};

use crate::words::words;

words! {
    /// Result of an object's own check. Shared by action sets, policies and templates.
    pub enum Availability {
        /// It can be used.
        Available = "Available",
        /// It cannot be used; the message says why.
        Unavailable = "Unavailable",
    }
}
