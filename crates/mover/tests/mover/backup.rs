//! A backup's life: written by pods, reported, sealed, verified, read under its seal, deleted. On files and on S3.

use std::fs;
use std::path::PathBuf;

use crate::common::{Endpoint, Run, listens};
use rstest::rstest;
use serde_json::Value;
use tempfile::TempDir;

const BACKUP: &str = "/repo/demo/pg/b1";

/// A repository of one of the kinds.
enum Place {
    Files(TempDir),
    Store(Endpoint),
}

#[derive(Clone, Copy)]
enum Kind {
    Files,
    Store,
}

impl Kind {
    fn open(self) -> Scene {
        let place = match self {
            Self::Files => Place::Files(tempfile::tempdir().unwrap()),
            Self::Store => Place::Store(Endpoint::start()),
        };
        Scene { place, pods: tempfile::tempdir().unwrap() }
    }
}

struct Scene {
    place: Place,
    pods: TempDir,
}

impl Scene {
    fn run(&self, args: &[&str]) -> Run {
        match &self.place {
            Place::Files(dir) => Run::new(args).env("DATASAFED_LOCAL_BACKEND_PATH", dir.path()),
            Place::Store(endpoint) => endpoint.mover(args),
        }
    }

    /// Where an object lies on this machine's disk.
    fn object(&self, key: &str) -> PathBuf {
        match &self.place {
            Place::Files(dir) => dir.path().join(key.trim_start_matches('/')),
            Place::Store(endpoint) => endpoint.path("bucket").join(key.trim_start_matches('/')),
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.pods.path().join(name)
    }

    /// A run in the main container of a pod of the backup.
    fn in_pod(&self, pod: &str, args: &[&str]) -> Run {
        self.run(args)
            .env("KBBACKUP_BACKUP_PATH", BACKUP)
            .env("KBBACKUP_BACKUP_UID", "uid-1")
            .env("KBBACKUP_ACTION", "dp-backup-0")
            .env("KBBACKUP_ATTEMPT", pod)
            .env("KBBACKUP_JOURNAL", self.file(&format!("{pod}.journal")))
            .env("DATASAFED_BACKEND_BASE_PATH", BACKUP)
            .env("DP_BACKUP_INFO_FILE", self.file(&format!("{pod}.info")))
    }

    fn push(&self, pod: &str, name: &str, bytes: &[u8]) {
        self.in_pod(pod, &["push", "-", name]).stdin(bytes).succeeds();
    }

    /// The side-car at the end of a pod: exit code and report.
    fn report(&self, pod: &str) -> (i32, Value) {
        let log = self.file(&format!("{pod}.report"));
        let mut child = self.in_pod(pod, &["report", "--termination-log", log.to_str().unwrap()]).spawn_and_feed(0);
        listens(child.child.id());
        child.signal("TERM");
        let status = child.wait();
        (status.code().unwrap_or(-1), serde_json::from_slice(&fs::read(log).unwrap()).unwrap())
    }

    fn finish(&self, pod: &str) {
        fs::write(self.file(&format!("{pod}.info")), r#"{"totalSize":"3"}"#).unwrap();
        let (code, report) = self.report(pod);
        assert_eq!(code, 0, "{report}");
    }

    fn seal(&self, pods: &[&str], more: &[&str]) -> (Run, PathBuf) {
        let log = self.file("seal.report");
        let attempts: Vec<String> = pods.iter().map(|pod| format!("--attempt=dp-backup-0={pod}")).collect();
        let mut args = vec!["seal", "--termination-log", log.to_str().unwrap()];
        args.extend(attempts.iter().map(String::as_str));
        args.extend(more);
        let run = self.run(&args).env("KBBACKUP_BACKUP_PATH", BACKUP).env("KBBACKUP_BACKUP_UID", "uid-1");
        (run, log)
    }

    fn sealed(&self, pods: &[&str], more: &[&str]) -> Value {
        let (run, log) = self.seal(pods, more);
        run.succeeds();
        serde_json::from_slice(&fs::read(log).unwrap()).unwrap()
    }

    fn manifest(&self) -> Vec<String> {
        let text = fs::read_to_string(self.object(&format!("{BACKUP}/.kbbackup/manifest.jsonl"))).unwrap();
        text.lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["path"].as_str().unwrap().to_owned())
            .collect()
    }
}

#[rstest]
fn a_backup_from_first_byte_to_last(#[values(Kind::Files, Kind::Store)] kind: Kind) {
    let scene = kind.open();
    scene.push("pod-1", "data/base.tar", b"base");
    scene.push("pod-1", "data/extra", b"extra");
    scene.in_pod("pod-1", &["rm", "data/extra"]).succeeds();
    scene.finish("pod-1");

    let object = scene.file("backup.json");
    fs::write(&object, r#"{"kind":"Backup","status":{"extras":[{"lsn":"0/1"}]}}"#).unwrap();
    let workload = scene.file("workload.json");
    fs::write(&workload, "{}").unwrap();
    let more =
        ["--data-path", BACKUP, "--backup-object", object.to_str().unwrap(), "--workload", workload.to_str().unwrap()];
    let report = scene.sealed(&["pod-1"], &more);
    assert_eq!(report["stored"]["objects"], 3, "{report}");
    assert_eq!(scene.manifest(), [".kbbackup/workload.json", "data/base.tar", "kubeblocks-backup.json"]);
    let seal: Value =
        serde_json::from_slice(&fs::read(scene.object(&format!("{BACKUP}/.kbbackup/seal.json"))).unwrap()).unwrap();
    assert_eq!(seal["extras"][0]["lsn"], "0/1");
    assert_eq!(seal["backupUid"], "uid-1");

    // Sealing again finds the seal; another Backup's seal is refused.
    assert_eq!(scene.sealed(&["pod-1"], &more)["seal"], report["seal"]);
    let error = scene.seal(&["pod-1"], &more).0.env("KBBACKUP_BACKUP_UID", "uid-2").fails();
    assert!(error.contains("sealed for another Backup"), "{error}");

    // Scripts see their own files only, and the backup object.
    assert_eq!(
        scene
            .run(&["list", "-r", "-f", BACKUP])
            .succeeds_with_text()
            .lines()
            .collect::<std::collections::BTreeSet<_>>(),
        ["repo/demo/pg/b1/data/base.tar", "repo/demo/pg/b1/kubeblocks-backup.json"].into()
    );
    scene.run(&["verify", BACKUP]).succeeds();

    // Nothing is written into a sealed backup, by any pod.
    for args in [&["push", "-", "late"][..], &["rm", "data/base.tar"], &["rm", "-r", "data"], &["mkdir", "x"]] {
        let error = scene.in_pod("pod-2", args).fails();
        assert!(error.contains("is sealed"), "{error}");
    }

    scene.run(&["delete-backup", BACKUP]).succeeds();
    assert!(!scene.object("repo").exists());
    scene.run(&["delete-backup", BACKUP]).succeeds();
}

#[rstest]
fn a_restore_reads_only_what_was_sealed(#[values(Kind::Files, Kind::Store)] kind: Kind) {
    let scene = kind.open();
    scene.push("pod-1", "base.tar", b"base");
    scene.finish("pod-1");
    let seal = scene.sealed(&["pod-1"], &[])["seal"].as_str().unwrap().to_owned();
    let pull = |name: &str, seal: &str| {
        scene
            .run(&["pull", name, "-"])
            .env("DATASAFED_BACKEND_BASE_PATH", BACKUP)
            .env("DP_BACKUP_ROOT_PATH", "/repo/demo/pg")
            .env("KBBACKUP_SEALS", format!("b1={seal}"))
    };
    assert_eq!(pull("base.tar", &seal).succeeds(), b"base");

    let error = pull("base.tar", "0000").fails();
    assert!(error.contains("expected 0000"), "{error}");

    fs::write(scene.object(&format!("{BACKUP}/planted")), b"x").unwrap();
    let error = pull("planted", &seal).fails();
    assert!(error.contains("is not part of the sealed backup"), "{error}");
    let (code, out, _) = scene.run(&["verify", BACKUP]).output();
    assert_eq!((code, String::from_utf8(out).unwrap().as_str()), (1, "surplus repo/demo/pg/b1/planted\n"));
    fs::remove_file(scene.object(&format!("{BACKUP}/planted"))).unwrap();

    fs::write(scene.object(&format!("{BACKUP}/base.tar")), b"bas3").unwrap();
    let error = pull("base.tar", &seal).fails();
    assert!(error.contains("the stored object is damaged"), "{error}");
    let (code, out, _) = scene.run(&["verify", BACKUP]).output();
    assert_eq!(code, 1);
    assert!(String::from_utf8(out).unwrap().starts_with("damaged repo/demo/pg/b1/base.tar"));

    fs::write(scene.object(&format!("{BACKUP}/base.tar")), b"base").unwrap();
    let manifest = scene.object(&format!("{BACKUP}/.kbbackup/manifest.jsonl"));
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("\"size\":4", "\"size\":5")).unwrap();
    let error = pull("base.tar", &seal).fails();
    assert!(error.contains("manifest") && error.contains("sealed"), "{error}");
}

#[rstest]
fn leftovers_of_failed_attempts_go_and_other_tools_files_stay(#[values(Kind::Files, Kind::Store)] kind: Kind) {
    let scene = kind.open();
    scene.push("dead", "half.tar", b"half");
    scene.push("dead", "base.tar", b"old");
    scene.report("dead");
    scene.push("pod-1", "base.tar", b"new");
    scene.finish("pod-1");
    scene.run(&["push", "-", &format!("{BACKUP}/foreign")]).stdin(b"by another tool").succeeds();

    let report = scene.sealed(&["pod-1"], &[]);
    assert_eq!(report["stored"]["objects"], 2, "{report}");
    assert_eq!(scene.manifest(), ["base.tar", "foreign"]);
    assert!(!scene.object(&format!("{BACKUP}/half.tar")).exists());
    scene.run(&["verify", BACKUP]).succeeds();
}

/// The second attempt found everything there and did nothing: what it found was the first one's, which does not count.
#[rstest]
fn what_only_failed_attempts_stored_is_no_backup(#[values(Kind::Files, Kind::Store)] kind: Kind) {
    let scene = kind.open();
    scene.push("dead", "base.tar", b"base");
    scene.report("dead");
    scene.push("pod-1", "kubeblocks-backup.json", b"{}");
    scene.finish("pod-1");
    // Asked again it says the same.
    for _ in 0..2 {
        let error = scene.seal(&["pod-1"], &[]).0.fails();
        assert!(error.contains("only attempts that failed have stored anything (1 objects)"), "{error}");
        assert!(!scene.object(&format!("{BACKUP}/.kbbackup/seal.json")).exists());
    }
}

#[rstest]
fn a_lost_or_changed_object_prevents_the_seal(#[values(Kind::Files, Kind::Store)] kind: Kind) {
    let scene = kind.open();
    scene.push("pod-1", "base.tar", b"base");
    scene.finish("pod-1");
    let path = scene.object(&format!("{BACKUP}/base.tar"));
    fs::write(&path, b"longer").unwrap();
    let error = scene.seal(&["pod-1"], &[]).0.fails();
    assert!(error.contains("has 6 bytes in the repository, 4 were written"), "{error}");
    fs::remove_file(&path).unwrap();
    let (run, log) = scene.seal(&["pod-1"], &[]);
    let error = run.fails();
    assert!(error.contains("not in the repository, first base.tar"), "{error}");
    let report: Value = serde_json::from_slice(&fs::read(log).unwrap()).unwrap();
    assert_eq!(report["cause"], "Damaged");
    assert!(!scene.object(&format!("{BACKUP}/.kbbackup/seal.json")).exists());
}

#[rstest]
fn without_a_journal_notes_go_to_the_repository(#[values(Kind::Files, Kind::Store)] kind: Kind) {
    let scene = kind.open();
    for name in ["a", "b"] {
        scene.in_pod("pod-1", &["push", "-", name]).env("KBBACKUP_JOURNAL", "").stdin(b"x").succeeds();
    }
    scene.in_pod("pod-1", &["rm", "a"]).env("KBBACKUP_JOURNAL", "").succeeds();
    scene.sealed(&["pod-1"], &[]);
    assert_eq!(scene.manifest(), ["b"]);
}

#[test]
fn encrypted_backups_are_recorded_as_stored() {
    let scene = Kind::Files.open();
    let encrypted = |run: Run| {
        run.env("DATASAFED_ENCRYPTION_ALGORITHM", "AES-256-CFB").env("DATASAFED_ENCRYPTION_PASS_PHRASE", "pw")
    };
    encrypted(scene.in_pod("pod-1", &["push", "-", "base.tar"])).stdin(b"base").succeeds();
    scene.finish("pod-1");
    let object = scene.file("backup.json");
    fs::write(&object, "{}").unwrap();
    let (run, _) = scene.seal(&["pod-1"], &["--data-path", BACKUP, "--backup-object", object.to_str().unwrap()]);
    encrypted(run).succeeds();
    assert_eq!(scene.manifest(), ["base.tar.enc", "kubeblocks-backup.json.enc"]);
    scene.run(&["verify", BACKUP]).succeeds();
    let back = encrypted(scene.run(&["pull", "kubeblocks-backup.json", "-"]))
        .env("DATASAFED_BACKEND_BASE_PATH", BACKUP)
        .succeeds();
    assert_eq!(back, b"{}");
}

#[test]
fn the_reporter_says_what_the_script_said() {
    let scene = Kind::Files.open();
    scene.push("pod-1", "a", b"abc");
    fs::write(scene.file("pod-1.info"), r#"{"totalSize":"3","extras":[{"k":"v"}]}"#).unwrap();
    let (code, report) = scene.report("pod-1");
    assert_eq!(code, 0);
    assert_eq!(report["info"]["extras"][0]["k"], "v");
    assert_eq!(report["stored"], serde_json::json!({"objects": 1, "bytes": 3}));

    let (code, report) = scene.report("pod-2");
    assert_eq!(code, 1);
    assert!(report["error"].as_str().unwrap().contains("ended without writing its result"), "{report}");

    fs::write(scene.file("pod-3.info"), "{}").unwrap();
    fs::write(scene.file("pod-3.info.exit"), "").unwrap();
    let (code, report) = scene.report("pod-3");
    assert_eq!(code, 1);
    assert!(report["error"].as_str().unwrap().contains("the script failed"), "{report}");
}

#[test]
fn how_far_a_push_is_stands_beside_the_journal_and_failed_ones_do_not_count() {
    let scene = Kind::Files.open();
    let noted = |pod: &str| -> Vec<String> {
        let start = format!("{pod}.journal.progress-");
        let found = fs::read_dir(scene.pods.path()).unwrap().map(|entry| entry.unwrap().path());
        let own = found.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(&start));
        let mut all: Vec<_> = own.map(|path| fs::read_to_string(path).unwrap()).collect();
        all.sort();
        all
    };
    scene.push("pod-1", "a", b"abc");
    scene.push("pod-1", "b", b"abcd");
    assert_eq!(noted("pod-1"), ["3", "4"]);
    let mut slow = scene.in_pod("pod-2", &["push", "-", "c"]).spawn_and_feed(2 << 20);
    std::thread::sleep(std::time::Duration::from_millis(300));
    slow.signal("TERM");
    slow.wait();
    assert!(noted("pod-2").is_empty(), "what it had stored is gone");
}

/// What an archiver that cannot know whether its last push arrived relies on.
#[rstest]
fn an_object_that_is_created_once_is_never_replaced(
    #[values(Kind::Files, Kind::Store)] kind: Kind,
    #[values("", "AES-256-CFB", "age")] cipher: &str,
) {
    let scene = kind.open();
    let with = |run: Run| match cipher {
        "" => run,
        cipher => {
            run.env("DATASAFED_ENCRYPTION_ALGORITHM", cipher).env("DATASAFED_ENCRYPTION_PASS_PHRASE", "correct horse")
        }
    };
    let once = |name: &str, bytes: &[u8]| {
        let run = scene.in_pod("pod-1", &["push", "--once", "-z", "zstd", "-", name]);
        with(run.env("KBBACKUP_JOURNAL", "")).stdin(bytes)
    };
    let pull = || with(scene.run(&["pull", "-d", "zstd", &format!("{BACKUP}/wal/1"), "-"])).succeeds();
    once("wal/1", b"segment").succeeds();
    once("wal/1", b"segment").succeeds();
    let error = once("wal/1", b"another").fails();
    assert!(error.contains("push to \"wal/1\": the object exists already, with other content"), "{error}");
    assert_eq!(pull(), b"segment");
    // Beyond one request of an upload.
    let large = crate::common::pseudo_random(9 << 20);
    once("wal/2", &large).succeeds();
    once("wal/2", &large).succeeds();
    once("wal/2", &large[1..]).fails();
    // Of many at once one wins, and those who wanted the same have it too.
    let racers: Vec<_> = (0..6).map(|at| once("wal/3", if at % 2 == 0 { b"even" } else { b"odd!" })).collect();
    let codes: Vec<i32> = std::thread::scope(|scope| {
        let running: Vec<_> = racers.into_iter().map(|run| scope.spawn(move || run.output().0)).collect();
        running.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let won: Vec<i32> = codes.iter().copied().step_by(2).collect();
    let lost: Vec<i32> = codes.iter().copied().skip(1).step_by(2).collect();
    assert!((won == [0; 3] && lost == [1; 3]) || (won == [1; 3] && lost == [0; 3]), "{codes:?}");
    // Without the flag objects are replaced, as scripts in the field do with what they know about themselves.
    with(scene.in_pod("pod-1", &["push", "-z", "zstd", "-", "wal/1"]).env("KBBACKUP_JOURNAL", ""))
        .stdin(b"state")
        .succeeds();
    assert_eq!(pull(), b"state");
    // Each is noted, also where it was there already: the note of the first push may be what was lost.
    scene.sealed(&["pod-1"], &[]);
    assert_eq!(scene.manifest().len(), 3);
}

#[test]
fn who_can_only_write_is_told_that_nothing_can_be_compared() {
    let scene = Kind::Files.open();
    let recipient = age::x25519::Identity::generate().to_public().to_string();
    let once = || {
        let run = scene.run(&["push", "--once", "-", "x"]).env("DATASAFED_ENCRYPTION_ALGORITHM", "age");
        run.env("DATASAFED_ENCRYPTION_PASS_PHRASE", &recipient).stdin(b"x")
    };
    once().succeeds();
    let error = once().fails();
    assert!(error.contains("exists already, and cannot be compared: this process holds only"), "{error}");
}

#[rstest]
fn a_repository_tells_its_backups_by_itself(#[values(Kind::Files, Kind::Store)] kind: Kind) {
    let scene = kind.open();
    scene.push("pod-1", "base.tar", b"base");
    scene.finish("pod-1");
    let object = scene.file("backup.json");
    let text =
        r#"{"metadata":{"name":"b1","namespace":"demo","annotations":{"a":"b"}},"status":{"path":"/repo/demo/pg/b1"}}"#;
    fs::write(&object, text).unwrap();
    let more = ["--backup-object", object.to_str().unwrap(), "--data-path", BACKUP];
    scene.sealed(&["pod-1"], &more);
    // Somebody else's, without a seal.
    scene.run(&["push", "-", "/repo/demo/pg/theirs/kubeblocks-backup.json"]).stdin(b"{}").succeeds();

    let lines = |args: &[&str]| -> Vec<Value> {
        let told = scene.run(args).succeeds_with_text();
        told.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let all = lines(&["catalogue", "/repo"]);
    assert_eq!(all.len(), 3, "{all:?}");
    assert_eq!(all[0]["found"]["path"], BACKUP);
    assert_eq!(all[0]["found"]["object"]["metadata"]["annotations"]["a"], "b");
    assert_eq!(all[0]["found"]["seal"]["objects"], 2);
    assert_eq!(all[1]["found"]["path"], "/repo/demo/pg/theirs");
    assert!(all[1]["found"]["seal"].is_null() && all[1]["found"]["unfinished"].is_null());
    assert_eq!(all[2]["end"]["backups"], 2);
    let brief = lines(&["catalogue", "--brief", "/repo/demo"]);
    assert!(brief[0]["found"]["object"]["metadata"]["annotations"].is_null());
    assert_eq!(brief[0]["found"]["object"]["status"]["path"], BACKUP);
    assert_eq!(lines(&["catalogue", "/elsewhere"]).len(), 1);
}

#[test]
fn an_encrypted_backup_is_named_without_its_key_and_read_with_it() {
    let scene = Kind::Files.open();
    let key = |run: Run, pass: &str| {
        run.env("DATASAFED_ENCRYPTION_ALGORITHM", "AES-256-CFB").env("DATASAFED_ENCRYPTION_PASS_PHRASE", pass)
    };
    let name = "/demo/pg/b/kubeblocks-backup.json";
    key(scene.run(&["push", "-", name]), "right").stdin(br#"{"metadata":{"name":"b"}}"#).succeeds();
    let first = |run: Run| -> Value { serde_json::from_str(run.succeeds_with_text().lines().next().unwrap()).unwrap() };
    let told = first(scene.run(&["catalogue"]));
    assert_eq!((&told["found"]["path"], &told["found"]["locked"]), (&"/demo/pg/b".into(), &true.into()));
    assert_eq!(first(key(scene.run(&["catalogue"]), "wrong"))["found"]["locked"], true);
    assert_eq!(first(key(scene.run(&["catalogue"]), "right"))["found"]["object"]["metadata"]["name"], "b");
}
