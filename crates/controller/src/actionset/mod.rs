//! ActionSet: whether the parameters that it hands on are declared. The phase is for people: backups and restores check
//! what they need themselves.

use std::sync::Arc;

use kbbackup_api::v1alpha1::{ActionSet, ActionSetSpec, ActionSetStatus, Availability};
use kube::Api;
use kube::runtime::controller::Action;

use crate::context::{Context, readable};
use crate::error::{Class, Classified, Unreadable, api_class};
use crate::status;
use crate::watch::Guarded;

/// Why an ActionSet was not reconciled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object does not fit its type.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// The finalizer could not be put on or taken off.
    #[error("finalizer could not be changed")]
    Hold(#[source] kube::Error),
    /// The status could not be written.
    #[error("status could not be written")]
    Publish(#[source] kube::Error),
}

impl Classified for Error {
    fn class(&self) -> Class {
        match self {
            Self::Unreadable(_) => Class::Invalid,
            Self::Hold(error) | Self::Publish(error) => api_class(error),
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "Unreadable",
            Self::Hold(_) => "Hold",
            Self::Publish(_) => "Publish",
        }
    }
}

/// Checks the recipe and says so in its status.
pub async fn reconcile(set: Arc<Guarded<ActionSet>>, ctx: Arc<Context>) -> Result<Action, Error> {
    let set = readable(&set)?;
    let api: Api<ActionSet> = Api::all(ctx.client.clone());
    let going = set.metadata.deletion_timestamp.is_some();
    let held = status::hold(&api, set, !going).await.map_err(Error::Hold)?;
    let set = held.as_ref().unwrap_or(set);
    if going || is_checked(set) {
        return Ok(Action::await_change());
    }
    let fault = check(&set.spec).err();
    let new = ActionSetStatus {
        phase: Some(if fault.is_none() { Availability::Available } else { Availability::Unavailable }),
        message: fault,
        observed_generation: set.metadata.generation,
    };
    status::publish(&api, set, set.status.as_ref(), &new).await.map_err(Error::Publish)?;
    Ok(Action::await_change())
}

fn is_checked(set: &ActionSet) -> bool {
    set.status.as_ref().is_some_and(|status| {
        status.phase == Some(Availability::Available) && status.observed_generation == set.metadata.generation
    })
}

/// Every parameter that an action takes must be declared in the schema.
fn check(spec: &ActionSetSpec) -> Result<(), String> {
    let declared = spec.parameters_schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref());
    let declared = declared.and_then(|schema| schema.get("properties")?.as_object());
    let taken = [
        ("backup", spec.backup.as_ref().map(|backup| &backup.with_parameters)),
        ("restore", spec.restore.as_ref().map(|restore| &restore.with_parameters)),
    ];
    for (part, names) in taken {
        for name in names.into_iter().flatten() {
            let Some(declared) = declared else {
                return Err(format!(
                    "spec.{part}.withParameters names {name}, but spec.parametersSchema declares no parameters"
                ));
            };
            if !declared.contains_key(name) {
                let known: Vec<_> = declared.keys().map(String::as_str).collect();
                return Err(format!(
                    "spec.{part}.withParameters names {name}, which spec.parametersSchema does not declare (it has: {})",
                    known.join(", ")
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fake::{Fake, guarded};

    fn checked(spec: serde_json::Value) -> Result<(), String> {
        check(&serde_json::from_value(spec).unwrap())
    }

    #[tokio::test]
    async fn behaviour_3_1_it_is_looked_at_again_when_it_has_changed_or_was_not_sound() {
        let at = "-/actionsets/a";
        let set = json!({ "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "ActionSet",
            "metadata": {"name": "a", "generation": 1, "resourceVersion": "1"},
            "spec": {"backup": {"withParameters": ["LEVEL"]}} });
        let fake = Fake::new([(at, set)]);
        let look = async || {
            reconcile(Arc::new(guarded(fake.get(at).unwrap())), Arc::new(fake.context())).await.unwrap();
            let status = fake.get(at).unwrap()["status"].clone();
            (status["phase"].clone(), status["observedGeneration"].clone(), fake.writes().len())
        };
        assert_eq!(look().await, (json!("Unavailable"), json!(1), 2), "finalizer and status");
        let mut sound = fake.get(at).unwrap();
        sound["spec"] = json!({});
        sound["metadata"]["generation"] = json!(2);
        fake.put(at, sound);
        assert_eq!(look().await, (json!("Available"), json!(2), 1));
        assert_eq!(look().await, (json!("Available"), json!(2), 0));
        let mut faulty = fake.get(at).unwrap();
        faulty["spec"] = json!({ "restore": {"withParameters": ["LEVEL"]} });
        faulty["metadata"]["generation"] = json!(3);
        fake.put(at, faulty);
        assert_eq!(look().await, (json!("Unavailable"), json!(3), 1));
    }

    #[test]
    fn behaviour_3_1_a_set_without_parameters_is_sound() {
        assert_eq!(checked(json!({})), Ok(()));
    }

    #[test]
    fn behaviour_3_1_a_declared_parameter_is_sound() {
        let schema =
            json!({ "openAPIV3Schema": { "type": "object", "properties": { "LEVEL": { "type": "integer" } } } });
        assert_eq!(checked(json!({ "parametersSchema": schema, "backup": { "withParameters": ["LEVEL"] } })), Ok(()));
        let fault =
            checked(json!({ "parametersSchema": schema, "restore": { "withParameters": ["DB"] } })).unwrap_err();
        assert!(fault.contains("DB") && fault.contains("LEVEL"), "{fault}");
    }

    #[test]
    fn behaviour_3_1_parameters_without_a_schema_are_a_fault() {
        assert!(checked(json!({ "backup": { "withParameters": ["LEVEL"] } })).is_err());
        let empty = json!({ "openAPIV3Schema": {} });
        assert!(checked(json!({ "parametersSchema": empty, "backup": { "withParameters": ["LEVEL"] } })).is_err());
    }
}
