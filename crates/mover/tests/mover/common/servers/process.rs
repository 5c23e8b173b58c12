//! Programs that serve: found, started on a free port, waited for, ended.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running server.
pub(crate) struct Process(Child);

impl Process {
    /// Starts a server and waits until it accepts connections.
    pub(crate) fn start(command: &mut Command, port: u16) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut process = Self(child.unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}")));
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Some(status) = process.0.try_wait().unwrap() {
                panic!("{command:?} ended with {status}");
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{command:?} does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        process
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The path of a server's program.
pub(crate) fn program(name: &str) -> PathBuf {
    let folder = std::env::var_os("KBBACKUP_TEST_SERVERS").expect(
        "KBBACKUP_TEST_SERVERS is not set: run `cargo xtask test stores`, which builds the servers and sets it",
    );
    let path = PathBuf::from(folder).join(name);
    assert!(path.exists(), "{} is missing: run `cargo xtask test stores`, which builds it", path.display());
    path
}
