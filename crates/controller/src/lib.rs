//! The operator: turns kbbackup objects into work and statuses.
//!
//! Each kind has its rooms: `observe` reads the cluster, `decide` and `build` are pure, `apply` writes children, `status`
//! writes conditions. The controller links no object store; it meets the mover in [`kbbackup_core::contract`].

pub mod cli;
pub mod context;
pub mod error;
pub mod settings;
