//! What a real API server makes of the definitions. Needs a cluster:
//! `cargo xtask cluster shell cargo test -p kbbackup-api --test server -- --ignored`

#![allow(clippy::panic, clippy::print_stdout, clippy::unwrap_used)]

mod objects;

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use objects::{assert_same, full_objects, sparse_objects};

const NO_CLUSTER: &str = "needs a cluster";

#[test]
#[ignore = "needs a cluster"]
fn the_server_enforces_the_contract() {
    install();
    let namespace = Namespace::make();
    every_rule_refuses_an_object(&namespace);
    what_the_rules_leave_open_passes(&namespace);
    every_field_is_stored(&namespace);
    defaults_are_filled(&namespace);
}

/// The definitions are accepted, structural, established, and cheap enough for the server's budget of rules.
fn install() {
    let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/crds");
    let crds = crds.to_str().unwrap();
    // The installation has them, with a label of its own; a server that is asked says whether it would take these.
    let apply = ["apply", "--server-side", "--force-conflicts", "--field-manager=kubectl-kbbackup"];
    ok(&[&apply[..], &["--dry-run=server", "-f", crds]].concat(), None);
    ok(&["wait", "--for=condition=Established", "--timeout=30s", "-f", crds], None);
    let list: Value = serde_json::from_str(&ok(&["get", "-o", "json", "-f", crds], None)).unwrap();
    let list = list["items"].as_array().unwrap();
    assert_eq!(list.len(), 8);
    for crd in list {
        for condition in crd["status"]["conditions"].as_array().unwrap() {
            let expected = matches!(condition["type"].as_str(), Some("Established" | "NamesAccepted"));
            assert_eq!(condition["status"] == "True", expected, "{}: {condition}", crd["metadata"]["name"]);
        }
    }
}

/// One object per rule that breaks this rule and no other: made at once, or made from a good one.
fn every_rule_refuses_an_object(namespace: &Namespace) {
    let repo = json!({ "storageProviderRef": "s3", "pvReclaimPolicy": "Retain" });
    let backup = json!({ "backupPolicyName": "p", "backupMethod": "m", "parentBackupName": "b",
        "parameters": [{ "name": "A", "value": "1" }] });
    let claim = json!({ "metadata": { "name": "c" }, "volumeClaimSpec": {}, "volumeSource": "data" });
    let restore = json!({
        "backup": { "name": "b", "namespace": "n" },
        "restoreTime": "2025-03-02T09:30:00Z",
        "resources": { "included": [{ "groupResource": "pods" }] },
        "parameters": [{ "name": "A", "value": "1" }],
        "prepareDataConfig": {
            "dataSourceRef": { "volumeSource": "data" },
            "volumeClaims": [claim],
            "volumeClaimsTemplate": { "replicas": 1, "templates": [claim] },
            "schedulingSpec": { "nodeName": "a" },
        },
    });
    let empty = json!({ "volumeSource": "", "mountPath": "" });
    let empty_claim = json!({ "metadata": {}, "volumeClaimSpec": {}, "volumeSource": "", "mountPath": "" });
    let no_place = "at least one exists for volumeSource and mountPath.";
    let prepare = "forbidden to update spec.prepareDataConfig";

    let changed = |kind, good: &Value, path: &str, value: Value, message: &str| {
        let (made, refused) = namespace.change(kind, good, &with(good, path, value));
        assert!(made, "{kind} {path}: the good object was refused: {refused}");
        assert!(refused.contains(message), "{kind} {path}: expected {message:?}, got {refused}");
    };
    let dropped = |kind, good: &Value, path: &str, message: &str| changed(kind, good, path, Value::Null, message);
    let refused = |kind, bad: &Value, message: &str| {
        let answer = namespace.create(kind, bad).unwrap_err();
        assert!(answer.contains(message), "{kind}: expected {message:?}, got {answer}");
    };

    changed("BackupRepo", &repo, "/storageProviderRef", json!("gcs"), "StorageProviderRef is immutable");
    let either = "either spec.target or spec.targets";
    refused("BackupPolicy", &json!({ "backupMethods": [] }), either);
    refused("BackupPolicy", &json!({ "backupMethods": [], "target": {}, "targets": [] }), either);
    dropped("Backup", &backup, "/parameters", "forbidden to update spec.parameters");
    changed("Backup", &backup, "/backupPolicyName", json!("q"), "forbidden to update spec.backupPolicyName");
    changed("Backup", &backup, "/backupMethod", json!("q"), "forbidden to update spec.backupMethod");
    changed("Backup", &backup, "/parentBackupName", json!("q"), "forbidden to update spec.parentBackupName");
    changed("Backup", &backup, "/parameters/0/value", json!("2"), "forbidden to update spec.parameters");
    dropped("Restore", &restore, "/parameters", "forbidden to update spec.parameters");
    changed("Restore", &restore, "/backup/name", json!("q"), "forbidden to update spec.backupName");
    changed("Restore", &restore, "/restoreTime", json!("2026-03-02T09:30:00Z"), "forbidden to update spec.restoreTime");
    changed("Restore", &restore, "/resources", json!({}), "forbidden to update spec.resources");
    refused("Restore", &with(&restore, "/readyConfig", json!({})), "at least one exists for jobAction and execAction.");
    changed("Restore", &restore, "/parameters/0/value", json!("2"), "forbidden to update spec.parameters");
    refused("Restore", &with(&restore, "/prepareDataConfig/dataSourceRef", empty), no_place);
    let source = "/prepareDataConfig/dataSourceRef/volumeSource";
    changed("Restore", &restore, source, json!("q"), &format!("{prepare}.dataSourceRef"));
    let claims = "/prepareDataConfig/volumeClaims";
    changed("Restore", &restore, claims, json!([]), &format!("{prepare}.volumeClaims"));
    refused("Restore", &with(&restore, claims, json!([empty_claim])), no_place);
    let replicas = "/prepareDataConfig/volumeClaimsTemplate/replicas";
    changed("Restore", &restore, replicas, json!(2), &format!("{prepare}.volumeClaimsTemplate"));
    let templates = "/prepareDataConfig/volumeClaimsTemplate/templates";
    refused("Restore", &with(&restore, templates, json!([empty_claim])), no_place);
    let node = "/prepareDataConfig/schedulingSpec/nodeName";
    changed("Restore", &restore, node, json!("b"), &format!("{prepare}.schedulingSpec"));

    // Bounds, patterns and enums are the schema's own; one of each.
    refused("Backup", &with(&backup, "/deletionPolicy", json!("")), "Unsupported value");
    refused("Backup", &with(&backup, "/backupPolicyName", json!("Up")), "should match");
    refused(
        "BackupPolicy",
        &json!({ "backupMethods": [], "target": {}, "backoffLimit": 11 }),
        "less than or equal to 10",
    );
    let twice = json!([{ "name": "A", "value": "1" }, { "name": "A", "value": "2" }]);
    refused("Backup", &with(&backup, "/parameters", twice), "Duplicate value");
}

