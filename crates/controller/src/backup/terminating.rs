//! The end of a backup whose namespace is being deleted: nothing can be created there any more, and the namespace waits
//! for the backup. The files are removed from the manager namespace instead, and what cannot be removed within a bounded
//! time is told in the log and in a metric: it never keeps a namespace.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Namespace;
use kbbackup_api::names::labels;
use kbbackup_api::v1alpha1::{Backup, BackupRepoPhase, BackupStatus};
use kbbackup_core::names;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client, ResourceExt as _};

use crate::context::Context;
use crate::settings::Settings;
use crate::worker::error::{Doing as _, Error};

/// Value of [`labels::ACTION`] on the Jobs that remove files from the manager namespace.
const ACTION: &str = "delete-files";
/// How long a repository that works may fail to delete.
const PATIENCE: Duration = Duration::from_secs(600);
/// Seconds that a Job stays when it is over.
const LINGERS: i32 = 120;
/// How long one is waited for that is known not to work.
const NOT_READY_PATIENCE: Duration = Duration::from_secs(30);

/// Where the Jobs of a deletion run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    /// In the backup's namespace.
    Home,
    /// In the manager namespace, for the backup's own is being deleted.
    Manager,
    /// Nowhere: the manager namespace itself is being deleted.
    Nowhere,
}

impl Site {
    /// The namespace of the Jobs.
    pub fn namespace(self, backup: &Backup, settings: &Settings) -> String {
        match self {
            Self::Home => backup.namespace().unwrap_or_default(),
            Self::Manager | Self::Nowhere => settings.manager_namespace.clone(),
        }
    }

    /// `job`, made to run here.
    pub fn place(self, mut job: Job, backup: &Backup, settings: &Settings) -> Job {
        if self == Self::Home {
            return job;
        }
        job.metadata.namespace = Some(settings.manager_namespace.clone());
        // Owners do not reach across namespaces: the labels wake the backup, and the Job goes by itself. Removing it would
        // wake a backup that our own store still shows, and make it again for nobody.
        job.metadata.owner_references = None;
        if let Some(spec) = &mut job.spec {
            spec.active_deadline_seconds = i64::try_from(PATIENCE.as_secs()).ok();
            spec.ttl_seconds_after_finished = Some(LINGERS);
        }
        let own = [
            (labels::BACKUP_NAME, backup.name_any()),
            (labels::BACKUP_NAMESPACE, backup.namespace().unwrap_or_default()),
            (labels::ACTION, ACTION.to_owned()),
        ];
        let template = job.spec.as_mut().and_then(|spec| spec.template.metadata.as_mut());
        for meta in [Some(&mut job.metadata), template].into_iter().flatten() {
            let all = meta.labels.get_or_insert_default();
            all.extend(own.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        }
        job
    }
}

/// Where the Jobs of this deletion have to run. A Job that is there already answers without a request.
pub async fn site(ctx: &Context, backup: &Backup) -> Result<Site, Error> {
    let home = backup.namespace().unwrap_or_default();
    let name = names::delete_job(&backup.name_any(), &backup.uid().unwrap_or_default());
    let here = ctx.stores.jobs.get(&ObjectRef::new(&name).within(&home));
    if here.is_some_and(|job| job.metadata.deletion_timestamp.is_none()) {
        return Ok(Site::Home);
    }
    Ok(match is_terminating(&ctx.client, &home).await? {
        false => Site::Home,
        true if home == ctx.settings.manager_namespace => Site::Nowhere,
        true => Site::Manager,
    })
}

/// Whether a namespace is being deleted, or gone.
pub async fn is_terminating(client: &Client, namespace: &str) -> Result<bool, Error> {
    let found = Api::<Namespace>::all(client.clone()).get_metadata_opt(namespace).await;
    let found = found.doing(|| format!("reading namespace {namespace}"))?;
    Ok(found.is_none_or(|found| found.metadata.deletion_timestamp.is_some()))
}

/// Whether a Job removes files from the manager namespace, and is not one of the backup's own actions.
pub fn removes_files(job: &Job) -> bool {
    job.labels().get(labels::ACTION).is_some_and(|action| action == ACTION)
}

/// How much longer a deletion that began at `asked` is tried; `None` when it was long enough.
pub fn patience(asked: Option<Timestamp>, repo_is_ready: bool, now: Timestamp) -> Option<Duration> {
    let whole = if repo_is_ready { PATIENCE } else { NOT_READY_PATIENCE };
    let taken = asked.map_or(Duration::ZERO, |asked| Duration::try_from(now.duration_since(asked)).unwrap_or_default());
    whole.checked_sub(taken).filter(|left| !left.is_zero())
}

/// How much longer this deletion is tried.
pub fn time_left(ctx: &Context, backup: &Backup, status: &BackupStatus) -> Option<Duration> {
    // While no operator ran, nothing was tried.
    let asked = backup.metadata.deletion_timestamp.as_ref().map(|time| time.0.max(ctx.started));
    let repo = status.backup_repo_name.as_deref().unwrap_or_default();
    let repo = ctx.stores.repos.get(&ObjectRef::new(repo));
    let phase = repo.and_then(|repo| repo.0.as_ref().ok()?.status.as_ref()?.phase);
    patience(asked, phase == Some(BackupRepoPhase::Ready), ctx.now())
}

/// Tells what stays behind. An event cannot be created in a namespace that is being deleted.
pub fn leave_behind(ctx: &Context, status: &BackupStatus, why: &str) {
    let path = status.path.as_deref().unwrap_or_default();
    let repo = status.backup_repo_name.as_deref().unwrap_or_default();
    ctx.metrics.left_behind(repo);
    tracing::error!(
        repo,
        path,
        why,
        "the namespace is being deleted and the files of this backup cannot be removed: they stay in the repository; \
         remove them by hand"
    );
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::backup::build;
    use crate::worker::repo::{RepoAccess, Way};
    use crate::worker::settings;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn a_namespace_is_kept_for_a_bounded_time_only() {
        assert_eq!(patience(Some(at(0)), true, at(599)), Some(Duration::from_secs(1)));
        assert_eq!(patience(Some(at(0)), true, at(600)), None);
        assert_eq!(patience(Some(at(0)), false, at(29)), Some(Duration::from_secs(1)));
        assert_eq!(patience(Some(at(0)), false, at(30)), None);
        assert_eq!(patience(Some(at(10)), false, at(0)), Some(NOT_READY_PATIENCE), "a clock that went back");
    }

    #[test]
    fn files_of_a_terminating_namespace_are_removed_from_the_manager_namespace() {
        let backup: Backup = serde_json::from_value(json!({
            "metadata": {"name": "b", "namespace": "demo", "uid": "0a1b2c3d-0000-0000-0000-000000000000"},
            "spec": {"backupPolicyName": "p", "backupMethod": "m"} }))
        .unwrap();
        let status: BackupStatus = serde_json::from_value(json!({ "path": "/demo/b" })).unwrap();
        let access = RepoAccess { way: Way::Tool { secret: "tool".into() }, kopia_path: None, encryption: None };
        let settings = settings();
        let job = build::delete_files(&backup, &status, &access, &settings);
        assert_eq!(Site::Home.place(job.clone(), &backup, &settings), job);
        let moved = Site::Manager.place(job, &backup, &settings);
        assert!(removes_files(&moved));
        assert!(crate::backup::observe::is_ours(&moved, &backup));
        assert_eq!(crate::backup::of_worker(&moved.metadata), Some(ObjectRef::new("b").within("demo")));
        insta::assert_yaml_snapshot!(moved);
    }
}
