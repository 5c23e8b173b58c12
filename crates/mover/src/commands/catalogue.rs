//! `catalogue`: which backups lie in a repository, by what they left there themselves.
//!
//! A backup is known by the copy of its object, by its seal, or by both; a continuous one by the copies that its archivers keep
//! up to date. The listing is read once, and of it only the places of these are kept; nothing of a backup's data is read.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Cursor, Read};

use kbbackup_core::catalogue::{Found, Line, SealFound, shorten, together};
use kbbackup_core::layout::{self, BACKUP_OBJECT, ENCRYPTED_SUFFIX, HIDDEN};
use serde_json::Value;

use super::{Context, print};
use crate::args::{Flag, Takes, flag};
use crate::error::{Cause, Error, Result};
use crate::repo::Repo;
use crate::rpath::{absolute_key, split};
use crate::storage::{Depth, Entry};
use crate::trust::Sealed;

pub(super) const FLAGS: &[Flag] = &[flag("brief", None, Takes::Nothing, "only what a list shows of each backup")];

/// No object of a Backup is larger: it came from etcd.
const LIMIT: u64 = 4 << 20;

pub(super) async fn run(context: Context) -> Result<()> {
    let under = match context.args.positional.as_slice() {
        [] => "",
        [under] => under.as_str(),
        more => return Err(Error::other(format!("accepts at most 1 arg(s), received {}", more.len()))),
    };
    let repo = context.repo()?;
    let mut places = Places::default();
    let mut note = |entries: Vec<Entry>| {
        entries.iter().filter(|entry| !entry.dir).for_each(|entry| places.note(entry));
        Ok(())
    };
    match repo.store.walk(&absolute_key(under), Depth::All, &mut note).await {
        // Nothing was ever stored there.
        Err(error) if error.is(Cause::NotFound) => {}
        other => other?,
    }
    let mut backups = 0;
    for (dir, object) in places.backups() {
        let found = tell(&repo, &dir, object.as_deref(), context.args.is_set("brief"), &places).await?;
        tell_line(&Line::Found(Box::new(found)))?;
        backups += 1;
    }
    tell_line(&Line::End { backups })
}

fn tell_line(line: &Line) -> Result<()> {
    let text = serde_json::to_string(line).map_err(|error| Error::other(format!("the catalogue: {error}")))?;
    print(&(text + "\n"))
}

/// What marks a backup, by key.
#[derive(Default)]
struct Places {
    /// Copies of Backup objects.
    objects: Vec<String>,
    /// Directories that hold a seal.
    sealed: BTreeSet<String>,
    /// Directories that hold files of ours.
    ours: BTreeSet<String>,
    /// What archivers keep: the newest copy of each, by its directory.
    archivers: BTreeMap<String, Entry>,
}

impl Places {
    fn note(&mut self, entry: &Entry) {
        let key = entry.key.as_str();
        if let Some((dir, rest)) = key.split_once(&format!("/{HIDDEN}/")) {
            if rest == "seal.json" {
                self.sealed.insert(dir.to_owned());
            } else if layout::is_archiver_object(rest) {
                // Encryption may have been switched on or off meanwhile: then there are two.
                let known = self.archivers.entry(split(key).0.to_owned()).or_insert_with(|| entry.clone());
                if known.modified < entry.modified {
                    *known = entry.clone();
                }
            }
            self.ours.insert(dir.to_owned());
        } else if split(key).1.trim_end_matches(ENCRYPTED_SUFFIX) == BACKUP_OBJECT {
            self.objects.push(key.to_owned());
        }
    }

    /// Directory of each backup, with its object: the first, when every target has a copy.
    fn backups(&self) -> BTreeMap<String, Option<String>> {
        let mut backups: BTreeMap<String, Option<String>> = self.ours.iter().map(|dir| (dir.clone(), None)).collect();
        for key in &self.objects {
            let dir = self.home(key);
            let object = backups.entry(dir).or_default();
            if object.as_ref().is_none_or(|known| known > key) {
                *object = Some(key.clone());
            }
        }
        backups
    }

