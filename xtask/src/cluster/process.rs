//! Processes that outlive xtask: one pid file and one log file each.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal};

use super::cache::Key;
use super::paths::State;
use super::sh;

/// A program to keep running.
pub(crate) struct Daemon {
    pub name: &'static str,
    pub program: PathBuf,
    pub args: Vec<String>,
    /// Files read at start: a change restarts the daemon.
    pub config: Vec<PathBuf>,
}

/// Identity of a running process. The start time tells it from a later process with the same number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Running {
    pub pid: i32,
    started: u64,
    fingerprint: String,
}

impl Daemon {
    /// Starts it unless it runs already in the same shape. Returns whether it was started.
    pub(crate) fn ensure(&self, state: &State) -> Result<bool> {
        let fingerprint = self.fingerprint()?;
        if let Some(running) = running(state, self.name) {
            if running.fingerprint == fingerprint {
                return Ok(false);
            }
            stop(state, self.name, Duration::from_secs(20))?;
        }
        // A run killed between start and pid file leaves a process nobody knows, on the port this one needs.
        for stray in all()?.iter().filter(|one| self.is_the_same_as(one)) {
            end(stray.pid, Duration::from_secs(20))?;
        }
        fs::create_dir_all(state.join("pids"))?;
        fs::create_dir_all(state.join("logs"))?;
        let log = OpenOptions::new().create(true).append(true).open(state.log(self.name))?;
        // setsid makes the process independent of this terminal and keeps the process number.
        let mut command = sh::command("setsid", [&self.program]);
        command.args(&self.args).current_dir("/").stdout(log.try_clone()?).stderr(log);
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        let child = command.spawn().with_context(|| format!("cannot start {}", self.program.display()))?;
        let pid = i32::try_from(child.id())?;
        let started = start_time(pid).with_context(|| self.ended(state))?;
        let text = format!("{pid}\n{started}\n{fingerprint}\n");
        let temporary = state.join("pids").join(format!(".{}.new", self.name));
        fs::write(&temporary, text)?;
        fs::rename(temporary, pid_file(state, self.name))?;
        Ok(true)
    }

    fn is_the_same_as(&self, other: &Process) -> bool {
        let wanted = std::iter::once(self.program.to_string_lossy()).chain(self.args.iter().map(Into::into));
        other.command.iter().map(String::as_str).eq(wanted.collect::<Vec<_>>().iter().map(AsRef::as_ref))
    }

    /// Fails when the daemon is gone, with the end of its log.
    pub(crate) fn check(&self, state: &State) -> Result<()> {
        if running(state, self.name).is_none() {
            bail!("{}", self.ended(state));
        }
        Ok(())
    }

    fn ended(&self, state: &State) -> String {
        format!("{} has ended; {}", self.name, sh::tail(&state.log(self.name)))
    }

    fn fingerprint(&self) -> Result<String> {
        let mut key = Key::default().text(self.program.as_os_str().as_encoded_bytes()).text(self.args.join("\0"));
        for file in &self.config {
            key = key.file(file)?;
        }
        Ok(key.finish())
    }
}

/// What the pid file says, if that process is still the one meant.
pub(crate) fn running(state: &State, name: &str) -> Option<Running> {
    let found = parse(&fs::read_to_string(pid_file(state, name)).ok()?)?;
    (start_time(found.pid) == Some(found.started)).then_some(found)
}

/// Names of all daemons that have a pid file.
pub(crate) fn known(state: &State) -> Vec<String> {
    let Ok(entries) = fs::read_dir(state.join("pids")) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_string_lossy().strip_suffix(".pid").map(str::to_owned))
        .collect();
    names.sort();
    names
}

/// Ends it, politely first; returns when it is gone.
pub(crate) fn stop(state: &State, name: &str, patience: Duration) -> Result<()> {
    if let Some(found) = running(state, name) {
        end(found.pid, patience)?;
    }
    let _ = fs::remove_file(pid_file(state, name));
    Ok(())
}

