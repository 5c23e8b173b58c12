//! `seal`: the last act of a backup. Merges the notes of the attempts that count, compares them with what lies in the
//! repository, and closes the backup with an object that is written once.
//!
//! Order of writes: backup object, workload, manifest, seal. A death before the last leaves an unsealed backup, and the
//! next try does everything again.

use std::collections::BTreeSet;
use std::io::Cursor;
use std::path::Path;

use bytes::Bytes;
use kbbackup_core::contract::{self, ManifestEntry, Report, Seal};
use kbbackup_core::layout;
use serde_json::{Map, Value};

use super::Context;
use crate::args::{Flag, Takes, flag};
use crate::config::env;
use crate::error::{Cause, Error, Result};
use crate::manifest::{Merged, lines};
use crate::repo::Repo;
use crate::rpath::{absolute_key, below, join};
use crate::signal::Stop;
use crate::storage::{Depth, Entry, is_hidden};
use crate::stream::{self, Input, Output, Transform};
use crate::termination;
use crate::trust::Sealed;

pub(super) const FLAGS: &[Flag] = &[
    flag("attempt", None, Takes::Text, "ACTION=POD_UID whose objects count (repeatable)"),
    flag("data-path", None, Takes::Text, "where to store kubeblocks-backup.json (repeatable)"),
    flag("backup-object", None, Takes::Text, "the Backup object as JSON"),
    flag("workload", None, Takes::Text, "the manifest of the workload as JSON"),
    termination::FLAG,
];
/// No fragment is larger: a pod's journal of a million objects has about 200 MB.
const FRAGMENT_LIMIT: u64 = 512 << 20;

pub(super) async fn run(context: Context) -> Result<()> {
    context.args.exactly::<0>()?;
    let (report, outcome) = match seal(&context).await {
        Ok(report) => (report, Ok(())),
        Err(error) => (termination::failed(termination::report(), &error), Err(error)),
    };
    termination::write(&context.args, &report)?;
    outcome
}

async fn seal(context: &Context) -> Result<Report> {
    let mut stop = Stop::listen()?;
    let needed = |name: &str| env(name).ok_or_else(|| Error::other(format!("{name} is not set")));
    let backup = needed(contract::ENV_BACKUP_PATH)?;
    let uid = needed(contract::ENV_BACKUP_UID)?;
    let repo = context.repo()?;
    let task = Task { repo: &repo, key: absolute_key(&backup), backup, uid };
    tokio::select! {
        error = stop.asked() => Err(error),
        report = task.run(context) => report,
    }
}

struct Task<'a> {
    repo: &'a Repo,
    /// The backup's absolute path.
    backup: String,
    /// The same as a key.
    key: String,
    uid: String,
}

