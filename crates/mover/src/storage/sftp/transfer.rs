//! One file on its way, many requests ahead: what a line can carry does not depend on how long an answer takes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use super::ANSWER;
use super::requests::times;
use super::session::{Extension, Pending, Session};
use super::space::explained;
use super::wire::{CLOSE, EXTENDED, FSETSTAT, READ, Reply, WRITE};
use crate::error::{Cause, Error, Result};
use crate::storage::tree::{Reading, Writing};

/// A transfer that rests for so long has failed.
const IDLE: Duration = Duration::from_mins(5);

/// Limits of one transfer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ahead {
    /// Bytes of one request.
    pub(super) chunk: usize,
    /// Requests under way.
    pub(super) requests: usize,
}

/// An open file, closed when nobody needs it any more.
struct Open {
    session: Arc<Session>,
    handle: Bytes,
}

impl Open {
    async fn close(self) -> Result<()> {
        Ok(self.session.ask(IDLE, CLOSE, |request| request.text(&self.handle)).await?.done()?)
    }

    /// Closes without waiting for what the server says to that.
    async fn forget(&self) {
        drop(tokio::time::timeout(ANSWER, self.session.send(CLOSE, |request| request.text(&self.handle))).await);
    }
}

/// What was asked for: so many bytes from there.
struct Asked {
    from: u64,
    size: usize,
    pending: Pending,
}

pub(super) struct Download {
    file: Option<Open>,
    ahead: Ahead,
    asked: VecDeque<Asked>,
    /// Where the next request begins.
    next: u64,
    /// Whether somebody has seen the end of the file.
    ended: bool,
    /// How many requests are worth while: grows with what comes, so that a small file costs few.
    window: usize,
}

impl Download {
    pub(super) fn new(session: Arc<Session>, handle: Bytes, offset: u64, ahead: Ahead) -> Self {
        let file = Some(Open { session, handle });
        Self { file, ahead, asked: VecDeque::new(), next: offset, ended: false, window: 2 }
    }

    async fn ask(&mut self, from: u64, size: usize) -> Result<Option<Asked>> {
        let Some(Open { session, handle }) = &self.file else { return Ok(None) };
        let sent = session.send(READ, |request| request.text(handle).offset(from).number(size as u32)).await;
        Ok(Some(Asked { from, size, pending: sent? }))
    }
}

#[async_trait]
impl Reading for Download {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        while !self.ended && self.asked.len() < self.window.min(self.ahead.requests) {
            let Some(asked) = self.ask(self.next, self.ahead.chunk).await? else { return Ok(None) };
            self.next += asked.size as u64;
            self.asked.push_back(asked);
        }
        self.window += 2;
        let Some(Asked { from, size, pending }) = self.asked.pop_front() else { return Ok(None) };
        match pending.within(IDLE).await?.data()? {
            Some(bytes) if !bytes.is_empty() && bytes.len() <= size => {
                // A server may send less than was asked for; the rest is the next that is needed.
                let (from, left) = (from + bytes.len() as u64, size - bytes.len());
                if left > 0
                    && let Some(rest) = self.ask(from, left).await?
                {
                    self.asked.push_front(rest);
                }
                Ok(Some(bytes))
            }
            Some(_) => Err(Error::other("sftp: the server sent another number of bytes than was asked for")),
            None => {
                // What was asked for behind the end is told the same.
                self.ended = true;
                self.asked.clear();
                if let Some(file) = self.file.take() {
                    file.close().await?;
                }
                Ok(None)
            }
        }
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        // Not read to its end. Without a runtime the process ends, and the connection with it.
        if let (Some(file), Ok(runtime)) = (self.file.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move { file.forget().await });
        }
    }
}

pub(super) struct Upload {
    file: Open,
    path: Vec<u8>,
    ahead: Ahead,
    sent: VecDeque<Pending>,
    at: u64,
    /// The time that the file gets; the server's own otherwise.
    began: Option<Timestamp>,
}

impl Upload {
    pub(super) fn new(session: Arc<Session>, handle: Bytes, path: &str, ahead: Ahead, times: bool) -> Self {
        let file = Open { session, handle };
        let began = times.then(Timestamp::now);
        Self { file, path: path.as_bytes().to_vec(), ahead, sent: VecDeque::new(), at: 0, began }
    }

    /// Waits until fewer than so many requests are under way.
    async fn settle(&mut self, fewer: usize) -> Result<()> {
        while self.sent.len() >= fewer {
            let Some(oldest) = self.sent.pop_front() else { break };
            if let Err(fault) = oldest.within(IDLE).await.and_then(Reply::done) {
                return Err(explained(&self.file.session, &self.path, fault).await);
            }
        }
        Ok(())
    }

    async fn put(&mut self, bytes: &[u8]) -> Result<()> {
        for chunk in bytes.chunks(self.ahead.chunk) {
            self.settle(self.ahead.requests).await?;
            let Open { session, handle } = &self.file;
            let send = session.send(WRITE, |request| request.text(handle).offset(self.at).text(chunk));
            let pending = tokio::time::timeout(IDLE, send)
                .await
                .map_err(|_| Error::new(Cause::Unreachable, "sftp: the server takes no more bytes"))??;
            self.sent.push_back(pending);
            self.at += chunk.len() as u64;
        }
        Ok(())
    }

    /// Has the server put the bytes on its disk, if it can.
    async fn sync(&self) -> Result<()> {
        let Open { session, handle } = &self.file;
        if !session.offers(Extension::Sync) {
            return Ok(());
        }
        let asked = session.ask(IDLE, EXTENDED, |request| request.text(Extension::Sync.name()).text(handle)).await?;
        match asked.done() {
            // What is offered does not always exist.
            Err(fault) if fault.is_unsupported() => Ok(()),
            Err(fault) => Err(explained(session, &self.path, fault).await),
            Ok(()) => Ok(()),
        }
    }
}

#[async_trait]
impl Writing for Upload {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.put(&bytes).await
    }

    async fn close(mut self: Box<Self>) -> Result<()> {
        self.settle(1).await?;
        self.sync().await?;
        if let Some(began) = self.began {
            let Open { session, handle } = &self.file;
            let set = session.ask(IDLE, FSETSTAT, |request| times(request.text(handle), began)).await?;
            // Not every server lets times be set; its own will do.
            drop(set.done());
        }
        self.file.close().await
    }

    async fn abort(self: Box<Self>) {
        self.file.forget().await;
    }
}
