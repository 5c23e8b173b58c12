//! What a backup should do next: pure. The clock comes in as `now`, the cluster as what was observed.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kbbackup_api::names::{annotations, labels};
use kbbackup_api::v1alpha1::{
    AccessMethod, ActionPhase, ActionStatus, ActionType, Backup, BackupPhase, BackupStatus, BackupStatusTarget,
    BackupTimeRange, BackupType,
};
use kbbackup_core::contract::{ActionResult, Report};
use kbbackup_core::retention::{RetentionError, RetentionPeriod};
use kbbackup_core::{gotime, layout, names};
use kube::ResourceExt as _;

use super::continuous;
use super::observe::{Graph, SeenAction};
use super::plan::{self, Kind};
use super::{volumes, workload};
use crate::settings::Settings;
use crate::worker::error::Refusal;
use crate::worker::{Outcome, outcome};

/// Layout version of a stored backup.
const FORMAT_VERSION: &str = "0.1.0";

/// How a new backup starts.
#[derive(Clone, Debug, PartialEq)]
pub struct Begin {
    /// Labels to set.
    pub labels: BTreeMap<String, String>,
    /// Annotations to set.
    pub annotations: BTreeMap<String, String>,
    /// The status with all planned actions, phase `Running`.
    pub status: BackupStatus,
}

