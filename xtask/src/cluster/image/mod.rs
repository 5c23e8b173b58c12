//! Container images without a registry: made here, kept as OCI archives in the cache, imported into the cluster.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::cache::{self, Key};
use super::{go, paths};
use crate::ui;

mod debian;
mod oci;
pub(crate) mod recipes;

pub(crate) use oci::{Config, architecture};

/// An image as an OCI archive on disk.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    /// The name pods use.
    pub name: String,
    pub archive: PathBuf,
}

/// A file for a `scratch` image.
pub(crate) struct Entry {
    /// Path in the image, such as `/bin/datasafed`.
    pub path: String,
    pub host: PathBuf,
    pub mode: u32,
}

impl Entry {
    pub(crate) fn new(path: impl Into<String>, host: impl Into<PathBuf>, mode: u32) -> Self {
        Self { path: path.into(), host: host.into(), mode }
    }
}

/// Makes an image that holds nothing but the given files (owned by root, folders made as needed) and an empty `/tmp`
/// that everybody may write to.
pub(crate) fn scratch(name: &str, entries: &[Entry], config: &Config) -> Result<Image> {
    let mut key = Key::default();
    for entry in entries {
        key = key.text(&entry.path).text(format!("{:o}", entry.mode)).file(&entry.host)?;
    }
    scratch_keyed(name, key, entries, config)
}

fn scratch_keyed(name: &str, key: Key, entries: &[Entry], config: &Config) -> Result<Image> {
    let key = key.text(name).text(config.to_json().to_string()).finish();
    make(name, &key, |archive| {
        let layer = tempfile::NamedTempFile::new_in(parent(archive)?)?;
        oci::layer_from_entries(entries, layer.path())?;
        oci::write(name, layer.path(), config, archive)
    })
}

/// Makes an image from the tar of a root file system.
pub(crate) fn from_rootfs(
    name: &str,
    key: Key,
    config: &Config,
    rootfs: impl FnOnce(&Path) -> Result<()>,
) -> Result<Image> {
    let key = key.text(name).text(config.to_json().to_string()).finish();
    make(name, &key, |archive| {
        let tar = tempfile::NamedTempFile::new_in(parent(archive)?)?;
        rootfs(tar.path())?;
        oci::write(name, tar.path(), config, archive)
    })
}

/// Makes one of the images the project knows by name, such as `postgres:15` or `kbbackup.test/postgres:15`.
pub(crate) fn known(name: &str) -> Result<Image> {
    let short = name.strip_prefix(recipes::PREFIX).unwrap_or(name);
    let full = format!("{}{short}", recipes::PREFIX);
    if let Some(recipe) = recipes::DEBIAN.iter().find(|recipe| recipe.name == short) {
        return debian::make(&full, recipe);
    }
    let Some(recipe) = recipes::PROGRAMS.iter().find(|recipe| recipe.name == short) else {
        bail!("there is no recipe for the image {short}; known are {}", names().join(", "));
    };
    let program = recipe.program.path()?;
    let file = format!("/bin/{}", recipe.program.name);
    let config = Config { entrypoint: vec![file.clone()], ..Config::default() };
    // The path holds the program's key, so its content need not be read.
    let key = Key::default().text(program.as_os_str().as_encoded_bytes());
    scratch_keyed(&full, key, &[Entry::new(file, program, 0o755)], &config)
}

pub(crate) fn names() -> Vec<&'static str> {
    let programs = recipes::PROGRAMS.iter().map(|recipe| recipe.name);
    programs.chain(recipes::DEBIAN.iter().map(|recipe| recipe.name)).collect()
}

fn make(name: &str, key: &str, write: impl FnOnce(&Path) -> Result<()>) -> Result<Image> {
    let file = name.replace(['/', ':'], "_");
    let archive = cache::artefact("images", &file, key, |temporary| {
        ui::long_step(&format!("make image {name}"), || write(temporary))
    })?;
    Ok(Image { name: name.to_owned(), archive })
}

fn parent(archive: &Path) -> Result<&Path> {
    archive.parent().context("an archive lies in a folder")
}

/// A file that belongs to an image's recipe, from `tests/cluster/images`.
fn recipe_file(name: &str) -> Result<PathBuf> {
    Ok(paths::sources()?.join("images").join(name))
}

/// A program of the recipes, so that the table can stay a constant.
pub(crate) struct ProgramImage {
    pub name: &'static str,
    pub program: go::Program,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_use_only_images_there_is_a_recipe_for() {
        let sources = paths::sources().unwrap();
        for file in ["addons/coredns.yaml", "s3/versitygw.yaml", "s3/rclone.yaml", "s3/vanishing.yaml"] {
            let text = std::fs::read_to_string(sources.join(file)).unwrap();
            let images: Vec<&str> = text.lines().filter_map(|line| line.trim().strip_prefix("image: ")).collect();
            assert!(!images.is_empty(), "{file}");
            for image in images {
                let short = image.strip_prefix(recipes::PREFIX).unwrap();
                assert!(names().contains(&short), "{file}: {image}");
            }
        }
    }

    #[test]
    fn every_name_is_there_once() {
        let mut all = names();
        all.sort_unstable();
        let count = all.len();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
