//! What a person sees: progress on stderr, results on stdout. The only place of xtask that prints.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// A line of the result itself.
pub(crate) fn result(line: impl AsRef<str>) {
    println!("{}", line.as_ref());
}

/// A line about what is going on.
pub(crate) fn note(line: impl AsRef<str>) {
    eprintln!("            {}", line.as_ref());
}

pub(crate) fn error(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}

/// Runs one step and says how long it took. A failure carries the step's name.
pub(crate) fn step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let done = work();
    let mark = if done.is_ok() { "ok" } else { "FAILED" };
    eprintln!("{} {mark:>6}  {name}", seconds(start.elapsed()));
    done.with_context(|| format!("{name} failed"))
}

/// The same for a step that may take minutes: it is announced before it runs.
pub(crate) fn long_step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("            {name} …");
    step(name, work)
}

pub(crate) fn seconds(time: Duration) -> String {
    format!("{:6.1} s", time.as_secs_f64())
}
