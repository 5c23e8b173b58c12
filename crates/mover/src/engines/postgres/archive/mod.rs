//! The archiver: a WAL receiver whose slot moves on only behind what is durable in the repository.
//!
//! A session is one connection. Whatever ends it, the next begins from what is stored.

mod report;
mod server;
mod session;
pub(crate) mod shelf;
mod spool;

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use super::Target;
use super::position::{History, Lsn, Segment};
use crate::codec::Compression;
use crate::commands::{push, remove};
use crate::engines::log::{self, retry};
use crate::error::{Cause, Error, Result};
use crate::output;
use crate::repo::Repo;
use crate::signal::Stop;
use crate::stream::Input;
use server::Identity;
use shelf::{Begun, Shelf, Span};

/// What an archiver is told.
pub(crate) struct Settings {
    pub(crate) target: Target,
    /// Name of its replication slot.
    pub(crate) slot: String,
    /// How often the segment that is being written is stored.
    pub(crate) partial: Duration,
    /// How often a quiet server is made to write something; `None` for never.
    pub(crate) heartbeat: Option<Duration>,
    /// How long segments are kept, in seconds; `None` for ever.
    pub(crate) ttl: Option<i64>,
    /// How many bytes the server may keep for us before its slot is given up; `None` for no limit.
    pub(crate) max_lag: Option<u64>,
    /// Where the result goes.
    pub(crate) info: Option<PathBuf>,
}

/// Why a session ended without an error.
#[derive(Debug)]
enum Ended {
    /// A signal.
    Stopped,
    /// The timeline is over, or another part of the log is to be fetched.
    Again,
    /// The server has not kept the log that is next.
    Gone(Error),
}

struct Archiver {
    repo: Rc<Repo>,
    settings: Settings,
    identity: Identity,
    shelf: Shelf,
    /// Where to begin instead of where the shelf says.
    skip_to: Option<Segment>,
    /// What is stored of the segment that is being written.
    open: Option<Span>,
    /// How many objects this process has stored.
    stored: u64,
}

/// Archives until a signal.
///
/// # Errors
/// What only somebody else can repair, or what did not pass by itself.
pub(crate) async fn run(repo: Repo, settings: Settings) -> Result<()> {
    let mut archiver = Archiver {
        repo: Rc::new(repo),
        settings,
        identity: Identity::default(),
        shelf: Shelf::new(1 << 24),
        skip_to: None,
        open: None,
        stored: 0,
    };
    retry::run(&mut archiver).await
}

impl retry::Sessions for Archiver {
    async fn session(&mut self, stop: &mut Stop) -> Result<bool> {
        session::run(self, stop).await.map(|ended| matches!(ended, Ended::Stopped))
    }

    fn stored(&self) -> u64 {
        self.stored
    }
}

impl Archiver {
    /// Lists what is stored, and marks the directory as this cluster's.
    async fn recognise(&mut self) -> Result<()> {
        let Identity { system_identifier, segment_size, .. } = self.identity;
        if !segment_size.is_power_of_two() || segment_size < 1 << 20 {
            return Err(Error::other(format!("the server has segments of {segment_size} bytes")));
        }
        let mut shelf = Shelf::load(&self.repo, segment_size).await?;
        // What this process knows of partial segments a listing does not say.
        for (segment, begun) in &mut shelf.begun {
            begun.received = self.shelf.begun.get(segment).and_then(|known| known.received);
        }
        self.shelf = shelf;
        self.shelf.recognise(system_identifier)?;
        let mark = shelf::cluster_mark(system_identifier, segment_size);
        if self.shelf.clusters.insert(mark.clone()) {
            let input = Input { name: mark.clone(), reader: Box::new(std::io::empty()) };
            push::store(&self.repo, input, None, &format!("{}/{mark}", shelf::ROOT), false).await?;
        }
        Ok(())
    }

