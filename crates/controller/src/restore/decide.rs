//! The steps of a restore: pure. A step is a list of Jobs; all of one step end before the next begins.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kbbackup_api::conditions::{self, ConditionStatus, RestoreCondition, RestoreReason};
use kbbackup_api::v1alpha1::{Restore, RestoreActionPhase, RestorePhase, RestoreStatus, RestoreStatusAction};
use kbbackup_core::gotime;
use kube::ResourceExt as _;

use crate::backup::decide::stamp;
use crate::worker::Outcome;

/// One Job of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Name in `status.actions`.
    pub name: String,
    /// The backup that it restores from.
    pub backup: String,
    /// Name of the Job.
    pub job: String,
    /// What the Job does.
    pub work: Work,
}

/// What a Job of a restore does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Fills the claims of one replica.
    Prepare {
        /// Index of the set.
        set: usize,
        /// Index of the replica.
        replica: usize,
        /// Whose data it gets, when the backup keeps pods apart.
        source: Option<String>,
    },
    /// A `postReady` entry.
    PostReady {
        /// Index of the set.
        set: usize,
        /// Index of the entry.
        entry: usize,
        /// Index of the pod it works for.
        pod: usize,
    },
}

impl Task {
    /// Key in `status.actions`.
    pub fn key(&self) -> String {
        format!("Job/{}", self.job)
    }
}

/// What is known about a task.
#[derive(Clone, Debug, PartialEq)]
pub struct SeenTask {
    /// How far its Job is.
    pub outcome: Outcome,
    /// The last words of a failed pod.
    pub words: Option<String>,
    /// What the script reported at its end.
    pub reported: Option<String>,
}

/// What a step needs next.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Jobs to create, by index of the task, and what is in the way of those that run.
    Work {
        /// Tasks to start.
        start: Vec<usize>,
        /// Finished Jobs to delete before that, so that their claims are free.
        release: Vec<usize>,
        /// In words, for people.
        obstacle: Option<String>,
    },
    /// Every task is completed.
    Done,
    /// No task is running and one has failed.
    Fail(String),
}

/// Brings the recorded `actions` of a step up to date. With `serial`, one task runs at a time, its success is on record
/// before its Job is released and the next begins, and a failure ends the step; else all run at once and a failure waits
/// for the others.
pub fn step(
    actions: &mut Vec<RestoreStatusAction>,
    tasks: &[Task],
    seen: &[SeenTask],
    serial: bool,
    now: Timestamp,
) -> Next {
    let (mut start, mut release, mut obstacle, mut running, mut failed) = (vec![], vec![], None, false, None);
    for (index, task) in tasks.iter().enumerate() {
        if serial && (running || !start.is_empty() || failed.is_some()) {
            break;
        }
        let recorded = actions.iter().position(|action| action.object_key == task.key());
        let phase = recorded.map(|at| actions[at].status);
        match phase {
            Some(RestoreActionPhase::Completed) => {
                if serial {
                    release.push(index);
                }
                continue;
            }
            Some(RestoreActionPhase::Failed) => {
                failed = failed.or_else(|| recorded.map(|at| failure(&actions[at])));
                continue;
            }
            Some(RestoreActionPhase::Processing) | None => {}
        }
        let Some(seen) = seen.get(index) else { continue };
        let mut action = recorded.map_or_else(|| fresh(task, now), |at| actions[at].clone());
        match &seen.outcome {
            Outcome::Absent => start.push(index),
            Outcome::Running { obstacle: found } => {
                running = true;
                obstacle = obstacle.or_else(|| found.clone());
                action.message.clone_from(found);
            }
            Outcome::Succeeded { .. } => {
                action.status = RestoreActionPhase::Completed;
                action.end_time = Some(stamp(now));
                action.message.clone_from(&seen.reported);
                // Its Job goes and the next begins once this is on record: a Job that is gone and not recorded is one
                // that vanished, and would run again.
                running |= serial && index + 1 < tasks.len();
            }
            Outcome::Failed { why, .. } => {
                action.status = RestoreActionPhase::Failed;
                action.end_time = Some(stamp(now));
                action.message = Some(seen.words.clone().unwrap_or_else(|| why.clone()));
                failed = failed.or_else(|| Some(failure(&action)));
            }
        }
        match recorded {
            Some(at) => actions[at] = action,
            None => actions.push(action),
        }
    }
    if failed.is_none() && (running || !start.is_empty()) {
        return Next::Work { start, release, obstacle };
    }
    match failed {
        // What has not begun does not begin any more; what runs is awaited.
        Some(_) if running => Next::Work { start: vec![], release, obstacle },
        Some(why) => Next::Fail(why),
        None => Next::Done,
    }
}

fn fresh(task: &Task, now: Timestamp) -> RestoreStatusAction {
    RestoreStatusAction {
        name: task.name.clone(),
        backup_name: task.backup.clone(),
        object_key: task.key(),
        message: None,
        status: RestoreActionPhase::Processing,
        start_time: Some(stamp(now)),
        end_time: None,
    }
}

fn failure(action: &RestoreStatusAction) -> String {
    let message = action.message.as_deref().unwrap_or("no reason known");
    format!("action {} ({}) failed: {message}", action.name, action.object_key)
}

