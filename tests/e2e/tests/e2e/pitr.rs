//! PostgreSQL by the shipped ActionSets: a full backup, increments and the log of a database under load; all of it is lost; it comes
//! back at random times and positions, each time exactly the prefix of the ledger.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kbbackup_e2e::{LIMIT, S3_KEYS, drop_s3_repo, ended, phase, s3_repo};
use kbbackup_testing::fixtures::{self, list};
use kbbackup_testing::ledger::{Entry, Ledger};
use kbbackup_testing::lsn::Lsn;
use kbbackup_testing::namespace::TempNamespace;
use kbbackup_testing::postgres::{Content, Postgres};
use serde_json::{Value, json};

use crate::begin;
use crate::moments::{Random, Samples, archiving, end, rows_at, schedule, targets};
use crate::recipes::{account, method, policy, restore, restored};

const DATA: &str = "/var/lib/postgresql/data";
const PASSWORD: &str = "correct-horse-7";

/// A database with its backups, before it is lost.
struct Source {
    postgres: Postgres,
    image: String,
    incremental: bool,
    /// Name of the continuous backup.
    log: String,
}

impl Source {
    fn create(space: &TempNamespace, major: u32, repo: Option<&str>) -> Self {
        let image = format!("kbbackup.test/postgres:{major}");
        let postgres = Postgres::create_of(&space.kubectl, &image, "pg", "2Gi").unwrap();
        let incremental = major >= 17;
        if incremental {
            postgres.sql("alter system set summarize_wal = on").unwrap();
            postgres.sql("select pg_reload_conf()").unwrap();
        }
        postgres.fill(1).unwrap();
        postgres.sql("create extension amcheck").unwrap();
        postgres.sql(&account("PostgreSQL: `kbb").replace('…', PASSWORD)).unwrap();
        let secret = json!({"stringData": {"username": "kbbackup"}}).to_string();
        space.kubectl.run(&["patch", "secret", "pg-auth", "-p", &secret]).unwrap();
        let labels = json!({"app.kubernetes.io/name": "postgres", "app.kubernetes.io/instance": "pg"});
        let mut methods =
            vec![method("full", "kbb-postgres-full", DATA, None), method("log", "kbb-postgres-continuous", DATA, None)];
        if incremental {
            methods.push(method("incremental", "kbb-postgres-incremental", DATA, Some("full")));
        }
        let mut policy = policy("pg", &labels, "postgres", "postgres", &methods);
        if let Some(repo) = repo {
            policy["spec"]["backupRepoName"] = json!(repo);
        }
        space.kubectl.apply(&list(&[policy, schedule("pg")]).to_string()).unwrap();
        let log = archiving(space, "pg");
        Self { postgres, image, incremental, log }
    }
}

/// Takes a backup and gives the first time that it can be restored to.
fn take(space: &TempNamespace, name: &str, method: &str) -> Timestamp {
    space.kubectl.apply(&fixtures::backup(name, "pg", method).to_string()).unwrap();
    let object = ended(space, name, LIMIT).unwrap();
    assert_eq!(phase(&object), "Completed", "{}", object["status"]);
    end(&object).unwrap()
}

