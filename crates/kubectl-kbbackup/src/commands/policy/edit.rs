//! `policy edit`: the policy in the editor of the person, checked by the server.

use clap::Args;
use dialoguer::Editor;
use kbbackup_api::v1alpha1::BackupPolicy;
use kube::api::{ApiResource, DynamicObject, PostParams};
use serde_json::Value;

use crate::{
    app::{App, get},
    error::{CliError, Doing, Result},
    exit::Exit,
    output::{Format, object},
    ui::Ui,
};

/// Edit a policy in KUBE_EDITOR or EDITOR
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup policy edit pg
  KUBE_EDITOR=nano kubectl kbbackup policy edit pg")]
pub(crate) struct EditArgs {
    /// Policy to edit
    pub name: String,
}

pub(super) async fn run(ui: &Ui, app: &App, args: &EditArgs) -> Result<Exit> {
    let what = format!("backuppolicy/{}", args.name);
    if !ui.may_ask {
        return Err(CliError::usage(format!("{what} cannot be edited here"), "an editor needs a terminal")
            .hint(format!("kubectl kbbackup policy set {} --help", args.name)));
    }
    let kind = ApiResource::erase::<BackupPolicy>(&());
    let api = kube::Api::<DynamicObject>::namespaced_with(app.client.clone(), &app.namespace, &kind);
    let mut present = serde_json::to_value(get(&api, &what).await?)?;
    object::strip_managed(&mut present);
    if let Some(fields) = present.as_object_mut() {
        fields.remove("status");
    }
    let text = object::text(&present, Format::Yaml)?;
    let mut editor = Editor::new();
    if let Some(program) = std::env::var_os("KUBE_EDITOR").filter(|program| !program.is_empty()) {
        editor.executable(program);
    }
    let edited = editor.extension(".yaml").trim_newlines(false).edit(&text);
    let edited = edited.map_err(|error| CliError::refused("the editor could not be used", error.to_string()))?;
    let Some(edited) = edited.filter(|edited| *edited != text) else {
        ui.say(&format!("{what} was not changed"));
        return Ok(Exit::Done);
    };
    let wanted = read(&edited, &present)?;
    // With the resource version that was read, so that nobody's change in between is lost.
    let params = PostParams { field_manager: Some(app.field_manager.clone()), ..PostParams::default() };
    api.replace(&args.name, &params, &serde_json::from_value(wanted)?)
        .await
        .doing(|| format!("{what} was not changed"))?;
    ui.result(&format!("backuppolicy.dataprotection.kubeblocks.io/{} changed", args.name));
    Ok(Exit::Done)
}

/// The edited object: still the same one, and a policy.
fn read(text: &str, present: &Value) -> Result<Value> {
    let bad = |why: String| CliError::usage("the edited policy cannot be used", why);
    let wanted: Value = serde_norway::from_str(text).map_err(|error| bad(error.to_string()))?;
    for field in ["/apiVersion", "/kind", "/metadata/name", "/metadata/namespace", "/metadata/resourceVersion"] {
        if wanted.pointer(field) != present.pointer(field) {
            return Err(bad(format!("{} may not be changed", field.trim_start_matches('/').replace('/', "."))));
        }
    }
    serde_json::from_value::<BackupPolicy>(wanted.clone()).map_err(|error| bad(error.to_string()))?;
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_same_policy_with_other_content_is_taken_and_anything_else_refused() {
        let present = json!({"apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "BackupPolicy",
            "metadata": {"name": "pg", "namespace": "demo", "resourceVersion": "7"}, "spec": {"backupMethods": [{"name": "full"}]}});
        let text = serde_norway::to_string(&present).unwrap();
        assert!(read(&text.replace("full", "other"), &present).is_ok());
        for (from, to, told) in [
            ("name: pg", "name: other", "metadata.name"),
            ("kind: BackupPolicy", "kind: Backup", "kind"),
            ("'7'", "'8'", "metadata.resourceVersion"),
            ("backupMethods", "methods", "backupMethods"),
            ("spec:", "spec: {", ""),
        ] {
            assert!(text.contains(from), "{text}");
            let error = read(&text.replace(from, to), &present).unwrap_err();
            assert!(error.why.contains(told), "{error}");
        }
    }
}
