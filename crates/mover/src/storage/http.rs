//! The HTTP client of all object stores: no C library in the way, so that it works in an empty image.
//!
//! Names are resolved here (a static C library would need files that empty images lack), with the search list and `ndots`
//! of the pod's `/etc/resolv.conf`. Trusted certificates are the bundled ones, those of `SSL_CERT_FILE` and `SSL_CERT_DIR`,
//! and those in `certs/` beside the executable.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Certificate, Client};

use crate::config::env;
use crate::error::{Error, Result};

/// A connection that is not accepted within this time counts as a failed try.
const CONNECT: Duration = Duration::from_secs(4);
/// A server that says nothing for so long has failed; a large part may take its time on a slow line.
const IDLE: Duration = Duration::from_mins(5);

/// Folder of certificates beside the executable.
pub(crate) const CERTIFICATES: &str = "certs";

/// Builds the client.
///
/// # Errors
/// When a certificate file that was asked for cannot be read.
pub(super) fn client(check_certificate: bool) -> Result<Client> {
    // A second install is refused, which is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let resolver = Resolver::new()?;
    Client::builder()
        .connect_timeout(CONNECT)
        .read_timeout(IDLE)
        .pool_idle_timeout(Duration::from_secs(30))
        .tcp_keepalive(Duration::from_secs(30))
        .tcp_nodelay(true)
        .dns_resolver(Arc::new(resolver))
        .tls_certs_only(trusted()?)
        .tls_danger_accept_invalid_certs(!check_certificate)
        .user_agent(concat!("kbbackup-mover/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| Error::other(format!("the HTTP client cannot be set up: {error}")))
}

fn trusted() -> Result<Vec<Certificate>> {
    let mut certificates: Vec<Certificate> =
        webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().filter_map(|der| Certificate::from_der(der).ok()).collect();
    if let Some(file) = env("SSL_CERT_FILE") {
        certificates.extend(read_pem(Path::new(&file))?);
    }
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(CERTIFICATES)));
    let listed = env("SSL_CERT_DIR").unwrap_or_default();
    let folders = listed.split(':').filter(|path| !path.is_empty()).map(PathBuf::from).chain(beside);
    for folder in folders {
        // A missing folder holds no certificates; so does a file in it that is something else.
        for item in fs::read_dir(&folder).into_iter().flatten().flatten() {
            certificates.extend(read_pem(&item.path()).unwrap_or_default());
        }
    }
    Ok(certificates)
}

fn read_pem(path: &Path) -> Result<Vec<Certificate>> {
    let bytes = fs::read(path).map_err(|error| Error::file("open", path, &error).within("SSL_CERT_FILE"))?;
    Certificate::from_pem_bundle(&bytes)
        .map_err(|error| Error::other(format!("SSL_CERT_FILE: {} holds no certificates: {error}", path.display())))
}

struct Resolver(Option<TokioResolver>);

impl Resolver {
    fn new() -> Result<Self> {
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
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.0.clone();
        Box::pin(async move {
            let Some(resolver) = resolver else {
                return Err(format!("dns: {} cannot be resolved without /etc/resolv.conf", name.as_str()).into());
            };
            let found = resolver
                .lookup_ip(name.as_str())
                .await
                .map_err(|error| format!("dns: {} cannot be resolved: {error}", name.as_str()))?;
            let addresses: Vec<SocketAddr> = found.iter().map(|ip| SocketAddr::new(ip, 0)).collect();
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}
