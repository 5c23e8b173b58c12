//! The archiver of the append-only file of Redis against a real server, and what a restore gets of it: everything that is said to be
//! reachable is reached, exactly, and what is not all there is refused.

use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;

use crate::common::archive::{self, Archiver};
use crate::common::redis::{PASSWORD, Redis, USER, installed};
use crate::common::{Run, not_tried};

const FLAGS: [&str; 4] = ["redis", "archive", "--chunk-seconds=1", "--heartbeat-seconds=1"];

/// A repository of files, and an archiver's folder.
struct Scene(archive::Scene);

impl Deref for Scene {
    type Target = archive::Scene;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

fn server() -> Option<Redis> {
    let Some(bin) = installed() else {
        not_tried("no Redis is installed");
        return None;
    };
    Some(Redis::create(&bin))
}

fn seconds(info: &Value, which: &str) -> Option<i64> {
    let time: Timestamp = info["timeRange"][which].as_str()?.parse().ok()?;
    Some(time.as_second())
}

fn pause(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}

/// Writes over some seconds.
fn write(server: &Redis, entries: &mut Vec<String>, count: usize) {
    for _ in 0..count {
        let text = format!("{}-{}", entries.len(), "x\r\n*3\r\n#TS:1\r\n".repeat(entries.len() % 7));
        let second = server.push(&text);
        entries.push(format!("{second}:{}", text.lines().next().unwrap()));
        pause(40);
    }
}

/// The first lines of entries that were added up to a second.
fn up_to(entries: &[String], second: i64) -> Vec<String> {
    let of = |entry: &&String| entry.split(':').next().unwrap().parse::<i64>().unwrap() <= second;
    entries.iter().take_while(of).cloned().collect()
}

/// A stored object with another letter in it, as long and as well packed as before.
fn forged(stored: &[u8]) -> Vec<u8> {
    let mut bytes = zstd::decode_all(stored).unwrap();
    let letter = bytes.iter().rposition(|byte| *byte == b'x').unwrap();
    bytes[letter] = b'y';
    zstd::encode_all(&bytes[..], 1).unwrap()
}

/// Each entry's first line; entries have several.
fn read(server: &Redis) -> Vec<String> {
    let is_first = |line: &&String| {
        line.split(':').next().is_some_and(|second| second.len() == 10 && second.parse::<i64>().is_ok())
    };
    server.entries().iter().filter(is_first).cloned().collect()
}

impl Scene {
    fn new() -> Self {
        Self(archive::Scene::new())
    }

    fn run(&self, server: &Redis) -> Run {
        let conf = self.conf();
        Run::new(&[&FLAGS[..], &["-c", &conf]].concat())
            .env("DP_DB_HOST", "127.0.0.1")
            .env("DP_DB_PORT", server.port.to_string())
            .env("DP_DB_USER", USER)
            .env("DP_DB_PASSWORD", PASSWORD)
            .env("DP_BACKUP_INFO_FILE", self.dir.path().join("backup.info"))
            .env("DATASAFED_BACKEND_BASE_PATH", "/db")
            .env("TMPDIR", self.dir.path())
    }

    fn archive(&self, server: &Redis) -> Archiver {
        let _ = fs::remove_file(self.dir.path().join("backup.info"));
        Archiver(self.run(server).spawn_logged(&self.dir.path().join("log")))
    }

    /// Waits until the present can be reached, in the server's time.
    #[track_caller]
    fn wait_reachable(&self, server: &Redis) -> Value {
        let now = server.time();
        self.wait(&|info| seconds(info, "end").is_some_and(|end| end >= now))
    }

    /// Waits until the archiver is at the server's file of this number.
    #[track_caller]
    fn wait_file(&self, number: usize) {
        let at = format!("/{number}:");
        self.wait(&|info| info["extras"][0]["end_position"].as_str().is_some_and(|place| place.contains(&at)));
    }

    /// Archives until the present can be reached.
    #[track_caller]
    fn archive_once(&self, server: &Redis) -> Value {
        let archiver = self.archive(server);
        let info = self.wait_reachable(server);
        assert_eq!(archiver.signal("TERM"), 0, "{}", self.log());
        info
    }

    /// The stored objects whose names have a text, in order.
    fn objects(&self, text: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.repo().join("db/aof")];
        while let Some(folder) = folders.pop() {
            for item in fs::read_dir(folder).unwrap().flatten() {
                let path = item.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.file_name().unwrap().to_str().unwrap().contains(text) {
                    found.push(path);
                }
            }
        }
        found.sort();
        found
    }

