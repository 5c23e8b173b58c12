//! How far a verification is, in a file, so that a long one can be interrupted.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::object::Level;
use crate::error::{Error, Result};
use crate::output;
use crate::trust::Sealed;

/// How often it is written.
const EVERY: Duration = Duration::from_secs(2);

/// The file's content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    version: u32,
    backup: String,
    /// Digest of the seal: another seal is another verification.
    seal: String,
    level: String,
    /// Everything up to this path is done.
    done: String,
    /// Objects that were not as sealed.
    wrong: u64,
}

/// Where a verification is.
pub(super) struct Checkpoint {
    file: Option<PathBuf>,
    state: State,
    written: Instant,
}

impl Checkpoint {
    /// Reads the file if there is one.
    ///
    /// # Errors
    /// When it cannot be read, or belongs to another verification.
    pub(super) fn open(file: Option<&str>, sealed: &Sealed, level: Level) -> Result<Self> {
        let state = State {
            version: 1,
            backup: sealed.backup.clone(),
            seal: sealed.digest.clone(),
            level: level.name().to_owned(),
            ..State::default()
        };
        let file = file.map(PathBuf::from);
        let state = match &file {
            Some(path) => found(path, &state)?.unwrap_or(state),
            None => state,
        };
        Ok(Self { file, state, written: Instant::now() })
    }

    /// Whether an earlier run has judged this path.
    pub(super) fn is_done(&self, path: &str) -> bool {
        !self.state.done.is_empty() && path <= self.state.done.as_str()
    }

    pub(super) fn wrong(&self) -> u64 {
        self.state.wrong
    }

    /// Everything up to `path` is judged.
    ///
    /// # Errors
    /// When the file cannot be written: whoever asked for it relies on it.
    pub(super) fn advance(&mut self, path: &str, wrong: bool) -> Result<()> {
        path.clone_into(&mut self.state.done);
        self.state.wrong += u64::from(wrong);
        // A finding is noted at once: it is not told a second time.
        if wrong || self.written.elapsed() >= EVERY { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let text = serde_json::to_vec(&self.state).map_err(|error| Error::other(format!("--resume: {error}")))?;
        let temporary = file.with_file_name(format!(
            ".{}.{}",
            file.file_name().unwrap_or_default().to_string_lossy(),
            std::process::id()
        ));
        fs::write(&temporary, text)
            .and_then(|()| fs::rename(&temporary, file))
            .map_err(|error| Error::file("write", file, &error).within("--resume"))?;
        self.written = Instant::now();
        Ok(())
    }

    /// The verification did not come to its end.
    pub(super) fn keep(&mut self) {
        let at = if self.state.done.is_empty() { "the beginning" } else { &self.state.done };
        match &self.file {
            None => output::note(&format!("NOTICE: everything up to {at} was looked at; --resume FILE keeps that")),
            Some(file) => {
                let note = format!("NOTICE: everything up to {at} was looked at; --resume {} goes on", file.display());
                match self.write() {
                    Ok(()) => output::note(&note),
                    Err(error) => output::note(&format!("ERROR : {error}")),
                }
            }
        }
    }

    /// The verification has come to its end: the next one begins anew.
    pub(super) fn finished(&self) {
        if let Some(file) = &self.file {
            let _ = fs::remove_file(file);
        }
    }
}

fn found(path: &Path, wanted: &State) -> Result<Option<State>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file("open", path, &error).within("--resume")),
    };
    let wrong = |why: &str| Error::other(format!("--resume {}: {why}", path.display()));
    let found: State = serde_json::from_slice(&bytes).map_err(|error| wrong(&format!("not a checkpoint: {error}")))?;
    let State { version, backup, seal, level, .. } = wanted;
    if (&found.version, &found.backup, &found.seal, &found.level) != (version, backup, seal, level) {
        return Err(wrong(&format!(
            "it belongs to another verification, of {} with seal {} at level {}; remove it, or name another file",
            found.backup, found.seal, found.level
        )));
    }
    Ok(Some(found))
}
