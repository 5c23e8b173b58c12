//! What stands against a restore in place, found out before anything is touched; and what is noted before the workload is
//! stopped.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kbbackup_api::in_place::{self, Exchange, Record};
use kbbackup_api::names::{annotations, labels};
use kbbackup_api::v1alpha1::{Backup, BackupPhase, BackupType, Restore, RestorePhase};
use kbbackup_core::layout;
use kube::ResourceExt as _;

use super::observe;
use crate::backup::plan;
use crate::context::{Context, readable};
use crate::populator::decide::is_bound;
use crate::restore::sets::Set;
use crate::restore::{build, observe as restore_observe, tasks};
use crate::worker::error::{A_WHILE, Error, LONG, Refusal};

/// A claim of the workload, and the one that is filled in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    /// Name of the claim.
    pub(super) claim: String,
    /// Name of the temporary one.
    pub(super) temporary: String,
}

/// The claims of the restore of `set`, by replica.
///
/// # Errors
/// [`Refusal::Fatal`] when the restore's claims are not those of the StatefulSet's pods.
pub(super) fn pairs(restore: &Restore, set: &StatefulSet) -> Result<Vec<Pair>, Refusal> {
    let name = set.name_any();
    let config = restore.spec.prepare_data_config.as_ref();
    let template = config.and_then(|config| config.volume_claims_template.as_ref());
    let alone = config.is_some_and(|config| config.volume_claims.is_empty());
    let Some(template) = template.filter(|template| alone && !template.templates.is_empty()) else {
        return Err(Refusal::fatal("a restore in place fills claims by volumeClaimsTemplate, and no others"));
    };
    let (start, replicas) = in_place::pods(set);
    let wanted = (template.starting_index(), template.replicas);
    if wanted.0 != start || (replicas != 0 && wanted.1 != replicas) {
        return Err(Refusal::fatal(format!(
            "statefulset {name} has {replicas} pods from {name}-{start} on, and the restore fills the claims of {} from \
             ordinal {} on; both must be the same",
            wanted.1, wanted.0
        )));
    }
    let known = set.spec.as_ref().and_then(|spec| spec.volume_claim_templates.as_deref()).unwrap_or_default();
    let mut pairs: Vec<Pair> = Vec::new();
    for replica in 0..build::replicas(restore) {
        for claim in build::claims(restore, replica) {
            let volume = claim.wish.volume.volume_source.as_deref().unwrap_or_default();
            if !known.iter().any(|template| template.name_any() == volume) {
                return Err(Refusal::fatal(format!(
                    "statefulset {name} has no claim template {volume:?}, whose data the restore would bring back"
                )));
            }
            let target = in_place::claim_name(volume, &name, claim.replica.unwrap_or_default());
            pairs.push(Pair { claim: target, temporary: claim.name });
        }
    }
    let all: BTreeSet<_> = pairs.iter().flat_map(|pair| [&pair.claim, &pair.temporary]).collect();
    if all.len() != 2 * pairs.len() {
        return Err(Refusal::fatal("the claims that are filled must have names of their own, none of the workload's"));
    }
    Ok(pairs)
}

