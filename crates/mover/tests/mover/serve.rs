//! The embedded endpoint against those who may not use it, and against its own death.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::common::disk::Disk;
use crate::common::signed::{Late, Signer, send};
use crate::common::{Endpoint, pseudo_random, soak};
use jiff::{SignedDuration, Timestamp};
use rand::Rng;

/// All files below a directory with their contents.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(next) = waiting.pop() {
        for item in fs::read_dir(&next).unwrap().flatten() {
            if item.file_type().unwrap().is_dir() {
                waiting.push(item.path());
            } else {
                let name = item.path().strip_prefix(dir).unwrap().to_string_lossy().into_owned();
                files.insert(name, fs::read(item.path()).unwrap());
            }
        }
    }
    files
}

/// An endpoint with one object, and something beside its directory that is none of its business.
fn endpoint() -> Endpoint {
    let endpoint = Endpoint::start();
    fs::create_dir(endpoint.path("bucket/dir")).unwrap();
    fs::write(endpoint.path("bucket/dir/object"), "content").unwrap();
    fs::write(endpoint.path("../secret"), "a secret").unwrap();
    fs::write(endpoint.path("secret"), "a secret").unwrap();
    endpoint
}

const REQUESTS: [(&str, &str, &str); 8] = [
    ("GET", "/bucket/dir/object", ""),
    ("HEAD", "/bucket/dir/object", ""),
    ("PUT", "/bucket/dir/object", ""),
    ("PUT", "/bucket/new", ""),
    ("DELETE", "/bucket/dir/object", ""),
    ("GET", "/bucket", "list-type=2"),
    ("POST", "/bucket/new", "uploads="),
    ("GET", "/", ""),
];

#[test]
fn nobody_without_the_key_gets_anything() {
    let endpoint = endpoint();
    let before = files(&endpoint.path(".."));
    let address = endpoint.address();
    let target = |path: &str, query: &str| if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
    let hours = |hours| Timestamp::now() + SignedDuration::from_hours(hours);
    for (method, path, query) in REQUESTS {
        let check = |what: &str, headers: &str, code: &str| {
            let (status, body) = send(address, method, &target(path, query), headers, b"body");
            assert_eq!(status, 403, "{method} {path} {what}: {body}");
            assert!(
                method == "HEAD" || body.contains(&format!("<Code>{code}</Code>")),
                "{method} {path} {what}: {body}"
            );
        };
        let right = Signer::right();
        let signed = |signer: Signer<'_>| signer.headers(address, method, path, query, b"body");
        check("unsigned", "", "AccessDenied");
        check("wrong secret", &signed(Signer { secret: "wrong", ..right }), "SignatureDoesNotMatch");
        check("unknown key", &signed(Signer { key: "unknown", ..right }), "InvalidAccessKeyId");
        check("an hour old", &signed(Signer { at: hours(-1), ..right }), "RequestTimeTooSkewed");
        check("from tomorrow", &signed(Signer { at: hours(24), ..right }), "RequestTimeTooSkewed");
        check(
            "signed for another path",
            &right.headers(address, method, "/bucket/other", query, b"body"),
            "SignatureDoesNotMatch",
        );
        check(
            "signed for another method",
            &right.headers(address, "PATCH", path, query, b"body"),
            "SignatureDoesNotMatch",
        );
    }
    assert!(files(&endpoint.path("..")) == before, "something has changed");
}

#[test]
fn a_signed_body_is_the_one_that_is_stored() {
    let endpoint = endpoint();
    let address = endpoint.address();
    let headers = Signer::right().headers(address, "PUT", "/bucket/new", "", b"signed");
    let (status, body) = send(address, "PUT", "/bucket/new", &headers, b"forged");
    assert!((400..500).contains(&status), "{status} {body}");
    assert!(!endpoint.path("bucket/new").exists());
    let headers = Signer::right().headers(address, "PUT", "/bucket/new", "", b"signed");
    assert_eq!(send(address, "PUT", "/bucket/new", &headers, b"signed").0, 200);
    assert_eq!(fs::read(endpoint.path("bucket/new")).unwrap(), b"signed");
    endpoint.nothing_is_unfinished();
}

