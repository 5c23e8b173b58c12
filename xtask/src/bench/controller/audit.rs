//! What the API server wrote down: every request of the operator, and the moments that delays are measured between.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::Value;

/// The audit log since it was last forgotten.
pub(super) struct Log {
    path: PathBuf,
    from: std::sync::atomic::AtomicU64,
}

impl Log {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, from: 0.into() }
    }

    /// What was written until now does not count.
    pub(super) fn forget(&self) -> Result<()> {
        let length = match std::fs::metadata(&self.path) {
            Ok(meta) => meta.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error).context("audit log"),
        };
        self.from.store(length, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn events(&self) -> Result<Vec<Value>> {
        use std::io::{Read as _, Seek as _};
        let mut file = std::fs::File::open(&self.path).context("audit log")?;
        file.seek(std::io::SeekFrom::Start(self.from.load(std::sync::atomic::Ordering::Relaxed)))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// The operator's requests.
    pub(super) fn requests(&self) -> Result<Requests> {
        let mut counts = BTreeMap::new();
        for event in self.events()?.iter().filter(|event| event["user"]["username"] == "controller") {
            let verb = event["verb"].as_str().unwrap_or_default();
            // A watch is written down when it begins and once more when it ends.
            let first = if verb == "watch" { "ResponseStarted" } else { "ResponseComplete" };
            if event["stage"] == first {
                let object = &event["objectRef"];
                let mut kind = object["resource"].as_str().unwrap_or("other").to_owned();
                if let Some(part) = object["subresource"].as_str() {
                    kind = format!("{kind}/{part}");
                }
                *counts.entry((verb.to_owned(), kind)).or_insert(0) += 1;
            }
        }
        Ok(Requests(counts))
    }
}

/// Numbers of requests by verb and kind.
pub(super) struct Requests(BTreeMap<(String, String), usize>);

impl Requests {
    /// All that change something, but for the lease.
    pub(super) fn writes(&self) -> usize {
        let writes =
            |(verb, kind): &(String, String)| !matches!(verb.as_str(), "get" | "list" | "watch") && kind != "leases";
        self.0.iter().filter(|(key, _)| writes(key)).map(|(_, count)| count).sum()
    }

    /// Those with this verb, or all.
    pub(super) fn of_verb(&self, verb: Option<&str>) -> usize {
        let counts = self.0.iter().filter(|((of, _), _)| verb.is_none_or(|verb| of == verb));
        counts.map(|(_, count)| count).sum()
    }

    /// All by verb and kind in words, each number divided by `divide`.
    pub(super) fn told(&self, divide: usize) -> String {
        let mut verbs: BTreeMap<&str, (usize, Vec<String>)> = BTreeMap::new();
        let show = |count: usize| match divide {
            0 | 1 => count.to_string(),
            more => format!("{:.2}", count as f64 / more as f64),
        };
        for ((verb, kind), count) in &self.0 {
            let entry = verbs.entry(verb).or_default();
            entry.0 += count;
            entry.1.push(format!("{kind} {}", show(*count)));
        }
        let told = verbs.iter().map(|(verb, (sum, kinds))| format!("{verb} {} ({})", show(*sum), kinds.join(", ")));
        told.collect::<Vec<_>>().join(", ")
    }
}

/// Sorted delays in milliseconds, as the API server saw them.
#[derive(Default)]
pub(super) struct Delays {
    pub(super) job: Vec<i64>,
    pub(super) done: Vec<i64>,
}

/// Delays of the burst's backups. The end is the last status that the operator wrote, which says Completed.
pub(super) fn delays(events: &[Value]) -> Delays {
    let mut moments: BTreeMap<String, [Option<i64>; 4]> = BTreeMap::new();
    for event in events.iter().filter(|event| event["stage"] == "ResponseComplete") {
        let object = &event["objectRef"];
        let (Some(name), Some(kind)) = (object["name"].as_str(), object["resource"].as_str()) else { continue };
        let Some(at) = event["stageTimestamp"].as_str().and_then(milliseconds) else { continue };
        let part = object["subresource"].as_str().unwrap_or_default();
        let Some((backup, slot)) = (match (event["verb"].as_str().unwrap_or_default(), kind, part) {
            ("create", "backups", "") => Some((name.to_owned(), 0)),
            ("create", "jobs", "") => within(name, "dp-backup-0-").map(|name| (name, 1)),
            (_, "pods", "status") => within(name, "dp-seal-").map(|name| (name, 2)),
            (_, "backups", "status") => Some((name.to_owned(), 3)),
            _ => None,
        }) else {
            continue;
        };
        let slots = moments.entry(backup).or_default();
        if slot == 3 || slots[slot].is_none() {
            slots[slot] = Some(at);
        }
    }
    let mut delays = Delays::default();
    for [created, job, ended, done] in moments.into_values() {
        delays.job.extend(job.zip(created).map(|(job, created)| job - created));
        delays.done.extend(done.zip(ended).map(|(done, ended)| done - ended));
    }
    delays.job.sort_unstable();
    delays.done.sort_unstable();
    delays
}

/// The backup in the name of one of its Jobs or pods: `burst-17` in `dp-seal-burst-17-1234abcd`.
fn within(name: &str, prefix: &str) -> Option<String> {
    let mut parts = name.strip_prefix(prefix)?.split('-');
    Some(format!("{}-{}", parts.next()?, parts.next()?))
}

/// Milliseconds since midnight of a time like `2026-01-02T03:04:05.678901Z`.
fn milliseconds(text: &str) -> Option<i64> {
    let clock = text.get(11..23)?;
    let (hms, fraction) = clock.split_once('.')?;
    let seconds = hms.split(':').try_fold(0, |sum, part| Some(sum * 60 + part.parse::<i64>().ok()?))?;
    Some(seconds * 1000 + fraction.parse::<i64>().ok()?)
}
