//! KubeBlocks' Clusters: each component that a template is for gets a BackupPolicy and a BackupSchedule, and backups go
//! with their cluster when it wants so. Looked after only where that API is served.
//!
//! Of a Cluster nothing but our finalizer is ever written.

mod apply;
mod delete;
mod parts;
mod policy;
pub mod record;
mod schedule;
#[cfg(test)]
mod shipped_tests;
mod target;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use kbbackup_api::apps::{Cluster, Component};
use kbbackup_api::events::EventReason;
use kbbackup_api::names::labels;
use kbbackup_api::v1alpha1::{Backup, BackupMethod, BackupPolicyTemplate, BackupType};
use kube::api::ListParams;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Resource as _, ResourceExt as _};

use self::parts::Part;
use self::policy::Recipe;
use crate::backup;
use crate::context::{Context, readable};
use crate::error::is_not_found;
use crate::status;
use crate::watch::{Guarded, Watched};
use crate::worker::error::{Doing as _, Error};

/// Somebody wrote first.
const AT_ONCE: Duration = Duration::from_millis(100);
/// Backups wake a cluster that waits for their end; this is the safety net.
const SLOWLY: Duration = Duration::from_secs(60);

/// Brings policies and schedules of a cluster up to date, or clears up after it.
///
/// # Errors
/// What is to be retried with growing waits.
pub async fn reconcile(object: Arc<Guarded<Cluster>>, ctx: Arc<Context>) -> Result<Action, Error> {
    let cluster = readable(&object)?;
    match step(&ctx, cluster).await {
        Err(error) if error.is_conflict() => Ok(Action::requeue(AT_ONCE)),
        other => other,
    }
}

async fn step(ctx: &Context, cluster: &Cluster) -> Result<Action, Error> {
    let api: Api<Cluster> = Api::namespaced(ctx.client.clone(), &cluster.namespace().unwrap_or_default());
    if cluster.metadata.deletion_timestamp.is_some() {
        return clear(ctx, &api, cluster).await;
    }
    let held = status::hold(&api, cluster, true).await.doing(|| "holding the cluster".to_owned())?;
    let cluster = held.as_ref().unwrap_or(cluster);
    let problems = derive(ctx, cluster).await?;
    for (reason, note) in problems {
        ctx.event(cluster, EventType::Warning, reason.as_str(), note).await;
    }
    Ok(Action::await_change())
}

/// Deletes the backups that go with the cluster, and lets it go when they are gone.
async fn clear(ctx: &Context, api: &Api<Cluster>, cluster: &Cluster) -> Result<Action, Error> {
    if !cluster.finalizers().iter().any(|name| name == kbbackup_api::names::FINALIZER) {
        return Ok(Action::await_change());
    }
    // A store that is still being filled would let the cluster go without its backups.
    loaded(&ctx.stores.backups).await;
    let around = ctx.stores.backups.in_namespace(&cluster.namespace().unwrap_or_default());
    let doomed = delete::doomed(cluster, &around.iter().collect::<Vec<_>>());
    for backup in doomed.iter().filter(|backup| backup.metadata.deletion_timestamp.is_none()) {
        backup::delete::delete(ctx, backup).await?;
    }
    if !doomed.is_empty() {
        tracing::info!(
            namespace = cluster.namespace(),
            cluster = cluster.name_any(),
            backups = doomed.len(),
            "the cluster goes when these backups are gone"
        );
        return Ok(Action::requeue(SLOWLY));
    }
    match status::hold(api, cluster, false).await {
        Err(error) if !is_not_found(&error) => Err(error).doing(|| "releasing the cluster".to_owned()),
        _ => Ok(Action::await_change()),
    }
}

/// Makes or corrects the policy and the schedule of each part. What people should know comes back.
async fn derive(ctx: &Context, cluster: &Cluster) -> Result<Vec<(EventReason, String)>, Error> {
    loaded(&ctx.stores.action_sets).await;
    loaded(&ctx.stores.templates).await;
    let templates = ctx.stores.templates.state();
    let mut templates: Vec<&BackupPolicyTemplate> =
        templates.iter().filter_map(|template| template.0.as_ref().ok()).collect();
    templates.sort_by_key(|template| template.name_any());
    if templates.is_empty() && cluster.spec.backup.is_none() {
        return Ok(Vec::new());
    }
    let mut problems = Vec::new();
    let mut methods = Vec::new();
    for part in parts(ctx, cluster).await? {
        let Some(template) = part.template(&templates) else { continue };
        let encryption = ctx.settings.policy_encryption.as_ref();
        let recipe = Recipe { cluster, part: &part, template, encryption };
        match apply::part(ctx, &recipe, &|method| type_of(ctx, method)).await? {
            Ok(policy) => methods.push(policy.spec.backup_methods),
            Err(why) => problems.push((EventReason::ReconcileBackupPolicyFail, why)),
        }
    }
    problems.extend(unmet(cluster, &methods));
    Ok(problems)
}

