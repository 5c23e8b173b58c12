//! The plugin on a pseudo-terminal: what it shows, what is typed, how it ends.

use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::api::Api;

/// Longest wait for something to appear.
const LIMIT: Duration = Duration::from_secs(20);

/// The plugin, speaking to `api`; nothing of the machine's own settings reaches it.
pub(crate) fn command(api: &Api, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-kbbackup"));
    command
        .env_clear()
        .env("HOME", "/nonexistent")
        .env("TERM", "xterm")
        .env("NO_COLOR", "1")
        .env("KUBECONFIG", config(api));
    command.args(args).args(["-n", "demo"]);
    command
}

/// A kubeconfig for the server, in a file that lives as long as the machine's temporary files.
fn config(api: &Api) -> PathBuf {
    let url = api.url();
    let file = std::env::temp_dir().join(format!("kbbackup-prompts-{}", url.rsplit(':').next().unwrap()));
    let text = serde_json::json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": url}}], "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]});
    std::fs::write(&file, text.to_string()).unwrap();
    file
}

pub(crate) struct Terminal {
    child: Child,
    keys: File,
    screen: Receiver<Vec<u8>>,
    seen: String,
}

impl Terminal {
    /// Starts the plugin with all its three streams on a terminal.
    pub(crate) fn open(api: &Api, args: &[&str]) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
        let open = || File::options().read(true).write(true).open(&name).unwrap();
        let child = command(api, args).stdin(open()).stdout(open()).stderr(open()).spawn().unwrap();
        let keys = File::from(ours);
        let mut reader = keys.try_clone().unwrap();
        let (sender, screen) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // Reading fails when the last program has left the terminal.
            while let Ok(read) = reader.read(&mut bytes) {
                if read == 0 || sender.send(bytes[..read].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, keys, screen, seen: String::new() }
    }

    /// Waits until a text has appeared.
    #[track_caller]
    pub(crate) fn until(&mut self, text: &str) {
        let begun = Instant::now();
        while !self.seen.contains(text) {
            assert!(begun.elapsed() < LIMIT, "{text:?} did not appear in: {}", self.seen);
            self.look();
        }
        // The question stands there before its answer is waited for.
        std::thread::sleep(Duration::from_millis(200));
    }

    /// Takes what has come.
    fn look(&mut self) {
        match self.screen.recv_timeout(Duration::from_millis(50)) {
            Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(Duration::from_millis(50)),
        }
    }

    pub(crate) fn types(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Everything that was shown so far.
    pub(crate) fn seen(&self) -> &str {
        &self.seen
    }

    /// Waits for the end; its exit code.
    #[track_caller]
    pub(crate) fn end(&mut self) -> i32 {
        let begun = Instant::now();
        loop {
            self.look();
            if let Some(status) = self.child.try_wait().unwrap() {
                // The last words may still be on their way.
                while let Ok(bytes) = self.screen.recv_timeout(Duration::from_millis(100)) {
                    self.seen.push_str(&String::from_utf8_lossy(&bytes));
                }
                return status.code().unwrap_or(-1);
            }
            assert!(begun.elapsed() < LIMIT, "no end: {}", self.seen);
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
