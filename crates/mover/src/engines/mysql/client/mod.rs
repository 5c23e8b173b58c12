//! A client of the server's replication protocol: what a replica needs to receive the binary log, and simple queries.

mod login;
mod wire;

use bytes::Bytes;

use crate::error::{Cause, Error, Result};
use wire::{Wire, number, refusal};

pub(crate) use login::{Security, Target};

const QUERY: u8 = 0x03;
const BINLOG_DUMP: u8 = 0x12;
const REGISTER_REPLICA: u8 = 0x15;
/// Where the first event of a file begins.
const FIRST: u32 = 4;

/// A connection to a server.
pub(super) struct Connection(Wire);

/// The rows of a result, as text.
pub(super) type Rows = Vec<Vec<Option<String>>>;

/// A part of an event.
pub(super) struct Part {
    pub(super) bytes: Bytes,
    /// Whether the event begins with it, and ends with it.
    pub(super) begins: bool,
    pub(super) ends: bool,
}

/// An event stream.
pub(super) struct Events {
    wire: Wire,
    within: bool,
}

impl Connection {
    /// Connects and logs in.
    ///
    /// # Errors
    /// [`Cause::Dns`], [`Cause::Unreachable`], [`Cause::Tls`], [`Cause::AccessDenied`].
    pub(super) async fn open(target: &Target) -> Result<Self> {
        login::open(target).await.map(Self)
    }

    /// Runs one statement that gives at most one result.
    ///
    /// # Errors
    /// What the server says, see [`wire::refusal`].
    pub(super) async fn query(&mut self, text: &str) -> Result<Rows> {
        self.0.command(QUERY, text.as_bytes()).await?;
        let first = self.0.receive().await?;
        let columns = match first.first() {
            Some(0) => return Ok(Rows::new()),
            Some(255) => return Err(refusal(&first)),
            _ => number(&first).map_or(0, |(columns, _)| columns),
        };
        // A description for each column, and an end.
        for _ in 0..=columns {
            self.0.receive().await?;
        }
        let mut rows = Rows::new();
        loop {
            let packet = self.0.receive().await?;
            match packet.first() {
                Some(255) => return Err(refusal(&packet)),
                Some(254) if packet.len() < 9 => return Ok(rows),
                _ => rows.push(wire::row(&packet)?),
            }
        }
    }

    /// The first row; empty where there is none.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub(super) async fn row(&mut self, text: &str) -> Result<Vec<Option<String>>> {
        Ok(self.query(text).await?.into_iter().next().unwrap_or_default())
    }

    /// Makes the server send its log from the beginning of a file on. `id` is ours among its replicas.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub(super) async fn dump(mut self, file: &str, flags: u16, id: u32) -> Result<Events> {
        let mut replica = id.to_le_bytes().to_vec();
        // What the server lists beside the id: a name, and neither account nor port.
        replica.push(8);
        replica.extend_from_slice(b"kbbackup");
        replica.resize(replica.len() + 12, 0);
        self.0.command(REGISTER_REPLICA, &replica).await?;
        let answer = self.0.receive().await?;
        if answer.first() == Some(&255) {
            return Err(refusal(&answer));
        }
        let mut request = FIRST.to_le_bytes().to_vec();
        request.extend_from_slice(&flags.to_le_bytes());
        request.extend_from_slice(&id.to_le_bytes());
        request.extend_from_slice(file.as_bytes());
        self.0.command(BINLOG_DUMP, &request).await?;
        Ok(Events { wire: self.0, within: false })
    }
}

impl Events {
    /// The next part of an event. Nothing is lost when this is dropped before it is ready.
    ///
    /// # Errors
    /// [`Cause::NotFound`] when the server has no such log; and when the connection ends.
    pub(super) async fn next(&mut self) -> Result<Part> {
        let (mut bytes, ends) = self.wire.part().await?;
        let begins = !std::mem::replace(&mut self.within, !ends);
        if begins {
            match bytes.first() {
                Some(0) => drop(bytes.split_to(1)),
                Some(255) => return Err(refusal(&bytes)),
                // A server that shuts down says so by ending the stream.
                _ => return Err(Error::new(Cause::Unreachable, "the server ended the stream")),
            }
        }
        Ok(Part { bytes, begins, ends })
    }
}
