//! The record of what a backup consists of, made while it is written.
//!
//! Each pod of a backup notes every object that it writes, in a journal beside its result file (one line, appended), or,
//! where no journal is shared, as an object of its own below the backup's hidden folder. Sealing merges these notes.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kbbackup_core::contract::{self, ManifestEntry};
use kbbackup_core::layout;

use crate::config::env;
use crate::error::{Cause, Error, Result};
use crate::fold;
use crate::notes::{Lines, Notes, Voice};
use crate::output;
use crate::rpath::{absolute_key, below};
use crate::storage::{Found, Store, is_hidden};

/// What is copied of a journal at once.
const PIECE: usize = 256 << 10;

/// A push waits no longer for the folding of fragments.
const FOLD: Duration = Duration::from_secs(20);

/// Writes notes for one pod.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    /// The backup's absolute path.
    pub(crate) backup: String,
    /// The same as a key.
    key: String,
    action: String,
    attempt: String,
    journal: Option<PathBuf>,
    /// Of so many notes one tidies up.
    fold_every: u32,
    /// What is younger is left alone.
    fold_age: Duration,
}

impl Recorder {
    /// The recorder of the environment; `None` when this process does not write into a backup.
    ///
    /// # Errors
    /// When the backup is named but the writer is not.
    pub(crate) fn from_environment() -> Result<Option<Self>> {
        let Some(backup) = env(contract::ENV_BACKUP_PATH) else { return Ok(None) };
        let key = absolute_key(&backup);
        if key.is_empty() {
            return Err(Error::other(format!("{} is the repository's root", contract::ENV_BACKUP_PATH)));
        }
        Ok(Some(Self {
            key,
            backup,
            action: env(contract::ENV_ACTION).unwrap_or_else(|| "none".to_owned()),
            attempt: env(contract::ENV_ATTEMPT).unwrap_or_else(|| "none".to_owned()),
            journal: env(contract::ENV_JOURNAL).map(PathBuf::from),
            fold_every: fold::EVERY,
            fold_age: fold::AGE,
        }))
    }

    /// Where a push notes how far it is; `None` where nobody looks.
    pub(crate) fn progress(&self) -> Option<Progress> {
        let journal = self.journal.as_ref()?;
        let name = format!("{}{}{:08x}", file_name(journal), contract::progress::FILE, rand::random::<u32>());
        Some(Progress { file: journal.with_file_name(name), told: Instant::now() })
    }

    /// Bytes that the pushes of this pod have stored so far.
    pub(crate) fn bytes_so_far(&self) -> Option<u64> {
        let journal = self.journal.as_ref()?;
        let start = format!("{}{}", file_name(journal), contract::progress::FILE);
        let found = std::fs::read_dir(journal.parent()?).ok()?.flatten();
        let own = found.filter(|entry| entry.file_name().to_string_lossy().starts_with(&start));
        // A file that is being replaced counts the next time.
        Some(own.filter_map(|entry| std::fs::read_to_string(entry.path()).ok()?.parse::<u64>().ok()).sum())
    }

    /// The part of a key below the backup; `None` for objects elsewhere and for our own.
    pub(crate) fn covers<'a>(&self, key: &'a str) -> Option<&'a str> {
        below(key, &self.key).filter(|rest| !is_hidden(rest))
    }

    /// Whether a key lies at or below the backup, or is one of its parents: removing it would touch the backup.
    fn touches(&self, key: &str) -> bool {
        key == self.key || below(key, &self.key).is_some() || below(&self.key, key).is_some()
    }

    /// Refuses to change a sealed backup. Looks once per pod where a journal is shared.
    ///
    /// # Errors
    /// [`Cause::Sealed`].
    pub(crate) async fn refuse_sealed(&self, store: &Store, key: &str) -> Result<()> {
        if !self.touches(key) {
            return Ok(());
        }
        let marker = self.journal.as_ref().map(|journal| journal.with_extension("unsealed"));
        if marker.as_ref().is_some_and(|marker| marker.exists()) {
            return Ok(());
        }
        if let Found::File(_) = store.lookup(&absolute_key(&layout::seal(&self.backup))).await? {
            return Err(Error::new(
                Cause::Sealed,
                format!("the backup {} is sealed: nothing may be written into it or removed from it", self.backup),
            ));
        }
        if let Some(marker) = marker {
            // Only saves the next look.
            let _ = std::fs::write(marker, b"");
        }
        Ok(())
    }

    /// Notes entries.
    ///
    /// # Errors
    /// When they cannot be written; what they speak of is not part of the backup then.
    pub(crate) async fn record(&self, store: &Store, entries: &[ManifestEntry]) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let lines = lines(entries)?;
        if let Some(journal) = &self.journal {
            return append(journal, &lines);
        }
        store.put(&self.fragment(), Bytes::from(lines)).await?;
        if rand::random_ratio(1, self.fold_every) {
            self.fold(store).await;
        }
        Ok(())
    }

    /// Tidies up. A courtesy: the notes are complete without it, whenever it ends.
    async fn fold(&self, store: &Store) {
        let dir = absolute_key(&layout::fragments(&self.backup, &self.action, &self.attempt));
        let outcome = tokio::time::timeout(FOLD, fold::fold(store, &dir, self.fold_age)).await;
        if let Ok(Err(error)) = outcome {
            output::note(&format!("NOTICE: fragments of the list of objects stay as they are: {error}"));
        }
    }

    /// A new fragment's key: names sort by time, because later notes win.
    fn fragment(&self) -> String {
        let now = jiff::Timestamp::now().as_nanosecond();
        let dir = absolute_key(&layout::fragments(&self.backup, &self.action, &self.attempt));
        format!("{dir}/{now:020}-{:08x}.jsonl", rand::random::<u32>())
    }

    /// Stores the journal as one fragment. Returns what its notes add up to.
    ///
    /// # Errors
    /// When the journal is damaged or the store refuses.
    pub(crate) async fn upload_journal(&self, store: &Store) -> Result<contract::Stored> {
        let Some(journal) = &self.journal else { return Ok(contract::Stored::default()) };
        let failed = |error: std::io::Error| Error::file("open", journal, &error);
        let file = match std::fs::File::open(journal) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(contract::Stored::default()),
            Err(error) => return Err(failed(error)),
        };
        let mut lines = Lines::new(journal.display().to_string());
        let mut notes = Notes::new();
        let mut sink = None;
        let copied = async {
            loop {
                let mut bytes = Vec::with_capacity(PIECE);
                (&file).take(PIECE as u64).read_to_end(&mut bytes).map_err(failed)?;
                if bytes.is_empty() {
                    return Ok(());
                }
                lines.feed(&bytes, |entry| notes.add(&entry, Voice::Counts))?;
                if sink.is_none() {
                    sink = Some(store.create(&self.fragment())?);
                }
                if let Some(sink) = &mut sink {
                    sink.write(Bytes::from(bytes)).await?;
                }
            }
        }
        .await;
        match (copied, sink) {
            (Ok(()), Some(sink)) => sink.commit().await?,
            (Ok(()), None) => {}
            (Err(error), sink) => {
                if let Some(sink) = sink {
                    sink.abort().await;
                }
                return Err(error);
            }
        }
        notes.finish()?.sum()
    }
}

