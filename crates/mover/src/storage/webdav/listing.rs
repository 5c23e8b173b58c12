//! Properties as a server tells them: the answers to PROPFIND.

use std::io::{self, BufReader, Read};

use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use quick_xml::DeError;
use reqwest::Url;
use serde::Deserialize;

use crate::error::{Cause, Error, Result};
use crate::storage::tree::Item;

pub(super) const QUESTION: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\
    <D:propfind xmlns:D=\"DAV:\"><D:prop><D:resourcetype/><D:getcontentlength/><D:getlastmodified/></D:prop></D:propfind>";

/// One answer.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) item: Item,
    /// It is what was asked about, not something in it.
    pub(super) itself: bool,
}

#[derive(Deserialize)]
struct Multistatus {
    #[serde(default)]
    response: Vec<Told>,
}

/// An answer as far as it is needed; the rest is dropped as it is read.
#[derive(Deserialize)]
#[serde(from = "Response")]
struct Told {
    href: String,
    /// Whether there are properties: there are none of what has vanished, or is forbidden.
    known: bool,
    dir: Option<bool>,
    size: u64,
    modified: Timestamp,
}

#[derive(Deserialize)]
struct Response {
    href: String,
    #[serde(default)]
    propstat: Vec<Propstat>,
}

#[derive(Deserialize)]
struct Propstat {
    #[serde(default)]
    status: String,
    #[serde(default)]
    prop: Properties,
}

#[derive(Default, Deserialize)]
struct Properties {
    resourcetype: Option<Kind>,
    getcontentlength: Option<String>,
    getlastmodified: Option<String>,
}

#[derive(Deserialize)]
struct Kind {
    collection: Option<serde::de::IgnoredAny>,
}

impl From<Response> for Told {
    fn from(response: Response) -> Self {
        let mut told = Self { href: response.href, known: false, dir: None, size: 0, modified: Timestamp::UNIX_EPOCH };
        for Propstat { status, prop } in response.propstat {
            if !status.is_empty() && !status.contains(" 200") {
                continue;
            }
            told.known = true;
            if let Some(kind) = prop.resourcetype {
                told.dir = Some(kind.collection.is_some());
            }
            if let Some(length) = prop.getcontentlength.and_then(|text| text.trim().parse().ok()) {
                told.size = length;
            }
            if let Some(time) = prop.getlastmodified.and_then(|text| time(text.trim())) {
                told.modified = time;
            }
        }
        told
    }
}

fn time(text: &str) -> Option<Timestamp> {
    let http = jiff::fmt::rfc2822::parse(text).map(|time| time.timestamp());
    http.or_else(|_| text.parse()).ok()
}

/// Reads the answer to a question about `asked`.
pub(super) fn read(text: impl Read, asked: &Url) -> Result<Vec<Found>> {
    let wrong = |error: &DeError| {
        let cause = match error {
            DeError::InvalidXml(quick_xml::Error::Io(_)) => Cause::Unreachable,
            _ => Cause::Other,
        };
        Error::new(cause, format!("webdav: the server's listing cannot be read: {error}"))
    };
    let mut text = BufReader::new(Tail { text, last: Vec::new() });
    let answers: Multistatus = quick_xml::de::from_reader(&mut text).map_err(|error| wrong(&error))?;
    let broken = |error: io::Error| Error::new(Cause::Unreachable, format!("webdav: the listing broke off: {error}"));
    io::copy(&mut text, &mut io::sink()).map_err(broken)?;
    // A server that fails in the middle can only say so behind what it has said, and may even close the document before.
    if !text.get_ref().last.trim_ascii_end().ends_with(b"multistatus>") {
        return Err(Error::new(Cause::Unreachable, "webdav: the server broke off its listing"));
    }
    let own = parts(asked)?;
    let mut found = Vec::with_capacity(answers.response.len());
    let mut shortest = usize::MAX;
    for told in answers.response.into_iter().filter(|told| told.known) {
        let wrong = || Error::other(format!("webdav: {:?} in the server's listing is no address", told.href));
        let url = asked.join(&told.href).map_err(|_| wrong())?;
        let mut path = parts(&url)?;
        shortest = shortest.min(path.len());
        let (itself, depth) = (path == own, path.len());
        let name = path.pop().unwrap_or_default();
        let dir = told.dir.unwrap_or_else(|| url.path().ends_with('/'));
        found.push((depth, Found { item: Item { name, dir, size: told.size, modified: told.modified }, itself }));
    }
    // Behind a gateway that maps paths a server calls itself otherwise; what it contains has longer paths.
    if !found.iter().any(|(_, found)| found.itself) {
        for (depth, found) in &mut found {
            found.itself = *depth == shortest;
        }
    }
    Ok(found.into_iter().map(|(_, found)| found).collect())
}

