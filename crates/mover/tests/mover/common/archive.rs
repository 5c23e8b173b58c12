//! An archiver at work: its repository, its result, and, of `PostgreSQL`'s log, a server that writes.

use std::fs;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::postgres::{PASSWORD, Postgres, installed};
use super::{Run, not_tried};

/// A repository of files, and an archiver's folder.
pub(crate) struct Scene {
    pub(crate) dir: TempDir,
}

/// An archiver that dies with the test.
pub(crate) struct Archiver(pub(crate) Child);

impl Archiver {
    pub(crate) fn signal(mut self, name: &str) -> i32 {
        let pid = self.0.id().to_string();
        assert!(std::process::Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
        let began = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(began.elapsed() < Duration::from_secs(60), "it goes on after SIG{name}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Archiver {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) const FLAGS: [&str; 6] =
    ["postgres", "archive", "--slot=kbb_arch_test", "--partial-seconds=1", "--heartbeat-seconds=1", "-c"];

impl Scene {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn repo(&self) -> PathBuf {
        let root = self.dir.path().join("repo");
        fs::create_dir_all(&root).unwrap();
        root
    }

    pub(crate) fn conf(&self) -> String {
        let path = self.dir.path().join("conf");
        // Once: an archiver that has just been started may be reading it.
        if !path.exists() {
            fs::write(&path, format!("[storage]\ntype = local\nroot = {}\n", self.repo().display())).unwrap();
        }
        path.to_str().unwrap().to_owned()
    }

    pub(crate) fn info_file(&self) -> PathBuf {
        self.dir.path().join("backup.info")
    }

    pub(crate) fn with(&self, run: Run, server: &Postgres) -> Run {
        run.env("DP_DB_HOST", "127.0.0.1")
            .env("DP_DB_PORT", server.port.to_string())
            .env("DP_DB_USER", "postgres")
            .env("DP_DB_PASSWORD", PASSWORD)
            .env("DP_BACKUP_INFO_FILE", self.info_file())
            .env("DATASAFED_BACKEND_BASE_PATH", "/pg")
            .env("TMPDIR", self.dir.path())
    }

    pub(crate) fn run(&self, server: &Postgres) -> Run {
        let mut args = FLAGS.to_vec();
        let conf = self.conf();
        args.push(&conf);
        self.with(Run::new(&args), server)
    }

    pub(crate) fn archive(&self, server: &Postgres) -> Archiver {
        let _ = fs::remove_file(self.info_file());
        Archiver(self.run(server).spawn_logged(&self.dir.path().join("log")))
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn info(&self) -> Value {
        fs::read(self.info_file()).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// Waits until everything that the server has written is stored.
    #[track_caller]
    pub(crate) fn wait_stored(&self, server: &Postgres) {
        let wanted = server.ask("select pg_current_wal_flush_lsn()");
        let query = format!("select '{}'::pg_lsn >= '{wanted}'::pg_lsn", "%");
        self.wait(&|info| {
            let end = info["extras"][0]["end_lsn"].as_str().unwrap_or("0/0");
            server.ask(&query.replace('%', end)) == "t"
        });
    }

    /// Waits until the window reaches the time at which this is called.
    #[track_caller]
    pub(crate) fn wait_reachable(&self, server: &Postgres) -> String {
        let now = server.ask("select date_trunc('second', clock_timestamp())");
        let query = format!("select '%'::timestamptz >= '{now}'");
        self.wait(&|info| {
            info["timeRange"]["end"].as_str().is_some_and(|end| server.ask(&query.replace('%', end)) == "t")
        });
        self.info()["timeRange"]["end"].as_str().unwrap().to_owned()
    }

    /// Waits for what the archiver says, and gives it.
    #[track_caller]
    pub(crate) fn wait(&self, done: &dyn Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let info = self.info();
            if done(&info) {
                return info;
            }
            assert!(began.elapsed() < Duration::from_secs(40), "{info}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub(crate) fn stored(&self) -> Vec<String> {
        let conf = self.conf();
        let list = Run::new(&["list", "-r", "-f", "/pg/wal", "-c", &conf]).succeeds_with_text();
        let mut names: Vec<String> = list.lines().map(|line| line.rsplit('/').next().unwrap().to_owned()).collect();
        names.sort();
        names
    }

    /// Archives for a moment.
    pub(crate) fn wait_first(&self, server: &Postgres) {
        let archiver = self.archive(server);
        self.wait(&|info| info["timeRange"]["end"].is_string());
        self.wait_stored(server);
        assert_eq!(archiver.signal("TERM"), 0, "{}", self.log());
    }
}

/// A server with a table to write to; `None` where none is installed.
pub(crate) fn server() -> Option<Postgres> {
    let Some(bin) = installed() else {
        not_tried("no PostgreSQL is installed");
        return None;
    };
    let server = Postgres::create(&bin);
    server.ask("create table ledger (n serial primary key, pad text)");
    Some(server)
}

pub(crate) fn write(server: &Postgres, rows: usize) {
    for _ in 0..rows {
        server.ask("insert into ledger (pad) select repeat('x', 200)");
    }
}

/// More than three segments.
pub(crate) fn write_much(server: &Postgres) {
    server.ask("insert into ledger (pad) select repeat(md5(n::text), 40) from generate_series(1, 3000) n");
}
