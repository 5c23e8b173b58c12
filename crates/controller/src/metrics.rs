//! What Prometheus reads: how reconciles go, and the state of backups as the watches know it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use jiff::Timestamp;
use kbbackup_api::v1alpha1::{Backup, BackupPhase, BackupRepo, BackupRepoPhase, BackupType, Restore, RestorePhase};
use kbbackup_core::layout::parse_size;
use kube::ResourceExt as _;
use kube::runtime::reflector::Store;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::catalogue::Entry;
use crate::context::Stores;
use crate::watch::Guarded;
use kbbackup_api::names::labels;

/// What [`Metrics::render`] writes.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

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
        self.watch(Store::clone(&stores.backups), stores.restores, stores.repos);
    }

    /// Adds what these three stores know.
    pub fn watch(&self, backups: Store<Entry>, restores: Store<Guarded<Restore>>, repos: Store<Guarded<BackupRepo>>) {
        self.lock().register_collector(Box::new(State { backups, restores, repos }));
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

    /// Everything in Prometheus' text format, as [`CONTENT_TYPE`] says.
    ///
    /// # Errors
    /// When a value cannot be written, which would be a mistake in this file.
    pub fn render(&self) -> Result<String, fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.lock())?;
        Ok(classic(&out))
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
    backups: Store<Entry>,
    restores: Store<Guarded<Restore>>,
    repos: Store<Guarded<BackupRepo>>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("State")
    }
}

