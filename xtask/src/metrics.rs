//! The operator's metrics, checked as `promtool check metrics` checks them.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::cargo;
use crate::cluster::{go, sh};

/// Fails if a name, a unit, a help or a type breaks a rule of Prometheus.
pub(crate) fn check(root: &Path) -> Result<()> {
    let example = cargo::example(root, "metrics").output().context("cannot run cargo")?;
    ensure!(
        example.status.success(),
        "the example of all metrics failed: {}",
        String::from_utf8_lossy(&example.stderr)
    );
    let text = String::from_utf8(example.stdout).context("the metrics are not UTF-8")?;
    ensure!(text.contains("kbbackup_"), "the example gives no metrics");
    sh::fed(&mut sh::command(go::PROMLINT.path()?, [""; 0]), &text)
}
