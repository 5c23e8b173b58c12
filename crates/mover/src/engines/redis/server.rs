//! What is asked of the server: its clock, its settings, and whether it writes what it acknowledges.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, FromRedisValue, RedisConnectionInfo, RedisError};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::config::env;
use crate::engines::log::objects::in_time;
use crate::engines::log::server::endpoint;
use crate::error::{Cause, Error, Result};
use crate::storage::{Endpoint, tls};

/// How the server is talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Security {
    Off,
    /// Encrypted, with a certificate that is vouched for.
    Verify,
    /// Encrypted, whatever the certificate is.
    Insecure,
}

impl Security {
    pub(crate) const NAMES: &'static [&'static str] = &["off", "verify", "insecure"];

    /// By one of the names; the first where there is none.
    pub(crate) fn named(name: &str) -> Self {
        match name {
            "verify" => Self::Verify,
            "insecure" => Self::Insecure,
            _ => Self::Off,
        }
    }
}

/// Where the server is, and who we are there.
pub(crate) struct Target {
    endpoint: Endpoint,
    user: String,
    password: String,
    security: Security,
}

impl Target {
    /// # Errors
    /// When the environment does not say.
    pub(crate) fn from_environment(security: Security) -> Result<Self> {
        Ok(Self {
            endpoint: endpoint(6379)?,
            user: env("DP_DB_USER").unwrap_or_default(),
            password: env("DP_DB_PASSWORD").unwrap_or_default(),
            security,
        })
    }

    fn login(&self) -> RedisConnectionInfo {
        let mut login = RedisConnectionInfo::default().set_skip_set_lib_name();
        if !self.password.is_empty() {
            login = login.set_password(&self.password);
            // Servers before accounts, and those with one password for all, know no names.
            if !self.user.is_empty() && self.user != "default" {
                login = login.set_username(&self.user);
            }
        }
        login
    }
}

/// What a server is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) product: String,
    pub(crate) version: String,
    pub(crate) run_id: String,
    pub(crate) data_directory: String,
    pub(crate) append_directory: String,
    pub(crate) append_file: String,
    /// What a dump is called.
    pub(crate) file: String,
    /// When it was started, in seconds since the Unix epoch, or a little later.
    pub(crate) started: i64,
}

/// A connection.
pub(crate) struct Server {
    connection: MultiplexedConnection,
    driver: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Server {
    /// Connects and logs in.
    ///
    /// # Errors
    /// [`Cause::Dns`], [`Cause::Unreachable`], [`Cause::Tls`], [`Cause::AccessDenied`].
    pub(crate) async fn open(target: &Target) -> Result<Self> {
        let Endpoint { host, port, .. } = &target.endpoint;
        in_time(Self::connect(target)).await.map_err(|error| error.within(format!("log in to {host}:{port}")))
    }

    async fn connect(target: &Target) -> Result<Self> {
        let tcp = target.endpoint.connect().await?;
        if target.security == Security::Off {
            return Self::greet(target, tcp).await;
        }
        let wrong = |error: &dyn std::fmt::Display| Error::new(Cause::Tls, format!("TLS: {error}"));
        let name = ServerName::try_from(target.endpoint.host.clone()).map_err(|error| wrong(&error))?;
        let config = tls(target.security == Security::Verify, true)?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.map_err(|error| wrong(&error))?;
        Self::greet(target, stream).await
    }

    async fn greet(target: &Target, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Self> {
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(20)));
        let (connection, driver) = MultiplexedConnection::new_with_config(&target.login(), stream, config)
            .await
            .map_err(|error| failed(&error))?;
        Ok(Self { connection, driver: tokio::spawn(driver) })
    }

    async fn ask<T: FromRedisValue>(&mut self, words: &[&str]) -> Result<T> {
        let mut command = Cmd::new();
        for word in words {
            command.arg(word);
        }
        command.query_async(&mut self.connection).await.map_err(|error| failed(&error).within(words.join(" ")))
    }

    /// The server's clock, in seconds since the Unix epoch.
    ///
    /// # Errors
    /// When the server refuses.
    pub(crate) async fn time(&mut self) -> Result<i64> {
        let (seconds, _): (i64, i64) = self.ask(&["TIME"]).await?;
        Ok(seconds)
    }

