//! `kubectl kbbackup`: back up and restore databases on Kubernetes.

// Doc comments of arguments are the help text, read in a terminal, where back-ticks are noise.
#![allow(clippy::doc_markdown)]
// `json!` literals read better by value.
#![cfg_attr(test, allow(clippy::needless_pass_by_value))]

mod app;
mod args;
mod ask;
mod build;
mod commands;
mod complete;
mod detect;
mod diagnose;
mod editor;
mod equivalent;
mod errand;
mod error;
mod exit;
mod follow;
mod install;
mod kubeconfig;
mod manifest;
mod moment;
mod output;
mod patch;
mod provider_flags;
mod recoverable;
#[cfg(test)]
mod reference;
mod remedy;
mod rows;
mod source;
#[cfg(test)]
mod spoken;
mod ui;
mod wait;

use std::{env, path::Path, process::ExitCode};

use clap::{CommandFactory, FromArgMatches};

use crate::{args::Cli, error::CliError, exit::Exit, ui::Ui};

fn main() -> ExitCode {
    let mut words: Vec<_> = env::args_os().collect();
    let called =
        words.first().and_then(|path| Path::new(path).file_name()).unwrap_or_default().to_string_lossy().into_owned();
    if called.starts_with("kubectl_complete-") {
        Ui::new(args::Color::Never, true).result(&complete::run(words.get(1..).unwrap_or_default()));
        return Exit::Done.into();
    }
    let mut command = Cli::command();
    if !called.starts_with("kubectl-") && !called.is_empty() {
        // Started by another name: help shows that one.
        command = command.bin_name(called.trim_end_matches(".exe"));
        if let Some(first) = words.first_mut() {
            *first = called.clone().into();
        }
    }
    let cli = match command.try_get_matches_from(words).and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() };
        }
    };
    let ui = Ui::new(cli.globals.color, cli.globals.no_input).within(cli.globals.namespace.clone());
    log(cli.globals.verbosity);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            ui.error(&CliError::refused("the program cannot start", error.to_string()));
            return Exit::Refused.into();
        }
    };
    let ended = runtime.block_on(async {
        tokio::select! {
            ended = commands::run(&ui, &cli) => ended,
            // Waiting has a Ctrl-C of its own that says what goes on; this one is for everything else.
            () = interrupted(&ui) => Ok(Exit::Interrupted),
        }
    });
    ui.clear();
    // A task that still reads must not hold the prompt.
    runtime.shutdown_background();
    match ended {
        Ok(exit) => {
            // Who waits at the end has told it before.
            ui.equivalent();
            exit.into()
        }
        Err(error) => {
            ui.error(&error);
            error.exit.into()
        }
    }
}

/// The second Ctrl-C, or the first that no command takes for itself.
async fn interrupted(ui: &Ui) {
    loop {
        let _ = tokio::signal::ctrl_c().await;
        if !ui.has_lent_terminal() {
            break;
        }
    }
    // Give a wait the chance to explain itself.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
}

/// From 6 on the client's requests are logged to standard error; bodies never are, as they may hold Secrets.
fn log(verbosity: u8) {
    use tracing_subscriber::{
        filter::{LevelFilter, Targets},
        layer::SubscriberExt,
        util::SubscriberInitExt,
    };
    if verbosity < 6 {
        return;
    }
    let level = if verbosity >= 9 { LevelFilter::TRACE } else { LevelFilter::DEBUG };
    let only = Targets::new().with_target("kube_client", level).with_target("kube_runtime", level);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    let _ = tracing_subscriber::registry().with(only).with(lines).try_init();
}
