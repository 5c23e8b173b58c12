//! The archiver: a replica that keeps the log instead of applying it.
//!
//! A session is one connection. Whatever ends it, the next begins from what is stored.

mod server;
mod session;

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use super::Target;
use super::gtid::State;
use super::names::Name;
use super::shelf::{self, Clock, Kept, Open, Shelf};
use crate::commands::{push, remove};
use crate::engines::log::retry::{self, Sessions};
use crate::engines::log::{objects, report};
use crate::error::{Cause, Error, Result};
use crate::output;
use crate::repo::Repo;
use crate::signal::Stop;
use crate::stream::Input;
use server::{Identity, Who};

/// What an archiver is told.
pub(crate) struct Settings {
    pub(crate) target: Target,
    /// What the server knows it by; no other replica may have it.
    pub(crate) id: u32,
    /// How often the file that is being written is stored.
    pub(crate) partial: Duration,
    /// How often the clock of a quiet server is stored; `None` for never.
    pub(crate) heartbeat: Option<Duration>,
    /// From which size on the server is asked to begin a new file, in bytes; `None` for never.
    pub(crate) rotate: Option<u64>,
    /// How long files are kept, in seconds; `None` for ever.
    pub(crate) ttl: Option<i64>,
    /// Where the result goes.
    pub(crate) info: Option<PathBuf>,
}

struct Archiver {
    repo: Rc<Repo>,
    settings: Settings,
    identity: Identity,
    shelf: Shelf,
    /// What is stored of the file that is being written.
    open: Option<Open>,
    clock: Option<Clock>,
    /// The log's state behind what is stored, as far as this process has read it.
    state: State,
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
        shelf: Shelf::default(),
        open: None,
        clock: None,
        state: State::default(),
        stored: 0,
    };
    retry::run(&mut archiver).await
}

impl Sessions for Archiver {
    async fn session(&mut self, stop: &mut Stop) -> Result<bool> {
        session::run(self, stop).await
    }

    fn stored(&self) -> u64 {
        self.stored
    }
}

impl Archiver {
    /// Lists what is stored, and marks the directory as this server's.
    async fn recognise(&mut self) -> Result<()> {
        let mut shelf = Shelf::load(&self.repo).await?;
        for cut in shelf.distrust(&self.shelf) {
            output::note(&format!("NOTICE: {cut} is not as long as it was stored: it does not count any more"));
        }
        self.shelf = shelf;
        let Identity { who, log, .. } = &self.identity;
        let mark = match who {
            Who::MariaDb { domain, server } => shelf::server_mark(format_args!("{domain}-{server}"), log),
            Who::MySql { uuid } => shelf::server_mark(format_args!("{uuid}"), log),
        };
        self.shelf.recognise(&mark)?;
        if self.shelf.servers.insert(mark.clone()) {
            let input = Input { name: mark.clone(), reader: Box::new(std::io::empty()) };
            push::store(&self.repo, input, None, &format!("{}/{mark}", shelf::ROOT), false).await?;
        }
        Ok(())
    }

    /// Where to go on: in the oldest hole that the server can still fill, or behind what is stored; where nothing is, in the file
    /// that it is writing.
    fn route(&self, files: &[Name]) -> Result<Name> {
        let (Some(oldest), Some(newest)) = (files.first(), files.last()) else {
            return Err(Error::other("the server has no binary log"));
        };
        let Some(stored) = self.shelf.newest() else { return Ok(newest.clone()) };
        let next = if self.shelf.whole.contains_key(&stored) { stored + 1 } else { stored };
        let fillable = self.shelf.holes().into_iter().find(|hole| (oldest.number..=newest.number).contains(hole));
        let number = fillable.unwrap_or(next);
        if number > newest.number {
            return Err(Error::new(
                Cause::Exists,
                format!(
                    "{stored} log files were counted when this directory was last written to, and the server is at {newest}: its \
                     log was begun anew (RESET MASTER), or it is another server; make a new continuous backup"
                ),
            ));
        }
        if number < oldest.number {
            output::note(&format!(
                "NOTICE: gap in the log: it is not continued in file {number}, which the server has purged, but in {oldest}; times \
                 in between cannot be reached, and a new base backup is needed"
            ));
        }
        Ok(Name { number: number.max(oldest.number), ..newest.clone() })
    }

    /// Takes note of a file that is whole.
    fn shelve(&mut self, kept: Kept, bytes: u64) {
        let number = kept.name.number;
        self.shelf.begun.remove(&number);
        let all = self.shelf.whole.entry(number).or_default();
        all.retain(|(other, _)| *other != kept);
        all.push((kept, bytes));
        if self.open.as_ref().is_some_and(|open| open.end.file.number == number) {
            self.open = None;
        }
    }

    /// Stores that the server wrote nothing behind a place before a time.
    async fn keep_clock(&mut self, clock: Clock) -> Result<()> {
        let content = std::io::Cursor::new(Bytes::from(clock.text()));
        let input = Input { name: "clock".to_owned(), reader: Box::new(content) };
        push::store(&self.repo, input, None, shelf::CLOCK, false).await?;
        self.clock = Some(clock);
        self.report()
    }

    /// Removes what is older than it has to be kept. Times are the server's, so a clock of ours that is wrong removes nothing.
    async fn purge(&mut self) -> Result<()> {
        let newest = self.window().range.map(|(_, end)| end);
        let (Some(ttl), Some(newest)) = (self.settings.ttl, newest) else { return Ok(()) };
        for path in self.shelf.purge(newest - ttl) {
            remove::remove(&self.repo, &path, false).await?;
        }
        Ok(())
    }

    fn window(&self) -> crate::engines::log::window::Window {
        self.shelf.window(self.open.as_ref(), self.clock.as_ref())
    }

    /// Says what is stored.
    fn report(&self) -> Result<()> {
        let Some(path) = &self.settings.info else { return Ok(()) };
        let Identity { version, who, data_directory, .. } = &self.identity;
        let mut facts = json!({
            "version": version,
            "data_directory": data_directory,
            "end_binlog": self.open.as_ref().map(|open| open.end.to_string()).unwrap_or_default(),
            "end_gtid": self.state.position(),
        });
        match who {
            Who::MariaDb { domain, server } => {
                facts["engine"] = json!("mariadb");
                facts["server_id"] = json!(server.to_string());
                facts["gtid_domain_id"] = json!(domain.to_string());
            }
            Who::MySql { uuid } => {
                facts["engine"] = json!("mysql");
                facts["server_uuid"] = json!(uuid);
            }
        }
        report::write(path, &report::render(self.shelf.bytes(), &self.window(), facts))
    }
}

/// The clock that is stored.
///
/// # Errors
/// When the store fails.
pub(super) async fn stored_clock(repo: &Repo) -> Result<Option<Clock>> {
    let text = objects::text(repo, shelf::CLOCK).await?;
    Ok(text.as_deref().and_then(Clock::read))
}
