//! Requests: where they go, how often they are sent, and what the answers mean.

use std::time::{Duration, Instant};

use futures::TryStreamExt;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::HeaderMap;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};
use tokio::time::{sleep, timeout};
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::listing::{self, Found};
use crate::error::{Cause, Error, Result};

/// One question and its answer.
const ANSWER: Duration = Duration::from_secs(10);
/// A listing, which takes a server its time when the directory is large.
const LISTING: Duration = Duration::from_mins(2);
/// How long a question may fail before that is told.
const PATIENCE: Duration = Duration::from_secs(25);
const PAUSE: Duration = Duration::from_millis(300);

/// What stands in a path as it is. Everything else is encoded: other servers read reserved letters in other ways.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[derive(Clone)]
pub(super) struct Requests {
    pub(super) client: Client,
    /// For uploads of any length.
    pub(super) streams: Client,
    /// Ends in a slash.
    pub(super) base: Url,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    pub(super) headers: HeaderMap,
}

/// What a request has besides its address.
#[derive(Default)]
pub(super) struct Extra<'a> {
    /// Where to move to, and whether over what is there.
    pub(super) destination: Option<(&'a str, bool)>,
    /// For work that takes longer than an answer.
    pub(super) limit: Option<Duration>,
}

/// What a server said.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: String,
    /// The request was sent more than once.
    pub(super) repeated: bool,
}

impl From<&Response> for Answer {
    fn from(response: &Response) -> Self {
        Self { status: response.status(), body: String::new(), repeated: false }
    }
}

