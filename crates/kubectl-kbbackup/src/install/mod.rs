//! The objects of an installation, as values: what is embedded, where it goes, with which images.

pub(crate) mod foreign;
pub(crate) mod present;
pub(crate) mod store;

use kbbackup_api::names::labels;
use serde_json::{Value, json};

use crate::{
    app::{PART_DEFINITIONS, PART_OPERATOR},
    error::Result,
    manifest::Manifest,
};

/// The manifests of `deploy/`, embedded at build time.
mod embedded {
    include!(concat!(env!("OUT_DIR"), "/manifests.rs"));
}

/// Where and with what to install.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    pub namespace: String,
    pub controller_image: Option<String>,
    pub mover_image: Option<String>,
    pub pull_policy: Option<String>,
}

impl Settings {
    pub(crate) fn controller_image(&self) -> &str {
        self.controller_image.as_deref().unwrap_or(CONTROLLER_IMAGE)
    }

    pub(crate) fn mover_image(&self) -> &str {
        self.mover_image.as_deref().unwrap_or(MOVER_IMAGE)
    }
}

/// The version of this program, and of what it installs.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Label of the operator's Deployment that tells its version.
const VERSION_LABEL: &str = "app.kubernetes.io/version";
/// The image of this version's operator.
const CONTROLLER_IMAGE: &str = concat!("ghcr.io/kbbackup/controller:", env!("CARGO_PKG_VERSION"));
/// The image of this version's mover.
const MOVER_IMAGE: &str = concat!("ghcr.io/kbbackup/mover:", env!("CARGO_PKG_VERSION"));

fn all(files: &[(&str, &str)]) -> Result<Vec<Manifest>> {
    let mut manifests = Vec::new();
    for (name, text) in files {
        manifests.extend(Manifest::parse(name, text)?);
    }
    Ok(manifests)
}

/// The definitions, marked as ours, so that a later install knows them whoever applied them.
pub(crate) fn crds() -> Result<Vec<Manifest>> {
    let mut manifests = all(embedded::CRDS)?;
    for manifest in &mut manifests {
        label(manifest, PART_DEFINITIONS);
    }
    Ok(manifests)
}

fn label(manifest: &mut Manifest, part: &str) {
    let labels = &mut manifest.value_mut()["metadata"]["labels"];
    if labels.is_null() {
        *labels = json!({});
    }
    labels[labels::PART] = json!(part);
}

/// Providers, action sets and the templates that name these: custom objects, so they follow the definitions.
pub(crate) fn catalogue() -> Result<Vec<Manifest>> {
    let mut manifests = all(embedded::PROVIDERS)?;
    manifests.extend(all(embedded::ACTION_SETS)?);
    manifests.extend(all(embedded::POLICY_TEMPLATES)?);
    Ok(manifests)
}

/// Namespace, rights and Deployment of the operator, moved to where they belong, namespaces first.
pub(crate) fn operator(settings: &Settings) -> Result<Vec<Manifest>> {
    let mut manifests = all(embedded::OPERATOR)?;
    for manifest in &mut manifests {
        place(manifest, &settings.namespace);
        if manifest.kind() == "Deployment" {
            set_images(manifest.value_mut(), settings);
            manifest.value_mut()["metadata"]["labels"][VERSION_LABEL] = json!(VERSION);
        }
        // What `uninstall` looks for.
        label(manifest, PART_OPERATOR);
    }
    manifests.sort_by_key(|manifest| rank(manifest.kind()));
    Ok(manifests)
}

/// Order of writing: what others need comes first.
fn rank(kind: &str) -> u8 {
    match kind {
        "Namespace" => 0,
        "ServiceAccount" | "ConfigMap" | "Secret" => 1,
        "ClusterRole" | "Role" => 2,
        "ClusterRoleBinding" | "RoleBinding" => 3,
        "Service" | "PersistentVolumeClaim" => 4,
        "Deployment" | "StatefulSet" => 6,
        _ => 5,
    }
}

/// Moves an object, and the accounts that it names, to the namespace.
fn place(manifest: &mut Manifest, namespace: &str) {
    let namespaced = manifest.is_namespaced();
    let kind = manifest.kind().to_owned();
    let value = manifest.value_mut();
    if kind == "Namespace" {
        value["metadata"]["name"] = json!(namespace);
    } else if namespaced {
        value["metadata"]["namespace"] = json!(namespace);
    }
    for subject in value.get_mut("subjects").and_then(Value::as_array_mut).into_iter().flatten() {
        if subject["kind"] == "ServiceAccount" {
            subject["namespace"] = json!(namespace);
        }
    }
}

