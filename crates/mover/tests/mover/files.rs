//! What file systems do: full, read-only, forbidden, vanishing; odd names; nothing to read. Each with its words and exit code,
//! and whatever was there before stays.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::disk::Disk;
use crate::common::{BIN, Endpoint, Run, not_tried, pseudo_random};

fn mover(root: &Path, args: &[&str]) -> Run {
    Run::new(args).env("DATASAFED_LOCAL_BACKEND_PATH", root)
}

/// All names below a directory.
fn names(dir: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(next) = waiting.pop() {
        for item in fs::read_dir(next).unwrap().flatten() {
            names.push(item.path().strip_prefix(dir).unwrap().to_string_lossy().into_owned());
            if item.file_type().unwrap().is_dir() {
                waiting.push(item.path());
            }
        }
    }
    names.sort();
    names
}

#[test]
fn a_full_disk_keeps_what_was_there() {
    let Some(disk) = Disk::new(16) else { return };
    let root = disk.path();
    let run = |args: &[&str]| mover(root, args);
    let old = pseudo_random(3 << 20);
    run(&["push", "-", "dir/object"]).stdin(&old).succeeds();
    let at = |name: &str| root.join(name).display().to_string();
    // In the middle, and with the last bytes.
    for (size, flags) in [(30 << 20, &[][..]), (14 << 20, &[]), (30 << 20, &["-z", "zstd"])] {
        let args = [&["push"], flags, &["-", "dir/object"]].concat();
        let said = run(&args).stdin(&pseudo_random(size)).fails();
        assert_eq!(said, format!("Error: push to \"dir/object\": write {}: no space left on device", at("dir/object")));
        assert!(run(&["pull", "dir/object", "-"]).succeeds() == old);
        assert_eq!(names(root), ["dir", "dir/object"]);
    }
    // A pull onto it is no better; the object is not touched.
    let filling = disk.fill_but(1 << 20);
    let said = run(&["pull", "dir/object", &at("copy")]).fails();
    assert_eq!(said, format!("Error: pull \"dir/object\": write {}: no space left on device", at("copy")));
    fs::remove_file(at("copy")).unwrap();
    // Not even a name fits.
    let said = run(&["push", "-", "dir/object"]).stdin(&pseudo_random(2 << 20)).fails();
    assert!(said.ends_with("no space left on device"), "{said}");
    run(&["rm", "dir/object"]).succeeds();
    run(&["push", "-", "dir/object"]).stdin(&old).succeeds();
    fs::remove_file(filling).unwrap();
    assert_eq!(names(root), ["dir", "dir/object"]);
}

#[test]
fn a_read_only_disk_is_named_and_can_be_read() {
    let Some(disk) = Disk::new(16) else { return };
    let root = disk.path();
    let run = |args: &[&str]| mover(root, args);
    run(&["push", "-", "dir/object"]).stdin(b"old").succeeds();
    disk.remount("ro");
    for (args, said) in [
        (&["push", "-", "dir/object"][..], "push to \"dir/object\": open {}/dir/object: read-only file system"),
        (&["push", "-", "new/object"], "push to \"new/object\": mkdir {}/new: read-only file system"),
        (&["rm", "dir/object"], "remove {}/dir/object: read-only file system"),
        (&["rm", "-r", "dir"], "failed to remove directories: remove {}/dir: read-only file system"),
        (&["mkdir", "new"], "mkdir {}/new: read-only file system"),
        (&["rmdir", "dir"], "remove {}/dir: read-only file system"),
    ] {
        let said = said.replace("{}", &root.display().to_string());
        assert_eq!(run(args).stdin(b"new").fails(), format!("Error: {said}"));
    }
    assert_eq!(run(&["pull", "dir/object", "-"]).succeeds(), b"old");
    assert_eq!(run(&["list", "-r", "/"]).succeeds_with_text(), "dir/\ndir/object\n");
    disk.remount("rw");
    run(&["push", "-", "dir/object"]).stdin(b"new").succeeds();
}

#[test]
fn what_is_forbidden_is_named() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    for dir in ["locked", "hidden", "open"] {
        fs::create_dir(path(dir)).unwrap();
        fs::write(path(dir).join("object"), "old").unwrap();
    }
    fs::write(path("secret"), "old").unwrap();
    let mode = |name: &str, mode: u32| fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
    for (name, bits) in [("", 0o755), ("open", 0o777), ("locked", 0o555), ("hidden", 0o000), ("secret", 0o000)] {
        mode(name, bits);
    }
    // The superuser may do everything, so it becomes nobody.
    let as_nobody = |args: &[&str]| {
        let output = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", BIN])
            .args(args)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("DATASAFED_LOCAL_BACKEND_PATH", root.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
        )
    };
    let (code, version) = as_nobody(&["version"]);
    if code != Some(0) {
        not_tried(&format!("another user cannot run the mover ({version})"));
        return;
    }
    for (args, said) in [
        (&["push", "-", "locked/new"][..], "push to \"locked/new\": open {}/locked/new: permission denied"),
        (&["push", "-", "locked/object"], "push to \"locked/object\": open {}/locked/object: permission denied"),
        (&["push", "-", "hidden/object"], "push to \"hidden/object\": open {}/hidden/object: permission denied"),
        (&["pull", "secret", "-"], "pull \"secret\": open {}/secret: permission denied"),
        (&["pull", "hidden/object", "-"], "pull \"hidden/object\": lstat {}/hidden/object: permission denied"),
        (&["rm", "locked/object"], "remove {}/locked/object: permission denied"),
        (&["rm", "-r", "locked"], "failed to remove directories: remove {}/locked: permission denied"),
        (&["mkdir", "locked/dir"], "mkdir {}/locked/dir: permission denied"),
    ] {
        let said = said.replace("{}", &root.path().display().to_string());
        assert_eq!(as_nobody(args), (Some(1), format!("Error: {said}\n")), "{args:?}");
    }
    let (code, listed) = as_nobody(&["list", "-r", "-f", "/"]);
    assert_eq!(code, Some(0), "{listed}");
    assert!(listed.starts_with("secret\nlocked/object\nopen/object\n") && listed.contains("hidden"), "{listed}");
    assert_eq!(as_nobody(&["push", "-", "open/object"]).0, Some(0));
    for (name, bits) in [("hidden", 0o755), ("locked", 0o755), ("secret", 0o644)] {
        mode(name, bits);
    }
    for name in ["locked/object", "hidden/object", "secret"] {
        assert_eq!(fs::read(path(name)).unwrap(), b"old", "{name}");
    }
    assert_eq!(names(&path("locked")), ["object"]);
}

