//! Listing directories, in order, of any size in the same memory: a directory whose names do not fit is read again for the
//! names that come next.

use std::collections::BinaryHeap;
use std::ffi::{OsStr, OsString};
use std::{fs, io, vec};

use super::Local;
use crate::error::{Cause, Error, Result};
use crate::output::note;
use crate::rpath;
use crate::storage::{Depth, Entry, Visit, no_directory};

/// Memory for the names of one directory, and of its directories that wait to be listed.
const NAMES: usize = 8 << 20;
const WAITING: usize = 4 << 20;
/// What a name takes beside its letters.
const OVERHEAD: usize = 48;
/// Entries that are handed on at once.
const PAGE: usize = 1000;

/// The next names of a directory, in order.
struct Names {
    sorted: Vec<OsString>,
    /// Whether others come after them.
    more: bool,
}

/// The smallest of the names that come by, as many as fit.
struct Smallest {
    room: usize,
    used: usize,
    heap: BinaryHeap<OsString>,
    more: bool,
}

impl Smallest {
    fn new(room: usize) -> Self {
        Self { room, used: 0, heap: BinaryHeap::new(), more: false }
    }

    fn offer(&mut self, name: OsString) {
        if self.more && self.heap.peek().is_some_and(|largest| name > *largest) {
            return;
        }
        self.used += name.len() + OVERHEAD;
        self.heap.push(name);
        // One always stays, so that there is progress.
        while self.used > self.room && self.heap.len() > 1 {
            if let Some(largest) = self.heap.pop() {
                self.used -= largest.len() + OVERHEAD;
                self.more = true;
            }
        }
    }

    fn names(self) -> Names {
        Names { sorted: self.heap.into_sorted_vec(), more: self.more }
    }
}

/// A directory whose directories are being listed.
struct Open {
    dir: String,
    level: usize,
    waiting: vec::IntoIter<OsString>,
    /// The last of those that waited, when others come after it.
    more_after: Option<OsString>,
}

impl Local {
    pub(in crate::storage) fn walk(&self, key: &str, depth: Depth, visit: Visit<'_>) -> Result<()> {
        let deeper = |level: usize| match depth {
            Depth::All => true,
            Depth::Levels(levels) => level < levels,
        };
        let names = self.names(key, None, NAMES)?;
        // Depth first, with the children of a directory behind all of its entries.
        let mut open = vec![self.show(key, 1, names, deeper(1), visit)?];
        while let Some(current) = open.last_mut() {
            let Some(name) = current.waiting.next() else {
                match current.more_after.take() {
                    Some(last) => self.refill(current, &last),
                    None => drop(open.pop()),
                }
                continue;
            };
            let dir = rpath::join(&current.dir, &name.to_string_lossy());
            let level = current.level + 1;
            match self.names(&dir, None, NAMES) {
                Ok(names) => open.push(self.show(&dir, level, names, deeper(level), visit)?),
                // A directory that vanished or may not be read does not end a listing.
                Err(error) if error.is(Cause::NotFound) => {}
                Err(error) => note(&format!("ERROR : {dir}: error listing: {error}")),
            }
        }
        Ok(())
    }

    /// Hands on the entries of a directory. With `deeper`, keeps the directories among them.
    fn show(&self, dir: &str, level: usize, mut names: Names, deeper: bool, visit: Visit<'_>) -> Result<Open> {
        let mut dirs = Smallest::new(WAITING);
        loop {
            for page in names.sorted.chunks(PAGE) {
                let entries: Vec<(&OsString, Entry)> =
                    page.iter().filter_map(|name| Some((name, self.look(dir, name)?))).collect();
                if deeper {
                    entries.iter().filter(|(_, entry)| entry.dir).for_each(|(name, _)| dirs.offer((*name).clone()));
                }
                visit(entries.into_iter().map(|(_, entry)| entry).collect())?;
            }
            let (true, Some(last)) = (names.more, names.sorted.last()) else { break };
            match self.names(dir, Some(last), NAMES) {
                Ok(next) => names = next,
                // It vanished in the middle.
                Err(error) if error.is(Cause::NotFound) => break,
                Err(error) => {
                    note(&format!("ERROR : {dir}: error listing: {error}"));
                    break;
                }
            }
        }
        Ok(Open::new(dir, level, dirs.names()))
    }

