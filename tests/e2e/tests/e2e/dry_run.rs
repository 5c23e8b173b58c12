//! `--dry-run=client -o yaml | kubectl apply -f -` makes the same objects as the command itself.

use kbbackup_e2e::{LIMIT, S3_BUCKET, S3_KEYS, S3_NAMESPACE, drop_s3_repo, ended, phase, s3_port};
use kbbackup_testing::kubectl::Kubectl;
use kbbackup_testing::namespace::TempNamespace;
use serde_json::{Map, Value, json};

use crate::begin;
use crate::files;

/// What `kubectl apply` notes for itself.
const APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// What the operator notes on a repository under the contract's own prefix.
const NOTES: [&str; 2] =
    ["dataprotection.kubeblocks.io/backup-repo-digest", "dataprotection.kubeblocks.io/need-update-tool-config"];

struct Desk {
    cluster: Kubectl,
    space: TempNamespace,
}

impl Desk {
    fn plugin(&self, words: &[&str]) -> String {
        self.space.kubectl.run(&[&["kbbackup"], words].concat()).unwrap()
    }

    /// The manifest of a command, put into effect by kubectl.
    fn apply(&self, words: &[&str]) -> String {
        let manifest = self.plugin(&[words, &["--dry-run=client", "-o", "yaml"]].concat());
        // Objects of repositories say themselves where they belong.
        let kubectl = if words[0] == "repo" { &self.cluster } else { &self.space.kubectl };
        kubectl.run_with_input(&["apply", "-f", "-"], &manifest).unwrap();
        manifest
    }

    fn kubectl(&self, kind: &str) -> Kubectl {
        match kind {
            "backuprepo" => self.cluster.clone(),
            // The only one that the commands here make is a repository's.
            "secret" => self.cluster.in_namespace("kbbackup-system"),
            _ => self.space.kubectl.clone(),
        }
    }

    fn object(&self, (kind, name): (&str, &str)) -> Value {
        self.kubectl(kind).get(&[kind, name, "--show-managed-fields"]).unwrap()
    }

    /// A command that makes objects: by its manifest, and, once those are gone, by itself.
    fn made(&self, words: &[&str], objects: &[(&str, &str)], without: &[(&str, &str)]) {
        self.apply(words);
        let applied: Vec<Value> = objects.iter().map(|object| sent(&self.object(*object), "kubectl-client")).collect();
        for (kind, name) in objects.iter().rev().chain(without) {
            let kubectl = self.kubectl(kind);
            // What a Restore was about to make may have been made or not.
            kubectl.run(&["delete", kind, name, "--ignore-not-found", "--timeout=180s"]).unwrap();
        }
        self.plugin(words);
        for (object, applied) in objects.iter().zip(applied) {
            let run = sent(&self.object(*object), "kubectl-kbbackup");
            assert!(run["metadata"]["name"].is_string() && run["fields"] != json!({}), "{run}");
            assert_eq!(applied, run, "{words:?}: {object:?} by its manifest and by the command");
        }
    }

    /// A command that changes an object: behind its manifest there is nothing left for it to change.
    fn changed(&self, words: &[&str], object: (&str, &str)) {
        self.changed_and(words, object, |_| ());
    }

    /// The same, with a look at what the manifest has done.
    fn changed_and(&self, words: &[&str], object: (&str, &str), then: impl Fn(&Self)) {
        let before = self.object(object);
        let manifest = self.apply(words);
        assert!(!manifest.contains("resourceVersion") && !manifest.contains("status:"), "{words:?}: {manifest}");
        let applied = self.object(object);
        then(self);
        assert_ne!(content(&before), content(&applied), "{words:?} should change something");
        let mut wait = words.to_vec();
        if words[0] == "repo" {
            wait.push("--wait=false");
        }
        self.plugin(&wait);
        assert_eq!(content(&applied), content(&self.object(object)), "{words:?} changed more than its manifest");
    }
}

/// What a person has set of an object.
fn content(object: &Value) -> Value {
    let metadata = &object["metadata"];
    let mut annotations = metadata["annotations"].as_object().cloned().unwrap_or_default();
    // The operator's notes come when they come.
    annotations.retain(|key, _| key != APPLIED && !key.starts_with("kbbackup.io/") && !NOTES.contains(&key.as_str()));
    json!([object["spec"], object["data"], metadata["labels"], annotations])
}

/// What `manager` has written into an object: which fields, and their values.
fn sent(object: &Value, manager: &str) -> Value {
    let metadata = &object["metadata"];
    let entries = metadata["managedFields"].as_array().cloned().unwrap_or_default();
    let mine = |entry: &&Value| {
        entry["manager"].as_str().is_some_and(|name| name.starts_with(manager)) && entry["subresource"].is_null()
    };
    let mut fields = entries.iter().find(mine).map(|entry| entry["fieldsV1"].clone()).unwrap_or_default();
    prune(&mut fields);
    let of = |what: &str| -> Map<String, Value> {
        let names = fields["f:metadata"][format!("f:{what}")].as_object().cloned().unwrap_or_default();
        let names = names.keys().filter_map(|name| name.strip_prefix("f:"));
        names.map(|name| (name.to_owned(), metadata[what][name].clone())).collect()
    };
    let (labels, annotations) = (of("labels"), of("annotations"));
    json!({
        "fields": fields, "spec": object["spec"], "data": object["data"], "type": object["type"],
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "labels": labels, "annotations": annotations},
    })
}

