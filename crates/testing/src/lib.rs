//! What the demo and the end-to-end tests share.
//!
//! Everything is driven through `kubectl`, as a person would: [`kubectl::Kubectl`] runs it (and so `kubectl kbbackup`),
//! [`namespace::TempNamespace`] gives a test its own namespace and explains a failure before it cleans up,
//! [`postgres`] is a database under load and [`ledger`] the oracle that says what a restore must contain. [`terminal`] is for what
//! asks questions.

pub mod examples;
pub mod fixtures;
pub mod kubectl;
pub mod ledger;
pub mod lsn;
pub mod main_job;
pub mod mysql;
pub mod namespace;
pub mod postgres;
pub mod s3;
#[cfg(unix)]
pub mod terminal;
#[cfg(unix)]
pub mod walk;
