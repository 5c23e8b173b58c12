//! How far snapshots are, and what they hold: pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kbbackup_api::snapshot::{IS_DEFAULT_CLASS, VolumeSnapshot, VolumeSnapshotClass};
use kbbackup_api::v1alpha1::{ActionPhase, ActionStatus, BackupTimeRange};
use kbbackup_core::{gotime, layout};
use kube::ResourceExt as _;

use crate::backup::decide::stamp;
use crate::backup::observe::SeenAction;
use crate::worker::Outcome;
use crate::worker::error::Refusal;

/// Behaviour 4.8.5: what the external-snapshotter says when only an edit helps.
const CONFIGURATION: [&str; 3] = [
    "Failed to set default snapshot class with error",
    "Failed to get snapshot class with error",
    "cannot find CSI PersistentVolumeSource for volume",
];

/// A snapshot that is ready.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Taken {
    /// Its content.
    pub content: Option<String>,
    /// Least size of a volume made from it.
    pub size: Option<String>,
    /// The moment that its data is of.
    pub created: Option<Time>,
}

/// The class for the volumes of a driver: the default one, else the first by name.
///
/// # Errors
/// [`Refusal::Fatal`] naming the driver when it has none.
pub fn class<'a>(classes: &'a [VolumeSnapshotClass], driver: &str) -> Result<&'a VolumeSnapshotClass, Refusal> {
    let is_default = |class: &VolumeSnapshotClass| {
        class.annotations().get(IS_DEFAULT_CLASS).map(String::as_str) == Some(kbbackup_api::names::TRUE)
    };
    let of_driver = classes.iter().filter(|class| class.driver == driver);
    of_driver.min_by_key(|class| (!is_default(class), class.name_any())).ok_or_else(|| {
        Refusal::fatal(format!(
            "no VolumeSnapshotClass belongs to the CSI driver {driver}; create one with `driver: {driver}`, if the driver can \
             take snapshots"
        ))
    })
}

/// What the snapshots of an action show: `found` in the order of its `volumeSnapshots`.
pub fn judge(
    action: &ActionStatus,
    found: &[Option<&VolumeSnapshot>],
    deadline: Duration,
    now: Timestamp,
) -> SeenAction {
    let seen = |outcome, snapshots| SeenAction { outcome, words: None, snapshots };
    if found.iter().any(Option::is_none) {
        return seen(Outcome::Absent, Vec::new());
    }
    let found: Vec<&VolumeSnapshot> = found.iter().flatten().copied().collect();
    let failing: Vec<String> = found.iter().filter_map(|snapshot| trouble(snapshot)).collect();
    if let Some(why) = failing.iter().find(|why| CONFIGURATION.iter().any(|known| why.contains(known))) {
        return seen(Outcome::Failed { why: why.clone(), pod: None }, Vec::new());
    }
    let waiting = found.iter().find(|snapshot| !is_ready(snapshot));
    let Some(waiting) = waiting else {
        return seen(Outcome::Succeeded { pod: None }, found.iter().map(|snapshot| taken(snapshot)).collect());
    };
    let obstacle = failing.into_iter().next();
    let begun = action.start_timestamp.as_ref().map_or(now, |time| time.0);
    let waited = Duration::try_from(now.duration_since(begun)).unwrap_or_default();
    if waited >= deadline {
        let why = obstacle.unwrap_or_else(|| {
            format!("volumesnapshot {} is not ready to use, and no reason is known", waiting.name_any())
        });
        let why = format!("{why} (waited for {})", gotime::duration(waited.as_secs()));
        return seen(Outcome::Failed { why, pod: None }, Vec::new());
    }
    seen(Outcome::Running { obstacle }, Vec::new())
}

fn is_ready(snapshot: &VolumeSnapshot) -> bool {
    snapshot.metadata.deletion_timestamp.is_none()
        && snapshot.status.as_ref().is_some_and(|status| status.ready_to_use == Some(true))
}

/// What is wrong with a snapshot that is not ready.
fn trouble(snapshot: &VolumeSnapshot) -> Option<String> {
    let name = snapshot.name_any();
    if snapshot.metadata.deletion_timestamp.is_some() {
        return Some(format!("volumesnapshot {name} is being deleted"));
    }
    let error = snapshot.status.as_ref().filter(|_| !is_ready(snapshot))?.error.as_ref()?;
    let message = error.message.as_deref().filter(|message| !message.is_empty()).unwrap_or("failed without a word");
    Some(format!("volumesnapshot {name}: {message}"))
}

fn taken(snapshot: &VolumeSnapshot) -> Taken {
    let status = snapshot.status.clone().unwrap_or_default();
    Taken {
        content: status.bound_volume_snapshot_content_name,
        size: status.restore_size,
        created: status.creation_time,
    }
}

/// Concludes an action whose snapshots are all ready.
pub fn complete(action: &mut ActionStatus, taken: &[Taken], now: Timestamp) {
    for (recorded, taken) in action.volume_snapshots.iter_mut().zip(taken) {
        recorded.content_name.clone_from(&taken.content);
        recorded.size.clone_from(&taken.size);
    }
    let sizes: Vec<&String> = taken.iter().filter_map(|taken| taken.size.as_ref()).collect();
    action.total_size = match sizes.as_slice() {
        [] => None,
        [one] => Some((*one).clone()),
        many => Some(many.iter().filter_map(|size| layout::parse_size(size)).sum::<u64>().to_string()),
    };
    let times = || taken.iter().filter_map(|taken| taken.created.clone());
    let range = BackupTimeRange { time_zone: None, start: times().min(), end: times().max() };
    action.time_range = (range != BackupTimeRange::default()).then_some(range);
    action.phase = Some(ActionPhase::Completed);
    action.failure_reason = None;
    action.start_timestamp.get_or_insert_with(|| stamp(now));
    action.completion_timestamp = Some(stamp(now));
}
