//! `rclone serve` on a folder, by each protocol that it speaks.

use std::fs;
use std::process::Command;

use tempfile::TempDir;

use super::process::{free_port, program};
use super::{Process, Server, Traits};

/// It makes a directory that exists with success, so that nobody can be first.
const FTP: Traits = Traits { once: false, ..Traits::FTP };
/// And gives no file a second name.
const SFTP: Traits = Traits { once: false, ..Traits::TREE };

/// A folder for a server's files, and the start of a command that serves it by a protocol.
fn rclone(protocol: &str, port: u16, options: &[&str]) -> (TempDir, Process) {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("data");
    fs::create_dir(&disk).unwrap();
    let mut command = Command::new(program("rclone"));
    command.args(["serve", protocol]).arg(&disk).args(["--addr", &format!("127.0.0.1:{port}")]).args(options);
    // Nothing of the user's own configuration.
    command.env("RCLONE_CONFIG", dir.path().join("none"));
    let process = Process::start(&mut command, port);
    (dir, process)
}

impl Server {
    pub(crate) fn rclone_s3() -> Self {
        let port = free_port();
        let (dir, process) = rclone("s3", port, &["--auth-key", "key,test-secret", "--vfs-cache-mode", "off"]);
        let disk = dir.path().join("data");
        fs::create_dir(disk.join("bucket")).unwrap();
        let conf = format!(
            "type = s3\nprovider = Rclone\naccess_key_id = key\nsecret_access_key = test-secret\n\
             endpoint = http://127.0.0.1:{port}\n"
        );
        Self::new(conf, "bucket/", Some(disk), Traits::STORE, dir, process)
    }

    /// With a password, and over TLS with a certificate that only this test trusts.
    pub(crate) fn rclone_webdav(tls: bool) -> Self {
        let port = free_port();
        let certificate = Certificate::new();
        // Without the cache it breaks off every listing of a directory in which a file is being written.
        let cache = tempfile::tempdir().unwrap();
        let mut options = vec!["--user", "u", "--pass", "pw", "--vfs-cache-mode", "writes", "--vfs-write-back", "0s"];
        options.extend(["--cache-dir", cache.path().to_str().unwrap()]);
        if tls {
            options.extend(["--cert", &certificate.cert, "--key", &certificate.key]);
        }
        let (dir, process) = rclone("webdav", port, &options);
        let scheme = if tls { "https" } else { "http" };
        let conf = format!(
            "type = webdav\nurl = {scheme}://localhost:{port}\nvendor = rclone\nuser = u\npass.need_obscure = pw\n"
        );
        let disk = dir.path().join("data");
        let mut server = Self::new(conf, "", Some(disk), Traits::TREE, dir, process);
        server.certificate = Some(certificate);
        server.cache = Some(cache);
        server
    }

    /// FTP, with more lines for the configuration.
    pub(crate) fn rclone_ftp(more: &str) -> Self {
        let port = free_port();
        let (dir, process) = rclone("ftp", port, &["--user", "u", "--pass", "pw", "--passive-port", "30000-60000"]);
        let conf = format!("type = ftp\nhost = 127.0.0.1\nport = {port}\nuser = u\npass.need_obscure = pw\n{more}");
        let disk = dir.path().join("data");
        Self::new(conf, "", Some(disk), FTP, dir, process)
    }

    /// SFTP with a password, by a server without most extensions.
    pub(crate) fn rclone_sftp() -> Self {
        let port = free_port();
        let (dir, process) = rclone("sftp", port, &["--user", "u", "--pass", "pw"]);
        let conf = format!("type = sftp\nhost = 127.0.0.1\nport = {port}\nuser = u\npass.need_obscure = pw\n");
        let disk = dir.path().join("data");
        Self::new(conf, "", Some(disk), SFTP, dir, process)
    }
}

/// A certificate for this machine that signs itself.
pub(crate) struct Certificate {
    _dir: TempDir,
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Certificate {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        fs::write(&cert, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
        Self { cert: text(&cert), key: text(&key), _dir: dir }
    }
}
