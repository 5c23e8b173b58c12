//! Programs built from Go modules: Kubernetes itself, its add-ons and the S3 servers.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::cache::{self, Key};
use super::{paths, sh};
use crate::ui;

/// One program and what it is made from.
pub(crate) struct Program {
    pub name: &'static str,
    /// The folder of its Go module below `tests/cluster`.
    module: &'static str,
    package: &'static str,
    /// Folders below the module whose Go files belong to it.
    sources: &'static [&'static str],
    ldflags: &'static str,
    /// Other names it is called by.
    pub links: &'static [&'static str],
}

const KUBERNETES_FLAGS: &str = "-s -w -X k8s.io/component-base/version.gitVersion=v1.34.3 \
     -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=34";

pub(crate) const KUBERNETES: Program = Program {
    name: "kubernetes",
    module: "kubernetes",
    package: ".",
    sources: &["."],
    // Without a version the node reports v0.0.0 and clients complain.
    ldflags: KUBERNETES_FLAGS,
    links: &["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl"],
};
pub(crate) const COREDNS: Program = addon("coredns", "./coredns", &["coredns"]);
pub(crate) const PAUSE: Program = addon("pause", "./pause", &["pause"]);
pub(crate) const CSI_BTRFS: Program = addon("csi-btrfs", "./csi-btrfs", &["csi-btrfs"]);
pub(crate) const CSI_SNAPSHOTTER: Program =
    addon("csi-snapshotter", "github.com/kubernetes-csi/external-snapshotter/v8/cmd/csi-snapshotter", &[]);
pub(crate) const SNAPSHOT_CONTROLLER: Program =
    addon("snapshot-controller", "github.com/kubernetes-csi/external-snapshotter/v8/cmd/snapshot-controller", &[]);
pub(crate) const RCLONE: Program = s3("rclone", "./rclone", &["rclone"]);
pub(crate) const VERSITYGW: Program = s3("versitygw", "github.com/versity/versitygw/cmd/versitygw", &[]);

/// Not part of the cluster: an emulator of Google Cloud Storage.
pub(crate) const FAKE_GCS: Program = Program {
    name: "fake-gcs-server",
    module: "gcs",
    package: "github.com/fsouza/fake-gcs-server",
    sources: &[],
    ldflags: "-s -w",
    links: &[],
};
/// Not part of the cluster: what the mover's formats are compared with.
pub(crate) const FORMATS: Program =
    Program { name: "formats", module: "formats", package: ".", sources: &["."], ldflags: "-s -w", links: &[] };
/// Not part of the cluster: renders the chart.
pub(crate) const HELM: Program = tool("helm", "helm.sh/helm/v4/cmd/helm", &[]);
/// Not part of the cluster: checks metrics as `promtool check metrics` does.
pub(crate) const PROMLINT: Program = tool("promlint", "./promlint", &["promlint"]);

/// Not part of the cluster: installs plugins of kubectl, and judges their manifests.
pub(crate) const KREW: Program = krew("krew", "sigs.k8s.io/krew/cmd/krew");
pub(crate) const KREW_RULES: Program = krew("krew-rules", "sigs.k8s.io/krew/cmd/validate-krew-manifest");

/// Not part of the cluster, whose etcd is Debian's: one new enough that API servers answer lists from memory, as they do
/// wherever Kubernetes is current.
pub(crate) const ETCD: Program = Program {
    name: "etcd",
    module: "etcd",
    package: "go.etcd.io/etcd/server/v3",
    sources: &[],
    ldflags: "-s -w",
    links: &[],
};
/// Not part of the cluster: what the mover is measured beside.
pub(crate) const BENCH_RCLONE: Program = bench("bench-rclone", "./rclone", &["rclone"]);
pub(crate) const RESTIC: Program = bench("restic", "github.com/restic/restic/cmd/restic", &[]);

const fn addon(name: &'static str, package: &'static str, sources: &'static [&'static str]) -> Program {
    Program { name, module: ".", package, sources, ldflags: "-s -w", links: &[] }
}

const fn s3(name: &'static str, package: &'static str, sources: &'static [&'static str]) -> Program {
    Program { name, module: "s3", package, sources, ldflags: "-s -w", links: &[] }
}

