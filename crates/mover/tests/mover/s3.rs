//! The mover against its own S3 endpoint, as a process, over TCP.

use crate::common::{Endpoint, pseudo_random};

#[test]
fn objects_of_all_sizes_come_back() {
    let endpoint = Endpoint::start();
    for size in [0, 1, 1 << 20, (8 << 20) - 1, 8 << 20, (8 << 20) + 1, 70 << 20] {
        let bytes = pseudo_random(size);
        let name = format!("dir/{size}");
        endpoint.mover(&["push", "-", &name]).stdin(&bytes).succeeds();
        let back = endpoint.mover(&["pull", &name, "-"]).succeeds();
        assert!(back == bytes, "{size}");
    }
    let listed = endpoint.mover(&["list", "-f", "dir"]).succeeds_with_text();
    assert_eq!(listed.lines().count(), 7, "{listed}");
    assert!(listed.contains("dir/8388609\n"));
    let stat = endpoint.mover(&["stat", "/"]).succeeds_with_text();
    assert!(stat.contains("Files: 7\n") && stat.contains("Dirs: 1\n"), "{stat}");
}

#[test]
fn a_missing_prefix_is_empty_and_a_missing_object_an_error() {
    let endpoint = Endpoint::start();
    assert_eq!(endpoint.mover(&["list", "nope"]).succeeds_with_text(), "");
    assert_eq!(endpoint.mover(&["list", "-o", "json", "nope"]).succeeds_with_text(), "[]\n");
    assert_eq!(endpoint.mover(&["stat", "nope"]).succeeds_with_text(), "TotalSize: 0\nEntries: 0\nDirs: 0\nFiles: 0\n");
    assert_eq!(endpoint.mover(&["pull", "nope", "-"]).fails(), "Error: pull \"nope\": object not found");
    endpoint.mover(&["rm", "nope"]).succeeds();
    endpoint.mover(&["rm", "-r", "nope"]).succeeds();
    endpoint.mover(&["rmdir", "nope"]).succeeds();
    endpoint.mover(&["mkdir", "nope"]).succeeds();
}

#[test]
fn removing_a_tree_removes_that_tree_only() {
    let endpoint = Endpoint::start();
    for name in ["a/b/c", "a/b/d", "a/bc", "a/b-"] {
        endpoint.mover(&["push", "-", name]).stdin(b"x").succeeds();
    }
    endpoint.mover(&["rm", "-r", "a/b"]).succeeds();
    assert_eq!(endpoint.mover(&["list", "-r", "-f", "/"]).succeeds_with_text(), "a/b-\na/bc\n");
}

#[test]
fn thousands_of_objects_are_listed_over_pages() {
    let endpoint = Endpoint::start();
    for number in 0..2500 {
        let path = endpoint.path(&format!("bucket/many/{number:05}"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"x").unwrap();
    }
    // Both ways to list, of which the second page is asked for differently.
    for version in ["1", "2"] {
        let listed = endpoint.with_conf("list_version", version).mover(&["list", "many"]).succeeds_with_text();
        assert_eq!(listed.lines().count(), 2500, "{version}");
        assert!(listed.lines().is_sorted(), "{version}");
    }
    endpoint.mover(&["rm", "-r", "many"]).succeeds();
    assert_eq!(endpoint.mover(&["list", "-r", "/"]).succeeds_with_text(), "");
}

#[test]
fn a_killed_push_leaves_no_object_and_the_next_one_succeeds() {
    let endpoint = Endpoint::start();
    for signal in ["TERM", "KILL"] {
        let mut child = endpoint.mover(&["push", "-", "big"]).spawn_and_feed(40 << 20);
        child.signal(signal);
        let status = child.wait();
        if signal == "TERM" {
            assert_eq!(status.code(), Some(143));
            endpoint.nothing_is_unfinished();
        }
        assert_eq!(endpoint.mover(&["list", "-r", "/"]).succeeds_with_text(), "");
    }
    endpoint.mover(&["push", "-", "big"]).stdin(b"whole").succeeds();
    assert_eq!(endpoint.mover(&["pull", "big", "-"]).succeeds(), b"whole");
}

#[test]
fn the_wrong_key_and_a_missing_bucket_are_named() {
    let endpoint = Endpoint::start();
    let error = endpoint.with_conf("secret_access_key", "wrong-secret").mover(&["check"]).fails();
    assert!(error.contains("SignatureDoesNotMatch"), "{error}");
    for (key, value, cause) in
        [("secret_access_key", "wrong-secret", "AccessDenied"), ("root", "no-such-bucket", "NoSuchBucket")]
    {
        let report = endpoint.with_conf(key, value).check_report();
        assert_eq!(report["cause"], cause, "{report}");
    }
    let report = endpoint.with_conf("endpoint", "http://127.0.0.1:1").check_report();
    assert_eq!(report["cause"], "Unreachable", "{report}");
    let report = endpoint.with_conf("endpoint", "http://no-such-host.invalid:1").check_report();
    assert!(["Dns", "Unreachable"].contains(&report["cause"].as_str().unwrap()), "{report}");
    assert_eq!(endpoint.check_report()["cause"], serde_json::Value::Null);
}
