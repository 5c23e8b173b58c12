//! Reaching a server and proving who we are. Address and credentials come from the environment alone.

use std::sync::Arc;
use std::time::Duration;

use mysql_common::crypto::encrypt;
use mysql_common::io::ParseBuf;
use mysql_common::packets::{AuthPlugin, HandshakePacket};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::wire::{Wire, lost, refusal};
use crate::config::env;
use crate::engines::log::server;
use crate::error::{Cause, Error, Result};
use crate::storage::{Endpoint, tls};

/// A server that does not let us in within this time has failed.
const PATIENCE: Duration = Duration::from_secs(20);
const PACKET: u32 = 1 << 30;
/// `utf8mb4_general_ci`.
const CHARSET: u8 = 45;

/// What a client and a server can: the protocol's bits.
mod can {
    pub(super) const LONG_PASSWORD: u32 = 1;
    pub(super) const PROTOCOL_41: u32 = 1 << 9;
    pub(super) const SSL: u32 = 1 << 11;
    pub(super) const SECURE_CONNECTION: u32 = 1 << 15;
    pub(super) const PLUGIN_AUTH: u32 = 1 << 19;
}

/// How much encryption is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Security {
    Off,
    /// Where the server can, with whatever certificate.
    Preferred,
    /// With a certificate of this host, by an authority that is trusted.
    Verify,
}

impl Security {
    /// The words of the flag `--tls`.
    pub(crate) const NAMES: &'static [&'static str] = &["preferred", "verify", "off"];

    pub(crate) fn named(name: &str) -> Self {
        match name {
            "verify" => Self::Verify,
            "off" => Self::Off,
            _ => Self::Preferred,
        }
    }
}

/// A server and who logs in to it.
pub(crate) struct Target {
    endpoint: Endpoint,
    user: String,
    password: String,
    security: Security,
}

impl Target {
    /// Reads `DP_DB_HOST`, `DP_DB_PORT`, `DP_DB_USER`, `DP_DB_PASSWORD`.
    ///
    /// # Errors
    /// When there is no host, or a setting that cannot be honoured.
    pub(crate) fn from_environment(security: Security) -> Result<Self> {
        Ok(Self {
            endpoint: server::endpoint(3306)?,
            user: env("DP_DB_USER").unwrap_or_else(|| "root".to_owned()),
            password: env("DP_DB_PASSWORD").unwrap_or_default(),
            security,
        })
    }
}

/// Connects and logs in.
pub(super) async fn open(target: &Target) -> Result<Wire> {
    let host = format!("{}:{}", target.endpoint.host, target.endpoint.port);
    let within = |error: Error| error.within(format!("log in to {host} as {}", target.user));
    let late = || Error::new(Cause::Unreachable, format!("no answer within {} seconds", PATIENCE.as_secs()));
    tokio::time::timeout(PATIENCE, greet(target)).await.unwrap_or_else(|_| Err(late())).map_err(within)
}

async fn greet(target: &Target) -> Result<Wire> {
    let mut tcp = target.endpoint.connect().await?;
    let greeting = first_packet(&mut tcp).await?;
    if greeting.first() == Some(&255) {
        return Err(refusal(&greeting));
    }
    let strange = |_| Error::new(Cause::Damaged, "the greeting cannot be read: this is no MariaDB or MySQL server");
    let greeting = ParseBuf(&greeting).parse::<HandshakePacket<'_>>(()).map_err(strange)?;
    let offered = greeting.capabilities().bits();
    let mut nonce = greeting.scramble_1_ref().to_vec();
    nonce.extend_from_slice(greeting.scramble_2_ref().unwrap_or_default());
    // Shorter by the zero at its end.
    nonce.truncate(20);
    let plugin = greeting.auth_plugin().map_or(AuthPlugin::MysqlNativePassword, AuthPlugin::into_owned);
    let mut wanted = can::LONG_PASSWORD | can::PROTOCOL_41 | can::SECURE_CONNECTION | can::PLUGIN_AUTH;
    let secure = target.security != Security::Off && offered & can::SSL != 0;
    if target.security == Security::Verify && !secure {
        return Err(Error::new(Cause::Tls, "the server has no TLS, which --tls=verify demands"));
    }
    let mut wire = if secure {
        wanted |= can::SSL;
        let request = [&[32, 0, 0, 1], &head(wanted)[..]].concat();
        tcp.write_all(&request).await.map_err(|error| lost(&error))?;
        let wrong = |error: &dyn std::fmt::Display| Error::new(Cause::Tls, format!("TLS: {error}"));
        let name = ServerName::try_from(target.endpoint.host.clone()).map_err(|error| wrong(&error))?;
        let config = tls(target.security == Security::Verify, true)?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.map_err(|error| wrong(&error))?;
        Wire::new(Box::new(stream), 2)
    } else {
        Wire::new(Box::new(tcp), 1)
    };
    introduce(target, &mut wire, wanted, plugin, nonce, secure).await?;
    Ok(wire)
}

