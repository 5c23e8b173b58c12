//! Repositories: other ways to reach them, encryption, and changes while they are in use.

use std::time::Duration;

use kbbackup_e2e::{
    LIMIT, S3_BUCKET, S3_KEYS, S3_NAMESPACE, create_account, delete_account, drop_s3_repo, ended, phase, s3_port,
    s3_repo,
};
use kbbackup_testing::fixtures::{self, list};
use kbbackup_testing::kubectl::Kubectl;
use kbbackup_testing::main_job::Job;
use kbbackup_testing::namespace::TempNamespace;
use kbbackup_testing::postgres::Postgres;
use kbbackup_testing::s3::Bucket;
use serde_json::{Value, json};

use crate::begin;

const PRELUDE: &str = r#"set -eo pipefail
export PATH="$PATH:$DP_DATASAFED_BIN_PATH" DATASAFED_BACKEND_BASE_PATH="$DP_BACKUP_BASE_PATH""#;
const WORDS: &str = "seven plain words that everybody could read";

fn bucket(cluster: &Kubectl, server: &str) -> Bucket {
    Bucket::open(cluster, S3_NAMESPACE, &format!("svc/{server}"), s3_port(server), S3_KEYS, S3_BUCKET).unwrap()
}

fn below(bucket: &Bucket, prefix: &str) -> Vec<String> {
    bucket.keys().unwrap().into_iter().filter(|key| key.starts_with(prefix)).collect()
}

/// A database whose backups hold [`WORDS`], after `pause` seconds of work, and whose restores insist on them.
fn scripted(space: &TempNamespace, repo: &str, pause: u32) {
    Postgres::create(&space.kubectl, "pg", "1Gi").unwrap();
    let push = format!(
        "{PRELUDE}\necho started > /tmp/started\nsleep {pause}\necho '{WORDS}' | datasafed push - /words\n\
         echo '{{\"totalSize\":\"44\"}}' > $DP_BACKUP_INFO_FILE"
    );
    let pull = format!("{PRELUDE}\ndatasafed pull /words /out/words\ntest \"$(cat /out/words)\" = '{WORDS}'");
    let mut set = fixtures::scripted_action_set(&space.name, &push);
    set["spec"]["restore"]["prepareData"]["command"][2] = json!(pull);
    let policy = fixtures::policy("pg", "pg", &space.name, Some(repo));
    space.kubectl.apply(&list(&[set, policy]).to_string()).unwrap();
}

fn start(space: &TempNamespace, name: &str) {
    space.kubectl.apply(&fixtures::backup(name, "pg", "full").to_string()).unwrap();
}

fn completed(space: &TempNamespace, name: &str) -> Value {
    let object = ended(space, name, LIMIT).unwrap();
    assert_eq!(phase(&object), "Completed", "{}", object["status"]);
    object
}

