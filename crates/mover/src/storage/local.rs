//! The file system: atomic, durable objects as plain files.

mod walk;

use std::fs::{self, File, FileTimes, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::SystemTime;

use bytes::Bytes;
use jiff::Timestamp;

use super::{Each, Entry, Found, TEMPORARY, exists};
use crate::config::value::Options;
use crate::error::{Cause, Error, Result};
use crate::pool::Pool;
use crate::rpath;

/// How much is read at once.
const CHUNK: usize = 1 << 20;
/// How much is written before it is sent on to the disk, so that the end of a push has little left to wait for.
const WRITE_BACK: u64 = 64 << 20;

/// A directory as a repository.
#[derive(Clone, Debug)]
pub(crate) struct Local {
    root: PathBuf,
    follow_links: bool,
}

impl Local {
    pub(super) fn open(options: &Options<'_>) -> Result<Self> {
        let follow_links = options.bool("copy_links", false)?;
        for key in ["links", "skip_links", "one_file_system", "no_set_modtime", "no_preallocate"] {
            options.bool(key, false)?;
        }
        let root = options.text("root").unwrap_or(".");
        let root = std::path::absolute(root).map_err(|error| Error::file("abs", Path::new(root), &error))?;
        if fs::metadata(&root).is_ok_and(|meta| !meta.is_dir()) {
            return Err(Error::new(Cause::NotDirectory, "is a file not a directory"));
        }
        Ok(Self { root, follow_links })
    }

    fn path(&self, key: &str) -> PathBuf {
        if key.is_empty() { self.root.clone() } else { self.root.join(key) }
    }

    fn metadata(&self, path: &Path) -> io::Result<fs::Metadata> {
        if self.follow_links { fs::metadata(path) } else { fs::symlink_metadata(path) }
    }

    fn entry(key: String, meta: &fs::Metadata) -> Entry {
        let modified = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        Entry {
            key,
            dir: meta.is_dir(),
            size: meta.len() as i64,
            modified: Timestamp::try_from(modified).unwrap_or(Timestamp::UNIX_EPOCH),
            etag: None,
        }
    }

    pub(super) fn lookup(&self, key: &str) -> Result<Found> {
        let path = self.path(key);
        match self.metadata(&path) {
            Ok(meta) if meta.is_dir() => Ok(Found::Dir),
            Ok(meta) if meta.is_file() => Ok(Found::File(Self::entry(key.to_owned(), &meta))),
            // Links that are not followed, sockets and devices are not objects.
            Ok(_) => Ok(Found::Missing),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Missing),
            Err(error) => Err(Error::file("lstat", &path, &error)),
        }
    }

    pub(super) fn objects(&self, key: &str, each: Each<'_>) -> Result<()> {
        let open = |dir: &str| {
            let path = self.path(dir);
            fs::read_dir(&path).map_err(|error| Error::file("open", &path, &error))
        };
        let mut open_dirs = match open(key) {
            Err(error) if error.is(Cause::NotFound) => return Ok(()),
            other => vec![(key.to_owned(), other?)],
        };
        // One handle for each level, and no list of names.
        while let Some((dir, listing)) = open_dirs.last_mut() {
            let Some(item) = listing.next() else {
                open_dirs.pop();
                continue;
            };
            let item = item.map_err(|error| Error::file("readdirent", &self.path(dir), &error))?;
            let key = rpath::join(dir, &item.file_name().to_string_lossy());
            match self.metadata(&item.path()) {
                Ok(meta) if meta.is_dir() => match open(&key) {
                    Err(error) if error.is(Cause::NotFound) => {}
                    other => open_dirs.push((key, other?)),
                },
                Ok(meta) if meta.is_file() => each(Self::entry(key, &meta))?,
                // Sockets, devices and links that lead nowhere are no objects.
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::file("lstat", &item.path(), &error)),
            }
        }
        Ok(())
    }

    pub(super) fn read(&self, key: &str) -> Result<Reader> {
        let path = self.path(key);
        let file = File::open(&path).map_err(|error| Error::file("open", &path, &error))?;
        Ok(Reader { file, path, pool: Pool::new(CHUNK) })
    }

    pub(super) fn create(&self, key: &str) -> Result<Writer> {
        let mut path = self.path(key);
        // A rename would replace a link; what is meant is its target.
        let old = match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_symlink() && self.follow_links => {
                if let Ok(target) = fs::canonicalize(&path) {
                    path = target;
                }
                fs::metadata(&path).ok()
            }
            Ok(meta) => Some(meta),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => None,
            Err(error) => return Err(Error::file("open", &path, &error)),
        };
        let dir = path.parent().unwrap_or(&self.root).to_owned();
        make_dirs(&dir)?;
        let (file, temporary) = new_temporary(&dir).map_err(|error| Error::file("open", &path, &error))?;
        let began = SystemTime::now();
        let writer = Writer { file, path, temporary, dir, began, unsynced: 0, write_back: None, once: false };
        if let Some(old) = old
            && let Err(error) = fs::set_permissions(&writer.temporary, old.permissions())
        {
            let error = Error::file("chmod", &writer.path, &error);
            writer.abort();
            return Err(error);
        }
        Ok(writer)
    }

    pub(super) fn put_new(&self, key: &str, bytes: &[u8]) -> Result<bool> {
        let mut writer = self.create(key)?;
        let result = writer.write(bytes).and_then(|()| writer.sync());
        if let Err(error) = result {
            writer.abort();
            return Err(error);
        }
        match writer.link() {
            Ok(()) => Ok(true),
            Err(error) if error.is(Cause::Exists) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) fn remove(&self, key: &str) -> Result<()> {
        let path = self.path(key);
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => return Err(Error::new(Cause::IsDirectory, "is a directory not a file")),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Error::file("lstat", &path, &error)),
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::file("remove", &path, &error)),
            _ => Ok(()),
        }
    }

    pub(super) fn remove_all(&self, key: &str) -> Result<()> {
        let path = self.path(key);
        let within = |error: Error| error.within("failed to remove directories");
        let meta = fs::symlink_metadata(&path).map_err(|error| within(Error::file("stat", &path, &error)))?;
        if meta.is_symlink() && self.follow_links && fs::metadata(&path).is_ok_and(|target| target.is_dir()) {
            // The contract follows the link: what it points to is emptied, then the link goes.
            for item in fs::read_dir(&path).map_err(|error| within(Error::file("open", &path, &error)))? {
                let item = item.map_err(|error| within(Error::file("readdirent", &path, &error)))?.path();
                let removed = if item.is_dir() && !item.is_symlink() {
                    fs::remove_dir_all(&item)
                } else {
                    fs::remove_file(&item)
                };
                removed.map_err(|error| within(Error::file("remove", &item, &error)))?;
            }
            return fs::remove_file(&path).map_err(|error| within(Error::file("remove", &path, &error)));
        }
        if !meta.is_dir() {
            return Err(within(Error::new(Cause::NotDirectory, "is a file not a directory")));
        }
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(within(Error::file("remove", &path, &error))),
            _ => {
                sync_dir(path.parent().unwrap_or(&self.root));
                Ok(())
            }
        }
    }

    pub(super) fn mkdir(&self, key: &str) -> Result<()> {
        make_dirs(&self.path(key))
    }

    pub(super) fn rmdir(&self, key: &str) -> Result<()> {
        let path = self.path(key);
        match fs::metadata(&path) {
            Ok(meta) if !meta.is_dir() => return Err(Error::new(Cause::NotDirectory, "is a file not a directory")),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Error::file("stat", &path, &error)),
        }
        let mut removed = fs::remove_dir(&path);
        if removed.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::DirectoryNotEmpty)
            && sweep_one(&path).unwrap_or(false)
        {
            removed = fs::remove_dir(&path);
        }
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::file("remove", &path, &error)),
            _ => Ok(()),
        }
    }

    pub(super) fn sweep(&self, key: &str) -> Result<()> {
        let mut waiting = vec![self.path(key)];
        while let Some(dir) = waiting.pop() {
            let Ok(listing) = fs::read_dir(&dir) else { continue };
            waiting.extend(
                listing
                    .flatten()
                    .filter(|item| item.file_type().is_ok_and(|kind| kind.is_dir()))
                    .map(|item| item.path()),
            );
            sweep_one(&dir).map_err(|error| Error::file("remove", &dir, &error))?;
        }
        Ok(())
    }
}

