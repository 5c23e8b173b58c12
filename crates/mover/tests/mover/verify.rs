//! `seal` and `verify` on many objects: levels, interruption, memory.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::Duration;

use crate::common::{Run, listens};
use serde_json::{Value, json};
use tempfile::TempDir;

const BACKUP: &str = "/repo/demo/pg/b1";

/// A repository of files with one backup in it.
struct Scene {
    root: TempDir,
    work: TempDir,
}

impl Scene {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap(), work: tempfile::tempdir().unwrap() }
    }

    fn run(&self, args: &[&str]) -> Run {
        Run::new(args)
            .env("DATASAFED_LOCAL_BACKEND_PATH", self.root.path())
            .env("KBBACKUP_BACKUP_PATH", BACKUP)
            .env("KBBACKUP_BACKUP_UID", "uid-1")
            .env("KBBACKUP_ACTION", "dp-backup-0")
            .env("KBBACKUP_ATTEMPT", "pod-1")
            .env("TMPDIR", self.work.path())
    }

    fn object(&self, path: &str) -> PathBuf {
        self.root.path().join(&BACKUP[1..]).join(path)
    }

    fn push(&self, name: &str, bytes: &[u8], more: &[&str]) {
        let args = [&["push"], more, &["-", name]].concat();
        self.run(&args).env("DATASAFED_BACKEND_BASE_PATH", BACKUP).stdin(bytes).succeeds();
    }

    fn seal(&self) -> Value {
        let log = self.work.path().join("log");
        self.run(&["seal", "--attempt=dp-backup-0=pod-1", "--termination-log", log.to_str().unwrap()]).succeeds();
        serde_json::from_slice(&fs::read(log).unwrap()).unwrap()
    }

    fn verify(&self, args: &[&str]) -> (i32, String, String) {
        let (code, out, err) = self.run(&[&["verify", BACKUP], args].concat()).output();
        (code, String::from_utf8(out).unwrap(), err)
    }
}

fn named(path: &str) -> String {
    format!("{}/{path}", &BACKUP[1..])
}

#[test]
fn each_level_finds_what_it_looks_at() {
    let scene = Scene::new();
    scene.push("data/plain", b"plain bytes", &[]);
    scene.push("data/frame.zst", &b"text ".repeat(10_000), &["-z", "zstd"]);
    scene.push("data/frame.gz", &b"text ".repeat(10_000), &["-z", "gzip"]);
    // Pushed as it is, and no stream: somebody's producer was cut off.
    let whole = fs::read(scene.object("data/frame.zst")).unwrap();
    scene.push("data/half.zst", &whole[..whole.len() - 7], &[]);
    scene.push("gone", b"x", &[]);
    let seal = scene.seal()["seal"].as_str().unwrap().to_owned();

    let (code, out, _) = scene.verify(&["--level", "digest", "--seal", &seal]);
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("5 objects") && out.contains("all as sealed") && out.contains(&seal), "{out}");
    assert!(scene.verify(&["--level", "list"]).1.contains("nothing was read"));
    // Only reading to the end finds a stream that never was one.
    let (code, out, err) = scene.verify(&["--level", "full"]);
    assert_eq!(code, 1);
    assert!(out.starts_with(&format!("unreadable {}: as sealed, but ", named("data/half.zst"))), "{out}");
    assert!(out.lines().count() == 1 && err.contains("1 object(s) are not as they were sealed"), "{out}{err}");

    fs::remove_file(scene.object("gone")).unwrap();
    fs::write(scene.object("new"), "x").unwrap();
    fs::write(scene.object("data/plain"), "Plain bytes").unwrap();
    let frame = scene.object("data/frame.gz");
    let mut bytes = fs::read(&frame).unwrap();
    bytes.pop();
    fs::write(&frame, bytes).unwrap();
    let lines = |level: &str| scene.verify(&["--level", level]).1;
    let (gz, gone, new) = (named("data/frame.gz"), named("gone"), named("new"));
    let list = lines("list");
    assert!(list.starts_with(&format!("damaged {gz}: ")) && list.contains(" bytes, "), "{list}");
    assert!(list.ends_with(&format!("missing {gone}\nsurplus {new}\n")) && list.lines().count() == 3, "{list}");
    let digest = lines("digest");
    assert!(digest.contains(&format!("damaged {}: the content", named("data/plain"))), "{digest}");
    assert_eq!(digest.lines().count(), 4, "{digest}");
    assert_eq!(lines("full").lines().count(), 5);

    let (code, _, err) = scene.verify(&["--seal", "0000"]);
    assert!(code == 1 && err.contains("expected 0000"), "{err}");
    for (args, why) in [
        (&["--level", "deep"][..], "deep is not included in list,digest,full"),
        (&["--parallel", "65"], "--parallel 65 is not between 1 and 64"),
        (&["more"], "accepts 1 arg(s), received 2"),
    ] {
        let (code, _, err) = scene.verify(args);
        assert!(code == 1 && err.contains(why), "{err}");
    }
}

