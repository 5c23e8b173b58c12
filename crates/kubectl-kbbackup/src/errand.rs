//! Errands: the operator runs the mover on a repository, and its log is the answer. No credential comes here.

use std::time::Duration;

use futures::{AsyncBufReadExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kbbackup_api::{
    errand::{Errand, Task},
    names::annotations,
    v1alpha1::{BackupRepo, EncryptionConfig},
};
use kube::{
    Api, ResourceExt,
    api::{ListParams, LogParams, Patch, PatchParams},
};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    app::App,
    diagnose,
    error::{CliError, Doing, Result},
    exit::Exit,
    output::human,
    ui::Ui,
};

/// How often is looked for the pod.
const PAUSE: Duration = Duration::from_millis(300);
/// An operator that knows errands has started one by then.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is to be done, and where.
pub(crate) struct Asked<'a> {
    pub repo: &'a str,
    pub task: Task,
    pub encryption: Option<EncryptionConfig>,
    /// Longest wait for its end.
    pub limit: Option<Duration>,
    /// In a few words, for progress: `reading the catalogue of backuprepo/s3`.
    pub doing: String,
}

/// How it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub lines: Vec<String>,
    /// Exit code of the mover.
    pub code: i32,
}

/// Has an errand run and waits for its end. Nothing is written when nobody could do it.
pub(crate) async fn run(ui: &Ui, app: &App, asked: &Asked<'_>) -> Result<Answer> {
    let namespace = operator_namespace(app, asked).await?;
    let id: String = format!("{:012x}", rand::random::<u64>() & 0xffff_ffff_ffff);
    let errand = Errand { id, task: asked.task.clone(), encryption: asked.encryption.clone() };
    let text = serde_json::to_string(&errand)?;
    let repos = app.everywhere::<BackupRepo>();
    let patch = json!({"metadata": {"annotations": {annotations::ERRAND: text}}});
    let params = PatchParams { field_manager: Some(app.field_manager.clone()), ..PatchParams::default() };
    let refused = || format!("backuprepo/{} cannot be asked", asked.repo);
    repos.patch(asked.repo, &params, &Patch::Merge(patch)).await.doing(refused)?;
    let work = follow(ui, app, asked, &namespace, &errand.id, &text);
    let limit = asked.limit.unwrap_or(Duration::MAX);
    tokio::select! {
        answer = tokio::time::timeout(limit, work) => answer.unwrap_or_else(|_| Err(early(asked, Exit::Timeout, limit))),
        _ = tokio::signal::ctrl_c() => Err(early(asked, Exit::Interrupted, limit)),
    }
}

/// Where the operator works; an error when there is none of ours.
async fn operator_namespace(app: &App, asked: &Asked<'_>) -> Result<String> {
    let operator = app.operator().await?;
    let what = || format!("{} is not possible", asked.doing);
    let Some(operator) = operator else {
        let foreign = crate::install::foreign::controllers(app).await.unwrap_or_default();
        let why = match foreign.first() {
            Some(name) => {
                format!("only the operator of kbbackup can do it, and here KubeBlocks' deployment {name} works")
            }
            None => "the operator of kbbackup does not run in this cluster".to_owned(),
        };
        return Err(CliError::missing(what(), why).hint("kubectl kbbackup install"));
    };
    Ok(operator.namespace().unwrap_or_default())
}

fn early(asked: &Asked<'_>, exit: Exit, limit: Duration) -> CliError {
    let why = match exit {
        Exit::Timeout => {
            let limit = human::span(jiff::SignedDuration::try_from(limit).unwrap_or_default());
            format!("no end after {limit}; it goes on in the cluster, and its answer is lost")
        }
        _ => "interrupted; it goes on in the cluster, and its answer is lost".to_owned(),
    };
    CliError::new(exit, format!("stopped {}", asked.doing), why)
}