/// Makes missing directories durable: each new one is written into its parent.
fn make_dirs(dir: &Path) -> Result<()> {
    match fs::metadata(dir) {
        Ok(meta) if meta.is_dir() => return Ok(()),
        Ok(_) => return Err(Error::new(Cause::NotDirectory, format!("mkdir {}: not a directory", dir.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {}
        Err(error) => return Err(Error::file("mkdir", dir, &error)),
    }
    if let Some(parent) = dir.parent() {
        make_dirs(parent)?;
        match fs::create_dir(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::file("mkdir", dir, &error));
            }
            _ => sync_dir(parent),
        }
    }
    Ok(())
}

/// Removes unfinished files of dead writers from one directory. Returns whether there were any.
fn sweep_one(dir: &Path) -> io::Result<bool> {
    let mut swept = false;
    for item in fs::read_dir(dir)?.flatten() {
        if !item.file_name().to_string_lossy().starts_with(TEMPORARY) {
            continue;
        }
        // A living writer holds the lock. Held until the file is gone, it tells one that has just begun to begin again.
        if let Ok(file) = File::open(item.path())
            && file.try_lock().is_ok()
        {
            fs::remove_file(item.path())?;
            swept = true;
        }
    }
    Ok(swept)
}

fn new_temporary(dir: &Path) -> io::Result<(File, PathBuf)> {
    loop {
        let temporary = dir.join(format!("{TEMPORARY}{:016x}", rand::random::<u64>()));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o666).open(&temporary)?;
        // The lock says that somebody is writing; where the file system has none, leftovers are only swept with the
        // directory.
        let swept = match file.try_lock() {
            Ok(()) => file.metadata().is_ok_and(|meta| meta.nlink() == 0),
            Err(TryLockError::WouldBlock) => true,
            Err(TryLockError::Error(_)) => false,
        };
        // Whoever sweeps may have taken it for a leftover before it was locked.
        if !swept {
            return Ok((file, temporary));
        }
    }
}

