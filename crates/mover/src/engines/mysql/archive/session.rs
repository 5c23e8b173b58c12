//! One connection's worth of archiving: receive, check, store.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesOrdered;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Archiver;
use super::server::{Server, Who};
use crate::commands::remove;
use crate::engines::log::objects::{in_time, store};
use crate::engines::log::spool::Spool;
use crate::engines::mysql::client::{self, Connection, Part};
use crate::engines::mysql::events::{ARTIFICIAL, Events, Header, MAGIC, kind};
use crate::engines::mysql::gtid::State;
use crate::engines::mysql::names::{Name, Place};
use crate::engines::mysql::shelf::{Begun, Clock, Kept, Open};
use crate::error::{Cause, Error, Result};
use crate::output;
use crate::signal::Stop;

/// So many objects are stored at the same time. Then no more is received, and the server waits.
const UNDER_WAY: usize = 3;
/// How often it is looked whether something is due.
const TICK: Duration = Duration::from_secs(1);
/// How often old files are removed and what is stored is listed again: what somebody removed must not be promised.
const LIST: Duration = Duration::from_mins(10);
/// How often a server that has nothing to say says so, and after how much silence the connection is lost.
const ALIVE: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_secs(30);
/// A beginning is not stored more often than in this part of the time: a store that is slow has the rest for itself.
const SHARE: u32 = 4;

/// A file that is being received.
struct Receiving {
    name: Name,
    spool: Spool,
    events: Events,
    /// The latest time of its transactions, seconds since the Unix epoch; 0 where there is none.
    last: i64,
    /// How much of it the newest stored or scheduled object holds.
    scheduled: u64,
    warned: bool,
}

/// An object that was stored.
enum Done {
    Whole { kept: Kept, bytes: u64 },
    Beginning { begun: Begun, open: Open, bytes: u64, state: State, took: Duration },
}

type Storing = FuturesOrdered<Pin<Box<dyn Future<Output = Result<Done>>>>>;

struct Session<'a> {
    archiver: &'a mut Archiver,
    server: Server,
    stream: client::Events,
    storing: Storing,
    receiving: Option<Receiving>,
    /// Number of the file before it and the digest of the state at its end.
    before: Option<(u64, String)>,
    /// Where the log ended when this began. What was stored of the open file is not replaced by less.
    reached: Place,
    /// Whether everything that was begun to be stored was.
    sound: bool,
    /// Whether the event that is arriving goes into the file.
    taking: bool,
    heard: Instant,
    /// How long it took to store a beginning.
    took: Duration,
    may_rotate: bool,
}

/// Connects, and archives until something ends it. Whether that was a signal.
///
/// # Errors
/// When the server or the repository fails.
pub(super) async fn run(archiver: &mut Archiver, stop: &mut Stop) -> Result<bool> {
    let mut session = tokio::select! {
        _ = stop.asked() => return Ok(true),
        begun = begin(archiver) => begun?,
    };
    let ended = session.stream(stop).await;
    let settled = session.settle(matches!(ended, Ok(()))).await;
    match ended {
        Err(error) if error.is(Cause::NotFound) => {
            // Purged while we were on the way to it, or shorter than it was: look again at what there is.
            settled?;
            Err(Error::new(Cause::Unreachable, error.text))
        }
        ended => ended.and(settled).map(|()| true),
    }
}

