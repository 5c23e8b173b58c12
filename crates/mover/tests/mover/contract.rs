//! What scripts in the field rely on and no recorded command line shows: silence, the order of checks, flags, modes of
//! files, links, the idioms of add-ons, and each difference that is on purpose.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use crate::common::{BIN, Run};
use rstest::rstest;
use serde_json::Value;
use tempfile::TempDir;

/// A back end on a directory, and a working directory beside it.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        for name in ["b", "w", "home", "tmp"] {
            fs::create_dir(place.path(name)).unwrap();
        }
        place
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, args: &[&str]) -> Run {
        Run::new(args)
            .env("DATASAFED_LOCAL_BACKEND_PATH", self.path("b"))
            .env("HOME", self.path("home"))
            .env("TMPDIR", self.path("tmp"))
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        let path = self.path("b").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Runs a line of shell as add-ons write them, with the mover on the path. Gives exit code and output.
    fn shell(&self, line: &str) -> (i32, String) {
        let bin = self.path("bin");
        if !bin.exists() {
            fs::create_dir(&bin).unwrap();
            std::os::unix::fs::symlink(BIN, bin.join("datasafed")).unwrap();
        }
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let output = Command::new("bash")
            .args(["-c", line])
            .env_clear()
            .env("PATH", path)
            .env("TZ", "UTC")
            .env("DATASAFED_LOCAL_BACKEND_PATH", self.path("b"))
            .current_dir(self.path("w"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        (output.status.code().unwrap_or(-1), String::from_utf8(output.stdout).unwrap())
    }
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).unwrap().next().is_none()
}

#[test]
fn commands_that_succeed_say_nothing_and_leave_nothing_elsewhere() {
    let place = Place::new();
    place.put("old/file", b"x");
    for args in [
        &["mkdir", "new/dir"][..],
        &["push", "-", "new/dir/a"],
        &["push", "-z", "zstd-fastest", "-", "new/b.zst"],
        &["pull", "new/dir/a", place.path("w").join("deep/er/a").to_str().unwrap()],
        &["rm", "new/b.zst"],
        &["rm", "missing"],
        &["rm", "old", "-r"],
        &["rmdir", "missing"],
    ] {
        let (code, out, err) = place.run(args).stdin(b"data").output();
        assert_eq!((code, out.as_slice(), err.as_str()), (0, &b""[..], ""), "{args:?}");
    }
    place.run(&["version"]).succeeds();
    assert!(is_empty(&place.path("home")) && is_empty(&place.path("tmp")));
}

#[test]
fn mistakes_are_found_in_the_contracts_order() {
    let missing = "/nonexistent/datasafed.conf";
    let dir = tempfile::tempdir().unwrap();
    let bad_type = dir.path().join("type.conf");
    fs::write(&bad_type, "[storage]\ntype = nosuch\n").unwrap();
    let local = dir.path().join("local.conf");
    fs::write(&local, format!("[storage]\ntype = local\nroot = {}\n", dir.path().display())).unwrap();
    let (bad_type, local) = (bad_type.to_str().unwrap(), local.to_str().unwrap());
    // Each line has this mistake and all those below it.
    for (args, env, text) in [
        (&["list", "-c", missing, "-d", "-f", "--nosuch"][..], "x", "unknown flag: --nosuch"),
        (&["list", "-c", missing, "-d", "-f", "-o", "xml"], "x", "invalid argument \"xml\" for"),
        (&["list", "-c", missing, "-d", "-f"], "x", "accepts 1 arg(s), received 0"),
        (&["list", "-c", missing, "-d", "-f", "../x"], "x", "open /nonexistent/datasafed.conf: no such file"),
        (&["list", "-c", bad_type, "-d", "-f", "../x"], "", "didn't find backend called \"nosuch\""),
        (&["list", "-c", local, "-d", "-f", "../x"], "x", "unknown encryption algorithm: X"),
        (&["list", "-c", local, "-d", "-f", "../x"], "", "if any flags in the group [dirs-only files-only]"),
        (&["list", "-c", local, "-d", "../x"], "", "invalid path: invalid rpath \"../x\""),
    ] {
        let mut run = Run::new(args);
        if !env.is_empty() {
            run = run.env("DATASAFED_ENCRYPTION_ALGORITHM", env).env("DATASAFED_ENCRYPTION_PASS_PHRASE", "pw");
        }
        let (code, out, err) = run.output();
        assert_eq!((code, out.as_slice()), (1, &b""[..]), "{args:?}");
        // One line, and no usage behind it.
        assert!(err.starts_with(&format!("Error: {text}")) && err.lines().count() == 1, "{args:?}: {err}");
    }
}

#[test]
fn every_global_flag_of_the_contract_is_accepted_on_every_command() {
    let place = Place::new();
    for flags in [
        "--console-log",
        "--console-timestamps=false",
        "--log-level debug",
        "--log-level=warning",
        "--log-dir LOGS",
        "--log-file LOGS/x",
        "--file-log-level error",
        "--file-log-local-tz",
        "--json-log-console",
        "--json-log-file",
        "--force-color",
        "--disable-color=T",
        "--log-dir-max-files 5",
        "--log-dir-max-age 720h",
        "--log-dir-max-total-size-mb 10.5",
        "--max-log-file-segment-size 1000",
    ] {
        let logs = place.path("logs");
        let flags: Vec<String> = flags.split(' ').map(|flag| flag.replace("LOGS", logs.to_str().unwrap())).collect();
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        for (before, after) in [(&flags[..], &[][..]), (&[], &flags)] {
            let args = [before, &["list", "/"], after].concat();
            let (code, out, err) = place.run(&args).output();
            assert_eq!((code, out.as_slice(), err.as_str()), (0, &b""[..], ""), "{args:?}");
        }
        assert!(!logs.exists(), "no logs are kept");
    }
    for (flag, text) in [
        ("--log-level=loud", "invalid argument \"loud\" for \"--log-level\" flag: loud is not included in debug,"),
        ("--console-log=maybe", "invalid argument \"maybe\" for \"--console-log\" flag: strconv.ParseBool"),
        ("--log-dir-max-files=x", "invalid argument \"x\" for \"--log-dir-max-files\" flag"),
    ] {
        let error = place.run(&["list", "/", flag]).fails();
        assert!(error.starts_with(&format!("Error: {text}")), "{error}");
    }
}

#[test]
fn help_version_and_completion_need_no_configuration() {
    let run = |args: &[&str]| Run::new(args).succeeds_with_text();
    for args in [&[][..], &["--help"], &["-h"], &["help"], &["push", "--help"], &["help", "list"]] {
        assert!(run(args).contains("Usage:\n  datasafed"), "{args:?}");
    }
    let version = run(&["version", "-v"]);
    let lines: Vec<&str> = version.lines().collect();
    assert!(lines[0].starts_with("datasafed: "), "{version}");
    for (line, name) in lines[1..].iter().zip(["BuildDate", "GitCommit", "GitTag", "GoVersion", "Compiler", "Platform"])
    {
        assert!(line.starts_with(&format!("  {name}: ")), "{version}");
    }
    assert_eq!(lines.len(), 7);
    assert!(lines[6].ends_with(&format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH)));
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let script = run(&["completion", shell]);
        assert!(script.contains("datasafed") && script.contains("rmdir"), "{shell}: {script}");
    }
    // bash itself takes its script, and proposes what begins like the word.
    let script = run(&["completion", "bash"]);
    let ask = |words: &str, at: u32| {
        let line = format!("{script}\nCOMP_WORDS=({words}); COMP_CWORD={at}; _datasafed; echo ${{COMPREPLY[@]}}");
        let output = Command::new("bash").args(["-c", &line]).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(ask("datasafed pu", 1), "push pull\n");
    assert_eq!(ask("datasafed list --rec", 2), "--recursive\n");
    assert!(Run::new(&["completion", "ksh"]).fails().contains("bash, zsh, fish, powershell"));
}

