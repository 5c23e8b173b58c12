//! `policy`: what is backed up, how, and where to.

mod create;
mod delete;
mod describe;
mod edit;
mod list;
mod recipes;
mod secrets;
mod set;
mod tell;

pub(crate) use create::{CreateArgs, plan, write};

use clap::Subcommand;

use crate::{app::App, error::Result, exit::Exit, ui::Ui};

/// What is backed up, how, and where to
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    Create(Box<CreateArgs>),
    #[command(visible_alias = "ls", alias = "get")]
    List(list::ListArgs),
    #[command(visible_alias = "desc")]
    Describe(describe::DescribeArgs),
    Set(set::SetArgs),
    Edit(edit::EditArgs),
    #[command(visible_alias = "as", alias = "actionset")]
    Actionsets(recipes::ActionSetsArgs),
    #[command(visible_alias = "bpt", alias = "template")]
    Templates(recipes::TemplatesArgs),
    #[command(visible_alias = "rm")]
    Delete(delete::DeleteArgs),
}

pub(crate) async fn run(ui: &Ui, app: &App, command: &PolicyCommand) -> Result<Exit> {
    match command {
        PolicyCommand::Create(args) => create::run(ui, app, args).await,
        PolicyCommand::List(args) => list::run(ui, app, args).await,
        PolicyCommand::Describe(args) => describe::run(ui, app, args).await,
        PolicyCommand::Set(args) => set::run(ui, app, args).await,
        PolicyCommand::Edit(args) => edit::run(ui, app, args).await,
        PolicyCommand::Actionsets(args) => recipes::action_sets(ui, app, args).await,
        PolicyCommand::Templates(args) => recipes::templates(ui, app, args).await,
        PolicyCommand::Delete(args) => delete::run(ui, app, args).await,
    }
}
