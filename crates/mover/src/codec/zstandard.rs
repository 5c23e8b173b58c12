//! Zstandard: one frame per push, with a checksum, compressed by several threads.

use std::io::{self, Read, Write};

use zstd::zstd_safe::CParameter;

use super::{Checked, Effort, Link, Stage, damaged};

/// What one worker compresses at a time; with two to four workers this bounds the memory.
const JOB: u32 = 4 << 20;
/// Windows up to 512 MiB are read, like the reference does.
const WINDOW_LOG_MAX: u32 = 29;
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Writes nothing at all for an empty input, as the contract's encoder does.
pub(super) enum Encoder {
    Idle(Link, Effort),
    Running(zstd::Encoder<'static, Link>),
    /// Between two states; seen only after an error.
    Broken,
}

impl Encoder {
    pub(super) fn new(next: Link, effort: Effort) -> Self {
        Self::Idle(next, effort)
    }

    fn running(&mut self) -> io::Result<&mut zstd::Encoder<'static, Link>> {
        if matches!(self, Self::Idle(..))
            && let Self::Idle(next, effort) = std::mem::replace(self, Self::Broken)
        {
            *self = Self::Running(begin(next, effort)?);
        }
        match self {
            Self::Running(encoder) => Ok(encoder),
            _ => Err(io::Error::other("the encoder has failed before")),
        }
    }
}

fn begin(next: Link, effort: Effort) -> io::Result<zstd::Encoder<'static, Link>> {
    let level = match effort {
        Effort::Fastest => 1,
        Effort::Usual => 3,
        Effort::Better => 7,
        Effort::Best => 11,
    };
    let mut encoder = zstd::Encoder::new(next, level)?;
    encoder.include_checksum(true)?;
    encoder.include_contentsize(false)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    encoder.multithread(cores.min(4) as u32)?;
    encoder.set_parameter(CParameter::JobSize(JOB))?;
    Ok(encoder)
}

impl Write for Encoder {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        self.running()?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stage for Encoder {
    fn finish(self: Box<Self>) -> io::Result<()> {
        match *self {
            Self::Idle(next, _) => next.finish(),
            Self::Running(encoder) => encoder.finish()?.finish(),
            Self::Broken => Err(io::Error::other("the encoder has failed before")),
        }
    }
}

/// Reads frames one after the other, skippable ones too; an empty input is an empty output.
pub(super) fn decoder<'a>(mut input: Box<dyn Read + Send + 'a>) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut magic = Vec::with_capacity(4);
    input.by_ref().take(4).read_to_end(&mut magic)?;
    if magic.is_empty() {
        return Ok(Box::new(io::empty()));
    }
    let skippable = magic.len() == 4 && magic[0] & 0xf0 == 0x50 && magic[1..] == [0x2a, 0x4d, 0x18];
    if magic != MAGIC && !skippable {
        return Err(damaged("invalid input: magic number mismatch"));
    }
    let mut decoder = zstd::Decoder::new(io::Cursor::new(magic).chain(input))?;
    decoder.window_log_max(WINDOW_LOG_MAX)?;
    Ok(Box::new(Checked::new(decoder)))
}
