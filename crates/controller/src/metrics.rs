//! What Prometheus reads: how reconciles go, and the state of backups as the watches know it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use jiff::Timestamp;
use kbbackup_api::v1alpha1::{Backup, BackupPhase, BackupRepoPhase, RestorePhase};
use kbbackup_core::layout::parse_size;
use kube::ResourceExt as _;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::context::Stores;
use kbbackup_api::names::labels;

/// The numbers of this process.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    reconciles: Family<Kind, Histogram, fn() -> Histogram>,
    errors: Family<KindReason, Counter>,
    finished: Family<Finished, Counter>,
    left_behind: Family<Repo, Counter>,
    leader: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindReason {
    kind: String,
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Finished {
    kind: String,
    phase: String,
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Repo {
    repo: String,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("kbbackup");
        // Most reconciles are one or two requests; the slow ones wait for the API server.
        let buckets: fn() -> Histogram = || Histogram::new([0.002, 0.01, 0.05, 0.25, 1.0, 5.0, 30.0]);
        let reconciles = Family::new_with_constructor(buckets);
        let errors = Family::default();
        let finished = Family::default();
        let left_behind = Family::default();
        let leader = Gauge::default();
        registry.register_with_unit("reconcile_duration", "Time of a reconcile", Unit::Seconds, reconciles.clone());
        registry.register("reconcile_errors", "Reconciles that failed and are tried again", errors.clone());
        registry.register("finished", "Backups and restores that came to an end, by outcome", finished.clone());
        registry.register(
            "backups_left_behind",
            "Backups that went with their namespace while their files stayed in the repository",
            left_behind.clone(),
        );
        registry.register("leader", "1 while this process holds the lease", leader.clone());
        Self { registry: Mutex::new(registry), reconciles, errors, finished, left_behind, leader }
    }
}

impl Metrics {
    /// Adds what the stores know, read when Prometheus asks.
    pub fn observe(&self, stores: Stores) {
        self.lock().register_collector(Box::new(State { stores }));
    }

    /// A reconcile of `kind` took `time`; `error` is the reason if it failed.
    pub fn reconciled(&self, kind: &str, time: Duration, error: Option<&'static str>) {
        self.reconciles.get_or_create(&Kind { kind: kind.into() }).observe(time.as_secs_f64());
        if let Some(reason) = error {
            self.errors.get_or_create(&KindReason { kind: kind.into(), reason: reason.into() }).inc();
        }
    }

    /// A Backup or Restore reached a terminal phase; `reason` is a stable word, empty on success.
    pub fn finished(&self, kind: &str, phase: &str, reason: &str) {
        let outcome = Finished { kind: kind.into(), phase: phase.into(), reason: reason.into() };
        self.finished.get_or_create(&outcome).inc();
    }

    /// A backup was let go although its files stay in `repo`.
    pub fn left_behind(&self, repo: &str) {
        self.left_behind.get_or_create(&Repo { repo: repo.into() }).inc();
    }

    /// Whether this process holds the lease.
    pub fn leads(&self, leads: bool) {
        self.leader.set(leads.into());
    }

    /// Everything in the text format of `OpenMetrics`.
    ///
    /// # Errors
    /// When a value cannot be written, which would be a mistake in this file.
    pub fn render(&self) -> Result<String, fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.lock())?;
        Ok(out)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
struct Protected {
    namespace: String,
    policy: String,
    method: String,
}

/// The newest completed backup of a policy's method.
#[derive(Clone, Copy, Debug, PartialEq)]
struct LastGood {
    completed: Timestamp,
    bytes: Option<u64>,
    seconds: Option<f64>,
}

/// Computes gauges from the stores, so that they are right after a restart and cost nothing between scrapes.
struct State {
    stores: Stores,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("State")
    }
}

