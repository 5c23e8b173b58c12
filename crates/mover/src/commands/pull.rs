//! `pull`: from the repository to a file or standard output.

use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::Context;
use crate::args::{Flag, Takes, flag};
use crate::codec::{Compression, NAMES};
use crate::error::{Cause, Error, Result};
use crate::storage::{Entry, Found, is_hidden};
use crate::stream::{self, Output, Transform};
use crate::trust::Trust;

pub(super) const FLAGS: &[Flag] = &[flag("decompress", Some('d'), Takes::OneOf(NAMES), "decompress by this algorithm")];

pub(super) async fn run(context: Context) -> Result<()> {
    let [remote, local] = context.args.exactly()?;
    let repo = context.repo()?;
    if local.is_empty() || local.ends_with('/') {
        return Err(Error::other(format!("invalid local path {local:?}")));
    }
    let within = |error: Error| error.within(format!("pull {remote:?}"));
    let target = repo.base.resolve(remote).map_err(within)?;
    if target.slash {
        return Err(within(Error::other(format!("invalid path: rpath {remote:?} ends with '/'"))));
    }
    let missing = || Error::new(Cause::NotFound, "object not found");
    let key = repo.stored_key(&target.key);
    let found = if is_hidden(&key) { Found::Missing } else { repo.store.lookup(&key).await.map_err(within)? };
    let entry: Entry = match found {
        Found::File(entry) => entry,
        Found::Dir if repo.store.has_directories() => {
            return Err(within(Error::new(Cause::IsDirectory, "is a directory not a file")));
        }
        Found::Dir | Found::Missing => return Err(within(missing())),
    };
    let expected = Trust::from_environment()?.expected(&repo.store, &key).await.map_err(within)?;
    let source = repo.store.read(&entry).await.map_err(within)?;
    let output = if local == "-" { Output::stdout()? } else { create(local)? };
    let compression = context.args.text("decompress").and_then(Compression::named);
    let transform = Transform { compression, encryption: repo.encryption.clone() };
    let pulled = match expected {
        Some(expected) => stream::pull(source, transform, output).await.and_then(|read| expected.check(&read)),
        None => stream::pull_unknown(source, transform, output).await,
    };
    pulled.map_err(within)
}

/// Opens the local file only after the object was found, so that a wrong name destroys nothing.
fn create(local: &str) -> Result<Output> {
    let path = std::path::absolute(local).map_err(|error| Error::file("abs", Path::new(local), &error))?;
    if let Some(parent) = path.parent() {
        let made = DirBuilder::new().recursive(true).mode(0o755).create(parent);
        made.map_err(|error| Error::file("mkdir", parent, &error))?;
    }
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .open(&path)
        .map_err(|error| Error::file("open", &path, &error))?;
    Ok(Output::File(file, path))
}
