//! Labels, annotations and the finalizer that objects carry.
//!
//! Keys below `dataprotection.kubeblocks.io`, `kubeblocks.io` and `apps.kubeblocks.io` are a contract with KubeBlocks
//! and with the scripts of action sets. Keys below `kbbackup.io` are ours; other programs may ignore them.

/// Held by every object whose removal needs work outside Kubernetes or the removal of other objects first.
pub const FINALIZER: &str = "dataprotection.kubeblocks.io/finalizer";

/// The word for a label or annotation that is switched on.
pub const TRUE: &str = "true";

/// Keys of labels.
pub mod labels {
    /// On backups, schedules and cron jobs: name of the policy.
    pub const BACKUP_POLICY: &str = "dataprotection.kubeblocks.io/backup-policy";
    /// On cron jobs: name of the backup method.
    pub const BACKUP_METHOD: &str = "dataprotection.kubeblocks.io/backup-method";
    /// On backups and their workloads: [`BackupType`](crate::v1alpha1::BackupType).
    pub const BACKUP_TYPE: &str = "dataprotection.kubeblocks.io/backup-type";
    /// On backups and cron jobs: name of the schedule object. Its presence marks a scheduled backup.
    pub const BACKUP_SCHEDULE: &str = "dataprotection.kubeblocks.io/backup-schedule";
    /// On scheduled backups: `true`.
    pub const AUTOBACKUP: &str = "dataprotection.kubeblocks.io/autobackup";
    /// On backups, restores and everything derived from a repository: name of the repository. On a new backup it also
    /// selects the repository.
    pub const BACKUP_REPO_NAME: &str = "dataprotection.kubeblocks.io/backup-repo-name";
    /// On backups and restores: `true` while their namespace lacks the repository's claim or tool Secret.
    pub const WAIT_REPO_PREPARATION: &str = "dataprotection.kubeblocks.io/wait-repo-preparation";
    /// On Secrets that hold the mover's configuration: `true`.
    pub const IS_TOOL_CONFIG: &str = "dataprotection.kubeblocks.io/is-tool-config";
    /// On workloads and snapshots: name of the backup.
    pub const BACKUP_NAME: &str = "dataprotection.kubeblocks.io/backup-name";
    /// On workloads outside the backup's namespace: namespace of the backup.
    pub const BACKUP_NAMESPACE: &str = "dataprotection.kubeblocks.io/backup-namespace";
    /// On backups and their workloads: UID of the KubeBlocks cluster that owns the database.
    pub const CLUSTER_UID: &str = "dataprotection.kubeblocks.io/cluster-uid";
    /// Reserved by the contract; nothing reads or writes it.
    pub const TARGET_POD_NAME: &str = "dataprotection.kubeblocks.io/target-pod-name";
    /// On restore workloads and internal restores: name of the restore.
    pub const RESTORE: &str = "dataprotection.kubeblocks.io/restore";
    /// On restore workloads outside the restore's namespace and on internal restores: namespace of the restore.
    pub const RESTORE_NAMESPACE: &str = "dataprotection.kubeblocks.io/restore-namespace";
    /// On internal restores: name of the temporary claim that is being filled.
    pub const POPULATE_PVC: &str = "dataprotection.kubeblocks.io/populate-pvc";

