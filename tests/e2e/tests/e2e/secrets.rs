//! Keys and pass phrases: they are in their Secrets and nowhere else, whatever is printed; and new ones change nothing but them.

use std::process::Command;

use kbbackup_e2e::{LIMIT, S3_BUCKET, S3_NAMESPACE, create_account, delete_account, drop_s3_repo, phase, s3_port};
use kbbackup_testing::kubectl::{self, Done};
use kbbackup_testing::namespace::TempNamespace;
use serde_json::{Value, json};

use crate::begin;
use crate::files;

const SYSTEM: &str = "kbbackup-system";
const NAMESPACED: &str = "backups,restores,backuppolicies,backupschedules,configmaps,jobs,cronjobs,pods,statefulsets,\
    deployments,services,pvc,serviceaccounts,events";
const CLUSTER: &str = "backuprepos,storageproviders,actionsets,backuppolicytemplates,storageclasses";
const PHRASE: &str = "four-score-and-seven-years-ago";

fn base64(text: &str) -> String {
    let mut command = Command::new("sh");
    command.args(["-c", "printf %s \"$0\" | base64 -w0", text]);
    kubectl::run(&mut command).unwrap().stdout
}

/// What somebody could read, with where it comes from.
#[derive(Default)]
struct Told(Vec<(String, String)>);

impl Told {
    fn add(&mut self, what: &str, text: String) {
        self.0.push((what.to_owned(), text));
    }

    /// Runs the plugin with all that it says about what it does; it must end well.
    fn run(&mut self, space: &TempNamespace, words: &[&str], env: &[(&str, &str)]) -> Done {
        let mut command = space.kubectl.command(&[&["kbbackup"], words, &["-v", "9"]].concat());
        command.envs(env.iter().copied());
        let done = kubectl::run(&mut command).unwrap();
        assert_eq!(done.code, 0, "{words:?}: {}", done.stderr);
        assert!(done.stderr.contains("TRACE") || done.stderr.contains("DEBUG"), "-v 9 says nothing: {}", done.stderr);
        self.add(&words.join(" "), format!("{}{}", done.stdout, done.stderr));
        done
    }

    /// Every object but Secrets, and every log, of the test and of the operator.
    fn objects(&mut self, space: &TempNamespace) {
        let system = space.kubectl.in_namespace(SYSTEM);
        for (kubectl, kinds) in [(&space.kubectl, NAMESPACED), (&system, NAMESPACED), (&system, CLUSTER)] {
            let all = kubectl.run(&["get", kinds, "-o", "json", "--show-managed-fields"]).unwrap();
            self.add(kinds, all);
        }
        let pods = space.kubectl.run(&["get", "pods", "-o", "name"]).unwrap();
        for pod in pods.lines() {
            self.add(pod, space.kubectl.run(&["logs", pod, "--all-containers", "--tail=-1"]).unwrap_or_default());
        }
        let log = system.run(&["logs", "deployment/kbbackup-controller", "--tail=5000"]).unwrap();
        self.add("the operator's log", log);
    }

    fn lacks(&self, secret: &str) {
        assert!(secret.len() > 8, "{secret:?} could be anything");
        // As it stands in a Secret.
        let written = base64(secret);
        for (what, text) in &self.0 {
            let leak = text.lines().find(|line| line.contains(secret) || line.contains(&written));
            assert!(leak.is_none(), "{what} tells {secret}: {leak:?}");
        }
    }
}

/// The value of a key of a Secret, as it stands there.
fn kept(space: &TempNamespace, namespace: &str, secret: &str, key: &str) -> String {
    let object = space.kubectl.in_namespace(namespace).get(&["secret", secret]).unwrap();
    object["data"][key].as_str().unwrap_or_default().to_owned()
}

