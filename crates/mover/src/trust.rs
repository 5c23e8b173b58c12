//! Reading under a seal: an object is what its sealed manifest says, or the pull fails.

use std::collections::VecDeque;

use kbbackup_core::contract::{self, ManifestEntry, Seal};
use kbbackup_core::layout;

use crate::config::env;
use crate::error::{Cause, Error, Result};
use crate::notes::Lines;
use crate::rpath::{absolute_key, below, split};
use crate::storage::{Found, Source, Store, is_hidden};
use crate::stream::Written;

/// No seal is larger: extras are what fits into a Kubernetes object.
const SEAL_LIMIT: u64 = 4 << 20;

/// A sealed backup.
pub(crate) struct Sealed {
    /// Absolute path.
    pub(crate) backup: String,
    pub(crate) seal: Seal,
    /// BLAKE3 of the seal as stored.
    pub(crate) digest: String,
}

impl Sealed {
    /// Reads the seal of a backup; `None` when it has none.
    ///
    /// # Errors
    /// [`Cause::Damaged`] when it is not a seal of a version that is known.
    pub(crate) async fn open(store: &Store, backup: &str) -> Result<Option<Self>> {
        let key = absolute_key(&layout::seal(backup));
        let Some(bytes) = store.get(&key, SEAL_LIMIT).await? else { return Ok(None) };
        let seal: Seal = serde_json::from_slice(&bytes)
            .map_err(|error| Error::new(Cause::Damaged, format!("the seal of {backup} is damaged: {error}")))?;
        if seal.version != 1 {
            return Err(Error::other(format!(
                "the seal of {backup} has version {}, this mover knows version 1: use a newer mover",
                seal.version
            )));
        }
        Ok(Some(Self { backup: backup.to_owned(), seal, digest: blake3::hash(&bytes).to_hex().to_string() }))
    }

    /// Opens the manifest for reading.
    ///
    /// # Errors
    /// [`Cause::Damaged`] when it is missing.
    pub(crate) async fn manifest(&self, store: &Store) -> Result<Manifest<'_>> {
        let key = absolute_key(&layout::manifest(&self.backup));
        let Found::File(entry) = store.lookup(&key).await? else {
            return Err(Error::new(Cause::Damaged, format!("the manifest of {} is missing", self.backup)));
        };
        Ok(Manifest {
            sealed: self,
            source: store.read(&entry).await?,
            hasher: blake3::Hasher::new(),
            lines: Lines::new(key),
            waiting: VecDeque::new(),
            last: None,
            seen: contract::Stored::default(),
        })
    }

    /// Reads the whole manifest and checks it against the seal.
    ///
    /// # Errors
    /// [`Cause::Damaged`] when it is missing, damaged or not the one that was sealed.
    pub(crate) async fn check_manifest(&self, store: &Store) -> Result<()> {
        let mut manifest = self.manifest(store).await?;
        while manifest.next().await?.is_some() {}
        Ok(())
    }

    /// The entry of one object.
    async fn find(&self, store: &Store, path: &str) -> Result<Option<ManifestEntry>> {
        let mut manifest = self.manifest(store).await?;
        let mut found = None;
        while let Some(entry) = manifest.next().await? {
            if entry.path == path {
                found = Some(entry);
            }
        }
        Ok(found)
    }
}

/// A manifest that is being read, entry by entry. Only its end says whether it is the one that was sealed.
pub(crate) struct Manifest<'a> {
    sealed: &'a Sealed,
    source: Source,
    hasher: blake3::Hasher,
    lines: Lines,
    waiting: VecDeque<ManifestEntry>,
    last: Option<String>,
    seen: contract::Stored,
}

impl Manifest<'_> {
    /// The next entry, in the order of the paths.
    ///
    /// # Errors
    /// [`Cause::Damaged`] when it is damaged or, at the end, not the one that was sealed.
    pub(crate) async fn next(&mut self) -> Result<Option<ManifestEntry>> {
        let damaged = |why: &str| Error::new(Cause::Damaged, format!("the manifest of {} {why}", self.sealed.backup));
        loop {
            if let Some(entry) = self.waiting.pop_front() {
                if self.last.as_ref().is_some_and(|last| *last >= entry.path) {
                    return Err(damaged("is damaged: its paths are not in order"));
                }
                self.last = Some(entry.path.clone());
                self.seen.objects += 1;
                self.seen.bytes = self.seen.bytes.saturating_add(entry.size);
                return Ok(Some(entry));
            }
            let Some(bytes) = self.source.next().await? else { break };
            self.hasher.update(&bytes);
            let waiting = &mut self.waiting;
            let fed = self.lines.feed(&bytes, |entry| {
                waiting.push_back(entry);
                Ok(())
            });
            fed.map_err(|error| damaged(&format!("is damaged: {error}")))?;
        }
        let seal = &self.sealed.seal;
        if self.hasher.finalize().to_hex().as_str() != seal.manifest {
            return Err(damaged("is not the one that was sealed"));
        }
        if self.lines.is_cut() || (self.seen.objects, self.seen.bytes) != (seal.objects, seal.bytes) {
            return Err(damaged("and its seal disagree about number and size of the objects"));
        }
        Ok(None)
    }
}

