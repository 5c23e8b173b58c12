//! Backups that keep pods apart, restored one to one; and points in time.

use std::process::{Child, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;
use kbbackup_e2e::{LIMIT, ended, phase};
use kbbackup_testing::fixtures::{self, list};
use kbbackup_testing::namespace::TempNamespace;
use serde_json::{Value, json};

use crate::{begin, files};

fn take(space: &TempNamespace, name: &str, method: &str) -> Value {
    space.kubectl.apply(&fixtures::backup(name, "files", method).to_string()).unwrap();
    let object = ended(space, name, LIMIT).unwrap();
    assert_eq!(phase(&object), "Completed", "{}", object["status"]);
    object
}

fn restore(space: &TempNamespace, name: &str, backup: &str, prepare: &Value, time: Option<&str>) -> Value {
    space.kubectl.apply(&files::restore(space, name, backup, prepare, time).to_string()).unwrap();
    space.kubectl.wait_for("restore", name, LIMIT, |object| matches!(phase(object), "Completed" | "Failed")).unwrap()
}

/// The changes of all pods, in the order in which the API server stored them.
struct Pods {
    watch: Child,
    events: JoinHandle<Vec<Value>>,
}

impl Pods {
    fn watch(space: &TempNamespace) -> Self {
        let mut command = space.kubectl.command(&["get", "pods", "--watch", "--output-watch-events", "-o", "json"]);
        let mut watch = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let events = serde_json::Deserializer::from_reader(watch.stdout.take().unwrap()).into_iter::<Value>();
        let events = std::thread::spawn(move || events.map_while(Result::ok).collect());
        std::thread::sleep(Duration::from_secs(1));
        Self { watch, events }
    }

    /// What became of the pods of a restore: event, name, and whether the pod had succeeded by then.
    fn history(mut self, restore: &str) -> Vec<(String, String, bool)> {
        self.watch.kill().unwrap();
        self.watch.wait().unwrap();
        let events = self.events.join().unwrap();
        let ours = events.iter().filter(|event| {
            let labels = &event["object"]["metadata"]["labels"];
            labels["dataprotection.kubeblocks.io/restore"] == restore
        });
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        ours.map(|event| {
            let pod = &event["object"];
            (text(&event["type"]), text(&pod["metadata"]["name"]), pod["status"]["phase"] == "Succeeded")
        })
        .collect()
    }
}

/// No pod is created before the one before it has succeeded; seconds in a status could not tell.
fn one_after_another(history: &[(String, String, bool)], wanted: usize) {
    let mut open: Option<&str> = None;
    let mut begun = 0;
    for (event, name, succeeded) in history {
        if event == "ADDED" {
            assert_eq!(open, None, "{name} was created before that one had succeeded: {history:?}");
            open = Some(name);
            begun += 1;
        }
        if *succeeded && open == Some(name) {
            open = None;
        }
    }
    assert_eq!((begun, open), (wanted, None), "{history:?}");
}

#[test]
fn each_replica_gets_its_own_pods_data_at_once_and_one_after_another() {
    let (cluster, space) = begin("replicas").unwrap();
    files::create(&space, 3).unwrap();
    let set = files::recipe(&space.name, "Full", files::PACK, files::UNPACK);
    let policy = files::policy("All", &[("full", &space.name, None)]);
    space.kubectl.apply(&list(&[set, policy]).to_string()).unwrap();
    let pods = ["files-0", "files-1", "files-2"];
    for pod in pods {
        files::run(&space.kubectl, pod, "hostname > /data/whose; head -c 100000 /dev/urandom > /data/random").unwrap();
    }
    let wanted = pods.map(|pod| files::digests(&space.kubectl, pod, "/data").unwrap());
    take(&space, "all", "full");

    for policy in ["Parallel", "Serial"] {
        let name = policy.to_lowercase();
        let prepare = json!({
            "volumeClaimRestorePolicy": policy,
            "requiredPolicyForAllPodSelection": {"dataRestorePolicy": "OneToOne"},
            "volumeClaimsTemplate": {"replicas": 3, "startingIndex": 4, "templates": [files::claim(&name)]},
        });
        let pods_of_it = Pods::watch(&space);
        let done = restore(&space, &name, "all", &prepare, None);
        assert_eq!(phase(&done), "Completed", "{}", done["status"]);
        let history = pods_of_it.history(&name);
        let actions = done["status"]["actions"]["prepareData"].as_array().cloned().unwrap_or_default();
        assert_eq!(actions.len(), 3);
        if policy == "Serial" {
            one_after_another(&history, 3);
        }
        let claims: Vec<String> = (4..7).map(|ordinal| format!("{name}-{ordinal}")).collect();
        files::show(&space, &format!("show-{name}"), &claims).unwrap();
        for (claim, wanted) in claims.iter().zip(&wanted) {
            let found = files::digests(&space.kubectl, &format!("show-{name}"), &format!("/claims/{claim}")).unwrap();
            assert_eq!(&found, wanted, "{claim}");
        }
    }
    let recipe = space.name.clone();
    drop(space);
    drop(cluster.try_run(&["delete", "actionset", &recipe, "--wait=false"]));
}

/// The log of a point-in-time restore: one object per second, its name the second. Its Backup is written by the test, which
/// so rules the range, onto objects that a real backup has stored.
const LOG: &str = r#"
for second in $(seq "$FIRST" "$LAST"); do echo "$second" | datasafed push - "/$second"; done
echo '{}' > $DP_BACKUP_INFO_FILE"#;
/// Replays all seconds after the base up to the time that is wanted, and reports how far it came.
const REPLAY: &str = r#"
test -e /data/base
last=none
for second in $(datasafed list / | grep -E '^[0-9]+$' | sort -n); do
  if [ "$second" -gt "$DP_BASE_BACKUP_STOP_TIMESTAMP" ] && [ "$second" -le "$DP_RESTORE_TIMESTAMP" ]; then
    datasafed pull "/$second" - >> /data/replayed; last=$second
  fi
done
echo "{\"position\":\"$last\"}" > /dev/termination-log"#;

#[test]
fn a_point_in_time_is_reached_exactly_or_refused_with_the_nearest_times() {
    let (cluster, space) = begin("pitr").unwrap();
    files::create(&space, 1).unwrap();
    let name = |part: &str| format!("{}-{part}", space.name);
    let mut log_objects = files::recipe(&name("log"), "Full", LOG, "true");
    let now = Timestamp::now().as_second();
    let (first, last) = (now - 60, now + 240);
    log_objects["spec"]["env"] =
        json!([{"name": "FIRST", "value": first.to_string()}, {"name": "LAST", "value": last.to_string()}]);
    let sets = [
        files::recipe(&name("full"), "Full", files::PACK, files::UNPACK),
        log_objects,
        files::recipe(&name("wal"), "Continuous", "true", REPLAY),
        files::policy("Any", &[("full", &name("full"), None), ("log", &name("log"), None)]),
    ];
    space.kubectl.apply(&list(&sets).to_string()).unwrap();
    files::run(&space.kubectl, "files-0", "echo base > /data/base").unwrap();
    let base = take(&space, "base", "full");
    let stored = take(&space, "stored", "log");
    // What holds the objects is no base.
    space
        .kubectl
        .run(&["label", "backup", "stored", "dataprotection.kubeblocks.io/backup-type=Selective", "--overwrite"])
        .unwrap();
    let end: Timestamp = base["status"]["completionTimestamp"].as_str().unwrap().parse().unwrap();
    let text = |second: i64| Timestamp::from_second(second).unwrap().to_string();
    let mut wal = fixtures::backup("wal", "files", "wal");
    let skip = "dataprotection.kubeblocks.io/skip-reconciliation";
    let annotations = json!({skip: "true", "kbbackup.io/target-image": fixtures::POSTGRES_IMAGE});
    wal["metadata"]["annotations"] = annotations;
    wal["metadata"]["labels"] = json!({"dataprotection.kubeblocks.io/backup-type": "Continuous"});
    space.kubectl.apply(&wal.to_string()).unwrap();
    let gap = (last - 40, last - 20);
    let status = json!({"status": {
        "phase": "Running", "path": stored["status"]["path"], "backupRepoName": stored["status"]["backupRepoName"],
        "startTimestamp": text(first), "timeRange": {"start": text(first), "end": text(last)},
        "extras": [{"gapStart": text(gap.0), "gapEnd": text(gap.1)}],
        "target": stored["status"]["target"],
        "backupMethod": {"name": "wal", "actionSetName": name("wal"),
            "targetVolumes": {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}},
    }});
    let patch = status.to_string();
    space.kubectl.run(&["patch", "backup", "wal", "--subresource=status", "--type=merge", "-p", &patch]).unwrap();

    let target = end.as_second() + 20;
    let prepare = |claim: &str| json!({"volumeClaims": [files::claim(claim)]});
    let done = restore(&space, "inside", "wal", &prepare("inside"), Some(&text(target)));
    assert_eq!(phase(&done), "Completed", "{}", done["status"]);
    let annotation = |key: &str| done["metadata"]["annotations"][key].as_str().unwrap_or_default().to_owned();
    assert_eq!(annotation("kbbackup.io/reads"), "base,wal");
    assert_eq!(annotation("kbbackup.io/restored"), format!("{{\"position\":\"{target}\"}}"));
    files::show(&space, "show", &["inside".to_owned()]).unwrap();
    let replayed = files::run(&space.kubectl, "show", "cat /claims/inside/base /claims/inside/replayed").unwrap();
    let wanted: Vec<String> = std::iter::once("base".to_owned())
        .chain((end.as_second() + 1..=target).map(|second| second.to_string()))
        .collect();
    assert_eq!(replayed.lines().collect::<Vec<_>>(), wanted);

    let refused = |name: &str, time: Option<&str>| {
        let done = restore(&space, name, "wal", &prepare(name), time);
        assert_eq!(phase(&done), "Failed", "{name}");
        let conditions = done["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let told =
            conditions.iter().find(|condition| condition["type"] == "ValidationPassed").cloned().unwrap_or_default();
        assert_eq!(told["reason"], "ValidateFailed");
        assert_ne!(space.kubectl.try_run(&["get", "pvc", name]).unwrap().code, 0, "a claim was made for {name}");
        told["message"].as_str().unwrap_or_default().to_owned()
    };
    let late = refused("late", Some(&text(last + 1)));
    assert!(late.contains(&format!("covers, {} to {}", text(first), text(last))), "{late}");
    let early = refused("early", Some(&text(end.as_second() - 1)));
    assert!(early.contains(&format!("base ends at {}, after that", text(end.as_second()))), "{early}");
    assert!(early.contains(&format!("nearest time that can be restored is {}", text(end.as_second()))), "{early}");
    let torn = refused("torn", Some(&text(gap.1 + 5)));
    assert!(torn.contains(&format!("has a gap from {} to {}", text(gap.0), text(gap.1))), "{torn}");
    assert!(torn.contains(&format!("nearest time that can be restored is {}", text(gap.0))), "{torn}");
    let timeless = refused("timeless", None);
    assert!(timeless.contains("restoreTime must say which moment is wanted"), "{timeless}");

    let told = space.kubectl.run(&["kbbackup", "windows", "policy/files", "-o", "json"]).unwrap();
    let told: Value = serde_json::from_str(&told).unwrap();
    let window = &told["windows"][0];
    assert_eq!((&window["from"], &window["to"]), (&json!(text(end.as_second())), &json!(text(gap.0))), "{told}");
    assert_eq!((&window["bases"], &window["logBackup"]), (&json!(["base"]), &json!("wal")), "{told}");
    // A time as it is shown is a time that is taken.
    let shown = window["to"].as_str().unwrap();
    let ask = |time: &str| {
        let to = ["kbbackup", "restore", "again", "--source", "policy/files", "--to-time", time, "--to", "pvc"];
        space.kubectl.try_run(&[&to[..], &["--claim", "data=64Mi", "--wait", "--yes"]].concat()).unwrap()
    };
    let outside = ask(&text(gap.1 + 5));
    assert_eq!(outside.code, 2, "{}", outside.stderr);
    assert!(outside.stderr.contains(&text(gap.0)), "{}", outside.stderr);
    assert_ne!(space.kubectl.try_run(&["get", "pvc", "data-again-0"]).unwrap().code, 0);
    let done = ask(shown);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(done.stderr.contains("by the log:    backup/wal"), "{}", done.stderr);
    assert!(done.stdout.contains(&format!("recovered to {}", gap.0)), "{}", done.stdout);

    let recipes = ["full", "log", "wal"].map(name);
    drop(space);
    for recipe in &recipes {
        drop(cluster.try_run(&["delete", "actionset", recipe, "--wait=false"]));
    }
}
