//! A restore in place against an API server in memory, with as much of Kubernetes as it takes: Jobs that end, pods that
//! go, claims that are bound, volumes that are deleted with their claim. The process is killed after every single write.

use std::sync::Arc;

use kbbackup_api::names::labels;
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::Classified as _;
use crate::fake::{Fake, from, guarded, holding, job};
use crate::restore::reconcile;

const AT: &str = "demo/restores/r1";
const SET: &str = "demo/statefulsets/pg";
const CLAIM: &str = "demo/persistentvolumeclaims/data-pg-0";
const TEMPORARY: &str = "demo/persistentvolumeclaims/data-r1-0";
const OLD: &str = "-/persistentvolumes/pv-old";
const NEW: &str = "-/persistentvolumes/pv-of-data-r1-0";
const JOB: &str = "demo/jobs/restore-preparedata-12345678-b1-0";
const POD: &str = "demo/pods/pg-0";
const SNAPSHOT: &str = "demo/volumesnapshots/r1-data-pg-0";
const BOUND: &str = "pv.kubernetes.io/bind-completed";

fn restore() -> Value {
    let template = json!({ "metadata": {"name": "data-r1"}, "volumeSource": "data",
        "volumeClaimSpec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}} });
    json!({ "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "Restore",
        "metadata": {"name": "r1", "namespace": "demo", "uid": "12345678-0000", "resourceVersion": "1",
            "creationTimestamp": jiff::Timestamp::now().to_string(), "annotations": {"kbbackup.io/in-place": "pg"}},
        "spec": {"backup": {"name": "b1", "namespace": "demo"}, "prepareDataConfig": {"volumeClaimRestorePolicy": "Parallel",
            "volumeClaimsTemplate": {"replicas": 1, "templates": [template]}}} })
}

fn backup() -> Value {
    json!({ "metadata": {"name": "b1", "namespace": "demo", "labels": {labels::BACKUP_TYPE: "Full"},
            "annotations": {"kbbackup.io/target-image": "pg:1", "kbbackup.io/seal": "s"}},
        "spec": {"backupPolicyName": "p", "backupMethod": "full"},
        "status": {"phase": "Completed", "path": "/demo/b1", "backupRepoName": "main",
            "target": {"podSelector": {"strategy": "Any"}, "selectedTargetPods": ["pg-0"]},
            "backupMethod": {"name": "full", "actionSetName": "a",
                "targetVolumes": {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}}} })
}

fn set() -> Value {
    json!({ "metadata": {"name": "pg", "namespace": "demo", "uid": "set", "resourceVersion": "1"},
        "spec": {"replicas": 1, "serviceName": "pg", "selector": {"matchLabels": {"app": "pg"}},
            "template": {"spec": {"containers": [], "tolerations": [{"key": "db", "operator": "Exists"}]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}}]},
        "status": {"replicas": 1, "readyReplicas": 1} })
}

/// A volume as the driver makes it: on one node, and deleted with its claim.
fn volume(name: &str, claim: &str, uid: &str) -> Value {
    let nodes =
        json!([{ "matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["n1"]}] }]);
    json!({ "metadata": {"name": name, "resourceVersion": "1"}, "status": {"phase": "Bound"},
        "spec": {"persistentVolumeReclaimPolicy": "Delete", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "2Gi"},
            "storageClassName": "local", "csi": {"driver": "disk", "volumeHandle": name},
            "nodeAffinity": {"required": {"nodeSelectorTerms": nodes}},
            "claimRef": {"namespace": "demo", "name": claim, "uid": uid}} })
}

fn cluster() -> Fake {
    let action = json!({ "image": "pg:1", "command": ["c"] });
    Fake::new([
        (AT, restore()),
        ("demo/backups/b1", backup()),
        (
            "-/actionsets/a",
            json!({ "metadata": {"name": "a"}, "spec": {"backupType": "Full", "restore": {"prepareData": action}} }),
        ),
        (
            "-/backuprepos/main",
            json!({ "metadata": {"name": "main"}, "spec": {"storageProviderRef": "s3", "accessMethod": "Tool",
                "pvReclaimPolicy": "Retain"}, "status": {"phase": "Ready", "toolConfigSecretName": "tool"} }),
        ),
        ("demo/secrets/tool", json!({ "metadata": {"name": "tool"} })),
        ("demo/serviceaccounts/kubeblocks-dataprotection-worker", json!({ "metadata": {"name": "w"} })),
        (SET, set()),
        (
            CLAIM,
            json!({ "metadata": {"name": "data-pg-0", "namespace": "demo", "uid": "old", "resourceVersion": "1",
                "finalizers": ["kubernetes.io/pvc-protection"], "labels": {"app": "pg"}, "annotations": {BOUND: "yes", "own": "1"}},
                "spec": {"volumeName": "pv-old"} }),
        ),
        (OLD, volume("pv-old", "data-pg-0", "old")),
        (POD, pod("pg-0")),
    ])
}

fn pod(name: &str) -> Value {
    json!({ "metadata": {"name": name, "namespace": "demo", "labels": {"app": "pg"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "pg", "uid": "set"}]},
        "spec": {"containers": [], "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data-pg-0"}}]} })
}

