//! Claims that name a backup as their source: filled before anything is bound to them.

use std::collections::BTreeMap;

use kbbackup_e2e::{LIMIT, ended, phase};
use kbbackup_testing::fixtures::{self, list};
use kbbackup_testing::kubectl::Kubectl;
use kbbackup_testing::namespace::TempNamespace;
use serde_json::{Value, json};

use crate::{begin, files};

const GROUP: &str = "dataprotection.kubeblocks.io";
const IMMEDIATE: &str = "btrfs-immediate";
const FIRST_CONSUMER: &str = "btrfs";

/// A namespace with a completed backup `full` of one volume, what that volume holds, and a recipe that restores by `unpack`.
fn backed_up(test: &str, unpack: &str) -> (Kubectl, TempNamespace, BTreeMap<String, String>) {
    let (cluster, space) = begin(test).unwrap();
    files::create(&space, 1).unwrap();
    let set = files::recipe(&space.name, "Full", files::PACK, unpack);
    let policy = files::policy("Any", &[("full", &space.name, None)]);
    space.kubectl.apply(&list(&[set, policy]).to_string()).unwrap();
    let script = "mkdir -p /data/below; echo treasure > /data/chest; head -c 300000 /dev/urandom > /data/below/random";
    files::run(&space.kubectl, "files-0", script).unwrap();
    let held = files::digests(&space.kubectl, "files-0", "/data").unwrap();
    space.kubectl.apply(&fixtures::backup("full", "files", "full").to_string()).unwrap();
    let object = ended(&space, "full", LIMIT).unwrap();
    assert_eq!(phase(&object), "Completed", "{}", object["status"]);
    (cluster, space, held)
}

/// The recipe goes last, as it has no namespace.
fn end(cluster: &Kubectl, space: TempNamespace) {
    let name = space.name.clone();
    drop(space);
    drop(cluster.try_run(&["delete", "actionset", &name, "--wait=false"]));
}

fn claim(name: &str, class: &str, kind: &str, source: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
        "spec": {
            "storageClassName": class, "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "64Mi"}},
            "dataSourceRef": {"apiGroup": GROUP, "kind": kind, "name": source},
        },
    })
}

fn create(space: &TempNamespace, objects: &[Value]) {
    space.kubectl.apply(&list(objects).to_string()).unwrap();
}

/// Status, reason and message of a claim's condition.
fn condition(claim: &Value, type_: &str) -> (String, String, String) {
    let conditions = claim["status"]["conditions"].as_array().into_iter().flatten();
    let found = conditions.into_iter().find(|condition| condition["type"] == type_).cloned().unwrap_or_default();
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"), text("message"))
}

fn has_reason(claim: &Value, reason: &str) -> bool {
    condition(claim, "Populating").1 == reason
}

/// Waits until nothing of a claim's filling is left but its Restore, and checks what it says about itself.
fn is_filled(space: &TempNamespace, name: &str) {
    let done = space.kubectl.wait_for("pvc", name, LIMIT, |claim| has_reason(claim, "Succeed")).unwrap();
    assert_eq!(condition(&done, "Restore").0, "True");
    let done = space.kubectl.wait_for("pvc", name, LIMIT, |claim| !held_by_us(claim)).unwrap();
    assert_eq!(phase(&done), "Bound");
    let uid = done["metadata"]["uid"].as_str().unwrap();
    space.kubectl.wait_gone("pvc", &format!("kb-populate-{uid}"), LIMIT).unwrap();
    let volume = space.kubectl.get(&["pv", done["spec"]["volumeName"].as_str().unwrap()]).unwrap();
    assert_eq!(volume["spec"]["persistentVolumeReclaimPolicy"], "Delete", "its class's own policy is back");
    assert_eq!(volume["spec"]["claimRef"]["uid"], uid);
    assert!(volume["metadata"]["annotations"]["dataprotection.kubeblocks.io/populate-from"].is_string());
}

fn held_by_us(claim: &Value) -> bool {
    claim["metadata"]["finalizers"]
        .as_array()
        .is_some_and(|all| all.iter().any(|one| one == &format!("{GROUP}/finalizer")))
}

fn has_event(space: &TempNamespace, claim: &str, reason: &str) -> bool {
    let selector = format!("involvedObject.name={claim},reason={reason}");
    let events = space.kubectl.get(&["events", "--field-selector", &selector]).unwrap();
    events["items"].as_array().is_some_and(|items| !items.is_empty())
}

