//! Recipes as other people write them, each cut down to what is particular about it: every pod that follows from one is
//! built. What the scripts do is not looked at here.

use kbbackup_api::v1alpha1::{ActionSet, Backup, BackupMethod, BackupPhase, BackupStatus, BackupType, Restore};
use rstest::rstest;
use serde_json::{Value, json};

use super::build::{self, Site};
use super::observe::{Graph, Ingredients};
use super::plan::{self, Kind};
use super::tests::{backup, from, graph, ingredients, now, pod};
use super::{continuous, decide, observe};
use crate::restore;
use crate::worker::settings;

/// An action's place and the image that runs there.
type Built = (String, String);

fn method(change: Value) -> BackupMethod {
    let mut whole = json!({ "name": "full", "actionSetName": "a",
        "targetVolumes": {"volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "tls", "mountPath": "/tls"}]} });
    whole.as_object_mut().unwrap().extend(change.as_object().cloned().unwrap());
    from(whole)
}

/// Starts a backup by a recipe and a method.
fn begun(set: &ActionSet, method: BackupMethod) -> (Backup, BackupStatus, Ingredients) {
    assert_eq!(observe::supported(&method, set), Ok(()));
    let graph = Graph { method, action_set: set.clone(), ..graph("Any", &["pg-0"]) };
    let mut backup = backup();
    backup.spec.parameters.clear();
    let begin = decide::begin(&backup, &graph, &settings(), now()).unwrap();
    backup.status = Some(begin.status.clone());
    (backup, begin.status, Ingredients { action_set: set.clone(), ..ingredients(&["pg-0"]) })
}

/// Everything that runs for a recipe: its backup, its deletion with and without a database, its restore.
fn everything(set: &Value, of_method: Value) -> Vec<Built> {
    let set: ActionSet = from(json!({ "metadata": {"name": "a"}, "spec": set }));
    let (backup, status, ingredients) = begun(&set, method(of_method));
    let site = Site { backup: &backup, status: &status, ingredients: &ingredients, settings: &settings() };
    let image = |pod: k8s_openapi::api::core::v1::PodSpec| pod.containers[0].image.clone().unwrap();
    let mut all: Vec<Built> = Vec::new();
    let snapshots = status.backup_method.as_ref().is_some_and(|method| method.snapshot_volumes());
    for planned in plan::plan(&set.spec, plan::targets(&status), snapshots) {
        let archives = set.spec.backup_type == BackupType::Continuous && planned.kind == Kind::Data;
        let pod = match planned.kind {
            Kind::Snapshot | Kind::Seal => continue,
            _ if archives => continuous::build::stateful_set(&site, 0, "", None).unwrap().spec.unwrap().template.spec,
            _ => site.job(&planned.name, "").unwrap().spec.unwrap().template.spec,
        };
        all.push((planned.name, image(pod.unwrap())));
    }
    let access = ingredients.access.as_ref().unwrap();
    for target in [Some(pod("pg-0")), None] {
        let jobs = build::pre_delete(&backup, &status, &set.spec, &[target], access, &settings()).unwrap();
        let pods = jobs.into_iter().map(|job| job.spec.unwrap().template.spec.unwrap());
        all.extend(pods.map(|pod| ("delete".to_owned(), image(pod))));
    }
    all.extend(restored(&set, backup).into_iter().map(|(place, pod)| (place, image(pod))));
    all.dedup();
    all
}

fn restored(set: &ActionSet, mut backup: Backup) -> Vec<(String, k8s_openapi::api::core::v1::PodSpec)> {
    backup.status.get_or_insert_default().phase = Some(BackupPhase::Completed);
    let claim = json!({ "metadata": {"name": "data-pg"}, "volumeSource": "data", "volumeClaimSpec": {} });
    let wish: Restore = from(json!({ "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "Restore",
        "metadata": {"name": "r", "namespace": "demo", "uid": "12345678-0000"},
        "spec": {"backup": {"name": "b1", "namespace": "demo"},
            "prepareDataConfig": {"volumeClaimsTemplate": {"replicas": 1, "templates": [claim]}}} }));
    restore::pods_of(&wish, set, &backup, &pod("pg-0"))
}

fn built(all: &[(&str, &str)]) -> Vec<Built> {
    all.iter().map(|(place, image)| ((*place).to_owned(), (*image).to_owned())).collect()
}

fn job(image: &str) -> Value {
    json!({ "image": image, "command": ["sh", "-c", "true"] })
}

#[rstest]
#[case::the_policy_tells_the_version(
    json!({ "env": [{"name": "TAG", "value": "14"}], "backup": {"preBackup": [], "postBackup": [],
        "backupData": job("example.com/pg:$(TAG)")}, "restore": {"prepareData": job("example.com/pg:$(TAG)"), "postReady": []} }),
    json!({ "env": [{"name": "TAG", "value": "16"}] }),
    &[("dp-backup-0", "example.com/pg:16"), ("prepareData", "example.com/pg:16")])]
#[case::the_recipe_s_own_version_stands_in(
    json!({ "env": [{"name": "TAG", "value": "14"}], "backup": {"backupData": job("example.com/pg:$(TAG)")},
        "restore": {"postReady": [{"job": job("example.com/pg:$(TAG)")}]} }),
    json!({}),
    &[("dp-backup-0", "example.com/pg:14"), ("postReady-0", "example.com/pg:14")])]
