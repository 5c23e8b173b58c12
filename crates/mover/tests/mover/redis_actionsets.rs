//! The ActionSet of the append-only file, its scripts run here as a pod would, against a real server.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::common::action::{Action, Stage, wait};
use crate::common::not_tried;
use crate::common::redis::{PASSWORD, Redis, USER, installed};
use serde_json::Value;

struct Site {
    server: Redis,
    stage: Stage,
}

impl Site {
    fn new() -> Option<Self> {
        let stage = Stage::new()?;
        let Some(server) = installed() else {
            not_tried("no Redis is installed");
            return None;
        };
        Some(Self { server: Redis::create(&server), stage })
    }

    fn action(&self, phase: &str, backup: &str) -> Action {
        let action = self.stage.action("kbb-redis-continuous", phase, backup, "/usr/local/bin");
        action.env("KBB_DATA_UID", "nobody")
    }

    /// Archives until `done`.
    fn archive(&self, done: &dyn Fn(&Value) -> bool) -> Value {
        let mut action = self
            .action("backupData", "log")
            .env("DP_DB_PORT", &self.server.port.to_string())
            .env("DP_DB_USER", USER)
            .env("DP_DB_PASSWORD", PASSWORD)
            .env("KBB_DATA_DIR", self.server.data().to_str().unwrap())
            .env("heartbeatSeconds", "1")
            .env("chunkSeconds", "1");
        let log = fs::File::create(self.stage.dir.path().join("archive.log")).unwrap();
        let archiver = action.command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let info = wait(&action.info, done);
        end(archiver);
        info
    }
}

fn end(mut archiver: Child) {
    let _ = Command::new("kill").arg(archiver.id().to_string()).status();
    assert_eq!(archiver.wait().unwrap().code(), Some(0));
}

#[test]
fn a_time_comes_back_as_either_kind_of_file_and_nothing_of_the_source_s_log_goes_on() {
    let Some(site) = Site::new() else { return };
    let server = &site.server;
    for number in 0..5 {
        server.push(&number.to_string());
    }
    server.ask(&["SET", "other", "there", "EX", "3600"]);
    let time = server.time();
    std::thread::sleep(Duration::from_millis(1100));
    server.push("late");
    let all = server.entries();
    // The time at which it was pushed can be reached once a later one is stored.
    let late = server.time();
    let reaches = move |info: &Value| {
        let end: Option<jiff::Timestamp> = info["timeRange"]["end"].as_str().and_then(|end| end.parse().ok());
        end.is_some_and(|end| end.as_second() >= late)
    };
    let log = site.archive(&reaches);
    assert_eq!(log["extras"][0]["engine"], "redis");
    for (name, target, appendonly, wanted) in
        [("aof", "time", "yes", &all[..5]), ("rdb", "time", "no", &all[..5]), ("all", "latest", "yes", &all[..])]
    {
        let data = site.stage.place(name);
        let restore = |backup| {
            site.action("prepareData", backup)
                .knowing(&log)
                .env("KBB_DATA_DIR", data.to_str().unwrap())
                .env("DP_RESTORE_TIMESTAMP", &time.to_string())
                .env("target", target)
                .env("appendonly", appendonly)
        };
        let done = restore("log").run();
        assert!(done.ok, "{name}: {}", done.told);
        assert_eq!(done.result["engine"], "redis", "{}", done.told);
        assert!(done.result["position"].as_str().is_some_and(|place| place.contains("/1:")), "{}", done.told);
        assert_eq!(data.join("appendonlydir").exists(), appendonly == "yes");
        let copy = server.adopt(&data);
        if appendonly == "no" {
            // A server that is told of an append-only file would not look at it.
            assert_eq!(copy.entries(), Vec::<String>::new());
            copy.stop("TERM");
            fs::remove_dir_all(data.join("appendonlydir")).unwrap();
            copy.option(&["--appendonly", "no"]);
            copy.start();
        }
        assert_eq!(copy.entries(), wanted, "{name}: {}", done.told);
        assert_eq!(copy.ask(&["GET", "other"]), "there");
        restore("log").refused_for("is not empty; restore into new volumes");
    }
    let data = site.stage.place("outside");
    let outside = site.action("prepareData", "log").knowing(&log).env("KBB_DATA_DIR", data.to_str().unwrap());
    outside
        .env("DP_RESTORE_TIMESTAMP", "1000000000")
        .refused_for("the target cannot be reached; what can be reached is");
    assert!(!data.exists(), "nothing is touched");
}