/// The idioms of the add-ons, one row each: what is asked, and what comes out. The files are those of the recorded runs.
#[rstest]
#[case::sizes("datasafed stat / | grep TotalSize | awk '{print $2}'", 0, "20\n")]
#[case::size_of_nothing("X=$(datasafed stat /nope | grep TotalSize | awk '{print $2}'); echo \"[$X]\"", 0, "[]\n")]
#[case::exists("[ \"$(datasafed list d/g.txt)\" == \"d/g.txt\" ]; echo $?", 0, "0\n")]
#[case::exists_not("[ \"$(datasafed list d/nope)\" == \"d/nope\" ]; echo $?", 0, "1\n")]
#[case::is_empty("[ -z \"$(datasafed list em)\" ]; echo $?", 0, "0\n")]
#[case::newest_name("datasafed list / | sort -Vr | head -1", 0, "em/\n")]
#[case::directories("datasafed list -d /", 0, "d/\nem/\n")]
#[case::oldest("datasafed list -f -s mtime / | head -n 1", 0, "a.txt\n")]
#[case::newest("datasafed list -f -s mtime / | tail -n 1", 0, "b.log\n")]
#[case::recursive_by_time("datasafed list -f / --recursive -s mtime | tail -n 1", 0, "d/e/f.txt\n")]
#[case::each_line_is_json("datasafed list -f -r / -o json | wc -l", 0, "1\n")]
#[case::purge(
    "datasafed list -f --recursive --older-than 1700000100 / | while read -r f; do datasafed rm \"$f\" || exit 1; done; \
     datasafed list -f -r / | sort",
    0,
    "b.log\nd/e/f.txt\n"
)]
#[case::pipe(
    "set -o pipefail; printf data | datasafed push -z zstd-fastest - x.zst && datasafed pull -d zstd-fastest x.zst - | cat",
    0,
    "data"
)]
#[case::dead_producer("set -o pipefail; (printf part; exit 3) | datasafed push -z zstd - x; echo $?", 0, "3\n")]
#[case::missing("if ! datasafed pull nope - 2>/dev/null; then echo absent; fi", 0, "absent\n")]
#[case::gunzip("printf data | datasafed push -z gzip - x.gz; datasafed pull x.gz - | gunzip", 0, "data")]
#[case::tar(
    "mkdir t; echo hi > t/f; tar -cf - t | datasafed push -z gzip - t.tgz; rm -r t; datasafed pull t.tgz - | tar -xzf - && cat t/f",
    0,
    "hi\n"
)]
#[case::into_the_working_directory("datasafed pull a.txt a.txt && cat a.txt", 0, "hello")]
#[case::mkdir_again("datasafed mkdir /d 2>/dev/null || true; datasafed mkdir /d; echo $?", 0, "0\n")]
#[case::flag_behind("datasafed rm d -r; datasafed list -r -f /", 0, "a.txt\nb.log\n")]
#[case::pre_check(
    "set -ex; echo pre-check | datasafed push - p/precheck.txt; datasafed pull p/precheck.txt -; datasafed rm p/precheck.txt",
    0,
    "pre-check\n"
)]
#[case::removal(
    "curr=/d/e; datasafed rm -r $curr; while [ \"$curr\" != / ]; do curr=$(dirname $curr); [ \"$curr\" = / ] && break; \
     r=$(datasafed list $curr); if [ -z \"$r\" ]; then datasafed rmdir $curr; else break; fi; done; datasafed list -r /",
    0,
    "a.txt\nb.log\nd/\nem/\nd/g.txt\n"
)]
fn idioms_of_add_ons(#[case] line: &str, #[case] code: i32, #[case] out: &str) {
    let place = Place::new();
    let data: Value = serde_json::from_slice(
        &fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/vectors.json")).unwrap(),
    )
    .unwrap();
    let vectors = data["vectors"].as_array().unwrap();
    let setup = &vectors.iter().find(|vector| vector["id"] == "list-root").unwrap()["setup"];
    for item in setup.as_array().unwrap() {
        let name = item["path"].as_str().unwrap();
        match item["text"].as_str() {
            Some(text) => place.put(name, text.as_bytes()),
            None => fs::create_dir_all(place.path("b").join(name)).unwrap(),
        }
        if let Some(mtime) = item["mtime"].as_f64() {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs_f64(mtime);
            fs::File::open(place.path("b").join(name)).unwrap().set_modified(time).unwrap();
        }
    }
    assert_eq!(place.shell(line), (code, out.to_owned()), "{line}");
}

