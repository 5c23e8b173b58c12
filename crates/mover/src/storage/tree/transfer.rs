//! One file on its way: written under a hidden name and renamed when it is whole; read on where a connection broke.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::{Files, Reading, Tree, Writing, claim};
use crate::error::{Cause, Error, Result};
use crate::rpath::{join, split};
use crate::storage::{Entry, TEMPORARY, exists};

/// How long cleaning up may take: whoever stops us will not wait for long.
const CLEAN_UP: Duration = Duration::from_secs(10);
/// Files of this size are read at once, so that they keep no connection from others.
const SMALL: u64 = 1 << 20;
/// How often a download goes on at its offset without having got a byte further.
const RESUMES: usize = 5;

/// A file being written.
pub(crate) struct TreeWriter {
    tree: Tree,
    path: String,
    temporary: String,
    file: Option<Box<dyn Writing>>,
    /// Whether the temporary file may exist.
    begun: bool,
    size: u64,
    /// Whether nothing may lie under the name yet.
    pub(in crate::storage) once: bool,
}

impl TreeWriter {
    pub(super) fn new(tree: Tree, key: &str) -> Self {
        let name = format!("{TEMPORARY}{:016x}", rand::random::<u64>());
        let temporary = tree.path(&join(split(key).0, &name));
        let path = tree.path(key);
        Self { tree, path, temporary, file: None, begun: false, size: 0, once: false }
    }

    pub(super) fn temporary(&self) -> &str {
        &self.temporary
    }

    async fn begin(&mut self) -> Result<&mut Box<dyn Writing>> {
        if self.file.is_none() {
            let parent = self.temporary.rsplit_once('/').map_or("", |(parent, _)| parent);
            self.tree.make_dirs(parent).await?;
            self.begun = true;
            self.file = Some(self.tree.files.write(&self.temporary).await?);
        }
        self.file.as_mut().ok_or_else(|| Error::other("no file is open"))
    }

    pub(crate) async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let size = bytes.len() as u64;
        self.begin().await?.write(bytes).await?;
        self.size += size;
        Ok(())
    }

    /// Has the server close the temporary file, and compares its size: some servers report a transfer cut short as a success.
    pub(super) async fn finish(&mut self) -> Result<()> {
        self.begin().await?;
        if let Some(file) = self.file.take() {
            file.close().await?;
        }
        if !self.tree.files.checks_uploads() {
            return Ok(());
        }
        match self.tree.files.stat(&self.temporary).await? {
            Some(item) if item.size == self.size => Ok(()),
            Some(item) => Err(Error::new(
                Cause::Damaged,
                format!("corrupted on transfer: the server has {} bytes, {} were sent", item.size, self.size),
            )),
            None => Err(Error::new(Cause::Damaged, "corrupted on transfer: the server does not have the file")),
        }
    }

    pub(crate) async fn commit(mut self) -> Result<()> {
        let done = match self.finish().await {
            Ok(()) if self.once => match claim::rename_new(&*self.tree.files, &self.temporary, &self.path).await {
                Ok(true) => Ok(()),
                Ok(false) => Err(exists()),
                Err(error) => Err(error),
            },
            Ok(()) => self.rename().await,
            Err(error) => Err(error),
        };
        if done.is_err() {
            self.abort().await;
        }
        done
    }

    /// Renames, also when the answer to a rename was lost.
    async fn rename(&self) -> Result<()> {
        let files = &self.tree.files;
        let mut renamed = files.rename(&self.temporary, &self.path).await;
        for _ in 0..3 {
            if !renamed.as_ref().is_err_and(|error| error.is(Cause::Unreachable)) {
                break;
            }
            renamed = match files.stat(&self.temporary).await {
                Ok(Some(_)) => files.rename(&self.temporary, &self.path).await,
                // Nobody else knows this name, so it was renamed.
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
        }
        renamed
    }

    pub(crate) async fn abort(mut self) {
        let _ = tokio::time::timeout(CLEAN_UP, async {
            if let Some(file) = self.file.take() {
                file.abort().await;
            }
            if self.begun {
                // What stays is hidden, and goes with its directory or at the next seal.
                let _ = self.tree.files.remove(&self.temporary).await;
            }
        })
        .await;
    }
}

/// A file being read.
pub(crate) struct TreeReader {
    files: Arc<dyn Files>,
    path: String,
    entry: Entry,
    reading: Box<dyn Reading>,
    at: u64,
    resumes: usize,
    /// All of a small file.
    whole: Option<Bytes>,
}

impl TreeReader {
    pub(super) async fn open(files: Arc<dyn Files>, path: String, entry: Entry) -> Result<Self> {
        let reading = files.read(&path, 0).await?;
        let mut reader = Self { files, path, entry, reading, at: 0, resumes: 0, whole: None };
        if reader.entry.size as u64 <= SMALL {
            let mut whole = BytesMut::new();
            while let Some(bytes) = reader.fetch().await? {
                whole.extend_from_slice(&bytes);
            }
            reader.whole = Some(whole.freeze());
        }
        Ok(reader)
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>> {
        match &mut self.whole {
            Some(whole) => Ok(Some(std::mem::take(whole)).filter(|whole| !whole.is_empty())),
            None => self.fetch().await,
        }
    }

    async fn fetch(&mut self) -> Result<Option<Bytes>> {
        let size = self.entry.size as u64;
        loop {
            let broken = match self.reading.next().await {
                Ok(Some(bytes)) => {
                    self.at += bytes.len() as u64;
                    self.resumes = 0;
                    return Ok(Some(bytes));
                }
                Ok(None) if self.at == size => return Ok(None),
                Ok(None) if self.at > size => {
                    return Err(Error::new(Cause::Damaged, format!("the object has more than its {size} bytes")));
                }
                Ok(None) => Error::new(Cause::Damaged, format!("the object ended {} bytes early", size - self.at)),
                Err(error) if error.is(Cause::Unreachable) || error.is(Cause::Damaged) => error,
                Err(error) => return Err(error),
            };
            if self.resumes == RESUMES {
                return Err(broken);
            }
            self.resumes += 1;
            tokio::time::sleep(Duration::from_millis(200 << self.resumes)).await;
            self.resume(broken).await?;
        }
    }

    /// Goes on behind what is here already, if the file is still the one that was begun.
    async fn resume(&mut self, broken: Error) -> Result<()> {
        match self.files.stat(&self.path).await? {
            Some(item) if item.size == self.entry.size as u64 && item.modified == self.entry.modified => {}
            _ => return Err(broken.within("the object was replaced while it was read")),
        }
        self.reading = self.files.read(&self.path, self.at).await?;
        Ok(())
    }
}