/// Looks at everything that a restore in place needs.
///
/// # Errors
/// [`Error::Refused`] with what stands against it, else those of the API server.
pub(in crate::restore) async fn check(ctx: &Context, restore: &Restore, name: &str, sets: &[Set]) -> Result<(), Error> {
    let fills = |set: &Set| tasks::fills(restore, set);
    if !sets.iter().any(fills) {
        return Err(Refusal::fatal(format!(
            "no recipe of backup {} fills volumes, which a restore in place exchanges; restore into new claims",
            restore.spec.backup.name
        ))
        .into());
    }
    if let Some(backup) = sets.iter().find_map(unvouched) {
        return Err(Refusal::fatal(format!(
            "nothing vouches for backup {}: it has no seal; restore it under another name and look at it first",
            backup.name_any()
        ))
        .into());
    }
    let set = observe::set(ctx, restore, name).await?;
    let namespace = restore.namespace().unwrap_or_default();
    let missing = || Refusal::fatal(format!("statefulset {name} does not exist in namespace {namespace}"));
    let set = set.ok_or_else(missing)?;
    if let Some(why) = in_place::obstacle(&set, &observe::scalers(ctx, restore).await?) {
        return Err(Refusal::fatal(why).into());
    }
    let pairs = pairs(restore, &set)?;
    sizes(restore, sets)?;
    for (index, set) in sets.iter().enumerate().filter(|(_, set)| fills(set)) {
        let (has, wanted) = (tasks::prepare(restore, index, set)?.len(), build::replicas(restore));
        if has < wanted {
            return Err(Refusal::fatal(format!(
                "backup {} holds the data of {has} pods, and statefulset {name} has {wanted}; scale it first",
                set.backup.name_any()
            ))
            .into());
        }
    }
    if let Some(other) = rival(ctx, restore, name) {
        return Err(Refusal::fatal(format!("restore {other} takes statefulset {name} back in place as well")).into());
    }
    if let Some(backup) = running_backup(ctx, &namespace, name) {
        return Err(Refusal::fatal(format!(
            "backup {backup} of statefulset {name} is running; wait for its end, or cancel it"
        ))
        .into());
    }
    let temporary = pairs.iter().map(|pair| pair.temporary.clone()).collect();
    if let Some(claim) = restore_observe::existing_claims(ctx, &namespace, &temporary).await?.first() {
        return Err(Refusal::fatal(format!("claim {claim} exists, which the restore would fill; delete it")).into());
    }
    let uid = set.uid().unwrap_or_default();
    let pods = observe::pods(ctx, restore).await?;
    let strangers = pods.iter().filter(|pod| !observe::belongs_to_set(pod, &uid));
    for pod in strangers {
        if let Some(pair) = pairs.iter().find(|pair| observe::uses(pod, |claim| claim == pair.claim)) {
            return Err(Refusal::fatal(format!(
                "claim {} is used by pod {}, which is not of statefulset {name}; delete that pod",
                pair.claim,
                pod.name_any()
            ))
            .into());
        }
    }
    Ok(())
}

/// A backup whose content no seal vouches for. A log is not sealed, and snapshots are their driver's.
fn unvouched(set: &Set) -> Option<&Backup> {
    let sealed = |backup: &&Backup| backup.annotations().get(annotations::SEAL).is_some_and(|seal| !seal.is_empty());
    let continuous = set.action_set.spec.backup_type == BackupType::Continuous;
    let own = (!continuous && !set.uses_snapshots).then_some(&set.backup);
    // What lies below a log is a set of its own, or snapshots.
    let below = set.base.iter().chain(&set.ancestors).filter(|_| !continuous);
    own.into_iter().chain(below).find(|backup| !sealed(backup))
}

/// Data that once needed so much room is not put where there is less.
fn sizes(restore: &Restore, sets: &[Set]) -> Result<(), Refusal> {
    let recorded = sets.iter().find_map(|set| restore_observe::recorded_workload(&set.backup).ok());
    let known = recorded.and_then(|workload| workload.stateful_set.spec?.volume_claim_templates).unwrap_or_default();
    for claim in build::claims(restore, 0) {
        let volume = claim.wish.volume.volume_source.as_deref().unwrap_or_default();
        let Some(template) = known.iter().find(|template| template.name_any() == volume) else { continue };
        let before = template.spec.as_ref().and_then(|spec| storage(spec.resources.as_ref()));
        let now = storage(claim.wish.volume_claim_spec.resources.as_ref());
        let bytes = |size: Option<&str>| size.and_then(layout::parse_size);
        if let (Some(least), Some(size)) = (bytes(before), bytes(now))
            && size < least
        {
            return Err(Refusal::fatal(format!(
                "volume {volume} would have {}, and it had {} when the backup was made",
                now.unwrap_or_default(),
                before.unwrap_or_default()
            )));
        }
    }
    Ok(())
}

fn storage(resources: Option<&k8s_openapi::api::core::v1::VolumeResourceRequirements>) -> Option<&str> {
    resources?.requests.as_ref()?.get("storage").map(|size| size.0.as_str())
}

/// Another restore in place of the same workload: one that runs, or that was there before.
fn rival(ctx: &Context, restore: &Restore, name: &str) -> Option<String> {
    let age = |restore: &Restore| (restore.creation_timestamp(), restore.name_any());
    let all = ctx.stores.restores.state();
    let others = all.iter().filter_map(|guarded| readable(guarded).ok());
    let same = |other: &&Restore| {
        other.uid() != restore.uid()
            && other.namespace() == restore.namespace()
            && in_place::target(other) == Some(name)
    };
    let ahead = |other: &&Restore| match other.status.as_ref().and_then(|status| status.phase) {
        Some(RestorePhase::Running) => true,
        None => age(other) < age(restore),
        Some(_) => false,
    };
    others.filter(same).find(ahead).map(kube::ResourceExt::name_any)
}

