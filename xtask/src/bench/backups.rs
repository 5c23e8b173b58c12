//! Many backups at once on the cluster: delays as a client sees them, and what the operator holds.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use kbbackup_testing::fixtures;
use kbbackup_testing::kubectl::Kubectl;
use kbbackup_testing::namespace::TempNamespace;
use kbbackup_testing::postgres::Postgres;
use serde_json::Value;

use crate::artifacts::Profile;
use crate::cluster::Options;
use crate::{site, ui};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    cluster: Options,
    /// Backups started at once
    #[arg(long, default_value_t = 20)]
    count: usize,
}

const SCRIPT: &str = r#"set -e
export PATH="$PATH:$DP_DATASAFED_BIN_PATH" DATASAFED_BACKEND_BASE_PATH="$DP_BACKUP_BASE_PATH"
head -c 1000000 /dev/urandom | datasafed push - /data
echo '{"totalSize":"1000000"}' > "$DP_BACKUP_INFO_FILE""#;

pub(super) fn run(root: &Path, args: &Args) -> Result<()> {
    let site = site::prepare(root, &args.cluster, site::POSTGRES, Profile::Release)?;
    let space = TempNamespace::new(&site.kubectl, "bench")?;
    let kubectl = &space.kubectl;
    Postgres::create(kubectl, "pg", "1Gi")?;
    let set = fixtures::scripted_action_set(&space.name, SCRIPT);
    let policy = fixtures::policy("pg", "pg", &space.name, None);
    kubectl.apply(&fixtures::list(&[set, policy]).to_string())?;

    let idle = operator_memory(&site.kubectl)?;
    let jobs = Watch::start(kubectl, "jobs", ".metadata.uid")?;
    let pods = Watch::start(kubectl, "pods", ".status.phase")?;
    let backups = Watch::start(kubectl, "backups", ".status.phase")?;
    std::thread::sleep(Duration::from_secs(1));

    // One alone, then the crowd.
    let mut rows = Vec::new();
    rows.push(("one backup, at rest", batch(kubectl, "alone", 1, [&jobs, &pods, &backups])?));
    let begin = Instant::now();
    rows.push(("many at once", batch(kubectl, "crowd", args.count, [&jobs, &pods, &backups])?));
    let during = operator_memory(&site.kubectl)?;

    ui::result(format!(
        "{:22} {:>16} {:>16} {:>16}",
        "milliseconds, p50/p99", "created→Job", "pod end→done", "created→done"
    ));
    for (name, delays) in &rows {
        let cell = |pick: fn(&Delays) -> Duration| {
            let mut all: Vec<_> = delays.iter().map(pick).collect();
            all.sort();
            let at = |share: f64| {
                all.get(((all.len() as f64 * share) as usize).min(all.len() - 1)).map_or(0, Duration::as_millis)
            };
            format!("{} / {}", at(0.5), at(0.99))
        };
        ui::result(format!(
            "{name:22} {:>16} {:>16} {:>16}",
            cell(|d| d.job),
            cell(|d| d.completed),
            cell(|d| d.whole)
        ));
    }
    ui::result(format!("{} backups at once took {:.1} s", args.count, begin.elapsed().as_secs_f64()));
    ui::result(format!("operator, working set: idle {:.1} MiB, after the crowd {:.1} MiB", mib(idle), mib(during)));
    Ok(())
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Delays of one backup, as a watching client saw them.
struct Delays {
    job: Duration,
    completed: Duration,
    whole: Duration,
}

fn batch(kubectl: &Kubectl, prefix: &str, count: usize, [jobs, pods, backups]: [&Watch; 3]) -> Result<Vec<Delays>> {
    let names: Vec<String> = (0..count).map(|index| format!("{prefix}-{index}")).collect();
    let objects: Vec<Value> = names.iter().map(|name| fixtures::backup(name, "pg", "full")).collect();
    kubectl.apply(&fixtures::list(&objects).to_string())?;
    for name in &names {
        kubectl
            .wait_for("backup", name, Duration::from_secs(600), |object| object["status"]["phase"] == "Completed")?;
    }
    std::thread::sleep(Duration::from_millis(500));
    names
        .iter()
        .map(|name| {
            let created = backups.first(name).context("the watch did not see the Backup")?;
            let done = backups.value(name, "Completed").context("the watch did not see it complete")?;
            let data = format!("dp-backup-0-{name}-");
            let seal = format!("dp-seal-{name}-");
            let job = jobs.first(&data).context("the watch did not see the Job")?;
            let sealed = pods.value(&seal, "Succeeded").context("the watch did not see the last pod end")?;
            Ok(Delays {
                job: job.saturating_duration_since(created),
                completed: done.saturating_duration_since(sealed),
                whole: done.duration_since(created),
            })
        })
        .collect()
}

/// What `kubectl get --watch` printed, with the moment each line came.
struct Watch {
    child: Child,
    lines: Arc<Mutex<Vec<(Instant, String, String)>>>,
}

impl Watch {
    fn start(kubectl: &Kubectl, kind: &str, field: &str) -> Result<Self> {
        let columns = format!("custom-columns=NAME:.metadata.name,VALUE:{field}");
        let mut child = kubectl
            .command(&["get", kind, "--watch", "--no-headers", "-o", &columns])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let output = BufReader::new(child.stdout.take().context("no pipe")?);
        let lines = Arc::new(Mutex::new(Vec::new()));
        let into = lines.clone();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let mut words = line.split_whitespace().map(str::to_owned);
                if let (Some(name), Some(value)) = (words.next(), words.next()) {
                    into.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), name, value));
                }
            }
        });
        Ok(Self { child, lines })
    }

    fn find(&self, wanted: impl Fn(&str, &str) -> bool) -> Option<Instant> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().find(|(_, name, value)| wanted(name, value)).map(|line| line.0)
    }

    fn first(&self, prefix: &str) -> Option<Instant> {
        self.find(|name, _| name == prefix || (prefix.ends_with('-') && name.starts_with(prefix)))
    }

    fn value(&self, prefix: &str, value: &str) -> Option<Instant> {
        self.find(|name, at| at == value && (name == prefix || (prefix.ends_with('-') && name.starts_with(prefix))))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Working set of the operator's container in bytes, as the kubelet measures it.
fn operator_memory(kubectl: &Kubectl) -> Result<u64> {
    // The kubelet looks every ten seconds or so.
    std::thread::sleep(Duration::from_secs(15));
    let nodes = kubectl.get(&["nodes"])?;
    for node in nodes["items"].as_array().into_iter().flatten() {
        let name = node["metadata"]["name"].as_str().context("a node has a name")?;
        let summary = kubectl.run(&["get", "--raw", &format!("/api/v1/nodes/{name}/proxy/stats/summary")])?;
        let summary: BTreeMap<String, Value> = serde_json::from_str(&summary)?;
        for pod in summary["pods"].as_array().into_iter().flatten() {
            if pod["podRef"]["name"].as_str().is_some_and(|name| name.starts_with("kbbackup-controller")) {
                return pod["containers"][0]["memory"]["workingSetBytes"].as_u64().context("no memory figure yet");
            }
        }
    }
    anyhow::bail!("the operator's pod is not in any node's statistics")
}
