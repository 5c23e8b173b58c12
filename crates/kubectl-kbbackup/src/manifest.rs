//! Objects on their way to the cluster: the same values are printed by a dry run, created or applied.

use kube::{
    Api, Resource,
    api::{DynamicObject, Patch, PatchParams, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use serde::Serialize;
use serde_json::Value;

use crate::{
    app::App,
    args::{DryRun, WriteArgs},
    error::{CliError, Doing, Result},
    output::{Format, object},
    ui::Ui,
};

/// Kinds of our manifests that live outside namespaces.
const CLUSTER_SCOPED: [&str; 10] = [
    "Namespace",
    "CustomResourceDefinition",
    "ClusterRole",
    "ClusterRoleBinding",
    "StorageProvider",
    "BackupRepo",
    "ActionSet",
    "BackupPolicyTemplate",
    "StorageClass",
    "PriorityClass",
];

/// An object, ready to be written or printed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Manifest {
    value: Value,
}

impl Manifest {
    pub(crate) fn of<K: Resource<DynamicType = ()> + Serialize>(object: &K) -> Result<Self> {
        let mut value = object::with_type(object)?;
        if let Value::Object(fields) = &mut value {
            fields.remove("status");
        }
        Ok(Self { value })
    }

    pub(crate) fn from_value(value: Value) -> Self {
        Self { value }
    }

    /// All documents of a YAML text.
    pub(crate) fn parse(file: &str, text: &str) -> Result<Vec<Self>> {
        let bad = |why: String| CliError::refused(format!("manifest {file} cannot be read"), why);
        let mut manifests = Vec::new();
        for document in serde_norway::Deserializer::from_str(text) {
            let value: Value = serde::Deserialize::deserialize(document).map_err(|error| bad(error.to_string()))?;
            if value.is_null() {
                continue;
            }
            if value["kind"].as_str().is_none() || value["metadata"]["name"].as_str().is_none() {
                return Err(bad("an object has no kind or no name".into()));
            }
            manifests.push(Self { value });
        }
        Ok(manifests)
    }

    /// As it is shown to whoever has just written it.
    fn presentable(&self) -> Value {
        let mut value = self.value.clone();
        object::strip_managed(&mut value);
        if let Some(fields) = value.as_object_mut().filter(|_| self.kind() == "Secret") {
            fields.remove("data");
            fields.remove("stringData");
        }
        value
    }

    pub(crate) fn kind(&self) -> &str {
        self.value["kind"].as_str().unwrap_or_default()
    }

    pub(crate) fn name(&self) -> &str {
        self.value["metadata"]["name"].as_str().unwrap_or_default()
    }

    pub(crate) fn namespace(&self) -> Option<&str> {
        self.value["metadata"]["namespace"].as_str()
    }

    pub(crate) fn is_namespaced(&self) -> bool {
        !CLUSTER_SCOPED.contains(&self.kind())
    }

    pub(crate) fn value(&self) -> &Value {
        &self.value
    }

    pub(crate) fn value_mut(&mut self) -> &mut Value {
        &mut self.value
    }

    /// As in `deployment/kbbackup-controller`.
    pub(crate) fn short(&self) -> String {
        format!("{}/{}", self.kind().to_lowercase(), self.name())
    }

    /// As in `deployment.apps/kbbackup-controller`.
    pub(crate) fn full_name(&self) -> String {
        let group = self.gvk().group;
        let dot = if group.is_empty() { "" } else { "." };
        format!("{}{dot}{group}/{}", self.kind().to_lowercase(), self.name())
    }

    fn gvk(&self) -> GroupVersionKind {
        let (group, version) = match self.value["apiVersion"].as_str().unwrap_or_default().split_once('/') {
            Some((group, version)) => (group, version),
            None => ("", self.value["apiVersion"].as_str().unwrap_or_default()),
        };
        GroupVersionKind::gvk(group, version, self.kind())
    }

    /// The API to write it by.
    pub(crate) fn api(&self, app: &App) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&self.gvk());
        match self.namespace() {
            Some(namespace) if self.is_namespaced() => Api::namespaced_with(app.client.clone(), namespace, &resource),
            None if self.is_namespaced() => Api::namespaced_with(app.client.clone(), &app.namespace, &resource),
            _ => Api::all_with(app.client.clone(), &resource),
        }
    }

    fn dynamic(&self) -> Result<DynamicObject> {
        Ok(serde_json::from_value(self.value.clone())?)
    }
}