    /// Who looks after the object. See [`MANAGED_BY_DATAPROTECTION`] and [`MANAGED_BY_KUBEBLOCKS`].
    pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
    /// Value of [`MANAGED_BY`] on backups, restores and their workloads.
    pub const MANAGED_BY_DATAPROTECTION: &str = "kubeblocks-dataprotection";
    /// Value of [`MANAGED_BY`] on policies and schedules that KubeBlocks generated.
    pub const MANAGED_BY_KUBEBLOCKS: &str = "kubeblocks";
    /// Name of the database cluster.
    pub const INSTANCE: &str = "app.kubernetes.io/instance";
    /// Component of a KubeBlocks cluster. Not copied from a backup to its workloads.
    pub const COMPONENT_NAME: &str = "apps.kubeblocks.io/component-name";
    /// Sharding of a KubeBlocks cluster.
    pub const SHARDING_NAME: &str = "apps.kubeblocks.io/sharding-name";
    /// On generated policies and schedules: the component definition.
    pub const COMPONENT_DEFINITION: &str = "componentdefinition.kubeblocks.io/name";
    /// On database pods: the role of the replica.
    pub const ROLE: &str = "kubeblocks.io/role";
    /// On claims: the volume claim template they come from.
    pub const VOLUME_CLAIM_TEMPLATE: &str = "apps.kubeblocks.io/vct-name";
    /// On claims: the pod they belong to.
    pub const POD_NAME: &str = "apps.kubeblocks.io/pod-name";
    /// On claims: the instance template they belong to.
    pub const INSTANCE_TEMPLATE: &str = "apps.kubeblocks.io/instance-template";
    /// On Secrets: the system account whose password they hold.
    pub const SYSTEM_ACCOUNT: &str = "apps.kubeblocks.io/system-account";

    /// Ours, on policies, backups and restores: the database engine, for example `postgresql`.
    pub const ENGINE: &str = "kbbackup.io/engine";
    /// Ours, on policies, backups and restores: kind of the protected workload in lower case, for example
    /// `statefulset`.
    pub const WORKLOAD_KIND: &str = "kbbackup.io/workload-kind";
    /// Ours, on policies, backups and restores: name of the protected workload.
    pub const WORKLOAD_NAME: &str = "kbbackup.io/workload-name";
    /// Ours, on workloads: the action they carry out, as recorded in the status of the backup or restore.
    pub const ACTION: &str = "kbbackup.io/action";
    /// Ours, on workloads that a restore created: name of the backup.
    pub const RESTORED_FROM: &str = "kbbackup.io/restored-from";
    /// Ours, on the pods of a restored workload whose own labels do not tell it from the original: name of the workload.
    pub const WORKLOAD: &str = "kbbackup.io/workload";
    /// Ours, on scheduled backups: UID of the Job whose run made it.
    pub const SCHEDULED_BY: &str = "kbbackup.io/scheduled-by";
    /// Ours, on the Job and pod of an errand: its id.
    pub const ERRAND: &str = "kbbackup.io/errand";
    /// Ours, on the claims, volumes and snapshots of a restore in place: name of the restore.
    pub const IN_PLACE: &str = "kbbackup.io/in-place";
    /// Ours, on objects made by `install`: which part of the installation they are, for example `operator`.
    pub const PART: &str = "kbbackup.io/part";
}

