//! Packets of the SSH File Transfer Protocol, version 3 (draft-ietf-secsh-filexfer-02), with OpenSSH's extensions.
//!
//! Names are bytes here: what is not UTF-8 must be told from what is.

use bytes::{Buf, Bytes};
use jiff::Timestamp;

use crate::error::{Cause, Error};
use crate::storage::tree::said;

pub(super) const INIT: u8 = 1;
pub(super) const VERSION: u8 = 2;
pub(super) const OPEN: u8 = 3;
pub(super) const CLOSE: u8 = 4;
pub(super) const READ: u8 = 5;
pub(super) const WRITE: u8 = 6;
pub(super) const OPENDIR: u8 = 11;
pub(super) const READDIR: u8 = 12;
pub(super) const REMOVE: u8 = 13;
pub(super) const FSETSTAT: u8 = 10;
pub(super) const MKDIR: u8 = 14;
pub(super) const RMDIR: u8 = 15;
pub(super) const STAT: u8 = 17;
pub(super) const RENAME: u8 = 18;
const STATUS: u8 = 101;
const HANDLE: u8 = 102;
const DATA: u8 = 103;
const NAME: u8 = 104;
const ATTRS: u8 = 105;
pub(super) const EXTENDED: u8 = 200;
const EXTENDED_REPLY: u8 = 201;

pub(super) const PROTOCOL: u32 = 3;
pub(super) const FOR_READING: u32 = 1;
/// To write, made if it is missing, emptied if not.
pub(super) const FOR_WRITING: u32 = 2 | 8 | 16;

const OK: u32 = 0;
const EOF: u32 = 1;
const NO_SUCH_FILE: u32 = 2;
const PERMISSION_DENIED: u32 = 3;
const NO_CONNECTION: u32 = 6;
const CONNECTION_LOST: u32 = 7;
const UNSUPPORTED: u32 = 8;

const HAS_SIZE: u32 = 1;
const HAS_OWNER: u32 = 2;
const HAS_MODE: u32 = 4;
pub(super) const HAS_TIMES: u32 = 8;
const HAS_MORE: u32 = 1 << 31;
const KIND: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const LINK: u32 = 0o120_000;

/// Why a request came to nothing.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// The server says no. A number of the protocol, and words.
    Refused(u32, String),
    /// What is known otherwise: that the connection broke, or what lay behind a refusal.
    Named(Error),
}

pub(super) type Result<T, E = Fault> = std::result::Result<T, E>;

impl Fault {
    pub(super) fn is_unsupported(&self) -> bool {
        matches!(self, Self::Refused(UNSUPPORTED, _))
    }

    /// Whether the number says no more than that it did not work.
    pub(super) fn is_vague(&self) -> bool {
        matches!(self, Self::Refused(..)) && Error::from(self.clone()).is(Cause::Other)
    }

    fn nonsense() -> Self {
        Self::Named(Error::other("sftp: the server's answer could not be understood"))
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        let (code, text) = match fault {
            Fault::Named(error) => return error,
            Fault::Refused(code, text) => (code, text),
        };
        let cause = match code {
            NO_SUCH_FILE => Cause::NotFound,
            PERMISSION_DENIED => Cause::AccessDenied,
            NO_CONNECTION | CONNECTION_LOST => Cause::Unreachable,
            _ => said(&text),
        };
        let text = if text.is_empty() { format!("with number {code}") } else { text };
        Self::new(cause, format!("sftp: the server answered {text}"))
    }
}

/// A request being put together. Begins with room for its length.
pub(super) struct Request(Vec<u8>);

impl Request {
    pub(super) fn new(kind: u8, id: u32) -> Self {
        let mut bytes = vec![0, 0, 0, 0, kind];
        bytes.extend_from_slice(&id.to_be_bytes());
        Self(bytes)
    }

    pub(super) fn number(mut self, number: u32) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    pub(super) fn offset(mut self, offset: u64) -> Self {
        self.0.extend_from_slice(&offset.to_be_bytes());
        self
    }

    pub(super) fn text(mut self, text: &[u8]) -> Self {
        self.0.reserve(4 + text.len());
        self.0.extend_from_slice(&(text.len() as u32).to_be_bytes());
        self.0.extend_from_slice(text);
        self
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        let length = (self.0.len() - 4) as u32;
        self.0[..4].copy_from_slice(&length.to_be_bytes());
        self.0
    }
}

/// Reads what is not known to be there.
pub(super) fn take_number(body: &mut Bytes) -> Result<u32> {
    body.try_get_u32().map_err(|_| Fault::nonsense())
}

pub(super) fn take_offset(body: &mut Bytes) -> Result<u64> {
    body.try_get_u64().map_err(|_| Fault::nonsense())
}

pub(super) fn take_text(body: &mut Bytes) -> Result<Bytes> {
    let length = take_number(body)? as usize;
    if length > body.len() {
        return Err(Fault::nonsense());
    }
    Ok(body.split_to(length))
}

/// What something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Link,
    Special,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) kind: Kind,
    pub(super) size: u64,
    pub(super) modified: Timestamp,
}

fn take_attributes(body: &mut Bytes) -> Result<Attributes> {
    let flags = take_number(body)?;
    let size = if flags & HAS_SIZE != 0 { take_offset(body)? } else { 0 };
    if flags & HAS_OWNER != 0 {
        take_offset(body)?;
    }
    let mode = if flags & HAS_MODE != 0 { take_number(body)? } else { REGULAR };
    let mut modified = 0;
    if flags & HAS_TIMES != 0 {
        take_number(body)?;
        modified = take_number(body)?;
    }
    if flags & HAS_MORE != 0 {
        for _ in 0..take_number(body)? {
            take_text(body)?;
            take_text(body)?;
        }
    }
    let kind = match mode & KIND {
        DIRECTORY => Kind::Directory,
        // Some servers tell permissions alone.
        REGULAR | 0 => Kind::File,
        LINK => Kind::Link,
        _ => Kind::Special,
    };
    let modified = Timestamp::from_second(i64::from(modified)).unwrap_or(Timestamp::UNIX_EPOCH);
    Ok(Attributes { kind, size, modified })
}

