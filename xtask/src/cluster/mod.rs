//! A Kubernetes for tests and demos: `cargo xtask cluster`.
//!
//! Three kinds, tried in this order: an existing cluster named by `--context`; kind, where Docker runs; and a real
//! one-node Kubernetes on this machine, built from source and run as plain processes (Debian, root).

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use clap::Subcommand;

use crate::ui;

mod addons;
pub(crate) mod cache;
pub(crate) mod debian;
mod external;
pub(crate) mod go;
mod host;
pub(crate) mod image;
mod local;
mod node;
mod paths;
mod pki;
mod process;
pub(crate) mod s3;
pub(crate) mod sh;

const NODE: &str = "node1";
const NODE_IP: &str = "10.88.0.1";
const BRIDGE: &str = "kbbackup0";
const POD_RANGE: &str = "10.88.0.0/16";
const SERVICE_RANGE: &str = "10.96.0.0/16";
const DNS_IP: &str = "10.96.0.10";
const PAUSE_IMAGE: &str = "kbbackup.test/pause:1";
const COREDNS_IMAGE: &str = "kbbackup.test/coredns:1.15.0";

/// Run a Kubernetes for tests on this machine, or use one that is there
///
/// Without --context and without Docker and kind, a real one-node Kubernetes runs on this machine as plain processes.
/// That needs Debian, root and Go; everything else is installed or built. Artefacts are cached in
/// `${XDG_CACHE_HOME:-~/.cache}/kbbackup`, the running node keeps its state in `cluster` below it.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    verb: Verb,
}

/// Which cluster is meant, and what it should have.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct Options {
    /// Use the existing cluster of this kubeconfig context
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Run the node on this machine even if Docker and kind are here
    #[arg(long, global = true, conflicts_with = "context")]
    pub local: bool,
    /// Images the cluster should have at once, such as postgres:15
    #[arg(skip)]
    pub images: Vec<String>,
}

#[derive(Subcommand)]
enum Verb {
    /// Bring the cluster up, or repair it; does nothing when all is well
    Up,
    /// Stop the cluster and delete everything it kept; caches stay
    Down,
    /// Say what runs and what does not
    Status,
    /// Open a shell, or run a command, with KUBECONFIG and PATH set for the cluster
    Shell {
        /// The command to run instead of a shell
        #[arg(trailing_var_arg = true)]
        command: Vec<OsString>,
    },
    /// Make images and give them to the cluster; without names, list those there are
    Image { names: Vec<String> },
    /// Run an S3 server in the cluster
    S3 { server: s3::Server },
    /// Install, build and cache what `up` needs, without starting anything
    Build,
    /// Check the storage driver with csi-sanity (needs no cluster)
    Sanity,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.verb {
        Verb::Up => {
            let cluster = up(&with_postgres(&args.options))?;
            ui::note("the cluster is up; use it with: cargo xtask cluster shell");
            ui::result(format!("export KUBECONFIG={}", cluster.kubeconfig.display()));
            Ok(())
        }
        Verb::Build => local::build(&with_postgres(&args.options)),
        Verb::Down => down(&args.options),
        Verb::Status => status(&args.options),
        Verb::Shell { command } => shell(&attach(&args.options)?, command),
        Verb::Image { names } if names.is_empty() => {
            for name in image::names() {
                ui::result(format!("{}{name}", image::recipes::PREFIX));
            }
            Ok(())
        }
        Verb::Image { names } => {
            let cluster = attach(&args.options).ok();
            for name in names {
                let image = image::known(name)?;
                match &cluster {
                    Some(cluster) => cluster.load(&image)?,
                    None => ui::note("no cluster is up; the image is only cached"),
                }
                ui::result(&image.name);
            }
            Ok(())
        }
        Verb::S3 { server } => {
            let endpoint = s3::up(&attach(&args.options)?, *server)?;
            ui::result(format!("{} bucket {}", endpoint.url, endpoint.bucket));
            Ok(())
        }
        Verb::Sanity => sanity(),
    }
}

/// A cluster for people comes with a database to try things on.
fn with_postgres(options: &Options) -> Options {
    Options { images: vec!["postgres:15".to_owned()], ..options.clone() }
}

/// A cluster that answers.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub kubeconfig: PathBuf,
    /// The context to use, when it is not the kubeconfig's current one.
    pub context: Option<String>,
    /// A kubectl that is there for sure.
    pub kubectl: PathBuf,
    target: Target,
}

#[derive(Clone, Debug)]
enum Target {
    Local,
    Kind,
    Context(String),
}

fn target(options: &Options) -> Target {
    match &options.context {
        Some(name) => Target::Context(name.clone()),
        None if !options.local && external::kind_works() => Target::Kind,
        None => Target::Local,
    }
}

