//! Where things lie: sources in the checkout, run state in the cache folder.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::cache;

/// `tests/cluster` of this checkout.
pub(crate) fn sources() -> Result<PathBuf> {
    let dir = crate::root().join("tests/cluster");
    anyhow::ensure!(dir.is_dir(), "{} is gone; run xtask by cargo, in a checkout", dir.display());
    Ok(dir)
}

/// Everything a running local node keeps; `cluster down` deletes it whole.
#[derive(Clone, Debug)]
pub(crate) struct State(PathBuf);

impl State {
    pub(crate) fn open() -> Result<Self> {
        Ok(Self(cache::root()?.join("cluster")))
    }

    pub(crate) fn root(&self) -> &Path {
        &self.0
    }
    pub(crate) fn join(&self, path: impl AsRef<Path>) -> PathBuf {
        self.0.join(path)
    }
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.join("kubeconfig")
    }
    pub(crate) fn containerd_socket(&self) -> PathBuf {
        self.join("containerd/run/containerd.sock")
    }
    pub(crate) fn pki(&self, file: &str) -> PathBuf {
        self.join("pki").join(file)
    }
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.join("logs").join(format!("{name}.log"))
    }
    /// What the API server was asked for, a line of JSON each.
    pub(crate) fn audit_log(&self) -> PathBuf {
        self.log("audit")
    }
    pub(crate) fn csi_socket(&self) -> PathBuf {
        self.join("kubelet/plugins/btrfs.csi.kbbackup.io/csi.sock")
    }
}
