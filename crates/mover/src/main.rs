//! The data mover. Installed in pods under the name `datasafed`, whose command line it keeps.

mod args;
mod codec;
mod commands;
mod config;
mod engines;
mod error;
mod fold;
mod glob;
mod inventory;
mod manifest;
mod notes;
mod output;
mod pool;
mod relay;
mod repo;
mod rpath;
mod serve;
mod signal;
mod sort;
mod storage;
mod stream;
mod termination;
#[cfg(test)]
mod testing;
mod trust;

use std::io::Write;

use error::{Cause, Error, Result};
use kbbackup_core::contract::exit;

fn main() {
    let args = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    let (command, args) = args::split_command(args);
    let failed = commands::failed(command.as_deref(), &args);
    // A panic has an exit code of its own, which whoever waits for `failed` would take for an answer.
    let outcome = std::panic::catch_unwind(|| run(command, args))
        .unwrap_or_else(|_| Err(Error::other("this is a fault of the program, see above")));
    // Threads that still wait for input must not keep the process.
    std::process::exit(match outcome {
        Ok(()) => 0,
        Err(Error { cause: Cause::BrokenPipe, .. }) => 128 + 13,
        Err(Error { cause: Cause::Killed(signal), .. }) => 128 + signal,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "Error: {error}");
            if error.is(Cause::LogEnds) { exit::FAILED } else { failed }
        }
    })
}

fn run(command: Option<String>, args: Vec<String>) -> Result<()> {
    if let Some(arg) = std::env::args_os().find(|arg| arg.to_str().is_none()) {
        return Err(Error::other(format!("{} is not UTF-8", arg.display())));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Error::other(format!("the runtime cannot start: {error}")))?;
    runtime.block_on(commands::run(command, args))
}