/// What Kubernetes does meanwhile.
fn kubernetes(fake: &Fake) {
    if let Some(mut set) = fake.get(SET) {
        let replicas = set["spec"]["replicas"].clone();
        set["status"] = json!({ "replicas": replicas, "readyReplicas": replicas });
        fake.put(SET, set);
        if replicas == 0 { fake.remove(POD) } else { fake.put(POD, pod("pg-0")) }
    }
    for (path, name) in [(CLAIM, "data-pg-0"), (TEMPORARY, "data-r1-0")] {
        let Some(mut claim) = fake.get(path) else { continue };
        let used = fake.get(POD).is_some() && path == CLAIM || fake.get(JOB).is_some() && path == TEMPORARY;
        if !claim["metadata"]["deletionTimestamp"].is_null() && !used {
            fake.remove(path);
            continue;
        }
        let uid = claim["metadata"]["uid"].as_str().unwrap().to_owned();
        // A class without a provisioner would leave it; ours gives each claim that asks for no volume a new one. Of a snapshot
        // it makes one when a pod wants it.
        let wanted = claim["spec"]["dataSource"].is_null() || fake.get(JOB).is_some();
        if claim["spec"]["volumeName"].is_null() && wanted {
            let volume_name = format!("pv-of-{name}");
            fake.put(&format!("-/persistentvolumes/{volume_name}"), volume(&volume_name, name, &uid));
            claim["spec"]["volumeName"] = json!(volume_name);
        }
        let at = format!("-/persistentvolumes/{}", claim["spec"]["volumeName"].as_str().unwrap());
        if fake.get(&at).is_some_and(|volume| volume["spec"]["claimRef"]["uid"] == *uid) {
            claim["metadata"]["annotations"][BOUND] = json!("yes");
        }
        claim["metadata"]["finalizers"] = json!(["kubernetes.io/pvc-protection"]);
        fake.put(path, claim);
    }
    for path in [OLD, NEW] {
        let Some(volume) = fake.get(path) else { continue };
        let uid = &volume["spec"]["claimRef"]["uid"];
        let claimed =
            [CLAIM, TEMPORARY].iter().any(|claim| fake.get(claim).is_some_and(|it| it["metadata"]["uid"] == *uid));
        if !claimed && volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete" {
            fake.remove(path);
        }
    }
    if let Some(mut snapshot) = fake.get(SNAPSHOT) {
        snapshot["status"] = json!({ "creationTime": "2026-01-01T00:00:00Z", "readyToUse": false });
        fake.put(SNAPSHOT, snapshot);
    }
}

