//! DEFLATE, bare and in gzip members.

use std::io::{self, BufReader, Read, Write};

use flate2::Compression;
use flate2::write::DeflateEncoder;

use super::{Checked, Effort, Link, Stage, damaged, pgzip};

/// What a decoder asks of its input at once.
const READ: usize = 256 << 10;

fn level(effort: Effort) -> Compression {
    match effort {
        Effort::Fastest => Compression::fast(),
        Effort::Usual | Effort::Better => Compression::default(),
        Effort::Best => Compression::best(),
    }
}

/// One gzip member, compressed by several threads.
pub(super) fn gzip(next: Link, effort: Effort) -> Link {
    Box::new(pgzip::Encoder::new(next, level(effort)))
}

pub(super) fn raw(next: Link, effort: Effort) -> Link {
    Box::new(Raw(DeflateEncoder::new(next, level(effort))))
}

struct Raw(DeflateEncoder<Link>);

impl Write for Raw {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stage for Raw {
    fn finish(self: Box<Self>) -> io::Result<()> {
        self.0.finish()?.finish()
    }
}

/// Members one after the other; anything else behind them is an error.
pub(super) fn read_gzip<'a>(input: Box<dyn Read + Send + 'a>) -> Box<dyn Read + Send + 'a> {
    let decoder = flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(READ, input));
    Box::new(Checked::new(decoder))
}

/// One stream; data behind it is an error, because nothing that writes this format puts any there.
pub(super) fn read_raw<'a>(input: Box<dyn Read + Send + 'a>) -> Box<dyn Read + Send + 'a> {
    let decoder = flate2::bufread::DeflateDecoder::new(BufReader::with_capacity(READ, input));
    Box::new(Checked::new(ReadRaw { decoder, begun: false, done: false }))
}

struct ReadRaw<R> {
    decoder: flate2::bufread::DeflateDecoder<BufReader<R>>,
    begun: bool,
    done: bool,
}

impl<R: Read> Read for ReadRaw<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.done || buffer.is_empty() {
            return Ok(0);
        }
        if !self.begun {
            self.begun = true;
            if io::BufRead::fill_buf(self.decoder.get_mut())?.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let read = self.decoder.read(buffer)?;
        if read == 0 {
            self.done = true;
            if !io::BufRead::fill_buf(self.decoder.get_mut())?.is_empty() {
                return Err(damaged("data behind the end of the stream"));
            }
        }
        Ok(read)
    }
}
