//! What goes wrong in the field: deaths at any moment, full and read-only disks, a server that restarts, memory.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{BIN, Endpoint, Run, pseudo_random};

#[test]
fn nobody_sees_half_a_file_whenever_the_push_is_killed() {
    let root = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| Run::new(args).env("DATASAFED_LOCAL_BACKEND_PATH", root.path());
    let old = pseudo_random(1000);
    run(&["push", "-", "dir/object"]).stdin(&old).succeeds();
    for round in 0..20 {
        let mut child = run(&["push", "-", "dir/object"]).spawn_and_feed(1 << 20);
        std::thread::sleep(Duration::from_millis(round));
        child.signal("KILL");
        child.wait();
        assert!(fs::read(root.path().join("dir/object")).unwrap() == old);
    }
    assert_eq!(run(&["list", "-r", "/"]).succeeds_with_text(), "dir/\ndir/object\n");
    assert!(run(&["stat", "/"]).succeeds_with_text().contains("Files: 1\n"));
    run(&["rm", "dir/object"]).succeeds();
    // Leftovers of the dead do not keep a directory.
    run(&["rmdir", "dir"]).succeeds();
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
}

#[test]
fn a_directory_that_is_being_written_to_is_not_swept() {
    let root = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| Run::new(args).env("DATASAFED_LOCAL_BACKEND_PATH", root.path());
    let mut child = run(&["push", "-", "dir/object"]).spawn_and_feed(1 << 20);
    while !root.path().join("dir").exists() || fs::read_dir(root.path().join("dir")).unwrap().count() == 0 {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(run(&["rmdir", "dir"]).fails().contains("directory not empty"));
    child.signal("TERM");
    assert_eq!(child.wait().code(), Some(143));
    run(&["rmdir", "dir"]).succeeds();
}

#[test]
fn a_full_output_and_a_closed_one_are_told_apart() {
    let root = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| Run::new(args).env("DATASAFED_LOCAL_BACKEND_PATH", root.path());
    run(&["push", "-", "x"]).stdin(&pseudo_random(3 << 20)).succeeds();
    let pull = |out: Stdio| {
        Command::new(BIN)
            .args(["pull", "x", "-"])
            .env("DATASAFED_LOCAL_BACKEND_PATH", root.path())
            .stdout(out)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = pull(full.into()).wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "Error: pull \"x\": write /dev/stdout: no space left on device\n"
    );
    let mut child = pull(Stdio::piped());
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(141));
    assert!(output.stderr.is_empty());
}

#[test]
fn a_directory_without_rights_is_named() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("locked");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o555)).unwrap();
    let (code, _, stderr) =
        Run::new(&["push", "-", "locked/x"]).env("DATASAFED_LOCAL_BACKEND_PATH", root.path()).stdin(b"x").output();
    // The superuser may write everywhere.
    if code != 0 {
        assert_eq!(stderr, format!("Error: push to \"locked/x\": open {}/x: permission denied\n", dir.display()));
    }
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_server_that_is_killed_keeps_what_it_acknowledged() {
    let mut endpoint = Endpoint::start();
    for round in 0..5 {
        let name = format!("kept-{round}");
        let bytes = pseudo_random(100_000 + round);
        endpoint.mover(&["push", "-", &name]).stdin(&bytes).succeeds();
        let mut upload = endpoint.mover(&["push", "-", "half"]).spawn_and_feed(20 << 20);
        endpoint.restart();
        upload.signal("KILL");
        upload.wait();
        assert!(endpoint.mover(&["pull", &name, "-"]).succeeds() == bytes);
    }
    assert_eq!(endpoint.mover(&["list", "/"]).succeeds_with_text().lines().count(), 5);
    endpoint.nothing_is_unfinished();
}

#[test]
fn a_dead_endpoint_is_named_within_half_a_minute() {
    let endpoint = Endpoint::start();
    let client = endpoint.with_conf("endpoint", "http://127.0.0.1:1");
    for args in [&["list", "/"][..], &["stat", "x"], &["pull", "x", "-"], &["push", "-", "x"], &["rm", "x"]] {
        let began = Instant::now();
        client.mover(args).stdin(&vec![0; 9 << 20]).fails();
        assert!(began.elapsed() < Duration::from_secs(30), "{args:?} took {:?}", began.elapsed());
    }
}

/// Peak resident memory of a mover that is fed so many zero bytes, in KiB.
fn peak(run: &[&str], env: &[(&str, &str)], size: u64) -> u64 {
    let mut child = Command::new("bash")
        .arg("-c")
        .arg(format!(
            "head -c {size} /dev/zero | {{ \"$0\" \"$@\" & pid=$!; peak=0; while kill -0 $pid 2>/dev/null; do \
             now=$(awk '/VmHWM/{{print $2}}' /proc/$pid/status 2>/dev/null); [ -n \"$now\" ] && peak=$now; sleep 0.05; done; \
             wait $pid && echo $peak; }}"
        ))
        .arg(BIN)
        .args(run)
        .envs(env.iter().copied())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(child.stdout.as_mut().unwrap(), &mut text).unwrap();
    assert!(child.wait().unwrap().success());
    text.trim().parse().unwrap_or_else(|_| panic!("no figure: {text:?}"))
}

#[test]
fn memory_does_not_depend_on_the_size() {
    let root = tempfile::tempdir().unwrap();
    let env = [("DATASAFED_LOCAL_BACKEND_PATH", root.path().to_str().unwrap())];
    for compression in ["zstd", "zstd-best-compression", "pgzip", "lz4"] {
        let peak = peak(&["push", "-z", compression, "/dev/stdin", "x"], &env, 1 << 30);
        println!("{compression}: {peak} KiB");
        assert!(peak < 128 << 10, "{compression}: {peak} KiB");
    }
}
