//! Clusters that somebody else runs: a context of the user's, or kind.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::image::{self, Image};
use super::{Cluster, Options, Target, cache, go, sh};
use crate::ui;

const KIND_CLUSTER: &str = "kbbackup";

/// Uses the cluster of a context, after a look at what tests need of it.
pub(crate) fn context(name: &str) -> Result<Cluster> {
    let cluster = Cluster {
        kubeconfig: kubeconfig()?,
        context: Some(name.to_owned()),
        kubectl: kubectl()?,
        target: Target::Context(name.to_owned()),
    };
    check(&cluster).with_context(|| format!("the cluster of context {name} cannot be used"))?;
    ui::note(format!("using the cluster of context {name}; its nodes must be able to get the images the tests use"));
    Ok(cluster)
}

fn check(cluster: &Cluster) -> Result<()> {
    sh::output(cluster.kubectl().args(["--request-timeout=10s", "get", "--raw=/readyz"]))?;
    let classes = sh::output(cluster.kubectl().args(["get", "storageclasses", "--output=json"]))?;
    if !has_default(&serde_json::from_str(&classes)?) {
        bail!(
            "it has no default StorageClass; mark one with the annotation storageclass.kubernetes.io/is-default-class=true"
        );
    }
    let apis = sh::output(cluster.kubectl().arg("api-versions"))?;
    if !apis.lines().any(|api| api == "snapshot.storage.k8s.io/v1") {
        ui::note("it has no VolumeSnapshot API: what needs snapshots will not work there");
    }
    Ok(())
}

fn has_default(classes: &Value) -> bool {
    let items = classes["items"].as_array().map_or(&[][..], Vec::as_slice);
    items.iter().any(|class| class["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"] == "true")
}

fn kubeconfig() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("KUBECONFIG").filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    Ok(PathBuf::from(std::env::var_os("HOME").context("neither KUBECONFIG nor HOME is set")?).join(".kube/config"))
}

/// The user's kubectl, or one built from source.
fn kubectl() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    match std::env::split_paths(&path).map(|dir| dir.join("kubectl")).find(|file| file.is_file()) {
        Some(found) => Ok(found),
        None => Ok(go::KUBERNETES.dir()?.join("kubectl")),
    }
}

/// Whether Docker answers and kind is installed.
pub(crate) fn kind_works() -> bool {
    succeeds("kind", &["version"]) && succeeds("docker", &["info"])
}

fn succeeds(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

pub(crate) fn kind_is_up() -> bool {
    sh::output(&mut sh::command("kind", ["get", "clusters"]))
        .is_ok_and(|names| names.lines().any(|name| name == KIND_CLUSTER))
}

pub(crate) fn kind_up(options: &Options) -> Result<Cluster> {
    let kubeconfig = kind_kubeconfig()?;
    if !kind_is_up() {
        ui::long_step("kind cluster", || {
            let mut create = kind(&["create", "cluster", "--wait=180s", "--kubeconfig"]);
            sh::output(create.arg(&kubeconfig))
        })?;
    } else if !kubeconfig.exists() {
        sh::output(kind(&["export", "kubeconfig", "--kubeconfig"]).arg(&kubeconfig))?;
    }
    let cluster = Cluster { kubeconfig, context: None, kubectl: kubectl()?, target: Target::Kind };
    check(&cluster).context("the kind cluster cannot be used")?;
    for name in &options.images {
        cluster.load(&image::known(name)?)?;
    }
    Ok(cluster)
}

pub(crate) fn kind_load(image: &Image) -> Result<()> {
    ui::step(&format!("import {}", image.name), || {
        sh::output(kind(&["load", "image-archive"]).arg(&image.archive)).map(drop)
    })
}

pub(crate) fn kind_down() -> Result<()> {
    let kubeconfig = kind_kubeconfig()?;
    ui::step("delete the kind cluster", || {
        sh::output(kind(&["delete", "cluster", "--kubeconfig"]).arg(&kubeconfig))?;
        let _ = std::fs::remove_file(&kubeconfig);
        Ok(())
    })
}

fn kind(args: &[&str]) -> Command {
    let mut command = sh::command("kind", args);
    // kind takes the cluster's name from here, whatever the subcommand.
    command.env("KIND_CLUSTER_NAME", KIND_CLUSTER);
    command
}

fn kind_kubeconfig() -> Result<PathBuf> {
    let dir = cache::root()?;
    std::fs::create_dir_all(&dir)?;
    Ok(dir.join("kind.kubeconfig"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_class_that_is_not_marked_is_not_the_default() {
        let class =
            |mark: &str| json!({"metadata": {"annotations": {"storageclass.kubernetes.io/is-default-class": mark}}});
        assert!(!has_default(&json!({"items": [class("false"), {"metadata": {}}]})));
        assert!(has_default(&json!({"items": [class("false"), class("true")]})));
    }
}
