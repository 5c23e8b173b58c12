//! Names and plain connections, without a C library: see [`super::http`]. The clients of databases use them too.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::error::{Cause, Error, Result};

/// A connection that is not accepted within this time counts as a failed try.
const CONNECT: Duration = Duration::from_secs(4);
/// Routers forget connections that rest, and those of a control channel do while data flows beside them.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Resolves names by the pod's `/etc/resolv.conf`.
#[derive(Clone)]
pub(crate) struct Resolver(Option<TokioResolver>);

impl Resolver {
    /// # Errors
    /// When `/etc/resolv.conf` cannot be understood.
    pub(crate) fn new() -> Result<Self> {
        // Without a resolver configuration only addresses can be reached, as in any program.
        let Ok(mut builder) = TokioResolver::builder_tokio() else { return Ok(Self(None)) };
        let options = builder.options_mut();
        options.timeout = Duration::from_secs(3);
        options.attempts = 2;
        options.ip_strategy = hickory_resolver::config::LookupIpStrategy::Ipv4AndIpv6;
        builder
            .build()
            .map(|resolver| Self(Some(resolver)))
            .map_err(|error| Error::other(format!("/etc/resolv.conf: {error}")))
    }

    pub(super) async fn addresses(&self, name: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
        if let Ok(address) = name.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let Some(resolver) = &self.0 else {
            return Err(format!("dns: {name} cannot be resolved without /etc/resolv.conf"));
        };
        let found =
            resolver.lookup_ip(name).await.map_err(|error| format!("dns: {name} cannot be resolved: {error}"))?;
        Ok(found.iter().map(|ip| SocketAddr::new(ip, port)).collect())
    }
}

/// Where a server is.
#[derive(Clone)]
pub(crate) struct Endpoint {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) resolver: Resolver,
}

impl Endpoint {
    /// Connects to the first address that answers.
    ///
    /// # Errors
    /// [`Cause::Dns`], [`Cause::Unreachable`].
    pub(crate) async fn connect(&self) -> Result<TcpStream> {
        let addresses =
            self.resolver.addresses(&self.host, self.port).await.map_err(|error| Error::new(Cause::Dns, error))?;
        let mut last = "it has no address".to_owned();
        for address in addresses {
            match timeout(CONNECT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    tend(&stream);
                    return Ok(stream);
                }
                Ok(Err(error)) => last = format!("{address}: {}", crate::error::reason(&error)),
                Err(_) => last = format!("{address}: no answer within {} seconds", CONNECT.as_secs()),
            }
        }
        Err(Error::new(Cause::Unreachable, format!("{} cannot be reached: {last}", self.host)))
    }
}

/// Neither delay small messages nor let the connection be forgotten. Only helps, so a refusal is no error.
pub(super) fn tend(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}
