//! This mover's objects read by the libraries that the reference is built from, and age by its author's implementation, in
//! both directions. The program that does so is `tests/cluster/formats`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::common::programs::program;
use crate::common::{Run, pseudo_random};
use serde_json::Value;

const PHRASE: &str = "correct horse battery staple";

/// Runs the peer. Gives whether it was content, and what it wrote.
fn peer(args: &[&str], cipher: &str, key: &str, input: &[u8]) -> (bool, Vec<u8>) {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    let mut child = Command::new(PATH.get_or_init(|| program("formats")))
        .args(args)
        .env("FORMATS_CIPHER", cipher)
        .env("FORMATS_KEY", key)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // It stops reading when it does not like what it reads.
    let feeder = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    (output.status.success(), output.stdout)
}

/// The mover on a directory, with a cipher or without.
fn mover(root: &Path, args: &[&str], cipher: &str, key: &str) -> Run {
    let run = Run::new(args).env("DATASAFED_LOCAL_BACKEND_PATH", root);
    if cipher.is_empty() {
        return run;
    }
    run.env("DATASAFED_ENCRYPTION_ALGORITHM", cipher).env("DATASAFED_ENCRYPTION_PASS_PHRASE", key)
}

/// The object `x` as stored.
fn stored(root: &Path, cipher: &str) -> Vec<u8> {
    fs::read(root.join(if cipher.is_empty() { "x" } else { "x.enc" })).unwrap()
}

/// The names of the contract, taken from the files of the reference, each with its family.
fn names() -> Vec<(String, &'static str)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/manifest.json");
    let manifest: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let mut names: Vec<String> = manifest["store"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|item| item["compression"].as_str().map(str::to_owned))
        .collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 18);
    let family = |name: &str| {
        *["zstd", "pgzip", "gzip", "deflate", "lz4", "s2"].iter().find(|family| name.starts_with(**family)).unwrap()
    };
    names.into_iter().map(|name| (name.clone(), family(&name))).collect()
}

#[test]
fn the_references_libraries_read_every_format() {
    let text: Vec<u8> = (0..100_000u32).flat_map(|number| number.to_string().into_bytes()).collect();
    let small = [Vec::new(), b"hello world\n".to_vec(), text];
    // Beyond the blocks of all formats, incompressible and nothing but zeros.
    let large = [pseudo_random((5 << 20) + 17), vec![0; 9 << 20]];
    let all_cases = names().into_iter().flat_map(|(name, family)| {
        let whole_range =
            name == family || ["deflate-default", "s2-better", "pgzip-best-compression"].contains(&&*name);
        let inputs = small.iter().chain(large.iter().filter(move |_| whole_range));
        inputs.map(move |input| (name.clone(), family, input))
    });
    for (name, family, input) in all_cases {
        let root = tempfile::tempdir().unwrap();
        mover(root.path(), &["push", "-z", &name, "-", "x"], "", "").stdin(input).succeeds();
        let (content, out) = peer(&["decode", family], "", "", &stored(root.path(), ""));
        assert!(content && out == *input, "{name}, {} bytes", input.len());
    }
}

#[test]
fn what_other_encoders_write_is_read_in_every_format() {
    for (input, families) in [
        (pseudo_random((5 << 20) + 17), &["zstd", "gzip", "pgzip", "deflate", "lz4", "s2"][..]),
        (b"hello".repeat(900_000), &["zstd", "gzip", "pgzip", "deflate", "lz4", "s2"]),
    ] {
        for family in families {
            let (content, bytes) = peer(&["encode", family], "", "", &input);
            assert!(content, "{family}");
            let root = tempfile::tempdir().unwrap();
            fs::write(root.path().join("x"), bytes).unwrap();
            let name = names().into_iter().find(|(_, of)| of == family).unwrap().0;
            assert!(mover(root.path(), &["pull", "-d", &name, "x", "-"], "", "").succeeds() == input, "{family}");
        }
    }
}

