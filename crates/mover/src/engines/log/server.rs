//! Where a pod is told that its database is.

use crate::config::env;
use crate::error::{Error, Result};
use crate::storage::{Endpoint, Resolver};

/// Reads `DP_DB_HOST` and `DP_DB_PORT`.
///
/// # Errors
/// When there is no host, or the port is none.
pub(crate) fn endpoint(usual: u16) -> Result<Endpoint> {
    let host = env("DP_DB_HOST").ok_or_else(|| Error::other("DP_DB_HOST does not name the server's host"))?;
    let port = match env("DP_DB_PORT") {
        None => usual,
        Some(port) => port.parse().map_err(|_| Error::other(format!("DP_DB_PORT {port:?} is no port")))?,
    };
    Ok(Endpoint { host, port, resolver: Resolver::new()? })
}
