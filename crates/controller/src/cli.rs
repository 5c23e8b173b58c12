//! Arguments of the operator's binary.

use clap::Parser;

/// The kbbackup operator.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Command {}

impl Command {
    /// Runs until told to stop.
    ///
    /// # Errors
    /// When the cluster cannot be reached at start.
    pub async fn run(self) -> anyhow::Result<()> {
        Ok(())
    }
}
