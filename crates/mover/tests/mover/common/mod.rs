//! What the tests of the binary share: running it, an endpoint of its own, data.

pub(crate) mod servers;

pub(crate) mod action;
pub(crate) mod archive;
pub(crate) mod disk;
pub(crate) mod lender;
pub(crate) mod lister;
pub(crate) mod mariadb;
pub(crate) mod memory;
pub(crate) mod owner;
pub(crate) mod postgres;
pub(crate) mod proxy;
pub(crate) mod redis;
pub(crate) mod signed;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

pub(crate) mod programs;

use serde_json::Value;
use tempfile::TempDir;

pub(crate) const BIN: &str = env!("CARGO_BIN_EXE_datasafed");

/// Whether there is time for more than a look: `cargo xtask test --soak`.
pub(crate) fn soak() -> bool {
    std::env::var_os("KBBACKUP_SOAK").is_some()
}

/// Says that this machine cannot show something.
#[allow(clippy::print_stderr)] // A test has no other way to say so.
pub(crate) fn not_tried(why: &str) {
    eprintln!("not tried: {why} here");
}

/// Bytes that do not compress, the same each time.
pub(crate) fn pseudo_random(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

/// Waits until a process has set its handlers: a signal before that would end it without a word.
pub(crate) fn listens(process: u32) {
    const TERM: u64 = 1 << 14;
    for _ in 0..3000 {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let caught = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigCgt:")?.trim(), 16).ok());
        if caught.is_some_and(|caught| caught & TERM != 0) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("process {process} does not listen");
}

/// A run of the mover.
pub(crate) struct Run {
    command: Command,
    stdin: Vec<u8>,
}

impl Run {
    pub(crate) fn new(args: &[&str]) -> Self {
        let mut command = Command::new(BIN);
        command.args(args).env_clear().env("TZ", "UTC");
        Self { command, stdin: Vec::new() }
    }

    pub(crate) fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.command.env(name, value.into());
        self
    }

    pub(crate) fn envs(mut self, envs: &[(&str, &str)]) -> Self {
        self.command.envs(envs.iter().copied());
        self
    }

    pub(crate) fn stdin(mut self, bytes: &[u8]) -> Self {
        self.stdin = bytes.to_vec();
        self
    }

    /// Exit code, standard output, standard error.
    pub(crate) fn output(mut self) -> (i32, Vec<u8>, String) {
        let mut child =
            self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let feeder = std::thread::spawn(move || {
            // A mover that fails early does not read everything.
            let _ = stdin.write_all(&self.stdin);
        });
        let output = child.wait_with_output().unwrap();
        feeder.join().unwrap();
        (output.status.code().unwrap_or(-1), output.stdout, String::from_utf8_lossy(&output.stderr).into_owned())
    }

    #[track_caller]
    pub(crate) fn succeeds(self) -> Vec<u8> {
        let name = format!("{:?}", self.command.get_args().collect::<Vec<_>>());
        let (code, stdout, stderr) = self.output();
        assert_eq!(code, 0, "{name}: {stderr}");
        stdout
    }

    #[track_caller]
    pub(crate) fn succeeds_with_text(self) -> String {
        String::from_utf8(self.succeeds()).unwrap()
    }

    /// The last line of standard error.
    #[track_caller]
    pub(crate) fn fails(self) -> String {
        let name = format!("{:?}", self.command.get_args().collect::<Vec<_>>());
        let (code, _, stderr) = self.output();
        assert_eq!(code, 1, "{name}: {stderr}");
        stderr.lines().last().unwrap_or_default().to_owned()
    }

    /// Starts the mover without input.
    pub(crate) fn spawn(mut self) -> Child {
        self.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Starts the mover with its input left to the caller.
    pub(crate) fn spawn_piped(mut self) -> Child {
        self.command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Starts the mover without input, with its messages behind those in a file.
    pub(crate) fn spawn_logged(mut self, log: &std::path::Path) -> Child {
        let log = std::fs::OpenOptions::new().append(true).create(true).open(log).unwrap();
        self.command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
    }

    /// Starts the mover and feeds it in the background.
    pub(crate) fn spawn_fed(mut self) -> Child {
        let mut child = self.command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // Whoever is killed does not read everything.
        std::thread::spawn(move || drop(stdin.write_all(&self.stdin)));
        child
    }

    /// Starts the mover and feeds it most of its input.
    pub(crate) fn spawn_most(mut self) -> Waiting {
        let mut child = self.command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let rest = self.stdin.split_off(self.stdin.len() / 4 * 3);
        stdin.write_all(&self.stdin).unwrap();
        Waiting { child, stdin, rest }
    }

    /// Starts the mover, feeds it so many bytes and leaves its input open.
    pub(crate) fn spawn_and_feed(mut self, size: usize) -> Fed {
        let mut child = self.command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(&pseudo_random(size)).unwrap();
        Fed { child, _stdin: stdin }
    }
}

/// A mover that has got most of its input.
pub(crate) struct Waiting {
    child: Child,
    stdin: std::process::ChildStdin,
    rest: Vec<u8>,
}

impl Waiting {
    /// Waits until something can be seen of it.
    pub(crate) fn has_begun(&self, seen: impl Fn() -> bool) {
        for _ in 0..2000 {
            if seen() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        panic!("process {} does not begin", self.child.id());
    }

    /// Feeds it the rest, which does not help.
    #[track_caller]
    pub(crate) fn fails(mut self) {
        let _ = self.stdin.write_all(&self.rest);
        drop(self.stdin);
        assert_eq!(self.child.wait().unwrap().code(), Some(1));
    }

    pub(crate) fn die(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Feeds it the rest.
    #[track_caller]
    pub(crate) fn succeeds(mut self) {
        self.stdin.write_all(&self.rest).unwrap();
        drop(self.stdin);
        assert!(self.child.wait().unwrap().success());
    }
}

/// A mover that waits for more input.
pub(crate) struct Fed {
    pub(crate) child: Child,
    _stdin: std::process::ChildStdin,
}

impl Fed {
    pub(crate) fn signal(&self, name: &str) {
        assert!(
            Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status().unwrap().success()
        );
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

/// Our own S3 endpoint on a directory, and a configuration for it.
pub(crate) struct Endpoint {
    child: Child,
    dir: TempDir,
    root: PathBuf,
    conf: BTreeMap<String, String>,
}

impl Endpoint {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        Self::new(dir, root)
    }

    /// The same on a directory of its own.
    pub(crate) fn start_on(root: &std::path::Path) -> Self {
        Self::new(tempfile::tempdir().unwrap(), root.to_owned())
    }

    fn new(dir: TempDir, root: PathBuf) -> Self {
        let (child, address) = serve(&root, "127.0.0.1:0");
        let conf = [
            ("type", "s3"),
            ("provider", "Other"),
            ("access_key_id", "TESTKEYOFOURTESTS"),
            ("secret_access_key", "test-secret"),
            ("endpoint", &format!("http://{address}")),
            ("root", "bucket"),
            ("chunk_size", "50Mi"),
        ];
        let conf = conf.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        Self { child, dir, root, conf }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Host and port.
    pub(crate) fn address(&self) -> &str {
        self.conf["endpoint"].trim_start_matches("http://")
    }

    /// Waits until the server holds nothing that is not an object.
    #[track_caller]
    pub(crate) fn nothing_is_unfinished(&self) {
        for _ in 0..100 {
            if self.unfinished() == 0 {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("{} unfinished files stay on the server", self.unfinished());
    }

    /// How many files the server holds that are no objects.
    pub(crate) fn unfinished(&self) -> usize {
        std::fs::read_dir(self.path(".kbbackup-serve")).unwrap().count()
    }

    /// Kills the server without warning and starts it again on the same address and directory.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.start_again();
    }

    pub(crate) fn kill(&self) {
        assert!(Command::new("kill").args(["-KILL", &self.child.id().to_string()]).status().unwrap().success());
    }

    pub(crate) fn start_again(&mut self) {
        self.child.wait().unwrap();
        let address = self.address().to_owned();
        self.child = serve(&self.root, &address).0;
    }

    /// The same endpoint with one setting changed.
    pub(crate) fn with_conf(&self, key: &str, value: &str) -> Client<'_> {
        let mut conf = self.conf.clone();
        conf.insert(key.to_owned(), value.to_owned());
        Client { endpoint: self, conf }
    }

    pub(crate) fn mover(&self, args: &[&str]) -> Run {
        Client { endpoint: self, conf: self.conf.clone() }.mover(args)
    }

    /// The lines of the configuration, without one of the keys.
    pub(crate) fn conf_lines(&self, without: &str) -> String {
        let lines = self.conf.iter().filter(|(key, _)| *key != without).map(|(key, value)| format!("{key} = {value}"));
        lines.collect::<Vec<_>>().join("\n") + "\n"
    }

    pub(crate) fn check_report(&self) -> Value {
        Client { endpoint: self, conf: self.conf.clone() }.check_report()
    }
}

fn serve(root: &std::path::Path, listen: &str) -> (Child, String) {
    std::fs::create_dir_all(root).unwrap();
    let mut child = Command::new(BIN)
        .args(["serve", "--root", root.to_str().unwrap(), "--listen", listen, "--bucket", "bucket"])
        .env("KBBACKUP_SERVE_ACCESS_KEY_ID", "TESTKEYOFOURTESTS")
        .env("KBBACKUP_SERVE_SECRET_ACCESS_KEY", "test-secret")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    // The rest is drained, so that the server never blocks on it.
    std::thread::spawn(move || stderr.read_to_end(&mut Vec::new()));
    let address = line.trim().rsplit(' ').next().unwrap().to_owned();
    assert!(address.contains(':'), "the server did not start: {line}");
    (child, address)
}

/// A configuration of an endpoint.
pub(crate) struct Client<'a> {
    endpoint: &'a Endpoint,
    conf: BTreeMap<String, String>,
}

impl Client<'_> {
    /// The same with one more setting changed.
    pub(crate) fn and(mut self, key: &str, value: &str) -> Self {
        self.conf.insert(key.to_owned(), value.to_owned());
        self
    }

    pub(crate) fn mover(&self, args: &[&str]) -> Run {
        let lines: Vec<String> = self.conf.iter().map(|(key, value)| format!("{key} = {value}")).collect();
        let lines = lines.join("\n");
        let path = self.endpoint.dir.path().join(format!("{}.conf", blake3::hash(lines.as_bytes()).to_hex()));
        // Whole at once: another mover may be reading it.
        let mut file = tempfile::NamedTempFile::new_in(self.endpoint.dir.path()).unwrap();
        write!(file, "[storage]\n{lines}").unwrap();
        file.persist(&path).unwrap();
        let mut all = vec!["-c", path.to_str().unwrap()];
        all.extend(args);
        Run::new(&all)
    }

    pub(crate) fn check_report(&self) -> Value {
        let log = self.endpoint.dir.path().join("termination-log");
        let began = std::time::Instant::now();
        self.mover(&["check", "prefix", "--termination-log", log.to_str().unwrap()]).output();
        assert!(began.elapsed().as_secs() < 30, "the check took {:?}", began.elapsed());
        serde_json::from_slice(&std::fs::read(log).unwrap()).unwrap()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
