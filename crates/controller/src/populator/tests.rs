//! The flow as a state machine, and the objects that it builds.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kbbackup_api::GROUP;
use kbbackup_api::conditions::ClaimReason;
use kbbackup_api::names::{FINALIZER, annotations, labels};
use kbbackup_api::v1alpha1::{BackupRef, PrepareDataConfig, Restore, RestoreSpec, VolumeConfig};
use kube::core::DeserializeGuard;
use serde_json::{Value, json};

use super::build::{self, Filling};
use super::decide::{self, Seen, Step};
use super::{apply, concerns_us};

const UID: &str = "5ac1e0de-0000-4000-8000-000000000000";

fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn merged(mut base: Value, change: Value) -> Value {
    fn merge(base: &mut Value, change: Value) {
        match (base, change) {
            (Value::Object(base), Value::Object(change)) => {
                for (key, value) in change {
                    merge(base.entry(key).or_insert(Value::Null), value);
                }
            }
            (base, change) => *base = change,
        }
    }
    merge(&mut base, change);
    base
}

fn claim(change: Value) -> PersistentVolumeClaim {
    from(merged(
        json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data-pg-0", "namespace": "demo", "uid": UID, "resourceVersion": "7",
                "labels": {labels::INSTANCE: "pg", labels::VOLUME_CLAIM_TEMPLATE: "data", "mine": "yes"},
                "annotations": {annotations::SELECTED_NODE: "node-1"}},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "fast", "volumeMode": "Filesystem",
                "resources": {"requests": {"storage": "1Gi"}},
                "dataSourceRef": {"apiGroup": GROUP, "kind": "Backup", "name": "b"}},
        }),
        change,
    ))
}

fn begun() -> Value {
    json!({ "metadata": {"finalizers": [FINALIZER]},
        "status": {"conditions": [{"type": "Populating", "status": "True", "reason": "Processing"}]} })
}

