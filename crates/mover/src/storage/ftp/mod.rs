//! FTP, plain or over TLS: the contract's keys, and a pool of connections. One connection does one thing at a time, so each
//! transfer has its own.

mod connection;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use suppaftp::tokio::{AsyncRustlsStream, TransferStream};
use suppaftp::types::FtpResult;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use connection::{Connection, fault, is_broken};

use super::certificates;
use super::connect::{Endpoint, Resolver};
use super::tree::{Files, Item, Reading, Tree, Writing};
use super::{login_name, password};
use crate::config::value::Options;
use crate::error::{Cause, Error, Result};
use crate::pool::Pool;

/// Keys that mean something here.
const USED: &[&str] = &[
    "host",
    "port",
    "user",
    "pass",
    "tls",
    "explicit_tls",
    "concurrency",
    "disable_epsv",
    "disable_mlsd",
    "disable_tls13",
    "idle_timeout",
    "close_timeout",
    "no_check_upload",
];
/// Keys whose effect we do not have or need.
const IGNORED: &[&str] = &[
    // Names are always sent as UTF-8, which is what they are.
    "disable_utf8",
    // The time of an object is when it was stored, by the server's clock.
    "writing_mdtm",
    // Hidden files are always listed.
    "force_list_hidden",
    "shut_timeout",
    "tls_cache_size",
    "ask_password",
    "encoding",
];
const REFUSED: &[(&str, &str)] = &[
    ("socks_proxy", "proxies for FTP are not supported"),
    ("http_proxy", "proxies for FTP are not supported"),
    ("allow_insecure_tls_ciphers", "this mover has no insecure ciphers"),
];

/// Connecting and logging in.
const LOGIN: Duration = Duration::from_secs(7);
/// How long a connection is waited for when as many as allowed are in use.
const CROWDED: Duration = Duration::from_secs(10);
/// One question and its answer.
const ANSWER: Duration = Duration::from_secs(20);
/// A transfer that rests for so long has failed.
const IDLE: Duration = Duration::from_mins(5);
/// How often a question is asked, and the pause before it is asked again, which doubles.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(500);
/// Requests at once when the configuration does not say.
const PARALLEL: usize = 4;
/// How much is read at once.
const CHUNK: usize = 512 << 10;

/// How a connection is made.
pub(super) struct Settings {
    endpoint: Endpoint,
    user: String,
    password: String,
    tls: Option<Tls>,
    epsv: bool,
    mlsd: bool,
    idle: Duration,
    close: Duration,
    checks_uploads: bool,
}

struct Tls {
    config: Arc<rustls::ClientConfig>,
    implicit: bool,
}

pub(super) fn open(options: &Options<'_>) -> Result<Tree> {
    let known: Vec<&str> = USED.iter().chain(IGNORED).chain(REFUSED.iter().map(|(key, _)| key)).copied().collect();
    options.refuse_unknown("ftp", &known)?;
    options.refuse("ftp", REFUSED)?;
    let host = options.text("host").ok_or_else(|| Error::other("ftp: host is missing"))?;
    let implicit = options.bool("tls", false)?;
    let explicit = options.bool("explicit_tls", false)?;
    if implicit && explicit {
        return Err(Error::other("ftp: tls (implicit) and explicit_tls exclude each other"));
    }
    let tls = if implicit || explicit {
        let check = !options.bool("no_check_certificate", false)?;
        let config = certificates::tls(check, !options.bool("disable_tls13", false)?)?;
        Some(Tls { config: Arc::new(config), implicit })
    } else {
        None
    };
    let concurrency = options.number("concurrency")?.unwrap_or(0);
    let settings = Settings {
        endpoint: Endpoint {
            host: host.to_owned(),
            // 0 is what a provider's template gives when nothing was said.
            port: options.port("port", 21)?,
            resolver: Resolver::new()?,
        },
        user: login_name(options),
        password: password(options, "pass")?.unwrap_or_default(),
        tls,
        epsv: !options.bool("disable_epsv", false)?,
        mlsd: !options.bool("disable_mlsd", false)?,
        idle: options.duration("idle_timeout")?.unwrap_or(Duration::from_mins(1)),
        close: options.duration("close_timeout")?.unwrap_or(Duration::from_mins(1)),
        checks_uploads: !options.bool("no_check_upload", false)?,
    };
    let ftp = Ftp(Arc::new(Inner {
        settings,
        pool: Mutex::new(Vec::new()),
        slots: (concurrency > 0).then(|| Arc::new(Semaphore::new(concurrency))),
        parallel: if concurrency == 0 { PARALLEL } else { concurrency.min(PARALLEL) },
    }));
    Ok(Tree::new(ftp, options.text("root").unwrap_or_default()))
}

