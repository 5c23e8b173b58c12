//! Object stores that speak HTTP.

use std::fs;
use std::process::Command;

use super::process::{free_port, program};
use super::rclone::Certificate;
use super::{Process, Server, Traits};
use crate::common::signed::{AzureAccount, send};

impl Server {
    /// Plain, or over TLS with a certificate that only this test trusts.
    pub(crate) fn versitygw(tls: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("data");
        fs::create_dir_all(disk.join("bucket")).unwrap();
        let port = free_port();
        let mut command = Command::new(program("versitygw"));
        command.args(["--port", &format!("127.0.0.1:{port}"), "--access", "key", "--secret", "test-secret"]);
        let certificate = Certificate::new();
        if tls {
            command.args(["--cert", &certificate.cert, "--key", &certificate.key]);
        }
        command.args(["--region", "us-east-1", "posix"]).arg(&disk);
        let process = Process::start(&mut command, port);
        let scheme = if tls { "https" } else { "http" };
        let conf = format!(
            "type = s3\nprovider = Other\naccess_key_id = key\nsecret_access_key = test-secret\n\
             endpoint = {scheme}://localhost:{port}\n"
        );
        let mut server = Self::new(conf, "bucket/", Some(disk), Traits::STORE, dir, process);
        server.certificate = Some(certificate);
        server
    }

    /// Microsoft's emulator of Azure Blob Storage.
    pub(crate) fn azurite() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let mut command = Command::new(program("azurite"));
        command.args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string(), "--location"]).arg(dir.path());
        command.args(["--silent", "--disableTelemetry", "--skipApiVersionCheck"]);
        let process = Process::start(&mut command, port);
        let address = format!("127.0.0.1:{port}");
        let headers = AzureAccount::EMULATOR.creating_a_container("container");
        let path = "/devstoreaccount1/container?restype=container";
        let (status, answer) = send(&address, "PUT", path, &headers, b"");
        assert_eq!(status, 201, "{answer}");
        let conf = format!("type = azureblob\nuse_emulator = true\nendpoint = http://{address}/devstoreaccount1\n");
        // Its files are its own affair.
        Self::new(conf, "container/", None, Traits::STORE, dir, process)
    }

    /// An emulator of Google Cloud Storage. It asks for no credentials, so any token will do.
    pub(crate) fn fake_gcs() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let address = format!("127.0.0.1:{port}");
        let mut command = Command::new(program("fake-gcs-server"));
        command.args(["-scheme", "http", "-host", "127.0.0.1", "-port", &port.to_string(), "-backend", "memory"]);
        // Requests for another host than this are not for it.
        command.args(["-public-host", &address]);
        let process = Process::start(&mut command, port);
        let (status, answer) =
            send(&address, "POST", "/storage/v1/b", "content-type: application/json\r\n", br#"{"name":"bucket"}"#);
        assert_eq!(status, 200, "{answer}");
        let conf = format!("type = google cloud storage\naccess_token = any\nendpoint = http://{address}\n");
        Self::new(conf, "bucket/", None, Traits::STORE, dir, process)
    }
}
