//! Changes of objects that are there: the same patch is sent, or its result is shown by a dry run.

use kube::{
    Api, ResourceExt,
    api::{DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    app::App,
    args::{DryRun, WriteArgs},
    error::{CliError, Doing, Result},
    manifest::{Manifest, documents},
    output::{Format, object},
    ui::Ui,
};

/// How often a change is sent that only the operator's own notes have overtaken.
const TRIES: usize = 5;

/// What is to become of an object.
pub(crate) struct Change {
    pub api: Api<DynamicObject>,
    /// As it was read.
    pub present: DynamicObject,
    /// A JSON merge patch.
    pub patch: Value,
    /// Refused when somebody has changed the object since it was read.
    pub as_read: bool,
}

impl Change {
    /// As in `backupschedule/pg`.
    fn short(&self) -> String {
        let kind = self.present.types.as_ref().map(|types| types.kind.to_lowercase()).unwrap_or_default();
        format!("{kind}/{}", self.present.name_any())
    }

    /// The object as it would be.
    fn result(&self) -> Result<Value> {
        let mut whole = serde_json::to_value(&self.present)?;
        merge(&mut whole, &self.patch);
        keep_ours(&mut whole);
        Ok(whole)
    }

    async fn send(&self, app: &App, server_dry_run: bool) -> Result<DynamicObject> {
        let params = PatchParams {
            dry_run: server_dry_run,
            field_manager: Some(app.field_manager.clone()),
            ..PatchParams::default()
        };
        let name = self.present.name_any();
        let mut version = self.present.resource_version();
        for _ in 0..TRIES {
            let patch = if self.as_read { as_read(&self.patch, version.as_deref()) } else { self.patch.clone() };
            match self.api.patch(&name, &params, &Patch::Merge(&patch)).await {
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                sent => return sent.doing(|| format!("{} cannot be changed", self.short())),
            }
            let now = self.api.get(&name).await.doing(|| format!("{} cannot be read", self.short()))?;
            if !is_same(&self.present, &now) {
                break;
            }
            version = now.resource_version();
        }
        Err(CliError::refused(
            format!("{} was not changed", self.short()),
            "somebody else changed it at the same moment; look at it and try again",
        ))
    }
}

/// Whether an object still says what it said. The operator writes into status and annotations at any time.
fn is_same(read: &DynamicObject, now: &DynamicObject) -> bool {
    read.uid() == now.uid() && read.metadata.generation.is_some() && read.metadata.generation == now.metadata.generation
}

/// Prints what the changes would make of their objects when this is a dry run; says whether it was.
pub(crate) async fn previewed(app: &App, ui: &Ui, changes: &[Change], write: &WriteArgs) -> Result<bool> {
    let mut shown = Vec::with_capacity(changes.len());
    for change in changes {
        match write.dry_run {
            DryRun::None => return Ok(false),
            DryRun::Client => shown.push(change.result()?),
            DryRun::Server => {
                let mut value = serde_json::to_value(change.send(app, true).await?)?;
                object::strip_managed(&mut value);
                shown.push(value);
            }
        }
    }
    let manifests: Vec<Manifest> = shown.iter().cloned().map(Manifest::from_value).collect();
    if manifests.iter().any(|manifest| manifest.kind() == "Secret") {
        ui.warn("the output below holds a Secret");
    }
    ui.result(&documents(&shown, &manifests, write.output.unwrap_or(Format::Yaml))?);
    Ok(write.dry_run != DryRun::None)
}

/// Sends the changes in their order. Gives the objects, each with whether it is another one now.
pub(crate) async fn send(app: &App, changes: &[Change]) -> Result<Vec<(DynamicObject, bool)>> {
    let mut written = Vec::with_capacity(changes.len());
    for change in changes {
        let object = change.send(app, false).await?;
        let changed = object.resource_version() != change.present.resource_version();
        written.push((object, changed));
    }
    Ok(written)
}

/// Makes a patch one of the object as it was read: the server refuses it when somebody has changed the object since.
fn as_read(patch: &Value, version: Option<&str>) -> Value {
    let mut patch = patch.clone();
    patch["metadata"]["resourceVersion"] = json!(version);
    patch
}

/// Leaves out what only the server writes: with it a manifest could be applied at this moment alone.
fn keep_ours(whole: &mut Value) {
    if let Some(fields) = whole.as_object_mut() {
        fields.remove("status");
    }
    let Some(metadata) = whole.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    for field in ["managedFields", "resourceVersion", "uid", "generation", "creationTimestamp"] {
        metadata.remove(field);
    }
}

/// A JSON merge patch (RFC 7396), for a look at its result.
fn merge(into: &mut Value, patch: &Value) {
    let Some(changes) = patch.as_object() else {
        into.clone_from(patch);
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    let Some(fields) = into.as_object_mut() else { return };
    for (key, value) in changes {
        if value.is_null() {
            fields.remove(key);
        } else {
            merge(fields.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_is_one_of_what_was_read() {
        let patch = as_read(&json!({"spec": {"schedules": []}}), Some("7"));
        assert_eq!(patch, json!({"spec": {"schedules": []}, "metadata": {"resourceVersion": "7"}}));
    }

    #[test]
    fn what_the_operator_writes_makes_no_other_object() {
        let object = |uid: &str, generation: Option<i64>, version: &str| -> DynamicObject {
            let metadata = json!({"name": "pg", "uid": uid, "generation": generation, "resourceVersion": version});
            serde_json::from_value(json!({"metadata": metadata})).unwrap()
        };
        let read = object("a", Some(3), "7");
        assert!(is_same(&read, &object("a", Some(3), "9")));
        assert!(!is_same(&read, &object("a", Some(4), "9")) && !is_same(&read, &object("b", Some(3), "9")));
        // What has no generation may have changed in any way.
        assert!(!is_same(&object("a", None, "7"), &object("a", None, "9")));
    }

    #[test]
    fn a_merge_keeps_what_the_patch_does_not_name() {
        let mut whole = json!({"spec": {"a": 1, "b": {"c": 2}}, "x": 1});
        merge(&mut whole, &json!({"spec": {"b": {"d": 3}}, "x": null}));
        assert_eq!(whole, json!({"spec": {"a": 1, "b": {"c": 2, "d": 3}}}));
    }

    #[test]
    fn a_manifest_holds_nothing_of_the_server() {
        let mut whole = json!({"metadata": {"name": "pg", "labels": {"a": "b"}, "uid": "u", "resourceVersion": "7",
            "generation": 3, "creationTimestamp": "t", "managedFields": []}, "spec": {"a": 1}, "status": {"phase": "x"}});
        keep_ours(&mut whole);
        assert_eq!(whole, json!({"metadata": {"name": "pg", "labels": {"a": "b"}}, "spec": {"a": 1}}));
    }
}
