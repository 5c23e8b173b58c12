//! A database that goes back in place while its log is archived goes on upon a second timeline: times of that are restored, and so are
//! those of the branch that was left.

use jiff::Timestamp;
use kbbackup_e2e::LIMIT;
use kbbackup_testing::namespace::TempNamespace;
use kbbackup_testing::postgres::Postgres;
use serde_json::Value;

use crate::begin;
use crate::moments::{end, now};
use crate::pitr::{Source, take};

/// A second in which nothing is written, with something on both sides.
fn moment(source: &Source, before: &str, after: &str) -> Timestamp {
    source.postgres.sql(&format!("insert into said values ('{before}')")).unwrap();
    std::thread::sleep(std::time::Duration::from_secs(2));
    let moment = now();
    std::thread::sleep(std::time::Duration::from_secs(2));
    source.postgres.sql(&format!("insert into said values ('{after}')")).unwrap();
    moment
}

fn archived(space: &TempNamespace, source: &Source, timeline: &str) -> Value {
    // A transaction that ends later than whatever is asked for.
    source.postgres.sql("create table if not exists later()").unwrap();
    let now = Timestamp::now();
    source.postgres.sql("drop table later").unwrap();
    let reached = |object: &Value| {
        object["status"]["extras"][0]["timeline"] == timeline && end(object).is_some_and(|end| end > now)
    };
    space.kubectl.wait_for("backup", &source.log, LIMIT, reached).unwrap()
}

fn said(postgres: &Postgres) -> String {
    postgres.sql("select string_agg(what, ' ' order by what) from said").unwrap()
}

#[test]
fn both_branches_are_restorable_after_going_back_in_place_pitr() {
    let (_cluster, space) = begin("branches").unwrap();
    let source = Source::create(&space, 17, None);
    source.postgres.sql("create table said (what text)").unwrap();
    take(&space, "full", "full");
    let back = moment(&source, "a", "b");
    let old = moment(&source, "c", "d");
    archived(&space, &source, "1");

    let restore = |name: &str, to: Timestamp, more: &[&str]| {
        let to = to.to_string();
        let args = ["kbbackup", "restore", name, "--source", "statefulset/pg", "--to-time", &to];
        let waits = ["--yes", "--wait", "--timeout", "5m"];
        space.kubectl.run(&[&args[..], more, &waits].concat()).unwrap();
        let postgres = Postgres::existing(&space.kubectl, name);
        postgres.wait_ready().unwrap();
        said(&postgres)
    };
    assert_eq!(restore("pg", back, &["--in-place"]), "a");
    let new = moment(&source, "e", "f");
    let object = archived(&space, &source, "2");
    assert_eq!(object["status"]["extras"].as_array().unwrap().len(), 1, "no gaps: {object}");

    assert_eq!(restore("pg-new", new, &[]), "a e");
    assert_eq!(restore("pg-old", old, &["--param", "timeline=1"]), "a b c");

    space.kubectl.run(&["delete", "backupschedule", "pg", "--timeout=180s"]).unwrap();
    space.kubectl.run(&["delete", "backup", "--all", "--timeout=180s"]).unwrap();
}
