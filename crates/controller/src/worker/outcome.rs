//! What a Job and its pods say about the work: pure, from what the API server showed.

use std::borrow::Borrow;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod};
use kbbackup_core::contract::Report;
use kube::ResourceExt as _;

/// How far a Job is.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// There is no such Job.
    Absent,
    /// It is under way; `obstacle` says what keeps its pod from running, or that an attempt has failed.
    Running {
        /// In words, for people.
        obstacle: Option<String>,
    },
    /// A pod did the work. The pod is missing when it was deleted before we saw its end.
    Succeeded {
        /// That pod.
        pod: Option<Box<Pod>>,
    },
    /// It is given up.
    Failed {
        /// `reason:message` of the Job, and how its newest failed pod ended.
        why: String,
        /// The newest failed pod.
        pod: Option<FailedPod>,
    },
}

/// A pod that failed, for its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedPod {
    /// Its name.
    pub name: String,
    /// The container whose log explains the failure.
    pub container: String,
    /// What that log cannot know: lack of memory, an eviction, the Job's deadline.
    pub cause: Option<String>,
}

impl Outcome {
    /// Judges `job` by itself and by those of `pods` that it controls.
    ///
    /// A pod that has succeeded counts at once: the Job says so up to two seconds later.
    pub fn of<P: Borrow<Pod>>(job: Option<&Job>, pods: &[P]) -> Self {
        let Some(job) = job else { return Self::Absent };
        let mut pods: Vec<&Pod> = pods.iter().map(Borrow::borrow).filter(|pod| is_of(pod, job)).collect();
        pods.sort_by_key(|pod| (pod.creation_timestamp().map(|time| time.0), pod.name_any()));
        if let Some(pod) = pods.iter().find(|pod| phase(pod) == "Succeeded") {
            return Self::Succeeded { pod: Some(Box::new((*pod).clone())) };
        }
        let conditions = job.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let condition =
            |type_: &str| conditions.iter().find(|condition| condition.type_ == type_ && condition.status == "True");
        if condition("Complete").is_some() {
            return Self::Succeeded { pod: None };
        }
        let failed = pods.iter().rev().find(|pod| phase(pod) == "Failed");
        if let Some(condition) = condition("Failed") {
            let (reason, message) = (condition.reason.as_deref(), condition.message.as_deref());
            let mut why = format!("{}:{}", reason.unwrap_or("Failed"), message.unwrap_or_default());
            let deadline = (reason == Some("DeadlineExceeded")).then(|| why.clone());
            if let Some(pod) = failed {
                why.push_str("; ");
                why.push_str(&end(pod));
            }
            let pod = failed.map(|pod| FailedPod {
                name: pod.name_any(),
                container: failed_container(pod),
                cause: from_outside(pod).or(deadline),
            });
            return Self::Failed { why, pod };
        }
        let current = pods.iter().rev().find(|pod| !matches!(phase(pod), "Failed" | "Succeeded"));
        let obstacle = current
            .and_then(|pod| obstacle(pod))
            .or_else(|| failed.map(|pod| format!("{}, another attempt follows", end(pod))));
        Self::Running { obstacle }
    }
}

/// The report that a container of the mover left as its termination message.
///
/// # Errors
/// What is wrong with it, in words.
pub fn report(pod: &Pod, container: &str) -> Result<Report, String> {
    let terminated = statuses(pod).find(|status| status.name == container).and_then(terminated);
    let Some(terminated) = terminated else {
        return Err(format!("container {container} of pod {} left no report", pod.name_any()));
    };
    let message = terminated.message.as_deref().unwrap_or_default();
    serde_json::from_str(message).map_err(|_| {
        let reason = terminated.reason.as_deref().unwrap_or("no reason");
        let code = terminated.exit_code;
        let said = if message.is_empty() { String::new() } else { format!("; it said: {}", short(message)) };
        format!(
            "container {container} of pod {} ended without a report (exit code {code}, {reason}{said})",
            pod.name_any()
        )
    })
}

/// The JSON object that the main container left as its termination message, if it did.
pub fn message(pod: &Pod, container: &str) -> Option<serde_json::Map<String, serde_json::Value>> {
    let terminated = statuses(pod).find(|status| status.name == container).and_then(terminated)?;
    serde_json::from_str(terminated.message.as_deref()?).ok()
}

