//! Errands: what a person has the mover do with a repository, by a Job that only reads. Pure.

use k8s_openapi::api::batch::v1::Job;
use kbbackup_api::errand::{Errand, Task};
use kbbackup_api::names::labels;
use kbbackup_api::v1alpha1::BackupRepo;
use kube::{Resource as _, ResourceExt as _};

use crate::settings::Settings;
use crate::worker::job::{Shell, job};
use crate::worker::repo::Way;
use crate::worker::{RepoAccess, pod};

/// Name of the Job's only container.
const CONTAINER: &str = "errand";
/// How long its log can be read after its end, in seconds.
const KEPT: i32 = 600;

/// What to do about an errand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Its Job does not exist yet.
    Start,
    /// Wait for it.
    Running,
    /// It has ended, well or badly; its log says which.
    Over,
}

pub(super) fn step(job: Option<&Job>) -> Step {
    let Some(job) = job else { return Step::Start };
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let over = |condition: &k8s_openapi::api::batch::v1::JobCondition| {
        condition.status == "True" && matches!(condition.type_.as_str(), "Complete" | "Failed")
    };
    if conditions.iter().any(over) { Step::Over } else { Step::Running }
}

/// Name of the Job; the id is of letters and digits only.
pub(super) fn name(repo: &BackupRepo, id: &str) -> String {
    let uid = repo.metadata.uid.as_deref().unwrap_or_default();
    format!("errand-{}-{id}", uid.get(..8).unwrap_or(uid))
}

/// The Job.
pub(super) fn build(repo: &BackupRepo, errand: &Errand, way: Way, settings: &Settings) -> Job {
    let mut spec = pod::of_mover(CONTAINER, arguments(repo, &errand.task), settings);
    // A backup's list of objects may be longer than memory.
    pod::temporary_files(&mut spec);
    RepoAccess { way, kopia_path: None, encryption: errand.encryption.clone() }.attach(&mut spec);
    let wears = [(labels::BACKUP_REPO_NAME, repo.name_any()), (labels::ERRAND, errand.id.clone())];
    let shell = Shell {
        name: name(repo, &errand.id),
        namespace: settings.manager_namespace.clone(),
        labels: wears.map(|(key, value)| (key.to_owned(), value)).into(),
        owner: repo.controller_owner_ref(&()),
        // Whoever asked reads the log of the one pod, and asks again.
        backoff_limit: 0,
        ..Shell::default()
    };
    let mut errand = job(shell, spec, settings);
    if let Some(spec) = &mut errand.spec {
        spec.ttl_seconds_after_finished = Some(KEPT);
    }
    errand
}

fn arguments(repo: &BackupRepo, task: &Task) -> Vec<String> {
    match task {
        Task::Catalogue { under, brief } => {
            let prefix = format!("/{}", repo.spec.path_prefix.as_deref().unwrap_or_default().trim_matches('/'));
            let under = if under.is_empty() { prefix } else { under.clone() };
            let brief = brief.then(|| "--brief".to_owned());
            ["catalogue".to_owned()].into_iter().chain(brief).chain(["--".to_owned(), under]).collect()
        }
        Task::Verify { path, seal, level } => {
            let seal = seal.iter().map(|seal| format!("--seal={seal}"));
            let words = ["verify".to_owned(), format!("--level={level}")];
            words.into_iter().chain(seal).chain(["--".to_owned(), path.clone()]).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fake::from;
    use crate::worker::settings;

    fn repo() -> BackupRepo {
        from(json!({ "metadata": { "name": "main", "uid": "12345678-9" },
            "spec": { "storageProviderRef": "s3", "pvReclaimPolicy": "Retain", "pathPrefix": "prod/" } }))
    }

    fn errand(task: &serde_json::Value) -> Errand {
        from(json!({ "id": "a1", "task": task }))
    }

    fn arguments_of(task: &serde_json::Value) -> Vec<String> {
        arguments(&repo(), &errand(task).task)
    }

    #[test]
    fn an_errand_is_started_once_and_over_once() {
        let job = |conditions: serde_json::Value| -> Job { from(json!({ "status": { "conditions": conditions } })) };
        assert_eq!(step(None), Step::Start);
        assert_eq!(step(Some(&job(json!([])))), Step::Running);
        assert_eq!(step(Some(&job(json!([{ "type": "Complete", "status": "True" }])))), Step::Over);
        assert_eq!(step(Some(&job(json!([{ "type": "Failed", "status": "True" }])))), Step::Over);
        assert_eq!(step(Some(&job(json!([{ "type": "Failed", "status": "False" }])))), Step::Running);
    }

    #[test]
    fn what_is_asked_for_becomes_a_command_that_only_reads() {
        assert_eq!(arguments_of(&json!({ "catalogue": {} })), ["catalogue", "--", "/prod"]);
        let brief = json!({ "catalogue": { "under": "/prod/demo", "brief": true } });
        assert_eq!(arguments_of(&brief), ["catalogue", "--brief", "--", "/prod/demo"]);
        let verify = json!({ "verify": { "path": "--help", "seal": "ab", "level": "digest" } });
        assert_eq!(
            arguments_of(&verify),
            ["verify", "--level=digest", "--seal=ab", "--", "--help"],
            "a path is never a flag"
        );
    }

    #[test]
    fn the_job_of_an_errand() {
        let way = Way::Tool { secret: "tool-config-main".into() };
        let errand = errand(&json!({ "catalogue": { "brief": true } }));
        insta::assert_yaml_snapshot!(build(&repo(), &errand, way, &settings()));
    }
}
