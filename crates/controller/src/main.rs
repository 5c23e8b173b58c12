//! Start: arguments, logs, then the watches of [`kbbackup_controller::run`].

use clap::Parser as _;
use kbbackup_controller::cli::Command;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    Command::parse().run().await
}
