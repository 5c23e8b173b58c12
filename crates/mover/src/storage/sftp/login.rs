//! From an address to a session: the server shows its key, then we show who we are.

use std::sync::{Arc, Once};

use russh::client::{self, AuthResult, DisconnectReason, Handle, KeyboardInteractiveAuthResponse as Answer};
use russh::keys::{Certificate, HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey};
use russh::{ChannelMsg, MethodKind, MethodSet};

use super::hosts::KnownHost;
use super::session::{Session, Waiting};
use crate::error::{Cause, Error, Result};
use crate::output;
use crate::storage::connect::Endpoint;

/// A server may ask this often before it must have an opinion.
const QUESTIONS: usize = 5;

/// How a session is made.
pub(super) struct Settings {
    pub(super) endpoint: Endpoint,
    pub(super) user: String,
    /// In the order in which they are tried.
    pub(super) ways: Vec<Way>,
    /// None when any key of the server will do.
    pub(super) host: Option<KnownHost>,
    /// Guards the one line that says so.
    pub(super) warned: Arc<Once>,
    pub(super) config: Arc<client::Config>,
    pub(super) start: Start,
}

/// What is started on the server.
pub(super) enum Start {
    Subsystem(String),
    Command(String),
}

/// A way to log in.
#[derive(Clone)]
pub(super) enum Way {
    Key(Arc<PrivateKey>, Option<Box<Certificate>>),
    Password(String),
    /// The password as the answer to whatever is asked.
    Questions(String),
}

impl Way {
    fn kind(&self) -> MethodKind {
        match self {
            Self::Key(..) => MethodKind::PublicKey,
            Self::Password(_) => MethodKind::Password,
            Self::Questions(_) => MethodKind::KeyboardInteractive,
        }
    }
}

/// What the connection tells while it lives.
pub(super) struct Watch {
    name: String,
    host: Option<KnownHost>,
    warned: Arc<Once>,
    waiting: Arc<Waiting>,
}

impl client::Handler for Watch {
    type Error = Error;

    async fn check_server_key(&mut self, key: &PublicKey) -> Result<bool> {
        match &self.host {
            Some(host) => host.check(key)?,
            None => self.warned.call_once(|| {
                output::note(&format!(
                    "NOTICE: sftp: known_hosts_file is not set, so whatever key {} shows is believed: {}",
                    self.name,
                    key.fingerprint(HashAlg::Sha256)
                ));
            }),
        }
        Ok(true)
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Error>) -> Result<()> {
        self.waiting.end(match reason {
            DisconnectReason::ReceivedDisconnect(info) => {
                Error::new(Cause::Unreachable, format!("sftp: the server ended the connection: {}", info.message))
            }
            DisconnectReason::Error(error) => error,
        });
        Ok(())
    }
}

impl From<russh::Error> for Error {
    fn from(error: russh::Error) -> Self {
        match error {
            russh::Error::IO(error) => {
                let why = crate::error::reason(&error);
                Self::new(Cause::Unreachable, format!("sftp: the connection broke: {why}"))
            }
            russh::Error::Disconnect | russh::Error::HUP | russh::Error::SendError | russh::Error::RecvError => {
                Self::new(Cause::Unreachable, "sftp: the server ended the connection")
            }
            russh::Error::KeepaliveTimeout => {
                Self::new(Cause::Unreachable, "sftp: the server does not answer any more")
            }
            russh::Error::Version => Self::other("sftp: the server does not speak SSH"),
            russh::Error::NoCommonAlgo { kind, ours, theirs } => Self::other(format!(
                "sftp: there is no {kind:?} algorithm in common: the server has {}, here are {}",
                theirs.join(" "),
                ours.join(" ")
            )),
            other => Self::other(format!("sftp: {other}")),
        }
    }
}