#[derive(Clone)]
struct Ftp(Arc<Inner>);

struct Inner {
    settings: Settings,
    /// Connections that rest.
    pool: Mutex<Vec<Held>>,
    /// Bounds the connections, those that rest included.
    slots: Option<Arc<Semaphore>>,
    parallel: usize,
}

/// A connection and its right to exist.
struct Held {
    connection: Connection,
    _slot: Option<OwnedSemaphorePermit>,
}

type Answer<'c, T> = BoxFuture<'c, FtpResult<T>>;
type Ask<T> = for<'c> fn(&'c mut Connection, &'c [&'c str]) -> Answer<'c, T>;

impl Ftp {
    fn resting(&self) -> std::sync::MutexGuard<'_, Vec<Held>> {
        self.0.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn take(&self) -> Result<Held> {
        while let Some(held) = { self.resting().pop() } {
            if held.connection.rested() < self.0.settings.idle {
                return Ok(held);
            }
        }
        let slot = match &self.0.slots {
            // Whoever holds the last connection may be waiting for us: then one more is better than none.
            Some(slots) => timeout(CROWDED, slots.clone().acquire_owned()).await.ok().and_then(Result::ok),
            None => None,
        };
        let connection = timeout(LOGIN, Connection::open(&self.0.settings)).await.unwrap_or_else(|_| {
            Err(Error::new(
                Cause::Unreachable,
                format!("the server did not let us in within {} seconds", LOGIN.as_secs()),
            ))
        })?;
        Ok(Held { connection, _slot: slot })
    }

    fn give_back(&self, mut held: Held) {
        held.connection.rest();
        self.resting().push(held);
    }

    /// Asks over one connection, and gives it with the answer. What comes of the question is open when it breaks.
    async fn try_once<T>(&self, args: &[&str], ask: Ask<T>) -> Result<(Held, T)> {
        let failed = match self.take().await {
            Ok(mut held) => match timeout(ANSWER, ask(&mut held.connection, args)).await {
                Ok(Ok(answer)) => return Ok((held, answer)),
                Ok(Err(error)) if is_broken(&error) => fault(&error),
                Ok(Err(error)) => {
                    self.give_back(held);
                    return Err(fault(&error));
                }
                Err(_) => Error::new(
                    Cause::Unreachable,
                    format!("operation timeout reached: no answer within {} seconds", ANSWER.as_secs()),
                ),
            },
            Err(error) => error,
        };
        // The others are as old as this one, or older.
        self.resting().clear();
        Err(failed)
    }

    /// Asks, again over a new connection when one breaks. Returns the connection with the answer.
    async fn ask_and_hold<T>(&self, args: &[&str], ask: Ask<T>) -> Result<(Held, T)> {
        let mut tried = 0;
        loop {
            let failed = match self.try_once(args, ask).await {
                Err(error) if error.is(Cause::Unreachable) => error,
                done => return done,
            };
            tried += 1;
            if tried == TRIES {
                return Err(failed);
            }
            tokio::time::sleep(PAUSE * (1 << tried)).await;
        }
    }

    async fn ask<T>(&self, args: &[&str], ask: Ask<T>) -> Result<T> {
        let (held, answer) = self.ask_and_hold(args, ask).await?;
        self.give_back(held);
        Ok(answer)
    }
}

#[async_trait]
impl Files for Ftp {
    fn parallel(&self) -> usize {
        self.0.parallel
    }

    fn lenient(&self) -> bool {
        true
    }

    fn checks_uploads(&self) -> bool {
        self.0.settings.checks_uploads
    }

    async fn stat(&self, path: &str) -> Result<Option<Item>> {
        self.ask(&[path], |connection, args| connection.stat(args[0]).boxed()).await
    }

    async fn list(&self, path: &str) -> Result<Option<Vec<Item>>> {
        self.ask(&[path], |connection, args| connection.list(args[0]).boxed()).await
    }

    async fn read(&self, path: &str, offset: u64) -> Result<Box<dyn Reading>> {
        let from = offset.to_string();
        let (held, transfer) =
            self.ask_and_hold(&[path, &from], |connection, args| connection.retrieve(args[0], args[1]).boxed()).await?;
        Ok(Box::new(Download { ftp: self.clone(), held: Some(held), transfer: Some(transfer), pool: Pool::new(CHUNK) }))
    }

    async fn write(&self, path: &str) -> Result<Box<dyn Writing>> {
        let (held, transfer) = self.ask_and_hold(&[path], |connection, args| connection.store(args[0]).boxed()).await?;
        Ok(Box::new(Upload { ftp: self.clone(), held, transfer }))
    }