/// Keeps the end of what is read.
struct Tail<R> {
    text: R,
    last: Vec<u8>,
}

impl<R: Read> Read for Tail<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.text.read(buffer)?;
        self.last.extend_from_slice(&buffer[..read]);
        self.last.drain(..self.last.len().saturating_sub(64));
        Ok(read)
    }
}

/// The decoded parts of a path. A name that would lead elsewhere is no name.
fn parts(url: &Url) -> Result<Vec<String>> {
    let parts = url.path().split('/').filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let name = percent_decode_str(part).decode_utf8_lossy().into_owned();
            if name.contains('/') || matches!(name.as_str(), "." | "..") {
                return Err(Error::other(format!("webdav: {part:?} in the server's listing is no name")));
            }
            Ok(name)
        })
        .collect()
}

/// Why a part of a request failed.
pub(super) fn worst(text: &str) -> Cause {
    let says = |status: &str| text.contains(&format!(" {status} "));
    match () {
        () if says("401") || says("403") => Cause::AccessDenied,
        () if says("423") => Cause::Unreachable,
        () => Cause::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(href: &str, properties: &str) -> String {
        format!(
            "<D:response><D:href>{href}</D:href><D:propstat><D:prop>{properties}</D:prop>\
             <D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>"
        )
    }

    fn listing(answers: &str) -> Result<Vec<Found>> {
        let text = format!(
            "<?xml version=\"1.0\"?><D:multistatus xmlns:D=\"DAV:\" xmlns:lp1=\"DAV:\">{answers}</D:multistatus>"
        );
        read(text.as_bytes(), &Url::parse("http://x/dav/a%20b").unwrap())
    }

    const DIR: &str = "<lp1:resourcetype><D:collection/></lp1:resourcetype>";
    const FILE: &str = "<lp1:resourcetype/><lp1:getcontentlength>12</lp1:getcontentlength>\
        <lp1:getlastmodified>Tue, 14 Nov 2023 22:13:20 GMT</lp1:getlastmodified>";

    #[test]
    fn listings_of_different_servers_are_read() {
        let gone = "<D:response><D:href>/dav/a%20b/gone</D:href><D:propstat><D:prop/>\
            <D:status>HTTP/1.1 404 Not Found</D:status></D:propstat></D:response>";
        let own = answer("/dav/a%20b/", DIR);
        let found = listing(&(own + &answer("http://x/dav/a%20b/50%25%20%26%c3%bc.txt", FILE) + gone)).unwrap();
        assert_eq!(found.len(), 2);
        assert!(found[0].itself && found[0].item.dir);
        assert!(!found[1].itself && !found[1].item.dir);
        assert_eq!(found[1].item.name, "50% &ü.txt");
        assert_eq!((found[1].item.size, found[1].item.modified.as_second()), (12, 1_700_000_000));
    }

    #[test]
    fn a_server_behind_a_gateway_is_understood() {
        let found = listing(&(answer("/inner/a%20b/", DIR) + &answer("/inner/a%20b/c", FILE))).unwrap();
        let names: Vec<_> = found.iter().map(|found| (found.itself, found.item.name.as_str())).collect();
        assert_eq!(names, [(true, "a b"), (false, "c")]);
    }

    #[test]
    fn what_is_no_listing_is_refused() {
        assert!(read(&b"<html>"[..], &Url::parse("http://x/").unwrap()).is_err());
        for href in ["/dav/a%20b/..%2F..%2Fetc", "/dav/a%20b/x%2Fy", "http://["] {
            assert!(listing(&answer(href, FILE)).is_err(), "{href}");
        }
    }

    #[test]
    fn half_a_listing_is_none() {
        let half = format!("<D:multistatus xmlns:D=\"DAV:\">{}", answer("/dav/a%20b/", DIR));
        let asked = Url::parse("http://x/dav/a%20b").unwrap();
        assert!(read(half.as_bytes(), &asked).is_err());
        let closed = format!("{half}</D:multistatus>");
        assert_eq!(read(format!("{closed}\n").as_bytes(), &asked).unwrap().len(), 1);
        let failed = read(format!("{closed}Internal Server Error").as_bytes(), &asked).unwrap_err();
        assert!(failed.is(Cause::Unreachable), "{failed}");
    }

    #[test]
    fn a_listing_that_breaks_off_is_asked_for_again() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                Err(std::io::Error::other("the connection broke"))
            }
        }
        let text = b"<D:multistatus xmlns:D=\"DAV:\"><D:response>".chain(Broken);
        assert!(read(text, &Url::parse("http://x/").unwrap()).unwrap_err().is(Cause::Unreachable));
    }
}