#[test]
fn claims_of_both_binding_modes_are_filled_from_a_backup_and_from_a_restore() {
    let (cluster, space, held) = backed_up("populator", files::UNPACK);
    let source = json!({ "volumeClaimRestorePolicy": "Parallel", "dataSourceRef": {"volumeSource": "data", "mountPath": "/data"} });
    create(
        &space,
        &[
            claim("now", IMMEDIATE, "Backup", "full"),
            claim("later", FIRST_CONSUMER, "Backup", "full"),
            files::restore(&space, "source", "full", &source, None),
            claim("of-restore", IMMEDIATE, "Restore", "source"),
        ],
    );
    is_filled(&space, "now");
    is_filled(&space, "of-restore");
    assert_eq!(phase(&space.kubectl.get(&["restore", "source"]).unwrap()), "AsDataSource");
    let waiting = space.kubectl.get(&["pvc", "later"]).unwrap();
    assert_eq!((phase(&waiting), held_by_us(&waiting)), ("Pending", false), "no pod uses it yet");
    let claims = ["now", "later", "of-restore"].map(str::to_owned);
    files::show(&space, "show", &claims).unwrap();
    is_filled(&space, "later");
    for claim in &claims {
        assert_eq!(files::digests(&space.kubectl, "show", &format!("/claims/{claim}")).unwrap(), held, "{claim}");
    }
    assert!(has_event(&space, "now", "StartToVolumePopulate") && has_event(&space, "now", "VolumePopulateSucceed"));
    end(&cluster, space);
}

#[test]
fn a_claim_that_names_no_backup_says_so_and_is_filled_when_it_comes() {
    let (cluster, space, held) = backed_up("nosource", files::UNPACK);
    create(&space, &[claim("early", IMMEDIATE, "Backup", "second")]);
    let told = space.kubectl.wait_for("pvc", "early", LIMIT, |claim| has_reason(claim, "Failed")).unwrap();
    assert!(condition(&told, "Populating").2.contains("backup second does not exist"), "{}", told["status"]);
    assert_eq!((phase(&told), condition(&told, "Restore").0.as_str()), ("Pending", "False"));
    space.kubectl.wait_for("pvc", "early", LIMIT, |_| has_event(&space, "early", "VolumePopulateFailed")).unwrap();
    create(&space, &[fixtures::backup("second", "files", "full")]);
    is_filled(&space, "early");
    files::show(&space, "show", &["early".to_owned()]).unwrap();
    assert_eq!(files::digests(&space.kubectl, "show", "/claims/early").unwrap(), held);
    end(&cluster, space);
}

#[test]
fn a_failed_restore_is_told_and_a_claim_deleted_half_way_leaves_nothing() {
    // Claims of a class that waits for nobody; the script tells them apart by what the restore sets.
    let script =
        format!("{}\nif [ -n \"$BREAK\" ]; then echo 'disk on fire' >&2; exit 3; fi\nexec sleep 600", files::UNPACK);
    let (cluster, space, _) = backed_up("halfway", &script);
    let mut broken = claim("broken", IMMEDIATE, "Backup", "full");
    let env = json!({ format!("{GROUP}/restore-env"): r#"[{"name": "BREAK", "value": "yes"}]"# });
    broken["metadata"]["annotations"] = json!({ "apps.kubeblocks.io/restore-parameters": env.to_string() });
    create(&space, &[broken, claim("halfway", IMMEDIATE, "Backup", "full")]);
    let told = space.kubectl.wait_for("pvc", "broken", LIMIT, |claim| has_reason(claim, "Failed")).unwrap();
    assert!(condition(&told, "Populating").2.contains("disk on fire"), "{}", told["status"]);
    assert_eq!(phase(&told), "Pending", "nothing is bound that was not restored");

    let halfway = space.kubectl.wait_for("pvc", "halfway", LIMIT, held_by_us).unwrap();
    let name = format!("kb-populate-{}", halfway["metadata"]["uid"].as_str().unwrap());
    space.kubectl.wait_for("restore", &name, LIMIT, |restore| phase(restore) == "Running").unwrap();
    space.kubectl.run(&["delete", "pvc", "broken", "halfway", "--timeout=180s"]).unwrap();
    for claim in [&told, &halfway] {
        let name = format!("kb-populate-{}", claim["metadata"]["uid"].as_str().unwrap());
        space.kubectl.wait_gone("restore", &name, LIMIT).unwrap();
        space.kubectl.wait_gone("pvc", &name, LIMIT).unwrap();
    }
    let volumes = cluster.get(&["pv"]).unwrap();
    let left = volumes["items"].as_array().into_iter().flatten();
    let ours = |volume: &&Value| {
        let of = &volume["spec"]["claimRef"];
        of["namespace"] == space.name.as_str()
            && of["name"].as_str().is_some_and(|name| !name.starts_with("data-files"))
    };
    for volume in left.filter(ours) {
        cluster.wait_gone("pv", volume["metadata"]["name"].as_str().unwrap(), LIMIT).unwrap();
    }
    end(&cluster, space);
}
