//! `redis`: what cannot be a script, see [`crate::engines::redis`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use kbbackup_core::contract;

use super::{Context, archiver, print};
use crate::args::{Flag, Takes, flag};
use crate::config::env;
use crate::engines::redis::archive::{self, Settings};
use crate::engines::redis::fetch::{Archive, Target as FetchTarget};
use crate::engines::redis::{Security, Target};
use crate::error::{Error, Result};

pub(super) const FLAGS: &[Flag] = &[
    flag("tls", None, Takes::OneOf(Security::NAMES), "how the server is talked to (default: off)"),
    flag(
        "data-dir",
        None,
        Takes::Text,
        "where the server's data directory is mounted (default: where the server has it)",
    ),
    flag("chunk-seconds", None, Takes::Int, "store what is new so often (default: 5)"),
    flag("heartbeat-seconds", None, Takes::Int, "store a quiet server's clock so often; 0 for never (default: 60)"),
    flag("to-time", None, Takes::Int, "restore this time, seconds since the Unix epoch"),
    flag("latest", None, Takes::Nothing, "restore everything"),
];

const USAGE: &str =
    "usage: datasafed redis archive, datasafed redis describe TARGET, or datasafed redis fetch-aof TARGET FOLDER";

pub(super) async fn run(context: Context) -> Result<()> {
    let words: Vec<&str> = context.args.positional.iter().map(String::as_str).collect();
    match words[..] {
        ["archive"] => archive::run(context.repo()?, settings(&context)?).await,
        ["describe"] => {
            let (repo, target) = (context.repo()?, target(&context)?);
            print(&Archive::load(&repo).await?.about(target).await?.text())
        }
        ["fetch-aof", folder] => {
            let (repo, target) = (context.repo()?, target(&context)?);
            print(&Archive::load(&repo).await?.fetch(target, Path::new(folder)).await?.text())
        }
        _ => Err(Error::other(USAGE)),
    }
}

fn settings(context: &Context) -> Result<Settings> {
    Ok(Settings {
        target: Target::from_environment(Security::named(context.args.text("tls").unwrap_or_default()))?,
        data: context.args.text("data-dir").filter(|path| !path.is_empty()).map(PathBuf::from),
        chunk: Duration::from_secs(archiver::number(context, "chunk-seconds", 5)?.max(1)),
        heartbeat: archiver::heartbeat(context)?,
        ttl: archiver::ttl()?,
        info: env(contract::ENV_INFO_FILE).map(PathBuf::from),
    })
}

fn target(context: &Context) -> Result<FetchTarget> {
    match (context.args.text("to-time"), context.args.is_set("latest")) {
        (Some(text), false) => text
            .parse()
            .map(FetchTarget::Time)
            .map_err(|_| Error::other(format!("--to-time: {text:?} is no number of seconds"))),
        (None, true) => Ok(FetchTarget::Latest),
        _ => Err(Error::other("exactly one of --to-time and --latest says how far to restore")),
    }
}
