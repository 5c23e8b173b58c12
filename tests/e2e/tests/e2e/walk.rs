//! `walk.txt`, replayed: a new user's way from the installation to a point in time, on a terminal, by questions alone.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use jiff::Timestamp;
use kbbackup_e2e::LIMIT;
use kbbackup_testing::kubectl::Kubectl;
use kbbackup_testing::namespace::TempNamespace;
use kbbackup_testing::postgres::Postgres;
use kbbackup_testing::terminal::Terminal;
use kbbackup_testing::walk::{self, Guide};
use serde_json::Value;

use crate::begin;

const ROWS: &str = "1000";

struct Person {
    cluster: Kubectl,
    space: TempNamespace,
    /// The moment before the mistake.
    moment: String,
}

impl Person {
    /// The continuous backup, once its log reaches beyond `time`.
    fn log(&self, time: Timestamp) -> Result<()> {
        let reached = |object: &Value| {
            let end = object["status"]["timeRange"]["end"].as_str().and_then(|end| end.parse::<Timestamp>().ok());
            end.is_some_and(|end| end > time)
        };
        let all = self.space.kubectl.get(&["backups", "-l", "dataprotection.kubeblocks.io/backup-type=Continuous"])?;
        let name = all["items"][0]["metadata"]["name"].as_str().context("the schedule has made no backup")?;
        self.space.kubectl.wait_for("backup", name, LIMIT, reached).map(drop)
    }
}

impl Guide for Person {
    fn fill(&self, text: &str) -> String {
        text.replace("{shop}", &self.space.name).replace("{moment}", &self.moment)
    }

    fn start(&mut self, command: &str) -> Result<Terminal> {
        let words: Vec<&str> = command.split_whitespace().collect();
        ensure!(words.first() == Some(&"kubectl"), "{command} is not kubectl");
        let mut command = self.cluster.command(&words[1..]);
        // In CI nobody is asked; here somebody is.
        Terminal::start(command.env_remove("CI").env("TERM", "xterm").env("NO_COLOR", "1"), LIMIT)
    }

    fn aside(&mut self, what: &str) -> Result<()> {
        let postgres = Postgres::existing(&self.space.kubectl, "pg");
        match what {
            "a database runs" => {
                Postgres::create_of(&self.space.kubectl, "kbbackup.test/postgres:17", "pg", "1Gi")?;
            }
            "the log is archived" => self.log(Timestamp::UNIX_EPOCH)?,
            "the mistake happens" => {
                postgres.sql(&format!("create table orders as select generate_series(1, {ROWS})"))?;
                std::thread::sleep(Duration::from_secs(2));
                self.moment = Timestamp::from_second(Timestamp::now().as_second())?.to_string();
                std::thread::sleep(Duration::from_secs(2));
                postgres.sql("drop table orders")?;
                let mistake = Timestamp::now();
                postgres.sql("create table later()")?;
                self.log(mistake)?;
            }
            "everything is there" => {
                let restored = Postgres::existing(&self.space.kubectl, "pg-restored");
                restored.wait_ready()?;
                let rows = restored.sql("select count(*) from orders")?;
                ensure!(rows == ROWS, "{rows} rows came back, and not {ROWS}");
            }
            _ => bail!("{what}: nobody knows how"),
        }
        Ok(())
    }
}

#[test]
fn a_new_user_walks_from_the_installation_to_a_point_in_time() {
    let (cluster, space) = begin("walk").unwrap();
    let steps = walk::parse(include_str!("../../walk.txt")).unwrap();
    let mut person = Person { cluster, space, moment: String::new() };
    walk::replay(&steps, &mut person).map_err(|error| format!("{error:#}")).unwrap();

    let space = &person.space;
    space.kubectl.run(&["delete", "backupschedule", "--all", "--timeout=180s"]).unwrap();
    space.kubectl.run(&["delete", "backup", "--all", "--timeout=180s"]).unwrap();
}
