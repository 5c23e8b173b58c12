//! The operator in a cluster with many backups: an API server and etcd of its own, no nodes; what a kubelet would do to
//! the Jobs of the burst, the bench does. The operator is the release binary as a process of this machine.

pub(super) mod api_server;
mod audit;
mod kubelet;
pub(super) mod seed;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::artifacts::{self, Profile};
use crate::ui;
use api_server::ApiServer;
use audit::Requests;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Finished backups in the cluster
    #[arg(long, default_value_t = 10_000)]
    backups: usize,
    /// Policies, and as many schedules
    #[arg(long, default_value_t = 500)]
    policies: usize,
    /// Backups created one after the other
    #[arg(long, default_value_t = 20)]
    alone: usize,
    /// Backups created at once
    #[arg(long, default_value_t = 1_000)]
    burst: usize,
    /// How long the steady state is watched, in seconds
    #[arg(long, default_value_t = 60)]
    rest: u64,
    /// Folder for the data of etcd, kept afterwards and used again; its backups need not be created again
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
    /// This binary instead of one built now
    #[arg(long, value_name = "FILE")]
    controller: Option<PathBuf>,
}

pub(super) fn run(root: &Path, args: &Args) -> Result<()> {
    let binary = match &args.controller {
        Some(binary) => binary.clone(),
        None => ui::long_step("build the operator", || artifacts::build(root, Profile::Release))?.controller,
    };
    let temporary = tempfile::tempdir()?;
    let dir = args.keep.as_deref().unwrap_or(temporary.path());
    std::fs::create_dir_all(dir)?;
    let server = ui::step("etcd and API server of their own", || ApiServer::start(dir, root))?;
    tokio::runtime::Runtime::new()?.block_on(measure(&server, &binary, args))
}

async fn measure(server: &ApiServer, binary: &Path, args: &Args) -> Result<()> {
    let client = server.client().await?;
    let kubelet = tokio::spawn(kubelet::run(client.clone()));
    let begin = Instant::now();
    seed::fill(&client, args.backups, args.policies).await?;
    ui::note(format!("seeded in {}", ui::seconds(begin.elapsed()).trim()));
    let total = seed::count(&client).await?;

    // Start.
    server.audit.forget()?;
    let operator = Operator::start(binary, server)?;
    let begin = Instant::now();
    let reconciled = |text: &str| sample(text, "kbbackup_reconcile_duration_seconds_count{kind=\"Backup\"}");
    operator.wait(Duration::from_secs(300), |text| reconciled(text) >= total as f64).await?;
    let ready = begin.elapsed();
    let start_cpu = operator.cpu()?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    seed::repo_is_ready(&client, Duration::from_secs(120)).await?;
    let start = Phase::ended("start", ready, start_cpu, &operator, server)?;

    // Rest.
    tokio::time::sleep(Duration::from_secs(5)).await;
    server.audit.forget()?;
    let (begin, before) = (Instant::now(), operator.cpu()?);
    tokio::time::sleep(Duration::from_secs(args.rest)).await;
    let rest = Phase::ended("rest", begin.elapsed(), operator.cpu()? - before, &operator, server)?;

    // One backup after the other.
    server.audit.forget()?;
    let (begin, before) = (Instant::now(), operator.cpu()?);
    for _ in 0..args.alone {
        seed::burst(&client, 1, Duration::from_secs(120)).await?;
    }
    let alone = Phase::ended("alone", begin.elapsed(), operator.cpu()? - before, &operator, server)?;
    let delays_alone = audit::delays(&server.audit.events()?);

    // Burst.
    server.audit.forget()?;
    let (begin, before) = (Instant::now(), operator.cpu()?);
    seed::burst(&client, args.burst, Duration::from_secs(900)).await?;
    let took = begin.elapsed();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let burst = Phase::ended("burst", took, operator.cpu()? - before, &operator, server)?;
    ensure!(!kubelet.is_finished(), "what stands for the kubelet has ended");
    kubelet.abort();
    let delays = audit::delays(&server.audit.events()?);

    ui::result(format!("operator with {total} backups, {0} policies, {0} schedules", args.policies));
    let phases = [(&start, 1), (&rest, 1), (&alone, args.alone), (&burst, args.burst)];
    ui::result(table(
        &["phase", "backups", "seconds", "CPU seconds", "resident MiB", "peak MiB", "requests", "writes"],
        &phases
            .iter()
            .zip([total, total, args.alone, args.burst])
            .map(|((phase, _), count)| phase.row(count))
            .collect::<Vec<_>>(),
    ));
    let verbs = ["get", "list", "watch", "create", "patch", "update", "delete"];
    ui::result(table(
        &[&["requests"][..], &verbs, &["all"]].concat(),
        &phases.iter().map(|(phase, count)| phase.requests_by_verb(&verbs, *count)).collect::<Vec<_>>(),
    ));
    ui::result(table(
        &["delay in ms", "p50", "p99", "seen"],
        &[
            delay("Backup created to Job created, one at a time", &delays_alone.job),
            delay("last pod ended to Completed, one at a time", &delays_alone.done),
            delay("Backup created to Job created, burst", &delays.job),
            delay("last pod ended to Completed, burst", &delays.done),
        ],
    ));
    for (phase, count) in phases {
        ui::note(format!("{}: {}", phase.name, phase.requests.told(count)));
    }
    Ok(())
}