/// Reads the address of a tree.
///
/// # Errors
/// When it is none of HTTP.
pub(super) fn address(text: &str) -> Result<Url> {
    let mut url = Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or_else(|| Error::other(format!("webdav: url {text:?} is not an address of http or https")))?;
    let path = format!("{}/", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Ok(url)
}

/// How often and how long one question is asked.
struct Tries {
    began: Instant,
    tried: u32,
    patience: Duration,
}

impl Tries {
    fn new(patience: Duration) -> Self {
        Self { began: Instant::now(), tried: 0, patience }
    }

    fn left(&self) -> Duration {
        self.patience.saturating_sub(self.began.elapsed()).max(Duration::from_millis(1))
    }

    /// Waits for the next try; false when there is none.
    async fn next(&mut self, asked: Option<Duration>) -> bool {
        self.tried += 1;
        let pause = asked.unwrap_or_else(|| PAUSE * (1 << self.tried.min(4)));
        if self.began.elapsed() + pause >= self.patience {
            return false;
        }
        sleep(pause).await;
        true
    }
}

impl Requests {
    pub(super) fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        let parts: Vec<_> = path.split('/').map(|part| utf8_percent_encode(part, PLAIN).to_string()).collect();
        // A slash at the end is how some servers tell a directory from a file.
        let path = format!("{}{}", self.base.path(), parts.join("/").trim_start_matches('/'));
        url.set_path(&path);
        url
    }

    fn request(&self, method: &str, url: Url) -> RequestBuilder {
        let method = Method::from_bytes(method.as_bytes()).unwrap_or(Method::GET);
        self.with_login(self.client.request(method, url))
    }

    /// An upload that may take its time.
    pub(super) fn upload(&self, path: &str) -> RequestBuilder {
        self.with_login(self.streams.put(self.url(path)))
    }

    fn with_login(&self, request: RequestBuilder) -> RequestBuilder {
        let request = request.headers(self.headers.clone());
        match &self.user {
            Some(user) => request.basic_auth(user, self.password.as_ref()),
            None => request,
        }
    }

    /// Sends a request that may be sent again, and does so while the server is out of reach, busy or has the path locked.
    pub(super) async fn ask(&self, method: &str, path: &str, extra: &Extra<'_>) -> Result<Answer> {
        let mut tries = Tries::new(PATIENCE.max(extra.limit.unwrap_or_default()));
        loop {
            let mut request = self.request(method, self.url(path));
            if let Some((destination, replace)) = extra.destination {
                request = request.header("Destination", self.url(destination).as_str());
                request = request.header("Overwrite", if replace { "T" } else { "F" });
            }
            let sent = request.timeout(extra.limit.unwrap_or(ANSWER).min(tries.left())).send().await;
            let repeated = tries.tried > 0;
            match sent {
                Ok(response) => {
                    let (status, asked) = (response.status(), asked_to_wait(&response));
                    // Words about a refusal; those that do not come are not missed.
                    let body = response.text().await.unwrap_or_default();
                    if !is_passing(status) || !tries.next(asked).await {
                        return Ok(Answer { status, body, repeated });
                    }
                }
                Err(error) => {
                    let error = broken(&error);
                    // A connection that cannot be made says so for half a minute and not for five.
                    if tries.began.elapsed() >= PATIENCE && error.is(Cause::Unreachable) {
                        return Err(error);
                    }
                    if !is_worth_it(&error) || !tries.next(None).await {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// What is known about a path, or about what is in it; `None` when nothing is there.
    pub(super) async fn propfind(&self, path: &str, depth: &str) -> Result<Option<Vec<Found>>> {
        let limit = if depth == "0" { ANSWER } else { LISTING };
        let mut tries = Tries::new(PATIENCE.max(limit));
        loop {
            let request = self.request("PROPFIND", self.url(path)).header("Depth", depth);
            let request = request.header("Content-Type", "application/xml").body(listing::QUESTION);
            let (error, asked) = match request.timeout(limit.min(tries.left())).send().await {
                Ok(response) if response.status() == StatusCode::MULTI_STATUS => {
                    match self.read_listing(path, response).await {
                        Ok(found) => return Ok(Some(found)),
                        Err(error) => (error, None),
                    }
                }
                Ok(response) => match response.status() {
                    StatusCode::NOT_FOUND | StatusCode::CONFLICT => return Ok(None),
                    status if status.is_success() => {
                        let text = "webdav: something else than a WebDAV server answers at this address";
                        return Err(Error::other(text));
                    }
                    status if is_passing(status) => {
                        (refused("PROPFIND", &Answer::from(&response)), asked_to_wait(&response))
                    }
                    _ => return Err(refused("PROPFIND", &Answer::from(&response))),
                },
                Err(error) => (broken(&error), None),
            };
            let dead = tries.began.elapsed() >= PATIENCE;
            if dead || !is_worth_it(&error) || !tries.next(asked).await {
                return Err(error);
            }
        }
    }

    /// Reads a listing as it comes: its text would be ten times as large as what it says.
    async fn read_listing(&self, path: &str, response: Response) -> Result<Vec<Found>> {
        let asked = self.url(path);
        let body =
            SyncIoBridge::new(StreamReader::new(Box::pin(response.bytes_stream().map_err(std::io::Error::other))));
        let read = tokio::task::spawn_blocking(move || listing::read(body, &asked));
        read.await.unwrap_or_else(|_| Err(Error::other("webdav: the listing was not read to its end")))
    }

    /// Begins to receive a file. What follows the head of the answer may take as long as it likes.
    pub(super) async fn get(&self, path: &str, offset: u64) -> Result<Response> {
        let mut tries = Tries::new(PATIENCE);
        loop {
            let mut request = self.request("GET", self.url(path)).header("Accept-Encoding", "identity");
            if offset > 0 {
                request = request.header("Range", format!("bytes={offset}-"));
            }
            let (error, asked) = match timeout(ANSWER.min(tries.left()), request.send()).await {
                Ok(Ok(response)) if is_passing(response.status()) => {
                    (refused("GET", &Answer::from(&response)), asked_to_wait(&response))
                }
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(error)) => (broken(&error), None),
                Err(_) => {
                    (Error::new(Cause::Unreachable, format!("no answer within {} seconds", ANSWER.as_secs())), None)
                }
            };
            if !is_worth_it(&error) || !tries.next(asked).await {
                return Err(error);
            }
        }
    }

    /// Sends a small file.
    pub(super) async fn put(&self, path: &str, body: bytes::Bytes) -> Result<()> {
        let mut tries = Tries::new(PATIENCE);
        loop {
            let request = self.request("PUT", self.url(path)).timeout(PATIENCE * 2).body(body.clone());
            let Err(error) = stored(request.send().await) else { return Ok(()) };
            if !is_worth_it(&error) || !tries.next(None).await {
                return Err(error);
            }
        }
    }
}

#[cfg(test)]
impl Requests {
    pub(super) fn to(base: &str, client: Client) -> Self {
        let streams = crate::storage::http::client_for_streams(true).unwrap();
        Self { client, streams, base: address(base).unwrap(), user: None, password: None, headers: HeaderMap::new() }
    }
}

/// What the answer to an upload means.
pub(super) fn stored(outcome: reqwest::Result<Response>) -> Result<()> {
    match outcome {
        Ok(response) if response.status().is_success() => Ok(()),
        Ok(response) => Err(refused("PUT", &Answer::from(&response))),
        Err(error) => Err(broken(&error)),
    }
}

/// Passes by itself, perhaps.
fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 423 | 429 | 500 | 502 | 503 | 504)
}

fn is_worth_it(error: &Error) -> bool {
    error.is(Cause::Unreachable) || error.is(Cause::Dns)
}

fn asked_to_wait(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get("retry-after")?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// A connection that failed.
pub(super) fn broken(error: &reqwest::Error) -> Error {
    let mut text = String::new();
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(inner) = source {
        if !text.is_empty() {
            text += ": ";
        }
        text += &inner.to_string();
        source = inner.source();
    }
    let cause = if text.contains("dns: ") {
        Cause::Dns
    } else if ["certificate", "HandshakeFailure", "InvalidContentType"].iter().any(|word| text.contains(word)) {
        Cause::Tls
    } else {
        Cause::Unreachable
    };
    Error::new(cause, format!("webdav: {text}"))
}

/// A server's refusal.
pub(super) fn refused(method: &str, answer: &Answer) -> Error {
    let cause = match answer.status.as_u16() {
        401 | 403 => Cause::AccessDenied,
        404 | 409 | 410 => Cause::NotFound,
        507 => Cause::NoSpace,
        _ if is_passing(answer.status) => Cause::Unreachable,
        _ => Cause::Other,
    };
    Error::new(cause, format!("webdav: {method}: the server answered with status {}", answer.status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_arrive_as_they_are() {
        let requests = Requests::to("http://h/dav%20x", crate::storage::http::client(true).unwrap());
        for (path, url) in [
            ("", "http://h/dav%20x/"),
            ("a b/ü%2F", "http://h/dav%20x/a%20b/%C3%BC%252F"),
            ("tab\tline\n", "http://h/dav%20x/tab%09line%0A"),
            ("?a#b&c;d/", "http://h/dav%20x/%3Fa%23b%26c%3Bd/"),
            ("..dots/back\\slash", "http://h/dav%20x/..dots/back%5Cslash"),
        ] {
            assert_eq!(requests.url(path).as_str(), url);
        }
    }

    #[test]
    fn refusals_have_causes() {
        for (status, cause) in [
            (401, Cause::AccessDenied),
            (403, Cause::AccessDenied),
            (404, Cause::NotFound),
            (507, Cause::NoSpace),
            (503, Cause::Unreachable),
            (418, Cause::Other),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let answer = Answer { status, body: String::new(), repeated: false };
            assert_eq!(refused("PUT", &answer).cause, cause, "{status}");
        }
    }
}
