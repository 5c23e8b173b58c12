//! What a continuous backup's state is: pure. The clock comes in as `now`, the cluster as what was observed.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kbbackup_api::v1alpha1::{
    ActionPhase, ActionStatus, ActionType, Backup, BackupPhase, BackupSchedule, BackupStatus, BackupTimeRange,
};
use kbbackup_core::contract::{ActionResult, channel};
use kbbackup_core::layout;
use kube::ResourceExt as _;
use serde_json::Value;

use crate::backup::decide::{self, stamp};
use crate::backup::link;
use crate::worker::error::{A_WHILE, Refusal};
use crate::worker::outcome;

/// A container that fails, or has come back, is believed after this time.
const PROOF: Duration = Duration::from_secs(10);

/// How an archiver is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It has run for a while.
    Working,
    /// It cannot be told yet: what was true before stays true. Look again then, if no event comes.
    Settling(Option<Duration>),
    /// There is no pod that could work.
    Idle(String),
    /// A container of its pod fails.
    Failing(String),
}

/// Behaviour 4.9: judges the archiver's pod.
pub fn health(pod: &Pod, now: Timestamp) -> Health {
    let status = pod.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let condition = |type_: &str| conditions.iter().find(|condition| condition.type_ == type_);
    let unproven = |type_: &str| {
        let since = condition(type_).and_then(|condition| condition.last_transition_time.as_ref());
        let age =
            since.map_or(Duration::ZERO, |since| Duration::try_from(now.duration_since(since.0)).unwrap_or_default());
        PROOF.checked_sub(age)
    };
    if pod.metadata.deletion_timestamp.is_some() {
        return Health::Settling(None);
    }
    let initial = status.and_then(|status| status.init_container_statuses.as_deref()).unwrap_or_default();
    let main = status.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    let failing = |list: &[ContainerStatus]| list.iter().find_map(|container| complaint(container, &pod.name_any()));
    let is_initialized = condition("Initialized").is_some_and(|condition| condition.status == "True");
    let judged_by = if is_initialized { "ContainersReady" } else { "Initialized" };
    if let Some(why) = failing(initial).or_else(|| failing(main)) {
        return match unproven(judged_by) {
            None => Health::Failing(why),
            Some(left) => Health::Settling(Some(left + Duration::from_secs(1))),
        };
    }
    if let Some(why) = outcome::obstacle(pod) {
        return Health::Idle(why);
    }
    if condition("ContainersReady").is_some_and(|condition| condition.status == "True") {
        return match unproven("ContainersReady") {
            None => Health::Working,
            Some(left) => Health::Settling(Some(left + Duration::from_secs(1))),
        };
    }
    Health::Settling(None)
}

/// What is wrong with a container, with the last lines of its log if it has died.
fn complaint(container: &ContainerStatus, pod: &str) -> Option<String> {
    let state = container.state.as_ref()?;
    let last = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    let ended = state.terminated.as_ref().filter(|ended| ended.exit_code != 0);
    let waiting =
        state.waiting.as_ref().filter(|waiting| waiting.message.as_ref().is_some_and(|text| !text.is_empty()));
    let (reason, message) = match (waiting, ended) {
        (Some(waiting), _) => (waiting.reason.clone(), waiting.message.clone()),
        (None, Some(ended)) => (ended.reason.clone(), ended.message.clone()),
        (None, None) => return None,
    };
    let code = ended.or(last).map(|ended| format!(", exit code {}", ended.exit_code)).unwrap_or_default();
    let words = ended.or(last).and_then(|ended| ended.message.clone()).filter(|words| !words.trim().is_empty());
    let words = words.or(message).unwrap_or_default();
    let words = words.trim();
    let words = &words[words.ceil_char_boundary(words.len().saturating_sub(512))..];
    Some(format!("container {} of pod {pod} fails ({}{code}): {words}", container.name, reason.unwrap_or_default()))
}

/// What was seen of one target's archiver.
#[derive(Clone, Debug, PartialEq)]
pub struct Archiver {
    /// The action in the status.
    pub name: String,
    /// The pod that it archives.
    pub pod: String,
    /// How it is.
    pub health: Health,
    /// Ready pods of its StatefulSet.
    pub available: i32,
    /// What its channel says, if it ever said something.
    pub report: Option<String>,
}

/// A look at the whole backup.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Look {
    /// What it rests on and lacks.
    pub refusal: Option<Refusal>,
    /// Its archivers.
    pub archivers: Vec<Archiver>,
    /// Targets whose archiver is not to be made yet.
    pub waits: Vec<Wait>,
    /// Since when something has kept it from archiving.
    pub since: Option<Timestamp>,
}

