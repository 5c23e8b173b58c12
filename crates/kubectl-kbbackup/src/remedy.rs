//! The usual failures: how they show in what Kubernetes, databases and object stores say, and what to do about them. Pure.

/// A failure that is recognised by its words.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// Stable word for scripts.
    pub cause: &'static str,
    /// In a sentence.
    pub title: &'static str,
    /// In lower case. One of them must be found; parts joined by ` & ` must all be.
    signs: &'static [&'static str],
    pub remedy: &'static str,
}

/// Specific ones first: the first that matches counts.
const KNOWN: &[Known] = &[
    Known {
        cause: "image-missing-on-node",
        title: "the image is not on the node, and may not be pulled",
        signs: &["errimageneverpull"],
        remedy: "load the image onto the node, or let it be pulled: imagePullPolicy Never forbids it",
    },
    Known {
        cause: "image-pull",
        title: "an image cannot be pulled",
        signs: &["imagepullbackoff", "errimagepull", "invalidimagename", "failed to pull image"],
        remedy: "correct the image's name or registry, give the pull Secret, or mirror the image to a registry that the nodes reach",
    },
    Known {
        cause: "quota",
        title: "a ResourceQuota of the namespace is used up",
        signs: &["exceeded quota", "failed quota"],
        remedy: "raise the ResourceQuota, or remove what uses it up; the operator goes on by itself then",
    },
    Known {
        cause: "policy-of-admission",
        title: "the namespace's admission rules refuse the pod",
        signs: &["violates podsecurity", "admission webhook"],
        remedy: "allow the worker's pod in this namespace (its Pod Security level, or the webhook's rules)",
    },
    Known {
        cause: "service-account",
        title: "the pod's service account does not exist",
        signs: &["error looking up service account", "serviceaccount & not found"],
        remedy: "create the service account, or correct serviceAccountName of the policy's target",
    },
    Known {
        cause: "volume-missing",
        title: "a claim that the pod needs does not exist or is not bound",
        signs: &["persistentvolumeclaim & not found", "unbound immediate persistentvolumeclaims"],
        remedy: "look at the claim: it needs a StorageClass that exists and has room",
    },
    Known {
        cause: "volume-elsewhere",
        title: "a volume lives on another node than the pod may run on",
        signs: &["volume node affinity conflict", "multi-attach error"],
        remedy: "let the pod run where the volume is: check node selectors, taints, and pods that hold the volume",
    },
    Known {
        cause: "no-room",
        title: "no node has room for the pod",
        signs: &["insufficient cpu", "insufficient memory", "too many pods", "insufficient ephemeral-storage"],
        remedy: "add a node, free resources, or lower runtimeSettings.resources of the method in the policy",
    },
    Known {
        cause: "unschedulable",
        title: "no node may run the pod",
        signs: &["untolerated taint", "node affinity/selector", "nodes are available", "didn't match"],
        remedy: "check taints, node selectors and affinity of the database's pod and of the operator's workers",
    },
    Known {
        cause: "mount",
        title: "a volume cannot be mounted",
        signs: &["failedmount", "failedattachvolume", "mountvolume.setup failed"],
        remedy: "look at the volume's events; often a Secret or ConfigMap is missing, or the driver of the volume does not run on that node",
    },
    Known {
        cause: "out-of-memory",
        title: "a container used more memory than it may",
        signs: &["oomkilled", "out of memory", "cannot allocate memory"],
        remedy: "raise the memory limit in runtimeSettings.resources of the method in the policy",
    },
    Known {
        cause: "evicted",
        title: "the node had to get rid of the pod",
        signs: &["evicted", "diskpressure", "memorypressure", "nodelost"],
        remedy: "free disk or memory on the node; the next try may land elsewhere",
    },
    Known {
        cause: "deadline",
        title: "it ran into its deadline",
        signs: &["deadlineexceeded"],
        remedy: "raise KBBACKUP_JOB_DEADLINE_SECONDS of the operator, or find out what made it slow",
    },
    Known {
        cause: "no-default-storage-class",
        title: "there is no StorageClass for the volume",
        signs: &[
            "no default storageclass",
            "storageclass & does not exist",
            "storageclass.storage.k8s.io & not found",
            "no storage class is set",
        ],
        remedy: "name one with --storage-class, or mark one as the default",
    },
    Known {
        cause: "no-snapshot-class",
        title: "there is no VolumeSnapshotClass for the driver of the volume",
        signs: &["volumesnapshotclass", "snapshot class"],
        remedy: "create a VolumeSnapshotClass for the driver, or use a method that copies instead",
    },
    Known {
        cause: "operator-rights",
        title: "an account lacks a right in Kubernetes",
        signs: &["is forbidden: user", "cannot create resource", "cannot get resource", "cannot list resource"],
        remedy: "grant the right; what the operator itself needs comes with kubectl kbbackup install",
    },
    Known {
        cause: "secret-missing",
        title: "a Secret or a key in it is missing",
        signs: &["secret & not found", "couldn't find key", "secret & does not exist", "createcontainerconfigerror"],
        remedy: "create the Secret with the key that is named; the policy's connectionCredential and the repository's credential name it",
    },
    Known {
        cause: "clock",
        title: "a clock is wrong",
        signs: &[
            "requesttimetooskewed",
            "request time and the current time is too large",
            "certificate is not yet valid",
        ],
        remedy: "set the clocks of the nodes (and of the store) by NTP",
    },
    Known {
        cause: "store-full",
        title: "the store has no room",
        signs: &[
            "quotaexceeded",
            "insufficientstorage",
            "insufficient storage",
            "no space left on device",
            "storagefull",
            "disk quota exceeded",
        ],
        remedy: "make room: enlarge the store or the volume, or delete backups with kubectl kbbackup delete",
    },
    Known {
        cause: "store-region",
        title: "the bucket lives in another region",
        signs: &["permanentredirect", "authorizationheadermalformed", "wrong region", "region is wrong"],
        remedy: "the bucket lives in another region; correct the region",
    },
    Known {
        cause: "store-bucket",
        title: "the bucket does not exist",
        signs: &["nosuchbucket", "no such bucket", "bucket does not exist", "containernotfound"],
        remedy: "create the bucket, or correct its name",
    },
    Known {
        cause: "store-credentials",
        title: "the store refuses the credentials",
        signs: &[
            "signaturedoesnotmatch",
            "invalidaccesskeyid",
            "accessdenied",
            "authenticationfailed",
            "403 forbidden",
        ],
        remedy: "check the access key, the secret key and what they are allowed to do with the bucket",
    },
    Known {
        cause: "tls",
        title: "a certificate is not trusted",
        signs: &[
            "x509",
            "unknownissuer",
            "unknown issuer",
            "invalid peer certificate",
            "certificate verify failed",
            "self-signed certificate",
            "tls handshake",
            "invalidcontenttype",
        ],
        remedy: "the certificate is not trusted, or the endpoint speaks no TLS; use http://, a trusted certificate, or --param insecure=true",
    },
    Known {
        cause: "name-resolution",
        title: "a host name is unknown inside the cluster",
        signs: &[
            "no such host",
            "name resolution",
            "dns error",
            "failed to lookup",
            "could not resolve",
            "could not translate host name",
            "name or service not known",
        ],
        remedy: "the endpoint's name cannot be resolved from inside the cluster; correct the endpoint",
    },
    Known {
        cause: "database-slots",
        title: "the database has no replication connection or slot left, or does not allow them",
        signs: &["max_wal_senders", "wal_level", "replication slot"],
        remedy: "raise max_wal_senders and max_replication_slots, set wal_level = replica, and remove slots that nobody uses",
    },
    Known {
        cause: "database-privilege",
        title: "the database account lacks a privilege",
        signs: &[
            "must be superuser",
            "permission denied to start wal sender",
            "no pg_hba.conf entry",
            "must have replication",
            "access denied; you need",
            "not authorized on",
            "permission denied for",
        ],
        remedy: "grant the account what the method needs (for PostgreSQL: REPLICATION, and a pg_hba.conf line for it), or name another account in the policy",
    },
    Known {
        cause: "database-password",
        title: "the database refuses the password",
        signs: &[
            "password authentication failed",
            "access denied for user",
            "wrongpass",
            "noauth authentication required",
            "authentication failed",
        ],
        remedy: "the Secret that the policy names must hold the present password: correct the Secret or the policy's connectionCredential",
    },
    Known {
        cause: "database-silent",
        title: "the database does not answer",
        signs: &[
            "could not connect to server",
            "connection to server at",
            "can't connect to & server",
            "could not connect to redis",
            "server selection timeout",
        ],
        remedy: "check that the database's pod is ready, and that host and port in the policy are right",
    },
    Known {
        cause: "tool-missing",
        title: "a program is missing in the image",
        signs: &["command not found", "executable file not found", "no such file or directory: unknown"],
        remedy: "use an image that has the program: the image of the ActionSet's action, or the database's own",
    },
    Known {
        cause: "passphrase",
        title: "the passphrase or key does not open the data",
        signs: &[
            "passphrase",
            "no matching keys",
            "decryption failed",
            "cannot be decrypted",
            "encryption key & does not exist",
        ],
        remedy: "name the Secret that held the passphrase when the backup was made; describe shows what the backup records",
    },
    Known {
        cause: "damaged",
        title: "what lies in the repository is not what was stored",
        signs: &[
            "does not match its seal",
            "digest mismatch",
            "is damaged",
            "checksum mismatch",
            "was changed after",
            "corrupt",
        ],
        remedy: "use another backup, and find out what changed the files",
    },
    Known {
        cause: "no-pod",
        title: "no pod of the database can be used",
        signs: &["no pod of", "no ready pod", "no target pod", "pod & is not ready", "pod & is gone"],
        remedy: "start the database, or correct the podSelector and the strategy of the policy's target",
    },
    Known {
        cause: "repo-not-ready",
        title: "the repository cannot be used",
        signs: &["not ready & backuprepo", "names no repository", "backuprepo & does not exist"],
        remedy: "look at the repository: kubectl kbbackup repo list -o wide",
    },
    Known {
        cause: "recipe-missing",
        title: "policy, method or ActionSet is missing or cannot be used",
        signs: &["actionset & does not exist", "backuppolicy & does not exist", "is unavailable", "has no method"],
        remedy: "look at the policy: kubectl kbbackup policy list -o wide",
    },
    Known {
        cause: "name-taken",
        title: "something of that name is there already",
        signs: &["was made for something else", "exists in & restore under another name", "already exists"],
        remedy: "delete what is in the way, or choose another name",
    },
    Known {
        cause: "file-permission",
        title: "a program may not read or write a file",
        signs: &["permission denied", "operation not permitted", "read-only file system"],
        remedy: "check the user that the container runs as (runAsUser, fsGroup) and the owner of the directory that is named",
    },
    Known {
        cause: "no-result",
        title: "the script ended without a result",
        signs: &["without a report", "left no report", "no result"],
        remedy: "the action's script must write the result file of the contract; see its log",
    },
    Known {
        cause: "unreachable",
        title: "nothing answers at an address",
        signs: &["connection refused", "timed out", "timeout", "unreachable", "connection reset"],
        remedy: "nothing answers at the endpoint; correct the endpoint, its port, or a network policy",
    },
    Known {
        cause: "cancelled",
        title: "it was cancelled",
        signs: &["cancelled", "canceled by"],
        remedy: "start a new one",
    },
];

