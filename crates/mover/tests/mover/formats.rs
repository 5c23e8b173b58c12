//! Files written by the reference, whole and damaged, through this mover; and this mover's own files back.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{Run, pseudo_random};
use serde_json::Value;

/// Damaged files that this mover judges otherwise than the reference, with the reason.
const STRICTER: &[(&str, &str)] = &[
    ("bad/lz4.minus4", "a frame without its checksum is incomplete"),
    ("bad/lz4.no-end-mark", "a frame without its end mark is incomplete"),
    ("bad/lz4.header-only", "a frame without its end mark is incomplete"),
    ("bad/lz4.big-block-cut", "a frame without its end mark is incomplete"),
    ("bad/deflate.garbage", "nothing writes data behind a stream"),
    ("bad/deflate.twice", "nothing writes data behind a stream"),
];

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn manifest() -> Value {
    serde_json::from_slice(&fs::read(data("manifest.json")).unwrap()).unwrap()
}

/// A run on one stored file, with its encryption and compression.
fn pull(root: &Path, item: &Value) -> Run {
    let encrypted = item["encryption"].as_str();
    let stored = root.join(if encrypted.is_some() { "x.enc" } else { "x" });
    fs::copy(data(item["file"].as_str().unwrap()), stored).unwrap();
    let mut args = vec!["pull", "x", "-"];
    if let Some(compression) = item["compression"].as_str() {
        args.splice(1..1, ["-d", compression]);
    }
    let mut run = Run::new(&args).env("DATASAFED_LOCAL_BACKEND_PATH", root);
    if let Some(algorithm) = encrypted {
        run = run
            .env("DATASAFED_ENCRYPTION_ALGORITHM", algorithm)
            .env("DATASAFED_ENCRYPTION_PASS_PHRASE", item["passphrase"].as_str().unwrap());
    }
    run
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    format!("{:x}", sha2::Sha256::digest(bytes))
}

#[test]
fn every_file_of_the_reference_is_read() {
    let mut read = 0;
    for item in manifest()["store"].as_array().unwrap() {
        let name = item["file"].as_str().unwrap();
        let root = tempfile::tempdir().unwrap();
        let (code, out, stderr) = pull(root.path(), item).output();
        if item["peer_pull_exit"] != 0 {
            assert_ne!(code, 0, "{name} is damaged");
            continue;
        }
        assert_eq!(code, 0, "{name}: {stderr}");
        assert_eq!(sha256(&out), item["plain_sha256"].as_str().unwrap(), "{name}");
        read += 1;
    }
    assert!(read > 220, "only {read} files");
}

#[test]
fn damage_is_found_wherever_the_reference_finds_it() {
    for item in manifest()["bad"].as_array().unwrap() {
        let name = item["file"].as_str().unwrap();
        let root = tempfile::tempdir().unwrap();
        let (code, out, stderr) = pull(root.path(), item).output();
        let stricter = STRICTER.iter().any(|(known, _)| *known == name);
        let expected = if stricter { 1 } else { item["peer_exit"].as_i64().unwrap() };
        assert_eq!(i64::from(code), expected, "{name}: {stderr}");
        if code == 0 {
            assert_eq!(sha256(&out), item["peer_stdout_sha256"].as_str().unwrap(), "{name}");
        }
    }
}

#[test]
fn what_is_written_comes_back_in_every_format() {
    const NAMES: &[&str] = &[
        "zstd-fastest",
        "zstd",
        "zstd-better-compression",
        "zstd-best-compression",
        "gzip",
        "gzip-best-speed",
        "gzip-best-compression",
        "pgzip",
        "pgzip-best-speed",
        "pgzip-best-compression",
        "deflate-default",
        "deflate-best-speed",
        "deflate-best-compression",
        "lz4",
        "s2-default",
        "s2-better",
        "s2-parallel-4",
        "s2-parallel-8",
    ];
    let text: Vec<u8> = (0..600_000u32).flat_map(|number| number.to_string().into_bytes()).collect();
    let inputs = [Vec::new(), b"x".to_vec(), text, pseudo_random((5 << 20) + 17), vec![0; 9 << 20]];
    for name in NAMES {
        for input in &inputs {
            let root = tempfile::tempdir().unwrap();
            let run = |args: &[&str]| Run::new(args).env("DATASAFED_LOCAL_BACKEND_PATH", root.path());
            run(&["push", "-z", name, "-", "x"]).stdin(input).succeeds();
            assert!(run(&["pull", "-d", name, "x", "-"]).succeeds() == *input, "{name}, {} bytes", input.len());
        }
    }
}