    fn fetch(&self, target: &[&str], into: &Path) -> Run {
        let conf = self.conf();
        let words = [&["redis", "fetch-aof", "-c", &conf], target, &[into.to_str().unwrap()]].concat();
        Run::new(&words).env("DATASAFED_BACKEND_BASE_PATH", "/db").env("TMPDIR", self.dir.path())
    }

    /// The entries that a server finds in what is fetched.
    #[track_caller]
    fn restore(&self, server: &Redis, target: &[&str]) -> Vec<String> {
        let place = tempfile::tempdir().unwrap();
        self.fetch(target, &place.path().join("appendonlydir")).succeeds();
        read(&server.adopt(place.path()))
    }

    #[track_caller]
    fn restores(&self, server: &Redis, entries: &[String], second: i64) {
        let found = self.restore(server, &[&format!("--to-time={second}")]);
        assert_eq!(found, up_to(entries, second), "{second}");
    }

    fn refuses(&self, second: i64) -> String {
        let place = tempfile::tempdir().unwrap();
        self.fetch(&[&format!("--to-time={second}")], &place.path().join("aof")).fails()
    }
}

#[test]
fn every_second_is_reached_exactly_across_rewrites() {
    let Some(server) = server() else { return };
    let scene = Scene::new();
    let mut entries = Vec::new();
    // What was there before the archiver.
    write(&server, &mut entries, 30);
    server.ask(&["SET", "other", "there", "EX", "3600"]);
    let archiver = scene.archive(&server);
    write(&server, &mut entries, 40);
    server.rewrite();
    write(&server, &mut entries, 40);
    scene.wait_file(2);
    // With nothing in between.
    server.rewrite();
    scene.wait_file(3);
    server.rewrite();
    write(&server, &mut entries, 30);
    let info = scene.wait_reachable(&server);
    assert_eq!(archiver.signal("TERM"), 0, "{}", scene.log());
    assert_eq!(info["extras"].as_array().unwrap().len(), 1, "no gap: {info}\n{}", scene.log());
    assert_eq!(info["extras"][0]["engine"], "redis");
    let (start, end) = (seconds(&info, "start").unwrap(), seconds(&info, "end").unwrap());
    let first: i64 = entries[0].split(':').next().unwrap().parse().unwrap();
    assert!(start <= first + 3, "{start} and {first}: the log was there already");
    for second in start..=end {
        scene.restores(&server, &entries, second);
    }
    assert_eq!(scene.restore(&server, &["--latest"]), entries);
    for outside in [start - 3, end + 1000] {
        let why = scene.refuses(outside);
        assert!(why.contains("the target cannot be reached; what can be reached is 20"), "{why}");
    }
    // Without any of its bases, or but one, whatever is still claimed still comes back.
    let bases = scene.objects("base~");
    assert!(bases.len() >= 3, "{bases:?}");
    for base in &bases[1..] {
        fs::remove_file(base).unwrap();
    }
    scene.restores(&server, &entries, end);
}

#[test]
fn whoever_is_killed_leaves_nothing_that_is_not_delivered() {
    let Some(server) = server() else { return };
    let scene = Scene::new();
    let mut entries = Vec::new();
    let mut archiver = scene.archive(&server);
    for round in 0..6 {
        write(&server, &mut entries, 20);
        match round {
            0 | 3 => assert_eq!(archiver.signal("KILL"), -1),
            1 => {
                server.stop("KILL");
                server.start();
                // What is rewritten while nobody looks is a gap, see below.
                scene.wait_reachable(&server);
                continue;
            }
            2 => {
                server.rewrite();
                scene.wait_reachable(&server);
                continue;
            }
            _ => {
                server.stop("TERM");
                server.start();
                assert_eq!(archiver.signal("TERM"), 0);
            }
        }
        archiver = scene.archive(&server);
    }
    write(&server, &mut entries, 10);
    let info = scene.wait_reachable(&server);
    archiver.signal("KILL");
    let (start, end) = (seconds(&info, "start").unwrap(), seconds(&info, "end").unwrap());
    assert_eq!(info["extras"].as_array().unwrap().len(), 1, "nothing was rewritten while nobody looked: {info}");
    for second in (start..=end).step_by(2).chain([end]) {
        scene.restores(&server, &entries, second);
    }
}

