//! Whoever a database server runs as: root may not run one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// A user and its group, for servers that refuse root.
#[derive(Clone, Copy)]
pub(crate) struct Owner(pub(crate) &'static str, pub(crate) &'static str);

impl Owner {
    /// A program as it.
    pub(crate) fn runs(self, program: &Path) -> Command {
        let is_root = fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0);
        let mut command = if is_root {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", self.0, "--regid", self.1, "--clear-groups", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir("/").env("LC_ALL", "C").env("TZ", "UTC").stdin(Stdio::null());
        command
    }

    /// An empty folder of its own.
    pub(crate) fn folder(self) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        self.takes(&[dir.path()]);
        dir
    }

    fn takes(self, paths: &[&Path]) {
        let _ = Command::new("chown").arg(format!("{}:{}", self.0, self.1)).args(paths).output();
    }

    /// A certificate for localhost, and its key, in a folder.
    pub(crate) fn certificate(self, folder: &Path) -> (PathBuf, PathBuf) {
        let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (cert_file, key_file) = (folder.join("server.crt"), folder.join("server.key"));
        fs::write(&cert_file, key.cert.pem()).unwrap();
        fs::write(&key_file, key.signing_key.serialize_pem()).unwrap();
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(&key_file, private).unwrap();
        self.takes(&[&cert_file, &key_file]);
        (cert_file, key_file)
    }
}

/// What a program that must succeed says.
#[track_caller]
pub(crate) fn succeeds(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
