//! One connection's worth of archiving: receive, store, and only then let the slot move on.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesOrdered;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::server::Server;
use super::shelf::{self, Begun, Kept, Span, both};
use super::spool::Spool;
use super::{Archiver, Ended};
use crate::commands::remove;
use crate::engines::log::objects::{in_time, store};
use crate::engines::postgres::client::{Connection, Event, Mode};
use crate::engines::postgres::position::{History, Lsn, Segment};
use crate::engines::postgres::records::Records;
use crate::error::{Cause, Error, Result};
use crate::output;
use crate::signal::Stop;

/// So many objects are stored at the same time. Then no more is received, and the server waits.
const UNDER_WAY: usize = 4;
/// How often the server hears from us, well within its `wal_sender_timeout`.
const STATUS: Duration = Duration::from_secs(1);
/// How often the slot is looked at, and old segments are removed.
const LOOK: Duration = Duration::from_secs(30);
/// How often what is stored is listed again: what somebody removed must not be promised.
const LIST: Duration = Duration::from_mins(10);
/// A server that keeps so much for us is worth a line in the log.
const MUCH: u64 = 1 << 30;

/// An object that was stored.
struct Done {
    segment: Segment,
    /// Everything before it is durable now.
    end: Lsn,
    whole: bool,
    span: Option<Span>,
    bytes: u64,
}

type Storing = FuturesOrdered<Pin<Box<dyn Future<Output = Result<Done>>>>>;

struct Session<'a> {
    archiver: &'a mut Archiver,
    server: Server,
    stream: Connection,
    timeline: u32,
    records: Records,
    spool: Spool,
    storing: Storing,
    /// Whether everything that was begun to be stored was.
    sound: bool,
    /// The segment that this begins with is not stored again before it reaches as far as this.
    kept: (Segment, Lsn),
    received: Lsn,
    durable: Option<Lsn>,
    endings: u64,
}

/// Connects, and archives until something ends it.
///
/// # Errors
/// When the server or the repository fails.
pub(super) async fn run(archiver: &mut Archiver, stop: &mut Stop) -> Result<Ended> {
    let mut session = tokio::select! {
        _ = stop.asked() => return Ok(Ended::Stopped),
        begun = begin(archiver) => match begun? {
            Some(session) => session,
            None => return Ok(Ended::Again),
        },
    };
    let ended = session.stream(stop).await;
    let settled = session.settle(matches!(ended, Ok(Ended::Stopped))).await;
    match ended {
        Ok(Ended::Gone(error)) => {
            settled?;
            let Session { archiver, server, stream, spool, .. } = session;
            // Whoever still streams from a slot cannot drop it.
            drop(stream);
            skip(archiver, server, spool.segment, &error).await.map(|()| Ended::Again)
        }
        ended => ended.and_then(|ended| settled.map(|()| ended)),
    }
}

async fn begin(archiver: &mut Archiver) -> Result<Option<Session<'_>>> {
    let target = &archiver.settings.target;
    let mut stream = Connection::open(target, Mode::Replication).await?;
    let system = stream.query("IDENTIFY_SYSTEM").await?.into_iter().next().unwrap_or_default();
    let field = |at: usize| system.get(at).cloned().flatten().and_then(|text| text.parse::<u64>().ok());
    let (Some(identifier), Some(timeline)) = (field(0), field(1)) else {
        return Err(Error::other("the server does not say who it is"));
    };
    let timeline = timeline as u32;
    let flushed = system.get(2).cloned().flatten().unwrap_or_default().parse::<Lsn>()?;
    let mut server = Server::open(target, &archiver.settings.slot).await?;
    archiver.identity = server.identity(identifier).await?;
    // Before the repository is asked for anything: it may be what does not keep up.
    if let Some(most) = archiver.settings.max_lag
        && let Some(fresh) = server.give_up(most).await?
    {
        archiver.skip_to = Some(Segment::at(timeline, fresh, archiver.identity.segment_size));
        return Ok(None);
    }
    archiver.recognise().await?;
    archiver.measure().await?;
    archiver.purge().await?;
    server.advise().await?;
    let slot = server.slot().await?;
    let guarded = slot.guarded.unwrap_or_default();
    let history = histories(archiver, &mut stream, timeline).await?;
    let segment = archiver.route(timeline, &history, guarded);
    let size = archiver.shelf.size;
    let start = segment.start(size);
    match stream.start(&archiver.settings.slot, start, segment.timeline).await {
        Err(error) if error.is(Cause::NotFound) => {
            skip(archiver, server, segment, &error).await?;
            return Ok(None);
        }
        other => other?,
    }
    archiver.skip_to = None;
    archiver.open = None;
    let kept = archiver.shelf.kept(segment, (segment.timeline == timeline).then_some(flushed));
    output::note(&format!("NOTICE: streaming timeline {} from {start}", segment.timeline));
    Ok(Some(Session {
        server,
        stream,
        timeline: segment.timeline,
        records: Records::new(archiver.identity.system_identifier, start, size),
        spool: Spool::new(segment, size)?,
        storing: Storing::new(),
        sound: true,
        kept: (segment, kept),
        received: start,
        durable: None,
        endings: 0,
        archiver,
    }))
}

