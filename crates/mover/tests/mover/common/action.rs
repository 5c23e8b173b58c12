//! The scripts of ActionSets, run as a pod would.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::{BIN, not_tried};

/// A repository of files, and what pods have beside it.
pub(crate) struct Stage {
    pub(crate) dir: TempDir,
    /// On a file system of its own, as volumes are.
    pub(crate) volumes: TempDir,
}

/// An action of an ActionSet with the environment of its pod.
pub(crate) struct Action {
    pub(crate) command: Command,
    pub(crate) info: PathBuf,
    result: PathBuf,
}

pub(crate) struct Done {
    pub(crate) ok: bool,
    pub(crate) told: String,
    pub(crate) info: Value,
    pub(crate) result: Value,
}

impl Stage {
    /// `None` where this machine cannot play a pod.
    pub(crate) fn new() -> Option<Self> {
        let is_root = std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").unwrap()) == 0;
        if !is_root {
            not_tried("the scripts run as root in their pods, and this is another user");
            return None;
        }
        let stage = Self { dir: tempfile::tempdir().unwrap(), volumes: tempfile::tempdir_in("/dev/shm").unwrap() };
        fs::set_permissions(stage.volumes.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(stage.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(stage.dir.path().join("repo")).unwrap();
        Some(stage)
    }

    /// The script of `phase`, for example `backupData`, with the defaults of its parameters; the engine's programs are in `path`.
    pub(crate) fn action(&self, action_set: &str, phase: &str, backup: &str, path: &str) -> Action {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/actionsets");
        let text = fs::read_to_string(root.join(format!("{action_set}.yaml"))).unwrap();
        let pod = self.dir.path().join(format!("{backup}-{phase}"));
        fs::create_dir_all(&pod).unwrap();
        let (info, result) = (pod.join("backup.info"), pod.join("result"));
        // Where the kubelet puts them belongs to no test.
        let script = script(&text, phase)
            .replace("/dp_downward", pod.to_str().unwrap())
            .replace("/dev/termination-log", result.to_str().unwrap());
        let mut command = Command::new("bash");
        command.args(["-c", &script]).env_clear().envs(defaults(&text)).stdin(Stdio::null());
        command
            .env("PATH", format!("{path}:/usr/sbin:/usr/bin:/sbin:/bin"))
            .env("HOSTNAME", "pod-0")
            .env("TMPDIR", &pod)
            .env("DP_DATASAFED_BIN_PATH", Path::new(BIN).parent().unwrap())
            .env("DATASAFED_LOCAL_BACKEND_PATH", self.dir.path().join("repo"))
            .env("DP_BACKUP_NAME", backup)
            .env("DP_BACKUP_ROOT_PATH", "/space/db")
            .env("DP_BACKUP_BASE_PATH", format!("/space/db/{backup}"))
            .env("DP_BACKUP_INFO_FILE", &info)
            .env("KBBACKUP_BACKUP_UID", "11111111-2222-4333-8444-555555555555")
            .env("DP_DB_HOST", "127.0.0.1");
        Action { command, info, result }
    }

    /// Where a restore puts a data directory. The server that will use it is not root.
    pub(crate) fn place(&self, name: &str) -> PathBuf {
        let place = self.volumes.path().join(name);
        fs::create_dir_all(&place).unwrap();
        place.join("data")
    }

    pub(crate) fn object(&self, path: &str) -> PathBuf {
        self.dir.path().join("repo/space/db").join(path)
    }
}

impl Action {
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// What a restore gets to know of its backup.
    pub(crate) fn knowing(self, info: &Value) -> Self {
        let extras = self.info.with_file_name("status_extras");
        fs::write(extras, info["extras"].to_string()).unwrap();
        self
    }

    pub(crate) fn run(mut self) -> Done {
        let output = self.command.output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        let read = |path: &Path| {
            fs::read(path)
                .ok()
                .map(|bytes| serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{error}: {told}")))
        };
        let (info, result) = (read(&self.info).unwrap_or_default(), read(&self.result).unwrap_or_default());
        Done { ok: output.status.success(), info, result, told }
    }

    #[track_caller]
    pub(crate) fn refused_for(self, why: &str) {
        let exit_file = self.info.with_file_name("backup.info.exit");
        let is_backup = self.info.to_str().unwrap().contains("backupData");
        let done = self.run();
        assert!(!done.ok && done.told.contains(why), "{why:?} is not in\n{}", done.told);
        assert_eq!(exit_file.exists(), is_backup);
        assert!(!done.told.contains("correct-horse"), "a password");
    }
}

#[track_caller]
pub(crate) fn wait(info: &Path, done: &dyn Fn(&Value) -> bool) -> Value {
    let began = Instant::now();
    loop {
        let told: Value = fs::read(info).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        if done(&told) {
            return told;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{told}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The block behind `bash -c` of an action.
fn script(text: &str, phase: &str) -> String {
    let action = text.find(&format!(" {phase}:")).unwrap();
    let block = &text[action..][text[action..].find("- |\n").unwrap() + 4..];
    let indent = block.len() - block.trim_start_matches(' ').len();
    let of_block = |line: &&str| line.is_empty() || line.starts_with(&" ".repeat(indent));
    let lines = block.lines().take_while(of_block).map(|line| line.get(indent..).unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// The values under `env`.
fn defaults(text: &str) -> Vec<(String, String)> {
    let pair = |line: &str| {
        let (name, value) = line.trim().strip_prefix("- {name: ")?.strip_suffix('}')?.split_once(", value: ")?;
        Some((name.to_owned(), value.trim_matches('"').to_owned()))
    };
    text.lines().filter_map(pair).collect()
}
