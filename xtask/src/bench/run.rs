//! One measured run of a program.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

/// How long it took, and the most memory it held.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    pub time: Duration,
    /// Peak resident memory in KiB, as the kernel last told before the program ended.
    pub peak: u64,
}

/// Runs `command` to its end.
pub(super) fn measure(command: &mut Command) -> Result<Measured> {
    let begin = Instant::now();
    let mut child = command.stdin(Stdio::null()).spawn().with_context(|| format!("cannot run {command:?}"))?;
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    let code = loop {
        if let Some(now) = std::fs::read_to_string(&status).ok().as_deref().and_then(high_water) {
            peak = peak.max(now);
        }
        if let Some(code) = child.try_wait()? {
            break code;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    ensure!(code.success(), "{command:?} ended with {code}");
    Ok(Measured { time: begin.elapsed(), peak })
}

fn high_water(status: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().strip_suffix(" kB")?.parse().ok()
}