/// Whole seconds, as the API keeps them.
pub fn stamp(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// Behaviour 4.3, steps 12 to 14.
///
/// # Errors
/// [`Refusal::Fatal`] when the retention period cannot be read.
pub fn begin(backup: &Backup, graph: &Graph, settings: &Settings, now: Timestamp) -> Result<Begin, Refusal> {
    let namespace = backup.namespace().unwrap_or_default();
    let started = stamp(now);
    let chosen: Vec<_> = graph
        .targets
        .iter()
        .map(|(target, pods)| BackupStatusTarget {
            target: target.clone(),
            selected_target_pods: pods.iter().map(kube::ResourceExt::name_any).collect(),
        })
        .collect();
    let is_continuous = graph.action_set.spec.backup_type == BackupType::Continuous;
    let planned = plan::plan(&graph.action_set.spec, &chosen, graph.method.snapshot_volumes());
    let actions = planned
        .iter()
        .map(|action| match action.kind {
            Kind::Data if is_continuous => {
                let set = continuous::build::set_name(backup, &chosen[action.target]);
                Ok(continuous::action(backup, action, set))
            }
            Kind::Snapshot => snapshots(backup, graph, action, &chosen[action.target]),
            kind if plan::is_exec(&graph.action_set.spec, kind) => {
                Ok(job_action(backup, action, &settings.manager_namespace))
            }
            _ => Ok(job_action(backup, action, &namespace)),
        })
        .collect::<Result<_, Refusal>>()?;
    let repo = graph.repo.as_ref();
    let prefix = |prefix: &Option<String>| prefix.clone().unwrap_or_default();
    let root = repo.map(|repo| {
        layout::backup_root(&prefix(&repo.spec.path_prefix), &namespace, &prefix(&graph.policy.spec.path_prefix))
    });
    let (target, targets) =
        if graph.several { (None, chosen) } else { (chosen.into_iter().next().map(Box::new), Vec::new()) };
    let mounted = repo.filter(|repo| repo.spec.access_method() == AccessMethod::Mount);
    let status = BackupStatus {
        format_version: Some(FORMAT_VERSION.to_owned()),
        phase: Some(BackupPhase::Running),
        expiration: expiration(backup, started.0).map_err(Refusal::fatal)?.filter(|_| !is_continuous),
        start_timestamp: Some(started),
        backup_repo_name: repo.map(kube::ResourceExt::name_any),
        path: root.as_ref().map(|root| layout::backup_path(root, &backup.name_any())),
        kopia_repo_path: root
            .as_ref()
            .filter(|_| graph.policy.spec.use_kopia())
            .map(|root| layout::join([root.as_str(), "kopia"])),
        persistent_volume_claim_name: mounted
            .and_then(|repo| repo.status.as_ref())
            .and_then(|status| status.backup_pvc_name.clone()),
        target,
        targets,
        backup_method: Some(Box::new(graph.method.clone())),
        encryption_config: match &graph.parent {
            Some(parent) => parent.encryption.clone(),
            None => graph.policy.spec.encryption_config.clone(),
        },
        actions,
        parent_backup_name: graph.parent.as_ref().map(|parent| parent.name.clone()),
        base_backup_name: graph.parent.as_ref().map(|parent| parent.base.clone()),
        ..BackupStatus::default()
    };
    Ok(Begin { labels: labels(backup, graph), annotations: notes(backup, graph), status })
}

/// An action whose Job, in `namespace`, is still to be made.
pub(super) fn job_action(backup: &Backup, planned: &plan::Planned, namespace: &str) -> ActionStatus {
    let uid = backup.uid().unwrap_or_default();
    ActionStatus {
        name: Some(planned.name.clone()),
        target_pod_name: (!planned.pod.is_empty()).then(|| planned.pod.clone()),
        phase: Some(ActionPhase::New),
        action_type: Some(ActionType::Job),
        object_ref: Some(ObjectReference {
            api_version: Some("batch/v1".to_owned()),
            kind: Some("Job".to_owned()),
            namespace: Some(namespace.to_owned()),
            name: Some(names::backup_job(&planned.name, &backup.name_any(), &uid)),
            ..ObjectReference::default()
        }),
        ..ActionStatus::default()
    }
}

/// The action that takes the snapshots of a pod, with their names.
fn snapshots(
    backup: &Backup,
    graph: &Graph,
    action: &plan::Planned,
    chosen: &BackupStatusTarget,
) -> Result<ActionStatus, Refusal> {
    let (_, pods) = &graph.targets[action.target];
    let index = chosen.selected_target_pods.iter().position(|pod| *pod == action.pod).unwrap_or_default();
    let wanted = volumes::build::volumes(&pods[index], &graph.method)?;
    let target = chosen.target.name.as_deref().unwrap_or_default();
    let planned = volumes::build::planned(&backup.name_any(), target, index, &wanted);
    Ok(ActionStatus {
        name: Some(action.name.clone()),
        target_pod_name: Some(action.pod.clone()),
        phase: Some(ActionPhase::New),
        object_ref: Some(ObjectReference {
            api_version: Some("snapshot.storage.k8s.io/v1".to_owned()),
            kind: Some("VolumeSnapshot".to_owned()),
            namespace: backup.namespace(),
            name: planned.first().and_then(|snapshot| snapshot.name.clone()),
            ..ObjectReference::default()
        }),
        volume_snapshots: planned,
        ..ActionStatus::default()
    })
}

fn labels(backup: &Backup, graph: &Graph) -> BTreeMap<String, String> {
    let mut set = BTreeMap::from([
        (labels::BACKUP_TYPE, graph.action_set.spec.backup_type.to_string()),
        (labels::BACKUP_POLICY, graph.policy.name_any()),
    ]);
    set.extend(graph.repo.as_ref().map(|repo| (labels::BACKUP_REPO_NAME, repo.name_any())));
    set.insert(labels::MANAGED_BY, labels::MANAGED_BY_DATAPROTECTION.to_owned());
    if !graph.prepared {
        set.insert(labels::WAIT_REPO_PREPARATION, kbbackup_api::names::TRUE.to_owned());
    }
    let of_policy = |key: &'static str| graph.policy.labels().get(key).map(|value| (key, value.clone()));
    set.extend([labels::ENGINE, labels::WORKLOAD_KIND, labels::WORKLOAD_NAME].into_iter().filter_map(of_policy));
    if let Some(pod) = graph.targets.last().and_then(|(_, pods)| pods.first()) {
        for key in [labels::INSTANCE, labels::COMPONENT_NAME, labels::SHARDING_NAME] {
            set.extend(pod.labels().get(key).map(|value| (key, value.clone())));
        }
        if let Some(name) = workload::controller_of(pod).filter(|name| name.len() <= names::MAX_NAME) {
            set.insert(labels::WORKLOAD_KIND, "statefulset".to_owned());
            set.insert(labels::WORKLOAD_NAME, name.to_owned());
        }
    }
    set.extend(graph.cluster.as_ref().map(|cluster| (labels::CLUSTER_UID, cluster.uid.clone())));
    // Somebody's own `managed-by` stays.
    set.retain(|key, _| *key != labels::MANAGED_BY || !backup.labels().contains_key(labels::MANAGED_BY));
    set.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn notes(backup: &Backup, graph: &Graph) -> BTreeMap<String, String> {
    let mut set = BTreeMap::new();
    set.extend(graph.workload.clone().map(|manifest| (annotations::WORKLOAD.to_owned(), manifest)));
    let pod = graph.targets.first().and_then(|(_, pods)| pods.first()).and_then(|pod| pod.spec.as_ref());
    let image = pod.and_then(|pod| pod.containers.first()).and_then(|container| container.image.clone());
    set.extend(image.map(|image| (annotations::TARGET_IMAGE.to_owned(), image)));
    if let Some(cluster) = &graph.cluster {
        let kept = [
            (annotations::CLUSTER_SNAPSHOT, &cluster.snapshot),
            (annotations::ENCRYPTED_SYSTEM_ACCOUNTS, &cluster.accounts),
        ];
        // What a try before this one has written stays: sealed anew, the same password looks different.
        let kept = kept.into_iter().filter(|(key, _)| !backup.annotations().contains_key(*key));
        set.extend(kept.map(|(key, value)| (key.to_owned(), value.clone())));
    }
    set
}

/// When a backup that counts from `from` may go.
///
/// # Errors
/// When `spec.retentionPeriod` cannot be read.
pub fn expiration(backup: &Backup, from: Timestamp) -> Result<Option<Time>, RetentionError> {
    let period = RetentionPeriod::parse(backup.spec.retention_period.as_deref().unwrap_or_default())?;
    Ok(period.expiration(from).map(Time))
}

/// The next step of a running backup.
#[derive(Clone, Debug, PartialEq)]
pub struct Advance {
    /// The status as it should be now.
    pub status: BackupStatus,
    /// Pods that did an action which may have written, as `(action, pod uid)`.
    pub attempts: Vec<(String, String)>,
    /// What to do.
    pub next: Next,
}

/// What a running backup does next.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Jobs to create (indexes of actions), Jobs to remove because their result is lost, and what is in the way.
    Work {
        /// Actions whose Job is to be created.
        start: Vec<usize>,
        /// Actions whose Job is to be removed, so that the next look creates it again.
        redo: Vec<usize>,
        /// In words, for people.
        obstacle: Option<String>,
    },
    /// Every list has ended and one of them badly.
    Fail(String),
    /// Everything is done.
    Complete {
        /// Digest of the seal; none for snapshots alone.
        seal: Option<String>,
    },
}

/// Behaviour 4.4 and 4.10: walks each list to its first action that is not completed; seals when all are. `home` is the
/// backup's namespace.
pub fn advance(home: &str, status: &BackupStatus, seen: &[SeenAction], now: Timestamp) -> Advance {
    let mut walk = Walk {
        home,
        status: status.clone(),
        seen,
        now,
        attempts: Vec::new(),
        start: vec![],
        redo: vec![],
        obstacles: vec![],
        busy: false,
        measured: false,
        seal: None,
    };
    for list in plan::lists(&status.actions) {
        for index in list {
            if !walk.is_over(index) {
                break;
            }
        }
    }
    let failed = |walk: &Walk<'_>| {
        let actions = &walk.status.actions;
        let index = actions.iter().position(|action| action.phase == Some(ActionPhase::Failed))?;
        let told = failure(&actions[index]);
        // Where the script's last words stand as the action's reason, how its pod ended is told here, unless the reason
        // has it already: then it was ended from outside.
        match seen.get(index) {
            Some(SeenAction { words: Some(_), outcome: Outcome::Failed { why, pod }, .. })
                if pod.as_ref().is_none_or(|pod| pod.cause.is_none()) =>
            {
                Some(format!("{told}\n{why}"))
            }
            _ => Some(told),
        }
    };
    if !walk.busy
        && failed(&walk).is_none()
        && let Some(index) = status.actions.iter().position(plan::is_seal)
    {
        walk.is_over(index);
    }
    let next = match (walk.busy, failed(&walk), walk.seal.take()) {
        (true, _, _) => Next::Work { start: walk.start, redo: walk.redo, obstacle: walk.obstacles.into_iter().next() },
        (false, Some(why), _) => Next::Fail(why),
        (false, None, Some(seal)) => Next::Complete { seal: Some(seal) },
        (false, None, None) if walk.is_all_snapshots() => Next::Complete { seal: None },
        (false, None, None) => Next::Fail("the backup has no action that seals it".to_owned()),
    };
    if walk.measured || walk.attempts.iter().any(|(action, _)| action.starts_with("dp-backup-")) {
        totals(&mut walk.status);
    }
    Advance { status: walk.status, attempts: walk.attempts, next }
}