#[test]
fn what_was_rewritten_while_nobody_looked_is_a_gap_with_times_on_both_sides() {
    let Some(server) = server() else { return };
    let scene = Scene::new();
    let mut entries = Vec::new();
    write(&server, &mut entries, 30);
    let before = scene.archive_once(&server);
    let covered = seconds(&before, "end").unwrap();
    pause(5000);
    write(&server, &mut entries, 50);
    server.rewrite();
    pause(1500);
    write(&server, &mut entries, 30);
    let after = scene.archive_once(&server);
    let gap = &after["extras"][1];
    let (from, to): (Timestamp, Timestamp) =
        (gap["gapStart"].as_str().unwrap().parse().unwrap(), gap["gapEnd"].as_str().unwrap().parse().unwrap());
    assert!(from.as_second() >= covered && from < to, "{after}");
    scene.restores(&server, &entries, from.as_second());
    scene.restores(&server, &entries, to.as_second());
    scene.restores(&server, &entries, seconds(&after, "end").unwrap());
    let why = scene.refuses(to.as_second() - 1);
    assert!(why.contains("cannot be reached"), "{why}");
    assert!(scene.log().contains("does not go on where what is stored ends"), "{}", scene.log());
}

#[test]
fn a_server_that_went_back_in_time_has_another_history_and_the_old_one_stays() {
    let Some(server) = server() else { return };
    let scene = Scene::new();
    let mut entries = Vec::new();
    write(&server, &mut entries, 20);
    // A copy of its volume.
    server.stop("TERM");
    let copy = tempfile::tempdir().unwrap();
    let copied = |from: &Path, to: &Path| {
        let status = std::process::Command::new("cp").arg("-a").args([from, to]).status().unwrap();
        assert!(status.success());
    };
    copied(&server.data().join("appendonlydir"), copy.path());
    server.start();
    let mut back = entries.clone();
    write(&server, &mut entries, 60);
    let before = scene.archive_once(&server);
    let old = seconds(&before, "end").unwrap();
    pause(5000);
    server.stop("TERM");
    fs::remove_dir_all(server.data().join("appendonlydir")).unwrap();
    copied(&copy.path().join("appendonlydir"), server.data());
    server.start();
    pause(2000);
    // More than the other one had, so that its length tells nothing.
    write(&server, &mut back, 90);
    let after = scene.archive_once(&server);
    scene.restores(&server, &entries, old);
    // Then it was neither the one nor the other.
    assert!(scene.refuses(old + 3).contains("the target cannot be reached"));
    scene.restores(&server, &back, seconds(&after, "end").unwrap());
}

#[test]
fn what_is_missing_or_not_what_it_was_ends_what_can_be_reached() {
    let Some(server) = server() else { return };
    let scene = Scene::new();
    let mut entries = Vec::new();
    write(&server, &mut entries, 30);
    server.rewrite();
    let archiver = scene.archive(&server);
    for _ in 0..4 {
        write(&server, &mut entries, 40);
    }
    let info = scene.wait_reachable(&server);
    assert_eq!(archiver.signal("KILL"), -1);
    let (start, end) = (seconds(&info, "start").unwrap(), seconds(&info, "end").unwrap());
    let pieces =
        scene.objects(".zst").into_iter().filter(|path| !path.to_str().unwrap().contains("base")).collect::<Vec<_>>();
    assert!(pieces.len() >= 4, "{pieces:?}");
    let piece = &pieces[pieces.len() / 2];
    let intact = fs::read(piece).unwrap();
    let last = |path: &Path| -> i64 {
        path.file_name().unwrap().to_str().unwrap().split('~').nth(3).unwrap().parse().unwrap()
    };
    let sound = last(&pieces[pieces.len() / 2 - 1]) - 1;
    let mut flipped = intact.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let other = fs::read(&pieces[0]).unwrap();
    for (what, bytes) in [
        ("flipped", &flipped[..]),
        ("cut", &intact[..middle]),
        ("swapped", &other),
        ("empty", b""),
        ("forged", &forged(&intact)),
    ] {
        fs::write(piece, bytes).unwrap();
        let why = scene.refuses(end);
        assert!(why.contains("the target cannot be reached"), "{what}: {why}");
        scene.restores(&server, &entries, sound);
    }
    fs::remove_file(piece).unwrap();
    let why = scene.refuses(end);
    assert!(why.contains("what can be reached is"), "{why}");
    scene.restores(&server, &entries, sound);
    // The archiver stores it once more, for the server has it.
    let healed = scene.archive_once(&server);
    assert_eq!(seconds(&healed, "start"), Some(start));
    scene.restores(&server, &entries, end);
    // A base that is not what it was is no base.
    let base = scene.objects("base~").remove(0);
    let intact = fs::read(&base).unwrap();
    for bytes in [&intact[..intact.len() / 2], &forged(&intact)] {
        fs::write(&base, bytes).unwrap();
        assert!(scene.refuses(end).contains("cannot be reached"));
    }
    fs::write(&base, intact).unwrap();
    scene.restores(&server, &entries, end);
}

