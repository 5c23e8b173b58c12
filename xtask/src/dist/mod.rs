//! A release: archives of the plugin with their checksums, the krew manifest that names them, images, and what is in them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::artifacts::{self, Profile};
use crate::cluster::sh;
use crate::ui;

mod archive;
mod check;
mod images;
mod manifest;
mod sbom;

pub(crate) use check::check;

const VERSION: &str = env!("CARGO_PKG_VERSION");
const PLUGIN: &str = "kubectl-kbbackup";
/// No plugin may be larger, in bytes.
const LARGEST: u64 = 15 << 20;

/// Makes a release of everything that this machine can build
///
/// Archives that lie in the folder already, from a machine of another kind, are named in the manifest and in the checksums
/// as well.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where the release is put
    #[arg(long, value_name = "DIR", default_value = "target/dist")]
    out: PathBuf,
    /// Below which address its archives will be found
    #[arg(long, value_name = "URL", default_value = concat!(env!("CARGO_PKG_REPOSITORY"), "/releases/download/v", env!("CARGO_PKG_VERSION")))]
    url: String,
}

/// A platform as krew names it, and as Rust does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Platform {
    os: &'static str,
    arch: &'static str,
    target: &'static str,
}

const PLATFORMS: [Platform; 2] = [
    Platform { os: "linux", arch: "amd64", target: "x86_64-unknown-linux-gnu" },
    Platform { os: "linux", arch: "arm64", target: "aarch64-unknown-linux-gnu" },
];

impl Platform {
    fn archive(self) -> String {
        format!("{PLUGIN}_v{VERSION}_{}_{}.tar.gz", self.os, self.arch)
    }

    /// Whether the standard library for it is installed. Its linker is cargo's business.
    fn can_be_built(self) -> Result<bool> {
        let mut rustc = Command::new("rustc");
        let folder = sh::output(rustc.args(["--print", "target-libdir", "--target", self.target]))?;
        Ok(Path::new(folder.trim()).exists())
    }
}

/// Makes the release.
pub(crate) fn run(root: &Path, args: &Args) -> Result<()> {
    let out = root.join(&args.out);
    fs::create_dir_all(&out).with_context(|| format!("cannot create {}", out.display()))?;
    for platform in PLATFORMS {
        let name = format!("{} {}", platform.os, platform.arch);
        if !platform.can_be_built()? {
            ui::note(format!("{name} is left out: rustup target add {}", platform.target));
            continue;
        }
        let plugin = ui::long_step(&format!("build the plugin for {name}"), || {
            artifacts::one(root, Profile::Dist, platform.target, PLUGIN)
        })?;
        let size = fs::metadata(&plugin)?.len();
        ensure!(
            size < LARGEST,
            "the plugin for {name} has {size} bytes; {LARGEST} are the most that people should fetch"
        );
        archive::write(root, &plugin, &out.join(platform.archive()))?;
    }
    let archives = archive::all(&out)?;
    ensure!(!archives.is_empty(), "no platform can be built here: rustup target add {}", PLATFORMS[0].target);
    archive::write_checksums(&out, &archives)?;
    let filled = manifest::fill(&manifest::template(root)?, &args.url, &archives)?;
    fs::write(out.join("kbbackup.yaml"), filled)?;
    let binaries = ui::long_step("build operator and mover", || artifacts::build(root, Profile::Release))?;
    images::write(root, &binaries, &out)?;
    for package in [PLUGIN, "kbbackup-controller", "kbbackup-mover"] {
        let file = out.join(format!("{package}_v{VERSION}.cdx.json"));
        ui::step(&format!("list what {package} is made of"), || sbom::write(root, package, &file))?;
    }
    ui::result(format!("the release lies in {}", out.display()));
    Ok(())
}
