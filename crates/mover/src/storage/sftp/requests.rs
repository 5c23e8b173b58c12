//! What is asked in a session, and what the answers of all kinds of servers mean.

use std::collections::VecDeque;

use bytes::Bytes;
use jiff::Timestamp;

use super::ANSWER;
use super::session::{Extension, Session};
use super::space::explained;
use super::wire::{
    Attributes, CLOSE, EXTENDED, FOR_READING, FOR_WRITING, Fault, HAS_TIMES, Kind, MKDIR, OPEN, OPENDIR, READDIR,
    REMOVE, RENAME, RMDIR, Reply, Request, Result, STAT,
};
use crate::error::{Cause, Error};
use crate::output;
use crate::rpath::{join, split};
use crate::storage::tree::Item;

/// Pages of a listing that are asked for at once.
const PAGES: usize = 8;

/// As the protocol has it: nothing is no path.
fn place(path: &str) -> &[u8] {
    if path.is_empty() { b"." } else { path.as_bytes() }
}

fn is(fault: &Fault, cause: Cause) -> bool {
    Error::from(fault.clone()).is(cause)
}

/// A refusal whose cause was found out otherwise.
fn because(fault: Fault, cause: Cause) -> Fault {
    Fault::Named(Error::new(cause, Error::from(fault).text))
}

fn item(name: &str, attributes: Attributes) -> Item {
    Item {
        name: name.to_owned(),
        dir: attributes.kind == Kind::Directory,
        size: attributes.size,
        modified: attributes.modified,
    }
}

/// A name that can be part of a path.
fn usable(name: &[u8]) -> Option<&str> {
    std::str::from_utf8(name).ok().filter(|name| !name.is_empty() && !name.contains(['/', '\0']))
}

fn left_out(dir: &str, name: &str, why: &str) {
    output::note(&format!("NOTICE: {}: {why}", join(dir, name)));
}

impl Session {
    async fn question(&self, kind: u8, fill: impl FnOnce(Request) -> Request) -> Result<Reply> {
        self.ask(ANSWER, kind, fill).await
    }