#[test]
fn small_pieces_are_put_together_and_old_ones_removed() {
    let Some(server) = server() else { return };
    let scene = Scene::new();
    let mut entries = Vec::new();
    let archiver = scene.archive(&server);
    for _ in 0..3 {
        write(&server, &mut entries, 30);
    }
    scene.wait_reachable(&server);
    let before = scene.objects("~").len();
    server.rewrite();
    write(&server, &mut entries, 30);
    scene.wait_reachable(&server);
    assert_eq!(archiver.signal("TERM"), 0);
    let legs = scene.objects("end~");
    assert_eq!(legs.len(), 1);
    let whole = fs::read_dir(legs[0].parent().unwrap()).unwrap().count();
    assert!(before > 2 && whole == 3, "a base, one piece and its end, and not {whole} (before, {before})");
    let info = scene.info();
    for second in [seconds(&info, "start").unwrap(), seconds(&info, "end").unwrap()] {
        scene.restores(&server, &entries, second);
    }
    pause(3000);
    write(&server, &mut entries, 5);
    let conf = scene.conf();
    let kept = Archiver(scene.run(&server).env("DP_TTL_SECONDS", "1").spawn_logged(&scene.dir.path().join("log")));
    scene.wait_reachable(&server);
    drop(kept);
    let kept = Archiver(scene.run(&server).env("DP_TTL_SECONDS", "1").spawn_logged(&scene.dir.path().join("log")));
    let began = Instant::now();
    while !scene.objects("end~").is_empty() {
        assert!(began.elapsed() < Duration::from_secs(20), "{conf}: {}", scene.log());
        pause(100);
    }
    drop(kept);
    scene.restores(&server, &entries, seconds(&scene.info(), "end").unwrap());
}

#[test]
fn a_server_whose_log_cannot_be_archived_says_what_to_change() {
    let Some(server) = server() else { return };
    let scene = Scene::new();
    let told = |scene: &Scene, what: &str| {
        let _ = fs::remove_file(scene.dir.path().join("log"));
        let archiver = scene.archive(&server);
        let began = Instant::now();
        while !scene.log().contains(what) {
            assert!(began.elapsed() < Duration::from_secs(20), "{what} is not in {}", scene.log());
            pause(100);
        }
        drop(archiver);
        assert!(!scene.log().contains(PASSWORD));
    };
    server.ask(&["CONFIG", "SET", "aof-timestamp-enabled", "no"]);
    told(&scene, "set aof-timestamp-enabled to yes");
    server.ask(&["CONFIG", "SET", "aof-timestamp-enabled", "yes"]);
    server.ask(&["CONFIG", "SET", "appendonly", "no"]);
    told(&scene, "set appendonly to yes");
    server.ask(&["CONFIG", "SET", "appendonly", "yes"]);
    server.ask(&["ACL", "SETUSER", USER, "-config|get"]);
    told(&scene, "no permissions to run the 'config|get' command");
    server.ask(&["ACL", "SETUSER", USER, "+config|get", "resetpass", ">another"]);
    told(&scene, "Password authentication failed");
    server.ask(&["ACL", "SETUSER", USER, "resetpass", &format!(">{PASSWORD}")]);
    let conf = scene.conf();
    let run = Run::new(&[&FLAGS[..], &["--data-dir=/nowhere", "-c", &conf]].concat());
    let run = run.env("DP_DB_HOST", "127.0.0.1").env("DP_DB_PORT", server.port.to_string());
    let _ = fs::remove_file(scene.dir.path().join("log"));
    let archiver = Archiver(run.spawn_logged(&scene.dir.path().join("log")));
    let began = Instant::now();
    while !scene.log().contains("/nowhere/appendonlydir is not there: mount the server's volume") {
        assert!(began.elapsed() < Duration::from_secs(20), "{}", scene.log());
        pause(100);
    }
    drop(archiver);
}
