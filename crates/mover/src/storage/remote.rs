//! Object stores behind OpenDAL.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use jiff::Timestamp;
use opendal::layers::{RetryLayer, TimeoutLayer};
use opendal::{ErrorKind, Lister, Operator};

use super::leftovers::Leftovers;
use super::transport::{Patience, Transport};
use super::upload::{Limits, Upload};
use super::{By, Depth, Each, Entry, Found, Held, TEMPORARY, Visit};
use crate::error::{Cause, Error, Result};
use crate::rpath::split;

mod download;

pub(crate) use download::Download;

/// How a listing is handed on: entries per block.
const PAGE: usize = 1000;

/// An object store.
pub(crate) struct Remote {
    /// Gives up within half a minute: for questions, and for the first sign of life.
    quick: Operator,
    /// Rides out a server's restart: for the middle of a long transfer.
    patient: Operator,
    /// As quick, but never tries again by itself.
    once: Operator,
    limits: Limits,
    /// Where the store can tell which uploads are unfinished.
    leftovers: Option<Leftovers>,
    /// Without layers, for tests with other ones.
    #[cfg(test)]
    bare: Operator,
}

impl Remote {
    pub(super) fn new(operator: &Operator, client: &reqwest::Client, limits: Limits) -> Self {
        Self::with_patience(operator, client, limits, Patience::QUICK, Patience::LONG)
    }

    fn with_patience(
        operator: &Operator,
        client: &reqwest::Client,
        limits: Limits,
        quick: Patience,
        long: Patience,
    ) -> Self {
        let with = |patience: Patience| {
            let transport = opendal::HttpTransporter::new(Transport::new(client.clone(), patience));
            let context = operator.base_context().with_http_transport(transport);
            // The transport gives up first; this is for what hangs elsewhere. It is inside the retry, so that a try that
            // hangs is tried again.
            let longest = patience.total + Duration::from_secs(30);
            let limit = TimeoutLayer::new().with_timeout(longest).with_io_timeout(longest);
            operator.clone().with_context(context).layer(limit)
        };
        let retry = |times, longest| {
            RetryLayer::new()
                .with_jitter()
                .with_min_delay(Duration::from_millis(200))
                .with_max_delay(Duration::from_secs(longest))
                .with_max_times(times)
        };
        Self {
            quick: with(quick).layer(retry(3, 2)),
            patient: with(long).layer(retry(10, 20)),
            once: with(quick),
            limits,
            leftovers: None,
            #[cfg(test)]
            bare: operator.clone(),
        }
    }

    /// The same, with a way to find unfinished uploads.
    pub(super) fn with_leftovers(self, leftovers: Leftovers) -> Self {
        Self { leftovers: Some(leftovers), ..self }
    }

