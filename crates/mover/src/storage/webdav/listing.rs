//! Properties as a server tells them: the answers to PROPFIND.

use jiff::Timestamp;
use percent_encoding::percent_decode_str;
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
    response: Vec<Answer>,
}

#[derive(Deserialize)]
struct Answer {
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

/// Reads an answer to a question about `asked`.
pub(super) fn parse(text: &str, asked: &Url) -> Result<Vec<Found>> {
    // A server that fails half way through has already said that all is well.
    if !text.trim_end().ends_with("multistatus>") {
        return Err(Error::new(Cause::Unreachable, "webdav: the server broke off its listing"));
    }
    let answers: Multistatus = quick_xml::de::from_str(text)
        .map_err(|error| Error::other(format!("webdav: the server's listing cannot be read: {error}")))?;
    let own = names(asked);
    answers.response.into_iter().filter_map(|answer| found(answer, asked, &own).transpose()).collect()
}

/// The decoded parts of a path.
fn names(url: &Url) -> Vec<String> {
    let parts = url.path().split('/').filter(|part| !part.is_empty());
    parts.map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned()).collect()
}

fn found(answer: Answer, asked: &Url, own: &[String]) -> Result<Option<Found>> {
    let url = asked
        .join(&answer.href)
        .map_err(|_| Error::other(format!("webdav: {:?} in the server's listing is no address", answer.href)))?;
    let path = names(&url);
    let (mut dir, mut size, mut modified) = (url.path().ends_with('/'), 0, Timestamp::UNIX_EPOCH);
    let mut known = false;
    for propstat in answer.propstat {
        if !propstat.status.is_empty() && !propstat.status.contains(" 200") {
            continue;
        }
        known = true;
        let Properties { resourcetype, getcontentlength, getlastmodified } = propstat.prop;
        if let Some(kind) = resourcetype {
            dir = kind.collection.is_some();
        }
        if let Some(length) = getcontentlength.and_then(|text| text.trim().parse().ok()) {
            size = length;
        }
        if let Some(time) = getlastmodified.and_then(|text| jiff::fmt::rfc2822::parse(text.trim()).ok()) {
            modified = time.timestamp();
        }
    }
    if !known {
        return Ok(None);
    }
    let itself = path == own;
    let name = path.last().cloned().unwrap_or_default();
    Ok(Some(Found { item: Item { name, dir, size, modified }, itself }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listings_of_different_servers_are_read() {
        let asked = Url::parse("http://x/dav/a%20b").unwrap();
        let text = "<?xml version=\"1.0\"?><D:multistatus xmlns:D=\"DAV:\" xmlns:lp1=\"DAV:\">\
            <D:response><D:href>/dav/a%20b/</D:href><D:propstat><D:prop><lp1:resourcetype><D:collection/></lp1:resourcetype>\
            </D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>\
            <D:response><D:href>http://x/dav/a%20b/50%25%20%26%c3%bc.txt</D:href><D:propstat><D:prop><lp1:resourcetype/>\
            <lp1:getcontentlength>12</lp1:getcontentlength>\
            <lp1:getlastmodified>Tue, 14 Nov 2023 22:13:20 GMT</lp1:getlastmodified></D:prop>\
            <D:status>HTTP/1.1 200 OK</D:status></D:propstat><D:propstat><D:prop><D:getetag/></D:prop>\
            <D:status>HTTP/1.1 404 Not Found</D:status></D:propstat></D:response></D:multistatus>";
        let found = parse(text, &asked).unwrap();
        assert!(found[0].itself && found[0].item.dir);
        assert!(!found[1].itself && !found[1].item.dir);
        assert_eq!(found[1].item.name, "50% &ü.txt");
        assert_eq!((found[1].item.size, found[1].item.modified.as_second()), (12, 1_700_000_000));
        assert!(parse("<html>", &asked).is_err());
        let broken = format!("{text}Internal Server Error");
        assert!(parse(&broken, &asked).unwrap_err().is(Cause::Unreachable));
    }
}