/// The greeting, and not a byte of what comes after it: the connection may become another.
async fn first_packet(tcp: &mut TcpStream) -> Result<Vec<u8>> {
    let mut header = [0; 4];
    tcp.read_exact(&mut header).await.map_err(|error| lost(&error))?;
    let length = u32::from_le_bytes([header[0], header[1], header[2], 0]) as usize;
    let mut packet = vec![0; length];
    tcp.read_exact(&mut packet).await.map_err(|error| lost(&error))?;
    Ok(packet)
}

/// What begins the answer to a greeting, and is all of it before TLS.
fn head(wanted: u32) -> Vec<u8> {
    let mut head = Vec::with_capacity(32);
    head.extend_from_slice(&wanted.to_le_bytes());
    head.extend_from_slice(&PACKET.to_le_bytes());
    head.push(CHARSET);
    head.resize(32, 0);
    head
}

async fn introduce(
    target: &Target,
    wire: &mut Wire,
    wanted: u32,
    mut plugin: AuthPlugin<'static>,
    mut nonce: Vec<u8>,
    secure: bool,
) -> Result<()> {
    // What the server would have most accounts use may be a plugin that this client does not have, and this account another.
    let proof = prove(target, &plugin, &nonce).unwrap_or_default();
    let mut answer = head(wanted);
    answer.extend_from_slice(target.user.as_bytes());
    answer.push(0);
    answer.push(proof.len() as u8);
    answer.extend_from_slice(&proof);
    answer.extend_from_slice(plugin.as_bytes());
    answer.push(0);
    wire.send(&answer).await?;
    loop {
        let packet = wire.receive().await?;
        match packet.split_first() {
            Some((0, _)) => return Ok(()),
            Some((255, _)) => return Err(refusal(&packet)),
            Some((254, rest)) => {
                let mut parts = rest.splitn(2, |byte| *byte == 0);
                plugin = AuthPlugin::from_bytes(parts.next().unwrap_or_default()).into_owned();
                nonce = parts.next().unwrap_or_default().to_vec();
                if nonce.last() == Some(&0) {
                    nonce.pop();
                }
                wire.send(&prove(target, &plugin, &nonce)?).await?;
            }
            // The server knows the password from before.
            Some((1, [3])) => {}
            Some((1, [4])) => {
                let mut password = target.password.clone().into_bytes();
                password.push(0);
                if !secure {
                    wire.send(&[2]).await?;
                    let key = wire.receive().await?;
                    for (at, byte) in password.iter_mut().enumerate() {
                        *byte ^= nonce.get(at % nonce.len().max(1)).copied().unwrap_or_default();
                    }
                    password = encrypt(&password, key.get(1..).unwrap_or_default());
                }
                wire.send(&password).await?;
            }
            _ => return Err(Error::new(Cause::AccessDenied, "the server wants something that is not understood")),
        }
    }
}

/// What a plugin on the server takes for the password.
fn prove(target: &Target, plugin: &AuthPlugin<'_>, nonce: &[u8]) -> Result<Vec<u8>> {
    match plugin {
        AuthPlugin::MysqlNativePassword | AuthPlugin::CachingSha2Password | AuthPlugin::Ed25519 => {
            let proof = plugin.gen_data(Some(&target.password), nonce);
            Ok(proof.map(|proof| proof.to_vec()).unwrap_or_default())
        }
        other => Err(Error::new(
            Cause::AccessDenied,
            format!(
                "the account logs in by {}, which is not supported (supported: mysql_native_password, caching_sha2_password, \
                 client_ed25519)",
                String::from_utf8_lossy(other.as_bytes())
            ),
        )),
    }
}
