//! Bodies: sent as they come, whatever their size, and received from an offset.

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::{Body, Response};
use tokio::sync::mpsc::{Sender, channel};
use tokio::task::JoinHandle;

use super::{WebDav, broken, refused};
use crate::error::{Cause, Error, Result};
use crate::storage::tree::{Reading, Writing};

/// Up to this size a body is sent whole, with its length: again when that fails, and to servers that take no other.
const SMALL: usize = 4 << 20;
/// Buffers between us and the connection.
const DEPTH: usize = 4;

pub(super) struct Download {
    response: Response,
    /// A server without ranges sends again what is here already.
    skip: u64,
}

impl Download {
    pub(super) fn new(response: Response, skip: u64) -> Self {
        Self { response, skip }
    }
}

#[async_trait]
impl Reading for Download {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let Some(mut bytes) = self.response.chunk().await.map_err(|error| broken(&error))? else { return Ok(None) };
            let skipped = self.skip.min(bytes.len() as u64);
            self.skip -= skipped;
            drop(bytes.split_to(skipped as usize));
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
    }
}

/// Behind the end of a file.
pub(super) struct Nothing;

#[async_trait]
impl Reading for Nothing {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        Ok(None)
    }
}

pub(super) struct Upload {
    webdav: WebDav,
    path: String,
    whole: Vec<Bytes>,
    size: usize,
    stream: Option<Stream>,
}

/// A body under way.
struct Stream {
    to: Sender<std::io::Result<Bytes>>,
    request: JoinHandle<Result<()>>,
}

impl Upload {
    pub(super) fn new(webdav: WebDav, path: &str) -> Self {
        Self { webdav, path: path.to_owned(), whole: Vec::new(), size: 0, stream: None }
    }

    async fn feed(&mut self, bytes: Bytes) -> Result<()> {
        let stream = self.stream.get_or_insert_with(|| {
            let (to, mut from) = channel(DEPTH);
            let body = Body::wrap_stream(futures::stream::poll_fn(move |context| from.poll_recv(context)));
            let request = self.webdav.request("PUT", self.webdav.url(&self.path)).body(body);
            Stream { to, request: tokio::spawn(async move { stored(request.send().await) }) }
        });
        if stream.to.send(Ok(bytes)).await.is_ok() {
            return Ok(());
        }
        // The request has ended before its body.
        let ended = self.stream.take().map(|stream| stream.request);
        match ended {
            Some(request) => answer(request).await.and(Err(Error::other("webdav: PUT: the server ended the transfer"))),
            None => Ok(()),
        }
    }

    /// Sends a small body, again when that fails in passing.
    async fn send_whole(&self) -> Result<()> {
        let body = Bytes::from(self.whole.concat());
        let mut tried = 0;
        loop {
            let request =
                self.webdav.request("PUT", self.webdav.url(&self.path)).timeout(super::WORK).body(body.clone());
            let outcome = stored(request.send().await);
            tried += 1;
            match outcome {
                Err(error) if error.is(Cause::Unreachable) && tried < super::TRIES => {
                    tokio::time::sleep(super::PAUSE * (1 << tried)).await;
                }
                other => return other,
            }
        }
    }
}

fn stored(outcome: reqwest::Result<Response>) -> Result<()> {
    match outcome {
        Ok(response) if response.status().is_success() => Ok(()),
        Ok(response) => Err(refused("PUT", &response)),
        Err(error) => Err(broken(&error)),
    }
}

async fn answer(request: JoinHandle<Result<()>>) -> Result<()> {
    request.await.unwrap_or_else(|_| Err(Error::other("webdav: the sending task has died")))
}

#[async_trait]
impl Writing for Upload {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.size += bytes.len();
        if self.stream.is_some() {
            return self.feed(bytes).await;
        }
        self.whole.push(bytes);
        if self.size > SMALL {
            for bytes in std::mem::take(&mut self.whole) {
                self.feed(bytes).await?;
            }
        }
        Ok(())
    }

    async fn close(mut self: Box<Self>) -> Result<()> {
        let Some(Stream { to, request }) = self.stream.take() else { return self.send_whole().await };
        drop(to);
        answer(request).await
    }

    async fn abort(mut self: Box<Self>) {
        if let Some(Stream { to, request }) = self.stream.take() {
            // An error in the body ends the connection; a mere end would look like the end of the file.
            let _ = to.send(Err(std::io::ErrorKind::ConnectionAborted.into())).await;
            let _ = request.await;
        }
    }
}
