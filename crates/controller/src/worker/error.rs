//! What can go wrong with a backup or a restore, and whether waiting helps.

use std::time::Duration;

use crate::error::{Class, Classified, Unreadable, is_conflict};

/// Why a backup or restore cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Waiting does not help.
    #[error("{0}")]
    Fatal(String),
    /// It may come right by itself; if it has not for `patience`, it is fatal.
    #[error("{why}")]
    NotYet {
        /// In words, for people.
        why: String,
        /// How long to try, counted from the moment the work could have begun.
        patience: Duration,
    },
}

/// Objects that are created together with a backup or restore may arrive after it.
pub const SOON: Duration = Duration::from_secs(10);
/// Pods that are being created or moved.
pub const A_WHILE: Duration = Duration::from_secs(60);
/// Repositories that are being checked, databases that are starting.
pub const LONG: Duration = Duration::from_secs(3600);

impl Refusal {
    /// For what an edit must mend.
    #[expect(clippy::needless_pass_by_value, reason = "texts and errors come in alike")]
    pub fn fatal(why: impl ToString) -> Self {
        Self::Fatal(why.to_string())
    }

    /// For what may come right within `patience`.
    #[expect(clippy::needless_pass_by_value, reason = "texts and errors come in alike")]
    pub fn not_yet(patience: Duration, why: impl ToString) -> Self {
        Self::NotYet { why: why.to_string(), patience }
    }

    /// The reason to fail now, `waited` after the work could have begun; `None` while it may still come right.
    pub fn due(&self, waited: Duration) -> Option<String> {
        match self {
            Self::Fatal(why) => Some(why.clone()),
            Self::NotYet { why, patience } if waited >= *patience => {
                Some(format!("{why} (waited for {})", kbbackup_core::gotime::duration(waited.as_secs())))
            }
            Self::NotYet { .. } => None,
        }
    }
}

/// An error of the controllers of backups and restores.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object does not fit its type.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// It cannot go on; the driver decides what that means.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The API server said no, or nothing.
    #[error("{doing}")]
    Api {
        /// What was being done.
        doing: String,
        /// The answer.
        #[source]
        source: kube::Error,
    },
}

impl Error {
    /// True when somebody else wrote first: look again at once.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Api { source, .. } if is_conflict(source))
    }
}

impl Classified for Error {
    fn class(&self) -> Class {
        match self {
            Self::Unreadable(_) => Class::Invalid,
            Self::Refused(_) => Class::NotYet,
            // What we ask for is computed anew each time, so no answer is final.
            Self::Api { .. } => Class::Trouble,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "Unreadable",
            Self::Refused(_) => "Refused",
            Self::Api { .. } => "ReconcileFailed",
        }
    }
}

/// Adds what was being done to an answer of the API server.
pub trait Doing<T> {
    /// The result with its story.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> Doing<T> for kube::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::Api { doing: what(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_ends() {
        let refusal = Refusal::not_yet(SOON, "policy p does not exist");
        assert_eq!(refusal.due(Duration::from_secs(9)), None);
        assert_eq!(refusal.due(Duration::from_secs(10)).unwrap(), "policy p does not exist (waited for 10s)");
        assert_eq!(Refusal::fatal("no").due(Duration::ZERO).unwrap(), "no");
    }
}