/// Keys of annotations.
pub mod annotations {
    /// On a repository: `true` makes it the default one.
    pub const IS_DEFAULT_REPO: &str = "dataprotection.kubeblocks.io/is-default-repo";
    /// On a policy or schedule: `true` makes it the default one of its cluster.
    pub const IS_DEFAULT_POLICY: &str = "dataprotection.kubeblocks.io/is-default-policy";
    /// Reserved by the contract; nothing reads or writes it.
    pub const IS_DEFAULT_POLICY_TEMPLATE: &str = "dataprotection.kubeblocks.io/is-default-policy-template";
    /// On a backup: `true`, in any letter case, makes the controller leave the object alone, deletion included.
    pub const SKIP_RECONCILIATION: &str = "dataprotection.kubeblocks.io/skip-reconciliation";
    /// On a backup: `true` means not to wait for a running restore of the cluster.
    pub const SKIP_RESTORATION_CHECK: &str = "dataprotection.kubeblocks.io/skip-restoration-check";
    /// On a policy: `true` keeps the user's edits instead of syncing from the template.
    pub const DISABLE_SYNC_FROM_TEMPLATE: &str = "dataprotection.kubeblocks.io/disable-sync-from-template";
    /// On templates, policies and schedules: JSON, which database parameters to set when a continuous schedule is
    /// switched.
    pub const RECONFIGURE_REF: &str = "dataprotection.kubeblocks.io/reconfigure-ref";
    /// On a schedule: JSON map from method to the parameters applied last.
    pub const LAST_APPLIED_CONFIGURATIONS: &str = "dataprotection.kubeblocks.io/last-applied-configurations";
    /// What [`LAST_APPLIED_CONFIGURATIONS`] was when a schedule had one continuous method at most: the parameters alone.
    pub const LAST_APPLIED_CONFIGURATION: &str = "config.kubeblocks.io/last-applied-configuration";
    /// On a schedule: integer that counts those changes.
    pub const RECONFIGURE_GENERATION: &str = "dataprotection.kubeblocks.io/reconfigure-generation";
    /// Reserved by the contract; nothing reads or writes it.
    pub const CONNECTION_PASSWORD: &str = "dataprotection.kubeblocks.io/connection-password";
    /// Reserved by the contract; nothing reads or writes it.
    pub const GEMINI_ACKNOWLEDGED: &str = "dataprotection.kubeblocks.io/gemini-acknowledged";
    /// On a repository and the objects derived from it: MD5 in hexadecimal of its parameters and templates.
    pub const BACKUP_REPO_DIGEST: &str = "dataprotection.kubeblocks.io/backup-repo-digest";
    /// On a repository: `true` until the tool Secrets are rendered again, then `false`.
    pub const NEED_UPDATE_TOOL_CONFIG: &str = "dataprotection.kubeblocks.io/need-update-tool-config";
    /// On pods of restore workloads: JSON of the backup's `status.extras`.
    pub const BACKUP_EXTRAS: &str = "dataprotection.kubeblocks.io/backup-extras";
    /// On pods of restore workloads: `true` ends the waiting side-car.
    pub const STOP_RESTORE_MANAGER: &str = "dataprotection.kubeblocks.io/stop-restore-manager";
    /// On a persistent volume: the data source it was filled from.
    pub const POPULATE_FROM: &str = "dataprotection.kubeblocks.io/populate-from";
    /// On an action set for continuous backups: `true` restores the log backup only and hands the base backup over by
    /// environment variables.
    pub const SKIP_BASE_BACKUP_RESTORE_IN_PITR: &str = "dataprotection.kubeblocks.io/skip-base-backup-restore-in-pitr";
    /// On a claim, or inside restore parameters: the source target to restore from.
    pub const SOURCE_TARGET_NAME: &str = "dataprotection.kubeblocks.io/source-target-name";
    /// On a claim, or inside restore parameters: the source pod to restore from.
    pub const SOURCE_TARGET_POD_NAME: &str = "dataprotection.kubeblocks.io/source-target-pod-name";
    /// Inside restore parameters: `Parallel` or `Serial`.
    pub const VOLUME_RESTORE_POLICY: &str = "dataprotection.kubeblocks.io/volume-restore-policy";
    /// Inside restore parameters: JSON list of environment variables.
    pub const RESTORE_ENV: &str = "dataprotection.kubeblocks.io/restore-env";
    /// Inside restore parameters: `true` runs the post-ready actions when the whole cluster runs.
    pub const DEFER_POST_READY: &str = "dataprotection.kubeblocks.io/defer-post-ready-until-cluster-running";

