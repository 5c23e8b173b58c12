//! A mover in a cage: a control group that kills it when it takes too much.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// A control group with a limit, of version 2 or 1; none where this process may not make one.
struct Group(Option<PathBuf>);

impl Group {
    fn new(limit: u64) -> Self {
        let name = format!("kbbackup-test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::SeqCst));
        for (root, file, swap) in [
            ("/sys/fs/cgroup", "memory.max", "memory.swap.max"),
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.swappiness"),
        ] {
            let dir = PathBuf::from(root).join(&name);
            if fs::create_dir(&dir).is_err() {
                continue;
            }
            let group = Self(Some(dir.clone()));
            if fs::write(dir.join(file), limit.to_string()).is_ok() {
                // Without this a machine with swap would only become slow.
                let _ = fs::write(dir.join(swap), "0");
                return group;
            }
        }
        super::not_tried("a control group cannot be made, so memory is only measured");
        Self(None)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(dir) = &self.0 {
            let _ = fs::remove_dir(dir);
        }
    }
}

/// The most that a process has had in memory, in KiB; none when it has ended.
fn resident(status: &str) -> Option<u64> {
    let text = fs::read_to_string(status).ok()?;
    text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().split(' ').next()?.parse().ok()
}

/// A caged process.
pub(crate) struct Caged {
    child: Child,
    limit: u64,
    group: Group,
    peak: JoinHandle<u64>,
}

impl Caged {
    /// Starts a command in a cage of so many bytes. What stands behind `command` goes to a shell, which may feed it.
    pub(crate) fn start(command: &str, env: &[(&str, &str)], limit: u64) -> Self {
        let group = Group::new(limit);
        let enter =
            group.0.as_ref().map_or_else(String::new, |dir| format!("echo $$ > {}/cgroup.procs; ", dir.display()));
        let child = Command::new("bash")
            .args(["-c", &format!("{enter}exec {command}")])
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let status = format!("/proc/{}/status", child.id());
        // Ends with the process.
        let peak = thread::spawn(move || {
            let mut peak = 0;
            while let Some(now) = resident(&status) {
                peak = now.max(peak);
                thread::sleep(Duration::from_millis(20));
            }
            peak
        });
        Self { child, limit, group, peak }
    }

    pub(crate) fn terminate(&self) {
        assert!(Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap().success());
    }

    /// Waits for its end. Returns how it ended and the most that was resident, in KiB.
    pub(crate) fn end(mut self) -> (ExitStatus, u64) {
        let ended = self.child.wait().unwrap();
        let peak = self.peak.join().unwrap();
        drop(self.group);
        assert!(peak << 10 <= self.limit, "{peak} KiB were resident");
        (ended, peak)
    }

    #[track_caller]
    pub(crate) fn succeeds(self) -> u64 {
        let (ended, peak) = self.end();
        assert!(ended.success(), "{ended}: at most {peak} KiB were resident");
        peak
    }
}
