//! What the archivers of all engines share: where the server is, the times that can be reached, the result file, trying again, and
//! objects that are whole or not there.

pub(crate) mod objects;
pub(crate) mod report;
pub(crate) mod retry;
pub(crate) mod server;
pub(crate) mod spool;
pub(crate) mod window;
