//! Creating a file once, also where a protocol's rename replaces what it finds.
//!
//! Every server makes a directory for one client only. So whoever makes a directory of an agreed name beside the file has the
//! right to look and to rename; the others wait until the file is there or the directory is gone.

use std::time::Duration;

use super::Files;
use crate::error::{Cause, Error, Result};
use crate::rpath::{join, split};
use crate::storage::TEMPORARY;

const PAUSE: Duration = Duration::from_millis(200);
/// A claim is held for a few requests; one that stays for so long has lost its owner.
const PATIENCE: usize = 150;
/// How often a directory may be refused without a reason.
const TAKES: usize = 4;

/// Renames `from` to `to` unless `to` exists. Returns whether it was renamed; if not, `from` is still there.
pub(super) async fn rename_new(files: &dyn Files, from: &str, to: &str) -> Result<bool> {
    if let Some(renamed) = files.rename_new(from, to).await? {
        return Ok(renamed);
    }
    let claim = claim_of(to);
    let mut waited = 0;
    loop {
        if files.stat(to).await?.is_some() {
            return Ok(false);
        }
        if take(files, &claim).await? {
            let outcome = match files.stat(to).await {
                Ok(Some(_)) => Ok(false),
                Ok(None) => files.rename(from, to).await.map(|()| true),
                Err(error) => Err(error),
            };
            let _ = files.rmdir(&claim).await;
            return outcome;
        }
        waited += 1;
        if waited == PATIENCE {
            // Its owner died between two requests. Two that find this out at once could both go on: the one gap that stays.
            match files.rmdir(&claim).await {
                Err(error) if !error.is(Cause::NotFound) => {
                    return Err(Error::new(
                        error.cause,
                        format!("{claim} is in the way and cannot be removed: {error}"),
                    ));
                }
                _ => waited = 0,
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Makes the directory, unless somebody has. A refusal because it existed cannot be told from others once its owner has
/// removed it, so it is asked again.
async fn take(files: &dyn Files, claim: &str) -> Result<bool> {
    for _ in 1..TAKES {
        match files.mkdir(claim).await {
            Err(error) if error.is(Cause::Other) => {}
            done => return done,
        }
    }
    files.mkdir(claim).await
}

fn claim_of(path: &str) -> String {
    let (dir, name) = split(path);
    let claim = format!("{TEMPORARY}claim-{}", &blake3::hash(name.as_bytes()).to_hex()[..16]);
    if path.starts_with('/') && dir.is_empty() { format!("/{claim}") } else { join(dir, &claim) }
}