/// What a pulled object must be.
#[derive(Debug)]
pub(crate) struct Expected(ManifestEntry);

impl Expected {
    /// # Errors
    /// [`Cause::Damaged`] when the bytes that were read are others.
    pub(crate) fn check(&self, read: &Written) -> Result<()> {
        if read.size == self.0.size && read.blake3 == self.0.blake3 {
            return Ok(());
        }
        Err(Error::new(
            Cause::Damaged,
            format!(
                "the stored object is damaged: {} bytes with digest {}, but {} bytes with digest {} were sealed",
                read.size, read.blake3, self.0.size, self.0.blake3
            ),
        ))
    }
}

/// Which backups a process must be able to trust.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    /// Absolute path and digest of the seal.
    seals: Vec<(String, String)>,
}

impl Trust {
    /// # Errors
    /// When the list of seals cannot be read.
    pub(crate) fn from_environment() -> Result<Self> {
        let Some(seals) = env(contract::ENV_SEALS) else { return Ok(Self::default()) };
        let root = env(contract::ENV_BACKUP_ROOT_PATH).unwrap_or_default();
        Self::parse(&seals, &root)
    }

    fn parse(seals: &str, root: &str) -> Result<Self> {
        let seals = seals
            .split(',')
            .map(str::trim)
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (name, digest) = pair
                    .split_once('=')
                    .ok_or_else(|| Error::other(format!("{}: {pair:?} is not name=digest", contract::ENV_SEALS)))?;
                Ok((layout::backup_path(root, name), digest.to_owned()))
            })
            .collect::<Result<_>>()?;
        Ok(Self { seals })
    }

    /// What the object under `key` must be; `None` when nothing says so.
    ///
    /// # Errors
    /// [`Cause::Damaged`] when the object lies in a trusted backup but is not part of what was sealed, or when seal and
    /// manifest are not the ones that were sealed.
    pub(crate) async fn expected(&self, store: &Store, key: &str) -> Result<Option<Expected>> {
        for (backup, digest) in &self.seals {
            let Some(path) = below(key, &absolute_key(backup)) else { continue };
            let sealed = Sealed::open(store, backup)
                .await?
                .ok_or_else(|| Error::new(Cause::Damaged, format!("the backup {backup} has no seal")))?;
            if sealed.digest != *digest {
                return Err(Error::new(
                    Cause::Damaged,
                    format!("the seal of {backup} has digest {}, expected {digest}", sealed.digest),
                ));
            }
            let entry = sealed.find(store, path).await?.ok_or_else(|| {
                Error::new(Cause::Damaged, format!("{path} is not part of the sealed backup {backup}"))
            })?;
            return Ok(Some(Expected(entry)));
        }
        if self.seals.is_empty() && store.has_directories() && !is_hidden(key) {
            return nearest(store, key).await;
        }
        Ok(None)
    }
}

/// Without a list of seals: looks for one above the object where looking is cheap. What no manifest knows is not judged.
async fn nearest(store: &Store, key: &str) -> Result<Option<Expected>> {
    let mut dir = split(key).0;
    while !dir.is_empty() {
        let backup = format!("/{dir}");
        if let Some(path) = below(key, dir)
            && let Some(sealed) = Sealed::open(store, &backup).await?
        {
            return Ok(sealed.find(store, path).await?.map(Expected));
        }
        dir = split(dir).0;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seals_are_read_from_the_environment() {
        let trust = Trust::parse("b1=aa, b2=bb,", "/prod/demo").unwrap();
        assert_eq!(
            trust.seals,
            [("/prod/demo/b1".to_owned(), "aa".to_owned()), ("/prod/demo/b2".to_owned(), "bb".to_owned())]
        );
        assert!(Trust::parse("b1", "").is_err());
    }
}