/// Something that must be over before a target is archived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wait {
    /// Index of the target.
    pub target: usize,
    /// What is in its way, in words.
    pub obstacle: Option<String>,
    /// When to look again, if no event comes.
    pub again: Option<Duration>,
}

/// What follows from a look.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The status as it should be.
    pub status: BackupStatus,
    /// What is in the way, in words.
    pub obstacle: Option<String>,
    /// Since when nothing can be archived.
    pub since: Option<Timestamp>,
    /// When to look again at the latest.
    pub again: Option<Duration>,
}

/// Behaviour 4.10 for a backup that goes on: failed as long as one of its archivers is, and running again when all are
/// well. `status` carries the actions as they are to be.
pub fn judge(backup: &Backup, status: &BackupStatus, look: &Look, now: Timestamp) -> Verdict {
    let mut status = status.clone();
    let idle = look.archivers.iter().find_map(|archiver| match &archiver.health {
        Health::Idle(why) => Some(why.clone()),
        _ => None,
    });
    let is_held = idle.is_some() || look.refusal.is_some();
    let since = is_held.then(|| look.since.unwrap_or(now));
    let waited =
        since.map_or(Duration::ZERO, |since| Duration::try_from(now.duration_since(since)).unwrap_or_default());
    let mut again = look
        .archivers
        .iter()
        .filter_map(|archiver| match archiver.health {
            Health::Settling(left) => left,
            _ => None,
        })
        .chain(look.waits.iter().filter_map(|wait| wait.again))
        .min();
    let mut complaints = Vec::new();
    for archiver in &look.archivers {
        let Some(action) = status.actions.iter_mut().find(|action| action.name.as_deref() == Some(&archiver.name))
        else {
            continue;
        };
        complaints.extend(take(action, archiver, waited, now));
    }
    if is_held && waited < A_WHILE {
        let left = A_WHILE.saturating_sub(waited) + Duration::from_secs(1);
        again = Some(again.map_or(left, |again| again.min(left)));
    }
    totals(&mut status, &look.archivers);
    let refused = look.refusal.as_ref().and_then(|refusal| refusal.due(waited));
    let failed = status.actions.iter().find(|action| action.phase == Some(ActionPhase::Failed));
    status.failure_reason = refused.or_else(|| failed.map(decide::failure));
    status.completion_timestamp = None;
    status.duration = None;
    if status.failure_reason.is_some() {
        status.phase = Some(BackupPhase::Failed);
        status.expiration = expiration(backup, &status);
    } else {
        status.phase = Some(BackupPhase::Running);
        status.expiration = None;
    }
    complaints.extend(look.waits.iter().filter_map(|wait| wait.obstacle.clone()));
    let obstacle = look.refusal.as_ref().map(Refusal::to_string).or(idle).or_else(|| complaints.into_iter().next());
    Verdict { status, obstacle, since, again }
}

/// Behaviour 4.12: a continuous backup that is not running counts from its start.
fn expiration(backup: &Backup, status: &BackupStatus) -> Option<Time> {
    let current = Backup { status: Some(status.clone()), ..backup.clone() };
    let from = link::start(&current).or_else(|| backup.creation_timestamp().map(|time| time.0))?;
    // A retention period that cannot be read may be the very reason; then it never expires.
    decide::expiration(backup, from).ok().flatten()
}

/// Brings one action up to date; gives what is wrong with its report.
fn take(action: &mut ActionStatus, archiver: &Archiver, waited: Duration, now: Timestamp) -> Option<String> {
    let fail = match &archiver.health {
        Health::Failing(why) => Some(why.clone()),
        Health::Idle(why) if waited >= A_WHILE => Some(why.clone()),
        Health::Settling(_) | Health::Idle(_) if action.phase == Some(ActionPhase::Failed) => {
            action.failure_reason.clone()
        }
        Health::Working | Health::Settling(_) | Health::Idle(_) => None,
    };
    action.phase = Some(if fail.is_some() { ActionPhase::Failed } else { ActionPhase::Running });
    action.failure_reason = fail;
    action.target_pod_name = (!archiver.pod.is_empty()).then(|| archiver.pod.clone());
    action.available_replicas = Some(archiver.available);
    action.start_timestamp.get_or_insert_with(|| stamp(now));
    action.completion_timestamp = None;
    match archiver.report.as_deref().map(read)? {
        Err(why) => Some(format!("the result file of action {}: {why}", archiver.name)),
        Ok(result) => {
            if result.total_size.is_some() {
                action.total_size.clone_from(&result.total_size);
            }
            let time = |text: &Option<String>| text.as_ref().and_then(|text| text.parse().ok()).map(Time);
            let known = action.time_range.take().unwrap_or_default();
            // What a report leaves out stays as it was, as in a merge patch.
            let range = BackupTimeRange {
                time_zone: result.time_zone.clone().or(known.time_zone),
                start: time(&result.start).or(known.start),
                end: time(&result.end).or(known.end),
            };
            action.time_range = (range != BackupTimeRange::default()).then_some(range);
            None
        }
    }
}

