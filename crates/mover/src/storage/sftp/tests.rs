//! Logging in to a server that does what OpenSSH's cannot be made to do without its users: ask for passwords.

use std::borrow::Cow;
use std::time::Duration;

use russh::keys::PrivateKey;
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::server::{self, Auth, Response, Session as Serving};
use russh::{Channel, ChannelId, MethodKind, MethodSet};
use tokio::net::TcpListener;

use super::*;
use crate::config::ini::Ini;

/// What a server takes, each of which must be the right password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    Password,
    Questions,
    Both,
}

struct Door(Takes);

impl Door {
    /// Lets in, or asks for the other of both.
    fn passed(&self, next: MethodKind) -> Auth {
        if self.0 == Takes::Both && next == MethodKind::KeyboardInteractive {
            let proceed_with_methods = Some(MethodSet::from(&[next][..]));
            return Auth::Reject { proceed_with_methods, partial_success: true };
        }
        Auth::Accept
    }
}

impl server::Handler for Door {
    type Error = russh::Error;

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, russh::Error> {
        let right = self.0 != Takes::Questions && (user, password) == ("u", "sec ret");
        Ok(if right { self.passed(MethodKind::KeyboardInteractive) } else { Auth::reject() })
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        _: &str,
        _: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, russh::Error> {
        let Some(mut answers) = response else {
            let prompts = Cow::Borrowed(&[(Cow::Borrowed("Password: "), false)][..]);
            return Ok(Auth::Partial { name: "".into(), instructions: "".into(), prompts });
        };
        let right = answers.next().is_some_and(|answer| &answer[..] == b"sec ret");
        Ok(if right { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(&mut self, _: Channel<server::Msg>, _: &mut Serving) -> Result<bool, russh::Error> {
        Ok(true)
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        session: &mut Serving,
    ) -> Result<(), russh::Error> {
        session.channel_failure(channel)
    }
}

/// An error of a login with this password, by the ways that the server takes.
async fn refused(takes: Takes, password: &str) -> Error {
    let methods = match takes {
        Takes::Password | Takes::Both => [MethodKind::Password],
        Takes::Questions => [MethodKind::KeyboardInteractive],
    };
    let config = server::Config {
        methods: MethodSet::from(&methods[..]),
        keys: vec![PrivateKey::new(Ed25519Keypair::from_seed(&[7; 32]).into(), "").unwrap()],
        auth_rejection_time: Duration::from_millis(1),
        ..server::Config::default()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        server::run_stream(Arc::new(config), stream, Door(takes)).await.unwrap().await
    });
    let password = crate::config::obscure::obscure(password);
    let text = format!("[storage]\ntype = sftp\nhost = 127.0.0.1\nport = {port}\nuser = u\npass = {password}\n");
    let ini = Ini::parse(&text).unwrap();
    connect(&keys::settings(&Options::new(&ini)).unwrap()).await.err().unwrap()
}

#[tokio::test]
async fn a_password_is_given_in_the_way_that_the_server_asks_for_it() {
    for takes in [Takes::Password, Takes::Questions, Takes::Both] {
        let inside = refused(takes, "sec ret").await;
        assert!(inside.text.contains("offers this user no SFTP"), "{takes:?}: {inside}");
        let outside = refused(takes, "wrong").await;
        assert!(
            outside.is(Cause::AccessDenied) && outside.text.contains("does not let \"u\" in"),
            "{takes:?}: {outside}"
        );
        assert!(!outside.text.contains("wrong"), "{outside}");
    }
}

#[tokio::test]
async fn those_who_wait_for_a_connection_share_how_that_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (count, counted) = tokio::sync::watch::channel(0);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // Long enough for all to wait for it.
            tokio::time::sleep(Duration::from_millis(100)).await;
            drop(stream);
            count.send_modify(|count| *count += 1);
        }
    });
    let ini = Ini::parse(&format!("[storage]\ntype = sftp\nhost = 127.0.0.1\nport = {port}\nuser = u\n")).unwrap();
    let sftp = Sftp::new(&Options::new(&ini)).unwrap();
    let asked = futures::future::join_all((0..PARALLEL).map(|_| sftp.stat("x"))).await;
    assert!(asked.iter().all(|answer| answer.as_ref().is_err_and(|error| error.is(Cause::Unreachable))));
    assert_eq!(*counted.borrow(), TRIES);
}