fn restore(space: &TempNamespace, name: &str, backup: &str) -> Value {
    let claim = json!({ "metadata": { "name": name }, "mountPath": "/out", "volumeClaimSpec": {
        "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "64Mi" } } } });
    let restore = json!({ "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "Restore", "metadata": { "name": name },
        "spec": { "backup": { "name": backup, "namespace": space.name },
            "prepareDataConfig": { "volumeClaimRestorePolicy": "Parallel", "volumeClaims": [claim] } } });
    space.kubectl.apply(&restore.to_string()).unwrap();
    let over = |object: &Value| matches!(phase(object), "Completed" | "Failed");
    space.kubectl.wait_for("restore", name, LIMIT, over).unwrap()
}

/// The recipe goes last: without it the operator cannot know whether deleting a backup needs more than removing files.
fn end(cluster: &Kubectl, space: TempNamespace) {
    let name = space.name.clone();
    drop(space);
    drop(cluster.try_run(&["delete", "actionset", &name, "--wait=false"]));
}

fn condition(object: &Value, type_: &str) -> Value {
    let all = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    all.into_iter().find(|condition| condition["type"] == type_).unwrap_or_default()
}

#[test]
fn a_mounted_repository_gives_everything_back_and_lets_every_byte_go() {
    let (cluster, space) = begin("mount").unwrap();
    let repo = format!("repo-{}", space.name);
    let object = json!({
        "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "BackupRepo", "metadata": { "name": repo },
        "spec": { "storageProviderRef": "pvc", "accessMethod": "Mount", "pvReclaimPolicy": "Delete", "volumeCapacity": "1Gi",
            "pathPrefix": "deep/down", "config": { "storageClassName": "btrfs" } },
    });
    cluster.apply(&object.to_string()).unwrap();
    let ready = cluster.wait_for("backuprepo", &repo, LIMIT, |object| phase(object) == "Ready").unwrap();
    let claim = ready["status"]["backupPVCName"].as_str().unwrap().to_owned();
    Job { kubectl: &space.kubectl, repo: Some(&repo), scale: 1 }.run(&mut |step| println!("{step}")).unwrap();

    // What lies on the volume is read by a pod that knows nothing of us.
    let look = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "look" }, "spec": {
        "terminationGracePeriodSeconds": 0, "volumes": [{ "name": "v", "persistentVolumeClaim": { "claimName": claim } }],
        "containers": [{ "name": "look", "image": fixtures::POSTGRES_IMAGE, "imagePullPolicy": "IfNotPresent",
            "command": ["sleep", "600"], "volumeMounts": [{ "name": "v", "mountPath": "/v" }] }] } });
    space.kubectl.apply(&look.to_string()).unwrap();
    space.kubectl.run(&["wait", "--for=condition=Ready", "pod/look", "--timeout=180s"]).unwrap();
    let files = || space.kubectl.run(&["exec", "look", "--", "find", "/v", "-type", "f"]).unwrap();
    let before = files();
    assert!(before.contains("/v/deep/down/") && before.contains("/.kbbackup/seal.json"), "{before}");
    let backup = space.kubectl.get(&["backups"]).unwrap()["items"][0]["metadata"]["name"].as_str().unwrap().to_owned();
    space.kubectl.run(&["kbbackup", "delete", &backup, "--yes", "--timeout", "2m"]).unwrap();
    assert_eq!(files(), "");

    space.kubectl.run(&["delete", "pod", "look", "--wait"]).unwrap();
    // The Restore still stands, and is no reason to keep the repository; its claims go with it.
    cluster.run(&["delete", "backuprepo", &repo, "--timeout=180s"]).unwrap();
    space.kubectl.wait_gone("pvc", &claim, LIMIT).unwrap();
}

fn encrypted(algorithm: &str) {
    let (cluster, space) = begin("cipher").unwrap();
    let repo = format!("repo-{}", space.name);
    s3_repo(&cluster, &repo, "versitygw", &space.name, S3_KEYS).unwrap();
    scripted(&space, &repo, 0);
    let config = json!({ "spec": { "encryptionConfig": { "algorithm": algorithm,
        "passPhraseSecretKeyRef": { "name": "phrase", "key": "key" } } } });
    space.kubectl.run(&["patch", "backuppolicy", "pg", "--type=merge", "-p", &config.to_string()]).unwrap();
    // Without its Secret a backup waits, and says for what.
    start(&space, "sealed");
    let waits = |object: &Value| object["metadata"]["annotations"].to_string().contains("Secret phrase");
    let waiting = space.kubectl.wait_for("backup", "sealed", LIMIT, waits).unwrap();
    assert_ne!(phase(&waiting), "Completed");
    let phrase = |text: &str| {
        let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "phrase" }, "stringData": { "key": text } });
        space.kubectl.apply(&secret.to_string()).unwrap();
    };
    phrase("correct horse battery staple");
    completed(&space, "sealed");

    let bucket = bucket(&cluster, "versitygw");
    let keys = below(&bucket, &space.name);
    let data: Vec<_> = keys.iter().filter(|key| key.contains("/words")).collect();
    assert!(!data.is_empty(), "{keys:?}");
    for key in &data {
        let bytes = bucket.read(key).unwrap();
        assert!(!bytes.windows(WORDS.len()).any(|window| window == WORDS.as_bytes()), "{key} is plain");
    }

    let good = restore(&space, "good", "sealed");
    assert_eq!(phase(&good), "Completed", "{}", good["status"]);
    phrase("wrong horse");
    let bad = restore(&space, "bad", "sealed");
    assert_eq!(phase(&bad), "Failed", "{}", bad["status"]);
    end(&cluster, space);
    drop_s3_repo(&cluster, &repo);
}

#[test]
fn with_aes_the_bucket_holds_no_plain_text_and_the_wrong_phrase_restores_nothing() {
    encrypted("AES-256-CFB");
}

#[test]
fn with_age_the_bucket_holds_no_plain_text_and_the_wrong_phrase_restores_nothing() {
    encrypted("age");
}

