//! Everything the Backup controller writes. Names are the same at each try, so every line may be repeated.

use std::collections::BTreeMap;

use kbbackup_api::names::FINALIZER;
use kbbackup_api::v1alpha1::{Backup, BackupStatus};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use crate::status;
use crate::worker::error::{Doing as _, Error};

/// Who owns what we write.
pub const MANAGER: &str = "kbbackup/backup";

/// The API of a backup's siblings.
pub fn api(client: &Client, backup: &Backup) -> Api<Backup> {
    Api::namespaced(client.clone(), &backup.namespace().unwrap_or_default())
}

/// Labels and annotations to set (`None` removes), if they differ, and our finalizer when `hold`.
pub async fn metadata(
    client: &Client,
    backup: Backup,
    labels: &BTreeMap<String, String>,
    notes: &BTreeMap<&str, Option<String>>,
    hold: bool,
) -> Result<Backup, Error> {
    let labels: BTreeMap<_, _> =
        labels.iter().filter(|(key, value)| backup.labels().get(*key) != Some(value)).collect();
    // A store shows long annotations empty: what is there with any value and is written once is not written again.
    let notes: BTreeMap<_, _> = notes
        .iter()
        .filter(|(key, value)| backup.annotations().get(**key).map(String::as_str) != value.as_deref())
        .collect();
    let mut finalizers = backup.finalizers().to_vec();
    let held = finalizers.iter().any(|name| name == FINALIZER);
    if labels.is_empty() && notes.is_empty() && (held || !hold) {
        return Ok(backup);
    }
    let mut change = json!({ "resourceVersion": backup.resource_version() });
    if !labels.is_empty() {
        change["labels"] = json!(labels);
    }
    if !notes.is_empty() {
        change["annotations"] = json!(notes);
    }
    if hold && !held {
        finalizers.push(FINALIZER.to_owned());
        change["finalizers"] = json!(finalizers);
    }
    let patch = Patch::Merge(json!({ "metadata": change }));
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    api(client, &backup)
        .patch(&backup.name_any(), &params, &patch)
        .await
        .doing(|| "writing the backup's labels and annotations".to_owned())
}

/// The status, if it differs.
pub async fn publish(client: &Client, backup: Backup, new: &BackupStatus) -> Result<Backup, Error> {
    let written = status::publish(&api(client, &backup), &backup, backup.status.as_ref(), new).await;
    Ok(written.doing(|| "writing the backup's status".to_owned())?.unwrap_or(backup))
}
