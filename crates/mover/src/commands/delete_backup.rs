//! `delete-backup`: removes a backup, with everything hidden, and the directories that become empty above it. Claims
//! success only when nothing is left.

use kbbackup_core::layout;

use super::Context;
use crate::error::{Cause, Error, Result};
use crate::repo::Repo;
use crate::rpath::{absolute_key, split};
use crate::storage::{Depth, is_hidden};

/// How many leftovers an error names.
const NAMED: usize = 5;

pub(super) async fn run(context: Context) -> Result<()> {
    let [backup] = context.args.exactly()?;
    let repo = context.repo()?;
    let key = absolute_key(backup);
    if key.is_empty() {
        return Err(Error::other("the repository's root is not a backup"));
    }
    // The seal goes first: a deletion that is cut short leaves no backup that claims to be whole.
    repo.store.remove(&absolute_key(&layout::seal(backup))).await.or_else(absent)?;
    repo.store.sweep(&key).await?;
    let removed = repo.store.remove_all(&key).await.or_else(absent);
    let left = left(&repo, &key, true).await?;
    if !left.is_empty() {
        let names = left.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
        let why = removed.err().map_or_else(String::new, |error| format!(": {error}"));
        return Err(Error::new(
            Cause::NotEmpty,
            format!("{} object(s) of {backup} could not be removed ({names}){why}", left.len()),
        ));
    }
    removed?;
    let mut dir = split(&key).0;
    while !dir.is_empty() {
        if !self::left(&repo, dir, false).await?.is_empty() {
            break;
        }
        match repo.store.rmdir(dir).await {
            // Somebody began a backup there in the meantime.
            Err(error) if error.is(Cause::NotEmpty) => break,
            other => other?,
        }
        dir = split(dir).0;
    }
    Ok(())
}

fn absent(error: Error) -> Result<()> {
    if error.is(Cause::NotFound) || error.is(Cause::NotDirectory) { Ok(()) } else { Err(error) }
}

/// What lies below a directory: everything, or only what a listing of its first level shows.
async fn left(repo: &Repo, key: &str, all: bool) -> Result<Vec<String>> {
    let mut left = Vec::new();
    let depth = if all { Depth::All } else { Depth::Levels(1) };
    let walked = repo
        .store
        .walk(key, depth, &mut |entries| {
            left.extend(entries.into_iter().map(|entry| entry.key).filter(|key| all || !is_hidden(key)));
            Ok(())
        })
        .await;
    walked.or_else(absent)?;
    Ok(left)
}
