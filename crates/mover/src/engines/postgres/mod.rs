//! `PostgreSQL`: its write-ahead log, streamed into a repository and read back from there.
//!
//! `POSTGRES.md` beside `FORMAT.md` describes the layout and the rules.

pub(crate) mod archive;
mod client;
mod content;
pub(crate) mod fetch;
mod position;
mod records;

pub(crate) use client::Target;
