//! The ActionSets of `PostgreSQL`, their scripts run here as a pod would, against a real server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::common::action::{Action, Stage, wait};
use crate::common::archive::{server, write, write_much};
use crate::common::postgres::{PASSWORD, Postgres};
use serde_json::Value;

/// The first ActionSet of all, which has a name of its own.
const BASEBACKUP: &str = "pg-basebackup";

/// A server, a repository of files, and what pods have beside it.
struct Site {
    server: Postgres,
    stage: Stage,
}

impl Site {
    /// `None` where this machine cannot play a pod.
    fn new() -> Option<Self> {
        let stage = Stage::new()?;
        Some(Self { server: server()?, stage })
    }

    fn action(&self, action_set: &str, phase: &str, backup: &str) -> Action {
        let name = if action_set == BASEBACKUP { action_set.to_owned() } else { format!("kbb-postgres-{action_set}") };
        let servers = crate::common::postgres::installed().unwrap();
        self.stage
            .action(&name, phase, backup, servers.to_str().unwrap())
            .env("DP_DB_PORT", &self.server.port.to_string())
            .env("DP_DB_USER", "postgres")
            .env("DP_DB_PASSWORD", PASSWORD)
    }

    #[track_caller]
    fn full(&self, backup: &str) -> Value {
        let done = self.action("full", "backupData", backup).run();
        assert!(done.ok, "{}", done.told);
        done.info
    }

    /// Starts the archiver and waits until it says that times can be reached.
    #[track_caller]
    fn archive(&self) -> (Child, PathBuf) {
        let mut action = self.action("continuous", "backupData", "log");
        action.command.env("heartbeatSeconds", "1").env("partialSeconds", "1");
        let log = fs::File::create(self.stage.dir.path().join("archive.log")).unwrap();
        let child = action.command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        wait(&action.info, &|info| info["timeRange"]["end"].is_string());
        (child, action.info)
    }
}

const CONTENT: &str = "select n from ledger order by n";

#[test]
fn a_full_backup_with_tablespaces_comes_back_as_it_was() {
    let Some(site) = Site::new() else { return };
    write_much(&site.server);
    let location = site.stage.place("elsewhere");
    fs::create_dir_all(&location).unwrap();
    let _ = Command::new("chown").args(["postgres:postgres"]).arg(&location).status();
    site.server.ask("create extension amcheck");
    let plain = site.full("plain");
    assert_eq!(plain["extras"][0]["parent"], "");
    site.server.ask(&format!("create tablespace apart location '{}'", location.display()));
    site.server.ask("create table far (n int) tablespace apart");
    site.server.ask("insert into far select generate_series(1, 1000)");
    site.full("spread");
    assert!(site.stage.object("spread/COMPLETE").exists());
    assert_eq!(site.server.ask("select count(*) from pg_replication_slots"), "0");

    let data = site.stage.place("restored");
    let apart = site.stage.dir.path().join("tablespaces");
    let restore = |backup: &str, data: &Path| {
        site.action("full", "prepareData", backup)
            .env("KBB_DATA_DIR", data.to_str().unwrap())
            .env("KBB_TABLESPACE_DIR", apart.to_str().unwrap())
    };
    let done = restore("spread", &data).run();
    assert!(done.ok, "{}", done.told);
    assert!(done.result["position"].as_str().unwrap().contains('/'), "{}", done.result);
    let copy = site.server.adopt(&data);
    copy.start();
    assert_eq!(copy.ask(CONTENT), site.server.ask(CONTENT));
    assert_eq!(copy.ask("select sum(n) from far"), "500500");
    assert!(
        copy.ask("select pg_tablespace_location(oid) from pg_tablespace where spcname = 'apart'")
            .starts_with(apart.to_str().unwrap())
    );
    drop(copy);

    restore("spread", &data).refused_for("is not empty");
    let other = site.stage.place("other");
    let sums = site.stage.object("spread/sums");
    let text = fs::read_to_string(&sums).unwrap();
    fs::write(&sums, text.replacen('a', "b", 1)).unwrap();
    restore("spread", &other).refused_for("is not what COMPLETE says");
    fs::remove_file(site.stage.object("spread/COMPLETE")).unwrap();
    restore("spread", &other).refused_for("never became whole");
    let base = site.stage.object("plain/base.tar.zst");
    fs::copy(site.stage.object("spread/base.tar.zst"), &base).unwrap();
    restore("plain", &other).refused_for("its digest is another");
}

