//! One connection's worth of archiving: read what is new, check it, store it.

use std::collections::VecDeque;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;

use sha2::{Digest as _, Sha256};
use tokio::time::{Duration, Instant, MissedTickBehavior, interval};

use super::Archiver;
use super::reading::{self, Opened, Reading};
use crate::commands::remove;
use crate::engines::log::objects::store;
use crate::engines::redis::base::{self, Kind};
use crate::engines::redis::manifest::Manifest;
use crate::engines::redis::server::Server;
use crate::engines::redis::shelf::{Base, Clock, End, Leg, Piece, Shelf, Stored, digest};
use crate::error::{Cause, Error, Result};
use crate::output;
use crate::repo::Repo;
use crate::signal::Stop;

/// How often it is looked whether the server has begun another file, or something is due.
const TICK: Duration = Duration::from_secs(1);
/// How often what is too old is removed and what is stored is listed again: what somebody removed must not be promised.
const LIST: Duration = Duration::from_mins(10);
/// A server that syncs each second may have acknowledged for so long what it has not written yet, in seconds: two, and a clock
/// that counts whole ones.
const UNWRITTEN: i64 = 4;
/// Pieces that are smaller are put together, so many of them or so many bytes.
const SMALL: u64 = 8 << 20;
const MOST: usize = 64;
const ENOUGH: u64 = 32 << 20;

type Storing = Pin<Box<dyn Future<Output = Result<(Base, u64)>>>>;

struct Session<'a> {
    archiver: &'a mut Archiver,
    server: Server,
    folder: PathBuf,
    history: i64,
    /// As it was last read.
    manifest: Manifest,
    reading: Reading,
    /// The files behind it.
    ahead: VecDeque<(u64, Opened)>,
    /// Small pieces at the end of what is stored of the leg.
    small: Vec<Piece>,
    /// A base takes its time; what comes meanwhile does not wait for it.
    base: Option<Storing>,
    base_stored: Option<Result<(Base, u64)>>,
    beat: Option<Instant>,
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
    let ended = match session.follow(stop).await {
        // What is there is taken along.
        Ok(()) => session.round().await,
        error => error,
    };
    match ended {
        Err(error) if !matches!(error.cause, Cause::Killed(_)) => Err(error),
        _ => Ok(true),
    }
}

async fn begin(archiver: &mut Archiver) -> Result<Session<'_>> {
    let mut server = Server::open(&archiver.settings.target).await?;
    archiver.identity = server.identity().await?;
    archiver.recognise().await?;
    archiver.purge().await?;
    let data = archiver.settings.data.clone().unwrap_or_else(|| PathBuf::from(&archiver.identity.data_directory));
    let folder = reading::folder(&data, &archiver.identity.append_directory)?;
    let manifest = read_manifest(&folder, &archiver.identity.append_file)?;
    let reading = match resume(&archiver.shelf, &folder, &manifest)? {
        Some(reading) => reading,
        None => begin_history(archiver, &mut server, &folder, &manifest).await?,
    };
    let leg = reading.leg;
    output::note(&format!("NOTICE: following file {} from byte {} on", leg.number, reading.stored));
    let small = archiver.shelf.leg(leg).map(small).unwrap_or_default();
    Ok(Session {
        server,
        folder,
        history: leg.history,
        manifest,
        reading,
        ahead: VecDeque::new(),
        small,
        base: None,
        base_stored: None,
        beat: None,
        archiver,
    })
}

fn read_manifest(folder: &Path, file: &str) -> Result<Manifest> {
    let path = folder.join(format!("{file}.manifest"));
    let text = std::fs::read_to_string(&path).map_err(|error| Error::file("read", &path, &error))?;
    Manifest::read(&text)
}

