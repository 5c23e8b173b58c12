//! The walk of a new user, replayed against the small API server: what is asked and shown is the same as on a cluster.

use anyhow::{Context as _, Result, bail};
use jiff::{SignedDuration, Timestamp};
use kbbackup_testing::terminal::Terminal;
use kbbackup_testing::walk::{self, Guide};
use serde_json::{Value, json};

use crate::api::Api;
use crate::terminal::{LIMIT, bare};
use crate::world::{World, backup};

struct Person {
    api: Api,
    moment: String,
}

impl Person {
    /// The continuous backup, as an archiver leaves it.
    fn log(&self, end: Timestamp) {
        let range = json!({"start": "2026-01-01T00:00:00Z", "end": end.to_string()});
        let path = "/apis/dataprotection.kubeblocks.io/v1alpha1/namespaces/demo/backups/pg-log";
        let mut log = backup("pg-log", "Continuous", json!({"phase": "Running", "timeRange": range}));
        log["status"]["backupMethod"]["actionSetName"] = json!("kbb-postgres-continuous");
        self.api.put(path.to_owned(), log);
    }
}

impl Guide for Person {
    fn fill(&self, text: &str) -> String {
        text.replace("{shop}", "demo").replace("{moment}", &self.moment)
    }

    fn start(&mut self, command: &str) -> Result<Terminal> {
        let words = command.strip_prefix("kubectl kbbackup ").context("not the plugin")?;
        Terminal::start(bare(&self.api).args(words.split_whitespace()), LIMIT)
    }

    fn aside(&mut self, what: &str) -> Result<()> {
        match what {
            "a database runs" => {}
            "the log is archived" => self.log(Timestamp::now()),
            "the mistake happens" => {
                let soon = Timestamp::now() + SignedDuration::from_secs(2);
                self.moment = Timestamp::from_second(soon.as_second())?.to_string();
                self.log(soon + SignedDuration::from_secs(10));
            }
            "everything is there" => {
                let restore = self.api.only("Restore");
                assert_eq!(restore["spec"]["backup"]["name"], "pg-log");
                assert_eq!(restore["spec"]["restoreTime"], Value::from(self.moment.clone()));
            }
            _ => bail!("{what}: nobody knows how"),
        }
        Ok(())
    }
}

#[test]
fn a_new_user_walks_from_the_installation_to_a_point_in_time() {
    let api = World::default().workload("pg", "hush-hush-42").pod().start();
    let steps = walk::parse(include_str!("../../../../tests/e2e/walk.txt")).unwrap();
    walk::replay(&steps, &mut Person { api, moment: String::new() }).map_err(|error| format!("{error:#}")).unwrap();
}
