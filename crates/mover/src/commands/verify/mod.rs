//! `verify`: compares a sealed backup with its manifest and names everything that is not as it was sealed.
//!
//! Manifest and listing are read side by side in the order of the paths, so memory does not depend on their number; a
//! few objects are read at once, and their results told in order, so that a later run can go on behind the last one.

mod checkpoint;
mod object;
mod progress;

use std::collections::VecDeque;
use std::sync::Arc;

use kbbackup_core::contract::ManifestEntry;
use tokio::task::JoinHandle;

use super::{Context, print};
use crate::args::{Flag, Takes, flag};
use crate::error::{Cause, Error, Result};
use crate::inventory::Inventory;
use crate::repo::Repo;
use crate::rpath::{absolute_key, join};
use crate::signal::Stop;
use crate::storage::is_hidden;
use crate::trust::Sealed;
use checkpoint::Checkpoint;
use object::Level;
use progress::Progress;

pub(super) const FLAGS: &[Flag] = &[
    flag(
        "level",
        None,
        Takes::OneOf(object::LEVELS),
        "list: names and sizes; digest (default): every byte; full: also decrypt and decompress",
    ),
    flag("seal", None, Takes::Text, "the seal must have this digest"),
    flag("resume", None, Takes::Text, "file that keeps how far it is; if it exists, go on from there"),
    flag("parallel", None, Takes::Int, "objects that are read at once (default 4)"),
];
const PARALLEL: i64 = 4;
const PARALLEL_MAX: i64 = 64;

pub(super) async fn run(context: Context) -> Result<()> {
    let [backup] = context.args.exactly()?;
    let args = &context.args;
    let level = Level::named(args.text("level").unwrap_or("digest"));
    let parallel = match args.int("parallel") {
        0 => PARALLEL,
        number @ 1..=PARALLEL_MAX => number,
        other => return Err(Error::other(format!("--parallel {other} is not between 1 and {PARALLEL_MAX}"))),
    };
    let repo = Arc::new(context.repo()?);
    let mut stop = Stop::listen()?;
    let sealed = Sealed::open(&repo.store, backup)
        .await?
        .ok_or_else(|| Error::new(Cause::NotFound, format!("{backup} is not a sealed backup")))?;
    if let Some(expected) = args.text("seal").filter(|expected| *expected != sealed.digest) {
        let why = format!("the seal of {backup} has digest {}, expected {expected}", sealed.digest);
        return Err(Error::new(Cause::Damaged, why));
    }
    let checkpoint = Checkpoint::open(args.text("resume"), &sealed, level)?;
    let mut check = Check {
        key: absolute_key(backup),
        progress: Progress::new(&sealed.seal),
        repo,
        level,
        checkpoint,
        reading: VecDeque::new(),
        parallel: parallel as usize,
    };
    let outcome = tokio::select! {
        error = stop.asked() => Err(error),
        outcome = check.all(&sealed) => outcome,
    };
    check.progress.end();
    if let Err(error) = outcome {
        check.checkpoint.keep();
        return Err(error);
    }
    check.checkpoint.finished();
    let wrong = check.checkpoint.wrong();
    if wrong > 0 {
        return Err(Error::new(Cause::Damaged, format!("{backup}: {wrong} object(s) are not as they were sealed")));
    }
    let (objects, bytes) = (sealed.seal.objects, sealed.seal.bytes);
    let (verdict, digest) = (level.verdict(), &sealed.digest);
    print(&format!("{backup}: {objects} objects, {bytes} bytes, {verdict} (seal {digest})\n"))
}

struct Check {
    repo: Arc<Repo>,
    /// The backup's key.
    key: String,
    level: Level,
    checkpoint: Checkpoint,
    progress: Progress,
    /// In the order of their paths.
    reading: VecDeque<(ManifestEntry, Answer)>,
    parallel: usize,
}

