//! No amount of data and no number of objects needs more than 128 MiB.

use std::fs::{self, File};
use std::thread;
use std::time::Duration;

use crate::common::lister::Lister;
use crate::common::memory::Caged;
use crate::common::{BIN, Endpoint, soak};

const MIB: u64 = 1 << 20;

/// A configuration file for an endpoint at this address.
fn conf(dir: &tempfile::TempDir, address: &str) -> String {
    let path = dir.path().join("conf");
    let text = format!(
        "[storage]\ntype = s3\nprovider = Other\nendpoint = http://{address}\nroot = bucket\n\
         access_key_id = TESTKEYOFOURTESTS\nsecret_access_key = test-secret\n"
    );
    fs::write(&path, text).unwrap();
    format!("-c {}", path.display())
}

/// How many entries are listed, and what that may take: fewer of them in a smaller cage.
fn many() -> (usize, u64) {
    if soak() { (1_000_000, 128 * MIB) } else { (100_000, 48 * MIB) }
}

#[test]
fn a_tebibyte_without_content_can_be_cut_short() {
    let dir = tempfile::tempdir().unwrap();
    let sparse = dir.path().join("sparse");
    File::create(&sparse).unwrap().set_len(1 << 40).unwrap();
    let endpoint = Endpoint::start();
    let conf = conf(&dir, endpoint.address());
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    let local = [("DATASAFED_LOCAL_BACKEND_PATH", root.to_str().unwrap())];
    let time = Duration::from_secs(if soak() { 120 } else { 4 });
    thread::scope(|scope| {
        for (name, conf, env) in [("local", "", &local[..]), ("s3", conf.as_str(), &[])] {
            let sparse = &sparse;
            scope.spawn(move || {
                let push = format!("{BIN} {conf} push -z zstd {} dir/object", sparse.display());
                let caged = Caged::start(&push, env, 128 * MIB);
                thread::sleep(time);
                caged.terminate();
                let (ended, peak) = caged.end();
                println!("1 TiB cut short, {name}: {peak} KiB");
                assert_eq!(ended.code(), Some(143), "{name}: {ended}");
            });
        }
    });
    endpoint.nothing_is_unfinished();
    assert!(!endpoint.path("bucket/dir").exists());
    assert_eq!(fs::read_dir(root.join("dir")).unwrap().count(), 0);
}

#[test]
fn zeros_without_end_go_there_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::start();
    let conf = conf(&dir, endpoint.address());
    // Compressed they are little; as they are, they go in parts.
    for (flag, back, gib) in [("-z zstd", "-d zstd", if soak() { 100 } else { 2 }), ("", "", 1)] {
        let push = format!("{BIN} {conf} push {flag} - x < <(head -c {gib}G /dev/zero)");
        let pushed = Caged::start(&push, &[], 128 * MIB).succeeds();
        let pulled = Caged::start(&format!("{BIN} {conf} pull {back} x -"), &[], 128 * MIB).succeeds();
        println!("{gib} GiB {flag}: push {pushed} KiB, pull {pulled} KiB");
    }
}

#[test]
fn a_directory_of_very_many_files_is_listed() {
    let (number, limit) = many();
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("dir")).unwrap();
    for file in 0..number {
        File::create(dir.path().join(format!("dir/{file:010}-{}", "x".repeat(49)))).unwrap();
    }
    let env = [("DATASAFED_LOCAL_BACKEND_PATH", dir.path().to_str().unwrap())];
    for command in ["list dir", "list -o json -s size --reverse dir", "list -r /", "stat /", "rm -r dir"] {
        let peak = Caged::start(&format!("{BIN} {command}"), &env, limit).succeeds();
        println!("{number} files, {command}: {peak} KiB");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_bucket_of_very_many_objects_is_listed() {
    let (number, limit) = many();
    for own_directories in [false, true] {
        let lister = Lister::start(number, own_directories);
        let dir = tempfile::tempdir().unwrap();
        let conf = conf(&dir, &lister.address);
        let of_directories = ["list -d dir", "list -r /"];
        let of_files = ["list -o json -s mtime --reverse dir", "rm -r dir"];
        for command in if own_directories { &of_directories[..] } else { &of_files } {
            let peak = Caged::start(&format!("{BIN} {conf} {command}"), &[], limit).succeeds();
            println!("{number} objects, own directories {own_directories}, {command}: {peak} KiB");
        }
        assert_eq!(lister.deleted(), if own_directories { 0 } else { number });
    }
}
