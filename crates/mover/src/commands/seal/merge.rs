//! The manifest: what the notes say beside what lies in the repository, both in order, so that memory does not depend on
//! the number of objects.

use bytes::Bytes;
use kbbackup_core::contract::{ManifestEntry, Stored};
use kbbackup_core::layout;

use super::Task;
use crate::error::{Cause, Error, Result};
use crate::inventory::{Inventory, Object};
use crate::manifest::lines;
use crate::notes::{Notes, Verdict};
use crate::rpath::{absolute_key, join};
use crate::storage::{Entry, Sink, is_hidden};
use crate::stream::{self, Output, Transform};

/// What is collected of the manifest before it is sent.
const PIECE: usize = 256 << 10;

/// A manifest as it was written.
pub(super) struct Manifest {
    pub(super) stored: Stored,
    pub(super) digest: String,
}

/// A manifest on its way.
struct Writer {
    sink: Sink,
    hasher: blake3::Hasher,
    waiting: Vec<u8>,
    stored: Stored,
    /// Objects that are not our own documents.
    data: u64,
    /// Objects that only attempts noted that failed.
    leftovers: u64,
}

impl Writer {
    async fn add(&mut self, entry: &ManifestEntry) -> Result<()> {
        self.data += u64::from(!layout::is_document(&entry.path));
        self.waiting.extend(lines([entry])?);
        self.stored.objects += 1;
        self.stored.bytes += entry.size;
        if self.waiting.len() >= PIECE { self.send().await } else { Ok(()) }
    }

    async fn send(&mut self) -> Result<()> {
        let piece = std::mem::replace(&mut self.waiting, Vec::with_capacity(PIECE));
        self.hasher.update(&piece);
        self.sink.write(Bytes::from(piece)).await
    }
}

impl Task<'_> {
    /// Compares and writes. Objects of attempts that failed are removed; objects that nobody noted (other tools wrote
    /// them) are read and taken in; anything else is an error, and there is no manifest then.
    pub(super) async fn write_manifest(&self, notes: Notes) -> Result<Manifest> {
        let listed = Inventory::take(&self.repo.store, &self.key).await?;
        let key = absolute_key(&layout::manifest(&self.backup));
        let mut writer = Writer {
            sink: self.repo.store.create(&key)?,
            hasher: blake3::Hasher::new(),
            waiting: Vec::new(),
            stored: Stored::default(),
            data: 0,
            leftovers: 0,
        };
        match self.merge(notes, listed, &mut writer).await {
            Ok(()) => {
                writer.sink.commit().await?;
                Ok(Manifest { stored: writer.stored, digest: writer.hasher.finalize().to_hex().to_string() })
            }
            Err(error) => {
                writer.sink.abort().await;
                Err(error)
            }
        }
    }

    async fn merge(&self, notes: Notes, mut listed: Inventory, writer: &mut Writer) -> Result<()> {
        let mut notes = notes.finish()?;
        let (mut note, mut file) = (notes.next()?, listed.next()?);
        let mut missing = Missing::default();
        loop {
            let order = match (&note, &file) {
                (None, None) => break,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(note), Some(file)) => note.path().cmp(&file.path),
            };
            if order.is_lt() {
                match &note {
                    Some(Verdict::Belongs(entry)) => missing.note(&entry.path),
                    Some(Verdict::Leftover(_)) => writer.leftovers += 1,
                    None => {}
                }
                note = notes.next()?;
                continue;
            }
            let Some(found) = file.take() else { break };
            file = listed.next()?;
            if order.is_eq() {
                let Some(verdict) = note.take() else { break };
                note = notes.next()?;
                self.noted(verdict, &found, writer).await?;
            } else if !is_hidden(&found.path) && missing.count == 0 {
                // Worth the reading only while there can be a seal.
                self.unnoted(&found, writer).await?;
            }
        }
        missing.refuse()?;
        // A script that takes what an earlier attempt stored for its own work stores nothing, and what there was is gone.
        if writer.data == 0 && writer.leftovers > 0 {
            let text = format!(
                "only attempts that failed have stored anything ({} objects), the one that succeeded has not: \
                 a script that is run again must store everything again",
                writer.leftovers
            );
            return Err(Error::new(Cause::Damaged, text));
        }
        writer.send().await
    }

    /// An object that somebody noted.
    async fn noted(&self, verdict: Verdict, found: &Object, writer: &mut Writer) -> Result<()> {
        let entry = match verdict {
            Verdict::Belongs(entry) => entry,
            Verdict::Leftover(path) if is_hidden(&path) => return Ok(()),
            Verdict::Leftover(path) => {
                writer.leftovers += 1;
                return self.repo.store.remove(&join(&self.key, &path)).await;
            }
        };
        let size = found.size;
        if entry.size != size as u64 {
            return Err(Error::new(
                Cause::Damaged,
                format!("{} has {size} bytes in the repository, {} were written", entry.path, entry.size),
            ));
        }
        writer.add(&entry).await
    }

    /// An object that nobody noted.
    async fn unnoted(&self, found: &Object, writer: &mut Writer) -> Result<()> {
        let entry = Entry {
            key: join(&self.key, &found.path),
            dir: false,
            size: found.size,
            modified: jiff::Timestamp::UNIX_EPOCH,
            etag: None,
        };
        let source = self.repo.store.read(&entry).await?;
        let read = stream::pull(source, Transform::default(), Output::Nothing).await?;
        writer
            .add(&ManifestEntry { path: found.path.clone(), size: read.size, blake3: read.blake3, removed: false })
            .await
    }
}

/// Objects that were noted and are not there.
#[derive(Default)]
struct Missing {
    count: u64,
    first: String,
}

impl Missing {
    fn note(&mut self, path: &str) {
        if self.count == 0 {
            path.clone_into(&mut self.first);
        }
        self.count += 1;
    }

    fn refuse(&self) -> Result<()> {
        if self.count == 0 {
            return Ok(());
        }
        Err(Error::new(
            Cause::Damaged,
            format!("{} object(s) were written but are not in the repository, first {}", self.count, self.first),
        ))
    }
}
