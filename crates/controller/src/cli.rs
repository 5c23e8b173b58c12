//! Arguments of the operator's binary.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use hyper::StatusCode;
use kube::Client;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::context::Context;
use crate::exec::Exec;
use crate::http;
use crate::lease::Election;
use crate::log;
use crate::metrics::Metrics;
use crate::report::Report;
use crate::settings::{Settings, registries};
use crate::watch::Scope;

/// The kbbackup operator.
#[derive(Debug, Parser)]
#[command(name = "kbbackup-controller", version, about, args_conflicts_with_subcommands = true)]
pub struct Command {
    #[command(subcommand)]
    task: Option<Task>,
    #[command(flatten)]
    run: Run,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Runs a command in a container of a running pod and ends with its exit code (what exec actions do).
    Exec(Exec),
    /// Copies a result file into a ConfigMap whenever it changes (what the side-car of a continuous backup does).
    Report(Report),
}

/// Watches the cluster and works until told to stop. Settings come from the environment (`CM_NAMESPACE`, ...).
#[derive(Args, Debug)]
struct Run {
    /// Where health is answered: `/healthz` and `/readyz`.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8081", value_parser = address)]
    health_probe_bind_address: SocketAddr,
    /// Where Prometheus reads: `/metrics`.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8080", value_parser = address)]
    metrics_bind_address: SocketAddr,
    /// Work only while holding the Lease, so that several replicas may run.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    leader_elect: bool,
    /// Name of the Lease, in the manager namespace.
    #[arg(long, value_name = "NAME", default_value = "kbbackup-controller")]
    leader_elect_id: String,
    /// Look after these namespaces only, and after the manager namespace; after all when none is given. Objects without
    /// a namespace are always looked after.
    #[arg(long, value_name = "NAMESPACES", value_delimiter = ',')]
    managed_namespaces: Vec<String>,
    /// Form of the log.
    #[arg(long, value_name = "FORM", default_value = "json")]
    log_format: log::Format,
    /// What is logged: a level, or filters per module as in `info,kube=debug`.
    #[arg(long, value_name = "FILTER", env = "KBBACKUP_LOG", default_value = "info")]
    log: String,
}

/// `:8080` means every address, as in Go.
fn address(text: &str) -> Result<SocketAddr, std::net::AddrParseError> {
    if text.starts_with(':') { format!("0.0.0.0{text}").parse() } else { text.parse() }
}

impl Command {
    /// Does what the arguments say.
    ///
    /// # Errors
    /// When a setting cannot be read, an address cannot be bound, the cluster's configuration is not found, or the
    /// lease is lost.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        match self.task {
            Some(Task::Exec(exec)) => {
                start_log(log::Format::Plain, "warn")?;
                exec.run(Client::try_default().await.context("no way to the cluster was found")?).await
            }
            Some(Task::Report(report)) => {
                start_log(log::Format::Plain, "info")?;
                report.run(Client::try_default().await.context("no way to the cluster was found")?).await
            }
            None => Box::pin(self.run.run()).await,
        }
    }
}

impl Run {
    async fn run(self) -> anyhow::Result<ExitCode> {
        start_log(self.log_format, &self.log)?;
        let mut settings = Settings::from_env(|name| std::env::var(name).ok())?;
        if let Some(file) = registries::file(std::env::var("HOME").ok().as_deref()) {
            settings.registries = registries::Live::follow(&file)?;
        }
        let client = Client::try_default().await.context("no way to the cluster was found")?;
        let metrics = Arc::new(Metrics::default());
        let ready = Arc::new(AtomicBool::new(false));
        let stop = CancellationToken::new();

        let election = self
            .leader_elect
            .then(|| Election::new(client.clone(), &settings.manager_namespace, &self.leader_elect_id, identity()));
        let scope = self.scope(&settings);
        let work = work(client, settings, scope, election, Arc::clone(&metrics), Arc::clone(&ready), stop.clone());
        let health = http::serve(self.health_probe_bind_address, move |path| match path {
            "/healthz" => (StatusCode::OK, "text/plain", "ok\n".to_owned()),
            "/readyz" if ready.load(Ordering::Relaxed) => (StatusCode::OK, "text/plain", "ok\n".to_owned()),
            "/readyz" => (StatusCode::SERVICE_UNAVAILABLE, "text/plain", "starting\n".to_owned()),
            _ => http::not_found(),
        });
        let scrapes = http::serve(self.metrics_bind_address, move |path| match (path, metrics.render()) {
            ("/metrics", Ok(text)) => (StatusCode::OK, crate::metrics::CONTENT_TYPE, text),
            ("/metrics", Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, "text/plain", error.to_string()),
            _ => http::not_found(),
        });
        let mut work = std::pin::pin!(work);
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            result = &mut work => return result.map(|()| ExitCode::SUCCESS),
            result = health => return result.map(|never| match never {}).context(self.health_probe_bind_address),
            result = scrapes => return result.map(|never| match never {}).context(self.metrics_bind_address),
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        tracing::info!("stopping");
        stop.cancel();
        // Kubernetes kills after 30 s by default; what is not done by then is done by the next process.
        if tokio::time::timeout(Duration::from_secs(20), work).await.is_err() {
            tracing::warn!("some work did not come to an end in 20 s");
        }
        Ok(ExitCode::SUCCESS)
    }

