//! One SFTP session: requests go out one behind the other without waiting, answers come back in any order.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use russh::client::{Handle, Msg};
use russh::{Channel, ChannelMsg, ChannelReadHalf};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::login::Watch;
use super::wire::{
    EXTENDED, Fault, INIT, PROTOCOL, Reply, Request, Result, VERSION, take_number, take_offset, take_text,
};
use crate::error::{Cause, Error};

/// Requests that wait to be sent.
const QUEUE: usize = 8;
/// No server's answer is longer; what is longer is no answer.
const LONGEST: usize = 1 << 20;
/// Bytes of a file in one request when the server does not say: every server takes that many.
const USUAL: usize = 32 << 10;
/// And no more than that if it does: with its head it fits into 256 KiB, which servers have as their limit.
pub(super) const MOST: usize = 255 << 10;

/// What a server may be able to do besides the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extension {
    /// Renaming over a file.
    Rename,
    Link,
    Sync,
    Space,
    Limits,
}

impl Extension {
    const ALL: [Self; 5] = [Self::Rename, Self::Link, Self::Sync, Self::Space, Self::Limits];

    pub(super) fn name(self) -> &'static [u8] {
        match self {
            Self::Rename => b"posix-rename@openssh.com",
            Self::Link => b"hardlink@openssh.com",
            Self::Sync => b"fsync@openssh.com",
            Self::Space => b"statvfs@openssh.com",
            Self::Limits => b"limits@openssh.com",
        }
    }

    /// The one that is known here.
    fn version(self) -> &'static [u8] {
        if self == Self::Space { b"2" } else { b"1" }
    }
}

/// How many bytes of a file one request may ask for or bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) read: usize,
    pub(super) write: usize,
}

pub(super) struct Session {
    outgoing: mpsc::Sender<Vec<u8>>,
    waiting: Arc<Waiting>,
    next: AtomicU32,
    offers: Vec<Extension>,
    pub(super) sizes: Sizes,
    tasks: [JoinHandle<()>; 2],
    /// Ends the connection when it is dropped.
    _handle: Handle<Watch>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// An answer on its way.
pub(super) struct Pending {
    answer: oneshot::Receiver<Reply>,
    waiting: Arc<Waiting>,
}

impl Pending {
    /// # Errors
    /// [`Fault::Named`] when the connection ends first, or says nothing for so long.
    pub(super) async fn within(self, limit: Duration) -> Result<Reply> {
        match timeout(limit, self.answer).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) => Err(self.waiting.broken()),
            Err(_) => {
                let error = Error::new(
                    Cause::Unreachable,
                    format!("sftp: operation timeout reached: no answer within {} seconds", limit.as_secs()),
                );
                // Who hangs now will hang for the next as well.
                self.waiting.end(error);
                Err(self.waiting.broken())
            }
        }
    }
}

/// Who waits for which answer.
#[derive(Default)]
pub(super) struct Waiting(Mutex<State>);

#[derive(Default)]
struct State {
    requests: HashMap<u32, oneshot::Sender<Reply>>,
    /// Why nothing will come any more.
    ended: Option<Error>,
    /// What the server has said beside the protocol.
    words: String,
}

impl Waiting {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells all that nothing will come; the first reason is the one that counts.
    pub(super) fn end(&self, why: Error) {
        let mut state = self.state();
        state.ended.get_or_insert(why);
        state.requests.clear();
    }

    fn broken(&self) -> Fault {
        let ended = self.state().ended.clone();
        Fault::Named(ended.unwrap_or_else(|| Error::new(Cause::Unreachable, "sftp: the connection broke")))
    }

    fn expect(&self, id: u32) -> Result<oneshot::Receiver<Reply>> {
        let mut state = self.state();
        if state.ended.is_some() {
            drop(state);
            return Err(self.broken());
        }
        let (sender, receiver) = oneshot::channel();
        state.requests.insert(id, sender);
        Ok(receiver)
    }

    fn deliver(&self, id: u32, reply: Reply) {
        // Whoever asked may have gone.
        if let Some(sender) = self.state().requests.remove(&id) {
            let _ = sender.send(reply);
        }
    }
}

