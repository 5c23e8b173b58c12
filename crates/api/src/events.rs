//! Reasons of Kubernetes events, in the words of the contract.

use crate::words::words;

words! {
    /// Why an event was written.
    pub enum EventReason {
        /// A backup starts a Job.
        CreatingJob = "CreatingJob",
        /// A backup starts a volume snapshot.
        CreatingVolumeSnapshot = "CreatingVolumeSnapshot",
        /// A backup is completed.
        CreatedBackup = "CreatedBackup",
        /// A backup waits because its own cluster is being restored.
        RestoreInProgress = "RestoreInProgress",
        /// A backup is deleted, but its deletion policy keeps the data.
        Retain = "Retain",
        /// The files of a deleted backup could not be removed.
        DeleteBackupFilesFailed = "DeleteBackupFilesFailed",
        /// An expired backup could not be removed.
        RemoveExpiredBackupsFailed = "RemoveExpiredBackupsFailed",
        /// Any other error that the controller retries.
        ReconcileFailed = "ReconcileFailed",
        /// A restore starts.
        RestoreStarting = "RestoreStarting",
        /// A restore is completed.
        RestoreCompleted = "RestoreCompleted",
        /// A restore has failed.
        RestoreFailed = "RestoreFailed",
        /// A restore asks for something that cannot be done.
        ValidateFailed = "ValidateFailed",
        /// A restore starts a Job.
        CreateRestoreJob = "CreateRestoreJob",
        /// A restore creates a claim.
        CreateRestorePvc = "CreateRestorePVC",
        /// A point-in-time restore leaves the base backup to its script.
        SkipBaseBackupRestoreInPitr = "SkipBaseBackupRestoreInPitr",
        /// A restore in place stops the workload.
        StoppingWorkload = "StoppingWorkload",
        /// A restore in place has given a claim another volume, and kept the old one.
        VolumeExchanged = "VolumeExchanged",
        /// A restore in place starts the workload again.
        StartingWorkload = "StartingWorkload",
        /// A restore met an obstacle and goes on trying.
        Warning = "Warning",
        /// A schedule could not be put into effect.
        HandleBackupScheduleFailed = "HandleBackupScheduleFailed",
        /// Database parameters are being changed for a continuous schedule.
        Reconfiguring = "Reconfiguring",
        /// A claim starts being filled.
        StartToVolumePopulate = "StartToVolumePopulate",
        /// A claim has been filled.
        VolumePopulateSucceed = "VolumePopulateSucceed",
        /// A claim could not be filled.
        VolumePopulateFailed = "VolumePopulateFailed",
        /// On a cluster: its policies could not be generated.
        ReconcileBackupPolicyFail = "ReconcileBackupPolicyFail",
        /// On a cluster: there is no policy for its backup settings.
        BackupPolicyNotFound = "BackupPolicyNotFound",
        /// On a cluster: the policy lacks the method of its backup settings.
        BackupMethodNotFound = "BackupMethodNotFound",
        /// An object was created on behalf of this one.
        CreatedCr = "CreatedCR",
        /// The object's deletion starts.
        DeletingCr = "DeletingCR",
        /// The object's deletion is done.
        DeletedCr = "DeletedCR",
        /// Only an edit can help.
        Fatal = "Fatal",
        /// Something that was referred to does not exist.
        NotFound = "NotFound",
        /// The target cannot be backed up this way.
        BackupNotSupported = "BackupNotSupported",
        /// The template of the repository's volume is missing.
        BackupPvTemplateNotFound = "BackupPVTemplateNotFound",
        /// The backup to restore is not completed.
        BackupNotCompleted = "BackupNotCompleted",
        /// The repository names no claim.
        BackupPvcNameIsEmpty = "BackupPVCNameIsEmpty",
        /// The repository is not ready.
        BackupRepoIsNotReady = "BackupRepoIsNotReady",
        /// The repository names no tool Secret.
        ToolConfigSecretNameIsEmpty = "ToolConfigSecretNameIsEmpty",
        /// A Job of the backup failed.
        BackupJobFailed = "BackupJobFailed",
        /// The volume's storage and the snapshot's do not match.
        StorageNotMatch = "ErrorTypeStorageNotMatch",
        /// Database parameters could not be changed.
        ReconfigureFailed = "ErrorTypeReconfigureFailed",
        /// The name of a continuous backup is not what its schedule demands.
        InvalidLogfileBackupName = "InvalidLogfileBackupName",
        /// The schedule is switched off.
        BackupScheduleDisabled = "BackupScheduleDisabled",
        /// The schedule of the continuous backup is switched off.
        LogfileScheduleDisabled = "LogfileScheduleDisabled",
        /// Another controller has to act first.
        WaitForExternalHandler = "WaitForExternalHandler",
        /// The repository's claim or Secret is being made in this namespace.
        WaitForBackupRepoPreparation = "WaitForBackupRepoPreparation",
    }
}
