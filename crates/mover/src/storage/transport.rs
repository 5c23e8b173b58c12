//! How long a store may take to answer. OpenDAL counts tries; here the time is counted, for all tries together: since when
//! has nothing succeeded any more? Beyond that a failure is final.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime};

use futures::Stream;
use hyper::{Method, Request, Response, StatusCode, header};
use opendal::{Buffer, Error, ErrorKind, HttpBody, HttpTransport, Result};
use opendal_http_transport_reqwest::ReqwestTransport;
use tokio::sync::Notify;
use tokio::time::{Sleep, sleep, timeout};

/// How long to wait for one kind of client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For the answer to a request, beside the time that its body takes.
    pub(super) answer: Duration,
    /// For work that a server does inside: copying, putting parts together, removing many objects.
    pub(super) work: Duration,
    /// For a success, over all tries.
    pub(super) total: Duration,
    /// Bytes per second that even a slow line carries: a large body may take its time.
    pub(super) slowest: u64,
}

impl Patience {
    /// For questions, and for the first sign of life: a dead endpoint is named within half a minute.
    pub(super) const QUICK: Self = Self {
        answer: Duration::from_secs(8),
        work: Duration::from_secs(20),
        total: Duration::from_secs(20),
        slowest: 64 << 10,
    };
    /// For the middle of a long transfer: rides out a server's restart.
    pub(super) const LONG: Self = Self {
        answer: Duration::from_secs(60),
        work: Duration::from_secs(300),
        total: Duration::from_secs(300),
        slowest: 64 << 10,
    };

    fn allows(self, request: &Request<Buffer>) -> Duration {
        let query = request.uri().query().unwrap_or_default();
        // Beginning an upload is a POST as well, but no work.
        let works = request.method() == Method::POST && !query.starts_with("uploads")
            || request.headers().contains_key("x-amz-copy-source");
        let base = if works { self.work } else { self.answer };
        base + Duration::from_secs(request.body().len() as u64 / self.slowest)
    }
}

/// Wakes requests that are under way, so that they fail: see [`cut_off`].
static CUT: Notify = Notify::const_new();

/// Fails every request that is under way, and no later one. Dropping an upload in the middle instead would lose its
/// name, which is needed to abort it.
pub(crate) fn cut_off() {
    CUT.notify_waiters();
}

/// Since when nothing has succeeded.
#[derive(Debug, Default)]
struct Health(Mutex<Option<Instant>>);

impl Health {
    fn failing(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn well(&self) {
        *self.failing() = None;
    }

    /// What is left of the patience, for a request that began then.
    fn left(&self, total: Duration, began: Instant) -> Duration {
        total.saturating_sub(self.failing().unwrap_or(began).elapsed())
    }

    /// Marks an error as final when the patience is at its end. Whoever tries again after that begins anew.
    fn failed(&self, error: Error, total: Duration, began: Instant) -> Error {
        let mut failing = self.failing();
        // Timers wake a little late or early.
        if failing.get_or_insert(began).elapsed() + Duration::from_millis(100) < total {
            return error;
        }
        *failing = None;
        error.set_permanent()
    }
}

/// Sends requests with patience.
pub(super) struct Transport {
    inner: ReqwestTransport,
    patience: Patience,
    health: Arc<Health>,
}

impl Transport {
    pub(super) fn new(client: reqwest::Client, patience: Patience) -> Self {
        Self { inner: ReqwestTransport::new(client), patience, health: Arc::default() }
    }

    fn failed(&self, error: Error, began: Instant) -> Error {
        self.health.failed(error, self.patience.total, began)
    }

