//! A continuous backup whose archiver is killed again and again loses nothing, ends with its schedule, and leaves nothing.
//! What its recipe wants done before is done once for each time that it is switched on.

use std::time::{Duration, Instant};

use kbbackup_e2e::{LIMIT, S3_BUCKET, S3_KEYS, S3_NAMESPACE, drop_s3_repo, phase, s3_port, s3_repo};
use kbbackup_testing::fixtures::{POSTGRES_IMAGE, list};
use kbbackup_testing::s3::Bucket;
use serde_json::{Value, json};

use crate::begin;

/// Leaves an object of its own.
const PREPARATION: &str = r#"set -eo pipefail
export PATH="$PATH:$DP_DATASAFED_BIN_PATH" DATASAFED_BACKEND_BASE_PATH="$DP_BACKUP_BASE_PATH"
echo ready | datasafed push - "/prepared-$(date +%s%N)""#;

/// Pushes a numbered object each second and then says so; it fails where it finds a token, or nothing prepared.
const ARCHIVER: &str = r#"set -eo pipefail
export PATH="$PATH:$DP_DATASAFED_BIN_PATH" DATASAFED_BACKEND_BASE_PATH="$DP_BACKUP_BASE_PATH"
test ! -e /var/run/secrets/kubernetes.io/serviceaccount
datasafed list -f / | grep ^prepared- > /dev/null
trap 'exit 0' TERM
last=$(datasafed list -f / | sed -n 's/^n-0*//p' | sort -n | tail -1)
n=$((${last:-0} + 1))
first=$(date -u +%Y-%m-%dT%H:%M:%SZ)
[ "$n" = 1 ] || first=$(datasafed pull /n-00000001 -)
while true; do
  now=$(date -u +%Y-%m-%dT%H:%M:%SZ)
  if [ "$n" = 1 ]; then now=$first; fi
  echo "$now" | datasafed push - "/n-$(printf %08d $n)"
  echo "{\"totalSize\":\"$n\",\"timeRange\":{\"start\":\"$first\",\"end\":\"$now\"}}" > $DP_BACKUP_INFO_FILE
  n=$((n + 1))
  sleep 1
done"#;

const API: &str = "dataprotection.kubeblocks.io/v1alpha1";

fn schedule(enabled: bool) -> Value {
    json!({
        "apiVersion": API, "kind": "BackupSchedule", "metadata": {"name": "tiny"},
        "spec": {"backupPolicyName": "tiny", "schedules": [
            {"backupMethod": "archive", "enabled": enabled, "cronExpression": "*/5 * * * *", "retentionPeriod": "7d"}]},
    })
}

fn objects(space: &str, repo: &str) -> Value {
    let labels = json!({"app": "tiny"});
    list(&[
        json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "tiny"},
            "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "tiny", "image": POSTGRES_IMAGE,
                    "imagePullPolicy": "IfNotPresent", "command": ["sleep", "infinity"]}]}}},
        }),
        json!({
            "apiVersion": API, "kind": "ActionSet", "metadata": {"name": space},
            "spec": {"backupType": "Continuous", "backup": {
                "preBackup": [{"job": {"image": POSTGRES_IMAGE, "command": ["bash", "-c", PREPARATION]}}], "backupData": {"image": POSTGRES_IMAGE,
                "syncProgress": {"enabled": true, "intervalSeconds": 1}, "command": ["bash", "-c", ARCHIVER]}}},
        }),
        json!({
            "apiVersion": API, "kind": "BackupPolicy", "metadata": {"name": "tiny"},
            "spec": {"backupRepoName": repo, "target": {"podSelector": {"matchLabels": labels}},
                "backupMethods": [{"name": "archive", "actionSetName": space}]},
        }),
        schedule(true),
    ])
}

/// The last instant that is said to be archived, as text: RFC 3339 in UTC sorts by time.
fn acknowledged(backup: &Value) -> (String, String, u64) {
    let status = &backup["status"];
    let text = |pointer: &str| status.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    (text("/timeRange/start"), text("/timeRange/end"), text("/totalSize").parse().unwrap_or(0))
}

