//! A place to work: the cluster, our images in it, the operator and the embedded repository installed.

use std::ffi::OsString;
use std::path::Path;

use anyhow::Result;
use kbbackup_testing::kubectl::Kubectl;
use sha2::{Digest as _, Sha256};

use crate::artifacts::{self, Binaries, Profile};
use crate::cluster::image::{self, Config, Entry};
use crate::cluster::{self, Cluster, Options};
use crate::ui;

/// What demo and end-to-end tests run on.
pub(crate) struct Site {
    /// kubectl with cluster and plugin.
    pub kubectl: Kubectl,
    /// The binaries of this checkout.
    pub binaries: Binaries,
    /// The cluster.
    pub cluster: Cluster,
    options: Options,
    was_up: bool,
}

/// The database of the demo.
pub(crate) const POSTGRES: &[&str] = &["postgres:15"];
/// The databases of the tests.
pub(crate) const ENGINES: &[&str] = &[
    "postgres:15",
    "postgres:17",
    "postgres:18",
    "mariadb:10.11",
    "mariadb:11.8",
    "mysql:9.7",
    "valkey:8.1",
    "redis:7.0",
    "etcd:3.5",
];

/// Brings up the cluster with the images of `engines`, builds and loads ours, installs the operator with its embedded repository.
pub(crate) fn prepare(root: &Path, options: &Options, engines: &[&str], profile: Profile) -> Result<Site> {
    let was_up = cluster::is_up(options);
    let options = Options { images: engines.iter().map(|&name| name.to_owned()).collect(), ..options.clone() };
    let cluster = cluster::up(&options)?;
    let binaries = ui::long_step("build operator, mover and plugin", || artifacts::build(root, profile))?;
    let controller = our_image(&cluster, "controller", "/kbbackup-controller", &binaries.controller)?;
    let mover = our_image(&cluster, "mover", "/datasafed", &binaries.mover)?;

    let mut bin = binaries.bin.clone().into_os_string();
    bin.push(":");
    bin.push(cluster.path_env());
    let kubectl = Kubectl::new(Some(&cluster.kubeconfig), cluster.context.as_deref(), &bin);
    ui::long_step("kubectl kbbackup install --embedded-repo", || {
        kubectl.run(&[
            "kbbackup",
            "install",
            "--embedded-repo",
            "--yes",
            "--controller-image",
            &controller,
            "--mover-image",
            &mover,
            "--image-pull-policy",
            "IfNotPresent",
            "--timeout",
            "5m",
        ])
    })?;
    Ok(Site { kubectl, binaries, cluster, options, was_up })
}

/// An image of one static binary; its tag names the content, so that a new build is rolled out.
fn our_image(cluster: &Cluster, name: &str, path: &str, binary: &Path) -> Result<String> {
    let digest = hex::encode(Sha256::digest(std::fs::read(binary)?));
    let tag = format!("kbbackup.test/{name}:{}", &digest[..12]);
    load(cluster, &tag, path, binary)?;
    Ok(tag)
}

fn load(cluster: &Cluster, tag: &str, path: &str, binary: &Path) -> Result<()> {
    let config = Config { entrypoint: vec![path.to_owned()], user: "65532:65532".to_owned(), ..Config::default() };
    cluster.load(&image::scratch(tag, &[Entry::new(path, binary, 0o755)], &config)?)
}

impl Site {
    /// Loads the images of this checkout under the tags of versions, as a registry would have them: for upgrades.
    pub(crate) fn load_versions(&self, versions: &[&str]) -> Result<()> {
        let binaries = &self.binaries;
        for version in versions {
            load(
                &self.cluster,
                &format!("kbbackup.test/controller:{version}"),
                "/kbbackup-controller",
                &binaries.controller,
            )?;
            load(&self.cluster, &format!("kbbackup.test/mover:{version}"), "/datasafed", &binaries.mover)?;
        }
        Ok(())
    }

    /// What a person types to work with this site.
    pub(crate) fn how_to_use(&self) -> Vec<String> {
        vec![
            format!("export KUBECONFIG={}", self.cluster.kubeconfig.display()),
            format!("export PATH={}:$PATH", self.binaries.bin.display()),
        ]
    }

    /// Environment of a program that calls kubectl by itself.
    pub(crate) fn kubectl_env(&self) -> Vec<(&'static str, OsString)> {
        vec![("KUBECONFIG", self.cluster.kubeconfig.clone().into_os_string()), ("PATH", self.cluster.path_env())]
    }

    /// Environment of the end-to-end tests.
    pub(crate) fn test_env(&self) -> Vec<(&'static str, OsString)> {
        let mut bin = self.binaries.bin.clone().into_os_string();
        bin.push(":");
        bin.push(self.cluster.path_env());
        let mut env = vec![
            ("KBBACKUP_E2E_BIN", bin),
            ("KBBACKUP_E2E_KUBECONFIG", self.cluster.kubeconfig.clone().into_os_string()),
        ];
        if let Some(context) = &self.cluster.context {
            env.push(("KBBACKUP_E2E_CONTEXT", context.into()));
        }
        env
    }

    /// Takes down what [`prepare`] brought up; a cluster that was there before stays.
    pub(crate) fn end(self) -> Result<()> {
        if self.was_up { Ok(()) } else { cluster::down(&self.options) }
    }
}
