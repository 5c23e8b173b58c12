//! Objects as plain values: no client, no clock, no randomness in here.

pub(crate) mod backup;
pub(crate) mod import;
pub(crate) mod policy;
pub(crate) mod repo;
pub(crate) mod restore;
pub(crate) mod schedule;
