//! Sessions one after another, until somebody asks to stop or only somebody else can help.

use std::time::Duration;

use crate::error::{Cause, Result};
use crate::output;
use crate::signal::Stop;

/// So often in a row a session may fail that stored nothing; then the pod says why, and starts anew.
const FAILURES: u32 = 10;
/// The longest wait between two of them.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// What runs in sessions.
pub(crate) trait Sessions {
    /// One connection's worth of archiving. Whether it was a signal that ended it.
    ///
    /// # Errors
    /// When the server or the repository fails.
    async fn session(&mut self, stop: &mut Stop) -> Result<bool>;

    /// How many objects this process has stored.
    fn stored(&self) -> u64;
}

/// Archives until a signal.
///
/// # Errors
/// What only somebody else can repair, or what did not pass by itself.
pub(crate) async fn run(archiver: &mut impl Sessions) -> Result<()> {
    let mut stop = Stop::listen()?;
    let (mut failures, mut wait) = (0, Duration::from_secs(1));
    loop {
        let before = archiver.stored();
        let error = match archiver.session(&mut stop).await {
            Ok(true) => return Ok(()),
            Ok(false) => continue,
            Err(error) => error,
        };
        if matches!(error.cause, Cause::AccessDenied | Cause::Exists | Cause::Sealed | Cause::Tls) {
            return Err(error);
        }
        if archiver.stored() > before {
            (failures, wait) = (0, Duration::from_secs(1));
        }
        failures += 1;
        if failures >= FAILURES {
            return Err(error.within(format!("given up after {failures} tries")));
        }
        output::note(&format!("NOTICE: {error}; next try in {} s", wait.as_secs()));
        tokio::select! {
            _ = stop.asked() => return Ok(()),
            () = tokio::time::sleep(wait) => {}
        }
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}
