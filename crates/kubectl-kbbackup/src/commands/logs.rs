//! `logs`: of the pods that make a backup; when they are gone, what the status kept.

use std::{collections::BTreeSet, time::Duration};

use clap::Args;
use k8s_openapi::api::core::v1::Pod;
use kbbackup_api::{names::labels, v1alpha1::Backup};
use kube::{Api, ResourceExt, api::LogParams};

use super::list::backup;
use crate::{
    app::App,
    diagnose,
    error::{CliError, Result},
    exit::Exit,
    follow,
    ui::Ui,
    wait::Seen,
};

/// Print the log of a backup
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup logs pg-full-20260102030405
  kubectl kbbackup logs pg-full-20260102030405 -f
  kubectl kbbackup logs pg-full-20260102030405 --all --tail 50")]
pub(crate) struct LogsArgs {
    /// The backup
    pub name: String,

    /// Go on until the backup has ended
    #[arg(short, long)]
    pub follow: bool,

    /// Container [default: the one that does the work]
    #[arg(short, long)]
    pub container: Option<String>,

    /// The try before the last
    #[arg(long)]
    pub previous: bool,

    /// All containers of all pods
    #[arg(long)]
    pub all: bool,

    /// Only so many lines of each
    #[arg(long, value_name = "N")]
    pub tail: Option<i64>,
}

pub(crate) async fn run(ui: &Ui, app: &App, args: &LogsArgs) -> Result<Exit> {
    let backup = backup(app, &args.name).await?;
    let name = backup.name_any();
    if args.follow {
        return follow_to_end(ui, app, &name, args).await;
    }
    let pods = diagnose::pods(app, &app.namespace, &selector(&name)).await?;
    if pods.is_empty() {
        return from_status(ui, &backup);
    }
    let api: Api<Pod> = app.here();
    let several = args.all || pods.len() > 1;
    for pod in &pods {
        for container in containers(pod, args) {
            let prefix = if several { format!("[{} {container}] ", pod.name_any()) } else { String::new() };
            let params = params(args, &container, false);
            if let Err(error) = diagnose::stream(ui, &api, &pod.name_any(), &params, &prefix, None).await {
                ui.warn(&error.to_string());
            }
        }
    }
    Ok(Exit::Done)
}

fn selector(backup: &str) -> String {
    format!("{}={backup}", labels::BACKUP_NAME)
}

fn containers(pod: &Pod, args: &LogsArgs) -> Vec<String> {
    if let Some(container) = &args.container {
        return vec![container.clone()];
    }
    if !args.all {
        return diagnose::main_container(pod).into_iter().collect();
    }
    let Some(spec) = &pod.spec else { return Vec::new() };
    spec.init_containers.iter().flatten().chain(&spec.containers).map(|container| container.name.clone()).collect()
}

fn params(args: &LogsArgs, container: &str, follow: bool) -> LogParams {
    LogParams {
        container: Some(container.to_owned()),
        follow,
        previous: args.previous,
        tail_lines: args.tail,
        ..LogParams::default()
    }
}

/// The pods are gone: the reasons in the status hold their last lines.
fn from_status(ui: &Ui, backup: &Backup) -> Result<Exit> {
    let name = backup.name_any();
    let mut lines = Vec::new();
    for action in backup.status.iter().flat_map(|status| &status.actions) {
        let Some(reason) = action.failure_reason.as_deref().filter(|reason| !reason.is_empty()) else { continue };
        lines.push(format!("[{}] {}", action.name.clone().unwrap_or_default(), reason.trim()));
    }
    if lines.is_empty() {
        lines.extend(Some(follow::backup_reason(backup)).filter(|reason| !reason.is_empty()));
    }
    if lines.is_empty() {
        return Err(CliError::not_found(
            format!("backup/{name} has no log any more"),
            "its pods are gone and its status kept no lines",
        )
        .hint(format!("kubectl kbbackup describe {name}")));
    }
    ui.say(&format!("the pods of backup/{name} are gone; its status kept this:"));
    ui.result(&lines.join("\n"));
    Ok(Exit::Done)
}

/// Streams each pod as it appears until the backup has ended.
async fn follow_to_end(ui: &Ui, app: &App, name: &str, args: &LogsArgs) -> Result<Exit> {
    let mut shown = BTreeSet::new();
    loop {
        // The state is read before the pods: whatever ends in between is seen in one more round.
        let ended =
            matches!(follow::backup(app.here::<Backup>().get_opt(name).await.ok().flatten().as_ref()), Seen::End(_));
        let streamed = tokio::select! {
            streamed = stream_new(ui, app, name, args, &mut shown) => streamed?,
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Interrupted),
        };
        if ended && !streamed {
            return Ok(Exit::Done);
        }
        if !streamed {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

/// Streams the logs of started containers that were not shown yet; says whether there were any.
async fn stream_new(
    ui: &Ui,
    app: &App,
    name: &str,
    args: &LogsArgs,
    shown: &mut BTreeSet<(String, String)>,
) -> Result<bool> {
    let api: Api<Pod> = app.here();
    for pod in diagnose::pods(app, &app.namespace, &selector(name)).await? {
        let pod_name = pod.name_any();
        for container in containers(&pod, args) {
            if !has_started(&pod, &container) || !shown.insert((pod_name.clone(), container.clone())) {
                continue;
            }
            let title = format!("pod/{pod_name} container {container}:");
            diagnose::stream(ui, &api, &pod_name, &params(args, &container, true), "", Some(title)).await?;
            return Ok(true);
        }
    }
    Ok(false)
}

fn has_started(pod: &Pod, container: &str) -> bool {
    let Some(status) = &pod.status else { return false };
    let statuses = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    statuses
        .filter(|status| status.name == container)
        .filter_map(|status| status.state.as_ref())
        .any(|state| state.running.is_some() || state.terminated.is_some())
}

/// Shows the log while something else is waited for.
pub(crate) async fn alongside<T>(ui: &Ui, app: &App, name: &str, end: impl Future<Output = Result<T>>) -> Result<T> {
    let args = LogsArgs { name: name.to_owned(), ..LogsArgs::default() };
    let mut end = std::pin::pin!(end);
    let mut shown = BTreeSet::new();
    let logs = async {
        loop {
            // A log that cannot be read does not end the waiting.
            if !matches!(stream_new(ui, app, name, &args, &mut shown).await, Ok(true)) {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    };
    tokio::select! {
        ended = &mut end => ended,
        () = logs => end.await,
    }
}
