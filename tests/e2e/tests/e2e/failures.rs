//! What fails says so, clearly, and is never called Completed.

use std::time::{Duration, Instant};

use kbbackup_e2e::{LIMIT, S3_BUCKET, S3_KEYS, S3_NAMESPACE, drop_s3_repo, ended, must_fail, phase, s3_port, s3_repo};
use kbbackup_testing::fixtures::{self, list};
use kbbackup_testing::kubectl::Kubectl;
use kbbackup_testing::namespace::TempNamespace;
use kbbackup_testing::postgres::Postgres;
use kbbackup_testing::s3::Bucket;
use serde_json::json;

use crate::begin;

/// A small database with a policy whose method runs `script`.
fn scripted(space: &TempNamespace, script: &str, repo: Option<&str>) {
    Postgres::create(&space.kubectl, "pg", "1Gi").unwrap();
    let set = fixtures::scripted_action_set(&space.name, script);
    let policy = fixtures::policy("pg", "pg", &space.name, repo);
    space.kubectl.apply(&list(&[set, policy]).to_string()).unwrap();
}

fn start(space: &TempNamespace, name: &str) {
    space.kubectl.apply(&fixtures::backup(name, "pg", "full").to_string()).unwrap();
}

/// The recipe goes last: without it the operator cannot know whether deleting a backup needs more than removing files.
fn end(cluster: &Kubectl, space: TempNamespace) {
    let name = space.name.clone();
    drop(space);
    drop(cluster.try_run(&["delete", "actionset", &name, "--wait=false"]));
}

const PUSH: &str = r#"set -eo pipefail
export PATH="$PATH:$DP_DATASAFED_BIN_PATH" DATASAFED_BACKEND_BASE_PATH="$DP_BACKUP_BASE_PATH""#;

#[test]
fn a_script_that_fails_fails_the_backup_with_its_last_words() {
    let (cluster, space) = begin("script").unwrap();
    scripted(&space, &format!("{PUSH}\necho half | datasafed push - /half\necho 'disk on fire' >&2\nexit 3"), None);
    start(&space, "burnt");
    let reason = must_fail(&space, "burnt", LIMIT).unwrap();
    assert!(reason.contains("disk on fire"), "{reason}");
    end(&cluster, space);
}

#[test]
fn a_script_that_says_nothing_about_its_result_fails_the_backup() {
    let (cluster, space) = begin("silent").unwrap();
    scripted(&space, &format!("{PUSH}\necho data | datasafed push - /data"), None);
    start(&space, "silent");
    let reason = must_fail(&space, "silent", LIMIT).unwrap();
    assert!(reason.contains("without writing its result"), "{reason}");
    end(&cluster, space);
}

#[test]
fn a_producer_that_dies_in_a_pipe_fails_the_backup() {
    let (cluster, space) = begin("producer").unwrap();
    let script = format!(
        "{PUSH}\n(echo begin; sleep 1; exit 7) | datasafed push -z zstd - /data\necho '{{}}' > $DP_BACKUP_INFO_FILE"
    );
    scripted(&space, &script, None);
    start(&space, "cut");
    must_fail(&space, "cut", LIMIT).unwrap();
    end(&cluster, space);
}