/// The log at `wanted` is gone on the server: go on where its slot guards it, or with a new slot.
async fn skip(archiver: &mut Archiver, mut server: Server, wanted: Segment, error: &Error) -> Result<()> {
    let size = archiver.shelf.size;
    let slot = server.slot().await?;
    let mut next = slot.guarded.unwrap_or_default().0 / size;
    if next <= wanted.number {
        server.drop_slot().await?;
        next = server.slot().await?.guarded.unwrap_or_default().0 / size;
    }
    output::note(&format!(
        "NOTICE: gap in the log: it is not continued at {} ({error}), but from {} on; times in between cannot be reached, \
         and a new base backup is needed",
        wanted.start(size),
        Lsn(next * size)
    ));
    archiver.skip_to = Some(Segment { number: next, ..wanted });
    Ok(())
}

/// Where the timelines before the server's ended. Histories that are not stored yet are.
async fn histories(archiver: &mut Archiver, stream: &mut Connection, timeline: u32) -> Result<History> {
    let mut own = History::default();
    for of in 2..=timeline {
        if of < timeline && archiver.shelf.histories.contains(&of) {
            continue;
        }
        let row = match stream.query(&format!("TIMELINE_HISTORY {of}")).await {
            // Of older ones a server may have none, and does not need them.
            Err(error) if error.is(Cause::NotFound) && of < timeline => continue,
            rows => rows?.into_iter().next().unwrap_or_default(),
        };
        let text = row.into_iter().nth(1).flatten().unwrap_or_default();
        let history = History::parse(&text)?;
        if !archiver.shelf.histories.contains(&of) {
            archiver.keep_history(of, &text).await?;
        }
        own = history;
    }
    Ok(own)
}

