//! Writing the policy and the schedule of a part: created, or corrected by a merge patch of what differs.

use std::fmt::Debug;

use kbbackup_api::v1alpha1::{BackupPolicy, BackupSchedule};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::policy::Recipe;
use super::schedule::{self, TypeOf};
use crate::context::Context;
use crate::worker::error::{Doing as _, Error};

/// Who writes.
const MANAGER: &str = "kbbackup/cluster";

/// Brings both objects of a part up to date; the policy, or why it could not be.
pub(super) async fn part(
    ctx: &Context,
    recipe: &Recipe<'_>,
    type_of: &TypeOf<'_>,
) -> Result<Result<BackupPolicy, String>, Error> {
    let namespace = recipe.cluster.namespace().unwrap_or_default();
    let policies: Api<BackupPolicy> = Api::namespaced(ctx.client.clone(), &namespace);
    let schedules: Api<BackupSchedule> = Api::namespaced(ctx.client.clone(), &namespace);
    let (name, schedule_name) = (recipe.policy_name(), recipe.schedule_name());
    let existing = policies.get_opt(&name).await.doing(|| format!("reading BackupPolicy {name}"))?;
    if let Some(why) = existing.as_ref().and_then(|policy| foreign(recipe, policy)) {
        return Ok(Err(why));
    }
    if existing.is_none() && recipe.part.shards.as_ref().is_some_and(Vec::is_empty) {
        // A policy must have a target; the first shard is about to appear, and its cluster's status with it.
        return Ok(Err(format!("sharding {} has no component yet", recipe.part.name)));
    }
    let wanted = recipe.policy(existing.as_ref());
    let policy = write(&policies, existing.as_ref(), &wanted).await?;
    let existing =
        schedules.get_opt(&schedule_name).await.doing(|| format!("reading BackupSchedule {schedule_name}"))?;
    if let Some(why) = existing.as_ref().and_then(|schedule| foreign(recipe, schedule)) {
        return Ok(Err(why));
    }
    if let Some(wanted) = schedule::schedule(recipe, &policy, existing.as_ref(), type_of) {
        write(&schedules, existing.as_ref(), &wanted).await?;
    }
    Ok(Ok(policy))
}

/// Why an object of the name that we would give is not ours to change.
fn foreign<K: Resource<DynamicType = ()>>(recipe: &Recipe<'_>, object: &K) -> Option<String> {
    let uid = recipe.cluster.uid().unwrap_or_default();
    if object.owner_references().iter().any(|owner| owner.uid == uid) {
        return None;
    }
    Some(format!(
        "{} {} exists and does not belong to this cluster; rename or delete it to have one made for component {}",
        K::kind(&()),
        object.name_any(),
        recipe.part.name
    ))
}

async fn write<K>(api: &Api<K>, existing: Option<&K>, wanted: &K) -> Result<K, Error>
where
    K: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Clone + Debug,
{
    let story = || format!("writing {} {}", K::kind(&()), wanted.name_any());
    let Some(existing) = existing else {
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        return api.create(&params, wanted).await.doing(story);
    };
    let value = |object: &K| serde_json::to_value(object).map_err(kube::Error::SerdeError);
    let (old, new) = (value(existing).doing(story)?, value(wanted).doing(story)?);
    let Some(mut change) = difference(&old, &new) else { return Ok(existing.clone()) };
    change["metadata"]["resourceVersion"] = json!(existing.resource_version());
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    api.patch(&wanted.name_any(), &params, &Patch::Merge(change)).await.doing(story)
}

/// The merge patch that turns `old` into `new`; `None` when they are the same.
fn difference(old: &Value, new: &Value) -> Option<Value> {
    let (Value::Object(old), Value::Object(new)) = (old, new) else { return (old != new).then(|| new.clone()) };
    let mut change = Map::new();
    for (key, value) in new {
        match old.get(key) {
            Some(before) => change.extend(difference(before, value).map(|value| (key.clone(), value))),
            None => change.extend([(key.clone(), value.clone())]),
        }
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        change.insert(key.clone(), Value::Null);
    }
    (!change.is_empty()).then_some(Value::Object(change))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_written() {
        let old = json!({ "a": 1, "b": { "c": 2, "d": 3 }, "e": [1] });
        assert_eq!(difference(&old, &old), None);
        let new = json!({ "a": 1, "b": { "c": 4 }, "e": [1, 2] });
        assert_eq!(difference(&old, &new), Some(json!({ "b": { "c": 4, "d": null }, "e": [1, 2] })));
    }
}