/// An answer, without its length and number.
pub(super) struct Reply {
    pub(super) kind: u8,
    pub(super) body: Bytes,
}

impl Reply {
    /// Makes an error of an answer that is none of the kind that was asked for.
    fn refusal(mut self) -> Fault {
        if self.kind != STATUS {
            return Fault::nonsense();
        }
        let Ok(code) = take_number(&mut self.body) else { return Fault::nonsense() };
        // Old servers send no words.
        let text = take_text(&mut self.body).unwrap_or_default();
        Fault::Refused(code, String::from_utf8_lossy(&text).trim().to_owned())
    }

    fn body_of(self, kind: u8) -> Result<Bytes> {
        if self.kind == kind { Ok(self.body) } else { Err(self.refusal()) }
    }

    pub(super) fn done(self) -> Result<()> {
        match self.refusal() {
            Fault::Refused(OK, _) => Ok(()),
            fault => Err(fault),
        }
    }

    pub(super) fn handle(self) -> Result<Bytes> {
        take_text(&mut self.body_of(HANDLE)?)
    }

    /// Bytes of a file; none at its end.
    pub(super) fn data(self) -> Result<Option<Bytes>> {
        match self.body_of(DATA) {
            Ok(mut body) => take_text(&mut body).map(Some),
            Err(Fault::Refused(EOF, _)) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Entries of a directory; none behind the last.
    pub(super) fn entries(self) -> Result<Option<Vec<(Bytes, Attributes)>>> {
        let mut body = match self.body_of(NAME) {
            Ok(body) => body,
            Err(Fault::Refused(EOF, _)) => return Ok(None),
            Err(fault) => return Err(fault),
        };
        let mut entries = Vec::new();
        for _ in 0..take_number(&mut body)? {
            let name = take_text(&mut body)?;
            // A line for people.
            take_text(&mut body)?;
            entries.push((name, take_attributes(&mut body)?));
        }
        Ok(Some(entries))
    }

    pub(super) fn attributes(self) -> Result<Attributes> {
        take_attributes(&mut self.body_of(ATTRS)?)
    }

    pub(super) fn extended(self) -> Result<Bytes> {
        self.body_of(EXTENDED_REPLY)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reply(kind: u8, parts: Request) -> Reply {
        let bytes = Bytes::from(parts.finish());
        Reply { kind, body: bytes.slice(9..) }
    }

    fn status(code: u32, text: &str) -> Reply {
        reply(STATUS, Request::new(STATUS, 7).number(code).text(text.as_bytes()).text(b""))
    }

    #[test]
    fn a_request_is_framed_as_the_protocol_has_it() {
        let bytes = Request::new(READ, 5).text(b"h").offset(1 << 32).number(9).finish();
        assert_eq!(bytes, [0, 0, 0, 22, 5, 0, 0, 0, 5, 0, 0, 0, 1, b'h', 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9]);
    }

    #[test]
    fn refusals_have_causes() {
        for (code, text, cause) in [
            (NO_SUCH_FILE, "No such file", Cause::NotFound),
            (PERMISSION_DENIED, "", Cause::AccessDenied),
            (CONNECTION_LOST, "", Cause::Unreachable),
            (4, "Failure", Cause::Other),
            (4, "write x: no space left on device", Cause::NoSpace),
            (4, "directory not empty", Cause::NotEmpty),
        ] {
            let fault = status(code, text).done().unwrap_err();
            assert_eq!(Error::from(fault).cause, cause, "{code} {text}");
        }
        assert!(status(0, "").done().is_ok());
        assert!(status(UNSUPPORTED, "").done().unwrap_err().is_unsupported());
        assert_eq!(status(EOF, "").data().unwrap(), None);
        assert!(status(EOF, "").entries().unwrap().is_none());
    }

    #[test]
    fn entries_are_read_with_whatever_a_server_tells_of_them() {
        let all = HAS_SIZE | HAS_OWNER | HAS_MODE | HAS_TIMES | HAS_MORE;
        let body = Request::new(NAME, 1).number(2);
        let body = body.text(b"a").text(b"-rw a").number(all).offset(5).number(1).number(2).number(0o100_644);
        let body = body.number(6).number(7).number(1).text(b"x@y").text(b"z");
        let body = body.text(b"d\xff").text(b"").number(HAS_MODE).number(0o040_755);
        let entries = reply(NAME, body).entries().unwrap().unwrap();
        let modified = Timestamp::from_second(7).unwrap();
        assert_eq!(entries[0], (Bytes::from_static(b"a"), Attributes { kind: Kind::File, size: 5, modified }));
        assert_eq!((&entries[1].0[..], entries[1].1.kind), (&b"d\xff"[..], Kind::Directory));
    }

    proptest! {
        #![proptest_config(crate::testing::cases(256))]

        #[test]
        fn noise_is_an_error_and_no_more(kind in any::<u8>(), noise in proptest::collection::vec(any::<u8>(), 0..80)) {
            let reply = || Reply { kind, body: Bytes::from(noise.clone()) };
            drop((reply().done(), reply().handle(), reply().data(), reply().entries(), reply().attributes()));
        }
    }
}
