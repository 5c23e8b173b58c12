//! Servers that show a tree of files: FTP, SFTP, `WebDAV`. What a protocol can do is [`Files`]; what the contract asks of a
//! repository is built from that here, once for all of them.

mod claim;
#[cfg(test)]
mod tests;
mod transfer;
mod words;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};

pub(crate) use transfer::{TreeReader, TreeWriter};
pub(super) use words::said;

use super::{Depth, Each, Entry, Found, TEMPORARY, Visit, is_hidden, no_directory};
use crate::error::{Cause, Error, Result};
use crate::output;
use crate::rpath::{join, split};

/// An unfinished file that nobody wrote to for so long has lost its writer: every server ends a transfer that rests for
/// hours. Longer than any time zone, because old servers tell times without one.
const ABANDONED: SignedDuration = SignedDuration::from_hours(26);

/// A file or a directory as a server tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) name: String,
    pub(super) dir: bool,
    pub(super) size: u64,
    pub(super) modified: Timestamp,
}

/// A protocol. Paths are the server's own; the empty one is where a login starts. Requests that may be repeated are, a few
/// times: [`Cause::Unreachable`] is the end of that.
#[async_trait]
pub(super) trait Files: Send + Sync {
    /// How many requests may be under way at once.
    fn parallel(&self) -> usize;

    /// Whether `rm` of a directory and `rmdir` of a full one are silent successes, as the contract has it for FTP.
    fn lenient(&self) -> bool {
        false
    }

    /// Whether the size of what was uploaded is compared with what was sent.
    fn checks_uploads(&self) -> bool {
        true
    }

    /// What lies at a path, if anything.
    async fn stat(&self, path: &str) -> Result<Option<Item>>;

    /// The entries of a directory, without `.` and `..`; `None` when there is no such directory.
    async fn list(&self, path: &str) -> Result<Option<Vec<Item>>>;

    /// Opens a file for reading from an offset.
    async fn read(&self, path: &str, offset: u64) -> Result<Box<dyn Reading>>;

    /// Opens a new file for writing; its directory exists.
    async fn write(&self, path: &str) -> Result<Box<dyn Writing>>;

    /// Renames a file over whatever file has the name.
    async fn rename(&self, from: &str, to: &str) -> Result<()>;

    /// Renames a file unless the name is taken, in one step. `None` when the server cannot promise that.
    async fn rename_new(&self, _from: &str, _to: &str) -> Result<Option<bool>> {
        Ok(None)
    }

    /// Removes a file; a missing one is [`Cause::NotFound`].
    async fn remove(&self, path: &str) -> Result<()>;

    /// Makes one directory. False when the name is taken.
    async fn mkdir(&self, path: &str) -> Result<bool>;

    /// Removes an empty directory; [`Cause::NotEmpty`], [`Cause::NotFound`].
    async fn rmdir(&self, path: &str) -> Result<()>;

    /// Removes a directory with everything in it by one request. False when the protocol has none.
    async fn remove_tree(&self, _path: &str) -> Result<bool> {
        Ok(false)
    }
}

/// A file on its way here.
#[async_trait]
pub(super) trait Reading: Send {
    async fn next(&mut self) -> Result<Option<Bytes>>;
}

/// A file on its way to the server.
#[async_trait]
pub(super) trait Writing: Send {
    async fn write(&mut self, bytes: Bytes) -> Result<()>;

    /// Returns when the server says that it has everything.
    async fn close(self: Box<Self>) -> Result<()>;

    /// Ends the transfer and removes the file, as far as the connection still allows it.
    async fn abort(self: Box<Self>);
}

/// A tree of files as a repository.
#[derive(Clone)]
pub(crate) struct Tree {
    files: Arc<dyn Files>,
    root: String,
}

impl Tree {
    pub(super) fn new(files: impl Files + 'static, root: &str) -> Self {
        let absolute = root.starts_with('/');
        let trimmed = root.trim_matches('/');
        let root = if absolute { format!("/{trimmed}") } else { trimmed.to_owned() };
        Self { files: Arc::new(files), root }
    }

    fn path(&self, key: &str) -> String {
        match (self.root.as_str(), key) {
            ("/", _) => format!("/{key}"),
            (root, key) => join(root, key),
        }
    }

    pub(super) async fn lookup(&self, key: &str) -> Result<Found> {
        match self.files.stat(&self.path(key)).await {
            Ok(Some(item)) if item.dir => Ok(Found::Dir),
            Ok(Some(item)) => Ok(Found::File(entry(key.to_owned(), &item))),
            Ok(None) => Ok(Found::Missing),
            // A file where a directory should be.
            Err(error) if error.is(Cause::NotDirectory) => Ok(Found::Missing),
            Err(error) => Err(error),
        }
    }

