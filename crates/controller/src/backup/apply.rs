//! Everything the Backup controller writes. Names are the same at each try, so every line may be repeated.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::Job;
use kbbackup_api::names::FINALIZER;
use kbbackup_api::v1alpha1::{Backup, BackupStatus};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::events::EventType;
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use super::error::{Doing as _, Error, LONG, Refusal};
use super::observe::is_ours;
use crate::context::Context;
use crate::error::{is_conflict, is_not_found};
use crate::status;

/// Who owns what we write.
pub const MANAGER: &str = "kbbackup/backup";

/// The API of a backup's siblings.
pub fn api(client: &Client, backup: &Backup) -> Api<Backup> {
    Api::namespaced(client.clone(), &backup.namespace().unwrap_or_default())
}

/// Labels and annotations to set (`None` removes), if they differ, and our finalizer when `hold`.
pub async fn metadata(
    client: &Client,
    backup: Backup,
    labels: &BTreeMap<String, String>,
    notes: &BTreeMap<&str, Option<String>>,
    hold: bool,
) -> Result<Backup, Error> {
    let labels: BTreeMap<_, _> =
        labels.iter().filter(|(key, value)| backup.labels().get(*key) != Some(value)).collect();
    // A store shows long annotations empty: what is there with any value and is written once is not written again.
    let notes: BTreeMap<_, _> = notes
        .iter()
        .filter(|(key, value)| backup.annotations().get(**key).map(String::as_str) != value.as_deref())
        .collect();
    let mut finalizers = backup.finalizers().to_vec();
    let held = finalizers.iter().any(|name| name == FINALIZER);
    if labels.is_empty() && notes.is_empty() && (held || !hold) {
        return Ok(backup);
    }
    let mut change = json!({ "resourceVersion": backup.resource_version() });
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
    api(client, &backup)
        .patch(&backup.name_any(), &params, &patch)
        .await
        .doing(|| "writing the backup's labels and annotations".to_owned())
}

/// The status, if it differs.
pub async fn publish(client: &Client, backup: Backup, new: &BackupStatus) -> Result<Backup, Error> {
    let written = status::publish(&api(client, &backup), &backup, backup.status.as_ref(), new).await;
    Ok(written.doing(|| "writing the backup's status".to_owned())?.unwrap_or(backup))
}

/// Creates a Job, or makes sure that the one of this name is ours.
pub async fn create(ctx: &Context, backup: &Backup, job: &Job) -> Result<(), Error> {
    let (name, namespace) = (job.name_any(), job.namespace().unwrap_or_default());
    let api = Api::<Job>::namespaced(ctx.client.clone(), &namespace);
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    match api.create(&params, job).await {
        Ok(_) => {
            ctx.event(backup, EventType::Normal, "CreatingJob", format!("created job {namespace}/{name}")).await;
            Ok(())
        }
        Err(error) if is_conflict(&error) => {
            let found = api.get_opt(&name).await.doing(|| format!("reading job {namespace}/{name}"))?;
            match found {
                Some(found) if !is_ours(&found, backup) => Err(Refusal::fatal(format!(
                    "a job {namespace}/{name} exists that is not this backup's; delete it and take the backup again"
                ))
                .into()),
                // It is ours, or it is gone again: the next look tells.
                _ => Ok(()),
            }
        }
        Err(kube::Error::Api(status)) if matches!(status.code, 400 | 422) => {
            Err(Refusal::fatal(format!("the API server refuses job {name}: {}", status.message)).into())
        }
        Err(kube::Error::Api(status)) if status.code == 403 => {
            Err(Refusal::not_yet(LONG, format!("the API server forbids job {name}: {}", status.message)).into())
        }
        Err(error) => Err(error).doing(|| format!("creating job {namespace}/{name}")),
    }
}

/// Deletes a Job and its pods in the background. A finalizer of the reference's controller would keep it for ever.
pub async fn delete_job(client: &Client, job: &Job) -> Result<(), Error> {
    let (name, namespace) = (job.name_any(), job.namespace().unwrap_or_default());
    let api = Api::<Job>::namespaced(client.clone(), &namespace);
    if job.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
        let others: Vec<_> = job.finalizers().iter().filter(|finalizer| *finalizer != FINALIZER).collect();
        let patch = json!({ "metadata": { "finalizers": others } });
        match api.patch_metadata(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(error) if !is_not_found(&error) => {
                return Err(error).doing(|| format!("releasing job {namespace}/{name}"));
            }
            _ => {}
        }
    }
    if job.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let params = DeleteParams {
        preconditions: Some(Preconditions { uid: job.uid(), resource_version: None }),
        ..DeleteParams::background()
    };
    match api.delete(&name, &params).await {
        // Gone, or another one of that name by now.
        Err(error) if !is_not_found(&error) && !is_conflict(&error) => {
            Err(error).doing(|| format!("deleting job {namespace}/{name}"))
        }
        _ => Ok(()),
    }
}
