//! What is stored, read from names: which files there are, what is missing between them, and to which times that reaches.
//! `MYSQL.md` has the layout.

use std::collections::{BTreeMap, BTreeSet};

use super::names::{Name, Place};
use crate::engines::log::objects;
use crate::engines::log::window::Window;
use crate::error::{Cause, Error, Result};
use crate::repo::Repo;
use crate::rpath::split;

/// Where everything lies, below the backup's base path.
pub(crate) const ROOT: &str = "/binlog";
/// A place and a time: nothing was written behind the one before the other.
pub(crate) const CLOCK: &str = "/binlog/clock";

/// What a file's name says of it: times in seconds since the Unix epoch, states as digests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) name: Name,
    /// When the server began it.
    pub(crate) begun: i64,
    /// The latest time of its transactions; 0 where there is none.
    pub(crate) last: i64,
    /// The log's state at its beginning and at its end.
    pub(crate) from: String,
    pub(crate) to: String,
}

/// The beginning of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Begun {
    pub(crate) name: Name,
    pub(crate) from: String,
}

/// What this process knows of the file that is being written, as far as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Open {
    pub(crate) begun: i64,
    pub(crate) last: i64,
    pub(crate) from: String,
    /// Everything before it is stored.
    pub(crate) end: Place,
}

/// Until `time` the server wrote nothing behind `place`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Clock {
    pub(crate) place: Place,
    /// Seconds since the Unix epoch.
    pub(crate) time: i64,
}

/// Everything that is stored of one server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shelf {
    /// By number; several where one was stored twice, or put there by somebody else. With the stored size.
    pub(crate) whole: BTreeMap<u64, Vec<(Kept, u64)>>,
    pub(crate) begun: BTreeMap<u64, (Begun, u64)>,
    /// The servers that say to have log here.
    pub(crate) servers: BTreeSet<String>,
    other: u64,
}

/// Name of the mark of a server, which says whose log this is.
pub(crate) fn server_mark(who: impl std::fmt::Display, base: &str) -> String {
    format!("server-{who}-{base}")
}

impl Kept {
    pub(crate) fn path(&self) -> String {
        let Self { name, begun, last, from, to } = self;
        format!("{ROOT}/{name}~{begun}~{last}~{from}~{to}.zst")
    }

    fn read(name: &str) -> Option<Self> {
        let mut parts = name.strip_suffix(".zst")?.split('~');
        let kept = Self {
            name: Name::read(parts.next()?)?,
            begun: parts.next()?.parse().ok()?,
            last: parts.next()?.parse().ok()?,
            from: parts.next()?.to_owned(),
            to: parts.next()?.to_owned(),
        };
        parts.next().is_none().then_some(kept)
    }

    /// The last time that it holds: its transactions', or when it was begun.
    fn end(&self) -> i64 {
        self.last.max(self.begun)
    }
}

impl Begun {
    pub(crate) fn path(&self) -> String {
        format!("{ROOT}/{}~{}.partial.zst", self.name, self.from)
    }

    fn read(name: &str) -> Option<Self> {
        let (name, from) = name.strip_suffix(".partial.zst")?.split_once('~')?;
        Some(Self { name: Name::read(name)?, from: from.to_owned() })
    }
}

impl Clock {
    pub(crate) fn text(&self) -> String {
        format!("{} {}\n", self.place, self.time)
    }

    pub(crate) fn read(text: &str) -> Option<Self> {
        let (place, time) = text.trim().split_once(' ')?;
        Some(Self { place: Place::read(place).ok()?, time: time.parse().ok()? })
    }
}

impl Shelf {
    /// Lists what lies in the repository.
    ///
    /// # Errors
    /// When the back end refuses.
    pub(crate) async fn load(repo: &Repo) -> Result<Self> {
        let mut shelf = Self::default();
        objects::list(repo, ROOT, |entry| shelf.place(split(&entry.key).1, entry.size.max(0) as u64)).await?;
        Ok(shelf)
    }

    /// Takes an object in, by its name. What is none of ours counts only by its size.
    pub(crate) fn place(&mut self, name: &str, bytes: u64) {
        if name.starts_with("server-") {
            self.servers.insert(name.to_owned());
        } else if let Some(begun) = Begun::read(name) {
            self.begun.insert(begun.name.number, (begun, bytes));
        } else if let Some(kept) = Kept::read(name) {
            self.whole.entry(kept.name.number).or_default().push((kept, bytes));
        } else {
            self.other += bytes;
        }
    }

    /// Forgets whole files whose stored size is not what it was, and gives their paths: somebody has cut them.
    pub(crate) fn distrust(&mut self, before: &Self) -> Vec<String> {
        let mut cut = Vec::new();
        for (number, all) in &mut self.whole {
            let known = before.whole.get(number).map(Vec::as_slice).unwrap_or_default();
            all.retain(|(kept, bytes)| {
                let same = known.iter().all(|(other, known)| other != kept || known == bytes);
                if !same {
                    cut.push(kept.path());
                }
                same
            });
        }
        self.whole.retain(|_, all| !all.is_empty());
        cut
    }