/// What the watches know: Jobs that are there have ended as `end` says.
fn context(fake: &Fake, end: &str) -> Context {
    let mut ctx = fake.context();
    let known = fake.get(JOB).map(|found| job(found["metadata"].clone(), Some(end)));
    ctx.stores.jobs = holding(known);
    ctx
}

async fn look(fake: &Fake, end: &str) -> Result<(), String> {
    let Some(object) = fake.get(AT) else { return Ok(()) };
    let result = reconcile(Arc::new(guarded(object)), Arc::new(context(fake, end))).await;
    result.map(drop).map_err(|error| format!("{}: {error}", error.reason()))
}

fn phase(fake: &Fake) -> String {
    fake.get(AT).map_or("gone".to_owned(), |it| it["status"]["phase"].as_str().unwrap_or_default().to_owned())
}

fn is_over(fake: &Fake) -> bool {
    matches!(phase(fake).as_str(), "Completed" | "Failed" | "gone")
}

/// To the end, whatever was before.
async fn to_the_end(fake: &Fake, end: &str) {
    fake.takes(None);
    for _ in 0..40 {
        if is_over(fake) {
            return;
        }
        kubernetes(fake);
        look(fake, end).await.unwrap();
    }
    panic!("no end: {}", fake.get(AT).unwrap());
}

/// As far as so many writes go; whether it ended within them.
async fn killed_after(fake: &Fake, writes: usize, end: &str) -> bool {
    fake.takes(Some(writes));
    for _ in 0..40 {
        kubernetes(fake);
        if look(fake, end).await.is_err() {
            return false;
        }
        if is_over(fake) {
            return true;
        }
    }
    // The last write was of what may fail, such as an event.
    false
}

/// The claim has the restored volume, the old one is kept, and it runs.
fn exchanged(fake: &Fake, told: &str) {
    let claim = fake.get(CLAIM).unwrap_or_else(|| panic!("{told}: no claim"));
    assert_eq!(claim["spec"]["volumeName"], "pv-of-data-r1-0", "{told}");
    assert_eq!(
        (&claim["metadata"]["labels"]["app"], &claim["metadata"]["annotations"]["own"]),
        (&json!("pg"), &json!("1"))
    );
    assert_eq!(claim["spec"]["resources"]["requests"]["storage"], "2Gi", "{told}: what the volume has");
    let new = fake.get(NEW).unwrap_or_else(|| panic!("{told}: the restored volume is gone"));
    assert_eq!(new["spec"]["claimRef"]["uid"], claim["metadata"]["uid"], "{told}");
    assert_eq!(new["spec"]["persistentVolumeReclaimPolicy"], "Delete", "{told}: as its class wants it");
    let old = fake.get(OLD).unwrap_or_else(|| panic!("{told}: the old volume is gone"));
    assert_eq!(old["spec"]["persistentVolumeReclaimPolicy"], "Retain", "{told}");
    assert_eq!(old["metadata"]["labels"]["kbbackup.io/in-place"], "r1", "{told}");
    assert_eq!(old["metadata"]["annotations"]["kbbackup.io/former-claim"], "demo/data-pg-0", "{told}");
    assert!(fake.get(TEMPORARY).is_none(), "{told}: the temporary claim is left");
    assert_eq!(fake.get(SET).unwrap()["spec"]["replicas"], 1, "{told}");
}

/// All is as it was.
fn untouched(fake: &Fake, told: &str) {
    kubernetes(fake);
    assert_eq!(fake.get(CLAIM).unwrap()["metadata"]["uid"], "old", "{told}");
    assert_eq!(fake.get(OLD).unwrap()["spec"]["claimRef"]["uid"], "old", "{told}");
    assert_eq!(fake.get(OLD).unwrap()["spec"]["persistentVolumeReclaimPolicy"], "Delete", "{told}");
    assert!(fake.get(TEMPORARY).is_none(), "{told}: the temporary claim is left");
    assert!(fake.get(NEW).is_none(), "{told}: the volume of the temporary claim is left");
    assert!(fake.get(SNAPSHOT).is_none(), "{told}: a snapshot is left");
    assert_eq!(fake.get(SET).unwrap()["spec"]["replicas"], 1, "{told}");
}