    pub(super) async fn lookup(&self, key: &str) -> Result<Found> {
        if key.is_empty() {
            return Ok(Found::Dir);
        }
        if is_trimmed(key) {
            return Ok(Found::Missing);
        }
        match self.quick.stat(key).await {
            Ok(meta) if meta.is_file() => Ok(Found::File(Entry {
                key: key.to_owned(),
                dir: false,
                size: meta.content_length() as i64,
                modified: meta.last_modified().map_or(Timestamp::UNIX_EPOCH, Into::into),
                etag: meta.etag().map(str::to_owned),
            })),
            Ok(_) => Ok(Found::Missing),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Found::Missing),
            Err(error) => Err(explain(&self.quick, key, &error).await),
        }
    }

    async fn lister(&self, key: &str, recursive: bool) -> Result<Lister> {
        let dir = if key.is_empty() { "/".to_owned() } else { format!("{key}/") };
        self.quick.lister_with(&dir).recursive(recursive).await.map_err(|error| failure(&error))
    }

    pub(super) async fn walk(&self, key: &str, depth: Depth, visit: Visit<'_>) -> Result<()> {
        match depth {
            Depth::Levels(1) => self.walk_one(key, visit).await,
            Depth::Levels(levels) => {
                // Bounded depth is asked level by level; everything below is never fetched.
                let mut dirs = vec![key.to_owned()];
                for _ in 0..levels {
                    let mut below = Vec::new();
                    for dir in dirs {
                        self.walk_one(&dir, &mut |entries| {
                            below.extend(entries.iter().filter(|entry| entry.dir).map(|entry| entry.key.clone()));
                            visit(entries)
                        })
                        .await?;
                    }
                    dirs = below;
                }
                Ok(())
            }
            Depth::All => self.walk_all(key, visit).await,
        }
    }

    /// One level, in the store's order: directories carry the contract's fixed time.
    async fn walk_one(&self, key: &str, visit: Visit<'_>) -> Result<()> {
        let mut lister = self.lister(key, false).await?;
        let mut page = Vec::with_capacity(PAGE);
        while let Some(item) = lister.next().await {
            let item = item.map_err(|error| failure(&error))?;
            page.extend(entry(key, &item));
            if page.len() == PAGE {
                visit(std::mem::replace(&mut page, Vec::with_capacity(PAGE)))?;
            }
        }
        visit(page)
    }

    /// Everything: objects in the store's order first, then the directories that their keys imply, sorted.
    async fn walk_all(&self, key: &str, visit: Visit<'_>) -> Result<()> {
        let modified = Timestamp::now();
        let mut dirs = Held::default();
        // The directory of the last object. Keys come sorted, so the objects of a directory are neighbours; of a store
        // that does not sort, directories are noted several times.
        let mut last = String::new();
        let mut page = Vec::with_capacity(PAGE);
        let mut lister = self.lister(key, true).await?;
        while let Some(item) = lister.next().await {
            let item = item.map_err(|error| failure(&error))?;
            let Some(entry) = entry(key, &item) else { continue };
            let dir = if entry.dir { entry.key.as_str() } else { split(&entry.key).0 };
            let mut missing = dir;
            while missing.len() > key.len() && !(is_below(&last, missing)) {
                dirs.push(&Entry { key: missing.to_owned(), dir: true, size: -1, modified, etag: None });
                missing = split(missing).0;
            }
            dir.clone_into(&mut last);
            if entry.dir {
                continue;
            }
            page.push(entry);
            if page.len() == PAGE {
                visit(std::mem::replace(&mut page, Vec::with_capacity(PAGE)))?;
            }
        }
        visit(page)?;
        dirs.sort(By::Name, false);
        dirs.dedup();
        dirs.visit(visit)
    }

    pub(super) async fn objects(&self, key: &str, each: Each<'_>) -> Result<()> {
        let mut lister = self.lister(key, true).await?;
        while let Some(item) = lister.next().await {
            let item = item.map_err(|error| failure(&error))?;
            if let Some(entry) = entry(key, &item).filter(|entry| !entry.dir) {
                each(entry)?;
            }
        }
        Ok(())
    }

    pub(super) fn read(&self, entry: &Entry) -> Download {
        Download::new(self.patient.clone(), entry, download::FAST)
    }

    pub(super) fn create(&self, key: &str) -> Result<Upload> {
        if is_trimmed(key) {
            return Err(Error::other("names that begin or end with white space cannot be stored here"));
        }
        Ok(Upload::new(self.quick.clone(), self.patient.clone(), key, self.limits))
    }

    pub(super) async fn put_new(&self, key: &str, bytes: Bytes) -> Result<bool> {
        // An answer that was lost leaves it open whether the object was stored; then the next try is refused by our own.
        let mut doubt = false;
        let mut pauses = [200, 800, 2000].into_iter();
        loop {
            let Err(error) = self.once.write_with(key, bytes.clone()).if_not_exists(true).await else {
                return Ok(true);
            };
            match error.kind() {
                ErrorKind::ConditionNotMatch | ErrorKind::AlreadyExists => {
                    return Ok(doubt && self.holds(key, &bytes).await?);
                }
                ErrorKind::Unsupported => return self.put_unless_seen(key, bytes).await,
                _ if error.to_string().contains("NotImplemented") => return self.put_unless_seen(key, bytes).await,
                _ if !error.is_temporary() => return Err(failure(&error)),
                _ => doubt = true,
            }
            let Some(pause) = pauses.next() else { return Err(failure(&error)) };
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    /// For a server without conditional writes: looking first leaves a window between look and write, in which a second
    /// writer of the same key could win. Two sealing actions of one backup never run at once, so this is the best such a
    /// server can do.
    async fn put_unless_seen(&self, key: &str, bytes: Bytes) -> Result<bool> {
        if let Found::File(_) = self.lookup(key).await? {
            return Ok(false);
        }
        self.quick.write(key, bytes).await.map_err(|error| failure(&error))?;
        Ok(true)
    }

    /// Whether these bytes lie there.
    async fn holds(&self, key: &str, bytes: &Bytes) -> Result<bool> {
        let meta = self.quick.stat(key).await.map_err(|error| failure(&error))?;
        if meta.content_length() != bytes.len() as u64 {
            return Ok(false);
        }
        let there = self.quick.read(key).await.map_err(|error| failure(&error))?;
        Ok(there.to_vec() == bytes[..])
    }

    pub(super) async fn remove(&self, key: &str) -> Result<()> {
        if is_trimmed(key) {
            return Ok(());
        }
        match self.quick.delete(key).await {
            Ok(()) => Ok(()),
            // Asking a silent server once more would take as long again.
            Err(error) if failure(&error).is(Cause::Unreachable) => Err(failure(&error)),
            // Some servers fail at keys that are only prefixes of others, which is nothing to remove.
            Err(error) => match self.lookup(key).await {
                Ok(Found::Missing) => Ok(()),
                _ => Err(failure(&error)),
            },
        }
    }

    /// Removes the segments of uploads that died, and what the store keeps of them. Only called when nobody writes there
    /// any more.
    pub(super) async fn sweep(&self, key: &str) -> Result<()> {
        if let Some(leftovers) = &self.leftovers {
            leftovers.abort_below(key).await?;
        }
        let mut lister = self.lister(key, true).await?;
        while let Some(item) = lister.next().await {
            let item = item.map_err(|error| failure(&error))?;
            if item.path().split('/').any(|name| name.starts_with(TEMPORARY)) {
                self.quick.delete(item.path()).await.map_err(|error| failure(&error))?;
            }
        }
        Ok(())
    }

    pub(super) async fn remove_all(&self, key: &str) -> Result<()> {
        let mut lister = self.lister(key, true).await?;
        // Removing a thousand objects at once may take a server longer than a question.
        let mut deleter = self.patient.deleter().await.map_err(|error| failure(&error))?;
        let dir = format!("{key}/");
        while let Some(item) = lister.next().await {
            let item = item.map_err(|error| failure(&error))?;
            if key.is_empty() || item.path().starts_with(&dir) {
                deleter.delete(item.path()).await.map_err(|error| failure(&error))?;
            }
        }
        deleter.close().await.map_err(|error| failure(&error))
    }
}

/// Whether OpenDAL would take this name for another: it cuts off white space at the ends.
fn is_trimmed(key: &str) -> bool {
    key.trim().len() < key.len()
}

/// Whether a directory is another, or below it.
fn is_below(dir: &str, other: &str) -> bool {
    dir.strip_prefix(other).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn entry(listed: &str, item: &opendal::Entry) -> Option<Entry> {
    let path = item.path();
    let key = path.trim_matches('/');
    if key.is_empty() || key == listed {
        return None;
    }
    let dir = path.ends_with('/');
    // The contract's time of a directory in an object store.
    let fixed = Timestamp::from_second(946_684_800).unwrap_or(Timestamp::UNIX_EPOCH);
    Some(Entry {
        key: key.to_owned(),
        dir,
        size: if dir { 0 } else { item.metadata().content_length() as i64 },
        modified: if dir { fixed } else { item.metadata().last_modified().map_or(fixed, Into::into) },
        etag: None,
    })
}

/// Why a HEAD was refused: its answer has no body that could say so, that of a refused read has one.
pub(super) async fn explain(quick: &Operator, key: &str, error: &opendal::Error) -> Error {
    let silent = failure(error);
    if !silent.text.contains("answered with status 4") {
        return silent;
    }
    match quick.read_with(key).range(0..1).await {
        Err(said) if said.kind() != ErrorKind::NotFound => failure(&said),
        _ => silent,
    }
}

/// Names the cause of a store's refusal.
pub(super) fn failure(error: &opendal::Error) -> Error {
    let whole = chain(error);
    let has = |needles: &[&str]| needles.iter().any(|needle| whole.contains(needle));
    let cause = if has(&["NoSuchBucket"]) {
        Cause::NoSuchBucket
    } else if has(&["RequestTimeTooSkewed", "RequestExpired"]) {
        Cause::ClockSkew
    } else if has(&["AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraint"]) {
        Cause::WrongRegion
    } else if has(&["InsufficientStorage", "StorageFull", "QuotaExceeded", "status: 507"]) {
        Cause::NoSpace
    } else if has(&["dns: "]) {
        Cause::Dns
    } else if has(&["certificate", "TLS", "tls handshake", "InvalidContentType", "HandshakeFailure"]) {
        Cause::Tls
    } else if has(&[
        "error trying to connect",
        "client error (Connect)",
        "tcp connect error",
        "operation timeout reached",
        "no answer within",
        "the answer stopped",
        "client error (SendRequest)",
        "http response got too little data",
        "read data from http response",
    ]) {
        Cause::Unreachable
    } else {
        match error.kind() {
            ErrorKind::NotFound => Cause::NotFound,
            ErrorKind::PermissionDenied => Cause::AccessDenied,
            ErrorKind::ConditionNotMatch => Cause::Damaged,
            _ if has(&[
                "AccessDenied",
                "InvalidAccessKeyId",
                "SignatureDoesNotMatch",
                "ExpiredToken",
                "status: 401",
            ]) =>
            {
                Cause::AccessDenied
            }
            _ => Cause::Other,
        }
    };
    Error::new(cause, brief(&whole))
}

/// The part of a store's error that helps a person: its own code and words, or the causes behind a failed request. The
/// headers of the response help nobody and do not fit into a report.
fn brief(whole: &str) -> String {
    let quoted = |name: &str| {
        let (_, rest) = whole.split_once(&format!("{name}: \""))?;
        rest.split_once('"').map(|(text, _)| text).filter(|text| !text.is_empty())
    };
    let word = |name: &str| {
        let (_, rest) = whole.split_once(&format!("{name}: "))?;
        rest.split([',', ' ', '}']).next()
    };
    let operation = word("service_operation").unwrap_or("the request");
    if let Some(code) = quoted("code") {
        let message = quoted("message").map_or_else(String::new, |message| format!(": {message}"));
        return format!("{operation}: {code}{message}");
    }
    if let Some(status) = word("status") {
        return format!("{operation}: the server answered with status {status}");
    }
    if whole.contains("deserialize xml") {
        return format!("{operation}: the server's answer cannot be read");
    }
    // "kind at operation, context: { … } => message: cause: cause"
    let words = whole.split_once(" => ").map_or(whole, |(_, words)| words);
    words.replace('\n', " ")
}

fn chain(error: &opendal::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod lost;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_a_store_are_brief() {
        let refused = "PermissionDenied (persistent) at stat, context: { service_operation: HeadObject, uri: http://x/b, \
                       response: Parts { status: 403, version: HTTP/1.1, headers: {\"server\": \"S3\"} }, service: s3 }";
        assert_eq!(brief(refused), "HeadObject: the server answered with status 403");
        let named = "X at write, context: { service_operation: PutObject, response: Parts { status: 403 } } => \
                     S3Error { code: \"AccessDenied\", message: \"not you\", resource: \"\" }";
        assert_eq!(brief(named), "PutObject: AccessDenied: not you");
        let unreachable = "Unexpected (temporary) at stat, context: { called: reqwest::send } => send http request: \
                           client error (Connect): tcp connect error";
        assert_eq!(brief(unreachable), "send http request: client error (Connect): tcp connect error");
    }
}
