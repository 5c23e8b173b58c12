//! What a continuous backup reads.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::{join_all, try_join};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kbbackup_api::names::labels;
use kbbackup_api::v1alpha1::{
    Backup, BackupSchedule, BackupSchedulePhase, BackupStatus, BackupStatusTarget, SchedulePhase,
};
use kbbackup_core::contract::channel;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt as _};

use super::decide;
use crate::backup::observe::{self as common, Ingredients};
use crate::backup::plan;
use crate::context::Context;
use crate::pool;
use crate::worker::error::{Doing as _, Error, LONG, Refusal, SOON};
use crate::worker::read;
use crate::worker::select::{self, SelectError};

/// The schedule that a continuous backup belongs to, and its name.
async fn schedule(ctx: &Context, backup: &Backup) -> Result<(String, Option<BackupSchedule>), Error> {
    let Some(name) = backup.labels().get(labels::BACKUP_SCHEDULE).filter(|name| !name.is_empty()) else {
        let why = "a continuous backup belongs to a BackupSchedule: enable an entry of a schedule for its method";
        return Err(Refusal::fatal(why).into());
    };
    let namespace = backup.namespace().unwrap_or_default();
    let api = Api::namespaced(ctx.client.clone(), &namespace);
    let found = read::find(&ctx.stores.schedules, &api, name, Some(&namespace))
        .await
        .doing(|| format!("reading BackupSchedule {name}"))?;
    Ok((name.clone(), found))
}

/// Behaviour 4.3, step 10.
///
/// # Errors
/// [`Error::Refused`] when the backup has no schedule, or one that is not in effect.
pub async fn schedule_is_available(ctx: &Context, backup: &Backup, namespace: &str) -> Result<(), Error> {
    let (name, found) = schedule(ctx, backup).await?;
    let Some(found) = found else {
        return Err(Refusal::not_yet(SOON, format!("BackupSchedule {name} does not exist in {namespace}")).into());
    };
    let status = found.status.as_ref();
    let mut own = found.spec.schedules.iter().filter(|entry| entry.backup_method == backup.spec.backup_method);
    // Another entry that is wrong is no reason not to archive.
    let is_sound = own.any(|entry| {
        let state = status.and_then(|status| status.schedules.get(entry.name()));
        state.is_some_and(|state| state.phase == Some(SchedulePhase::Running))
    });
    if is_sound || status.and_then(|status| status.phase.as_ref()) == Some(&BackupSchedulePhase::Available) {
        return Ok(());
    }
    let reason = found.status.as_ref().and_then(|status| status.failure_reason.as_deref());
    let because = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    Err(Refusal::not_yet(LONG, format!("BackupSchedule {name} is not Available{because}")).into())
}

/// Why archiving is over, if it is: behaviour 4.10.2.
///
/// # Errors
/// Those of the API server.
pub async fn ended(ctx: &Context, backup: &Backup) -> Result<Option<String>, Error> {
    let (name, schedule) = schedule(ctx, backup).await?;
    if let Some(why) = decide::unwanted(schedule.as_ref(), &name, &backup.spec.backup_method) {
        return Ok(Some(why));
    }
    // Only a database that was a cluster's when the backup began ends with its cluster.
    let label = |key: &str| backup.labels().get(key).filter(|value| !value.is_empty());
    let (Some(uid), Some(name)) = (label(labels::CLUSTER_UID), label(labels::INSTANCE)) else { return Ok(None) };
    let kind =
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("apps.kubeblocks.io", "v1", "Cluster"), "clusters");
    let api = Api::<DynamicObject>::namespaced_with(ctx.client.clone(), &backup.namespace().unwrap_or_default(), &kind);
    let cluster = match api.get(name).await {
        Ok(cluster) => Some(serde_json::to_value(cluster).unwrap_or_default()),
        Err(kube::Error::Api(answer)) if answer.code == 404 => {
            // A kind that is not served has no clusters that could be over.
            let is_served = answer.details.as_ref().is_some_and(|details| !details.name.is_empty());
            if !is_served {
                return Ok(None);
            }
            None
        }
        Err(error) => return Err(error).doing(|| format!("reading Cluster {name}")),
    };
    Ok(decide::cluster_is_over(cluster.as_ref(), name, uid))
}

/// What the archivers are made from, as it is now.
#[derive(Debug)]
pub struct Ground {
    /// The status with method, encryption and targets as they are now.
    pub status: BackupStatus,
    /// What was read for the pods.
    pub ingredients: Ingredients,
    /// The schedule's expression.
    pub cron: String,
    /// For each target, why it has no pod to archive.
    pub missing: Vec<Option<Missing>>,
}

/// A target without a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// In words.
    pub why: String,
    /// Whether there is none at all, so that the archiver has nothing to do.
    pub gone: bool,
}