#[test]
fn files_have_the_contracts_modes_and_times() {
    let place = Place::new();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let shell = |line: &str| assert_eq!(place.shell(line).0, 0, "{line}");
    shell("umask 0; printf x | datasafed push - d/e/x && datasafed pull d/e/x sub/dir/x");
    let (stored, local) = (place.path("b").join("d"), place.path("w").join("sub"));
    assert_eq!([mode(&stored), mode(&stored.join("e")), mode(&stored.join("e/x"))], [0o777, 0o777, 0o666]);
    assert_eq!([mode(&local), mode(&local.join("dir")), mode(&local.join("dir/x"))], [0o755, 0o755, 0o644]);
    // What exists keeps its mode, on both sides.
    for path in [stored.join("e/x"), local.join("dir/x")] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o640)).unwrap();
    }
    shell("printf longer | datasafed push - d/e/x && datasafed pull d/e/x sub/dir/x");
    assert_eq!([mode(&stored.join("e/x")), mode(&local.join("dir/x"))], [0o640; 2]);
    assert_eq!(fs::read(local.join("dir/x")).unwrap(), b"longer");

    // An object's time is when its push began, however long it took.
    let before = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64;
    shell("(sleep 3.5; printf x) | datasafed push - slow");
    let time = fs::metadata(place.path("b").join("slow")).unwrap().mtime();
    let end = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64;
    assert!(time >= before && end - time >= 2, "began {before}, noted {time}, ended {end}");
}

