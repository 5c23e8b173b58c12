//! Reaching a server and proving who we are. Address and credentials come from the environment alone.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Mode;
use super::wire::{Wire, lost, refusal};
use crate::config::env;
use crate::error::{Cause, Error, Result};
use crate::storage::{Endpoint, Resolver, tls};

/// A server that does not let us in within this time has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// How much encryption is asked for: libpq's `sslmode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Security {
    Disable,
    Prefer,
    Require,
    /// With a certificate of this host, by an authority that is trusted.
    Verify,
}

/// A server and who logs in to it.
pub(crate) struct Target {
    endpoint: Endpoint,
    user: String,
    password: String,
    database: String,
    security: Security,
}

impl Target {
    /// Reads `DP_DB_HOST`, `DP_DB_PORT`, `DP_DB_USER`, `DP_DB_PASSWORD`, or `PGHOST` and so on where those are not set, and
    /// `PGDATABASE`, `PGSSLMODE`.
    ///
    /// # Errors
    /// When there is no host, or a setting that cannot be honoured.
    pub(crate) fn from_environment() -> Result<Self> {
        let setting = |ours: &str, theirs: &str| env(ours).or_else(|| env(theirs));
        let host = setting("DP_DB_HOST", "PGHOST").filter(|host| !host.starts_with('/'));
        let host = host.ok_or_else(|| Error::other("neither DP_DB_HOST nor PGHOST names the server's host"))?;
        let port = setting("DP_DB_PORT", "PGPORT").unwrap_or_else(|| "5432".to_owned());
        let port = port.parse().map_err(|_| Error::other(format!("{port:?} is no port (DP_DB_PORT, PGPORT)")))?;
        for unknown in ["PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY", "PGPASSFILE", "PGSERVICE"] {
            if env(unknown).is_some() {
                return Err(Error::other(format!(
                    "{unknown} is set, which this client does not know; authorities go into SSL_CERT_FILE, \
                     a password into DP_DB_PASSWORD"
                )));
            }
        }
        Ok(Self {
            endpoint: Endpoint { host, port, resolver: Resolver::new()? },
            user: setting("DP_DB_USER", "PGUSER").unwrap_or_else(|| "postgres".to_owned()),
            password: setting("DP_DB_PASSWORD", "PGPASSWORD").unwrap_or_default(),
            database: env("PGDATABASE").unwrap_or_else(|| "postgres".to_owned()),
            security: security(env("PGSSLMODE").as_deref())?,
        })
    }

    pub(crate) fn user(&self) -> &str {
        &self.user
    }
}

fn security(mode: Option<&str>) -> Result<Security> {
    match mode {
        Some("disable" | "allow") => Ok(Security::Disable),
        None | Some("prefer") => Ok(Security::Prefer),
        Some("require") => Ok(Security::Require),
        // The stricter of the two serves for both.
        Some("verify-ca" | "verify-full") => Ok(Security::Verify),
        Some(other) => Err(Error::other(format!(
            "PGSSLMODE {other:?} is none of disable, allow, prefer, require, verify-ca, verify-full"
        ))),
    }
}

/// Connects and logs in.
pub(super) async fn open(target: &Target, mode: Mode) -> Result<Wire> {
    let host = format!("{}:{}", target.endpoint.host, target.endpoint.port);
    let within = |error: Error| error.within(format!("log in to {host} as {}", target.user));
    let opened = tokio::time::timeout(PATIENCE, async {
        let mut wire = secure(target, target.endpoint.connect().await?).await?;
        introduce(target, mode, &mut wire).await?;
        Ok(wire)
    });
    let late = || Error::new(Cause::Unreachable, format!("no answer within {} seconds", PATIENCE.as_secs()));
    opened.await.unwrap_or_else(|_| Err(late())).map_err(within)
}