    async fn try_once(&self, request: Request<Buffer>, began: Instant) -> Result<Response<HttpBody>> {
        let allowed = self.patience.allows(&request).min(self.health.left(self.patience.total, began));
        match timeout(allowed, self.inner.fetch(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(self.failed(error, began)),
            Err(_) => {
                let text = format!("no answer within {} seconds", allowed.as_secs().max(1));
                Err(self.failed(Error::new(ErrorKind::Unexpected, text).set_temporary(), began))
            }
        }
    }

    /// Sends a request again as long as the server names a time for that and the patience allows it.
    async fn fetch_patiently(&self, request: Request<Buffer>) -> Result<Response<HttpBody>> {
        let began = Instant::now();
        let is_head = request.method() == Method::HEAD;
        let may_be_page = shows_object(&request);
        loop {
            let again = copy(&request);
            let response = self.try_once(again, began).await?;
            if !is_busy(response.status()) {
                if !may_be_page && is_page(&response) {
                    let text = "the answer is a web page: something else than a store answers at this address";
                    return Err(Error::new(ErrorKind::Unexpected, text));
                }
                if is_head || response.headers().get(header::CONTENT_LENGTH).is_some_and(|size| size == "0") {
                    self.health.well();
                }
                return Ok(self.watched(response));
            }
            // Counts as a failure; whether the error is final only matters where no time is named.
            drop(self.failed(Error::new(ErrorKind::RateLimited, "busy"), began));
            let Some(wait) = asked_to_wait(&response) else { return Ok(self.watched(response)) };
            if wait > self.health.left(self.patience.total, began) {
                return Err(busy(response, wait).await);
            }
            sleep(wait).await;
        }
    }

    fn watched(&self, response: Response<HttpBody>) -> Response<HttpBody> {
        let (health, idle, total) = (self.health.clone(), self.patience.answer, self.patience.total);
        let counts = response.status().is_success();
        response.map(|body| {
            body.map_inner(|inner| Box::new(Watched { inner, health, idle, total, counts, timer: None, began: None }))
        })
    }
}

impl HttpTransport for Transport {
    async fn fetch(&self, request: Request<Buffer>) -> Result<Response<HttpBody>> {
        tokio::select! {
            biased;
            () = CUT.notified() => Err(Error::new(ErrorKind::Unexpected, "the request was cut off").set_permanent()),
            answer = self.fetch_patiently(request) => answer,
        }
    }
}

fn copy(request: &Request<Buffer>) -> Request<Buffer> {
    let mut again = Request::new(request.body().clone());
    request.method().clone_into(again.method_mut());
    request.uri().clone_into(again.uri_mut());
    request.headers().clone_into(again.headers_mut());
    *again.version_mut() = request.version();
    request.extensions().clone_into(again.extensions_mut());
    again
}

fn is_busy(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 500 | 502 | 503 | 504)
}

/// Whether the answer may be of any kind, because it is an object, or describes one. Objects are read by ranges; whatever
/// else is asked for is answered by XML, by JSON or by nothing.
fn shows_object(request: &Request<Buffer>) -> bool {
    request.method() == Method::HEAD || request.method() == Method::GET && request.headers().contains_key(header::RANGE)
}

/// A page where a list or a receipt should be: it would be taken for an empty list, or for a success.
fn is_page(response: &Response<HttpBody>) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    response.status().is_success() && kind.starts_with("text/html")
}

/// `Retry-After`, in seconds or as a date.
fn asked_to_wait(response: &Response<HttpBody>) -> Option<Duration> {
    let text = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(SystemTime::from(date).duration_since(SystemTime::now()).unwrap_or_default())
}

/// The error of a server that asks for more patience than there is.
async fn busy(response: Response<HttpBody>, wait: Duration) -> Error {
    let (parts, mut body) = response.into_parts();
    let body = body.to_buffer().await.map(|body| body.to_vec()).unwrap_or_default();
    let body = String::from_utf8_lossy(&body);
    let element = |name: &str| {
        let (_, rest) = body.split_once(&format!("<{name}>"))?;
        rest.split_once('<').map(|(text, _)| format!(" {text}"))
    };
    let words = element("Code").unwrap_or_default() + &element("Message").unwrap_or_default();
    Error::new(
        ErrorKind::RateLimited,
        format!("the server is busy and asks to wait {} seconds: {}{words}", wait.as_secs(), parts.status.as_str()),
    )
}

