//! Everything the Restore controller writes. What exists is never overwritten.

use std::collections::BTreeMap;
use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kbbackup_api::events::EventReason;
use kbbackup_api::names::{FINALIZER, annotations, labels};
use kbbackup_api::v1alpha1::{Restore, RestoreStatus};
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::events::EventType;
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::workload::Copy;
use super::{build, observe};
use crate::context::Context;
use crate::error::is_conflict;
use crate::status;
use crate::worker;
use crate::worker::error::{Doing as _, Error, Refusal};

/// Who owns what we write.
pub const MANAGER: &str = "kbbackup/restore";

/// The API of a restore's siblings.
pub fn api(client: &Client, restore: &Restore) -> Api<Restore> {
    Api::namespaced(client.clone(), &restore.namespace().unwrap_or_default())
}

/// Labels and annotations to set (`None` removes), if they differ, and our finalizer when `hold`.
pub async fn metadata(
    client: &Client,
    restore: Restore,
    labels: &BTreeMap<&str, String>,
    notes: &BTreeMap<&str, Option<String>>,
    hold: bool,
) -> Result<Restore, Error> {
    let labels: BTreeMap<_, _> =
        labels.iter().filter(|(key, value)| restore.labels().get(**key) != Some(value)).collect();
    let notes: BTreeMap<_, _> = notes
        .iter()
        .filter(|(key, value)| restore.annotations().get(**key).map(String::as_str) != value.as_deref())
        .collect();
    let mut finalizers = restore.finalizers().to_vec();
    let held = finalizers.iter().any(|name| name == FINALIZER);
    if labels.is_empty() && notes.is_empty() && (held || !hold) {
        return Ok(restore);
    }
    let mut change = json!({ "resourceVersion": restore.resource_version() });
    if !labels.is_empty() {
        change["labels"] = json!(labels);
    }
    if !notes.is_empty() {
        change["annotations"] = json!(notes);
    }
    if hold && !held {
        finalizers.push(FINALIZER.to_owned());
        change["finalizers"] = json!(finalizers);
    }
    let patch = Patch::Merge(json!({ "metadata": change }));
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let written = api(client, &restore).patch(&restore.name_any(), &params, &patch).await;
    written.doing(|| "writing the restore's labels and annotations".to_owned())
}

/// The status, if it differs.
pub async fn publish(client: &Client, restore: Restore, new: &RestoreStatus) -> Result<Restore, Error> {
    let written = status::publish(&api(client, &restore), &restore, restore.status.as_ref(), new).await;
    Ok(written.doing(|| "writing the restore's status".to_owned())?.unwrap_or(restore))
}

/// Creates a Job of the restore.
pub async fn job(ctx: &Context, restore: &Restore, job: &Job) -> Result<(), Error> {
    let is_ours = |found: &Job| observe::is_ours(found, restore);
    worker::apply::create(ctx, restore, job, MANAGER, EventReason::CreateRestoreJob.as_str(), is_ours).await
}

/// Creates the claims of a replica that do not exist.
pub async fn claims(ctx: &Context, restore: &Restore, replica: usize) -> Result<(), Error> {
    // The populator's: were it gone, an empty one must not take its place.
    if restore.labels().contains_key(labels::POPULATE_PVC) {
        return Ok(());
    }
    for claim in build::claims(restore, replica) {
        let object = build::claim(restore, &claim);
        if create::<PersistentVolumeClaim>(ctx, &object).await? {
            let note = format!("created persistentvolumeclaim {}", claim.name);
            ctx.event(restore, EventType::Normal, EventReason::CreateRestorePvc.as_str(), note).await;
        }
    }
    Ok(())
}

/// Creates the copy of a workload; what this restore has created before is left as it is.
pub async fn workload(ctx: &Context, restore: &Restore, copy: &Copy) -> Result<(), Error> {
    for map in &copy.config_maps {
        create(ctx, map).await?;
    }
    for service in &copy.services {
        create(ctx, service).await?;
    }
    let set = &copy.stateful_set;
    if create(ctx, set).await? {
        let note = format!("created statefulset {}", set.name_any());
        ctx.event(restore, EventType::Normal, "CreatedCR", note).await;
        return Ok(());
    }
    let api = Api::<k8s_openapi::api::apps::v1::StatefulSet>::namespaced(
        ctx.client.clone(),
        &restore.namespace().unwrap_or_default(),
    );
    let found = api.get_metadata_opt(&set.name_any()).await.doing(|| "reading the restored statefulset".to_owned())?;
    let by = found.as_ref().and_then(|found| found.annotations().get(annotations::RESTORED_BY));
    if found.is_some() && by != Some(&super::mark(restore)) {
        return Err(
            Refusal::fatal(format!("statefulset {} was created by somebody else meanwhile", set.name_any())).into()
        );
    }
    Ok(())
}

/// Creates an object; false when one of this name exists.
pub(super) async fn create<K>(ctx: &Context, object: &K) -> Result<bool, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Serialize + DeserializeOwned + Clone + Debug,
{
    let namespace = object.meta().namespace.clone().unwrap_or_default();
    let story = || format!("creating {} {namespace}/{}", K::kind(&()), object.name_any());
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    match Api::<K>::namespaced(ctx.client.clone(), &namespace).create(&params, object).await {
        Ok(_) => Ok(true),
        Err(error) if is_conflict(&error) => Ok(false),
        Err(kube::Error::Api(status)) if matches!(status.code, 400 | 422) => {
            Err(Refusal::fatal(format!("{}: the API server refuses it: {}", story(), status.message)).into())
        }
        Err(error) => Err(error).doing(story),
    }
}
