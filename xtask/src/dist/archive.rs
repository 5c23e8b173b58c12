//! Archives of the plugin: the same files give the same bytes, whoever makes them and when.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context as _, Result};
use flate2::{Compression, GzBuilder};
use sha2::{Digest as _, Sha256};

use super::{PLATFORMS, PLUGIN, VERSION};

/// Packs the plugin and the licence.
pub(super) fn write(root: &Path, plugin: &Path, archive: &Path) -> Result<()> {
    let file = File::create(archive).with_context(|| format!("cannot create {}", archive.display()))?;
    // Neither a time nor a name goes into the head.
    let mut tar = tar::Builder::new(GzBuilder::new().write(file, Compression::best()));
    for (name, path, mode) in [(PLUGIN, plugin, 0o755), ("LICENSE", &root.join("LICENSE"), 0o644)] {
        let content = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        header.set_mtime(0);
        tar.append_data(&mut header, name, &content[..])?;
    }
    tar.into_inner()?.finish()?.sync_all().with_context(|| format!("cannot write {}", archive.display()))
}

/// The archives of this version in a folder with their SHA-256, by platform as in `linux-amd64`.
pub(super) fn all(folder: &Path) -> Result<BTreeMap<String, (String, String)>> {
    let mut found = BTreeMap::new();
    for platform in PLATFORMS {
        let name = platform.archive();
        let path = folder.join(&name);
        if path.exists() {
            let digest = hex::encode(Sha256::digest(fs::read(&path)?));
            found.insert(format!("{}-{}", platform.os, platform.arch), (name, digest));
        }
    }
    Ok(found)
}

/// Writes what `sha256sum --check` reads.
pub(super) fn write_checksums(folder: &Path, archives: &BTreeMap<String, (String, String)>) -> Result<()> {
    let lines: Vec<String> = archives.values().map(|(name, digest)| format!("{digest}  {name}\n")).collect();
    fs::write(folder.join(checksums()), lines.concat()).context("cannot write the checksums")
}

/// Name of the file with the checksums.
pub(super) fn checksums() -> String {
    format!("{PLUGIN}_v{VERSION}_checksums.txt")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_files_give_the_same_archive() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("LICENSE"), "free").unwrap();
        let made = |name: &str| {
            // A new file has a new time.
            let plugin = dir.path().join(name);
            fs::write(&plugin, "program").unwrap();
            let archive = dir.path().join(format!("{name}.tar.gz"));
            write(dir.path(), &plugin, &archive).unwrap();
            fs::read(archive).unwrap()
        };
        let one = made("one");
        assert_eq!(one, made("two"));
        let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(&one[..]));
        let names: Vec<String> =
            tar.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect();
        assert_eq!(names, [PLUGIN, "LICENSE"]);
    }
}
