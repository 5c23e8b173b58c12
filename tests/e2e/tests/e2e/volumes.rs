//! The files of any workload by kbb-files and kbb-files-incremental: what comes back is what was there, to the last attribute.

use kbbackup_e2e::{LIMIT, ended, phase};
use kbbackup_testing::fixtures::{self, POSTGRES_IMAGE, list};
use kbbackup_testing::kubectl::Kubectl;
use kbbackup_testing::namespace::TempNamespace;
use serde_json::{Value, json};

use crate::recipes::{method, policy, restore, restored};
use crate::{begin, files};

/// The volumes of a pod by name and path.
const VOLUMES: [(&str, &str); 2] = [("data", "/data"), ("log", "/var/logs")];

/// Type, mode, owner, size, time, target and path of everything, and every digest.
fn content(kubectl: &Kubectl, pod: &str) -> String {
    let script = r"cd /; find data var/logs ! -name lost+found -printf '%y %m %U %G %T@ %n %l %p\n' | sort -k8
        find data -type d -o -printf '%s %p\n' | sort; find data var/logs -type f -exec sha256sum {} + | sort";
    files::run(kubectl, pod, script).unwrap()
}

fn pod(name: &str, claims: [&str; 2]) -> Value {
    let mounts: Vec<_> = VOLUMES.iter().map(|(name, path)| json!({"name": name, "mountPath": path})).collect();
    let volumes: Vec<_> = VOLUMES
        .iter()
        .zip(claims)
        .map(|((name, _), claim)| json!({"name": name, "persistentVolumeClaim": {"claimName": claim}}))
        .collect();
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app.kubernetes.io/name": name}},
        "spec": {
            "terminationGracePeriodSeconds": 0, "volumes": volumes,
            "containers": [{"name": "main", "image": POSTGRES_IMAGE, "imagePullPolicy": "IfNotPresent",
                "command": ["sleep", "infinity"], "volumeMounts": mounts}],
        },
    })
}

fn claim(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "64Mi"}}},
    })
}

fn both_volumes(name: &str, full: Option<&str>) -> Value {
    let mut method = method(name, if full.is_some() { "kbb-files-incremental" } else { "kbb-files" }, "/data", full);
    method["targetVolumes"]["volumeMounts"] =
        VOLUMES.iter().map(|(name, path)| json!({"name": name, "mountPath": path})).collect();
    method
}

fn take(space: &TempNamespace, name: &str, method: &str) -> Value {
    space.kubectl.apply(&fixtures::backup(name, "work", method).to_string()).unwrap();
    let object = ended(space, name, LIMIT).unwrap();
    assert_eq!(phase(&object), "Completed", "{}", object["status"]);
    object
}

#[test]
fn volumes_come_back_to_the_last_attribute_and_what_vanished_stays_away() {
    let (_cluster, space) = begin("volumes").unwrap();
    let mut rules = policy(
        "work",
        &json!({"app.kubernetes.io/name": "work"}),
        "main",
        "none",
        &[both_volumes("full", None), both_volumes("incremental", Some("full"))],
    );
    let target = rules["spec"]["target"].as_object_mut().unwrap();
    target.retain(|key, _| key == "podSelector");
    space
        .kubectl
        .apply(&list(&[claim("data"), claim("log"), pod("work", ["data", "log"]), rules]).to_string())
        .unwrap();
    let running = |pod: &Value| pod["status"]["phase"] == "Running";
    space.kubectl.wait_for("pod", "work", LIMIT, running).unwrap();
    let change = |script: &str| files::run(&space.kubectl, "work", script).unwrap();

    change(
        "cd /data; mkdir -p d/e empty; head -c 300000 /dev/urandom > a; echo b > b; ln -s b link; ln a hard; truncate -s 5M hole; \
         echo end >> hole; echo n > \"$(printf 'new\\nline ü')\"; chown 1234:4321 b; chmod 4750 a; mkfifo d/pipe; echo 1 > /var/logs/1; \
         touch -d 1985-10-26T01:21:00.5Z b; chown 7:8 .; chmod 2770 .",
    );
    take(&space, "full", "full");
    change("cd /data; rm b; mv d/e d/moved; echo more >> a; rm -r empty; echo 'x y' > 'd/x y'; rm /var/logs/1");
    let wanted = content(&space.kubectl, "work");
    let increment = take(&space, "i1", "incremental");
    let extras = &increment["status"]["extras"][0];
    assert_eq!((&extras["paths"], &extras["changed_while_read"]), (&json!("/data,/var/logs"), &json!("0")));

    let mut both = restore("both", "i1", &space.name, "data-back", "/data");
    let claims = both["spec"]["prepareDataConfig"]["volumeClaims"].as_array_mut().unwrap();
    let mut log = claims[0].clone();
    log["metadata"]["name"] = json!("log-back");
    log["volumeSource"] = json!("log");
    log["mountPath"] = json!("/var/logs");
    claims.push(log);
    space.kubectl.apply(&both.to_string()).unwrap();
    restored(&space, "both");
    space.kubectl.apply(&pod("back", ["data-back", "log-back"]).to_string()).unwrap();
    space.kubectl.wait_for("pod", "back", LIMIT, running).unwrap();
    assert_eq!(content(&space.kubectl, "back"), wanted);

    // With only one of its volumes there is no telling where the other's files should go.
    space.kubectl.apply(&restore("half", "full", &space.name, "half", "/data").to_string()).unwrap();
    let over = |object: &Value| matches!(phase(object), "Completed" | "Failed");
    let half = space.kubectl.wait_for("restore", "half", LIMIT, over).unwrap();
    assert!(half["status"].to_string().contains("no volume is mounted at /var/logs"), "{}", half["status"]);
}