/// Sets a condition of a restore.
pub fn condition(
    status: &mut RestoreStatus,
    generation: Option<i64>,
    type_: RestoreCondition,
    holds: bool,
    reason: RestoreReason,
    message: impl Into<String>,
    now: Timestamp,
) {
    let holds = if holds { ConditionStatus::True } else { ConditionStatus::False };
    conditions::set(&mut status.conditions, conditions::new(type_, holds, reason, message, generation, stamp(now)));
}

/// The status of a restore that has come to an end.
pub fn ended(restore: &Restore, mut status: RestoreStatus, phase: RestorePhase, now: Timestamp) -> RestoreStatus {
    let now = stamp(now);
    let begun = status.start_timestamp.clone().or_else(|| restore.creation_timestamp()).unwrap_or_else(|| now.clone());
    status.phase = Some(phase);
    status.duration = Some(gotime::duration(seconds(&begun, &now)));
    status.completion_timestamp = Some(now);
    status
}

fn seconds(from: &Time, to: &Time) -> u64 {
    u64::try_from(to.0.duration_since(from.0).as_secs()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tasks(count: usize) -> Vec<Task> {
        (0..count)
            .map(|replica| Task {
                name: "prepareData-0".into(),
                backup: "b".into(),
                job: format!("job-{replica}"),
                work: Work::Prepare { set: 0, replica, source: None },
            })
            .collect()
    }

    fn seen(outcome: Outcome) -> SeenTask {
        SeenTask { outcome, words: None, reported: None }
    }

    fn running() -> SeenTask {
        seen(Outcome::Running { obstacle: None })
    }

    fn succeeded() -> SeenTask {
        SeenTask { reported: Some("{}".into()), ..seen(Outcome::Succeeded { pod: None }) }
    }

    fn failed() -> SeenTask {
        SeenTask {
            words: Some("Log Collector Output: no".into()),
            ..seen(Outcome::Failed { why: "x".into(), pod: None })
        }
    }

    fn absent() -> SeenTask {
        seen(Outcome::Absent)
    }

    fn now() -> Timestamp {
        Timestamp::from_second(100).unwrap()
    }

    fn work(start: &[usize], release: &[usize]) -> Next {
        Next::Work { start: start.to_vec(), release: release.to_vec(), obstacle: None }
    }

    #[test]
    fn behaviour_6_5_parallel_starts_all_and_awaits_all() {
        let mut actions = Vec::new();
        assert_eq!(step(&mut actions, &tasks(3), &[absent(), absent(), absent()], false, now()), work(&[0, 1, 2], &[]));
        assert_eq!(actions.len(), 3);
        assert_eq!(step(&mut actions, &tasks(3), &[failed(), running(), succeeded()], false, now()), work(&[], &[]));
        let end = step(&mut actions, &tasks(3), &[absent(), succeeded(), absent()], false, now());
        assert_eq!(end, Next::Fail("action prepareData-0 (Job/job-0) failed: Log Collector Output: no".into()));
    }

    #[test]
    fn behaviour_6_5_serial_goes_one_by_one_and_frees_the_claim_first() {
        let mut actions = Vec::new();
        assert_eq!(step(&mut actions, &tasks(2), &[absent(), absent()], true, now()), work(&[0], &[]));
        assert_eq!(step(&mut actions, &tasks(2), &[running(), absent()], true, now()), work(&[], &[]));
        let unrecorded = step(&mut actions, &tasks(2), &[succeeded(), absent()], true, now());
        assert_eq!(unrecorded, work(&[], &[]), "a Job deleted before its success is on record would run again");
        assert_eq!(step(&mut actions, &tasks(2), &[absent(), absent()], true, now()), work(&[1], &[0]));
        assert_eq!(step(&mut actions, &tasks(2), &[absent(), succeeded()], true, now()), Next::Done);
        assert!(actions.iter().all(|action| action.status == RestoreActionPhase::Completed));
    }

    #[test]
    fn behaviour_6_5_serial_ends_at_the_first_failure() {
        let mut actions = Vec::new();
        assert!(matches!(step(&mut actions, &tasks(2), &[failed(), absent()], true, now()), Next::Fail(_)));
        assert_eq!(actions.len(), 1);
    }

    #[test]
    fn a_job_that_vanished_is_started_again_and_keeps_its_start_time() {
        let mut actions = Vec::new();
        step(&mut actions, &tasks(1), &[absent()], false, now());
        let later = Timestamp::from_second(200).unwrap();
        assert_eq!(step(&mut actions, &tasks(1), &[absent()], false, later), work(&[0], &[]));
        assert_eq!(actions[0].start_time, Some(stamp(now())));
    }

    #[test]
    fn a_completed_action_stays_so_without_its_job() {
        let mut actions = Vec::new();
        assert_eq!(step(&mut actions, &tasks(1), &[succeeded()], false, now()), Next::Done);
        assert_eq!(actions[0].message.as_deref(), Some("{}"));
        assert_eq!(step(&mut actions, &tasks(1), &[absent()], false, now()), Next::Done);
    }

    #[test]
    fn nothing_to_do_is_done() {
        assert_eq!(step(&mut Vec::new(), &[], &[], false, now()), Next::Done);
    }
}