#[test]
fn a_killed_pod_is_tried_again_and_only_the_good_attempt_counts() {
    let (cluster, space) = begin("killed").unwrap();
    let repo = format!("repo-{}", space.name);
    s3_repo(&cluster, &repo, "versitygw", &space.name, S3_KEYS).unwrap();
    let bucket =
        Bucket::open(&cluster, S3_NAMESPACE, "svc/versitygw", s3_port("versitygw"), S3_KEYS, S3_BUCKET).unwrap();
    let attempts = || -> Vec<String> {
        let ours = |key: &String| key.starts_with(&space.name) && key.contains("/killed/attempt-");
        bucket.keys().unwrap().into_iter().filter(ours).collect()
    };
    // Each attempt leaves an object of its own name; the first one works until it is killed, however busy the machine is.
    let script = format!(
        "{PUSH}\necho $HOSTNAME | datasafed push - /attempt-$HOSTNAME\n\
         if [ $(datasafed list / | grep -c attempt-) = 1 ]; then sleep 600; fi\n\
         echo '{{\"totalSize\":\"1\"}}' > $DP_BACKUP_INFO_FILE"
    );
    scripted(&space, &script, Some(&repo));
    start(&space, "killed");
    let begun = Instant::now();
    let first = loop {
        if let Some(first) = attempts().pop() {
            break first;
        }
        assert!(begun.elapsed() < LIMIT, "no attempt has stored anything");
        std::thread::sleep(Duration::from_millis(250));
    };
    let (_, rest) = first.split_once("/attempt-").unwrap();
    // What follows the name of the pod is the mover's.
    let victim = rest.split(['.', '/']).next().unwrap().to_owned();
    space.kubectl.run(&["delete", "pod", &victim, "--grace-period=0", "--force"]).unwrap();
    let object = ended(&space, "killed", LIMIT).unwrap();
    assert_eq!(phase(&object), "Completed", "{}", object["status"]);
    let seal = object["metadata"]["annotations"]["kbbackup.io/seal"].as_str().unwrap_or_default();
    assert!(!seal.is_empty(), "completed without a seal");
    let left = attempts();
    assert!(!left.is_empty(), "the good attempt's object is missing");
    assert!(!left.iter().any(|key| key.contains(&victim)), "what the killed attempt stored is still there: {left:?}");
    end(&cluster, space);
    drop_s3_repo(&cluster, &repo);
}

/// What a Backup waits for, in the words of its annotation.
fn waits_for(backup: &serde_json::Value) -> &str {
    backup["metadata"]["annotations"]["kbbackup.io/waiting-for"].as_str().unwrap_or_default()
}

#[test]
fn a_container_out_of_memory_is_named_beside_its_last_words() {
    let (cluster, space) = begin("memory").unwrap();
    scripted(&space, &format!("{PUSH}\necho greedy >&2\nx=$(head -c 200M /dev/zero | tr '\\0' x)\n"), None);
    let patch = json!([
        {"op": "add", "path": "/spec/backupMethods/0/runtimeSettings", "value": {"resources": {"limits": {"memory": "48Mi"}}}},
        {"op": "add", "path": "/spec/backoffLimit", "value": 0},
    ])
    .to_string();
    space.kubectl.run(&["patch", "backuppolicy", "pg", "--type=json", "-p", &patch]).unwrap();
    start(&space, "greedy");
    let reason = must_fail(&space, "greedy", LIMIT).unwrap();
    assert!(reason.contains("OOMKilled"), "{reason}");
    assert!(reason.contains("Log Collector Output: greedy"), "{reason}");
    end(&cluster, space);
}

#[test]
fn a_quota_that_refuses_pods_is_named_and_the_backup_goes_on_without_it() {
    let (cluster, space) = begin("quota").unwrap();
    scripted(&space, &format!("{PUSH}\necho data | datasafed push - /data\necho '{{}}' > $DP_BACKUP_INFO_FILE"), None);
    space.kubectl.run(&["create", "quota", "tight", "--hard=pods=1"]).unwrap();
    start(&space, "squeezed");
    let told = |object: &serde_json::Value| waits_for(object).contains("exceeded quota: tight");
    let waiting = space.kubectl.wait_for("backup", "squeezed", LIMIT, told).unwrap();
    assert_eq!(phase(&waiting), "Running");
    space.kubectl.run(&["delete", "quota", "tight"]).unwrap();
    let object = ended(&space, "squeezed", LIMIT).unwrap();
    assert_eq!(phase(&object), "Completed", "{}", object["status"]);
    assert_eq!(waits_for(&object), "");
    end(&cluster, space);
}