#[test]
fn a_directory_that_vanishes_takes_the_push_with_it() {
    let root = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| mover(root.path(), args);
    let pushing = run(&["push", "-", "dir/object"]).stdin(&pseudo_random(4 << 20)).spawn_most();
    pushing.has_begun(|| root.path().join("dir").exists() && !names(&root.path().join("dir")).is_empty());
    run(&["rm", "-r", "dir"]).succeeds();
    pushing.fails();
    assert_eq!(names(root.path()), Vec::<String>::new());
    run(&["push", "-", "dir/object"]).stdin(b"next").succeeds();
    assert_eq!(run(&["pull", "dir/object", "-"]).succeeds(), b"next");
}

#[test]
fn nothing_to_read_is_an_empty_object() {
    let root = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::start();
    let secret = [("DATASAFED_ENCRYPTION_ALGORITHM", "age"), ("DATASAFED_ENCRYPTION_PASS_PHRASE", "pass")];
    for flags in [&[][..], &["zstd"], &["lz4"], &["gzip"], &["s2-default"]] {
        for envs in [&[][..], &secret] {
            for local in [true, false] {
                let run =
                    |args: &[&str]| if local { mover(root.path(), args) } else { endpoint.mover(args) }.envs(envs);
                let push = flags.iter().flat_map(|name| ["-z", name]).collect::<Vec<_>>();
                let pull = flags.iter().flat_map(|name| ["-d", name]).collect::<Vec<_>>();
                run(&[&["push"], &push[..], &["-", "empty"]].concat()).succeeds();
                assert_eq!(run(&[&["pull"], &pull[..], &["empty", "-"]].concat()).succeeds(), b"", "{flags:?}");
            }
        }
    }
    // A directory is no stream; a closed input is an empty one.
    let said = mover(root.path(), &["push", root.path().to_str().unwrap(), "x"]).fails();
    assert!(said.ends_with(": is a directory"), "{said}");
    let closed = Command::new("bash")
        .args(["-c", "exec \"$0\" push - x <&-", BIN])
        .env("DATASAFED_LOCAL_BACKEND_PATH", root.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&closed.stderr);
    assert_eq!(closed.status.code(), Some(0), "{said}");
    assert_eq!(fs::read(root.path().join("x")).unwrap(), b"");
}

#[test]
fn odd_names_come_back_as_they_are() {
    let root = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::start();
    let longest = "l".repeat(250);
    let odd = [
        "with space",
        "quote'\"`$(x)",
        "%41%2F",
        "a+b&c=d?e#f",
        "star*[x]",
        "-dash",
        "uml\u{e4}ut\u{2028}x",
        "\u{1f600}",
        "tab\tand\nline",
        "back\\slash",
        " before",
        "dot.",
        "...",
        &longest,
    ];
    for local in [true, false] {
        let run = |args: &[&str]| if local { mover(root.path(), args) } else { endpoint.mover(args) };
        for (number, name) in odd.iter().enumerate() {
            let path = format!("odd/{name}");
            let bytes = number.to_string();
            run(&["push", "-", "--", &path]).stdin(bytes.as_bytes()).succeeds();
            assert_eq!(run(&["pull", "--", &path, "-"]).succeeds_with_text(), bytes, "{name:?}");
            assert_eq!(run(&["list", "--", &path]).succeeds_with_text(), format!("{path}\n"), "{name:?}");
        }
        let listed = run(&["list", "-o", "json", "odd"]).succeeds();
        let listed: Vec<serde_json::Value> = serde_json::from_slice(&listed).unwrap();
        let mut listed: Vec<&str> = listed.iter().map(|entry| entry["path"].as_str().unwrap()).collect();
        let mut all: Vec<String> = odd.iter().map(|name| format!("odd/{name}")).collect();
        listed.sort_unstable();
        all.sort();
        assert_eq!(listed, all);
        for name in &odd {
            run(&["rm", "--", &format!("odd/{name}")]).succeeds();
        }
        assert_eq!(run(&["list", "-r", "-f", "/"]).succeeds_with_text(), "");
        if local {
            run(&["push", "-", "odd/after "]).stdin(b"x").succeeds();
        } else {
            run(&["push", "-", "odd/after"]).stdin(b"other").succeeds();
            let said = run(&["push", "-", "odd/after "]).stdin(b"x").fails();
            assert!(said.ends_with("names that begin or end with white space cannot be stored here"), "{said}");
            assert!(run(&["pull", "odd/after ", "-"]).fails().ends_with("object not found"));
            run(&["rm", "odd/after "]).succeeds();
            assert_eq!(run(&["pull", "odd/after", "-"]).succeeds(), b"other");
        }
        let said = run(&["push", "-", &format!("odd/{}", "l".repeat(256))]).stdin(b"x").fails();
        assert!(said.ends_with("file name too long") || said.contains("KeyTooLong"), "{said}");
    }
}
