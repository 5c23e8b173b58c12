//! A client of the server's replication protocol: what a WAL receiver needs, and simple queries.

mod login;
mod wire;

use bytes::{Bytes, BytesMut};
use postgres_protocol::message::frontend;

use super::position::Lsn;
use crate::error::{Cause, Error, Result};
use wire::Wire;

pub(crate) use login::Target;

/// Microseconds between the Unix epoch and the server's.
const EPOCH: i64 = 946_684_800_000_000;

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Queries,
    Replication,
}

/// A connection to a server.
pub(super) struct Connection(Wire);

/// The rows of a result, as text.
pub(super) type Rows = Vec<Vec<Option<String>>>;

/// What comes while log is streamed.
pub(super) enum Event {
    Log {
        start: Lsn,
        bytes: Bytes,
    },
    /// The server is alive; it may want to hear that we are.
    Alive {
        answer: bool,
    },
    /// The timeline has ended; everything of it was sent.
    TimelineEnded,
}

impl Connection {
    /// Connects and logs in.
    ///
    /// # Errors
    /// [`Cause::Dns`], [`Cause::Unreachable`], [`Cause::Tls`], [`Cause::AccessDenied`].
    pub(super) async fn open(target: &Target, mode: Mode) -> Result<Self> {
        login::open(target, mode).await.map(Self)
    }

    /// Runs one query or replication command that gives at most one result.
    ///
    /// # Errors
    /// What the server says, see [`wire::refusal`].
    pub(super) async fn query(&mut self, text: &str) -> Result<Rows> {
        self.send_query(text).await?;
        let mut rows = Rows::new();
        let mut refused = None;
        loop {
            let (tag, body) = self.0.receive().await?;
            match tag {
                b'D' => rows.push(wire::row(&body)?),
                b'E' => refused = Some(wire::refusal(&body)),
                b'Z' => return refused.map_or(Ok(rows), Err),
                _ => {}
            }
        }
    }

    /// The first field of the first row.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub(super) async fn value(&mut self, text: &str) -> Result<Option<String>> {
        Ok(self.query(text).await?.into_iter().next().and_then(|row| row.into_iter().next().flatten()))
    }

    async fn send_query(&mut self, text: &str) -> Result<()> {
        let mut message = BytesMut::new();
        frontend::query(text, &mut message).map_err(|error| Error::other(format!("query: {error}")))?;
        self.0.send(&message).await
    }

    /// Begins to stream a timeline from `start`.
    ///
    /// # Errors
    /// [`Cause::NotFound`] when the server has removed that part of the log.
    pub(super) async fn start(&mut self, slot: &str, start: Lsn, timeline: u32) -> Result<()> {
        self.send_query(&format!("START_REPLICATION SLOT \"{slot}\" PHYSICAL {start} TIMELINE {timeline}")).await?;
        let mut refused = None;
        loop {
            match self.0.receive().await? {
                (b'W', _) => return Ok(()),
                (b'E', body) => refused = Some(wire::refusal(&body)),
                (b'Z', _) => {
                    let nothing = || Error::other(format!("the server has nothing to stream from {start}"));
                    return Err(refused.unwrap_or_else(nothing));
                }
                _ => {}
            }
        }
    }

    /// The next event of a stream. Nothing is lost when this is dropped before it is ready.
    ///
    /// # Errors
    /// As [`Self::start`]; and when the connection ends.
    pub(super) async fn event(&mut self) -> Result<Event> {
        loop {
            let (tag, body) = self.0.receive().await?;
            let number = |at: usize| body.get(at..)?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
            match (tag, body.first()) {
                (b'd', Some(b'w')) if body.len() >= 25 => {
                    let start = Lsn(number(1).unwrap_or_default());
                    return Ok(Event::Log { start, bytes: body.slice(25..) });
                }
                (b'd', Some(b'k')) => return Ok(Event::Alive { answer: body.get(17) == Some(&1) }),
                (b'c', _) => return Ok(Event::TimelineEnded),
                (b'E', _) => return Err(wire::refusal(&body)),
                (b'N' | b'S', _) => {}
                // A server that shuts down says so by ending the command.
                (b'C', _) => return Err(Error::new(Cause::Unreachable, "the server ended the stream")),
                _ => return Err(Error::other(format!("the server sent an unexpected message {:?}", char::from(tag)))),
            }
        }
    }

    /// Tells how far the log was received, and how far it is durable: the slot moves on to there.
    ///
    /// # Errors
    /// When the connection is gone.
    pub(super) async fn confirm(&mut self, received: Lsn, durable: Lsn) -> Result<()> {
        let clock = jiff::Timestamp::now().as_microsecond() - EPOCH;
        let mut body = vec![b'r'];
        body.extend_from_slice(&received.0.to_be_bytes());
        body.extend_from_slice(&durable.0.to_be_bytes());
        body.extend_from_slice(&0_u64.to_be_bytes());
        body.extend_from_slice(&clock.to_be_bytes());
        body.push(0);
        let mut message = BytesMut::new();
        frontend::CopyData::new(body.as_slice())
            .map_err(|error| Error::other(format!("status: {error}")))?
            .write(&mut message);
        self.0.send(&message).await
    }
}