/// Goes on where what is stored ends, if the server still has the file and it begins with what is stored.
fn resume(shelf: &Shelf, folder: &Path, manifest: &Manifest) -> Result<Option<Reading>> {
    let Some((leg, stored)) = shelf.newest().and_then(|leg| Some((leg, shelf.leg(leg)?))) else { return Ok(None) };
    let Some(listed) = manifest.increments.iter().find(|one| one.number == leg.number) else { return Ok(None) };
    let reached = stored.reached();
    // Files of which nothing is stored are all alike; then the base has to tell.
    if reached.0 == 0 && !same_base(stored, leg, folder, manifest)? {
        return Ok(None);
    }
    Reading::resume(leg, Opened::open(folder.join(&listed.name))?, reached, stored.times())
}

fn same_base(stored: &Stored, leg: Leg, folder: &Path, manifest: &Manifest) -> Result<bool> {
    let first = manifest.increments.first().is_some_and(|first| first.number == leg.number);
    let (true, Some(name)) = (first, &manifest.base) else { return Ok(false) };
    let found = hash(&Opened::open(folder.join(name))?)?;
    Ok(stored.bases.iter().any(|(base, _)| base.digest == found))
}

/// The digest of a file that is not written to any more.
fn hash(opened: &Opened) -> Result<String> {
    let mut hasher = Sha256::new();
    match opened.hash(&mut hasher, 0, opened.size()?)? {
        Some(()) => Ok(digest(&hasher.finalize())),
        None => Err(Error::new(Cause::Damaged, "the base of the append-only file has become shorter")),
    }
}

async fn begin_history(
    archiver: &mut Archiver,
    server: &mut Server,
    folder: &Path,
    manifest: &Manifest,
) -> Result<Reading> {
    let (Some(first), Some(_)) = (manifest.increments.first(), &manifest.base) else {
        return Err(Error::other("the append-only file has no base yet: let the server rewrite it (BGREWRITEAOF)"));
    };
    let before = archiver.shelf.newest();
    if before.is_some() {
        output::note(
            "NOTICE: the server's append-only file does not go on where what is stored ends; it is stored from its beginning, and \
             times in between may be lost",
        );
    }
    let opened = Opened::open(folder.join(&first.name))?;
    let history = server.time().await?.max(before.map_or(0, |leg| leg.history + 1));
    archiver.introduce(history).await?;
    Ok(Reading::new(Leg { history, number: first.number }, opened))
}

/// The small pieces at the end of a leg.
fn small(stored: &Stored) -> Vec<Piece> {
    let chain = stored.chain();
    let behind = chain.iter().rposition(|piece| !is_small(piece)).map_or(0, |last| last + 1);
    chain[behind..].iter().map(|piece| (*piece).clone()).collect()
}

fn is_small(piece: &Piece) -> bool {
    piece.to - piece.from < SMALL
}

/// The server has files that do not go on where ours ended.
fn lost() -> Error {
    Error::new(Cause::Unreachable, "the server has begun its append-only file anew")
}

/// Waits for something, while a base is being stored.
async fn beside<T>(
    base: &mut Option<Storing>,
    stored: &mut Option<Result<(Base, u64)>>,
    work: impl Future<Output = T>,
) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        let Some(storing) = base.as_mut() else { return work.await };
        tokio::select! {
            done = &mut work => return done,
            outcome = storing => {
                *base = None;
                *stored = Some(outcome);
            }
        }
    }
}

