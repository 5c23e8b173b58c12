//! The HTTP client of all object stores: no C library in the way, so that it works in an empty image.
//!
//! Names are resolved here (a static C library would need files that empty images lack), with the search list and `ndots`
//! of the pod's `/etc/resolv.conf`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Certificate, Client};

use super::certificates;
use super::connect::Resolver;
use crate::error::{Error, Result};

/// A connection that is not accepted within this time counts as a failed try.
const CONNECT: Duration = Duration::from_secs(4);
/// A server that says nothing for so long has failed; a large part may take its time on a slow line.
const IDLE: Duration = Duration::from_mins(5);

/// Builds the client.
///
/// # Errors
/// When a certificate file that was asked for cannot be read.
pub(super) fn client(check_certificate: bool) -> Result<Client> {
    build(check_certificate, Some(IDLE))
}

/// The same for bodies that take as long as they like: the other takes the time until the answer for silence.
///
/// # Errors
/// The same.
pub(super) fn client_for_streams(check_certificate: bool) -> Result<Client> {
    build(check_certificate, None)
}

fn build(check_certificate: bool, idle: Option<Duration>) -> Result<Client> {
    // A second install is refused, which is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let resolver = Resolver::new()?;
    let trusted: Vec<Certificate> =
        certificates::trusted()?.iter().filter_map(|der| Certificate::from_der(der).ok()).collect();
    let builder = match idle {
        Some(idle) => Client::builder().read_timeout(idle),
        None => Client::builder(),
    };
    builder
        .connect_timeout(CONNECT)
        .pool_idle_timeout(Duration::from_secs(30))
        .tcp_keepalive(Duration::from_secs(30))
        .tcp_nodelay(true)
        .dns_resolver(Arc::new(resolver))
        .tls_certs_only(trusted)
        .tls_danger_accept_invalid_certs(!check_certificate)
        .user_agent(concat!("kbbackup-mover/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| Error::other(format!("the HTTP client cannot be set up: {error}")))
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.clone();
        Box::pin(async move {
            let addresses: Vec<SocketAddr> = resolver.addresses(name.as_str(), 0).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}