/// Whether `job` controls `pod`.
pub(super) fn is_of(pod: &Pod, job: &Job) -> bool {
    let uid = job.metadata.uid.as_deref();
    uid.is_some() && pod.owner_references().iter().any(|owner| Some(owner.uid.as_str()) == uid)
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.as_ref();
    let init = status.and_then(|status| status.init_container_statuses.as_deref()).unwrap_or_default();
    init.iter().chain(status.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default())
}

fn terminated(status: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    status.state.as_ref().and_then(|state| state.terminated.as_ref())
}

/// The container whose log explains a failed pod: the main one, unless only another has ended badly.
fn failed_container(pod: &Pod) -> String {
    let status = pod.status.as_ref();
    let main = || status.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default().iter();
    let bad = |status: &&ContainerStatus| terminated(status).is_some_and(|terminated| terminated.exit_code != 0);
    // A reporter that complains does so because the main container had failed.
    let found = main().find(bad).or_else(|| statuses(pod).find(bad)).or_else(|| main().next());
    found.map(|status| status.name.clone()).unwrap_or_default()
}

/// What keeps a pod from running, if it is known.
pub fn obstacle(pod: &Pod) -> Option<String> {
    // Passing states on the way to running are no obstacles.
    const HARMLESS: [&str; 2] = ["PodInitializing", "ContainerCreating"];
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let unschedulable = conditions.iter().find(|condition| {
        condition.type_ == "PodScheduled"
            && condition.status == "False"
            && condition.reason.as_deref() == Some("Unschedulable")
    });
    if let Some(condition) = unschedulable {
        let message = condition.message.as_deref().unwrap_or_default();
        return Some(format!("pod {} cannot be scheduled: {}", pod.name_any(), short(message)));
    }
    statuses(pod).find_map(|status| {
        let ContainerState { waiting: Some(waiting), .. } = status.state.as_ref()? else { return None };
        let reason = waiting.reason.as_deref().filter(|reason| !HARMLESS.contains(reason))?;
        let message = waiting.message.as_deref().unwrap_or_default();
        Some(format!("container {} of pod {}: {reason}: {}", status.name, pod.name_any(), short(message)))
    })
}

/// How a pod was ended from outside, so that its log says nothing about it; `None` when a program of its own failed.
fn from_outside(pod: &Pod) -> Option<String> {
    if pod.status.as_ref().is_some_and(|status| status.reason.is_some()) {
        return Some(end(pod));
    }
    statuses(pod).find_map(|status| {
        let state = terminated(status).filter(|state| state.exit_code != 0)?;
        let reason = state.reason.as_deref().filter(|reason| !matches!(*reason, "Error" | "Completed"))?;
        Some(ended(&status.name, pod, state.exit_code, reason))
    })
}

fn ended(container: &str, pod: &Pod, code: i32, reason: &str) -> String {
    format!("container {container} of pod {} ended with exit code {code} ({reason})", pod.name_any())
}

/// How a failed pod ended: an eviction, lack of memory, an exit code.
fn end(pod: &Pod) -> String {
    let container = failed_container(pod);
    let state = statuses(pod).find(|status| status.name == container).and_then(terminated);
    let status = pod.status.as_ref();
    let name = pod.name_any();
    match (status.and_then(|status| status.reason.as_deref()), state) {
        (Some(reason), _) => match status.and_then(|status| status.message.as_deref()) {
            Some(message) => format!("pod {name} failed ({reason}: {})", short(message)),
            None => format!("pod {name} failed ({reason})"),
        },
        (None, Some(state)) => ended(&container, pod, state.exit_code, state.reason.as_deref().unwrap_or("Error")),
        (None, None) => format!("pod {name} failed"),
    }
}