    /// Refuses a directory that holds another server's log.
    ///
    /// # Errors
    /// [`Cause::Exists`].
    pub(crate) fn recognise(&self, own: &str) -> Result<()> {
        match self.servers.iter().find(|mark| *mark != own) {
            None => Ok(()),
            Some(other) => Err(Error::new(
                Cause::Exists,
                format!(
                    "this directory holds the log of another server ({other}), and the server's is {own}; another server \
                     needs a continuous backup of its own"
                ),
            )),
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        let whole: u64 = self.whole.values().flatten().map(|(_, bytes)| bytes).sum();
        whole + self.begun.values().map(|(_, bytes)| bytes).sum::<u64>() + self.other
    }

    /// The number of the newest file, whole or not.
    pub(crate) fn newest(&self) -> Option<u64> {
        self.whole.keys().next_back().max(self.begun.keys().next_back()).copied()
    }

    /// Whole files from the newest back to the oldest; with each, whether the next one follows from it. Of several with one
    /// number the one counts that the next follows from.
    pub(crate) fn chain(&self, open: Option<&Open>) -> Vec<(&Kept, bool)> {
        let mut chain: Vec<(&Kept, bool)> = Vec::new();
        let begun = self.begun.iter().next_back().map(|(number, (begun, _))| (*number, begun.from.as_str()));
        let opened = open.map(|open| (open.end.file.number, open.from.as_str()));
        let mut above = opened.or(begun);
        for (number, all) in self.whole.iter().rev() {
            if above.is_some_and(|(next, _)| *number >= next) && chain.is_empty() {
                // It became whole since.
                above = None;
            }
            let fits =
                all.iter().find(|(kept, _)| above.is_some_and(|(next, from)| next == number + 1 && kept.to == from));
            if let Some((kept, _)) = fits.or(all.last()) {
                chain.push((kept, fits.is_some()));
                above = Some((*number, &kept.from));
            }
        }
        chain
    }

    /// The files that are missing between those that are stored.
    pub(crate) fn holes(&self) -> Vec<u64> {
        let (Some(oldest), Some(newest)) = (self.whole.keys().next(), self.newest()) else { return Vec::new() };
        (*oldest..newest).filter(|number| !self.whole.contains_key(number)).collect()
    }

    /// Whether a file is stored as a whole.
    pub(crate) fn holds(&self, kept: &Kept) -> bool {
        self.whole.get(&kept.name.number).is_some_and(|all| all.iter().any(|(other, _)| other == kept))
    }

    /// The digest of the state with which file `number` must begin; `None` where that is not known.
    pub(crate) fn expected(&self, number: u64) -> Option<&str> {
        let begun = self.begun.get(&number).map(|(begun, _)| begun.from.as_str());
        let before = |kept: &&Kept| kept.name.number + 1 == number;
        let chain = self.chain(None);
        chain.iter().map(|(kept, _)| *kept).find(before).map(|kept| kept.to.as_str()).or(begun)
    }

    /// The times that can be reached. A time is reached when a later one is stored, or the clock says that there is nothing.
    pub(crate) fn window(&self, open: Option<&Open>, clock: Option<&Clock>) -> Window {
        let mut stretches: Vec<(i64, i64)> = Vec::new();
        let mut newest: Option<Place> = None;
        if let Some(open) = open.filter(|open| !self.whole.contains_key(&open.end.file.number)) {
            stretches.push((open.begun, open.last.max(open.begun)));
            newest = Some(open.end.clone());
        }
        for (kept, follows) in self.chain(open) {
            newest.get_or_insert_with(|| Place {
                file: Name { number: kept.name.number + 1, ..kept.name.clone() },
                at: 0,
            });
            match stretches.last_mut() {
                Some((begun, last)) if follows => (*begun, *last) = (kept.begun, kept.end().max(*last)),
                _ => stretches.push((kept.begun, kept.end())),
            }
        }
        if let (Some((_, last)), Some(clock)) = (stretches.first_mut(), clock)
            && newest.is_some_and(|end| end >= clock.place)
        {
            *last = clock.time.max(*last);
        }
        Window::of(stretches.into_iter().rev().map(|(begun, last)| (begun, last - 1)))
    }

    /// Takes out the files in front of the first with a transaction at or after `cutoff`, and gives the paths. The newest whole
    /// file stays.
    pub(crate) fn purge(&mut self, cutoff: i64) -> Vec<String> {
        let Some(newest) = self.whole.keys().next_back().copied() else { return Vec::new() };
        let old = |all: &Vec<(Kept, u64)>| all.iter().all(|(kept, _)| kept.end() < cutoff);
        let first = self.whole.iter().find(|(number, all)| **number == newest || !old(all));
        let first = first.map_or(newest, |(number, _)| *number);
        let stays = self.whole.split_off(&first);
        let gone = std::mem::replace(&mut self.whole, stays);
        let mut paths: Vec<String> = gone.values().flatten().map(|(kept, _)| kept.path()).collect();
        let whole = &self.whole;
        self.begun.retain(|number, (begun, _)| {
            let stays = *number >= first && !whole.contains_key(number);
            if !stays {
                paths.push(begun.path());
            }
            stays
        });
        paths
    }
}

#[cfg(test)]
#[path = "shelf_tests.rs"]
mod tests;