struct Walk<'a> {
    home: &'a str,
    status: BackupStatus,
    seen: &'a [SeenAction],
    now: Timestamp,
    attempts: Vec<(String, String)>,
    start: Vec<usize>,
    redo: Vec<usize>,
    obstacles: Vec<String>,
    busy: bool,
    /// Snapshots have been taken.
    measured: bool,
    seal: Option<String>,
}

impl Walk<'_> {
    /// Brings one action up to date; true when it is completed, so that the next of its list may begin.
    fn is_over(&mut self, index: usize) -> bool {
        let action = &self.status.actions[index];
        match action.phase {
            Some(ActionPhase::Completed) if !plan::is_seal(action) => return true,
            Some(ActionPhase::Failed) => return false,
            _ => {}
        }
        let Some(seen) = self.seen.get(index) else { return false };
        match &seen.outcome {
            Outcome::Absent => {
                self.run(index);
                self.start.push(index);
                false
            }
            Outcome::Running { obstacle } => {
                self.run(index);
                self.obstacles.extend(obstacle.clone());
                false
            }
            Outcome::Succeeded { .. } if plan::is_snapshot(action) => {
                volumes::decide::complete(&mut self.status.actions[index], &seen.snapshots, self.now);
                self.measured = true;
                true
            }
            Outcome::Succeeded { pod: None } => {
                self.run(index);
                self.redo.push(index);
                self.obstacles
                    .push("the pod that finished is gone, and its result with it: the action is repeated".to_owned());
                false
            }
            Outcome::Succeeded { pod: Some(pod) } => match self.result(index, pod) {
                Ok(()) => true,
                Err(why) => self.fail(index, why),
            },
            Outcome::Failed { why, .. } => {
                let why = seen.words.clone().unwrap_or_else(|| why.clone());
                self.fail(index, why)
            }
        }
    }

    /// Whether the backup consists of snapshots, with or without hooks: then nothing lies in a repository.
    fn is_all_snapshots(&self) -> bool {
        let actions = &self.status.actions;
        let completed = |action: &ActionStatus| action.phase == Some(ActionPhase::Completed);
        actions.iter().any(plan::is_snapshot) && !actions.iter().any(plan::is_seal) && actions.iter().all(completed)
    }

    fn run(&mut self, index: usize) {
        self.busy = true;
        let action = &mut self.status.actions[index];
        action.phase = Some(ActionPhase::Running);
        action.start_timestamp.get_or_insert_with(|| stamp(self.now));
    }

    fn fail(&mut self, index: usize, why: String) -> bool {
        let action = &mut self.status.actions[index];
        action.phase = Some(ActionPhase::Failed);
        action.failure_reason = Some(why);
        action.start_timestamp.get_or_insert_with(|| stamp(self.now));
        action.completion_timestamp = Some(stamp(self.now));
        false
    }

    /// Takes the result of a pod that succeeded.
    fn result(&mut self, index: usize, pod: &k8s_openapi::api::core::v1::Pod) -> Result<(), String> {
        let name = self.status.actions[index].name.clone().unwrap_or_default();
        let mut found = Found::default();
        if name == names::SEAL_ACTION {
            let report = without_error(outcome::report(pod, "seal")?)?;
            self.seal = Some(report.seal.ok_or("the sealing action reported no seal")?);
        } else if name.starts_with("dp-backup-") {
            let report = without_error(outcome::report(pod, "manager")?)?;
            found = Found::of(&report)?;
        }
        // A pod elsewhere runs an exec action, which has no way to the repository.
        let in_place = pod.namespace().as_deref() == Some(self.home);
        if name != names::SEAL_ACTION && in_place {
            self.attempts.extend(pod.uid().map(|uid| (name, uid)));
        }
        self.status.extras.extend(found.extras);
        let action = &mut self.status.actions[index];
        action.phase = Some(ActionPhase::Completed);
        action.failure_reason = None;
        action.start_timestamp.get_or_insert_with(|| pod.creation_timestamp().unwrap_or_else(|| stamp(self.now)));
        action.completion_timestamp = Some(stamp(self.now));
        action.total_size = found.total_size;
        action.time_range = found.time_range;
        Ok(())
    }
}

