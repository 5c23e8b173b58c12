//! Everything that the populator writes.
//!
//! The volume changes hands by one patch that holds for the version of the volume that was read, while it was bound to
//! the temporary claim: the same write names the new owner and keeps the volume from being deleted with the old one.
//! The policy that it had comes back when the temporary claim is gone.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kbbackup_api::conditions::{ClaimCondition, ClaimReason, ConditionStatus};
use kbbackup_api::names::annotations;
use kbbackup_api::v1alpha1::Restore;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::build::{self, Filling};
use super::decide;
use super::observe::claims;
use crate::backup::decide::stamp;
use crate::context::Context;
use crate::error::{is_conflict, is_not_found};
use crate::status;
use crate::worker::error::{Doing as _, Error, Refusal};

/// Who owns what we write.
pub const MANAGER: &str = "kbbackup/populator";

fn params() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() }
}

/// A condition as it should stand.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// Which.
    pub type_: ClaimCondition,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Why.
    pub reason: ClaimReason,
    /// In words.
    pub message: String,
}

/// Writes the conditions that differ from what the claim has. Gives the claim as it is then; `None` when nothing had to be
/// written.
///
/// # Errors
/// Those of the API server.
pub async fn conditions(
    ctx: &Context,
    claim: &PersistentVolumeClaim,
    told: &[Told],
) -> Result<Option<PersistentVolumeClaim>, Error> {
    let Some(changed) = changes(claim, told, ctx.now()) else { return Ok(None) };
    let patch = json!({ "status": { "conditions": changed } });
    let api = claims(ctx, &claim.namespace().unwrap_or_default());
    let written = api.patch_status(&claim.name_any(), &params(), &Patch::Strategic(patch)).await;
    match written {
        Err(error) if is_not_found(&error) => Ok(None),
        other => other.doing(|| "writing the claim's conditions".to_owned()).map(Some),
    }
}

fn changes(claim: &PersistentVolumeClaim, told: &[Told], now: jiff::Timestamp) -> Option<Vec<Value>> {
    let mut changed = Vec::new();
    for Told { type_, status, reason, message } in told {
        let message = message.chars().take(MAX_MESSAGE).collect::<String>();
        let old = decide::condition(claim, *type_);
        let same_status = old.is_some_and(|old| old.status == status.as_str());
        if same_status
            && old.is_some_and(|old| {
                old.reason.as_deref() == Some(reason.as_str()) && old.message.as_deref().unwrap_or_default() == message
            })
        {
            continue;
        }
        let since = old.filter(|_| same_status).and_then(|old| old.last_transition_time.clone());
        changed.push(
            json!({ "type": type_.as_str(), "status": status.as_str(), "reason": reason.as_str(), "message": message,
            "lastTransitionTime": since.unwrap_or_else(|| stamp(now)) }),
        );
    }
    (!changed.is_empty()).then_some(changed)
}

/// Longest message that is worth reading in a condition of a claim.
const MAX_MESSAGE: usize = 2048;

/// Creates the temporary claim.
pub async fn temporary(ctx: &Context, claim: &PersistentVolumeClaim, filling: &Filling) -> Result<(), Error> {
    let object = build::temporary(claim, filling);
    create(&claims(ctx, &claim.namespace().unwrap_or_default()), &object).await
}

/// Creates the internal Restore. The temporary claim is marked before: once a restore may have written into it, another
/// one must not, and an empty one could pass for it.
pub async fn restore(ctx: &Context, temporary: &PersistentVolumeClaim, restore: &Restore) -> Result<(), Error> {
    let namespace = temporary.namespace().unwrap_or_default();
    let mark = json!({ "metadata": { "resourceVersion": temporary.resource_version(),
        "annotations": { annotations::RESTORED_BY: format!("{namespace}/{}", restore.name_any()) } } });
    claims(ctx, &namespace)
        .patch_metadata(&temporary.name_any(), &params(), &Patch::Merge(mark))
        .await
        .doing(|| "marking the temporary claim".to_owned())?;
    create(&Api::namespaced(ctx.client.clone(), &namespace), restore).await
}

async fn create<K>(api: &Api<K>, object: &K) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + serde::Serialize + DeserializeOwned + Clone + std::fmt::Debug,
{
    let story = || format!("creating {} {}", K::kind(&()), object.name_any());
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    match api.create(&params, object).await {
        // Of this name there is one now; whether it is ours, the next look tells.
        Err(error) if is_conflict(&error) => Ok(()),
        Err(kube::Error::Api(status)) if matches!(status.code, 400 | 422) => {
            Err(Refusal::fatal(format!("{}: the API server refuses it: {}", story(), status.message)).into())
        }
        other => other.doing(story).map(drop),
    }
}