async fn secure(target: &Target, mut tcp: TcpStream) -> Result<Wire> {
    if target.security == Security::Disable {
        return Ok(Wire::new(Box::new(tcp)));
    }
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    tcp.write_all(&request).await.map_err(|error| lost(&error))?;
    let mut answer = [0];
    tcp.read_exact(&mut answer).await.map_err(|error| lost(&error))?;
    if answer[0] != b'S' {
        return match target.security {
            Security::Prefer => Ok(Wire::new(Box::new(tcp))),
            _ => Err(Error::new(Cause::Tls, "the server has no TLS, which PGSSLMODE demands")),
        };
    }
    let wrong = |error: &dyn std::fmt::Display| Error::new(Cause::Tls, format!("TLS: {error}"));
    let name = ServerName::try_from(target.endpoint.host.clone()).map_err(|error| wrong(&error))?;
    let config = tls(target.security == Security::Verify, true)?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.map_err(|error| wrong(&error))?;
    Ok(Wire::new(Box::new(stream)))
}

async fn introduce(target: &Target, mode: Mode, wire: &mut Wire) -> Result<()> {
    let purpose = match mode {
        Mode::Queries => ("database", target.database.as_str()),
        Mode::Replication => ("replication", "true"),
    };
    let parameters =
        [("user", target.user.as_str()), ("application_name", "kbbackup"), ("client_encoding", "UTF8"), purpose];
    let mut message = BytesMut::new();
    frontend::startup_message(parameters, &mut message).map_err(|error| lost(&error))?;
    wire.send(&message).await?;
    let mut scram: Option<ScramSha256> = None;
    loop {
        let (tag, body) = wire.receive().await?;
        match tag {
            b'R' => answer(target, wire, &mut scram, &body).await?,
            b'E' => return Err(refusal(&body)),
            b'Z' => return Ok(()),
            _ => {}
        }
    }
}

/// Answers what the server asks for to believe us.
async fn answer(target: &Target, wire: &mut Wire, scram: &mut Option<ScramSha256>, body: &[u8]) -> Result<()> {
    let denied = |why: &str| Error::new(Cause::AccessDenied, why.to_owned());
    let kind = body.first_chunk().map_or(u32::MAX, |bytes| u32::from_be_bytes(*bytes));
    let rest = body.get(4..).unwrap_or_default();
    let password = target.password.as_bytes();
    if kind != 0 && password.is_empty() {
        return Err(denied("the server wants a password, and DP_DB_PASSWORD is empty"));
    }
    let broken = |error: std::io::Error| Error::new(Cause::AccessDenied, format!("SCRAM: {error}"));
    let mut message = BytesMut::new();
    match (kind, scram.as_mut()) {
        (0, _) => return Ok(()),
        (3, _) => frontend::password_message(password, &mut message).map_err(broken)?,
        (5, _) => {
            let salt = rest.first_chunk().copied().ok_or_else(|| denied("the server sent no salt"))?;
            let hash = md5_hash(target.user.as_bytes(), password, salt);
            frontend::password_message(hash.as_bytes(), &mut message).map_err(broken)?;
        }
        (10, _) => {
            if !rest.split(|byte| *byte == 0).any(|name| name == SCRAM_SHA_256.as_bytes()) {
                return Err(denied("the server offers no SCRAM-SHA-256"));
            }
            let begun = scram.insert(ScramSha256::new(password, ChannelBinding::unsupported()));
            frontend::sasl_initial_response(SCRAM_SHA_256, begun.message(), &mut message).map_err(broken)?;
        }
        (11, Some(scram)) => {
            scram.update(rest).map_err(broken)?;
            frontend::sasl_response(scram.message(), &mut message).map_err(broken)?;
        }
        (12, Some(scram)) => return scram.finish(rest).map_err(broken),
        _ => {
            return Err(denied(
                "the server wants a way of logging in that is not supported (supported: trust, password, md5, scram-sha-256)",
            ));
        }
    }
    wire.send(&message).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_honoured_or_refused() {
        assert_eq!(security(None).unwrap(), Security::Prefer);
        assert_eq!(security(Some("verify-ca")).unwrap(), Security::Verify);
        assert!(security(Some("verify_full")).unwrap_err().to_string().contains("is none of"));
    }
}