#[test]
fn a_running_backup_outlives_new_parameters_and_keys_and_the_next_one_uses_them() {
    let (cluster, space) = begin("rotate").unwrap();
    let repo = format!("repo-{}", space.name);
    let [old, new] = ["old", "new"].map(|age| (format!("{age}-{}", space.name), format!("{age}-secret")));
    create_account(&cluster, (&old.0, &old.1)).unwrap();
    s3_repo(&cluster, &repo, "versitygw", &space.name, (&old.0, &old.1)).unwrap();
    cluster.wait_for("backuprepo", &repo, LIMIT, |object| phase(object) == "Ready").unwrap();
    scripted(&space, &repo, 15);
    start(&space, "before");
    let runs = |object: &Value| object["status"]["actions"][0]["phase"] == "Running";
    space.kubectl.wait_for("backup", "before", LIMIT, runs).unwrap();

    // A new key that is wrong: the repository fails its check, what runs keeps the old one.
    let system = cluster.in_namespace("kbbackup-system");
    let keys = format!("{repo}-keys");
    let change = |(access, secret): (&str, &str)| {
        let patch = json!({ "stringData": { "accessKeyId": access, "secretAccessKey": secret } }).to_string();
        system.run(&["patch", "secret", &keys, "--type=merge", "-p", &patch]).unwrap();
    };
    change((&new.0, &new.1));
    cluster.wait_for("backuprepo", &repo, LIMIT, |object| phase(object) == "Failed").unwrap();
    completed(&space, "before");

    // The new account comes to life, and the old one ends: all that follows is done with the new pair alone.
    create_account(&cluster, (&new.0, &new.1)).unwrap();
    delete_account(&cluster, &old.0).unwrap();
    let open = |keys: &(String, String)| {
        let keys = (keys.0.as_str(), keys.1.as_str());
        Bucket::open(&cluster, S3_NAMESPACE, "svc/versitygw", s3_port("versitygw"), keys, S3_BUCKET).unwrap().keys()
    };
    let refused = open(&old).unwrap_err().to_string();
    assert!(refused.contains("InvalidAccessKeyId"), "{refused}");
    assert!(open(&new).is_ok());
    // The Secret holds the right pair already; the check is not repeated until something changes.
    let digest =
        |object: &Value| object["metadata"]["annotations"]["dataprotection.kubeblocks.io/backup-repo-digest"].clone();
    let failed = digest(&cluster.get(&["backuprepo", &repo]).unwrap());
    change((&new.0, "not-yet"));
    cluster.wait_for("backuprepo", &repo, LIMIT, |object| digest(object) != failed).unwrap();
    change((&new.0, &new.1));
    cluster.wait_for("backuprepo", &repo, LIMIT, |object| phase(object) == "Ready").unwrap();
    scripted(&space, &repo, 0);
    start(&space, "rotated");
    completed(&space, "rotated");
    let back = restore(&space, "back", "before");
    assert_eq!(phase(&back), "Completed", "{}", back["status"]);

    // Other keys at another server.
    change(S3_KEYS);
    let endpoint = format!("http://rclone.{S3_NAMESPACE}.svc:{}", s3_port("rclone"));
    let patch = json!({ "spec": { "config": { "endpoint": endpoint } } }).to_string();
    cluster.run(&["patch", "backuprepo", &repo, "--type=merge", "-p", &patch]).unwrap();
    let settled = |object: &Value| {
        phase(object) == "Ready"
            && object["metadata"]["annotations"]["dataprotection.kubeblocks.io/need-update-tool-config"] == "false"
            && object["spec"]["config"]["endpoint"] == endpoint
    };
    let now = cluster.wait_for("backuprepo", &repo, LIMIT, settled).unwrap();
    let secret = now["status"]["toolConfigSecretName"].as_str().unwrap();
    assert_eq!(digest(&space.kubectl.get(&["secret", secret]).unwrap()), digest(&now));
    start(&space, "after");
    completed(&space, "after");
    assert!(below(&bucket(&cluster, "rclone"), &space.name).iter().any(|key| key.contains("/after/words")));
    assert!(below(&bucket(&cluster, "versitygw"), &space.name).iter().any(|key| key.contains("/before/words")));
    end(&cluster, space);
    delete_account(&cluster, &new.0).unwrap();
    drop_s3_repo(&cluster, &repo);
}

