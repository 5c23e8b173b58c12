//! The chores of the workspace: `cargo xtask <chore>`. One file or folder per chore; this one only names them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

mod actionsets;
mod artifacts;
mod bench;
mod cargo;
mod chart;
mod cluster;
mod codegen;
mod demo;
mod deny;
mod dist;
mod metrics;
mod program;
mod site;
mod stores;
mod test;
mod ui;

/// The chores of the kbbackup workspace
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Chore {
    Bench(bench::Args),
    Cluster(cluster::Args),
    Codegen(codegen::Args),
    Demo(demo::Args),
    Dist(dist::Args),
    Program(program::Args),
    Test(test::Args),
}

fn main() -> ExitCode {
    let done = match Chore::parse() {
        Chore::Bench(args) => bench::run(&root(), &args),
        Chore::Cluster(args) => cluster::run(&args),
        Chore::Codegen(args) => codegen::run(&root(), args.check),
        Chore::Demo(args) => demo::run(&root(), &args),
        Chore::Dist(args) => dist::run(&root(), &args),
        Chore::Program(args) => program::run(&args),
        Chore::Test(args) => test::run(&root(), &args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            ui::error(&error);
            ExitCode::FAILURE
        }
    }
}

/// The top of the checkout that xtask runs for. Clones may share a build directory, and with it the program: the checkout it
/// was built in counts only when cargo does not say for which it runs.
fn root() -> PathBuf {
    let xtask = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let xtask = Path::new(&xtask);
    xtask.parent().unwrap_or(xtask).to_path_buf()
}
