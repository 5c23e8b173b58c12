//! A log file as a sequence of events: read as it arrives or from a file, each event checked, each transaction found.
//!
//! An event has a header of 19 bytes (time, kind, server, size, position of the next, flags), a body, and where the file's first
//! event says so a CRC-32 of all that. `MariaDB` and `MySQL` have that in common; what begins and ends a transaction differs.

use crate::error::{Cause, Error, Result};

use super::gtid::{Gtid, State};
use super::names::Name;

/// What a file begins with.
pub(crate) const MAGIC: &[u8; 4] = b"\xfebin";
const HEADER: usize = 19;
const CHECKSUM: usize = 4;
/// So much is kept of an event whose content matters; only lists of GTIDs can be longer than a page.
const KEPT: usize = 4 << 20;
/// The file is being written, which a check sum does not know.
const IN_USE: u16 = 1;
/// An event that stands in no file.
pub(crate) const ARTIFICIAL: u16 = 0x20;
const STANDALONE: u8 = 1;

/// Kinds of events that mean something here.
pub(crate) mod kind {
    pub(crate) const QUERY: u8 = 2;
    pub(crate) const STOP: u8 = 3;
    pub(crate) const ROTATE: u8 = 4;
    pub(crate) const FORMAT: u8 = 15;
    pub(crate) const XID: u8 = 16;
    pub(crate) const LOAD_QUERY: u8 = 18;
    pub(crate) const INCIDENT: u8 = 26;
    pub(crate) const HEARTBEAT: u8 = 27;
    pub(crate) const MYSQL_GTID: u8 = 33;
    pub(crate) const ANONYMOUS: u8 = 34;
    pub(crate) const PREVIOUS_GTIDS: u8 = 35;
    pub(crate) const XA_PREPARE: u8 = 38;
    pub(crate) const HEARTBEAT_2: u8 = 41;
    pub(crate) const TAGGED_GTID: u8 = 42;
    pub(crate) const GTID: u8 = 162;
    pub(crate) const GTID_LIST: u8 = 163;
    pub(crate) const ENCRYPTION: u8 = 164;
    pub(crate) const QUERY_COMPRESSED: u8 = 165;
}

/// What every event begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Seconds since the Unix epoch, when its statement began.
    pub(crate) time: i64,
    pub(crate) kind: u8,
    pub(crate) server: u32,
    pub(crate) size: usize,
    /// Of the event behind it, modulo 2^32.
    next: u32,
    pub(crate) flags: u16,
}

impl Header {
    /// `None` when there are too few bytes for one.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER] = bytes.first_chunk()?;
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Some(Self {
            time: i64::from(number(0)),
            kind: bytes[4],
            server: number(5),
            size: number(9) as usize,
            next: number(13),
            flags: u16::from_le_bytes([bytes[17], bytes[18]]),
        })
    }
}

/// A transaction, or a statement that is one by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) gtid: Gtid,
    /// In whole seconds since the Unix epoch. `MySQL` tells when it was committed; of `MariaDB` it is when its last statement
    /// began: the COMMIT, or what committed by itself.
    pub(crate) time: i64,
    /// Behind its last event.
    pub(crate) end: u64,
}

/// A transaction whose end was not seen yet.
#[derive(Clone, Copy, Debug)]
struct Open {
    gtid: Gtid,
    time: i64,
    standalone: bool,
    /// Where it ends, if its beginning says so.
    end: Option<u64>,
}

/// An event that is arriving.
struct Current {
    header: Header,
    body: Vec<u8>,
    got: usize,
    sum: crc32fast::Hasher,
    told: [u8; CHECKSUM],
}

/// The reader of one file.
#[derive(Default)]
pub(crate) struct Events {
    /// Behind the last whole event.
    at: u64,
    pending: Vec<u8>,
    current: Option<Current>,
    checked: bool,
    created: Option<i64>,
    begin: Option<State>,
    state: State,
    open: Option<Open>,
    groups: Vec<Group>,
    ended: bool,
    next: Option<Name>,
    /// The server says that it lost something here.
    incident: bool,
}