#[case::the_whole_image_is_the_policy_s(
    json!({ "backup": {"backupData": job("$(TOOL)"), "preDelete": job("$(TOOL)")}, "restore": {"prepareData": job("$(TOOL)"),
        "postReady": [{"job": job("$(TOOL)")}, {"job": job("other:1")}]} }),
    json!({ "env": [{"name": "TOOL", "value": "example.com/tool:3"}] }),
    &[("dp-backup-0", "example.com/tool:3"), ("delete", "example.com/tool:3"), ("prepareData", "example.com/tool:3"),
        ("postReady-0", "example.com/tool:3"), ("postReady-1", "other:1")])]
#[case::a_log_with_a_preparation(
    json!({ "backupType": "Continuous", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
        "backup": {"preBackup": [{"job": job("db:$(A)")}], "postBackup": [], "backupData": job("agent:$(B)"),
            "preDelete": job("agent:$(B)")},
        "restore": {"postReady": [{"job": job("db:$(A)")}, {"job": job("agent:$(B)")}]} }),
    json!({}),
    &[("dp-prebackup-0-0", "db:1"), ("dp-backup-0", "agent:2"), ("delete", "agent:2"), ("postReady-0", "db:1"),
        ("postReady-1", "agent:2")])]
#[case::snapshots_with_a_restore_only(
    json!({ "restore": {"prepareData": job("tool:1"), "postReady": [{"exec": {"command": ["rm", "marker"]}}]} }),
    json!({ "snapshotVolumes": true, "targetVolumes": {"volumes": ["data"],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}]} }),
    &[("prepareData", "tool:1")])]
fn behaviour_4_7_images_of_recipes(#[case] set: Value, #[case] of_method: Value, #[case] wanted: &[(&str, &str)]) {
    assert_eq!(everything(&set, of_method), built(wanted));
}

/// The variables of the container at `place`, as `NAME=value`.
fn variables(pod: &k8s_openapi::api::core::v1::PodSpec) -> Vec<String> {
    let list = pod.containers[0].env.iter().flatten();
    list.map(|entry| format!("{}={}", entry.name, entry.value.as_deref().unwrap_or("(reference)"))).collect()
}

