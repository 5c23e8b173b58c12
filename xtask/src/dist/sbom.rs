//! What a program is made of, as `CycloneDX`, by cargo-sbom.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::cluster::cache::{self, Key};
use crate::cluster::sh;
use crate::ui;

/// Its version is the cache's key.
const TOOL: &str = "0.10.0";

/// Writes the list of one package's dependencies.
pub(super) fn write(root: &Path, package: &str, file: &Path) -> Result<()> {
    let folder = cache::artefact("bin", "cargo-sbom", &Key::default().text(TOOL).finish(), |dir| {
        ui::long_step("build cargo-sbom", || {
            let mut install = Command::new(env!("CARGO"));
            install.args(["install", "--quiet", "--locked", "--no-track", "cargo-sbom", "--version", TOOL]);
            // Built in a folder that goes with the installation: in ours its artefacts would stay.
            install.arg("--root").arg(dir).env_remove("CARGO_TARGET_DIR");
            sh::output(&mut install).map(drop)
        })
    })?;
    let mut command = Command::new(folder.join("bin/cargo-sbom"));
    command.current_dir(root).args(["sbom", "--output-format", "cyclone_dx_json_1_6", "--cargo-package", package]);
    let list = sh::output(&mut command)?;
    let read: serde_json::Value = serde_json::from_str(&list).context("cargo-sbom gave no JSON")?;
    let components = read["components"].as_array().map_or(0, Vec::len);
    ensure!(components > 1, "cargo-sbom found nothing in {package}");
    fs::write(file, list).with_context(|| format!("cannot write {}", file.display()))
}
