//! Writing a status, and other small writes that every controller makes.

use std::fmt::Debug;

use kbbackup_api::names::FINALIZER;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Writes `new` over `old` if they differ, provided that `object` is what the server has: who decided by an older state
/// gets a conflict and decides again. Returns the object as the server has it now, `None` when nothing had to be written.
///
/// # Errors
/// Those of the API server.
pub async fn publish<K, S>(api: &Api<K>, object: &K, old: Option<&S>, new: &S) -> kube::Result<Option<K>>
where
    K: Resource + DeserializeOwned + Clone + Debug,
    S: Serialize + PartialEq,
{
    if old == Some(new) {
        return Ok(None);
    }
    let change = difference(old, new)?;
    let patch = json!({ "metadata": { "resourceVersion": object.resource_version() }, "status": change });
    api.patch_status(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await.map(Some)
}

/// `new` as a merge patch: what `old` has at the top level and `new` has not is removed.
fn difference<S: Serialize>(old: Option<&S>, new: &S) -> kube::Result<Value> {
    let value = |status: &S| serde_json::to_value(status).map_err(kube::Error::SerdeError);
    let mut change = value(new)?;
    if let (Some(Value::Object(old)), Some(change)) = (old.map(value).transpose()?, change.as_object_mut()) {
        for key in old.keys() {
            change.entry(key.clone()).or_insert(Value::Null);
        }
    }
    Ok(change)
}

/// Puts our finalizer on `object`, or takes it off. Returns the object as the server has it now, `None` when it was as
/// wanted.
///
/// # Errors
/// Those of the API server; a conflict when somebody changed the finalizers meanwhile.
pub async fn hold<K>(api: &Api<K>, object: &K, held: bool) -> kube::Result<Option<K>>
where
    K: Resource + DeserializeOwned + Clone + Debug,
{
    let mut finalizers = object.finalizers().to_vec();
    if finalizers.iter().any(|name| name == FINALIZER) == held {
        return Ok(None);
    }
    if held {
        finalizers.push(FINALIZER.to_owned());
    } else {
        finalizers.retain(|name| name != FINALIZER);
    }
    let patch = json!({ "metadata": { "resourceVersion": object.resource_version(), "finalizers": finalizers } });
    api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await.map(Some)
}

#[cfg(test)]
mod tests {
    use kbbackup_api::v1alpha1::{Availability, BackupPolicyStatus};

    use super::*;

    #[test]
    fn what_is_gone_from_a_status_is_removed() {
        let old = BackupPolicyStatus { message: Some("why".into()), ..BackupPolicyStatus::default() };
        let new = BackupPolicyStatus { phase: Some(Availability::Available), ..BackupPolicyStatus::default() };
        assert_eq!(difference(Some(&old), &new).unwrap(), json!({ "phase": "Available", "message": null }));
    }
}