#[tokio::test]
async fn the_volumes_are_filled_first_and_exchanged_while_it_is_stopped() {
    let fake = cluster();
    to_the_end(&fake, "Complete").await;
    assert_eq!(phase(&fake), "Completed", "{}", fake.get(AT).unwrap());
    exchanged(&fake, "killed never");
    let writes = fake.writes();
    let at = |wanted: &str| {
        writes.iter().position(|write| write == wanted).unwrap_or_else(|| panic!("{wanted}: {writes:?}"))
    };
    let order = [
        "POST demo/persistentvolumeclaims",
        "POST demo/jobs",
        "EVENT StoppingWorkload",
        "PATCH -/persistentvolumes/pv-old",
        "PATCH -/persistentvolumes/pv-of-data-r1-0",
        "DELETE demo/persistentvolumeclaims/data-r1-0",
        "DELETE demo/persistentvolumeclaims/data-pg-0",
        "EVENT VolumeExchanged",
        "EVENT StartingWorkload",
        "EVENT RestoreCompleted",
    ]
    .map(at);
    assert!(order.is_sorted(), "{order:?}: {writes:?}");
    let restore = fake.get(AT).unwrap();
    let conditions = restore["status"]["conditions"].as_array().unwrap().clone();
    let told = conditions.iter().find(|condition| condition["type"] == "VolumesExchanged").unwrap();
    assert_eq!(
        (&told["status"], &told["message"]),
        (&json!("True"), &json!("kept: persistentvolume pv-old (claim data-pg-0)"))
    );
}

#[tokio::test]
async fn the_job_runs_where_the_old_volume_is_reached() {
    let fake = cluster();
    look(&fake, "").await.unwrap();
    let pod = fake.get(JOB).unwrap()["spec"]["template"]["spec"].clone();
    let nodes = &pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    assert_eq!(nodes["nodeSelectorTerms"][0]["matchExpressions"][0]["values"], json!(["n1"]));
    assert!(pod["tolerations"].as_array().unwrap().iter().any(|taint| taint["key"] == "db"), "{pod}");
}

#[tokio::test]
async fn a_snapshot_is_cut_while_it_stands_still_and_outlives_the_restore() {
    let fake = cluster();
    fake.put(
        "-/volumesnapshotclasses/quick",
        json!({ "metadata": {"name": "quick"}, "driver": "disk", "deletionPolicy": "Delete" }),
    );
    to_the_end(&fake, "Complete").await;
    exchanged(&fake, "with a snapshot");
    let snapshot = fake.get(SNAPSHOT).unwrap();
    assert_eq!(snapshot["spec"]["source"]["persistentVolumeClaimName"], "data-pg-0");
    assert!(snapshot["metadata"]["ownerReferences"].is_null());
    let writes = fake.writes();
    let at = |wanted: &str| writes.iter().position(|write| write == wanted).unwrap();
    assert!(at("EVENT StoppingWorkload") < at("POST demo/volumesnapshots"));
    assert!(at("POST demo/volumesnapshots") < at("PATCH -/persistentvolumes/pv-old"));

    let fake = cluster();
    let mut asked = restore();
    asked["metadata"]["annotations"]["kbbackup.io/safety-snapshot"] = json!("false");
    fake.put(AT, asked);
    fake.put(
        "-/volumesnapshotclasses/quick",
        json!({ "metadata": {"name": "quick"}, "driver": "disk", "deletionPolicy": "Delete" }),
    );
    to_the_end(&fake, "Complete").await;
    exchanged(&fake, "without one");
    assert!(fake.get(SNAPSHOT).is_none());
}

