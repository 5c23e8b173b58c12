//! Start: arguments, logs, then the watches of [`kbbackup_controller::run`].

use std::process::ExitCode;

use clap::Parser as _;
use kbbackup_controller::cli::Command;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    Command::parse().run().await
}
