//! What the archivers of all engines are told in the same way.

use std::time::Duration;

use super::Context;
use crate::config::env;
use crate::error::{Error, Result};

/// A flag that is a number, and none below 0.
///
/// # Errors
/// When it is.
pub(super) fn number(context: &Context, name: &str, default: u64) -> Result<u64> {
    match context.args.text(name) {
        None => Ok(default),
        Some(text) => text.parse().map_err(|_| Error::other(format!("--{name}: {text:?} is less than 0"))),
    }
}

/// The same for what 0 switches off.
///
/// # Errors
/// The same.
pub(super) fn positive(context: &Context, name: &str, default: u64) -> Result<Option<u64>> {
    Ok(Some(number(context, name, default)?).filter(|number| *number > 0))
}

/// How often a quiet server's clock is stored; `None` for never.
///
/// # Errors
/// The same.
pub(super) fn heartbeat(context: &Context) -> Result<Option<Duration>> {
    Ok(positive(context, "heartbeat-seconds", 60)?.map(Duration::from_secs))
}

/// How long the log is kept, in seconds; `None` for ever.
///
/// # Errors
/// When the environment says no number.
pub(super) fn ttl() -> Result<Option<i64>> {
    let Some(text) = env("DP_TTL_SECONDS") else { return Ok(None) };
    let seconds: i64 =
        text.parse().map_err(|_| Error::other(format!("DP_TTL_SECONDS {text:?} is no number of seconds")))?;
    Ok((seconds > 0).then_some(seconds))
}
