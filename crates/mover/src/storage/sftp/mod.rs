//! SFTP: the contract's keys, and one connection that carries all requests at once.

mod hosts;
mod keys;
mod login;
mod requests;
mod session;
mod space;
#[cfg(test)]
mod tests;
mod transfer;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use login::{Settings, connect};
use session::Session;
use transfer::{Ahead, Download, Upload};

use super::tree::{Files, Item, Reading, Tree, Writing};
use crate::config::value::Options;
use crate::error::{Cause, Error, Result};

/// Connecting and logging in.
const LOGIN: Duration = Duration::from_secs(7);
/// One question and its answer.
const ANSWER: Duration = Duration::from_secs(20);
/// How often a question is asked, how long after the first time at most, and the pause before it is asked again, which doubles.
const TRIES: u32 = 3;
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(500);
/// Files at once: they share the connection.
const PARALLEL: usize = 8;
/// Bytes that one transfer may have under way.
const WINDOW: usize = 4 << 20;

pub(super) fn open(options: &Options<'_>) -> Result<Tree> {
    Ok(Tree::new(Sftp::new(options)?, options.text("root").unwrap_or_default()))
}

/// How files are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Transfers {
    /// Bytes of one request; what the server says when it is not set.
    chunk: Option<usize>,
    /// Requests under way.
    reads: usize,
    writes: usize,
    /// Whether links in listings lead somewhere.
    links: bool,
    /// Whether an object gets the time at which its upload began.
    times: bool,
}

impl Transfers {
    fn ahead(&self, usual: usize, requests: usize) -> Ahead {
        let chunk = self.chunk.unwrap_or(usual);
        Ahead { chunk, requests: requests.min((WINDOW / chunk).max(2)) }
    }
}

#[derive(Clone)]
struct Sftp(Arc<Inner>);

struct Inner {
    settings: Settings,
    transfers: Transfers,
    session: Mutex<Held>,
}

/// What came of the last try to connect.
enum Held {
    Nothing,
    Session(Arc<Session>),
    Failed(Instant, Error),
}

type Answer<'s, T> = BoxFuture<'s, wire::Result<T>>;
type Ask<T> = for<'s> fn(&'s Session, &'s [&'s str]) -> Answer<'s, T>;

impl Sftp {
    fn new(options: &Options<'_>) -> Result<Self> {
        let (settings, transfers) = (keys::settings(options)?, keys::transfers(options)?);
        Ok(Self(Arc::new(Inner { settings, transfers, session: Mutex::new(Held::Nothing) })))
    }

    /// The session, a new one when there is none that works. Those who wait while one is made share how that ends.
    async fn session(&self) -> Result<Arc<Session>> {
        let began = Instant::now();
        let mut held = self.0.session.lock().await;
        match &*held {
            Held::Session(session) if !session.is_broken() => return Ok(session.clone()),
            Held::Failed(at, error) if *at > began => return Err(error.clone()),
            _ => {}
        }
        *held = Held::Nothing;
        let made = timeout(LOGIN, connect(&self.0.settings)).await.unwrap_or_else(|_| {
            Err(Error::new(
                Cause::Unreachable,
                format!("sftp: the server did not let us in within {} seconds", LOGIN.as_secs()),
            ))
        });
        match made {
            Ok(session) => {
                let session = Arc::new(session);
                *held = Held::Session(session.clone());
                Ok(session)
            }
            Err(error) => {
                *held = Held::Failed(Instant::now(), error.clone());
                Err(error)
            }
        }
    }

    async fn try_once<T>(&self, args: &[&str], ask: Ask<T>) -> Result<(Arc<Session>, T)> {
        let session = self.session().await?;
        let answer = ask(&session, args).await?;
        Ok((session, answer))
    }

    /// Asks, again over a new connection when one breaks. Returns the session with the answer.
    async fn ask_and_hold<T>(&self, args: &[&str], ask: Ask<T>) -> Result<(Arc<Session>, T)> {
        let began = Instant::now();
        let mut tried = 0;
        loop {
            let failed = match self.try_once(args, ask).await {
                Err(error) if error.is(Cause::Unreachable) => error,
                done => return done,
            };
            tried += 1;
            if tried == TRIES || began.elapsed() > PATIENCE {
                return Err(failed);
            }
            tokio::time::sleep(PAUSE * (1 << tried)).await;
        }
    }

    async fn ask<T>(&self, args: &[&str], ask: Ask<T>) -> Result<T> {
        self.ask_and_hold(args, ask).await.map(|(_, answer)| answer)
    }
}

#[async_trait]
impl Files for Sftp {
    fn parallel(&self) -> usize {
        PARALLEL
    }

    async fn stat(&self, path: &str) -> Result<Option<Item>> {
        self.ask(&[path], |session, args| session.stat(args[0]).boxed()).await
    }

    async fn list(&self, path: &str) -> Result<Option<Vec<Item>>> {
        let ask: Ask<_> = if self.0.transfers.links {
            |session, args| session.list(args[0], true).boxed()
        } else {
            |session, args| session.list(args[0], false).boxed()
        };
        self.ask(&[path], ask).await
    }

    async fn read(&self, path: &str, offset: u64) -> Result<Box<dyn Reading>> {
        let ask: Ask<_> = |session, args| session.open_to_read(args[0]).boxed();
        let (session, handle) = self.ask_and_hold(&[path], ask).await?;
        let transfers = &self.0.transfers;
        let ahead = transfers.ahead(session.sizes.read, transfers.reads);
        Ok(Box::new(Download::new(session, handle, offset, ahead)))
    }

    async fn write(&self, path: &str) -> Result<Box<dyn Writing>> {
        let ask: Ask<_> = |session, args| session.open_to_write(args[0]).boxed();
        let (session, handle) = self.ask_and_hold(&[path], ask).await?;
        let transfers = &self.0.transfers;
        let ahead = transfers.ahead(session.sizes.write, transfers.writes);
        Ok(Box::new(Upload::new(session, handle, path, ahead, transfers.times)))
    }

    /// Asked once: whether it was done when its answer was lost, the tree finds out.
    async fn rename(&self, from: &str, to: &str) -> Result<()> {
        let ask: Ask<()> = |session, args| session.rename(args[0], args[1]).boxed();
        self.try_once(&[from, to], ask).await.map(drop)
    }

    async fn rename_new(&self, from: &str, to: &str) -> Result<Option<bool>> {
        let linked = self.ask(&[from, to], |session, args| session.link(args[0], args[1]).boxed()).await?;
        if linked == Some(true) {
            // Nobody else knows this name; what stays of it is hidden and goes with its directory.
            let _ = self.remove(from).await;
        }
        Ok(linked)
    }

    async fn remove(&self, path: &str) -> Result<()> {
        self.ask(&[path], |session, args| session.remove(args[0]).boxed()).await
    }

    async fn mkdir(&self, path: &str) -> Result<bool> {
        self.ask(&[path], |session, args| session.mkdir(args[0]).boxed()).await
    }

    async fn rmdir(&self, path: &str) -> Result<()> {
        self.ask(&[path], |session, args| session.rmdir(args[0]).boxed()).await
    }
}
