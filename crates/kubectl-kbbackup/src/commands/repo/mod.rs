//! `repo`: where backups are kept.

mod catalogue;
mod check;
mod contents;
mod create;
mod delete;
mod describe;
mod import;
mod list;
mod providers;
mod update;

use clap::Subcommand;
use kbbackup_api::{
    names::{TRUE, annotations, labels},
    v1alpha1::{Backup, BackupRepo, BackupRepoPhase},
};
use kube::{ResourceExt, api::ListParams};

use crate::{
    app::{App, get, list_all},
    error::{CliError, Result},
    exit::Exit,
    follow::{self, Ending},
    remedy,
    ui::Ui,
    wait::{self, Waiting},
};

/// Repositories: where backups are kept
#[derive(Debug, Subcommand)]
pub(crate) enum RepoCommand {
    Create(Box<create::CreateArgs>),
    #[command(visible_alias = "ls", alias = "get")]
    List(list::ListArgs),
    #[command(visible_alias = "desc")]
    Describe(describe::DescribeArgs),
    Update(update::UpdateArgs),
    Check(check::CheckArgs),
    Contents(contents::ContentsArgs),
    Import(Box<import::ImportArgs>),
    #[command(visible_alias = "rm")]
    Delete(delete::DeleteArgs),
    #[command(alias = "provider", alias = "list-sp")]
    Providers(providers::ProvidersArgs),
}

pub(crate) async fn run(ui: &Ui, app: &App, command: &RepoCommand) -> Result<Exit> {
    match command {
        RepoCommand::Create(args) => create::run(ui, app, args).await,
        RepoCommand::List(args) => list::run(ui, app, args).await,
        RepoCommand::Describe(args) => describe::run(ui, app, args).await,
        RepoCommand::Update(args) => update::run(ui, app, args).await,
        RepoCommand::Check(args) => check::run(ui, app, args).await,
        RepoCommand::Contents(args) => contents::run(ui, app, args).await,
        RepoCommand::Import(args) => import::run(ui, app, args).await,
        RepoCommand::Delete(args) => delete::run(ui, app, args).await,
        RepoCommand::Providers(args) => providers::run(ui, app, args).await,
    }
}

pub(crate) async fn all(app: &App) -> Result<Vec<BackupRepo>> {
    list_all(&app.everywhere::<BackupRepo>(), ListParams::default(), "repositories").await
}

pub(crate) fn is_default(repo: &BackupRepo) -> bool {
    repo.annotations().get(annotations::IS_DEFAULT_REPO).is_some_and(|value| value == TRUE)
}

pub(crate) fn is_ready(repo: &BackupRepo) -> bool {
    repo.status.as_ref().and_then(|status| status.phase) == Some(BackupRepoPhase::Ready)
}

/// The named repository, or the default one. Whether it is ready is another question.
pub(crate) async fn resolve(app: &App, name: Option<&str>) -> Result<BackupRepo> {
    if let Some(name) = name.filter(|name| !name.is_empty()) {
        return get(&app.everywhere::<BackupRepo>(), &format!("backuprepo/{name}")).await.map_err(|error| {
            if error.exit == Exit::NotFound { error.hint("kubectl kbbackup repo list") } else { error }
        });
    }
    let mut all = all(app).await?;
    let defaults: Vec<usize> = (0..all.len()).filter(|index| is_default(&all[*index])).collect();
    match defaults.as_slice() {
        [only] => Ok(all.swap_remove(*only)),
        [] if all.is_empty() => Err(CliError::missing("no repository to write to", "this cluster has none")
            .hint("kubectl kbbackup repo create --default")
            .hint("kubectl kbbackup install --embedded-repo")),
        [] => Err(CliError::usage("no repository to write to", "no BackupRepo is marked as default")
            .hint("kubectl kbbackup repo update NAME --default=true")),
        several => {
            let names: Vec<String> = several.iter().map(|index| all[*index].name_any()).collect();
            Err(CliError::usage("more than one default repository", names.join(", "))
                .hint("kubectl kbbackup repo update NAME --default=false"))
        }
    }
}

/// As [`resolve`], and it must be ready: nothing is started that is bound to wait.
pub(crate) async fn resolve_ready(app: &App, name: Option<&str>) -> Result<BackupRepo> {
    let repo = resolve(app, name).await?;
    if is_ready(&repo) {
        return Ok(repo);
    }
    let phase = repo.status.as_ref().and_then(|status| status.phase);
    let reason = follow::repo_reason(&repo);
    let why = match phase {
        Some(phase) if reason.is_empty() => phase.to_string(),
        Some(phase) => format!("{phase}: {reason}"),
        None => "the operator has not looked at it yet".to_owned(),
    };
    let mut error = CliError::missing(format!("backuprepo/{} is not ready", repo.name_any()), why);
    error = advised(error, &reason);
    Err(error.hint(format!("kubectl kbbackup repo check {}", repo.name_any())))
}

fn advised(error: CliError, reason: &str) -> CliError {
    match remedy::advice(reason) {
        Some(advice) => error.hint(advice),
        None => error,
    }
}

/// Waits until the repository is ready.
pub(crate) async fn wait_ready(ui: &Ui, app: &App, name: &str, limit: Option<std::time::Duration>) -> Result<()> {
    let what = format!("backuprepo/{name}");
    let waiting = Waiting { what: &what, limit, hints: vec![format!("kubectl kbbackup repo describe {name}")] };
    match wait::until(ui, app.everywhere::<BackupRepo>(), name, &waiting, follow::repo).await? {
        Ending::Good => Ok(()),
        Ending::Bad(reason) => Err(advised(CliError::failed(format!("{what} is not usable"), reason.clone()), &reason)
            .hint(format!("kubectl kbbackup repo describe {name}"))),
        Ending::Gone => Err(CliError::failed(what, "it was deleted meanwhile")),
    }
}

/// All backups that lie in a repository, in all namespaces.
pub(crate) async fn backups_in(app: &App, repo: &str) -> Result<Vec<Backup>> {
    let selector = format!("{}={repo}", labels::BACKUP_REPO_NAME);
    list_all(&app.everywhere::<Backup>(), ListParams::default().labels(&selector), "backups").await
}
