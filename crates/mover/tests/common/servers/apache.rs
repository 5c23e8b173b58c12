//! Apache's `mod_dav`, the `WebDAV` server of most distributions.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::process::{free_port, program};
use super::{Process, Server, Traits};

impl Server {
    pub(crate) fn apache() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().display();
        let (data, state) = (dir.path().join("data"), dir.path().join("state"));
        for (path, mode) in [(&data, 0o777), (&state, 0o777)] {
            fs::create_dir(path).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let apache = program("apache2");
        let modules = apache.canonicalize().unwrap().with_file_name("usr/lib/apache2/modules");
        let port = free_port();
        let mut settings = String::new();
        for name in ["mpm_event", "authn_core", "authn_file", "authz_core", "authz_user", "auth_basic", "dav", "dav_fs"]
        {
            settings += &format!("LoadModule {name}_module {}/mod_{name}.so\n", modules.display());
        }
        // `pw`, hashed the way that this server checks without more libraries.
        fs::write(dir.path().join("users"), "u:{SHA}GpHWL3ymc5liWkNopqtdSjuqYHM=\n").unwrap();
        settings += &format!(
            "ServerRoot {at}/state\nServerName localhost\nListen 127.0.0.1:{port}\nPidFile {at}/state/pid\n\
             ErrorLog {at}/state/log\nUser bin\nGroup bin\nDocumentRoot {at}/data\nDavLockDB {at}/state/locks\n\
             <Directory {at}/data>\nDav On\nAuthType Basic\nAuthName store\nAuthUserFile {at}/users\n\
             Require valid-user\nDavDepthInfinity Off\n</Directory>\n"
        );
        let file = dir.path().join("apache.conf");
        fs::write(&file, settings).unwrap();
        // One process: it is ended by a signal that it could not pass on to others.
        let process = Process::start(Command::new(apache).args(["-X", "-f"]).arg(&file), port);
        let conf = format!(
            "type = webdav\nurl = http://localhost:{port}/\nvendor = other\nuser = u\npass.need_obscure = pw\n"
        );
        Self::new(conf, "", Some(data), Traits::TREE, dir, process)
    }
}