#[test]
fn the_full_level_needs_the_key_and_tells_a_wrong_one_from_damage() {
    let scene = Scene::new();
    let with = |run: Run, key: &str| {
        run.env("DATASAFED_ENCRYPTION_ALGORITHM", "age").env("DATASAFED_ENCRYPTION_PASS_PHRASE", key)
    };
    let base = |run: Run| run.env("DATASAFED_BACKEND_BASE_PATH", BACKUP);
    base(with(scene.run(&["push", "-z", "zstd", "-", "x"]), "right")).stdin(b"text").succeeds();
    scene.seal();
    let (code, _, err) = scene.verify(&["--level", "full"]);
    assert!(code == 1 && err.contains("x.enc: the object is encrypted, and without"), "{err}");
    assert_eq!(scene.verify(&["--level", "digest"]).0, 0, "nobody needs a key for that");
    let full = |key: &str| with(scene.run(&["verify", "--level", "full", BACKUP]), key).output();
    assert_eq!(full("right").0, 0);
    let (code, out, err) = full("wrong");
    assert_eq!((code, out.as_slice()), (1, &b""[..]), "a wrong key is no damage");
    assert!(err.contains("none of the age keys"), "{err}");
    let object = scene.object("x.enc");
    let mut bytes = fs::read(&object).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&object, bytes).unwrap();
    for key in ["right", "wrong"] {
        let (code, out, err) = full(key);
        let out = String::from_utf8(out).unwrap();
        assert!(code == 1 && out.starts_with(&format!("damaged {}: ", named("x.enc"))), "{key}: {out} {err}");
    }
}

#[test]
fn a_forged_list_raises_no_false_alarm() {
    let scene = Scene::new();
    // More than are read at once, so that a finding would be told before the end of the list is seen.
    for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        scene.push(name, name.as_bytes(), &[]);
    }
    scene.seal();
    let manifest = scene.object(".kbbackup/manifest.jsonl");
    let text = fs::read_to_string(&manifest).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    for (forged, why) in [
        (text.replace("\"size\":1", "\"size\":2"), "is not the one that was sealed"),
        (format!("{}\n{}\n", lines[1], lines[0]), "its paths are not in order"),
        (format!("{}\n", lines[0]), "is not the one that was sealed"),
        (text.replace("\"path\":\"a\"", "\"path\":\"../a\""), "leaves the backup"),
        (text.trim_end().to_owned(), "is not the one that was sealed"),
        ("x".repeat(100_000), "the line is too long"),
        (String::new(), "is not the one that was sealed"),
    ] {
        fs::write(&manifest, forged).unwrap();
        let (code, out, err) = scene.verify(&[]);
        assert_eq!((code, out.as_str()), (1, ""), "{err}");
        assert!(err.contains(why), "{why}: {err}");
    }
    fs::remove_file(&manifest).unwrap();
    assert!(scene.verify(&[]).2.contains("is missing"));
}