    /// Asked once: whether it was done when its answer was lost, the tree finds out.
    async fn rename(&self, from: &str, to: &str) -> Result<()> {
        let ask: Ask<()> = |connection, args| connection.rename(args[0], args[1]).boxed();
        let once = async || -> Result<()> {
            let (held, ()) = self.try_once(&[from, to], ask).await?;
            self.give_back(held);
            Ok(())
        };
        match once().await {
            Err(error) if error.is(Cause::Unreachable) => Err(error),
            // Some servers rename over a file, some refuse.
            Err(error) => match self.stat(to).await? {
                Some(item) if !item.dir && self.stat(from).await?.is_some() => {
                    self.remove(to).await?;
                    once().await
                }
                _ => Err(error),
            },
            Ok(()) => Ok(()),
        }
    }

    async fn remove(&self, path: &str) -> Result<()> {
        let removed = self.ask(&[path], |connection, args| connection.remove(args[0]).boxed()).await;
        self.unless_missing(path, removed).await
    }

    async fn mkdir(&self, path: &str) -> Result<bool> {
        match self.ask(&[path], |connection, args| connection.mkdir(args[0]).boxed()).await {
            Ok(()) => Ok(true),
            Err(error) if error.is(Cause::Unreachable) => Err(error),
            // The words for "exists" differ from server to server.
            Err(error) => match self.stat(path).await? {
                Some(_) => Ok(false),
                None => Err(error),
            },
        }
    }

    async fn rmdir(&self, path: &str) -> Result<()> {
        let removed = self.ask(&[path], |connection, args| connection.rmdir(args[0]).boxed()).await;
        self.unless_missing(path, removed).await
    }
}

impl Ftp {
    /// A refusal to remove what is not there is told as that.
    async fn unless_missing(&self, path: &str, removed: Result<()>) -> Result<()> {
        match removed {
            Err(error) if !error.is(Cause::Unreachable) && self.stat(path).await?.is_none() => {
                Err(Error::new(Cause::NotFound, error.text))
            }
            other => other,
        }
    }
}

type Transfer = TransferStream<AsyncRustlsStream>;

struct Download {
    ftp: Ftp,
    held: Option<Held>,
    transfer: Option<Transfer>,
    pool: Pool,
}

#[async_trait]
impl Reading for Download {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        let Some(transfer) = &mut self.transfer else { return Ok(None) };
        let mut buffer = self.pool.take();
        let read = match timeout(IDLE, transfer.read(&mut buffer)).await {
            Ok(Ok(read)) => read,
            // A server that ends TLS without saying so; whether everything is here tells the size.
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => 0,
            Ok(Err(error)) => return Err(Error::new(Cause::Unreachable, crate::error::reason(&error))),
            Err(_) => return Err(Error::new(Cause::Unreachable, "the server stopped sending")),
        };
        if read > 0 {
            return Ok(Some(self.pool.share(buffer, read)));
        }
        let (Some(transfer), Some(held)) = (self.transfer.take(), self.held.take()) else { return Ok(None) };
        match timeout(self.ftp.0.settings.close, transfer.finish()).await {
            Ok(Ok(())) => self.ftp.give_back(held),
            // The transfer failed on the server's side: what came may be cut short, so that the size decides.
            Ok(Err(error)) if !is_broken(&error) => self.ftp.give_back(held),
            Ok(Err(_)) | Err(_) => drop(held),
        }
        Ok(None)
    }
}

struct Upload {
    ftp: Ftp,
    held: Held,
    transfer: Transfer,
}

#[async_trait]
impl Writing for Upload {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        match timeout(IDLE, self.transfer.write_all(&bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Error::new(
                Cause::Other,
                format!("the server ended the transfer: {}", crate::error::reason(&error)),
            )),
            Err(_) => Err(Error::new(Cause::Unreachable, "the server takes no more bytes")),
        }
    }

    async fn close(self: Box<Self>) -> Result<()> {
        let Self { ftp, held, transfer } = *self;
        match timeout(ftp.0.settings.close, transfer.finish()).await {
            Ok(Ok(())) => {
                ftp.give_back(held);
                Ok(())
            }
            Ok(Err(error)) => {
                if !is_broken(&error) {
                    ftp.give_back(held);
                }
                Err(fault(&error))
            }
            Err(_) => Err(Error::new(Cause::Unreachable, "the server does not say that it has the whole file")),
        }
    }

    async fn abort(self: Box<Self>) {
        let Self { ftp, held, transfer } = *self;
        // The next command over this connection reads what the server says to that.
        drop(transfer);
        ftp.give_back(held);
    }
}