/// Leaves out marks of the tree, kubectl's own note, and what a manifest cannot say: an owner has no UID before it exists.
fn prune(fields: &mut Value) {
    let Some(children) = fields.as_object_mut() else { return };
    children.retain(|key, _| key != "." && !key.ends_with(APPLIED) && key != "f:ownerReferences");
    for child in children.values_mut() {
        prune(child);
    }
    children.retain(|key, child| !(matches!(key.as_str(), "f:annotations" | "f:metadata") && *child == json!({})));
}

#[test]
fn a_manifest_makes_what_its_command_makes() {
    let (cluster, space) = begin("dry-run").unwrap();
    files::create(&space, 1).unwrap();
    let recipe = space.name.clone();
    space.kubectl.apply(&files::recipe(&recipe, "Full", files::PACK, files::UNPACK).to_string()).unwrap();
    let login = ["--from-literal=username=nobody", "--from-literal=password=nothing"];
    space.kubectl.run(&[&["create", "secret", "generic", "login"], &login[..]].concat()).unwrap();
    let desk = Desk { cluster: cluster.clone(), space };

    let of = ["--for", "statefulset/files", "--secret", "login", "--action-set", &recipe];
    let create = [&["policy", "create", "files"], &of[..]].concat();
    desk.made(&create, &[("backuppolicy", "files")], &[]);
    desk.plugin(&[&["policy", "create", "second", "--default"], &of[..]].concat());
    let set = ["policy", "set", "files", "--backoff-limit", "3", "--default"];
    desk.changed_and(&set, ("backuppolicy", "files"), |desk| {
        let second = desk.object(("backuppolicy", "second"));
        let mark = &second["metadata"]["annotations"]["dataprotection.kubeblocks.io/is-default-policy"];
        assert_eq!(mark, "false", "the former default stays one");
    });

    let backup = ["backup", "policy/files", "--name", "one", "--retention", "7d", "--label", "team=blue"];
    desk.made(&backup, &[("backup", "one")], &[]);
    let object = ended(&desk.space, "one", LIMIT).unwrap();
    assert_eq!(phase(&object), "Completed", "{}", object["status"]);

    desk.changed(&["update", "one", "--retention", "30d", "--deletion-policy", "Retain"], ("backup", "one"));

    let create = ["schedule", "create", "policy/files", "--method", "full", "--cron", "0 3 1 1 *", "--retention", "3d"];
    desk.made(&create, &[("backupschedule", "files")], &[]);
    let schedule = ("backupschedule", "files");
    // Made twice it would be refused.
    let more = ["--cron", "@yearly", "--name", "more"];
    desk.plugin(&[&["schedule", "create", "policy/files", "--method", "full"], &more[..]].concat());
    desk.changed(&["schedule", "update", "schedule/files", "--entry", "more", "--cron", "0 4 1 1 *"], schedule);
    desk.changed(&["schedule", "disable", "schedule/files", "--entry", "more"], schedule);
    desk.changed(&["schedule", "enable", "schedule/files", "--entry", "more"], schedule);
    let trigger = ["schedule", "trigger", "schedule/files", "--entry", "full", "--name", "by-hand"];
    desk.made(&trigger, &[("backup", "by-hand")], &[]);

    let restore = ["restore", "copy", "--from", "one", "--name", "again"];
    let left = [("statefulset", "copy"), ("pvc", "data-copy-0")];
    desk.made(&restore, &[("restore", "again")], &left);

    let repo = format!("dry-{}", desk.space.name);
    let file = std::env::temp_dir().join(format!("{repo}.env"));
    std::fs::write(&file, format!("accessKeyId={}\nsecretAccessKey={}\n", S3_KEYS.0, S3_KEYS.1)).unwrap();
    let endpoint = format!("endpoint=http://versitygw.{S3_NAMESPACE}.svc:{}", s3_port("versitygw"));
    let bucket = format!("bucket={S3_BUCKET}");
    let create = [
        "repo",
        "create",
        &repo,
        "--provider",
        "s3-compatible",
        "--param",
        &bucket,
        "--param",
        &endpoint,
        "--credential-file",
        file.to_str().unwrap(),
        "--path-prefix",
        &desk.space.name,
        "--wait=false",
    ];
    let shown = desk.plugin(&[&create[..], &["--dry-run=client", "-o", "json"]].concat());
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let secret = shown["items"][0]["metadata"]["name"].as_str().unwrap().to_owned();
    desk.made(&create, &[("secret", &secret), ("backuprepo", &repo)], &[]);
    desk.changed(&["repo", "update", &repo, "--param", "region=eu-central-1"], ("backuprepo", &repo));
    drop(std::fs::remove_file(&file));

    installation(&cluster);
    let Desk { space, .. } = desk;
    drop(space);
    drop_s3_repo(&cluster, &repo);
    drop(cluster.try_run(&["delete", "actionset", &recipe, "--wait=false"]));
}

/// What `install` printed would change nothing of what `install` has made.
fn installation(cluster: &Kubectl) {
    let operator = cluster.in_namespace("kbbackup-system").get(&["deployment", "kbbackup-controller"]).unwrap();
    let container = &operator["spec"]["template"]["spec"]["containers"][0];
    let policy = container["imagePullPolicy"].as_str().unwrap_or("IfNotPresent");
    let words =
        ["kbbackup", "install", "--embedded-repo", "--image-pull-policy", policy, "--dry-run=client", "-o", "yaml"];
    let manifest = cluster.run(&words).unwrap();
    assert!(manifest.contains("kind: CustomResourceDefinition") && manifest.contains("kind: Deployment"), "{manifest}");
    let diff = ["diff", "--server-side", "--force-conflicts", "--field-manager=kubectl-kbbackup", "-f", "-"];
    let same = cluster.run_with_input(&diff, &manifest);
    assert!(same.is_ok(), "{same:?}");
}
