//! What recoveries to a point in time have in common: an archiver at work, random moments, and how many rows there were when.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use kbbackup_e2e::LIMIT;
use kbbackup_testing::ledger::Ledger;
use kbbackup_testing::namespace::TempNamespace;
use serde_json::{Value, json};

/// How many random times are restored; `cargo xtask test pitr --targets N` says so.
pub(crate) fn targets() -> usize {
    std::env::var("KBBACKUP_PITR_TARGETS").ok().and_then(|number| number.parse().ok()).unwrap_or(2)
}

/// Numbers that nobody has chosen; the seed is printed, so that they can be had again.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new() -> Self {
        let seed = std::env::var("KBBACKUP_PITR_SEED").ok().and_then(|seed| seed.parse().ok());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let seed = seed.unwrap_or(now.as_secs());
        println!("KBBACKUP_PITR_SEED={seed}");
        Self(seed)
    }

    /// One of `from` to `to`, the last one included.
    pub(crate) fn between(&mut self, from: i64, to: i64) -> i64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        from + (self.0 >> 33) as i64 % (to - from + 1)
    }
}

/// How long the ledger was at which time, by the clock that the database's node has, too.
pub(crate) struct Samples {
    taken: Arc<Mutex<Vec<(Timestamp, usize)>>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Samples {
    pub(crate) fn start(ledger: Arc<Ledger>) -> Self {
        let (taken, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (all, ends) = (taken.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                // The time is from before the look, so what is counted may have come a little later.
                let now = Timestamp::now();
                all.lock().unwrap().push((now, ledger.len()));
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Self { taken, stop, thread }
    }

    pub(crate) fn end(self) -> Vec<(Timestamp, usize)> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.taken.lock().unwrap().clone()
    }
}

/// How many rows a database of the time `at` may have: what was acknowledged before, and no more than what had begun.
pub(crate) fn rows_at(samples: &[(Timestamp, usize)], at: Timestamp) -> std::ops::RangeInclusive<usize> {
    let after = samples.iter().position(|(time, _)| *time > at).expect("the ledger went on behind the target");
    // The look before the last one was over at the time of the last one.
    samples[after.saturating_sub(2)].1..=samples[after].1 + 2
}

/// The end of what a backup reaches.
pub(crate) fn end(object: &Value) -> Option<Timestamp> {
    object["status"]["timeRange"]["end"].as_str().and_then(|end| end.parse().ok())
}

/// A schedule that has the method `log` of a policy archive.
pub(crate) fn schedule(policy: &str) -> Value {
    json!({
        "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "BackupSchedule", "metadata": {"name": policy},
        "spec": {"backupPolicyName": policy, "schedules": [
            {"backupMethod": "log", "enabled": true, "cronExpression": "*/5 * * * *", "retentionPeriod": "7d"}]},
    })
}

/// The continuous backup that a schedule makes, once it reaches a time; its name.
pub(crate) fn archiving(space: &TempNamespace, schedule: &str) -> String {
    let chosen = format!("dataprotection.kubeblocks.io/backup-schedule={schedule}");
    let log = (0..240).find_map(|_| {
        std::thread::sleep(Duration::from_millis(250));
        let all = space.kubectl.get(&["backups", "-l", &chosen]).unwrap();
        all["items"][0]["metadata"]["name"].as_str().map(str::to_owned)
    });
    let log = log.expect("the schedule makes the backup");
    space.kubectl.wait_for("backup", &log, LIMIT, |object| end(object).is_some()).unwrap();
    log
}
