//! `seal`: the last act of a backup. Merges the notes of the attempts that count, compares them with what lies in the
//! repository, and closes the backup with an object that is written once.
//!
//! Order of writes: backup object, workload, manifest, seal. A death before the last leaves an unsealed backup, and the
//! next try does everything again.

mod merge;

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
use crate::notes::{Lines, Notes, Voice};
use crate::repo::Repo;
use crate::rpath::{absolute_key, below, join};
use crate::signal::Stop;
use crate::storage::Entry;
use crate::stream::{self, Input, Transform};
use crate::termination;
use crate::trust::Sealed;

pub(super) const FLAGS: &[Flag] = &[
    flag("attempt", None, Takes::Text, "ACTION=POD_UID whose objects count (repeatable)"),
    flag("data-path", None, Takes::Text, "where to store kubeblocks-backup.json (repeatable)"),
    flag("backup-object", None, Takes::Text, "the Backup object as JSON"),
    flag("workload", None, Takes::Text, "the manifest of the workload as JSON"),
    termination::FLAG,
];

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
        let mut notes = self.notes(context).await?;
        let object = self.store_documents(context, &mut notes).await?;
        self.repo.store.sweep(&self.key).await?;
        let manifest = self.write_manifest(notes).await?;
        let stored = manifest.stored;
        let seal = Seal {
            version: 1,
            backup_uid: self.uid.clone(),
            manifest: manifest.digest,
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

    /// The notes of the attempts that count, in the order in which they are told, and those of the others.
    async fn notes(&self, context: &Context) -> Result<Notes> {
        let mut notes = Notes::new();
        let mut counted = Vec::new();
        for attempt in context.args.all("attempt") {
            let (action, uid) = attempt
                .split_once('=')
                .ok_or_else(|| Error::other(format!("--attempt {attempt:?} is not ACTION=POD_UID")))?;
            let dir = absolute_key(&layout::fragments(&self.backup, action, uid));
            for fragment in self.files(&dir).await? {
                self.read_fragment(&fragment, &mut notes, Voice::Counts).await?;
            }
            counted.push(dir + "/");
        }
        for fragment in self.files(&join(&absolute_key(&layout::hidden(&self.backup)), "fragments")).await? {
            if !counted.iter().any(|dir| fragment.key.starts_with(dir)) {
                self.read_fragment(&fragment, &mut notes, Voice::Other).await?;
            }
        }
        Ok(notes)
    }

    async fn read_fragment(&self, fragment: &Entry, into: &mut Notes, voice: Voice) -> Result<()> {
        let mut lines = Lines::new(&*fragment.key);
        let mut source = self.repo.store.read(fragment).await?;
        while let Some(bytes) = source.next().await? {
            lines.feed(&bytes, |entry| into.add(&entry, voice))?;
        }
        Ok(())
    }

    /// The fragments below a directory, by key: their names sort by time.
    async fn files(&self, dir: &str) -> Result<Vec<Entry>> {
        let mut files = Vec::new();
        let mut keep = |entry: Entry| {
            files.push(entry);
            Ok(())
        };
        self.repo.store.objects(dir, &mut keep).await?;
        // What is being written has a temporary name.
        files.retain(|file| Path::new(&file.key).extension().is_some_and(|extension| extension == "jsonl"));
        files.sort_unstable_by(|left, right| left.key.cmp(&right.key));
        Ok(files)
    }

    /// Stores the Backup object at each data path, and the workload's manifest. Returns the Backup object.
    async fn store_documents(&self, context: &Context, notes: &mut Notes) -> Result<Option<Value>> {
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
                self.store_document(&key, bytes.clone(), notes).await?;
            }
        }
        let path = args.text("workload").unwrap_or(contract::WORKLOAD_FILE);
        if Path::new(path).exists() {
            let bytes = std::fs::read(path).map_err(|error| Error::file("open", Path::new(path), &error))?;
            self.store_document(&absolute_key(&layout::workload(&self.backup)), bytes, notes).await?;
        }
        Ok(object)
    }

    async fn store_document(&self, key: &str, bytes: Vec<u8>, notes: &mut Notes) -> Result<()> {
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
        notes.add(&entry, Voice::Counts)
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
