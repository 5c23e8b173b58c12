//! `schedule`: when backups are made by themselves.

mod change;
mod create;
mod delete;
mod describe;
mod find;
mod list;
mod switch;
mod trigger;
mod update;

use clap::{Args, Subcommand};

use crate::{app::App, error::Result, exit::Exit, ui::Ui};

/// When backups are made by themselves, and how long they are kept
#[derive(Debug, Subcommand)]
pub(crate) enum ScheduleCommand {
    Create(Box<create::CreateArgs>),
    #[command(visible_alias = "ls", alias = "get")]
    List(list::ListArgs),
    #[command(visible_alias = "desc")]
    Describe(describe::DescribeArgs),
    Update(Box<update::UpdateArgs>),
    /// Switch an entry on
    #[command(after_help = switch::ENABLE_EXAMPLES)]
    Enable(switch::SwitchArgs),
    /// Switch an entry off; the backups that it made stay
    #[command(after_help = switch::DISABLE_EXAMPLES)]
    Disable(switch::SwitchArgs),
    Trigger(Box<trigger::TriggerArgs>),
    #[command(visible_alias = "rm")]
    Delete(delete::DeleteArgs),
}

/// Which entry of a schedule is meant.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct EntryArgs {
    /// Source whose schedule is meant, or schedule/NAME
    pub source: Option<String>,

    /// Entry by its method
    #[arg(short, long, value_name = "METHOD")]
    pub method: Option<String>,

    /// Entry by its name, when several have the same method
    #[arg(short, long, value_name = "NAME")]
    pub entry: Option<String>,
}

pub(crate) async fn run(ui: &Ui, app: &App, command: &ScheduleCommand) -> Result<Exit> {
    match command {
        ScheduleCommand::Create(args) => create::run(ui, app, args).await,
        ScheduleCommand::List(args) => list::run(ui, app, args).await,
        ScheduleCommand::Describe(args) => describe::run(ui, app, args).await,
        ScheduleCommand::Update(args) => update::run(ui, app, args).await,
        ScheduleCommand::Enable(args) => switch::run(ui, app, args, true).await,
        ScheduleCommand::Disable(args) => switch::run(ui, app, args, false).await,
        ScheduleCommand::Trigger(args) => trigger::run(ui, app, args).await,
        ScheduleCommand::Delete(args) => delete::run(ui, app, args).await,
    }
}