/// A message of others in one line of bounded length.
pub(super) fn short(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.len() <= 300 { line } else { format!("{}…", &line[..line.floor_char_boundary(300)]) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn job(conditions: Value) -> Job {
        serde_json::from_value(json!({ "metadata": {"name": "j", "uid": "u1"}, "status": {"conditions": conditions} }))
            .unwrap()
    }

    fn pod(name: &str, owner: &str, status: Value) -> Pod {
        let owner = json!({ "apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": owner, "controller": true });
        let created = format!("2026-01-01T00:00:0{}Z", name.len());
        serde_json::from_value(json!({ "metadata":
            {"name": name, "ownerReferences": [owner], "creationTimestamp": created}, "status": status }))
        .unwrap()
    }

    #[test]
    fn a_succeeded_pod_counts_before_the_job_says_so() {
        let pods = [pod("a", "u1", json!({ "phase": "Succeeded" }))];
        assert!(matches!(Outcome::of(Some(&job(json!([]))), &pods), Outcome::Succeeded { pod: Some(_) }));
    }

    #[test]
    fn somebody_elses_pod_does_not_count() {
        let pods = [pod("a", "other", json!({ "phase": "Succeeded" }))];
        assert_eq!(Outcome::of(Some(&job(json!([]))), &pods), Outcome::Running { obstacle: None });
    }

    #[test]
    fn a_complete_job_without_its_pod_is_told_apart() {
        let done = job(json!([{ "type": "Complete", "status": "True" }]));
        assert_eq!(Outcome::of::<Pod>(Some(&done), &[]), Outcome::Succeeded { pod: None });
        assert_eq!(Outcome::of::<Pod>(None, &[]), Outcome::Absent);
    }

    #[test]
    fn a_failed_job_names_its_newest_failed_pod_and_container() {
        let exited = |code| {
            json!({ "phase": "Failed", "containerStatuses": [
            {"name": "backupdata", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": code}}}],
            "initContainerStatuses": [{"name": "manager", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": 1}}}] })
        };
        let failed = job(
            json!([{ "type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "too often" }]),
        );
        let pods = [pod("bb", "u1", exited(1)), pod("a", "u1", exited(1))];
        assert_eq!(
            Outcome::of(Some(&failed), &pods),
            Outcome::Failed {
                why: "BackoffLimitExceeded:too often; container backupdata of pod bb ended with exit code 1 (Error)"
                    .into(),
                pod: Some(FailedPod { name: "bb".into(), container: "backupdata".into(), cause: None })
            }
        );
        let Outcome::Running { obstacle: Some(told) } = Outcome::of(Some(&job(json!([]))), &pods[..1]) else {
            panic!()
        };
        assert_eq!(told, "container backupdata of pod bb ended with exit code 1 (Error), another attempt follows");
    }

    #[test]
    fn behaviour_4_10_a_failed_job_is_told_with_its_cause() {
        let failed =
            job(json!([{ "type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "m" }]));
        let why = |status: Value| match Outcome::of(Some(&failed), &[pod("p", "u1", status)]) {
            Outcome::Failed { why, .. } => why,
            other => panic!("{other:?}"),
        };
        let killed = json!({ "phase": "Failed", "containerStatuses": [{"name": "backupdata", "image": "", "imageID": "",
            "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}] });
        let oom = "BackoffLimitExceeded:m; container backupdata of pod p ended with exit code 137 (OOMKilled)";
        assert_eq!(why(killed.clone()), oom);
        let mut evicted = killed;
        evicted["reason"] = json!("Evicted");
        evicted["message"] = json!("The node was low on resource: memory.");
        let told = "BackoffLimitExceeded:m; pod p failed (Evicted: The node was low on resource: memory.)";
        assert_eq!(why(evicted), told);
        assert_eq!(why(json!({ "phase": "Running" })), "BackoffLimitExceeded:m");
    }

    #[test]
    fn what_keeps_a_pod_from_running_is_named() {
        let waiting = |reason: &str| {
            json!({ "phase": "Pending", "containerStatuses": [
            {"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
             "state": {"waiting": {"reason": reason, "message": "Back-off  pulling"}}}] })
        };
        let told = |status: Value| match Outcome::of(Some(&job(json!([]))), &[pod("p", "u1", status)]) {
            Outcome::Running { obstacle } => obstacle,
            other => panic!("{other:?}"),
        };
        assert_eq!(told(waiting("ContainerCreating")), None);
        assert_eq!(
            told(waiting("ImagePullBackOff")).unwrap(),
            "container c of pod p: ImagePullBackOff: Back-off pulling"
        );
        let unschedulable = json!({ "phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}] });
        assert_eq!(told(unschedulable).unwrap(), "pod p cannot be scheduled: 0/1 nodes");
    }

    #[test]
    fn a_report_is_read_or_its_absence_explained() {
        let ended = |message: Value| {
            pod(
                "p",
                "u1",
                json!({ "phase": "Succeeded", "initContainerStatuses": [
            {"name": "manager", "image": "", "imageID": "", "ready": false, "restartCount": 0,
             "state": {"terminated": {"exitCode": 137, "reason": "Error", "message": message}}}] }),
            )
        };
        assert_eq!(report(&ended(json!(r#"{"version":1,"seal":"d"}"#)), "manager").unwrap().seal.as_deref(), Some("d"));
        let told = report(&ended(json!(null)), "manager").unwrap_err();
        assert_eq!(told, "container manager of pod p ended without a report (exit code 137, Error)");
        assert!(report(&ended(json!("{}")), "other").is_err());
    }
}
