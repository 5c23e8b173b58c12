//! `mysql`: what cannot be a script, see [`crate::engines::mysql`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use kbbackup_core::contract;

use super::{Context, archiver, print};
use crate::args::{Flag, Takes, flag};
use crate::config::env;
use crate::engines::mysql::archive::{self, Settings};
use crate::engines::mysql::fetch::{self, Base};
use crate::engines::mysql::gtid;
use crate::engines::mysql::{Place, ReplayTarget, Security, Target};
use crate::error::{Error, Result};

pub(super) const FLAGS: &[Flag] = &[
    flag("server-id", None, Takes::Int, "what the server knows the archiver by (default: made of the backup's UID)"),
    flag("tls", None, Takes::OneOf(Security::NAMES), "how the server is talked to (default: preferred)"),
    flag("partial-seconds", None, Takes::Int, "store the file that is being written so often (default: 10)"),
    flag("heartbeat-seconds", None, Takes::Int, "store a quiet server's clock so often; 0 for never (default: 60)"),
    flag(
        "rotate-bytes",
        None,
        Takes::Int,
        "have the server begin a new file when one is larger; 0 for never (default: 67108864)",
    ),
    flag("from", None, Takes::Text, "where the base backup ended, FILE:POSITION"),
    flag("from-gtid", None, Takes::Text, "the GTID position there"),
    flag("to-time", None, Takes::Int, "replay to this time, seconds since the Unix epoch"),
    flag("to-gtid", None, Takes::Text, "replay to this transaction"),
    flag("to-position", None, Takes::Text, "replay to FILE:POSITION"),
    flag("latest", None, Takes::Nothing, "replay everything"),
    flag("exclusive", None, Takes::Nothing, "without what lies exactly at the time or the transaction"),
];

const USAGE: &str =
    "usage: datasafed mysql archive, or datasafed mysql fetch-binlogs --from=FILE:POSITION TARGET FOLDER";

pub(super) async fn run(context: Context) -> Result<()> {
    let words: Vec<&str> = context.args.positional.iter().map(String::as_str).collect();
    match words[..] {
        ["archive"] => archive::run(context.repo()?, settings(&context)?).await,
        ["fetch-binlogs", folder] => {
            let plan = fetch::run(&context.repo()?, &base(&context)?, &target(&context)?, Path::new(folder)).await?;
            print(&plan.text())
        }
        _ => Err(Error::other(USAGE)),
    }
}

fn settings(context: &Context) -> Result<Settings> {
    Ok(Settings {
        target: Target::from_environment(Security::named(context.args.text("tls").unwrap_or_default()))?,
        id: server_id(archiver::number(context, "server-id", 0)?, env(contract::ENV_BACKUP_UID).as_deref())?,
        partial: Duration::from_secs(archiver::number(context, "partial-seconds", 10)?.max(1)),
        heartbeat: archiver::heartbeat(context)?,
        rotate: archiver::positive(context, "rotate-bytes", 64 << 20)?,
        ttl: archiver::ttl()?,
        info: env(contract::ENV_INFO_FILE).map(PathBuf::from),
    })
}

/// The archiver's id among the replicas: two with the same id would throw each other out. From the upper half, where people
/// choose none.
fn server_id(given: u64, backup: Option<&str>) -> Result<u32> {
    match (u32::try_from(given), backup) {
        (Err(_), _) => Err(Error::other(format!("--server-id: {given} is more than 4294967295"))),
        (Ok(0), Some(uid)) => {
            let digest = blake3::hash(uid.as_bytes());
            let number = digest.as_bytes().first_chunk().map_or(1, |bytes| u32::from_le_bytes(*bytes));
            Ok(number | 1 << 31)
        }
        (Ok(0), None) => Err(Error::other(format!("neither --server-id nor {} is given", contract::ENV_BACKUP_UID))),
        (Ok(given), _) => Ok(given),
    }
}

fn base(context: &Context) -> Result<Base> {
    let place = context.args.text("from").ok_or_else(|| Error::other(USAGE))?;
    let position = context.args.text("from-gtid").map(gtid::position).transpose()?;
    Ok(Base { place: Place::read(place)?, position })
}

fn target(context: &Context) -> Result<ReplayTarget> {
    let inclusive = !context.args.is_set("exclusive");
    let mut targets = Vec::new();
    if let Some(text) = context.args.text("to-time") {
        let seconds = text.parse().map_err(|_| Error::other(format!("--to-time: {text:?} is no number of seconds")))?;
        targets.push(ReplayTarget::Time { seconds, inclusive });
    }
    if let Some(text) = context.args.text("to-gtid") {
        targets.push(ReplayTarget::Gtid { gtid: text.parse()?, inclusive });
    }
    if let Some(text) = context.args.text("to-position") {
        targets.push(ReplayTarget::Place(Place::read(text)?));
    }
    if context.args.is_set("latest") {
        targets.push(ReplayTarget::Latest);
    }
    let one = "exactly one of --to-time, --to-gtid, --to-position and --latest says how far to replay";
    match (targets.pop(), targets.is_empty()) {
        (Some(target), true) => Ok(target),
        _ => Err(Error::other(one)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archivers_of_different_backups_have_different_ids() {
        let id = |uid| server_id(0, Some(uid)).unwrap();
        assert_eq!(id("a"), id("a"));
        assert_ne!(id("a"), id("b"));
        assert!(id("a") >= 1 << 31);
        assert_eq!(server_id(7, Some("a")).unwrap(), 7);
        assert!(server_id(1 << 32, None).is_err() && server_id(0, None).is_err());
    }
}