impl Session<'_> {
    async fn follow(&mut self, stop: &mut Stop) -> Result<()> {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut chunk, mut list) = (None::<Instant>, Instant::now());
        loop {
            tokio::select! {
                biased;
                _ = stop.asked() => return Ok(()),
                _ = beside(&mut self.base, &mut self.base_stored, ticks.tick()) => {}
            }
            self.note_base()?;
            self.look_ahead()?;
            if chunk.is_none_or(|chunk| chunk.elapsed() >= self.archiver.settings.chunk) {
                chunk = Some(Instant::now());
                self.round().await?;
            }
            if self.base.is_none() && list.elapsed() >= LIST {
                list = Instant::now();
                self.list().await?;
            }
        }
    }

    /// Stores everything that the server has written by now.
    async fn round(&mut self) -> Result<()> {
        let asked = self.server.time().await?;
        self.server.check().await?;
        self.look_ahead()?;
        loop {
            // Once the server has begun another file, nothing comes to this one any more.
            let ended = !self.ahead.is_empty();
            while !self.reading.scan()? {
                self.store().await?;
            }
            self.store().await?;
            if !ended {
                break;
            }
            self.end_leg().await?;
        }
        self.begin_base().await?;
        self.beat(asked).await?;
        self.archiver.report()
    }

    /// Opens the files that the server has begun, before it can remove them.
    fn look_ahead(&mut self) -> Result<()> {
        self.manifest = read_manifest(&self.folder, &self.archiver.identity.append_file)?;
        let (newest, opened) = match self.ahead.back() {
            Some((number, opened)) => (*number, opened),
            None => (self.reading.leg.number, &self.reading.opened),
        };
        let increments = &self.manifest.increments;
        let listed = increments.iter().any(|one| one.number == newest);
        let follows = increments.first().is_some_and(|first| first.number == newest + 1);
        if !(listed && opened.is_there() || !listed && follows) {
            return Err(lost());
        }
        for one in increments.iter().filter(|one| one.number > newest) {
            match Opened::open(self.folder.join(&one.name)) {
                Ok(opened) => self.ahead.push_back((one.number, opened)),
                // The list has changed since; it will be read again.
                Err(error) if error.is(Cause::NotFound) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Stores what was read.
    async fn store(&mut self) -> Result<()> {
        let Some(piece) = self.reading.piece()? else { return Ok(()) };
        self.keep(&piece).await?;
        self.reading.stored = piece.to;
        if !is_small(&piece) {
            return self.merge().await;
        }
        self.small.push(piece);
        let bytes = self.small.last().map_or(0, |last| last.to - self.small[0].from);
        if self.small.len() >= MOST || bytes >= ENOUGH { self.merge().await } else { Ok(()) }
    }

    async fn keep(&mut self, piece: &Piece) -> Result<()> {
        let repo = self.archiver.repo.clone();
        let (input, path) = (self.reading.opened.input(piece.from, piece.to), piece.path());
        // Whoever stores the same name stores the same.
        let bytes = beside(&mut self.base, &mut self.base_stored, store(&repo, input, &path, false)).await?;
        self.archiver.stored += 1;
        self.archiver.shelf.stored(piece.leg).pieces.push((piece.clone(), bytes));
        Ok(())
    }

    /// Puts small pieces together.
    async fn merge(&mut self) -> Result<()> {
        let small = std::mem::take(&mut self.small);
        let ([first, .., last], leg) = (&small[..], self.reading.leg) else { return Ok(()) };
        let merged = Piece { from: first.from, before: first.before.clone(), ..last.clone() };
        self.keep(&merged).await?;
        let repo = self.archiver.repo.clone();
        for piece in &small {
            let (path, removed) = (piece.path(), &mut self.archiver.shelf.stored(leg).pieces);
            removed.retain(|(other, _)| other != piece);
            beside(&mut self.base, &mut self.base_stored, remove::remove(&repo, &path, false)).await?;
        }
        Ok(())
    }

    /// All of the leg is stored; the next one follows.
    async fn end_leg(&mut self) -> Result<()> {
        if self.reading.torn {
            // It could not be said what comes between the two.
            return Err(Error::new(
                Cause::Damaged,
                format!(
                    "file {} ends in the middle of a command, and the server went on in another",
                    self.reading.leg.number
                ),
            ));
        }
        self.merge().await?;
        let leg = self.reading.leg;
        let end = End { leg, at: self.reading.stored, digest: self.reading.digest() };
        self.archiver.put(&end.path(), String::new()).await?;
        self.archiver.shelf.stored(leg).ends.push(end);
        if let Some((number, opened)) = self.ahead.pop_front() {
            self.reading = Reading::new(Leg { number, ..leg }, opened);
        }
        Ok(())
    }

    /// Begins to store the base that the server has now, if it is not stored.
    async fn begin_base(&mut self) -> Result<()> {
        let (Some(name), Some(first)) = (&self.manifest.base, self.manifest.increments.first()) else { return Ok(()) };
        let leg = Leg { history: self.history, number: first.number };
        let stored = self.archiver.shelf.leg(leg);
        if self.base.is_some() || leg > self.reading.leg || stored.is_some_and(|stored| !stored.bases.is_empty()) {
            return Ok(());
        }
        let opened = match Opened::open(self.folder.join(name)) {
            Err(error) if error.is(Cause::NotFound) => return Ok(()),
            opened => opened?,
        };
        let head = reading::head(&opened, base::HEAD)?;
        let written = base::written(&head);
        // Commands in front of the first note are from before it; where there is no note, from before now.
        let first = match stored.map(|stored| (stored.reached().0, stored.times())) {
            Some((_, Some((first, _)))) => Some(first),
            Some((1.., None)) => None,
            _ => written,
        };
        let from = match first {
            Some(first) => first.max(written.unwrap_or(first)),
            None => self.server.time().await?.max(written.unwrap_or_default()),
        };
        // Where there was another history before, these data may have been put in its place while the server was down.
        let only = self.archiver.shelf.histories.keys().all(|history| *history >= self.history);
        let from = if only { from } else { from.max(self.archiver.identity.started) };
        self.base = Some(Box::pin(store_base(self.archiver.repo.clone(), opened, leg, from, Kind::of(&head))));
        Ok(())
    }

    fn note_base(&mut self) -> Result<()> {
        let Some(outcome) = self.base_stored.take() else { return Ok(()) };
        let (base, bytes) = outcome?;
        self.archiver.stored += 1;
        self.archiver.shelf.stored(base.leg).bases.push((base, bytes));
        self.archiver.report()
    }

    /// Stores the clock of a server that is quiet; `asked` is what it was before everything was read.
    async fn beat(&mut self, asked: i64) -> Result<()> {
        let Some(every) = self.archiver.settings.heartbeat else { return Ok(()) };
        if self.reading.torn || self.beat.is_some_and(|beat| beat.elapsed() < every) {
            return Ok(());
        }
        self.beat = Some(Instant::now());
        let clock = Clock { leg: self.reading.leg, at: self.reading.stored, time: asked - UNWRITTEN };
        if self.archiver.window().range.is_some_and(|(_, end)| end >= clock.time) {
            return Ok(());
        }
        self.archiver.keep_clock(clock).await
    }

    /// Looks at what is stored once more.
    async fn list(&mut self) -> Result<()> {
        self.archiver.recognise().await?;
        self.archiver.purge().await?;
        self.archiver.report()?;
        let stored = self.archiver.shelf.leg(self.reading.leg).map(Stored::reached).unwrap_or_default();
        if self.reading.stored > 0 && stored.0 < self.reading.stored {
            return Err(Error::new(
                Cause::Unreachable,
                "some of what was stored of this file is gone: it is stored again",
            ));
        }
        Ok(())
    }
}

async fn store_base(repo: Rc<Repo>, opened: Opened, leg: Leg, from: i64, kind: Kind) -> Result<(Base, u64)> {
    let to_hash = opened.clone();
    let hashed = tokio::task::spawn_blocking(move || hash(&to_hash)).await;
    let digest = hashed.map_err(|error| Error::other(format!("the base could not be read: {error}")))??;
    let base = Base { leg, from, digest, kind };
    let bytes = store(&repo, opened.input(0, opened.size()?), &base.path(), false).await?;
    Ok((base, bytes))
}
