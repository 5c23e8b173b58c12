//! What the operator may do: one table, from which the `ClusterRole` of the installation is written.
//!
//! A right stands here because code uses it; the reason says which.

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kbbackup_api::GROUP;
use kbbackup_api::names::labels;

pub mod usage;

/// Name of the operator's ServiceAccount, roles and bindings.
pub const OPERATOR: &str = "kbbackup-controller";
/// Name of the ServiceAccount of exec actions, of its role and binding.
pub const EXEC_WORKER: &str = "kbbackup-exec-worker";
/// Namespace of the installation, unless the installer chooses another one.
pub const NAMESPACE: &str = "kbbackup-system";

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Right {
    /// API group; empty is the core group.
    pub group: &'static str,
    /// Resource, or `resource/subresource`.
    pub resource: &'static str,
    /// Verbs, in the order of the API's documentation.
    pub verbs: &'static [&'static str],
    /// What for.
    pub why: &'static str,
}

const fn right(
    group: &'static str,
    resource: &'static str,
    verbs: &'static [&'static str],
    why: &'static str,
) -> Right {
    Right { group, resource, verbs, why }
}

const WATCH: &[&str] = &["get", "list", "watch"];
const WATCH_AND_PATCH: &[&str] = &["get", "list", "watch", "patch"];
const STATUS: &[&str] = &["patch"];
const OWN: &[&str] = &["get", "list", "watch", "create", "patch", "delete"];

/// Everything that the operator does with the API server, in every namespace.
pub const RIGHTS: &[Right] = &[
    right(GROUP, "storageproviders", WATCH_AND_PATCH, "watched; a finalizer that the reference left is removed"),
    right(GROUP, "storageproviders/status", STATUS, "phase and conditions"),
    right(GROUP, "backuprepos", WATCH_AND_PATCH, "watched; finalizer and digest"),
    right(GROUP, "backuprepos/status", STATUS, "phase, conditions, names of what was made"),
    right(GROUP, "actionsets", WATCH_AND_PATCH, "watched; finalizer"),
    right(GROUP, "actionsets/status", STATUS, "phase"),
    right(
        GROUP,
        "backuppolicies",
        &["get", "list", "watch", "create", "patch"],
        "watched; finalizer; made for the components of KubeBlocks' clusters",
    ),
    right(GROUP, "backuppolicies/status", STATUS, "phase and message"),
    right(
        GROUP,
        "backupschedules",
        &["get", "list", "watch", "create", "patch"],
        "watched; made for the components of KubeBlocks' clusters; finalizer, label and annotation; whether a continuous backup is wanted",
    ),
    right(GROUP, "backupschedules/status", STATUS, "phase and state of the entries"),
    right("batch", "cronjobs", OWN, "the times of a schedule"),
    right(
        GROUP,
        "backups",
        OWN,
        "watched; made when a schedule says so; labels, annotations and finalizer; those whose time is over, or whose parent goes, are deleted",
    ),
    right(GROUP, "backups/status", STATUS, "progress and result"),
    right(
        GROUP,
        "restores",
        OWN,
        "watched; labels, annotations and finalizer; made for claims that name a backup, and deleted with them",
    ),
    right(GROUP, "restores/status", STATUS, "progress and result"),
    right(GROUP, "backuppolicytemplates", WATCH, "watched"),
    right(GROUP, "backuppolicytemplates/status", STATUS, "phase and what it is for"),
    right(
        "apiextensions.k8s.io",
        "customresourcedefinitions",
        &["list", "watch"],
        "whether kinds that a cluster may lack are served",
    ),
    right("batch", "jobs", OWN, "workers of backups, restores, deletions and pre-checks"),
    right("", "namespaces", &["get"], "whether the namespace of a backup that goes is being deleted itself"),
    right("", "pods", WATCH, "targets are chosen; the end of a worker is read from its pod"),
    right("", "pods/log", &["get"], "last lines of a failed worker"),
    right(
        "",
        "secrets",
        OWN,
        "credentials of repositories in any namespace; configuration for workers beside their Jobs",
    ),
    right(
        "",
        "persistentvolumeclaims",
        OWN,
        "volumes of repositories; volumes that a restore fills; claims that name a backup as their source",
    ),
    right("", "persistentvolumeclaims/status", STATUS, "whether a claim that names a backup is filled"),
    right(
        "",
        "persistentvolumes",
        &["get", "patch"],
        "a filled volume is handed to the claim that it was filled for; one that a restore in place replaces is kept",
    ),
    right("", "nodes", &["get"], "the host name of the node that the scheduler chose for a claim"),
    right(
        "",
        "serviceaccounts",
        &["get", "create", "patch"],
        "the workers' account, without any right, where workers run",
    ),
    right(
        "",
        "configmaps",
        &["get", "list", "watch", "create", "patch"],
        "recorded with a workload, and created when it is restored; what archivers report, which may read and patch one \
         ConfigMap each: nobody grants what he has not",
    ),
    right("", "services", &["get", "list", "create"], "recorded with a workload, and created when it is restored"),
    right(
        "apps",
        "statefulsets",
        &["get", "list", "watch", "create", "update", "patch", "delete"],
        "recorded, restored, awaited until they are ready, and scaled by restores in place; archivers of continuous backups",
    ),
    right(
        "autoscaling",
        "horizontalpodautoscalers",
        &["list"],
        "whether one would start a workload while a restore in place exchanges its volumes",
    ),
    right("rbac.authorization.k8s.io", "roles", &["get", "create"], "an archiver's right to its own report, no other"),
    right(
        "rbac.authorization.k8s.io",
        "rolebindings",
        &["get", "create", "patch"],
        "that right, given to the account of the archiver's pod",
    ),
    right("", "events", &["list"], "why a Job's pod or a pre-check's volume did not come about"),
    right("events.k8s.io", "events", &["create", "patch"], "what happened to an object"),
    right(
        "storage.k8s.io",
        "storageclasses",
        &["get", "list", "create", "delete"],
        "the class of a mounted repository; how the class of a claim binds",
    ),
    right(
        "apps.kubeblocks.io",
        "clusters",
        WATCH_AND_PATCH,
        "where it exists: policies are made for clusters, a finalizer holds them until their backups are gone, and one that is over ends its continuous backup",
    ),
    right("apps.kubeblocks.io", "components", &["get", "list"], "the order of shards; owner of accounts and restores"),
    right(
        "apps.kubeblocks.io",
        "componentdefinitions",
        WATCH,
        "which ones a template is for; roles and accounts for the actions after start",
    ),
    right(
        "operations.kubeblocks.io",
        "opsrequests",
        &["list", "watch", "create"],
        "parameters of the database that a continuous entry needs: asked of KubeBlocks when it is switched, and awaited",
    ),
    right("workloads.kubeblocks.io", "instancesets", &["get"], "whether KubeBlocks made a claim for its cluster"),
    right("workloads.kubeblocks.io", "instances", &["get"], "whether KubeBlocks made a claim for its cluster"),
    right("snapshot.storage.k8s.io", "volumesnapshots", OWN, "snapshots of volumes, in which a backup may consist"),
    right(
        "snapshot.storage.k8s.io",
        "volumesnapshotclasses",
        &["list"],
        "whether a volume's driver takes snapshots, and by which class",
    ),
    right("storage.k8s.io", "csidrivers", WATCH, "whether a provider's driver is installed"),
];