#[test]
fn a_repository_in_use_stays_and_says_why_and_each_backup_keeps_its_prefix() {
    let (cluster, space) = begin("inuse").unwrap();
    let repo = format!("repo-{}", space.name);
    s3_repo(&cluster, &repo, "versitygw", &space.name, S3_KEYS).unwrap();
    scripted(&space, &repo, 0);
    start(&space, "one");
    completed(&space, "one");
    let prefix = format!("{}-moved", space.name);
    let patch = json!({ "spec": { "pathPrefix": prefix } }).to_string();
    cluster.run(&["patch", "backuprepo", &repo, "--type=merge", "-p", &patch]).unwrap();
    start(&space, "two");
    completed(&space, "two");
    let bucket = bucket(&cluster, "versitygw");
    let old = format!("{}/", space.name);
    let new = format!("{prefix}/");
    assert!(below(&bucket, &old).iter().any(|key| key.contains("/one/words")));
    assert!(below(&bucket, &new).iter().any(|key| key.contains("/two/words")));

    cluster.run(&["delete", "backuprepo", &repo, "--wait=false"]).unwrap();
    let told = |object: &Value| condition(object, "DerivedObjectsDeleted")["reason"] == "HaveAssociatedBackups";
    let held = cluster.wait_for("backuprepo", &repo, LIMIT, told).unwrap();
    let message = condition(&held, "DerivedObjectsDeleted")["message"].to_string();
    assert!(message.contains("2 backups lie in the repository"), "{message}");
    assert_eq!(phase(&held), "Deleting");
    space.kubectl.run(&["delete", "backup", "one", "two", "--timeout=180s"]).unwrap();
    assert_eq!(below(&bucket, &old), Vec::<String>::new());
    assert_eq!(below(&bucket, &new), Vec::<String>::new());
    cluster.wait_gone("backuprepo", &repo, Duration::from_secs(60)).unwrap();
    end(&cluster, space);
    drop_s3_repo(&cluster, &repo);
}

#[test]
fn an_ftp_server_is_a_repository() {
    let (cluster, space) = begin("ftp").unwrap();
    let repo = format!("repo-{}", space.name);
    // Beside the server a container that sees its files.
    let data = json!([{ "name": "data", "mountPath": "/data" }, { "name": "tmp", "mountPath": "/tmp" }]);
    let serve = ["/bin/rclone", "serve", "ftp", "--addr", ":2121", "--user", "backup", "--pass", "test-secret"];
    let more = ["--passive-port", "30000-30100", "--config", "", "/data"];
    let command = [&serve[..], &more[..]].concat();
    let server = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "server" }, "spec": {
        "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false,
        "volumes": [{ "name": "data", "emptyDir": {} }, { "name": "tmp", "emptyDir": {} }],
        "containers": [
            { "name": "rclone", "image": "kbbackup.test/rclone:1.76.0", "imagePullPolicy": "IfNotPresent",
                "command": command, "volumeMounts": data,
                "readinessProbe": { "tcpSocket": { "port": 2121 }, "periodSeconds": 1 } },
            { "name": "look", "image": fixtures::POSTGRES_IMAGE, "imagePullPolicy": "IfNotPresent",
                "command": ["sleep", "600"], "volumeMounts": data }] } });
    space.kubectl.apply(&server.to_string()).unwrap();
    space.kubectl.run(&["wait", "--for=condition=Ready", "pod/server", "--timeout=180s"]).unwrap();
    let address = space.kubectl.get(&["pod", "server"]).unwrap()["status"]["podIP"].as_str().unwrap().to_owned();
    let files = || space.kubectl.run(&["exec", "server", "-c", "look", "--", "find", "/data", "-type", "f"]).unwrap();

    let create = |name: &str, password: &str| {
        let host = format!("ftpHost={address}");
        let password = format!("ftpPassword={password}");
        let to = ["kbbackup", "repo", "create", name, "--provider", "ftp", "--param", &host, "--param", "ftpPort=2121"];
        cluster.try_run(&[&to[..], &["--param", "ftpUser=backup", "--param", &password, "--wait"]].concat()).unwrap()
    };
    let wrong = format!("{repo}-wrong");
    let refused = create(&wrong, "nonsense");
    assert_eq!(refused.code, 4, "{}", refused.stderr);
    assert!(refused.stderr.contains("530"), "{}", refused.stderr);
    let made = create(&repo, "test-secret");
    assert_eq!(made.code, 0, "{}", made.stderr);
    assert_eq!(files(), "", "the check leaves nothing");

    scripted(&space, &repo, 0);
    start(&space, "one");
    completed(&space, "one");
    assert!(files().contains("/.kbbackup/seal.json"), "{}", files());
    let good = restore(&space, "good", "one");
    assert_eq!(phase(&good), "Completed", "{}", good["status"]);
    space.kubectl.run(&["kbbackup", "delete", "one", "--yes", "--timeout", "2m"]).unwrap();
    assert_eq!(files(), "");
    for name in [&repo, &wrong] {
        cluster.run(&["kbbackup", "repo", "delete", name, "--yes"]).unwrap();
    }
    end(&cluster, space);
}