/// What a restore is to reach, and what it must have then.
struct Target {
    name: String,
    time: Timestamp,
    parameters: Vec<(&'static str, String)>,
    rows: std::ops::RangeInclusive<usize>,
}

/// Restores into an empty namespace, and compares.
fn prove(
    cluster: &kbbackup_testing::kubectl::Kubectl,
    space: &TempNamespace,
    source: &Source,
    truth: (&Content, &[Entry]),
    targets: &[Target],
) {
    let elsewhere = TempNamespace::new(cluster, "pitr-back").unwrap();
    let allowed = format!("kbbackup.io/allow-restore-to={}", elsewhere.name);
    space.kubectl.run(&["annotate", "backup", "--all", &allowed]).unwrap();
    for target in targets {
        let claim = format!("data-{}-0", target.name);
        let mut object = restore(&target.name, &source.log, &space.name, &claim, DATA);
        object["spec"]["restoreTime"] = json!(target.time.to_string());
        object["spec"]["prepareDataConfig"]["volumeClaims"][0]["volumeClaimSpec"]["resources"]["requests"]["storage"] =
            json!("2Gi");
        let parameters = target.parameters.iter().map(|(name, value)| json!({"name": name, "value": value}));
        object["spec"]["parameters"] = parameters.collect();
        elsewhere.kubectl.apply(&object.to_string()).unwrap();
        let reached = restored(&elsewhere, &target.name);
        let position: Lsn = reached["position"].as_str().unwrap().parse().unwrap();
        assert_eq!(reached["timeline"], "2");
        let copy = Postgres::create_of(&elsewhere.kubectl, &source.image, &target.name, "2Gi").unwrap();
        let checked = copy.check(truth.0, truth.1, position).unwrap();
        let rows = usize::try_from(checked.rows).unwrap();
        assert!(
            target.rows.contains(&rows),
            "{} at {}: {rows} rows and not {:?}; {reached}",
            target.name,
            target.time,
            target.rows
        );
        println!("{}: {} gave {reached}, {rows} rows", target.name, target.time);
        elsewhere.kubectl.run(&["scale", &format!("statefulset/{}", target.name), "--replicas=0"]).unwrap();
    }
}

fn comes_back_at_any_moment(major: u32) {
    let (cluster, space) = begin(&format!("pitr-{major}")).unwrap();
    let mut random = Random::new();
    let source = Source::create(&space, major, None);
    let ledger = Arc::new(Ledger::start(&space.kubectl, &source.postgres.pod()).unwrap());
    let samples = Samples::start(ledger.clone());
    let load = source.postgres.load(2, 50, Duration::from_secs(600)).unwrap();

    ledger.wait_for(20).unwrap();
    let first = take(&space, "full", "full");
    if source.incremental {
        ledger.wait_for(ledger.len() + 50).unwrap();
        take(&space, "i1", "incremental");
        ledger.wait_for(ledger.len() + 50).unwrap();
        take(&space, "i2", "incremental");
    }
    // A border of segments, an idle moment of the log's other writers, and more of everything.
    source.postgres.sql("select pg_switch_wal()").unwrap();
    std::thread::sleep(Duration::from_secs(random.between(4, 8) as u64));
    let last = Timestamp::now();
    ledger.wait_for(ledger.len() + 20).unwrap();
    space.kubectl.wait_for("backup", &source.log, LIMIT, |object| end(object).is_some_and(|end| end > last)).unwrap();
    let samples = samples.end();
    let acknowledged = Arc::try_unwrap(ledger).ok().expect("nobody else has it").stop().unwrap();
    drop(load);
    // Whoever ran it is gone; what it runs in the pod is not yet, and the last target is everything.
    let clients = "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = 'pgbench'";
    while source.postgres.sql(clients).unwrap() != "0" {
        std::thread::sleep(Duration::from_millis(500));
    }
    let truth = source.postgres.content().unwrap();
    let written: Lsn = source.postgres.sql("select pg_current_wal_flush_lsn()").unwrap().parse().unwrap();
    let stored = |object: &Value| {
        let end = object["status"]["extras"][0]["end_lsn"].as_str().unwrap_or("0/0").parse::<Lsn>();
        end.is_ok_and(|end| end >= written)
    };
    let log = space.kubectl.wait_for("backup", &source.log, LIMIT, stored).unwrap();
    let window = end(&log).unwrap();

    // Everything is lost.
    space.kubectl.run(&["delete", "statefulset", "pg", "--timeout=120s"]).unwrap();
    space.kubectl.run(&["delete", "pvc,service,secret", "--all", "--timeout=120s"]).unwrap();

    let mut wanted: Vec<Target> = (0..targets())
        .map(|number| {
            let time = Timestamp::from_second(random.between(first.as_second(), last.as_second())).unwrap();
            Target { name: format!("t{number}"), time, parameters: vec![], rows: rows_at(&samples, time) }
        })
        .collect();
    let all = acknowledged.len()..=acknowledged.len() + 1;
    wanted.push(Target {
        name: "latest".into(),
        time: window,
        parameters: vec![("target", "latest".into())],
        rows: all,
    });
    // The position behind a commit: that row is there, and none that began behind it.
    let from = acknowledged.len() * 3 / 4;
    let entry = &acknowledged[random.between(from as i64, acknowledged.len() as i64 - 10) as usize];
    let count = usize::try_from(entry.id).unwrap();
    let exact = vec![("target", "lsn".into()), ("targetValue", entry.after.to_string()), ("inclusive", "off".into())];
    let time = first;
    wanted.push(Target { name: "lsn".into(), time, parameters: exact, rows: count..=count + 1 });
    prove(&cluster, &space, &source, (&truth, &acknowledged), &wanted);

    // The database is gone, so there is no slot that a deletion could wait for.
    space.kubectl.run(&["delete", "backupschedule", "pg", "--timeout=60s"]).unwrap();
    space.kubectl.run(&["delete", "backup", "--all", "--timeout=180s"]).unwrap();
}

#[test]
fn postgres_15_comes_back_at_any_moment_of_its_log_pitr() {
    comes_back_at_any_moment(15);
}

#[test]
fn postgres_17_comes_back_at_any_moment_of_its_log_by_increments_too_pitr() {
    comes_back_at_any_moment(17);
}

#[test]
fn postgres_18_comes_back_at_any_moment_of_its_log_by_increments_too_pitr() {
    comes_back_at_any_moment(18);
}

#[test]
fn a_continuous_backup_that_is_deleted_takes_its_slot_along_pitr() {
    let (_cluster, space) = begin("pitr-slot").unwrap();
    let source = Source::create(&space, 15, None);
    let slots =
        || source.postgres.sql("select count(*) from pg_replication_slots where slot_name like 'kbb%'").unwrap();
    assert_eq!(slots(), "1");
    space.kubectl.run(&["delete", "backupschedule", "pg", "--timeout=60s"]).unwrap();
    space.kubectl.run(&["delete", "backup", &source.log, "--timeout=180s"]).unwrap();
    assert_eq!(slots(), "0");
}

/// Bases and log with their objects, and the database, are lost; what lies in the bucket brings them back, and the database to a
/// moment of its log.
#[test]
fn a_log_is_imported_from_the_bucket_alone_and_replayed_pitr() {
    let (cluster, space) = begin("pitr-lost").unwrap();
    let (lost, found) = (format!("repo-{}", space.name), format!("again-{}", space.name));
    s3_repo(&cluster, &lost, "versitygw", &space.name, S3_KEYS).unwrap();
    let source = Source::create(&space, 15, Some(&lost));
    let ledger = Arc::new(Ledger::start(&space.kubectl, &source.postgres.pod()).unwrap());
    let samples = Samples::start(ledger.clone());
    ledger.wait_for(20).unwrap();
    let first = take(&space, "full", "full");
    ledger.wait_for(ledger.len() + 50).unwrap();
    let moment = Timestamp::from_second(Timestamp::now().as_second().max(first.as_second()) + 1).unwrap();
    while Timestamp::now() <= moment {
        std::thread::sleep(Duration::from_millis(100));
    }
    ledger.wait_for(ledger.len() + 50).unwrap();
    space.kubectl.wait_for("backup", &source.log, LIMIT, |object| end(object).is_some_and(|end| end > moment)).unwrap();
    let samples = samples.end();
    let acknowledged = Arc::try_unwrap(ledger).ok().expect("nobody else has it").stop().unwrap();
    for backup in ["full", &source.log] {
        let kept = json!({"spec": {"deletionPolicy": "Retain"}}).to_string();
        space.kubectl.run(&["patch", "backup", backup, "--type=merge", "-p", &kept]).unwrap();
    }
    cluster.run(&["delete", "namespace", &space.name, "--timeout=180s"]).unwrap();
    drop_s3_repo(&cluster, &lost);

    s3_repo(&cluster, &found, "versitygw", &space.name, S3_KEYS).unwrap();
    cluster.wait_for("backuprepo", &found, LIMIT, |repo| phase(repo) == "Ready").unwrap();
    let done = cluster.run(&["kbbackup", "repo", "import", &found, "--create-namespaces"]).unwrap();
    assert_eq!(done.lines().count(), 2, "the full backup and the log: {done}");
    let log = space.kubectl.get(&["backup", &source.log]).unwrap();
    assert_eq!(phase(&log), "Completed");
    assert!(end(&log).unwrap() > moment, "{}", log["status"]);
    // Passwords are not in a bucket.
    let objects = fixtures::postgres_of(&source.image, "pg", "2Gi");
    let secret = objects["items"].as_array().unwrap().iter().find(|object| object["kind"] == "Secret").unwrap();
    space.kubectl.apply(&secret.to_string()).unwrap();
    let to = moment.to_string();
    let restore = ["kbbackup", "restore", "pg-copy", "--source", "statefulset/pg", "--to-time", &to, "--wait"];
    space.kubectl.run(&[&restore[..], &["--timeout", "5m"]].concat()).unwrap();
    let copy = Postgres::existing(&space.kubectl, "pg-copy");
    copy.wait_ready().unwrap();
    let rows = copy.ledger_rows().unwrap();
    let prefix: Vec<u64> = acknowledged.iter().take(rows.len()).map(|entry| entry.id).collect();
    assert!(rows.keys().copied().take(prefix.len()).eq(prefix) && rows.values().all(|intact| *intact));
    let wanted = rows_at(&samples, moment);
    assert!(wanted.contains(&rows.len()), "{} rows at {moment} and not {wanted:?}", rows.len());
    drop(space);
    drop_s3_repo(&cluster, &found);
}