fn set_images(deployment: &mut Value, settings: &Settings) {
    let containers = deployment.pointer_mut("/spec/template/spec/containers").and_then(Value::as_array_mut);
    for container in containers.into_iter().flatten() {
        if let Some(image) = &settings.controller_image {
            container["image"] = json!(image);
            set_env(container, "KBBACKUP_CONTROLLER_IMAGE", image);
        }
        if let Some(image) = &settings.mover_image {
            set_env(container, "DATASAFED_IMAGE", image);
        }
        if let Some(policy) = &settings.pull_policy {
            container["imagePullPolicy"] = json!(policy);
            set_env(container, "KUBEBLOCKS_IMAGE_PULL_POLICY", policy);
        }
    }
}

fn set_env(container: &mut Value, name: &str, value: &str) {
    let Some(fields) = container.as_object_mut() else { return };
    let env = fields.entry("env").or_insert_with(|| json!([]));
    let Some(list) = env.as_array_mut() else { return };
    list.retain(|variable| variable["name"] != name);
    list.push(json!({"name": name, "value": value}));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_eight_definitions_and_the_providers_are_embedded() {
        assert_eq!(crds().unwrap().len(), 8);
        let names: Vec<String> = catalogue().unwrap().iter().map(Manifest::short).collect();
        for name in [
            "storageprovider/s3-compatible",
            "storageprovider/s3",
            "actionset/pg-basebackup",
            "backuppolicytemplate/kbb-postgres",
        ] {
            assert!(names.iter().any(|known| known == name), "{name} is missing in {names:?}");
        }
    }

    /// `policy create` and the templates for KubeBlocks' clusters speak of the same methods.
    #[test]
    fn a_plain_workload_s_methods_are_those_of_the_template() {
        let templates = all(embedded::POLICY_TEMPLATES).unwrap();
        for engine in crate::detect::ENGINES {
            let is_its = |manifest: &&Manifest| manifest.value()["metadata"]["labels"][labels::ENGINE] == engine.name;
            let Some(template) = templates.iter().find(is_its) else { continue };
            let methods = template.value()["spec"]["backupMethods"].as_array().unwrap();
            for method in engine.methods {
                let same = |other: &&Value| other["actionSetName"] == method.action_set;
                let other =
                    methods.iter().find(same).unwrap_or_else(|| panic!("{}: no {}", engine.name, method.action_set));
                assert_eq!(other["compatibleMethod"].as_str(), method.full, "{}", method.action_set);
                // MySQL's clone is one of two ways there, and the only one here: it needs no other image.
                assert!(other["name"] == method.name || other["name"] == "clone", "{}", method.action_set);
            }
        }
    }

    #[test]
    fn another_namespace_and_other_images_reach_every_object() {
        let text = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: c, namespace: kbbackup-system}
spec: {template: {spec: {containers: [{name: c, image: old, env: [{name: DATASAFED_IMAGE, value: old}]}]}}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: c}
subjects: [{kind: ServiceAccount, name: c, namespace: kbbackup-system}]
";
        let settings = Settings {
            namespace: "elsewhere".into(),
            controller_image: Some("new:1".into()),
            mover_image: Some("mover:1".into()),
            pull_policy: Some("Never".into()),
        };
        let mut manifests = Manifest::parse("two", text).unwrap();
        for manifest in &mut manifests {
            place(manifest, &settings.namespace);
            set_images(manifest.value_mut(), &settings);
        }
        let all = serde_json::to_string(&manifests.iter().map(Manifest::value).collect::<Vec<_>>()).unwrap();
        assert!(!all.contains("kbbackup-system") && !all.contains("old"), "{all}");
        assert!(all.contains("mover:1") && all.contains("Never"), "{all}");
    }

    #[test]
    fn the_operator_s_objects_are_written_in_an_order_that_works() {
        let settings = Settings { namespace: "x".into(), ..Settings::default() };
        let ranks: Vec<u8> = operator(&settings).unwrap().iter().map(|manifest| rank(manifest.kind())).collect();
        assert!(ranks.is_sorted(), "{ranks:?}");
    }
}
