//! The embedded S3 endpoint: a directory of plain files, one access key, nothing acknowledged before it is durable.
//!
//! Layout: `<root>/<bucket>/<key>` is the object. `<root>/.kbbackup-serve` holds what is not an object yet; it is emptied
//! at each start, so clients whose upload was cut by a restart begin it anew. Versions, user metadata and keys that are
//! both an object and a directory are not kept.

mod disk;
mod listing;
mod s3;
mod transfer;
mod uploads;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use s3s::auth::{S3Auth, SecretKey};
use s3s::service::S3ServiceBuilder;
use s3s::{S3Result, s3_error};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::error::{Error, Result};
use crate::signal::Stop;

use disk::Disk;
use uploads::Uploads;

/// How long open requests may go on after the signal to stop.
const GRACE: Duration = Duration::from_secs(20);
/// Uploads that nobody touched for so long are given up.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

/// What an endpoint needs to know.
pub(crate) struct Settings {
    pub(crate) root: PathBuf,
    pub(crate) listen: SocketAddr,
    pub(crate) health: Option<SocketAddr>,
    pub(crate) access_key: String,
    pub(crate) secret_key: String,
    /// Buckets that are made when they are missing.
    pub(crate) buckets: Vec<String>,
}

/// The only key that opens the endpoint.
struct OneKey {
    id: String,
    secret: SecretKey,
}

#[async_trait::async_trait]
impl S3Auth for OneKey {
    async fn get_secret_key(&self, id: &str) -> S3Result<SecretKey> {
        if id == self.id { Ok(self.secret.clone()) } else { Err(s3_error!(InvalidAccessKeyId)) }
    }
}

/// Serves until a signal. Calls `ready` with the address once requests are accepted.
///
/// # Errors
/// When the directory or the address cannot be used.
pub(crate) async fn run(settings: Settings, ready: impl FnOnce(SocketAddr)) -> Result<()> {
    let mut stop = Stop::listen()?;
    let disk = Arc::new(Disk::open(settings.root)?);
    for bucket in &settings.buckets {
        disk.create_bucket(bucket).map_err(|error| Error::other(format!("bucket {bucket}: {error}")))?;
    }
    let uploads = Arc::new(Uploads::default());
    let mut builder = S3ServiceBuilder::new(s3::Endpoint { disk, uploads: uploads.clone() });
    builder.set_auth(OneKey { id: settings.access_key, secret: settings.secret_key.into() });
    let service = builder.build();

    let bind = |address: SocketAddr| async move {
        TcpListener::bind(address).await.map_err(|error| Error::other(format!("listen on {address}: {error}")))
    };
    let listener = bind(settings.listen).await?;
    let address = listener.local_addr().map_err(|error| Error::other(error.to_string()))?;
    if let Some(health) = settings.health {
        tokio::spawn(answer_probes(bind(health).await?));
    }
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            uploads.forget_idle(ABANDONED);
        }
    });
    ready(address);

    let server = Builder::new(TokioExecutor::new());
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            _ = stop.asked() => break,
            accepted = listener.accept() => accepted,
        };
        // Running out of file handles passes; the listener itself is fine.
        let Ok((socket, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let _ = socket.set_nodelay(true);
        let connection = server.serve_connection(TokioIo::new(socket), service.clone());
        let connection = graceful.watch(connection.into_owned());
        tokio::spawn(async move {
            // A client that hangs up is not our trouble.
            let _ = connection.await;
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(GRACE, graceful.shutdown()).await;
    Ok(())
}

/// Answers every probe with 200: a process that accepts requests is alive and ready.
async fn answer_probes(listener: TcpListener) {
    while let Ok((mut socket, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut request = [0; 1024];
            let _ = socket.read(&mut request).await;
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nok\n").await;
        });
    }
}
