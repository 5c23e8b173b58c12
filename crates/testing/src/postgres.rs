//! A PostgreSQL under load, and what must be true of it after a restore.

use std::collections::BTreeMap;
use std::process::Child;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::fixtures;
use crate::kubectl::Kubectl;
use crate::ledger::{self, Entry};
use crate::lsn::Lsn;

/// A PostgreSQL StatefulSet in a namespace.
pub struct Postgres {
    kubectl: Kubectl,
    name: String,
}

/// pgbench running inside of the pod; ended when dropped.
pub struct Load {
    child: Child,
}

impl Postgres {
    /// Creates Secret, Service and StatefulSet, and waits until the server answers.
    ///
    /// # Errors
    /// When it is not ready within two minutes.
    pub fn create(kubectl: &Kubectl, name: &str, storage: &str) -> Result<Self> {
        Self::create_of(kubectl, fixtures::POSTGRES_IMAGE, name, storage)
    }

    /// The same of another version.
    ///
    /// # Errors
    /// When it is not ready within two minutes.
    pub fn create_of(kubectl: &Kubectl, image: &str, name: &str, storage: &str) -> Result<Self> {
        kubectl.apply(&fixtures::postgres_of(image, name, storage).to_string())?;
        let postgres = Self::existing(kubectl, name);
        postgres.wait_ready()?;
        Ok(postgres)
    }

    /// One that exists already.
    pub fn existing(kubectl: &Kubectl, name: &str) -> Self {
        Self { kubectl: kubectl.clone(), name: name.to_owned() }
    }

    /// Waits until the server answers.
    ///
    /// # Errors
    /// After five minutes.
    pub fn wait_ready(&self) -> Result<()> {
        self.kubectl
            .wait_for("statefulset", &self.name, Duration::from_secs(300), |set| set["status"]["readyReplicas"] == 1)
            .map(drop)
    }

    /// Name of the first pod.
    pub fn pod(&self) -> String {
        format!("{}-0", self.name)
    }

    /// One value from the database.
    ///
    /// # Errors
    /// What psql said.
    pub fn sql(&self, query: &str) -> Result<String> {
        let pod = self.pod();
        let args = ["exec", &pod, "--", "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-c", query];
        Ok(self.kubectl.run(&args)?.trim_end().to_owned())
    }

    /// Fills pgbench's tables (`scale` × about 15 MB) and the ledger's.
    ///
    /// # Errors
    /// What pgbench said.
    pub fn fill(&self, scale: u32) -> Result<()> {
        let (pod, scale) = (self.pod(), scale.to_string());
        self.kubectl.run(&["exec", &pod, "--", "pgbench", "-i", "-q", "-s", &scale, "-U", "postgres", "postgres"])?;
        self.sql(ledger::CREATE).map(drop)
    }

    /// Starts pgbench's transactions in the background.
    ///
    /// # Errors
    /// When kubectl cannot be started.
    pub fn load(&self, clients: u32, rate: u32, limit: Duration) -> Result<Load> {
        let (pod, clients) = (self.pod(), clients.to_string());
        let (seconds, rate) = (limit.as_secs().to_string(), rate.to_string());
        let child = self.kubectl.spawn(&[
            "exec", &pod, "--", "pgbench", "-n", "-c", &clients, "-R", &rate, "-T", &seconds, "-U", "postgres",
            "postgres",
        ])?;
        Ok(Load { child })
    }

    /// Size of the database in bytes.
    ///
    /// # Errors
    /// What psql said.
    pub fn size(&self) -> Result<u64> {
        self.sql("select pg_database_size(current_database())")?.parse().context("no size")
    }

    /// Every row of the ledger, with whether its payload is what was written.
    ///
    /// # Errors
    /// What psql said.
    pub fn ledger_rows(&self) -> Result<BTreeMap<u64, bool>> {
        let rows = self.sql("select id, payload = md5(id::text) from ledger order by id")?;
        rows.lines()
            .map(|line| {
                let (id, intact) = line.split_once('|').context("no row")?;
                Ok((id.parse()?, intact == "t"))
            })
            .collect()
    }

    /// pgbench's history as a bag of rows, to compare two databases.
    ///
    /// # Errors
    /// What psql said.
    pub fn history(&self) -> Result<BTreeMap<String, u64>> {
        let rows = self.sql("select tid, bid, aid, delta, extract(epoch from mtime) from pgbench_history")?;
        let mut bag = BTreeMap::new();
        for row in rows.lines() {
            *bag.entry(row.to_owned()).or_default() += 1;
        }
        Ok(bag)
    }

    /// Checks the whole content of a restored database against what the source had and what was acknowledged.
    ///
    /// Every account, teller and branch must carry exactly the sum of the restored history; each row of that history must
    /// be one of the source's; the ledger must be the exact prefix at `position`; nothing else may have changed.
    ///
    /// # Errors
    /// The first difference.
    pub fn check(&self, source: &Content, acknowledged: &[Entry], position: Lsn) -> Result<Checked> {
        let off = self.sql(BALANCES_OFF)?;
        ensure!(off == "0", "{off} accounts, tellers or branches do not carry the sum of their history");
        let content = self.content()?;
        ensure!(content.fixed == source.fixed, "the parts of the tables that no transaction touches differ");
        let mut transactions = 0;
        for (row, count) in &content.history {
            let there = source.history.get(row).copied().unwrap_or(0);
            ensure!(*count <= there, "the history has a row that the source never had: {row}");
            transactions += count;
        }
        let rows = ledger::compare(acknowledged, &self.ledger_rows()?, position)?;
        Ok(Checked { transactions, rows })
    }

    /// The content that [`Self::check`] compares.
    ///
    /// # Errors
    /// What psql said.
    pub fn content(&self) -> Result<Content> {
        Ok(Content { fixed: self.sql(FIXED_PARTS)?, history: self.history()? })
    }
}

/// What of a database is compared with its restored copy.
pub struct Content {
    fixed: String,
    history: BTreeMap<String, u64>,
}

/// How much was compared.
#[derive(Clone, Copy, Debug)]
pub struct Checked {
    /// pgbench's transactions in the restored history.
    pub transactions: u64,
    /// Rows of the ledger.
    pub rows: u64,
}

const BALANCES_OFF: &str = "
with a as (select aid, sum(delta) s from pgbench_history group by aid),
     t as (select tid, sum(delta) s from pgbench_history group by tid),
     b as (select bid, sum(delta) s from pgbench_history group by bid)
select (select count(*) from pgbench_accounts left join a using (aid) where abalance <> coalesce(s, 0))
     + (select count(*) from pgbench_tellers left join t using (tid) where tbalance <> coalesce(s, 0))
     + (select count(*) from pgbench_branches left join b using (bid) where bbalance <> coalesce(s, 0))";

const FIXED_PARTS: &str = "
select count(*) || ':' || sum(('x' || substr(md5(aid || ':' || bid || ':' || filler), 1, 15))::bit(60)::bigint) from pgbench_accounts
union all select count(*) || ':' || sum(('x' || substr(md5(tid || ':' || bid), 1, 15))::bit(60)::bigint) from pgbench_tellers
union all select count(*) || ':' || sum(bid) from pgbench_branches";

impl Drop for Load {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
