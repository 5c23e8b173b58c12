//! What is stored, read from names alone: which segments there are, what is missing between them, and to which times that
//! reaches. `POSTGRES.md` has the layout.

use std::collections::{BTreeMap, BTreeSet};

use crate::engines::log::objects;
use crate::engines::log::window::Window;
use crate::engines::postgres::position::{Lsn, Segment};
use crate::error::{Cause, Error, Result};
use crate::repo::Repo;

/// Where everything lies, below the backup's base path.
pub(crate) const ROOT: &str = "/wal";
/// When the transactions of a stretch of log ended, in whole seconds since the Unix epoch, rounded inwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    /// Rounded up.
    pub(crate) first: i64,
    /// The last second that is over: recovery to it finds a transaction that ended later, and stops there.
    pub(crate) last: i64,
}

impl Span {
    pub(crate) fn of(micros: i64) -> Self {
        let up = micros.div_euclid(1_000_000) + i64::from(micros.rem_euclid(1_000_000) > 0);
        Self { first: up, last: up - 1 }
    }

    /// Both stretches.
    pub(crate) fn and(self, other: Self) -> Self {
        Self { first: self.first.min(other.first), last: self.last.max(other.last) }
    }
}

/// Both, where there is any.
pub(crate) fn both(one: Option<Span>, other: Option<Span>) -> Option<Span> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.and(other)),
        (one, other) => one.or(other),
    }
}

/// A whole segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) span: Option<Span>,
    pub(crate) bytes: u64,
}

/// The beginning of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Begun {
    /// Up to where it was received, if this process did it or has read it.
    pub(crate) received: Option<Lsn>,
    pub(crate) bytes: u64,
}

/// Where streaming goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Resume {
    pub(crate) segment: Segment,
    /// How much of the timeline is held.
    pub(crate) received: Lsn,
}

/// Everything that is stored of one cluster.
#[derive(Clone, Debug)]
pub(crate) struct Shelf {
    pub(crate) size: u64,
    pub(crate) whole: BTreeMap<Segment, Kept>,
    pub(crate) begun: BTreeMap<Segment, Begun>,
    pub(crate) histories: BTreeSet<u32>,
    other: u64,
    /// The clusters that say to have log here.
    pub(crate) clusters: BTreeSet<String>,
}

/// Path of the mark of a cluster, which says whose log this is.
pub(crate) fn cluster_mark(identifier: u64, size: u64) -> String {
    format!("cluster-{identifier}-{size}")
}

/// Path of a whole segment.
pub(crate) fn whole_path(segment: Segment, span: Option<Span>, size: u64) -> String {
    let Span { first, last } = span.unwrap_or_default();
    format!("{ROOT}/{:08X}/{}~{first}~{last}.zst", segment.timeline, segment.name(size))
}

/// Path of the beginning of a segment.
pub(crate) fn begun_path(segment: Segment, size: u64) -> String {
    format!("{ROOT}/{:08X}/{}.partial.zst", segment.timeline, segment.name(size))
}

/// Path of a timeline's history.
pub(crate) fn history_path(timeline: u32) -> String {
    format!("{ROOT}/{timeline:08X}.history.zst")
}

impl Shelf {
    pub(crate) fn new(size: u64) -> Self {
        Self {
            size,
            whole: BTreeMap::new(),
            begun: BTreeMap::new(),
            histories: BTreeSet::new(),
            other: 0,
            clusters: BTreeSet::new(),
        }
    }

    /// Lists what lies in the repository.
    ///
    /// # Errors
    /// When the back end refuses.
    pub(crate) async fn load(repo: &Repo, size: u64) -> Result<Self> {
        let mut shelf = Self::new(size);
        objects::list(repo, ROOT, |entry| {
            let (_, name) = crate::rpath::split(&entry.key);
            shelf.place(name, entry.size.max(0) as u64);
        })
        .await?;
        Ok(shelf)
    }

    /// Takes an object in, by its name. What is none of ours counts only by its size.
    fn place(&mut self, name: &str, bytes: u64) {
        if name.starts_with("cluster-") {
            self.clusters.insert(name.to_owned());
        } else if let Some(timeline) = name.strip_suffix(".history.zst") {
            self.histories.extend(u32::from_str_radix(timeline, 16));
            self.other += bytes;
        } else if let Some(segment) = name.strip_suffix(".partial.zst").and_then(|name| Segment::named(name, self.size))
        {
            self.begun.insert(segment, Begun { received: None, bytes });
        } else if let Some((segment, span)) = self.parse_whole(name) {
            self.whole.insert(segment, Kept { span, bytes });
        } else {
            self.other += bytes;
        }
    }

    /// Reads the name of a whole segment.
    pub(crate) fn parse_whole(&self, name: &str) -> Option<(Segment, Option<Span>)> {
        let mut parts = name.strip_suffix(".zst")?.split('~');
        let segment = Segment::named(parts.next()?, self.size)?;
        let (first, last) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        parts.next().is_none().then_some((segment, (first != 0).then_some(Span { first, last })))
    }

