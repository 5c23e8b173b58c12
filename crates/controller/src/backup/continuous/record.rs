//! What a continuous backup leaves of itself in the repository: beside each archiver works the mover and keeps a copy of the
//! Backup object up to date, so that another cluster knows what lies there. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PodSpec, VolumeMount};
use kbbackup_api::v1alpha1::{BackupPhase, BackupStatus};
use kbbackup_core::contract;

use crate::backup::build::{self, Site};
use crate::worker::{env, pod as worker_pod};

/// The documents that the archivers' pods carry for it. They are no reason to start an archiver anew.
pub fn documents(site: &Site<'_>) -> BTreeMap<String, String> {
    build::documents(site.backup, &lasting(site.status))
}

/// What stays the same while the log goes on: the rest comes from the archiver itself.
fn lasting(status: &BackupStatus) -> BackupStatus {
    BackupStatus {
        phase: Some(BackupPhase::Running),
        actions: Vec::new(),
        total_size: None,
        time_range: None,
        extras: Vec::new(),
        expiration: None,
        completion_timestamp: None,
        duration: None,
        failure_reason: None,
        ..status.clone()
    }
}

/// Puts it into the pod of an archiver. It has the repository and what the archiver reports, and no credentials of a database.
pub(in crate::backup) fn attend(site: &Site<'_>, action: &str, pod: &mut PodSpec) {
    let settings = site.settings;
    let mut recorder = build::mover("recorder", vec!["/datasafed".to_owned(), "record".to_owned()], settings);
    recorder.env = Some(site.ours(action).to_vec());
    recorder.env.get_or_insert_default().push(env::var(contract::ENV_INFO_FILE, contract::INFO_FILE));
    let (volume, mount) = worker_pod::downward_volume(&build::files(&documents(site)));
    let shared = worker_pod::mount("manager-shared-volume", contract::MANAGER_DIR);
    recorder.volume_mounts = Some(vec![VolumeMount { read_only: Some(true), ..shared }, mount]);
    // A native side-car outlives the archiver, and so stores its last word too.
    recorder.restart_policy = Some("Always".to_owned());
    recorder.termination_message_policy = Some("FallbackToLogsOnError".to_owned());
    pod.volumes.get_or_insert_default().push(volume);
    pod.init_containers.get_or_insert_default().push(recorder);
}
