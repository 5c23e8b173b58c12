//! Every exit code by what it means, and after 2, 3, 6 and 7 nothing is another than before. And who may nothing is told so.

use std::collections::BTreeMap;

use anyhow::Result;
use kbbackup_e2e::{LIMIT, drop_s3_repo, ended, phase, s3_repo_object};
use kbbackup_testing::fixtures::list;
use kbbackup_testing::kubectl::Done;
use kbbackup_testing::namespace::TempNamespace;
use serde_json::{Value, json};

use crate::begin;
use crate::files;

/// Last words of a script that fails.
const LAST_WORDS: &str = "the tape has been eaten";
const KINDS: &str = "backups,restores,backuppolicies,backupschedules,secrets,configmaps,pvc,statefulsets,cronjobs";

/// The plugin in the namespace.
fn kbbackup(space: &TempNamespace, words: &[&str]) -> Done {
    space.kubectl.try_run(&[&["kbbackup"], words].concat()).unwrap()
}

/// Everything that a command could have changed, by its content's generation.
fn state(space: &TempNamespace) -> BTreeMap<String, Value> {
    let all = space.kubectl.get(&[KINDS]).unwrap();
    let items = all["items"].as_array().cloned().unwrap_or_default();
    let of = |item: &Value| {
        let meta = &item["metadata"];
        // A status may go on changing; what has none of its own has no generation.
        let content = if meta["generation"].is_null() { &meta["resourceVersion"] } else { &meta["generation"] };
        let key = format!("{} {} {}", item["kind"], meta["name"], meta["uid"]);
        (key, json!([content, meta["labels"], meta["deletionTimestamp"]]))
    };
    items.iter().map(of).collect()
}

/// Runs commands that must end with `code` and leave everything as it is.
fn refused(space: &TempNamespace, code: i32, commands: &[&[&str]]) {
    for words in commands {
        let before = state(space);
        let done = kbbackup(space, words);
        assert_eq!(done.code, code, "{words:?}: {}{}", done.stdout, done.stderr);
        assert!(done.stderr.contains("error: "), "{words:?}: {}", done.stderr);
        assert_eq!(state(space), before, "{words:?} changed something");
    }
}

fn prepare(space: &TempNamespace) -> Result<()> {
    files::create(space, 1)?;
    let set = |name: &str| format!("{}-{name}", space.name);
    let fails = format!("echo '{LAST_WORDS}' >&2; exit 1");
    let recipes = [("full", files::PACK), ("bad", fails.as_str()), ("slow", "sleep 600")];
    let mut objects: Vec<Value> =
        recipes.iter().map(|(name, script)| files::recipe(&set(name), "Full", script, files::UNPACK)).collect();
    let sets = recipes.map(|(name, _)| set(name));
    let methods: Vec<_> = recipes.iter().zip(&sets).map(|((name, _), set)| (*name, set.as_str(), None)).collect();
    let mut policy = files::policy("Any", &methods);
    policy["spec"]["backoffLimit"] = json!(0);
    objects.push(policy.clone());
    // A repository whose Secret does not exist is never ready.
    let repo = format!("lost-{}", space.name);
    objects.push(s3_repo_object(&repo, "versitygw", &space.name));
    policy["metadata"]["name"] = json!("lost");
    policy["spec"]["backupRepoName"] = json!(repo);
    objects.push(policy);
    space.kubectl.apply(&list(&objects).to_string())
}

#[test]
fn every_exit_code_means_what_it_says() {
    let (cluster, space) = begin("codes").unwrap();
    prepare(&space).unwrap();
    let run = |words: &[&str]| kbbackup(&space, words);

    let good = run(&["backup", "policy/files", "--method", "full", "--name", "good", "--wait"]);
    assert_eq!(good.code, 0, "{}", good.stderr);
    space.kubectl.wait_for("backup", "good", LIMIT, |object| phase(object) == "Completed").unwrap();

    let away = run(&["list", "--server", "http://127.0.0.1:1"]);
    assert_eq!(away.code, 1, "{}", away.stderr);
    refused(
        &space,
        2,
        &[
            &["backup", "policy/files", "--method", "none"],
            &["backup", "policy/files", "--method", "full", "--param", "level=9"],
            &["backup", "policy/files", "--method", "full", "--name", "good"],
            &["restore", "new", "--from", "good", "--to-time", "2026-01-02T03:04:05Z"],
            &["restore", "files", "--from", "good"],
            &["restore"],
            &["schedule", "create", "policy/files", "--method", "full", "--cron", "61 * * * *"],
            &["policy", "set", "files"],
            &["repo", "create"],
            &["update", "good"],
        ],
    );
    refused(
        &space,
        3,
        &[
            &["backup", "policy/none"],
            &["backup", "statefulset/none"],
            &["describe", "none"],
            &["logs", "none"],
            &["why", "none"],
            &["verify", "none"],
            &["update", "none", "--keep"],
            &["cancel", "none", "--yes"],
            &["delete", "good", "none", "--yes"],
            &["restore", "new", "--from", "none"],
            &["restores", "delete", "none", "--yes"],
            &["schedule", "trigger", "schedule/none"],
            &["policy", "set", "none", "--backoff-limit", "1"],
            &["policy", "delete", "none", "--yes"],
            &["repo", "update", "none", "--default=true"],
            &["repo", "delete", "none", "--yes"],
        ],
    );
    refused(&space, 6, &[&["delete", "good"], &["delete", "--all"], &["policy", "delete", "lost"]]);
    let elsewhere = ["--operator-namespace", space.name.as_str()];
    refused(
        &space,
        7,
        &[
            &["backup", "policy/lost", "--method", "full"],
            &[&["repo", "check", "embedded"], &elsewhere[..]].concat(),
            &[&["upgrade"], &elsewhere[..]].concat(),
        ],
    );

    let bad = run(&["backup", "policy/files", "--method", "bad", "--name", "bad", "--wait"]);
    assert_eq!(bad.code, 4, "{}", bad.stderr);
    assert!(bad.stderr.contains(LAST_WORDS), "its log is not told: {}", bad.stderr);
    let unprotected = run(&["status", "policy/lost", "--fail-on-unprotected"]);
    assert_eq!(unprotected.code, 4, "{}{}", unprotected.stdout, unprotected.stderr);

    let late = run(&["backup", "policy/files", "--method", "slow", "--name", "slow", "--wait", "--timeout", "1s"]);
    assert_eq!(late.code, 5, "{}", late.stderr);
    space.kubectl.wait_for("backup", "slow", LIMIT, |object| phase(object) == "Running").unwrap();
    refused(&space, 6, &[&["cancel", "slow"]]);
    assert_eq!(run(&["cancel", "slow", "--yes"]).code, 0);
    assert_eq!(phase(&ended(&space, "slow", LIMIT).unwrap()), "Failed");

    strangers(&space);
    drop_s3_repo(&cluster, &format!("lost-{}", space.name));
    let sets = ["full", "bad", "slow"].map(|name| format!("{}-{name}", space.name));
    drop(space);
    for set in sets {
        drop(cluster.try_run(&["delete", "actionset", &set, "--wait=false"]));
    }
}

