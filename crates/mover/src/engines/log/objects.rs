//! Stored log as objects: listed, stored, and fetched whole or not at all.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use tempfile::NamedTempFile;

use crate::codec::Compression;
use crate::commands::push;
use crate::error::{Cause, Error, Result};
use crate::repo::Repo;
use crate::storage::{Depth, Entry, Found};
use crate::stream::{self, Input, Output, Transform};
use crate::trust::Trust;

/// A query that takes longer has lost its connection.
const PATIENCE: Duration = Duration::from_secs(20);

/// Shows every object below `root` to `see`; nothing where nothing was ever stored.
///
/// # Errors
/// When the back end refuses.
pub(crate) async fn list(repo: &Repo, root: &str, mut see: impl FnMut(Entry) + Send) -> Result<()> {
    let root = repo.base.resolve(root)?.key;
    let mut note = |entries: Vec<Entry>| {
        entries.into_iter().filter_map(|entry| repo.view(entry)).filter(|entry| !entry.dir).for_each(&mut see);
        Ok(())
    };
    match repo.store.walk(&root, Depth::All, &mut note).await {
        Err(error) if error.is(Cause::NotFound) || error.is(Cause::NoSuchBucket) => Ok(()),
        other => other,
    }
}

/// Stores log, compressed so that it keeps up with a server. Gives the stored size.
///
/// # Errors
/// As [`push::store`].
pub(crate) async fn store(repo: &Repo, input: Input, path: &str, once: bool) -> Result<u64> {
    let zstd = Compression::named("zstd-fastest");
    let written = push::store(repo, input, zstd, path, once).await;
    // As a listing says it.
    let overhead = repo.encryption.as_ref().map_or(0, |encryption| encryption.overhead().max(0) as u64);
    written
        .map(|written| written.size.saturating_sub(overhead))
        .map_err(|error| error.within(format!("push to {path:?}")))
}

/// Fetches an object into a file beside the one that is wanted, gone unless it is kept. `None` when there is no such object.
///
/// # Errors
/// When the back end refuses, or the object is not what was sealed.
pub(crate) async fn fetch(repo: &Repo, key: &str, to: &Path) -> Result<Option<NamedTempFile>> {
    fetch_as(repo, key, to, Compression::named("zstd")).await
}

/// The same for an object that is not compressed.
///
/// # Errors
/// The same.
async fn fetch_plain(repo: &Repo, key: &str, to: &Path) -> Result<Option<NamedTempFile>> {
    fetch_as(repo, key, to, None).await
}

/// A small object that is not compressed; `None` when there is no such object.
///
/// # Errors
/// The same; and when it is no text.
pub(crate) async fn text(repo: &Repo, path: &str) -> Result<Option<String>> {
    let key = repo.base.resolve(path)?.key;
    let folder = tempfile::tempdir().map_err(|error| Error::file("create", &std::env::temp_dir(), &error))?;
    let Some(file) = fetch_plain(repo, &key, &folder.path().join("text")).await? else { return Ok(None) };
    std::fs::read_to_string(file.path()).map(Some).map_err(|error| Error::file("read", file.path(), &error))
}

async fn fetch_as(
    repo: &Repo,
    key: &str,
    to: &Path,
    compression: Option<Compression>,
) -> Result<Option<NamedTempFile>> {
    let Found::File(entry) = repo.lookup(key).await? else { return Ok(None) };
    let expected = Trust::from_environment()?.expected(&repo.store, &entry.key).await?;
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = |error: std::io::Error| Error::file("create a file in", folder, &error);
    let beside = tempfile::Builder::new().prefix(".kbbackup-").tempfile_in(folder).map_err(failed)?;
    let transform = Transform { compression, encryption: repo.encryption.clone() };
    let source = repo.store.read(&entry).await?;
    let output = beside.reopen().map_err(failed)?;
    let read = stream::pull(source, transform, Output::File(output, beside.path().to_owned())).await?;
    if let Some(expected) = expected {
        expected.check(&read)?;
    }
    Ok(Some(beside))
}

/// Whoever waits for it sees a whole file or none.
///
/// # Errors
/// When it cannot be renamed.
pub(crate) fn put(file: NamedTempFile, to: &Path) -> Result<()> {
    file.persist(to).map(drop).map_err(|error| Error::file("rename", to, &error.error))
}

/// # Errors
/// [`Cause::Unreachable`] when the server does not answer.
pub(crate) async fn in_time<T>(asked: impl Future<Output = Result<T>>) -> Result<T> {
    let late = || Error::new(Cause::Unreachable, format!("the server did not answer within {} s", PATIENCE.as_secs()));
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err(late()))
}
