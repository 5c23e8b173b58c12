//! The pre-check: a Job that writes to the repository, reads it back and removes it. Pure.

use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kbbackup_api::conditions::{self, BackupRepoCondition, ConditionStatus};
use kbbackup_api::names::{annotations, labels};
use kbbackup_api::v1alpha1::BackupRepo;
use kbbackup_core::contract::Report;
use kube::{Resource as _, ResourceExt as _};

use super::build;
use crate::settings::Settings;
use crate::worker::job::{BACKOFF_LIMIT, Shell, job};
use crate::worker::repo::Way;
use crate::worker::{Outcome, RepoAccess, outcome, pod};

/// Name of the Job's only container.
const CONTAINER: &str = "pre-check";
/// A check that has not come to an end by then has failed, in seconds.
const DEADLINE: i64 = 15 * 60;
/// Longest part of a message that quotes somebody else, in bytes.
const QUOTE: usize = 4096;
/// Causes in a report that another attempt cannot change.
const FINAL: [&str; 4] = ["AccessDenied", "NoSuchBucket", "WrongRegion", "ClockSkew"];

/// What to do about the pre-check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It has come to an end for these parameters, and nobody asked for another one.
    Settled,
    /// What is there belongs to other parameters or to an older request: remove it first.
    Clear,
    /// Start it.
    Start,
    /// It is under way; the text says what holds it up.
    Running(Option<String>),
    /// The repository works.
    Passed,
    /// It does not; why, in words.
    Failed(String),
}

/// What the check is for: these parameters, and this request of a person if there is one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) digest: &'a str,
    pub(super) request: Option<&'a str>,
}

/// The request of a person to check again, if the repository carries one that was not answered yet.
pub(super) fn request(repo: &BackupRepo) -> Option<&str> {
    let asked = repo.annotations().get(annotations::CHECK_REQUESTED_AT).filter(|asked| !asked.is_empty())?;
    (repo.annotations().get(annotations::CHECKED_AT) != Some(asked)).then_some(asked)
}

pub(super) fn step(conditions: &[Condition], wanted: Wanted<'_>, check: Option<&Job>, pods: &[Arc<Pod>]) -> Step {
    let result = conditions::find(conditions, BackupRepoCondition::PreCheckPassed.as_str());
    let settled = result.is_some_and(|condition| condition.status != ConditionStatus::Unknown.as_str());
    if settled && wanted.request.is_none() {
        return Step::Settled;
    }
    let Some(check) = check else { return Step::Start };
    if check.metadata.deletion_timestamp.is_some() {
        return Step::Running(Some("the previous check is being removed".into()));
    }
    let mark = |key: &str| check.annotations().get(key).map(String::as_str);
    if mark(annotations::BACKUP_REPO_DIGEST) != Some(wanted.digest)
        || mark(annotations::CHECK_REQUESTED_AT) != wanted.request
    {
        return Step::Clear;
    }
    let mine =
        |pod: &&Arc<Pod>| pod.owner_references().iter().any(|owner| Some(&owner.uid) == check.metadata.uid.as_ref());
    let reports: Vec<Report> =
        pods.iter().filter(mine).filter_map(|pod| outcome::report(pod, CONTAINER).ok()).collect();
    let hopeless = reports.iter().find(|report| report.cause.as_deref().is_some_and(|cause| FINAL.contains(&cause)));
    match (Outcome::of(Some(check), pods), hopeless) {
        (Outcome::Succeeded { .. }, _) => Step::Passed,
        (Outcome::Failed { .. } | Outcome::Running { .. }, Some(report)) => Step::Failed(told(report)),
        (Outcome::Failed { why, .. }, None) => Step::Failed(match reports.last() {
            Some(report) => told(report),
            None => last_words(pods).map_or_else(|| why.clone(), |words| format!("{why}\n{words}")),
        }),
        (Outcome::Running { obstacle }, None) => Step::Running(match reports.last() {
            Some(report) => Some(format!("{}; trying again", told(report))),
            None => obstacle,
        }),
        (Outcome::Absent, _) => Step::Start,
    }
}

fn told(report: &Report) -> String {
    let error = report.error.as_deref().unwrap_or("no reason given");
    match report.cause.as_deref() {
        Some(cause) if !error.contains(cause) => format!("{cause}: {error}"),
        _ => error.to_owned(),
    }
}

/// What the newest pod said that left no report: the end of its log, which Kubernetes put into the message.
fn last_words(pods: &[Arc<Pod>]) -> Option<String> {
    let newest = pods.iter().max_by_key(|pod| pod.creation_timestamp().map(|time| time.0))?;
    let statuses = newest.status.as_ref()?.container_statuses.as_ref()?;
    let message = statuses.iter().find_map(|status| status.state.as_ref()?.terminated.as_ref()?.message.clone())?;
    let indented = message.lines().flat_map(|line| ["  ", line, "\n"]).collect();
    Some(quote(indented))
}

