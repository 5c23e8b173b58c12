//! Valkey and Redis by kbb-redis-rdb: written to, lost, back at one moment, with and without an append-only file.

use kbbackup_e2e::{LIMIT, must_fail};
use kbbackup_testing::fixtures;
use kbbackup_testing::kubectl::Kubectl;
use kbbackup_testing::ledger::{self, Ledger, Tongue};
use kbbackup_testing::lsn::Lsn;
use kbbackup_testing::mysql::BACKUP_PASSWORD;
use serde_json::{Value, json};

use crate::begin;
use crate::recipes::{account, amid, full_policy, lose, restore, restored, server, start, take};

/// Pushes a row and counts it in one step; its number is its position.
const PUSH: &str = "redis.call('rpush', 'ledger', ARGV[1] .. ':' .. redis.sha1hex(ARGV[1])) redis.call('incr', 'count') \
    return '0/' .. string.format('%X', ARGV[1])";
const LENGTH: &str = r#"EVAL "return '0/' .. string.format('%X', redis.call('llen', 'ledger'))" 0"#;
/// Length, count, how many rows are what they should be, and a key of another database with its time to live.
const CHECK: &str = "local good = 0 for i, row in ipairs(redis.call('lrange', 'ledger', 0, -1)) do \
    if row == i .. ':' .. redis.sha1hex(tostring(i)) then good = good + 1 end end \
    local result = redis.call('llen', 'ledger') .. ' ' .. redis.call('get', 'count') .. ' ' .. good redis.call('select', 3) \
    return result .. ' ' .. redis.call('get', 'other') .. ' ' .. (redis.call('ttl', 'other') > 3000 and 'lives' or 'dies')";

struct Product {
    image: &'static str,
    client: &'static str,
    server: &'static str,
    appendonly: &'static str,
}

const VALKEY: Product =
    Product { image: "kbbackup.test/valkey:8.1", client: "valkey-cli", server: "valkey-server", appendonly: "yes" };
const REDIS: Product =
    Product { image: "kbbackup.test/redis:7.0", client: "redis-cli", server: "redis-server", appendonly: "no" };

impl Product {
    fn objects(&self) -> Value {
        let command =
            [self.server, "--bind", "*", "--dir", "/data", "--protected-mode", "no", "--appendonly", self.appendonly];
        let auth = json!({"username": "kbbackup", "password": BACKUP_PASSWORD});
        server(self.image, &command, ("redis", 6379), 1, &auth)
    }

    fn ask(&self, kubectl: &Kubectl, commands: &str) -> String {
        let said = kubectl.run_with_input(&["exec", "-i", "db-0", "--", self.client], commands).unwrap();
        assert!(!said.contains("ERR"), "{said}");
        said.trim().to_owned()
    }

    fn comes_back(&self, test: &str, tongue: Tongue) {
        let (cluster, space) = begin(test).unwrap();
        start(&space, &self.objects(), 1);
        let quoted = format!("\">{}\"", BACKUP_PASSWORD.replace('\\', r"\\").replace('"', "\\\""));
        self.ask(&space.kubectl, &account("Redis").replace(">…", &quoted));
        self.ask(&space.kubectl, "SELECT 3\nSET other there EX 3600\n");
        space.kubectl.apply(&full_policy("kbb-redis-rdb", "redis").to_string()).unwrap();

        let ledger = Ledger::start_in(&space.kubectl, "db-0", tongue).unwrap();
        let (before, _) = amid(&ledger, || take(&space, "full", "full"));
        let during = ledger.len() as u64;
        let entries = ledger.stop().unwrap();

        let elsewhere = lose(&space, &cluster, "full");
        elsewhere.kubectl.apply(&restore("r", "full", &space.name, "data-db-0", "/data").to_string()).unwrap();
        let told = restored(&elsewhere, "r");
        start(&elsewhere, &self.objects(), 1);
        let found = self.ask(&elsewhere.kubectl, &format!("EVAL \"{CHECK}\" 0\n"));
        let rows: u64 = found.split(' ').next().unwrap().parse().unwrap();
        assert_eq!(found, format!("{rows} {rows} {rows} there lives"));
        assert!((before..=during).contains(&rows), "{rows} of {before} to {during}");
        ledger::compare(&entries, &(1..=rows).map(|id| (id, true)).collect(), Lsn(rows)).unwrap();
        assert_eq!(told["keys"], "3", "{told}");
    }
}

#[test]
fn valkey_comes_back_at_one_moment_into_its_append_only_file() {
    let insert = |id| format!("EVAL \"{PUSH}\" 0 {id}");
    VALKEY.comes_back("valkey", Tongue { client: &["valkey-cli"], insert, position: LENGTH });
}

#[test]
fn redis_comes_back_at_one_moment_into_its_rdb_file() {
    let insert = |id| format!("EVAL \"{PUSH}\" 0 {id}");
    REDIS.comes_back("redis", Tongue { client: &["redis-cli"], insert, position: LENGTH });
}

#[test]
fn valkey_says_which_right_or_login_is_missing() {
    let (_cluster, space) = begin("valkey-no").unwrap();
    start(&space, &VALKEY.objects(), 1);
    space.kubectl.apply(&full_policy("kbb-redis-rdb", "redis").to_string()).unwrap();
    let fails = |name: &str, wanted: &str| {
        space.kubectl.apply(&fixtures::backup(name, "db", "full").to_string()).unwrap();
        let why = must_fail(&space, name, LIMIT).unwrap();
        assert!(why.contains(wanted), "{why}");
        assert!(!why.contains(BACKUP_PASSWORD), "{why}");
    };
    fails("stranger", "AUTH failed");
    let quoted = format!("\">{}\"", BACKUP_PASSWORD.replace('\\', r"\\").replace('"', "\\\""));
    VALKEY.ask(
        &space.kubectl,
        &account("Redis").replace(">…", &quoted).replace("+sync", "-sync").replace("+psync", "-psync"),
    );
    fails("poor", "no permissions to run the 'sync' command");
}
