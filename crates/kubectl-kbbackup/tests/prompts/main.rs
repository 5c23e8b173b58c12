//! The plugin against an API server that knows a few objects: questions as a person meets them, on a pseudo-terminal, and what it does
//! where nobody can be asked.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic)] // A test that cannot go on says so by ending.

mod api;
mod backup;
mod changes;
mod delete;
mod edit;
mod in_place;
mod list;
mod repo;
mod restore;
mod safe;
mod schedule;
mod terminal;
mod upgrade;
mod walk;
mod world;

/// Keys.
const ENTER: &str = "\r";
const DOWN: &str = "\x1b[B";
const CTRL_C: &str = "\x03";