/// Reads what the archivers of a started backup rest on. The repository need not be Ready: the mover will tell.
///
/// # Errors
/// [`Error::Refused`] when something is missing or unfit, else those of the API server.
pub async fn ground(ctx: &Context, backup: &Backup, status: &BackupStatus) -> Result<Ground, Error> {
    let namespace = backup.namespace().unwrap_or_default();
    let policy = common::policy(ctx, backup, &namespace).await?;
    let method = common::method(&policy, backup)?;
    let action_set = common::action_set(ctx, &method).await?;
    common::supported(&method, &action_set)?;
    let (several, wanted) = common::effective_targets(&policy, &method)?;
    let (_, schedule) = schedule(ctx, backup).await?;
    let entries = schedule.map(|schedule| schedule.spec.schedules).unwrap_or_default();
    let of_method = |enabled: bool| {
        entries.iter().find(|entry| entry.backup_method == method.name && (entry.enabled == Some(true)) == enabled)
    };
    let cron = of_method(true).or_else(|| of_method(false)).map(|entry| entry.cron_expression.clone());

    let mut status = status.clone();
    status.encryption_config.clone_from(&policy.spec.encryption_config);
    let ((), access) = try_join(
        common::check_encryption(ctx, &namespace, status.encryption_config.as_ref()),
        common::access(ctx, &status),
    )
    .await?;
    let recorded = |name: Option<&String>| {
        plan::targets(&status)
            .iter()
            .find(|chosen| chosen.target.name.as_ref() == name)
            .map(|chosen| chosen.selected_target_pods.clone())
            .unwrap_or_default()
    };
    let chosen = join_all(wanted.iter().map(|target| {
        let recorded = recorded(target.name.as_ref());
        let namespace = &namespace;
        async move {
            let (matching, fallback) = common::pods_of(ctx, namespace, target).await?;
            Ok::<_, Error>(select::choose_again(common::strategy(target), &recorded, matching, fallback))
        }
    }))
    .await;
    let mut pods = BTreeMap::new();
    let mut missing = Vec::new();
    let mut targets = Vec::new();
    for (target, chosen) in wanted.into_iter().zip(chosen) {
        let selected = match chosen? {
            Ok(found) => {
                missing.push(None);
                let names: Vec<_> = found.iter().map(kube::ResourceExt::name_any).collect();
                pods.extend(found.into_iter().map(|pod| (pod.name_any(), pod)));
                names
            }
            Err(error) => {
                let gone = matches!(error, SelectError::NoMatch);
                missing.push(Some(Missing { why: common::not_selected(&error, &target).to_string(), gone }));
                recorded(target.name.as_ref())
            }
        };
        targets.push(BackupStatusTarget { target, selected_target_pods: selected });
    }
    (status.target, status.targets) =
        if several { (None, targets) } else { (targets.into_iter().next().map(Box::new), Vec::new()) };
    status.backup_method = Some(Box::new(method));
    let ingredients =
        Ingredients { backoff_limit: policy.spec.backoff_limit(), action_set, access: Some(access), pods };
    Ok(Ground { status, ingredients, cron: cron.unwrap_or_default(), missing })
}

/// The StatefulSets of a backup.
pub fn sets(ctx: &Context, backup: &Backup) -> Vec<Arc<StatefulSet>> {
    let name = backup.name_any();
    let mut sets = ctx.stores.stateful_sets.state();
    sets.retain(|set| set.labels().get(labels::BACKUP_NAME) == Some(&name) && common::is_ours(set.as_ref(), backup));
    sets
}

/// The pod of a StatefulSet of one replica.
pub fn pod(ctx: &Context, set: &StatefulSet) -> Option<Arc<Pod>> {
    let key = ObjectRef::new(&format!("{}-0", set.name_any())).within(&set.namespace().unwrap_or_default());
    let is_its = |pod: &Arc<Pod>| pod.owner_references().iter().any(|owner| Some(&owner.uid) == set.uid().as_ref());
    ctx.stores.pods.get(&key).filter(is_its)
}

/// Whether pods of a backup that is over still run, or end. One that should have ended long ago lies on a node that is
/// gone: nobody waits for its last word.
pub fn has_pods(ctx: &Context, backup: &Backup) -> bool {
    let name = backup.name_any();
    let is_lost = |pod: &Pod| {
        let ends = pod.metadata.deletion_timestamp.as_ref();
        ends.is_some_and(|ends| ctx.now().duration_since(ends.0) > jiff::SignedDuration::from_secs(60))
    };
    let ours = |pod: &Arc<Pod>| pod.namespace() == backup.namespace() && !is_lost(pod);
    ctx.stores.pods.group(&pool::workers_of_backup(&name)).iter().any(ours)
}

/// What the channel of the archiver `set` holds; the outer `None` when there is no channel.
pub fn report(ctx: &Context, backup: &Backup, set: &str) -> Option<Option<String>> {
    let key = ObjectRef::new(&channel::name(set)).within(&backup.namespace().unwrap_or_default());
    let map = ctx.stores.channels.get(&key).filter(|map| common::is_ours(map.as_ref(), backup))?;
    Some(map.data.as_ref().and_then(|data| data.get(channel::KEY)).cloned())
}
