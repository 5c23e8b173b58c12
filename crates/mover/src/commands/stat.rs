//! `stat`: size and number of what lies below a path.

use super::{Context, print};
use crate::args::{Flag, Takes, flag};
use crate::error::{Cause, Error, Result};
use crate::repo::Repo;
use crate::rpath::Target;
use crate::storage::{Depth, Found, no_directory};

pub(super) const FLAGS: &[Flag] = &[flag("json", None, Takes::Nothing, "print JSON")];

#[derive(Default)]
struct Totals {
    size: i64,
    dirs: u64,
    files: u64,
}

pub(super) async fn run(context: Context) -> Result<()> {
    let [remote] = context.args.exactly()?;
    let repo = context.repo()?;
    let target = repo.base.resolve(remote)?;
    let totals = match sum(&repo, &target).await {
        Err(error) if error.is(Cause::NotFound) && repo.encryption.is_some() && target.path.is_empty() => {
            Totals::default()
        }
        Err(error) if error.is(Cause::NotFound) && repo.encryption.is_none() => {
            return Err(error.within("error in ListJSON"));
        }
        other => other?,
    };
    let entries = totals.dirs + totals.files;
    let Totals { size, dirs, files } = totals;
    print(&if context.args.is_set("json") {
        format!("{{\"dirs\":{dirs},\"entries\":{entries},\"files\":{files},\"total_size\":{size}}}\n")
    } else {
        format!("TotalSize: {size}\nEntries: {entries}\nDirs: {dirs}\nFiles: {files}\n")
    })
}

async fn sum(repo: &Repo, target: &Target) -> Result<Totals> {
    let mut totals = Totals::default();
    if !target.slash && !target.path.is_empty() {
        match repo.lookup(&target.key).await {
            Ok(Found::File(entry)) => {
                if let Some(entry) = repo.view(entry) {
                    totals.size = entry.size;
                    totals.files = 1;
                }
                return Ok(totals);
            }
            Ok(Found::Missing) if repo.store.has_directories() => return Err(no_directory()),
            Err(error) if error.is(Cause::NotDirectory) => {
                return Err(Error { cause: Cause::NotFound, ..no_directory() });
            }
            other => drop(other?),
        }
    }
    repo.store
        .walk(&target.key, Depth::All, &mut |entries| {
            for entry in entries.into_iter().filter_map(|entry| repo.view(entry)) {
                if entry.dir {
                    totals.dirs += 1;
                } else {
                    totals.files += 1;
                    totals.size += entry.size;
                }
            }
            Ok(())
        })
        .await?;
    Ok(totals)
}