impl Session {
    /// Begins the protocol on a channel that is at its beginning.
    ///
    /// # Errors
    /// When the other side does not speak it.
    pub(super) async fn begin(handle: Handle<Watch>, channel: Channel<Msg>, waiting: Arc<Waiting>) -> Result<Self> {
        let (mut incoming, outgoing) = channel.split();
        let mut stream = outgoing.make_writer();
        let mut hello = vec![0, 0, 0, 5, INIT];
        hello.extend_from_slice(&PROTOCOL.to_be_bytes());
        stream.write_all(&hello).await.map_err(|error| lost(&error.to_string()))?;
        let mut buffer = BytesMut::new();
        let packet = loop {
            if let Some(packet) = split(&mut buffer)? {
                break packet;
            }
            if !receive(&mut incoming, &mut buffer, &waiting).await {
                return Err(waiting.broken());
            }
        };
        let offers = greeting(packet)?;
        let (sender, queue) = mpsc::channel(QUEUE);
        let tasks = [
            tokio::spawn(send(queue, stream, waiting.clone())),
            tokio::spawn(dispatch(incoming, buffer, waiting.clone())),
        ];
        let sizes = Sizes { read: USUAL, write: USUAL };
        let next = AtomicU32::new(1);
        let mut session = Self { outgoing: sender, waiting, next, offers, sizes, tasks, _handle: handle };
        if session.offers(Extension::Limits) {
            session.sizes = session.limits().await?;
        }
        Ok(session)
    }

    pub(super) fn offers(&self, extension: Extension) -> bool {
        self.offers.contains(&extension)
    }

    pub(super) fn is_broken(&self) -> bool {
        self.waiting.state().ended.is_some()
    }

    /// Sends a request; waits only until there is room for it.
    pub(super) async fn send(&self, kind: u8, fill: impl FnOnce(Request) -> Request) -> Result<Pending> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let answer = self.waiting.expect(id)?;
        let packet = fill(Request::new(kind, id)).finish();
        self.outgoing.send(packet).await.map_err(|_| self.waiting.broken())?;
        Ok(Pending { answer, waiting: self.waiting.clone() })
    }

    /// Sends a request and waits for its answer.
    pub(super) async fn ask(&self, limit: Duration, kind: u8, fill: impl FnOnce(Request) -> Request) -> Result<Reply> {
        let Ok(pending) = timeout(limit, self.send(kind, fill)).await else {
            self.waiting.end(Error::new(Cause::Unreachable, "sftp: the server takes no more requests"));
            return Err(self.waiting.broken());
        };
        pending?.within(limit).await
    }

    async fn limits(&self) -> Result<Sizes> {
        let asked = self.ask(Duration::from_secs(5), EXTENDED, |request| request.text(Extension::Limits.name())).await;
        let mut body = match asked?.extended() {
            Ok(body) => body,
            Err(Fault::Refused(..)) => return Ok(self.sizes),
            Err(fault) => return Err(fault),
        };
        // 0 is "does not say".
        let size = |limit: u64| if limit == 0 { USUAL } else { limit.min(MOST as u64) as usize };
        take_offset(&mut body)?;
        Ok(Sizes { read: size(take_offset(&mut body)?), write: size(take_offset(&mut body)?) })
    }
}

fn lost(why: &str) -> Fault {
    Fault::Named(Error::new(Cause::Unreachable, format!("sftp: the connection broke: {why}")))
}

/// A whole packet from the beginning of what has come.
fn split(buffer: &mut BytesMut) -> Result<Option<Bytes>> {
    let Some(length) = buffer.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes) as usize) else {
        return Ok(None);
    };
    if length > LONGEST {
        let words = String::from_utf8_lossy(&buffer[..buffer.len().min(60)]).into_owned();
        return Err(Fault::Named(Error::other(format!("sftp: the server does not speak SFTP; it says {words:?}"))));
    }
    if buffer.len() < 4 + length {
        buffer.reserve(4 + length - buffer.len());
        return Ok(None);
    }
    buffer.advance(4);
    Ok(Some(buffer.split_to(length).freeze()))
}

/// What the first answer offers.
fn greeting(mut packet: Bytes) -> Result<Vec<Extension>> {
    let strange = |what: String| Fault::Named(Error::other(format!("sftp: {what}")));
    let kind = packet.try_get_u8().unwrap_or_default();
    let version = take_number(&mut packet)?;
    if kind != VERSION || version < PROTOCOL {
        return Err(strange(format!(
            "the server speaks version {version} of the protocol, only {PROTOCOL} is known here"
        )));
    }
    let mut offers = Vec::new();
    while !packet.is_empty() {
        let (name, version) = (take_text(&mut packet)?, take_text(&mut packet)?);
        offers.extend(Extension::ALL.into_iter().filter(|known| known.name() == name && known.version() == version));
    }
    Ok(offers)
}

