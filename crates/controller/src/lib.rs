//! The operator: turns kbbackup objects into work and statuses.
//!
//! Each kind has its rooms: `observe` reads the cluster, `decide` and `build` are pure, `apply` writes children, `status`
//! writes conditions. The controller links no object store; it meets the mover in [`kbbackup_core::contract`].

#![cfg_attr(test, allow(clippy::needless_pass_by_value, reason = "tests hand over what they have just written"))]

pub mod actionset;
pub mod backup;
pub mod catalogue;
pub mod cli;
pub mod cluster;
pub mod context;
pub mod error;
pub mod exec;
#[cfg(test)]
mod fake;
pub mod http;
pub mod lease;
pub mod log;
pub mod metrics;
pub mod policy;
pub mod policy_template;
pub mod pool;
pub mod populator;
pub mod provider;
pub mod rbac;
pub mod repo;
pub mod report;
pub mod restore;
pub mod run;
pub mod schedule;
pub mod settings;
pub mod status;
pub mod template;
pub mod watch;
pub mod worker;
