//! The long-running archivers of database logs, one folder an engine. Everything else about an engine is data: an `ActionSet`.

pub(crate) mod log;
pub(crate) mod mysql;
pub(crate) mod postgres;
pub(crate) mod redis;
