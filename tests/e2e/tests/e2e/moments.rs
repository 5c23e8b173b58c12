//! What recoveries to a point in time have in common: an archiver at work, random moments, and how many rows there were when.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use kbbackup_e2e::{LIMIT, phase};
use kbbackup_testing::ledger::Ledger;
use kbbackup_testing::namespace::TempNamespace;
use serde_json::{Value, json};

/// What happened beside the ledger. Positions are of the engine's kind.
pub(crate) struct Events<P> {
    /// How many rows there were when the full backup had ended.
    pub(crate) based: usize,
    /// Behind the bases, and behind all of it.
    pub(crate) first: Timestamp,
    pub(crate) last: Timestamp,
    /// When nobody committed.
    pub(crate) idle: Timestamp,
    /// Where a file of the log began, and how many rows there were.
    pub(crate) border: (P, RangeInclusive<usize>),
    /// While a transaction was open that was committed later.
    pub(crate) within: Timestamp,
    /// Transaction that changed a table, and how many rows there were.
    pub(crate) altered: (String, RangeInclusive<usize>),
}

/// What a restore is to reach, and what it must have then.
pub(crate) struct Target {
    pub(crate) what: &'static str,
    /// `spec.restoreTime`, which chooses the base as well.
    pub(crate) time: Timestamp,
    pub(crate) parameters: Vec<(&'static str, String)>,
    pub(crate) rows: RangeInclusive<usize>,
    /// Whether the long transaction and the altered table are there; `None` where either is right.
    pub(crate) long: Option<bool>,
    pub(crate) altered: Option<bool>,
}

impl Target {
    pub(crate) fn at(what: &'static str, time: Timestamp, rows: RangeInclusive<usize>) -> Self {
        Self { what, time, parameters: vec![], rows, long: None, altered: None }
    }

    /// The same base, and a target of another kind than time.
    pub(crate) fn by(mut self, target: &str, value: &str) -> Self {
        self.parameters = vec![("target", target.to_owned()), ("targetValue", value.to_owned())];
        self
    }

    /// Up to there, and without it.
    pub(crate) fn excluded(mut self) -> Self {
        self.parameters.push(("inclusive", "off".to_owned()));
        self
    }

    pub(crate) fn with(mut self, long: bool, altered: bool) -> Self {
        (self.long, self.altered) = (Some(long), Some(altered));
        self
    }

    /// Compares with what came back: how many rows, and by `marks` whether the transaction and the column are there.
    #[track_caller]
    pub(crate) fn judge(&self, reached: &Value, rows: usize, marks: impl FnOnce() -> (bool, bool)) {
        let what = self.what;
        println!("{what}: {} gave {reached}, {rows} rows", self.time);
        assert!(self.rows.contains(&rows), "{what}: {rows} rows and not {:?}; {reached}", self.rows);
        if let (Some(long), Some(altered)) = (self.long, self.altered) {
            assert_eq!(marks(), (long, altered), "{what}: the long transaction, and the column");
        }
    }

    /// The Restore's `spec.parameters`.
    pub(crate) fn parameters(&self) -> Value {
        self.parameters.iter().map(|(name, value)| json!({"name": name, "value": value})).collect()
    }
}

/// How much of a version is tried: all kinds of moments of the newest one that is looked at closely, these of the others.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    Every,
    Few,
}

const FEW: [&str; 3] = ["at a commit", "inside a long transaction", "the end"];

/// What of `all` is restored, with as many random times as `cargo xtask test pitr --targets N` asks for.
pub(crate) fn chosen(mut all: Vec<Target>, depth: Depth, mut random: impl FnMut() -> Target) -> Vec<Target> {
    let asked = std::env::var("KBBACKUP_PITR_TARGETS").ok().and_then(|number| number.parse::<usize>().ok());
    if depth == Depth::Few && asked.is_none() {
        all.retain(|target| FEW.contains(&target.what));
        return all;
    }
    for _ in 0..asked.unwrap_or(1) {
        all.push(random());
    }
    all
}

/// Targets that are proved at once where they are many; where they are few, other tests run meanwhile.
const AT_ONCE: usize = 4;
const MANY: usize = 20;

/// Proves each of them, by their numbers.
pub(crate) fn each(targets: &[Target], prove: impl Fn(usize, &Target) + Sync) {
    let next = AtomicUsize::new(0);
    let one_after_the_other = || {
        while let number = next.fetch_add(1, Ordering::Relaxed)
            && let Some(target) = targets.get(number)
        {
            prove(number, target);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..if targets.len() < MANY { 1 } else { AT_ONCE } {
            scope.spawn(one_after_the_other);
        }
    });
}

/// Room for the next ones: what was proved goes.
pub(crate) fn drop_copy(space: &TempNamespace, name: &str) {
    space.kubectl.run(&["delete", "statefulset", name, "--timeout=180s"]).unwrap();
    space.kubectl.run(&["delete", "pvc", &format!("data-{name}-0"), "--timeout=180s"]).unwrap();
}

/// The ledger's length before and after something is done.
pub(crate) fn around<T>(ledger: &Ledger, action: impl FnOnce() -> T) -> (T, RangeInclusive<usize>) {
    let before = ledger.len();
    let done = action();
    (done, before..=ledger.len() + 1)
}

/// This second.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second()).unwrap()
}

/// Times before and behind a window are refused with the nearest one that can be reached.
pub(crate) fn refused_outside(
    space: &TempNamespace,
    window: (Timestamp, Timestamp),
    restore: impl Fn(&str, Timestamp) -> Value,
) {
    let hour = Duration::from_secs(3600);
    for (name, time, nearest) in [("early", window.0 - hour, window.0), ("late", window.1 + hour, window.1)] {
        space.kubectl.apply(&restore(name, time).to_string()).unwrap();
        let over = |object: &Value| matches!(phase(object), "Completed" | "Failed");
        let refused = space.kubectl.wait_for("restore", name, LIMIT, over).unwrap();
        assert_eq!(phase(&refused), "Failed", "{name}");
        let why = refused["status"].to_string();
        assert!(why.contains(&nearest.to_string()), "{name}: {nearest} is not in {why}");
    }
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
pub(crate) fn rows_at(samples: &[(Timestamp, usize)], at: Timestamp) -> RangeInclusive<usize> {
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
