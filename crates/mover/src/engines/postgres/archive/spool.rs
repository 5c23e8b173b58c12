//! The segment that is being received, and what was seen in it.

use super::shelf::{Span, both};
use crate::engines::log;
use crate::engines::postgres::position::{Lsn, Segment};
use crate::error::Result;
use crate::stream::Input;

pub(super) struct Spool {
    pub(super) segment: Segment,
    size: u64,
    file: log::spool::Spool,
    /// How much of it the newest stored or scheduled object holds.
    pub(super) scheduled: u64,
    pub(super) span: Option<Span>,
}

impl Spool {
    /// # Errors
    /// When there is no room for temporary files.
    pub(super) fn new(segment: Segment, size: u64) -> Result<Self> {
        Ok(Self { segment, size, file: log::spool::Spool::new()?, scheduled: 0, span: None })
    }

    /// Up to where it was received.
    pub(super) fn end(&self) -> Lsn {
        Lsn(self.segment.start(self.size).0 + self.file.written)
    }

    pub(super) fn room(&self) -> u64 {
        self.size - self.file.written
    }

    /// Appends log, and notes the transactions that ended in it.
    ///
    /// # Errors
    /// When the disk is full.
    pub(super) fn append(&mut self, bytes: &[u8], span: Option<Span>) -> Result<()> {
        self.file.append(bytes)?;
        self.span = both(self.span, span);
        Ok(())
    }

    /// What is there now, filled up with zeros to a whole segment: what a server takes.
    pub(super) fn input(&self) -> Input {
        self.file.input(self.segment.name(self.size), self.size)
    }
}
