//! What is stored, read from names: histories, the files of each, what is missing in them, and to which times that reaches.
//! `REDIS.md` has the layout.

use std::collections::BTreeMap;

use super::base::Kind;
use crate::engines::log::objects;
use crate::engines::log::window::Window;
use crate::error::Result;
use crate::repo::Repo;

/// Where everything lies, below the backup's base path.
pub(crate) const ROOT: &str = "/aof";
/// In the folder of a history: what the server said of itself; and a place and a time, nothing was written behind the one before
/// the other.
pub(crate) const ABOUT: &str = "about.json";
pub(crate) const CLOCK: &str = "clock";
/// Of nothing, as [`digest`] has it.
pub(crate) const NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb924";

/// The first half of a SHA-256 in hexadecimal digits.
pub(crate) fn digest(hash: &[u8]) -> String {
    hex::encode(&hash[..16.min(hash.len())])
}

/// The folder of a history.
pub(crate) fn folder(history: i64) -> String {
    format!("{ROOT}/{history:012}")
}

/// A file of commands of one history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Leg {
    /// Counts up; a time, in seconds since the Unix epoch, unless there was a later one.
    pub(crate) history: i64,
    /// The server's, which counts up by one.
    pub(crate) number: u64,
}

impl Leg {
    pub(crate) fn folder(self) -> String {
        format!("{}/{:06}", folder(self.history), self.number)
    }
}

/// The data at the beginning of a leg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Base {
    pub(crate) leg: Leg,
    /// With the leg's commands it gives the data of this time and of later ones, in seconds since the Unix epoch.
    pub(crate) from: i64,
    pub(crate) digest: String,
    pub(crate) kind: Kind,
}

/// Some bytes of a leg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) leg: Leg,
    /// Between two commands each.
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// The first and the last time that is noted in the leg before `to`.
    pub(crate) times: Option<(i64, i64)>,
    /// Digests of the leg up to `from` and up to `to`.
    pub(crate) before: String,
    pub(crate) after: String,
}

/// The server went on in the next leg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) leg: Leg,
    pub(crate) at: u64,
    pub(crate) digest: String,
}

impl Base {
    pub(crate) fn path(&self) -> String {
        format!("{}/base~{}~{}.{}.zst", self.leg.folder(), self.from, self.digest, self.kind.suffix())
    }

    fn read(leg: Leg, name: &str) -> Option<Self> {
        let (name, kind) = name.strip_prefix("base~")?.strip_suffix(".zst")?.rsplit_once('.')?;
        let (from, digest) = name.split_once('~')?;
        Some(Self { leg, from: from.parse().ok()?, digest: digest.to_owned(), kind: Kind::named(kind)? })
    }
}

impl Piece {
    pub(crate) fn path(&self) -> String {
        let Self { leg, from, to, times, before, after } = self;
        let (first, last) = times.map_or_else(Default::default, |(first, last)| (first.to_string(), last.to_string()));
        format!("{}/{from:020}~{to:020}~{first}~{last}~{before}~{after}.zst", leg.folder())
    }

    fn read(leg: Leg, name: &str) -> Option<Self> {
        let parts: Vec<&str> = name.strip_suffix(".zst")?.split('~').collect();
        let [from, to, first, last, before, after] = parts[..] else { return None };
        let times = match (first, last) {
            ("", "") => None,
            (first, last) => Some((first.parse().ok()?, last.parse().ok()?)),
        };
        let (from, to) = (from.parse().ok()?, to.parse().ok()?);
        (from < to).then(|| Self { leg, from, to, times, before: before.to_owned(), after: after.to_owned() })
    }
}

impl End {
    pub(crate) fn path(&self) -> String {
        format!("{}/end~{}~{}", self.leg.folder(), self.at, self.digest)
    }

    fn read(leg: Leg, name: &str) -> Option<Self> {
        let (at, digest) = name.strip_prefix("end~")?.split_once('~')?;
        Some(Self { leg, at: at.parse().ok()?, digest: digest.to_owned() })
    }
}

/// Until `time` the server wrote nothing behind a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Clock {
    pub(crate) leg: Leg,
    pub(crate) at: u64,
    /// In seconds since the Unix epoch; with everything of that second.
    pub(crate) time: i64,
}

impl Clock {
    pub(crate) fn text(&self) -> String {
        format!("{} {} {} {}\n", self.leg.history, self.leg.number, self.at, self.time)
    }

    pub(crate) fn read(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [history, number, at, time] = words[..] else { return None };
        let leg = Leg { history: history.parse().ok()?, number: number.parse().ok()? };
        Some(Self { leg, at: at.parse().ok()?, time: time.parse().ok()? })
    }
}