/// Whether an object must be new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// It must not exist.
    Create,
    /// Server-side apply: made or brought into line.
    Apply,
}

/// Writes one object; `server_dry_run` keeps nothing.
pub(crate) async fn send(app: &App, manifest: &Manifest, how: How, server_dry_run: bool) -> Result<DynamicObject> {
    let api = manifest.api(app);
    match how {
        How::Create => {
            let params = PostParams { dry_run: server_dry_run, field_manager: Some(app.field_manager.clone()) };
            api.create(&params, &manifest.dynamic()?).await.doing(|| format!("{} cannot be created", manifest.short()))
        }
        How::Apply => {
            let mut params = PatchParams::apply(&app.field_manager).force();
            params.dry_run = server_dry_run;
            api.patch(manifest.name(), &params, &Patch::Apply(manifest.value()))
                .await
                .doing(|| format!("{} cannot be applied", manifest.short()))
        }
    }
}

/// Prints what would be written when this is a dry run; says whether it was.
pub(crate) async fn previewed(app: &App, ui: &Ui, manifests: &[Manifest], how: How, write: &WriteArgs) -> Result<bool> {
    let shown: Vec<Value> = match write.dry_run {
        DryRun::None => return Ok(false),
        DryRun::Client => manifests.iter().map(|manifest| manifest.value.clone()).collect(),
        DryRun::Server => {
            let mut answers = Vec::with_capacity(manifests.len());
            for manifest in manifests {
                let answer = send(app, manifest, how, true).await?;
                let mut value = serde_json::to_value(answer)?;
                object::strip_managed(&mut value);
                answers.push(value);
            }
            answers
        }
    };
    if manifests.iter().any(|manifest| manifest.kind() == "Secret") {
        ui.warn("the output below holds a Secret");
    }
    ui.result(&documents(&shown, manifests, write.output.unwrap_or(Format::Yaml))?);
    Ok(true)
}

/// Several objects: YAML documents in the order of creation, a JSON list, or names.
pub(crate) fn documents(values: &[Value], manifests: &[Manifest], format: Format) -> Result<String> {
    match format {
        Format::Name => Ok(manifests.iter().map(|manifest| manifest.full_name() + "\n").collect()),
        Format::Json if values.len() == 1 => object::text(&values[0], Format::Json),
        Format::Json => {
            object::text(&serde_json::json!({"apiVersion": "v1", "kind": "List", "items": values}), Format::Json)
        }
        _ => {
            let mut text = String::new();
            for value in values {
                if !text.is_empty() {
                    text.push_str("---\n");
                }
                text.push_str(&object::text(value, Format::Yaml)?);
            }
            Ok(text)
        }
    }
}

/// Prints written objects in the wanted format, several as one document, or one plain line each. Of Secrets all but the data
/// is shown: who wrote them has it.
pub(crate) fn announce(ui: &Ui, written: &[DynamicObject], verb: &str, output: Option<Format>) -> Result<()> {
    let mut manifests = Vec::with_capacity(written.len());
    for object in written {
        manifests.push(Manifest { value: serde_json::to_value(object)? });
    }
    match output.filter(|format| format.is_object()) {
        Some(format) => {
            let shown: Vec<Value> = manifests.iter().map(Manifest::presentable).collect();
            ui.result(&documents(&shown, &manifests, format)?);
        }
        None => manifests.iter().for_each(|manifest| ui.result(&format!("{} {verb}", manifest.full_name()))),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: x}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: d, namespace: x}
---
";

    #[test]
    fn documents_are_split_and_know_where_they_belong() {
        let manifests = Manifest::parse("two", TWO).unwrap();
        assert_eq!(manifests.len(), 2);
        assert!(!manifests[0].is_namespaced());
        assert_eq!(manifests[1].full_name(), "deployment.apps/d");
    }

    #[test]
    fn an_object_without_a_name_is_refused_with_its_file() {
        let error = Manifest::parse("broken", "kind: Pod\n").unwrap_err();
        assert!(error.to_string().contains("broken"), "{error}");
    }
}