/// What `spec.backup` of the cluster asks for and nobody can do.
fn unmet(cluster: &Cluster, methods: &[Vec<BackupMethod>]) -> Option<(EventReason, String)> {
    let wish = cluster.spec.backup.as_ref().filter(|wish| wish.enabled == Some(true))?;
    let wanted = wish.method.as_deref().unwrap_or_default();
    if methods.is_empty() {
        let why = "spec.backup asks for backups, but no BackupPolicyTemplate is for a component of this cluster";
        return Some((EventReason::BackupPolicyNotFound, why.to_owned()));
    }
    if methods.iter().flatten().any(|method| method.name == wanted) {
        return None;
    }
    let mut known: Vec<_> = methods.iter().flatten().map(|method| method.name.as_str()).collect();
    known.dedup();
    let why = format!(
        "spec.backup.method is {wanted:?}, which no policy of this cluster has (they have: {})",
        known.join(", ")
    );
    Some((EventReason::BackupMethodNotFound, why))
}

async fn parts(ctx: &Context, cluster: &Cluster) -> Result<Vec<Part>, Error> {
    let api: Api<Component> = Api::namespaced(ctx.client.clone(), &cluster.namespace().unwrap_or_default());
    let of = ListParams::default().labels(&format!("{}={}", labels::INSTANCE, cluster.name_any()));
    let running = match api.list(&of).await {
        Err(error) if is_not_found(&error) => Vec::new(),
        other => other.doing(|| "listing the cluster's components".to_owned())?.items,
    };
    Ok(parts::parts(cluster, &running))
}

/// The type of backups that a method makes; a snapshot method without a recipe makes full ones.
fn type_of(ctx: &Context, method: &BackupMethod) -> Option<BackupType> {
    let Some(name) = method.action_set_name.as_deref().filter(|name| !name.is_empty()) else {
        return method.snapshot_volumes().then_some(BackupType::Full);
    };
    let set = ctx.stores.action_sets.get(&ObjectRef::new(name))?;
    set.0.as_ref().ok().map(|set| set.spec.backup_type)
}

/// Waits for the first list of a kind that is always served.
async fn loaded<K: Watched>(store: &Store<K>) {
    // An error means that the watch has ended, and the process with it.
    store.wait_until_ready().await.ok();
}

/// All clusters, when a template changed: it may be for any.
pub fn all(store: &Store<Guarded<Cluster>>) -> Vec<ObjectRef<Guarded<Cluster>>> {
    store.state().iter().map(|cluster| ObjectRef::from_obj(cluster.as_ref())).collect()
}

/// The cluster that owns a policy.
pub fn owning(meta: &kube::core::ObjectMeta) -> Option<ObjectRef<Guarded<Cluster>>> {
    let owner = meta.owner_references.iter().flatten().find(|owner| owner.kind == "Cluster")?;
    Some(ObjectRef::new(&owner.name).within(meta.namespace.as_deref()?))
}

/// The cluster whose database a backup holds.
fn of(meta: &kube::core::ObjectMeta) -> Option<ObjectRef<Guarded<Cluster>>> {
    let name = meta.labels.as_ref()?.get(labels::INSTANCE)?;
    Some(ObjectRef::new(name).within(meta.namespace.as_deref()?))
}

/// The cluster that waits for the end of a backup.
pub fn awaiting(store: &Store<Guarded<Cluster>>, backup: &Backup) -> Option<ObjectRef<Guarded<Cluster>>> {
    let of = of(backup.meta())?;
    store.get(&of).filter(|cluster| cluster.meta().deletion_timestamp.is_some()).map(|_| of)
}

/// The cluster of this name as the watch knows it; `None` when it, or its kind, does not exist.
pub fn find(ctx: &Context, namespace: &str, name: &str) -> Option<Arc<Guarded<Cluster>>> {
    ctx.stores.clusters.get(&ObjectRef::new(name).within(namespace))
}

/// Phase of the cluster that a backup's database belongs to, as KubeBlocks writes it (`Creating`, `Running`, …).
pub fn phase(ctx: &Context, backup: &Backup) -> Option<String> {
    let name = backup.labels().get(labels::INSTANCE)?;
    let cluster = find(ctx, backup.namespace().as_deref()?, name)?;
    cluster.0.as_ref().ok()?.status.as_ref()?.phase.clone()
}

/// The cluster that is being created, for which a continuous backup waits: behaviour 4.3, step 10.
pub fn creating(ctx: &Context, backup: &Backup) -> Option<String> {
    (phase(ctx, backup)? == "Creating").then(|| backup.labels().get(labels::INSTANCE).cloned())?
}

/// The cluster that is being restored, when a backup of it is to wait for that: behaviour 4.10, step 1.
pub fn restoring(ctx: &Context, backup: &Backup) -> Option<String> {
    let skipped = backup.annotations().get(kbbackup_api::names::annotations::SKIP_RESTORATION_CHECK);
    if skipped.is_some_and(|value| value == kbbackup_api::names::TRUE) {
        return None;
    }
    let name = backup.labels().get(labels::INSTANCE)?;
    let cluster = find(ctx, backup.namespace().as_deref()?, name)?;
    cluster.0.as_ref().ok()?.is_being_restored().then(|| name.clone())
}