#[test]
fn wrong_credentials_are_named_and_no_backup_completes() {
    let (cluster, space) = begin("keys").unwrap();
    let repo = format!("repo-{}", space.name);
    s3_repo(&cluster, &repo, "versitygw", &space.name, (S3_KEYS.0, "not-the-secret")).unwrap();
    let object = cluster.wait_for("backuprepo", &repo, LIMIT, |object| phase(object) == "Failed").unwrap();
    let check = object["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == "PreCheckPassed")
        .cloned()
        .unwrap_or_default();
    let message = check["message"].as_str().unwrap_or_default();
    assert!(message.contains("AccessDenied") || message.contains("SignatureDoesNotMatch"), "{message}");
    assert!(!message.contains("not-the-secret"), "the secret stands in the status");
    // The command line says so before it writes anything.
    Postgres::create(&space.kubectl, "pg", "1Gi").unwrap();
    space.kubectl.apply(&fixtures::policy("pg", "pg", "pg-basebackup", Some(&repo)).to_string()).unwrap();
    let done = space.kubectl.try_run(&["kbbackup", "backup", "statefulset/pg", "--name", "never", "--yes"]).unwrap();
    assert_ne!(done.code, 0, "{}", done.stdout);
    assert!(done.stderr.contains(&repo), "{}", done.stderr);
    // And a Backup written by hand waits with a reason, and does not complete.
    start(&space, "waits");
    std::thread::sleep(Duration::from_secs(10));
    let waiting = space.kubectl.get(&["backup", "waits"]).unwrap();
    assert_ne!(phase(&waiting), "Completed");
    drop(space);
    drop_s3_repo(&cluster, &repo);
}

#[test]
fn a_repository_that_disappears_half_way_never_leaves_a_completed_backup() {
    let (cluster, space) = begin("gone").unwrap();
    let repo = format!("repo-{}", space.name);
    let store = cluster.in_namespace(S3_NAMESPACE);
    store.run(&["scale", "deployment/vanishing", "--replicas=1"]).unwrap();
    store.run(&["rollout", "status", "deployment/vanishing", "--timeout=180s"]).unwrap();
    s3_repo(&cluster, &repo, "vanishing", &space.name, S3_KEYS).unwrap();
    cluster.wait_for("backuprepo", &repo, LIMIT, |object| phase(object) == "Ready").unwrap();
    let script = format!(
        "{PUSH}\necho one | datasafed push - /one\necho started > /tmp/started; sleep 30\n\
         head -c 20000000 /dev/urandom | datasafed push - /two\necho '{{}}' > $DP_BACKUP_INFO_FILE"
    );
    scripted(&space, &script, Some(&repo));
    start(&space, "gone");
    space
        .kubectl
        .wait_for("backup", "gone", LIMIT, |object| {
            object["status"]["actions"][0]["phase"] == "Running" && pod_has_file(&space, "gone", "/tmp/started")
        })
        .unwrap();
    store.run(&["scale", "deployment/vanishing", "--replicas=0"]).unwrap();
    let reason = must_fail(&space, "gone", Duration::from_secs(420)).unwrap();
    assert!(!reason.trim().is_empty());
    store.run(&["scale", "deployment/vanishing", "--replicas=1"]).unwrap();
    store.run(&["rollout", "status", "deployment/vanishing", "--timeout=180s"]).unwrap();
    end(&cluster, space);
    drop_s3_repo(&cluster, &repo);
}

fn pod_has_file(space: &TempNamespace, backup: &str, file: &str) -> bool {
    let selector = format!("dataprotection.kubeblocks.io/backup-name={backup}");
    let pod = space.kubectl.run(&["get", "pods", "-l", &selector, "-o", "name"]).unwrap_or_default();
    let Some(pod) = pod.lines().next() else { return false };
    let test = ["exec", pod, "-c", "backupdata", "--", "test", "-e", file];
    space.kubectl.try_run(&test).is_ok_and(|done| done.code == 0)
}
