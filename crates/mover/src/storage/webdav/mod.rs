//! `WebDAV`: the contract's keys, and what is asked of a server.

mod listing;
mod request;
mod transfer;

use std::time::Duration;

use async_trait::async_trait;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use request::{Answer, Extra, Requests, address, refused};
use transfer::{Download, Upload};

use super::http;
use super::password;
use super::tree::{Files, Item, Reading, Tree, Writing};
use crate::config::value::Options;
use crate::error::{Cause, Error, Result};
use crate::rpath::{join, split};
use crate::storage::TEMPORARY;

/// Keys that mean something here.
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

/// Removing a whole directory may take a server a while.
const WORK: Duration = Duration::from_mins(5);
const PARALLEL: usize = 8;

pub(super) fn open(options: &Options<'_>) -> Result<Tree> {
    let known: Vec<&str> = USED.iter().chain(IGNORED).chain(REFUSED.iter().map(|(key, _)| key)).copied().collect();
    options.refuse_unknown("webdav", &known)?;
    options.refuse("webdav", REFUSED)?;
    let base = address(options.text("url").ok_or_else(|| Error::other("webdav: url is missing"))?)?;
    if let Some(vendor @ ("sharepoint" | "sharepoint-ntlm")) = options.text("vendor") {
        return Err(Error::other(format!(
            "webdav: vendor {vendor} cannot be used: its way to log in is not supported"
        )));
    }
    let user = options.text("user").map(str::to_owned);
    let check = !options.bool("no_check_certificate", false)?;
    let webdav = WebDav(Requests {
        client: http::client(check)?,
        streams: http::client_for_streams(check)?,
        base,
        // A token takes the place of a login.
        user: user.filter(|_| options.text("bearer_token").is_none()),
        password: password(options, "pass")?,
        headers: headers(options)?,
    });
    // The address already says where the tree begins.
    Ok(Tree::new(webdav, options.text("root").unwrap_or_default().trim_matches('/')))
}

/// Headers for every request: names and values in turn, or a token.
fn headers(options: &Options<'_>) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    let mut add = |name: &str, value: &str| -> Result<()> {
        // The value may be a secret.
        let wrong = || Error::other(format!("webdav: headers: {name:?} or its value cannot be in a header"));
        let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| wrong())?;
        let mut value = HeaderValue::from_str(value.trim()).map_err(|_| wrong())?;
        value.set_sensitive(true);
        headers.insert(name, value);
        Ok(())
    };
    let fields = options.text("headers").map(fields).unwrap_or_default();
    if !fields.len().is_multiple_of(2) {
        return Err(Error::other("webdav: headers must be names and values in turn: name,value,name,value"));
    }
    for pair in fields.chunks(2) {
        add(&pair[0], &pair[1])?;
    }
    if let Some(token) = options.text("bearer_token") {
        add("Authorization", &format!("Bearer {token}"))?;
    }
    Ok(headers)
}

/// Fields between commas; one in double quotes may hold commas, and quotes as two of them.
fn fields(text: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.next_if_eq(&'"').is_some() => {
                fields.last_mut().into_iter().for_each(|f| f.push('"'));
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            _ => fields.last_mut().into_iter().for_each(|f| f.push(letter)),
        }
    }
    fields
}

#[derive(Clone)]
struct WebDav(Requests);

impl WebDav {
    /// Moves what has a name that nobody else knows. Returns false when the new name is taken and may not be replaced.
    async fn move_to(&self, from: &str, to: &str, replace: bool) -> Result<bool> {
        let extra = Extra { destination: Some((to, replace)), limit: Some(WORK) };
        let answer = self.0.ask("MOVE", from, &extra).await?;
        match answer.status {
            status if status.is_success() && status != StatusCode::MULTI_STATUS => Ok(true),
            // The answer to a move that was done may have been lost, and the next one then finds nothing to move.
            _ if answer.repeated && self.stat(from).await?.is_none() && self.stat(to).await?.is_some() => Ok(true),
            StatusCode::PRECONDITION_FAILED if !replace => Ok(false),
            _ => Err(refused("MOVE", &answer)),
        }
    }

    async fn delete(&self, path: &str) -> Result<()> {
        let answer = self.0.ask("DELETE", path, &Extra { limit: Some(WORK), ..Extra::default() }).await?;
        match answer.status {
            StatusCode::MULTI_STATUS => {
                Err(Error::new(listing::worst(&answer.body), "webdav: DELETE: the server could not remove everything"))
            }
            status if status.is_success() => Ok(()),
            _ => Err(refused("DELETE", &answer)),
        }
    }

    /// Makes nothing of a directory that has been moved aside, or brings back what is in it.
    async fn empty_or_back(&self, path: &str, aside: &str) -> Result<()> {
        let (from, to) = (format!("{path}/"), format!("{aside}/"));
        let inside = self.list(aside).await?.unwrap_or_default();
        if inside.is_empty() {
            return self.delete(&to).await;
        }
        if !self.move_to(&to, &from, false).await? {
            // Somebody has made it anew in the meantime.
            let mut all = true;
            for item in inside {
                all &= self.move_to(&join(aside, &item.name), &join(path, &item.name), false).await?;
            }
            if all {
                self.delete(&to).await?;
            }
        }
        Err(not_empty(path))
    }
}

fn not_empty(path: &str) -> Error {
    Error::new(Cause::NotEmpty, format!("remove {path}: directory not empty"))
}

