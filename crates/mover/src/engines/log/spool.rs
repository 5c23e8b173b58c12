//! What is being received: an unnamed file that grows.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::stream::Input;

pub(crate) struct Spool {
    file: Arc<File>,
    /// In bytes.
    pub(crate) written: u64,
}

impl Spool {
    /// # Errors
    /// When there is no room for temporary files.
    pub(crate) fn new() -> Result<Self> {
        let file = tempfile::tempfile().map_err(|error| failed(&error))?;
        Ok(Self { file: Arc::new(file), written: 0 })
    }

    /// # Errors
    /// When the disk is full.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        (&*self.file).write_all(bytes).map_err(|error| failed(&error))?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// What is there now, filled up with zeros to `size` bytes.
    pub(crate) fn input(&self, name: String, size: u64) -> Input {
        let content = Content { file: self.file.clone(), at: 0, written: self.written, size };
        Input { name, reader: Box::new(content) }
    }
}

fn failed(error: &io::Error) -> Error {
    Error::file("write", Path::new("the log that is being received"), error)
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