#[test]
fn an_interrupted_verification_goes_on_where_it_was() {
    for signal in ["TERM", "KILL"] {
        let scene = Scene::new();
        fs::create_dir_all(scene.object("d")).unwrap();
        let names: Vec<String> = (0..20_000).map(|number| format!("d/{number:05}")).collect();
        for name in &names {
            fs::write(scene.object(name), "x").unwrap();
        }
        scene.seal();
        fs::write(scene.object(&names[1]), "y").unwrap();
        let file = scene.work.path().join("checkpoint");
        let resume = ["verify", BACKUP, "--parallel", "1", "--resume", file.to_str().unwrap()];
        let mut first = scene.run(&resume).spawn();
        // A finding is kept at once; thousands of objects are still to come.
        while !file.exists() {
            assert!(first.try_wait().unwrap().is_none(), "it ended before it was interrupted");
            std::thread::sleep(Duration::from_millis(1));
        }
        let pid = first.id().to_string();
        assert!(std::process::Command::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap().success());
        let output = first.wait_with_output().unwrap();
        let told = String::from_utf8(output.stdout).unwrap();
        assert_eq!(told, format!("damaged {}: the content is not what was sealed\n", named(&names[1])));
        if signal == "TERM" {
            assert_eq!(output.status.code(), Some(143));
            let err = String::from_utf8(output.stderr).unwrap();
            assert!(err.contains("was looked at; --resume") && err.contains("goes on"), "{err}");
        }
        let state: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        let done = names.iter().position(|name| *name == state["done"]).unwrap();
        assert!(done + 1 < names.len());

        // Another verification does not take it over.
        let (code, _, err) = scene.verify(&["--level", "list", "--resume", file.to_str().unwrap()]);
        assert!(code == 1 && err.contains("belongs to another verification"), "{err}");
        // What was looked at is not looked at again; what comes behind it is.
        fs::write(scene.object(&names[0]), "y").unwrap();
        let last = names.last().unwrap();
        fs::write(scene.object(last), "y").unwrap();
        let (code, out, err) = scene.run(&resume).output();
        let out = String::from_utf8(out).unwrap();
        assert_eq!((code, out), (1, format!("damaged {}: the content is not what was sealed\n", named(last))));
        assert!(err.contains("2 object(s) are not as they were sealed"), "{err}");
        assert!(!file.exists(), "the next one begins anew");
        let (_, out, _) = scene.run(&resume).output();
        assert_eq!(String::from_utf8(out).unwrap().lines().count(), 3);
    }
    // A file that is something else is not overwritten.
    let scene = Scene::new();
    scene.push("a", b"a", &[]);
    scene.seal();
    let file = scene.work.path().join("precious");
    fs::write(&file, "text").unwrap();
    let (code, _, err) = scene.verify(&["--resume", file.to_str().unwrap()]);
    assert!(code == 1 && err.contains("not a checkpoint"), "{err}");
    assert_eq!(fs::read(&file).unwrap(), b"text");
}

/// Runs to the end and gives the peak of resident memory in KiB.
fn peak(run: Run) -> u64 {
    let mut child = run.spawn();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(peak);
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    peak
}

/// With `KBBACKUP_SOAK` a million, each read; in CI some less, by name.
#[test]
fn memory_does_not_depend_on_the_number_of_objects() {
    let soak = std::env::var_os("KBBACKUP_SOAK").is_some();
    let count = if soak { 1_000_000 } else { 100_000 };
    let scene = Scene::new();
    let journal = scene.work.path().join("journal");
    let mut notes = BufWriter::new(fs::File::create(&journal).unwrap());
    let digest = blake3::hash(b"").to_hex().to_string();
    // Half of them in one directory: that must not be collected either.
    for number in 0..count {
        let path =
            if number % 2 == 0 { format!("flat/{number:08}") } else { format!("d/{:04}/{number:08}", number / 1000) };
        let object = scene.object(&path);
        if number % 1000 <= 1 {
            fs::create_dir_all(object.parent().unwrap()).unwrap();
        }
        fs::File::create(object).unwrap();
        writeln!(notes, "{}", json!({"path": path, "size": 0, "blake3": digest})).unwrap();
    }
    notes.into_inner().unwrap();
    fs::write(scene.work.path().join("info"), "{}").unwrap();
    let log = scene.work.path().join("log");
    let log = log.to_str().unwrap();
    let report = scene
        .run(&["report", "--termination-log", log])
        .env("KBBACKUP_JOURNAL", &journal)
        .env("DP_BACKUP_INFO_FILE", scene.work.path().join("info"))
        .spawn();
    listens(report.id());
    assert!(std::process::Command::new("kill").arg(report.id().to_string()).status().unwrap().success());
    assert!(report.wait_with_output().unwrap().status.success());
    let read = || -> Value { serde_json::from_slice(&fs::read(log).unwrap()).unwrap() };
    assert_eq!(read()["stored"]["objects"], count);

    let sealing = peak(scene.run(&["seal", "--attempt=dp-backup-0=pod-1", "--termination-log", log]));
    assert_eq!(read()["stored"]["objects"], count);
    let listing = peak(scene.run(&["verify", BACKUP, "--level", "list"]));
    let reading = if soak { peak(scene.run(&["verify", BACKUP])) } else { listing };
    println!("{count} objects: seal {sealing} KiB, verify {listing} KiB, by digest {reading} KiB");
    for peak in [sealing, listing, reading] {
        assert!(peak > 0 && peak < 100 << 10, "{peak} KiB");
    }
    assert!(fs::read_dir(scene.work.path()).unwrap().count() == 3, "temporary files have no names");
}