    /// The copies that the archivers of a backup keep.
    fn kept(&self, dir: &str) -> Vec<&str> {
        let hidden = format!("{dir}/{HIDDEN}/");
        let its = self.archivers.range(hidden.clone()..).take_while(|(place, _)| place.starts_with(&hidden));
        its.map(|(_, entry)| entry.key.as_str()).collect()
    }

    /// The backup that a copy belongs to: the nearest directory above that is one of ours, else the copy's own.
    fn home(&self, key: &str) -> String {
        let own = split(key).0;
        let mut dir = own;
        while !dir.is_empty() {
            if self.ours.contains(dir) {
                return dir.to_owned();
            }
            dir = split(dir).0;
        }
        own.to_owned()
    }
}

async fn tell(repo: &Repo, dir: &str, object: Option<&str>, brief: bool, places: &Places) -> Result<Found> {
    let path = format!("/{dir}");
    let mut found = Found { path: path.clone(), ..Found::default() };
    found.unfinished = places.ours.contains(dir) && !places.sealed.contains(dir);
    if places.sealed.contains(dir) {
        match Sealed::open(&repo.store, &path).await {
            Ok(sealed) => found.seal = sealed.map(seal_found),
            Err(error) => found.trouble = Some(error.to_string()),
        }
    }
    let document = match (object, places.kept(dir)) {
        (Some(key), _) => read(repo, key).await?,
        (None, kept) if kept.is_empty() => return Ok(found),
        (None, kept) => {
            let document = read_all(repo, &kept).await?;
            // It never gets a seal: it may go on.
            found.unfinished &= !matches!(document, Document::Read(_));
            document
        }
    };
    match document {
        Document::Read(value) => {
            // The copy of a backup that several targets share lies deeper than the backup.
            if let Some(path) = value.pointer("/status/path").and_then(Value::as_str).filter(|path| above(path, dir)) {
                path.clone_into(&mut found.path);
            }
            found.object = Some(if brief { shorten(&value) } else { value });
            if !brief && let Document::Read(workload) = workload(repo, &path).await? {
                found.workload = Some(workload);
            }
        }
        Document::Locked => found.locked = true,
        Document::Wrong(why) => found.trouble = Some(why),
    }
    Ok(found)
}

/// Whether the directory `dir` is `path` or lies below it.
fn above(path: &str, dir: &str) -> bool {
    let key = absolute_key(path);
    !key.is_empty() && (dir == key || dir.starts_with(&format!("{key}/")))
}

fn seal_found(sealed: Sealed) -> SealFound {
    SealFound {
        digest: sealed.digest,
        objects: sealed.seal.objects,
        bytes: sealed.seal.bytes,
        sealed_at: sealed.seal.sealed_at,
    }
}

/// What all archivers of a backup say; the first that cannot be read counts for all.
async fn read_all(repo: &Repo, keys: &[&str]) -> Result<Document> {
    let mut copies = Vec::with_capacity(keys.len());
    for key in keys {
        match read(repo, key).await? {
            Document::Read(value) => copies.push(value),
            other => return Ok(other),
        }
    }
    Ok(together(&copies).map_or_else(|| Document::Wrong("nothing is there".to_owned()), Document::Read))
}

/// A small JSON file of a backup.
pub(super) enum Document {
    Read(Value),
    /// Encrypted, and not by our key.
    Locked,
    Wrong(String),
}

async fn workload(repo: &Repo, backup: &str) -> Result<Document> {
    let key = absolute_key(&layout::workload(backup));
    match read(repo, &key).await? {
        Document::Wrong(_) => read(repo, &format!("{key}{ENCRYPTED_SUFFIX}")).await,
        other => Ok(other),
    }
}