impl Task<'_> {
    async fn run(&self, context: &Context) -> Result<Report> {
        if let Some(sealed) = Sealed::open(&self.repo.store, &self.backup).await? {
            return self.already(&sealed);
        }
        let (mut merged, others) = self.notes(context).await?;
        let object = self.store_documents(context, &mut merged).await?;
        self.reconcile(&mut merged, &others).await?;
        self.repo.store.sweep(&self.key).await?;

        let manifest = lines(merged.entries.values())?;
        let digest = blake3::hash(&manifest).to_hex().to_string();
        self.repo.store.put(&absolute_key(&layout::manifest(&self.backup)), Bytes::from(manifest)).await?;
        let stored = merged.stored();
        let seal = Seal {
            version: 1,
            backup_uid: self.uid.clone(),
            manifest: digest,
            objects: stored.objects,
            bytes: stored.bytes,
            sealed_at: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            mover: env!("CARGO_PKG_VERSION").to_owned(),
            extras: extras(object.as_ref()),
        };
        let text = serde_json::to_vec(&seal).map_err(|error| Error::other(format!("seal: {error}")))?;
        let digest = blake3::hash(&text).to_hex().to_string();
        if !self.repo.store.put_new(&absolute_key(&layout::seal(&self.backup)), Bytes::from(text)).await? {
            let sealed = Sealed::open(&self.repo.store, &self.backup)
                .await?
                .ok_or_else(|| Error::other("the seal appeared and vanished while it was written"))?;
            return self.already(&sealed);
        }
        Ok(Report { seal: Some(digest), stored: Some(stored), ..termination::report() })
    }

    /// A seal that stands: ours is a success, because a retried action finds it.
    fn already(&self, sealed: &Sealed) -> Result<Report> {
        if sealed.seal.backup_uid != self.uid {
            return Err(Error::new(
                Cause::Sealed,
                format!("{} is sealed for another Backup, with UID {}", self.backup, sealed.seal.backup_uid),
            ));
        }
        let stored = contract::Stored { objects: sealed.seal.objects, bytes: sealed.seal.bytes };
        Ok(Report { seal: Some(sealed.digest.clone()), stored: Some(stored), ..termination::report() })
    }

    /// The notes of the attempts that count, and the paths that only other attempts speak of.
    async fn notes(&self, context: &Context) -> Result<(Merged, BTreeSet<String>)> {
        let mut merged = Merged::default();
        let mut counted = Vec::new();
        for attempt in context.args.all("attempt") {
            let (action, uid) = attempt
                .split_once('=')
                .ok_or_else(|| Error::other(format!("--attempt {attempt:?} is not ACTION=POD_UID")))?;
            let dir = absolute_key(&layout::fragments(&self.backup, action, uid));
            for fragment in self.files(&dir).await? {
                self.read_fragment(&fragment, &mut merged).await?;
            }
            counted.push(dir + "/");
        }
        let mut others = Merged::default();
        for fragment in self.files(&join(&absolute_key(&layout::hidden(&self.backup)), "fragments")).await? {
            if !counted.iter().any(|dir| fragment.key.starts_with(dir)) {
                self.read_fragment(&fragment, &mut others).await?;
            }
        }
        let others = others.entries.into_keys().filter(|path| !merged.entries.contains_key(path)).collect();
        Ok((merged, others))
    }

    async fn read_fragment(&self, fragment: &Entry, into: &mut Merged) -> Result<()> {
        let bytes = self.repo.store.get(&fragment.key, FRAGMENT_LIMIT).await?.unwrap_or_default();
        into.add(&fragment.key, &bytes)
    }

    /// The objects below a directory, by key; none when it does not exist.
    async fn files(&self, dir: &str) -> Result<Vec<Entry>> {
        let mut files = Vec::new();
        let walked = self
            .repo
            .store
            .walk(dir, Depth::All, &mut |entries| {
                files.extend(entries.into_iter().filter(|entry| !entry.dir));
                Ok(())
            })
            .await;
        match walked {
            Err(error) if error.is(Cause::NotFound) => {}
            other => other?,
        }
        files.sort_unstable_by(|left, right| left.key.cmp(&right.key));
        Ok(files)
    }

    /// Stores the Backup object at each data path, and the workload's manifest. Returns the Backup object.
    async fn store_documents(&self, context: &Context, merged: &mut Merged) -> Result<Option<Value>> {
        let args = &context.args;
        let mut object = None;
        let path = args.text("backup-object").unwrap_or(contract::BACKUP_OBJECT_FILE);
        let data_paths: Vec<&str> = args.all("data-path").collect();
        if !data_paths.is_empty() || Path::new(path).exists() {
            let bytes = std::fs::read(path).map_err(|error| Error::file("open", Path::new(path), &error))?;
            let value: Value =
                serde_json::from_slice(&bytes).map_err(|error| Error::other(format!("{path} is not JSON: {error}")))?;
            object = Some(value);
            for data_path in data_paths {
                let key = join(&absolute_key(data_path), layout::BACKUP_OBJECT);
                self.store_document(&key, bytes.clone(), merged).await?;
            }
        }
        let path = args.text("workload").unwrap_or(contract::WORKLOAD_FILE);
        if Path::new(path).exists() {
            let bytes = std::fs::read(path).map_err(|error| Error::file("open", Path::new(path), &error))?;
            self.store_document(&absolute_key(&layout::workload(&self.backup)), bytes, merged).await?;
        }
        Ok(object)
    }

    async fn store_document(&self, key: &str, bytes: Vec<u8>, merged: &mut Merged) -> Result<()> {
        let key = self.repo.stored_key(key);
        let path = below(&key, &self.key)
            .ok_or_else(|| Error::other(format!("--data-path: /{key} does not lie below {}", self.backup)))?;
        let sink = self.repo.store.create(&key)?;
        let transform = Transform { compression: None, encryption: self.repo.encryption.clone() };
        let written = stream::push(
            Input { name: path.to_owned(), reader: Box::new(Cursor::new(bytes)) },
            transform,
            sink,
            &mut Stop::listen()?,
            None,
        )
        .await?;
        let entry = ManifestEntry { path: path.to_owned(), size: written.size, blake3: written.blake3, removed: false };
        merged.entries.insert(entry.path.clone(), entry);
        Ok(())
    }

    /// Compares the notes with what lies in the repository. Objects of attempts that failed are removed; objects that
    /// nobody noted (other tools wrote them) are read and taken in; anything else is an error.
    async fn reconcile(&self, merged: &mut Merged, others: &BTreeSet<String>) -> Result<()> {
        let mut missing: BTreeSet<String> = merged.entries.keys().cloned().collect();
        let mut unknown = Vec::new();
        for file in self.files(&self.key).await? {
            let Some(path) = below(&file.key, &self.key) else { continue };
            match merged.entries.get(path) {
                Some(entry) if entry.size == file.size as u64 => drop(missing.remove(path)),
                Some(entry) => {
                    return Err(Error::new(
                        Cause::Damaged,
                        format!("{path} has {} bytes in the repository, {} were written", file.size, entry.size),
                    ));
                }
                None if is_hidden(path) => {}
                None if others.contains(path) => self.repo.store.remove(&file.key).await?,
                None => unknown.push((path.to_owned(), file.clone())),
            }
        }
        if let Some(path) = missing.first() {
            return Err(Error::new(
                Cause::Damaged,
                format!("{} object(s) were written but are not in the repository, first {path}", missing.len()),
            ));
        }
        for (path, file) in unknown {
            let source = self.repo.store.read(&file).await?;
            let read = stream::pull(source, Transform::default(), Output::Nothing).await?;
            merged
                .entries
                .insert(path.clone(), ManifestEntry { path, size: read.size, blake3: read.blake3, removed: false });
        }
        Ok(())
    }
}

/// `status.extras` of a Backup object.
fn extras(object: Option<&Value>) -> Vec<Map<String, Value>> {
    object
        .and_then(|object| object.pointer("/status/extras"))
        .and_then(Value::as_array)
        .map(|extras| extras.iter().filter_map(|extra| extra.as_object().cloned()).collect())
        .unwrap_or_default()
}
