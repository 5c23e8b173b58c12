//! Figures, measured side by side with the alternative in the same run. Never part of a test.

use std::path::Path;

use anyhow::Result;
use clap::Subcommand;

mod backups;
mod cli;
mod controller;
mod mover;
mod recovery;
mod run;

/// Measures, and prints a table
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Push and pull beside cat and zstd of the same data
    Mover(mover::Args),
    /// Delays and the operator's memory while many backups run at once, on the cluster
    Backups(backups::Args),
    /// Backup, restore and what a disaster takes, beside the engines' own tools by hand, on the cluster
    Recovery(recovery::Args),
    /// Start, list and completion of the plugin beside kubectl, with 10,000 backups
    Cli(cli::Args),
    /// The operator's memory, requests and delays with 10,000 backups, against an API server without nodes
    Controller(controller::Args),
}

pub(crate) fn run(root: &Path, args: &Args) -> Result<()> {
    match &args.what {
        What::Mover(args) => mover::run(root, args),
        What::Backups(args) => backups::run(root, args),
        What::Recovery(args) => recovery::run(root, args),
        What::Cli(args) => cli::run(root, args),
        What::Controller(args) => controller::run(root, args),
    }
}