/// Rights in the operator's own namespace only.
pub const OWN_NAMESPACE_RIGHTS: &[Right] =
    &[right("coordination.k8s.io", "leases", &["get", "create", "update"], "leader election")];

/// Rights of the account of exec actions, in every namespace.
pub const EXEC_RIGHTS: &[Right] = &[right("", "pods/exec", &["get", "create"], "the command of an exec action")];

fn rules(rights: &[Right]) -> Vec<PolicyRule> {
    let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    rights
        .iter()
        .map(|right| PolicyRule {
            api_groups: Some(texts(&[right.group])),
            resources: Some(texts(&[right.resource])),
            verbs: texts(right.verbs),
            ..PolicyRule::default()
        })
        .collect()
}

/// The operator's `ClusterRole`.
pub fn cluster_role() -> ClusterRole {
    ClusterRole {
        metadata: ObjectMeta {
            name: Some(OPERATOR.to_owned()),
            labels: Some([(labels::PART.to_owned(), "operator".to_owned())].into()),
            ..ObjectMeta::default()
        },
        rules: Some(rules(RIGHTS)),
        aggregation_rule: None,
    }
}

/// The file `deploy/install/rbac.yaml`: accounts, roles with their reasons, bindings.
pub fn manifest() -> String {
    let cluster = |name, part, rights| role("ClusterRole", name, part, rights);
    let mut text = "# Written by `cargo xtask codegen` from the table in crates/controller/src/rbac.rs.\n".to_owned();
    text.push_str(&account(OPERATOR, "operator"));
    text.push_str(&cluster(OPERATOR, "operator", RIGHTS));
    text.push_str(&binding("ClusterRole", OPERATOR, "operator"));
    text.push_str(&role("Role", OPERATOR, "operator", OWN_NAMESPACE_RIGHTS));
    text.push_str(&binding("Role", OPERATOR, "operator"));
    text.push_str("# The account of exec actions: their Jobs run in this namespace and reach into pods of others.\n");
    text.push_str(&account(EXEC_WORKER, "exec-worker"));
    text.push_str(&cluster(EXEC_WORKER, "exec-worker", EXEC_RIGHTS));
    text.push_str(binding("ClusterRole", EXEC_WORKER, "exec-worker").trim_end_matches("---\n"));
    text
}