    /// Depth first with the children of a directory behind all of its entries, as for local files.
    pub(super) async fn walk(&self, key: &str, depth: Depth, visit: Visit<'_>) -> Result<()> {
        self.walk_past(key, depth, Some(Cause::AccessDenied), visit).await
    }

    /// The same; directories that cannot be listed for `excuse` are only reported.
    async fn walk_past(&self, key: &str, depth: Depth, excuse: Option<Cause>, visit: Visit<'_>) -> Result<()> {
        let mut waiting = vec![(key.to_owned(), 1usize)];
        let mut first = true;
        while let Some((dir, level)) = waiting.pop() {
            let entries = match self.entries(&dir).await {
                Ok(Some(entries)) => entries,
                Ok(None) if first => return Err(no_directory()),
                // It vanished while others were listed.
                Ok(None) => continue,
                Err(error) if first || Some(error.cause) != excuse => return Err(error),
                Err(error) => {
                    output::note(&format!("ERROR : {dir}: error listing: {error}"));
                    continue;
                }
            };
            first = false;
            if depth == Depth::All || matches!(depth, Depth::Levels(levels) if level < levels) {
                let children = entries.iter().rev().filter(|entry| entry.dir);
                waiting.extend(children.map(|entry| (entry.key.clone(), level + 1)));
            }
            visit(entries)?;
        }
        Ok(())
    }

    /// Every object below a directory; none when there is no such directory.
    pub(super) async fn objects(&self, key: &str, each: Each<'_>) -> Result<()> {
        let mut visit = |entries: Vec<Entry>| entries.into_iter().filter(|entry| !entry.dir).try_for_each(&mut *each);
        match self.walk_past(key, Depth::All, None, &mut visit).await {
            Err(error) if error.is(Cause::NotFound) => Ok(()),
            other => other,
        }
    }

    /// The sorted entries of one directory.
    async fn entries(&self, dir: &str) -> Result<Option<Vec<Entry>>> {
        let Some(items) = self.files.list(&self.path(dir)).await? else { return Ok(None) };
        let mut entries: Vec<Entry> = items.into_iter().map(|item| entry(join(dir, &item.name), &item)).collect();
        entries.sort_unstable_by(|left, right| left.key.cmp(&right.key));
        Ok(Some(entries))
    }

    pub(super) async fn read(&self, entry: &Entry) -> Result<TreeReader> {
        TreeReader::open(self.files.clone(), self.path(&entry.key), entry.clone()).await
    }

    pub(super) fn create(&self, key: &str) -> TreeWriter {
        TreeWriter::new(self.clone(), key)
    }

    pub(super) async fn put_new(&self, key: &str, bytes: Bytes) -> Result<bool> {
        let path = self.path(key);
        if self.files.stat(&path).await?.is_some() {
            return Ok(false);
        }
        let mut writer = self.create(key);
        let written = match writer.write(bytes).await {
            Ok(()) => writer.finish().await,
            Err(error) => Err(error),
        };
        let stored = match written {
            Ok(()) => claim::rename_new(&*self.files, writer.temporary(), &path).await,
            Err(error) => Err(error),
        };
        if !matches!(stored, Ok(true)) {
            writer.abort().await;
        }
        stored
    }

    pub(super) async fn remove(&self, key: &str) -> Result<()> {
        let path = self.path(key);
        // Servers answer differently to the removal of a directory, so it is looked at first.
        match self.files.stat(&path).await {
            Ok(Some(item)) if item.dir && self.files.lenient() => Ok(()),
            Ok(Some(item)) if item.dir => Err(Error::new(Cause::IsDirectory, "is a directory not a file")),
            Ok(Some(_)) => absent(self.files.remove(&path).await),
            Ok(None) => Ok(()),
            Err(error) => absent(Err(error)),
        }
    }

    pub(super) async fn remove_all(&self, key: &str) -> Result<()> {
        let within = |error: Error| error.within("failed to remove directories");
        match self.files.stat(&self.path(key)).await.map_err(within)? {
            Some(item) if item.dir => {}
            Some(_) => return Err(within(Error::new(Cause::NotDirectory, "is a file not a directory"))),
            None => return Err(within(no_directory())),
        }
        if self.files.remove_tree(&self.path(key)).await.map_err(within)? {
            return Ok(());
        }
        self.empty(key).await.map_err(within)
    }