/// No repository, no recipe and no seal: the driver fills the new volumes.
#[tokio::test]
async fn snapshots_alone_are_exchanged_once_a_pod_has_wanted_their_volumes() {
    let fake = cluster();
    let mut of_snapshots = backup();
    of_snapshots["metadata"]["annotations"] = json!({});
    let taken = json!([{ "name": "createVolumeSnapshot-0", "targetPodName": "pg-0",
        "volumeSnapshots": [{"name": "b1-data", "volumeName": "data"}] }]);
    of_snapshots["status"] = json!({ "phase": "Completed", "actions": taken,
        "target": {"podSelector": {"strategy": "Any"}, "selectedTargetPods": ["pg-0"]},
        "backupMethod": {"name": "snap", "snapshotVolumes": true} });
    fake.put("demo/backups/b1", of_snapshots);
    let ready = json!({ "readyToUse": true, "restoreSize": "1Gi" });
    let snapshot =
        json!({ "metadata": {"name": "b1-data", "namespace": "demo"}, "spec": {"source": {}}, "status": ready });
    fake.put("demo/volumesnapshots/b1-data", snapshot);

    look(&fake, "").await.unwrap();
    look(&fake, "").await.unwrap();
    assert_eq!(fake.get(TEMPORARY).unwrap()["spec"]["dataSource"]["name"], "b1-data");
    let pod = fake.get(JOB).unwrap()["spec"]["template"]["spec"].clone();
    assert_eq!(pod["volumes"][0]["persistentVolumeClaim"]["claimName"], "data-r1-0");
    assert_eq!(pod["containers"][0]["volumeMounts"][0]["readOnly"], true);
    assert!(pod["securityContext"]["fsGroup"].is_null(), "it would be given to the data: {pod}");
    to_the_end(&fake, "Complete").await;
    assert_eq!(phase(&fake), "Completed", "{}", fake.get(AT).unwrap());
    exchanged(&fake, "from a snapshot");
}

#[tokio::test]
async fn killed_after_any_write_it_ends_the_same() {
    for writes in 0.. {
        let fake = cluster();
        let ended = killed_after(&fake, writes, "Complete").await;
        assert!(fake.get(OLD).is_some(), "killed after {writes}");
        to_the_end(&fake, "Complete").await;
        assert_eq!(phase(&fake), "Completed", "killed after {writes}: {}", fake.get(AT).unwrap());
        exchanged(&fake, &format!("killed after {writes}"));
        if ended {
            assert!(writes > 20, "only {writes} writes were tried");
            return;
        }
    }
}

#[tokio::test]
async fn a_job_that_fails_leaves_it_running_whenever_it_is_killed() {
    for writes in 0.. {
        let fake = cluster();
        let ended = killed_after(&fake, writes, "Failed").await;
        assert_eq!(fake.get(SET).unwrap()["spec"]["replicas"], 1, "it is never stopped");
        to_the_end(&fake, "Failed").await;
        assert_eq!(phase(&fake), "Failed", "killed after {writes}");
        untouched(&fake, &format!("killed after {writes}"));
        let status = fake.get(AT).unwrap()["status"].to_string();
        assert!(status.contains("statefulset pg has its volumes and its data as before"), "{status}");
        if ended {
            return;
        }
    }
}

/// The volume with the restored data is lost while the workload stands still.
async fn lost(fake: &Fake) {
    while fake.get(SET).unwrap()["spec"]["replicas"] == 1 {
        kubernetes(fake);
        look(fake, "Complete").await.unwrap();
    }
    let mut volume = fake.get(NEW).unwrap();
    volume["spec"]["claimRef"]["uid"] = json!("somebody");
    volume["spec"]["persistentVolumeReclaimPolicy"] = json!("Retain");
    fake.put(NEW, volume);
}

#[tokio::test]
async fn what_fails_while_it_stands_still_starts_it_again_with_its_old_data() {
    for writes in 0.. {
        let fake = cluster();
        lost(&fake).await;
        let ended = killed_after(&fake, writes, "Complete").await;
        to_the_end(&fake, "Complete").await;
        assert_eq!(phase(&fake), "Failed", "killed after {writes}");
        fake.remove(NEW);
        untouched(&fake, &format!("killed after {writes}"));
        let status = fake.get(AT).unwrap()["status"].to_string();
        assert!(status.contains("has lost its volume pv-of-data-r1-0"), "{status}");
        if ended {
            return;
        }
    }
}

