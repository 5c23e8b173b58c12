//! What a restore runs through, read from the cluster: the backup, its recipe, and the chain, parent or base below it.
//!
//! A store keeps little of a backup that is over, so it only tells which backups there are; those that are chosen are read.

use kbbackup_api::events::EventReason;
use kbbackup_api::names::annotations;
use kbbackup_api::recovery;
use kbbackup_api::v1alpha1::{ActionSet, Backup, BackupType, Restore};
use kbbackup_core::chain::Kind;
use kbbackup_core::pitr;
use kube::runtime::events::EventType;
use kube::{Api, ResourceExt as _};

use super::sets::{self, Set};
use crate::backup::link;
use crate::context::Context;
use crate::worker::error::{A_WHILE, Doing as _, Error, Refusal};
use crate::worker::read;

/// Longest chain that is walked; a longer one is a mistake.
const LONGEST: usize = 1000;

/// Behaviour 6.3 and 6.4: the sets of a restore, with the checks that they need.
///
/// # Errors
/// [`Error::Refused`] when the restore cannot be done, else those of the API server.
pub async fn sets(ctx: &Context, restore: &Restore, backup: &Backup) -> Result<Vec<Set>, Error> {
    let started = has_started(restore);
    if backup.metadata.deletion_timestamp.is_some() && !started {
        return Err(Refusal::fatal(format!("backup {} is being deleted", backup.name_any())).into());
    }
    let recipe = recipe(ctx, backup).await?;
    let takes = recipe.spec.restore.as_ref().map(|restore| restore.with_parameters.as_slice()).unwrap_or_default();
    let schema = recipe.spec.parameters_schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref());
    let given = restore.spec.parameters.iter().map(|pair| (pair.name.as_str(), pair.value.as_str()));
    kbbackup_core::parameters::check(takes, schema, given).map_err(Refusal::fatal)?;
    let type_ = recipe.spec.backup_type;
    sets::usable(backup, type_, started)?;
    match type_ {
        BackupType::Full | BackupType::Selective => Ok(vec![Set::alone(backup.clone(), recipe)]),
        BackupType::Incremental => Ok(vec![with_chain(ctx, backup.clone(), recipe, started).await?]),
        BackupType::Differential => {
            let parent = whole(ctx, backup, sets::parent_name(backup)?, started).await?;
            sets::carries(&parent, backup, started)?;
            let parents = self::recipe(ctx, &parent).await?;
            Ok(vec![Set::alone(parent, parents), Set::alone(backup.clone(), recipe)])
        }
        BackupType::Continuous => Box::pin(continuous(ctx, restore, backup, recipe)).await,
    }
}

/// Whether the restore is under way: then what it rests on is settled.
pub fn has_started(restore: &Restore) -> bool {
    restore.status.as_ref().is_some_and(|status| status.phase.is_some())
}

async fn continuous(ctx: &Context, restore: &Restore, backup: &Backup, recipe: ActionSet) -> Result<Vec<Set>, Error> {
    let started = has_started(restore);
    let base = if started { recorded_base(restore) } else { chosen_base(ctx, restore, backup, &recipe)? };
    let skips = recovery::skips_base(&recipe);
    let own = Set::alone(backup.clone(), recipe);
    let Some(name) = base else { return Ok(vec![own]) };
    let base = whole(ctx, backup, &name, started).await?;
    sets::usable(&base, BackupType::Full, started)?;
    let own = Set { base: Some(base.clone()), ..own };
    if skips {
        if !started {
            let note = format!("the recipe of backup {} brings its base {name} back by itself", backup.name_any());
            ctx.event(restore, EventType::Normal, EventReason::SkipBaseBackupRestoreInPitr.as_str(), note).await;
        }
        return Ok(vec![own]);
    }
    let recipe = self::recipe(ctx, &base).await?;
    let below = match link::link(&base).kind {
        Some(Kind::Incremental) => with_chain(ctx, base, recipe, started).await?,
        _ => Set::alone(base, recipe),
    };
    Ok(vec![below, own])
}