impl Collector for State {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let backups = self.backups.state();
        let backups: Vec<_> = backups.iter().filter_map(|entry| entry.backup()).collect();
        let readable = || backups.iter().map(AsRef::as_ref);
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
        let mut metric = encoder.encode_descriptor(
            "continuous_window_end_timestamp",
            "Up to when a continuous backup can restore",
            Some(&Unit::Seconds),
            prometheus_client::metrics::MetricType::Gauge,
        )?;
        for (labels, end) in window_ends(readable()) {
            ConstGauge::new(end.as_second() as f64).encode(metric.encode_family(&labels)?)?;
        }
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
        let restores = self.restores.state();
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
        for guarded in self.repos.state() {
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

fn protected(backup: &Backup) -> Protected {
    Protected {
        namespace: backup.namespace().unwrap_or_default(),
        policy: backup.labels().get(labels::BACKUP_POLICY).cloned().unwrap_or_default(),
        method: backup.spec.backup_method.clone(),
    }
}

/// The end of the window of each continuous backup that runs. What it lags behind is the time of the scrape minus this.
fn window_ends<'a>(backups: impl Iterator<Item = &'a Backup>) -> BTreeMap<Protected, Timestamp> {
    let mut ends = BTreeMap::<Protected, Timestamp>::new();
    for backup in backups {
        let continuous =
            backup.labels().get(labels::BACKUP_TYPE).is_some_and(|type_| type_ == BackupType::Continuous.as_str());
        let status = backup.status.as_ref().filter(|status| continuous && status.phase == Some(BackupPhase::Running));
        let range = status.and_then(|status| status.time_range.as_ref());
        let Some(end) = range.and_then(|range| range.end.as_ref()) else { continue };
        let known = ends.entry(protected(backup)).or_insert(end.0);
        *known = end.0.max(*known);
    }
    ends
}

/// `OpenMetrics` as Prometheus' older text format, which every reader knows: a counter is called there as its samples are,
/// and there are neither units nor an end.
fn classic(open: &str) -> String {
    let counters: BTreeSet<&str> =
        open.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let mut text = String::with_capacity(open.len());
    for line in open.lines() {
        let about = ["# HELP ", "# TYPE "].iter().find_map(|start| Some((*start, line.strip_prefix(start)?)));
        match about.and_then(|(start, rest)| Some((start, rest.split_once(' ')?))) {
            Some((start, (name, rest))) if counters.contains(name) => {
                text.push_str(&format!("{start}{name}_total {rest}\n"));
            }
            None if line.starts_with('#') => {}
            _ => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    text
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
        let newest = last.entry(protected(backup)).or_insert(good);
        if newest.completed < completed {
            *newest = good;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use kube::runtime::reflector;
    use kube::runtime::watcher::Event;
    use serde_json::{Value, json};

    use super::*;
    use crate::fake::from;

    fn backup(name: &str, type_: &str, status: Value) -> Entry {
        from(json!({
            "metadata": {"name": name, "namespace": "demo",
                "labels": {labels::BACKUP_POLICY: "pg", labels::BACKUP_TYPE: type_}},
            "spec": {"backupPolicyName": "pg", "backupMethod": "full"}, "status": status }))
    }

    fn good(name: &str, end: &str) -> Entry {
        let status = json!({ "phase": "Completed", "startTimestamp": "2026-01-01T00:00:00Z",
            "completionTimestamp": end, "totalSize": "1Ki" });
        backup(name, "Full", status)
    }

    fn line<'a>(text: &'a str, name: &str) -> Option<&'a str> {
        text.lines().find(|line| line.starts_with(name))
    }

    #[test]
    fn deleted_objects_vanish_and_the_newest_good_backup_counts() {
        let (backups, mut writer) = reflector::store();
        let metrics = Metrics::default();
        metrics.watch(backups, reflector::store().0, reflector::store().0);
        for (name, end) in [("a", "2026-01-01T00:01:00Z"), ("b", "2026-01-01T00:02:00Z")] {
            writer.apply_watcher_event(&Event::Apply(good(name, end)));
        }
        let labels = r#"{namespace="demo",policy="pg",method="full"}"#;
        let text = metrics.render().unwrap();
        let stamp = line(&text, "kbbackup_last_good_backup_timestamp_seconds").unwrap();
        assert_eq!(stamp, format!("kbbackup_last_good_backup_timestamp_seconds{labels} 1767225720.0"));
        assert!(line(&text, "kbbackup_last_good_backup_size_bytes").unwrap().ends_with(" 1024.0"));
        assert!(line(&text, "kbbackup_last_good_backup_duration_seconds").unwrap().ends_with(" 120.0"));
        for (name, end) in [("a", "2026-01-01T00:01:00Z"), ("b", "2026-01-01T00:02:00Z")] {
            writer.apply_watcher_event(&Event::Delete(good(name, end)));
        }
        let text = metrics.render().unwrap();
        assert_eq!(line(&text, "kbbackup_last_good"), None);
        assert_eq!(line(&text, "kbbackup_backups{"), None);
    }

    #[test]
    fn the_window_of_a_continuous_backup_ends_where_its_newest_log_does() {
        let (backups, mut writer) = reflector::store();
        let metrics = Metrics::default();
        metrics.watch(backups, reflector::store().0, reflector::store().0);
        let range = json!({ "phase": "Running", "timeRange": {"end": "2026-01-01T00:00:10Z"} });
        writer.apply_watcher_event(&Event::Apply(backup("logs", "Continuous", range.clone())));
        writer.apply_watcher_event(&Event::Apply(backup("other", "Full", range)));
        let text = metrics.render().unwrap();
        let ends: Vec<_> =
            text.lines().filter(|line| line.starts_with("kbbackup_continuous_window_end_timestamp_seconds")).collect();
        assert_eq!(ends.len(), 1, "{ends:?}");
        assert!(ends[0].ends_with(" 1767225610.0"), "{ends:?}");
    }

    #[test]
    fn a_counter_is_called_as_its_samples_are() {
        let metrics = Metrics::default();
        metrics.finished("Backup", "Failed", "Fatal");
        metrics.reconciled("Backup", Duration::from_millis(3), Some("ReconcileFailed"));
        let text = metrics.render().unwrap();
        assert!(text.contains("# TYPE kbbackup_finished_total counter\n"), "{text}");
        assert!(text.contains("# HELP kbbackup_finished_total "), "{text}");
        let sample = r#"kbbackup_finished_total{kind="Backup",phase="Failed",reason="Fatal"} 1"#;
        assert_eq!(line(&text, "kbbackup_finished_total"), Some(sample));
        assert!(text.contains("# TYPE kbbackup_reconcile_duration_seconds histogram\n"), "{text}");
        assert!(!text.contains("# EOF") && !text.contains("# UNIT"), "{text}");
    }
}
