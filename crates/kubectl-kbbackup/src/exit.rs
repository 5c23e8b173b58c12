//! Exit codes, the whole list.

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done; with `--wait`: finished well.
    Done = 0,
    /// The API or the network refused, or anything not listed.
    Refused = 1,
    /// Wrong usage, or a value that fails validation. Nothing was sent.
    Usage = 2,
    /// A named object does not exist. Nothing was changed.
    NotFound = 3,
    /// The awaited operation ended badly, or a check failed.
    Failed = 4,
    /// `--timeout` ran out; the operation goes on.
    Timeout = 5,
    /// Confirmation was needed and not given. Nothing was changed.
    Unconfirmed = 6,
    /// Prerequisites are missing: definitions, operator. Nothing was changed.
    Missing = 7,
    /// Interrupted; the operation goes on.
    Interrupted = 130,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