/// What a part of the run has cost.
struct Phase {
    name: &'static str,
    took: Duration,
    cpu: f64,
    resident: u64,
    peak: u64,
    requests: Requests,
}

impl Phase {
    fn ended(name: &'static str, took: Duration, cpu: f64, operator: &Operator, server: &ApiServer) -> Result<Self> {
        let (resident, peak) = (operator.memory("VmRSS:")?, operator.memory("VmHWM:")?);
        Ok(Self { name, took, cpu, resident, peak, requests: server.audit.requests()? })
    }

    fn row(&self, count: usize) -> Vec<String> {
        let (resident, peak) = (format!("{:.1}", mib(self.resident)), format!("{:.1}", mib(self.peak)));
        let (took, cpu) = (format!("{:.1}", self.took.as_secs_f64()), format!("{:.2}", self.cpu));
        let requests = self.requests.of_verb(None);
        vec![
            self.name.to_owned(),
            count.to_string(),
            took,
            cpu,
            resident,
            peak,
            requests.to_string(),
            self.requests.writes().to_string(),
        ]
    }

    fn requests_by_verb(&self, verbs: &[&str], count: usize) -> Vec<String> {
        let title = if count > 1 { format!("{}, per backup", self.name) } else { self.name.to_owned() };
        let shown = |number: usize| match count {
            0 | 1 => number.to_string(),
            more => format!("{:.2}", number as f64 / more as f64),
        };
        let numbers = verbs.iter().copied().map(Some).chain([None]).map(|verb| shown(self.requests.of_verb(verb)));
        std::iter::once(title).chain(numbers).collect()
    }
}

fn delay(title: &str, sorted: &[i64]) -> Vec<String> {
    vec![title.to_owned(), at(sorted, 0.5).to_string(), at(sorted, 0.99).to_string(), sorted.len().to_string()]
}

/// Rows under a header, in Markdown.
fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let header: Vec<String> = header.iter().map(|&title| title.to_owned()).collect();
    let width = |column: usize| rows.iter().chain([&header]).map(|row| row[column].len()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
    };
    let rule: Vec<String> = widths
        .iter()
        .enumerate()
        .map(|(column, width)| match column {
            0 => "-".repeat(*width),
            _ => format!("{}:", "-".repeat(width.saturating_sub(1))),
        })
        .collect();
    [&header, &rule].into_iter().chain(rows).map(line).collect()
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

fn at(sorted: &[i64], share: f64) -> i64 {
    sorted.get(((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1))).copied().unwrap_or(-1)
}

/// The operator under test.
struct Operator {
    child: Child,
    metrics: u16,
}

impl Operator {
    fn start(binary: &Path, server: &ApiServer) -> Result<Self> {
        let (metrics, health) = (api_server::free_port()?, api_server::free_port()?);
        let log = std::fs::File::create(server.dir.join("controller.log"))?;
        let child = Command::new(binary)
            .arg(format!("--metrics-bind-address=127.0.0.1:{metrics}"))
            .arg(format!("--health-probe-bind-address=127.0.0.1:{health}"))
            .arg("--log-format=plain")
            .env("KUBECONFIG", server.kubeconfig("controller"))
            .envs(BTreeMap::from([
                // As in the chart.
                ("MALLOC_ARENA_MAX", "1"),
                ("MALLOC_MMAP_THRESHOLD_", "65536"),
                ("MALLOC_TRIM_THRESHOLD_", "65536"),
                ("CM_NAMESPACE", seed::MANAGER_NAMESPACE),
                ("EXEC_WORKER_SERVICE_ACCOUNT_NAME", "kbbackup-exec-worker"),
                ("DATASAFED_IMAGE", "bench/mover"),
                ("KBBACKUP_CONTROLLER_IMAGE", "bench/controller"),
            ]))
            .stderr(Stdio::from(log))
            .spawn()
            .with_context(|| format!("cannot run {}", binary.display()))?;
        Ok(Self { child, metrics })
    }

    async fn wait(&self, limit: Duration, reached: impl Fn(&str) -> bool) -> Result<()> {
        let begin = Instant::now();
        loop {
            if self.scrape().await.is_ok_and(|text| reached(&text)) {
                return Ok(());
            }
            if begin.elapsed() > limit {
                bail!("the operator did not get there within {limit:?}; see controller.log");
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    async fn scrape(&self) -> Result<String> {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", self.metrics)).await?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n").await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok(text)
    }

    /// Processor time so far, in seconds.
    fn cpu(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let after = stat.rsplit_once(") ").context("no process")?.1;
        let ticks = after.split(' ').skip(11).take(2).map(str::parse::<f64>).sum::<Result<f64, _>>()?;
        Ok(ticks / rustix::param::clock_ticks_per_second() as f64)
    }

    /// A line of the process's status, in KiB.
    fn memory(&self, line: &str) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let value = status.lines().find_map(|text| text.strip_prefix(line)).context("the operator has ended")?;
        Ok(value.trim().trim_end_matches(" kB").parse()?)
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn sample(text: &str, name: &str) -> f64 {
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or(0.0)
}
