//! `kubectl delete namespace` ends by itself, whatever of ours is inside.

use anyhow::Result;
use kbbackup_e2e::{LIMIT, S3_BUCKET, S3_KEYS, S3_NAMESPACE, drop_s3_repo, ended, phase, s3_port, s3_repo};
use kbbackup_testing::fixtures::{self, list};
use kbbackup_testing::kubectl::Kubectl;
use kbbackup_testing::namespace::TempNamespace;
use kbbackup_testing::postgres::Postgres;
use kbbackup_testing::s3::Bucket;
use serde_json::{Value, json};

use crate::begin;

const API: &str = "dataprotection.kubeblocks.io/v1alpha1";
const PUSH: &str = r#"set -eo pipefail
export PATH="$PATH:$DP_DATASAFED_BIN_PATH" DATASAFED_BACKEND_BASE_PATH="$DP_BACKUP_BASE_PATH"
echo data | datasafed push - /data
"#;
const REPORT: &str = r#"echo '{"totalSize":"5"}' > $DP_BACKUP_INFO_FILE"#;

/// Policy and ActionSet of the same name; the set is named after the namespace as well, for it has none.
fn recipe(space: &TempNamespace, name: &str, script: &str, repo: &str) -> [Value; 2] {
    let set = format!("{}-{name}", space.name);
    [fixtures::scripted_action_set(&set, script), fixtures::policy(name, "pg", &set, Some(repo))]
}

fn restore(name: &str, backup: &str, namespace: &str) -> Value {
    let claim = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    json!({
        "apiVersion": API, "kind": "Restore", "metadata": {"name": name},
        "spec": {
            "backup": {"name": backup, "namespace": namespace},
            "prepareDataConfig": {
                "volumeClaimRestorePolicy": "Parallel",
                "volumeClaims": [{"metadata": {"name": format!("{name}-data")}, "mountPath": "/data", "volumeClaimSpec": claim}],
            },
        },
    })
}

fn schedule(policy: &str) -> Value {
    json!({
        "apiVersion": API, "kind": "BackupSchedule", "metadata": {"name": "yearly"},
        "spec": {"backupPolicyName": policy, "schedules": [
            {"backupMethod": "full", "cronExpression": "0 3 1 1 *", "enabled": true, "retentionPeriod": "7d"},
        ]},
    })
}

/// Keys of the backups of a namespace.
fn below(bucket: &Bucket, prefix: &str, namespace: &str) -> Result<Vec<String>> {
    let prefix = format!("{prefix}/{namespace}/");
    Ok(bucket.keys()?.into_iter().filter(|key| key.starts_with(&prefix)).collect())
}

fn open_bucket(cluster: &Kubectl) -> Result<Bucket> {
    Bucket::open(cluster, S3_NAMESPACE, "svc/versitygw", s3_port("versitygw"), S3_KEYS, S3_BUCKET)
}

fn completed(space: &TempNamespace, name: &str) {
    let object = ended(space, name, LIMIT).unwrap();
    assert_eq!(phase(&object), "Completed", "{}", object["status"]);
}

