//! The plugin as a person feels it: how long until there is an answer, and what it costs, beside `kubectl` at the same
//! API server in the same run.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::controller::api_server::ApiServer;
use super::controller::seed;
use super::run::{Measured, measure};
use crate::cluster::programs;
use crate::{artifacts, ui};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Finished backups in the cluster
    #[arg(long, default_value_t = 10_000)]
    backups: usize,
    /// Runs of each; the fastest counts
    #[arg(long, default_value_t = 5)]
    runs: u32,
    /// Folder for the data of etcd, kept afterwards and used again
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
    /// This plugin instead of one built now
    #[arg(long, value_name = "FILE")]
    plugin: Option<PathBuf>,
}

/// One line of the result.
struct Case {
    name: &'static str,
    program: PathBuf,
    args: Vec<&'static str>,
    /// Longest time, and largest program in MiB, that it should take.
    target: Option<(Duration, u64)>,
}

pub(super) fn run(root: &Path, args: &Args) -> Result<()> {
    let plugin = match &args.plugin {
        Some(plugin) => std::fs::canonicalize(plugin).context("no such plugin")?,
        None => ui::long_step("build the plugin", || artifacts::plugin(root))?,
    };
    let temporary = tempfile::tempdir()?;
    let dir = args.keep.as_deref().unwrap_or(temporary.path());
    std::fs::create_dir_all(dir)?;
    let server = ui::step("etcd and API server of their own", || ApiServer::start(dir, root))?;
    ui::long_step("objects", || {
        tokio::runtime::Runtime::new()?.block_on(async { seed::fill(&server.client().await?, args.backups, 500).await })
    })?;
    // The completer is the plugin by another name.
    let completer = dir.join("kubectl_complete-kbbackup");
    drop(std::fs::remove_file(&completer));
    std::os::unix::fs::symlink(&plugin, &completer).context("cannot link the completer")?;
    let cases = cases(&plugin, &completer, &programs()?.join("kubectl"));
    let size = std::fs::metadata(&plugin)?.len() as f64 / f64::from(1 << 20);
    ui::result(format!("{} backups, the fastest of {} runs; the plugin has {size:.1} MiB\n", args.backups, args.runs));
    ui::result("| command | seconds | CPU seconds | peak MiB | target | met |\n|---|---:|---:|---:|---:|---|");
    for case in &cases {
        let mut best: Option<Measured> = None;
        for _ in 0..args.runs {
            let mut command = Command::new(&case.program);
            command.args(&case.args).env("KUBECONFIG", server.kubeconfig("bench")).stdout(Stdio::null());
            let one = measure(&mut command)?;
            if best.is_none_or(|best| one.time < best.time) {
                best = Some(one);
            }
        }
        let best = best.context("no run at all")?;
        ui::result(line(case, &best));
    }
    Ok(())
}

fn cases(plugin: &Path, completer: &Path, kubectl: &Path) -> Vec<Case> {
    let case = |name, program: &Path, args: &[&'static str], target: Option<(u64, u64)>| Case {
        name,
        program: program.to_owned(),
        args: args.to_vec(),
        target: target.map(|(millis, peak)| (Duration::from_millis(millis), peak)),
    };
    vec![
        case("kbbackup --help", plugin, &["--help"], Some((20, 64))),
        case("kbbackup repo list", plugin, &["repo", "list"], None),
        case("kbbackup list -A", plugin, &["list", "-A"], Some((2000, 64))),
        case("kbbackup list -n ns-1", plugin, &["list", "-n", "ns-1"], None),
        case("completion of a command", completer, &["insta"], Some((20, 64))),
        case("completion of a repository", completer, &["repo", "check", ""], Some((200, 64))),
        case("kubectl get backups -A", kubectl, &["get", "backups", "-A"], None),
        case("kubectl get backups -A -o json", kubectl, &["get", "backups", "-A", "-o", "json"], None),
        case("kubectl get backuprepos", kubectl, &["get", "backuprepos"], None),
    ]
}

fn line(case: &Case, best: &Measured) -> String {
    let peak = best.peak.div_ceil(1024);
    let (target, met) = match case.target {
        None => (String::new(), String::new()),
        Some((time, memory)) => {
            let met = if best.time <= time && peak <= memory { "yes" } else { "**no**" };
            (format!("{:.2} s, {memory} MiB", time.as_secs_f64()), met.to_owned())
        }
    };
    let (seconds, cpu) = (best.time.as_secs_f64(), best.cpu.as_secs_f64());
    format!("| {} | {seconds:.3} | {cpu:.2} | {peak} | {target} | {met} |", case.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_of_time_and_memory() {
        let case = Case {
            name: "x",
            program: PathBuf::new(),
            args: Vec::new(),
            target: Some((Duration::from_millis(20), 64)),
        };
        let measured = |millis, peak| Measured { time: Duration::from_millis(millis), cpu: Duration::ZERO, peak };
        assert!(line(&case, &measured(20, 64 * 1024)).ends_with("| yes |"));
        assert!(line(&case, &measured(21, 1024)).ends_with("| **no** |"));
        assert!(line(&case, &measured(1, 65 * 1024)).ends_with("| **no** |"));
    }
}
