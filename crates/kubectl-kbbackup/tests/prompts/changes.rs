//! Changes and removals that are only looked at: all of it is shown, and none of it is sent.

use serde_json::{Value, json};

use crate::api::Api;
use crate::terminal::run;
use crate::world::World;

const KINDS: &str = "/apis/dataprotection.kubeblocks.io/v1alpha1";
const DEFAULT: &str = "dataprotection.kubeblocks.io/is-default-policy";

/// Requests that change something.
fn changes(api: &Api) -> Vec<String> {
    api.requests().into_iter().filter(|request| !request.starts_with("GET ")).collect()
}

#[test]
fn a_policy_is_shown_as_it_would_be_and_the_former_default_with_it() {
    let other = format!("{KINDS}/namespaces/demo/backuppolicies/other");
    let api = World::default()
        .policy("pg", &[("full", "full")])
        .policy("other", &[("full", "full")])
        .with(&other, |policy| {
            policy["metadata"]["annotations"] = json!({DEFAULT: "true"});
            policy["metadata"]["resourceVersion"] = json!("7");
            policy["status"] = json!({"phase": "Available"});
        })
        .start();
    let words = ["policy", "set", "pg", "--default", "--backoff-limit", "3"];
    let (code, shown, told) = run(&api, &[&words[..], &["--dry-run", "-o", "json"]].concat());
    assert_eq!(code, Some(0), "{told}");
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let (new, former) = (&shown["items"][0], &shown["items"][1]);
    assert_eq!((&new["metadata"]["name"], &new["spec"]["backoffLimit"]), (&json!("pg"), &json!(3)));
    assert_eq!(new["metadata"]["annotations"][DEFAULT], "true");
    assert_eq!(
        (&former["metadata"]["name"], &former["metadata"]["annotations"]),
        (&json!("other"), &json!({DEFAULT: "false"}))
    );
    // What only the server writes would keep it from being applied another time.
    assert_eq!((&former["status"], &former["metadata"]["resourceVersion"]), (&Value::Null, &Value::Null));
    assert_eq!(changes(&api), Vec::<String>::new());

    let (code, shown, told) = run(&api, &words);
    assert_eq!((code, shown.as_str()), (Some(0), "backuppolicy.dataprotection.kubeblocks.io/pg changed\n"), "{told}");
    assert!(told.contains("backuppolicy/other is not the default any more"), "{told}");
    assert_eq!(api.written().len(), 2, "{:?}", api.written());
    assert_eq!(api.written()[1], json!({"metadata": {"annotations": {DEFAULT: "false"}}}));
}

#[test]
fn a_change_is_sent_again_when_only_the_operator_was_faster() {
    let schedule = format!("{KINDS}/namespaces/demo/backupschedules/pg");
    let began = || {
        let api = World::default().policy("pg", &[("full", "full")]).start();
        let entry = json!({"backupMethod": "full", "cronExpression": "0 2 * * *", "enabled": true});
        let metadata = json!({"name": "pg", "namespace": "demo", "uid": "u", "resourceVersion": "7", "generation": 3});
        let spec = json!({"backupPolicyName": "pg", "schedules": [entry]});
        let group = "dataprotection.kubeblocks.io/v1alpha1";
        let object = json!({"apiVersion": group, "kind": "BackupSchedule", "metadata": metadata, "spec": spec});
        api.put(schedule.clone(), object);
        api
    };
    let words = ["schedule", "disable", "schedule/pg", "--method", "full"];
    // Its notes are in the status and in annotations, which no generation counts.
    let api = began();
    api.overtake(json!({"resourceVersion": "8"}));
    let (code, _, told) = run(&api, &words);
    assert_eq!((code, api.written().len()), (Some(0), 1), "{told}");
    assert_eq!(api.written()[0]["metadata"]["resourceVersion"], "8");
    assert_eq!(api.written()[0]["spec"]["schedules"][0]["enabled"], false);
    let api = began();
    api.overtake(json!({"resourceVersion": "8", "generation": 4}));
    let (code, _, told) = run(&api, &words);
    assert_eq!((code, api.written().len()), (Some(1), 0), "{told}");
    assert!(told.contains("backupschedule/pg was not changed — somebody else changed it"), "{told}");
}

#[test]
fn new_keys_come_from_a_file_and_go_to_the_secret_alone() {
    const KEY: &str = "hush-hush-42";
    let repo = format!("{KINDS}/backuprepos/main");
    let world = World::default().provider("s3").repo("main", true).with(&repo, |repo| {
        repo["spec"]["config"] = json!({"bucket": "b", "region": "north"});
        repo["spec"]["credential"] = json!({"name": "keys", "namespace": "kbbackup-system"});
    });
    let api = world.start();
    let secret = "/api/v1/namespaces/kbbackup-system/secrets/keys";
    api.put(
        secret.to_owned(),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys", "namespace": "kbbackup-system"},
            "data": {"secretAccessKey": "b2xk"}}),
    );
    let file = std::env::temp_dir().join(format!("kbbackup-keys-{}", std::process::id()));
    std::fs::write(&file, format!("# new ones\nsecretAccessKey={KEY}\n")).unwrap();
    let words = ["repo", "update", "main", "--credential-file", file.to_str().unwrap(), "--wait=false"];
    let (code, shown, told) =
        run(&api, &[&words[..], &["--param", "region=south", "--dry-run", "-o", "json"]].concat());
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("holds a Secret") && !told.contains(KEY), "{told}");
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["items"][0]["stringData"], json!({"secretAccessKey": KEY}));
    assert_eq!(shown["items"][1]["spec"]["config"], json!({"bucket": "b", "region": "south"}));
    assert_eq!(changes(&api), Vec::<String>::new());

    let (code, shown, told) = run(&api, &words);
    assert_eq!((code, shown.as_str()), (Some(0), "backuprepo.dataprotection.kubeblocks.io/main updated\n"), "{told}");
    assert!(!told.contains(KEY), "{told}");
    assert_eq!(api.written(), [json!({"stringData": {"secretAccessKey": KEY}})]);
    // The mark is not touched by what is not about it.
    assert_eq!(api.object(&repo)["metadata"]["annotations"]["dataprotection.kubeblocks.io/is-default-repo"], "true");
    drop(std::fs::remove_file(&file));
}

#[test]
fn what_an_uninstallation_would_remove_is_told() {
    let api = World::default().operator("0.1.0", "x").policy("pg", &[]).start();
    let (code, shown, told) = run(&api, &["uninstall", "--delete-crds", "--delete-embedded-data", "--dry-run"]);
    assert_eq!(code, Some(0), "{told}");
    assert!(shown.contains("deployment/kbbackup-controller would be deleted"), "{shown}");
    assert!(
        shown.contains("customresourcedefinition/backups.dataprotection.kubeblocks.io would be deleted"),
        "{shown}"
    );
    assert_eq!(changes(&api), Vec::<String>::new());
    let (code, _, told) = run(&api, &["uninstall"]);
    assert_eq!(code, Some(6), "{told}");
    assert_eq!(changes(&api), Vec::<String>::new());
}
