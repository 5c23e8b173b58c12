//! `report`: the side-car of a backup action. Waits, without polling, for the main container's end; then tells the
//! controller what the script said. Until then its log says now and then how far the pushes are.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use kbbackup_core::contract::{self, Report, progress};
use serde_json::{Map, Value};

use super::Context;
use crate::args::Flag;
use crate::config::env;
use crate::error::{Cause, Error, Result};
use crate::manifest::Recorder;
use crate::repo::Repo;
use crate::signal::Stop;
use crate::termination;

pub(super) const FLAGS: &[Flag] = &[termination::FLAG];
/// A result that does not fit into a report is read far enough to say so.
const INFO_LIMIT: u64 = 1 << 20;

pub(super) async fn run(context: Context) -> Result<()> {
    context.args.exactly::<0>()?;
    let mut stop = Stop::listen()?;
    let recorder = Recorder::from_environment()?;
    let mut told = 0;
    // The kubelet stops side-cars when the last main container has ended, and not before.
    while tokio::time::timeout(Duration::from_secs(progress::EVERY_SECONDS), stop.asked()).await.is_err() {
        tell(recorder.as_ref(), &mut told);
    }
    let path = env(contract::ENV_INFO_FILE).unwrap_or_else(|| contract::INFO_FILE.to_owned());
    let mut report = termination::report();
    let mut outcome = match read(Path::new(&path)) {
        Ok(info) => {
            report.info = Some(info);
            Ok(())
        }
        Err(error) => Err(error),
    };
    // Written before the journal goes to the repository: a node that dies now has still said what the script said.
    say(&context, &report, &outcome)?;
    match upload(&context, &mut report).await {
        Err(error) if outcome.is_ok() => outcome = Err(error.within("the list of written objects cannot be stored")),
        _ => {}
    }
    say(&context, &report, &outcome)?;
    outcome
}

/// Writes into the log how far the pushes are, when that has changed.
fn tell(recorder: Option<&Recorder>, told: &mut u64) {
    let Some(bytes) = recorder.and_then(Recorder::bytes_so_far).filter(|bytes| bytes != told) else { return };
    *told = bytes;
    if let Ok(line) = serde_json::to_string(&progress::Line { bytes }) {
        // The log is for the operator's eyes only: nobody waits for it.
        let _ = writeln!(std::io::stdout(), "{line}");
    }
}

fn say(context: &Context, report: &Report, outcome: &Result<()>) -> Result<()> {
    let report = match outcome {
        Ok(()) => report.clone(),
        Err(error) => termination::failed(report.clone(), error),
    };
    termination::write(&context.args, &report)
}

async fn upload(context: &Context, report: &mut Report) -> Result<()> {
    let Some(recorder) = Recorder::from_environment()? else { return Ok(()) };
    let repo = Repo::open(context.conf())?;
    report.stored = Some(recorder.upload_journal(&repo.store).await?);
    Ok(())
}

/// The script's result.
///
/// # Errors
/// When there is none, or it is no JSON object.
pub(super) fn read(path: &Path) -> Result<Map<String, Value>> {
    let died = path.with_file_name(format!("{}.exit", path.file_name().unwrap_or_default().to_string_lossy()));
    if died.exists() {
        return Err(Error::other(format!("the script failed: it left {}", died.display())));
    }
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::new(
                Cause::NotFound,
                format!("the script ended without writing its result to {}", path.display()),
            ));
        }
        Err(error) => return Err(Error::file("open", path, &error)),
    };
    if meta.len() > INFO_LIMIT {
        return Err(Error::other(format!("the result file {} has {} bytes", path.display(), meta.len())));
    }
    let text = std::fs::read_to_string(path).map_err(|error| Error::file("read", path, &error))?;
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_str(&text)
        .map_err(|error| Error::other(format!("the result file {} is not a JSON object: {error}", path.display())))
}