#[tokio::test]
async fn deleted_at_any_moment_it_goes_back_or_to_the_end_and_never_stays_between() {
    let (mut back, mut through) = (0, 0);
    for writes in 0.. {
        let fake = cluster();
        let ended = killed_after(&fake, writes, "Complete").await;
        fake.takes(None);
        if ended {
            break;
        }
        let Some(mut restore) = fake.get(AT) else { continue };
        if restore["metadata"]["finalizers"].is_null() {
            continue;
        }
        restore["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        fake.put(AT, restore.clone());
        to_the_end(&fake, "Complete").await;
        assert_eq!(phase(&fake), "gone", "deleted after {writes}");
        let told = format!("deleted after {writes}");
        if fake.get(CLAIM).unwrap()["metadata"]["uid"] == "old" {
            untouched(&fake, &told);
            back += 1;
        } else {
            exchanged(&fake, &told);
            through += 1;
        }
    }
    assert!(back > 5 && through > 5, "{back} went back, {through} through");
}

#[tokio::test]
async fn a_workload_that_is_gone_holds_no_restore_that_is_deleted() {
    let fake = cluster();
    killed_after(&fake, 24, "Complete").await;
    fake.takes(None);
    let mut restore = fake.get(AT).unwrap();
    restore["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    fake.put(AT, restore);
    fake.remove(SET);
    to_the_end(&fake, "Complete").await;
    assert_eq!(phase(&fake), "gone");
    assert!(fake.get(OLD).is_some());
}

#[tokio::test]
async fn whoever_makes_the_claim_meanwhile_is_told_and_it_goes_on_without_him() {
    let fake = cluster();
    let made = json!({ "metadata": {"name": "data-pg-0", "namespace": "demo", "uid": "empty", "annotations": {}}, "spec": {} });
    for _ in 0..40 {
        look(&fake, "Complete").await.unwrap();
        // Before Kubernetes has taken it away, there is one that is going; then somebody is quicker than we are.
        let going = fake.get(CLAIM).is_some_and(|claim| !claim["metadata"]["deletionTimestamp"].is_null());
        if going {
            fake.put(CLAIM, made.clone());
            break;
        }
        kubernetes(&fake);
    }
    kubernetes(&fake);
    look(&fake, "Complete").await.unwrap();
    let waiting = fake.get(AT).unwrap()["metadata"]["annotations"]["kbbackup.io/waiting-for"].to_string();
    assert!(waiting.contains("a claim data-pg-0 was made by somebody else"), "{waiting}");
    assert_eq!(phase(&fake), "Running");
    fake.remove(CLAIM);
    to_the_end(&fake, "Complete").await;
    exchanged(&fake, "after somebody else");
}

type Change = Box<dyn Fn(&Fake)>;

#[tokio::test]
async fn what_stands_against_it_is_told_before_anything_is_touched() {
    let change = |path: &'static str, change: fn(&mut Value)| {
        move |fake: &Fake| {
            let mut object = fake.get(path).unwrap();
            change(&mut object);
            fake.put(path, object);
        }
    };
    let scaler = |fake: &Fake| {
        let of = json!({ "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "pg" });
        let scaler = json!({ "metadata": {"name": "h"}, "spec": {"maxReplicas": 3, "scaleTargetRef": of} });
        fake.put("demo/horizontalpodautoscalers/h", scaler);
    };
    let stranger = |fake: &Fake| {
        let mut stranger = pod("debug");
        stranger["metadata"]["ownerReferences"] = json!([]);
        fake.put("demo/pods/debug", stranger);
    };
    let exists =
        |fake: &Fake| fake.put(TEMPORARY, json!({ "metadata": {"name": "data-r1-0", "uid": "x"}, "spec": {} }));
    let larger = json!({ "statefulSet": {"metadata": {"name": "pg"}, "spec": {"serviceName": "pg", "selector": {}, "template": {},
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"resources": {"requests": {"storage": "5Gi"}}}}]}} });
    let smaller = move |fake: &Fake| {
        let mut backup = fake.get("demo/backups/b1").unwrap();
        backup["metadata"]["annotations"]["kbbackup.io/workload"] = json!(larger.to_string());
        fake.put("demo/backups/b1", backup);
    };
    let cases: Vec<(Change, &str)> = vec![
        (Box::new(|fake: &Fake| fake.remove(SET)), "statefulset pg does not exist"),
        (
            Box::new(change(SET, |set| set["spec"]["replicas"] = json!(2))),
            "has 2 pods from pg-0 on, and the restore fills the claims of 1",
        ),
        (Box::new(change(SET, |set| set["spec"]["volumeClaimTemplates"] = json!([]))), "has no claim template"),
        (
            Box::new(change(SET, |set| {
                set["spec"]["persistentVolumeClaimRetentionPolicy"] = json!({ "whenScaled": "Delete" });
            })),
            "deletes its claims",
        ),
        (Box::new(scaler), "horizontalpodautoscaler h"),
        (Box::new(stranger), "used by pod debug"),
        (Box::new(exists), "claim data-r1-0 exists"),
        (Box::new(smaller), "volume data would have 1Gi, and it had 5Gi"),
        (
            Box::new(change("demo/backups/b1", |backup| {
                backup["metadata"]["annotations"].as_object_mut().unwrap().remove("kbbackup.io/seal");
            })),
            "nothing vouches for backup b1",
        ),
        (
            Box::new(change("demo/backups/b1", |backup| backup["status"]["phase"] = json!("Failed"))),
            "is Failed, not Completed",
        ),
        (
            Box::new(change("-/actionsets/a", |set| set["spec"]["restore"] = json!({}))),
            "no recipe of backup b1 fills volumes",
        ),
        (
            Box::new(change(AT, |restore| {
                restore["metadata"]["annotations"]["kbbackup.io/restore-workload"] = json!("pg");
            })),
            "exclude each other",
        ),
    ];
    for (change, told) in cases {
        let fake = cluster();
        change(&fake);
        to_the_end(&fake, "Complete").await;
        assert_eq!(phase(&fake), "Failed", "{told}");
        let status = fake.get(AT).unwrap()["status"].to_string();
        assert!(status.contains(told), "{told}: {status}");
        let writes = fake.writes();
        let ours = |write: &&String| !write.contains("restores/r1") && !write.starts_with("EVENT");
        assert_eq!(writes.iter().find(ours), None, "{told}");
    }
}

#[tokio::test]
async fn two_restores_do_not_take_the_same_workload_and_none_begins_during_a_backup() {
    let fake = cluster();
    let mut other = restore();
    other["metadata"]["name"] = json!("r0");
    other["metadata"]["uid"] = json!("other");
    other["status"] = json!({ "phase": "Running" });
    let mut ctx = context(&fake, "Complete");
    ctx.stores.restores = holding([guarded(other)]);
    reconcile(Arc::new(guarded(fake.get(AT).unwrap())), Arc::new(ctx)).await.unwrap();
    let status = fake.get(AT).unwrap()["status"].to_string();
    assert!(status.contains("restore r0 takes statefulset pg back in place as well"), "{status}");

    let fake = cluster();
    let mut running = backup();
    running["metadata"]["name"] = json!("b2");
    running["status"]["phase"] = json!("Running");
    let mut ctx = context(&fake, "Complete");
    ctx.stores.backups = holding([from(running)]);
    reconcile(Arc::new(guarded(fake.get(AT).unwrap())), Arc::new(ctx)).await.unwrap();
    let status = fake.get(AT).unwrap()["status"].to_string();
    assert!(status.contains("backup b2 of statefulset pg is running"), "{status}");
}
