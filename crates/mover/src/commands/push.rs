//! `push`: from a file or standard input into the repository.

use std::fs::File;
use std::path::Path;

use kbbackup_core::contract::ManifestEntry;

use super::Context;
use crate::args::{Flag, Takes, flag};
use crate::codec::{Compression, NAMES};
use crate::error::{Cause, Error, Result};
use crate::repo::Repo;
use crate::signal::Stop;
use crate::storage::{Found, is_hidden};
use crate::stream::{self, Input, Transform, Written};

pub(super) const FLAGS: &[Flag] = &[flag("compress", Some('z'), Takes::OneOf(NAMES), "compress by this algorithm")];

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
    store(&repo, input, compression, remote).await.map(drop).map_err(|error| within(remote, error))
}

fn within(remote: &str, error: Error) -> Error {
    error.within(format!("push to {remote:?}"))
}

/// Stores an input under a remote path, with the process's encryption, and records it.
pub(super) async fn store(
    repo: &Repo,
    input: Input,
    compression: Option<Compression>,
    remote: &str,
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
    let sink = repo.store.create(&key)?;
    let transform = Transform { compression, encryption: repo.encryption.clone() };
    let progress = repo.recorder.as_ref().filter(|recorder| recorder.covers(&key).is_some());
    let progress = progress.and_then(crate::manifest::Recorder::progress);
    let written = stream::push(input, transform, sink, &mut stop, progress).await?;
    if let Some(recorder) = &repo.recorder
        && let Some(path) = recorder.covers(&key)
    {
        let entry =
            ManifestEntry { path: path.to_owned(), size: written.size, blake3: written.blake3.clone(), removed: false };
        recorder.record(&repo.store, &[entry]).await?;
    }
    Ok(written)
}