/// Optional fields may be added and dropped later, and an empty list counts as given.
fn what_the_rules_leave_open_passes(namespace: &Namespace) {
    let bare = json!({ "backupPolicyName": "p", "backupMethod": "m" });
    let parent = with(&bare, "/parentBackupName", json!("b"));
    for (before, after) in [(&bare, &parent), (&parent, &bare)] {
        assert_eq!(namespace.change("Backup", before, after), (true, String::new()));
    }
    let deletion = with(&bare, "/deletionPolicy", json!("Retain"));
    assert_eq!(namespace.change("Backup", &bare, &deletion), (true, String::new()));
    namespace.create("BackupPolicy", &json!({ "backupMethods": [], "targets": [] })).unwrap();
    namespace
        .create("BackupRepo", &json!({ "storageProviderRef": "s", "pvReclaimPolicy": "Delete", "volumeCapacity": 5 }))
        .unwrap();
    let age = json!({ "backupMethods": [], "target": {},
        "encryptionConfig": { "algorithm": "age", "passPhraseSecretKeyRef": { "name": "s", "key": "k" } } });
    namespace.create("BackupPolicy", &age).unwrap();
}

/// Nothing that the contract has is pruned, in spec and status.
fn every_field_is_stored(namespace: &Namespace) {
    for mut object in full_objects() {
        if object["kind"] == "BackupPolicy" {
            object["spec"].as_object_mut().unwrap().remove("targets");
        }
        let kind = object["kind"].as_str().unwrap().to_owned();
        let made = namespace.create(&kind, &object["spec"]).unwrap();
        let mut with_status = made.clone();
        with_status["status"] = object["status"].clone();
        let text = ok(&["replace", "--subresource=status", "-o", "json", "-f", "-"], Some(&with_status));
        let mut stored: Value = serde_json::from_str(&text).unwrap();
        stored["metadata"] = object["metadata"].clone();
        assert_same(&object, &stored);
    }
}

