//! `verify`: reads a sealed backup again and names everything that is not as it was sealed.

use std::collections::BTreeMap;

use super::{Context, print};
use crate::error::{Cause, Error, Result};
use crate::rpath::{absolute_key, below, join};
use crate::storage::{Depth, Entry, is_hidden};
use crate::stream::{self, Output, Transform};
use crate::trust::Sealed;

pub(super) async fn run(context: Context) -> Result<()> {
    let [backup] = context.args.exactly()?;
    let repo = context.repo()?;
    let key = absolute_key(backup);
    let sealed = Sealed::open(&repo.store, backup)
        .await?
        .ok_or_else(|| Error::new(Cause::NotFound, format!("{backup} is not a sealed backup")))?;
    let mut entries = Vec::new();
    sealed
        .entries(&repo.store, |entry| {
            entries.push(entry);
            Ok(())
        })
        .await?;
    let mut present: BTreeMap<String, Entry> = BTreeMap::new();
    repo.store
        .walk(&key, Depth::All, &mut |listed| {
            for entry in listed.into_iter().filter(|entry| !entry.dir) {
                if let Some(path) = below(&entry.key, &key) {
                    present.insert(path.to_owned(), entry);
                }
            }
            Ok(())
        })
        .await?;
    let mut wrong = 0u64;
    let mut say = |what: &str, path: &str, why: &str| {
        wrong += 1;
        print(&format!("{what} {}{why}\n", join(&key, path)))
    };
    let (objects, bytes) = (sealed.seal.objects, sealed.seal.bytes);
    for entry in entries {
        let Some(found) = present.remove(&entry.path) else {
            say("missing", &entry.path, "")?;
            continue;
        };
        if found.size as u64 != entry.size {
            say("damaged", &entry.path, &format!(": {} bytes, {} were sealed", found.size, entry.size))?;
            continue;
        }
        let source = repo.store.read(&found).await?;
        match stream::pull(source, Transform::default(), Output::Nothing).await {
            Ok(read) if read.blake3 == entry.blake3 && read.size == entry.size => {}
            Ok(_) => say("damaged", &entry.path, ": the content is not what was sealed")?,
            Err(error) => say("damaged", &entry.path, &format!(": {error}"))?,
        }
    }
    for path in present.keys().filter(|path| !is_hidden(path)) {
        say("surplus", path, "")?;
    }
    if wrong > 0 {
        return Err(Error::new(Cause::Damaged, format!("{backup}: {wrong} object(s) are not as they were sealed")));
    }
    print(&format!("{backup}: {objects} objects, {bytes} bytes, all as sealed (seal {})\n", sealed.digest))
}