fn without_error(report: Report) -> Result<Report, String> {
    match (&report.error, &report.cause) {
        (None, _) => Ok(report),
        (Some(error), Some(cause)) => Err(format!("{error} ({cause})")),
        (Some(error), None) => Err(error.clone()),
    }
}

#[derive(Default)]
struct Found {
    total_size: Option<String>,
    time_range: Option<BackupTimeRange>,
    extras: Vec<BTreeMap<String, String>>,
}

impl Found {
    fn of(report: &Report) -> Result<Self, String> {
        let info =
            report.info.as_ref().ok_or("the script ended without writing its result file DP_BACKUP_INFO_FILE")?;
        let result = ActionResult::parse(info).map_err(|error| error.to_string())?;
        let time = |text: &Option<String>| text.as_ref().and_then(|text| text.parse().ok()).map(Time);
        let range = BackupTimeRange { time_zone: result.time_zone, start: time(&result.start), end: time(&result.end) };
        Ok(Self {
            total_size: result.total_size.or_else(|| report.stored.map(|stored| stored.bytes.to_string())),
            time_range: (range != BackupTimeRange::default()).then_some(range),
            extras: result.extras,
        })
    }
}

/// The whole backup's size and times from those of its actions: the sum, and from the first start to the last end.
fn totals(status: &mut BackupStatus) {
    let sizes: Vec<_> = status.actions.iter().filter_map(|action| action.total_size.clone()).collect();
    status.total_size = match sizes.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        many => Some(many.iter().filter_map(|size| layout::parse_size(size)).sum::<u64>().to_string()),
    };
    let ranges: Vec<_> = status.actions.iter().filter_map(|action| action.time_range.clone()).collect();
    let range = BackupTimeRange {
        time_zone: ranges.iter().find_map(|range| range.time_zone.clone()),
        start: ranges.iter().filter_map(|range| range.start.clone()).min(),
        end: ranges.iter().filter_map(|range| range.end.clone()).max(),
    };
    status.time_range = (range != BackupTimeRange::default()).then_some(range);
}

