//! Whether the roles are what the code uses: the API server's audit log, compared with the table of rights.
//!
//! The end-to-end tests end with this comparison: nothing that was asked for was forbidden, and nothing is granted that
//! was never asked for, but for the rights that [`OUT_OF_REACH`] excuses by name.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::{EXEC_RIGHTS, EXEC_WORKER, OPERATOR, OWN_NAMESPACE_RIGHTS, RIGHTS, Right};

/// One account of the installation and all that it may do.
#[derive(Clone, Copy, Debug)]
pub struct Account {
    /// Name of the ServiceAccount, in the operator's namespace.
    pub name: &'static str,
    /// Rights in every namespace.
    pub everywhere: &'static [Right],
    /// Rights in the operator's namespace only.
    pub at_home: &'static [Right],
}

/// Every account of the installation.
pub const ACCOUNTS: &[Account] = &[
    Account { name: OPERATOR, everywhere: RIGHTS, at_home: OWN_NAMESPACE_RIGHTS },
    Account { name: EXEC_WORKER, everywhere: EXEC_RIGHTS, at_home: &[] },
];

/// A right that no end-to-end test uses, and why it is granted nevertheless.
#[derive(Clone, Copy, Debug)]
pub struct Excuse {
    /// The account.
    pub account: &'static str,
    /// API group.
    pub group: &'static str,
    /// Resource, or `resource/subresource`.
    pub resource: &'static str,
    /// The verb.
    pub verb: &'static str,
    /// Why no test gets there.
    pub why: &'static str,
}

/// Rights that the end-to-end tests do not reach, or only when something happens at the right moment. An excuse for what
/// is not granted is stale, and an error.
pub const OUT_OF_REACH: &[Excuse] = &[
    excuse(
        "dataprotection.kubeblocks.io",
        "storageproviders",
        "patch",
        "only where the reference was installed before",
    ),
    excuse(
        "dataprotection.kubeblocks.io",
        "storageproviders/status",
        "patch",
        "only at the first start in a cluster, or where parameters are invalid",
    ),
    excuse("coordination.k8s.io", "leases", "create", "only at the first start in a cluster"),
    excuse("dataprotection.kubeblocks.io", "storageproviders", "get", "only when the watch is behind"),
    excuse("dataprotection.kubeblocks.io", "backuprepos", "get", "only when the watch is behind"),
    excuse("dataprotection.kubeblocks.io", "actionsets", "get", "only when the watch is behind"),
    excuse("apps.kubeblocks.io", "clusters", "get", "only where KubeBlocks restores a Cluster"),
    excuse("apps.kubeblocks.io", "components", "get", "only where KubeBlocks restores a Cluster"),
    excuse("apps.kubeblocks.io", "componentdefinitions", "get", "only where KubeBlocks restores a Cluster"),
    excuse("operations.kubeblocks.io", "opsrequests", "list", "only where KubeBlocks serves its OpsRequests"),
    excuse("operations.kubeblocks.io", "opsrequests", "watch", "only where KubeBlocks serves its OpsRequests"),
    excuse("operations.kubeblocks.io", "opsrequests", "create", "only where KubeBlocks serves its OpsRequests"),
    excuse("workloads.kubeblocks.io", "instancesets", "get", "only where KubeBlocks restores a Cluster"),
    excuse("workloads.kubeblocks.io", "instances", "get", "only where KubeBlocks restores a Cluster"),
    excuse("apps", "statefulsets", "watch", "a list and a watch are one request where the server streams lists"),
    excuse("dataprotection.kubeblocks.io", "backupschedules", "get", "only when the watch is behind, or it is gone"),
    excuse("batch", "cronjobs", "create", "server-side apply makes them, which the log calls a patch"),
    excuse("", "secrets", "create", "server-side apply makes them, which the log calls a patch"),
    excuse("", "configmaps", "get", "only where a workload refers to one"),
    excuse("", "configmaps", "patch", "held so that an archiver can be given it"),
    excuse("rbac.authorization.k8s.io", "roles", "get", "only when a role of that name exists"),
    excuse("rbac.authorization.k8s.io", "rolebindings", "get", "only when a binding of that name exists"),
    excuse("rbac.authorization.k8s.io", "rolebindings", "patch", "only when an archiver gets another account"),
    excuse("apps", "statefulsets", "update", "only when what an archiver is made from changes"),
    excuse("", "serviceaccounts", "patch", "only where the administrator sets annotations for workers"),
    Excuse {
        account: EXEC_WORKER,
        group: "",
        resource: "pods/exec",
        verb: "create",
        why: "the stream is opened by GET; newer API servers want to see both",
    },
];

