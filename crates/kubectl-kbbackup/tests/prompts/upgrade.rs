//! `upgrade`: what it says before it changes anything, and when it changes nothing.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::CTRL_C;
use crate::api::Api;
use crate::terminal::{self, Terminal};
use crate::world::World;

fn quiet(api: &Api, args: &[&str]) -> (Option<i32>, String, String) {
    let ended = terminal::command_in(api, "kbbackup-system", args).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (ended.status.code(), text(&ended.stdout), text(&ended.stderr))
}

#[test]
fn without_an_operator_there_is_nothing_to_upgrade() {
    let api = World::default().start();
    let (code, _, told) = quiet(&api, &["upgrade", "--yes"]);
    assert_eq!(code, Some(7), "{told}");
    assert!(told.contains("hint: kubectl kbbackup install"), "{told}");
    assert_eq!(api.written(), Vec::<Value>::new());
}

#[test]
fn an_older_plugin_does_not_touch_a_newer_operator() {
    let api = World::default().operator("99.0.0", "ghcr.io/kbbackup/controller:99.0.0").start();
    let (code, _, told) = quiet(&api, &["upgrade", "--yes"]);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("version 99.0.0"), "{told}");
    assert_eq!(api.written(), Vec::<Value>::new());
}

#[test]
fn what_helm_installed_is_left_to_helm() {
    let api = World::default().operator("0.0.9", "x:0.0.9").helm("backups").start();
    let (code, _, told) = quiet(&api, &["upgrade", "--yes"]);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("Helm release backups"), "{told}");
    assert_eq!(api.written(), Vec::<Value>::new());
}

#[test]
fn an_older_plugin_that_installs_says_what_it_replaces() {
    let api = World::default().operator("99.0.0", "ghcr.io/kbbackup/controller:99.0.0").start();
    let (code, _, told) = quiet(&api, &["install", "--dry-run"]);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("version 99.0.0, newer than"), "{told}");
}

#[test]
fn an_operator_in_another_namespace_is_not_joined_by_a_second() {
    let api = World::default().operator("0.0.9", "x:0.0.9").start();
    let mut command = terminal::command(&api, &["upgrade", "--yes"]);
    let ended = command.stdin(Stdio::null()).output().unwrap();
    assert_eq!(ended.status.code(), Some(2), "{}", String::from_utf8_lossy(&ended.stderr));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("upgrade -n kbbackup-system"));
    assert_eq!(api.written(), Vec::<Value>::new());
}

#[test]
fn a_dry_run_shows_the_images_that_are_kept() {
    let api = World::default().operator("0.0.9", "registry.example.com/kb/controller:0.0.9").start();
    let (code, shown, told) = quiet(&api, &["upgrade", "--dry-run"]);
    assert_eq!(code, Some(0), "{told}");
    let image = format!("image: registry.example.com/kb/controller:{}\n", env!("CARGO_PKG_VERSION"));
    assert!(shown.contains(&image) && shown.contains("kind: CustomResourceDefinition"), "{shown}");
    assert_eq!(api.written(), Vec::<Value>::new());
}

#[test]
fn definitions_come_first_the_store_last_and_its_keys_are_left_alone() {
    let api = World::default().operator("0.0.9", "registry.example.com/kb/controller:0.0.9").store("77Gi").start();
    let mut terminal = Terminal::open_in(&api, "kbbackup-system", &["upgrade"]);
    terminal.until("statefulset/kbbackup-store; volume and keys stay");
    terminal.answers("Go on?", "y");
    assert_eq!(terminal.end(), 0, "{}", terminal.seen());
    let seen = terminal.seen();
    assert!(seen.contains("the operator runs in namespace kbbackup-system"), "{seen}");
    assert!(seen.contains("kubectl kbbackup upgrade -n kbbackup-system --yes"), "{seen}");
    let mut kinds: Vec<String> =
        api.written().iter().map(|object| object["kind"].as_str().unwrap().to_owned()).collect();
    kinds.dedup();
    let place = |kind: &str| kinds.iter().position(|known| known == kind).unwrap();
    let order = ["CustomResourceDefinition", "Namespace", "Deployment", "StorageProvider", "ActionSet", "StatefulSet"];
    assert!(order.is_sorted_by_key(|kind| place(kind)) && !kinds.contains(&"Secret".to_owned()), "{kinds:?}");
    let image = &api.only("Deployment")["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(image, &format!("registry.example.com/kb/controller:{}", env!("CARGO_PKG_VERSION")));
    let store = api.only("StatefulSet");
    let size = &store["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"];
    assert_eq!(size, "77Gi");
}

#[test]
fn no_and_ctrl_c_change_nothing() {
    for (answer, code) in [("n", 6), (CTRL_C, 130)] {
        let api = World::default().operator("0.0.9", "ghcr.io/kbbackup/controller:0.0.9").start();
        let mut terminal = Terminal::open_in(&api, "kbbackup-system", &["upgrade"]);
        terminal.until(&format!("0.0.9 to {}", env!("CARGO_PKG_VERSION")));
        terminal.answers("Go on?", answer);
        assert_eq!(terminal.end(), code, "{answer:?}: {}", terminal.seen());
        assert_eq!(api.written(), Vec::<Value>::new(), "{answer:?}");
    }
}

#[test]
fn a_manifest_of_an_installation_keeps_the_keys_and_the_volume_of_the_store() {
    let api = World::default().operator("0.0.9", "x:0.0.9").store("77Gi").repo("other", true).start();
    let keys = json!({"accessKeyId": "YQ==", "secretAccessKey": "aHVzaA=="});
    let metadata = json!({"name": "kbbackup-store", "namespace": "kbbackup-system"});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": keys});
    api.put("/api/v1/namespaces/kbbackup-system/secrets/kbbackup-store".to_owned(), secret);
    let (code, shown, told) = quiet(&api, &["install", "--embedded-repo", "--dry-run", "-o", "json"]);
    assert_eq!(code, Some(0), "{told}");
    let all: Value = serde_json::from_str(&shown).unwrap();
    let only = |kind: &str, name: &str| {
        let mut items = all["items"].as_array().unwrap().iter();
        items.find(|item| item["kind"] == kind && item["metadata"]["name"] == name).unwrap()
    };
    assert_eq!(only("Secret", "kbbackup-store")["stringData"]["secretAccessKey"], "hush");
    let claim = &only("StatefulSet", "kbbackup-store")["spec"]["volumeClaimTemplates"][0];
    assert_eq!(claim["spec"]["resources"]["requests"]["storage"], "77Gi");
    let mark = &only("BackupRepo", "embedded")["metadata"]["annotations"];
    assert_eq!(mark["dataprotection.kubeblocks.io/is-default-repo"], Value::Null, "there is a default already");
    assert_eq!(api.written(), Vec::<Value>::new());

    // To readers of YAML 1.1 a plain `off` would be no text, and the server would refuse it.
    let (_, shown, _) = quiet(&api, &["install", "--dry-run"]);
    assert!(shown.contains("value: 'off'") && !shown.contains("value: off\n"), "{shown}");
}
