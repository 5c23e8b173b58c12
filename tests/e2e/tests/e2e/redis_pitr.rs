//! Redis and Valkey by kbb-redis-continuous: written to, rewritten, lost; back at moments of every kind, each time exactly what was done up
//! to that second of the server's clock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kbbackup_e2e::LIMIT;
use kbbackup_testing::fixtures::list;
use kbbackup_testing::kubectl::Kubectl;
use kbbackup_testing::ledger::{self, Ledger, Tongue};
use kbbackup_testing::lsn::Lsn;
use kbbackup_testing::mysql::BACKUP_PASSWORD;
use serde_json::{Value, json};

use crate::begin;
use crate::moments::{Random, Samples, archiving, end, now, refused_outside, rows_at, schedule};
use crate::recipes::{account, lose, method, policy, restore, restored, server, start};

/// Adds a row with its second and its check, in one step that changes another database as well; its number is its position.
const PUSH: &str = "local now = redis.call('TIME') \
    redis.call('RPUSH', 'ledger', ARGV[1] .. ':' .. now[1] .. ':' .. now[2] .. ':' .. redis.sha1hex(ARGV[1])) \
    redis.call('SELECT', 3) redis.call('INCR', 'count') return '0/' .. string.format('%X', ARGV[1])";
const LENGTH: &str = r#"EVAL "return '0/' .. string.format('%X', redis.call('llen', 'ledger'))" 0"#;
/// Numbers, seconds and microseconds of the rows that are what they should be.
const ROWS: &str = "local rows = {} for place, row in ipairs(redis.call('LRANGE', 'ledger', 0, -1)) do \
    local id, second, micros, sum = string.match(row, '^(%d+):(%d+):(%d+):(%x+)$') \
    rows[place] = (sum == redis.sha1hex(id) and id or 'damaged') .. ' ' .. second .. ' ' .. micros end return rows";
/// The log of Redis 7.0 has the time at which a script began, and the script is told a later one: so many microseconds at the most.
const BORDER: i64 = 20_000;

struct Product {
    image: &'static str,
    name: &'static str,
}

impl Product {
    fn objects(&self) -> Value {
        let server_program = format!("{}-server", self.name);
        let command = [
            server_program.as_str(),
            "--bind",
            "*",
            "--dir",
            "/data",
            "--protected-mode",
            "no",
            "--save",
            "",
            "--appendonly",
            "yes",
            "--aof-timestamp-enabled",
            "yes",
        ];
        let auth = json!({"username": "kbbackup", "password": BACKUP_PASSWORD});
        server(self.image, &command, ("redis", 6379), 1, &auth)
    }

    fn ask(&self, kubectl: &Kubectl, commands: &str) -> String {
        let client = format!("{}-cli", self.name);
        let said = kubectl.run_with_input(&["exec", "-i", "db-0", "--", &client], commands).unwrap();
        assert!(!said.contains("ERR"), "{said}");
        said.trim().to_owned()
    }

    /// The rows: their numbers, seconds and microseconds; each must be what it should, and the other database must count as many.
    fn rows(&self, kubectl: &Kubectl) -> Vec<[i64; 3]> {
        let told = self.ask(kubectl, &format!("EVAL \"{ROWS}\" 0\nSELECT 3\nGET count\n"));
        let lines: Vec<&str> = told.lines().map(str::trim).collect();
        let row = |line: &&str| -> Option<[i64; 3]> {
            let numbers: Option<Vec<i64>> = line.split(' ').map(|number| number.parse().ok()).collect();
            numbers?.try_into().ok()
        };
        let rows: Vec<[i64; 3]> = lines.iter().map_while(row).collect();
        assert_eq!(
            lines[rows.len()..],
            ["OK", &rows.len().to_string()],
            "what is no row, and the other database's count"
        );
        rows
    }