    /// Learns how far the segment reaches that is being written. A server that was brought back to an earlier time begins it anew,
    /// on a timeline that ends before: what it sends then must not take the place of what the branch that was left has.
    async fn measure(&mut self) -> Result<()> {
        let newest = self.shelf.begun.keys().map(|segment| segment.number).max();
        let unknown = |(segment, begun): (&Segment, &Begun)| {
            (begun.received.is_none() && Some(segment.number) == newest).then_some(*segment)
        };
        let unknown: Vec<Segment> = self.shelf.begun.iter().filter_map(unknown).collect();
        for segment in unknown {
            let key = self.repo.base.resolve(&shelf::begun_path(segment, self.shelf.size))?.key;
            let name = segment.name(self.shelf.size);
            match log::objects::fetch(&self.repo, &key, &std::env::temp_dir().join(&name)).await {
                Ok(Some(file)) => {
                    let bytes = std::fs::read(file.path()).map_err(|error| Error::file("read", file.path(), &error))?;
                    // Filled up with zeros; a record may end in some, so that this is the end or little before it.
                    let filled = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
                    if let Some(begun) = self.shelf.begun.get_mut(&segment) {
                        begun.received = Some(Lsn(segment.start(self.shelf.size).0 + filled));
                    }
                }
                Ok(None) => {}
                Err(error) if error.is(Cause::Damaged) => {
                    output::note(&format!("NOTICE: {name}.partial.zst is of no use, and is stored anew: {error}"));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Stores a timeline's history.
    async fn keep_history(&mut self, timeline: u32, text: &str) -> Result<()> {
        let content = std::io::Cursor::new(Bytes::copy_from_slice(text.as_bytes()));
        let input = Input { name: format!("{timeline:08X}.history"), reader: Box::new(content) };
        let zstd = Compression::named("zstd-fastest");
        push::store(&self.repo, input, zstd, &shelf::history_path(timeline), false).await?;
        self.shelf.histories.insert(timeline);
        Ok(())
    }

    /// Removes what is older than it has to be kept. Times are those of transactions, so a clock that is wrong removes nothing.
    async fn purge(&mut self) -> Result<()> {
        let newest = self.shelf.window(self.open).range.map(|(_, end)| end);
        let (Some(ttl), Some(newest)) = (self.settings.ttl, newest) else { return Ok(()) };
        for path in self.shelf.purge(newest - ttl) {
            remove::remove(&self.repo, &path, false).await?;
        }
        Ok(())
    }

    /// Where to go on: what is stored, as the server's timelines have it.
    fn route(&self, timeline: u32, history: &History, guarded: Lsn) -> Segment {
        let size = self.shelf.size;
        let anew = |lsn: Lsn| {
            let number = lsn.0 / size;
            Segment { timeline: history.timeline_of(number, size, timeline), number }
        };
        if let Some(segment) = self.skip_to {
            return Segment { timeline: history.timeline_of(segment.number, size, timeline), ..segment };
        }
        let Some(resume) = self.shelf.resume(Some(guarded)) else { return anew(guarded) };
        if resume.segment.timeline == timeline {
            return resume.segment;
        }
        match history.end_of(resume.segment.timeline) {
            Some(end) if resume.received >= end => anew(end),
            Some(_) => resume.segment,
            None => {
                output::note(&format!(
                    "NOTICE: the server is on timeline {timeline}, which does not descend from {}: what is stored of that stays, and \
                     archiving begins anew",
                    resume.segment.timeline
                ));
                anew(guarded)
            }
        }
    }

    /// Says what is stored.
    fn report(&self, timeline: u32, end: Lsn) -> Result<()> {
        let Some(path) = &self.settings.info else { return Ok(()) };
        let facts = report::facts(&self.identity, self.settings.target.user(), timeline, end);
        log::report::write(path, &log::report::render(self.shelf.bytes(), &self.shelf.window(self.open), facts))
    }
}
