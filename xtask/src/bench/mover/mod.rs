//! The mover beside `cat`, `zstd`, `rclone` and `restic`: same data, same stores, same minutes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::run::{Measured, measure};
use crate::ui;

mod cases;
mod site;
mod table;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Size of the data in MiB
    #[arg(long, default_value_t = 1024)]
    size: u64,
    /// Rounds, in each of which everything runs once; the tables show the fastest
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// The server that all S3 clients talk to
    #[arg(long, value_enum, default_value_t = site::Server::Versitygw)]
    server: site::Server,
    /// Where data and stores lie: a disk shows what the disk can do, a file system in memory what the programs can
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    on: PathBuf,
    /// Only what has this in its name, for example "local random push"
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
}

/// Takes as much memory as a run will write, and looks at all that it may read.
const WARM: &str =
    "find $DATA $LOCAL $S3ROOT -type f -exec cat {} + > /dev/null; cat $DATA/* > $HOME/warm && rm $HOME/warm";

pub(super) fn run(root: &Path, args: &Args) -> Result<()> {
    let site = site::Site::prepare(root, args)?;
    let cases: Vec<_> = cases::all().into_iter().filter(|case| case.id().contains(&args.only)).collect();
    let mut best: HashMap<String, Measured> = HashMap::new();
    for round in 1..=args.runs {
        ui::long_step(&format!("round {round} of {}", args.runs), || {
            let mut group = None;
            for case in &cases {
                if group.replace((case.store, case.data)) != Some((case.store, case.data)) {
                    measure(&mut site.shell("rm -rf $LOCAL/* $S3ROOT/bench/*"))?;
                }
                measure(&mut site.shell(&case.before))?;
                // Nobody pays for what another has left to be written.
                rustix::fs::sync();
                // Nor for memory: a virtual machine gives back what is free or was not looked at, and has to ask for it again.
                measure(&mut site.shell(WARM))?;
                let one = measure(&mut site.shell(&case.line)).with_context(|| case.id())?;
                let before = best.entry(case.id()).or_insert(one);
                if one.time < before.time {
                    *before = one;
                }
            }
            Ok(())
        })?;
    }
    table::print(&site, args.size, args.runs, &cases, &best);
    Ok(())
}