const fn tool(name: &'static str, package: &'static str, sources: &'static [&'static str]) -> Program {
    Program { name, module: "tools", package, sources, ldflags: "-s -w", links: &[] }
}

const fn krew(name: &'static str, package: &'static str) -> Program {
    Program { name, module: "krew", package, sources: &[], ldflags: "-s -w", links: &[] }
}

const fn bench(name: &'static str, package: &'static str, sources: &'static [&'static str]) -> Program {
    Program { name, module: "bench", package, sources, ldflags: "-s -w", links: &[] }
}

impl Program {
    /// Returns the folder with the program, built if it is not in the cache.
    pub(crate) fn dir(&self) -> Result<PathBuf> {
        let module = paths::sources()?.join(self.module);
        let key = self.key(&module)?;
        cache::artefact("bin", self.name, &key, |dir| {
            ui::long_step(&format!("build {}", self.name), || self.build(&module, dir))
        })
    }

    /// Returns the path of the program, built if it is not in the cache.
    pub(crate) fn path(&self) -> Result<PathBuf> {
        Ok(self.dir()?.join(self.name))
    }

    /// Changes with everything the program is made from.
    pub(crate) fn key(&self, module: &Path) -> Result<String> {
        let mut key = Key::default()
            .text(go_version(module)?)
            .text(self.package)
            .text(self.ldflags)
            .text(self.links.join(" "))
            .file(&module.join("go.mod"))?
            .file(&module.join("go.sum"))?;
        for dir in self.sources {
            let dir = module.join(dir);
            let mut files: Vec<PathBuf> = std::fs::read_dir(&dir)
                .with_context(|| format!("cannot read {}", dir.display()))?
                .map(|entry| Ok(entry?.path()))
                .collect::<Result<_>>()?;
            files.sort();
            for file in files.iter().filter(|file| is_source(file)) {
                key = key.file(file)?;
            }
        }
        Ok(key.finish())
    }

    fn build(&self, module: &Path, dir: &Path) -> Result<()> {
        std::fs::create_dir_all(dir)?;
        let logs = cache::root()?.join("logs");
        std::fs::create_dir_all(&logs)?;
        let mut go = go(module);
        go.args(["build", "-trimpath", "-ldflags", self.ldflags, "-o"]).arg(dir.join(self.name)).arg(self.package);
        sh::logged(&mut go, &logs.join(format!("build-{}.log", self.name)))?;
        for link in self.links {
            std::os::unix::fs::symlink(self.name, dir.join(link))?;
        }
        Ok(())
    }
}

fn is_source(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with(".go") && !name.ends_with("_test.go")
}

/// `go` in a module, with settings of the user's own that would change the result taken out.
pub(crate) fn go(module: &Path) -> Command {
    let mut command = sh::command("go", [""; 0]);
    command.current_dir(module).env("CGO_ENABLED", "0").env("GOFLAGS", "-mod=readonly -buildvcs=false");
    command
}

fn go_version(module: &Path) -> Result<String> {
    sh::output(go(module).args(["env", "GOVERSION", "GOARCH"]))
        .context("Go builds the test cluster's Kubernetes; install Go 1.26 or newer and put it on the PATH")
}

/// Where the module cache keeps the files of a dependency of `module`.
pub(crate) fn dependency(module: &Path, name: &str) -> Result<PathBuf> {
    sh::output(go(module).args(["mod", "download", name]))?;
    Ok(PathBuf::from(sh::output(go(module).args(["list", "-m", "-f", "{{.Dir}}", name]))?.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_changes_its_key_with_its_sources_but_not_with_its_tests() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [("go.mod", "module x"), ("go.sum", ""), ("main.go", "package main"), ("a_test.go", "")] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let before = KUBERNETES.key(dir.path()).unwrap();
        std::fs::write(dir.path().join("a_test.go"), "package main").unwrap();
        assert_eq!(KUBERNETES.key(dir.path()).unwrap(), before);
        std::fs::write(dir.path().join("main.go"), "package main // changed").unwrap();
        assert_ne!(KUBERNETES.key(dir.path()).unwrap(), before);
    }
}