#[test]
fn links_pipes_and_odd_names_are_what_the_contract_says() {
    let place = Place::new();
    let (b, w) = (place.path("b"), place.path("w"));
    let link = |to: &Path, name: &str| std::os::unix::fs::symlink(to, b.join(name)).unwrap();
    fs::create_dir(w.join("target")).unwrap();
    fs::write(w.join("target/inside"), "x").unwrap();
    fs::write(w.join("file"), "old").unwrap();
    link(&w.join("target"), "dir-link");
    link(&w.join("file"), "file-link");
    link(&w.join("nowhere"), "broken");
    assert!(Command::new("mkfifo").arg(b.join("pipe")).status().unwrap().success());
    let (code, out, err) = place.run(&["list", "/"]).output();
    assert_eq!((code, String::from_utf8(out).unwrap().as_str()), (0, "dir-link/\nfile-link\n"));
    assert!(err.contains("broken") && err.contains("pipe") && !err.contains("Error: "), "{err}");
    // A push writes the link's target, and `rm -r` of a link empties it.
    place.run(&["push", "-", "file-link"]).stdin(b"new").succeeds();
    assert_eq!(fs::read(w.join("file")).unwrap(), b"new");
    assert!(fs::symlink_metadata(b.join("file-link")).unwrap().is_symlink());
    place.run(&["rm", "-r", "dir-link"]).succeeds();
    assert!(is_empty(&w.join("target")) && fs::symlink_metadata(b.join("dir-link")).is_err());

    for name in
        ["ünïcödé 密码", "a b", "per%20cent", "q?x&y=z", "#hash;semi", "quo\"te'", "back\\slash", "-dash", "..dots"]
    {
        place.run(&["push", "--", "-", name]).stdin(name.as_bytes()).succeeds();
        assert_eq!(place.run(&["list", "--", name]).succeeds_with_text(), format!("{name}\n"));
        assert_eq!(place.run(&["pull", "--", name, "-"]).succeeds(), name.as_bytes());
        place.run(&["rm", "--", name]).succeeds();
        assert!(!b.join(name).exists());
    }
}

/// `DATASAFED_KOPIA_REPO_ROOT` has its own kind of repository behind it: nothing may be read or written as if it were ours.
#[rstest]
fn a_kopia_repository_is_refused_by_every_command_with_the_reason(
    #[values("push - x", "pull x -", "list /", "stat /", "rm x", "rmdir x", "mkdir x", "getconf storage.root")]
    line: &str,
    #[values("repo", " repo ", "/", "..")] root: &str,
) {
    let place = Place::new();
    let args: Vec<&str> = line.split(' ').collect();
    let error = place.run(&args).env("DATASAFED_KOPIA_REPO_ROOT", root).stdin(b"x").fails();
    for part in ["DATASAFED_KOPIA_REPO_ROOT", "not supported", "manifest", "deduplicat", "useKopia"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(is_empty(&place.path("b")), "nothing is written");
    // Without a root the other variables mean nothing, as in the contract's deletion Job.
    place
        .run(&["list", "/"])
        .env("DATASAFED_KOPIA_REPO_ROOT", " ")
        .env("DATASAFED_KOPIA_MAINTENANCE", "true")
        .env("DATASAFED_KOPIA_PASSWORD", "pw")
        .succeeds();
}

#[test]
fn variables_of_rclone_have_no_effect() {
    let place = Place::new();
    place.put("d/e/f", b"x");
    std::os::unix::fs::symlink(place.path("w"), place.path("b").join("link")).unwrap();
    let plain = place.run(&["list", "-r", "/"]).succeeds();
    let odd = place
        .run(&["list", "-r", "/"])
        .env("RCLONE_MAX_DEPTH", "1")
        .env("RCLONE_LOG_LEVEL", "DEBUG")
        .env("RCLONE_COPY_LINKS", "false")
        .output();
    assert_eq!(odd, (0, plain, String::new()));
}
