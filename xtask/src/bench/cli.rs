//! The plugin as a person feels it: how long until there is an answer, and what it costs, beside `kubectl` at the same
//! API server in the same run.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kbbackup_testing::terminal::Terminal;

use super::controller::api_server::ApiServer;
use super::controller::seed;
use super::run::{Measured, measure};
use crate::artifacts::{self, Profile, TARGET};
use crate::cluster::programs;
use crate::ui;

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

/// When something has to be seen at the latest, whatever comes of it.
const SIGN: Duration = Duration::from_millis(200);
/// How long a program may take at all.
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) fn run(root: &Path, args: &Args) -> Result<()> {
    let plugin = match &args.plugin {
        Some(plugin) => std::fs::canonicalize(plugin).context("no such plugin")?,
        None => {
            ui::long_step("build the plugin", || artifacts::one(root, Profile::Release, TARGET, "kubectl-kbbackup"))?
        }
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
    ui::result(
        "| command | seconds | first sign on a terminal | CPU seconds | peak MiB | target | met |\n|---|---:|---:|---:|---:|---:|---|",
    );
    for case in &cases {
        let (mut best, mut first) = (None::<Measured>, Duration::MAX);
        let command = || {
            let mut command = Command::new(&case.program);
            command.args(&case.args).env("KUBECONFIG", server.kubeconfig("bench"));
            command
        };
        for _ in 0..args.runs {
            let one = measure(command().stdout(Stdio::null()))?;
            if best.is_none_or(|best| one.time < best.time) {
                best = Some(one);
            }
            // Once more, as a person sees it.
            let mut terminal = Terminal::start(&mut command(), PATIENCE)?;
            let code = terminal.end()?;
            ensure!(code == 0, "{} ended with {code}: {}", case.name, terminal.seen());
            first = first.min(terminal.first_shown().context("nothing was shown")?);
        }
        let best = best.context("no run at all")?;
        ui::result(line(case, &best, first));
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
        case("kbbackup list -A -o json", plugin, &["list", "-A", "-o", "json"], None),
        case("kbbackup list -n ns-1", plugin, &["list", "-n", "ns-1"], None),
        case("completion of a command", completer, &["insta"], Some((20, 64))),
        case("completion of a repository", completer, &["repo", "check", ""], Some((200, 64))),
        case("completion of a backup", completer, &["describe", "-n", "ns-1", ""], Some((200, 64))),
        case("kubectl get backups -A", kubectl, &["get", "backups", "-A"], None),
        case("kubectl get backups -A -o json", kubectl, &["get", "backups", "-A", "-o", "json"], None),
        case("kubectl get backuprepos", kubectl, &["get", "backuprepos"], None),
    ]
}

fn line(case: &Case, best: &Measured, first: Duration) -> String {
    let peak = best.peak.div_ceil(1024);
    let (target, met) = match case.target {
        None => (String::new(), String::new()),
        Some((time, memory)) => {
            let met = if best.time <= time && first <= SIGN && peak <= memory { "yes" } else { "**no**" };
            (format!("{:.2} s, {memory} MiB", time.as_secs_f64()), met.to_owned())
        }
    };
    let (seconds, cpu, first) = (best.time.as_secs_f64(), best.cpu.as_secs_f64(), first.as_secs_f64());
    format!("| {} | {seconds:.3} | {first:.3} | {cpu:.2} | {peak} | {target} | {met} |", case.name)
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
        let line = |one: Measured, first| line(&case, &one, Duration::from_millis(first));
        assert!(line(measured(20, 64 * 1024), 200).ends_with("| yes |"));
        assert!(line(measured(21, 1024), 1).ends_with("| **no** |"));
        assert!(line(measured(1, 65 * 1024), 1).ends_with("| **no** |"));
        assert!(line(measured(1, 1024), 201).ends_with("| **no** |"));
    }
}
