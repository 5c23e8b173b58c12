//! Damage of every kind, done to stored objects: nothing that was changed is given out as good.

use std::fs;
use std::path::Path;

use crate::common::{Run, pseudo_random};
use age::secrecy::ExposeSecret;
use rstest::rstest;

const BACKUP: &str = "/repo/demo/pg/b1";
const CHUNK: usize = 64 << 10;

/// A generator of places: the same in each run, so that a failure can be repeated.
struct Places(u64);

impl Places {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

/// Ways to damage an object, each with its name.
fn damages(stored: &[u8], count: usize) -> Vec<(String, Vec<u8>)> {
    let mut places = Places(stored.len() as u64);
    let mut all = vec![
        ("everything gone".to_owned(), Vec::new()),
        ("a byte appended".to_owned(), [stored, b"\0"].concat()),
        ("twice".to_owned(), [stored, stored].concat()),
    ];
    for _ in 0..count {
        let at = places.below(stored.len());
        all.push((format!("cut at {at}"), stored[..at].to_vec()));
        let mut flipped = stored.to_vec();
        let (at, bit) = (places.below(stored.len()), places.below(8));
        flipped[at] ^= 1 << bit;
        all.push((format!("bit {bit} of byte {at}"), flipped));
        let at = places.below(stored.len());
        all.push((format!("a byte less at {at}"), [&stored[..at], &stored[at + 1..]].concat()));
    }
    all
}

fn encrypted(args: &[&str], root: &Path, key: &str) -> Run {
    Run::new(args)
        .env("DATASAFED_LOCAL_BACKEND_PATH", root)
        .env("DATASAFED_ENCRYPTION_ALGORITHM", "age")
        .env("DATASAFED_ENCRYPTION_PASS_PHRASE", key)
}

#[test]
fn a_damaged_age_object_is_never_pulled_with_success() {
    let root = tempfile::tempdir().unwrap();
    let identity = age::x25519::Identity::generate().to_string();
    let identity = identity.expose_secret();
    let plain = pseudo_random(3 * CHUNK + 100);
    encrypted(&["push", "-", "x"], root.path(), identity).stdin(&plain).succeeds();
    let path = root.path().join("x.enc");
    let stored = fs::read(&path).unwrap();
    let payload = stored.len() - (plain.len() + 4 * 16);
    let mut all = damages(&stored, 12);
    // At and around each border of the chunks: a cut there leaves only whole chunks.
    for chunk in 0..=3 {
        for shift in [-1, 0, 1] {
            let at = (payload + chunk * (CHUNK + 16)).saturating_add_signed(shift);
            all.push((format!("cut at the border {at}"), stored[..at].to_vec()));
        }
    }
    for (left, right) in [(0, 1), (1, 2), (0, 2)] {
        let mut swapped = stored.clone();
        for at in 0..CHUNK + 16 {
            swapped.swap(payload + left * (CHUNK + 16) + at, payload + right * (CHUNK + 16) + at);
        }
        all.push((format!("chunks {left} and {right} swapped"), swapped));
    }
    // A chunk of another object with the same key.
    encrypted(&["push", "-", "y"], root.path(), identity).stdin(&plain).succeeds();
    let other = fs::read(root.path().join("y.enc")).unwrap();
    let mut foreign = stored.clone();
    foreign[payload..payload + CHUNK + 16].copy_from_slice(&other[payload..payload + CHUNK + 16]);
    all.push(("a chunk of another object".to_owned(), foreign));

    for (what, bytes) in all {
        fs::write(&path, bytes).unwrap();
        let (code, out, err) = encrypted(&["pull", "x", "-"], root.path(), identity).output();
        assert_eq!(code, 1, "{what}");
        assert!(err.starts_with("Error: pull \"x\": "), "{what}: {err}");
        assert!(out.len() < plain.len() + CHUNK && plain.starts_with(&out[..out.len().min(plain.len())]), "{what}");
    }
    fs::write(&path, stored).unwrap();
    assert!(encrypted(&["pull", "x", "-"], root.path(), identity).succeeds() == plain);
}

/// Under a manifest it does not matter whether the format itself finds damage.
#[rstest]
#[case::plain(None, None)]
#[case::deflate(Some("deflate-default"), None)]
#[case::s2(Some("s2-default"), None)]
#[case::lz4(Some("lz4"), None)]
#[case::zstd_in_cfb(Some("zstd"), Some("AES-256-CFB"))]
#[case::plain_in_cfb(None, Some("AES-128-CFB"))]
fn any_object_under_a_manifest(#[case] compression: Option<&str>, #[case] cipher: Option<&str>) {
    let (root, pods) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let run = |args: &[&str]| {
        let run = Run::new(args)
            .env("DATASAFED_LOCAL_BACKEND_PATH", root.path())
            .env("KBBACKUP_BACKUP_PATH", BACKUP)
            .env("KBBACKUP_BACKUP_UID", "uid-1")
            .env("KBBACKUP_ACTION", "dp-backup-0")
            .env("KBBACKUP_ATTEMPT", "pod-1");
        match cipher {
            Some(cipher) => run
                .env("DATASAFED_ENCRYPTION_ALGORITHM", cipher)
                .env("DATASAFED_ENCRYPTION_PASS_PHRASE", "correct horse"),
            None => run,
        }
    };
    let base = |run: Run| run.env("DATASAFED_BACKEND_BASE_PATH", BACKUP);
    let plain: Vec<u8> = (0..60_000u32).flat_map(|number| (number * number).to_string().into_bytes()).collect();
    let mut push = vec!["push", "-", "x"];
    let mut pull = vec!["pull", "x", "-"];
    if let Some(compression) = compression {
        push.splice(1..1, ["-z", compression]);
        pull.splice(1..1, ["-d", compression]);
    }
    base(run(&push)).stdin(&plain).succeeds();
    let log = pods.path().join("log");
    run(&["seal", "--attempt=dp-backup-0=pod-1", "--termination-log", log.to_str().unwrap()]).succeeds();
    let report: serde_json::Value = serde_json::from_slice(&fs::read(&log).unwrap()).unwrap();
    let seals = format!("b1={}", report["seal"].as_str().unwrap());
    let restore = || base(run(&pull)).env("KBBACKUP_SEALS", &seals).env("DP_BACKUP_ROOT_PATH", "/repo/demo/pg");
    assert!(restore().succeeds() == plain);

    let name = if cipher.is_some() { "x.enc" } else { "x" };
    let path = root.path().join(&BACKUP[1..]).join(name);
    let stored = fs::read(&path).unwrap();
    for (what, bytes) in damages(&stored, 5) {
        fs::write(&path, bytes).unwrap();
        let (code, _, err) = restore().output();
        assert_eq!(code, 1, "{what}: {err}");
        assert!(err.starts_with("Error: pull \"x\": "), "{what}: {err}");
        let (code, out, _) = run(&["verify", BACKUP]).output();
        let out = String::from_utf8(out).unwrap();
        assert!(code == 1 && out.starts_with(&format!("damaged {}/{name}", &BACKUP[1..])), "{what}: {out}");
    }
    fs::write(&path, stored).unwrap();
    run(&["verify", BACKUP]).succeeds();
}
