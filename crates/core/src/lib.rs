//! The rules of kbbackup: pure values and functions.
//!
//! Nothing here knows Kubernetes, reads a clock or does I/O. What controller, mover and plugin must agree on stands in
//! [`contract`]; where things lie in a repository in [`layout`]; how derived objects are called in [`names`].

#![warn(missing_docs)]

pub mod accounts;
pub mod archive;
pub mod catalogue;
pub mod chain;
pub mod contract;
pub mod cron;
pub mod env;
pub mod gotime;
pub mod layout;
pub mod names;
pub mod parameters;
pub mod pattern;
pub mod pitr;
pub mod retention;
