//! The mover as its users run it: the binary, real servers, real databases. One program for all of it: linked once, and what one test
//! waits for leaves time for another.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "these are tests; one that cannot go on says so by ending"
)]

mod common;
mod properties;

mod actionsets;
mod backup;
mod columns;
mod conformance;
mod contract;
mod credentials;
mod damage;
mod faults;
mod files;
mod formats;
mod ftp;
mod kill;
mod mariadb_actionsets;
mod memory;
mod mysql;
mod network;
mod peers;
mod postgres;
mod record;
mod recovery;
mod redis;
mod redis_actionsets;
mod s3;
mod serve;
mod sftp;
mod vectors;
mod verify;