async fn follow(ui: &Ui, app: &App, asked: &Asked<'_>, namespace: &str, id: &str, text: &str) -> Result<Answer> {
    let pods = app.within::<Pod>(namespace);
    let pod = started(ui, app, asked, &pods, id, text).await?;
    let mut lines = read(ui, &pods, &pod, asked, true).await?;
    let (code, again) = ended(&pods, &pod, asked).await?;
    // A connection that broke off is made good by what the kubelet has kept.
    if again || lines.is_empty() {
        lines = read(ui, &pods, &pod, asked, false).await?;
    }
    ui.clear();
    Ok(Answer { lines, code })
}

/// Waits until the mover runs, or has run.
async fn started(ui: &Ui, app: &App, asked: &Asked<'_>, pods: &Api<Pod>, id: &str, text: &str) -> Result<String> {
    let begun = Instant::now();
    loop {
        let params = ListParams::default().labels(&Errand::selector(id));
        let found =
            pods.list(&params).await.doing(|| "pods of the operator's namespace cannot be listed".to_owned())?;
        let pod = found.items.first();
        if let Some(pod) = pod.filter(|pod| has_started(pod)) {
            return Ok(pod.name_any());
        }
        match pod.and_then(|pod| diagnose::troubles(pod).into_iter().next()) {
            Some((_, trouble)) => ui.progress_if_live(&format!("{}: {trouble}", asked.doing)),
            None => ui.progress_if_live(&asked.doing),
        }
        if pod.is_none() {
            still_ours(app, asked, text, begun.elapsed()).await?;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Another person's errand may have taken the place of ours before the operator saw it; an old operator sees none.
async fn still_ours(app: &App, asked: &Asked<'_>, text: &str, waited: Duration) -> Result<()> {
    let what = || format!("{} did not begin", asked.doing);
    let repo = app.everywhere::<BackupRepo>().get(asked.repo).await.doing(what)?;
    let mark = |key: &str| repo.annotations().get(key).map(String::as_str);
    if mark(annotations::ERRAND) != Some(text) {
        return Err(CliError::refused(what(), "somebody else asked the same repository at this moment; try again"));
    }
    if mark(annotations::ERRAND_DONE) == Some(text) {
        return Err(CliError::refused(what(), "the operator could not read what was asked")
            .hint(format!("kubectl get events --field-selector involvedObject.name={}", asked.repo)));
    }
    if waited > PATIENCE {
        let why = "the operator has started nothing; it may be older than this plugin, or not able to work";
        return Err(CliError::failed(what(), why).hint("kubectl kbbackup doctor").hint("kubectl kbbackup version"));
    }
    Ok(())
}

fn has_started(pod: &Pod) -> bool {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    statuses
        .filter_map(|status| status.state.as_ref())
        .any(|state| state.running.is_some() || state.terminated.is_some())
}

async fn read(ui: &Ui, pods: &Api<Pod>, pod: &str, asked: &Asked<'_>, follow: bool) -> Result<Vec<String>> {
    let what = || format!("the log of pod/{pod} cannot be read");
    let params = LogParams { follow, ..LogParams::default() };
    let mut log = pods.log_stream(pod, &params).await.doing(what)?.lines();
    let mut lines = Vec::new();
    // What broke off is read again.
    while let Ok(Some(line)) = log.try_next().await {
        lines.push(line);
        if lines.len() % 100 == 0 {
            ui.progress_if_live(&format!("{}: {} lines", asked.doing, lines.len()));
        }
    }
    Ok(lines)
}

/// Waits for the pod's end: its exit code, and whether it ran on after its log had ended.
async fn ended(pods: &Api<Pod>, pod: &str, asked: &Asked<'_>) -> Result<(i32, bool)> {
    let what = || format!("{} came to no end", asked.doing);
    let mut waits = 0;
    loop {
        let seen = pods.get(pod).await.doing(what)?;
        let statuses = seen.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        let mut ends = statuses.filter_map(|status| status.state.as_ref()?.terminated.as_ref());
        if let Some(end) = ends.next() {
            // The state of a pod comes a little later than the end of its log.
            return Ok((end.exit_code, waits > 10));
        }
        waits += 1;
        tokio::time::sleep(PAUSE).await;
    }
}