    fn scope(&self, settings: &Settings) -> Scope {
        let mut namespaces = self.managed_namespaces.clone();
        namespaces.retain(|namespace| !namespace.is_empty());
        if !namespaces.is_empty() {
            namespaces.push(settings.manager_namespace.clone());
        }
        Scope::of(&namespaces)
    }
}

async fn work(
    client: Client,
    settings: Settings,
    scope: Scope,
    mut election: Option<Election>,
    metrics: Arc<Metrics>,
    ready: Arc<AtomicBool>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    // A replica that waits for its turn is ready: it does what it should.
    ready.store(true, Ordering::Relaxed);
    if let Some(election) = &mut election {
        tokio::select! {
            () = election.acquire() => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
    metrics.leads(true);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), namespace = settings.manager_namespace, "working");
    let controllers = crate::run::run(client.clone(), &scope, |stores| {
        metrics.observe(stores.clone());
        Context::new(client, settings, stores, Arc::clone(&metrics), stop)
    });
    let Some(mut election) = election else {
        controllers.await;
        return Ok(());
    };
    tokio::select! {
        () = controllers => {}
        // Two that work at once would fight; a fresh process waits for its turn.
        () = election.keep() => anyhow::bail!("the lease was lost to another replica or to an unreachable API server"),
    }
    election.release().await;
    Ok(())
}

/// Name, default and help of every argument of the operator, for the page of settings.
pub fn arguments() -> Vec<(String, String, String)> {
    let command = <Command as clap::CommandFactory>::command();
    let arguments =
        command.get_arguments().filter(|argument| argument.get_long().is_some() && !argument.is_global_set());
    let described = arguments.filter_map(|argument| {
        let default = argument.get_default_values().iter().map(|value| format!("`{}`", value.to_string_lossy()));
        let default = default.collect::<Vec<_>>().join(", ");
        let help = argument.get_help()?.to_string().replace('|', "\\|");
        Some((argument.get_long()?.to_owned(), if default.is_empty() { "none".to_owned() } else { default }, help))
    });
    described.collect()
}

/// A name for this process that no other one has.
fn identity() -> String {
    let host = std::env::var("POD_NAME").or_else(|_| std::env::var("HOSTNAME")).unwrap_or_else(|_| "kbbackup".into());
    format!("{host}_{:08x}", rand::random::<u32>())
}

fn start_log(format: log::Format, filter: &str) -> anyhow::Result<()> {
    let subscriber =
        log::subscriber(format, filter, std::io::stderr).with_context(|| format!("log filter {filter:?}"))?;
    subscriber.try_init().context("the log is started once")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Command::command().debug_assert();
    }

    #[test]
    fn an_address_may_leave_out_the_host() {
        assert_eq!(address(":8080").unwrap(), "0.0.0.0:8080".parse().unwrap());
        assert!(address("nowhere").is_err());
    }

    #[test]
    fn the_command_line_of_an_exec_job_parses() {
        let line =
            ["c", "exec", "-n", "demo", "pg-0", "-c", "postgres", "--timeout", "30", "--", "psql", "-c", "select 1"];
        assert!(matches!(Command::parse_from(line).task, Some(Task::Exec(_))));
    }
}
