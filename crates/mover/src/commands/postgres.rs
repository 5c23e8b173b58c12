//! `postgres`: what cannot be a script, see [`crate::engines::postgres`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use kbbackup_core::contract;

use super::{Context, archiver};
use crate::args::{Flag, Takes, flag};
use crate::config::env;
use crate::engines::postgres::Target;
use crate::engines::postgres::archive::{self, Settings};
use crate::engines::postgres::fetch;
use crate::error::{Cause, Error, Result};

pub(super) const FLAGS: &[Flag] = &[
    flag("slot", None, Takes::Text, "the replication slot's name (default: kbb_arch_ and the backup's UID)"),
    flag("partial-seconds", None, Takes::Int, "store the segment that is being written so often (default: 10)"),
    flag(
        "heartbeat-seconds",
        None,
        Takes::Int,
        "make a quiet server write something so often; 0 for never (default: 60)",
    ),
    flag(
        "max-lag-bytes",
        None,
        Takes::Int,
        "give the slot up when the server keeps more for it; 0 for never (default: 0)",
    ),
    flag("catalogue", None, Takes::Text, "a file that keeps the list of what is stored for the next fetch-wal"),
];

/// Whether a server waits for the exit code of these arguments and takes 1 for the end of its log.
pub(super) fn serves_recovery(args: &[String]) -> bool {
    args.iter().any(|arg| arg == FETCH)
}

const FETCH: &str = "fetch-wal";

pub(super) async fn run(context: Context) -> Result<()> {
    let words: Vec<&str> = context.args.positional.iter().map(String::as_str).collect();
    match words[..] {
        ["archive"] => archive::run(context.repo()?, settings(&context)?).await,
        [FETCH, name, target] => fetch_wal(&context, name, target).await,
        _ => Err(Error::other("usage: datasafed postgres archive, or datasafed postgres fetch-wal NAME TARGET")),
    }
}

async fn fetch_wal(context: &Context, name: &str, target: &str) -> Result<()> {
    let catalogue = context.args.text("catalogue").map(Path::new);
    match fetch::run(&context.repo()?, name, Path::new(target), catalogue).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::new(Cause::LogEnds, format!("{name} is not in the repository"))),
        Err(error) => Err(error.within(format!("{name} cannot be fetched, recovery must not go on"))),
    }
}

fn settings(context: &Context) -> Result<Settings> {
    Ok(Settings {
        target: Target::from_environment()?,
        slot: slot(context.args.text("slot"), env(contract::ENV_BACKUP_UID).as_deref())?,
        partial: Duration::from_secs(archiver::number(context, "partial-seconds", 10)?.max(1)),
        heartbeat: archiver::heartbeat(context)?,
        ttl: archiver::ttl()?,
        max_lag: archiver::positive(context, "max-lag-bytes", 0)?,
        info: env(contract::ENV_INFO_FILE).map(PathBuf::from),
    })
}

/// The slot's name: letters that need no quotes.
fn slot(given: Option<&str>, backup: Option<&str>) -> Result<String> {
    let name = match (given, backup) {
        (Some(name), _) => name.to_owned(),
        (None, Some(uid)) => format!("kbb_arch_{}", uid.replace('-', "_")),
        (None, None) => return Err(Error::other(format!("neither --slot nor {} is given", contract::ENV_BACKUP_UID))),
    };
    let plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
    if name.is_empty() || name.len() > 63 || !name.chars().all(plain) {
        return Err(Error::other(format!("{name:?} is no name of a slot: up to 63 of a to z, 0 to 9 and _")));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_named_after_the_backup_unless_somebody_names_them() {
        let uid = Some("0E0b2f6a-1111-4222-8333-444455556666");
        assert!(slot(None, uid).is_err(), "the server would refuse upper case");
        assert_eq!(slot(None, uid.map(str::to_lowercase).as_deref()).unwrap().len(), 45);
        assert_eq!(slot(Some("mine"), uid).unwrap(), "mine");
        for wrong in ["", "a-b", "x\"; drop", &"a".repeat(64)] {
            assert!(slot(Some(wrong), None).is_err(), "{wrong}");
        }
        assert!(slot(None, None).is_err());
    }
}
