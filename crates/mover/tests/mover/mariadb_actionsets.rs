//! The ActionSets of `MariaDB`, their scripts run here as a pod would, against a real server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::common::action::{Action, Stage, wait};
use crate::common::mariadb::{MariaDb, PASSWORD, USER, installed};
use crate::common::not_tried;
use serde_json::Value;

struct Site {
    server: MariaDb,
    stage: Stage,
}

const CONTENT: &str = "select n from app.ledger order by n";

impl Site {
    fn new() -> Option<Self> {
        let stage = Stage::new()?;
        let backup = Path::new("/usr/bin/mariadb-backup");
        let (Some(server), true) = (installed(), backup.exists()) else {
            not_tried("no MariaDB with mariadb-backup is installed");
            return None;
        };
        Some(Self { server: MariaDb::create(&server), stage })
    }

    fn action(&self, action_set: &str, phase: &str, backup: &str) -> Action {
        self.stage
            .action(&format!("kbb-mariadb-{action_set}"), phase, backup, "/usr/local/bin")
            .env("DP_DB_PORT", &self.server.port.to_string())
            .env("DP_DB_USER", USER)
            .env("DP_DB_PASSWORD", PASSWORD)
            .env("KBB_DATA_UID", "nobody")
            .env("tls", "off")
    }

    fn write(&self, rows: usize) {
        for _ in 0..rows {
            self.server.ask("insert into app.ledger (pad) values (repeat('x', 200))");
        }
    }

    #[track_caller]
    fn take(&self, action_set: &str, backup: &str, parent: &str) {
        let done = self.action(action_set, "backupData", backup).env("DP_PARENT_BACKUP_NAME", parent).run();
        assert!(done.ok, "{}", done.told);
    }

    #[track_caller]
    fn archive(&self) -> (Child, PathBuf) {
        let mut action =
            self.action("continuous", "backupData", "log").env("heartbeatSeconds", "1").env("partialSeconds", "1");
        let log = fs::File::create(self.stage.dir.path().join("archive.log")).unwrap();
        let child = action.command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        wait(&action.info, &|info| info["extras"][0]["end_binlog"].is_string());
        (child, action.info)
    }

    /// The stage of the base backup, which another one follows.
    #[track_caller]
    fn base(&self, action_set: &str, backup: &str, data: &Path, time: &str) {
        let base = self.action(action_set, "prepareData", backup).env("KBB_DATA_DIR", data.to_str().unwrap());
        let base = if backup == "full" { base } else { base.env("DP_BASE_BACKUP_NAME", "full") };
        let done = base.env("DP_RESTORE_TIMESTAMP", time).run();
        assert!(done.ok && done.told.contains("the log stage follows"), "{}", done.told);
        assert_eq!(done.result, Value::Null);
    }

    fn replay(&self, log: &Value, data: &Path, time: &str) -> Action {
        let replay = self.action("continuous", "prepareData", "log").knowing(log).env("DP_BASE_BACKUP_NAME", "full");
        replay.env("KBB_DATA_DIR", data.to_str().unwrap()).env("DP_RESTORE_TIMESTAMP", time)
    }
}

fn end(mut archiver: Child) {
    let _ = Command::new("kill").arg(archiver.id().to_string()).status();
    assert_eq!(archiver.wait().unwrap().code(), Some(0));
}

