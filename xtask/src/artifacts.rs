//! What is shipped: the three binaries, statically linked, and the images that hold them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// Where the binaries of one build lie.
#[derive(Clone, Debug)]
pub(crate) struct Binaries {
    /// Folder to put on the `PATH`: holds `kubectl-kbbackup` and `kubectl_complete-kbbackup`.
    pub bin: PathBuf,
    /// The operator.
    pub controller: PathBuf,
    /// The mover.
    pub mover: PathBuf,
}

pub(crate) const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds the release binaries, linked statically so that they run in any image.
pub(crate) fn build(root: &Path) -> Result<Binaries> {
    let built = cargo(root, "release", TARGET, &["kbbackup-mover", "kbbackup-controller", "kubectl-kbbackup"])?;
    let bin = target_dir(root).join("kubectl-plugin");
    std::fs::create_dir_all(&bin)?;
    for name in ["kubectl-kbbackup", "kubectl_complete-kbbackup"] {
        let link = bin.join(name);
        drop(std::fs::remove_file(&link));
        std::os::unix::fs::symlink(built.join("kubectl-kbbackup"), &link)
            .with_context(|| format!("cannot link {}", link.display()))?;
    }
    Ok(Binaries { bin, controller: built.join("kbbackup-controller"), mover: built.join("datasafed") })
}

/// Builds the mover alone, the same way.
pub(crate) fn mover(root: &Path) -> Result<PathBuf> {
    Ok(cargo(root, "release", TARGET, &["kbbackup-mover"])?.join("datasafed"))
}

/// Builds the plugin alone, the same way.
pub(crate) fn plugin(root: &Path) -> Result<PathBuf> {
    Ok(cargo(root, "release", TARGET, &["kubectl-kbbackup"])?.join("kubectl-kbbackup"))
}

/// Builds packages by a profile of the workspace, for a target of Rust's. Returns the folder with their binaries.
pub(crate) fn cargo(root: &Path, profile: &str, target: &str, packages: &[&str]) -> Result<PathBuf> {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(root).args(["build", "--quiet", "--locked", "--profile", profile, "--target", target]);
    for package in packages {
        command.args(["-p", package]);
    }
    let status = command.env("RUSTFLAGS", "-C target-feature=+crt-static").status().context("cannot run cargo")?;
    ensure!(status.success(), "cargo build --profile {profile} --target {target} failed");
    Ok(target_dir(root).join(target).join(profile))
}

fn target_dir(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}