/// A body that may not stop for long.
struct Watched {
    inner: Box<dyn Stream<Item = Result<Buffer>> + Send + Sync + Unpin + 'static>,
    health: Arc<Health>,
    idle: Duration,
    total: Duration,
    /// Whether its bytes are a success.
    counts: bool,
    /// Runs while somebody waits for bytes.
    timer: Option<Pin<Box<Sleep>>>,
    began: Option<Instant>,
}

impl Stream for Watched {
    type Item = Result<Buffer>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let began = *this.began.get_or_insert_with(Instant::now);
        if let Poll::Ready(item) = Pin::new(&mut this.inner).poll_next(cx) {
            this.timer = None;
            this.began = None;
            return Poll::Ready(match item {
                Some(Err(error)) => Some(Err(this.health.failed(error, this.total, began))),
                other => {
                    if this.counts {
                        this.health.well();
                    }
                    other
                }
            });
        }
        let wait = this.idle.min(this.health.left(this.total, began));
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep(wait)));
        ready!(timer.as_mut().poll(cx));
        this.timer = None;
        let text = format!("the answer stopped for {} seconds", began.elapsed().as_secs());
        let error = Error::new(ErrorKind::Unexpected, text).set_temporary();
        Poll::Ready(Some(Err(this.health.failed(error, this.total, began))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(retry_after: &str) -> Response<HttpBody> {
        let body = HttpBody::new(futures::stream::empty(), None);
        Response::builder().status(503).header("retry-after", retry_after).body(body).unwrap()
    }

    #[test]
    fn servers_say_how_long_to_wait_in_two_ways() {
        assert_eq!(asked_to_wait(&response("7")), Some(Duration::from_secs(7)));
        let date = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(60);
        let date = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&date).unwrap();
        let wait = asked_to_wait(&response(&date)).unwrap();
        assert!(wait <= Duration::from_secs(60) && wait > Duration::from_secs(30), "{wait:?}");
        assert_eq!(asked_to_wait(&response("Thu, 01 Jan 1970 00:00:00 GMT")), Some(Duration::ZERO));
        assert_eq!(asked_to_wait(&response("soon")), None);
    }

    #[test]
    fn only_an_object_may_be_a_web_page() {
        let ask = |method: Method, address: &str, range: bool| {
            let mut request = Request::builder().method(method).uri(format!("https://store.test/{address}"));
            if range {
                request = request.header(header::RANGE, "bytes=0-9");
            }
            shows_object(&request.body(Buffer::new()).unwrap())
        };
        // With a token of Azure's in its address, too.
        assert!(ask(Method::GET, "container/object?sv=2024-11-04&sig=x", true));
        assert!(ask(Method::HEAD, "bucket/object", false));
        assert!(!ask(Method::GET, "bucket?list-type=2", false));
        assert!(!ask(Method::GET, "bucket", false));
        assert!(!ask(Method::PUT, "bucket/object", false));
        assert!(!ask(Method::DELETE, "bucket/object", false));
        assert!(!ask(Method::POST, "bucket/object?uploads", false));
    }

    #[test]
    fn failures_become_final_when_the_patience_ends_and_a_success_begins_it_anew() {
        let health = Health::default();
        let error = || Error::new(ErrorKind::Unexpected, "x").set_temporary();
        let total = Duration::from_secs(10);
        let ago = |seconds| Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap();
        assert!(health.failed(error(), total, ago(4)).is_temporary());
        assert!(health.left(total, Instant::now()) <= Duration::from_secs(6));
        *health.failing() = Some(ago(11));
        assert!(!health.failed(error(), total, Instant::now()).is_temporary());
        assert!(health.failed(error(), total, Instant::now()).is_temporary(), "begins anew");
        *health.failing() = Some(ago(11));
        health.well();
        assert!(health.failed(error(), total, Instant::now()).is_temporary());
    }
}