#[test]
fn a_namespace_with_everything_inside_ends_with_its_bytes_and_the_neighbour_stays() {
    let (cluster, space) = begin("nsends").unwrap();
    let neighbour = TempNamespace::new(&cluster, "nsstays").unwrap();
    let repo = format!("repo-{}", space.name);
    s3_repo(&cluster, &repo, "versitygw", &space.name, S3_KEYS).unwrap();
    for place in [&space, &neighbour] {
        Postgres::create(&place.kubectl, "pg", "1Gi").unwrap();
        let mut objects = recipe(place, "good", &format!("{PUSH}{REPORT}"), &repo).to_vec();
        objects.push(fixtures::backup("good", "good", "full"));
        place.kubectl.apply(&list(&objects).to_string()).unwrap();
    }
    let mut objects = recipe(&space, "slow", &format!("{PUSH}sleep 600"), &repo).to_vec();
    objects.extend(recipe(&space, "bad", &format!("{PUSH}exit 3"), &repo));
    objects.extend([
        fixtures::backup("slow", "slow", "full"),
        fixtures::backup("bad", "bad", "full"),
        fixtures::backup("lost", "no-such-policy", "full"),
        schedule("good"),
    ]);
    space.kubectl.apply(&list(&objects).to_string()).unwrap();
    completed(&space, "good");
    completed(&neighbour, "good");
    space.kubectl.apply(&list(&[restore("again", "good", &space.name)]).to_string()).unwrap();
    assert_eq!(phase(&ended(&space, "bad", LIMIT).unwrap()), "Failed");
    space
        .kubectl
        .wait_for("restore", "again", LIMIT, |object| matches!(phase(object), "Completed" | "Failed"))
        .unwrap();
    let bucket = open_bucket(&cluster).unwrap();
    let slow = format!("{}/{}/pg/slow/", space.name, space.name);
    space
        .kubectl
        .wait_for("backup", "slow", LIMIT, |object| {
            phase(object) == "Running" && bucket.keys().is_ok_and(|keys| keys.iter().any(|key| key.starts_with(&slow)))
        })
        .unwrap();
    let others = below(&bucket, &space.name, &neighbour.name).unwrap();
    assert!(!others.is_empty() && !below(&bucket, &space.name, &space.name).unwrap().is_empty());

    cluster.run(&["delete", "namespace", &space.name, "--timeout=180s"]).unwrap();

    assert_eq!(below(&bucket, &space.name, &space.name).unwrap(), Vec::<String>::new());
    assert_eq!(below(&bucket, &space.name, &neighbour.name).unwrap(), others);
    let ours = format!("dataprotection.kubeblocks.io/backup-namespace={}", space.name);
    // Each Job was made once and goes by itself: none is made again for a backup that is gone.
    let operator = cluster.in_namespace("kbbackup-system");
    let jobs = operator.get(&["jobs", "-l", &ours]).unwrap();
    let jobs = jobs["items"].as_array().cloned().unwrap_or_default();
    assert!(jobs.iter().all(|job| job["spec"]["ttlSecondsAfterFinished"].is_number()), "{jobs:?}");
    for job in &jobs {
        let name = job["metadata"]["name"].as_str().unwrap();
        let about = format!("reason=SuccessfulCreate,involvedObject.kind=Job,involvedObject.name={name}");
        let made = operator.run(&["get", "events", "--field-selector", &about, "-o", "name"]).unwrap();
        assert_eq!(made.lines().count(), 1, "{name} was made again: {made}");
    }

    let names = [&space.name, &neighbour.name].map(Clone::clone);
    drop((space, neighbour));
    for set in names.iter().flat_map(|name| ["good", "slow", "bad"].map(|set| format!("{name}-{set}"))) {
        drop(cluster.try_run(&["delete", "actionset", &set, "--ignore-not-found", "--wait=false"]));
    }
    drop_s3_repo(&cluster, &repo);
}

#[test]
fn a_namespace_whose_repository_is_broken_ends_and_the_log_tells_what_stays() {
    let (cluster, space) = begin("nsbroken").unwrap();
    let repo = format!("repo-{}", space.name);
    s3_repo(&cluster, &repo, "versitygw", &space.name, S3_KEYS).unwrap();
    Postgres::create(&space.kubectl, "pg", "1Gi").unwrap();
    let mut objects = recipe(&space, "good", &format!("{PUSH}{REPORT}"), &repo).to_vec();
    objects.push(fixtures::backup("good", "good", "full"));
    space.kubectl.apply(&list(&objects).to_string()).unwrap();
    completed(&space, "good");
    let bucket = open_bucket(&cluster).unwrap();
    let before = below(&bucket, &space.name, &space.name).unwrap();

    s3_repo(&cluster, &repo, "versitygw", &space.name, (S3_KEYS.0, "not-the-secret")).unwrap();
    cluster.wait_for("backuprepo", &repo, LIMIT, |object| phase(object) == "Failed").unwrap();
    cluster.run(&["delete", "namespace", &space.name, "--timeout=240s"]).unwrap();

    assert_eq!(below(&bucket, &space.name, &space.name).unwrap(), before);
    let operator = cluster.in_namespace("kbbackup-system");
    let log = operator.run(&["logs", "deployment/kbbackup-controller", "--since=5m"]).unwrap();
    let told = log.lines().find(|line| line.contains("stay in the repository") && line.contains(&space.name));
    let told = told.expect("a line of the log that tells what stays");
    assert!(told.contains(&repo) && told.contains("/pg/good"), "{told}");

    let name = space.name.clone();
    drop(space);
    drop(cluster.try_run(&["delete", "actionset", &format!("{name}-good"), "--ignore-not-found", "--wait=false"]));
    drop_s3_repo(&cluster, &repo);
}
