//! PostgreSQL by the shipped ActionSets: a full backup, increments and the log of a database under load; all of it is lost; it comes
//! back at random times and positions, each time exactly the prefix of the ledger.

use std::ops::RangeInclusive;
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
use crate::moments::{
    Depth, Events, Random, Samples, Target, archiving, around, chosen, drop_copy, each, end, now, refused_outside,
    rows_at, schedule,
};
use crate::recipes::{account, method, policy, restore, restored};

const DATA: &str = "/var/lib/postgresql/data";
const PASSWORD: &str = "correct-horse-7";

/// A database with its backups, before it is lost.
pub(crate) struct Source {
    pub(crate) postgres: Postgres,
    image: String,
    incremental: bool,
    /// Name of the continuous backup.
    pub(crate) log: String,
}

impl Source {
    pub(crate) fn create(space: &TempNamespace, major: u32, repo: Option<&str>) -> Self {
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
pub(crate) fn take(space: &TempNamespace, name: &str, method: &str) -> Timestamp {
    space.kubectl.apply(&fixtures::backup(name, "pg", method).to_string()).unwrap();
    let object = ended(space, name, LIMIT).unwrap();
    assert_eq!(phase(&object), "Completed", "{}", object["status"]);
    end(&object).unwrap()
}

/// Name of a restore point.
const POINT: &str = "before the release";
/// Bytes of a segment.
const SEGMENT: u64 = 16 << 20;

/// And how many rows there were at the restore point.
fn live(space: &TempNamespace, source: &Source, ledger: &Arc<Ledger>) -> (Events<Lsn>, RangeInclusive<usize>) {
    let postgres = &source.postgres;
    let first = take(space, "full", "full");
    let based = ledger.len();
    if source.incremental {
        ledger.wait_for(ledger.len() + 50).unwrap();
        take(space, "i1", "incremental");
        ledger.wait_for(ledger.len() + 50).unwrap();
        take(space, "i2", "incremental");
    }
    ledger.wait_for(ledger.len() + 50).unwrap();
    postgres.sql("begin; lock table ledger, pgbench_history in exclusive mode; select pg_sleep(5); commit").unwrap();
    let idle = Timestamp::from_second(Timestamp::now().as_second() - 2).unwrap();
    ledger.wait_for(ledger.len() + 50).unwrap();
    let (switched, rows) = around(ledger, || postgres.sql("select pg_switch_wal()").unwrap().parse::<Lsn>().unwrap());
    let border = (Lsn(switched.0.next_multiple_of(SEGMENT)), rows);
    std::thread::scope(|scope| {
        let long = "begin; insert into mark values ('long'); select pg_sleep(6); commit";
        let long = scope.spawn(|| postgres.sql(long).unwrap());
        std::thread::sleep(Duration::from_secs(3));
        let within = now();
        long.join().unwrap();
        let alter = "begin; alter table mark add column more int; select pg_current_xact_id(); commit";
        let altered = around(ledger, || postgres.sql(alter).unwrap());
        ledger.wait_for(ledger.len() + 50).unwrap();
        let (_, point) =
            around(ledger, || postgres.sql(&format!("select pg_create_restore_point('{POINT}')")).unwrap());
        ledger.wait_for(ledger.len() + 50).unwrap();
        std::thread::sleep(Duration::from_secs(2));
        (Events { based, first, last: now(), idle, border, within, altered }, point)
    })
}

fn wanted(
    random: &mut Random,
    depth: Depth,
    (events, point): &(Events<Lsn>, RangeInclusive<usize>),
    samples: &[(Timestamp, usize)],
    entries: &[Entry],
    window: Timestamp,
) -> Vec<Target> {
    let at = |what, time| Target::at(what, time, rows_at(samples, time));
    let by = |what, target: &str, value: &str, rows| Target::at(what, events.first, rows).by(target, value);
    // Behind the full backup, which is the base of whatever is no time.
    let entry = entries[random.between(events.based as i64 + 1, entries.len() as i64 - 10) as usize];
    let (before, after) = (entry.before.to_string(), entry.after.to_string());
    let count = usize::try_from(entry.id).unwrap();
    let (border, rows) = &events.border;
    let (ddl, altered) = &events.altered;
    let all = vec![
        by("at a commit", "lsn", &after, count..=count + 1).excluded(),
        by("before a commit", "lsn", &before, count - 1..=count - 1).excluded(),
        at("in an idle gap", events.idle),
        by("at a segment's border", "lsn", &border.to_string(), rows.clone()).excluded(),
        at("inside a long transaction", events.within).with(false, false),
        by("at a DDL", "xid", ddl, altered.clone()).with(true, true),
        by("before a DDL", "xid", ddl, altered.clone()).excluded().with(true, false),
        by("at a restore point", "name", POINT, point.clone()).with(true, true),
        Target::at("the end", window, entries.len()..=entries.len() + 1).by("latest", "").with(true, true),
        at("the first time", events.first),
    ];
    chosen(all, depth, || {
        let time = random.between(events.first.as_second(), events.last.as_second());
        at("between two commits", Timestamp::from_second(time).unwrap())
    })
}

/// Restores into an empty namespace, and compares.
fn prove(
    elsewhere: &TempNamespace,
    space: &TempNamespace,
    source: &Source,
    truth: (&Content, &[Entry]),
    targets: &[Target],
) {
    each(targets, |number, target| {
        let name = format!("t{number}");
        let mut object = restore(&name, &source.log, &space.name, &format!("data-{name}-0"), DATA);
        object["spec"]["restoreTime"] = json!(target.time.to_string());
        object["spec"]["prepareDataConfig"]["volumeClaims"][0]["volumeClaimSpec"]["resources"]["requests"]["storage"] =
            json!("2Gi");
        object["spec"]["parameters"] = target.parameters();
        elsewhere.kubectl.apply(&object.to_string()).unwrap();
        let reached = restored(elsewhere, &name);
        let position: Lsn = reached["position"].as_str().unwrap().parse().unwrap();
        assert_eq!(reached["timeline"], "2");
        let copy = Postgres::create_of(&elsewhere.kubectl, &source.image, &name, "2Gi").unwrap();
        let checked = copy.check(truth.0, truth.1, position).unwrap();
        let rows = usize::try_from(checked.rows).unwrap();
        target.judge(&reached, rows, || {
            let ask = |query| copy.sql(query).unwrap();
            let columns = "select count(*) from information_schema.columns where table_name = 'mark'";
            (ask("select count(*) from mark") == "1", ask(columns) == "2")
        });
        drop_copy(elsewhere, &name);
    });
}

fn comes_back_at_any_moment(major: u32, depth: Depth) {
    let (cluster, space) = begin(&format!("pitr-{major}")).unwrap();
    let mut random = Random::new();
    let source = Source::create(&space, major, None);
    source.postgres.sql("create table mark (what text)").unwrap();
    let ledger = Arc::new(Ledger::start(&space.kubectl, &source.postgres.pod()).unwrap());
    let samples = Samples::start(ledger.clone());
    let load = source.postgres.load(2, 50, Duration::from_secs(600)).unwrap();

    ledger.wait_for(20).unwrap();
    let events = live(&space, &source, &ledger);
    let last = events.0.last;
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
    space.kubectl.run(&["delete", "statefulset", "pg", "--timeout=180s"]).unwrap();
    space.kubectl.run(&["delete", "pvc,service,secret", "--all", "--timeout=180s"]).unwrap();
    let elsewhere = TempNamespace::new(&cluster, "pitr-back").unwrap();
    let allowed = format!("kbbackup.io/allow-restore-to={}", elsewhere.name);
    space.kubectl.run(&["annotate", "backup", "--all", &allowed]).unwrap();
    let wanted = wanted(&mut random, depth, &events, &samples, &acknowledged, window);
    prove(&elsewhere, &space, &source, (&truth, &acknowledged), &wanted);
    // What was written last may have been reported since.
    let window = end(&space.kubectl.get(&["backup", &source.log]).unwrap()).unwrap();
    refused_outside(&elsewhere, (events.0.first, window), |name, time| {
        let mut object = restore(name, &source.log, &space.name, name, DATA);
        object["spec"]["restoreTime"] = json!(time.to_string());
        object
    });

    // The database is gone, so there is no slot that a deletion could wait for.
    space.kubectl.run(&["delete", "backupschedule", "pg", "--timeout=180s"]).unwrap();
    space.kubectl.run(&["delete", "backup", "--all", "--timeout=180s"]).unwrap();
}

#[test]
fn postgres_15_comes_back_at_any_moment_of_its_log_pitr() {
    comes_back_at_any_moment(15, Depth::Few);
}

#[test]
fn postgres_17_comes_back_at_any_moment_of_its_log_by_increments_too_pitr() {
    comes_back_at_any_moment(17, Depth::Every);
}

#[test]
fn postgres_18_comes_back_at_any_moment_of_its_log_by_increments_too_pitr() {
    comes_back_at_any_moment(18, Depth::Few);
}

#[test]
fn a_continuous_backup_that_is_deleted_takes_its_slot_along_pitr() {
    let (_cluster, space) = begin("pitr-slot").unwrap();
    let source = Source::create(&space, 15, None);
    let slots =
        || source.postgres.sql("select count(*) from pg_replication_slots where slot_name like 'kbb%'").unwrap();
    assert_eq!(slots(), "1");
    space.kubectl.run(&["delete", "backupschedule", "pg", "--timeout=180s"]).unwrap();
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