/// The usual failure that a text tells of.
pub(crate) fn known(text: &str) -> Option<&'static Known> {
    let text = text.to_lowercase();
    KNOWN.iter().find(|known| known.signs.iter().any(|sign| sign.split(" & ").all(|part| text.contains(part))))
}

/// How general a recognised failure is: the higher, the less it says.
pub(crate) fn generality(known: &Known) -> usize {
    KNOWN.iter().position(|one| one.cause == known.cause).unwrap_or(KNOWN.len())
}

/// What to do about what a text tells of.
pub(crate) fn advice(text: &str) -> Option<&'static str> {
    known(text).map(|known| known.remedy)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("PreCheckFailed: SignatureDoesNotMatch (persistent)", "store-credentials")]
    #[case("the bucket: NoSuchBucket", "store-bucket")]
    #[case("dns error: failed to lookup address information", "name-resolution")]
    #[case("invalid peer certificate: UnknownIssuer", "tls")]
    #[case("PermanentRedirect: use another endpoint", "store-region")]
    #[case("tcp connect error: Connection refused (os error 111)", "unreachable")]
    #[case("RequestTimeTooSkewed", "clock")]
    #[case("OOMKilled, exit code 137", "out-of-memory")]
    #[case("ImagePullBackOff: Back-off pulling image", "image-pull")]
    #[case("job j cannot create its pod: exceeded quota: small, requested: pods=1", "quota")]
    #[case("0/1 nodes are available: 1 Insufficient memory.", "no-room")]
    #[case("0/3 nodes are available: 3 node(s) had untolerated taint {x: y}", "unschedulable")]
    #[case("0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims", "volume-missing")]
    #[case("CreateContainerConfigError: secret \"pg\" not found", "secret-missing")]
    #[case("FATAL: password authentication failed for user \"postgres\"", "database-password")]
    #[case("connection to server at \"pg\", port 5432 failed: Connection refused", "database-silent")]
    #[case("FATAL: number of requested standby connections exceeds max_wal_senders", "database-slots")]
    #[case("FATAL: no pg_hba.conf entry for replication connection", "database-privilege")]
    #[case("BackupRepo s3 is Failed, not Ready", "repo-not-ready")]
    #[case("volumesnapshotclass for driver x does not exist", "no-snapshot-class")]
    #[case("storageclass fast does not exist", "no-default-storage-class")]
    #[case("pods \"p\" is forbidden: violates PodSecurity \"restricted\"", "policy-of-admission")]
    #[case("ERROR 1006 (HY000): Can't create database '/tmp/x/' (errno: 13 - Permission denied)", "file-permission")]
    #[case("ERROR: permission denied for table t", "database-privilege")]
    #[case("write error: No space left on device", "store-full")]
    fn the_usual_failures_are_recognised(#[case] text: &str, #[case] cause: &str) {
        assert_eq!(known(text).map(|known| known.cause), Some(cause), "{text}");
    }

    #[test]
    fn what_is_not_usual_is_not_guessed() {
        assert_eq!(known("the moon is full"), None);
        assert_eq!(known("persistentvolumeclaim data is bound"), None);
    }

    #[test]
    fn causes_are_told_apart_and_signs_can_be_found() {
        let names: BTreeSet<&str> = KNOWN.iter().map(|known| known.cause).collect();
        assert_eq!(names.len(), KNOWN.len());
        let signs = KNOWN.iter().flat_map(|known| known.signs);
        assert!(signs.clone().all(|sign| **sign == sign.to_lowercase()));
    }
}