#[test]
fn other_tools_read_what_is_written() {
    let text: Vec<u8> = (0..400_000u32).flat_map(|number| number.to_string().into_bytes()).collect();
    for (name, tool) in [
        ("zstd", &["zstd", "-dc"][..]),
        ("zstd-best-compression", &["zstd", "-dc"]),
        ("gzip", &["gzip", "-dc"]),
        ("pgzip-best-compression", &["gzip", "-dc"]),
        ("lz4", &["lz4", "-dc"]),
    ] {
        if std::process::Command::new(tool[0]).arg("--version").output().is_err() {
            println!("{} is not installed; {name} is not compared", tool[0]);
            continue;
        }
        let root = tempfile::tempdir().unwrap();
        Run::new(&["push", "-z", name, "-", "x"])
            .env("DATASAFED_LOCAL_BACKEND_PATH", root.path())
            .stdin(&text)
            .succeeds();
        let file = fs::File::open(root.path().join("x")).unwrap();
        let output = std::process::Command::new(tool[0]).args(&tool[1..]).stdin(file).output().unwrap();
        assert!(output.status.success() && output.stdout == text, "{name}");
    }
}

/// What the reference asks of a stream that it is to read, byte by byte where it looks at bytes.
#[test]
fn streams_begin_as_the_contract_says() {
    let root = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| Run::new(args).env("DATASAFED_LOCAL_BACKEND_PATH", root.path());
    let written = |name: &str, input: &[u8]| {
        run(&["push", "-z", name, "-", "x"]).stdin(input).succeeds();
        fs::read(root.path().join("x")).unwrap()
    };
    let input = pseudo_random(6 << 20);
    let gzip = |flags: u8| vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, flags, 255];
    for (name, head) in [
        ("gzip", gzip(0)),
        ("gzip-best-speed", gzip(4)),
        ("gzip-best-compression", gzip(2)),
        ("pgzip", gzip(0)),
        // Version 1, independent blocks with a checksum of the content and no size of it; 4 MiB.
        ("lz4", vec![0x04, 0x22, 0x4d, 0x18, 0x64, 0x70]),
        ("s2-default", b"\xff\x06\x00\x00S2sTwO".to_vec()),
        ("s2-parallel-8", b"\xff\x06\x00\x00S2sTwO".to_vec()),
    ] {
        assert_eq!(written(name, &input)[..head.len()], head, "{name}");
    }
    for (name, most) in [
        ("zstd-fastest", 8 << 20),
        ("zstd", 8 << 20),
        ("zstd-better-compression", 8 << 20),
        ("zstd-best-compression", 8 << 20),
    ] {
        let bytes = written(name, &input);
        assert_eq!(bytes[..4], [0x28, 0xb5, 0x2f, 0xfd], "{name}");
        // Checksum of the content, neither its size nor a dictionary, and a window.
        assert_eq!(bytes[4], 0x04, "{name}: descriptor {:#x}", bytes[4]);
        let (exponent, mantissa) = (bytes[5] >> 3, u64::from(bytes[5] & 7));
        let base = 1u64 << (10 + exponent);
        assert!(base + base / 8 * mantissa <= most, "{name}: window {exponent}, {mantissa}");
    }
    // No input is no frame, and both are read as nothing.
    for (name, size) in [("zstd", 0), ("zstd-fastest", 0), ("s2-default", 0), ("lz4", 15), ("deflate-default", 2)] {
        assert_eq!(written(name, b"").len(), size, "{name}");
        assert_eq!(run(&["pull", "-d", name, "x", "-"]).succeeds(), b"", "{name}");
    }
    fs::write(root.path().join("x"), [0x28, 0xb5, 0x2f, 0xfd, 0x24, 0, 1, 0, 0, 0x99, 0xe9, 0xd8, 0x51]).unwrap();
    assert_eq!(run(&["pull", "-d", "zstd", "x", "-"]).succeeds(), b"");
    fs::write(root.path().join("x"), b"\xff\x06\x00\x00S2sTwO").unwrap();
    assert_eq!(run(&["pull", "-d", "s2-better", "x", "-"]).succeeds(), b"");
}