/// A backup that reads the workload's pods right now. Archivers run all the time, and go on.
fn running_backup(ctx: &Context, namespace: &str, set: &str) -> Option<String> {
    let mut all = ctx.stores.backups.in_namespace(namespace);
    all.retain(|backup| {
        let phase = backup.status.as_ref().and_then(|status| status.phase);
        matches!(phase, Some(BackupPhase::Running | BackupPhase::InProgress))
    });
    let of_set = |pod: &String| {
        pod.rsplit_once('-').is_some_and(|(name, ordinal)| name == set && ordinal.parse::<u32>().is_ok())
    };
    let reads = |backup: &&Backup| {
        let continuous =
            backup.labels().get(labels::BACKUP_TYPE).is_some_and(|kind| kind == BackupType::Continuous.as_str());
        let status = backup.status.as_ref();
        let targets = status.map(plan::targets).unwrap_or_default();
        !continuous && targets.iter().any(|target| target.selected_target_pods.iter().any(of_set))
    };
    all.iter().find(reads).map(kube::ResourceExt::name_any)
}

/// The note of what is exchanged for what, once the new volumes are filled.
///
/// # Errors
/// [`Error::Refused`] while a new claim has no volume, else those of the API server.
pub(super) async fn record(ctx: &Context, restore: &Restore, name: &str) -> Result<Record, Error> {
    let set = observe::set(ctx, restore, name).await?;
    let set = set.ok_or_else(|| Refusal::fatal(format!("statefulset {name} is gone")))?;
    // Filling may have taken hours.
    if let Some(why) = in_place::obstacle(&set, &observe::scalers(ctx, restore).await?) {
        return Err(Refusal::fatal(why).into());
    }
    if let Some(backup) = running_backup(ctx, &restore.namespace().unwrap_or_default(), name) {
        return Err(
            Refusal::not_yet(LONG, format!("backup {backup} of statefulset {name} runs, and is not stopped")).into()
        );
    }
    let (_, before) = in_place::pods(&set);
    let pairs = pairs(restore, &set)?;
    let filled = i32::try_from(build::replicas(restore)).unwrap_or(1);
    let pod = set.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    let grace = pod.and_then(|pod| pod.termination_grace_period_seconds).unwrap_or(30);
    let mut record = Record {
        grace: grace.unsigned_abs(),
        stateful_set: set.uid().unwrap_or_default(),
        before,
        after: if before == 0 { filled } else { before },
        ..Record::default()
    };
    for pair in pairs {
        let new = observe::claim(ctx, restore, &pair.temporary).await?.filter(is_bound);
        let wait = || Refusal::not_yet(A_WHILE, format!("claim {} has no volume", pair.temporary));
        let new = new.ok_or_else(wait)?;
        let new_volume = observe::volume_name(&new).ok_or_else(wait)?;
        let old = observe::claim(ctx, restore, &pair.claim).await?;
        record.claims.push(exchange(&pair, old.as_ref(), &new, new_volume, &set));
    }
    Ok(record)
}

fn exchange(
    pair: &Pair,
    old: Option<&PersistentVolumeClaim>,
    new: &PersistentVolumeClaim,
    new_volume: String,
    set: &StatefulSet,
) -> Exchange {
    // What the controller of StatefulSets would put on it.
    let selected = set.spec.as_ref().and_then(|spec| spec.selector.match_labels.clone()).unwrap_or_default();
    let foreign = |notes: &BTreeMap<String, String>| -> BTreeMap<String, String> {
        let ours = |key: &str| BINDING.iter().any(|prefix| key.starts_with(prefix)) || key.starts_with("kbbackup.io/");
        notes.iter().filter(|(key, _)| !ours(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    Exchange {
        claim: pair.claim.clone(),
        old_uid: old.and_then(kube::ResourceExt::uid),
        old_volume: old.and_then(observe::volume_name),
        temporary: pair.temporary.clone(),
        temporary_uid: new.uid().unwrap_or_default(),
        new_volume,
        labels: old.map_or(selected, |old| foreign(old.labels())),
        annotations: old.map(|old| foreign(old.annotations())).unwrap_or_default(),
    }
}

/// Beginnings of the annotations by which a claim was bound to its volume.
const BINDING: [&str; 4] =
    ["pv.kubernetes.io/", "volume.kubernetes.io/", "volume.beta.kubernetes.io/", "kubectl.kubernetes.io/"];
