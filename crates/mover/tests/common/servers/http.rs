//! Object stores that speak HTTP.

use std::fs;
use std::process::Command;

use super::process::{free_port, program};
use super::{Process, Server, Traits};

impl Server {
    pub(crate) fn versitygw() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("data");
        fs::create_dir_all(disk.join("bucket")).unwrap();
        let port = free_port();
        let mut command = Command::new(program("versitygw"));
        command.args(["--port", &format!("127.0.0.1:{port}"), "--access", "key", "--secret", "test-secret"]);
        command.args(["--region", "us-east-1", "posix"]).arg(&disk);
        let process = Process::start(&mut command, port);
        let conf = format!(
            "type = s3\nprovider = Other\naccess_key_id = key\nsecret_access_key = test-secret\n\
             endpoint = http://127.0.0.1:{port}\n"
        );
        Self::new(conf, "bucket/", Some(disk), Traits::STORE, dir, process)
    }
}
