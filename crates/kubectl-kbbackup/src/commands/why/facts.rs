//! Everything that the cluster says about a backup or restore. What cannot be read is left out: an answer of less is better
//! than none.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::{batch::v1::Job, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kbbackup_api::{
    names::{annotations, labels},
    v1alpha1::{Backup, BackupPhase, BackupRepo, Restore, RestorePhase},
};
use kube::{Api, ResourceExt, api::ListParams};
use serde::Serialize;

use super::Subject;
use crate::{
    app::{App, list_all},
    commands::repo,
    diagnose, follow,
};

/// Lines of a log that are kept.
const LINES: i64 = 20;

/// How it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum State {
    Good,
    #[default]
    UnderWay,
    Bad,
}

/// A Job and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct JobFact {
    pub name: String,
    pub state: String,
}

/// What is wrong with a container; with the pod itself when no container is named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Trouble {
    pub container: String,
    pub text: String,
}

/// A pod with what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct PodFact {
    pub name: String,
    pub phase: String,
    pub troubles: Vec<Trouble>,
}

/// The last lines of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct LogFact {
    pub pod: String,
    pub container: String,
    pub lines: Vec<String>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub kind: &'static str,
    pub namespace: String,
    pub name: String,
    pub phase: String,
    pub state: State,
    /// Why it failed, in the words of its status.
    pub reason: String,
    /// What the operator waits for or tries again.
    pub waiting_for: String,
    pub conditions: Vec<Condition>,
    /// The repository, and what is wrong with it.
    pub repo: Option<(String, String)>,
    pub operator_missing: bool,
    pub jobs: Vec<JobFact>,
    pub pods: Vec<PodFact>,
    /// Warnings about the object, its Jobs, pods and claims, newest last.
    pub events: Vec<String>,
    pub log: Option<LogFact>,
}

impl Facts {
    pub(super) fn full_name(&self) -> String {
        format!("{}.dataprotection.kubeblocks.io/{}", self.kind.to_lowercase(), self.name)
    }

    pub(super) fn short(&self) -> String {
        format!("{}/{}", self.kind.to_lowercase(), self.name)
    }
}

pub(super) async fn gather(app: &App, subject: &Subject) -> Facts {
    let mut facts = match subject {
        Subject::Backup(backup) => of_backup(backup),
        Subject::Restore(restore) => of_restore(restore),
    };
    let label = if facts.kind == "Backup" { labels::BACKUP_NAME } else { labels::RESTORE };
    let selector = format!("{label}={}", subject.name());
    let params = || ListParams::default().labels(&selector);
    let (jobs_api, namespace) = (app.within::<Job>(&facts.namespace), facts.namespace.clone());
    let (jobs, pods, operator, repo) = tokio::join!(
        list_all(&jobs_api, params(), "jobs"),
        diagnose::pods(app, &namespace, &selector),
        app.operator(),
        repo_of(app, subject)
    );
    let (jobs, pods) = (jobs.unwrap_or_default(), pods.unwrap_or_default());
    facts.operator_missing = matches!(operator, Ok(None));
    facts.repo = repo;
    facts.jobs = jobs.iter().map(|job| JobFact { name: job.name_any(), state: job_state(job) }).collect();
    facts.pods = pods.iter().map(pod_fact).collect();
    let mut about: BTreeSet<String> = pods.iter().map(ResourceExt::name_any).collect();
    about.extend(jobs.iter().map(ResourceExt::name_any));
    about.extend(pods.iter().flat_map(claims));
    about.insert(facts.name.clone());
    let about: Vec<String> = about.into_iter().collect();
    facts.events = diagnose::warnings(app, &namespace, &about).await.unwrap_or_default();
    if facts.state != State::Good {
        facts.log = last_words(&app.within::<Pod>(&namespace), &pods).await;
    }
    facts
}

fn of_backup(backup: &Backup) -> Facts {
    let phase = follow::backup_phase(backup);
    Facts {
        kind: "Backup",
        namespace: backup.namespace().unwrap_or_default(),
        name: backup.name_any(),
        phase: crate::commands::list::shown_status(backup),
        state: match phase {
            Some(BackupPhase::Completed) => State::Good,
            Some(BackupPhase::Failed) => State::Bad,
            _ => State::UnderWay,
        },
        reason: all_reasons(backup),
        waiting_for: backup.annotations().get(annotations::WAITING_FOR).cloned().unwrap_or_default(),
        ..Facts::default()
    }
}

