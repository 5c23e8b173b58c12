//! The segment that is being received: an unnamed file, and what was seen in it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::shelf::{Span, both};
use crate::engines::postgres::position::{Lsn, Segment};
use crate::error::{Error, Result};
use crate::stream::Input;

pub(super) struct Spool {
    pub(super) segment: Segment,
    size: u64,
    file: Arc<File>,
    written: u64,
    /// How much of it the newest stored or scheduled object holds.
    pub(super) scheduled: u64,
    pub(super) span: Option<Span>,
}

impl Spool {
    /// # Errors
    /// When there is no room for temporary files.
    pub(super) fn new(segment: Segment, size: u64) -> Result<Self> {
        let file = tempfile::tempfile().map_err(|error| failed(&error))?;
        Ok(Self { segment, size, file: Arc::new(file), written: 0, scheduled: 0, span: None })
    }

    /// Up to where it was received.
    pub(super) fn end(&self) -> Lsn {
        Lsn(self.segment.start(self.size).0 + self.written)
    }

    pub(super) fn room(&self) -> u64 {
        self.size - self.written
    }

    /// Appends log, and notes the transactions that ended in it.
    ///
    /// # Errors
    /// When the disk is full.
    pub(super) fn append(&mut self, bytes: &[u8], span: Option<Span>) -> Result<()> {
        (&*self.file).write_all(bytes).map_err(|error| failed(&error))?;
        self.written += bytes.len() as u64;
        self.span = both(self.span, span);
        Ok(())
    }

    /// What is there now, filled up with zeros to a whole segment: what a server takes.
    pub(super) fn input(&self) -> Input {
        let content = Content { file: self.file.clone(), at: 0, written: self.written, size: self.size };
        Input { name: self.segment.name(self.size), reader: Box::new(content) }
    }
}

fn failed(error: &io::Error) -> Error {
    Error::file("write", Path::new("the segment that is being received"), error)
}

struct Content {
    file: Arc<File>,
    at: u64,
    written: u64,
    size: u64,
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let part = |left: u64| buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = if self.at < self.written {
            let wanted = part(self.written - self.at);
            self.file.read_at(&mut buffer[..wanted], self.at)?
        } else {
            let wanted = part(self.size - self.at);
            buffer[..wanted].fill(0);
            wanted
        };
        self.at += read as u64;
        Ok(read)
    }
}