impl Session<'_> {
    async fn stream(&mut self, stop: &mut Stop) -> Result<Ended> {
        let now = Instant::now();
        let (mut partial, mut look, mut list) = (now, now, now);
        // The first one at once: what can be reached begins, or goes on upon a new timeline, with the first time in the log.
        let mut beat = None::<Instant>;
        let mut endings = 0;
        let mut ticks = interval(STATUS);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = stop.asked() => return Ok(Ended::Stopped),
                Some(done) = self.storing.next(), if !self.storing.is_empty() => self.note(done)?,
                _ = ticks.tick() => {
                    self.confirm().await?;
                    if partial.elapsed() >= self.archiver.settings.partial {
                        partial = Instant::now();
                        self.store_open();
                    }
                    let due = |every| beat.is_none_or(|last| last.elapsed() >= every);
                    if self.archiver.settings.heartbeat.is_some_and(due) {
                        beat = Some(Instant::now());
                        if endings == self.endings {
                            in_time(self.server.beat()).await?;
                        }
                        endings = self.endings;
                    }
                    if look.elapsed() >= LOOK {
                        look = Instant::now();
                        if let Some(gone) = self.look(&mut list).await? {
                            return Ok(Ended::Gone(gone));
                        }
                    }
                }
                event = self.stream.event(), if self.storing.len() < UNDER_WAY => match event {
                    // Only the server's own word counts: a store that finds something missing is another matter.
                    Err(error) if error.is(Cause::NotFound) => return Ok(Ended::Gone(error)),
                    event => match event? {
                    Event::Log { start, bytes } => self.take(start, &bytes)?,
                    Event::Alive { answer: true } => self.confirm().await?,
                    Event::Alive { answer: false } => {}
                    Event::TimelineEnded => {
                        output::note(&format!("NOTICE: timeline {} ended at {}", self.timeline, self.received));
                        return Ok(Ended::Again);
                    }
                }},
            }
        }
    }

    /// Takes what was received.
    fn take(&mut self, start: Lsn, mut bytes: &[u8]) -> Result<()> {
        if start != self.received {
            let why = format!("the server sent the log from {start}, and {} was next", self.received);
            return Err(Error::new(Cause::Damaged, why));
        }
        while !bytes.is_empty() {
            let (part, rest) = bytes.split_at(bytes.len().min(self.spool.room() as usize));
            self.records.feed(part)?;
            let endings = self.records.endings();
            self.endings += endings.len() as u64;
            let span = endings.iter().map(|ending| Span::of(ending.micros)).reduce(Span::and);
            self.spool.append(part, span)?;
            bytes = rest;
            if self.spool.room() == 0 {
                self.store_whole()?;
            }
        }
        self.received = self.spool.end();
        Ok(())
    }

    /// Begins to store the segment that is full, and the next one.
    fn store_whole(&mut self) -> Result<()> {
        let size = self.archiver.shelf.size;
        let (segment, span) = (self.spool.segment, self.spool.span);
        let next = Segment { number: segment.number + 1, ..segment };
        let spool = std::mem::replace(&mut self.spool, Spool::new(next, size)?);
        if self.archiver.shelf.whole.contains_key(&segment) {
            return Ok(());
        }
        let (repo, input) = (self.archiver.repo.clone(), spool.input());
        let path = shelf::whole_path(segment, span, size);
        let begun = (spool.scheduled > 0 || self.archiver.shelf.begun.contains_key(&segment))
            .then(|| shelf::begun_path(segment, size));
        self.storing.push_back(Box::pin(async move {
            let bytes = store(&repo, input, &path, true).await?;
            if let Some(begun) = begun {
                remove::remove(&repo, &begun, false).await?;
            }
            Ok(Done { segment, end: segment.end(size), whole: true, span, bytes })
        }));
        Ok(())
    }

    /// Begins to store what there is of the segment that is being written, if it is more than before.
    fn store_open(&mut self) {
        let size = self.archiver.shelf.size;
        let (segment, end) = (self.spool.segment, self.spool.end());
        let is_less = segment == self.kept.0 && end < self.kept.1;
        if end.0 <= self.spool.scheduled.max(segment.start(size).0) || is_less || self.storing.len() >= UNDER_WAY {
            return;
        }
        self.spool.scheduled = end.0;
        let (repo, input, span) = (self.archiver.repo.clone(), self.spool.input(), self.spool.span);
        self.storing.push_back(Box::pin(async move {
            let bytes = store(&repo, input, &shelf::begun_path(segment, size), false).await?;
            Ok(Done { segment, end, whole: false, span, bytes })
        }));
    }

    /// Takes note of an object that was stored, and says so.
    fn note(&mut self, done: Result<Done>) -> Result<()> {
        self.sound &= done.is_ok();
        let Done { segment, end, whole, span, bytes } = done?;
        let Archiver { shelf, open, stored, .. } = &mut *self.archiver;
        if whole {
            shelf.begun.remove(&segment);
            shelf.whole.insert(segment, Kept { span, bytes });
            *open = None;
        } else if !shelf.whole.contains_key(&segment) {
            shelf.begun.insert(segment, Begun { received: Some(end), bytes });
            *open = both(span, *open);
        }
        *stored += 1;
        self.durable = Some(end);
        self.archiver.report(self.timeline, end)
    }

    async fn confirm(&mut self) -> Result<()> {
        // Without a position that is durable the slot stays where it is.
        in_time(self.stream.confirm(self.received, self.durable.unwrap_or_default())).await
    }

    /// Looks after the slot, and after what is stored. Gives why the slot is of no use any more.
    async fn look(&mut self, list: &mut Instant) -> Result<Option<Error>> {
        let slot = match in_time(self.server.watch()).await {
            Err(error) if error.is(Cause::NotFound) => return Ok(Some(error)),
            slot => slot?,
        };
        if slot.lag > MUCH {
            output::note(&format!(
                "NOTICE: the server keeps {} bytes of log that are not stored yet, for slot {}",
                slot.lag, self.archiver.settings.slot
            ));
        }
        if self.archiver.settings.max_lag.is_some_and(|most| slot.lag > most) {
            return Err(Error::other(format!("storing does not keep up: {} bytes wait on the server", slot.lag)));
        }
        if self.storing.is_empty() && list.elapsed() >= LIST {
            *list = Instant::now();
            self.archiver.recognise().await?;
            self.archiver.purge().await?;
            if let Some(durable) = self.durable {
                self.archiver.report(self.timeline, durable)?;
            }
        }
        Ok(None)
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
            if let Some(done) = self.storing.next().await {
                let noted = self.note(done);
                outcome = outcome.and(noted);
            }
            // A courtesy: the slot moves on with the next session at the latest.
            drop(self.confirm().await);
        }
        match outcome {
            Err(error) if stopped && matches!(error.cause, Cause::Killed(_)) => Ok(()),
            other => other,
        }
    }
}
