//! What a continuous backup leaves of itself in the repository: the side-car of its archiver keeps its object there. On files and
//! on S3.

use std::fs;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use crate::common::{Endpoint, Run, listens};
use rstest::rstest;
use serde_json::{Value, json};
use tempfile::TempDir;

const BACKUP: &str = "/repo/demo/pg/log";

struct Scene {
    /// `None` for files.
    endpoint: Option<Endpoint>,
    dir: TempDir,
    secret: Option<&'static str>,
}

impl Scene {
    fn new(store: bool, secret: Option<&'static str>) -> Self {
        let scene = Self { endpoint: store.then(Endpoint::start), dir: tempfile::tempdir().unwrap(), secret };
        fs::create_dir(scene.file("store")).unwrap();
        scene.write_object("uid-1");
        scene
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write_object(&self, uid: &str) {
        let object = json!({"apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "Backup",
            "metadata": {"name": "log", "namespace": "demo", "uid": uid}, "spec": {"backupPolicyName": "pg", "backupMethod": "log"},
            "status": {"phase": "Running", "path": BACKUP, "backupMethod": {"name": "log"}}});
        fs::write(self.file("backup.json"), object.to_string()).unwrap();
    }

    fn run(&self, args: &[&str]) -> Run {
        let run = match &self.endpoint {
            None => Run::new(args).env("DATASAFED_LOCAL_BACKEND_PATH", self.file("store")),
            Some(endpoint) => endpoint.mover(args),
        };
        match self.secret {
            None => run,
            Some(secret) => {
                run.env("DATASAFED_ENCRYPTION_ALGORITHM", "AES-256-CFB").env("DATASAFED_ENCRYPTION_PASS_PHRASE", secret)
            }
        }
    }

    fn recorder(&self, every: &str) -> Child {
        let (object, workload) = (self.file("backup.json"), self.file("workload.json"));
        let args = ["record", "--every-seconds", every, "--backup-object", object.to_str().unwrap()];
        let args = [&args[..], &["--workload", workload.to_str().unwrap()]].concat();
        self.run(&args)
            .env("KBBACKUP_BACKUP_PATH", BACKUP)
            .env("KBBACKUP_ACTION", "dp-backup-0")
            .env("DP_BACKUP_INFO_FILE", self.file("backup.info"))
            .spawn_logged(&self.file("log"))
    }

    /// As the archiver does it.
    fn report(&self, info: &Value) {
        fs::write(self.file("new"), info.to_string()).unwrap();
        fs::rename(self.file("new"), self.file("backup.info")).unwrap();
    }

    /// What the repository tells, beside the last line.
    fn catalogue(&self) -> Vec<Value> {
        let text = self.run(&["catalogue"]).succeeds_with_text();
        text.lines().filter_map(|line| serde_json::from_str::<Value>(line).unwrap().get("found").cloned()).collect()
    }

    fn end(&self) -> Option<String> {
        let found = self.catalogue();
        let end = found.first()?.pointer("/object/status/timeRange/end")?;
        Some(end.as_str().unwrap().to_owned())
    }

    #[track_caller]
    fn wait_for_end(&self, end: &str) {
        for _ in 0..100 {
            if self.end().as_deref() == Some(end) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("{end} is not told: {:?}\n{}", self.catalogue(), fs::read_to_string(self.file("log")).unwrap());
    }
}

#[test]
fn a_workload_that_nobody_has_described_is_none() {
    let scene = Scene::new(false, None);
    // As the kubelet writes an annotation that is not there.
    fs::write(scene.file("workload.json"), "").unwrap();
    let recorder = scene.recorder("0");
    scene.report(&range(1));
    scene.wait_for_end(&until(1));
    assert_eq!(scene.catalogue().remove(0).get("workload"), None);
    assert_eq!(terminate(recorder), 0);
}

fn until(minute: u32) -> String {
    format!("2026-01-02T03:{minute:02}:00Z")
}

fn range(minute: u32) -> Value {
    json!({"totalSize": minute.to_string(), "timeRange": {"start": until(0), "end": until(minute)}, "extras": [{"a": "b"}]})
}

fn terminate(mut child: Child) -> i32 {
    listens(child.id());
    let kill = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    child.wait().unwrap().code().unwrap_or(-1)
}

#[rstest]
#[case(false, None)]
#[case(true, None)]
#[case(true, Some("a phrase"))]
fn a_log_is_known_by_its_repository_as_far_as_it_has_told(#[case] store: bool, #[case] secret: Option<&'static str>) {
    let scene = Scene::new(store, secret);
    fs::write(scene.file("workload.json"), r#"{"statefulSet": {}}"#).unwrap();
    let recorder = scene.recorder("0");
    std::thread::sleep(Duration::from_millis(500));
    assert!(
        scene.catalogue().iter().all(|found| found.get("object").is_none()),
        "an archiver that is silent has nothing"
    );
    scene.report(&range(1));
    scene.wait_for_end(&until(1));
    scene.report(&range(2));
    scene.wait_for_end(&until(2));
    let found = scene.catalogue().remove(0);
    assert_eq!((&found["path"], found.get("unfinished")), (&json!(BACKUP), None), "{found}");
    assert_eq!(found["workload"], json!({"statefulSet": {}}));
    let status = &found["object"]["status"];
    assert_eq!(
        (&status["totalSize"], &status["extras"], &status["path"]),
        (&json!("2"), &json!([{"a": "b"}]), &json!(BACKUP))
    );
    // The scripts of archivers list what they have stored.
    assert_eq!(scene.run(&["list", "-r", "-f", "/repo"]).succeeds_with_text(), "");
    assert_eq!(terminate(recorder), 0);
    scene.run(&["delete-backup", BACKUP]).succeeds();
    assert_eq!(scene.catalogue(), [json!(null); 0]);
}

#[test]
fn without_the_key_a_log_is_locked() {
    let mut scene = Scene::new(false, Some("a phrase"));
    scene.report(&range(1));
    assert_eq!(terminate(scene.recorder("0")), 0);
    scene.secret = None;
    let found = scene.catalogue();
    assert_eq!((&found[0]["locked"], found[0].get("object")), (&json!(true), None), "{found:?}");
}

#[test]
fn the_last_word_is_kept_however_seldom_it_is_stored() {
    let scene = Scene::new(false, None);
    scene.report(&range(1));
    let recorder = scene.recorder("3600");
    scene.wait_for_end(&until(1));
    scene.report(&range(2));
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(scene.end().unwrap(), until(1), "not each report is stored");
    assert_eq!(terminate(recorder), 0);
    assert_eq!(scene.end().unwrap(), until(2));

    // The next pod says nothing until its archiver does, and what that leaves out stays as it was.
    fs::remove_file(scene.file("backup.info")).unwrap();
    assert_eq!(terminate(scene.recorder("3600")), 0);
    assert_eq!(scene.end().unwrap(), until(2));
    scene.report(&json!({"timeRange": {"end": until(3)}}));
    assert_eq!(terminate(scene.recorder("3600")), 0);
    let status = &scene.catalogue()[0]["object"]["status"];
    assert_eq!(status["timeRange"], json!({"start": until(0), "end": until(3)}));

    // Another Backup of that name has not reached what this one has.
    scene.write_object("uid-2");
    scene.report(&json!({"timeRange": {"end": until(4)}}));
    assert_eq!(terminate(scene.recorder("3600")), 0);
    assert_eq!(scene.catalogue()[0]["object"]["status"]["timeRange"], json!({"end": until(4)}));
    // A script may be writing its result just now.
    fs::write(scene.file("backup.info"), "{\"timeRange\": {\"en").unwrap();
    assert_eq!(terminate(scene.recorder("3600")), 0);
    assert_eq!(scene.end().unwrap(), until(4));
}

#[rstest]
fn whoever_kills_it_leaves_a_whole_object(#[values(false, true)] store: bool) {
    let scene = Scene::new(store, None);
    for minute in 1..=if crate::common::soak() { 59 } else { 12 } {
        scene.report(&range(minute));
        let mut recorder = scene.recorder("0");
        std::thread::sleep(Duration::from_millis(90 + u64::from(minute * 7 % 40)));
        recorder.kill().unwrap();
        recorder.wait().unwrap();
        for found in scene.catalogue() {
            assert_eq!(found.get("trouble"), None, "{found}");
            let end = found.pointer("/object/status/timeRange/end").map(|end| end.as_str().unwrap().to_owned());
            assert!(end.is_none_or(|end| (1..=minute).any(|minute| until(minute) == end)), "{found}");
        }
    }
}

#[test]
fn a_store_that_is_away_is_told_once_and_the_pod_goes_on() {
    let mut scene = Scene::new(true, None);
    scene.endpoint.as_ref().unwrap().kill();
    scene.report(&range(1));
    let mut recorder = scene.recorder("0");
    let log = || fs::read_to_string(scene.dir.path().join("log")).unwrap_or_default();
    for _ in 0..600 {
        if log().contains("NOTICE") {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(log().contains("the Backup object beside the log is not up to date"), "{}", log());
    assert_eq!(recorder.try_wait().unwrap(), None);
    scene.endpoint.as_mut().unwrap().start_again();
    scene.wait_for_end(&until(1));
    assert_eq!(log().matches("NOTICE").count(), 1, "{}", log());
    assert_eq!(terminate(recorder), 0);
}