/// Takes what comes next into the buffer. False at the end, whose reason is kept.
async fn receive(incoming: &mut ChannelReadHalf, buffer: &mut BytesMut, waiting: &Waiting) -> bool {
    loop {
        match incoming.wait().await {
            Some(ChannelMsg::Data { data }) => {
                buffer.extend_from_slice(&data);
                return true;
            }
            // A server that does not let us in says why there.
            Some(ChannelMsg::ExtendedData { data, .. }) => {
                waiting.state().words = String::from_utf8_lossy(&data).trim().replace(['\r', '\n'], " ");
            }
            Some(ChannelMsg::Eof | ChannelMsg::Close) | None => {
                let words = std::mem::take(&mut waiting.state().words);
                let words = if words.is_empty() { words } else { format!(" and says {words:?}") };
                waiting.end(Error::new(Cause::Unreachable, format!("sftp: the server ended the session{words}")));
                return false;
            }
            Some(_) => {}
        }
    }
}

/// Hands answers to whoever waits for them, until the connection ends.
async fn dispatch(mut incoming: ChannelReadHalf, mut buffer: BytesMut, waiting: Arc<Waiting>) {
    loop {
        match split(&mut buffer) {
            Ok(Some(mut packet)) => {
                if let (Ok(kind), Ok(id)) = (packet.try_get_u8(), packet.try_get_u32()) {
                    waiting.deliver(id, Reply { kind, body: packet });
                }
            }
            Ok(None) => {
                if !receive(&mut incoming, &mut buffer, &waiting).await {
                    return;
                }
            }
            Err(fault) => return waiting.end(fault.into()),
        }
    }
}

/// Sends what is queued, until there is nobody left who could queue more.
async fn send(mut queue: mpsc::Receiver<Vec<u8>>, mut stream: impl AsyncWrite + Unpin, waiting: Arc<Waiting>) {
    while let Some(packet) = queue.recv().await {
        if let Err(error) = stream.write_all(&packet).await {
            return waiting.end(lost(&error.to_string()).into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_cut_out_of_what_comes() {
        let mut buffer = BytesMut::from(&[0, 0, 0, 2, 8, 9, 0, 0][..]);
        assert_eq!(split(&mut buffer).unwrap().unwrap(), &[8, 9][..]);
        assert!(split(&mut buffer).unwrap().is_none());
        buffer.extend_from_slice(&[0, 1]);
        assert!(split(&mut buffer).unwrap().is_none());
        buffer.extend_from_slice(&[7]);
        assert_eq!(split(&mut buffer).unwrap().unwrap(), &[7][..]);
        let mut chatty = BytesMut::from(&b"Welcome to the machine\n"[..]);
        let error = Error::from(split(&mut chatty).unwrap_err());
        assert!(error.text.contains("does not speak SFTP; it says \"Welcome"), "{error}");
    }

    #[test]
    fn only_versions_of_an_extension_that_are_known_are_offers() {
        let hello = |version: u32| {
            let body = Request::new(VERSION, version).text(b"posix-rename@openssh.com").text(b"1");
            Bytes::from(body.text(b"hardlink@openssh.com").text(b"9").finish()).slice(4..)
        };
        assert_eq!(greeting(hello(3)).unwrap(), [Extension::Rename]);
        assert!(greeting(hello(2)).is_err());
    }

    #[tokio::test]
    async fn who_waits_when_the_connection_ends_hears_why() {
        let waiting = Arc::new(Waiting::default());
        let pending = Pending { answer: waiting.expect(1).unwrap(), waiting: waiting.clone() };
        let slow = Pending { answer: waiting.expect(2).unwrap(), waiting: waiting.clone() };
        let error = Error::from(slow.within(Duration::from_millis(1)).await.err().unwrap());
        assert!(error.is(Cause::Unreachable) && error.text.contains("no answer within"), "{error}");
        let after = Error::from(pending.within(Duration::from_secs(9)).await.err().unwrap());
        assert_eq!(after, error);
        assert!(waiting.expect(3).is_err());
    }
}
