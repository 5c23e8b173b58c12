//! A file that the server appends to, as it is read.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::engines::redis::scan::Scanner;
use crate::engines::redis::shelf::{Leg, Piece, digest};
use crate::error::{Cause, Error, Result};
use crate::stream::Input;

/// So much is read at a time, in bytes.
const BLOCK: usize = 1 << 20;
/// From this size on a piece is stored without looking for more, in bytes.
const PIECE: u64 = 32 << 20;

/// A file that stays readable when its name is gone.
#[derive(Clone)]
pub(super) struct Opened {
    file: Arc<File>,
    path: PathBuf,
}

impl Opened {
    /// # Errors
    /// [`Cause::NotFound`] when there is none.
    pub(super) fn open(path: PathBuf) -> Result<Self> {
        match File::open(&path) {
            Ok(file) => Ok(Self { file: Arc::new(file), path }),
            Err(error) => Err(Error::file("open", &path, &error)),
        }
    }

    /// Whether its name still means this file.
    pub(super) fn is_there(&self) -> bool {
        let id = |metadata: io::Result<std::fs::Metadata>| metadata.ok().map(|it| (it.dev(), it.ino()));
        let own = id(self.file.metadata());
        own.is_some() && own == id(std::fs::metadata(&self.path))
    }

    /// In bytes.
    pub(super) fn size(&self) -> Result<u64> {
        self.file.metadata().map(|metadata| metadata.len()).map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &io::Error) -> Error {
        Error::file("read", &self.path, error)
    }

    /// Reads at a place; nothing at the end.
    pub(super) fn read_at(&self, buffer: &mut [u8], at: u64) -> Result<usize> {
        self.file.read_at(buffer, at).map_err(|error| self.failed(&error))
    }

    /// The digest of everything before a place, to be gone on with; `None` when the file is shorter.
    pub(super) fn hash(&self, hasher: &mut Sha256, from: u64, to: u64) -> Result<Option<()>> {
        let mut buffer = vec![0; BLOCK];
        let mut at = from;
        while at < to {
            let wanted = BLOCK.min(usize::try_from(to - at).unwrap_or(BLOCK));
            let read = self.read_at(&mut buffer[..wanted], at)?;
            if read == 0 {
                return Ok(None);
            }
            hasher.update(&buffer[..read]);
            at += read as u64;
        }
        Ok(Some(()))
    }

    /// A part of it, to be stored.
    pub(super) fn input(&self, from: u64, to: u64) -> Input {
        let part = Part { file: self.file.clone(), at: from, to };
        Input { name: self.path.display().to_string(), reader: Box::new(part) }
    }
}

struct Part {
    file: Arc<File>,
    at: u64,
    to: u64,
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.to - self.at).unwrap_or(usize::MAX));
        let read = self.file.read_at(&mut buffer[..wanted], self.at)?;
        if read == 0 && wanted > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it has become shorter"));
        }
        self.at += read as u64;
        Ok(read)
    }
}

/// The leg that is being read.
pub(super) struct Reading {
    pub(super) leg: Leg,
    pub(super) opened: Opened,
    pub(super) scanner: Scanner,
    /// Everything before it is stored.
    pub(super) stored: u64,
    /// Whether it ends in the middle of a command or of a transaction.
    pub(super) torn: bool,
    /// Of what is stored.
    hasher: Sha256,
}

impl Reading {
    pub(super) fn new(leg: Leg, opened: Opened) -> Self {
        Self { leg, opened, scanner: Scanner::new(0, None), stored: 0, torn: false, hasher: Sha256::new() }
    }

    /// Goes on behind what is stored of a leg; `None` when this is not the file of which that was stored.
    pub(super) fn resume(
        leg: Leg,
        opened: Opened,
        reached: (u64, String),
        times: Option<(i64, i64)>,
    ) -> Result<Option<Self>> {
        let mut hasher = Sha256::new();
        let (at, expected) = reached;
        if opened.hash(&mut hasher, 0, at)?.is_none() || digest(&hasher.clone().finalize()) != expected {
            return Ok(None);
        }
        Ok(Some(Self { leg, opened, scanner: Scanner::new(at, times), stored: at, torn: false, hasher }))
    }

    /// The digest of what is stored.
    pub(super) fn digest(&self) -> String {
        digest(&self.hasher.clone().finalize())
    }

