//! Redis and Valkey: their append-only file, followed into a repository and read back from there.
//!
//! `REDIS.md` beside `FORMAT.md` describes the layout and the rules.

pub(crate) mod archive;
mod base;
pub(crate) mod fetch;
mod manifest;
mod scan;
mod server;
mod shelf;

pub(crate) use server::{Security, Target};