/// Only documented keys, of documented shapes.
fn read(text: &str) -> Result<ActionResult, String> {
    if text.len() > channel::LIMIT {
        return Err(format!("it has {} bytes, more than {}", text.len(), channel::LIMIT));
    }
    if text.trim().is_empty() {
        return Ok(ActionResult::default());
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(info)) => ActionResult::parse(&info).map_err(|error| error.to_string()),
        Ok(_) => Err("it is not a JSON object".to_owned()),
        Err(error) => Err(format!("it is not a JSON object: {error}")),
    }
}

/// Whether an action archives, and does not only prepare that. Others may have recorded theirs without a type.
pub fn archives(action: &ActionStatus) -> bool {
    action.action_type != Some(ActionType::Job)
}

/// The whole backup's size, window and extras. Several archivers deliver together only what each of them has.
fn totals(status: &mut BackupStatus, archivers: &[Archiver]) {
    let sizes: Vec<_> = status.actions.iter().filter_map(|action| action.total_size.clone()).collect();
    status.total_size = match sizes.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        many => Some(many.iter().filter_map(|size| layout::parse_size(size)).sum::<u64>().to_string()),
    };
    let ranges = status.actions.iter().filter(|action| archives(action));
    let ranges: Vec<_> = ranges.map(|action| action.time_range.clone().unwrap_or_default()).collect();
    let all = |part: fn(&BackupTimeRange) -> Option<Time>| ranges.iter().map(part).collect::<Option<Vec<_>>>();
    let range = BackupTimeRange {
        time_zone: ranges.iter().find_map(|range| range.time_zone.clone()),
        start: all(|range| range.start.clone()).and_then(|times| times.into_iter().max()),
        end: all(|range| range.end.clone()).and_then(|times| times.into_iter().min()),
    };
    status.time_range = (range != BackupTimeRange::default()).then_some(range);
    let extras: Vec<_> = archivers
        .iter()
        .filter_map(|archiver| read(archiver.report.as_deref()?).ok())
        .flat_map(|result| result.extras)
        .collect();
    if !extras.is_empty() {
        status.extras = extras;
    }
}

/// The status of a backup whose archiving has ended: behaviour 4.10.2.
pub fn completed(backup: &Backup, status: &BackupStatus, now: Timestamp) -> BackupStatus {
    let mut done = decide::completed(backup, status, now);
    for action in &mut done.actions {
        action.phase = Some(ActionPhase::Completed);
        action.failure_reason = None;
        if archives(action) {
            action.available_replicas = Some(0);
            action.completion_timestamp = Some(stamp(now));
        } else {
            action.completion_timestamp.get_or_insert_with(|| stamp(now));
        }
    }
    done
}

/// Why a schedule wants no more archiving by `method`; `None` while it does. `schedule` is `None` when it is gone.
pub fn unwanted(schedule: Option<&BackupSchedule>, name: &str, method: &str) -> Option<String> {
    let Some(schedule) = schedule else { return Some(format!("BackupSchedule {name} does not exist any more")) };
    let wants =
        schedule.spec.schedules.iter().any(|entry| entry.backup_method == method && entry.enabled == Some(true));
    (!wants).then(|| format!("BackupSchedule {name} has no enabled entry for method {method}"))
}

/// Why a KubeBlocks cluster needs no more archiving; `None` while it does. `cluster` is `None` when it is gone.
pub fn cluster_is_over(cluster: Option<&Value>, name: &str, uid: &str) -> Option<String> {
    let over = |why: &str| Some(format!("Cluster {name} {why}"));
    let Some(cluster) = cluster else { return over("does not exist any more") };
    let text = |pointer: &str| cluster.pointer(pointer).and_then(Value::as_str);
    if text("/metadata/uid").is_some_and(|found| found != uid) {
        return over("is another one of that name");
    }
    if cluster.pointer("/metadata/deletionTimestamp").is_some() {
        return over("is being deleted");
    }
    if text("/status/phase") == Some("Stopped") { over("is stopped") } else { None }
}
