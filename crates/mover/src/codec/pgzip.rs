//! One gzip member, compressed in blocks by several threads: any tool reads it.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

use super::{Link, Stage};

/// Blocks end with a flush to a byte border, so that they can be put behind each other.
const BLOCK: usize = 1 << 20;

/// The encoder.
pub(super) struct Encoder {
    next: Link,
    level: Compression,
    waiting: Vec<u8>,
    /// Blocks that are being compressed, oldest first.
    running: std::collections::VecDeque<Receiver<io::Result<Vec<u8>>>>,
    threads: usize,
    crc: Crc,
    begun: bool,
}

impl Encoder {
    pub(super) fn new(next: Link, level: Compression) -> Self {
        let threads = thread::available_parallelism().map_or(1, usize::from).min(4);
        Self {
            next,
            level,
            waiting: Vec::with_capacity(BLOCK),
            running: std::collections::VecDeque::new(),
            threads,
            crc: Crc::new(),
            begun: false,
        }
    }

    /// Hands the waiting bytes to a thread.
    fn dispatch(&mut self, last: bool) -> io::Result<()> {
        if !self.begun {
            self.begun = true;
            // No name, no time, unknown system; two hints about the level.
            let hint = match self.level.level() {
                9 => 2,
                1 => 4,
                _ => 0,
            };
            self.next.write_all(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, hint, 255])?;
        }
        while self.running.len() >= self.threads {
            self.collect()?;
        }
        let block = std::mem::replace(&mut self.waiting, Vec::with_capacity(BLOCK));
        self.crc.update(&block);
        let level = self.level;
        let (to, from) = sync_channel(1);
        thread::spawn(move || {
            // Nobody waits any more when the push has failed elsewhere.
            let _ = to.send(compress(&block, level, last));
        });
        self.running.push_back(from);
        Ok(())
    }

    /// Waits for the oldest block and writes it.
    fn collect(&mut self) -> io::Result<()> {
        if let Some(from) = self.running.pop_front() {
            let block = from.recv().map_err(|_| io::Error::other("a compressing thread has died"))??;
            self.next.write_all(&block)?;
        }
        Ok(())
    }
}

fn compress(block: &[u8], level: Compression, last: bool) -> io::Result<Vec<u8>> {
    let mut compressor = Compress::new(level, false);
    let mut output = Vec::with_capacity(block.len() / 2 + 1024);
    let flush = if last { FlushCompress::Finish } else { FlushCompress::Sync };
    loop {
        let read = compressor.total_in() as usize;
        let status = compressor.compress_vec(&block[read..], &mut output, flush).map_err(io::Error::other)?;
        let read_all = compressor.total_in() as usize == block.len();
        // A flush is complete when it left room.
        if matches!(status, Status::StreamEnd) || !last && read_all && output.len() < output.capacity() {
            return Ok(output);
        }
        output.reserve(64 << 10);
    }
}

impl Write for Encoder {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.waiting.len() == BLOCK {
            self.dispatch(false)?;
        }
        let taken = bytes.len().min(BLOCK - self.waiting.len());
        self.waiting.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stage for Encoder {
    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.dispatch(true)?;
        while !self.running.is_empty() {
            self.collect()?;
        }
        self.next.write_all(&self.crc.sum().to_le_bytes())?;
        self.next.write_all(&self.crc.amount().to_le_bytes())?;
        self.next.finish()
    }
}
