//! The oracle: a writer outside of the database that keeps a record of what the database acknowledged.
//!
//! How a database is written to is its [`Tongue`]; what is done with the answers is the same for all. Each entry is one committed row, with the log position before its commit and after the acknowledgement. A database
//! restored to position P must hold exactly a prefix of the entries: all that were acknowledged at or before P, none that
//! began after it, in order, with the right payload.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::kubectl::Kubectl;
use crate::lsn::Lsn;

/// One acknowledged commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Number of the row, counted from 1 without gaps.
    pub id: u64,
    /// Log position while the transaction was still open.
    pub before: Lsn,
    /// Log position after the commit was acknowledged.
    pub after: Lsn,
}

/// A running writer.
pub struct Ledger {
    entries: Arc<Mutex<Vec<Entry>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

/// SQL that makes the ledger's table.
pub const CREATE: &str = "create table if not exists ledger (id bigint primary key, payload text not null)";

/// How a database is asked to commit a row, and where it stands. Each statement gives one line: a position as [`Lsn`] reads it.
#[derive(Clone, Copy)]
pub struct Tongue {
    /// The client inside of the pod: statements come by standard input, line by line, and are answered at once.
    pub client: &'static [&'static str],
    /// Commits the row of this number, and gives the position before its commit.
    pub insert: fn(u64) -> String,
    /// Gives the position now.
    pub position: &'static str,
}

/// PostgreSQL's positions are those of its log.
pub const POSTGRES: Tongue = Tongue {
    client: &["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "postgres"],
    insert: |id| format!("insert into ledger values ({id}, md5('{id}')) returning pg_current_wal_insert_lsn();"),
    position: "select pg_current_wal_insert_lsn();",
};

/// Between two rows. Without it the way through API server and kubelet is the test's largest load.
const PACE: Duration = Duration::from_millis(10);

impl Ledger {
    /// Starts writing rows through `kubectl exec` into `pod`, one transaction after the other.
    ///
    /// # Errors
    /// When the session cannot be opened.
    pub fn start(kubectl: &Kubectl, pod: &str) -> Result<Self> {
        Self::start_in(kubectl, pod, POSTGRES)
    }

    /// The same for any database.
    ///
    /// # Errors
    /// When the session cannot be opened.
    pub fn start_in(kubectl: &Kubectl, pod: &str, tongue: Tongue) -> Result<Self> {
        let child = kubectl
            .command(&[&["exec", "-i", pod, "--"], tongue.client].concat())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run kubectl")?;
        let entries = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (entries, stop) = (entries.clone(), stop.clone());
            std::thread::spawn(move || write_rows(child, tongue, &entries, &stop))
        };
        Ok(Self { entries, stop, thread: Some(thread) })
    }

    /// Waits until at least `count` rows were acknowledged.
    ///
    /// # Errors
    /// When the writer stopped early or takes longer than three minutes.
    pub fn wait_for(&self, count: usize) -> Result<()> {
        for _ in 0..1800 {
            if self.len() >= count {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        bail!("the ledger has {} rows after three minutes, {count} were expected", self.len())
    }

    /// Number of acknowledged rows so far.
    pub fn len(&self) -> usize {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// True while nothing was acknowledged.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends the writer and gives what was acknowledged.
    ///
    /// # Errors
    /// When the session broke while the writer should have been running.
    pub fn stop(mut self) -> Result<Vec<Entry>> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok().context("the ledger's writer panicked")??;
        }
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(entries)
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn write_rows(mut child: Child, tongue: Tongue, entries: &Mutex<Vec<Entry>>, stop: &AtomicBool) -> Result<()> {
    let mut input = child.stdin.take().context("no pipe to psql")?;
    let mut output = BufReader::new(child.stdout.take().context("no pipe from psql")?);
    let mut ask = move |sql: &str| -> Result<Lsn> {
        writeln!(input, "{sql}")?;
        let mut line = String::new();
        ensure!(output.read_line(&mut line)? > 0, "the ledger's session was closed");
        line.parse()
    };
    let mut id = 0;
    while !stop.load(Ordering::Relaxed) {
        id += 1;
        // Two statements, two transactions: the second is sent only after the first was acknowledged.
        let before = ask(&(tongue.insert)(id))?;
        let after = ask(tongue.position)?;
        entries.lock().unwrap_or_else(PoisonError::into_inner).push(Entry { id, before, after });
        std::thread::sleep(PACE);
    }
    drop(ask);
    child.wait()?;
    Ok(())
}

/// Compares restored rows (`id` to payload check) with what was acknowledged, for a restore that reached `position`.
///
/// # Errors
/// The first difference: a hole, a wrong payload, a missing commit, or one from the future.
pub fn compare(acknowledged: &[Entry], restored: &BTreeMap<u64, bool>, position: Lsn) -> Result<u64> {
    let last = restored.keys().next_back().copied().unwrap_or(0);
    for (index, (id, intact)) in restored.iter().enumerate() {
        ensure!(*id == index as u64 + 1, "row {} is missing while row {id} is there", index + 1);
        ensure!(*intact, "row {id} came back with another payload");
    }
    for entry in acknowledged {
        ensure!(
            entry.id <= last || entry.after > position,
            "row {} was acknowledged at {}, before the restored position {position}, and is missing",
            entry.id,
            entry.after
        );
        ensure!(
            entry.id > last || entry.before <= position,
            "row {} began at {}, after the restored position {position}, and is there",
            entry.id,
            entry.before
        );
    }
    ensure!(last <= acknowledged.len() as u64 + 1, "row {last} was never written");
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> Vec<Entry> {
        (1..=4).map(|id| Entry { id, before: Lsn(id * 10), after: Lsn(id * 10 + 5) }).collect()
    }

    fn rows(ids: &[u64]) -> BTreeMap<u64, bool> {
        ids.iter().map(|id| (*id, true)).collect()
    }

    #[test]
    fn a_prefix_at_its_position_is_right() {
        assert_eq!(compare(&entries(), &rows(&[1, 2]), Lsn(25)).unwrap(), 2);
        // Between begin and acknowledgement both answers are right.
        assert_eq!(compare(&entries(), &rows(&[1, 2]), Lsn(22)).unwrap(), 2);
        assert_eq!(compare(&entries(), &rows(&[1]), Lsn(22)).unwrap(), 1);
    }

    #[test]
    fn missing_surplus_holes_and_damage_are_found() {
        assert!(compare(&entries(), &rows(&[1]), Lsn(25)).is_err(), "row 2 is missing");
        assert!(compare(&entries(), &rows(&[1, 2, 3]), Lsn(25)).is_err(), "row 3 is from the future");
        assert!(compare(&entries(), &rows(&[1, 3]), Lsn(35)).is_err(), "a hole");
        assert!(compare(&entries(), &BTreeMap::from([(1, false)]), Lsn(15)).is_err(), "damage");
    }
}
