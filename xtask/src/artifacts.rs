//! What is shipped: the three binaries, statically linked, and the images that hold them.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::cargo;

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
/// Built together or one by one, what they depend on has the same features.
const PACKAGES: [&str; 3] = ["kbbackup-mover", "kbbackup-controller", "kubectl-kbbackup"];

/// How they are built: the profiles of the workspace's `Cargo.toml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Not optimised, for what is tried on a cluster.
    Trial,
    /// What images hold, and what is measured.
    Release,
    /// The plugin that people fetch.
    Dist,
}

impl Profile {
    fn name(self) -> &'static str {
        match self {
            Self::Trial => "trial",
            Self::Release => "release",
            Self::Dist => "dist",
        }
    }
}

/// Builds all binaries, linked statically so that they run in any image.
pub(crate) fn build(root: &Path, profile: Profile) -> Result<Binaries> {
    let built = compile(root, profile, TARGET, &[])?;
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

/// Builds one binary alone, the same way, and gives its path.
pub(crate) fn one(root: &Path, profile: Profile, target: &str, name: &str) -> Result<PathBuf> {
    Ok(compile(root, profile, target, &["--bin", name])?.join(name))
}

/// Returns the folder with the binaries.
fn compile(root: &Path, profile: Profile, target: &str, which: &[&str]) -> Result<PathBuf> {
    let mut build = cargo::command(root, &["build", "--quiet", "--locked", "--target", target]);
    build.args(["--profile", profile.name()]).args(PACKAGES.map(|package| format!("--package={package}"))).args(which);
    build.env("RUSTFLAGS", "-C target-feature=+crt-static");
    cargo::run(build, &format!("cargo build --profile {} --target {target} failed", profile.name()))?;
    Ok(target_dir(root).join(target).join(profile.name()))
}

fn target_dir(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}