/// Every reason that the status gives, each once: that of the backup, of its actions, and of a deletion that is stuck.
fn all_reasons(backup: &Backup) -> String {
    let Some(status) = &backup.status else { return String::new() };
    let actions = status.actions.iter().filter_map(|action| action.failure_reason.clone());
    let mut reasons: Vec<String> = Vec::new();
    for reason in status.failure_reason.clone().into_iter().chain(actions).chain(status.deletion_failure_reason.clone())
    {
        let reason = reason.trim().to_owned();
        if !reason.is_empty() && !reasons.iter().any(|known| known.contains(&reason)) {
            reasons.push(reason);
        }
    }
    reasons.join("\n")
}

fn of_restore(restore: &Restore) -> Facts {
    let status = restore.status.clone().unwrap_or_default();
    let state = match status.phase {
        Some(RestorePhase::Completed | RestorePhase::AsDataSource) => State::Good,
        Some(RestorePhase::Failed) => State::Bad,
        Some(RestorePhase::Running) | None => State::UnderWay,
    };
    Facts {
        kind: "Restore",
        namespace: restore.namespace().unwrap_or_default(),
        name: restore.name_any(),
        phase: status.phase.map_or_else(|| "New".to_owned(), |phase| phase.to_string()),
        state,
        // While it goes on, conditions that say no are its stages.
        reason: if state == State::Bad { follow::restore_reason(restore) } else { String::new() },
        waiting_for: restore.annotations().get(annotations::WAITING_FOR).cloned().unwrap_or_default(),
        conditions: status.conditions,
        ..Facts::default()
    }
}

/// The repository that is used, with its reason when it is not ready.
async fn repo_of(app: &App, subject: &Subject) -> Option<(String, String)> {
    let name = match subject {
        Subject::Backup(backup) => backup.status.as_ref()?.backup_repo_name.clone()?,
        Subject::Restore(restore) => {
            let of = &restore.spec.backup;
            let backup = app.within::<Backup>(&of.namespace).get_opt(&of.name).await.ok()??;
            backup.status?.backup_repo_name?
        }
    };
    match app.everywhere::<BackupRepo>().get_opt(&name).await.ok()? {
        None => Some((name.clone(), format!("backuprepo {name} does not exist"))),
        Some(one) if repo::is_ready(&one) => None,
        Some(one) => {
            let reason = follow::repo_reason(&one);
            Some((name.clone(), if reason.is_empty() { format!("backuprepo {name} is not ready") } else { reason }))
        }
    }
}

fn job_state(job: &Job) -> String {
    let status = job.status.clone().unwrap_or_default();
    let ended = status.conditions.iter().flatten().find(|condition| {
        condition.status == "True" && matches!(condition.type_.as_str(), "Failed" | "Complete" | "Suspended")
    });
    match ended {
        Some(condition) if condition.type_ == "Failed" => {
            let words = [condition.reason.as_deref(), condition.message.as_deref()];
            format!("failed: {}", words.into_iter().flatten().collect::<Vec<_>>().join(": "))
        }
        Some(condition) => condition.type_.to_lowercase(),
        None if status.active.unwrap_or(0) > 0 => match status.failed.unwrap_or(0) {
            0 => "running".to_owned(),
            failed => format!("running, after {failed} failed"),
        },
        None => "without a pod".to_owned(),
    }
}

fn pod_fact(pod: &Pod) -> PodFact {
    let status = pod.status.clone().unwrap_or_default();
    let told = diagnose::troubles(pod).into_iter();
    let mut troubles: Vec<Trouble> = told.map(|(container, text)| Trouble { container, text }).collect();
    if let Some(reason) = status.reason.filter(|reason| !reason.is_empty()) {
        let text = format!("{reason}: {}", status.message.unwrap_or_default());
        troubles.push(Trouble { container: String::new(), text });
    }
    PodFact { name: pod.name_any(), phase: status.phase.unwrap_or_default(), troubles }
}

/// Claims that a pod mounts.
fn claims(pod: &Pod) -> Vec<String> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| Some(volume.persistent_volume_claim.as_ref()?.claim_name.clone())).collect()
}

/// The log of the newest container that ended badly, else of the one that works.
async fn last_words(api: &Api<Pod>, pods: &[Pod]) -> Option<LogFact> {
    let bad = pods.iter().rev().find(|pod| !diagnose::troubles(pod).is_empty());
    let pod = bad.or_else(|| pods.last())?;
    let troubled = diagnose::troubles(pod).into_iter().map(|(container, _)| container).find(|name| !name.is_empty());
    let container = troubled.or_else(|| diagnose::main_container(pod))?;
    let name = pod.name_any();
    let text = diagnose::tail(api, &name, &container, LINES).await?;
    Some(LogFact { pod: name, container, lines: text.lines().map(str::to_owned).collect() })
}
