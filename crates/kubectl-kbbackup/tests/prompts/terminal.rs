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
    command_in(api, "demo", args)
}

pub(crate) fn command_in(api: &Api, namespace: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-kbbackup"));
    command
        .env_clear()
        .env("HOME", "/nonexistent")
        .env("TERM", "xterm")
        .env("NO_COLOR", "1")
        .env("KUBECONFIG", config(api));
    command.args(args).args(["-n", namespace]);
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
    /// How much of it was waited for already.
    read: usize,
}

impl Terminal {
    /// Starts the plugin with all its three streams on a terminal.
    pub(crate) fn open(api: &Api, args: &[&str]) -> Self {
        Self::open_in(api, "demo", args)
    }

    pub(crate) fn open_in(api: &Api, namespace: &str, args: &[&str]) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
        let open = || File::options().read(true).write(true).open(&name).unwrap();
        let child = command_in(api, namespace, args).stdin(open()).stdout(open()).stderr(open()).spawn().unwrap();
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
        Self { child, keys, screen, seen: String::new(), read: 0 }
    }

    /// Waits until a text has appeared behind the last one.
    #[track_caller]
    pub(crate) fn until(&mut self, text: &str) {
        let begun = Instant::now();
        let place = loop {
            if let Some(place) = self.seen[self.read..].find(text) {
                break place;
            }
            assert!(begun.elapsed() < LIMIT, "{text:?} did not appear in: {}", self.seen);
            self.look();
        };
        self.read += place + text.len();
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

    /// Waits for a question and answers it.
    #[track_caller]
    pub(crate) fn answers(&mut self, question: &str, keys: &str) {
        self.until(question);
        self.types(keys);
    }

    /// Sends the program what a terminal sends for Ctrl-C while nobody reads its keys.
    pub(crate) fn interrupts(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
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
                let (hidden, shown) = (self.seen.rfind("\x1b[?25l"), self.seen.rfind("\x1b[?25h"));
                assert!(hidden <= shown, "the cursor stays hidden: {}", self.seen);
                let modes = rustix::termios::tcgetattr(&self.keys).unwrap().local_modes;
                assert!(modes.contains(rustix::termios::LocalModes::ECHO), "the keys stay hidden: {}", self.seen);
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