impl Collector for State {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let backups = self.stores.backups.state();
        let readable = || backups.iter().filter_map(|guarded| guarded.0.as_ref().ok());
        let last = last_good(readable());
        let mut gauge = |name: &str, help: &str, unit: &Unit, value: fn(&LastGood) -> Option<f64>| {
            let mut metric =
                encoder.encode_descriptor(name, help, Some(unit), prometheus_client::metrics::MetricType::Gauge)?;
            for (labels, good) in &last {
                if let Some(value) = value(good) {
                    ConstGauge::new(value).encode(metric.encode_family(labels)?)?;
                }
            }
            Ok::<_, fmt::Error>(())
        };
        gauge("last_good_backup_timestamp", "When the newest completed backup ended", &Unit::Seconds, |good| {
            Some(good.completed.as_second() as f64)
        })?;
        gauge("last_good_backup_size", "Size of the newest completed backup", &Unit::Bytes, |good| {
            good.bytes.map(|bytes| bytes as f64)
        })?;
        gauge("last_good_backup_duration", "Duration of the newest completed backup", &Unit::Seconds, |good| {
            good.seconds
        })?;
        phases(
            &mut encoder,
            "backups",
            "Backups by phase",
            readable().map(|backup| {
                let status = backup.status.as_ref();
                (
                    backup.namespace().unwrap_or_default(),
                    status.and_then(|status| status.phase).map_or("New", BackupPhase::as_str),
                )
            }),
        )?;
        let restores = self.stores.restores.state();
        phases(
            &mut encoder,
            "restores",
            "Restores by phase",
            restores.iter().filter_map(|guarded| {
                let restore = guarded.0.as_ref().ok()?;
                let phase = restore.status.as_ref().and_then(|status| status.phase).map_or("New", RestorePhase::as_str);
                Some((restore.namespace().unwrap_or_default(), phase))
            }),
        )?;
        let mut metric = encoder.encode_descriptor(
            "repo_ready",
            "1 when the repository is Ready",
            None,
            prometheus_client::metrics::MetricType::Gauge,
        )?;
        for guarded in self.stores.repos.state() {
            let ready =
                guarded.0.as_ref().ok().and_then(|repo| repo.status.as_ref()?.phase) == Some(BackupRepoPhase::Ready);
            ConstGauge::new(i64::from(ready)).encode(metric.encode_family(&[("repo", guarded.name_any())])?)?;
        }
        Ok(())
    }
}

fn phases<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    all: impl Iterator<Item = (String, &'a str)>,
) -> Result<(), fmt::Error> {
    let mut counts = BTreeMap::<_, i64>::new();
    for key in all {
        *counts.entry(key).or_default() += 1;
    }
    let mut metric = encoder.encode_descriptor(name, help, None, prometheus_client::metrics::MetricType::Gauge)?;
    for ((namespace, phase), count) in counts {
        let labels = [("namespace", namespace.as_str()), ("phase", phase)];
        ConstGauge::new(count).encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

fn last_good<'a>(backups: impl Iterator<Item = &'a Backup>) -> BTreeMap<Protected, LastGood> {
    let mut last = BTreeMap::<Protected, LastGood>::new();
    for backup in backups {
        let Some(status) = backup.status.as_ref().filter(|status| status.phase == Some(BackupPhase::Completed)) else {
            continue;
        };
        let Some(completed) = status.completion_timestamp.as_ref().map(|time| time.0) else { continue };
        let begun = status.start_timestamp.as_ref().map(|time| time.0);
        let good = LastGood {
            completed,
            bytes: status.total_size.as_deref().and_then(parse_size),
            seconds: begun.map(|begun| completed.duration_since(begun).as_secs_f64()),
        };
        let key = Protected {
            namespace: backup.namespace().unwrap_or_default(),
            policy: backup.labels().get(labels::BACKUP_POLICY).cloned().unwrap_or_default(),
            method: backup.spec.backup_method.clone(),
        };
        let newest = last.entry(key).or_insert(good);
        if newest.completed < completed {
            *newest = good;
        }
    }
    last
}
