//! What a program is made of, as `CycloneDX`, by cargo-sbom.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::artifacts::TARGET;
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
    let read: Value = serde_json::from_str(&list).context("cargo-sbom gave no JSON")?;
    let missing = missing(&read, &linked(root, package)?);
    ensure!(missing.is_empty(), "cargo-sbom leaves out of {package}: {missing:?}");
    fs::write(file, list).with_context(|| format!("cannot write {}", file.display()))
}

/// Name and version of each crate that is linked into a package's programs here, but the package itself.
fn linked(root: &Path, package: &str) -> Result<BTreeSet<(String, String)>> {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(root).args(["tree", "--locked", "--package", package, "--edges", "normal", "--prefix", "none"]);
    let tree = sh::output(command.args(["--target", TARGET, "--format", "{p}"]))?;
    // `name v1.2.3 (proc-macro)`, or `(*)` where it was told before.
    let crates = tree.lines().skip(1).filter_map(|line| {
        let (name, rest) = line.split_once(" v")?;
        Some((name.to_owned(), rest.split(' ').next()?.to_owned()))
    });
    let crates: BTreeSet<_> = crates.collect();
    ensure!(crates.len() > 10, "cargo tree says nothing of {package}");
    Ok(crates)
}

/// Which of them a list in `CycloneDX` does not name.
fn missing(list: &Value, wanted: &BTreeSet<(String, String)>) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let components = list["components"].as_array().into_iter().flatten();
    let named: BTreeSet<_> = components.map(|one| (text(&one["name"]), text(&one["version"]))).collect();
    wanted.difference(&named).map(|(name, version)| format!("{name} {version}")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_linked_crate_is_to_be_named() {
        let linked = linked(&crate::root(), "kbbackup-mover").unwrap();
        let named = |name: &str| linked.iter().any(|(one, _)| one == name);
        assert!(named("kbbackup-core") && named("opendal") && !named("kbbackup-mover"), "{linked:?}");
        // A tool of the tests is not in the program.
        assert!(!named("proptest"), "{linked:?}");
        let whole: Vec<_> = linked.iter().map(|(name, version)| json!({"name": name, "version": version})).collect();
        assert_eq!(missing(&json!({"components": whole}), &linked), [""; 0]);
        assert_eq!(missing(&json!({"components": whole[1..]}), &linked).len(), 1);
    }
}
