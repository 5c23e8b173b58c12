//! OpenSSH's server. It runs as whoever runs the tests and lets only that user in; for the superuser it would need a user and a
//! directory that only an installed one has, so then it runs as nobody in particular.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::{free_port, program};
use super::{Process, Server, Traits};

/// The user of the system's own files, who has none.
const NOBODY: u32 = 2;

/// A server, and what is needed to log in with something else than its usual key.
pub(crate) struct Sshd {
    pub(crate) server: Server,
    pub(crate) dir: PathBuf,
    /// Host, port and user, as lines of a configuration.
    pub(crate) address: String,
    pub(crate) port: u16,
}

/// Makes a key, as `name` and `name.pub`.
pub(crate) fn keygen(dir: &Path, name: &str, options: &[&str]) -> PathBuf {
    let path = dir.join(name);
    let made = Command::new(program("ssh-keygen")).args(["-q", "-C", name, "-f"]).arg(&path).args(options).output();
    let made = made.unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    path
}

fn user_name(uid: u32) -> String {
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let user = users.lines().find(|line| line.split(':').nth(2) == Some(&uid.to_string())).unwrap();
    user.split(':').next().unwrap().to_owned()
}

impl Server {
    pub(crate) fn sshd() -> Self {
        Sshd::start("").server
    }
}

impl Sshd {
    /// With more lines for its settings.
    pub(crate) fn start(settings: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let here = dir.path().to_owned();
        let data = here.join("data");
        fs::create_dir(&data).unwrap();
        for path in [&here, &data] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        // Where it is kept nobody else may look.
        let kept = fs::canonicalize(program("sshd")).unwrap();
        let copied = Command::new("cp").arg("-r").arg(kept.parent().unwrap()).arg(here.join("program")).status();
        assert!(copied.unwrap().success());
        let host = keygen(&here, "host", &["-t", "ed25519", "-N", ""]);
        let key = keygen(&here, "key", &["-t", "ed25519", "-N", ""]);
        fs::copy(here.join("key.pub"), here.join("authorized")).unwrap();
        let ours = fs::metadata("/proc/self").unwrap().uid();
        let user = if ours == 0 { NOBODY } else { ours };
        if ours == 0 {
            for path in [&host, &data, &here.join("authorized")] {
                chown(path, Some(user), Some(user)).unwrap();
            }
        }
        let port = free_port();
        let conf = here.join("sshd_config");
        let usual = format!(
            "ListenAddress 127.0.0.1\nPort {port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nSubsystem sftp internal-sftp\nMaxStartups 1000\n",
            host.display(),
            here.join("authorized").display()
        );
        fs::write(&conf, format!("{settings}{usual}")).unwrap();
        let mut command = Command::new(here.join("program/sshd"));
        command.args(["-D", "-e", "-f"]).arg(&conf);
        if ours == 0 {
            command.uid(user).gid(user);
        }
        let process = Process::start(&mut command, port);
        let public = fs::read_to_string(here.join("host.pub")).unwrap();
        fs::write(here.join("known"), format!("[localhost]:{port},[127.0.0.1]:{port} {public}")).unwrap();
        let address = format!("type = sftp\nhost = localhost\nport = {port}\nuser = {}\n", user_name(user));
        let conf =
            format!("{address}key_file = {}\nknown_hosts_file = {}\n", key.display(), here.join("known").display());
        let server = Server::new(conf, &format!("{}/", data.display()), Some(data), Traits::TREE, dir, process);
        Self { server, dir: here, address, port }
    }

    /// Lets a public key in.
    pub(crate) fn authorize(&self, key: &Path) {
        let mut all = fs::read_to_string(self.dir.join("authorized")).unwrap();
        all += &fs::read_to_string(key.with_extension("pub")).unwrap();
        fs::write(self.dir.join("authorized"), all).unwrap();
    }
}

/// Signs a public key for a user, as `name-cert.pub`.
pub(crate) fn sign(authority: &Path, user: &str, key: &Path) {
    let mut command = Command::new(program("ssh-keygen"));
    // For a while only: the library takes none for ever.
    command.args(["-q", "-I", "test", "-V", "+1d", "-n", user, "-s"]).arg(authority).arg(key.with_extension("pub"));
    assert!(command.status().unwrap().success());
}
