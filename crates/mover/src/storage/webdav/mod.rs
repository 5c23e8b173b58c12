//! `WebDAV`: the contract's keys, and what is asked of a server.

mod listing;
mod transfer;

use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};

use transfer::{Download, Upload};

use super::http;
use super::password;
use super::tree::{Files, Item, Reading, Tree, Writing};
use crate::config::value::Options;
use crate::error::{Cause, Error, Result};
use crate::rpath::{join, split};
use crate::storage::TEMPORARY;

const USED: &[&str] = &["url", "vendor", "user", "pass", "bearer_token", "headers"];
/// Keys whose effect we do not have or need.
const IGNORED: &[&str] = &[
    "pacer_min_sleep",
    // Uploads are streams, of any size.
    "nextcloud_chunk_size",
    "owncloud_exclude_shares",
    "owncloud_exclude_mounts",
    "auth_redirect",
    "encoding",
];
const REFUSED: &[(&str, &str)] = &[
    ("bearer_token_command", "this mover runs no programs; use bearer_token"),
    ("unix_socket", "only servers on the network are supported"),
];

/// One question and its answer.
const ANSWER: Duration = Duration::from_secs(20);
/// Copying and removing may take a server a while.
const WORK: Duration = Duration::from_mins(5);
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(300);
const PARALLEL: usize = 8;

pub(super) fn open(options: &Options<'_>) -> Result<Tree> {
    let known: Vec<&str> = USED.iter().chain(IGNORED).chain(REFUSED.iter().map(|(key, _)| key)).copied().collect();
    options.refuse_unknown("webdav", &known)?;
    options.refuse("webdav", REFUSED)?;
    let address = options.text("url").ok_or_else(|| Error::other("webdav: url is missing"))?;
    let base = Url::parse(address)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or_else(|| Error::other(format!("webdav: url {address:?} is not an address of http or https")))?;
    if let Some(vendor @ ("sharepoint" | "sharepoint-ntlm")) = options.text("vendor") {
        return Err(Error::other(format!(
            "webdav: vendor {vendor} cannot be used: its way to log in is not supported"
        )));
    }
    let webdav = WebDav {
        client: http::client(!options.bool("no_check_certificate", false)?)?,
        base,
        user: options.text("user").map(str::to_owned),
        password: password(options, "pass")?,
        headers: headers(options)?,
    };
    // The address already says where the tree begins.
    Ok(Tree::new(webdav, options.text("root").unwrap_or_default().trim_matches('/')))
}

/// Headers for every request: names and values in turn, with commas between them, or a token.
fn headers(options: &Options<'_>) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    let mut add = |name: &str, value: &str| -> Result<()> {
        let wrong = || Error::other(format!("webdav: {name:?} cannot be a header with that value"));
        let mut value = HeaderValue::from_str(value.trim()).map_err(|_| wrong())?;
        value.set_sensitive(true);
        headers.insert(HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| wrong())?, value);
        Ok(())
    };
    if let Some(text) = options.text("headers") {
        let parts: Vec<&str> = text.split(',').collect();
        if !parts.len().is_multiple_of(2) {
            return Err(Error::other("webdav: headers must be names and values in turn: name,value,name,value"));
        }
        for pair in parts.chunks(2) {
            add(pair[0], pair[1])?;
        }
    }
    if let Some(token) = options.text("bearer_token") {
        add("Authorization", &format!("Bearer {token}"))?;
    }
    Ok(headers)
}

#[derive(Clone)]
struct WebDav {
    client: Client,
    base: Url,
    user: Option<String>,
    password: Option<String>,
    headers: HeaderMap,
}

/// What a request has besides its address.
#[derive(Default)]
struct Extra<'a> {
    depth: Option<&'a str>,
    /// Where to move to, and whether over what is there.
    destination: Option<(&'a str, bool)>,
    body: Option<&'static str>,
}