#[test]
fn ciphers_of_the_contract_agree_in_both_directions() {
    for cipher in ["AES-128-CFB", "AES-192-CFB", "AES-256-CFB"] {
        for phrase in [PHRASE, "pässwörd-密码 ", "x"] {
            for (size, name, family) in [(0, None, "none"), (70_001, None, "none"), (300_000, Some("zstd"), "zstd")] {
                let input = pseudo_random(size);
                let root = tempfile::tempdir().unwrap();
                let mut push = vec!["push", "-", "x"];
                let mut pull = vec!["pull", "x", "-"];
                if let Some(name) = name {
                    push.splice(1..1, ["-z", name]);
                    pull.splice(1..1, ["-d", name]);
                }
                mover(root.path(), &push, cipher, phrase).stdin(&input).succeeds();
                let (content, out) = peer(&["decode", family], cipher, phrase, &stored(root.path(), cipher));
                assert!(content && out == input, "{cipher}, {size} bytes");
                let (content, bytes) = peer(&["encode", family], cipher, phrase, &input);
                assert!(content);
                fs::write(root.path().join("x.enc"), bytes).unwrap();
                assert!(mover(root.path(), &pull, cipher, phrase).succeeds() == input, "{cipher}, {size} bytes");
            }
        }
    }
}

/// Identity and recipient, made by age's author's implementation.
fn key_pair() -> (String, String) {
    let (content, text) = peer(&["keygen"], "", "", b"");
    assert!(content);
    let text = String::from_utf8(text).unwrap();
    let (identity, recipient) = text.trim().split_once('\n').unwrap();
    (identity.to_owned(), recipient.to_owned())
}

#[test]
fn age_objects_go_both_ways_between_this_mover_and_the_author_s_implementation() {
    let (identity, recipient) = key_pair();
    let chunk = 64 << 10;
    // Both sides of the chunk's border: there implementations differ.
    for size in [0, chunk - 1, chunk, chunk + 1, 300_001] {
        let input = pseudo_random(size);
        for (writer, reader) in [(recipient.as_str(), identity.as_str()), (&identity, &identity), (PHRASE, PHRASE)] {
            if reader == PHRASE && size > 0 && size != 300_001 {
                // A pass phrase costs a tenth of a second, and the chunks are the same.
                continue;
            }
            let root = tempfile::tempdir().unwrap();
            mover(root.path(), &["push", "-", "x"], "age", writer).stdin(&input).succeeds();
            let (content, out) = peer(&["decode", "none"], "age", reader, &stored(root.path(), "age"));
            assert!(content && out == input, "ours, {size} bytes");
            if writer != identity {
                let (content, bytes) = peer(&["encode", "none"], "age", writer, &input);
                assert!(content);
                fs::write(root.path().join("x.enc"), bytes).unwrap();
                assert!(mover(root.path(), &["pull", "x", "-"], "age", reader).succeeds() == input, "theirs, {size}");
            }
        }
    }
    // Compression lies below.
    let root = tempfile::tempdir().unwrap();
    mover(root.path(), &["push", "-z", "zstd", "-", "x"], "age", &recipient).stdin(b"plain").succeeds();
    let (content, out) = peer(&["decode", "zstd"], "age", &identity, &stored(root.path(), "age"));
    assert!(content && out == b"plain");
}

#[test]
fn a_key_that_does_not_fit_opens_nothing_on_either_side() {
    let ((identity, recipient), (stranger, _)) = (key_pair(), key_pair());
    let root = tempfile::tempdir().unwrap();
    for (writer, wrong) in
        [(recipient.as_str(), stranger.as_str()), (&recipient, PHRASE), (PHRASE, "wrong"), (PHRASE, &identity)]
    {
        mover(root.path(), &["push", "-", "x"], "age", writer).stdin(b"plain").succeeds();
        let (code, out, err) = mover(root.path(), &["pull", "x", "-"], "age", wrong).output();
        assert_eq!((code, out.as_slice()), (1, &b""[..]), "{err}");
        assert!(err.contains("age"), "{err}");
        let (content, out) = peer(&["decode", "none"], "age", wrong, &stored(root.path(), "age"));
        assert!(!content && out.is_empty());
        let (_, bytes) = peer(&["encode", "none"], "age", writer, b"plain");
        fs::write(root.path().join("x.enc"), bytes).unwrap();
        mover(root.path(), &["pull", "x", "-"], "age", wrong).fails();
    }
}
