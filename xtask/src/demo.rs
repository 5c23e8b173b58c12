//! The main job, shown: from nothing to a database that was lost and came back.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use kbbackup_testing::kubectl::Kubectl;
use kbbackup_testing::main_job::{Figures, Job};

use crate::artifacts::Profile;
use crate::site::{self, Site};
use crate::ui;

/// Shows the main job on a real Kubernetes: a PostgreSQL is backed up under load, lost, and restored
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    cluster: crate::cluster::Options,
    /// Leave cluster, operator and database running, to play with
    #[arg(long)]
    keep: bool,
    /// Size of the database, in pgbench's scale factors of about 15 MB
    #[arg(long, default_value_t = 34)]
    scale: u32,
}

const NAMESPACE: &str = "kbbackup-demo";

/// Runs the demo.
pub(crate) fn run(root: &Path, args: &Args) -> Result<()> {
    let begin = Instant::now();
    let site = site::prepare(root, &args.cluster, site::POSTGRES, Profile::Trial)?;
    let prepared = begin.elapsed();

    let kubectl = &site.kubectl;
    let inside = kubectl.in_namespace(NAMESPACE);
    clear(kubectl, &inside)?;
    kubectl.run(&["create", "namespace", NAMESPACE])?;
    let job = Job { kubectl: &inside, repo: None, scale: args.scale };
    let figures = job.run(&mut |step| {
        ui::note(format!("{}  {step}", ui::seconds(begin.elapsed())));
    })?;
    tell(&figures, prepared, begin.elapsed());
    finish(site, &inside, args.keep)
}

fn tell(figures: &Figures, prepared: Duration, total: Duration) {
    let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f64());
    let mib = |bytes: u64| format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20));
    let stored = figures.stored.parse().map_or_else(|_| figures.stored.clone(), mib);
    ui::result("");
    ui::result("The main job is done: a PostgreSQL database was backed up under load, deleted, and is running again.");
    ui::result("");
    ui::result(format!("  database          {} when the backup began", mib(figures.database)));
    ui::result(format!("  backup            {} stored in {}", stored, seconds(figures.backup)));
    ui::result(format!(
        "  restore           {}, verified against the manifest, recovered and serving",
        seconds(figures.restore)
    ));
    ui::result(format!("  position          {}", figures.position));
    ui::result(format!(
        "  compared          every account, teller and branch against {} restored transactions; {} ledger rows are exactly\n                    \
         the commits acknowledged up to that position ({} were acknowledged before the database was deleted)",
        figures.checked.transactions, figures.checked.rows, figures.acknowledged
    ));
    ui::result(format!(
        "  cluster, images, operator and repository ready after {}; all of it took {}",
        seconds(prepared),
        seconds(total)
    ));
}

fn finish(site: Site, inside: &Kubectl, keep: bool) -> Result<()> {
    if keep {
        ui::result("");
        ui::result("Left running. To look around:");
        for line in site.how_to_use() {
            ui::result(format!("  {line}"));
        }
        ui::result(format!("  kubectl kbbackup list -n {NAMESPACE}"));
        ui::result("When done: cargo xtask cluster down");
        return Ok(());
    }
    clear(&site.kubectl, inside)?;
    site.end()
}

/// Removes what a demo left. Backups go first: while their namespace goes, no Job can run in it to remove their files.
fn clear(kubectl: &Kubectl, inside: &Kubectl) -> Result<()> {
    inside.run(&["delete", "backups,restores", "--all", "--timeout=120s"])?;
    kubectl.run(&["delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=180s"]).map(drop)
}
