//! Being asked to stop.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::{Cause, Error, Result};

/// The signals that end a transfer: what was begun is taken back before the process ends.
pub(crate) struct Stop {
    terminate: Signal,
    interrupt: Signal,
    /// The one that came. Who has been asked stays asked, whatever fails on the way out.
    came: Option<i32>,
}

impl Stop {
    /// Begins to listen; the signals lose their default effect.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn listen() -> Result<Self> {
        let on = |kind| signal(kind).map_err(|error| Error::other(format!("signals cannot be received: {error}")));
        Ok(Self { terminate: on(SignalKind::terminate())?, interrupt: on(SignalKind::interrupt())?, came: None })
    }

    /// Waits for a signal.
    pub(crate) async fn asked(&mut self) -> Error {
        let number = if let Some(number) = self.came {
            number
        } else {
            tokio::select! {
                _ = self.terminate.recv() => 15,
                _ = self.interrupt.recv() => 2,
            }
        };
        self.came = Some(number);
        Error::new(Cause::Killed(number), format!("stopped by signal {number}"))
    }
}
