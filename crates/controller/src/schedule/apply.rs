//! Everything the BackupSchedule controller writes. Names are the same at each try, so every line may be repeated.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{CronJob, Job};
use kbbackup_api::names::{FINALIZER, annotations, labels};
use kbbackup_api::v1alpha1::{Backup, BackupPhase, BackupSchedule};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::events::EventType;
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};

use super::decide::Continuous;
use super::is_ours;
use crate::context::Context;
use crate::error::{is_conflict, is_not_found};
use crate::worker::error::{Doing as _, Error};

/// Who owns what we write.
const MANAGER: &str = "kbbackup/schedule";

/// What the API server refuses for good, in its words.
type Accepted = Result<(), String>;

/// The API of a schedule's siblings.
pub(super) fn api(client: &Client, schedule: &BackupSchedule) -> Api<BackupSchedule> {
    Api::namespaced(client.clone(), &schedule.namespace().unwrap_or_default())
}

/// Labels and annotations to set (`None` removes), if they differ.
pub(super) async fn metadata(
    client: &Client,
    schedule: BackupSchedule,
    own: &BTreeMap<String, String>,
    notes: &BTreeMap<&str, Option<String>>,
) -> Result<BackupSchedule, Error> {
    let own: BTreeMap<_, _> = own.iter().filter(|(key, value)| schedule.labels().get(*key) != Some(value)).collect();
    let has = |key: &str| schedule.annotations().get(key).map(String::as_str);
    let notes: BTreeMap<_, _> = notes.iter().filter(|(key, value)| has(key) != value.as_deref()).collect();
    if own.is_empty() && notes.is_empty() {
        return Ok(schedule);
    }
    let mut change = json!({ "resourceVersion": schedule.resource_version() });
    if !own.is_empty() {
        change["labels"] = json!(own);
    }
    if !notes.is_empty() {
        change["annotations"] = json!(notes);
    }
    let patch = Patch::Merge(json!({ "metadata": change }));
    let written = api(client, &schedule).patch(&schedule.name_any(), &params(), &patch).await;
    written.doing(|| "writing the schedule's labels and annotations".to_owned())
}

fn params() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() }
}

/// The CronJob as it should be. One that was made for something else is not touched.
pub(super) async fn cron_job(ctx: &Context, schedule: &BackupSchedule, wanted: &CronJob) -> Result<Accepted, Error> {
    let (name, namespace) = (wanted.name_any(), wanted.namespace().unwrap_or_default());
    let api = Api::<CronJob>::namespaced(ctx.client.clone(), &namespace);
    let found = api.get_opt(&name).await.doing(|| format!("reading cronjob {namespace}/{name}"))?;
    if let Some(found) = &found {
        if !is_ours(found, schedule) {
            return Ok(Err(format!("a cronjob {name} exists that was made for something else; delete it")));
        }
        release_cron_job(&api, found).await?;
        if is_same(found, wanted) {
            return Ok(Ok(()));
        }
    }
    let apply = PatchParams::apply(MANAGER).force();
    let written = api.patch(&name, &apply, &Patch::Apply(wanted)).await;
    accepted(written.map(drop), || format!("writing cronjob {namespace}/{name}"))
}

/// Whether `found` has everything that `wanted` says. What the API server adds by itself does not count.
fn is_same(found: &CronJob, wanted: &CronJob) -> bool {
    let value = |cron_job: &CronJob| serde_json::to_value(cron_job).unwrap_or_default();
    contains(&value(found), &value(wanted))
}

fn contains(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => wanted.iter().all(|(key, value)| {
            let empty =
                value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(serde_json::Map::is_empty);
            found.get(key).map_or(empty, |found| contains(found, value))
        }),
        (Value::Array(found), Value::Array(wanted)) => {
            found.len() == wanted.len() && found.iter().zip(wanted).all(|(found, wanted)| contains(found, wanted))
        }
        _ => found == wanted,
    }
}

/// Takes off the finalizer that the reference puts on CronJobs: nobody else would, and the owner reference is enough.
async fn release_cron_job(api: &Api<CronJob>, found: &CronJob) -> Result<(), Error> {
    if found.finalizers().iter().all(|name| name != FINALIZER) {
        return Ok(());
    }
    let others: Vec<_> = found.finalizers().iter().filter(|name| *name != FINALIZER).collect();
    let patch = json!({ "metadata": { "resourceVersion": found.resource_version(), "finalizers": others } });
    let name = found.name_any();
    match api.patch_metadata(&name, &params(), &Patch::Merge(patch)).await {
        Err(error) if !is_not_found(&error) => Err(error).doing(|| format!("releasing cronjob {name}")),
        _ => Ok(()),
    }
}

/// Deletes a CronJob with its Jobs, in the background.
pub(super) async fn delete_cron_job(ctx: &Context, cron_job: &CronJob) -> Result<(), Error> {
    let (name, namespace) = (cron_job.name_any(), cron_job.namespace().unwrap_or_default());
    let api = Api::<CronJob>::namespaced(ctx.client.clone(), &namespace);
    release_cron_job(&api, cron_job).await?;
    let params = DeleteParams {
        preconditions: Some(Preconditions { uid: cron_job.uid(), resource_version: None }),
        ..DeleteParams::background()
    };
    match api.delete(&name, &params).await {
        Err(error) if !is_not_found(&error) && !is_conflict(&error) => {
            Err(error).doing(|| format!("deleting cronjob {namespace}/{name}"))
        }
        _ => Ok(()),
    }
}