    /// Reads what is new, up to the end or as much as a piece has. Whether that was the end.
    ///
    /// # Errors
    /// [`Cause::Damaged`] when it is no append-only file, or has become shorter.
    pub(super) fn scan(&mut self) -> Result<bool> {
        if self.opened.size()? < self.scanner.at {
            let name = self.opened.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            return Err(Error::new(Cause::Damaged, format!("{name} has become shorter")));
        }
        let mut buffer = vec![0; BLOCK];
        while self.scanner.whole - self.stored < PIECE {
            let read = self.opened.read_at(&mut buffer, self.scanner.at)?;
            if read == 0 {
                self.torn = self.scanner.at != self.scanner.whole;
                // A server that died in between cuts that off before it goes on.
                self.scanner = Scanner::new(self.scanner.whole, self.scanner.times);
                return Ok(true);
            }
            let name = |error: Error| error.within(self.opened.path.display());
            self.scanner.feed(&buffer[..read]).map_err(name)?;
        }
        Ok(false)
    }

    /// What is not stored yet, if there is any.
    ///
    /// # Errors
    /// As [`Self::scan`].
    pub(super) fn piece(&mut self) -> Result<Option<Piece>> {
        let (from, to) = (self.stored, self.scanner.whole);
        if from == to {
            return Ok(None);
        }
        let before = self.digest();
        if self.opened.hash(&mut self.hasher, from, to)?.is_none() {
            return Err(Error::new(Cause::Damaged, "the append-only file has become shorter"));
        }
        let after = self.digest();
        Ok(Some(Piece { leg: self.leg, from, to, times: self.scanner.times, before, after }))
    }
}

/// The first bytes of a file.
///
/// # Errors
/// When it cannot be read.
pub(super) fn head(opened: &Opened, size: usize) -> Result<Vec<u8>> {
    let mut head = vec![0; size];
    let mut filled = 0;
    loop {
        let read = opened.read_at(&mut head[filled..], filled as u64)?;
        filled += read;
        if read == 0 {
            head.truncate(filled);
            return Ok(head);
        }
    }
}

/// The folder of the server's files.
///
/// # Errors
/// When it is not mounted.
pub(super) fn folder(data: &Path, append_directory: &str) -> Result<PathBuf> {
    let folder = data.join(append_directory);
    if folder.is_dir() {
        return Ok(folder);
    }
    Err(Error::other(format!(
        "{} is not there: mount the server's volume where the server has it (targetVolumes.volumeMounts of the method), or say \
         in KBB_DATA_DIR where it is",
        folder.display()
    )))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const SET: &[u8] = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n";
    const GET: &[u8] = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";
    const LEG: Leg = Leg { history: 1, number: 1 };

    fn file(bytes: &[u8]) -> (tempfile::NamedTempFile, Opened) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let opened = Opened::open(file.path().to_owned()).unwrap();
        (file, opened)
    }

    #[test]
    fn half_a_command_is_not_stored_and_may_be_cut_off() {
        let (mut file, opened) = file(&[SET, &SET[..20]].concat());
        let mut reading = Reading::new(LEG, opened);
        assert!(reading.scan().unwrap() && reading.torn);
        let piece = reading.piece().unwrap().unwrap();
        assert_eq!((piece.from, piece.to), (0, SET.len() as u64));
        reading.stored = piece.to;
        // A server that died there begins behind the last whole command.
        file.as_file().set_len(piece.to).unwrap();
        std::io::Seek::seek(&mut file, io::SeekFrom::End(0)).unwrap();
        file.write_all(GET).unwrap();
        assert!(reading.scan().unwrap() && !reading.torn);
        let next = reading.piece().unwrap().unwrap();
        assert_eq!((next.to, &next.before), ((SET.len() + GET.len()) as u64, &piece.after));
        // What was stored cannot become less.
        reading.stored = next.to;
        file.as_file().set_len(3).unwrap();
        assert_eq!(reading.scan().unwrap_err().cause, Cause::Damaged);
    }

    #[test]
    fn a_session_goes_on_in_the_file_of_which_that_was_stored_and_in_no_other() {
        let (_file, opened) = file(&[SET, GET].concat());
        let at = SET.len() as u64;
        let of = |bytes: &[u8]| (bytes.len() as u64, digest(&Sha256::digest(bytes)));
        let resume = |reached| Reading::resume(LEG, opened.clone(), reached, Some((5, 6))).unwrap();
        let reading = resume(of(SET)).unwrap();
        assert_eq!((reading.stored, reading.scanner.at, reading.scanner.times), (at, at, Some((5, 6))));
        assert_eq!(reading.digest(), of(SET).1);
        assert!(resume((at, of(GET).1)).is_none(), "other bytes");
        assert!(resume(of(&[SET, GET, SET].concat())).is_none(), "fewer bytes");
    }

    #[test]
    fn a_name_that_means_another_file_is_noticed() {
        let (file, opened) = file(SET);
        assert!(opened.is_there());
        let other = tempfile::NamedTempFile::new_in(file.path().parent().unwrap()).unwrap();
        std::fs::rename(other.path(), file.path()).unwrap();
        assert!(!opened.is_there());
    }
}
