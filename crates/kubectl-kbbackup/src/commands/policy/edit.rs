//! `policy edit`: the policy in the editor of the person, checked by the server. What was typed is never lost.

use clap::Args;
use kbbackup_api::v1alpha1::BackupPolicy;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, PostParams},
};
use serde_json::Value;

use crate::{
    app::{App, get},
    editor::{Draft, without_comments},
    error::{CliError, Doing, Result},
    exit::Exit,
    output::{Format, object},
    ui::Ui,
};

/// Edit a policy in KUBE_EDITOR or EDITOR
///
/// A text that cannot be read, or that the server refuses, is opened again with the reason on top. When it cannot be saved
/// at all, because somebody else has changed the policy meanwhile or the server is away, a copy is kept.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup policy edit pg
  KUBE_EDITOR=nano kubectl kbbackup policy edit pg")]
pub(crate) struct EditArgs {
    /// Policy to edit
    pub name: String,
}

/// A change that was not accepted.
enum Refused {
    /// Another text may be.
    Text(CliError),
    /// No text would be, now.
    Whatever(CliError),
}

pub(super) async fn run(ui: &Ui, app: &App, args: &EditArgs) -> Result<Exit> {
    let what = format!("backuppolicy/{}", args.name);
    if !ui.may_ask {
        return Err(CliError::usage(format!("{what} cannot be edited here"), "an editor needs a terminal")
            .hint(format!("kubectl kbbackup policy set {} --help", args.name)));
    }
    let kind = ApiResource::erase::<BackupPolicy>(&());
    let api = Api::<DynamicObject>::namespaced_with(app.client.clone(), &app.namespace, &kind);
    let mut present = serde_json::to_value(get(&api, &what).await?)?;
    object::strip_managed(&mut present);
    if let Some(fields) = present.as_object_mut() {
        fields.remove("status");
    }
    let original = object::text(&present, Format::Yaml)?;
    let draft = Draft::new()?;
    let (mut text, mut refused) = (original.clone(), None::<CliError>);
    loop {
        let trouble = refused.as_ref().map(ToString::to_string);
        let edited = match draft.edit(ui, &text, trouble.as_deref()).await {
            Ok(edited) => edited,
            Err(error) => {
                if draft.saved().is_ok_and(|saved| without_comments(&saved) != original) {
                    draft.keep(ui);
                }
                return Err(error);
            }
        };
        if edited.trim().is_empty() {
            ui.say(&format!("{what} was not changed: the saved file is empty"));
            return Ok(Exit::Done);
        }
        if edited == original {
            ui.say(&format!("{what} was not changed"));
            return Ok(Exit::Done);
        }
        if let Some(error) = refused.filter(|_| edited == text) {
            draft.keep(ui);
            return Err(error);
        }
        match save(app, &api, args, &edited, &present).await {
            Ok(()) => {
                ui.result(&format!("backuppolicy.dataprotection.kubeblocks.io/{} changed", args.name));
                return Ok(Exit::Done);
            }
            Err(Refused::Text(error)) => (text, refused) = (edited, Some(error)),
            Err(Refused::Whatever(error)) => {
                draft.keep(ui);
                return Err(error.hint(format!("kubectl kbbackup policy edit {} -n {}", args.name, app.namespace)));
            }
        }
    }
}

/// Sends the policy as it was edited.
async fn save(
    app: &App,
    api: &Api<DynamicObject>,
    args: &EditArgs,
    edited: &str,
    present: &Value,
) -> Result<(), Refused> {
    let wanted = read(edited, present).map_err(Refused::Text)?;
    let wanted = serde_json::from_value(wanted).map_err(|error| Refused::Text(error.into()))?;
    // With the resource version that was read, so that nobody's change in between is lost.
    let params = PostParams { field_manager: Some(app.field_manager.clone()), ..PostParams::default() };
    let answer = api.replace(&args.name, &params, &wanted).await;
    let code = match &answer {
        Err(kube::Error::Api(status)) => status.code,
        _ => 0,
    };
    let told = answer.map(drop).doing(|| format!("backuppolicy/{} was not changed", args.name));
    told.map_err(|error| match code {
        400 | 422 => Refused::Text(error),
        409 => Refused::Whatever(CliError::refused(error.what, "somebody else has changed it since it was opened")),
        _ => Refused::Whatever(error),
    })
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
