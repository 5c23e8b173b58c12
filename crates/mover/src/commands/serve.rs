//! `serve`: the embedded S3 endpoint.

use super::Context;
use crate::args::{Flag, Takes, flag};
use crate::error::{Error, Result};

pub(super) const FLAGS: &[Flag] = &[flag("root", None, Takes::Text, "directory"), flag("listen", None, Takes::Text, "address")];

pub(super) async fn run(_context: Context) -> Result<()> {
    Err(Error::other("not here yet"))
}