/// What is stored of a leg, with the stored sizes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stored {
    pub(crate) bases: Vec<(Base, u64)>,
    pub(crate) pieces: Vec<(Piece, u64)>,
    pub(crate) ends: Vec<End>,
}

impl Stored {
    /// From the leg's beginning as far as nothing is missing.
    pub(crate) fn chain(&self) -> Vec<&Piece> {
        let mut chain: Vec<&Piece> = Vec::new();
        loop {
            let (at, digest) = chain.last().map_or((0, NOTHING), |last| (last.to, last.after.as_str()));
            let fits = |piece: &&Piece| piece.from == at && piece.before == digest;
            match self.pieces.iter().map(|(piece, _)| piece).filter(fits).max_by_key(|piece| piece.to) {
                Some(next) => chain.push(next),
                None => return chain,
            }
        }
    }

    /// How far that is, and the digest of it.
    pub(crate) fn reached(&self) -> (u64, String) {
        self.chain().last().map_or((0, NOTHING.to_owned()), |last| (last.to, last.after.clone()))
    }

    pub(crate) fn times(&self) -> Option<(i64, i64)> {
        self.chain().last().and_then(|last| last.times)
    }

    /// Whether all of it is there.
    pub(crate) fn ended(&self) -> bool {
        let (at, digest) = self.reached();
        self.ends.iter().any(|end| end.at == at && end.digest == digest)
    }

    fn bytes(&self) -> u64 {
        self.bases.iter().map(|(_, bytes)| bytes).chain(self.pieces.iter().map(|(_, bytes)| bytes)).sum()
    }
}

/// Legs that follow one another from a base on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub(crate) first: Leg,
    /// The times that can be reached, in seconds since the Unix epoch; none when `end` is before `start`.
    pub(crate) start: i64,
    pub(crate) end: i64,
    /// Where it ends.
    pub(crate) last: Leg,
    pub(crate) at: u64,
}

impl Stretch {
    pub(crate) fn reaches(&self, time: i64) -> bool {
        (self.start..=self.end).contains(&time)
    }
}

/// Everything that is stored.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shelf {
    pub(crate) histories: BTreeMap<i64, BTreeMap<u64, Stored>>,
    /// Of histories.
    pub(crate) clocks: BTreeMap<i64, Clock>,
    other: u64,
}

impl Shelf {
    /// Lists what lies in the repository.
    ///
    /// # Errors
    /// When the back end refuses.
    pub(crate) async fn load(repo: &Repo) -> Result<Self> {
        let mut shelf = Self::default();
        objects::list(repo, ROOT, |entry| shelf.place(&entry.key, entry.size.max(0) as u64)).await?;
        for history in shelf.histories.keys() {
            let text = objects::text(repo, &format!("{}/{CLOCK}", folder(*history))).await?;
            shelf.clocks.extend(text.as_deref().and_then(Clock::read).map(|clock| (*history, clock)));
        }
        Ok(shelf)
    }

    /// Takes an object in, by the end of its path. What is none of ours counts only by its size.
    pub(crate) fn place(&mut self, path: &str, bytes: u64) {
        let mut parts = path.rsplit('/');
        let name = parts.next().unwrap_or_default();
        let mut number = || parts.next().and_then(|part| part.parse::<u64>().ok());
        let leg = number().zip(number()).and_then(|(number, history)| {
            let history = i64::try_from(history).ok()?;
            Some(Leg { history, number })
        });
        let Some(leg) = leg else {
            self.other += bytes;
            return;
        };
        if let Some(base) = Base::read(leg, name) {
            self.stored(leg).bases.push((base, bytes));
        } else if let Some(piece) = Piece::read(leg, name) {
            self.stored(leg).pieces.push((piece, bytes));
        } else if let Some(end) = End::read(leg, name) {
            self.stored(leg).ends.push(end);
        } else {
            self.other += bytes;
        }
    }

    /// What is stored of a leg, to be added to.
    pub(crate) fn stored(&mut self, leg: Leg) -> &mut Stored {
        self.histories.entry(leg.history).or_default().entry(leg.number).or_default()
    }

    pub(crate) fn leg(&self, leg: Leg) -> Option<&Stored> {
        self.histories.get(&leg.history)?.get(&leg.number)
    }

    pub(crate) fn newest(&self) -> Option<Leg> {
        let (history, legs) = self.histories.iter().next_back()?;
        legs.keys().next_back().map(|number| Leg { history: *history, number: *number })
    }