    /// On a backup: JSON of the KubeBlocks cluster at the time of the backup.
    pub const CLUSTER_SNAPSHOT: &str = "kubeblocks.io/cluster-snapshot";
    /// On a backup: JSON from component to user to enciphered password.
    pub const ENCRYPTED_SYSTEM_ACCOUNTS: &str = "kubeblocks.io/encrypted-system-accounts";
    /// On schedules and continuous backups: changed to have them looked at again.
    pub const RECONCILE: &str = "kubeblocks.io/reconcile";
    /// On generated policies and schedules: the template they come from.
    pub const BACKUP_POLICY_TEMPLATE: &str = "apps.kubeblocks.io/backup-policy-template";
    /// On a claim: API group of the source of its data.
    pub const RESTORE_SOURCE_API_GROUP: &str = "apps.kubeblocks.io/restore-source-api-group";
    /// On a claim: kind of the source of its data.
    pub const RESTORE_SOURCE_KIND: &str = "apps.kubeblocks.io/restore-source-kind";
    /// On a claim: name of the source of its data.
    pub const RESTORE_SOURCE_NAME: &str = "apps.kubeblocks.io/restore-source-name";
    /// On a claim: namespace of the source of its data.
    pub const RESTORE_SOURCE_NAMESPACE: &str = "apps.kubeblocks.io/restore-source-namespace";
    /// On a claim: the point in time to restore.
    pub const RESTORE_PITR: &str = "apps.kubeblocks.io/restore-pitr";
    /// On a claim: JSON map of restore parameters.
    pub const RESTORE_PARAMETERS: &str = "apps.kubeblocks.io/restore-parameters";
    /// On a claim: the component being restored.
    pub const RESTORE_COMPONENT: &str = "apps.kubeblocks.io/restore-component";
    /// On a claim: the backed-up volume whose data it gets.
    pub const RESTORE_VOLUME_TEMPLATE: &str = "apps.kubeblocks.io/restore-volume-template";
    /// On a claim, written by the scheduler: the node chosen for it.
    pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

    /// Ours, on a backup: JSON of the protected StatefulSet, its Services and ConfigMaps, and the names of its Secrets.
    pub const WORKLOAD: &str = "kbbackup.io/workload";
    /// Ours, on a restore: name of the StatefulSet to create as a running copy of the workload recorded in the backup.
    pub const RESTORE_WORKLOAD: &str = "kbbackup.io/restore-workload";
    /// Ours, on a backup: digest of the sealed manifest in the repository.
    pub const SEAL: &str = "kbbackup.io/seal";
    /// Ours, on backups and restores: JSON with the progress in bytes.
    pub const PROGRESS: &str = "kbbackup.io/progress";
    /// Ours, on backups, restores and schedules: the last obstacle that is still being retried, in words.
    pub const WAITING_FOR: &str = "kbbackup.io/waiting-for";
    /// Ours, on objects made by the plugin: its version.
    pub const CREATED_BY: &str = "kbbackup.io/created-by";
    /// Ours, on a repository: RFC 3339 time of a wish to have its pre-check repeated without losing `Ready` meanwhile.
    pub const CHECK_REQUESTED_AT: &str = "kbbackup.io/check-requested-at";
    /// Ours, on a repository: the value of [`CHECK_REQUESTED_AT`] that the last finished pre-check answered.
    pub const CHECKED_AT: &str = "kbbackup.io/checked-at";
    /// Ours, on a backup: namespaces that may restore it, separated by commas, or `*`.
    pub const ALLOW_RESTORE_TO: &str = "kbbackup.io/allow-restore-to";
    /// Ours, on a restore to a workload: replicas of the new workload.
    pub const REPLICAS: &str = "kbbackup.io/replicas";
    /// Ours, on objects that a restore created: `<namespace>/<name>/<uid>` of the restore.
    pub const RESTORED_BY: &str = "kbbackup.io/restored-by";
    /// Ours, on a restore: name of the StatefulSet that is taken back in place: its claims get the restored volumes.
    pub const IN_PLACE: &str = "kbbackup.io/in-place";
    /// Ours, on a restore in place: JSON of a [`Record`](crate::in_place::Record), which volumes are exchanged for which.
    pub const IN_PLACE_RECORD: &str = "kbbackup.io/in-place-record";
    /// Ours, on a restore in place that goes back: why it has failed, in words.
    pub const IN_PLACE_FAILURE: &str = "kbbackup.io/in-place-failure";
    /// Ours, on a restore in place: `false` takes no snapshots of the old volumes, which are kept all the same.
    pub const SAFETY_SNAPSHOT: &str = "kbbackup.io/safety-snapshot";
    /// Ours, on a persistent volume that a restore in place has kept: `<namespace>/<name>` of the claim that it was of.
    pub const FORMER_CLAIM: &str = "kbbackup.io/former-claim";
    /// Ours, on a restore: JSON that its script reported, for example the position reached.
    pub const RESTORED: &str = "kbbackup.io/restored";
    /// Ours, on a restore: names of the backups that it reads, separated by commas: base and chain first, the backup itself
    /// last. Retention and deletion wait for it, and a restore under way does not change its mind.
    pub const READS: &str = "kbbackup.io/reads";
    /// Ours, on the restore that fills a claim: UID of the temporary claim that it fills.
    pub const POPULATED_CLAIM: &str = "kbbackup.io/populated-claim";
    /// Ours, on a persistent volume that is being handed from one claim to another: the reclaim policy that it had.
    pub const RECLAIM_POLICY: &str = "kbbackup.io/reclaim-policy";
    /// Ours, on a backup: pairs `<action>=<uid of the pod that did it>`, separated by commas, which the seal covers.
    pub const ATTEMPTS: &str = "kbbackup.io/attempts";
    /// Ours, on a backup that waits for its repository while its namespace is being deleted: `true`, the repository is
    /// prepared in the manager namespace.
    pub const PREPARE_MANAGER_NAMESPACE: &str = "kbbackup.io/prepare-manager-namespace";
    /// Ours, on the StatefulSet of a continuous backup: digest of the spec that it was made from.
    pub const SPEC_DIGEST: &str = "kbbackup.io/spec-digest";
    /// Ours, on a BackupPolicyTemplate: `true` means that any other template which is for a component comes first.
    pub const GIVES_WAY: &str = "kbbackup.io/gives-way";
    /// Ours, on a continuous backup: RFC 3339 time since when [`WAITING_FOR`] keeps it from archiving.
    pub const WAITING_SINCE: &str = "kbbackup.io/waiting-since";
    /// Ours, on cron jobs, their Jobs and scheduled backups: name of the schedule's entry.
    pub const SCHEDULE_ENTRY: &str = "kbbackup.io/schedule-entry";
    /// Ours, on a schedule: JSON map from entry to the RFC 3339 time of its next run.
    pub const NEXT_RUNS: &str = "kbbackup.io/next-runs";
    /// Ours, on a repository: JSON of an [`Errand`](crate::errand::Errand) that the mover is to run.
    pub const ERRAND: &str = "kbbackup.io/errand";
    /// Ours, on a repository: the value of [`ERRAND`] that was done last, or that could not be read.
    pub const ERRAND_DONE: &str = "kbbackup.io/errand-done";
    /// Ours, on a backup: repository and path that it was imported from, `<repository>:<path>`.
    pub const IMPORTED_FROM: &str = "kbbackup.io/imported-from";
    /// Ours, on a backup: image of the container whose data it holds.
    pub const TARGET_IMAGE: &str = "kbbackup.io/target-image";
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(table: &[(&str, &str)]) {
        for (ours, contract) in table {
            assert_eq!(ours, contract);
        }
    }

