//! `check`: whether a repository can be used, and if not, why, in a word that a program can act on.

use std::time::Duration;

use bytes::Bytes;

use super::Context;
use crate::args::{Flag, Takes, flag};
use crate::error::{Cause, Error, Result};
use crate::repo::Repo;
use crate::rpath::{absolute_key, join};
use crate::storage::{Depth, Found};
use crate::termination;

pub(super) const FLAGS: &[Flag] =
    &[flag("size", None, Takes::Int, "bytes of the test object (default 4096)"), termination::FLAG];
/// A dead endpoint is named within this time.
const LIMIT: Duration = Duration::from_secs(28);

pub(super) async fn run(context: Context) -> Result<()> {
    let prefix = match context.args.positional.as_slice() {
        [] => "",
        [prefix] => prefix.as_str(),
        more => return Err(Error::other(format!("accepts at most 1 arg(s), received {}", more.len()))),
    };
    let size = match context.args.int("size") {
        0 => 4096,
        size => usize::try_from(size).map_err(|_| Error::other("--size is negative"))?,
    };
    let outcome = match context.repo() {
        Ok(repo) => tokio::time::timeout(LIMIT, check(&repo, prefix, size)).await.unwrap_or_else(|_| {
            Err(Error::new(Cause::Unreachable, format!("no answer within {} seconds", LIMIT.as_secs())))
        }),
        Err(error) => Err(error),
    };
    let report = match &outcome {
        Ok(()) => termination::report(),
        Err(error) => termination::failed(termination::report(), error),
    };
    termination::write(&context.args, &report)?;
    outcome
}

async fn check(repo: &Repo, prefix: &str, size: usize) -> Result<()> {
    let dir = absolute_key(prefix);
    let name = format!("kbbackup-check-{:016x}", rand::random::<u64>());
    let key = join(&dir, &name);
    let bytes: Bytes = (0..size).map(|_| rand::random::<u8>()).collect();
    let step = |what: &'static str| move |error: Error| error.within(what);
    repo.store.put(&key, bytes.clone()).await.map_err(step("writing a test object"))?;
    let rest = async {
        let Found::File(entry) = repo.store.lookup(&key).await.map_err(step("looking a test object up"))? else {
            return Err(Error::new(Cause::Damaged, "a test object was written but is not there"));
        };
        let read = repo.store.get(&entry.key, u64::MAX).await.map_err(step("reading a test object"))?;
        if read.as_deref() != Some(&bytes[..]) {
            return Err(Error::new(Cause::Damaged, "a test object came back with other bytes"));
        }
        let mut listed = false;
        repo.store
            .walk(&dir, Depth::Levels(1), &mut |entries| {
                listed |= entries.iter().any(|entry| entry.key == key);
                Ok(())
            })
            .await
            .map_err(step("listing"))?;
        if listed { Ok(()) } else { Err(Error::new(Cause::Damaged, "a test object is missing in the listing")) }
    }
    .await;
    // Removed also when something was wrong with it; the first problem is the one to tell.
    let removed = repo.store.remove(&key).await.map_err(step("removing a test object"));
    rest.and(removed)
}