/// How far one push is. A courtesy: what cannot be written is left out.
#[derive(Debug)]
pub(crate) struct Progress {
    file: PathBuf,
    told: Instant,
}

impl Progress {
    /// Notes that `bytes` are stored, unless it was noted a moment ago.
    pub(crate) fn at(&mut self, bytes: u64) {
        if self.told.elapsed() >= Duration::from_secs(1) {
            self.told = Instant::now();
            let _ = std::fs::write(&self.file, bytes.to_string());
        }
    }

    /// The push has ended with so many bytes.
    pub(crate) fn ended(&self, bytes: u64) {
        let _ = std::fs::write(&self.file, bytes.to_string());
    }

    /// The push has failed, and what it has stored is gone.
    pub(crate) fn failed(file: &Path) {
        let _ = std::fs::remove_file(file);
    }

    /// Its file.
    pub(crate) fn file(&self) -> PathBuf {
        self.file.clone()
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn append(journal: &Path, lines: &[u8]) -> Result<()> {
    let failed = |error: std::io::Error| Error::file("write", journal, &error);
    // One write call on a file opened for appending, so that lines of parallel pushes never mix.
    OpenOptions::new().append(true).create(true).open(journal).map_err(failed)?.write_all(lines).map_err(failed)
}

/// Entries as lines of JSON.
pub(crate) fn lines<'a>(entries: impl IntoIterator<Item = &'a ManifestEntry>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for entry in entries {
        serde_json::to_writer(&mut bytes, entry).map_err(|error| Error::other(format!("manifest: {error}")))?;
        bytes.push(b'\n');
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_all_pushes_of_a_pod_are_summed() {
        let dir = tempfile::tempdir().unwrap();
        let recorder = |journal: Option<&str>| Recorder {
            backup: "/b".into(),
            key: "b".into(),
            action: "a".into(),
            attempt: "1".into(),
            journal: journal.map(|name| dir.path().join(name)),
            fold_every: fold::EVERY,
            fold_age: fold::AGE,
        };
        let own = recorder(Some(".journal"));
        assert_eq!(own.bytes_so_far(), Some(0));
        let (one, two) = (own.progress().unwrap(), own.progress().unwrap());
        one.ended(3);
        two.ended(4);
        std::fs::write(dir.path().join("backup.info"), "5").unwrap();
        assert_eq!(own.bytes_so_far(), Some(7));
        Progress::failed(&two.file());
        assert_eq!(own.bytes_so_far(), Some(3));
        assert_eq!(recorder(None).bytes_so_far(), None, "nobody looks");
    }

    #[tokio::test]
    async fn fragments_of_pushes_without_a_journal_do_not_pile_up() {
        let dir = tempfile::tempdir().unwrap();
        let ini = format!("[storage]\ntype = local\nroot = {}\n", dir.path().display());
        let store = Store::open(&crate::config::ini::Ini::parse(&ini).unwrap()).unwrap();
        let recorder = Recorder {
            backup: "/b".into(),
            key: "b".into(),
            action: "a".into(),
            attempt: "1".into(),
            journal: None,
            fold_every: 1,
            fold_age: Duration::ZERO,
        };
        for size in 0..300 {
            let entry = ManifestEntry { path: format!("wal/{size}"), size, blake3: "ff".into(), removed: false };
            recorder.record(&store, &[entry]).await.unwrap();
        }
        let mut fragments = 0;
        let mut notes = Notes::new();
        for item in std::fs::read_dir(dir.path().join("b/.kbbackup/fragments/a/1")).unwrap() {
            let bytes = std::fs::read(item.unwrap().path()).unwrap();
            Lines::new("x").feed(&bytes, |entry| notes.add(&entry, Voice::Counts)).unwrap();
            fragments += 1;
        }
        assert!(fragments < 150, "{fragments}");
        assert_eq!(notes.finish().unwrap().sum().unwrap().objects, 300);
    }
}