    async fn setting(&mut self, name: &str) -> Result<String> {
        let pair: Vec<String> = self.ask(&["CONFIG", "GET", name]).await?;
        Ok(pair.into_iter().nth(1).unwrap_or_default())
    }

    /// Who it is, if its log can be archived.
    ///
    /// # Errors
    /// What has to be changed first.
    pub(crate) async fn identity(&mut self) -> Result<Identity> {
        let info = Info(self.ask(&["INFO"]).await?);
        if info.field("cluster_enabled") == "1" {
            return Err(Error::other("it is one shard of a cluster; the log of it alone could not be brought back"));
        }
        let running: i64 = info.field("uptime_in_seconds").parse().unwrap_or_default();
        let valkey = info.field("valkey_version");
        let (product, version) =
            if valkey.is_empty() { ("redis", info.field("redis_version")) } else { ("valkey", valkey) };
        let identity = Identity {
            product: product.to_owned(),
            version: version.to_owned(),
            run_id: info.field("run_id").to_owned(),
            data_directory: self.setting("dir").await?,
            append_directory: self.setting("appenddirname").await?,
            append_file: self.setting("appendfilename").await?,
            file: self.setting("dbfilename").await?,
            started: self.time().await? - running + 1,
        };
        if identity.append_directory.is_empty() {
            return Err(Error::other(format!(
                "{product} {version} keeps its append-only file in one piece; this needs Redis 7 or Valkey"
            )));
        }
        info.healthy()?;
        self.notes_times().await?;
        Ok(identity)
    }

    /// # Errors
    /// When the log does not say when something was done.
    async fn notes_times(&mut self) -> Result<()> {
        match self.setting("aof-timestamp-enabled").await?.as_str() {
            "yes" => Ok(()),
            _ => Err(Error::other(
                "the append-only file does not tell times: set aof-timestamp-enabled to yes, in the configuration as well",
            )),
        }
    }

    /// Whether what is acknowledged is written, and with its time.
    ///
    /// # Errors
    /// Why not.
    pub(crate) async fn check(&mut self) -> Result<()> {
        Info(self.ask(&["INFO", "persistence"]).await?).healthy()?;
        self.notes_times().await
    }
}

/// What `INFO` says.
struct Info(String);

impl Info {
    fn field(&self, name: &str) -> &str {
        let value = |line: &'_ str| line.strip_prefix(name).and_then(|rest| rest.strip_prefix(':')).is_some();
        self.0
            .lines()
            .find(|line| value(line))
            .and_then(|line| line.split_once(':'))
            .map_or("", |(_, value)| value.trim())
    }

    fn healthy(&self) -> Result<()> {
        let wrong = |why: &str| Err(Error::other(why));
        if self.field("loading") == "1" {
            return Err(Error::new(Cause::Unreachable, "the server is loading its data"));
        }
        if self.field("aof_enabled") != "1" {
            return wrong("there is no append-only file: set appendonly to yes, in the configuration as well");
        }
        if self.field("aof_last_write_status") != "ok" {
            return wrong("the server could not write its append-only file (aof_last_write_status): see its log");
        }
        Ok(())
    }
}

fn failed(error: &RedisError) -> Error {
    let refused = matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM"));
    let cause = match error.kind() {
        redis::ErrorKind::AuthenticationFailed => Cause::AccessDenied,
        _ if refused => Cause::AccessDenied,
        redis::ErrorKind::Io => Cause::Unreachable,
        _ => Cause::Other,
    };
    Error::new(cause, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_cannot_be_archived_says_what_to_change() {
        let info = |text: &str| Info(text.replace(' ', "\r\n"));
        let good = "# loading:0 aof_enabled:1 aof_last_write_status:ok";
        assert!(info(good).healthy().is_ok());
        assert_eq!(info(good).field("aof_last"), "", "whole names only");
        for (from, to, said) in [
            ("loading:0", "loading:1", "loading"),
            ("aof_enabled:1", "aof_enabled:0", "appendonly"),
            ("status:ok", "status:err", "aof_last_write_status"),
        ] {
            let error = info(&good.replace(from, to)).healthy().unwrap_err();
            assert!(error.text.contains(said), "{}", error.text);
        }
    }
}
