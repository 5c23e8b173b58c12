//! One measured run of a program.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

/// How long it took, how long it computed, and the most memory it held.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    pub time: Duration,
    /// Of the program and of the children that it waited for, in user and in system mode.
    pub cpu: Duration,
    /// Peak resident memory in KiB, as the kernel last told before the program ended.
    pub peak: u64,
}

/// Runs `command` to its end.
pub(super) fn measure(command: &mut Command) -> Result<Measured> {
    let begin = Instant::now();
    let mut child = command.stdin(Stdio::null()).spawn().with_context(|| format!("cannot run {command:?}"))?;
    let proc = format!("/proc/{}", child.id());
    let id = WaitId::Pid(Pid::from_child(&child));
    // The process stays until its times are read: they outlive its memory, which is asked for all along.
    let ended = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    let mut peak = 0;
    while waitid(id.clone(), ended)?.is_none() {
        if let Some(now) = std::fs::read_to_string(format!("{proc}/status")).ok().as_deref().and_then(high_water) {
            peak = peak.max(now);
        }
        std::thread::sleep(Duration::from_millis(3));
    }
    let time = begin.elapsed();
    let stat = std::fs::read_to_string(format!("{proc}/stat"))?;
    let code = child.wait()?;
    ensure!(code.success(), "{} {:?} ended with {code}", command.get_program().display(), command.get_args());
    let ticks = ticks(&stat).with_context(|| format!("not a process's numbers: {stat}"))?;
    let cpu = Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64);
    Ok(Measured { time, cpu, peak })
}

fn high_water(status: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().strip_suffix(" kB")?.parse().ok()
}

/// The sum of fields 14 to 17: user and system time, its own and its children's.
fn ticks(stat: &str) -> Option<u64> {
    // The name in the second field may hold anything, blanks and brackets too.
    let (_, fields) = stat.rsplit_once(')')?;
    let numbers = fields.split_whitespace().skip(11).take(4).map(|field| field.parse::<u64>().ok());
    numbers.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_measured_with_its_children() {
        let mut command = Command::new("sh");
        command.args(["-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; sleep 0.1"]);
        let one = measure(&mut command).unwrap();
        assert!(one.time >= Duration::from_millis(100) && one.cpu > Duration::ZERO && one.peak > 0, "{one:?}");
        assert!(measure(Command::new("sh").args(["-c", "exit 3"])).is_err());
    }

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        assert_eq!(ticks("7 (a) b) S 1 7 7 0 -1 4 5 6 7 8 100 20 3 4 20 0 1"), Some(127));
    }
}