/// The server fills what the contract says and nothing else.
fn defaults_are_filled(namespace: &Namespace) {
    let filled = |kind: &str| match kind {
        "BackupRepo" => json!({ "accessMethod": "Mount" }),
        "BackupPolicyTemplate" => {
            json!({ "backoffLimit": 2, "backupMethods": [{ "name": "full", "snapshotVolumes": false }] })
        }
        "BackupPolicy" => {
            json!({ "backoffLimit": 2, "useKopia": false, "backupMethods": [{ "name": "full", "snapshotVolumes": false }] })
        }
        "BackupSchedule" => {
            json!({ "schedules": [{ "backupMethod": "full", "cronExpression": "0 2 * * *", "retentionPeriod": "7d" }] })
        }
        _ => json!({}),
    };
    for object in sparse_objects() {
        let kind = object["kind"].as_str().unwrap();
        let mut expected = object["spec"].clone();
        for (name, value) in filled(kind).as_object().unwrap() {
            expected[name] = value.clone();
        }
        let made = namespace.create(kind, &object["spec"]).unwrap();
        assert_same(&json!({ "kind": kind, "spec": expected }), &json!({ "kind": kind, "spec": made["spec"] }));
    }
    let made = namespace.create("Backup", &json!({ "backupPolicyName": "p", "backupMethod": "m" })).unwrap();
    assert_eq!(made["spec"]["deletionPolicy"], "Delete");
    let selector = json!({ "backupMethods": [], "target": { "podSelector": {} } });
    let made = namespace.create("BackupPolicy", &selector).unwrap();
    assert_eq!(made["spec"]["target"]["podSelector"], json!({ "strategy": "Any" }));
}

/// A namespace that goes away with the test, and a label by which cluster-wide objects of the test are found.
struct Namespace {
    name: String,
}

const LABEL: &str = "kbbackup.io/test";

impl Namespace {
    fn make() -> Self {
        let name = format!("api-contract-{}", std::process::id());
        ok(&["create", "namespace", &name], None);
        Self { name }
    }

    /// Makes an object with a name of its own and returns it, or the server's refusal.
    fn create(&self, kind: &str, spec: &Value) -> Result<Value, String> {
        let object = json!({
            "apiVersion": "dataprotection.kubeblocks.io/v1alpha1",
            "kind": kind,
            "metadata": { "generateName": "contract-", "labels": { LABEL: self.name } },
            "spec": spec,
        });
        let text = kubectl(&["create", "--namespace", &self.name, "-o", "json", "-f", "-"], Some(&object))?;
        Ok(serde_json::from_str(&text).unwrap())
    }

    /// Makes a good object and replaces its spec: whether it was made, and the server's refusal of what failed.
    fn change(&self, kind: &str, before: &Value, after: &Value) -> (bool, String) {
        let mut object = match self.create(kind, before) {
            Ok(object) => object,
            Err(refusal) => return (false, refusal),
        };
        object["spec"] = after.clone();
        (true, kubectl(&["replace", "-f", "-"], Some(&object)).err().unwrap_or_default())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let selector = format!("{LABEL}={}", self.name);
        let kinds = "backuprepos,actionsets,storageproviders,backuppolicytemplates";
        for arguments in [&["delete", kinds, "--selector", &selector][..], &["delete", "namespace", &self.name]] {
            if let Err(error) = kubectl(&[arguments, &["--wait=false"]].concat(), None) {
                println!("left behind: {error}");
            }
        }
    }
}

/// The spec with the value at a JSON pointer set, or dropped if it is null.
fn with(spec: &Value, pointer: &str, value: Value) -> Value {
    let mut spec = spec.clone();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = spec.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    if value.is_null() {
        parent.remove(name);
    } else {
        parent.insert(name.to_owned(), value);
    }
    spec
}

fn ok(arguments: &[&str], input: Option<&Value>) -> String {
    kubectl(arguments, input).unwrap_or_else(|error| panic!("kubectl {}: {error}", arguments.join(" ")))
}

/// Standard output, or standard error if the call failed.
fn kubectl(arguments: &[&str], input: Option<&Value>) -> Result<String, String> {
    let mut process = Command::new("kubectl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect(NO_CLUSTER);
    let text = input.map(ToString::to_string).unwrap_or_default();
    process.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = process.wait_with_output().unwrap();
    let stream = if output.status.success() { output.stdout } else { output.stderr };
    let text = String::from_utf8_lossy(&stream).into_owned();
    if output.status.success() { Ok(text) } else { Err(text) }
}
