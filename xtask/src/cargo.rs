//! Cargo, always asked about the whole workspace. What is built for one package alone gets other features of what it depends on,
//! and most of that is then built once more for each package.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// `cargo <words>` in the checkout, as from a shell. What `cargo run` tells its program about its package would count as a change of
/// what build scripts depend on: ring's, and with it all that speaks TLS, was built anew each time.
pub(crate) fn command(root: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let told = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| told.iter().any(|prefix| name.starts_with(prefix))) {
            command.env_remove(name);
        }
    }
    command.current_dir(root).args(words);
    command
}

/// Tests of the workspace; `words` choose which.
pub(crate) fn test(root: &Path, words: &[&str]) -> Command {
    command(root, &[&["test", "--quiet", "--locked", "--workspace"], words].concat())
}

/// An example of any of its packages.
pub(crate) fn example(root: &Path, name: &str) -> Command {
    command(root, &["run", "--quiet", "--locked", "--example", name, "--"])
}

/// Runs it; `failure` is the error of one that does not end well.
pub(crate) fn run(mut command: Command, failure: &str) -> Result<()> {
    ensure!(command.status().context("cannot run cargo")?.success(), "{failure}");
    Ok(())
}
