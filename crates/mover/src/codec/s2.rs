//! S2: Snappy's framing with larger blocks and repeated offsets. Written as what both formats share; read in full.

use std::io::{self, Read, Write};

use super::{Link, Stage, damaged};

const IDENTIFIER: &[u8] = b"\xff\x06\x00\x00S2sTwO";
/// Size of a chunk's plaintext when writing.
const BLOCK: usize = 1 << 20;
/// Largest plaintext of a chunk when reading.
const BLOCK_MAX: usize = 4 << 20;

const COMPRESSED: u8 = 0x00;
const PLAIN: u8 = 0x01;

/// The checksum of a chunk: CRC-32C, disguised so that checksums of checksums stay useful.
fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// The encoder. Writes nothing for an empty input, as the reference does.
pub(super) struct Encoder {
    next: Link,
    waiting: Vec<u8>,
    compressed: Vec<u8>,
    begun: bool,
}

impl Encoder {
    pub(super) fn new(next: Link) -> Self {
        Self { next, waiting: Vec::with_capacity(BLOCK), compressed: Vec::new(), begun: false }
    }

    fn chunk(&mut self) -> io::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        if !self.begun {
            self.begun = true;
            self.next.write_all(IDENTIFIER)?;
        }
        self.compressed.resize(snap::raw::max_compress_len(self.waiting.len()), 0);
        let size = snap::raw::Encoder::new().compress(&self.waiting, &mut self.compressed).map_err(io::Error::other)?;
        let (kind, body) = if size < self.waiting.len() - self.waiting.len() / 8 {
            (COMPRESSED, &self.compressed[..size])
        } else {
            (PLAIN, self.waiting.as_slice())
        };
        let length = (body.len() as u32 + 4).to_le_bytes();
        self.next.write_all(&[kind, length[0], length[1], length[2]])?;
        self.next.write_all(&checksum(&self.waiting).to_le_bytes())?;
        self.next.write_all(body)?;
        self.waiting.clear();
        Ok(())
    }
}

impl Write for Encoder {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(BLOCK - self.waiting.len());
        self.waiting.extend_from_slice(&bytes[..taken]);
        if self.waiting.len() == BLOCK {
            self.chunk()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stage for Encoder {
    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.chunk()?;
        self.next.finish()
    }
}

/// The decoder, of S2 and Snappy streams one after the other. A stream has no end mark, so a cut between two chunks cannot
/// be seen here; the manifest sees it.
pub(super) struct Decoder<R> {
    input: R,
    chunk: Vec<u8>,
    plain: Vec<u8>,
    at: usize,
    begun: bool,
}

impl<R: Read> Decoder<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, chunk: Vec::new(), plain: Vec::new(), at: 0, begun: false }
    }

    /// Reads the next chunk that holds data into `plain`; false at the end.
    fn next_chunk(&mut self) -> io::Result<bool> {
        loop {
            let mut head = [0; 4];
            if self.input.read(&mut head[..1])? == 0 {
                return Ok(false);
            }
            self.input.read_exact(&mut head[1..])?;
            let size = u32::from_le_bytes([head[1], head[2], head[3], 0]) as usize;
            let kind = head[0];
            if !self.begun && kind != 0xff {
                return Err(damaged("s2: corrupt input"));
            }
            // Skippable and unknown chunks may be 16 MiB, and are never more.
            self.chunk.resize(size, 0);
            self.input.read_exact(&mut self.chunk)?;
            match kind {
                0xff if matches!(self.chunk.as_slice(), b"S2sTwO" | b"sNaPpY") => self.begun = true,
                0xff => return Err(damaged("s2: corrupt input")),
                COMPRESSED | PLAIN => {
                    let (expected, body) =
                        self.chunk.split_first_chunk::<4>().ok_or_else(|| damaged("s2: corrupt input"))?;
                    if kind == COMPRESSED {
                        decode_block(body, &mut self.plain).ok_or_else(|| damaged("s2: corrupt input"))?;
                    } else if body.len() > BLOCK_MAX {
                        return Err(damaged("s2: corrupt input"));
                    } else {
                        self.plain.clear();
                        self.plain.extend_from_slice(body);
                    }
                    if checksum(&self.plain) != u32::from_le_bytes(*expected) {
                        return Err(damaged("s2: corrupt input: the checksum is wrong"));
                    }
                    self.at = 0;
                    return Ok(true);
                }
                0x80..=0xfe => {}
                _ => return Err(damaged("s2: unsupported input")),
            }
        }
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.plain.len() {
            if !self.next_chunk()? {
                return Ok(0);
            }
        }
        let taken = buffer.len().min(self.plain.len() - self.at);
        buffer[..taken].copy_from_slice(&self.plain[self.at..self.at + taken]);
        self.at += taken;
        Ok(taken)
    }
}

/// Takes bytes from the front of a slice.
fn take<'a>(input: &mut &'a [u8], size: usize) -> Option<&'a [u8]> {
    let (taken, rest) = input.split_at_checked(size)?;
    *input = rest;
    Some(taken)
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

/// Decodes one block. `None` when it is not one.
fn decode_block(mut input: &[u8], plain: &mut Vec<u8>) -> Option<()> {
    plain.clear();
    let mut size = 0usize;
    for shift in (0..35).step_by(7) {
        let byte = take(&mut input, 1)?[0];
        size |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    if size > BLOCK_MAX {
        return None;
    }
    plain.reserve(size);
    let mut offset = 0;
    while !input.is_empty() {
        let tag = take(&mut input, 1)?[0];
        let high = usize::from(tag >> 2);
        let length = match tag & 3 {
            0 => {
                let length = 1 + match high {
                    short @ 0..=59 => short,
                    long => number(take(&mut input, long - 59)?),
                };
                let literal = take(&mut input, length)?;
                if plain.len() + length > size {
                    return None;
                }
                plain.extend_from_slice(literal);
                continue;
            }
            1 => {
                let low = take(&mut input, 1)?[0];
                let here = usize::from(tag & 0xe0) << 3 | usize::from(low);
                let short = high & 7;
                if here != 0 {
                    offset = here;
                    short + 4
                } else {
                    // Offset zero means the offset before, with lengths that Snappy does not have.
                    4 + match short {
                        5 => 4 + number(take(&mut input, 1)?),
                        6 => (1 << 8) + number(take(&mut input, 2)?),
                        7 => (1 << 16) + number(take(&mut input, 3)?),
                        other => other,
                    }
                }
            }
            2 => {
                offset = number(take(&mut input, 2)?);
                high + 1
            }
            _ => {
                offset = number(take(&mut input, 4)?);
                high + 1
            }
        };
        if offset == 0 || offset > plain.len() || plain.len() + length > size {
            return None;
        }
        let from = plain.len() - offset;
        if offset >= length {
            plain.extend_from_within(from..from + length);
        } else {
            // The copy reads what it writes: a pattern that repeats.
            for at in from..from + length {
                let byte = plain[at];
                plain.push(byte);
            }
        }
    }
    (plain.len() == size).then_some(())
}