async fn begin(archiver: &mut Archiver) -> Result<Session<'_>> {
    let mut server = Server::open(&archiver.settings.target).await?;
    archiver.identity = server.identity().await?;
    archiver.recognise().await?;
    if archiver.clock.is_none() {
        archiver.clock = super::stored_clock(&archiver.repo).await?;
    }
    archiver.purge().await?;
    let files = server.files().await?;
    let file = archiver.route(&files)?;
    let (_, reached) = server.clock().await?;
    let mut stream = Connection::open(&archiver.settings.target).await?;
    for setting in settings(&archiver.identity.who) {
        stream.query(&setting).await?;
    }
    // A file from its beginning, which says whether it follows: under the same name there may be another one since.
    let stream = in_time(stream.dump(&file.to_string(), archiver.identity.who.dump_flags(), archiver.settings.id))
        .await
        .map_err(
            |error| {
                if error.is(Cause::AccessDenied) { error.within("REPLICATION SLAVE is needed") } else { error }
            },
        )?;
    output::note(&format!("NOTICE: receiving from {file} on"));
    Ok(Session {
        server,
        stream,
        storing: Storing::new(),
        receiving: None,
        before: None,
        reached,
        sound: true,
        taking: false,
        heard: Instant::now(),
        took: Duration::ZERO,
        may_rotate: true,
        archiver,
    })
}

/// What a replica says of itself before it asks for the log.
fn settings(who: &Who) -> Vec<String> {
    let period = ALIVE.as_nanos();
    match who {
        Who::MariaDb { .. } => vec![
            "set @master_binlog_checksum = @@global.binlog_checksum".to_owned(),
            format!("set @master_heartbeat_period = {period}"),
            // With less the server changes events for clients that do not know them, and they would not fit into their file.
            "set @mariadb_slave_capability = 4".to_owned(),
        ],
        // Each has two names, of which a server knows one or both.
        Who::MySql { .. } => ["master", "source"]
            .iter()
            .flat_map(|name| {
                [
                    format!("set @{name}_binlog_checksum = @@global.binlog_checksum"),
                    format!("set @{name}_heartbeat_period = {period}"),
                ]
            })
            .collect(),
    }
}

