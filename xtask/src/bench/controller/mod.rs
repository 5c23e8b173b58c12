//! The operator in a cluster with many backups: an API server and etcd of its own, no nodes; what a kubelet would do to
//! the Jobs of the burst, the bench does. The operator is the release binary as a process of this machine.

mod api_server;
mod audit;
mod kubelet;
mod seed;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{artifacts, ui};
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
        None => ui::long_step("build the operator", || artifacts::build(root))?.controller,
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
    let start = server.audit.requests()?;
    let peak = operator.memory("VmHWM:")?;

    // Rest.
    tokio::time::sleep(Duration::from_secs(5)).await;
    server.audit.forget()?;
    let before = operator.cpu()?;
    tokio::time::sleep(Duration::from_secs(args.rest)).await;
    let rest_cpu = operator.cpu()? - before;
    let rest = server.audit.requests()?;
    let resident = operator.memory("VmRSS:")?;

    // Burst.
    server.audit.forget()?;
    let before = operator.cpu()?;
    let begin = Instant::now();
    seed::burst(&client, args.burst, Duration::from_secs(900)).await?;
    let took = begin.elapsed();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let burst_cpu = operator.cpu()? - before;
    let burst = server.audit.requests()?;
    let after = operator.memory("VmRSS:")?;
    ensure!(!kubelet.is_finished(), "what stands for the kubelet has ended");
    kubelet.abort();
    let delays = audit::delays(&server.audit.events()?);

    ui::result(format!("operator with {total} backups, {} policies, {} schedules", args.policies, args.policies));
    row("start", &format!("{:.1} s until every backup was looked at, {start_cpu:.1} s CPU", ready.as_secs_f64()));
    row("", &format!("peak resident {:.1} MiB", mib(peak)));
    row("", &format!("requests: {start}; writes: {}", start.writes()));
    row("rest", &format!("{rest_cpu:.2} s CPU in {} s, resident {:.1} MiB", args.rest, mib(resident)));
    row("", &format!("requests: {rest}"));
    row("burst", &format!("{} backups in {:.1} s, {burst_cpu:.1} s CPU", args.burst, took.as_secs_f64()));
    row("", &format!("resident after {:.1} MiB, peak {:.1} MiB", mib(after), mib(operator.memory("VmHWM:")?)));
    row("", &format!("requests per backup: {}", burst.per(args.burst)));
    for (name, values) in [("Backup created to Job created", delays.job), ("last pod ended to Completed", delays.done)]
    {
        row("", &format!("{name}: p50 {} ms, p99 {} ms ({} seen)", at(&values, 0.5), at(&values, 0.99), values.len()));
    }
    Ok(())
}

fn row(title: &str, text: &str) {
    ui::result(format!("{title:6} {text}"));
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

/// Requests in words, by verb and kind.
impl std::fmt::Display for Requests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.told(1))
    }
}