impl WebDav {
    fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path.split('/').filter(|part| !part.is_empty()));
            if path.is_empty() || path.ends_with('/') {
                // How some servers tell a directory from a file.
                segments.push("");
            }
        }
        url
    }

    fn request(&self, method: &str, url: Url) -> RequestBuilder {
        let method = Method::from_bytes(method.as_bytes()).unwrap_or(Method::GET);
        let request = self.client.request(method, url).headers(self.headers.clone());
        match &self.user {
            Some(user) => request.basic_auth(user, self.password.as_ref()),
            None => request,
        }
    }

    /// Sends a request that may be sent again, and does so while the server is out of reach, busy or has the path locked.
    async fn send(&self, method: &str, path: &str, limit: Duration, extra: &Extra<'_>) -> Result<Response> {
        let mut tried = 0;
        loop {
            let mut request = self.request(method, self.url(path)).timeout(limit);
            if let Some(depth) = extra.depth {
                request = request.header("Depth", depth);
            }
            if let Some((destination, replace)) = extra.destination {
                request = request.header("Destination", self.url(destination).as_str());
                request = request.header("Overwrite", if replace { "T" } else { "F" });
            }
            if let Some(body) = extra.body {
                request = request.header("Content-Type", "application/xml").body(body);
            }
            tried += 1;
            match request.send().await {
                Ok(response) if tried < TRIES && is_passing(response.status()) => {}
                Ok(response) => return Ok(response),
                Err(error) if tried < TRIES && !error.is_builder() => drop(error),
                Err(error) => return Err(broken(&error)),
            }
            tokio::time::sleep(PAUSE * (1 << tried)).await;
        }
    }

    async fn propfind(&self, path: &str, depth: &str) -> Result<Option<Vec<listing::Found>>> {
        let extra = Extra { depth: Some(depth), body: Some(listing::QUESTION), ..Extra::default() };
        let response = self.send("PROPFIND", path, ANSWER * if depth == "0" { 1 } else { 6 }, &extra).await?;
        match response.status() {
            StatusCode::MULTI_STATUS => {
                let text = response.text().await.map_err(|error| broken(&error))?;
                listing::parse(&text, &self.url(path)).map(Some)
            }
            StatusCode::NOT_FOUND | StatusCode::CONFLICT => Ok(None),
            _ => Err(refused("PROPFIND", &response)),
        }
    }

    async fn move_to(&self, from: &str, to: &str, replace: bool) -> Result<StatusCode> {
        let extra = Extra { destination: Some((to, replace)), ..Extra::default() };
        let response = self.send("MOVE", from, WORK, &extra).await?;
        match response.status() {
            status if status.is_success() || status == StatusCode::PRECONDITION_FAILED => Ok(status),
            _ => Err(refused("MOVE", &response)),
        }
    }

    async fn delete(&self, path: &str) -> Result<()> {
        let response = self.send("DELETE", path, WORK, &Extra::default()).await?;
        match response.status() {
            // Something inside could not be removed.
            StatusCode::MULTI_STATUS => Err(Error::other("webdav: the server could not remove everything")),
            status if status.is_success() => Ok(()),
            StatusCode::NOT_FOUND => Err(Error::new(Cause::NotFound, "webdav: DELETE: not found")),
            _ => Err(refused("DELETE", &response)),
        }
    }
}

/// Worth another try.
fn is_passing(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::LOCKED
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}

/// A connection that failed.
fn broken(error: &reqwest::Error) -> Error {
    let mut text = String::new();
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(inner) = source {
        if !text.is_empty() {
            text += ": ";
        }
        text += &inner.to_string();
        source = inner.source();
    }
    let cause = if text.contains("dns: ") {
        Cause::Dns
    } else if text.contains("certificate") || text.contains("HandshakeFailure") || text.contains("InvalidContentType") {
        Cause::Tls
    } else {
        Cause::Unreachable
    };
    Error::new(cause, format!("webdav: {text}"))
}

/// A server's refusal.
fn refused(method: &str, response: &Response) -> Error {
    let status = response.status();
    let cause = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Cause::AccessDenied,
        StatusCode::NOT_FOUND | StatusCode::CONFLICT => Cause::NotFound,
        StatusCode::INSUFFICIENT_STORAGE => Cause::NoSpace,
        status if is_passing(status) => Cause::Unreachable,
        _ => Cause::Other,
    };
    Error::new(cause, format!("webdav: {method}: the server answered with status {status}"))
}