/// Sends TERM, then KILL, to one process and waits until it is gone. A patience of zero kills at once.
pub(crate) fn end(pid: i32, patience: Duration) -> Result<()> {
    let Some(started) = start_time(pid) else { return Ok(()) };
    let target = Pid::from_raw(pid).context("a process number is positive")?;
    let gone = |limit: Duration| wait(limit, || start_time(pid) != Some(started));
    if !patience.is_zero() {
        let _ = rustix::process::kill_process(target, Signal::TERM);
        if gone(patience) {
            return Ok(());
        }
    }
    let _ = rustix::process::kill_process(target, Signal::KILL);
    anyhow::ensure!(gone(Duration::from_secs(10)), "process {pid} does not end");
    Ok(())
}

/// Waits until `done`; false when `limit` passed first.
pub(crate) fn wait(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if done() {
            return true;
        }
        if start.elapsed() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Ends daemons of this state that have no pid file. A daemon is a program of the caches, etcd or containerd that was
/// told about a file below the state folder.
pub(crate) fn end_strays(state: &State, caches: &Path) -> Result<()> {
    let root = format!("{}/", state.root().display());
    for one in all()? {
        let program = one.command.first().map(Path::new);
        let is_daemon = program.is_some_and(|program| {
            let is_kubectl = program.file_name().is_some_and(|name| name == "kubectl");
            let of_debian = ["/usr/bin/etcd", "/usr/bin/containerd"].iter().any(|known| program == Path::new(known));
            (program.starts_with(caches) && !is_kubectl) || of_debian
        });
        if is_daemon && one.command.iter().skip(1).any(|arg| arg.contains(&root)) {
            end(one.pid, Duration::ZERO)?;
        }
    }
    Ok(())
}

/// A process of the machine.
pub(crate) struct Process {
    pub pid: i32,
    pub parent: i32,
    pub command: Vec<String>,
}

/// All processes of the machine.
pub(crate) fn all() -> Result<Vec<Process>> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
        // A process may end while we look.
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let Ok(command) = fs::read(entry.path().join("cmdline")) else { continue };
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        let words = command.strip_suffix(&[0]).unwrap_or(&command).split(|byte| *byte == 0);
        all.push(Process {
            pid,
            parent: parent.unwrap_or(0),
            command: words.map(|word| String::from_utf8_lossy(word).into_owned()).collect(),
        });
    }
    Ok(all)
}

fn pid_file(state: &State, name: &str) -> PathBuf {
    state.join("pids").join(format!("{name}.pid"))
}

fn parse(text: &str) -> Option<Running> {
    let mut lines = text.lines();
    Some(Running {
        pid: lines.next()?.parse().ok()?,
        started: lines.next()?.parse().ok()?,
        fingerprint: lines.next()?.to_owned(),
    })
}

/// Clock ticks between boot and the start of a process; nothing for one that ended, even if it was not reaped yet.
fn start_time(pid: i32) -> Option<u64> {
    stat_start(&fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?)
}

fn stat_start(stat: &str) -> Option<u64> {
    // The name in parentheses may hold spaces; the fields after it are plain.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_behind_a_strange_name() {
        let fields: Vec<String> = (4..=52).map(|n| n.to_string()).collect();
        assert_eq!(stat_start(&format!("7 (a) b) S {}", fields.join(" "))), Some(22));
        assert_eq!(stat_start(&format!("7 (x) Z {}", fields.join(" "))), None);
    }

    #[test]
    fn a_process_that_ended_is_not_running() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert!(start_time(pid).is_some());
        end(pid, Duration::from_secs(5)).unwrap();
        assert!(start_time(pid).is_none());
        child.wait().unwrap();
    }

    #[test]
    fn a_daemon_knows_its_like() {
        let mut child = std::process::Command::new("/bin/sleep").args(["61"]).spawn().unwrap();
        let daemon = |args: &[&str]| Daemon {
            name: "sleep",
            program: "/bin/sleep".into(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            config: vec![],
        };
        let found = all().unwrap().into_iter().find(|one| one.pid.unsigned_abs() == child.id()).unwrap();
        assert!(daemon(&["61"]).is_the_same_as(&found));
        assert!(!daemon(&["61", "1"]).is_the_same_as(&found) && !daemon(&[]).is_the_same_as(&found));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_pid_file_of_an_earlier_boot_is_not_believed() {
        let found = parse("1\n18446744073709551615\nabc\n").unwrap();
        assert_ne!(start_time(found.pid), Some(found.started));
    }
}