#[async_trait]
impl Files for WebDav {
    fn parallel(&self) -> usize {
        PARALLEL
    }

    async fn stat(&self, path: &str) -> Result<Option<Item>> {
        let Some(mut found) = self.0.propfind(path, "0").await? else { return Ok(None) };
        Ok(found.pop().map(|found| Item { name: split(path).1.to_owned(), ..found.item }))
    }

    async fn list(&self, path: &str) -> Result<Option<Vec<Item>>> {
        let Some(found) = self.0.propfind(path, "1").await? else { return Ok(None) };
        // A file answers as well, with itself.
        if found.iter().any(|found| found.itself && !found.item.dir) {
            return Ok(None);
        }
        Ok(Some(found.into_iter().filter(|found| !found.itself).map(|found| found.item).collect()))
    }

    async fn read(&self, path: &str, offset: u64) -> Result<Box<dyn Reading>> {
        let response = self.0.get(path, offset).await?;
        match response.status() {
            // A server without ranges sends again what is here already.
            StatusCode::OK => Ok(Box::new(Download::new(response, offset))),
            StatusCode::PARTIAL_CONTENT if offset > 0 => Ok(Box::new(Download::new(response, 0))),
            // Behind the last byte.
            StatusCode::RANGE_NOT_SATISFIABLE if offset > 0 => Ok(Box::new(transfer::Nothing)),
            _ => Err(refused("GET", &Answer::from(&response))),
        }
    }

    async fn write(&self, path: &str) -> Result<Box<dyn Writing>> {
        Ok(Box::new(Upload::new(self.0.clone(), path)))
    }

    async fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.move_to(from, to, true).await.map(drop)
    }

    async fn rename_new(&self, from: &str, to: &str) -> Result<Option<bool>> {
        self.move_to(from, to, false).await.map(Some)
    }

    async fn remove(&self, path: &str) -> Result<()> {
        self.delete(path).await
    }

    async fn mkdir(&self, path: &str) -> Result<bool> {
        let answer = self.0.ask("MKCOL", &format!("{path}/"), &Extra::default()).await?;
        match answer.status {
            status if status.is_success() => Ok(true),
            StatusCode::METHOD_NOT_ALLOWED => Ok(false),
            _ if self.stat(path).await?.is_some() => Ok(false),
            _ => Err(refused("MKCOL", &answer)),
        }
    }

    /// DELETE takes what is in a directory along, so a directory is first moved out of everybody's reach and looked at there:
    /// nothing that somebody stores at this moment may go with it.
    async fn rmdir(&self, path: &str) -> Result<()> {
        match self.list(path).await? {
            None => return Err(Error::new(Cause::NotFound, "directory not found")),
            Some(items) if !items.is_empty() => return Err(not_empty(path)),
            Some(_) => {}
        }
        let aside = join(split(path).0, &format!("{TEMPORARY}{:016x}", rand::random::<u64>()));
        match self.move_to(&format!("{path}/"), &format!("{aside}/"), false).await {
            Ok(_) => self.empty_or_back(path, &aside).await,
            Err(error) if matches!(error.cause, Cause::NotFound | Cause::Unreachable | Cause::AccessDenied) => {
                Err(error)
            }
            // A server that cannot move directories.
            Err(_) => self.delete(&format!("{path}/")).await,
        }
    }

    async fn remove_tree(&self, path: &str) -> Result<bool> {
        if path.is_empty() {
            // The address itself stays, only what is in it goes.
            return Ok(false);
        }
        match self.delete(&format!("{path}/")).await {
            // It was there a moment ago: the first answer was lost, or somebody else was faster.
            Err(error) if error.is(Cause::NotFound) => Ok(true),
            other => other.map(|()| true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ini::Ini;

    fn opened(lines: &str) -> Result<HeaderMap> {
        let ini = Ini::parse(&format!("[storage]\ntype = webdav\n{lines}")).unwrap();
        let options = Options::new(&ini);
        open(&options).and_then(|_| headers(&options))
    }

    #[test]
    fn what_cannot_be_honoured_is_refused() {
        for (lines, part) in [
            ("user = u", "url is missing"),
            ("url = ftp://h/", "not an address of http or https"),
            ("url = h/dav", "not an address of http or https"),
            ("url = http://h/\nvendor = sharepoint-ntlm", "its way to log in"),
            ("url = http://h/\nbearer_token_command = x", "runs no programs"),
            ("url = http://h/\nusr = x", "unknown key \"usr\""),
            ("url = http://h/\nheaders = Cookie", "names and values in turn"),
            ("url = http://h/\nheaders = a b,c", "cannot be in a header"),
            ("url = http://h/\npass = short", "is it obscured?"),
        ] {
            let error = opened(lines).unwrap_err().to_string();
            assert!(error.contains(part), "{lines}: {error}");
        }
    }

    #[test]
    fn headers_are_names_and_values_in_turn() {
        let headers = opened("url = http://h/\nheaders = \"X-A\",\"1,\"\"2\",Cookie,a=b\nbearer_token = t").unwrap();
        assert_eq!(
            (headers.len(), &headers["x-a"], &headers["cookie"]),
            (3, &"1,\"2".parse().unwrap(), &"a=b".parse().unwrap())
        );
        assert_eq!(headers["authorization"], "Bearer t");
    }
}
