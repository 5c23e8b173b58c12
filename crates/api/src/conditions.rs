//! Types and reasons of conditions, in the words of the contract, and the rule for writing them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::words::words;

words! {
    /// Conditions of a `StorageProvider`.
    pub enum StorageProviderCondition {
        /// Whether the CSI driver it names exists. True as well when it names none.
        CsiDriverInstalled = "CSIDriverInstalled",
    }
}

words! {
    /// Reasons in the conditions of a `StorageProvider`.
    pub enum StorageProviderReason {
        /// True: the driver exists, or none is needed.
        CsiDriverObjectFound = "CSIDriverObjectFound",
        /// Unknown: the driver was not found or could not be looked up.
        CheckCsiDriverFailed = "CheckCSIDriverFailed",
    }
}

words! {
    /// Conditions of a `BackupRepo`, in the order in which they are checked.
    pub enum BackupRepoCondition {
        /// The provider exists and offers what the access method needs.
        StorageProviderReady = "StorageProviderReady",
        /// The parameters are complete and the credential Secret exists.
        ParametersChecked = "ParametersChecked",
        /// The CSI Secret and the StorageClass exist, or the provider has no template for them.
        StorageClassCreated = "StorageClassCreated",
        /// The template of the repository's claim renders.
        PvcTemplateChecked = "PVCTemplateChecked",
        /// A Job wrote to the repository and read it back.
        PreCheckPassed = "PreCheckPassed",
        /// While being deleted: everything made for the repository is gone.
        DerivedObjectsDeleted = "DerivedObjectsDeleted",
    }
}

words! {
    /// Reasons in the conditions of a `BackupRepo`.
    pub enum BackupRepoReason {
        /// `StorageProviderReady` is True.
        StorageProviderReady = "StorageProviderReady",
        /// `StorageProviderReady` is False: there is no such provider.
        StorageProviderNotFound = "StorageProviderNotFound",
        /// `StorageProviderReady` is False: the provider lacks the templates for this access method.
        InvalidStorageProvider = "InvalidStorageProvider",
        /// `StorageProviderReady` is False: the provider's CSI driver is not installed.
        StorageProviderNotReady = "StorageProviderNotReady",
        /// Some other error, in any condition; the message has it.
        UnknownError = "UnknownError",
        /// `ParametersChecked` is True.
        ParametersChecked = "ParametersChecked",
        /// `ParametersChecked` is False: the credential Secret does not exist.
        CredentialSecretNotFound = "CredentialSecretNotFound",
        /// `StorageClassCreated` is True.
        StorageClassCreated = "StorageClassCreated",
        /// `StorageClassCreated` is False: the CSI Secret could not be made.
        PrepareCsiSecretFailed = "PrepareCSISecretFailed",
        /// `StorageClassCreated` is False: the StorageClass could not be made.
        PrepareStorageClassFailed = "PrepareStorageClassFailed",
        /// `PVCTemplateChecked` is True.
        PvcTemplateChecked = "PVCTemplateChecked",
        /// `PVCTemplateChecked` is True: nothing to check.
        Skipped = "Skipped",
        /// `PVCTemplateChecked` is False: the template does not render to a claim.
        BadPvcTemplate = "BadPVCTemplate",
        /// `PreCheckPassed` is True.
        PreCheckPassed = "PreCheckPassed",
        /// `PreCheckPassed` is False.
        PreCheckFailed = "PreCheckFailed",
        /// `PreCheckPassed` is Unknown: parameters or templates changed, the check runs again.
        DigestChanged = "DigestChanged",
        /// `DerivedObjectsDeleted` is True.
        DerivedObjectsDeleted = "DerivedObjectsDeleted",
        /// `DerivedObjectsDeleted` is False: backups still lie in the repository.
        HaveAssociatedBackups = "HaveAssociatedBackups",
        /// `DerivedObjectsDeleted` is False: claims of the repository still exist.
        HaveResidualPvcs = "HaveResidualPVCs",
    }
}

words! {
    /// Conditions of a `Restore`.
    pub enum RestoreCondition {
        /// The repository of the backup can be used from the restore's namespace.
        CheckBackupRepo = "CheckBackupRepo",
        /// What is asked for can be done.
        ValidationPassed = "ValidationPassed",
        /// Stage 1: volumes are created and filled.
        PrepareData = "PrepareData",
        /// Ours: the claims of the running workload have the restored volumes, and the old ones are kept.
        VolumesExchanged = "VolumesExchanged",
        /// Ours: the restored workload runs.
        WorkloadReady = "WorkloadReady",
        /// Stage 2: actions against the started database.
        PostReady = "PostReady",
        /// Declared by the contract, never set.
        ReadinessProbe = "ReadinessProbe",
    }
}

