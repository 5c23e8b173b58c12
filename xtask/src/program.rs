//! Programs that tests compare our mover with, built from Go modules.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Result;

use crate::cluster::go;
use crate::ui;

/// Prints where a program that tests use lies, and builds it if it is not in the cache
#[derive(clap::Args)]
pub(crate) struct Args {
    name: Name,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Name {
    /// Reads and writes objects with the reference's libraries
    Formats,
    /// An S3 server that is not ours
    Versitygw,
    /// Another one
    Rclone,
}

impl Name {
    fn path(self) -> Result<PathBuf> {
        match self {
            Self::Formats => go::FORMATS.path(),
            Self::Versitygw => go::VERSITYGW.path(),
            Self::Rclone => go::RCLONE.path(),
        }
    }
}

/// Prints the path.
pub(crate) fn run(args: &Args) -> Result<()> {
    ui::result(args.name.path()?.display().to_string());
    Ok(())
}

/// Environment by which tests find all of them.
pub(crate) fn test_env() -> Result<Vec<(&'static str, OsString)>> {
    let all = [
        ("KBBACKUP_TEST_FORMATS", Name::Formats),
        ("KBBACKUP_TEST_VERSITYGW", Name::Versitygw),
        ("KBBACKUP_TEST_RCLONE", Name::Rclone),
    ];
    all.into_iter().map(|(variable, name)| Ok((variable, name.path()?.into_os_string()))).collect()
}
