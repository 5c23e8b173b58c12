//! All tests, or one kind of them.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::artifacts::Profile;
use crate::cluster::{self, Options, s3};
use crate::{cargo, chart, codegen, deny, dist, metrics, program, site, stores, ui};

/// Runs the tests: all of them, or the kinds named
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    cluster: Options,
    /// What to run; everything when nothing is named
    kinds: Vec<Kind>,
    /// Only end-to-end tests whose name contains this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Leave the cluster running
    #[arg(long)]
    keep: bool,
    /// Recover to so many random times of each version's log
    #[arg(long, value_name = "N")]
    targets: Option<usize>,
    /// Try faults, deaths and large amounts for longer: half an hour instead of minutes
    #[arg(long)]
    soak: bool,
}

/// A kind of test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// Formatting
    Fmt,
    /// Lints, as errors
    Clippy,
    /// Licences, sources and advisories of the dependencies
    Deny,
    /// Tests without a cluster
    Unit,
    /// The mover against servers that are not ours
    Stores,
    /// Generated files are up to date
    Codegen,
    /// The chart is what `deploy/` installs, by Helm
    Chart,
    /// Names and help of the metrics, by Prometheus' own rules
    Metrics,
    /// The storage driver of the test cluster, by csi-sanity
    Driver,
    /// The plugin's package, by krew
    Dist,
    /// Tests on the cluster
    E2e,
    /// Of these, the recoveries to a point in time alone; not part of everything, for they are in `e2e`
    Pitr,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Fmt => "formatting",
            Self::Clippy => "lints",
            Self::Deny => "dependencies",
            Self::Unit => "tests without a cluster",
            Self::Stores => "the mover against other people's servers",
            Self::Codegen => "generated files",
            Self::Chart => "the chart",
            Self::Metrics => "metrics",
            Self::Driver => "the storage driver of the test cluster",
            Self::Dist => "the plugin's package",
            Self::E2e => "tests on the cluster",
            Self::Pitr => "recoveries to a point in time",
        }
    }
}

const ALL: [Kind; 11] = [
    Kind::Fmt,
    Kind::Codegen,
    Kind::Clippy,
    Kind::Deny,
    Kind::Unit,
    Kind::Stores,
    Kind::Chart,
    Kind::Metrics,
    Kind::Driver,
    Kind::Dist,
    Kind::E2e,
];

/// Runs the tests.
pub(crate) fn run(root: &Path, args: &Args) -> Result<()> {
    let kinds = if args.kinds.is_empty() { &ALL[..] } else { &args.kinds };
    for kind in kinds {
        ui::long_step(kind.name(), || match kind {
            Kind::Fmt => cargo::run(cargo::command(root, &["fmt", "--all", "--check"]), "cargo fmt finds something"),
            Kind::Codegen => codegen::run(root, true),
            Kind::Clippy => {
                let words = ["clippy", "--quiet", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"];
                cargo::run(cargo::command(root, &words), "cargo clippy finds something")
            }
            Kind::Deny => deny::check(root),
            Kind::Unit => units(root, args.soak),
            Kind::Stores => stores::check(root),
            Kind::Chart => chart::check(root),
            Kind::Metrics => metrics::check(root),
            Kind::Driver => cluster::sanity(),
            Kind::Dist => dist::check(root),
            Kind::E2e => end_to_end(root, args, args.only.as_deref()),
            Kind::Pitr => end_to_end(root, args, Some(args.only.as_deref().unwrap_or("pitr"))),
        })?;
    }
    Ok(())
}

/// Waits for eleven minutes to pass.
const LONGEST: &str = "schedule::ten_runs_keep_exactly_what_they_should";

/// The tests that disturb others run after them, alone.
fn end_to_end(root: &Path, args: &Args, only: Option<&str>) -> Result<()> {
    // What an operator asks for when it starts for the first time counts as well.
    let since = jiff::Timestamp::now().to_string();
    let site = site::prepare(root, &args.cluster, site::ENGINES, Profile::Trial)?;
    for server in [s3::Server::Versitygw, s3::Server::Rclone, s3::Server::Vanishing] {
        s3::up(&site.cluster, server)?;
    }
    if only.is_none() {
        api_server(root, &site)?;
    }
    let suite = |words: &[&str]| {
        let mut command = cargo::test(root, &["--test", "e2e", "--"]);
        command.args(words).args(only).envs(site.test_env());
        if let Some(targets) = args.targets {
            command.env("KBBACKUP_PITR_TARGETS", targets.to_string());
        }
        command
    };
    let mut passed = true;
    if only.is_none_or(|only| !only.contains("chaos")) {
        // Most of a test is waiting; the longest wait begins first, beside the others.
        let alone = only.is_none().then(|| suite(&["--exact", LONGEST]).spawn()).transpose();
        let alone = alone.context("cannot run cargo")?;
        let skipped: &[&str] = if alone.is_some() { &["--skip", LONGEST] } else { &[] };
        passed = suite(&[&["--test-threads", "5", "--skip", "chaos"], skipped].concat()).status()?.success();
        if let Some(mut alone) = alone {
            passed &= alone.wait()?.success();
        }
    }
    if passed && only.is_none_or(|only| only.contains("chaos")) {
        site.load_versions(&["0.0.9", env!("CARGO_PKG_VERSION")])?;
        passed = suite(&["--test-threads", "1", "chaos"]).status()?.success();
    }
    ensure!(passed, "the end-to-end tests failed; the cluster is left running: {}", site.how_to_use().join("; "));
    if only.is_none() {
        rights(root, &site, &since)?;
    }
    if args.keep { Ok(()) } else { site.end() }
}

/// Compares what the operator's accounts asked for with their roles.
fn rights(root: &Path, site: &site::Site, since: &str) -> Result<()> {
    let Some(log) = site.cluster.audit_log()? else {
        ui::note("this cluster's audit log is not at hand: the roles are not compared with what was asked for");
        return Ok(());
    };
    let mut command = cargo::test(root, &["--test", "rights"]);
    command.env("KBBACKUP_E2E_AUDIT_LOG", log).env("KBBACKUP_E2E_SINCE", since);
    cargo::run(command, "the roles are not what the code uses")
}

/// What a real API server makes of our definitions. The operator rests meanwhile: it would edit the objects of the test.
fn api_server(root: &Path, site: &site::Site) -> Result<()> {
    let operator = site.kubectl.in_namespace("kbbackup-system");
    operator.run(&["scale", "deployment/kbbackup-controller", "--replicas=0"])?;
    operator.run(&["wait", "--for=delete", "pod", "-l", "kbbackup.io/part=operator", "--timeout=60s"])?;
    let mut command = cargo::test(root, &["--test", "server", "--", "--ignored"]);
    command.envs(site.kubectl_env());
    cargo::run(command, "the API server disagrees with the contract")?;
    operator.run(&["scale", "deployment/kbbackup-controller", "--replicas=1"])?;
    operator.run(&["rollout", "status", "deployment/kbbackup-controller", "--timeout=120s"]).map(drop)
}

/// Everything that needs no cluster, beside the programs that some of it is compared with.
fn units(root: &Path, soak: bool) -> Result<()> {
    let mut command = cargo::test(root, &["--exclude", "kbbackup-e2e"]);
    command.envs(program::test_env()?);
    if soak {
        command.env("KBBACKUP_SOAK", "1");
    }
    cargo::run(command, "cargo test failed")
}
