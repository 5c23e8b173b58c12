//! BackupPolicyTemplate: whether the policies made from it can work, and for which component definitions it is.
//!
//! Without KubeBlocks' API there are no definitions to match; the template is checked all the same.

mod decide;

#[cfg(test)]
pub(crate) use self::decide::check;

use std::sync::Arc;

use futures::future::FutureExt as _;
use kbbackup_api::v1alpha1::{BackupPolicyTemplate, BackupPolicyTemplateStatus};
use kube::Api;
use kube::ResourceExt as _;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;

use crate::context::{Context, readable};
use crate::error::{Class, Classified, Unreadable, api_class};
use crate::status;
use crate::watch::Guarded;

/// Why a template was not reconciled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object does not fit its type.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// The status could not be written.
    #[error("status could not be written")]
    Publish(#[source] kube::Error),
}

impl Classified for Error {
    fn class(&self) -> Class {
        match self {
            Self::Unreadable(_) => Class::Invalid,
            Self::Publish(error) => api_class(error),
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "Unreadable",
            Self::Publish(_) => "Publish",
        }
    }
}

/// Checks the template and says so in its status.
pub async fn reconcile(template: Arc<Guarded<BackupPolicyTemplate>>, ctx: Arc<Context>) -> Result<Action, Error> {
    let template = readable(&template)?;
    if template.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    // A store that is still being filled would have every template Unavailable for a moment.
    ctx.stores.action_sets.wait_until_ready().await.ok();
    let sets = ctx.stores.action_sets.state();
    let sets: Vec<_> = sets.iter().filter_map(|set| set.0.as_ref().ok()).collect();
    let definitions: Vec<_> =
        ctx.stores.component_definitions.state().iter().map(|definition| definition.name_any()).collect();
    // Not ready: they are still coming, or there is no such kind.
    let known = ctx.stores.component_definitions.wait_until_ready().now_or_never().is_some();
    let before = template.status.as_ref().map(|status| status.matched_comp_defs.clone()).unwrap_or_default();
    let (phase, message) = decide::check(&template.spec, &sets);
    let new = BackupPolicyTemplateStatus {
        observed_generation: template.metadata.generation,
        phase: Some(phase),
        message,
        matched_comp_defs: if known { decide::matched(&template.spec, &definitions) } else { before },
    };
    let api: Api<BackupPolicyTemplate> = Api::all(ctx.client.clone());
    status::publish(&api, template, template.status.as_ref(), &new).await.map_err(Error::Publish)?;
    Ok(Action::await_change())
}

/// The templates of which a method uses the ActionSet `name`.
pub fn using_action_set(
    templates: &[Arc<Guarded<BackupPolicyTemplate>>],
    name: &str,
) -> Vec<ObjectRef<Guarded<BackupPolicyTemplate>>> {
    let uses = |template: &BackupPolicyTemplate| {
        template.spec.backup_methods.iter().any(|method| method.action_set_name.as_deref() == Some(name))
    };
    templates
        .iter()
        .filter(|template| template.0.as_ref().is_ok_and(uses))
        .map(|template| ObjectRef::from_obj(template.as_ref()))
        .collect()
}

/// The templates whose matches change when the component definition `name` comes or goes.
pub fn matching(
    templates: &[Arc<Guarded<BackupPolicyTemplate>>],
    name: &str,
) -> Vec<ObjectRef<Guarded<BackupPolicyTemplate>>> {
    templates
        .iter()
        .filter(|template| template.0.as_ref().is_ok_and(|template| decide::is_for(&template.spec, name)))
        .map(|template| ObjectRef::from_obj(template.as_ref()))
        .collect()
}

#[cfg(test)]
mod tests {
    use kbbackup_api::names::labels;
    use kube::runtime::reflector;
    use serde_json::{Value, json};

    use super::*;
    use crate::fake::{Fake, from, guarded, holding};

    const AT: &str = "-/backuppolicytemplates/t";

    fn template(method: &str) -> Value {
        json!({ "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "BackupPolicyTemplate",
            "metadata": {"name": "t", "generation": 2, "resourceVersion": "1", "labels": {labels::MANAGED_BY: "Helm"}},
            "spec": {"compDefs": ["^pg-"], "backupMethods": [{"name": "full", "actionSetName": method}]} })
    }

    /// What one look writes into the status.
    async fn told(fake: &Fake, ctx: &Context) -> Value {
        let object = guarded(fake.get(AT).unwrap());
        let look = Box::pin(reconcile(Arc::new(object), Arc::new(ctx.clone())));
        tokio::time::timeout(std::time::Duration::from_secs(5), look).await.expect("it waits for nothing").unwrap();
        fake.get(AT).unwrap()["status"].clone()
    }

    #[tokio::test]
    async fn behaviour_3_6_a_template_is_judged_where_component_definitions_are_not_served() {
        let fake = Fake::new([(AT, template("a"))]);
        let mut ctx = fake.context();
        ctx.stores.action_sets =
            holding([guarded(json!({ "metadata": {"name": "a"}, "spec": {"backupType": "Full"} }))]);
        // A store that is never filled: there is no such kind.
        let (unserved, _writer) = reflector::store();
        ctx.stores.component_definitions = unserved;
        assert_eq!(told(&fake, &ctx).await, json!({ "phase": "Available", "observedGeneration": 2 }));

        // What KubeBlocks has found before it was taken away is kept.
        let mut known = template("b");
        known["status"] = json!({ "matchedCompDefs": ["pg-16"] });
        fake.put(AT, known);
        let status = told(&fake, &ctx).await;
        assert_eq!((&status["phase"], &status["matchedCompDefs"]), (&json!("Unavailable"), &json!(["pg-16"])));
        assert_eq!(status["message"], "ActionSet b of method full does not exist;");

        ctx.stores.component_definitions =
            holding([from(json!({ "metadata": {"name": "pg-17"} })), from(json!({ "metadata": {"name": "my-8"} }))]);
        assert_eq!(told(&fake, &ctx).await["matchedCompDefs"], json!(["pg-17"]));
        fake.writes();
        told(&fake, &ctx).await;
        assert_eq!(fake.writes(), Vec::<String>::new(), "a second look changes nothing");
    }
}