    /// Forgets objects whose stored size is not what it was, and gives their paths: somebody has cut them.
    pub(crate) fn distrust(&mut self, before: &Self) -> Vec<String> {
        let mut cut = Vec::new();
        for (history, legs) in &mut self.histories {
            for (number, stored) in legs {
                let Some(known) = before.leg(Leg { history: *history, number: *number }) else { continue };
                stored.bases.retain(|one| same(one, &known.bases) || forget(&mut cut, one.0.path()));
                stored.pieces.retain(|one| same(one, &known.pieces) || forget(&mut cut, one.0.path()));
            }
        }
        cut
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.histories.values().flat_map(BTreeMap::values).map(Stored::bytes).sum::<u64>() + self.other
    }

    /// What can be restored from, in the order of histories.
    pub(crate) fn stretches(&self) -> Vec<Stretch> {
        let of = |(history, legs): (&i64, _)| stretches(*history, legs, self.clocks.get(history));
        self.histories.iter().flat_map(of).collect()
    }

    /// The bases from which a time can be reached inside of a stretch, the nearest first.
    pub(crate) fn bases(&self, stretch: &Stretch, time: i64) -> Vec<&Base> {
        let legs = self.histories.get(&stretch.first.history);
        let legs = legs.into_iter().flat_map(|legs| legs.range(stretch.first.number..=stretch.last.number).rev());
        legs.flat_map(|(_, stored)| &stored.bases).map(|(base, _)| base).filter(|base| base.from <= time).collect()
    }

    /// The times that can be reached.
    pub(crate) fn window(&self) -> Window {
        let mut all: Vec<(i64, i64)> = Vec::new();
        let mut ranges: Vec<(i64, i64)> =
            self.stretches().into_iter().filter(|one| one.start <= one.end).map(|one| (one.start, one.end)).collect();
        ranges.sort_unstable();
        for (start, end) in ranges {
            match all.last_mut() {
                Some((_, last)) if start <= *last + 1 => *last = end.max(*last),
                _ => all.push((start, end)),
            }
        }
        Window::of(all)
    }

    /// Takes out what is not needed for `cutoff` and later times, and gives the paths of folders. The newest history keeps what it
    /// takes to restore it.
    pub(crate) fn purge(&mut self, cutoff: i64) -> Vec<String> {
        let Some(newest) = self.histories.keys().next_back().copied() else { return Vec::new() };
        let stretches = self.stretches();
        let mut folders = Vec::new();
        self.histories.retain(|history, legs| {
            let own = || stretches.iter().filter(|one| one.first.history == *history);
            if *history != newest && own().all(|one| one.end < cutoff) {
                folders.push(folder(*history));
                return false;
            }
            let old = |stored: &Stored| stored.bases.iter().any(|(base, _)| base.from <= cutoff);
            let first = legs.iter().rev().find(|(_, stored)| old(stored)).map(|(number, _)| *number);
            let keep = legs.split_off(&first.unwrap_or_default());
            folders.extend(legs.keys().map(|number| Leg { history: *history, number: *number }.folder()));
            *legs = keep;
            true
        });
        folders
    }
}

fn same<T: PartialEq>(one: &(T, u64), known: &[(T, u64)]) -> bool {
    known.iter().all(|(other, bytes)| *other != one.0 || *bytes == one.1)
}

fn forget(cut: &mut Vec<String>, path: String) -> bool {
    cut.push(path);
    false
}

fn stretches(history: i64, legs: &BTreeMap<u64, Stored>, clock: Option<&Clock>) -> Vec<Stretch> {
    let mut all: Vec<Stretch> = Vec::new();
    // The leg that follows the one before.
    let mut follows: Option<u64> = None;
    for (number, stored) in legs {
        let leg = Leg { history, number: *number };
        let (at, _) = stored.reached();
        let last = stored.times().map_or(i64::MIN, |(_, last)| last - 1);
        match all.last_mut() {
            Some(stretch) if follows == Some(*number) => {
                (stretch.last, stretch.at, stretch.end) = (leg, at, stretch.end.max(last));
            }
            _ => {
                let Some(start) = stored.bases.iter().map(|(base, _)| base.from).min() else {
                    follows = None;
                    continue;
                };
                all.push(Stretch { first: leg, start, end: last, last: leg, at });
            }
        }
        follows = stored.ended().then_some(number + 1);
    }
    for stretch in &mut all {
        if let Some(clock) = clock
            && (stretch.first..=stretch.last).contains(&clock.leg)
            && (clock.leg, clock.at) <= (stretch.last, stretch.at)
        {
            stretch.end = stretch.end.max(clock.time);
        }
    }
    all
}

#[cfg(test)]
#[path = "shelf_tests.rs"]
mod tests;