words! {
    /// Reasons in the conditions of a `Restore`.
    pub enum RestoreReason {
        /// `CheckBackupRepo` is True.
        CheckBackupRepoSuccessfully = "CheckBackupRepoSuccessfully",
        /// `CheckBackupRepo` is False: backup or repository are missing or unusable.
        CheckBackupRepoFailed = "CheckBackupRepoFailed",
        /// `CheckBackupRepo` is False: the repository is being prepared in this namespace.
        WaitForBackupRepo = "WaitForBackupRepo",
        /// `CheckBackupRepo` is False: some other error, retried.
        UnknownError = "UnknownError",
        /// `ValidationPassed` is True.
        ValidateSuccessfully = "ValidateSuccessfully",
        /// `ValidationPassed` is False.
        ValidateFailed = "ValidateFailed",
        /// A stage is False: it is under way.
        Processing = "Processing",
        /// A stage is False: it has failed.
        Failed = "Failed",
        /// A stage is True.
        Succeed = "Succeed",
    }
}

words! {
    /// Conditions of a PersistentVolumeClaim that is filled from a backup.
    pub enum ClaimCondition {
        /// Always True; the reason tells how far it is.
        Populating = "Populating",
        /// Unknown while under way, then True or False.
        Restore = "Restore",
    }
}

words! {
    /// Reasons in the conditions of a PersistentVolumeClaim that is filled from a backup.
    pub enum ClaimReason {
        /// Under way.
        Processing = "Processing",
        /// Filled with the backup's data.
        Succeed = "Succeed",
        /// The backup does not contain this volume: it was made empty.
        Provisioned = "Provisioned",
        /// Not filled.
        Failed = "Failed",
    }
}

words! {
    /// Status of a condition.
    pub enum ConditionStatus {
        /// It holds.
        True = "True",
        /// It does not hold.
        False = "False",
        /// It is not known yet.
        Unknown = "Unknown",
    }
}

/// Longest message that a condition may carry, in characters.
pub const MAX_MESSAGE: usize = 32768;

/// The condition of this type, if there is one.
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Whether the condition of this type is there and True.
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    find(conditions, type_).is_some_and(|condition| condition.status == ConditionStatus::True.as_str())
}

/// Puts a condition into the list and says whether anything but a time stamp changed, that is, whether the status
/// needs to be written. The transition time is kept as long as the status stays the same. A message that is too long
/// for the API server is cut.
pub fn set(conditions: &mut Vec<Condition>, mut new: Condition) -> bool {
    if let Some((cut, _)) = new.message.char_indices().nth(MAX_MESSAGE) {
        new.message.truncate(cut);
    }
    let Some(old) = conditions.iter_mut().find(|condition| condition.type_ == new.type_) else {
        conditions.push(new);
        return true;
    };
    if old.status == new.status {
        new.last_transition_time = old.last_transition_time.clone();
    }
    let changed = *old != new;
    *old = new;
    changed
}

/// A condition for [`set`], seen at `generation` of the object.
pub fn new(
    type_: impl Into<String>,
    status: ConditionStatus,
    reason: impl Into<String>,
    message: impl Into<String>,
    generation: Option<i64>,
    now: Time,
) -> Condition {
    Condition {
        type_: type_.into(),
        status: status.into(),
        reason: reason.into(),
        message: message.into(),
        observed_generation: generation,
        last_transition_time: now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Time {
        Time(k8s_openapi::jiff::Timestamp::from_second(seconds).unwrap())
    }

    fn checked(status: ConditionStatus, reason: BackupRepoReason, now: Time) -> Condition {
        new(BackupRepoCondition::PreCheckPassed, status, reason, "", Some(3), now)
    }

    #[test]
    fn a_later_time_alone_is_no_change() {
        let mut list = Vec::new();
        assert!(set(&mut list, checked(ConditionStatus::Unknown, BackupRepoReason::DigestChanged, at(10))));
        assert!(!set(&mut list, checked(ConditionStatus::Unknown, BackupRepoReason::DigestChanged, at(20))));
        assert_eq!(list[0].last_transition_time, at(10));
    }

    #[test]
    fn the_transition_time_follows_the_status_not_the_reason() {
        let mut list = vec![checked(ConditionStatus::Unknown, BackupRepoReason::DigestChanged, at(10))];
        assert!(set(&mut list, checked(ConditionStatus::Unknown, BackupRepoReason::UnknownError, at(20))));
        assert_eq!(list[0].last_transition_time, at(10));
        assert!(set(&mut list, checked(ConditionStatus::True, BackupRepoReason::PreCheckPassed, at(30))));
        assert_eq!(list[0].last_transition_time, at(30));
        assert_eq!(list.len(), 1);
        assert!(is_true(&list, "PreCheckPassed"));
    }

    #[test]
    fn a_message_is_cut_at_a_character() {
        let mut list = Vec::new();
        let mut condition = checked(ConditionStatus::False, BackupRepoReason::PreCheckFailed, at(10));
        condition.message = "é".repeat(MAX_MESSAGE + 5);
        set(&mut list, condition);
        assert_eq!(list[0].message.chars().count(), MAX_MESSAGE);
    }
}