/// The Backup of a Job's run, unless it exists.
pub(super) async fn backup(
    ctx: &Context,
    schedule: &BackupSchedule,
    wanted: &Backup,
    job: &Job,
) -> Result<Accepted, Error> {
    let namespace = wanted.namespace().unwrap_or_default();
    let api = Api::<Backup>::namespaced(ctx.client.clone(), &namespace);
    let create = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    let mut wanted = wanted.clone();
    // Another run that began in the same second has taken the name: the second try is by a name that nobody else has.
    for suffix in ["", kbbackup_core::names::uid8(&job.uid().unwrap_or_default())] {
        if !suffix.is_empty() {
            wanted.metadata.name = Some(kbbackup_core::names::shorten63(&format!("{}-{suffix}", wanted.name_any())));
        }
        let name = wanted.name_any();
        match api.create(&create, &wanted).await {
            Ok(_) => {
                let note = format!("created backup {name}");
                ctx.event(schedule, EventType::Normal, "CreatedBackup", note).await;
                return Ok(Ok(()));
            }
            Err(error) if is_conflict(&error) => {
                let found = api.get_metadata_opt(&name).await.doing(|| format!("reading backup {namespace}/{name}"))?;
                if found.is_some_and(|found| found.labels().get(labels::SCHEDULED_BY) == job.uid().as_ref()) {
                    return Ok(Ok(()));
                }
            }
            Err(error) => return accepted(Err(error), || format!("creating backup {namespace}/{name}")),
        }
    }
    Ok(Err(format!("backup {} exists already and was made by something else", wanted.name_any())))
}

/// Lets the Job of a run go on to its end.
pub(super) async fn release(ctx: &Context, job: &Job) -> Result<(), Error> {
    let (name, namespace) = (job.name_any(), job.namespace().unwrap_or_default());
    let api = Api::<Job>::namespaced(ctx.client.clone(), &namespace);
    let patch = Patch::Merge(json!({ "metadata": { "uid": job.uid() }, "spec": { "suspend": false } }));
    match api.patch(&name, &params(), &patch).await {
        // Gone, or another one of that name by now.
        Err(error) if !is_not_found(&error) && !is_conflict(&error) => {
            Err(error).doing(|| format!("releasing job {namespace}/{name}"))
        }
        _ => Ok(()),
    }
}

/// Behaviour 5.3: the Backup of a continuous entry.
pub(super) async fn continuous(ctx: &Context, schedule: &BackupSchedule, wish: Continuous) -> Result<Accepted, Error> {
    let Continuous { backup: wanted, create, restart } = wish;
    let (name, namespace) = (wanted.name_any(), wanted.namespace().unwrap_or_default());
    let api = Api::<Backup>::namespaced(ctx.client.clone(), &namespace);
    let Some(found) = api.get_opt(&name).await.doing(|| format!("reading backup {namespace}/{name}"))? else {
        if !create {
            return Ok(Ok(()));
        }
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let created = match api.create(&params, &wanted).await {
            Err(error) if is_conflict(&error) => return Ok(Ok(())),
            other => other,
        };
        if created.is_ok() {
            let note = format!("created continuous backup {name}");
            ctx.event(schedule, EventType::Normal, "CreatedBackup", note).await;
        }
        return accepted(created.map(drop), || format!("creating backup {namespace}/{name}"));
    };
    if found.metadata.deletion_timestamp.is_some() {
        return Ok(Ok(()));
    }
    if found.labels().get(labels::BACKUP_SCHEDULE) != Some(&schedule.name_any()) {
        return Ok(Err(format!("backup {name} exists and does not belong to this schedule; delete it")));
    }
    let own: BTreeMap<_, _> =
        wanted.labels().iter().filter(|(key, value)| found.labels().get(*key) != Some(value)).collect();
    let touched = wanted.annotations().get(annotations::RECONCILE);
    let retention = &wanted.spec.retention_period;
    let differs = !own.is_empty()
        || found.annotations().get(annotations::RECONCILE) != touched
        || found.spec.retention_period != *retention;
    if differs {
        let patch = json!({
            "metadata": { "resourceVersion": found.resource_version(), "labels": own,
                "annotations": { annotations::RECONCILE: touched } },
            "spec": { "retentionPeriod": retention },
        });
        let written = api.patch(&name, &params(), &Patch::Merge(patch)).await;
        if let Err(why) = accepted(written.map(drop), || format!("writing backup {namespace}/{name}"))? {
            return Ok(Err(why));
        }
    }
    if restart && found.status.as_ref().and_then(|status| status.phase) == Some(BackupPhase::Completed) {
        let patch = json!({ "status": { "phase": BackupPhase::Running, "failureReason": null } });
        let written = api.patch_status(&name, &params(), &Patch::Merge(patch)).await;
        return accepted(written.map(drop), || format!("restarting backup {namespace}/{name}"));
    }
    Ok(Ok(()))
}

/// Tells what the API server will refuse again from what may go well the next time.
fn accepted(written: kube::Result<()>, story: impl FnOnce() -> String) -> Result<Accepted, Error> {
    match written {
        Ok(()) => Ok(Ok(())),
        Err(kube::Error::Api(status)) if matches!(status.code, 400 | 403 | 422) => {
            Ok(Err(format!("{} was refused by the API server: {}", story(), status.message)))
        }
        Err(error) => Err(error).doing(story),
    }
}
