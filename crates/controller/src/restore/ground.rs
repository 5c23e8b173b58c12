//! What a restore rests on, and whether it can be done at all.

use std::collections::BTreeSet;

use kbbackup_api::names::annotations;
use kbbackup_api::v1alpha1::{Backup, Restore};
use kube::ResourceExt as _;

use super::decide::Work;
use super::observe::Repo;
use super::sets::{self, Set};
use super::{build, in_place, lineage, observe, tasks, volumes, workload};
use crate::context::Context;
use crate::worker::RepoAccess;
use crate::worker::error::{Error, LONG, Refusal};

/// Everything that a restore rests on.
pub(super) struct Ground {
    /// What is run through, in order.
    pub(super) sets: Vec<Set>,
    /// How the repository of each set is reached.
    pub(super) access: Vec<Option<RepoAccess>>,
    /// The workload to start, if one is asked for.
    pub(super) copy: Option<workload::Copy>,
}

/// Whether the restore can be done at all, and from what.
pub(super) async fn validate(
    ctx: &Context,
    restore: &Restore,
    backup: Backup,
    access: Option<RepoAccess>,
) -> Result<Ground, Error> {
    let started = lineage::has_started(restore);
    let sets = Box::pin(lineage::sets(ctx, restore, &backup)).await?;
    let access = all_access(ctx, restore, &backup, access.as_ref(), &sets).await?;
    let copy = match restore.annotations().get(annotations::RESTORE_WORKLOAD).filter(|name| !name.is_empty()) {
        None => None,
        Some(_) if in_place::target(restore).is_some() => {
            let both = format!("{} and {} exclude each other", annotations::IN_PLACE, annotations::RESTORE_WORKLOAD);
            return Err(Refusal::fatal(both).into());
        }
        Some(name) => {
            // A log may have recorded none; its base has.
            let has_one = |backup: &&Backup| backup.annotations().contains_key(annotations::WORKLOAD);
            let bases = sets.iter().rev().flat_map(|set| std::iter::once(&set.backup).chain(&set.base));
            let of = std::iter::once(&backup).chain(bases).find(has_one).unwrap_or(&backup);
            let recorded = observe::recorded_workload(of)?;
            if !recorded.omitted.is_empty() {
                tracing::warn!(omitted = ?recorded.omitted, "ConfigMaps were too large to be recorded");
            }
            let namespace = restore.namespace().unwrap_or_default();
            let wish = workload::Wish {
                name,
                namespace: &namespace,
                replicas: wanted_replicas(restore, of)?,
                backup: &backup.name_any(),
                restored_by: &super::mark(restore),
            };
            let copy = workload::copy(&recorded, &wish);
            let same_name = recorded.stateful_set.name_any() == *name;
            observe::workload_is_possible(ctx, restore, &copy, &recorded.secrets, same_name).await?;
            Some(copy)
        }
    };
    if !started {
        // All that only an edit could mend is found out now, before anything is touched.
        for (set, (wanted, access)) in sets.iter().zip(&access).enumerate() {
            for task in tasks::prepare(restore, set, wanted)?.into_iter().filter(|_| wanted.prepare_data().is_some()) {
                let Work::Prepare { replica, .. } = task.work else { continue };
                for claim in build::claims(restore, replica) {
                    sets::mount_path(&wanted.backup, claim.wish)?;
                }
            }
            if wanted.uses_snapshots && build::has_claims(restore) {
                volumes::check(ctx, restore, wanted).await?;
            }
            if access.is_none() && needs_repo(wanted) {
                return Err(Refusal::fatal(format!(
                    "backup {} names no repository to restore from",
                    wanted.backup.name_any()
                ))
                .into());
            }
        }
        if let Some(name) = in_place::target(restore) {
            Box::pin(in_place::check(ctx, restore, name, &sets)).await?;
        }
        let names: BTreeSet<String> = all_claims(restore);
        let existing = observe::existing_claims(ctx, &restore.namespace().unwrap_or_default(), &names).await?;
        observe::claims_are_free(ctx, restore, &existing).await?;
    }
    Ok(Ground { sets, access, copy })
}

/// Whether a set has Jobs that read what lies in a repository: snapshots alone do not.
fn needs_repo(set: &Set) -> bool {
    let recipe = set.action_set.spec.restore.as_ref();
    recipe.is_some_and(|recipe| {
        let jobs = || recipe.post_ready.iter().any(|action| action.job.is_some());
        !set.uses_snapshots || recipe.prepare_data.is_some() || jobs()
    })
}

/// The way to the repository of each set: that of the restore's own backup is known, a base may lie elsewhere.
async fn all_access(
    ctx: &Context,
    restore: &Restore,
    backup: &Backup,
    own: Option<&RepoAccess>,
    sets: &[Set],
) -> Result<Vec<Option<RepoAccess>>, Error> {
    let mut all = Vec::with_capacity(sets.len());
    for set in sets {
        if set.backup.name_any() == backup.name_any() {
            all.push(own.cloned());
            continue;
        }
        all.push(match observe::repo(ctx, restore, &set.backup).await? {
            Repo::None => None,
            Repo::Ready(access) => Some(access),
            Repo::Unprepared(repo) => {
                super::ask_for_access(ctx, restore.clone(), &repo).await?;
                let namespace = restore.namespace().unwrap_or_default();
                let why = format!("waiting for the access to BackupRepo {repo} in namespace {namespace}");
                return Err(Refusal::not_yet(LONG, why).into());
            }
        });
    }
    Ok(all)
}

fn wanted_replicas(restore: &Restore, backup: &Backup) -> Result<i32, Refusal> {
    match restore.annotations().get(annotations::REPLICAS).filter(|text| !text.is_empty()) {
        None => Ok(i32::try_from(observe::recorded_pods(backup)).unwrap_or(1)),
        Some(text) => text.parse::<i32>().ok().filter(|replicas| *replicas >= 0).ok_or_else(|| {
            Refusal::fatal(format!("annotation {}={text:?} is not a number of replicas", annotations::REPLICAS))
        }),
    }
}

fn all_claims(restore: &Restore) -> BTreeSet<String> {
    (0..build::replicas(restore)).flat_map(|replica| build::claims(restore, replica)).map(|claim| claim.name).collect()
}
