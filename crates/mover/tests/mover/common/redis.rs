//! A Redis on this machine: Debian's, on a port of loopback, gone at the end.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::owner::succeeds;
use super::servers::free_port;

pub(crate) const PASSWORD: &str = "correct-horse";
pub(crate) const USER: &str = "kbbackup";
/// Adds an entry that says in which second of the server's clock it was added. The log has the time at which the script began: at
/// the border of two seconds they could differ.
const PUSH: &str = "local now = redis.call('TIME') if tonumber(now[2]) < 20000 then return 'again' end \
    redis.call('RPUSH', 'ledger', now[1] .. ':' .. ARGV[1]) return now[1]";

/// A server with an append-only file that notes times.
pub(crate) struct Redis {
    pub(crate) port: u16,
    bin: PathBuf,
    dir: TempDir,
    data: PathBuf,
    child: RefCell<Option<Child>>,
    options: RefCell<Vec<String>>,
}

/// The server that `cargo xtask test` names, else the one that is installed; `None` where there is none.
pub(crate) fn installed() -> Option<PathBuf> {
    let named = std::env::var_os("KBBACKUP_TEST_REDIS").map(PathBuf::from);
    named.or_else(|| Some(PathBuf::from("/usr/bin/redis-server"))).filter(|server| server.exists())
}

impl Redis {
    fn unmade(bin: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        Self { port: free_port(), bin: bin.to_owned(), data, dir, child: None.into(), options: Vec::new().into() }
    }

    /// A new server with an account for archivers.
    pub(crate) fn create(bin: &Path) -> Self {
        let made = Self::unmade(bin);
        fs::create_dir(&made.data).unwrap();
        made.start();
        made
    }

    /// A server on a data directory that somebody else has made.
    pub(crate) fn adopt(&self, data: &Path) -> Self {
        let mut other = Self::unmade(&self.bin);
        data.clone_into(&mut other.data);
        other.start();
        other
    }

    /// An option of the server, from its next start on.
    pub(crate) fn option(&self, words: &[&str]) {
        self.options.borrow_mut().extend(words.iter().map(|word| (*word).to_owned()));
    }

    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    #[track_caller]
    pub(crate) fn start(&self) {
        let log = fs::OpenOptions::new().append(true).create(true).open(self.dir.path().join("log")).unwrap();
        let mut command = Command::new(&self.bin);
        command.args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--save", "", "--dir"]).arg(&self.data);
        command.args(["--appendonly", "yes", "--aof-timestamp-enabled", "yes", "--appendfsync", "everysec"]);
        command.args(["--auto-aof-rewrite-percentage", "0"]).args(self.options.borrow().iter());
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        *self.child.borrow_mut() = Some(child);
        let began = Instant::now();
        while self.try_ask(&["PING"]).as_deref() != Some("PONG") {
            let log = || fs::read_to_string(self.dir.path().join("log")).unwrap();
            assert!(began.elapsed() < Duration::from_secs(30), "{}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
        // Accounts are not in the log.
        let rights = ["+ping", "+info", "+time", "+config|get"];
        self.ask(&[&["ACL", "SETUSER", USER, "on", &format!(">{PASSWORD}")], &rights[..]].concat());
    }

    /// Ends it by a signal, which it may not hear.
    pub(crate) fn stop(&self, signal: &str) {
        if let Some(mut child) = self.child.borrow_mut().take() {
            let _ = Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status();
            let _ = child.wait();
        }
    }

    fn client(&self, words: &[&str]) -> Command {
        let mut command = Command::new("redis-cli");
        command.args(["-e", "-p", &self.port.to_string()]).args(words);
        command
    }

    #[track_caller]
    pub(crate) fn ask(&self, words: &[&str]) -> String {
        succeeds(&mut self.client(words))
    }

    pub(crate) fn try_ask(&self, words: &[&str]) -> Option<String> {
        let output = self.client(words).output().unwrap();
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Adds an entry; the second in which that was.
    #[track_caller]
    pub(crate) fn push(&self, text: &str) -> i64 {
        loop {
            let said = self.ask(&["EVAL", PUSH, "0", text]);
            if said != "again" {
                return said.parse().unwrap();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn time(&self) -> i64 {
        self.ask(&["TIME"]).lines().next().unwrap().parse().unwrap()
    }

    /// The entries, as they were added.
    pub(crate) fn entries(&self) -> Vec<String> {
        self.ask(&["LRANGE", "ledger", "0", "-1"]).lines().map(str::to_owned).filter(|line| !line.is_empty()).collect()
    }

    /// Writes the append-only file anew, and waits for it.
    #[track_caller]
    pub(crate) fn rewrite(&self) {
        self.ask(&["BGREWRITEAOF"]);
        let began = Instant::now();
        while !self.ask(&["INFO", "persistence"]).contains("aof_rewrite_in_progress:0") {
            assert!(began.elapsed() < Duration::from_secs(30), "it goes on rewriting");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.stop("KILL");
    }
}