    /// The next directories of a directory.
    fn refill(&self, open: &mut Open, last: &OsStr) {
        let mut dirs = Smallest::new(WAITING);
        for item in fs::read_dir(self.path(&open.dir)).into_iter().flatten().flatten() {
            let name = item.file_name();
            if name.as_os_str() > last && self.metadata(&item.path()).is_ok_and(|meta| meta.is_dir()) {
                dirs.offer(name);
            }
        }
        *open = Open::new(&open.dir, open.level, dirs.names());
    }

    /// The smallest names of a directory that come after one.
    fn names(&self, dir: &str, after: Option<&OsString>, room: usize) -> Result<Names> {
        let path = self.path(dir);
        let listing = fs::read_dir(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => no_directory(),
            _ => Error::file("failed to read directory entry: readdirent", &path, &error).within("error in ListJSON"),
        });
        let listing = match listing {
            // The contract: a directory that may not be read is reported and looks empty.
            Err(error) if error.is(Cause::AccessDenied) => {
                note(&format!("ERROR : {dir}: error listing: {error}"));
                return Ok(Smallest::new(room).names());
            }
            other => other?,
        };
        let mut smallest = Smallest::new(room);
        for item in listing {
            let name = item.map_err(|error| Error::file("readdirent", &path, &error))?.file_name();
            if after.is_none_or(|after| name > *after) {
                smallest.offer(name);
            }
        }
        Ok(smallest.names())
    }

    /// An entry, unless it is nothing that a listing shows.
    fn look(&self, dir: &str, name: &OsStr) -> Option<Entry> {
        let path = self.path(dir).join(name);
        let name = name.to_string_lossy();
        match self.metadata(&path) {
            Ok(meta) if meta.is_dir() || meta.is_file() => Some(Self::entry(rpath::join(dir, &name), &meta)),
            Ok(_) => {
                note(&format!("NOTICE: {name}: can't copy, it is not a regular file"));
                None
            }
            Err(error) => {
                if fs::symlink_metadata(&path).is_ok() {
                    note(&format!("ERROR : {name}: {}", crate::error::reason(&error)));
                }
                None
            }
        }
    }
}

impl Open {
    fn new(dir: &str, level: usize, dirs: Names) -> Self {
        let more_after = if dirs.more { dirs.sorted.last().cloned() } else { None };
        Self { dir: dir.to_owned(), level, waiting: dirs.sorted.into_iter(), more_after }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_does_not_fit_is_read_in_order_in_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let mut all: Vec<String> =
            (0..500).map(|number| format!("{:03}-{}", number * 7 % 500, "x".repeat(number % 90))).collect();
        for name in &all {
            fs::write(dir.path().join(name), "").unwrap();
        }
        all.sort();
        let ini = format!("[storage]\ntype = local\nroot = {}\n", dir.path().display());
        let ini = crate::config::ini::Ini::parse(&ini).unwrap();
        let local = Local::open(&crate::config::value::Options::new(&ini)).unwrap();
        for room in [1, 1000, 5000, 1 << 20] {
            let (mut seen, mut after, mut passes) = (Vec::new(), None, 0);
            loop {
                let names = local.names("", after.as_ref(), room).unwrap();
                passes += 1;
                seen.extend(names.sorted.iter().map(|name| name.to_string_lossy().into_owned()));
                after = names.sorted.last().cloned();
                if !names.more {
                    break;
                }
            }
            assert_eq!(seen, all, "{room}");
            assert_eq!(passes == 1, room == 1 << 20, "{room}: {passes}");
        }
    }
}