/// What is wrong with an object, or not known yet.
enum Answer {
    Known(Option<Finding>),
    Reading(JoinHandle<Result<Option<Finding>>>),
}

/// What is wrong with an object.
struct Finding {
    what: &'static str,
    why: String,
}

impl Finding {
    fn new(what: &'static str, why: impl Into<String>) -> Self {
        Self { what, why: why.into() }
    }
}

impl Check {
    async fn all(&mut self, sealed: &Sealed) -> Result<()> {
        // Once beforehand: a forged list must not lead to false alarms about good objects.
        sealed.check_manifest(&self.repo.store).await?;
        let mut listed = Inventory::take(&self.repo.store, &self.key).await?;
        let mut manifest = sealed.manifest(&self.repo.store).await?;
        let (mut entry, mut file) = (manifest.next().await?, listed.next()?);
        loop {
            let order = match (&entry, &file) {
                (None, None) => break,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(entry), Some(file)) => entry.path.cmp(&file.path),
            };
            let sealed = if order.is_le() { entry.take() } else { None };
            let found = if order.is_ge() { file.take() } else { None };
            match (sealed, found) {
                (Some(sealed), Some(found)) => self.present(sealed, found.size).await?,
                (Some(sealed), None) => self.known(sealed, Some(Finding::new("missing", ""))).await?,
                (None, Some(found)) if !is_hidden(&found.path) => {
                    let surplus = ManifestEntry { path: found.path, size: 0, blake3: String::new(), removed: false };
                    self.known(surplus, Some(Finding::new("surplus", ""))).await?;
                }
                _ => {}
            }
            if order.is_le() {
                entry = manifest.next().await?;
            }
            if order.is_ge() {
                file = listed.next()?;
            }
        }
        while !self.reading.is_empty() {
            self.tell_first().await?;
        }
        Ok(())
    }

    /// An object that is where it should be.
    async fn present(&mut self, entry: ManifestEntry, size: i64) -> Result<()> {
        if self.checkpoint.is_done(&entry.path) {
            self.progress.add(entry.size);
            return Ok(());
        }
        if size != entry.size as i64 {
            let why = format!(": {size} bytes, {} were sealed", entry.size);
            return self.known(entry, Some(Finding::new("damaged", why))).await;
        }
        if self.level == Level::List {
            return self.known(entry, None).await;
        }
        let (repo, key, level) = (self.repo.clone(), self.key.clone(), self.level);
        let wanted = entry.clone();
        let task = tokio::spawn(async move { object::read(&repo, &key, &wanted, level).await });
        self.wait(entry, Answer::Reading(task)).await
    }

    async fn known(&mut self, entry: ManifestEntry, finding: Option<Finding>) -> Result<()> {
        if self.checkpoint.is_done(&entry.path) {
            return Ok(());
        }
        self.wait(entry, Answer::Known(finding)).await
    }

    async fn wait(&mut self, entry: ManifestEntry, answer: Answer) -> Result<()> {
        self.reading.push_back((entry, answer));
        if self.reading.len() > self.parallel { self.tell_first().await } else { Ok(()) }
    }

    /// Waits for the object whose turn it is, and says what is wrong with it.
    async fn tell_first(&mut self) -> Result<()> {
        let Some((entry, answer)) = self.reading.front_mut() else { return Ok(()) };
        let finding = match answer {
            Answer::Known(finding) => finding.take(),
            Answer::Reading(task) => task
                .await
                .map_err(|error| Error::other(format!("reading {}: {error}", entry.path)))?
                .map_err(|error| error.within(&entry.path))?,
        };
        let Some((entry, _)) = self.reading.pop_front() else { return Ok(()) };
        self.progress.add(entry.size);
        if let Some(Finding { what, why }) = &finding {
            self.progress.clear();
            print(&format!("{what} {}{why}\n", join(&self.key, &entry.path)))?;
        }
        self.checkpoint.advance(&entry.path, finding.is_some())
    }
}
