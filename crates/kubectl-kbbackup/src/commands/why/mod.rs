//! `why`: what keeps a backup or restore from its good end, in one answer.

mod facts;
mod judge;
mod show;

use clap::Args;
use kbbackup_api::v1alpha1::{Backup, Restore};
use kube::ResourceExt;

use self::facts::Facts;
use crate::{
    app::{App, get},
    args::OutputArgs,
    commands::list,
    error::{CliError, Result},
    exit::Exit,
    output::{Format, object},
    ui::Ui,
};

/// Say why a backup or restore failed, or what it waits for: the likeliest cause first, and what to do about it
///
/// Reads status, conditions, Jobs, pods, warnings and the last lines of the log, and changes nothing.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup why pg-full-20260102030405
  kubectl kbbackup why restore/pg-copy-20260102030405
  kubectl kbbackup why pg-full-20260102030405 -o json")]
pub(crate) struct WhyArgs {
    /// A backup, or a restore as in restore/NAME
    pub name: String,

    #[command(flatten)]
    pub output: OutputArgs,
}

/// What is asked about.
pub(super) enum Subject {
    Backup(Box<Backup>),
    Restore(Box<Restore>),
}

pub(crate) async fn run(ui: &Ui, app: &App, args: &WhyArgs) -> Result<Exit> {
    let subject = find(app, &args.name).await?;
    let facts = facts::gather(app, &subject).await;
    let causes = judge::causes(&facts);
    let format = args.output.format();
    match format {
        Format::Json | Format::Yaml => ui.result(&object::text(&show::value(&facts, &causes), format)?),
        Format::Name => ui.result(&facts.full_name()),
        Format::Table | Format::Wide => {
            ui.result(&show::text(ui, &facts, &causes));
            for hint in next(&facts, app) {
                ui.hint(&hint);
            }
        }
    }
    Ok(Exit::Done)
}

/// The backup of that name, else the restore.
async fn find(app: &App, name: &str) -> Result<Subject> {
    let restore = |name: String| async move { get(&app.here::<Restore>(), &format!("restore/{name}")).await };
    if let Some(name) = name.strip_prefix("restore/") {
        return Ok(Subject::Restore(Box::new(restore(name.to_owned()).await?)));
    }
    match list::backup(app, name).await {
        Ok(backup) => Ok(Subject::Backup(Box::new(backup))),
        Err(error) if error.exit == Exit::NotFound && !name.contains('/') => match restore(name.to_owned()).await {
            Ok(restore) => Ok(Subject::Restore(Box::new(restore))),
            Err(other) if other.exit == Exit::NotFound => Err(CliError {
                what: format!("there is neither a backup nor a restore {name} in namespace {}", app.namespace),
                ..error
            }),
            Err(other) => Err(other),
        },
        Err(error) => Err(error),
    }
}

fn next(facts: &Facts, app: &App) -> Vec<String> {
    let (name, flag) = (&facts.name, app.namespace_flag());
    match (facts.kind, facts.state) {
        (_, facts::State::Good) => Vec::new(),
        ("Restore", _) => vec![format!("kubectl kbbackup restores describe {name}{flag}")],
        (_, facts::State::UnderWay) => vec![format!("kubectl kbbackup logs {name} -f{flag}")],
        (_, facts::State::Bad) => vec![format!("kubectl kbbackup logs {name} --all{flag}")],
    }
}

impl Subject {
    fn name(&self) -> String {
        match self {
            Self::Backup(backup) => backup.name_any(),
            Self::Restore(restore) => restore.name_any(),
        }
    }
}
