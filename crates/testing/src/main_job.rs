//! The main job, end to end: a database under load is backed up, lost, and comes back.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::kubectl::Kubectl;
use crate::ledger::Ledger;
use crate::lsn::Lsn;
use crate::postgres::{Checked, Postgres};

/// How the main job is to be run.
pub struct Job<'a> {
    /// kubectl inside of the namespace that holds the database.
    pub kubectl: &'a Kubectl,
    /// Repository by name; `None` is the cluster's default one.
    pub repo: Option<&'a str>,
    /// pgbench's scale, about 15 MB each.
    pub scale: u32,
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Size of the database when the backup began, in bytes.
    pub database: u64,
    /// `status.totalSize` of the Backup.
    pub stored: String,
    /// From `kubectl kbbackup backup` to its end.
    pub backup: Duration,
    /// From `kubectl kbbackup restore` to its end.
    pub restore: Duration,
    /// Log position that the restore reached.
    pub position: Lsn,
    /// What was compared.
    pub checked: Checked,
    /// Rows that had been acknowledged when the load ended.
    pub acknowledged: usize,
}

/// Name of the StatefulSet.
pub const NAME: &str = "pg";
/// Name of the Backup.
pub const BACKUP: &str = "first";

impl Job<'_> {
    /// Runs it; `say` gets one sentence before each step.
    ///
    /// # Errors
    /// The first step that did not do what it should, or the first difference in content.
    pub fn run(&self, say: &mut dyn FnMut(&str)) -> Result<Figures> {
        say("creating a PostgreSQL StatefulSet and filling it by pgbench");
        let postgres = Postgres::create(self.kubectl, NAME, "3Gi")?;
        postgres.fill(self.scale)?;
        let database = postgres.size()?;

        say("putting it under load: pgbench, and a writer that keeps its own ledger of what was acknowledged");
        let load = postgres.load(2, 100, Duration::from_secs(900))?;
        let ledger = Ledger::start(self.kubectl, &postgres.pod())?;
        ledger.wait_for(20)?;

        if let Some(repo) = self.repo {
            say("kubectl kbbackup policy create --for statefulset/pg");
            self.kbbackup(&["policy", "create", NAME, "--for", "statefulset/pg", "--repo", repo])?;
        }
        say("kubectl kbbackup backup statefulset/pg --wait");
        let begin = Instant::now();
        self.kbbackup(&["backup", "statefulset/pg", "--name", BACKUP, "--yes", "--wait", "--timeout", "15m"])?;
        let backup_time = begin.elapsed();
        let backup = self.kubectl.get(&["backup", BACKUP])?;
        ensure!(backup["status"]["phase"] == "Completed", "the backup says {}", backup["status"]);
        let stored = backup["status"]["totalSize"].as_str().context("no totalSize")?.to_owned();

        let written = ledger.len();
        ledger.wait_for(written + 20)?;
        let acknowledged = ledger.stop()?;
        drop(load);
        let source = postgres.content()?;

        say("losing it: the StatefulSet and its claim are deleted");
        self.kubectl.run(&["delete", "statefulset", NAME, "--wait", "--timeout=120s"])?;
        self.kubectl.run(&["wait", "--for=delete", "pod/pg-0", "--timeout=120s"])?;
        self.kubectl.run(&["delete", "pvc", "data-pg-0", "--wait", "--timeout=120s"])?;

        say("kubectl kbbackup restore pg --from first --wait");
        let begin = Instant::now();
        self.kbbackup(&["restore", NAME, "--from", BACKUP, "--yes", "--wait", "--timeout", "15m"])?;
        let restore_time = begin.elapsed();

        say("comparing every row with what was there at the restored position");
        postgres.wait_ready()?;
        let position = self.restored_position()?;
        let checked = postgres.check(&source, &acknowledged, position)?;
        ensure!(checked.rows >= 20, "only {} rows of the ledger came back", checked.rows);
        Ok(Figures {
            database,
            stored,
            backup: backup_time,
            restore: restore_time,
            position,
            checked,
            acknowledged: acknowledged.len(),
        })
    }

    fn kbbackup(&self, args: &[&str]) -> Result<String> {
        let mut all = vec!["kbbackup"];
        all.extend(args);
        self.kubectl.run(&all)
    }

    fn restored_position(&self) -> Result<Lsn> {
        let restores = self.kubectl.get(&["restores"])?;
        let restore = restores["items"].as_array().and_then(|items| items.last()).context("no Restore")?;
        ensure!(restore["status"]["phase"] == "Completed", "the restore says {}", restore["status"]);
        let text = restore["metadata"]["annotations"]["kbbackup.io/restored"]
            .as_str()
            .context("the Restore does not record the position it reached")?;
        let restored: Value = serde_json::from_str(text)?;
        restored["position"].as_str().context("no position")?.parse()
    }
}
