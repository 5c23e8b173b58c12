//! Messages of the protocol, version 3, over a connection that may be encrypted.

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Rows;
use crate::error::{Cause, Error, Result, reason};

/// No message of ours is longer: the server sends log in pieces of at most 128 KiB, and rows of a few words.
const LONGEST: usize = 16 << 20;

/// A connection's two directions.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// Sends and receives messages.
pub(super) struct Wire {
    stream: Box<dyn Stream>,
    buffer: BytesMut,
}

impl Wire {
    pub(super) fn new(stream: Box<dyn Stream>) -> Self {
        Self { stream, buffer: BytesMut::with_capacity(256 << 10) }
    }

    /// Tag and body of the next message. What arrived stays when this is dropped before it is ready.
    ///
    /// # Errors
    /// [`Cause::Unreachable`] when the connection ends.
    pub(super) async fn receive(&mut self) -> Result<(u8, Bytes)> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(message);
            }
            let read = self.stream.read_buf(&mut self.buffer).await;
            if read.map_err(|error| lost(&error))? == 0 {
                return Err(Error::new(Cause::Unreachable, "the server closed the connection"));
            }
        }
    }

    fn take(&mut self) -> Result<Option<(u8, Bytes)>> {
        let Some(header) = self.buffer.first_chunk::<5>() else { return Ok(None) };
        let [tag, length @ ..] = *header;
        let length = u32::from_be_bytes(length) as usize;
        if !(4..=LONGEST).contains(&length) {
            return Err(Error::new(
                Cause::Damaged,
                format!("a message of {length} bytes: this is no PostgreSQL server"),
            ));
        }
        if self.buffer.len() <= length {
            self.buffer.reserve(length + 1 - self.buffer.len());
            return Ok(None);
        }
        let mut message = self.buffer.split_to(length + 1).freeze();
        message.advance(5);
        Ok(Some((tag, message)))
    }

    /// # Errors
    /// [`Cause::Unreachable`] when the connection is gone.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).await.map_err(|error| lost(&error))?;
        self.stream.flush().await.map_err(|error| lost(&error))
    }
}

pub(super) fn lost(error: &std::io::Error) -> Error {
    Error::new(Cause::Unreachable, format!("the connection to the server is lost: {}", reason(error)))
}

/// What a server says when it refuses. Causes: [`Cause::AccessDenied`] where only somebody with other rights can help,
/// [`Cause::NotFound`] for log and slots that are gone, [`Cause::Exists`] for a slot that is there.
pub(super) fn refusal(body: &[u8]) -> Error {
    let field = |wanted: u8| {
        let mut fields = body.split(|byte| *byte == 0);
        let found = fields.find(|field| field.first() == Some(&wanted))?;
        Some(String::from_utf8_lossy(&found[1..]).into_owned())
    };
    let code = field(b'C').unwrap_or_default();
    let cause = match code.as_str() {
        "28000" | "28P01" | "42501" | "3D000" => Cause::AccessDenied,
        "58P01" | "42704" => Cause::NotFound,
        "42710" => Cause::Exists,
        _ if code.starts_with("57P") || code.starts_with("08") || code.starts_with("53") => Cause::Unreachable,
        _ => Cause::Other,
    };
    Error::new(cause, format!("the server says: {} (SQLSTATE {code})", field(b'M').unwrap_or_default()))
}

/// The fields of a `DataRow`.
pub(super) fn row(body: &[u8]) -> Result<<Rows as IntoIterator>::Item> {
    let damaged = || Error::new(Cause::Damaged, "the server sent a row that cannot be read");
    let mut rest = body.get(2..).ok_or_else(damaged)?;
    let mut fields = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk() {
        let length = i32::from_be_bytes(*length);
        if length < 0 {
            fields.push(None);
            rest = after;
            continue;
        }
        let (text, after) = after.split_at_checked(length as usize).ok_or_else(damaged)?;
        fields.push(Some(String::from_utf8_lossy(text).into_owned()));
        rest = after;
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_causes() {
        let body = |code: &str| format!("SERROR\0C{code}\0Mno such thing\0Fslot.c\0\0").into_bytes();
        assert_eq!(refusal(&body("58P01")).cause, Cause::NotFound);
        assert_eq!(refusal(&body("28P01")).cause, Cause::AccessDenied);
        assert_eq!(refusal(&body("57P03")).cause, Cause::Unreachable);
        assert_eq!(refusal(&body("42601")).to_string(), "the server says: no such thing (SQLSTATE 42601)");
    }

    #[test]
    fn rows_are_read_or_refused() {
        let body = [0, 2, 0, 0, 0, 1, b'x', 255, 255, 255, 255];
        assert_eq!(row(&body).unwrap(), [Some("x".to_owned()), None]);
        assert!(row(&body[..6]).is_err());
    }
}
