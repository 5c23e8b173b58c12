//! `completion`: scripts for shells. Completion through kubectl itself is in `complete.rs`.

use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::{Shell, generate};

use crate::{args::Cli, exit::Exit, ui::Ui};

/// Print a completion script for a shell
///
/// For completion through kubectl, link this program as kubectl_complete-kbbackup into a directory on PATH instead.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup completion bash
  ln -s \"$(command -v kubectl-kbbackup)\" ~/.local/bin/kubectl_complete-kbbackup")]
pub(crate) struct CompletionArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: ShellName,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ShellName {
    Bash,
    Zsh,
    Fish,
    Powershell,
}

pub(crate) fn run(ui: &Ui, args: &CompletionArgs) -> Exit {
    let shell = match args.shell {
        ShellName::Bash => Shell::Bash,
        ShellName::Zsh => Shell::Zsh,
        ShellName::Fish => Shell::Fish,
        ShellName::Powershell => Shell::PowerShell,
    };
    let mut script = Vec::new();
    generate(shell, &mut Cli::command(), "kubectl-kbbackup", &mut script);
    ui.result(&String::from_utf8_lossy(&script));
    Exit::Done
}
