//! vsftpd, the FTP server of most distributions: lists for people only, and asks that data connections continue the TLS
//! session of their control connection.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::process::{free_port, program};
use super::rclone::Certificate;
use super::{Process, Server, Traits};

/// Whether and how TLS begins.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tls {
    No,
    Explicit,
    Implicit,
}

impl Server {
    pub(crate) fn vsftpd(tls: Tls) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let empty = dir.path().join("empty");
        fs::create_dir_all(data.join("store")).unwrap();
        fs::create_dir(&empty).unwrap();
        // Its guests are nobody in particular, and must not own the root that they see.
        for (path, mode) in [(dir.path(), 0o755), (&data, 0o755), (&data.join("store"), 0o777)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let port = free_port();
        let certificate = Certificate::new();
        let mut settings = format!(
            "listen=YES\nlisten_address=127.0.0.1\nlisten_port={port}\nbackground=NO\nanonymous_enable=YES\n\
             local_enable=NO\nno_anon_password=YES\nwrite_enable=YES\nanon_upload_enable=YES\n\
             anon_mkdir_write_enable=YES\nanon_other_write_enable=YES\nanon_world_readable_only=NO\nanon_umask=022\n\
             anon_root={}\nftp_username=bin\nnopriv_user=nobody\nsecure_chroot_dir={}\nseccomp_sandbox=NO\n",
            data.display(),
            empty.display()
        );
        if tls != Tls::No {
            settings += &format!(
                "ssl_enable=YES\nallow_anon_ssl=YES\nforce_anon_logins_ssl=YES\nforce_anon_data_ssl=YES\n\
                 ssl_ciphers=HIGH\nrsa_cert_file={}\nrsa_private_key_file={}\n",
                certificate.cert, certificate.key
            );
        }
        let mut conf = format!("type = ftp\nhost = localhost\nport = {port}\nuser = anonymous\n");
        match tls {
            Tls::No => {}
            Tls::Explicit => conf += "explicit_tls = true\n",
            Tls::Implicit => {
                settings += "implicit_ssl=YES\n";
                conf += "tls = true\n";
            }
        }
        let file = dir.path().join("vsftpd.conf");
        fs::write(&file, settings).unwrap();
        let process = Process::start(Command::new(program("vsftpd")).arg(&file), port);
        let mut server = Self::new(conf, "/store/", Some(data), Traits::FTP, dir, process);
        server.certificate = Some(certificate);
        server
    }
}
