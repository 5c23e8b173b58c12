//! `completion`: scripts for shells, and the link by which kubectl itself completes. What it answers is in `complete.rs`.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::{Shell, generate};

use crate::{
    args::Cli,
    error::{CliError, Result},
    exit::Exit,
    ui::Ui,
};

/// Complete words: through kubectl (install), or by a script for a shell
///
/// install links this program as kubectl_complete-kbbackup beside the one that kubectl finds, or into --dir, where kubectl
/// looks for it. The others print a script for kubectl-kbbackup itself.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup completion install
  kubectl kbbackup completion install --dir ~/.local/bin
  kubectl kbbackup completion bash")]
pub(crate) struct CompletionArgs {
    /// install, or a shell: bash, zsh, fish or powershell
    #[arg(value_enum, hide_possible_values = true)]
    pub what: What,

    /// Folder on PATH for the link [default: that of kubectl-kbbackup]
    #[arg(long, value_name = "FOLDER")]
    pub dir: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    Install,
    Bash,
    Zsh,
    Fish,
    Powershell,
}

/// What kubectl starts to complete the words behind the plugin's name.
const COMPLETER: &str = "kubectl_complete-kbbackup";
const PLUGIN: &str = "kubectl-kbbackup";

pub(crate) fn run(ui: &Ui, args: &CompletionArgs) -> Result<Exit> {
    let shell = match args.what {
        What::Install => return install(ui, args.dir.as_deref()),
        What::Bash => Shell::Bash,
        What::Zsh => Shell::Zsh,
        What::Fish => Shell::Fish,
        What::Powershell => Shell::PowerShell,
    };
    if args.dir.is_some() {
        return Err(CliError::usage("--dir is for install", "a script is printed"));
    }
    let mut script = Vec::new();
    generate(shell, &mut Cli::command(), PLUGIN, &mut script);
    ui.result(&String::from_utf8_lossy(&script));
    Ok(Exit::Done)
}

fn install(ui: &Ui, dir: Option<&Path>) -> Result<Exit> {
    let folders: Vec<PathBuf> = env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect();
    // The entry on the PATH, not what it links to: krew puts another version behind it.
    let name = |name: &str| format!("{name}{}", env::consts::EXE_SUFFIX);
    let found = folders.iter().map(|folder| folder.join(name(PLUGIN))).find(|file| file.is_file());
    let plugin = match found {
        Some(plugin) => plugin,
        None => env::current_exe().map_err(|error| CliError::refused("the plugin is not found", error.to_string()))?,
    };
    let dir = dir.or(plugin.parent()).unwrap_or(Path::new("."));
    let link = dir.join(name(COMPLETER));
    let failed = |error: &io::Error| {
        CliError::refused(format!("{} cannot be written", link.display()), error.to_string())
            .hint("kubectl kbbackup completion install --dir FOLDER")
    };
    match fs::symlink_metadata(&link) {
        // An older link of ours, wherever it leads.
        Ok(there) if there.file_type().is_symlink() => fs::remove_file(&link).map_err(|error| failed(&error))?,
        Ok(_) => {
            let why = "and it is no link, so somebody else has put it there";
            return Err(CliError::usage(format!("{} exists already", link.display()), why));
        }
        Err(_) => {}
    }
    place(&plugin, &link).map_err(|error| failed(&error))?;
    ui.result(&format!("{} is installed", link.display()));
    if !folders.iter().any(|folder| folder == dir) {
        ui.warn(&format!("{} is not on the PATH, where kubectl looks", dir.display()));
    }
    Ok(Exit::Done)
}

#[cfg(unix)]
fn place(plugin: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(std::path::absolute(plugin)?, link)
}

/// Links need a privilege there.
#[cfg(not(unix))]
fn place(plugin: &Path, link: &Path) -> io::Result<()> {
    fs::copy(plugin, link).map(drop)
}
