//! What is written for snapshots. Names are the same at each try, so every line may be repeated.

use k8s_openapi::api::core::v1::Pod;
use kbbackup_api::events::EventReason;
use kbbackup_api::names::FINALIZER;
use kbbackup_api::snapshot::VolumeSnapshot;
use kbbackup_api::v1alpha1::{ActionStatus, Backup, BackupStatus};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::events::EventType;
use kube::{Api, ResourceExt as _};
use serde_json::json;

use super::{build, observe};
use crate::backup::apply::MANAGER;
use crate::context::Context;
use crate::error::{is_conflict, is_not_found};
use crate::worker::error::{Doing as _, Error, LONG, Refusal};
use crate::worker::select::SelectError;

fn api(ctx: &Context, backup: &Backup) -> Api<VolumeSnapshot> {
    Api::namespaced(ctx.client.clone(), &backup.namespace().unwrap_or_default())
}

/// Takes the snapshots of an action that do not exist.
///
/// # Errors
/// [`Error::Refused`] when one cannot be taken, else those of the API server.
pub async fn take(ctx: &Context, backup: &Backup, status: &BackupStatus, action: &ActionStatus) -> Result<(), Error> {
    let pod = action.target_pod_name.as_deref().unwrap_or_default();
    let pods = Api::<Pod>::namespaced(ctx.client.clone(), &backup.namespace().unwrap_or_default());
    let found = pods.get_opt(pod).await.doing(|| format!("reading pod {pod}"))?;
    let found = found.ok_or_else(|| Refusal::not_yet(LONG, SelectError::Gone(pod.to_owned())))?;
    let method = status.backup_method.as_ref().ok_or_else(|| Refusal::fatal("status.backupMethod is gone"))?;
    let sources = observe::sources(ctx, &found, method).await?;
    for recorded in &action.volume_snapshots {
        let volume = recorded.volume_name.as_deref().unwrap_or_default();
        let source = sources.iter().find(|source| source.volume.name == volume).ok_or_else(|| {
            Refusal::fatal(format!("pod {pod} had a volume {volume} when the backup began, and has none now"))
        })?;
        let name = recorded.name.as_deref().unwrap_or_default();
        create(ctx, backup, &build::snapshot(backup, name, &source.volume.claim, &source.class)).await?;
    }
    Ok(())
}

async fn create(ctx: &Context, backup: &Backup, snapshot: &VolumeSnapshot) -> Result<(), Error> {
    let (api, name) = (api(ctx, backup), snapshot.name_any());
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    match api.create(&params, snapshot).await {
        Ok(_) => {
            let claim = snapshot.spec.source.persistent_volume_claim_name.as_deref().unwrap_or_default();
            let note = format!("created volumesnapshot {name} of claim {claim}");
            ctx.event(backup, EventType::Normal, EventReason::CreatingVolumeSnapshot.as_str(), note).await;
            Ok(())
        }
        Err(error) if is_conflict(&error) => {
            let found = api.get_opt(&name).await.doing(|| format!("reading volumesnapshot {name}"))?;
            match found {
                Some(found) if !observe::is_ours(&found, backup) => Err(Refusal::fatal(format!(
                    "a volumesnapshot {name} exists that was made for something else; delete it, or name the backup otherwise"
                ))
                .into()),
                _ => Ok(()),
            }
        }
        Err(kube::Error::Api(status)) if matches!(status.code, 400 | 422) => {
            Err(Refusal::fatal(format!("the API server refuses volumesnapshot {name}: {}", status.message)).into())
        }
        Err(error) => Err(error).doing(|| format!("creating volumesnapshot {name}")),
    }
}

/// Deletes the snapshots of a backup; says which are still there.
///
/// # Errors
/// Those of the API server.
pub async fn remove(ctx: &Context, backup: &Backup) -> Result<Vec<String>, Error> {
    let mut left = Vec::new();
    for snapshot in observe::of_backup(ctx, backup).await? {
        let name = snapshot.name_any();
        // The reference's controller sets its finalizer, and nobody else would take it off.
        if snapshot.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
            let others: Vec<_> = snapshot.finalizers().iter().filter(|finalizer| *finalizer != FINALIZER).collect();
            patch(ctx, backup, &snapshot, &json!({ "finalizers": others })).await?;
        }
        if snapshot.metadata.deletion_timestamp.is_none() {
            let preconditions = Some(Preconditions { uid: snapshot.uid(), resource_version: None });
            let params = DeleteParams { preconditions, ..DeleteParams::background() };
            match api(ctx, backup).delete(&name, &params).await {
                Err(error) if !is_not_found(&error) && !is_conflict(&error) => {
                    return Err(error).doing(|| format!("deleting volumesnapshot {name}"));
                }
                _ => {}
            }
        }
        left.push(name);
    }
    Ok(left)
}

/// Lets the snapshots of a backup outlive it; says which they are.
///
/// # Errors
/// Those of the API server.
pub async fn release(ctx: &Context, backup: &Backup) -> Result<Vec<String>, Error> {
    let mut kept = Vec::new();
    for snapshot in observe::of_backup(ctx, backup).await? {
        let others = |uid: &str| Some(uid) != backup.uid().as_deref();
        let owners: Vec<_> = snapshot.owner_references().iter().filter(|owner| others(&owner.uid)).collect();
        let finalizers: Vec<_> = snapshot.finalizers().iter().filter(|finalizer| *finalizer != FINALIZER).collect();
        let change = json!({ "ownerReferences": owners, "finalizers": finalizers });
        patch(ctx, backup, &snapshot, &change).await?;
        kept.push(snapshot.name_any());
    }
    Ok(kept)
}

async fn patch(
    ctx: &Context,
    backup: &Backup,
    snapshot: &VolumeSnapshot,
    change: &serde_json::Value,
) -> Result<(), Error> {
    let name = snapshot.name_any();
    let mut change = change.clone();
    change["resourceVersion"] = json!(snapshot.resource_version());
    let patch = Patch::Merge(json!({ "metadata": change }));
    match api(ctx, backup).patch_metadata(&name, &PatchParams::default(), &patch).await {
        Err(error) if !is_not_found(&error) => Err(error).doing(|| format!("releasing volumesnapshot {name}")),
        _ => Ok(()),
    }
}
