//! MariaDB and MySQL by the shipped ActionSets: a full backup, an increment where there are any, and the binary log of a database under
//! load; all of it is lost; it comes back at moments of every kind, each time exactly the prefix of the ledger.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kbbackup_e2e::LIMIT;
use kbbackup_testing::fixtures::list;
use kbbackup_testing::ledger::{Entry, Ledger};
use kbbackup_testing::mysql::{self, DATA, MARIADB, MARIADB_10, MYSQL, Product, Server};
use kbbackup_testing::namespace::TempNamespace;
use serde_json::{Value, json};

use crate::moments::{
    Depth, Events, Random, Samples, Target, archiving, around, chosen, drop_copy, each, end, now, refused_outside,
    rows_at, schedule,
};
use crate::recipes::{account, lose, method, policy, restore, restored, take};
use crate::{begin, mariadb, mysql as clone};

/// The rows that are there behind a transaction, and its id.
type Commit = (RangeInclusive<usize>, String);

/// What differs between the two.
struct Dialect {
    product: Product,
    /// ActionSets of the full backup, its increments, and the log.
    recipes: (&'static str, Option<&'static str>, &'static str),
    create_account: fn(&Server),
    /// Queries: where the log ends, the last transaction of this session where the server tells it, and everything that was executed.
    end: &'static str,
    own: Option<&'static str>,
    position: &'static str,
    /// The rows that are there when the transaction of an entry is the last one, and its id.
    commit: fn(&Server, &[Entry], usize) -> Commit,
}

const ON_MARIADB: Dialect = Dialect {
    product: MARIADB,
    recipes: ("kbb-mariadb-full", Some("kbb-mariadb-incremental"), "kbb-mariadb-continuous"),
    create_account: mariadb::create_account,
    end: "show master status",
    own: Some("select @@last_gtid"),
    position: "select @@gtid_binlog_pos",
    commit: |_, entries, at| {
        let count = usize::try_from(entries[at].id).unwrap();
        (count..=count, format!("0-1-{}", entries[at].after.0))
    },
};

const ON_MYSQL: Dialect = Dialect {
    product: MYSQL,
    recipes: ("kbb-mysql-clone", None, "kbb-mysql-continuous"),
    create_account: |server| {
        clone::create_account(server);
        server.sql(&account("MySQL: `kbb-mysql-continuous`")).unwrap();
    },
    end: "show binary log status",
    own: None,
    position: "select replace(@@global.gtid_executed, '\n', '')",
    // Of a row only the numbers before and behind it are known: others commit meanwhile.
    commit: |server, entries, at| {
        let number = entries[at].after.0;
        let rows = |upto: &dyn Fn(&Entry) -> bool| entries.iter().filter(|entry| upto(entry)).count();
        let there = rows(&|entry| entry.after.0 <= number)..=rows(&|entry| entry.before.0 < number);
        let source = server.sql("select @@server_uuid").unwrap();
        (there, format!("{source}:{number}"))
    },
};

/// A time is kept to its second: what was acknowledged before it is there, and nothing that began after that second.
fn rows_of(samples: &[(Timestamp, usize)], at: Timestamp) -> RangeInclusive<usize> {
    *rows_at(samples, at).start()..=*rows_at(samples, at + Duration::from_secs(1)).end()
}

fn live(space: &TempNamespace, dialect: &Dialect, server: &Server, ledger: &Arc<Ledger>) -> Events<String> {
    let full = take(space, "full", "full");
    let based = ledger.len();
    if dialect.recipes.1.is_some() {
        ledger.wait_for(ledger.len() + 50).unwrap();
        take(space, "increment", "incremental");
    }
    let first = end(&full).unwrap();
    ledger.wait_for(ledger.len() + 50).unwrap();
    // Nobody writes for some seconds.
    server.sql("flush tables with read lock; do sleep(5); unlock tables").unwrap();
    let idle = Timestamp::from_second(Timestamp::now().as_second() - 2).unwrap();
    ledger.wait_for(ledger.len() + 50).unwrap();
    let (_, rows) = around(ledger, || server.sql("flush local binary logs").unwrap());
    let status = server.sql(dialect.end).unwrap();
    let border = (format!("{}:4", status.split('\t').next().unwrap()), rows);
    std::thread::scope(|scope| {
        let long =
            scope.spawn(|| server.sql("begin; insert into app.mark values ('long'); do sleep(6); commit").unwrap());
        std::thread::sleep(Duration::from_secs(3));
        let within = now();
        long.join().unwrap();
        let alter = format!("alter table app.mark add column more int; {}", dialect.own.unwrap_or_default());
        let altered = around(ledger, || server.sql(&alter).unwrap());
        ledger.wait_for(ledger.len() + 50).unwrap();
        std::thread::sleep(Duration::from_secs(2));
        Events { based, first, last: now(), idle, border, within, altered }
    })
}

fn wanted(
    random: &mut Random,
    depth: Depth,
    events: &Events<String>,
    samples: &[(Timestamp, usize)],
    entries: &[Entry],
    (rows, gtid): Commit,
    window: Timestamp,
) -> Vec<Target> {
    let at = |what, time| Target::at(what, time, rows_of(samples, time));
    let by = |what, target: &str, value: &str, rows| Target::at(what, events.first, rows).by(target, value);
    let without = rows.start() - 1..=*rows.end();
    let (ddl, altered) = &events.altered;
    let mut all = vec![
        by("at a commit", "gtid", &gtid, rows),
        by("before a commit", "gtid", &gtid, without).excluded(),
        at("in an idle gap", events.idle),
        by("at a file's border", "position", &events.border.0, events.border.1.clone()),
        at("inside a long transaction", events.within).with(false, false),
        by("at a DDL", "gtid", ddl, altered.clone()).with(true, true),
        by("before a DDL", "gtid", ddl, altered.clone()).excluded().with(true, false),
        Target::at("the end", window, entries.len()..=entries.len() + 1).by("latest", "").with(true, true),
        at("the first time", events.first),
    ];
    all.retain(|target| !ddl.is_empty() || !target.what.ends_with("DDL"));
    chosen(all, depth, || {
        let time = random.between(events.first.as_second(), events.last.as_second());
        at("between two commits", Timestamp::from_second(time).unwrap())
    })
}

fn comes_back_at_any_moment(test: &str, dialect: &Dialect, depth: Depth) {
    let product = dialect.product;
    let (cluster, space) = begin(test).unwrap();
    let mut random = Random::new();
    let server = Server::create(&space.kubectl, product, "db", "1Gi").unwrap();
    (dialect.create_account)(&server);
    server.fill().unwrap();
    server.sql("create table app.mark (what varchar(10))").unwrap();
    let (full, increment, log) = dialect.recipes;
    let mut methods = vec![method("full", full, DATA, None), method("log", log, DATA, None)];
    methods.extend(increment.map(|recipe| method("incremental", recipe, DATA, Some("full"))));
    let policy = policy("db", &mysql::labels(product, "db"), product.name, "mysql", &methods);
    space.kubectl.apply(&list(&[policy, schedule("db")]).to_string()).unwrap();
    let log = archiving(&space, "db");
    let load = server.load().unwrap();
    let ledger = Arc::new(server.ledger().unwrap());
    let samples = Samples::start(ledger.clone());
    ledger.wait_for(20).unwrap();
    let events = live(&space, dialect, &server, &ledger);
    space.kubectl.wait_for("backup", &log, LIMIT, |object| end(object).is_some_and(|end| end > events.last)).unwrap();
    let samples = samples.end();
    let entries = Arc::try_unwrap(ledger).ok().expect("nobody else has it").stop().unwrap();
    drop(load);
    let gtid = server.sql(dialect.position).unwrap();
    let some = random.between(events.based as i64 + 1, entries.len() as i64 - 10);
    let commit = (dialect.commit)(&server, &entries, usize::try_from(some).unwrap());
    let stored = |object: &Value| object["status"]["extras"][0]["end_gtid"] == gtid.as_str();
    let object = space.kubectl.wait_for("backup", &log, LIMIT, stored).unwrap();
    let window = end(&object).unwrap();
    assert_eq!(object["status"]["extras"].as_array().unwrap().len(), 1, "no gaps: {object}");

    // Everything is lost.
    let elsewhere = lose(&space, &cluster, &log);
    let allowed = format!("kbbackup.io/allow-restore-to={}", elsewhere.name);
    space.kubectl.run(&["annotate", "backup", "--all", "--overwrite", &allowed]).unwrap();
    let wanted = wanted(&mut random, depth, &events, &samples, &entries, commit, window);
    each(&wanted, |number, target| {
        let name = format!("t{number}");
        let mut object = restore(&name, &log, &space.name, &format!("data-{name}-0"), DATA);
        object["spec"]["restoreTime"] = json!(target.time.to_string());
        object["spec"]["parameters"] = target.parameters();
        elsewhere.kubectl.apply(&object.to_string()).unwrap();
        let reached = restored(&elsewhere, &name);
        let copy = Server::create(&elsewhere.kubectl, product, &name, "1Gi").unwrap();
        let position = reached["position"].as_str().unwrap();
        let rows = usize::try_from(copy.check(&entries, position).unwrap()).unwrap();
        let columns =
            "select count(*) from information_schema.columns where table_schema = 'app' and table_name = 'mark'";
        target.judge(&reached, rows, || {
            let ask = |query| copy.sql(query).unwrap();
            (ask("select count(*) from app.mark") == "1", ask(columns) == "2")
        });
        drop_copy(&elsewhere, &name);
    });
    let window = end(&space.kubectl.get(&["backup", &log]).unwrap()).unwrap();
    refused_outside(&elsewhere, (events.first, window), |name, time| {
        let mut object = restore(name, &log, &space.name, name, DATA);
        object["spec"]["restoreTime"] = json!(time.to_string());
        object
    });
    space.kubectl.run(&["delete", "backupschedule", "db", "--timeout=180s"]).unwrap();
    space.kubectl.run(&["delete", "backup", "--all", "--timeout=180s"]).unwrap();
}

#[test]
fn mariadb_11_8_comes_back_at_any_moment_of_its_log_pitr() {
    comes_back_at_any_moment("mariadb-pitr", &ON_MARIADB, Depth::Every);
}

#[test]
fn mariadb_10_11_comes_back_at_any_moment_of_its_log_pitr() {
    comes_back_at_any_moment("mariadb-10-pitr", &Dialect { product: MARIADB_10, ..ON_MARIADB }, Depth::Few);
}

#[test]
fn mysql_9_7_comes_back_at_any_moment_of_its_log_pitr() {
    comes_back_at_any_moment("mysql-pitr", &ON_MYSQL, Depth::Few);
}
