//! Packets of the client/server protocol over a connection that may be encrypted.

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Rows;
use crate::error::{Cause, Error, Result, reason};

/// A packet of this length is continued by the next one.
const FULL: usize = 0xff_ffff;
/// No answer of ours is longer; what is longer is an event, which comes in parts.
const LONGEST: usize = 64 << 20;

/// A connection's two directions.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// Sends and receives packets.
pub(super) struct Wire {
    stream: Box<dyn Stream>,
    buffer: BytesMut,
    sequence: u8,
}

impl Wire {
    /// A connection on which `sequence` is the next packet's number.
    pub(super) fn new(stream: Box<dyn Stream>, sequence: u8) -> Self {
        Self { stream, buffer: BytesMut::with_capacity(64 << 10), sequence }
    }

    /// The next packet, and whether it ends its message. What arrived stays when this is dropped before it is ready.
    ///
    /// # Errors
    /// [`Cause::Unreachable`] when the connection ends.
    pub(super) async fn part(&mut self) -> Result<(Bytes, bool)> {
        loop {
            if let Some(part) = self.take() {
                return Ok(part);
            }
            let read = self.stream.read_buf(&mut self.buffer).await;
            if read.map_err(|error| lost(&error))? == 0 {
                return Err(Error::new(Cause::Unreachable, "the server closed the connection"));
            }
        }
    }

    fn take(&mut self) -> Option<(Bytes, bool)> {
        let [one, two, three, sequence] = *self.buffer.first_chunk::<4>()?;
        let length = u32::from_le_bytes([one, two, three, 0]) as usize;
        if self.buffer.len() < length + 4 {
            self.buffer.reserve(length + 4 - self.buffer.len());
            return None;
        }
        self.sequence = sequence.wrapping_add(1);
        let mut packet = self.buffer.split_to(length + 4).freeze();
        packet.advance(4);
        Some((packet, length < FULL))
    }

    /// The next message.
    ///
    /// # Errors
    /// As [`Self::part`].
    pub(super) async fn receive(&mut self) -> Result<Bytes> {
        let (first, ends) = self.part().await?;
        if ends {
            return Ok(first);
        }
        let mut whole = BytesMut::from(first);
        loop {
            let (part, ends) = self.part().await?;
            whole.extend_from_slice(&part);
            if whole.len() > LONGEST {
                return Err(Error::new(Cause::Damaged, format!("the server sent more than {LONGEST} bytes at once")));
            }
            if ends {
                return Ok(whole.freeze());
            }
        }
    }

    /// Sends a packet of less than 16 MiB: the answer to the last one.
    ///
    /// # Errors
    /// [`Cause::Unreachable`] when the connection is gone.
    pub(super) async fn send(&mut self, payload: &[u8]) -> Result<()> {
        let mut packet = (payload.len() as u32).to_le_bytes();
        packet[3] = self.sequence;
        self.sequence = self.sequence.wrapping_add(1);
        let bytes = [&packet[..], payload].concat();
        self.stream.write_all(&bytes).await.map_err(|error| lost(&error))?;
        self.stream.flush().await.map_err(|error| lost(&error))
    }

    /// Sends the first packet of a command.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub(super) async fn command(&mut self, kind: u8, body: &[u8]) -> Result<()> {
        self.sequence = 0;
        self.send(&[&[kind], body].concat()).await
    }
}

pub(super) fn lost(error: &std::io::Error) -> Error {
    Error::new(Cause::Unreachable, format!("the connection to the server is lost: {}", reason(error)))
}

/// What a server says when it refuses. Causes: [`Cause::AccessDenied`] where only somebody with other rights can help,
/// [`Cause::NotFound`] for log that is gone.
pub(super) fn refusal(packet: &[u8]) -> Error {
    let code = packet.get(1..3).map_or(0, |code| u16::from_le_bytes([code[0], code[1]]));
    let text = packet.get(3..).unwrap_or_default();
    let text = if text.first() == Some(&b'#') { text.get(6..).unwrap_or_default() } else { text };
    let text = String::from_utf8_lossy(text);
    let cause = match code {
        1044 | 1045 | 1130 | 1142 | 1143 | 1227 | 1251 | 1524 | 1698 | 1820 | 4151 => Cause::AccessDenied,
        // Everything that goes wrong with reading a log has one number.
        1236 if text.contains("Could not find first log") || text.contains("impossible position") => Cause::NotFound,
        1040 | 1053 | 1077 | 1152 | 1184 | 1927 => Cause::Unreachable,
        _ => Cause::Other,
    };
    Error::new(cause, format!("the server says: {text} (error {code})"))
}

/// A number whose length its first byte says, and what follows it. `None` for NULL, and where there is none.
pub(super) fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let wide = match first {
        0..=250 => return Some((u64::from(*first), rest)),
        252 => 2,
        253 => 3,
        254 => 8,
        _ => return None,
    };
    let (digits, rest) = rest.split_at_checked(wide)?;
    let mut value = [0; 8];
    value[..wide].copy_from_slice(digits);
    Some((u64::from_le_bytes(value), rest))
}

/// The fields of a row of text.
pub(super) fn row(mut packet: &[u8]) -> Result<<Rows as IntoIterator>::Item> {
    let damaged = || Error::new(Cause::Damaged, "the server sent a row that cannot be read");
    let mut fields = Vec::new();
    while let Some(first) = packet.first() {
        if *first == 251 {
            fields.push(None);
            packet = &packet[1..];
            continue;
        }
        let (length, rest) = number(packet).ok_or_else(damaged)?;
        let (text, rest) =
            usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length)).ok_or_else(damaged)?;
        fields.push(Some(String::from_utf8_lossy(text).into_owned()));
        packet = rest;
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_causes() {
        let packet = |code: u16, text: &str| [&[255][..], &code.to_le_bytes(), text.as_bytes()].concat();
        assert_eq!(refusal(&packet(1045, "#28000Access denied")).cause, Cause::AccessDenied);
        let gone = "#HY000Could not find first log file name in binary log index file";
        assert_eq!(refusal(&packet(1236, gone)).cause, Cause::NotFound);
        assert_eq!(refusal(&packet(1236, "#HY000something else")).cause, Cause::Other);
        assert_eq!(refusal(&packet(1064, "#42000no")).to_string(), "the server says: no (error 1064)");
        assert_eq!(refusal(&[255]).to_string(), "the server says:  (error 0)");
    }

    #[test]
    fn rows_are_read_or_refused() {
        assert_eq!(row(&[1, b'x', 251, 252, 2, 0, b'y', b'z']).unwrap(), [Some("x".into()), None, Some("yz".into())]);
        assert!(row(&[3, b'x']).is_err());
        assert!(row(&[255]).is_err());
    }
}