const fn excuse(group: &'static str, resource: &'static str, verb: &'static str, why: &'static str) -> Excuse {
    Excuse { account: OPERATOR, group, resource, verb, why }
}

/// One request of an account, as the audit log tells it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    /// The account, without its namespace.
    pub account: String,
    /// API group.
    pub group: String,
    /// Resource, or `resource/subresource`.
    pub resource: String,
    /// The verb.
    pub verb: String,
    /// The namespace; empty for all namespaces and for objects without one.
    pub namespace: String,
    /// Whether the authorizer said no.
    pub forbidden: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    verb: String,
    user: User,
    object_ref: Option<Object>,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    request_received_timestamp: String,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Object {
    resource: String,
    subresource: String,
    namespace: String,
    api_group: String,
}

/// The requests of the accounts of `home` in an audit log, a JSON event per line, since `since` (RFC 3339, UTC). Requests
/// that are about no resource, such as the discovery of APIs, need no right of ours.
///
/// # Errors
/// A line that is not an event; the last one may be cut short.
pub fn requests(log: &str, home: &str, since: &str) -> Result<BTreeSet<Request>, serde_json::Error> {
    let prefix = format!("system:serviceaccount:{home}:");
    let mut found = BTreeSet::new();
    let mut lines = log.lines().peekable();
    while let Some(line) = lines.next() {
        let event: Event = match serde_json::from_str(line) {
            Err(_) if lines.peek().is_none() && !log.ends_with('\n') => break,
            other => other?,
        };
        let (Some(account), Some(object)) = (event.user.username.strip_prefix(&prefix), event.object_ref) else {
            continue;
        };
        if event.request_received_timestamp.as_str() < since {
            continue;
        }
        let slash = if object.subresource.is_empty() { "" } else { "/" };
        found.insert(Request {
            account: account.to_owned(),
            group: object.api_group,
            resource: format!("{}{slash}{}", object.resource, object.subresource),
            verb: event.verb,
            namespace: object.namespace,
            forbidden: event.annotations.get("authorization.k8s.io/decision").is_some_and(|said| said == "forbid"),
        });
    }
    Ok(found)
}

/// What is wrong between the rights of `accounts` and what they asked for; nothing when the roles are exact.
pub fn disagreements(
    accounts: &[Account],
    excuses: &[Excuse],
    requests: &BTreeSet<Request>,
    home: &str,
) -> Vec<String> {
    let mut wrong = Vec::new();
    for request in requests {
        let Some(account) = accounts.iter().find(|account| account.name == request.account) else { continue };
        let at_home = account.at_home.iter().filter(|_| request.namespace == home);
        let granted = account.everywhere.iter().chain(at_home).any(|right| grants(right, request));
        if request.forbidden || !granted {
            let Request { account, group, resource, verb, namespace, .. } = request;
            wrong.push(format!("{account} needs {verb} {resource} of {group:?} (in {namespace:?}): not granted"));
        }
    }
    let rights = || {
        accounts.iter().flat_map(|account| {
            let all = account.everywhere.iter().chain(account.at_home);
            all.flat_map(move |right| right.verbs.iter().map(move |verb| (account.name, right, *verb)))
        })
    };
    let excused = |(account, right, verb): (&str, &Right, &str)| {
        let wanted = (account, right.group, right.resource, verb);
        excuses.iter().any(|excuse| (excuse.account, excuse.group, excuse.resource, excuse.verb) == wanted)
    };
    for (account, right, verb) in rights() {
        let used = requests.iter().any(|one| one.account == account && one.verb == verb && grants(right, one));
        // Who may list may read: a get is granted beside it for the moments when a watch is behind.
        let implied = verb == "get" && right.verbs.contains(&"list");
        if !used && !implied && !excused((account, right, verb)) {
            let Right { group, resource, .. } = right;
            wrong.push(format!("{account} may {verb} {resource} of {group:?}: never used"));
        }
    }
    for Excuse { account, group, resource, verb, .. } in excuses {
        let granted = |(name, right, of): (&str, &Right, &str)| {
            (name, right.group, right.resource, of) == (*account, *group, *resource, *verb)
        };
        if !rights().any(granted) {
            wrong.push(format!("{account} does not have {verb} {resource} of {group:?}: its excuse is stale"));
        }
    }
    wrong
}

