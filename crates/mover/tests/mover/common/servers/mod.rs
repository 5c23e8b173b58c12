//! Servers for the conformance suite, each started for one test and ended with it.
//!
//! Those that are not ours are built by `cargo xtask test unit`, which hands their folder over in `KBBACKUP_TEST_SERVERS`.

mod http;
mod process;
mod rclone;
pub(crate) mod sshd;
mod vsftpd;

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

pub(crate) use process::{Process, free_port};
pub(crate) use rclone::Certificate;
pub(crate) use vsftpd::Tls;

use super::{Endpoint, Run};

/// A server that is ready.
pub(crate) struct Server {
    /// What the configuration says, without the root.
    conf: String,
    /// In front of a repository's name in `root`: a bucket, or a path.
    root: String,
    /// Where its files lie, if they are plain files on this machine, and nothing of a failed push may stay there.
    disk: Option<PathBuf>,
    pub(crate) traits: Traits,
    dir: TempDir,
    /// What clients must trust.
    certificate: Option<rclone::Certificate>,
    cache: Option<TempDir>,
    _process: Keeper,
}

/// What keeps the server alive.
enum Keeper {
    Nobody,
    Ours(#[allow(dead_code)] Endpoint),
    Process(#[allow(dead_code)] Process),
}

/// What the contract says about a kind of back end.
#[derive(Clone, Copy)]
pub(crate) struct Traits {
    /// Directories exist by themselves, and a missing one is an error.
    pub(crate) directories: bool,
    /// `rm` of a directory and `rmdir` of a full one are silent successes.
    pub(crate) lenient: bool,
    /// Whether of several that create an object at the same moment the server lets only one succeed.
    pub(crate) once: bool,
    /// Letters that this server is known to lose in names.
    pub(crate) forbidden: &'static str,
}

impl Traits {
    pub(crate) const STORE: Self = Self { directories: false, lenient: false, once: true, forbidden: "" };
    pub(crate) const TREE: Self = Self { directories: true, lenient: false, once: true, forbidden: "" };
    pub(crate) const FTP: Self = Self { directories: true, lenient: true, once: true, forbidden: "" };
}

impl Server {
    pub(crate) fn local() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("data");
        fs::create_dir(&disk).unwrap();
        Self {
            conf: "type = local\n".to_owned(),
            root: format!("{}/", disk.display()),
            disk: Some(disk),
            traits: Traits::TREE,
            dir,
            certificate: None,
            cache: None,
            _process: Keeper::Nobody,
        }
    }

    /// Our own S3 endpoint.
    pub(crate) fn serve() -> Self {
        let endpoint = Endpoint::start();
        Self {
            conf: endpoint.conf_lines("root"),
            root: "bucket/".to_owned(),
            disk: Some(endpoint.path("")),
            traits: Traits::STORE,
            dir: tempfile::tempdir().unwrap(),
            certificate: None,
            cache: None,
            _process: Keeper::Ours(endpoint),
        }
    }

    fn new(conf: String, root: &str, disk: Option<PathBuf>, traits: Traits, dir: TempDir, process: Process) -> Self {
        Self {
            conf,
            root: root.to_owned(),
            disk,
            traits,
            dir,
            certificate: None,
            cache: None,
            _process: Keeper::Process(process),
        }
    }

    /// A repository of its own on this server, which does not exist yet.
    pub(crate) fn repository(&self, name: &str) -> Repository<'_> {
        let conf = self.dir.path().join(format!("{name}.conf"));
        fs::write(&conf, format!("[storage]\n{}root = {}{name}\n", self.conf, self.root)).unwrap();
        Repository { server: self, name: name.to_owned(), conf }
    }
}

/// A repository of a server, and the configuration for it.
pub(crate) struct Repository<'a> {
    server: &'a Server,
    name: String,
    conf: PathBuf,
}

impl Repository<'_> {
    pub(crate) fn traits(&self) -> Traits {
        self.server.traits
    }

    /// Path of the mover's configuration file.
    pub(crate) fn conf(&self) -> &str {
        self.conf.to_str().unwrap()
    }

    /// Path of the certificate that the mover has to trust.
    pub(crate) fn certificate(&self) -> Option<&str> {
        self.server.certificate.as_ref().map(|certificate| certificate.cert.as_str())
    }

    pub(crate) fn run(&self, args: &[&str]) -> Run {
        let mut all = vec!["-c", self.conf()];
        all.extend(args);
        let run = Run::new(&all);
        match self.certificate() {
            Some(certificate) => run.env("SSL_CERT_FILE", certificate),
            None => run,
        }
    }

    /// The same for a client that trusts these certificates, or only those that everybody trusts, with more lines for the
    /// configuration.
    pub(crate) fn run_trusting(&self, certificates: Option<&str>, more: &str, args: &[&str]) -> Run {
        let conf = self.server.dir.path().join(format!("{}-trusting.conf", self.name));
        fs::write(&conf, fs::read_to_string(&self.conf).unwrap() + more).unwrap();
        let mut all = vec!["-c", conf.to_str().unwrap()];
        all.extend(args);
        let run = Run::new(&all);
        match certificates {
            Some(file) => run.env("SSL_CERT_FILE", file),
            None => run,
        }
    }

    pub(crate) fn push(&self, name: &str, bytes: &[u8]) {
        self.run(&["push", "-", name]).stdin(bytes).succeeds();
    }

    pub(crate) fn pull(&self, name: &str) -> Vec<u8> {
        self.run(&["pull", name, "-"]).succeeds()
    }

    pub(crate) fn list(&self, args: &[&str]) -> String {
        let mut all = vec!["list"];
        all.extend(args);
        self.run(&all).succeeds_with_text()
    }

    /// The same as sorted lines.
    pub(crate) fn lines(&self, args: &[&str]) -> Vec<String> {
        let mut lines: Vec<String> = self.list(args).lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    /// Asserts that the repository shows nothing, and, where that can be seen, holds nothing.
    #[track_caller]
    pub(crate) fn is_empty(&self) {
        assert_eq!(self.lines(&["-r", "-f", "/"]), Vec::<String>::new());
        let Some(disk) = &self.server.disk else { return };
        for _ in 0..100 {
            if files(disk, &self.name).is_empty() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("these files stay: {:?}", files(disk, &self.name));
    }
}

/// Files on disk that belong to a repository, by its name in their path.
fn files(disk: &Path, name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![disk.to_owned()];
    while let Some(dir) = waiting.pop() {
        for item in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if item.file_type().is_ok_and(|kind| kind.is_dir()) {
                waiting.push(item.path());
            } else if item.path().iter().any(|part| part == name) {
                found.push(item.path());
            }
        }
    }
    found
}
