//! What is read for snapshots.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kbbackup_api::names::labels;
use kbbackup_api::snapshot::{VolumeSnapshot, VolumeSnapshotClass};
use kbbackup_api::v1alpha1::{ActionStatus, Backup, BackupMethod};
use kube::api::ListParams;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt as _};

use super::build::{self, Volume};
use super::decide;
use crate::backup::observe::SeenAction;
use crate::context::Context;
use crate::error::is_not_found;
use crate::worker::error::{A_WHILE, Doing as _, Error, Refusal};

/// A volume, and the class that its snapshots are of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The volume.
    pub volume: Volume,
    /// Name of the class.
    pub class: String,
}

/// Behaviour 4.8.5: what a method takes of `pod`, if snapshots of all of it can be taken.
///
/// # Errors
/// [`Error::Refused`] naming volume, claim and driver, else those of the API server.
pub async fn sources(ctx: &Context, pod: &Pod, method: &BackupMethod) -> Result<Vec<Source>, Error> {
    let volumes = build::volumes(pod, method)?;
    let classes = Api::<VolumeSnapshotClass>::all(ctx.client.clone()).list(&ListParams::default()).await;
    let classes = match classes {
        Err(error) if is_not_found(&error) => {
            return Err(Refusal::fatal(format!(
                "method {} takes volume snapshots, which this cluster does not know; install the external-snapshotter (its \
                 definitions and its controller) and a CSI driver that takes snapshots",
                method.name
            ))
            .into());
        }
        other => other.doing(|| "listing the VolumeSnapshotClasses".to_owned())?.items,
    };
    let mut sources = Vec::with_capacity(volumes.len());
    for volume in volumes {
        let driver = driver(ctx, pod, &volume).await?;
        let class = decide::class(&classes, &driver).map_err(|refusal| {
            Refusal::fatal(format!(
                "volume {} of pod {} (claim {}): {refusal}",
                volume.name,
                pod.name_any(),
                volume.claim
            ))
        })?;
        sources.push(Source { class: class.name_any(), volume });
    }
    Ok(sources)
}

/// The CSI driver of a volume.
async fn driver(ctx: &Context, pod: &Pod, volume: &Volume) -> Result<String, Error> {
    let namespace = pod.namespace().unwrap_or_default();
    let Volume { name, claim } = volume;
    let of = format!("volume {name} of pod {}", pod.name_any());
    let claims = Api::<PersistentVolumeClaim>::namespaced(ctx.client.clone(), &namespace);
    let found = claims.get_opt(claim).await.doing(|| format!("reading claim {claim} of {of}"))?;
    let found = found.ok_or_else(|| Refusal::not_yet(A_WHILE, format!("claim {claim} of {of} does not exist")))?;
    let bound = found.spec.and_then(|spec| spec.volume_name).filter(|name| !name.is_empty());
    let bound = bound.ok_or_else(|| Refusal::not_yet(A_WHILE, format!("claim {claim} of {of} is not bound yet")))?;
    let api = Api::<PersistentVolume>::all(ctx.client.clone());
    let found = api.get_opt(&bound).await.doing(|| format!("reading persistentvolume {bound} of claim {claim}"))?;
    let lost = || format!("persistentvolume {bound} of claim {claim} ({of}) does not exist: the volume is lost");
    let found = found.ok_or_else(|| Refusal::fatal(lost()))?;
    let driver = found.spec.and_then(|spec| spec.csi).map(|csi| csi.driver);
    Ok(driver.ok_or_else(|| {
        Refusal::fatal(format!(
            "persistentvolume {bound} of claim {claim} ({of}) belongs to no CSI driver, so no snapshot can be taken of it; use a \
             method that copies the data"
        ))
    })?)
}

/// How far the snapshots of an action are, by the store.
pub fn look(ctx: &Context, backup: &Backup, action: &ActionStatus) -> SeenAction {
    let namespace = backup.namespace().unwrap_or_default();
    let stored = |name: Option<&str>| {
        let found = ctx.stores.volume_snapshots.get(&ObjectRef::new(name?).within(&namespace))?;
        is_ours(&found, backup).then_some(found)
    };
    let found: Vec<Option<Arc<VolumeSnapshot>>> =
        action.volume_snapshots.iter().map(|snapshot| stored(snapshot.name.as_deref())).collect();
    let found: Vec<Option<&VolumeSnapshot>> = found.iter().map(Option::as_deref).collect();
    let deadline = std::time::Duration::from_secs(ctx.settings.job_deadline_seconds.unsigned_abs());
    decide::judge(action, &found, deadline, ctx.now())
}

/// Whether this very backup has made a snapshot.
pub fn is_ours(snapshot: &VolumeSnapshot, backup: &Backup) -> bool {
    snapshot.owner_references().iter().any(|owner| Some(owner.uid.as_str()) == backup.uid().as_deref())
}

/// All snapshots of a backup. The API server is asked: a store that is not filled yet would tell that there is none.
///
/// # Errors
/// Those of the API server.
pub async fn of_backup(ctx: &Context, backup: &Backup) -> Result<Vec<VolumeSnapshot>, Error> {
    let namespace = backup.namespace().unwrap_or_default();
    let ours = ListParams::default().labels(&format!("{}={}", labels::BACKUP_NAME, backup.name_any()));
    match Api::<VolumeSnapshot>::namespaced(ctx.client.clone(), &namespace).list(&ours).await {
        // Where the kind is not served any more, there is nothing left to delete.
        Err(error) if is_not_found(&error) => Ok(Vec::new()),
        other => {
            let mut all = other.doing(|| format!("listing the volumesnapshots of backup {}", backup.name_any()))?.items;
            all.retain(|snapshot| is_ours(snapshot, backup));
            Ok(all)
        }
    }
}
