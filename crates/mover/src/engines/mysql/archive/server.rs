//! What the archiver asks the server beside the stream: who it is, which files it has, and what time it is.

use crate::engines::mysql::client::{Connection, Rows, Target};
use crate::engines::mysql::names::{Name, Place};
use crate::error::{Cause, Error, Result};
use crate::output;

/// Who a server is, and what a restore wants to know of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) version: String,
    pub(super) domain: u32,
    pub(super) server: u32,
    /// Base name of its log files.
    pub(super) log: String,
    pub(super) data_directory: String,
}

pub(super) struct Server(Connection);

impl Server {
    /// # Errors
    /// When the server cannot be reached, or does not let us in.
    pub(super) async fn open(target: &Target) -> Result<Self> {
        Connection::open(target).await.map(Self)
    }

    /// # Errors
    /// When the server is none that can be archived.
    pub(super) async fn identity(&mut self) -> Result<Identity> {
        let denied = |why: String| Error::new(Cause::AccessDenied, why);
        let version = self.0.row("select version()").await?.into_iter().next().flatten().unwrap_or_default();
        if !version.contains("MariaDB") {
            return Err(denied(format!("the server is {version}; archiving needs MariaDB 10.6 or later")));
        }
        let query = "select @@server_id, @@gtid_domain_id, @@log_bin, @@log_bin_basename, @@datadir, @@binlog_format";
        let mut row = self.0.row(query).await?.into_iter().map(Option::unwrap_or_default);
        let mut field = || row.next().unwrap_or_default();
        let (server, domain, on, log, data_directory, format) = (field(), field(), field(), field(), field(), field());
        if on != "1" {
            return Err(denied("the server writes no binary log: start it with --log-bin".to_owned()));
        }
        if format == "STATEMENT" {
            output::note(
                "NOTICE: binlog_format is STATEMENT: what a statement did may not be what replaying it does; set MIXED or ROW",
            );
        }
        let number =
            |text: String| text.parse().map_err(|_| Error::other(format!("{text:?} is no server id or domain")));
        Ok(Identity {
            version,
            domain: number(domain)?,
            server: number(server)?,
            log: Name::of_server(&format!("{log}.000001"))?.base,
            data_directory: data_directory.trim_end_matches('/').to_owned(),
        })
    }

    /// The files that the server has, oldest first.
    ///
    /// # Errors
    /// When the account may not see them.
    pub(super) async fn files(&mut self) -> Result<Vec<Name>> {
        let rows = self.0.query("show binary logs").await.map_err(|error| {
            if error.is(Cause::AccessDenied) { error.within("BINLOG MONITOR is needed") } else { error }
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
        let time = self.0.row("select unix_timestamp()").await?.into_iter().next().flatten();
        let time = time.and_then(|time| time.parse().ok()).ok_or_else(unknown)?;
        let end = text(self.0.query("show master status").await?);
        let field = |at: usize| end.get(at).and_then(Option::as_deref).ok_or_else(unknown);
        let at = field(1)?.parse().map_err(|_| unknown())?;
        Ok((time, Place { file: Name::of_server(field(0)?)?, at }))
    }

    /// Has the server begin a new file. `false` where the account may not.
    ///
    /// # Errors
    /// When the connection is lost.
    pub(super) async fn rotate(&mut self) -> Result<bool> {
        match self.0.query("flush local binary logs").await {
            Err(error) if error.is(Cause::AccessDenied) => Ok(false),
            other => other.map(|_| true),
        }
    }
}
