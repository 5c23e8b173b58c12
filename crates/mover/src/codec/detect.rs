//! Which format a stream has, by its first bytes: nothing else in a repository says it.

use std::io::{self, Cursor, Read};

use super::{Compression, Effort, Family};

/// As many bytes as the longest sign has.
const LONGEST: usize = 10;

/// The format that begins like this; `None` for raw DEFLATE, which has no sign, and for what is not compressed.
fn family(start: &[u8]) -> Option<Family> {
    match start {
        // A frame, or a skippable one that LZ4 and Zstandard share: only Zstandard's tools write them here.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Family::Zstd),
        [0x1f, 0x8b, 8, ..] => Some(Family::Gzip),
        [0x04, 0x22, 0x4d, 0x18, ..] => Some(Family::Lz4),
        b"\xff\x06\x00\x00S2sTwO" | b"\xff\x06\x00\x00sNaPpY" => Some(Family::S2),
        _ => None,
    }
}

/// Reads a stream by the format that it shows.
pub(super) fn decoder<'a>(mut input: Box<dyn Read + Send + 'a>) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut start = Vec::with_capacity(LONGEST);
    input.by_ref().take(LONGEST as u64).read_to_end(&mut start)?;
    let family = family(&start);
    let whole = Box::new(Cursor::new(start).chain(input));
    match family {
        Some(family) => Compression { family, effort: Effort::Usual }.decode(whole),
        None => Ok(whole),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::NAMES;
    use crate::codec::tests::{collect, encode};

    #[test]
    fn every_format_shows_itself_but_raw_deflate() {
        let plain = b"plain text ".repeat(1000);
        for name in NAMES {
            let stored = encode(&plain, |next| Compression::named(name).unwrap().encode(next));
            let read = collect(decoder(Box::new(stored.as_slice())).unwrap()).unwrap();
            let expected = if name.starts_with("deflate") { &stored } else { &plain };
            assert!(read == *expected, "{name}");
        }
        for short in [&b""[..], b"\x1f", b"\x28\xb5\x2f", b"words"] {
            assert_eq!(collect(decoder(Box::new(short)).unwrap()).unwrap(), short);
        }
    }
}
