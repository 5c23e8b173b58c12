//! One object: what is read of it, and what may be wrong.

use kbbackup_core::contract::ManifestEntry;
use kbbackup_core::layout::ENCRYPTED_SUFFIX;

use super::Finding;
use crate::codec::Compression;
use crate::error::{Cause, Error, Result};
use crate::repo::Repo;
use crate::rpath::join;
use crate::storage::Entry;
use crate::stream::{self, Output, Transform, Written};

/// Names of the levels.
pub(super) const LEVELS: &[&str] = &["list", "digest", "full"];

/// How closely is looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// Names and sizes.
    List,
    /// Every stored byte.
    Digest,
    /// And what a reader would see of it.
    Full,
}

impl Level {
    pub(super) fn named(name: &str) -> Self {
        match name {
            "list" => Self::List,
            "full" => Self::Full,
            _ => Self::Digest,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Digest => "digest",
            Self::Full => "full",
        }
    }

    /// What may be said when nothing is wrong.
    pub(super) fn verdict(self) -> &'static str {
        match self {
            Self::List => "all there, with their sizes; nothing was read",
            Self::Digest => "all as sealed",
            Self::Full => "all as sealed, decrypted and decompressed to the end",
        }
    }
}

/// Reads an object of the right size.
///
/// # Errors
/// When it cannot be read for a reason that says nothing about the object.
pub(super) async fn read(repo: &Repo, backup: &str, entry: &ManifestEntry, level: Level) -> Result<Option<Finding>> {
    let file = Entry {
        key: join(backup, &entry.path),
        dir: false,
        size: entry.size as i64,
        modified: jiff::Timestamp::UNIX_EPOCH,
        etag: None,
    };
    let whole = async |transform: Transform| -> Result<Written> {
        stream::pull(repo.store.read(&file).await?, transform, Output::Nothing).await
    };
    let stored = || whole(Transform::default());
    let judged = match level {
        Level::Full => match whole(decoded(repo, entry)?).await {
            // Either the bytes are others, or they are what was stored: no stream then already, or not for this key.
            Err(error) if error.is(Cause::Damaged) || error.is(Cause::AccessDenied) => match stored().await {
                Ok(read) if is_sealed(&read, entry) && error.is(Cause::Damaged) => {
                    return Ok(Some(Finding::new("unreadable", format!(": as sealed, but {error}"))));
                }
                Ok(read) if is_sealed(&read, entry) => return Err(error),
                other => other,
            },
            other => other,
        },
        _ => stored().await,
    };
    match judged {
        Ok(read) if is_sealed(&read, entry) => Ok(None),
        Ok(_) => Ok(Some(Finding::new("damaged", ": the content is not what was sealed"))),
        Err(error) if error.is(Cause::Damaged) => Ok(Some(Finding::new("damaged", format!(": {error}")))),
        Err(error) if error.is(Cause::NotFound) => Ok(Some(Finding::new("missing", ""))),
        Err(error) => Err(error),
    }
}

fn is_sealed(read: &Written, entry: &ManifestEntry) -> bool {
    read.size == entry.size && read.blake3 == entry.blake3
}

/// Everything that was done to an object, backwards. What it was compressed with its first bytes tell.
fn decoded(repo: &Repo, entry: &ManifestEntry) -> Result<Transform> {
    let encryption = match &repo.encryption {
        _ if !entry.path.ends_with(ENCRYPTED_SUFFIX) => None,
        Some(encryption) => Some(encryption.clone()),
        None => {
            return Err(Error::other(
                "the object is encrypted, and without DATASAFED_ENCRYPTION_ALGORITHM and its pass phrase \
                 it cannot be read at --level full",
            ));
        }
    };
    Ok(Transform { compression: Some(Compression::DETECTED), encryption })
}
