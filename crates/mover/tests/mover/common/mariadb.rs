//! A `MariaDB` on this machine: Debian's, as a user that may run it, on a port of loopback, gone at the end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::owner::{Owner, succeeds};
use super::servers::free_port;

pub(crate) const PASSWORD: &str = "correct-horse";
/// The account of the page that people read, see [`MariaDb::create`].
pub(crate) const USER: &str = "kbbackup";

/// A server and its folder.
pub(crate) struct MariaDb {
    pub(crate) port: u16,
    bin: PathBuf,
    dir: TempDir,
    data: PathBuf,
    child: std::cell::RefCell<Option<Child>>,
    options: std::cell::RefCell<Vec<String>>,
}

/// The server that `cargo xtask test` names, else the one that is installed; `None` where there is none.
pub(crate) fn installed() -> Option<PathBuf> {
    let named = std::env::var_os("KBBACKUP_TEST_MARIADB").map(PathBuf::from);
    named.or_else(|| Some(PathBuf::from("/usr/sbin/mariadbd"))).filter(|server| server.exists())
}

/// Who runs it.
pub(crate) const OWNER: Owner = Owner("nobody", "nogroup");

impl MariaDb {
    fn unmade(bin: &Path) -> Self {
        let dir = OWNER.folder();
        let options = ["--server-id=1", "--log-bin=binlog", "--gtid-strict-mode=OFF"].map(str::to_owned).to_vec();
        let data = dir.path().join("data");
        let (child, options) = (None.into(), options.into());
        Self { port: free_port(), bin: bin.to_owned(), data, dir, child, options }
    }

    /// A new server with a binary log, an account for archivers, and a table to write to.
    pub(crate) fn create(bin: &Path) -> Self {
        let made = Self::unmade(bin);
        succeeds(
            OWNER
                .runs(Path::new("mariadb-install-db"))
                .args(["--no-defaults", "--force", "--auth-root-authentication-method=normal", "--skip-test-db"])
                .arg(format!("--datadir={}", made.data.display()))
                // Two at once would make the same files.
                .env("TMPDIR", made.dir.path()),
        );
        made.start();
        for statement in [
            "delete from mysql.global_priv where user = ''",
            "flush privileges",
            &format!("create user '{USER}'@'%' identified by '{PASSWORD}'"),
            &format!("grant reload, process, lock tables, binlog monitor, replication slave on *.* to '{USER}'@'%'"),
            "create database app",
            "create table app.ledger (n int auto_increment primary key, pad longtext)",
        ] {
            made.ask(statement);
        }
        made
    }

    /// An option of the server, from its next start on.
    pub(crate) fn option(&self, option: &str) {
        self.options.borrow_mut().push(option.to_owned());
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.data.clone()
    }

    /// A server on a data directory that somebody else has made.
    pub(crate) fn adopt(&self, data: &Path) -> Self {
        let mut other = Self::unmade(&self.bin);
        data.clone_into(&mut other.data);
        other
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    #[track_caller]
    pub(crate) fn start(&self) {
        let log = fs::OpenOptions::new().append(true).create(true).open(self.dir.path().join("log")).unwrap();
        let mut command = OWNER.runs(&self.bin);
        command.args(["--no-defaults", "--innodb-buffer-pool-size=16M", "--bind-address=127.0.0.1"]);
        command.arg(format!("--datadir={}", self.data.display())).arg(format!("--port={}", self.port));
        command.env("TMPDIR", self.dir.path());
        command.arg(format!("--socket={}", self.socket().display())).args(self.options.borrow().iter());
        *self.child.borrow_mut() = Some(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
        let began = Instant::now();
        while self.try_ask("select 1").is_none() {
            assert!(began.elapsed() < Duration::from_secs(60), "{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Ends it by a signal, which it may not hear.
    pub(crate) fn stop(&self, signal: &str) {
        if let Some(mut child) = self.child.borrow_mut().take() {
            let _ = Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status();
            let _ = child.wait();
        }
    }

    pub(crate) fn client(&self) -> Command {
        let mut command = Command::new("mariadb");
        command.arg("--no-defaults").arg(format!("--socket={}", self.socket().display()));
        command.args(["--user=root", "--batch", "--skip-column-names", "--database="]);
        command
    }

    #[track_caller]
    pub(crate) fn ask(&self, query: &str) -> String {
        succeeds(self.client().arg(format!("--execute={query}")))
    }

    pub(crate) fn try_ask(&self, query: &str) -> Option<String> {
        let output = self.client().arg(format!("--execute={query}")).output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().to_owned())
    }

    /// Where its log ends: `file:position`, and the GTID there.
    pub(crate) fn place(&self) -> (String, String) {
        let status = self.ask("show master status");
        let mut fields = status.split('\t');
        let place = format!("{}:{}", fields.next().unwrap(), fields.next().unwrap());
        (place, self.ask("select @@gtid_binlog_pos"))
    }

    /// A copy of it as it is between two transactions, not started.
    pub(crate) fn copy(&self) -> Self {
        let copy = Self::unmade(&self.bin);
        self.stop("TERM");
        succeeds(OWNER.runs(Path::new("cp")).arg("-a").arg(self.data()).arg(copy.data()));
        for left in fs::read_dir(copy.data()).unwrap().flatten() {
            if left.file_name().to_str().unwrap().starts_with("binlog.") {
                fs::remove_file(left.path()).unwrap();
            }
        }
        self.start();
        copy
    }

    /// An unstarted copy once more.
    pub(crate) fn again(&self) -> Self {
        let copy = Self::unmade(&self.bin);
        succeeds(OWNER.runs(Path::new("cp")).arg("-a").arg(self.data()).arg(copy.data()));
        copy
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        self.stop("KILL");
    }
}