/// Who may nothing, and who may only look, is refused in the server's words; `doctor` has said so before.
fn strangers(space: &TempNamespace) {
    let name = format!("{}-looks", space.name);
    let rule = |groups: &[&str], resources: &[&str]| json!({"apiGroups": groups, "resources": resources, "verbs": ["get", "list", "watch"]});
    let rules = [
        rule(&["dataprotection.kubeblocks.io"], &["*"]),
        rule(&["apps"], &["deployments", "statefulsets"]),
        rule(&[""], &["pods", "pods/log", "events", "secrets", "persistentvolumeclaims"]),
        rule(&["storage.k8s.io"], &["storageclasses"]),
    ];
    let api = "rbac.authorization.k8s.io";
    let objects = [
        json!({"apiVersion": format!("{api}/v1"), "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules}),
        json!({"apiVersion": format!("{api}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": name},
            "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": name},
            "subjects": [{"apiGroup": api, "kind": "User", "name": name}]}),
    ];
    space.kubectl.apply(&list(&objects).to_string()).unwrap();

    let writes: [&[&str]; 10] = [
        &["backup", "policy/files", "--method", "full"],
        &["restore", "new", "--from", "good"],
        &["delete", "good", "--yes"],
        &["update", "good", "--keep"],
        &["schedule", "create", "policy/files", "--method", "full", "--cron", "0 3 1 1 *"],
        &["policy", "set", "files", "--backoff-limit", "1"],
        &["policy", "delete", "lost", "--yes"],
        &["repo", "check", "embedded"],
        &["repo", "update", "embedded", "--default=true", "--param", "noCheckBucket=true"],
        &["repo", "create", &name, "--provider", "pvc"],
    ];
    let reads: [&[&str]; 8] = [
        &["list"],
        &["describe", "good"],
        &["logs", "good"],
        &["status"],
        &["windows"],
        &["schedule", "list"],
        &["restores", "list"],
        &["repo", "list"],
    ];
    let told = |words: &[&str], user: &str| {
        let done = kbbackup(space, &[words, &["--as", user]].concat());
        let reason = format!("User \"{user}\" cannot");
        assert_eq!(done.code, 1, "{words:?} as {user}: {}{}", done.stdout, done.stderr);
        assert!(done.stderr.contains(&reason), "{words:?} as {user}: {}", done.stderr);
    };
    let predicted = |user: &str| {
        let text = kbbackup(space, &["doctor", "-o", "json", "--as", user]).stdout;
        let value: Value = serde_json::from_str(&text).unwrap();
        let findings = value["findings"].as_array().cloned().unwrap_or_default();
        let rights = findings.into_iter().find(|finding| finding["check"] == "rights").expect("rights are looked at");
        assert_eq!(rights["result"], "warn", "{rights}");
        rights["message"].as_str().unwrap_or_default().to_owned()
    };
    let before = state(space);
    let nobody = format!("{}-nobody", space.name);
    for words in reads.iter().chain(&writes) {
        told(words, &nobody);
    }
    let rights = predicted(&nobody);
    for right in ["list backups", "make backups", "delete backups", "write policies", "restore", "read logs"] {
        assert!(rights.contains(right), "{right}: {rights}");
    }
    // Of a log nobody knows how long its pods are there.
    for words in reads.iter().filter(|words| words[0] != "logs") {
        let done = kbbackup(space, &[*words, &["--as", &name]].concat());
        assert_eq!(done.code, 0, "{words:?}: {}", done.stderr);
    }
    for words in writes {
        told(words, &name);
    }
    let rights = predicted(&name);
    assert!(rights.contains("make backups") && !rights.contains("list backups"), "{rights}");
    assert_eq!(state(space), before, "who may nothing changed something");
    space.kubectl.run(&["delete", "clusterrolebinding,clusterrole", &name]).unwrap();
}