    fn comes_back(&self, test: &str, tongue: Tongue) {
        let (cluster, space) = begin(test).unwrap();
        let mut random = Random::new();
        start(&space, &self.objects(), 1);
        let quoted = format!("\">{}\"", BACKUP_PASSWORD.replace('\\', r"\\").replace('"', "\\\""));
        self.ask(&space.kubectl, &account("Redis and Valkey: `kbb-redis-continuous`").replace(">…", &quoted));
        let labels = json!({"app.kubernetes.io/name": "db"});
        let policy = policy("db", &labels, "main", "redis", &[method("log", "kbb-redis-continuous", "/data", None)]);
        space.kubectl.apply(&list(&[policy, schedule("db")]).to_string()).unwrap();
        let log = archiving(&space, "db");

        let ledger = Arc::new(Ledger::start_in(&space.kubectl, "db-0", tongue).unwrap());
        let samples = Samples::start(ledger.clone());
        ledger.wait_for(100).unwrap();
        let first = now();
        ledger.wait_for(ledger.len() + 100).unwrap();
        self.ask(&space.kubectl, "BGREWRITEAOF\n");
        ledger.wait_for(ledger.len() + 100).unwrap();
        // Nobody writes for some seconds.
        self.ask(&space.kubectl, "CLIENT PAUSE 5000 WRITE\n");
        let idle = Timestamp::from_second(Timestamp::now().as_second() + 3).unwrap();
        ledger.wait_for(ledger.len() + 50).unwrap();
        // One transaction that takes its time.
        let slow = "MULTI\nSET slow 1\nEVAL \"for i = 1, 100000000 do end\" 0\nSET slow 2\nEXEC\n";
        self.ask(&space.kubectl, slow);
        ledger.wait_for(ledger.len() + 100).unwrap();
        self.ask(&space.kubectl, "BGREWRITEAOF\n");
        ledger.wait_for(ledger.len() + 100).unwrap();
        let last = now();
        ledger.wait_for(ledger.len() + 150).unwrap();
        let samples = samples.end();
        let entries = Arc::try_unwrap(ledger).ok().expect("nobody else has it").stop().unwrap();
        let all = self.rows(&space.kubectl);
        let written = self.ask(&space.kubectl, "TIME\n").lines().next().unwrap().parse::<i64>().unwrap();
        let stored = |object: &Value| end(object).is_some_and(|end| end.as_second() >= written);
        let object = space.kubectl.wait_for("backup", &log, LIMIT, stored).unwrap();
        assert_eq!(object["status"]["extras"].as_array().unwrap().len(), 1, "no gaps: {object}");

        // Everything is lost.
        let elsewhere = lose(&space, &cluster, &log);
        let between = Timestamp::from_second(random.between(first.as_second(), last.as_second())).unwrap();
        let targets = [
            ("the first time", Some(first)),
            ("in an idle gap", Some(idle)),
            ("between two commands", Some(between)),
            ("behind the last rewrite", Some(last)),
            ("the end", None),
        ];
        for (what, time) in targets {
            elsewhere
                .kubectl
                .run(&["delete", "statefulset,service,secret,pvc,restore", "--all", "--timeout=180s"])
                .unwrap();
            let mut object = restore("r", &log, &space.name, "data-db-0", "/data");
            object["spec"]["restoreTime"] = json!(time.unwrap_or(last).to_string());
            if time.is_none() {
                object["spec"]["parameters"] = json!([{"name": "target", "value": "latest"}]);
            }
            elsewhere.kubectl.apply(&object.to_string()).unwrap();
            let told = restored(&elsewhere, "r");
            start(&elsewhere, &self.objects(), 1);
            let rows = self.rows(&elsewhere.kubectl);
            let upto = |border: i64| {
                let within = |[_, second, micros]: &&[i64; 3]| {
                    time.is_none_or(|time| second * 1_000_000 + micros < (time.as_second() + 1) * 1_000_000 + border)
                };
                all.iter().take_while(within).count()
            };
            assert!((upto(0)..=upto(BORDER)).contains(&rows.len()), "{what}: {} rows; {told}", rows.len());
            assert_eq!(rows, all[..rows.len()], "{what}: {told}");
            println!("{what}: {time:?} gave {told}, {} rows", rows.len());
            if let Some(time) = time {
                // By another clock as well.
                let range = *rows_at(&samples, time).start()..=*rows_at(&samples, time + Duration::from_secs(1)).end();
                assert!(range.contains(&rows.len()), "{what}: {} rows and not {range:?}", rows.len());
            }
            let there: BTreeMap<u64, bool> = rows.iter().map(|[id, ..]| (id.unsigned_abs(), true)).collect();
            ledger::compare(&entries, &there, Lsn(rows.len() as u64)).unwrap();
            let slow = self.ask(&elsewhere.kubectl, "GET slow\n");
            assert!(["", "2"].contains(&slow.as_str()), "{what}: half of a transaction: {slow}");
            assert_eq!(told["engine"], self.name, "{told}");
        }
        let start = space.kubectl.get(&["backup", &log]).unwrap()["status"]["timeRange"]["start"].clone();
        let window =
            (start.as_str().unwrap().parse().unwrap(), end(&space.kubectl.get(&["backup", &log]).unwrap()).unwrap());
        refused_outside(&elsewhere, window, |name, time| {
            let mut object = restore(name, &log, &space.name, name, "/data");
            object["spec"]["restoreTime"] = json!(time.to_string());
            object
        });
        space.kubectl.run(&["delete", "backupschedule", "db", "--timeout=180s"]).unwrap();
        space.kubectl.run(&["delete", "backup", "--all", "--timeout=180s"]).unwrap();
    }
}

#[test]
fn redis_comes_back_at_any_second_of_its_append_only_file_pitr() {
    let insert = |id| format!("EVAL \"{PUSH}\" 0 {id}");
    Product { image: "kbbackup.test/redis:7.0", name: "redis" }
        .comes_back("redis-pitr", Tongue { client: &["redis-cli"], insert, position: LENGTH });
}

#[test]
fn valkey_comes_back_at_any_second_of_its_append_only_file_pitr() {
    let insert = |id| format!("EVAL \"{PUSH}\" 0 {id}");
    Product { image: "kbbackup.test/valkey:8.1", name: "valkey" }
        .comes_back("valkey-pitr", Tongue { client: &["valkey-cli"], insert, position: LENGTH });
}
