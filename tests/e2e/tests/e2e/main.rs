//! The end-to-end tests: a real API server, real containers, real PostgreSQL, real object stores.
//!
//! `cargo xtask test e2e` brings up what they need and runs them; they fail where it is missing.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "these are tests; allow-in-tests does not see their helpers"
)]

mod binlog_pitr;
mod branches;
mod chains;
mod chaos;
mod command_line;
mod continuous;
mod deletion;
mod dry_run;
mod etcd;
mod examples;
mod exit_codes;
mod failures;
mod files;
mod hooks;
mod in_place;
mod interop;
mod kubeblocks;
mod lists;
mod main_job;
mod mariadb;
mod moments;
mod mysql;
mod namespaces;
mod pitr;
mod plugin;
mod populator;
mod recipes;
mod recovery;
mod redis;
mod redis_pitr;
mod replicas;
mod repos;
mod schedule;
mod secrets;
mod snapshot_pitr;
mod snapshots;
mod sweep;
mod tls;
mod upgrade;
mod volumes;
mod walk;

use anyhow::Result;
use kbbackup_testing::kubectl::Kubectl;
use kbbackup_testing::namespace::TempNamespace;

/// The cluster under test and a namespace for `test`.
fn begin(test: &str) -> Result<(Kubectl, TempNamespace)> {
    let cluster = Kubectl::from_env()?;
    let space = TempNamespace::new(&cluster, test)?;
    Ok((cluster, space))
}
