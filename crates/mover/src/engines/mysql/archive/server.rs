//! What the archiver asks the server beside the stream: who it is, which files it has, and what time it is.

use crate::engines::mysql::client::{Connection, Rows, Target};
use crate::engines::mysql::names::{Name, Place};
use crate::error::{Cause, Error, Result};
use crate::output;

/// Who a server is, and what a restore wants to know of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) version: String,
    pub(super) who: Who,
    /// Base name of its log files.
    pub(super) log: String,
    pub(super) data_directory: String,
}

/// What no other server shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Who {
    MariaDb { domain: u32, server: u32 },
    MySql { uuid: String },
}

impl Default for Who {
    fn default() -> Self {
        Self::MariaDb { domain: 0, server: 0 }
    }
}

impl Who {
    /// What is asked for beside the log. Of `MariaDB` everything that stands in the file, with the text of statements beside
    /// their rows; `MySQL` leaves nothing out.
    pub(super) fn dump_flags(&self) -> u16 {
        match self {
            Self::MariaDb { .. } => 2,
            Self::MySql { .. } => 0,
        }
    }
}

/// Major and minor, as in `8.4.3-log`.
fn series(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

pub(super) struct Server {
    connection: Connection,
    /// The statement that tells where the log ends.
    end: &'static str,
    /// The right to see the log, as the server calls it.
    right: &'static str,
}

impl Server {
    /// # Errors
    /// When the server cannot be reached, or does not let us in.
    pub(super) async fn open(target: &Target) -> Result<Self> {
        let connection = Connection::open(target).await?;
        Ok(Self { connection, end: "show master status", right: "BINLOG MONITOR" })
    }

    /// # Errors
    /// When the server is none that can be archived.
    pub(super) async fn identity(&mut self) -> Result<Identity> {
        let denied = |why: String| Error::new(Cause::AccessDenied, why);
        let version = self.connection.row("select version()").await?.into_iter().next().flatten().unwrap_or_default();
        let who = if version.contains("MariaDB") { self.mariadb().await? } else { self.mysql(&version).await? };
        let query = "select @@log_bin, @@log_bin_basename, @@datadir, @@binlog_format";
        let mut row = self.connection.row(query).await?.into_iter().map(Option::unwrap_or_default);
        let mut field = || row.next().unwrap_or_default();
        let (on, log, data_directory, format) = (field(), field(), field(), field());
        if on != "1" {
            return Err(denied("the server writes no binary log: start it with --log-bin".to_owned()));
        }
        if format == "STATEMENT" {
            output::note(
                "NOTICE: binlog_format is STATEMENT: what a statement did may not be what replaying it does; set MIXED or ROW",
            );
        }
        Ok(Identity {
            version,
            who,
            log: Name::of_server(&format!("{log}.000001"))?.base,
            data_directory: data_directory.trim_end_matches('/').to_owned(),
        })
    }

    async fn mariadb(&mut self) -> Result<Who> {
        let row = self.connection.row("select @@gtid_domain_id, @@server_id").await?;
        let number = |at: usize| {
            let text = row.get(at).cloned().flatten().unwrap_or_default();
            text.parse().map_err(|_| Error::other(format!("{text:?} is no server id or domain")))
        };
        Ok(Who::MariaDb { domain: number(0)?, server: number(1)? })
    }

    async fn mysql(&mut self, version: &str) -> Result<Who> {
        let denied = |why: String| Error::new(Cause::AccessDenied, why);
        let series = series(version).filter(|series| *series >= (8, 0));
        let series = series.ok_or_else(|| {
            denied(format!("the server is {version}; archiving needs MariaDB 10.6 or MySQL 8.0, or later"))
        })?;
        self.end = if series >= (8, 2) { "show binary log status" } else { "show master status" };
        self.right = "REPLICATION CLIENT";
        let row = self.connection.row("select @@server_uuid, @@gtid_mode").await?;
        let field = |at: usize| row.get(at).cloned().flatten().unwrap_or_default();
        let (uuid, mode) = (field(0), field(1));
        if mode != "ON" {
            // Without it nothing says whether one file follows from another, or which backup a file belongs to.
            return Err(denied(format!("gtid_mode is {mode}; archiving needs ON")));
        }
        Ok(Who::MySql { uuid: uuid.to_lowercase() })
    }

    /// The files that the server has, oldest first.
    ///
    /// # Errors
    /// When the account may not see them.
    pub(super) async fn files(&mut self) -> Result<Vec<Name>> {
        let rows = self.connection.query("show binary logs").await.map_err(|error| {
            if error.is(Cause::AccessDenied) { error.within(format!("{} is needed", self.right)) } else { error }
        })?;
        rows.iter().map(|row| Name::of_server(row.first().and_then(Option::as_deref).unwrap_or_default())).collect()
    }

    /// A time in seconds since the Unix epoch, and where the log ended then or a moment later: what is written behind that place
    /// is written after that time.
    ///
    /// # Errors
    /// When the connection is lost.
    pub(super) async fn clock(&mut self) -> Result<(i64, Place)> {
        let unknown = || Error::other("the server does not say where its log ends");
        let text = |rows: Rows| rows.into_iter().next().unwrap_or_default();
        let time = self.connection.row("select unix_timestamp()").await?.into_iter().next().flatten();
        let time = time.and_then(|time| time.parse().ok()).ok_or_else(unknown)?;
        let end = text(self.connection.query(self.end).await?);
        let field = |at: usize| end.get(at).and_then(Option::as_deref).ok_or_else(unknown);
        let at = field(1)?.parse().map_err(|_| unknown())?;
        Ok((time, Place { file: Name::of_server(field(0)?)?, at }))
    }

    /// Has the server begin a new file. `false` where the account may not.
    ///
    /// # Errors
    /// When the connection is lost.
    pub(super) async fn rotate(&mut self) -> Result<bool> {
        match self.connection.query("flush local binary logs").await {
            Err(error) if error.is(Cause::AccessDenied) => Ok(false),
            other => other.map(|_| true),
        }
    }
}
