//! `MariaDB` and `MySQL`: their binary log, streamed into a repository and read back from there.
//!
//! `MYSQL.md` beside `FORMAT.md` describes the layout and the rules.

pub(crate) mod archive;
mod client;
mod events;
pub(crate) mod fetch;
pub(crate) mod gtid;
mod names;
mod replay;
mod shelf;

/// Why such a log is not archived.
const TAGS: &str = "there are GTIDs with tags, which are not supported: leave the tag out of gtid_next";

pub(crate) use client::{Security, Target};
pub(crate) use names::Place;
pub(crate) use replay::Target as ReplayTarget;