#[test]
fn presigned_addresses_end_and_open_one_object_only() {
    let endpoint = endpoint();
    let address = endpoint.address();
    let path = "/bucket/dir/object";
    let right = Signer::right();
    let ago = |seconds| Signer { at: Timestamp::now() - SignedDuration::from_secs(seconds), ..right };
    let get = |path: &str, query: &str| send(address, "GET", &format!("{path}?{query}"), "", b"");
    assert_eq!(get(path, &right.query(address, "GET", path, 60)), (200, "content".to_owned()));
    assert_eq!(get(path, &ago(50).query(address, "GET", path, 60)).0, 200);
    for (what, path, query, code) in [
        ("expired", path, ago(70).query(address, "GET", path, 60), "AccessDenied"),
        (
            "longer than signed",
            path,
            ago(70).query(address, "GET", path, 60).replace("=60&", "=600&"),
            "SignatureDoesNotMatch",
        ),
        ("another object", "/bucket/other", right.query(address, "GET", path, 60), "SignatureDoesNotMatch"),
        ("another method", path, right.query(address, "DELETE", path, 60), "SignatureDoesNotMatch"),
    ] {
        let (status, body) = get(path, &query);
        assert!(status == 403 && body.contains(code), "{what}: {status} {body}");
    }
}

#[test]
fn paths_do_not_leave_their_bucket() {
    let endpoint = endpoint();
    let before = files(&endpoint.path(".."));
    let address = endpoint.address();
    for path in [
        "/bucket/../secret",
        "/bucket/../../secret",
        "/bucket/%2e%2e/secret",
        "/bucket/%2e%2e/%2e%2e/secret",
        "/bucket/..%2fsecret",
        "/bucket/..%2f..%2fsecret",
        "/bucket/dir/%2e%2e%2f%2e%2e%2f%2e%2e%2fsecret",
        "/bucket/dir/../../../secret",
        "/bucket/%2fetc%2fpasswd",
        "/bucket//etc/passwd",
        "/bucket/a%00b",
        "/bucket/dir/./object",
        "/../secret",
        "/%2e%2e/secret",
        "/..%2fsecret",
        "/.kbbackup-serve/secret",
        "/%2ekbbackup-serve/secret",
        "/./secret",
    ] {
        for (method, query) in [("GET", ""), ("PUT", ""), ("DELETE", ""), ("POST", "uploads=")] {
            let headers = Signer::right().headers(address, method, path, query, b"escaped");
            let target = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
            let (status, body) = send(address, method, &target, &headers, b"escaped");
            assert!((400..500).contains(&status), "{method} {path}: {status} {body}");
            assert!(!body.contains("a secret") && !body.contains("root:"), "{method} {path}: {body}");
        }
    }
    for source in ["/bucket/../../secret", "bucket/..%2f..%2fsecret", "/../secret", "%2e%2e/secret"] {
        let headers = Signer::right().headers(address, "PUT", "/bucket/copy", "", b"");
        let headers = format!("{headers}x-amz-copy-source: {source}\r\n");
        let (status, body) = send(address, "PUT", "/bucket/copy", &headers, b"");
        assert!((400..500).contains(&status), "{source}: {status} {body}");
    }
    for prefix in ["..%2F", "..%2F..%2F", "dir%2F..%2F..%2F..%2F", "%2Fetc%2F"] {
        let query = format!("list-type=2&prefix={prefix}");
        let headers = Signer::right().headers(address, "GET", "/bucket", &query, b"");
        let (status, body) = send(address, "GET", &format!("/bucket?{query}"), &headers, b"");
        assert!(status == 200 && !body.contains("<Key>"), "{prefix}: {status} {body}");
    }
    assert!(files(&endpoint.path("..")) == before, "something has changed");
}

#[test]
fn what_was_acknowledged_survives_a_kill_and_nothing_is_there_in_part() {
    let mut endpoint = Endpoint::start();
    let rounds = if soak() { 60 } else { 8 };
    let acknowledged: Mutex<BTreeMap<String, blake3::Hash>> = Mutex::default();
    let mut random = rand::rng();
    // Sizes that go in one request and in several; a part that is done is no object yet.
    let sizes = [1, 70_000, 3 << 20, 20 << 20];
    for round in 0..rounds {
        let killed = AtomicBool::new(false);
        thread::scope(|scope| {
            let mut pushing = Vec::new();
            for client in 0..6 {
                let (endpoint, acknowledged, killed) = (&endpoint, &acknowledged, &killed);
                pushing.push(scope.spawn(move || {
                    for number in 0.. {
                        let name = format!("{client}/{round}-{number}");
                        let mut bytes = pseudo_random(sizes[(client + number) % sizes.len()]);
                        bytes[0] = name.len() as u8 ^ number as u8;
                        if killed.load(Ordering::SeqCst) {
                            return;
                        }
                        // Killed with the server, so that nothing is tried again later.
                        let mut child = endpoint.mover(&["push", "-", &name]).stdin(&bytes).spawn_fed();
                        loop {
                            if let Some(status) = child.try_wait().unwrap() {
                                if status.success() {
                                    acknowledged.lock().unwrap().insert(name, blake3::hash(&bytes));
                                }
                                break;
                            }
                            if killed.load(Ordering::SeqCst) {
                                child.kill().unwrap();
                                child.wait().unwrap();
                                return;
                            }
                            thread::sleep(Duration::from_millis(2));
                        }
                    }
                }));
            }
            thread::sleep(Duration::from_millis(random.random_range(200..900)));
            endpoint.kill();
            killed.store(true, Ordering::SeqCst);
        });
        endpoint.start_again();
        assert_eq!(endpoint.unfinished(), 0, "round {round}: uploads of before the restart stay");
        let there = files(&endpoint.path("bucket"));
        for (name, hash) in acknowledged.lock().unwrap().iter() {
            assert!(there.get(name).is_some_and(|bytes| blake3::hash(bytes) == *hash), "round {round}: {name} is lost");
        }
        // The one that was not acknowledged may be there, but whole.
        for (name, bytes) in &there {
            assert!(sizes.contains(&bytes.len()), "round {round}: {name} has {} bytes", bytes.len());
            assert!(bytes[1..] == pseudo_random(bytes.len())[1..], "round {round}: {name}");
        }
    }
    let acknowledged = acknowledged.into_inner().unwrap();
    println!("{} objects were acknowledged", acknowledged.len());
    assert!(acknowledged.len() > rounds);
    let name = acknowledged.keys().next().unwrap();
    assert!(blake3::hash(&endpoint.mover(&["pull", name, "-"]).succeeds()) == acknowledged[name]);
}