    #[test]
    fn behaviour_0_3_finalizer() {
        assert_eq!(FINALIZER, "dataprotection.kubeblocks.io/finalizer");
    }

    #[test]
    fn behaviour_0_4_labels() {
        same(&[
            (labels::BACKUP_NAME, "dataprotection.kubeblocks.io/backup-name"),
            (labels::BACKUP_NAMESPACE, "dataprotection.kubeblocks.io/backup-namespace"),
            (labels::BACKUP_POLICY, "dataprotection.kubeblocks.io/backup-policy"),
            (labels::BACKUP_METHOD, "dataprotection.kubeblocks.io/backup-method"),
            (labels::BACKUP_TYPE, "dataprotection.kubeblocks.io/backup-type"),
            (labels::BACKUP_SCHEDULE, "dataprotection.kubeblocks.io/backup-schedule"),
            (labels::AUTOBACKUP, "dataprotection.kubeblocks.io/autobackup"),
            (labels::CLUSTER_UID, "dataprotection.kubeblocks.io/cluster-uid"),
            (labels::BACKUP_REPO_NAME, "dataprotection.kubeblocks.io/backup-repo-name"),
            (labels::WAIT_REPO_PREPARATION, "dataprotection.kubeblocks.io/wait-repo-preparation"),
            (labels::IS_TOOL_CONFIG, "dataprotection.kubeblocks.io/is-tool-config"),
            (labels::RESTORE, "dataprotection.kubeblocks.io/restore"),
            (labels::RESTORE_NAMESPACE, "dataprotection.kubeblocks.io/restore-namespace"),
            (labels::POPULATE_PVC, "dataprotection.kubeblocks.io/populate-pvc"),
            (labels::TARGET_POD_NAME, "dataprotection.kubeblocks.io/target-pod-name"),
            (labels::MANAGED_BY, "app.kubernetes.io/managed-by"),
            (labels::INSTANCE, "app.kubernetes.io/instance"),
            (labels::COMPONENT_NAME, "apps.kubeblocks.io/component-name"),
            (labels::SHARDING_NAME, "apps.kubeblocks.io/sharding-name"),
            (labels::ROLE, "kubeblocks.io/role"),
        ]);
        assert_eq!(labels::MANAGED_BY_DATAPROTECTION, "kubeblocks-dataprotection");
    }