/// The base that was settled when the restore began: it stands before the log itself.
fn recorded_base(restore: &Restore) -> Option<String> {
    let names = restore.annotations().get(annotations::READS)?;
    names.rsplit(',').nth(1).map(str::to_owned)
}

fn chosen_base(
    ctx: &Context,
    restore: &Restore,
    backup: &Backup,
    recipe: &ActionSet,
) -> Result<Option<String>, Refusal> {
    let time = restore.spec.restore_time.as_deref().filter(|text| !text.is_empty());
    let time = time.map(|text| text.parse().map_err(|_| Refusal::fatal(format!("restoreTime {text:?} is no time"))));
    let around = ctx.stores.backups.in_namespace(&backup.namespace().unwrap_or_default());
    let same = around.iter().filter(|other| recovery::same_database(backup, other));
    let bases: Vec<pitr::Base> = same.filter_map(recovery::base).collect();
    let log = recovery::log(backup, recipe).map_err(Refusal::fatal)?;
    let base = pitr::base(&log, &bases, time.transpose()?).map_err(Refusal::fatal)?;
    Ok(base.map(|base| base.name.clone()))
}

/// An incremental backup with everything below it, read one by one.
async fn with_chain(ctx: &Context, backup: Backup, recipe: ActionSet, started: bool) -> Result<Set, Error> {
    let mut below: Vec<Backup> = Vec::new();
    loop {
        let last = below.last().unwrap_or(&backup);
        let parent = link::link(last).parent;
        let seen = parent == backup.name_any() || below.iter().any(|backup| backup.name_any() == parent);
        // What is wrong with a chain is told by the rules, over what was found of it.
        if parent.is_empty() || seen || below.len() == LONGEST {
            break;
        }
        match whole(ctx, &backup, &parent, started).await {
            Ok(parent) => below.push(parent),
            Err(Error::Refused(Refusal::Fatal(_))) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(Set::with_chain(backup, recipe, &below, started)?)
}

/// A backup beside `sibling`, as it is.
async fn whole(ctx: &Context, sibling: &Backup, name: &str, started: bool) -> Result<Backup, Error> {
    let namespace = sibling.namespace().unwrap_or_default();
    let api = Api::<Backup>::namespaced(ctx.client.clone(), &namespace);
    let found = api.get_opt(name).await.doing(|| format!("reading backup {namespace}/{name}"))?;
    let needed = || format!("backup {} needs backup {name}", sibling.name_any());
    match found {
        None => Err(Refusal::fatal(format!("{}, which does not exist", needed())).into()),
        Some(backup) if backup.metadata.deletion_timestamp.is_some() && !started => {
            Err(Refusal::fatal(format!("{}, which is being deleted", needed())).into())
        }
        Some(backup) => Ok(backup),
    }
}

/// The recipe that a backup was made by.
async fn recipe(ctx: &Context, backup: &Backup) -> Result<ActionSet, Error> {
    let name = backup.name_any();
    let method = backup.status.as_ref().and_then(|status| status.backup_method.as_ref());
    let method =
        method.ok_or_else(|| Refusal::fatal(format!("backup {name} records no method, so it has never run")))?;
    if method.snapshot_volumes() && method.action_set_name.as_deref().unwrap_or_default().is_empty() {
        // A snapshot needs no recipe: it is a full backup that its driver restores.
        return Ok(ActionSet::default());
    }
    let set_name = method.action_set_name.as_deref().unwrap_or_default();
    let api = Api::<ActionSet>::all(ctx.client.clone());
    let set = read::find(&ctx.stores.action_sets, &api, set_name, None)
        .await
        .doing(|| format!("reading ActionSet {set_name}"))?;
    let why = || format!("ActionSet {set_name} of backup {name} does not exist");
    Ok(set.ok_or_else(|| Refusal::not_yet(A_WHILE, why()))?)
}