fn grants(right: &Right, request: &Request) -> bool {
    right.group == request.group && right.resource == request.resource && right.verbs.contains(&request.verb.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHT: Right = Right { group: "batch", resource: "jobs", verbs: &["get", "create"], why: "work" };
    const LEASE: Right = Right { group: "coordination.k8s.io", resource: "leases", verbs: &["get"], why: "lead" };
    const ACCOUNT: Account = Account { name: "operator", everywhere: &[RIGHT], at_home: &[LEASE] };

    fn line(verb: &str, resource: &str, group: &str, namespace: &str, decision: &str) -> String {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        serde_json::json!({
            "kind": "Event", "stage": "ResponseComplete", "verb": verb,
            "user": {"username": "system:serviceaccount:home:operator", "groups": []},
            "objectRef": {"resource": resource, "subresource": subresource, "apiGroup": group, "namespace": namespace},
            "annotations": {"authorization.k8s.io/decision": decision},
            "requestReceivedTimestamp": "2026-01-01T00:00:00.000000Z",
        })
        .to_string()
    }

    fn wrong(log: &[String], excuses: &[Excuse]) -> Vec<String> {
        let requests = requests(&log.join("\n"), "home", "2026").unwrap();
        disagreements(&[ACCOUNT], excuses, &requests, "home")
    }

    fn exact() -> Vec<String> {
        vec![
            line("get", "jobs", "batch", "demo", "allow"),
            line("create", "jobs", "batch", "demo", "allow"),
            line("get", "leases", "coordination.k8s.io", "home", "allow"),
        ]
    }

    #[test]
    fn a_role_that_is_used_to_the_last_verb_is_exact() {
        assert_eq!(wrong(&exact(), &[]), Vec::<String>::new());
    }

    #[test]
    fn a_request_that_nothing_grants_is_told_and_so_is_a_forbidden_one() {
        let mut log = exact();
        log.push(line("patch", "jobs/status", "batch", "demo", "forbid"));
        log.push(line("get", "leases", "coordination.k8s.io", "demo", "forbid"));
        let wrong = wrong(&log, &[]);
        assert_eq!(wrong.len(), 2, "{wrong:?}");
        assert!(wrong.iter().any(|line| line.contains("patch jobs/status")), "{wrong:?}");
    }

    #[test]
    fn a_right_that_nobody_uses_is_told_unless_it_is_excused() {
        let log = [line("get", "jobs", "batch", "demo", "allow")];
        assert_eq!(wrong(&log, &[]).len(), 2);
        let excuses = ["create", "get"].map(|verb| Excuse {
            account: "operator",
            group: if verb == "create" { "batch" } else { "coordination.k8s.io" },
            resource: if verb == "create" { "jobs" } else { "leases" },
            verb,
            why: "-",
        });
        assert_eq!(wrong(&log, &excuses), Vec::<String>::new());
        assert_eq!(wrong(&exact(), &excuses), Vec::<String>::new(), "what happens at times is excused as well");
        let stale = Excuse { account: "operator", group: "batch", resource: "cronjobs", verb: "get", why: "-" };
        assert!(wrong(&exact(), &[stale])[0].ends_with("stale"));
    }

    #[test]
    fn strangers_other_times_and_discovery_do_not_count() {
        let log = exact().join("\n");
        assert!(requests(&log, "elsewhere", "2026").unwrap().is_empty());
        assert!(requests(&log, "home", "2027").unwrap().is_empty());
        let discovery = r#"{"verb":"get","user":{"username":"system:serviceaccount:home:operator"}}"#;
        assert!(requests(discovery, "home", "").unwrap().is_empty());
        assert_eq!(requests(&format!("{log}\n{{\"cut"), "home", "").unwrap().len(), 3);
        assert!(requests("{\"cut\n{}\n", "home", "").is_err());
    }

    #[test]
    fn every_excuse_names_a_right_that_is_granted_and_a_reason() {
        for excuse in OUT_OF_REACH {
            let account = ACCOUNTS.iter().find(|account| account.name == excuse.account).unwrap();
            let mut rights = account.everywhere.iter().chain(account.at_home);
            assert!(
                rights.any(|right| (right.group, right.resource) == (excuse.group, excuse.resource)
                    && right.verbs.contains(&excuse.verb)),
                "{excuse:?} excuses what nobody may do"
            );
            assert!(!excuse.why.is_empty());
        }
    }
}
