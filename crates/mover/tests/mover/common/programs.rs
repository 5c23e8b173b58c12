//! Programs that are not ours, to compare with: built by `cargo xtask program NAME`.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Where a program lies. `cargo xtask test` says it; alone, a test asks xtask, which keeps them in its cache.
pub(crate) fn program(name: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(format!("KBBACKUP_TEST_{}", name.to_uppercase())) {
        return path.into();
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let output = Command::new(env!("CARGO")).args(["xtask", "program", name]).current_dir(root).output().unwrap();
    assert!(output.status.success(), "cargo xtask program {name}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().into()
}
