//! Each state of an exchange, and what is done next.

use kbbackup_api::in_place::{Exchange, Record};
use serde_json::{Value, json};

use super::decide::{Act, Seen, SeenClaim, Snapshot, Step, Whose, next};
use crate::fake::from;

const MARK: &str = "demo/r1/u";
const WHOSE: Whose<'_> = Whose { set: "pg", restore: "r1", mark: MARK };

fn record(exchanging: bool) -> Record {
    let one = Exchange {
        claim: "data-pg-0".into(),
        old_uid: Some("old".into()),
        old_volume: Some("pv-old".into()),
        temporary: "data-r1-0".into(),
        temporary_uid: "filled".into(),
        new_volume: "pv-new".into(),
        ..Exchange::default()
    };
    Record { stateful_set: "set".into(), before: 2, after: 2, exchanging, claims: vec![one], ..Record::default() }
}

fn set(replicas: i32) -> Value {
    json!({ "metadata": {"name": "pg", "uid": "set", "annotations": {"kbbackup.io/restored-by": MARK}},
        "spec": {"replicas": replicas, "selector": {}, "template": {}, "serviceName": "pg"} })
}

fn claim(name: &str, uid: &str, volume: &str) -> Value {
    json!({ "metadata": {"name": name, "uid": uid, "annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
        "spec": {"volumeName": volume} })
}

fn volume(name: &str, claim_uid: &str, policy: &str) -> Value {
    json!({ "metadata": {"name": name}, "spec": {"persistentVolumeReclaimPolicy": policy, "claimRef": {"uid": claim_uid}} })
}

/// What is there when the workload is stopped and nothing is exchanged.
fn stopped() -> Seen {
    Seen {
        set: Some(from(set(0))),
        claims: vec![SeenClaim {
            claim: Some(from(claim("data-pg-0", "old", "pv-old"))),
            temporary: Some(from(claim("data-r1-0", "filled", "pv-new"))),
            old: Some(from(volume("pv-old", "old", "Delete"))),
            new: Some(from(volume("pv-new", "filled", "Delete"))),
            snapshot: Snapshot::None,
        }],
        ..Seen::default()
    }
}

/// [`stopped`], changed.
fn seen(change: impl FnOnce(&mut Seen)) -> Seen {
    let mut seen = stopped();
    change(&mut seen);
    seen
}

fn before(seen: &Seen) -> Step {
    next(&record(false), WHOSE, seen)
}

fn within(seen: &Seen) -> Step {
    next(&record(true), WHOSE, seen)
}

#[test]
fn it_is_stopped_first_and_all_its_pods_are_awaited() {
    assert_eq!(before(&seen(|seen| seen.set = Some(from(set(2))))), Step::Stop);
    let unmarked = |seen: &mut Seen| seen.set.as_mut().unwrap().metadata.annotations = None;
    assert_eq!(before(&seen(unmarked)), Step::Stop, "one without pods is marked as well: no other restore takes it");
    let Step::Wait(why) = before(&seen(|seen| seen.pods = vec!["pg-0".into(), "pg-1".into()])) else { panic!() };
    assert!(why.contains("pg-0, pg-1"), "{why}");
    assert_eq!(before(&stopped()), Step::Commit);
}

#[test]
fn all_snapshots_are_begun_and_cut_before_anything_is_exchanged() {
    let with = |snapshot| before(&seen(|seen| seen.claims[0].snapshot = snapshot));
    assert_eq!(with(Snapshot::Wanted("quick".into())), Step::Claim(0, Act::Snapshot("quick".into())));
    assert_eq!(with(Snapshot::Pending("not yet".into())), Step::Wait("not yet".into()));
    assert_eq!(with(Snapshot::Taken), Step::Commit);
}

#[test]
fn what_is_not_as_recorded_ends_it_as_long_as_nothing_is_exchanged() {
    let fails = |change: fn(&mut Seen), told: &str| {
        let Step::Fail(why) = before(&seen(change)) else { panic!("{told}") };
        assert!(why.contains(told), "{why}");
    };
    fails(|seen| seen.set = None, "gone");
    fails(|seen| seen.set.as_mut().unwrap().metadata.uid = Some("other".into()), "another one");
    fails(|seen| seen.rival = Some("r2".into()), "restore r2");
    fails(|seen| seen.claims[0].claim = None, "data-pg-0 is not the one");
    fails(|seen| seen.claims[0].old = Some(from(volume("pv-old", "x", "Delete"))), "pv-old does not belong");
    fails(|seen| seen.claims[0].new = None, "lost its volume pv-new");
    fails(|seen| seen.claims[0].temporary = None, "lost its volume pv-new");
}

#[test]
fn one_claim_is_exchanged_step_by_step() {
    let mut seen = stopped();
    assert_eq!(within(&seen), Step::Claim(0, Act::Keep), "the old volume first of all");
    let labels = json!({ "kbbackup.io/in-place": "r1" });
    let mut kept = volume("pv-old", "old", "Retain");
    seen.claims[0].old = Some(from(kept.clone()));
    assert_eq!(within(&seen), Step::Claim(0, Act::Keep), "it says whose it is, too");
    kept["metadata"]["labels"] = labels;
    seen.claims[0].old = Some(from(kept));
    assert_eq!(within(&seen), Step::Claim(0, Act::Hold));
    let mut new = volume("pv-new", "filled", "Retain");
    new["metadata"]["annotations"] = json!({ "kbbackup.io/reclaim-policy": "Delete" });
    seen.claims[0].new = Some(from(new.clone()));
    assert_eq!(within(&seen), Step::Claim(0, Act::DropTemporary));
    let mut going = claim("data-r1-0", "filled", "pv-new");
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    seen.claims[0].temporary = Some(from(going));
    assert!(matches!(within(&seen), Step::Wait(_)));
    seen.claims[0].temporary = None;
    assert_eq!(within(&seen), Step::Claim(0, Act::DropClaim));
    let mut going = claim("data-pg-0", "old", "pv-old");
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    seen.claims[0].claim = Some(from(going));
    assert!(matches!(within(&seen), Step::Wait(_)));
    seen.claims[0].claim = None;
    assert_eq!(within(&seen), Step::Claim(0, Act::CreateClaim));
    let mut made = claim("data-pg-0", "made", "pv-new");
    made["metadata"]["annotations"] = json!({ "kbbackup.io/restored-by": MARK });
    seen.claims[0].claim = Some(from(made.clone()));
    assert_eq!(within(&seen), Step::Claim(0, Act::HandOver));
    new["spec"]["claimRef"]["uid"] = json!("made");
    seen.claims[0].new = Some(from(new.clone()));
    assert!(matches!(within(&seen), Step::Wait(_)), "not bound yet");
    made["metadata"]["annotations"]["pv.kubernetes.io/bind-completed"] = json!("yes");
    seen.claims[0].claim = Some(from(made));
    assert_eq!(within(&seen), Step::Claim(0, Act::GiveBack));
    new["metadata"]["annotations"] = json!({});
    new["spec"]["persistentVolumeReclaimPolicy"] = json!("Delete");
    seen.claims[0].new = Some(from(new));
    assert_eq!(within(&seen), Step::Start);
    seen.set = Some(from(set(2)));
    seen.pods = vec!["pg-0".into()];
    assert_eq!(within(&seen), Step::Done);
}

#[test]
fn within_the_exchange_nothing_fails_and_whoever_is_in_the_way_is_told() {
    let waits = |change: fn(&mut Seen), told: &str| {
        let Step::Wait(why) = within(&seen(change)) else { panic!("{told}") };
        assert!(why.contains(told), "{why}");
    };
    waits(|seen| seen.set = None, "statefulset pg is gone");
    waits(|seen| seen.claims[0].new = None, "pv-new, which has the data of claim data-pg-0, is gone");
    waits(|seen| seen.pods = vec!["debug".into()], "pod debug");
    waits(|seen| seen.rival = Some("r2".into()), "restore r2");
    assert_eq!(within(&seen(|seen| seen.set = Some(from(set(2))))), Step::Stop, "somebody has started it");
    let foreign = |seen: &mut Seen| {
        seen.claims[0].old = None;
        seen.claims[0].temporary = None;
        seen.claims[0].claim = Some(from(claim("data-pg-0", "empty", "pv-empty")));
    };
    waits(foreign, "was made by somebody else meanwhile; delete it");
}

#[test]
fn a_pod_that_has_never_had_its_claim_gets_one() {
    let mut record = record(true);
    (record.claims[0].old_uid, record.claims[0].old_volume) = (None, None);
    let mut seen = stopped();
    (seen.claims[0].old, seen.claims[0].claim, seen.claims[0].temporary) = (None, None, None);
    assert_eq!(next(&record, WHOSE, &seen), Step::Claim(0, Act::CreateClaim));
}
