//! Pushes that are killed at random moments while others look: nobody ever sees a part of an object, the next try succeeds,
//! and what the dead left goes with their backup.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{Endpoint, Run, soak};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// How often a push is killed.
fn rounds() -> usize {
    if soak() { 300 } else { 40 }
}

/// What is pushed: every version is told by its bytes, however they are cut.
struct Versions {
    contents: Vec<Vec<u8>>,
    known: HashMap<blake3::Hash, usize>,
}

impl Versions {
    /// Small ones go in one request, large ones in parts.
    fn new(random: &mut StdRng) -> Self {
        let contents: Vec<Vec<u8>> = (0..8)
            .map(|number| {
                let size = if number % 2 == 0 {
                    random.random_range(1..4 << 20)
                } else {
                    random.random_range(24 << 20..32 << 20)
                };
                let mut bytes = vec![0; size];
                blake3::Hasher::new().update(&[number]).finalize_xof().fill(&mut bytes);
                bytes
            })
            .collect();
        let known = contents.iter().enumerate().map(|(number, bytes)| (blake3::hash(bytes), number)).collect();
        Self { contents, known }
    }

    #[track_caller]
    fn check(&self, bytes: &[u8]) -> usize {
        *self.known.get(&blake3::hash(bytes)).unwrap_or_else(|| panic!("{} bytes that nobody pushed", bytes.len()))
    }
}

/// Kills pushes to `dir/object`, while `look` runs again and again beside them. Returns how many had ended before.
fn kill_and_look(
    versions: &Versions,
    random: &mut StdRng,
    run: &(dyn Fn(&[&str]) -> Run + Sync),
    look: &(dyn Fn() + Sync),
) -> usize {
    run(&["push", "-", "dir/object"]).stdin(&versions.contents[0]).succeeds();
    let began = Instant::now();
    run(&["push", "-", "dir/object"]).stdin(&versions.contents[1]).succeeds();
    let mut whole = began.elapsed();
    let (done, looks) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut ended = 0;
    thread::scope(|scope| {
        let looker = scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                look();
                looks.fetch_add(1, Ordering::SeqCst);
            }
        });
        for round in 0..rounds() {
            let content = &versions.contents[random.random_range(0..versions.contents.len())];
            let mut child = run(&["push", "-", "dir/object"]).stdin(content).spawn_fed();
            // Small ones take what a process takes.
            let share = 0.2 + content.len() as f64 / versions.contents[1].len() as f64;
            thread::sleep(whole.mul_f64(share * random.random_range(0.0..1.0)));
            child.kill().unwrap();
            let late = child.wait().unwrap().success();
            ended += usize::from(late);
            // The machine may be busier or idler than before.
            whole = whole.mul_f64(if late { 0.85 } else { 1.03 });
            if round % 10 == 9 {
                run(&["push", "-", "dir/object"]).stdin(content).succeeds();
                assert!(run(&["pull", "dir/object", "-"]).succeeds() == *content);
            }
            assert!(!looker.is_finished(), "the reader has died in round {round}");
        }
        done.store(true, Ordering::SeqCst);
    });
    assert!(looks.load(Ordering::SeqCst) > 10);
    ended
}

fn random() -> StdRng {
    let seed = std::env::var("KBBACKUP_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("KBBACKUP_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

fn temporary(dir: &Path) -> usize {
    let names = fs::read_dir(dir).unwrap().flatten().map(|item| item.file_name());
    names.filter(|name| name.to_string_lossy().starts_with(".kbbackup-tmp-")).count()
}

#[test]
fn nobody_sees_half_a_file() {
    let root = tempfile::tempdir().unwrap();
    let mut random = random();
    let versions = Versions::new(&mut random);
    let run = |args: &[&str]| Run::new(args).env("DATASAFED_LOCAL_BACKEND_PATH", root.path());
    let look = || {
        versions.check(&fs::read(root.path().join("dir/object")).unwrap());
        assert_eq!(run(&["list", "-r", "/"]).succeeds_with_text(), "dir/\ndir/object\n");
    };
    let ended = kill_and_look(&versions, &mut random, &run, &look);
    let left = temporary(&root.path().join("dir"));
    println!("{ended} of {} had ended before; {left} temporary files stay", rounds());
    assert!(left > 0, "no push was killed while it wrote");
    // Somebody who still writes is not swept with the dead.
    let mut living = run(&["push", "-", "dir/living"]).spawn_and_feed(1 << 20);
    while temporary(&root.path().join("dir")) == left {
        thread::sleep(Duration::from_millis(5));
    }
    run(&["rm", "dir/object"]).succeeds();
    run(&["rmdir", "dir"]).fails();
    assert_eq!(temporary(&root.path().join("dir")), 1);
    living.signal("TERM");
    living.wait();
    run(&["delete-backup", "/dir"]).succeeds();
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
}

#[test]
fn nobody_sees_half_an_object() {
    let endpoint = Endpoint::start();
    let mut random = random();
    let versions = Versions::new(&mut random);
    let run = |args: &[&str]| endpoint.mover(args);
    let look = || {
        versions.check(&fs::read(endpoint.path("bucket/dir/object")).unwrap());
        // A pull that was overtaken by a push fails; it never mixes two versions.
        let (code, bytes, stderr) = run(&["pull", "dir/object", "-"]).output();
        match code {
            0 => drop(versions.check(&bytes)),
            _ => assert!(stderr.contains("PreconditionFailed") || stderr.contains("412"), "{stderr}"),
        }
        assert_eq!(run(&["list", "-r", "/"]).succeeds_with_text(), "dir/object\ndir/\n");
    };
    let ended = kill_and_look(&versions, &mut random, &run, &look);
    // One at least died in the middle.
    let before = endpoint.unfinished();
    let dead = run(&["push", "-", "dir/object"]).stdin(&versions.contents[1]).spawn_most();
    dead.has_begun(|| endpoint.unfinished() > before);
    dead.die();
    let left = endpoint.unfinished();
    println!("{ended} of {} had ended before; {left} files of unfinished uploads stay", rounds());
    assert!(left > 0, "no push was killed while it wrote");
    // The end of a backup takes its own uploads along, not those of its neighbours.
    let other = run(&["push", "-", "dir2/object"]).stdin(&versions.contents[1]).spawn_most();
    other.has_begun(|| endpoint.unfinished() > left);
    run(&["delete-backup", "/dir"]).succeeds();
    assert_eq!(endpoint.unfinished(), 1);
    other.succeeds();
    assert_eq!(run(&["list", "-r", "-f", "/"]).succeeds_with_text(), "dir2/object\n");
    assert!(run(&["pull", "dir2/object", "-"]).succeeds() == versions.contents[1]);
    endpoint.nothing_is_unfinished();
}
