//! Artefacts that take long to make, kept outside the checkout under a key of what they are made from.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

/// Other versions of an artefact are deleted when nobody has used them for this long.
const UNUSED: Duration = Duration::from_secs(14 * 24 * 3600);

/// `${XDG_CACHE_HOME:-~/.cache}/kbbackup`
pub(crate) fn root() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()) {
        return Ok(PathBuf::from(dir).join("kbbackup"));
    }
    let home = std::env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?;
    Ok(PathBuf::from(home).join(".cache/kbbackup"))
}

/// Collects what an artefact is made from.
#[derive(Default)]
pub(crate) struct Key(Sha256);

impl Key {
    pub(crate) fn text(mut self, text: impl AsRef<[u8]>) -> Self {
        // The length keeps ("ab", "c") and ("a", "bc") apart.
        self.0.update((text.as_ref().len() as u64).to_le_bytes());
        self.0.update(text);
        self
    }

    pub(crate) fn file(self, path: &Path) -> Result<Self> {
        let content = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(self.text(path.file_name().unwrap_or_default().as_encoded_bytes()).text(content))
    }

    pub(crate) fn finish(self) -> String {
        hex::encode(&self.0.finalize()[..8])
    }
}

/// Returns `<root>/<kind>/<name>-<key>`, made by `build` if it is not there yet.
///
/// `build` gets a path to create (a file or a folder); it becomes the artefact only when `build` succeeds, so a killed
/// run leaves nothing that could be taken for whole. Two processes never build the same artefact at a time.
pub(crate) fn artefact(kind: &str, name: &str, key: &str, build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let dir = root()?.join(kind);
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let path = dir.join(format!("{name}-{key}"));
    if !path.exists() {
        let lock = File::create(dir.join(format!(".{name}.lock")))?;
        lock.lock().with_context(|| format!("cannot lock {}", dir.display()))?;
        if !path.exists() {
            let temporary = dir.join(format!(".{name}-{key}.new"));
            remove(&temporary)?;
            build(&temporary)?;
            fs::rename(&temporary, &path).with_context(|| format!("cannot name {}", path.display()))?;
            forget_old(&dir, name, &path);
        }
    }
    // The time of last use, for `forget_old`.
    if let Ok(file) = File::open(&path) {
        let _ = file.set_modified(SystemTime::now());
    }
    Ok(path)
}

fn remove(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path)?,
        Ok(_) => fs::remove_file(path)?,
        Err(_) => {}
    }
    Ok(())
}

/// A tidy cache is a kindness, not a duty: errors are not worth a failed run.
fn forget_old(dir: &Path, name: &str, keep: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let file = entry.file_name();
        let file = file.to_string_lossy();
        let is_version = file.strip_prefix(name).is_some_and(|rest| rest.len() == 17 && rest.starts_with('-'));
        let age = entry.metadata().and_then(|meta| meta.modified()).ok().and_then(|time| time.elapsed().ok());
        if is_version && entry.path() != keep && age.is_some_and(|age| age > UNUSED) {
            let _ = remove(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_depends_on_every_part_and_their_borders() {
        let key = |parts: &[&str]| parts.iter().fold(Key::default(), Key::text).finish();
        assert_eq!(key(&["ab", "c"]), key(&["ab", "c"]));
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_eq!(key(&["ab"]).len(), 16);
    }
}
