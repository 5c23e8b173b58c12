//! What a continuous backup writes. Names are the same at each try, so every line may be repeated.

use std::fmt::Debug;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kbbackup_api::v1alpha1::Backup;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::runtime::events::EventType;
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::build::Channel;
use crate::backup::apply::MANAGER;
use crate::backup::observe::is_ours;
use crate::context::Context;
use crate::error::{is_conflict, is_not_found};
use crate::worker::error::{Doing as _, Error, LONG, Refusal};

/// Creates an object; one of that name that exists must be this backup's, and is given back.
async fn create<K>(client: &Client, backup: &Backup, object: &K) -> Result<Option<K>, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned,
{
    let kind = K::kind(&()).to_lowercase();
    let (name, namespace) = (object.name_any(), object.namespace().unwrap_or_default());
    let api = Api::<K>::namespaced(client.clone(), &namespace);
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    match api.create(&params, object).await {
        Ok(_) => Ok(None),
        Err(error) if is_conflict(&error) => {
            let found = api.get_opt(&name).await.doing(|| format!("reading {kind} {namespace}/{name}"))?;
            match found {
                Some(found) if !is_ours(&found, backup) => Err(Refusal::fatal(format!(
                    "a {kind} {namespace}/{name} exists that was made for something else; delete it and try again"
                ))
                .into()),
                // It is ours, or it is gone again: the next look tells.
                found => Ok(found),
            }
        }
        Err(error) => Err(refused(error, &kind, &name)),
    }
}

/// What the API server will not accept is no reason to ask again at once.
fn refused(error: kube::Error, kind: &str, name: &str) -> Error {
    match error {
        kube::Error::Api(answer) if matches!(answer.code, 400 | 422) => {
            Refusal::fatal(format!("the API server refuses {kind} {name}: {}", answer.message)).into()
        }
        kube::Error::Api(answer) if answer.code == 403 => {
            Refusal::not_yet(LONG, format!("the API server forbids {kind} {name}: {}", answer.message)).into()
        }
        source => Error::Api { doing: format!("writing {kind} {name}"), source },
    }
}

/// Makes sure of an archiver's channel. The ConfigMap comes last: where it is, the rest is.
pub async fn channel(client: &Client, backup: &Backup, channel: &Channel) -> Result<(), Error> {
    let Channel { map, role, binding } = channel;
    create(client, backup, role).await?;
    if let Some(found) = create(client, backup, binding).await?
        && found.subjects != binding.subjects
    {
        let api = Api::<RoleBinding>::namespaced(client.clone(), &binding.namespace().unwrap_or_default());
        let patch = Patch::Merge(json!({ "subjects": binding.subjects }));
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        api.patch(&binding.name_any(), &params, &patch)
            .await
            .doing(|| format!("writing rolebinding {}", binding.name_any()))?;
    }
    create(client, backup, map).await.map(drop)
}

/// Creates an archiver, or replaces the one that was `found`.
pub async fn archiver(
    ctx: &Context,
    backup: &Backup,
    set: &StatefulSet,
    found: Option<&StatefulSet>,
) -> Result<(), Error> {
    let name = set.name_any();
    let Some(found) = found else {
        if create(&ctx.client, backup, set).await?.is_none() {
            ctx.event(
                backup,
                EventType::Normal,
                "CreatingStatefulSet",
                format!("archiving starts in statefulset {name}"),
            )
            .await;
        }
        return Ok(());
    };
    if !is_ours(found, backup) {
        return Err(Refusal::fatal(format!(
            "a statefulset {name} exists that was made for something else; delete it and try again"
        ))
        .into());
    }
    let api = Api::<StatefulSet>::namespaced(ctx.client.clone(), &set.namespace().unwrap_or_default());
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    match api.replace(&name, &params, set).await {
        Ok(_) => {
            tracing::info!(
                backup = backup.name_any(),
                set = name,
                "the archiver is started anew: what it is made from has changed"
            );
            Ok(())
        }
        Err(error) if is_not_found(&error) => Ok(()),
        Err(error) if is_conflict(&error) => Err(error).doing(|| format!("replacing statefulset {name}")),
        Err(error) => Err(refused(error, "statefulset", &name)),
    }
}

/// Lets an archiver rest: there is nothing to archive.
pub async fn rest(client: &Client, set: &StatefulSet) -> Result<(), Error> {
    if set.spec.as_ref().and_then(|spec| spec.replicas) == Some(0) {
        return Ok(());
    }
    let name = set.name_any();
    let api = Api::<StatefulSet>::namespaced(client.clone(), &set.namespace().unwrap_or_default());
    let patch = json!({ "metadata": { "resourceVersion": set.resource_version() }, "spec": { "replicas": 0 } });
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    match api.patch(&name, &params, &Patch::Merge(patch)).await {
        Err(error) if !is_not_found(&error) => Err(error).doing(|| format!("scaling statefulset {name} to 0")),
        _ => Ok(()),
    }
}