/// The condition's message when the check failed.
pub(super) fn explain(why: &str, not_given: &[String], events: &[Event]) -> String {
    let mut text = format!("the repository could not be written and read back: {why}");
    if !not_given.is_empty() {
        text.push_str("\nparameters that the provider requires and that are not given: ");
        text.push_str(&not_given.join(", "));
    }
    let mut told = String::new();
    for event in events.iter().filter(|event| event.type_.as_deref() != Some("Normal")) {
        let object = event.involved_object.kind.as_deref().unwrap_or_default();
        let (reason, message) = (event.reason.as_deref(), event.message.as_deref());
        told.extend(["  ", object, " ", reason.unwrap_or_default(), ": ", message.unwrap_or_default(), "\n"]);
    }
    if !told.is_empty() {
        text.push_str("\nevents:\n");
        text.push_str(&quote(told));
    }
    text.truncate(text.trim_end().len());
    text
}

fn quote(mut text: String) -> String {
    if text.len() > QUOTE {
        text.truncate(text.floor_char_boundary(QUOTE));
        text.push_str("[truncated]");
    }
    text
}

/// The Job. `name` is also that of the Secret or claim that it uses.
pub(super) fn build(repo: &BackupRepo, name: &str, wanted: Wanted<'_>, way: Way, settings: &Settings) -> Job {
    let prefix = format!("/{}", repo.spec.path_prefix.as_deref().unwrap_or_default().trim_matches('/'));
    let mut spec = pod::of_mover(CONTAINER, vec!["check".to_owned(), prefix], settings);
    RepoAccess { way, kopia_path: None, encryption: None }.attach(&mut spec);
    let shell = Shell {
        name: name.to_owned(),
        namespace: settings.manager_namespace.clone(),
        labels: [(labels::BACKUP_REPO_NAME.to_owned(), repo.name_any())].into(),
        owner: repo.controller_owner_ref(&()),
        backoff_limit: BACKOFF_LIMIT,
        ..Shell::default()
    };
    let mut check = job(shell, spec, settings);
    let marks = build::pre_check_meta(repo, name, &settings.manager_namespace, wanted.digest, wanted.request);
    check.metadata.annotations = marks.annotations;
    if let Some(spec) = &mut check.spec {
        // Also what wakes us when nothing else happens, an image that cannot be pulled for example.
        spec.active_deadline_seconds = Some(DEADLINE);
    }
    check
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use kbbackup_api::conditions::BackupRepoReason;
    use serde_json::{Value, json};

    use super::*;
    use crate::worker::settings;

    const WANTED: Wanted<'_> = Wanted { digest: "d1", request: None };

    fn unknown() -> Vec<Condition> {
        with(ConditionStatus::Unknown, BackupRepoReason::DigestChanged)
    }

    fn with(status: ConditionStatus, reason: BackupRepoReason) -> Vec<Condition> {
        let now = Time(jiff::Timestamp::UNIX_EPOCH);
        vec![conditions::new(BackupRepoCondition::PreCheckPassed, status, reason, "", None, now)]
    }

    fn check(annotations: &Value, status: &Value) -> Job {
        let metadata = json!({ "name": "pre-check", "uid": "u", "annotations": annotations });
        serde_json::from_value(json!({ "metadata": metadata, "status": status })).unwrap()
    }

    fn current(status: &Value) -> Job {
        check(&json!({ annotations::BACKUP_REPO_DIGEST: "d1" }), status)
    }

    fn ended(message: &str) -> Vec<Arc<Pod>> {
        let owner =
            json!([{ "apiVersion": "batch/v1", "kind": "Job", "name": "pre-check", "uid": "u", "controller": true }]);
        let state = json!({ "terminated": { "exitCode": 1, "message": message } });
        let container = json!({ "name": "pre-check", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state });
        let pod = json!({ "metadata": { "name": "p", "ownerReferences": owner, "creationTimestamp": "2026-01-01T00:00:00Z" },
            "status": { "phase": "Failed", "containerStatuses": [container] } });
        vec![Arc::new(serde_json::from_value(pod).unwrap())]
    }

    fn failed() -> Value {
        json!({ "conditions": [{ "type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "too often" }] })
    }

    #[test]
    fn behaviour_1_7_a_check_is_started_once_and_settled_once() {
        assert_eq!(step(&[], WANTED, None, &[]), Step::Start);
        assert_eq!(step(&unknown(), WANTED, Some(&current(&json!({}))), &[]), Step::Running(None));
        for (status, reason) in [
            (ConditionStatus::True, BackupRepoReason::PreCheckPassed),
            (ConditionStatus::False, BackupRepoReason::PreCheckFailed),
        ] {
            assert_eq!(step(&with(status, reason), WANTED, None, &[]), Step::Settled);
        }
    }

    #[test]
    fn behaviour_1_7_a_check_for_other_parameters_is_cleared() {
        let old = check(&json!({ annotations::BACKUP_REPO_DIGEST: "d0" }), &failed());
        assert_eq!(step(&unknown(), WANTED, Some(&old), &[]), Step::Clear);
    }

    #[test]
    fn a_request_runs_a_settled_check_again() {
        let passed = with(ConditionStatus::True, BackupRepoReason::PreCheckPassed);
        let asked = Wanted { request: Some("t2"), ..WANTED };
        assert_eq!(step(&passed, asked, None, &[]), Step::Start);
        assert_eq!(step(&passed, asked, Some(&current(&json!({}))), &[]), Step::Clear);
        let mine = check(
            &json!({ annotations::BACKUP_REPO_DIGEST: "d1", annotations::CHECK_REQUESTED_AT: "t2" }),
            &json!({ "conditions": [{ "type": "Complete", "status": "True" }] }),
        );
        assert_eq!(step(&passed, asked, Some(&mine), &[]), Step::Passed);
    }

    #[test]
    fn an_answered_request_is_none() {
        let mut repo = BackupRepo::default();
        assert_eq!(request(&repo), None);
        repo.annotations_mut().insert(annotations::CHECK_REQUESTED_AT.into(), "t2".into());
        assert_eq!(request(&repo), Some("t2"));
        repo.annotations_mut().insert(annotations::CHECKED_AT.into(), "t2".into());
        assert_eq!(request(&repo), None);
    }

    #[test]
    fn what_cannot_get_better_fails_at_the_first_attempt() {
        let denied = ended(r#"{"version":1,"cause":"AccessDenied","error":"bucket b refuses us"}"#);
        assert_eq!(
            step(&unknown(), WANTED, Some(&current(&json!({}))), &denied),
            Step::Failed("AccessDenied: bucket b refuses us".into())
        );
        let unreachable = ended(r#"{"version":1,"cause":"Unreachable","error":"no answer from s3.example"}"#);
        assert_eq!(
            step(&unknown(), WANTED, Some(&current(&json!({}))), &unreachable),
            Step::Running(Some("Unreachable: no answer from s3.example; trying again".into()))
        );
        assert_eq!(
            step(&unknown(), WANTED, Some(&current(&failed())), &unreachable),
            Step::Failed("Unreachable: no answer from s3.example".into())
        );
    }

    #[test]
    fn without_a_report_the_end_of_the_log_is_told() {
        let told = step(&unknown(), WANTED, Some(&current(&failed())), &ended("exec format error"));
        assert_eq!(told, Step::Failed("BackoffLimitExceeded:too often; container pre-check of pod p ended with exit code 1 (Error)\n  exec format error\n".into()));
    }

    #[test]
    fn behaviour_1_7_a_failure_names_what_was_not_given_and_quotes_warnings() {
        let event: Event =
            serde_json::from_value(json!({ "metadata": {}, "type": "Warning", "reason": "ProvisioningFailed",
            "message": "no such class", "involvedObject": { "kind": "PersistentVolumeClaim" } }))
            .unwrap();
        insta::assert_snapshot!(explain("DeadlineExceeded:too long", &["bucket".into()], &[event]));
    }

    #[test]
    fn behaviour_1_7_a_condition_s_message_stays_below_its_limit() {
        let event = |index: usize| -> Event {
            let message = format!("{index} {}", "é".repeat(3000));
            serde_json::from_value(json!({ "metadata": {}, "type": "Warning", "reason": "R", "message": message,
                "involvedObject": { "kind": "Pod" } }))
            .unwrap()
        };
        let Step::Failed(why) = step(&unknown(), WANTED, Some(&current(&failed())), &ended(&"é".repeat(9000))) else {
            panic!("not failed")
        };
        let message = explain(&why, &[], &(0..40).map(event).collect::<Vec<_>>());
        assert!(message.len() <= 32_768, "{}", message.len());
        assert_eq!(message.matches("[truncated]").count(), 2, "the log and the events, each");
    }

    #[test]
    fn behaviour_1_7_job() {
        let repo: BackupRepo = serde_json::from_value(json!({ "metadata": {"name": "main", "uid": "12345678-9"},
            "spec": { "storageProviderRef": "s3", "accessMethod": "Tool", "pvReclaimPolicy": "Retain", "pathPrefix": "prod/eu1/" } }))
        .unwrap();
        let asked = Wanted { digest: "d1", request: Some("2026-01-02T03:04:05Z") };
        let way = Way::Tool { secret: "pre-check-12345678-main".into() };
        insta::assert_yaml_snapshot!(build(&repo, "pre-check-12345678-main", asked, way, &settings()));
    }
}
