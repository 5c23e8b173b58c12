//! Licences, sources and advisories of the dependencies, by cargo-deny.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::cluster::cache::{self, Key};
use crate::cluster::sh;
use crate::ui;

/// Built by ourselves, for the build to be the same everywhere; its version is the cache's key.
const VERSION: &str = "0.20.2";
/// What needs nothing but the registry.
const OFFLINE: [&str; 3] = ["bans", "licenses", "sources"];

/// Fails for a licence that is not allowed, a dependency from somewhere else, or one that has an advisory.
pub(crate) fn check(root: &Path) -> Result<()> {
    let folder = cache::artefact("bin", "cargo-deny", &Key::default().text(VERSION).finish(), |dir| {
        ui::long_step("build cargo-deny", || {
            let mut install = Command::new(env!("CARGO"));
            install.args(["install", "--quiet", "--locked", "--no-track", "cargo-deny", "--version", VERSION]);
            // Built in a folder that goes with the installation: in ours its artefacts would stay.
            install.arg("--root").arg(dir).env_remove("CARGO_TARGET_DIR");
            sh::output(&mut install).map(drop)
        })
    })?;
    let deny = || {
        let mut command = Command::new(folder.join("bin/cargo-deny"));
        command.current_dir(root).args(["--all-features", "--locked", "--log-level", "error"]);
        command
    };
    let checked = deny().args(["check", "--hide-inclusion-graph"]).args(OFFLINE).status();
    ensure!(checked.context("cannot run cargo-deny")?.success(), "a dependency may not be used");
    // The advisories lie in a repository that not every machine reaches.
    let fetched = deny().args(["fetch", "db"]).output().context("cannot run cargo-deny")?;
    if !fetched.status.success() {
        ui::note("the advisories cannot be fetched from here: they are not checked");
        return Ok(());
    }
    let mut advisories = deny();
    advisories.args(["check", "--disable-fetch", "advisories"]);
    ensure!(advisories.status().context("cannot run cargo-deny")?.success(), "a dependency has an advisory");
    Ok(())
}