/// Makes names durable. File systems that cannot do this for directories (some network ones) say so by an error that
/// changes nothing for the data.
fn sync_dir(dir: &Path) {
    if let Ok(dir) = File::open(dir) {
        let _ = dir.sync_all();
    }
}

/// A file being read.
pub(crate) struct Reader {
    file: File,
    path: PathBuf,
    pool: Pool,
}

impl Reader {
    pub(super) fn next(&mut self) -> Result<Option<Bytes>> {
        let mut buffer = self.pool.take();
        loop {
            match self.file.read(&mut buffer) {
                Ok(0) => return Ok(None),
                Ok(read) => return Ok(Some(self.pool.share(buffer, read))),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::file("read", &self.path, &error)),
            }
        }
    }
}

/// A file being written under a temporary name.
pub(crate) struct Writer {
    file: File,
    path: PathBuf,
    temporary: PathBuf,
    dir: PathBuf,
    began: SystemTime,
    /// Bytes since the last nudge to write back.
    unsynced: u64,
    write_back: Option<(Sender<()>, JoinHandle<io::Result<()>>)>,
    /// Whether nothing may lie under the name yet.
    pub(super) once: bool,
}

impl Writer {
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| Error::file("write", &self.path, &error))?;
        self.unsynced += bytes.len() as u64;
        if self.unsynced >= WRITE_BACK {
            self.unsynced = 0;
            self.nudge();
        }
        Ok(())
    }

    /// Has what was written so far go to the disk in the background. Only saves time; the commit syncs everything.
    fn nudge(&mut self) {
        if self.write_back.is_none()
            && let Ok(file) = self.file.try_clone()
        {
            let (to, from) = channel();
            let thread = thread::spawn(move || {
                while from.recv().is_ok() {
                    // Nudges that came during the last one are one.
                    while from.try_recv().is_ok() {}
                    file.sync_data()?;
                }
                Ok(())
            });
            self.write_back = Some((to, thread));
        }
        if let Some((to, _)) = &self.write_back {
            let _ = to.send(());
        }
    }

    fn sync(&mut self) -> Result<()> {
        if let Some((to, thread)) = self.write_back.take() {
            drop(to);
            // The system tells an error once: if the background has heard it, the sync below will not.
            let synced = thread.join().unwrap_or_else(|_| Err(io::Error::other("the writing thread has died")));
            synced.map_err(|error| Error::file("sync", &self.path, &error))?;
        }

        // The contract: an object's time is when its push began.
        let _ = self.file.set_times(FileTimes::new().set_modified(self.began));
        self.file.sync_all().map_err(|error| Error::file("sync", &self.path, &error))
    }

    /// Gives the written file its name unless that is taken.
    fn link(self) -> Result<()> {
        // A hard link fails when the name is taken, which a rename does not.
        let linked = fs::hard_link(&self.temporary, &self.path);
        let path = self.path.clone();
        sync_dir(&self.dir);
        self.abort();
        linked.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => exists(),
            _ => Error::file("link", &path, &error),
        })
    }

    pub(super) fn commit(mut self) -> Result<()> {
        if self.once {
            return match self.sync() {
                Ok(()) => self.link(),
                Err(error) => {
                    self.abort();
                    Err(error)
                }
            };
        }
        let done = self.sync().and_then(|()| {
            fs::rename(&self.temporary, &self.path).map_err(|error| Error::file("open", &self.path, &error))
        });
        match done {
            Ok(()) => {
                sync_dir(&self.dir);
                Ok(())
            }
            Err(error) => {
                self.abort();
                Err(error)
            }
        }
    }

    pub(super) fn abort(self) {
        // Nothing can be done about a leftover here; its lock goes with this process, so that it can be swept.
        let _ = fs::remove_file(&self.temporary);
    }
}
