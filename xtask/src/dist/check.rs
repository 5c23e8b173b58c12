//! The release as its users get it: what the archives hold, images read from their index to the last blob, krew's own rules, and
//! krew itself, which installs the plugin and takes it away.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::{PLATFORMS, PLUGIN, VERSION, archive, images, manifest};
use crate::artifacts::{self, Profile};
use crate::cluster::{go, sh};

/// Packs the plugin, fills the manifest, has krew judge and install both, and runs what it installed.
pub(crate) fn check(root: &Path) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let out = dir.path();
    // The binary of the other tests: what is looked at is the package.
    let binaries = artifacts::build(root, Profile::Trial)?;
    let plugin = binaries.bin.join(PLUGIN);
    let platform = PLATFORMS.iter().find(|platform| platform.target == artifacts::TARGET).context("no platform")?;
    let packed = out.join(platform.archive());
    archive::write(root, &plugin, &packed)?;
    archive::write_checksums(out, &archive::all(out)?)?;
    sh::output(
        sh::command("sha256sum", ["--check", "--strict", "--quiet"]).arg(archive::checksums()).current_dir(out),
    )?;
    let inside = sh::output(sh::command("tar", ["--list", "--verbose", "--numeric-owner", "--file"]).arg(&packed))?;
    let lines: Vec<&str> = inside.lines().collect();
    let is = |line: &str, mode: &str, name: &str| line.starts_with(mode) && line.ends_with(&format!(" {name}"));
    let as_wanted =
        lines.len() == 2 && is(lines[0], "-rwxr-xr-x 0/0", PLUGIN) && is(lines[1], "-rw-r--r-- 0/0", "LICENSE");
    ensure!(as_wanted, "the archive holds:\n{inside}");
    images::write(root, &binaries, out)?;

    let filled = manifest::fill(&manifest::template(root)?, "https://releases.test", &archive::all(out)?)?;
    let file = out.join("kbbackup.yaml");
    fs::write(&file, filled)?;

    let judge = go::KREW_RULES.path()?;
    sh::output(sh::command(judge, ["-skip-install", "-manifest"]).arg(&file))?;
    let krew = |words: &[&str]| {
        let mut command = sh::command(go::KREW.path()?, words);
        Ok::<_, anyhow::Error>(command.env("KREW_ROOT", out.join("krew")).stdin(std::process::Stdio::null()).output()?)
    };
    // Its list of plugins, which only has to be there; the real one is a repository elsewhere.
    sh::output(sh::command("git", ["init", "--quiet"]).arg(out.join("krew/index/default")))?;
    let (manifest, packed) = (format!("--manifest={}", file.display()), format!("--archive={}", packed.display()));
    let installed = krew(&["install", &manifest, &packed])?;
    ensure!(installed.status.success(), "krew refused: {}", String::from_utf8_lossy(&installed.stderr));
    let place = out.join("krew/bin").join(PLUGIN);
    let said = sh::output(&mut sh::command(&place, ["version", "--client", "-o", "json"]))?;
    ensure!(said.contains(VERSION), "krew's copy says {said}");
    let removed = krew(&["uninstall", "kbbackup"])?;
    ensure!(removed.status.success() && !place.exists(), "krew could not take it away again");
    Ok(())
}