#[async_trait]
impl Files for WebDav {
    fn parallel(&self) -> usize {
        PARALLEL
    }

    async fn stat(&self, path: &str) -> Result<Option<Item>> {
        let Some(found) = self.propfind(path, "0").await? else { return Ok(None) };
        Ok(found.into_iter().next().map(|found| Item { name: split(path).1.to_owned(), ..found.item }))
    }

    async fn list(&self, path: &str) -> Result<Option<Vec<Item>>> {
        let Some(found) = self.propfind(path, "1").await? else { return Ok(None) };
        // A file answers as well, with itself.
        if found.iter().any(|found| found.itself && !found.item.dir) {
            return Ok(None);
        }
        Ok(Some(found.into_iter().filter(|found| !found.itself).map(|found| found.item).collect()))
    }

    async fn read(&self, path: &str, offset: u64) -> Result<Box<dyn Reading>> {
        let mut request = self.request("GET", self.url(path)).header("Accept-Encoding", "identity");
        if offset > 0 {
            request = request.header("Range", format!("bytes={offset}-"));
        }
        let response = request.send().await.map_err(|error| broken(&error))?;
        match response.status() {
            StatusCode::OK => Ok(Box::new(Download::new(response, offset))),
            StatusCode::PARTIAL_CONTENT if offset > 0 => Ok(Box::new(Download::new(response, 0))),
            // Behind the last byte.
            StatusCode::RANGE_NOT_SATISFIABLE => Ok(Box::new(transfer::Nothing)),
            _ => Err(refused("GET", &response)),
        }
    }

    async fn write(&self, path: &str) -> Result<Box<dyn Writing>> {
        Ok(Box::new(Upload::new(self.clone(), path)))
    }

    async fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.move_to(from, to, true).await.map(drop)
    }

    async fn rename_new(&self, from: &str, to: &str) -> Result<Option<bool>> {
        Ok(Some(self.move_to(from, to, false).await?.is_success()))
    }

    async fn remove(&self, path: &str) -> Result<()> {
        self.delete(path).await
    }

    async fn mkdir(&self, path: &str) -> Result<bool> {
        let response = self.send("MKCOL", &format!("{path}/"), ANSWER, &Extra::default()).await?;
        match response.status() {
            status if status.is_success() => Ok(true),
            StatusCode::METHOD_NOT_ALLOWED => Ok(false),
            _ => match self.stat(path).await? {
                Some(_) => Ok(false),
                None => Err(refused("MKCOL", &response)),
            },
        }
    }

    /// DELETE takes what is in a directory along, so a directory is first moved out of everybody's reach and looked at there:
    /// nothing that somebody stores at this moment may go with it.
    async fn rmdir(&self, path: &str) -> Result<()> {
        let aside = join(split(path).0, &format!("{TEMPORARY}{:016x}", rand::random::<u64>()));
        let (from, to) = (format!("{path}/"), format!("{aside}/"));
        match self.move_to(&from, &to, false).await {
            Ok(_) => {}
            Err(error) if error.is(Cause::NotFound) || error.is(Cause::Unreachable) => return Err(error),
            // A server that cannot move directories.
            Err(_) => {
                return match self.list(path).await? {
                    Some(items) if items.is_empty() => self.delete(&from).await,
                    Some(_) => Err(Error::new(Cause::NotEmpty, format!("remove {path}: directory not empty"))),
                    None => Ok(()),
                };
            }
        }
        let inside = self.list(&aside).await?.unwrap_or_default();
        if inside.is_empty() {
            return self.delete(&to).await;
        }
        if !self.move_to(&to, &from, false).await?.is_success() {
            // Somebody has made it anew in the meantime.
            for item in inside {
                self.move_to(&join(&aside, &item.name), &join(path, &item.name), false).await?;
            }
            self.delete(&to).await?;
        }
        Err(Error::new(Cause::NotEmpty, format!("remove {path}: directory not empty")))
    }

    async fn remove_tree(&self, path: &str) -> Result<bool> {
        if path.is_empty() {
            // The address itself stays, only what is in it goes.
            return Ok(false);
        }
        self.delete(&format!("{path}/")).await.map(|()| true)
    }
}
