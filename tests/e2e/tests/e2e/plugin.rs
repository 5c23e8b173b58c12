//! What people see of a cluster through the plugin: candidates, causes, reports.

use kbbackup_e2e::{LIMIT, ended, phase};
use kbbackup_testing::fixtures::{self, list};
use kbbackup_testing::postgres::Postgres;
use serde_json::{Value, json};

use crate::begin;

#[test]
fn kubectl_itself_completes_what_the_cluster_knows() {
    let (cluster, space) = begin("complete").unwrap();
    let policy = fixtures::policy("pg", "pg", "pg-basebackup", None);
    space.kubectl.apply(&list(&[policy, fixtures::backup("nightly", "pg", "full")]).to_string()).unwrap();
    let candidates = |words: &[&str]| {
        let namespace = ["-n", space.name.as_str()];
        let words = [&["__complete", "kbbackup"], &namespace[..], words].concat();
        let done = cluster.run(&words).unwrap();
        done.lines().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    let context = cluster.run(&["config", "current-context"]).unwrap();
    let mut other = fixtures::policy("other", "other", "pg-basebackup", None);
    other["spec"]["backupMethods"][0]["name"] = json!("another");
    space.kubectl.apply(&other.to_string()).unwrap();
    let methods = candidates(&["backup", "policy/pg", "--method", ""]);
    assert!(!methods.iter().any(|method| method == "another"), "a method of another source: {methods:?}");
    for (words, wanted) in [
        (&["repo", "check", ""][..], "embedded"),
        (&["policy", "describe", ""], "pg"),
        (&["policy", "create", "--repo", "emb"], "embedded"),
        (&["repo", "create", "--provider", "s3-"], "s3-compatible"),
        (&["repo", "providers", ""], "s3"),
        (&["policy", "create", "--action-set", "pg-"], "pg-basebackup"),
        (&["restore", "new", "--from", ""], "nightly"),
        (&["delete", ""], "nightly"),
        (&["list", "-n", "kbbackup-"], "kbbackup-system"),
        (&["list", "--context", ""], context.trim()),
        (&["backup", "--del"], "--deletion-policy"),
        (&["backup", "--deletion-policy", "R"], "Retain"),
        (&["list", "-o", "js"], "json"),
        (&["backup", "policy/other", "--method", ""], "another"),
        (&["status", ""], "policy/other"),
        (&["describe", "nigh"], "nightly"),
        (&["why", ""], "nightly"),
        (&["backup", "statefulset/pg", "--method", ""], "full"),
        (&["windows", ""], "policy/pg"),
        (&["repo", "create", "--provider", "s3", "--param", "buck"], "bucket="),
        (&["restor"], "restores"),
    ] {
        let mut found = candidates(words);
        // On a busy machine it gives up, silently, as who types would want it to.
        for _ in 0..30 {
            if found.iter().any(|word| word == wanted) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_secs(1));
            found = candidates(words);
        }
        assert!(found.iter().any(|word| word == wanted), "{words:?}: {found:?}");
    }
}

#[test]
fn a_failure_is_explained_by_its_likeliest_cause() {
    let (cluster, space) = begin("why").unwrap();
    Postgres::create(&space.kubectl, "pg", "1Gi").unwrap();
    let (sets, cases) = (
        ["full", "image"].map(|name| format!("{}-{name}", space.name)),
        [("full", "store-full", "Failed"), ("image", "image-pull", "Running")],
    );
    let full = fixtures::scripted_action_set(&sets[0], "echo 'write: No space left on device' >&2; exit 1");
    let mut image = fixtures::scripted_action_set(&sets[1], "true");
    image["spec"]["backup"]["backupData"]["image"] = json!("localhost:1/no/such:image");
    let mut objects = vec![full, image];
    for (set, (name, ..)) in sets.iter().zip(cases) {
        objects.push(fixtures::policy(name, "pg", set, None));
        let mut backup = fixtures::backup(name, name, "full");
        backup["spec"]["deletionPolicy"] = json!("Delete");
        objects.push(backup);
    }
    space.kubectl.apply(&list(&objects).to_string()).unwrap();
    assert_eq!(phase(&ended(&space, "full", LIMIT).unwrap()), "Failed");
    let waits = |object: &Value| {
        object["metadata"]["annotations"]["kbbackup.io/waiting-for"].as_str().is_some_and(|text| text.contains("Pull"))
    };
    space.kubectl.wait_for("backup", "image", LIMIT, waits).unwrap();
    for (name, cause, state) in cases {
        let text = space.kubectl.run(&["kbbackup", "why", name, "-o", "json"]).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["causes"][0]["cause"], cause, "{text}");
        assert_eq!(value["phase"], state, "{text}");
        let told = space.kubectl.run(&["kbbackup", "why", name]).unwrap();
        assert!(told.contains("Most likely: ") && told.contains("→ "), "{told}");
    }
    let page = space.kubectl.run(&["kbbackup", "report", "--html", "-"]).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.contains("class=\"bad\""), "{page}");

    drop(space);
    for set in sets {
        drop(cluster.try_run(&["delete", "actionset", &set, "--wait=false"]));
    }
}