#[test]
fn the_log_is_replayed_on_a_base_to_the_target_and_the_position_is_told() {
    let Some(site) = Site::new() else { return };
    let server = &site.server;
    let (archiver, info) = site.archive();
    site.write(3);
    site.take("full", "full", "");
    site.write(3);
    site.take("incremental", "increment", "full");
    site.write(2);
    server.ask("create user 'late'@'%' identified by 'x'; grant select on app.* to 'late'@'%'");
    server.ask("flush local binary logs");
    site.write(2);
    let (place, gtid) = server.place();
    let middle = server.ask(CONTENT);
    let time = server.ask("select unix_timestamp()");
    std::thread::sleep(Duration::from_millis(1100));
    site.write(4);
    let (_, last) = server.place();
    let log = wait(&info, &|info| info["extras"][0]["end_gtid"] == last.as_str());
    end(archiver);
    let all = server.ask(CONTENT);
    for (target, value, wanted, base) in [
        ("time", "", &middle, "full"),
        ("gtid", gtid.as_str(), &middle, "increment"),
        ("position", place.as_str(), &middle, "full"),
        ("latest", "", &all, "increment"),
    ] {
        let data = site.stage.place(target);
        site.base(if base == "full" { "full" } else { "incremental" }, base, &data, &time);
        let done = site.replay(&log, &data, &time).env("target", target).env("targetValue", value).run();
        assert!(done.ok, "{target}: {}", done.told);
        let copy = server.adopt(&data);
        copy.option("--gtid-strict-mode=ON");
        copy.start();
        assert_eq!(copy.ask(CONTENT), *wanted, "{target}: {}", done.told);
        assert_eq!(
            copy.ask("select count(*) from mysql.db where user = 'late'"),
            "1",
            "accounts come by the log as well"
        );
        assert_eq!(done.result["position"], copy.ask("select @@gtid_slave_pos"), "{target}");
        if *wanted == middle {
            assert_eq!(done.result["position"], gtid, "{}", done.result);
            assert_eq!(done.result["binlog"], place, "{}", done.result);
            assert!(done.result["lastCommit"].as_str().unwrap().ends_with('Z'), "{}", done.result);
        }
        let left: Vec<_> = fs::read_dir(&data).unwrap().flatten().map(|item| item.file_name()).collect();
        assert!(!left.iter().any(|name| name.to_str().unwrap().starts_with(".kbb")), "{left:?}");
        drop(copy);
        site.replay(&log, &data, &time).refused_for("holds no base backup that a stage of this restore put there");
    }
    let data = site.stage.place("beyond");
    site.base("full", "full", &data, "4102444800");
    site.replay(&log, &data, "4102444800").refused_for("the archive ends before the target");
    // Nothing was replayed yet: the same volume serves for a better time.
    assert!(site.replay(&log, &data, &time).run().ok);
}

#[test]
fn a_replay_that_died_begins_again_from_the_base() {
    let Some(site) = Site::new() else { return };
    let (archiver, info) = site.archive();
    site.write(2);
    site.take("full", "full", "");
    site.write(5);
    site.server.ask("update app.ledger set pad = concat(pad, 'once')");
    let (_, last) = site.server.place();
    let log = wait(&info, &|info| info["extras"][0]["end_gtid"] == last.as_str());
    end(archiver);
    let data = site.stage.place("again");
    site.base("full", "full", &data, "1");
    // Its reader ends it in the middle: a bit of the fetched log is not what it was.
    let bin = site.stage.dir.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let broken = bin.join("mariadb-binlog");
    fs::write(
        &broken,
        "#!/bin/bash\n/usr/bin/mariadb-binlog \"$@\" | sed '/DELIMITER ;/,$d'\necho 'no sql /*!*/;'\nexit 1\n",
    )
    .unwrap();
    fs::set_permissions(&broken, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display());
    site.replay(&log, &data, "1")
        .env("target", "latest")
        .env("PATH", &path)
        .refused_for("the log could not be replayed");
    assert!(data.join(".kbbackup-replay").exists());
    let done = site.replay(&log, &data, "1").env("target", "latest").run();
    assert!(done.ok && done.told.contains("the base backup is restored anew"), "{}", done.told);
    assert_eq!(done.result["position"], last);
    let copy = site.server.adopt(&data);
    copy.start();
    let content = "select n, pad from app.ledger order by n";
    assert_eq!(copy.ask(content), site.server.ask(content));
}