/// # Errors
/// [`Cause::Dns`], [`Cause::Unreachable`]; [`Cause::Tls`] for a host key that is not a known one, [`Cause::AccessDenied`].
pub(super) async fn connect(settings: &Settings) -> Result<Session> {
    let stream = settings.endpoint.connect().await?;
    let waiting = Arc::new(Waiting::default());
    let watch = Watch {
        name: format!("{}:{}", settings.endpoint.host, settings.endpoint.port),
        host: settings.host.clone(),
        warned: settings.warned.clone(),
        waiting: waiting.clone(),
    };
    let mut handle = client::connect_stream(settings.config.clone(), stream, watch).await?;
    log_in(&mut handle, settings).await?;
    let mut channel = handle.channel_open_session().await?;
    match &settings.start {
        Start::Subsystem(name) => channel.request_subsystem(true, name.as_str()).await?,
        Start::Command(command) => channel.exec(true, command.as_str()).await?,
    }
    loop {
        match channel.wait().await {
            Some(ChannelMsg::Success) => break,
            Some(ChannelMsg::Failure) => {
                return Err(Error::new(Cause::AccessDenied, "sftp: the server offers this user no SFTP"));
            }
            None => return Err(Error::new(Cause::Unreachable, "sftp: the server ended the session")),
            Some(_) => {}
        }
    }
    Ok(Session::begin(handle, channel, waiting).await?)
}

async fn log_in(handle: &mut Handle<Watch>, settings: &Settings) -> Result<()> {
    let user = settings.user.as_str();
    // Also tells what the server takes.
    let AuthResult::Failure { remaining_methods: mut offered, .. } = handle.authenticate_none(user).await? else {
        return Ok(());
    };
    let mut ways = settings.ways.clone();
    let mut tried = Vec::new();
    while let Some(at) = ways.iter().position(|way| offered.contains(&way.kind())) {
        let way = ways.remove(at);
        tried.push(<&str>::from(&way.kind()));
        match attempt(handle, user, way).await? {
            AuthResult::Success => return Ok(()),
            // A server may want two of them.
            AuthResult::Failure { remaining_methods, .. } => offered = remaining_methods,
        }
    }
    // Many servers hang up on who is wrong; to ask again would only lock a user out.
    if tried.is_empty() && handle.is_closed() {
        return Err(Error::new(Cause::Unreachable, "sftp: the server ended the connection during the login"));
    }
    Err(Error::new(Cause::AccessDenied, refused(user, &tried, &offered)))
}

fn refused(user: &str, tried: &[&str], offered: &MethodSet) -> String {
    let offered: Vec<&str> = offered.iter().map(<&str>::from).collect();
    let tried = if tried.is_empty() {
        "nothing that it takes is configured (pass, key_file, key_pem)".to_owned()
    } else {
        format!("tried {}", tried.join(", "))
    };
    let takes = if offered.is_empty() { String::new() } else { format!("; it takes {}", offered.join(", ")) };
    format!("sftp: the server does not let {user:?} in: {tried}{takes}")
}

async fn attempt(handle: &mut Handle<Watch>, user: &str, way: Way) -> Result<AuthResult> {
    Ok(match way {
        Way::Password(password) => handle.authenticate_password(user, password).await?,
        Way::Key(key, Some(certificate)) => handle.authenticate_openssh_cert(user, key, *certificate).await?,
        Way::Key(key, None) => {
            // Never SHA-1; a server that does not say what it knows, knows this one.
            let hash = if key.algorithm().is_rsa() {
                handle.best_supported_rsa_hash().await?.flatten().or(Some(HashAlg::Sha256))
            } else {
                None
            };
            handle.authenticate_publickey(user, PrivateKeyWithHashAlg::new(key, hash)).await?
        }
        Way::Questions(password) => {
            let mut answer = handle.authenticate_keyboard_interactive_start(user, None).await?;
            for _ in 0..QUESTIONS {
                let Answer::InfoRequest { prompts, .. } = &answer else { break };
                let responses = vec![password.clone(); prompts.len()];
                answer = handle.authenticate_keyboard_interactive_respond(responses).await?;
            }
            match answer {
                Answer::Success => AuthResult::Success,
                Answer::Failure { remaining_methods, partial_success } => {
                    AuthResult::Failure { remaining_methods, partial_success }
                }
                Answer::InfoRequest { .. } => return Err(Error::other("sftp: the server never ends its questions")),
            }
        }
    })
}
