//! The Helm chart: its copies of what lies elsewhere in `deploy/`, and the proof that both ways to install are one.
//!
//! Definitions, catalogue and rights are copied into the chart, for Helm reads nothing outside of it. The templates are
//! the chart's own; what they give with default values is compared with `deploy/install`, object by object.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::cluster::{go, sh};

const CHART: &str = "deploy/chart";
/// The namespace of the plain manifests.
const NAMESPACE: &str = "kbbackup-system";

/// The files of the chart that are copies, by their path in the chart.
pub(crate) fn copies(root: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut copies = BTreeMap::new();
    for (folder, place) in [
        ("crds", "crds/"),
        ("providers", "catalogue/providers-"),
        ("actionsets", "catalogue/actionsets-"),
        ("policytemplates", "catalogue/policytemplates-"),
    ] {
        for (name, text) in files(&root.join("deploy").join(folder))? {
            copies.insert(format!("{place}{name}"), text.into_bytes());
        }
    }
    let rights = read(&root.join("deploy/install/rbac.yaml"))?;
    let rights = rights.replace(NAMESPACE, "{{ .Release.Namespace }}");
    copies.insert("templates/rbac.yaml".to_owned(), rights.into_bytes());
    Ok(copies)
}

/// Writes the copies anew, or gives the names of those that are stale.
pub(crate) fn generate(root: &Path, check: bool) -> Result<Vec<String>> {
    let chart = root.join(CHART);
    let copies = copies(root)?;
    let mut changed = Vec::new();
    for folder in ["crds", "catalogue"] {
        for name in files(&chart.join(folder))?.into_keys() {
            let path = format!("{folder}/{name}");
            if !copies.contains_key(&path) {
                if !check {
                    fs::remove_file(chart.join(&path)).with_context(|| format!("cannot remove {path}"))?;
                }
                changed.push(format!("{CHART}/{path}"));
            }
        }
    }
    for (path, content) in copies {
        let file = chart.join(&path);
        if fs::read(&file).ok().as_ref() == Some(&content) {
            continue;
        }
        if !check {
            fs::create_dir_all(file.parent().unwrap_or(&chart))?;
            fs::write(&file, content).with_context(|| format!("cannot write {}", file.display()))?;
        }
        changed.push(format!("{CHART}/{path}"));
    }
    Ok(changed)
}

/// Fails unless the chart, rendered by Helm with default values, is what `deploy/` installs.
pub(crate) fn check(root: &Path) -> Result<()> {
    let helm = go::HELM.path()?;
    let chart = root.join(CHART);
    sh::output(sh::command(&helm, ["lint", "--strict", "--quiet"]).arg(&chart))?;
    let rendered = render(&helm, &chart, &[])?;
    let mut plain = Vec::new();
    for folder in ["crds", "install", "providers", "actionsets", "policytemplates"] {
        for text in files(&root.join("deploy").join(folder))?.into_values() {
            plain.extend(objects(&text)?);
        }
    }
    // Helm makes the namespace, or finds it: a chart that held it would delete it with everything inside.
    plain.retain(|object| object["kind"] != "Namespace");
    let wrong = differences(&plain, &rendered);
    ensure!(wrong.is_empty(), "the chart does not give what deploy/ installs:\n{}", wrong.join("\n"));

    // Everything that may be switched on is rendered once: a template that breaks breaks here.
    let all = render(&helm, &chart, EVERYTHING)?;
    for kind in ["NetworkPolicy", "ServiceMonitor"] {
        ensure!(all.iter().any(|object| object["kind"] == kind), "the chart gives no {kind} when it should");
    }
    Ok(())
}

/// Values that reach every branch of the templates.
const EVERYTHING: &[&str] = &[
    "replicas=2",
    "images.pullPolicy=Always",
    "images.pullSecrets[0].name=registry",
    "nodeSelector.zone=a",
    "tolerations[0].operator=Exists",
    "affinity.nodeAffinity.x=y",
    "managedNamespaces={a,b}",
    "log=debug",
    "workers.nodeSelector.zone=a",
    "workers.tolerations[0].operator=Exists",
    "workers.affinity.nodeAffinity.x=y",
    "workers.serviceAccount=worker",
    "workers.serviceAccountAnnotations.role=r",
    "workers.zeroResourceForUnset=false",
    "workers.jobDeadlineSeconds=60",
    "reconcileWorkers=2",
    "gcFrequencySeconds=60",
    "encryptionKeySecret.name=s",
    "encryptionKeySecret.key=k",
    "extraEnv[0].name=X",
    "extraEnv[0].value=y",
    "metrics.serviceMonitor=true",
    "networkPolicy.enabled=true",
];

fn render(helm: &Path, chart: &Path, set: &[&str]) -> Result<Vec<Value>> {
    let mut command = sh::command(helm, ["template", "kbbackup", "--include-crds", "--namespace", NAMESPACE]);
    for value in set {
        command.args(["--set", value]);
    }
    objects(&sh::output(command.arg(chart))?)
}

/// What one side has and the other has not, or has differently.
fn differences(plain: &[Value], rendered: &[Value]) -> Vec<String> {
    let (plain, rendered) = (by_name(plain), by_name(rendered));
    let names: BTreeSet<_> = plain.keys().chain(rendered.keys()).collect();
    names
        .into_iter()
        .filter_map(|name| match (plain.get(name), rendered.get(name)) {
            (Some(_), None) => Some(format!("{name} is missing in the chart")),
            (None, Some(_)) => Some(format!("{name} is in the chart only")),
            (one, other) if one != other => Some(format!("{name} differs")),
            _ => None,
        })
        .collect()
}

fn by_name(objects: &[Value]) -> BTreeMap<String, &Value> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let name = |object: &Value| {
        let meta = &object["metadata"];
        format!("{} {}/{}", text(&object["kind"]), text(&meta["namespace"]), text(&meta["name"]))
    };
    objects.iter().map(|object| (name(object), object)).collect()
}

fn objects(text: &str) -> Result<Vec<Value>> {
    use serde::Deserialize as _;
    let mut all = Vec::new();
    for document in serde_norway::Deserializer::from_str(text) {
        let value = Value::deserialize(document).context("this is not YAML")?;
        if !value.is_null() {
            all.push(value);
        }
    }
    Ok(all)
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

/// Name and text of the YAML files of a folder.
fn files(folder: &Path) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    if !folder.exists() {
        return Ok(files);
    }
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            files.insert(name, read(&path)?);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_missing_surplus_or_different_is_told() {
        let object = |name: &str, data: u8| json!({ "kind": "K", "metadata": {"name": name}, "data": data });
        let plain = [object("same", 1), object("differs", 1), object("missing", 1)];
        let rendered = [object("same", 1), object("differs", 2), object("surplus", 1)];
        assert_eq!(
            differences(&plain, &rendered),
            ["K /differs differs", "K /missing is missing in the chart", "K /surplus is in the chart only"]
        );
    }

    #[test]
    fn the_chart_has_the_version_of_the_workspace() {
        let text = read(&crate::root().join(CHART).join("Chart.yaml")).unwrap();
        let version = env!("CARGO_PKG_VERSION");
        assert!(text.contains(&format!("\nversion: {version}\nappVersion: {version}\n")), "{text}");
    }
}
