//! The mover's conformance suite, and what else needs a server, against servers that are not ours: built from their published
//! sources, or Debian's.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::cluster::cache::{self, Key};
use crate::cluster::{debian, go, sh};
use crate::{cargo, ui};

/// Runs the part of the suite that needs these servers; the rest runs with the unit tests.
pub(crate) fn check(root: &Path) -> Result<()> {
    let mut tests = cargo::test(root, &["--test", "mover", "--", "--ignored"]);
    tests.env("KBBACKUP_TEST_SERVERS", servers(root)?);
    cargo::run(tests, "a back end does not do what it must")
}

/// A folder with a link to each server.
fn servers(root: &Path) -> Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let folder = target.join("test-servers");
    std::fs::create_dir_all(&folder)?;
    for program in [go::VERSITYGW, go::RCLONE, go::FAKE_GCS] {
        link(&program.path()?, &folder.join(program.name))?;
    }
    link(&azurite()?, &folder.join("azurite"))?;
    for (name, packages, program) in [
        ("vsftpd", &["vsftpd", "libwrap0"][..], "usr/sbin/vsftpd"),
        ("sshd", &["openssh-server", "libwrap0"], "usr/sbin/sshd"),
        ("ssh-keygen", &["openssh-client"], "usr/bin/ssh-keygen"),
    ] {
        link(&debian(name, packages, program)?, &folder.join(name))?;
    }
    Ok(folder)
}

/// A server from its Debian packages, unpacked and not installed: an installed one would be started. Returns the path of a script
/// that runs it.
fn debian(name: &str, packages: &[&str], program: &str) -> Result<PathBuf> {
    let script = format!(
        "#!/bin/sh\nhere=$(dirname \"$(readlink -f \"$0\")\")\n\
         LD_LIBRARY_PATH=$here/usr/lib/x86_64-linux-gnu exec \"$here/{program}\" \"$@\"\n"
    );
    let folder =
        cache::artefact("bin", name, &Key::default().text(packages.join(" ")).text(&script).finish(), |dir| {
            ui::long_step(&format!("fetch {name}"), || {
                std::fs::create_dir_all(dir)?;
                sh::output(&mut sh::command("apt-get", ["update", "-q"]))?;
                sh::output(sh::command("apt-get", ["download", "-q"]).args(packages).current_dir(dir))?;
                for file in std::fs::read_dir(dir)? {
                    let file = file?.path();
                    if file.extension().is_some_and(|extension| extension == "deb") {
                        sh::output(sh::command("dpkg-deb", ["--extract"]).arg(&file).arg(dir))?;
                        std::fs::remove_file(&file)?;
                    }
                }
                write_script(&dir.join(name), &script)
            })
        })?;
    Ok(folder.join(name))
}

/// Microsoft's emulator of Azure Blob Storage, from npm. Returns the path of a script that runs it.
fn azurite() -> Result<PathBuf> {
    const PACKAGE: &str = "azurite@3.35.0";
    const SCRIPT: &str = "#!/bin/sh\nhere=$(dirname \"$(readlink -f \"$0\")\")\n\
                          exec node \"$here/node_modules/azurite/dist/src/blob/main.js\" \"$@\"\n";
    if Command::new("npm").arg("--version").output().is_err() {
        debian::install(&["nodejs", "npm"]).context("npm fetches azurite, and Node.js 18 or newer runs it")?;
    }
    let folder = cache::artefact("bin", "azurite", &Key::default().text(PACKAGE).text(SCRIPT).finish(), |dir| {
        ui::long_step("fetch azurite", || {
            std::fs::create_dir_all(dir)?;
            let mut npm = sh::command("npm", ["install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]);
            sh::output(npm.arg(dir).arg(PACKAGE))?;
            write_script(&dir.join("azurite"), SCRIPT)
        })
    })?;
    Ok(folder.join("azurite"))
}

fn write_script(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text)?;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    Ok(())
}

fn link(program: &Path, name: &Path) -> Result<()> {
    drop(std::fs::remove_file(name));
    std::os::unix::fs::symlink(program, name).with_context(|| format!("cannot link {}", name.display()))
}
