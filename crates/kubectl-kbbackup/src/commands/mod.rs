//! The tree of commands: a file per command, a folder per noun.

pub(crate) mod backup;
pub(crate) mod cancel;
pub(crate) mod completion;
pub(crate) mod delete;
pub(crate) mod describe;
pub(crate) mod doctor;
pub(crate) mod install;
pub(crate) mod list;
pub(crate) mod logs;
pub(crate) mod policy;
pub(crate) mod repo;
pub(crate) mod report;
pub(crate) mod restore;
pub(crate) mod restores;
pub(crate) mod schedule;
pub(crate) mod status;
pub(crate) mod timeline;
pub(crate) mod uninstall;
pub(crate) mod update;
pub(crate) mod verify;
pub(crate) mod version;
pub(crate) mod why;
pub(crate) mod windows;

use crate::{
    app::App,
    args::{Cli, Command},
    error::Result,
    exit::Exit,
    ui::Ui,
};

/// Runs the command that was given.
pub(crate) async fn run(ui: &Ui, cli: &Cli) -> Result<Exit> {
    let globals = &cli.globals;
    // These two work without a cluster.
    match &cli.command {
        Command::Completion(args) => return completion::run(ui, args),
        Command::Version(args) => return version::run(ui, globals, args).await,
        _ => {}
    }
    let app = &App::connect(globals).await?;
    match &cli.command {
        Command::Install(args) => install::run(ui, app, args).await,
        Command::Upgrade(args) => install::upgrade::run(ui, app, args).await,
        Command::Uninstall(args) => uninstall::run(ui, app, args).await,
        Command::Repo(command) => repo::run(ui, app, command).await,
        Command::Policy(command) => policy::run(ui, app, command).await,
        Command::Backup(args) => backup::run(ui, app, args).await,
        Command::List(args) => list::run(ui, app, args).await,
        Command::Describe(args) => describe::run(ui, app, args).await,
        Command::Logs(args) => logs::run(ui, app, args).await,
        Command::Report(args) => report::run(ui, app, args).await,
        Command::Verify(args) => verify::run(ui, app, args).await,
        Command::Why(args) => why::run(ui, app, args).await,
        Command::Update(args) => update::run(ui, app, args).await,
        Command::Cancel(args) => cancel::run(ui, app, args).await,
        Command::Delete(args) => delete::run(ui, app, args).await,
        Command::Restore(args) => Box::pin(restore::run(ui, app, args)).await,
        Command::Restores(command) => restores::run(ui, app, command).await,
        Command::Schedule(command) => schedule::run(ui, app, command).await,
        Command::Status(args) => status::run(ui, app, args).await,
        Command::Timeline(args) => timeline::run(ui, app, args).await,
        Command::Windows(args) => windows::run(ui, app, args).await,
        Command::Doctor(args) => doctor::run(ui, app, args).await,
        Command::Version(_) | Command::Completion(_) => Ok(Exit::Done),
    }
}