/// What is not on a volume is gone with the pod, however well it was restored.
#[test]
fn a_restore_beside_the_volumes_is_refused_and_so_is_a_volume_in_use() {
    let Some(site) = Site::new() else { return };
    let astray = tempfile::tempdir_in("/").unwrap();
    for action_set in ["full", BASEBACKUP] {
        let backup = format!("of-{action_set}");
        let done = site.action(action_set, "backupData", &backup).run();
        assert!(done.ok, "{}", done.told);
        let restore = |data: &Path| {
            let restore = site.action(action_set, "prepareData", &backup).knowing(&done.info);
            restore.env("KBB_DATA_DIR", data.to_str().unwrap())
        };
        restore(&astray.path().join("data")).refused_for("no volume is mounted");
        let used = site.stage.place(&backup);
        fs::create_dir(&used).unwrap();
        fs::write(used.join("precious"), "data").unwrap();
        restore(&used).refused_for("is not empty");
        assert_eq!(fs::read_dir(&used).unwrap().count(), 1);
    }
}

#[test]
fn a_retry_stores_everything_anew_and_an_increment_says_what_it_needs() {
    let Some(site) = Site::new() else { return };
    let first = site.full("full");
    let again = site.action("full", "backupData", "full").run();
    assert!(again.ok, "{}", again.told);
    // What only an attempt that failed has stored is not sealed, however whole it looks.
    assert_ne!(again.info["extras"][0]["end_lsn"], first["extras"][0]["end_lsn"]);
    let about = fs::read_to_string(site.stage.object("full/COMPLETE")).unwrap();
    assert!(about.contains(again.info["extras"][0]["end_lsn"].as_str().unwrap()), "{about}");
    if site.server.ask("show server_version_num").as_str() < "170000" {
        let increment = site.action("incremental", "backupData", "increment").env("DP_PARENT_BACKUP_NAME", "full");
        increment.refused_for("incremental backups need PostgreSQL 17");
    }
    let wrong = site.action("full", "backupData", "wrong").env("DP_DB_PASSWORD", "battery-staple");
    wrong.refused_for("cannot log in");
}