#[test]
fn keys_and_phrases_are_in_their_secrets_and_nowhere_else() {
    let (cluster, space) = begin("secrets").unwrap();
    files::create(&space, 1).unwrap();
    space.kubectl.apply(&files::recipe(&space.name, "Full", files::PACK, files::UNPACK).to_string()).unwrap();
    space.kubectl.apply(&files::policy("Any", &[("full", &space.name, None)]).to_string()).unwrap();
    // The server's own checks make the key of each way of giving one really used.
    let account = (format!("user-{}", space.name), format!("hush-{}-hush", space.name));
    let keys = (account.0.as_str(), account.1.as_str());
    create_account(&cluster, keys).unwrap();
    let file = std::env::temp_dir().join(format!("{}.env", space.name));
    std::fs::write(&file, format!("accessKeyId={}\nsecretAccessKey={}\n", keys.0, keys.1)).unwrap();
    let file = file.to_str().unwrap().to_owned();
    let repos = ["file", "env", "flag"].map(|way| format!("{way}-{}", space.name));
    let params = [
        format!("bucket={S3_BUCKET}"),
        format!("endpoint=http://versitygw.{S3_NAMESPACE}.svc:{}", s3_port("versitygw")),
        "region=us-east-1".to_owned(),
        "forcePathStyle=true".to_owned(),
    ];
    let mut told = Told::default();
    for (index, repo) in repos.iter().enumerate() {
        let mut words = vec!["repo", "create", repo, "--provider", "s3-compatible", "--path-prefix", &space.name];
        for param in &params {
            words.extend(["--param", param]);
        }
        let (given, env): (&[&str], &[(&str, &str)]) = match index {
            0 => (&["--credential-file", &file], &[]),
            1 => (&[], &[("KBBACKUP_ACCESS_KEY_ID", keys.0), ("KBBACKUP_SECRET_ACCESS_KEY", keys.1)]),
            _ => (&["--access-key-id", keys.0, "--secret-access-key", keys.1], &[]),
        };
        words.extend(given);
        let done = told.run(&space, &words, env);
        assert_eq!(done.stderr.contains("shell's history"), index == 2, "{}", done.stderr);
        let object = cluster.get(&["backuprepo", repo]).unwrap();
        let secret = object["spec"]["credential"]["name"].as_str().expect("a Secret of its own");
        assert_eq!(kept(&space, SYSTEM, secret, "secretAccessKey"), base64(keys.1), "it is not where it should be");
    }
    told.run(&space, &["repo", "update", &repos[0], "--credential-file", &file], &[]);
    for words in [&["repo", "check"][..], &["repo", "describe"], &["repo", "describe", "-o", "yaml"]] {
        told.run(&space, &[&words[..2], &[&repos[0]], &words[2..]].concat(), &[]);
    }

    let literal = format!("--from-literal=key={PHRASE}");
    space.kubectl.run(&["create", "secret", "generic", "phrase", &literal]).unwrap();
    let encrypt = ["--encryption-algorithm", "age", "--passphrase-secret", "phrase/key"];
    told.run(&space, &[&["policy", "set", "files", "--repo", &repos[0]], &encrypt[..]].concat(), &[]);
    let backup = ["backup", "policy/files", "--name", "hushed", "--wait", "--follow-logs"];
    told.run(&space, &backup, &[]);
    told.run(&space, &["restore", "back", "--from", "hushed", "--to", "pvc", "--wait"], &[]);
    for words in [["describe", "hushed"], ["why", "hushed"], ["policy", "list"]] {
        told.run(&space, &[&words[..], &["-o", "json"]].concat(), &[]);
    }
    // A phrase that nobody has ever seen.
    let login = ["--from-literal=username=nobody", "--from-literal=password=hush-nothing-hush"];
    space.kubectl.run(&[&["create", "secret", "generic", "login"], &login[..]].concat()).unwrap();
    let create = ["policy", "create", "new", "--for", "statefulset/files", "--secret", "login", "--encrypt"];
    told.run(&space, &create, &[]);
    told.objects(&space);
    let made = kept(&space, &space.name, "new-backup-passphrase", "passPhrase");
    assert!(made.len() > 40, "{made}");
    let mut decode = Command::new("sh");
    decode.args(["-c", "printf %s \"$0\" | base64 -d", &made]);
    let made = kubectl::run(&mut decode).unwrap().stdout;
    assert_eq!(kept(&space, &space.name, "phrase", "key"), base64(PHRASE));
    for secret in [keys.1, PHRASE, made.as_str(), "hush-nothing-hush"] {
        told.lacks(secret);
    }

    drop(std::fs::remove_file(&file));
    let recipe = space.name.clone();
    drop(space);
    for repo in &repos {
        drop_s3_repo(&cluster, repo);
    }
    drop(delete_account(&cluster, keys.0));
    drop(cluster.try_run(&["delete", "actionset", &recipe, "--wait=false"]));
}

#[test]
fn new_keys_leave_the_default_mark_where_it_is() {
    let (cluster, space) = begin("rotate").unwrap();
    let repo = cluster.get(&["backuprepo", "embedded"]).unwrap();
    let mark = |repo: &Value| repo["metadata"]["annotations"]["dataprotection.kubeblocks.io/is-default-repo"].clone();
    assert_eq!(mark(&repo), json!("true"));
    // The same keys again: everybody else goes on using them.
    let credential = &repo["spec"]["credential"];
    let (name, namespace) = (credential["name"].as_str().unwrap(), credential["namespace"].as_str().unwrap());
    let file = std::env::temp_dir().join(format!("{}.env", space.name));
    let mut lines = String::new();
    for key in ["accessKeyId", "secretAccessKey"] {
        let mut decode = Command::new("sh");
        decode.args(["-c", "printf %s \"$0\" | base64 -d", &kept(&space, namespace, name, key)]);
        lines += &format!("{key}={}\n", kubectl::run(&mut decode).unwrap().stdout);
    }
    std::fs::write(&file, lines).unwrap();
    let update = ["kbbackup", "repo", "update", "embedded", "--credential-file", file.to_str().unwrap()];
    let done = cluster.try_run(&update).unwrap();
    drop(std::fs::remove_file(&file));
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(done.stderr.contains("is ready"), "the new keys were not tried: {}", done.stderr);
    let after = cluster.wait_for("backuprepo", "embedded", LIMIT, |repo| phase(repo) == "Ready").unwrap();
    assert_eq!((mark(&after), &after["spec"]), (json!("true"), &repo["spec"]));
}
