//! The archiver: follows the files that the server appends to, beside it on the same volume.
//!
//! Files that are listed are held open, so that what the server removes behind a rewrite can be read to its end. A session is one
//! connection. Whatever ends it, the next begins from what is stored.

mod reading;
mod session;

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use super::server::{Identity, Target};
use super::shelf::{self, Clock, Shelf, folder};
use crate::commands::{push, remove};
use crate::engines::log::report;
use crate::engines::log::retry::{self, Sessions};
use crate::engines::log::window::Window;
use crate::error::Result;
use crate::output;
use crate::repo::Repo;
use crate::signal::Stop;
use crate::stream::Input;

/// What an archiver is told.
pub(crate) struct Settings {
    pub(crate) target: Target,
    /// Where the server's data directory is mounted; `None` where the server has it.
    pub(crate) data: Option<PathBuf>,
    /// How often what is new is stored.
    pub(crate) chunk: Duration,
    /// How often the clock of a quiet server is stored; `None` for never.
    pub(crate) heartbeat: Option<Duration>,
    /// How long the log is kept, in seconds; `None` for ever.
    pub(crate) ttl: Option<i64>,
    /// Where the result goes.
    pub(crate) info: Option<PathBuf>,
}

struct Archiver {
    repo: Rc<Repo>,
    settings: Settings,
    identity: Identity,
    shelf: Shelf,
    /// How many objects this process has stored.
    stored: u64,
}

/// Archives until a signal.
///
/// # Errors
/// What only somebody else can repair, or what did not pass by itself.
pub(crate) async fn run(repo: Repo, settings: Settings) -> Result<()> {
    let mut archiver =
        Archiver { repo: Rc::new(repo), settings, identity: Identity::default(), shelf: Shelf::default(), stored: 0 };
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
    /// Lists what is stored.
    async fn recognise(&mut self) -> Result<()> {
        let mut shelf = Shelf::load(&self.repo).await?;
        for cut in shelf.distrust(&self.shelf) {
            output::note(&format!("NOTICE: {cut} is not as long as it was stored: it does not count any more"));
        }
        self.shelf = shelf;
        Ok(())
    }

    /// Stores a small object.
    async fn put(&mut self, path: &str, text: String) -> Result<()> {
        let input = Input { name: path.to_owned(), reader: Box::new(std::io::Cursor::new(Bytes::from(text))) };
        push::store(&self.repo, input, None, path, false).await?;
        self.stored += 1;
        Ok(())
    }

    /// Stores what a restore has to know of the server.
    async fn introduce(&mut self, history: i64) -> Result<()> {
        let Identity { product, version, run_id, append_directory, append_file, data_directory, file, .. } =
            &self.identity;
        let about = json!({
            "engine": product,
            "version": version,
            "run_id": run_id,
            "data_directory": data_directory,
            "append_directory": append_directory,
            "append_file": append_file,
            "file": file,
        });
        self.put(&format!("{}/{}", folder(history), shelf::ABOUT), about.to_string()).await
    }

    async fn keep_clock(&mut self, clock: Clock) -> Result<()> {
        let history = clock.leg.history;
        self.put(&format!("{}/{}", folder(history), shelf::CLOCK), clock.text()).await?;
        self.shelf.clocks.insert(history, clock);
        self.report()
    }

    /// Removes what is older than it has to be kept. Times are the server's, so a clock of ours that is wrong removes nothing.
    async fn purge(&mut self) -> Result<()> {
        let newest = self.window().range.map(|(_, end)| end);
        let (Some(ttl), Some(newest)) = (self.settings.ttl, newest) else { return Ok(()) };
        for folder in self.shelf.purge(newest - ttl) {
            remove::remove(&self.repo, &folder, true).await?;
        }
        Ok(())
    }

    fn window(&self) -> Window {
        self.shelf.window()
    }

    /// Says what is stored.
    fn report(&self) -> Result<()> {
        let Some(path) = &self.settings.info else { return Ok(()) };
        let Identity { product, version, run_id, data_directory, .. } = &self.identity;
        let end = self.shelf.newest().map(|leg| {
            let at = self.shelf.leg(leg).map_or(0, |stored| stored.reached().0);
            format!("{}/{}:{at}", leg.history, leg.number)
        });
        let facts = json!({
            "engine": product,
            "version": version,
            "run_id": run_id,
            "data_directory": data_directory,
            "end_position": end.unwrap_or_default(),
        });
        report::write(path, &report::render(self.shelf.bytes(), &self.window(), facts))
    }
}