/// # Errors
/// When the store does not answer.
pub(super) async fn read(repo: &Repo, key: &str) -> Result<Document> {
    let bytes = match repo.store.get(key, LIMIT).await {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Ok(Document::Wrong(format!("/{key} is gone"))),
        // Too large, for one: no reason to keep silent about the others.
        Err(error) if error.is(Cause::Other) => return Ok(Document::Wrong(error.to_string())),
        Err(error) => return Err(error),
    };
    let mut text = Vec::new();
    match (&repo.encryption, key.ends_with(ENCRYPTED_SUFFIX)) {
        (_, false) => text.extend_from_slice(&bytes),
        (None, true) => return Ok(Document::Locked),
        (Some(encryption), true) => {
            let opened =
                encryption.decrypt(Box::new(Cursor::new(bytes))).and_then(|mut plain| plain.read_to_end(&mut text));
            if opened.is_err() {
                return Ok(Document::Locked);
            }
        }
    }
    // The contract's modes do not notice a wrong key: what comes out is no JSON.
    Ok(match serde_json::from_slice(&text) {
        Ok(value) => Document::Read(value),
        Err(_) if key.ends_with(ENCRYPTED_SUFFIX) => Document::Locked,
        Err(error) => Document::Wrong(format!("/{key} is not JSON: {error}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(keys: &[&str]) -> Places {
        let mut places = Places::default();
        for key in keys {
            let modified = jiff::Timestamp::UNIX_EPOCH;
            places.note(&Entry { key: (*key).to_owned(), dir: false, size: 1, modified, etag: None });
        }
        places
    }

    #[test]
    fn copies_of_several_targets_are_one_backup() {
        let places = places(&[
            "demo/pg/b1/.kbbackup/seal.json",
            "demo/pg/b1/shard-b/kubeblocks-backup.json",
            "demo/pg/b1/shard-a/kubeblocks-backup.json",
            "demo/pg/b1/shard-a/base.tar",
        ]);
        let found: Vec<_> = places.backups().into_iter().collect();
        assert_eq!(found, [("demo/pg/b1".to_owned(), Some("demo/pg/b1/shard-a/kubeblocks-backup.json".to_owned()))]);
    }

    #[test]
    fn others_backups_and_unfinished_ones_are_found() {
        let places = places(&[
            "demo/pg/theirs/kubeblocks-backup.json.enc",
            "demo/pg/half/.kbbackup/fragments/a/1",
            "demo/pg/half/base.tar",
        ]);
        let backups = places.backups();
        assert_eq!(backups.keys().collect::<Vec<_>>(), ["demo/pg/half", "demo/pg/theirs"]);
        assert!(places.ours.contains("demo/pg/half") && !places.sealed.contains("demo/pg/half"));
    }

    #[test]
    fn archivers_copies_belong_to_their_backup_and_the_newest_counts() {
        let mut places = places(&[
            "demo/pg/log/.kbbackup/archivers/dp-backup-0/kubeblocks-backup.json",
            "demo/pg/log/.kbbackup/archivers/dp-backup-1/kubeblocks-backup.json.enc",
            "demo/pg/log/.kbbackup/fragments/kubeblocks-backup.json",
            "demo/pg/log2/.kbbackup/archivers/dp-backup-0/kubeblocks-backup.json",
        ]);
        let first = "demo/pg/log/.kbbackup/archivers/dp-backup-0/kubeblocks-backup.json";
        let second = "demo/pg/log/.kbbackup/archivers/dp-backup-1/kubeblocks-backup.json";
        assert_eq!(places.kept("demo/pg/log"), [first, &format!("{second}.enc")]);
        assert_eq!(places.kept("demo/pg"), [""; 0]);
        let modified = jiff::Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(1);
        places.note(&Entry { key: second.to_owned(), dir: false, size: 1, modified, etag: None });
        assert_eq!(places.kept("demo/pg/log"), [first, second]);
    }

    #[test]
    fn a_path_is_believed_only_where_the_copy_lies_below_it() {
        assert!(above("/demo/pg/b1", "demo/pg/b1/shard"));
        assert!(above("/demo/pg/b1", "demo/pg/b1"));
        assert!(!above("/demo/pg/b", "demo/pg/b1"));
        assert!(!above("/", "demo/pg/b1"));
    }
}
