//! The two small servers of the process: health on one address, metrics on the other.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Status code, content type and body.
pub type Answer = (StatusCode, &'static str, String);

/// A client that does not send its request in this time is not a prober.
const PATIENCE: Duration = Duration::from_secs(10);
/// Probes and scrapes are few; more connections than this are somebody else's.
const CONNECTIONS: usize = 32;

/// Answers GET requests on `address` with what `answer` says about the path, until dropped.
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve(
    address: SocketAddr,
    answer: impl Fn(&str) -> Answer + Send + Sync + 'static,
) -> std::io::Result<Infallible> {
    let listener = TcpListener::bind(address).await?;
    let answer = Arc::new(answer);
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return Err(std::io::ErrorKind::Other.into()) };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, say: a busy loop would make it worse.
                tracing::debug!(%error, %address, "connection was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let answer = Arc::clone(&answer);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let response = respond(&request, answer.as_ref());
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::trace!(%error, "connection ended");
            }
            drop(slot);
        });
    }
}

fn respond(request: &Request<Incoming>, answer: &dyn Fn(&str) -> Answer) -> Response<Full<Bytes>> {
    let (status, kind, body) = if request.method() == Method::GET || request.method() == Method::HEAD {
        answer(request.uri().path())
    } else {
        (StatusCode::METHOD_NOT_ALLOWED, "text/plain", "GET only\n".to_owned())
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

/// The answer to an unknown path.
pub fn not_found() -> Answer {
    (StatusCode::NOT_FOUND, "text/plain", "not here\n".to_owned())
}