fn bound(volume: &str) -> Value {
    json!({ "metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}}, "spec": {"volumeName": volume} })
}

fn child(name: &str, uid: &str) -> Value {
    json!({ "metadata": {"name": name, "namespace": "demo", "uid": uid, "ownerReferences":
        [{"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": "data-pg-0", "uid": UID, "controller": true}]} })
}

fn temporary(change: Value) -> PersistentVolumeClaim {
    from(merged(child(&format!("kb-populate-{UID}"), "temporary-uid"), change))
}

fn restore(phase: &str, change: Value) -> Restore {
    let spec =
        serde_json::to_value(&build::restore(&claim(json!({})), &filling(), "temporary-uid", None).unwrap().spec);
    let base = merged(
        child(&format!("kb-populate-{UID}"), "restore-uid"),
        json!({ "metadata": {"annotations": {annotations::POPULATED_CLAIM: "temporary-uid"}}, "spec": spec.unwrap(),
            "status": {"phase": phase} }),
    );
    from(merged(base, change))
}

fn volume(owner: &str, notes: Value) -> PersistentVolume {
    from(json!({ "metadata": {"name": "pv-1", "resourceVersion": "42", "annotations": notes},
        "spec": {"claimRef": {"uid": owner}, "persistentVolumeReclaimPolicy": "Delete"}, "status": {"phase": "Bound"} }))
}

fn filling() -> Filling {
    Filling {
        restore: Some(RestoreSpec {
            backup: BackupRef { name: "b".into(), namespace: "demo".into(), source_target_name: None },
            prepare_data_config: Some(PrepareDataConfig::default()),
            ..RestoreSpec::default()
        }),
        volume: VolumeConfig { volume_source: Some("data".into()), mount_path: None },
        snapshot: None,
    }
}

/// The next step for what exists; `settle` first, as the driver does.
fn next(
    claim: &PersistentVolumeClaim,
    temporary: Option<&PersistentVolumeClaim>,
    restore: Option<&Restore>,
    volume: Option<&PersistentVolume>,
    with_data: bool,
) -> Step {
    let seen = Seen { claim, temporary, restore, volume };
    let wanted = build::restore(claim, &filling(), "temporary-uid", None);
    decide::settle(seen).unwrap_or_else(|| decide::fill(seen, wanted.as_ref().filter(|_| with_data)))
}

fn waits(step: &Step) -> bool {
    matches!(step, Step::Wait(_))
}

fn fails(step: &Step, word: &str) -> bool {
    matches!(step, Step::Fail(why) if why.contains(word))
}

#[test]
fn behaviour_6_9_the_steps_in_order() {
    let new = claim(json!({}));
    assert_eq!(next(&new, None, None, None, true), Step::Begin);
    let held = claim(begun());
    assert_eq!(next(&held, None, None, None, true), Step::CreateTemporary);
    let fresh = temporary(json!({}));
    assert_eq!(next(&held, Some(&fresh), None, None, true), Step::CreateRestore);
    assert!(waits(&next(&held, Some(&fresh), Some(&restore("Running", json!({}))), None, true)));
    let done = restore("Completed", json!({}));
    assert!(waits(&next(&held, Some(&fresh), Some(&done), None, true)), "its volume is not there");
    let filled = temporary(bound("pv-1"));
    let of_temporary = volume("temporary-uid", json!({}));
    assert_eq!(next(&held, Some(&filled), Some(&done), Some(&of_temporary), true), Step::HandOver);
    let handed = volume(UID, json!({ annotations::POPULATE_FROM: "b", annotations::RECLAIM_POLICY: "Delete" }));
    assert_eq!(next(&held, Some(&filled), Some(&done), Some(&handed), true), Step::NameVolume);
    let named = claim(merged(begun(), json!({ "spec": {"volumeName": "pv-1"} })));
    assert!(waits(&next(&named, Some(&filled), Some(&done), Some(&handed), true)));
    let own = claim(merged(begun(), bound("pv-1")));
    assert_eq!(next(&own, Some(&filled), Some(&done), Some(&handed), true), Step::DropTemporary);
    assert_eq!(next(&own, None, Some(&done), Some(&handed), true), Step::GiveBack);
    let given = volume(UID, json!({ annotations::POPULATE_FROM: "b" }));
    assert_eq!(next(&own, None, Some(&done), Some(&given), true), Step::Conclude(ClaimReason::Succeed));
    assert_eq!(next(&claim(bound("pv-1")), None, Some(&done), Some(&given), true), Step::Rest);
}

#[test]
fn behaviour_6_9_an_empty_volume_needs_no_restore() {
    let held = claim(begun());
    assert_eq!(next(&held, None, None, None, false), Step::CreateTemporary);
    let of_temporary = volume("temporary-uid", json!({}));
    assert_eq!(next(&held, Some(&temporary(bound("pv-1"))), None, Some(&of_temporary), false), Step::HandOver);
    let own = claim(merged(begun(), bound("pv-1")));
    let given = volume(UID, json!({ annotations::POPULATE_FROM: "b" }));
    assert_eq!(next(&own, None, None, Some(&given), false), Step::Conclude(ClaimReason::Provisioned));
}

#[test]
fn nothing_is_handed_over_that_was_not_restored_into_this_very_volume() {
    let (held, filled) = (claim(begun()), temporary(bound("pv-1")));
    let of_temporary = volume("temporary-uid", json!({}));
    // The restore ended, but for a temporary claim that has since been replaced by an empty one.
    let of_another =
        restore("Completed", json!({ "metadata": {"annotations": {annotations::POPULATED_CLAIM: "earlier"}} }));
    assert_eq!(next(&held, Some(&filled), Some(&of_another), Some(&of_temporary), true), Step::DropRestore);
    assert_eq!(next(&held, None, Some(&restore("Completed", json!({}))), None, true), Step::DropRestore);
    // The restore was deleted half way: what it left is not built upon.
    let dirty = temporary(json!({ "metadata": {"annotations": {annotations::RESTORED_BY: "demo/r"}} }));
    assert_eq!(next(&held, Some(&dirty), None, None, true), Step::DropTemporary);
    for phase in ["Running", "AsDataSource"] {
        assert!(
            waits(&next(&held, Some(&filled), Some(&restore(phase, json!({}))), Some(&of_temporary), true)),
            "{phase}"
        );
    }
}

#[test]
fn a_volume_that_is_being_released_is_not_handed_over() {
    let (held, filled, done) = (claim(begun()), temporary(bound("pv-1")), restore("Completed", json!({})));
    for phase in ["Released", "Failed", "Available"] {
        let mut going = volume("temporary-uid", json!({}));
        going.status.as_mut().unwrap().phase = Some(phase.into());
        assert!(waits(&next(&held, Some(&filled), Some(&done), Some(&going), true)), "{phase}");
    }
    let foreign = volume("somebody", json!({}));
    assert!(waits(&next(&held, Some(&filled), Some(&done), Some(&foreign), true)));
}

#[test]
fn a_failed_restore_is_told_and_tried_again_when_it_is_deleted() {
    let change = json!({ "status": {"conditions": [{"type": "PrepareData", "status": "False", "reason": "Failed",
        "message": "no space left", "lastTransitionTime": "2026-01-01T00:00:00Z"}]} });
    let failed = restore("Failed", change);
    let (held, dirty) =
        (claim(begun()), temporary(json!({ "metadata": {"annotations": {annotations::RESTORED_BY: "r"}} })));
    let step = next(&held, Some(&dirty), Some(&failed), None, true);
    assert!(fails(&step, "no space left") && fails(&step, "delete that restore"), "{step:?}");
    let told = json!({ "status": {"conditions": [{"type": "Populating", "status": "True", "reason": "Failed"}]} });
    let told = claim(merged(begun(), told));
    assert!(
        fails(&next(&told, Some(&dirty), Some(&failed), None, true), "no space left"),
        "it does not begin anew by itself"
    );
    assert_eq!(next(&told, Some(&dirty), None, None, true), Step::Begin);
}

#[test]
fn what_belongs_to_others_is_not_touched() {
    let held = claim(begun());
    let theirs = json!({ "metadata": {"ownerReferences": []} });
    assert!(fails(&next(&held, Some(&temporary(theirs.clone())), None, None, true), "not made for this claim"));
    assert!(fails(&next(&held, None, Some(&restore("Completed", theirs)), None, true), "not made for this claim"));
    let changed = restore("Running", json!({ "spec": {"backup": {"name": "another"}} }));
    assert!(fails(&next(&held, Some(&temporary(json!({}))), Some(&changed), None, true), "other wishes"));
    let chosen = claim(json!({ "spec": {"volumeName": "static"} }));
    assert_eq!(next(&chosen, None, None, None, true), Step::Rest, "somebody chose a volume");
    let elsewhere = claim(merged(begun(), bound("static")));
    assert!(fails(&next(&elsewhere, None, None, Some(&volume(UID, json!({}))), true), "by somebody else"));
}

#[test]
fn a_claim_that_goes_is_let_go_at_once() {
    let going = json!({ "metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"} });
    assert_eq!(next(&claim(merged(begun(), going.clone())), None, None, None, true), Step::Abandon);
    assert_eq!(next(&claim(going), None, None, None, true), Step::Rest);
}

#[test]
fn behaviour_6_9_the_temporary_claim() {
    insta::assert_yaml_snapshot!(build::temporary(&claim(json!({})), &filling()));
}

#[test]
fn behaviour_6_9_the_temporary_claim_of_a_snapshot_backup() {
    let filling = Filling { snapshot: Some("snap-1".into()), ..filling() };
    insta::assert_yaml_snapshot!(build::temporary(&claim(json!({})), &filling).spec);
}

#[test]
fn behaviour_6_9_the_internal_restore() {
    insta::assert_yaml_snapshot!(build::restore(&claim(json!({})), &filling(), "temporary-uid", Some("host-1")));
}

#[test]
fn behaviour_6_9_the_volume_changes_hands_in_one_write() {
    let patch = apply::handed_over(&volume("temporary-uid", json!({})), &claim(json!({})), "b");
    insta::assert_yaml_snapshot!(patch);
    let mut kept = volume("temporary-uid", json!({}));
    kept.spec.as_mut().unwrap().persistent_volume_reclaim_policy = Some("Retain".into());
    let patch = apply::handed_over(&kept, &claim(json!({})), "b");
    assert!(patch["metadata"]["annotations"].get(annotations::RECLAIM_POLICY).is_none(), "nothing to give back");
}

#[test]
fn claims_that_are_done_are_not_held_in_memory() {
    let kept = |change: Value| concerns_us(&DeserializeGuard(Ok(claim(change))));
    assert!(kept(json!({})));
    assert!(kept(merged(begun(), bound("pv-1"))), "it is to be concluded");
    assert!(!kept(bound("pv-1")));
    let open = json!({ "status": {"conditions": [{"type": "Restore", "status": "Unknown"}]} });
    assert!(kept(merged(bound("pv-1"), open)), "its component's actions are to come");
    assert!(!kept(
        json!({ "spec": {"dataSourceRef": {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot"}} })
    ));
    assert!(concerns_us(&DeserializeGuard(Ok(temporary(json!({}))))));
}
