//! `repo check`: has the operator write, read and remove a file again.

use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use kbbackup_api::{conditions::BackupRepoCondition, names::annotations, v1alpha1::BackupRepo};
use kube::{
    ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::{
    app::{App, get},
    args::duration,
    error::{CliError, Doing, Result},
    exit::Exit,
    follow::{self, Ending},
    ui::{Mark, Ui},
    wait::{self, Seen, Waiting},
};

/// Write, read and remove a file in repositories again
///
/// A repository stays usable while it is checked. Exits with 4 when a check fails.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup repo check s3-main
  kubectl kbbackup repo check")]
pub(crate) struct CheckArgs {
    /// Repositories to check [default: all]
    pub names: Vec<String>,

    /// Stop waiting after this time
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "5m")]
    pub timeout: Duration,
}

pub(super) async fn run(ui: &Ui, app: &App, args: &CheckArgs) -> Result<Exit> {
    let api = app.everywhere::<BackupRepo>();
    let mut names = args.names.clone();
    if names.is_empty() {
        names = super::all(app).await?.iter().map(ResourceExt::name_any).collect();
    }
    for name in &names {
        get(&api, &format!("backuprepo/{name}")).await?;
    }
    if app.operator().await?.is_none() {
        return Err(CliError::missing(
            "repositories cannot be checked",
            "the operator of kbbackup does not run in this cluster",
        )
        .hint("kubectl kbbackup install"));
    }
    let limit = Some(args.timeout).filter(|limit| !limit.is_zero());
    let mut worst = Exit::Done;
    for name in &names {
        match request_and_wait(ui, app, name, limit).await {
            Ok(took) => ui.result(&ui.marked(Mark::Good, &format!("backuprepo/{name} works (checked in {took}s)"))),
            Err(error) if error.exit == Exit::Failed => {
                ui.result(&ui.marked(Mark::Bad, &format!("backuprepo/{name}: {}", error.why)));
                for hint in &error.hints {
                    ui.hint(hint);
                }
                worst = Exit::Failed;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(worst)
}

/// Asks for a check and waits for its answer; gives the seconds it took.
pub(super) async fn request_and_wait(ui: &Ui, app: &App, name: &str, limit: Option<Duration>) -> Result<i64> {
    let api = app.everywhere::<BackupRepo>();
    let begun = Timestamp::now();
    let stamp = begun.to_string();
    let patch = json!({"metadata": {"annotations": {annotations::CHECK_REQUESTED_AT: stamp}}});
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .doing(|| format!("backuprepo/{name} cannot be asked for a check"))?;
    let what = format!("the check of backuprepo/{name}");
    let waiting = Waiting { what: &what, limit, hints: vec![format!("kubectl kbbackup repo describe {name}")] };
    let ending = wait::until(ui, api, name, &waiting, |repo: Option<&BackupRepo>| judge(repo, &stamp)).await?;
    match ending {
        Ending::Good => Ok(Timestamp::now().duration_since(begun).as_secs()),
        Ending::Bad(reason) => {
            let error = CliError::failed(format!("backuprepo/{name} failed its check"), reason.clone());
            Err(super::advised(error, &reason))
        }
        Ending::Gone => Err(CliError::failed(format!("backuprepo/{name}"), "it was deleted meanwhile")),
    }
}

/// The check is over when the operator has answered this very request.
fn judge(repo: Option<&BackupRepo>, stamp: &str) -> Seen<Ending> {
    let Some(repo) = repo else { return Seen::End(Ending::Gone) };
    if repo.annotations().get(annotations::CHECKED_AT).is_none_or(|checked| checked != stamp) {
        return Seen::Going(format!("backuprepo/{}: checking by writing and reading a file", repo.name_any()));
    }
    let conditions = repo.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let passed = conditions.iter().find(|condition| condition.type_ == BackupRepoCondition::PreCheckPassed.as_str());
    match passed {
        Some(condition) if condition.status == "True" => Seen::End(Ending::Good),
        _ => Seen::End(Ending::Bad(follow::repo_reason(repo))),
    }
}