/// Deletes this very object in the background, unless it is going already.
pub async fn delete<K>(api: &Api<K>, object: &K) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + std::fmt::Debug,
{
    if object.meta().deletion_timestamp.is_some() {
        return Ok(());
    }
    let params = DeleteParams {
        preconditions: Some(Preconditions { uid: object.uid(), resource_version: None }),
        ..DeleteParams::background()
    };
    match api.delete(&object.name_any(), &params).await {
        // Gone, or another one of that name by now.
        Err(error) if !is_not_found(&error) && !is_conflict(&error) => {
            Err(error).doing(|| format!("deleting {} {}", K::kind(&()), object.name_any()))
        }
        _ => Ok(()),
    }
}

/// Gives the volume of the temporary claim to `claim`.
pub async fn hand_over(
    ctx: &Context,
    volume: &PersistentVolume,
    claim: &PersistentVolumeClaim,
    source: &str,
) -> Result<(), Error> {
    let patch = Patch::Merge(handed_over(volume, claim, source));
    patch_volume(ctx, volume, &patch, "handing the volume over").await
}

/// The patch of step 7.
pub fn handed_over(volume: &PersistentVolume, claim: &PersistentVolumeClaim, source: &str) -> Value {
    let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.clone());
    let mut notes = BTreeMap::from([(annotations::POPULATE_FROM, source.to_owned())]);
    if let Some(policy) = policy.filter(|policy| policy != RETAIN) {
        notes.insert(annotations::RECLAIM_POLICY, policy);
    }
    json!({
        "metadata": { "resourceVersion": volume.resource_version(), "annotations": notes },
        "spec": {
            "persistentVolumeReclaimPolicy": RETAIN,
            "claimRef": {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": claim.namespace(),
                "name": claim.name_any(), "uid": claim.uid(), "resourceVersion": claim.resource_version(),
            },
        },
    })
}

const RETAIN: &str = "Retain";

/// Gives the volume the reclaim policy back that it had before it was handed over.
pub async fn give_back(ctx: &Context, volume: &PersistentVolume) -> Result<(), Error> {
    let Some(policy) = volume.annotations().get(annotations::RECLAIM_POLICY) else { return Ok(()) };
    let patch = Patch::Merge(json!({
        "metadata": { "resourceVersion": volume.resource_version(), "annotations": { annotations::RECLAIM_POLICY: null } },
        "spec": { "persistentVolumeReclaimPolicy": policy },
    }));
    patch_volume(ctx, volume, &patch, "giving the volume its reclaim policy back").await
}

async fn patch_volume(
    ctx: &Context,
    volume: &PersistentVolume,
    patch: &Patch<Value>,
    story: &str,
) -> Result<(), Error> {
    let api = Api::<PersistentVolume>::all(ctx.client.clone());
    match api.patch(&volume.name_any(), &params(), patch).await {
        Err(error) if is_not_found(&error) => Ok(()),
        other => other.doing(|| format!("{story} ({})", volume.name_any())).map(drop),
    }
}

/// Names the volume in the claim, so that it is bound at once, whatever its class waits for.
pub async fn name_volume(ctx: &Context, claim: &PersistentVolumeClaim, volume: &str) -> Result<(), Error> {
    let patch =
        json!({ "metadata": { "resourceVersion": claim.resource_version() }, "spec": { "volumeName": volume } });
    claims(ctx, &claim.namespace().unwrap_or_default())
        .patch(&claim.name_any(), &params(), &Patch::Merge(patch))
        .await
        .doing(|| format!("naming volume {volume} in the claim"))
        .map(drop)
}

/// Takes our finalizer off, or puts it on.
pub async fn hold(ctx: &Context, claim: &PersistentVolumeClaim, held: bool) -> Result<(), Error> {
    let api = claims(ctx, &claim.namespace().unwrap_or_default());
    match status::hold(&api, claim, held).await {
        Err(error) if !held && is_not_found(&error) => Ok(()),
        other => other.doing(|| "writing the claim's finalizer".to_owned()).map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_written_once() {
        let told = [Told {
            type_: ClaimCondition::Populating,
            status: ConditionStatus::True,
            reason: ClaimReason::Processing,
            message: "restore r runs".into(),
        }];
        let now = |text: &str| text.parse::<jiff::Timestamp>().unwrap();
        let mut claim = PersistentVolumeClaim::default();
        let first = changes(&claim, &told, now("2026-01-01T00:00:00Z")).unwrap();
        claim.status = serde_json::from_value(json!({ "conditions": first })).unwrap();
        assert_eq!(changes(&claim, &told, now("2026-01-01T00:00:09Z")), None);
        let other = [Told { message: "restore r waits".into(), ..told[0].clone() }];
        let second = changes(&claim, &other, now("2026-01-01T00:00:09Z")).unwrap();
        assert_eq!(second[0]["lastTransitionTime"], "2026-01-01T00:00:00Z", "the status did not change");
    }
}