fn head(api: &str, kind: &str, name: &str, part: &str) -> String {
    let namespace = if kind.starts_with("Cluster") { String::new() } else { format!("  namespace: {NAMESPACE}\n") };
    format!(
        "apiVersion: {api}\nkind: {kind}\nmetadata:\n  name: {name}\n{namespace}  labels:\n    {}: {part}\n",
        labels::PART
    )
}

fn account(name: &str, part: &str) -> String {
    format!("{}---\n", head("v1", "ServiceAccount", name, part))
}

fn role(kind: &str, name: &str, part: &str, rights: &[Right]) -> String {
    let mut text = head("rbac.authorization.k8s.io/v1", kind, name, part);
    text.push_str("rules:\n");
    for Right { group, resource, verbs, why } in rights {
        let verbs = verbs.join(", ");
        let rule =
            format!("  # {why}\n  - apiGroups: [\"{group}\"]\n    resources: [{resource}]\n    verbs: [{verbs}]\n");
        text.push_str(&rule);
    }
    text.push_str("---\n");
    text
}

fn binding(role: &str, name: &str, part: &str) -> String {
    let kind = format!("{role}Binding");
    let head = head("rbac.authorization.k8s.io/v1", &kind, name, part);
    format!(
        "{head}roleRef:\n  apiGroup: rbac.authorization.k8s.io\n  kind: {role}\n  name: {name}\nsubjects:\n  \
         - kind: ServiceAccount\n    name: {name}\n    namespace: {NAMESPACE}\n---\n"
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde::Deserialize as _;
    use serde_json::Value;

    use super::*;

    fn documents() -> Vec<Value> {
        let text = manifest();
        serde_norway::Deserializer::from_str(&text).map(|document| Value::deserialize(document).unwrap()).collect()
    }

    #[test]
    fn the_installed_file_is_that_of_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/install/rbac.yaml");
        if std::env::var_os("UPDATE_MANIFESTS").is_some() {
            std::fs::write(path, manifest()).unwrap();
        }
        let installed = std::fs::read_to_string(path).unwrap();
        assert_eq!(installed, manifest(), "run `cargo xtask codegen`");
    }

    #[test]
    fn the_text_and_the_role_say_the_same() {
        let role = documents().into_iter().find(|document| document["kind"] == "ClusterRole").unwrap();
        assert_eq!(serde_json::from_value::<ClusterRole>(role).unwrap(), cluster_role());
    }

    #[test]
    fn every_binding_finds_its_role_and_its_account() {
        let documents = documents();
        let exists = |kind: &Value, name: &Value| {
            documents.iter().any(|document| document["kind"] == *kind && document["metadata"]["name"] == *name)
        };
        let bindings: Vec<_> = documents.iter().filter(|document| document.get("roleRef").is_some()).collect();
        assert_eq!(bindings.len(), 3);
        for binding in bindings {
            assert!(exists(&binding["roleRef"]["kind"], &binding["roleRef"]["name"]));
            assert!(exists(&binding["subjects"][0]["kind"], &binding["subjects"][0]["name"]));
        }
    }

    #[test]
    fn nothing_is_granted_twice_and_nothing_by_a_star() {
        let mut seen = BTreeSet::new();
        for right in RIGHTS {
            assert!(seen.insert((right.group, right.resource)), "{right:?}");
            assert!(!right.verbs.contains(&"*") && right.resource != "*" && right.group != "*", "{right:?}");
            assert!(!right.why.is_empty());
        }
    }

    #[test]
    fn nobody_may_grant_rights_or_become_somebody() {
        for right in RIGHTS {
            // Making roles is not enough to become more: the API server lets nobody grant what he does not hold, unless he
            // may `escalate` or `bind`.
            if right.group == "rbac.authorization.k8s.io" {
                assert!(["roles", "rolebindings"].contains(&right.resource), "{right:?}");
                assert!(right.verbs.iter().all(|verb| ["get", "create", "patch"].contains(verb)), "{right:?}");
            }
            assert!(!right.verbs.iter().any(|verb| ["bind", "escalate", "impersonate"].contains(verb)));
            assert_ne!(right.resource, "pods/exec", "exec actions have an account of their own");
        }
    }
}