    /// Removes file by file, then the directories, the innermost first.
    async fn empty(&self, key: &str) -> Result<()> {
        let mut waiting = vec![key.to_owned()];
        let mut dirs = Vec::new();
        let mut refused = None;
        while let Some(dir) = waiting.pop() {
            let entries = self.entries(&dir).await?.unwrap_or_default();
            waiting.extend(entries.iter().filter(|entry| entry.dir).map(|entry| entry.key.clone()));
            let files = entries.into_iter().filter(|entry| !entry.dir).map(|entry| self.path(&entry.key));
            let removals = files.map(|path| async move { absent(self.files.remove(&path).await) });
            let mut removals = stream::iter(removals).buffer_unordered(self.files.parallel());
            while let Some(removed) = removals.next().await {
                // The rest is tried all the same: what a deletion leaves should be little.
                refused = refused.or(removed.err());
            }
            dirs.push(dir);
        }
        match refused {
            Some(error) => Err(error),
            None => stream::iter(dirs.iter().rev().map(Ok)).try_for_each(|dir| self.rmdir_path(dir)).await,
        }
    }

    async fn rmdir_path(&self, key: &str) -> Result<()> {
        match self.path(key).as_str() {
            // Where a login starts is not ours.
            "" | "/" => Ok(()),
            path => absent(self.files.rmdir(path).await),
        }
    }

    pub(super) async fn mkdir(&self, key: &str) -> Result<()> {
        self.make_dirs(&self.path(key)).await
    }

    /// Makes a directory and its parents.
    async fn make_dirs(&self, path: &str) -> Result<()> {
        let taken = |path: &str| Error::new(Cause::NotDirectory, format!("mkdir {path}: not a directory"));
        // From below, because most of a path exists.
        let mut missing = Vec::new();
        let mut at = path;
        while !at.is_empty() && at != "/" {
            match self.files.stat(at).await {
                Ok(Some(item)) if item.dir => break,
                Ok(Some(_)) => return Err(taken(at)),
                Ok(None) => missing.push(at),
                Err(error) if error.is(Cause::NotDirectory) => return Err(taken(at)),
                Err(error) => return Err(error),
            }
            at = match at.rsplit_once('/') {
                Some(("", _)) => "/",
                Some((parent, _)) => parent,
                None => "",
            };
        }
        for dir in missing.into_iter().rev() {
            // Somebody else may have made it in the meantime; what it is shows when it is used.
            self.files.mkdir(dir).await?;
        }
        Ok(())
    }

    pub(super) async fn rmdir(&self, key: &str) -> Result<()> {
        let path = self.path(key);
        match self.files.stat(&path).await? {
            Some(item) if item.dir => {}
            Some(_) => return Err(Error::new(Cause::NotDirectory, "is a file not a directory")),
            None => return Ok(()),
        }
        // Not every server refuses to remove a full directory in a way that can be told from other refusals.
        let entries = self.entries(key).await?.unwrap_or_default();
        if !entries.iter().all(|entry| split(&entry.key).1.starts_with(TEMPORARY) && is_abandoned(entry)) {
            if self.files.lenient() {
                return Ok(());
            }
            return Err(Error::new(Cause::NotEmpty, format!("remove {path}: directory not empty")));
        }
        for entry in &entries {
            self.remove_temporary(entry).await?;
        }
        absent(self.files.rmdir(&path).await)
    }

    /// Removes the unfinished files below a directory. Only called when no script writes there any more; a writer that was
    /// forgotten finds its file gone and fails. What lies in our own folder may belong to another that seals just now, so
    /// there only time tells.
    pub(super) async fn sweep(&self, key: &str) -> Result<()> {
        let mut left = Vec::new();
        let mut visit = |entries: Vec<Entry>| {
            left.extend(entries.into_iter().filter(|entry| {
                let (dir, name) = split(&entry.key);
                name.starts_with(TEMPORARY) && (!is_hidden(dir) || is_abandoned(entry))
            }));
            Ok(())
        };
        match self.walk(key, Depth::All, &mut visit).await {
            Err(error) if error.is(Cause::NotFound) => return Ok(()),
            other => other?,
        }
        for entry in left {
            self.remove_temporary(&entry).await?;
        }
        Ok(())
    }

    async fn remove_temporary(&self, entry: &Entry) -> Result<()> {
        let path = self.path(&entry.key);
        absent(if entry.dir { self.files.rmdir(&path).await } else { self.files.remove(&path).await })
    }
}

/// Whether an unfinished file was written to for the last time long ago.
fn is_abandoned(entry: &Entry) -> bool {
    Timestamp::now().duration_since(entry.modified) > ABANDONED
}

/// What is gone need not be removed.
fn absent(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.is(Cause::NotFound) || error.is(Cause::NotDirectory) => Ok(()),
        other => other,
    }
}

fn entry(key: String, item: &Item) -> Entry {
    // The contract: these back ends tell no size of a directory.
    let size = if item.dir { -1 } else { item.size as i64 };
    Entry { key, dir: item.dir, size, modified: item.modified, etag: None }
}