    #[test]
    fn behaviour_0_5_annotations() {
        same(&[
            (annotations::IS_DEFAULT_REPO, "dataprotection.kubeblocks.io/is-default-repo"),
            (annotations::IS_DEFAULT_POLICY, "dataprotection.kubeblocks.io/is-default-policy"),
            (annotations::IS_DEFAULT_POLICY_TEMPLATE, "dataprotection.kubeblocks.io/is-default-policy-template"),
            (annotations::BACKUP_REPO_DIGEST, "dataprotection.kubeblocks.io/backup-repo-digest"),
            (annotations::NEED_UPDATE_TOOL_CONFIG, "dataprotection.kubeblocks.io/need-update-tool-config"),
            (annotations::SKIP_RECONCILIATION, "dataprotection.kubeblocks.io/skip-reconciliation"),
            (annotations::SKIP_RESTORATION_CHECK, "dataprotection.kubeblocks.io/skip-restoration-check"),
            (annotations::DISABLE_SYNC_FROM_TEMPLATE, "dataprotection.kubeblocks.io/disable-sync-from-template"),
            (annotations::RECONFIGURE_REF, "dataprotection.kubeblocks.io/reconfigure-ref"),
            (annotations::LAST_APPLIED_CONFIGURATIONS, "dataprotection.kubeblocks.io/last-applied-configurations"),
            (annotations::RECONFIGURE_GENERATION, "dataprotection.kubeblocks.io/reconfigure-generation"),
            (
                annotations::SKIP_BASE_BACKUP_RESTORE_IN_PITR,
                "dataprotection.kubeblocks.io/skip-base-backup-restore-in-pitr",
            ),
            (annotations::BACKUP_EXTRAS, "dataprotection.kubeblocks.io/backup-extras"),
            (annotations::STOP_RESTORE_MANAGER, "dataprotection.kubeblocks.io/stop-restore-manager"),
            (annotations::POPULATE_FROM, "dataprotection.kubeblocks.io/populate-from"),
            (annotations::SOURCE_TARGET_NAME, "dataprotection.kubeblocks.io/source-target-name"),
            (annotations::SOURCE_TARGET_POD_NAME, "dataprotection.kubeblocks.io/source-target-pod-name"),
            (annotations::VOLUME_RESTORE_POLICY, "dataprotection.kubeblocks.io/volume-restore-policy"),
            (annotations::RESTORE_ENV, "dataprotection.kubeblocks.io/restore-env"),
            (annotations::DEFER_POST_READY, "dataprotection.kubeblocks.io/defer-post-ready-until-cluster-running"),
            (annotations::CLUSTER_SNAPSHOT, "kubeblocks.io/cluster-snapshot"),
            (annotations::ENCRYPTED_SYSTEM_ACCOUNTS, "kubeblocks.io/encrypted-system-accounts"),
            (annotations::RECONCILE, "kubeblocks.io/reconcile"),
            (annotations::BACKUP_POLICY_TEMPLATE, "apps.kubeblocks.io/backup-policy-template"),
        ]);
    }
}
