//! `push`: from a file or standard input into the repository.

use std::fs::File;
use std::path::Path;

use kbbackup_core::contract::ManifestEntry;

use super::Context;
use super::once::{self, Digest};
use crate::args::{Flag, Takes, flag};
use crate::codec::{Compression, NAMES};
use crate::error::{Cause, Error, Result};
use crate::manifest::{Progress, Recorder};
use crate::repo::Repo;
use crate::signal::Stop;
use crate::storage::{Found, is_hidden};
use crate::stream::{self, Input, Transform, Written};

pub(super) const FLAGS: &[Flag] = &[
    flag("compress", Some('z'), Takes::OneOf(NAMES), "compress by this algorithm"),
    flag("once", None, Takes::Nothing, "never overwrite: the same content again is a success, other content an error"),
];

pub(super) async fn run(context: Context) -> Result<()> {
    let [local, remote] = context.args.exactly()?;
    let repo = context.repo()?;
    let input = if local == "-" {
        Input::stdin()?
    } else {
        let file = File::open(local).map_err(|error| Error::file("open", Path::new(local), &error))?;
        Input { name: local.to_owned(), reader: Box::new(file) }
    };
    let compression = context.args.text("compress").and_then(Compression::named);
    let once = context.args.is_set("once");
    store(&repo, input, compression, remote, once).await.map(drop).map_err(|error| within(remote, error))
}

fn within(remote: &str, error: Error) -> Error {
    error.within(format!("push to {remote:?}"))
}

/// Stores an input under a remote path, with the process's encryption, and records it.
///
/// # Errors
/// When the path is no file's, the backup is sealed, or anything fails; a signal stops it.
pub(crate) async fn store(
    repo: &Repo,
    input: Input,
    compression: Option<Compression>,
    remote: &str,
    once: bool,
) -> Result<Written> {
    let mut stop = Stop::listen()?;
    let target = repo.base.resolve(remote)?;
    if target.slash {
        return Err(Error::other(format!("invalid path: rpath {remote:?} ends with '/'")));
    }
    let directory = || Error::new(Cause::IsDirectory, "is a directory not a file");
    if target.path.is_empty() {
        return Err(directory());
    }
    if is_hidden(&target.key) {
        return Err(Error::other("this name is reserved for the mover's own files"));
    }
    let key = repo.stored_key(&target.key);
    if let Some(recorder) = &repo.recorder {
        recorder.refuse_sealed(&repo.store, &key).await?;
    }
    if repo.store.has_directories() {
        match repo.store.lookup(&key).await {
            Ok(Found::Dir) => return Err(directory()),
            // Making the parent directories says it better.
            Err(error) if !error.is(Cause::NotDirectory) => {
                return Err(Error { text: error.text.replacen("lstat", "open", 1), ..error });
            }
            _ => {}
        }
    }
    let transform = Transform { compression, encryption: repo.encryption.clone() };
    let progress = repo.recorder.as_ref().filter(|recorder| recorder.covers(&key).is_some());
    let progress = progress.and_then(Recorder::progress);
    let written = if once {
        create(repo, input, transform, &key, &mut stop, progress).await?
    } else {
        stream::push(input, transform, repo.store.create(&key)?, &mut stop, progress).await?
    };
    if let Some(recorder) = &repo.recorder
        && let Some(path) = recorder.covers(&key)
    {
        let entry =
            ManifestEntry { path: path.to_owned(), size: written.size, blake3: written.blake3.clone(), removed: false };
        recorder.record(&repo.store, &[entry]).await?;
    }
    Ok(written)
}

/// Stores an input unless its name is taken; then it must be the same.
async fn create(
    repo: &Repo,
    input: Input,
    transform: Transform,
    key: &str,
    stop: &mut Stop,
    progress: Option<Progress>,
) -> Result<Written> {
    let digest = Digest::default();
    let input = digest.of(input);
    let taken = match repo.store.lookup(key).await? {
        Found::File(_) => {
            tokio::select! {
                error = stop.asked() => return Err(error),
                read = once::read_on(input) => read?,
            }
            true
        }
        _ => {
            match stream::push(input, transform.clone(), repo.store.create_once(key)?, stop, progress).await {
                // Somebody else was first, or we were and did not hear of it.
                Err(error) if error.is(Cause::Exists) => true,
                other => return other,
            }
        }
    };
    match repo.store.lookup(key).await? {
        Found::File(entry) if taken => once::same(repo, &entry, transform, &digest).await,
        _ => Err(Error::other("the object appeared and vanished while it was stored; try again")),
    }
}
