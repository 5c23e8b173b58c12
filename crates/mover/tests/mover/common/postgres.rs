//! A `PostgreSQL` on this machine: Debian's, as a user that may run it, on a port of loopback, gone at the end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::owner::{Owner, succeeds};
use super::servers::free_port;

pub(crate) const PASSWORD: &str = "correct-horse";

/// A server and its folder.
pub(crate) struct Postgres {
    pub(crate) port: u16,
    bin: PathBuf,
    dir: TempDir,
    data: PathBuf,
}

/// The server that `cargo xtask test` names, else the newest that is installed; `None` where there is none.
pub(crate) fn installed() -> Option<PathBuf> {
    if let Some(bin) = std::env::var_os("KBBACKUP_TEST_POSTGRES") {
        return Some(PathBuf::from(bin));
    }
    let mut found: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql").ok()?.flatten().map(|item| item.path()).collect();
    found.sort();
    found.pop().map(|path| path.join("bin")).filter(|bin| bin.join("initdb").exists())
}

/// Who runs it.
pub(crate) const OWNER: Owner = Owner("postgres", "postgres");

impl Postgres {
    /// A new cluster with small segments, whose clients need the password.
    pub(crate) fn create(bin: &Path) -> Self {
        let dir = OWNER.folder();
        let (data, password) = (dir.path().join("data"), dir.path().join("password"));
        fs::write(&password, PASSWORD).unwrap();
        let made = Self { port: free_port(), bin: bin.to_owned(), dir, data: data.clone() };
        let flags = ["-U", "postgres", "-A", "scram-sha-256", "--no-sync", "--wal-segsize=1", "-E", "UTF8", "-D"];
        succeeds(OWNER.runs(&bin.join("initdb")).args(flags).arg(&data).arg("--pwfile").arg(&password));
        let conf = "track_commit_timestamp = on\nwal_level = replica\nmax_wal_size = 8MB\nmin_wal_size = 2MB\n\
                    wal_keep_size = 0\nshared_buffers = 16MB\nfsync = off\nmax_wal_senders = 6\nlog_min_messages = warning\n";
        made.configure(conf);
        made.start();
        made
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.data.clone()
    }

    /// A server on a data directory that somebody else has made.
    pub(crate) fn adopt(&self, data: &Path) -> Self {
        Self { port: free_port(), bin: self.bin.clone(), dir: OWNER.folder(), data: data.to_owned() }
    }

    fn unmade(&self) -> Self {
        let dir = OWNER.folder();
        Self { port: free_port(), bin: self.bin.clone(), data: dir.path().join("data"), dir }
    }

    /// Appends to its configuration.
    pub(crate) fn configure(&self, lines: &str) {
        let path = self.data().join("postgresql.conf");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text + lines).unwrap();
    }

    fn control(&self, args: &[&str]) -> Command {
        let mut command = OWNER.runs(&self.bin.join("pg_ctl"));
        // The server keeps the outputs open.
        command.arg("-D").arg(self.data()).args(args).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn options(&self) -> String {
        format!(
            "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories={}",
            self.port,
            self.dir.path().display()
        )
    }

    #[track_caller]
    pub(crate) fn start(&self) {
        assert!(self.try_start(), "{}", self.log());
    }

    pub(crate) fn try_start(&self) -> bool {
        let log = self.dir.path().join("log");
        let args = ["-w", "-t", "60", "-l", log.to_str().unwrap(), "-o", &self.options(), "start"];
        self.control(&args).status().unwrap().success()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn stop(&self, mode: &str) {
        let _ = self.control(&["-w", "-m", mode, "stop"]).status();
    }

    pub(crate) fn promote(&self) {
        assert!(self.control(&["-w", "promote"]).status().unwrap().success(), "{}", self.log());
    }

    fn psql(&self) -> Command {
        let mut command = Command::new(self.bin.join("psql"));
        let port = self.port.to_string();
        command.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", &port, "-U", "postgres"]);
        command.env("PGPASSWORD", PASSWORD).env("TZ", "UTC").env("PGTZ", "UTC");
        command
    }

    #[track_caller]
    pub(crate) fn ask(&self, query: &str) -> String {
        succeeds(self.psql().args(["-c", query]))
    }

    pub(crate) fn try_ask(&self, query: &str) -> Option<String> {
        let output = self.psql().args(["-c", query]).output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().to_owned())
    }

    /// A copy of this server as it is now, not started.
    pub(crate) fn base_backup(&self, more: &[&str]) -> Self {
        let copy = self.unmade();
        let mut command = OWNER.runs(&self.bin.join("pg_basebackup"));
        let port = self.port.to_string();
        command.args([
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-U",
            "postgres",
            "-X",
            "fetch",
            "-c",
            "fast",
            "--no-sync",
            "-D",
        ]);
        succeeds(command.arg(copy.data()).args(more).env("PGPASSWORD", PASSWORD));
        copy
    }

    /// An unstarted copy once more.
    pub(crate) fn again(&self) -> Self {
        let copy = self.unmade();
        succeeds(OWNER.runs(Path::new("cp")).arg("-a").arg(self.data()).arg(copy.data()));
        copy
    }

    /// Recovers an unstarted copy; `settings` say how far, `restore_command` where the log is.
    pub(crate) fn recover(&self, settings: &str) {
        assert!(self.try_recover(settings), "{}", self.log());
    }

    /// The same. Returns whether the server is open for writing, else it has ended.
    pub(crate) fn try_recover(&self, settings: &str) -> bool {
        self.configure(&format!("recovery_target_action = promote\narchive_mode = off\n{settings}\n"));
        fs::write(self.data().join("recovery.signal"), "").unwrap();
        let _ = Command::new("chown").args(["postgres:postgres"]).arg(self.data().join("recovery.signal")).output();
        self.try_start();
        let began = Instant::now();
        loop {
            if self.try_ask("select pg_is_in_recovery()").as_deref() == Some("f") {
                return true;
            }
            if !self.control(&["status"]).status().unwrap().success() {
                return false;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{}", self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop("immediate");
    }
}
