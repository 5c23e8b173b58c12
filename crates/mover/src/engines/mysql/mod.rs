//! `MariaDB`: its binary log, streamed into a repository and read back from there.
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

pub(crate) use client::{Security, Target};
pub(crate) use names::Place;
pub(crate) use replay::Target as ReplayTarget;
