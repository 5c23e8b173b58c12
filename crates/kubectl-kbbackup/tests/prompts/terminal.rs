//! The plugin on a pseudo-terminal; what cannot go on ends the test.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use kbbackup_testing::terminal;

use super::api::Api;

/// Longest wait for something to appear.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// The plugin, speaking to `api`; nothing of the machine's own settings reaches it.
pub(crate) fn command(api: &Api, args: &[&str]) -> Command {
    command_in(api, "demo", args)
}

pub(crate) fn command_in(api: &Api, namespace: &str, args: &[&str]) -> Command {
    let mut command = bare(api);
    command.args(args).args(["-n", namespace]);
    command
}

/// Without a terminal: its exit code, and both of its streams.
pub(crate) fn run(api: &Api, args: &[&str]) -> (Option<i32>, String, String) {
    let ended = command(api, args).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (ended.status.code(), text(&ended.stdout), text(&ended.stderr))
}

/// The plugin without a word.
pub(crate) fn bare(api: &Api) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-kbbackup"));
    command
        .env_clear()
        .env("HOME", "/nonexistent")
        .env("TERM", "xterm")
        .env("NO_COLOR", "1")
        .env("KUBECONFIG", config(api));
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

pub(crate) struct Terminal(terminal::Terminal);

impl Terminal {
    pub(crate) fn open(api: &Api, args: &[&str]) -> Self {
        Self::open_in(api, "demo", args)
    }

    pub(crate) fn open_in(api: &Api, namespace: &str, args: &[&str]) -> Self {
        Self(terminal::Terminal::start(&mut command_in(api, namespace, args), LIMIT).unwrap())
    }

    #[track_caller]
    pub(crate) fn until(&mut self, text: &str) {
        self.0.until(text).unwrap();
    }

    pub(crate) fn types(&mut self, keys: &str) {
        self.0.types(keys).unwrap();
    }

    /// Waits for a question and answers it.
    #[track_caller]
    pub(crate) fn answers(&mut self, question: &str, keys: &str) {
        self.until(question);
        self.types(keys);
    }

    pub(crate) fn interrupts(&mut self) {
        self.0.interrupts().unwrap();
    }

    pub(crate) fn seen(&self) -> &str {
        self.0.seen()
    }

    /// Waits for the end; its exit code.
    #[track_caller]
    pub(crate) fn end(&mut self) -> i32 {
        self.0.end().unwrap()
    }
}