#[test]
fn behaviour_4_7_variables_that_name_earlier_ones_come_after_them() {
    let set: ActionSet = from(json!({ "metadata": {"name": "a"}, "spec": {
        "env": [{"name": "ROOT", "value": "/var/db"}, {"name": "DIR", "value": "$(ROOT)/data"},
            {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "ssh", "key": "id"}}},
            {"name": "PATH", "value": "/opt/db/bin:/usr/bin"}, {"name": "DP_DB_PORT", "value": "6379"}],
        "backup": {"backupData": job("db:1")}, "restore": {"prepareData": job("db:1")} } }));
    let (backup, status, ingredients) = begun(&set, method(json!({ "env": [{"name": "ROOT", "value": "/mnt"}] })));
    let site = Site { backup: &backup, status: &status, ingredients: &ingredients, settings: &settings() };
    let job = site.job("dp-backup-0", "").unwrap().spec.unwrap().template.spec.unwrap();
    let list = variables(&job);
    let place =
        |entry: &str| list.iter().position(|found| found == entry).unwrap_or_else(|| panic!("no {entry} in {list:?}"));
    assert!(place("ROOT=/mnt") < place("DIR=$(ROOT)/data"), "the policy's value takes the recipe's place");
    assert!(place("DP_DB_PORT=5432") < place("DP_DB_PORT=6379"), "a port that the recipe knows wins in a backup");
    assert!(list.contains(&"KEY=(reference)".to_owned()));
    // A recipe may move PATH: what we run beside it and before it is named in full.
    for ours in job.init_containers.iter().flatten() {
        let command = ours.command.iter().flatten().next().expect("it has a command");
        assert!(command.starts_with('/'), "{}: {command}", ours.name);
    }
    let (_, prepare) = restored(&set, backup).remove(0);
    let list = variables(&prepare);
    let place =
        |entry: &str| list.iter().position(|found| found == entry).unwrap_or_else(|| panic!("no {entry} in {list:?}"));
    assert!(place("ROOT=/mnt") < place("DIR=$(ROOT)/data"), "as recorded with the backup");
}

#[test]
fn behaviour_4_8_1_a_volume_that_the_database_lacks_is_left_out() {
    let set: ActionSet = from(json!({ "metadata": {"name": "a"}, "spec": {
        "backup": {"backupData": {"image": "db:1", "command": ["/data/bin/bash", "-c", "true"], "runOnTargetPodNode": true,
            "syncProgress": {"enabled": false, "intervalSeconds": 5}}} } }));
    let (backup, status, ingredients) = begun(&set, method(json!({})));
    let site = Site { backup: &backup, status: &status, ingredients: &ingredients, settings: &settings() };
    let pod = site.job("dp-backup-0", "").unwrap().spec.unwrap().template.spec.unwrap();
    let mounts: Vec<_> = pod.containers[0].volume_mounts.iter().flatten().map(|mount| &mount.mount_path).collect();
    assert!(mounts.iter().any(|path| *path == "/data"), "the script's own shell lies there: {mounts:?}");
    assert!(!mounts.iter().any(|path| *path == "/tls"), "it has no such volume");
    let beside: Vec<_> = pod.init_containers.iter().flatten().map(|container| container.name.as_str()).collect();
    assert!(beside.contains(&"manager"), "progress switched off or not, the result is collected: {beside:?}");
}

/// Behaviour 3.1: the phase of a recipe is for people. One whose schema lost its properties by a wrong indentation still
/// takes backups without parameters, and refuses every parameter.
#[rstest]
#[case::nothing_declared(json!({ "type": "object", "properties": null, "speed": {"type": "integer"} }), &[("speed", "1")], false)]
#[case::no_type_of_its_own(json!({ "properties": {"speed": {"type": "number", "default": 4}} }), &[("speed", "8")], true)]
#[case::an_untyped_parameter(json!({ "type": "object", "properties": {"speed": {"description": "how fast"}} }), &[("speed", "any")], true)]
#[case::a_list(json!({ "properties": {"speed": {"type": "array", "items": {"type": "string"}}} }), &[("speed", "a,b")], true)]
#[case::a_list_of_numbers(json!({ "properties": {"speed": {"type": "array", "items": {"type": "integer"}}} }), &[("speed", "1,x")], false)]
#[case::a_flag_with_a_default(json!({ "properties": {"speed": {"type": "boolean", "default": true}} }), &[("speed", "no")], false)]
fn behaviour_3_1_schemas_of_recipes(#[case] schema: Value, #[case] given: &[(&str, &str)], #[case] taken: bool) {
    let set: ActionSet =
        from(json!({ "metadata": {"name": "a"}, "spec": {"parametersSchema": {"openAPIV3Schema": schema},
        "backup": {"withParameters": ["speed"], "backupData": job("db:1")}} }));
    let mut wish = backup();
    wish.spec.parameters.clear();
    assert_eq!(observe::parameters(&wish, &set), Ok(()), "nothing given is always fine");
    wish.spec.parameters = given.iter().map(|(name, value)| from(json!({ "name": name, "value": value }))).collect();
    assert_eq!(observe::parameters(&wish, &set).is_ok(), taken);
}
