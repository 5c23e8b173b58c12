//! Creating Jobs, and deleting workloads. Names are the same at each try, so every line may be repeated.

use std::fmt::Debug;

use k8s_openapi::api::batch::v1::Job;
use kbbackup_api::names::FINALIZER;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::NamespaceResourceScope;
use kube::runtime::events::EventType;
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::error::{Doing as _, Error, LONG, Refusal};
use crate::context::Context;
use crate::error::{is_conflict, is_not_found};

/// Creates a Job for `owner` and tells so by an event, or makes sure that the one of this name is ours.
pub async fn create<K>(
    ctx: &Context,
    owner: &K,
    job: &Job,
    manager: &str,
    reason: &str,
    is_ours: impl Fn(&Job) -> bool,
) -> Result<(), Error>
where
    K: Resource<DynamicType = ()>,
{
    let (name, namespace) = (job.name_any(), job.namespace().unwrap_or_default());
    let api = Api::<Job>::namespaced(ctx.client.clone(), &namespace);
    let params = PostParams { field_manager: Some(manager.to_owned()), ..PostParams::default() };
    match api.create(&params, job).await {
        Ok(_) => {
            ctx.event(owner, EventType::Normal, reason, format!("created job {namespace}/{name}")).await;
            Ok(())
        }
        Err(error) if is_conflict(&error) => {
            let found = api.get_opt(&name).await.doing(|| format!("reading job {namespace}/{name}"))?;
            match found {
                Some(found) if !is_ours(&found) => Err(Refusal::fatal(format!(
                    "a job {namespace}/{name} exists that was made for something else; delete it and try again"
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

/// Deletes a Job and its pods in the background.
pub async fn delete_job(client: &Client, job: &Job) -> Result<(), Error> {
    delete(client, job).await
}

/// Deletes a workload and its pods in the background. A finalizer of the reference's controller would keep it for ever.
pub async fn delete<K>(client: &Client, object: &K) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let kind = K::kind(&()).to_lowercase();
    let (name, namespace) = (object.name_any(), object.namespace().unwrap_or_default());
    let api = Api::<K>::namespaced(client.clone(), &namespace);
    if object.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
        let others: Vec<_> = object.finalizers().iter().filter(|finalizer| *finalizer != FINALIZER).collect();
        let patch = json!({ "metadata": { "finalizers": others } });
        match api.patch_metadata(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(error) if !is_not_found(&error) => {
                return Err(error).doing(|| format!("releasing {kind} {namespace}/{name}"));
            }
            _ => {}
        }
    }
    if object.meta().deletion_timestamp.is_some() {
        return Ok(());
    }
    let params = DeleteParams {
        preconditions: Some(Preconditions { uid: object.uid(), resource_version: None }),
        ..DeleteParams::background()
    };
    match api.delete(&name, &params).await {
        // Gone, or another one of that name by now.
        Err(error) if !is_not_found(&error) && !is_conflict(&error) => {
            Err(error).doing(|| format!("deleting {kind} {namespace}/{name}"))
        }
        _ => Ok(()),
    }
}
