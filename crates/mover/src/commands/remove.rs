//! `rm`, `rmdir`, `mkdir`.

use kbbackup_core::contract::ManifestEntry;

use super::Context;
use crate::args::{Flag, Takes, flag};
use crate::error::{Cause, Error, Result};
use crate::repo::Repo;
use crate::rpath::Target;
use crate::storage::Depth;

pub(super) const FLAGS: &[Flag] =
    &[flag("recursive", Some('r'), Takes::Nothing, "remove a directory and everything in it")];

pub(super) async fn rm(context: Context) -> Result<()> {
    let [remote] = context.args.exactly()?;
    remove(&context.repo()?, remote, context.args.is_set("recursive")).await
}

/// Removes an object, or with `recursive` everything below a path, and notes that.
///
/// # Errors
/// When the backup is sealed, or the back end refuses.
pub(crate) async fn remove(repo: &Repo, remote: &str, recursive: bool) -> Result<()> {
    let target = repo.base.resolve(remote)?;
    let key = if recursive { target.key.clone() } else { repo.stored_key(&target.key) };
    let gone = match &repo.recorder {
        Some(recorder) => {
            recorder.refuse_sealed(&repo.store, &key).await?;
            removed(repo, &key, recursive).await?
        }
        None => Vec::new(),
    };
    if recursive {
        repo.store.remove_all(&key).await?;
    } else if target.path.is_empty() {
        return Err(Error::new(Cause::IsDirectory, "is a directory not a file"));
    } else {
        repo.store.remove(&key).await?;
    }
    match &repo.recorder {
        Some(recorder) => recorder.record(&repo.store, &gone).await,
        None => Ok(()),
    }
}

/// The notes that a removal makes: one for each object of the backup that goes.
async fn removed(repo: &Repo, key: &str, recursive: bool) -> Result<Vec<ManifestEntry>> {
    let Some(recorder) = &repo.recorder else { return Ok(Vec::new()) };
    let note = |key: &str| {
        recorder.covers(key).map(|path| ManifestEntry {
            path: path.to_owned(),
            size: 0,
            blake3: String::new(),
            removed: true,
        })
    };
    if !recursive {
        return Ok(note(key).into_iter().collect());
    }
    let mut notes = Vec::new();
    let walked = repo
        .store
        .walk(key, Depth::All, &mut |entries| {
            notes.extend(entries.iter().filter(|entry| !entry.dir).filter_map(|entry| note(&entry.key)));
            Ok(())
        })
        .await;
    match walked {
        Err(error) if error.is(Cause::NotFound) || error.is(Cause::NotDirectory) => Ok(Vec::new()),
        other => other.map(|()| notes),
    }
}

async fn directory(context: &Context) -> Result<(Repo, Target)> {
    let [remote] = context.args.exactly()?;
    let repo = context.repo()?;
    let target = repo.base.resolve(remote)?;
    if let Some(recorder) = &repo.recorder {
        recorder.refuse_sealed(&repo.store, &target.key).await?;
    }
    Ok((repo, target))
}

pub(super) async fn rmdir(context: Context) -> Result<()> {
    let (repo, target) = directory(&context).await?;
    repo.store.rmdir(&target.key).await
}

pub(super) async fn mkdir(context: Context) -> Result<()> {
    let (repo, target) = directory(&context).await?;
    repo.store.mkdir(&target.key).await
}
