//! Programs that tests compare our mover with, built from Go modules.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::cluster::{debian, go};
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
    let mut env: Vec<_> =
        all.into_iter().map(|(variable, name)| Ok((variable, name.path()?.into_os_string()))).collect::<Result<_>>()?;
    env.push(("KBBACKUP_TEST_POSTGRES", postgres()?.into_os_string()));
    env.push(("KBBACKUP_TEST_MARIADB", mariadb()?.into_os_string()));
    env.push(("KBBACKUP_TEST_REDIS", redis()?.into_os_string()));
    env.push(("KBBACKUP_TEST_SHELLCHECK", shellcheck()?.into_os_string()));
    Ok(env)
}

/// What looks at the scripts of the ActionSets; Debian's is installed where there is none.
fn shellcheck() -> Result<PathBuf> {
    let program = PathBuf::from("/usr/bin/shellcheck");
    if !program.exists() {
        debian::install(&["shellcheck"])?;
    }
    Ok(program)
}

/// The folder of the newest `PostgreSQL` server's programs; Debian's is installed where there is none.
fn postgres() -> Result<PathBuf> {
    let find = || {
        let servers = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        servers.map(|server| server.path().join("bin")).filter(|bin| bin.join("initdb").exists()).max()
    };
    if let Some(bin) = find() {
        return Ok(bin);
    }
    debian::install(&["postgresql-15"])?;
    find().context("the package postgresql-15 has no server")
}

/// A `MariaDB` server, with the tools of backups and logs beside it; Debian's are installed where there are none.
fn mariadb() -> Result<PathBuf> {
    let server = PathBuf::from("/usr/sbin/mariadbd");
    let tools = ["/usr/bin/mariadb-backup", "/usr/bin/mariadb-binlog"];
    if !server.exists() || !tools.iter().all(|tool| std::path::Path::new(tool).exists()) {
        debian::install(&["mariadb-server-core", "mariadb-client", "mariadb-backup"])?;
    }
    Ok(server)
}

/// A Redis server, with its tools beside it; Debian's is installed where there is none.
fn redis() -> Result<PathBuf> {
    let server = PathBuf::from("/usr/bin/redis-server");
    if !server.exists() {
        debian::install(&["redis-server", "redis-tools"])?;
    }
    Ok(server)
}