fn damaged(why: impl Into<String>) -> Error {
    Error::new(Cause::Damaged, why)
}

impl Events {
    /// Takes the next bytes of the file.
    ///
    /// # Errors
    /// [`Cause::Damaged`] when they are not what a server writes.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            if self.current.is_none() {
                let wanted = if self.at == 0 { MAGIC.len() } else { HEADER };
                let part = bytes.len().min(wanted - self.pending.len());
                self.pending.extend_from_slice(&bytes[..part]);
                bytes = &bytes[part..];
                if self.pending.len() < wanted {
                    return Ok(());
                }
                let begun = std::mem::take(&mut self.pending);
                if self.at == 0 {
                    if begun != MAGIC {
                        return Err(damaged("it does not begin as a binary log does; an encrypted one cannot be read"));
                    }
                    self.at = MAGIC.len() as u64;
                } else {
                    self.begin_event(&begun)?;
                }
                continue;
            }
            bytes = self.go_on(bytes)?;
        }
        Ok(())
    }

    fn begin_event(&mut self, bytes: &[u8]) -> Result<()> {
        let header = Header::read(bytes).ok_or_else(|| damaged("an event has no header"))?;
        let at = self.at;
        if header.size < HEADER + if self.checked { CHECKSUM } else { 0 } {
            return Err(damaged(format!("the event at {at} says to have {} bytes", header.size)));
        }
        // MariaDB 11.7 and later leave the position out within a transaction, unless `binlog_legacy_event_pos` is on: what is
        // missing there is told by the position of the next one's beginning.
        let is_left_out = header.next == 0 && self.open.is_some_and(|open| open.end.is_none());
        if header.next != (at + header.size as u64) as u32 && !is_left_out {
            return Err(damaged(format!(
                "the event at {at} does not end where it says: something is missing or was moved"
            )));
        }
        if (header.kind == kind::FORMAT) != (at == MAGIC.len() as u64) {
            return Err(damaged(format!("the event at {at} is of kind {}, which does not belong there", header.kind)));
        }
        if self.ended {
            return Err(damaged(format!("the log goes on at {at}, behind its end")));
        }
        let mut sum = crc32fast::Hasher::new();
        let mut clean = [0; HEADER];
        clean.copy_from_slice(bytes);
        if header.kind == kind::FORMAT {
            clean[17] &= !(IN_USE as u8);
        }
        sum.update(&clean);
        self.current = Some(Current { header, body: Vec::new(), got: HEADER, sum, told: [0; CHECKSUM] });
        if header.size == HEADER { self.end_event() } else { Ok(()) }
    }

    fn go_on<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8]> {
        let Some(current) = &mut self.current else { return Ok(bytes) };
        let (part, rest) = bytes.split_at(bytes.len().min(current.header.size - current.got));
        // The first event always has room for a sum, used or not.
        let summed = self.checked || current.header.kind == kind::FORMAT;
        let sum_at = current.header.size - if summed { CHECKSUM } else { 0 };
        let (body, told) = part.split_at(part.len().min(sum_at.saturating_sub(current.got)));
        current.sum.update(body);
        if matters(current.header.kind) && current.body.len() < KEPT {
            current.body.extend_from_slice(&body[..body.len().min(KEPT - current.body.len())]);
        }
        let offset = (current.got + body.len()).saturating_sub(sum_at);
        for (place, byte) in current.told.iter_mut().skip(offset).zip(told) {
            *place = *byte;
        }
        current.got += part.len();
        if current.got == current.header.size {
            self.end_event()?;
        }
        Ok(rest)
    }

    fn end_event(&mut self) -> Result<()> {
        let Some(Current { header, body, sum, told, .. }) = self.current.take() else { return Ok(()) };
        let at = self.at;
        if header.kind == kind::FORMAT {
            self.format(&body, header)?;
        }
        // The first event says whether there are sums, and has one itself in any case, if only of zeros.
        let summed = self.checked || (header.kind == kind::FORMAT && told != [0; CHECKSUM]);
        if summed && sum.finalize() != u32::from_le_bytes(told) {
            return Err(damaged(format!("the check sum of the event at {at} is wrong")));
        }
        self.at += header.size as u64;
        let by_itself = self.open.is_some_and(|open| open.standalone);
        match header.kind {
            kind::GTID_LIST if self.begin.is_none() => self.begin_state(State::of_mariadb(&body)?),
            kind::PREVIOUS_GTIDS if self.begin.is_none() => self.begin_state(State::of_mysql(&body)?),
            kind::GTID => self.begin_group(header, &body)?,
            kind::MYSQL_GTID => self.begin_transaction(header, &body)?,
            kind::ANONYMOUS => {
                let why = format!("the transaction at {at} has no GTID: archiving needs gtid_mode=ON");
                return Err(Error::new(Cause::AccessDenied, why));
            }
            kind::TAGGED_GTID => return Err(Error::new(Cause::AccessDenied, super::TAGS)),
            // Its end is known.
            _ if self.open.is_some_and(|open| open.end.is_some()) => {}
            kind::XID | kind::XA_PREPARE => self.end_group(header.time),
            kind::QUERY if by_itself || ends_transaction(&body) => self.end_group(header.time),
            kind::QUERY_COMPRESSED | kind::LOAD_QUERY if by_itself => self.end_group(header.time),
            kind::ROTATE => {
                self.ended = true;
                self.next = body.get(8..).and_then(|name| Name::read(std::str::from_utf8(name).ok()?));
            }
            kind::STOP => self.ended = true,
            kind::INCIDENT => self.incident = true,
            kind::ENCRYPTION => {
                return Err(Error::new(
                    Cause::AccessDenied,
                    "the server encrypts its binary log (encrypt_binlog), and gives it away with holes; that is not supported",
                ));
            }
            _ => {}
        }
        match self.open {
            Some(Open { end: Some(end), gtid, .. }) if self.at > end => {
                Err(damaged(format!("transaction {gtid} does not end at {end}, where it says")))
            }
            Some(Open { end: Some(end), time, .. }) if self.at == end => {
                self.end_group(time);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn begin_state(&mut self, state: State) {
        self.state = state.clone();
        self.begin = Some(state);
    }

    fn format(&mut self, body: &[u8], header: Header) -> Result<()> {
        let algorithm = body.len().checked_sub(1).map(|last| body[last]);
        let version = body.first_chunk::<2>().map(|bytes| u16::from_le_bytes(*bytes));
        match (version, algorithm) {
            (Some(4), Some(0)) => {}
            (Some(4), Some(1)) => self.checked = true,
            _ => return Err(damaged("its format is not known")),
        }
        self.created = Some(header.time);
        Ok(())
    }

    /// Where a transaction may begin.
    fn beginning(&self, header: Header) -> Result<u64> {
        let at = self.at - header.size as u64;
        if self.begin.is_none() {
            return Err(damaged("it has no list of GTIDs before its first transaction"));
        }
        match self.open {
            Some(open) => Err(damaged(format!("transaction {} has no end before {at}", open.gtid))),
            None => Ok(at),
        }
    }

    fn begin_group(&mut self, header: Header, body: &[u8]) -> Result<()> {
        let at = self.beginning(header)?;
        let short = || damaged(format!("the GTID at {at} cannot be read"));
        let (sequence, rest) = body.split_first_chunk().ok_or_else(short)?;
        let (domain, rest) = rest.split_first_chunk().ok_or_else(short)?;
        let flags = *rest.first().ok_or_else(short)?;
        let gtid = Gtid::of_mariadb(u32::from_le_bytes(*domain), header.server, u64::from_le_bytes(*sequence));
        self.open = Some(Open { gtid, time: header.time, standalone: flags & STANDALONE != 0, end: None });
        Ok(())
    }

    fn begin_transaction(&mut self, header: Header, body: &[u8]) -> Result<()> {
        let at = self.beginning(header)?;
        let transaction = Transaction::read(body).ok_or_else(|| {
            damaged(format!("the GTID at {at} cannot be read, or is of a server older than MySQL 8.0"))
        })?;
        let Transaction { gtid, committed, length } = transaction;
        if length < header.size as u64 {
            return Err(damaged(format!("transaction {gtid} says to have {length} bytes")));
        }
        self.open = Some(Open { gtid, time: committed, standalone: false, end: Some(at.saturating_add(length)) });
        Ok(())
    }

    fn end_group(&mut self, ended: i64) {
        let Some(Open { gtid, time, .. }) = self.open.take() else { return };
        self.state.take(gtid);
        self.groups.push(Group { gtid, time: time.max(ended), end: self.at });
    }

    /// The transactions that ended since this was asked last.
    pub(crate) fn groups(&mut self) -> Vec<Group> {
        std::mem::take(&mut self.groups)
    }

    /// Behind the last whole event.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// When the file was begun, in seconds since the Unix epoch.
    pub(crate) fn created(&self) -> Option<i64> {
        self.created
    }

    /// The log's state at the beginning of the file, once that was read.
    pub(crate) fn begin(&self) -> Option<&State> {
        self.begin.as_ref()
    }

    /// The state behind the last whole transaction.
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Whether it is over: with the name of the next file where its last event says so.
    pub(crate) fn next(&self) -> Option<&Name> {
        self.next.as_ref()
    }

    /// Whether the server has lost something in it.
    pub(crate) fn incident(&self) -> bool {
        self.incident
    }

    /// Whether nothing is left of an event or a transaction that has begun.
    ///
    /// # Errors
    /// [`Cause::Damaged`] when it is cut.
    pub(crate) fn whole(&self) -> Result<()> {
        if self.current.is_some() || !self.pending.is_empty() || self.at <= MAGIC.len() as u64 {
            return Err(damaged(format!("it is cut off at {}, in the middle of an event", self.at)));
        }
        Ok(())
    }
}

/// What the first event of a transaction of `MySQL` says.
struct Transaction {
    gtid: Gtid,
    /// Seconds since the Unix epoch, by this server.
    committed: i64,
    /// Of all its events, this one included, in bytes.
    length: u64,
}

impl Transaction {
    /// `None` when something is missing.
    fn read(body: &[u8]) -> Option<Self> {
        let (source, rest) = body.get(1..)?.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        // A kind of clock, and what may be applied at the same time by it.
        let (committed, rest) = rest.get(1 + 16..)?.split_first_chunk::<7>()?;
        let micros = committed.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
        // When it was committed first, if that was elsewhere.
        let elsewhere = 1 << 55;
        let rest = rest.get(if micros & elsewhere != 0 { 7 } else { 0 }..)?;
        let (first, rest) = rest.split_first()?;
        let length = match first {
            252 => u64::from(u16::from_le_bytes(*rest.first_chunk()?)),
            253 => {
                rest.first_chunk::<3>().map(|three| u64::from(u32::from_le_bytes([three[0], three[1], three[2], 0])))?
            }
            254 => u64::from_le_bytes(*rest.first_chunk()?),
            251 | 255 => return None,
            small => u64::from(*small),
        };
        let committed = i64::try_from((micros & !elsewhere) / 1_000_000).ok()?;
        Some(Self { gtid: Gtid::of_mysql(*source, u64::from_le_bytes(*number)), committed, length })
    }
}

fn matters(kind: u8) -> bool {
    matches!(
        kind,
        kind::QUERY
            | kind::ROTATE
            | kind::FORMAT
            | kind::GTID
            | kind::GTID_LIST
            | kind::MYSQL_GTID
            | kind::PREVIOUS_GTIDS
    )
}

/// Whether a statement is the end of a transaction of tables without transactions.
fn ends_transaction(body: &[u8]) -> bool {
    let text = || {
        let database = usize::from(*body.get(8)?);
        let variables = body.get(11..13).map(|length| usize::from(u16::from_le_bytes([length[0], length[1]])))?;
        body.get(13 + variables + database + 1..)
    };
    matches!(text(), Some(b"COMMIT" | b"ROLLBACK"))
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;