#[test]
fn the_log_is_replayed_on_a_base_to_the_target_and_the_position_is_told() {
    let Some(site) = Site::new() else { return };
    let (mut archiver, info) = site.archive();
    write(&site.server, 3);
    site.full("base");
    write_much(&site.server);
    write(&site.server, 5);
    let middle = site.server.ask("select max(n), pg_current_wal_insert_lsn() from ledger");
    let (middle, lsn) = middle.split_once('|').unwrap();
    let time = site.server.ask("select ceil(extract(epoch from clock_timestamp()))::bigint");
    std::thread::sleep(Duration::from_millis(1100));
    write(&site.server, 5);
    let end = site.server.ask("select pg_current_wal_flush_lsn()");
    let is_stored = |info: &Value| {
        let stored = info["extras"][0]["end_lsn"].as_str().unwrap_or("0/0");
        site.server.ask(&format!("select '{stored}'::pg_lsn >= '{end}'::pg_lsn")) == "t"
    };
    let log = wait(&info, &is_stored);
    let _ = Command::new("kill").arg(archiver.id().to_string()).status();
    assert_eq!(archiver.wait().unwrap().code(), Some(0));

    let base = |data: &Path| {
        let base = site.action("full", "prepareData", "base").env("KBB_DATA_DIR", data.to_str().unwrap());
        let done = base.env("DP_RESTORE_TIMESTAMP", &time).run();
        assert!(done.ok, "{}", done.told);
    };
    let replay = |data: &Path| {
        let replay = site.action("continuous", "prepareData", "log").knowing(&log).env("DP_BASE_BACKUP_NAME", "base");
        replay.env("KBB_DATA_DIR", data.to_str().unwrap()).env("DP_RESTORE_TIMESTAMP", &time)
    };
    let all = site.server.ask("select max(n) from ledger");
    for (target, value, last) in [("time", "", middle), ("lsn", lsn, middle), ("latest", "", all.as_str())] {
        let data = site.stage.place(target);
        base(&data);
        let done = replay(&data).env("target", target).env("targetValue", value).run();
        assert!(done.ok, "{target}: {}", done.told);
        let copy = site.server.adopt(&data);
        copy.start();
        assert_eq!(copy.ask("select max(n) from ledger"), last, "{target}: {}", done.told);
        assert_eq!(copy.ask("select count(*) from ledger"), last, "{target}");
        assert_eq!(done.result["timeline"], "2");
        let reached = done.result["position"].as_str().unwrap();
        assert_eq!(copy.ask(&format!("select '{reached}'::pg_lsn >= '{lsn}'::pg_lsn")), "t", "{}", done.result);
        assert!(!data.join(".kbbackup-restore").exists());
        drop(copy);
        replay(&data).refused_for("this restore did not put there");
    }
    let data = site.stage.place("beyond");
    base(&data);
    replay(&data)
        .env("DP_RESTORE_TIMESTAMP", "4102444800")
        .refused_for("before configured recovery target was reached");
    // What the archive says to hold and does not have is no end.
    let data = site.stage.place("short");
    base(&data);
    let mut more = log.clone();
    more["extras"][0]["end_lsn"] = "7/0".into();
    let short =
        site.action("continuous", "prepareData", "log").knowing(&more).env("KBB_DATA_DIR", data.to_str().unwrap());
    short.env("DP_RESTORE_TIMESTAMP", &time).env("target", "latest").refused_for("holds everything before 7/0");

    let slots = "select count(*) from pg_replication_slots";
    assert_eq!(site.server.ask(slots), "1");
    for _ in 0..2 {
        let done = site.action("continuous", "preDelete", "log").run();
        assert!(done.ok, "{}", done.told);
        assert_eq!(site.server.ask(slots), "0");
    }
    let gone = site.action("continuous", "preDelete", "log").env("DP_DB_HOST", "").run();
    assert!(gone.ok && gone.told.contains("the database is gone"), "{}", gone.told);
}

#[test]
fn dumps_come_back_one_database_at_a_time_and_overwrite_nothing_unasked() {
    let Some(site) = Site::new() else { return };
    write(&site.server, 4);
    site.server.ask("create role reader login password 'secret-of-reader'");
    site.server.ask("grant select on ledger to reader");
    site.server.ask("create database \"it's, odd\"");
    let done = site.action("dump", "backupData", "all").run();
    assert!(done.ok, "{}", done.told);
    let done = site.action("dump", "backupData", "one").env("databases", "postgres").run();
    assert!(done.ok, "{}", done.told);
    assert_eq!(fs::read_to_string(site.stage.object("one/databases")).unwrap().lines().count(), 1);
    site.action("dump", "backupData", "none").env("databases", "missing").refused_for("there is no database missing");

    let restore = |backup: &str| site.action("dump", "postReady", backup);
    restore("one").refused_for("has tables");
    site.server.ask("delete from ledger where n > 2");
    site.server.ask("drop owned by reader");
    site.server.ask("drop role reader");
    site.server.ask("drop database \"it's, odd\"");
    let done = restore("all").env("conflict", "replace").run();
    assert!(done.ok, "{}", done.told);
    assert_eq!(site.server.ask("select count(*) from ledger"), "4");
    assert_eq!(site.server.ask("select has_table_privilege('reader', 'ledger', 'select')"), "t");
    assert_eq!(site.server.ask("select count(*) from pg_database where datname = 'it''s, odd'"), "1");
}