#[test]
fn a_part_that_comes_too_late_changes_nothing() {
    let endpoint = Endpoint::start();
    let address = endpoint.address();
    let path = "/bucket/object";
    let ask = |method: &str, query: &str, body: &[u8]| {
        let headers = Signer::right().headers(address, method, path, query, body);
        send(address, method, &format!("{path}?{query}"), &headers, body)
    };
    let (status, begun) = ask("POST", "uploads=", b"");
    assert_eq!(status, 200, "{begun}");
    let id = begun.split_once("<UploadId>").unwrap().1.split_once('<').unwrap().0;
    let part = format!("partNumber=1&uploadId={id}");
    // The first try is stuck half way, so the client tries again, and that is what it completes.
    let (stuck, whole) = (vec![b'a'; 4 << 20], vec![b'b'; 4 << 20]);
    let headers = Signer::right().headers(address, "PUT", path, &part, &stuck);
    let mut late = Late::begin(address, &format!("{path}?{part}"), &headers, &stuck);
    let file = || {
        fs::read_dir(endpoint.path(".kbbackup-serve")).unwrap().flatten().any(|item| item.metadata().unwrap().len() > 0)
    };
    while !file() {
        thread::sleep(Duration::from_millis(5));
    }
    let (status, said) = ask("PUT", &part, &whole);
    assert_eq!(status, 200, "{said}");
    let (_, parts) = ask("GET", &format!("uploadId={id}"), b"");
    let tag = parts.split_once("<ETag>").unwrap().1.split_once('<').unwrap().0;
    let list = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{tag}</ETag></Part></CompleteMultipartUpload>"
    );
    let (status, said) = ask("POST", &format!("uploadId={id}"), list.as_bytes());
    assert_eq!(status, 200, "{said}");
    assert!(fs::read(endpoint.path("bucket/object")).unwrap() == whole);
    late.end();
    assert!(fs::read(endpoint.path("bucket/object")).unwrap() == whole, "the late part got into the object");
    assert_eq!(ask("PUT", &part, &whole).0, 404);
    endpoint.nothing_is_unfinished();
}

#[test]
fn a_full_disk_is_said_and_survived() {
    let Some(disk) = Disk::new(32) else { return };
    let endpoint = Endpoint::start_on(&disk.path().join("root"));
    endpoint.mover(&["push", "-", "before"]).stdin(b"before").succeeds();
    for size in [12 << 20, 60 << 20, 7 << 20] {
        let filling = (size == 7 << 20).then(|| disk.fill_but(1 << 20));
        let args = ["push", "-", "too-large"];
        let (code, _, stderr) = endpoint.mover(&args).stdin(&pseudo_random(size)).output();
        if size == 12 << 20 {
            assert_eq!(code, 0, "{stderr}");
            endpoint.mover(&["rm", "too-large"]).succeeds();
            continue;
        }
        assert_eq!(code, 1, "{stderr}");
        assert!(stderr.contains("InsufficientStorage: no space left on device"), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        endpoint.nothing_is_unfinished();
        if let Some(filling) = filling {
            fs::remove_file(filling).unwrap();
        }
        assert_eq!(endpoint.mover(&["list", "/"]).succeeds_with_text(), "before\n");
    }
    endpoint.mover(&["push", "-", "after"]).stdin(&pseudo_random(9 << 20)).succeeds();
    assert_eq!(endpoint.mover(&["pull", "before", "-"]).succeeds(), b"before");
}