/// Brings the cluster up, or finds it up, with the images of `options`.
pub(crate) fn up(options: &Options) -> Result<Cluster> {
    match target(options) {
        Target::Local => local::up(options),
        Target::Kind => external::kind_up(options),
        Target::Context(name) => external::context(&name),
    }
}

/// Stops the cluster and deletes everything it kept but the caches.
pub(crate) fn down(options: &Options) -> Result<()> {
    match target(options) {
        Target::Local => local::down(),
        Target::Kind => external::kind_down(),
        Target::Context(name) => anyhow::bail!("the cluster of context {name} is not ours to stop"),
    }
}

/// Whether there is a cluster that [`up`] would find rather than start.
pub(crate) fn is_up(options: &Options) -> bool {
    match target(options) {
        Target::Local => local::is_up(),
        Target::Kind => external::kind_is_up(),
        Target::Context(_) => true,
    }
}

fn status(options: &Options) -> Result<()> {
    if matches!(target(options), Target::Local) {
        return local::status();
    }
    anyhow::ensure!(is_up(options), "no cluster is up; start it with: cargo xtask cluster up");
    let cluster = attach(options)?;
    ui::result(sh::output(cluster.kubectl().args(["get", "nodes,storageclasses"]))?.trim_end());
    Ok(())
}

/// Finds the cluster that is up already.
fn attach(options: &Options) -> Result<Cluster> {
    match target(options) {
        Target::Local => local::attach(),
        Target::Kind => external::kind_up(&Options { images: Vec::new(), ..options.clone() }),
        Target::Context(name) => external::context(&name),
    }
}

impl Cluster {
    /// kubectl, pointed at this cluster.
    pub(crate) fn kubectl(&self) -> Command {
        let mut command = sh::command(&self.kubectl, [""; 0]);
        command.env("KUBECONFIG", &self.kubeconfig);
        if let Some(context) = &self.context {
            command.arg(format!("--context={context}"));
        }
        command
    }

    /// Where the API server writes what the operator's accounts ask for; nothing when we did not start it.
    pub(crate) fn audit_log(&self) -> Result<Option<PathBuf>> {
        Ok(match &self.target {
            Target::Local => Some(paths::State::open()?.audit_log()),
            Target::Kind | Target::Context(_) => None,
        })
    }

    /// Makes an image usable by pods of this cluster.
    pub(crate) fn load(&self, image: &image::Image) -> Result<()> {
        match &self.target {
            Target::Local => local::load(std::slice::from_ref(image)),
            Target::Kind => external::kind_load(image),
            Target::Context(name) => {
                ui::note(format!("the nodes of context {name} must be able to get {} by themselves", image.name));
                Ok(())
            }
        }
    }

    /// `PATH` with this cluster's kubectl first.
    pub(crate) fn path_env(&self) -> OsString {
        let mut path = OsString::from(self.kubectl.parent().unwrap_or(&self.kubectl));
        if let Some(rest) = std::env::var_os("PATH") {
            path.push(":");
            path.push(rest);
        }
        path
    }
}

fn shell(cluster: &Cluster, command: &[OsString]) -> Result<()> {
    let default = [std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into())];
    let words = if command.is_empty() { &default[..] } else { command };
    let status = Command::new(&words[0])
        .args(&words[1..])
        .env("KUBECONFIG", &cluster.kubeconfig)
        .env("PATH", cluster.path_env())
        .status()?;
    std::process::exit(status.code().unwrap_or(1));
}

pub(crate) fn sanity() -> Result<()> {
    debian::ensure()?;
    let log = cache::root()?.join("logs");
    std::fs::create_dir_all(&log)?;
    let log = log.join("csi-sanity.log");
    ui::long_step("csi-sanity", || {
        sh::logged(
            go::go(&paths::sources()?).args(["test", "-trimpath", "-vet=off", "-count=1", "-v", "./csi-btrfs"]),
            &log,
        )
    })?;
    let text = std::fs::read_to_string(&log)?;
    let verdict = text.lines().filter(|line| line.contains("Passed")).map(without_colours).collect::<String>();
    ui::result(verdict);
    Ok(())
}

fn without_colours(line: &str) -> String {
    let mut parts = line.split('\u{1b}');
    let first = parts.next().unwrap_or_default().to_owned();
    first + &parts.map(|part| part.split_once('m').map_or(part, |(_, text)| text)).collect::<String>()
}

/// Folder of the Kubernetes programs, built if it is not in the cache.
pub(crate) fn programs() -> Result<std::path::PathBuf> {
    go::KUBERNETES.dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_taken_out() {
        assert_eq!(without_colours("\u{1b}[32mok\u{1b}[0m -- 3 Passed"), "ok -- 3 Passed");
    }
}