#[test]
fn an_archiver_that_is_killed_again_and_again_loses_nothing() {
    let (cluster, space) = begin("continuous").unwrap();
    let kubectl = &space.kubectl;
    let repo = format!("repo-{}", space.name);
    s3_repo(&cluster, &repo, "versitygw", &space.name, S3_KEYS).unwrap();
    kubectl.apply(&objects(&space.name, &repo).to_string()).unwrap();

    // The schedule makes the backup, by a name of its own.
    let made = || -> Option<String> {
        let all = kubectl.get(&["backups", "-l", "dataprotection.kubeblocks.io/backup-schedule=tiny"]).unwrap();
        all["items"][0]["metadata"]["name"].as_str().map(str::to_owned)
    };
    let begun = Instant::now();
    let name = loop {
        if let Some(name) = made() {
            break name;
        }
        assert!(begun.elapsed() < LIMIT, "the schedule made no backup");
        std::thread::sleep(Duration::from_millis(250));
    };
    let name = name.as_str();
    let wait = |wanted: &dyn Fn(&Value) -> bool| kubectl.wait_for("backup", name, LIMIT, wanted).unwrap();
    let mut last = acknowledged(&wait(&|backup| phase(backup) == "Running" && acknowledged(backup).2 > 0));
    let first = last.0.clone();
    for kill in 0..6 {
        if kill == 2 {
            let operator = cluster.in_namespace("kbbackup-system");
            let by_label = ["delete", "pod", "-l", "kbbackup.io/part=operator", "--grace-period=0", "--force"];
            operator.run(&by_label).unwrap();
        }
        let pod = format!("{name}-0");
        let victim = ["delete", "pod", pod.as_str(), "--grace-period=0", "--force"];
        kubectl.run(if kill % 2 == 0 { &victim } else { &victim[..3] }).unwrap();
        let next = acknowledged(&wait(&|backup| acknowledged(backup).2 > last.2 + 1));
        assert_eq!(next.0, first, "the window's start moved");
        assert!(next.1 > last.1, "the window's end went from {} to {}", last.1, next.1);
        last = next;
    }
    wait(&|backup| {
        let actions = backup["status"]["actions"].as_array();
        let archiver = actions.and_then(|actions| actions.iter().find(|action| action["name"] == "dp-backup-0"));
        phase(backup) == "Running" && archiver.is_some_and(|archiver| archiver["availableReplicas"] == 1)
    });

    kubectl.apply(&schedule(false).to_string()).unwrap();
    let done = wait(&|backup| phase(backup) == "Completed");
    assert!(done["status"]["expiration"].is_string(), "{}", done["status"]);
    assert!(done["metadata"]["annotations"]["kbbackup.io/seal"].is_null(), "it may go on, so it is not sealed");
    kubectl.wait_gone("statefulset", name, LIMIT).unwrap();

    let bucket =
        Bucket::open(&cluster, S3_NAMESPACE, "svc/versitygw", s3_port("versitygw"), S3_KEYS, S3_BUCKET).unwrap();
    let below = || -> Vec<String> {
        bucket
            .keys()
            .unwrap()
            .into_iter()
            .filter(|key| key.contains(&format!("/{name}/")))
            .filter(|key| key.starts_with(&space.name))
            .collect()
    };
    let stored = below();
    for number in 1..=acknowledged(&done).2 {
        let key = format!("/n-{number:08}");
        assert!(stored.iter().any(|stored| stored.ends_with(&key)), "{key} was acknowledged and is lost");
    }
    let prepared = || below().iter().filter(|key| key.contains("/prepared-")).count();
    assert_eq!(prepared(), 1, "once, however often the archiver and the operator were killed");

    let before = acknowledged(&done).2;
    kubectl.apply(&schedule(true).to_string()).unwrap();
    wait(&|backup| phase(backup) == "Running" && acknowledged(backup).2 > before);
    assert_eq!(prepared(), 2, "and again when it is switched on again");

    kubectl.run(&["delete", "backupschedule", "tiny", "--timeout=180s"]).unwrap();
    kubectl.run(&["delete", "backup", name, "--timeout=180s"]).unwrap();
    assert_eq!(below(), Vec::<String>::new());
    for kind in ["configmap", "role", "rolebinding"] {
        kubectl.wait_gone(kind, &format!("{name}-report"), LIMIT).unwrap();
    }
    let set = space.name.clone();
    drop(space);
    drop(cluster.try_run(&["delete", "actionset", &set, "--wait=false"]));
    drop_s3_repo(&cluster, &repo);
}
