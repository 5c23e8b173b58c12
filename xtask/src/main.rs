//! The chores of the workspace: `cargo xtask <chore>`. One file or folder per chore; this one only names them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

mod cluster;
mod codegen;
mod ui;

/// The chores of the kbbackup workspace
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Chore {
    Cluster(cluster::Args),
    Codegen(codegen::Args),
}

fn main() -> ExitCode {
    let done = match Chore::parse() {
        Chore::Cluster(args) => cluster::run(&args),
        Chore::Codegen(args) => codegen::run(&root(), args.check),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            ui::error(&error);
            ExitCode::FAILURE
        }
    }
}

/// The top of the repository that xtask was built from.
fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_path_buf()
}