    /// Refuses a directory that holds another cluster's log.
    ///
    /// # Errors
    /// [`Cause::Exists`].
    pub(crate) fn recognise(&self, identifier: u64) -> Result<()> {
        let own = cluster_mark(identifier, self.size);
        match self.clusters.iter().find(|mark| **mark != own) {
            None => Ok(()),
            Some(other) => Err(Error::new(
                Cause::Exists,
                format!(
                    "this directory holds the log of another cluster ({other}), and the server's is {own}; \
                     a new cluster needs a continuous backup of its own"
                ),
            )),
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        let whole: u64 = self.whole.values().map(|kept| kept.bytes).sum();
        whole + self.begun.values().map(|begun| begun.bytes).sum::<u64>() + self.other
    }

    /// The newest that is stored, whole or not.
    fn newest(&self) -> Option<Segment> {
        self.whole.keys().next_back().max(self.begun.keys().next_back()).copied()
    }

    /// The number behind the last whole segment, if none is missing before the newest.
    fn behind(&self, newest: Segment) -> u64 {
        newest.number + u64::from(self.whole.contains_key(&newest))
    }

    /// Whole segments from the newest back to the oldest, without the ends of timelines that were left.
    fn chain(&self) -> Vec<(Segment, &Kept)> {
        let Some(newest) = self.newest() else { return Vec::new() };
        let mut all: Vec<(Segment, &Kept)> = self.whole.iter().map(|(segment, kept)| (*segment, kept)).collect();
        all.sort_by_key(|(segment, _)| std::cmp::Reverse((segment.number, segment.timeline)));
        let (mut number, mut timeline) = (self.behind(newest), newest.timeline);
        all.retain(|(segment, _)| {
            let follows = segment.number < number && segment.timeline <= timeline;
            if follows {
                (number, timeline) = (segment.number, segment.timeline);
            }
            follows
        });
        all
    }

    /// Where to go on: at the oldest hole that the server still guards, it holds everything from `guarded` on, or behind the
    /// newest.
    pub(crate) fn resume(&self, guarded: Option<Lsn>) -> Option<Resume> {
        let chain = self.chain();
        let Some((newest, _)) = chain.first().copied() else {
            let (segment, begun) = self.begun.iter().next_back()?;
            let received = begun.received.unwrap_or(segment.start(self.size));
            return Some(Resume { segment: *segment, received });
        };
        let hole = chain.windows(2).rev().find(|pair| {
            let missing = Lsn((pair[1].0.number + 1) * self.size);
            pair[0].0.number > pair[1].0.number + 1 && guarded.is_some_and(|guarded| guarded <= missing)
        });
        let last = hole.map_or(newest, |pair| pair[1].0);
        let next = Segment { number: last.number + 1, ..last };
        // A newer timeline may have begun, and not have got any further.
        let begun = self.begun.iter().rev().find(|(segment, _)| segment.number == next.number);
        match begun {
            Some((segment, begun)) if hole.is_none() && segment.timeline >= last.timeline => {
                let received = begun.received.unwrap_or(segment.start(self.size));
                Some(Resume { segment: *segment, received })
            }
            _ => Some(Resume { segment: next, received: last.end(self.size) }),
        }
    }

    /// How far a segment that is received once more must reach before it takes the place of what is stored of it: as far as that
    /// does. Of a timeline that goes on, `flushed` is all there is: of a server that was put back, without a new timeline, no more
    /// will come.
    pub(crate) fn kept(&self, segment: Segment, flushed: Option<Lsn>) -> Lsn {
        let stored = self.begun.get(&segment).and_then(|begun| begun.received).unwrap_or_default();
        flushed.map_or(stored, |flushed| stored.min(flushed))
    }

    /// The times that can be reached, with `open` the span of what is stored of the segment that is being written.
    pub(crate) fn window(&self, open: Option<Span>) -> Window {
        let chain = self.chain();
        // Stretches without a hole, newest first.
        let mut stretches: Vec<Option<Span>> = vec![open];
        let mut above = self.newest().map_or(0, |newest| self.behind(newest));
        for (segment, kept) in &chain {
            if segment.number + 1 != above {
                stretches.push(None);
            }
            if let Some(last) = stretches.last_mut() {
                *last = both(*last, kept.span);
            }
            above = segment.number;
        }
        Window::of(stretches.into_iter().rev().flatten().map(|span| (span.first, span.last)))
    }

    /// Takes out everything in front of the first segment with a transaction that ended at or after `cutoff`, and gives the
    /// paths. The newest whole segment stays.
    pub(crate) fn purge(&mut self, cutoff: i64) -> Vec<String> {
        let chain = self.chain();
        let ends = chain.iter().rev().scan(0, |latest, (segment, kept)| {
            *latest = kept.span.map_or(*latest, |span| span.last.max(*latest));
            Some((*segment, *latest))
        });
        let mut ends = ends.peekable();
        let mut first = None;
        while let Some((segment, end)) = ends.next() {
            first = Some(segment.number);
            if end == 0 || end >= cutoff || ends.peek().is_none() {
                break;
            }
        }
        let Some(first) = first else { return Vec::new() };
        let size = self.size;
        let mut gone: Vec<String> = Vec::new();
        self.whole.retain(|segment, kept| {
            let stays = segment.number >= first;
            if !stays {
                gone.push(whole_path(*segment, kept.span, size));
            }
            stays
        });
        let whole = &self.whole;
        self.begun.retain(|segment, _| {
            let stays = segment.number >= first && !whole.contains_key(segment);
            if !stays {
                gone.push(begun_path(*segment, size));
            }
            stays
        });
        gone
    }
}

#[cfg(test)]
#[path = "shelf_tests.rs"]
mod tests;