    async fn attributes(&self, path: &str) -> Result<Option<Attributes>> {
        match self.question(STAT, |request| request.text(place(path))).await?.attributes() {
            Ok(attributes) => Ok(Some(attributes)),
            Err(fault) if is(&fault, Cause::NotFound) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    pub(super) async fn stat(&self, path: &str) -> Result<Option<Item>> {
        Ok(self.attributes(path).await?.map(|attributes| item(split(path).1, attributes)))
    }

    /// Lists a directory. Links lead to files, unless they are to be left out.
    pub(super) async fn list(&self, path: &str, links: bool) -> Result<Option<Vec<Item>>> {
        let handle = match self.question(OPENDIR, |request| request.text(place(path))).await?.handle() {
            Ok(handle) => handle,
            Err(fault) if is(&fault, Cause::NotFound) || is(&fault, Cause::NotDirectory) => return Ok(None),
            // What is no directory is refused in many ways.
            Err(fault) if fault.is_vague() => match self.stat(path).await? {
                Some(item) if item.dir => return Err(fault),
                _ => return Ok(None),
            },
            Err(fault) => return Err(fault),
        };
        let listed = self.pages(path, &handle, links).await;
        let closed = self.question(CLOSE, |request| request.text(&handle)).await;
        let items = listed?;
        closed?;
        Ok(Some(items))
    }

    async fn pages(&self, path: &str, handle: &Bytes, links: bool) -> Result<Vec<Item>> {
        let mut asked = VecDeque::new();
        let mut items = Vec::new();
        loop {
            while asked.len() < PAGES {
                asked.push_back(self.send(READDIR, |request| request.text(handle)).await?);
            }
            let Some(page) = asked.pop_front() else { return Ok(items) };
            let Some(entries) = page.within(ANSWER).await?.entries()? else { return Ok(items) };
            for (name, attributes) in entries {
                if matches!(&name[..], b"." | b"..") {
                    continue;
                }
                match usable(&name) {
                    Some(name) => items.extend(self.regular(path, name, attributes, links).await?),
                    None => left_out(path, &String::from_utf8_lossy(&name), "can't use a name that is not UTF-8"),
                }
            }
        }
    }

    /// Devices are not objects. Nor is a link to a directory: whoever removes what is below must not leave the repository.
    async fn regular(&self, dir: &str, name: &str, attributes: Attributes, links: bool) -> Result<Option<Item>> {
        match attributes.kind {
            Kind::File | Kind::Directory => return Ok(Some(item(name, attributes))),
            Kind::Link if links => match self.attributes(&join(dir, name)).await? {
                Some(target) if target.kind == Kind::File => return Ok(Some(item(name, target))),
                Some(target) if target.kind == Kind::Directory => {
                    left_out(dir, name, "a link to a directory is not followed");
                }
                _ => left_out(dir, name, "a link that does not lead to a file"),
            },
            Kind::Link => {}
            Kind::Special => left_out(dir, name, "can't copy, it is not a regular file"),
        }
        Ok(None)
    }

    pub(super) async fn open_to_read(&self, path: &str) -> Result<Bytes> {
        self.question(OPEN, |request| request.text(place(path)).number(FOR_READING).number(0)).await?.handle()
    }

    pub(super) async fn open_to_write(&self, path: &str) -> Result<Bytes> {
        let opened = self.question(OPEN, |request| request.text(place(path)).number(FOR_WRITING).number(0)).await?;
        self.explain(path, opened.handle()).await
    }

    async fn explain<T>(&self, path: &str, done: Result<T>) -> Result<T> {
        match done {
            Err(fault) => Err(Fault::Named(explained(self, path.as_bytes(), fault).await)),
            done => done,
        }
    }

    /// Renames over a file: in one step where the server can.
    pub(super) async fn rename(&self, from: &str, to: &str) -> Result<()> {
        if self.offers(Extension::Rename) {
            let fill = |request: Request| request.text(Extension::Rename.name()).text(place(from)).text(place(to));
            match self.question(EXTENDED, fill).await?.done() {
                Err(fault) if fault.is_unsupported() => {}
                done => return done,
            }
        }
        let plain = || self.question(RENAME, |request| request.text(place(from)).text(place(to)));
        let Err(fault) = plain().await?.done() else { return Ok(()) };
        match self.stat(to).await? {
            Some(item) if !item.dir && self.stat(from).await?.is_some() => {
                self.remove(to).await?;
                plain().await?.done()
            }
            _ => Err(fault),
        }
    }

    /// Gives a file a second name that nothing has yet. `None` when the server or its file system cannot.
    pub(super) async fn link(&self, from: &str, to: &str) -> Result<Option<bool>> {
        if !self.offers(Extension::Link) {
            return Ok(None);
        }
        let fill = |request: Request| request.text(Extension::Link.name()).text(place(from)).text(place(to));
        match self.question(EXTENDED, fill).await?.done() {
            Ok(()) => Ok(Some(true)),
            Err(fault @ Fault::Named(_)) => Err(fault),
            // "Exists" has no number.
            Err(_) => Ok(self.stat(to).await?.map(|_| false)),
        }
    }

    pub(super) async fn remove(&self, path: &str) -> Result<()> {
        self.question(REMOVE, |request| request.text(place(path))).await?.done()
    }

    /// Makes a directory. False when the name is taken.
    pub(super) async fn mkdir(&self, path: &str) -> Result<bool> {
        let made = self.question(MKDIR, |request| request.text(place(path)).number(0)).await?.done();
        match made {
            Ok(()) => Ok(true),
            Err(fault @ Fault::Named(_)) => Err(fault),
            Err(_) if self.stat(path).await?.is_some() => Ok(false),
            Err(fault) => self.explain(path, Err(fault)).await,
        }
    }

    pub(super) async fn rmdir(&self, path: &str) -> Result<()> {
        match self.question(RMDIR, |request| request.text(place(path))).await?.done() {
            Err(fault) if fault.is_vague() => match self.list(path, false).await? {
                Some(items) if !items.is_empty() => Err(because(fault, Cause::NotEmpty)),
                _ => Err(fault),
            },
            done => done,
        }
    }
}

/// When an upload began, as the protocol tells times: last read, last written.
pub(super) fn times(request: Request, began: Timestamp) -> Request {
    let seconds = u32::try_from(began.as_second()).unwrap_or_default();
    request.number(HAS_TIMES).number(seconds).number(seconds)
}
