//! Several ways to fail, side by side: each is named while it lasts and at the end, and none is called Completed.

use kbbackup_e2e::{LIMIT, ended, must_fail, phase};
use kbbackup_testing::fixtures::{self, list};
use kbbackup_testing::namespace::TempNamespace;
use serde_json::{Value, json};

use crate::{begin, files};

/// A quota on something that only those pods are charged for which ask for it.
fn quota(limit: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "scratch"},
        "spec": {"hard": {"requests.ephemeral-storage": limit}}})
}

fn waits_for(space: &TempNamespace, backup: &str, words: &[&str]) -> Value {
    let told = |object: &Value| {
        let why = object["metadata"]["annotations"]["kbbackup.io/waiting-for"].as_str().unwrap_or_default();
        words.iter().all(|word| why.contains(word))
    };
    space.kubectl.wait_for("backup", backup, LIMIT, told).unwrap()
}

#[test]
fn each_cause_of_failure_is_named_and_a_cured_one_lets_the_backup_complete() {
    let (cluster, space) = begin("sweep").unwrap();
    files::create(&space, 1).unwrap();
    let name = |part: &str| format!("{}-{part}", space.name);
    let parts = ["image", "quota", "memory", "exit"];
    let script = |part: &str| match part {
        "memory" => "exec tail /dev/zero".to_owned(),
        "exit" => "echo 'no such table' >&2; exit 42".to_owned(),
        _ => files::PACK.to_owned(),
    };
    let mut objects: Vec<Value> =
        parts.iter().map(|part| files::recipe(&name(part), "Full", &script(part), files::UNPACK)).collect();
    objects[0]["spec"]["backup"]["backupData"]["image"] = json!("kbbackup.test/nowhere:1");
    let names = parts.map(name);
    let methods: Vec<_> = parts.iter().zip(&names).map(|(part, recipe)| (*part, recipe.as_str(), None)).collect();
    let mut policy = files::policy("Any", &methods);
    let asks = |kind: &str, resource: &str, much: &str| json!({"resources": {kind: {resource: much}}});
    policy["spec"]["backupMethods"][1]["runtimeSettings"] = asks("requests", "ephemeral-storage", "2Mi");
    policy["spec"]["backupMethods"][2]["runtimeSettings"] = asks("limits", "memory", "48Mi");
    objects.extend([quota("1Mi"), policy]);
    objects.extend(parts.map(|part| fixtures::backup(part, "files", part)));
    space.kubectl.apply(&list(&objects).to_string()).unwrap();

    waits_for(&space, "image", &["kbbackup.test/nowhere:1"]);
    let memory = must_fail(&space, "memory", LIMIT).unwrap();
    assert!(memory.contains("OOMKilled"), "{memory}");
    let exit = must_fail(&space, "exit", LIMIT).unwrap();
    assert!(exit.contains("no such table"), "{exit}");

    // More room: the backup that waited goes on by itself, and has nothing more to wait for.
    assert_eq!(phase(&space.kubectl.get(&["backup", "quota"]).unwrap()), "Running");
    space.kubectl.apply(&quota("100Mi").to_string()).unwrap();
    let cured = ended(&space, "quota", LIMIT).unwrap();
    assert_eq!(phase(&cured), "Completed", "{}", cured["status"]);
    assert!(cured["metadata"]["annotations"]["kbbackup.io/waiting-for"].is_null(), "{}", cured["metadata"]);
    assert_eq!(phase(&space.kubectl.get(&["backup", "image"]).unwrap()), "Running");

    space.kubectl.run(&["delete", "backup", "--all", "--timeout=180s"]).unwrap();
    drop(space);
    for recipe in &names {
        drop(cluster.try_run(&["delete", "actionset", recipe, "--wait=false"]));
    }
}