/// Why the backup failed, from the action that did.
pub(super) fn failure(action: &ActionStatus) -> String {
    let name = action.name.as_deref().unwrap_or_default();
    format!("action {name} failed: {}", action.failure_reason.as_deref().unwrap_or("no reason known"))
}

/// The status of a backup that failed because of `why`.
pub fn failed(backup: &Backup, status: &BackupStatus, why: &str, now: Timestamp) -> BackupStatus {
    let from = status.start_timestamp.clone().or_else(|| backup.creation_timestamp()).map_or(now, |time| time.0);
    BackupStatus {
        phase: Some(BackupPhase::Failed),
        failure_reason: Some(why.to_owned()),
        // A retention period that cannot be read may be the very reason; then it never expires.
        expiration: status.expiration.clone().or_else(|| expiration(backup, from).ok().flatten()),
        ..status.clone()
    }
}

/// The status of a backup that is sealed.
pub fn completed(backup: &Backup, status: &BackupStatus, now: Timestamp) -> BackupStatus {
    let now = stamp(now);
    let took = status.start_timestamp.as_ref().map_or(SignedDuration::ZERO, |start| now.0.duration_since(start.0));
    BackupStatus {
        phase: Some(BackupPhase::Completed),
        completion_timestamp: Some(now.clone()),
        duration: Some(gotime::duration(u64::try_from(took.as_secs()).unwrap_or(0))),
        expiration: expiration(backup, now.0).unwrap_or_else(|_| status.expiration.clone()),
        failure_reason: None,
        ..status.clone()
    }
}

/// Adds attempts to the annotation's value; an action that was repeated names its last pod.
pub fn attempts(recorded: Option<&str>, new: &[(String, String)]) -> String {
    let mut all: Vec<(String, String)> = recorded
        .unwrap_or_default()
        .split(',')
        .filter_map(|pair| pair.split_once('='))
        .map(|(a, b)| (a.into(), b.into()))
        .collect();
    for (action, uid) in new {
        all.retain(|(recorded, _)| recorded != action);
        all.push((action.clone(), uid.clone()));
    }
    all.iter().map(|(action, uid)| format!("{action}={uid}")).collect::<Vec<_>>().join(",")
}