impl Session<'_> {
    async fn stream(&mut self, stop: &mut Stop) -> Result<()> {
        let now = Instant::now();
        let (mut partial, mut list, mut beat) = (now, now, now);
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let room = self.storing.len() < UNDER_WAY;
            tokio::select! {
                biased;
                _ = stop.asked() => return Ok(()),
                Some(done) = self.storing.next(), if !self.storing.is_empty() => self.note(done)?,
                _ = ticks.tick() => {
                    if room && self.heard.elapsed() >= SILENCE {
                        let why = format!("the server has said nothing for {} s", SILENCE.as_secs());
                        return Err(Error::new(Cause::Unreachable, why));
                    }
                    if partial.elapsed() >= self.archiver.settings.partial.max(self.took * SHARE) {
                        partial = Instant::now();
                        self.store_open();
                        self.rotate().await?;
                    }
                    if self.archiver.settings.heartbeat.is_some_and(|every| beat.elapsed() >= every) {
                        beat = Instant::now();
                        self.beat().await?;
                    }
                    if self.storing.is_empty() && list.elapsed() >= LIST {
                        list = Instant::now();
                        self.archiver.recognise().await?;
                        self.archiver.purge().await?;
                        self.archiver.report()?;
                    }
                }
                part = self.stream.next(), if room => self.take(&part?)?,
            }
        }
    }

    /// Takes what was received.
    fn take(&mut self, part: &Part) -> Result<()> {
        self.heard = Instant::now();
        if part.begins {
            let header =
                Header::read(&part.bytes).ok_or_else(|| Error::new(Cause::Damaged, "an event has no header"))?;
            if part.ends && part.bytes.len() != header.size {
                let why = format!("an event says to have {} bytes, and came with {}", header.size, part.bytes.len());
                return Err(Error::new(Cause::Damaged, why));
            }
            self.taking = self.belongs(&header, &part.bytes)?;
        }
        if !self.taking {
            return Ok(());
        }
        let Some(receiving) = &mut self.receiving else {
            return Err(Error::new(Cause::Damaged, "the server does not say which file it sends"));
        };
        let known = receiving.events.begin().is_some();
        receiving.events.feed(&part.bytes).map_err(|error| error.within(&receiving.name))?;
        receiving.spool.append(&part.bytes)?;
        let last = receiving.events.groups().iter().map(|group| group.time).max().unwrap_or_default();
        receiving.last = receiving.last.max(last);
        if receiving.events.incident() && !receiving.warned {
            receiving.warned = true;
            output::note(&format!(
                "NOTICE: the server has lost part of its log in {}; a new base backup is needed",
                receiving.name
            ));
        }
        if !known && receiving.events.begin().is_some() { self.follows() } else { Ok(()) }
    }

    /// Whether an event stands in the file; others say where the server is.
    fn belongs(&mut self, header: &Header, bytes: &[u8]) -> Result<bool> {
        if matches!(header.kind, kind::HEARTBEAT | kind::HEARTBEAT_2) {
            return Ok(false);
        }
        if header.kind == kind::ROTATE && (header.flags & ARTIFICIAL != 0 || header.time == 0) {
            self.enter(bytes)?;
            return Ok(false);
        }
        let at = self.receiving.as_ref().map_or(0, |receiving| receiving.events.at());
        // Who goes on in a file is told its format again.
        Ok(header.flags & ARTIFICIAL == 0 && (header.kind != kind::FORMAT || at <= MAGIC.len() as u64))
    }

    /// The server begins to send a file, or goes on in the one that is being received.
    fn enter(&mut self, bytes: &[u8]) -> Result<()> {
        let name = bytes.get(27..).unwrap_or_default();
        // A sum may stand behind it, and does not say so before the format is known.
        let file = [name, name.get(..name.len().saturating_sub(4)).unwrap_or_default()]
            .into_iter()
            .find_map(|name| Name::read(std::str::from_utf8(name).ok()?));
        let file = file.ok_or_else(|| Error::other("the server sends a file whose name cannot be stored"))?;
        if self.receiving.as_ref().is_some_and(|receiving| receiving.name == file) {
            return Ok(());
        }
        if let Some(done) = self.receiving.take() {
            self.store_whole(done)?;
        }
        let mut receiving = Receiving {
            name: file,
            spool: Spool::new()?,
            events: Events::default(),
            last: 0,
            scheduled: 0,
            warned: false,
        };
        receiving.spool.append(MAGIC)?;
        receiving.events.feed(MAGIC)?;
        self.receiving = Some(receiving);
        Ok(())
    }

    /// Refuses a file that does not go on where the one before it ended.
    fn follows(&self) -> Result<()> {
        let Some(receiving) = &self.receiving else { return Ok(()) };
        let begin = receiving.events.begin().map(State::digest).unwrap_or_default();
        let number = receiving.name.number;
        let before = self.before.as_ref().filter(|(before, _)| before + 1 == number).map(|(_, state)| state.as_str());
        let expected = before.or_else(|| self.archiver.shelf.expected(number));
        if expected.is_some_and(|expected| expected != begin) {
            return Err(Error::new(
                Cause::Exists,
                format!(
                    "{} does not go on where the file before it ended: this is another server's log, or its history was changed \
                     (RESET MASTER and the like); make a new continuous backup",
                    receiving.name
                ),
            ));
        }
        Ok(())
    }

    /// Begins to store a file that is whole.
    fn store_whole(&mut self, done: Receiving) -> Result<()> {
        let Receiving { name, spool, events, last, scheduled, .. } = done;
        events.whole().map_err(|error| error.within(&name))?;
        let (Some(created), Some(from)) = (events.created(), events.begin()) else {
            return Err(Error::new(Cause::Damaged, format!("{name} has no beginning")));
        };
        let kept = Kept { name, begun: created, last, from: from.digest(), to: events.state().digest() };
        self.before = Some((kept.name.number, kept.to.clone()));
        self.archiver.state = events.state().clone();
        if self.archiver.shelf.holds(&kept) {
            return Ok(());
        }
        let begun = Begun { name: kept.name.clone(), from: kept.from.clone() };
        let stale = scheduled > 0 || self.archiver.shelf.begun.contains_key(&kept.name.number);
        let (repo, input) = (self.archiver.repo.clone(), spool.input(kept.name.to_string(), spool.written));
        self.storing.push_back(Box::pin(async move {
            let bytes = store(&repo, input, &kept.path(), true).await?;
            if stale {
                remove::remove(&repo, &begun.path(), false).await?;
            }
            Ok(Done::Whole { kept, bytes })
        }));
        Ok(())
    }

    /// Begins to store what there is of the file that is being written, if it is more than before.
    fn store_open(&mut self) {
        let Some(receiving) = &mut self.receiving else { return };
        let (Some(created), Some(from)) = (receiving.events.created(), receiving.events.begin()) else { return };
        // In the middle of an event there is nothing that could be said.
        let end = receiving.events.at();
        let behind = Place { file: receiving.name.clone(), at: end } < self.reached;
        if behind || end <= receiving.scheduled || end != receiving.spool.written || self.storing.len() >= UNDER_WAY {
            return;
        }
        receiving.scheduled = end;
        let begun = Begun { name: receiving.name.clone(), from: from.digest() };
        let place = Place { file: receiving.name.clone(), at: end };
        let open = Open { begun: created, last: receiving.last, from: from.digest(), end: place };
        let state = receiving.events.state().clone();
        let (repo, input) = (self.archiver.repo.clone(), receiving.spool.input(receiving.name.to_string(), end));
        let since = Instant::now();
        self.storing.push_back(Box::pin(async move {
            let bytes = store(&repo, input, &begun.path(), false).await?;
            Ok(Done::Beginning { begun, open, bytes, state, took: since.elapsed() })
        }));
    }

    /// Takes note of an object that was stored, and says so.
    fn note(&mut self, done: Result<Done>) -> Result<()> {
        self.sound &= done.is_ok();
        match done? {
            Done::Whole { kept, bytes } => self.archiver.shelve(kept, bytes),
            Done::Beginning { begun, open, bytes, state, took } => {
                self.took = took;
                self.archiver.state = state;
                self.archiver.shelf.begun.insert(begun.name.number, (begun, bytes));
                self.archiver.open = Some(open);
            }
        }
        self.archiver.stored += 1;
        self.archiver.report()
    }

    /// Has the server begin a new file when this one is large: a beginning is stored again and again.
    async fn rotate(&mut self) -> Result<()> {
        let large =
            |receiving: &Receiving| self.archiver.settings.rotate.is_some_and(|most| receiving.spool.written >= most);
        if !self.may_rotate || !self.receiving.as_ref().is_some_and(large) {
            return Ok(());
        }
        // Not for a file that the server has left behind: those come one after another, and end by themselves.
        let (_, end) = in_time(self.server.clock()).await?;
        if self.receiving.as_ref().is_none_or(|receiving| receiving.name != end.file) {
            return Ok(());
        }
        self.may_rotate = in_time(self.server.rotate()).await?;
        if !self.may_rotate {
            output::note(
                "NOTICE: the account lacks RELOAD, so that large log files are not ended early; each look stores more of them",
            );
        }
        Ok(())
    }

    /// A server that is quiet reaches later times as well: its clock says that there was nothing.
    async fn beat(&mut self) -> Result<()> {
        let (time, place) = in_time(self.server.clock()).await?;
        let stored = self.archiver.open.as_ref().is_some_and(|open| open.end >= place);
        let later = self.archiver.window().range.is_none_or(|(_, end)| end < time - 1);
        if stored && later {
            self.archiver.keep_clock(Clock { place, time }).await?;
        }
        Ok(())
    }

    /// Stores what was received and is not stored yet, as far as that is possible. A signal has ended what was under way: what
    /// comes after it must not be stored without it.
    async fn settle(&mut self, stopped: bool) -> Result<()> {
        let mut outcome = Ok(());
        while let Some(done) = self.storing.next().await {
            let noted = self.note(done);
            outcome = outcome.and(noted);
        }
        if self.sound {
            self.store_open();
            while let Some(done) = self.storing.next().await {
                let noted = self.note(done);
                outcome = outcome.and(noted);
            }
        }
        match outcome {
            Err(error) if stopped && matches!(error.cause, Cause::Killed(_)) => Ok(()),
            other => other,
        }
    }
}
