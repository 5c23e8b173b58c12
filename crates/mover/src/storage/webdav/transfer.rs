//! Bodies: sent as they come, whatever their size, and received from an offset.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::{Body, Response};
use tokio::sync::mpsc::{Sender, channel};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::request::{Requests, broken, stored};
use crate::error::{Cause, Error, Result};
use crate::storage::tree::{Reading, Writing};

/// Up to this size a body is sent whole, with its length: again when that fails, and to servers that take no other.
const SMALL: usize = 4 << 20;
/// Buffers between us and the connection.
const DEPTH: usize = 4;
/// A server that takes no bytes for so long has failed.
const IDLE: Duration = Duration::from_mins(5);
/// How long the end of a request that is given up is waited for.
const GIVE_UP: Duration = Duration::from_secs(2);

pub(super) struct Download {
    response: Response,
    /// Bytes that are here already.
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
    requests: Requests,
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
    pub(super) fn new(requests: Requests, path: &str) -> Self {
        Self { requests, path: path.to_owned(), whole: Vec::new(), size: 0, stream: None }
    }

    async fn feed(&mut self, bytes: Bytes) -> Result<()> {
        let stream = self.stream.get_or_insert_with(|| {
            let (to, mut from) = channel(DEPTH);
            let body = Body::wrap_stream(futures::stream::poll_fn(move |context| from.poll_recv(context)));
            let request = self.requests.upload(&self.path).body(body);
            Stream { to, request: tokio::spawn(async move { stored(request.send().await) }) }
        });
        match timeout(IDLE, stream.to.send(Ok(bytes))).await {
            Ok(Ok(())) => Ok(()),
            Err(_) => Err(Error::new(Cause::Unreachable, "webdav: PUT: the server takes no more bytes")),
            // The request has ended before its body.
            Ok(Err(_)) => match self.stream.take() {
                Some(stream) => {
                    answer(stream.request).await.and(Err(Error::other("webdav: PUT: the server ended the transfer")))
                }
                None => Ok(()),
            },
        }
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
        let Some(Stream { to, request }) = self.stream.take() else {
            return self.requests.put(&self.path, Bytes::from(self.whole.concat())).await;
        };
        drop(to);
        timeout(IDLE, answer(request)).await.unwrap_or_else(|_| {
            Err(Error::new(Cause::Unreachable, "webdav: PUT: the server does not say that it has the whole file"))
        })
    }

    async fn abort(mut self: Box<Self>) {
        let Some(Stream { to, mut request }) = self.stream.take() else { return };
        // An error in the body ends the connection; a mere end would look like the end of the file.
        let failed = to.send(Err(std::io::ErrorKind::ConnectionAborted.into()));
        if timeout(GIVE_UP, failed).await.is_err() || timeout(GIVE_UP, &mut request).await.is_err() {
            request.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Takes one upload to the end of its body, and answers.
    async fn server(listener: TcpListener, answer: &str) -> Vec<u8> {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut text = Vec::new();
        while !text.ends_with(b"\r\n0\r\n\r\n") {
            if stream.read_buf(&mut text).await.unwrap() == 0 {
                return text;
            }
        }
        stream.write_all(format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n").as_bytes()).await.unwrap();
        text
    }

    async fn upload(pause: Duration) -> (tokio::task::JoinHandle<Vec<u8>>, Box<Upload>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let served = tokio::spawn(server(listener, "201 Created"));
        let impatient = reqwest::Client::builder().read_timeout(Duration::from_millis(50)).build().unwrap();
        let mut upload = Box::new(Upload::new(Requests::to(&address, impatient), "x"));
        for _ in 0..6 {
            upload.write(Bytes::from(vec![7; 1 << 20])).await.unwrap();
            tokio::time::sleep(pause).await;
        }
        (served, upload)
    }

    #[tokio::test]
    async fn an_upload_may_take_longer_than_an_answer() {
        crate::storage::http::client(true).unwrap();
        let (served, upload) = upload(Duration::from_millis(100)).await;
        upload.close().await.unwrap();
        assert!(served.await.unwrap().len() > 6 << 20);
    }

    #[tokio::test]
    async fn an_upload_given_up_does_not_look_complete() {
        crate::storage::http::client(true).unwrap();
        let (served, upload) = upload(Duration::ZERO).await;
        upload.abort().await;
        assert!(!served.await.unwrap().ends_with(b"\r\n0\r\n\r\n"));
    }
}
