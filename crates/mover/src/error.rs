//! One error type for the whole mover: a sentence for people and a cause for programs.

use std::fmt;
use std::io;
use std::path::Path;

/// Why something failed, as far as a program can act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    NotFound,
    IsDirectory,
    NotDirectory,
    NotEmpty,
    Exists,
    AccessDenied,
    ReadOnly,
    NoSpace,
    NoSuchBucket,
    WrongRegion,
    ClockSkew,
    Unreachable,
    Dns,
    Tls,
    Damaged,
    Sealed,
    /// The repository has answered, and the log ends here.
    LogEnds,
    /// The reader of our output has gone; nothing is printed.
    BrokenPipe,
    /// A signal asked us to stop.
    Killed(i32),
    Other,
}

impl Cause {
    /// The stable word of a report.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::NotFound => "NotFound",
            Self::IsDirectory => "IsDirectory",
            Self::NotDirectory => "NotDirectory",
            Self::NotEmpty => "NotEmpty",
            Self::Exists => "Exists",
            Self::AccessDenied => "AccessDenied",
            Self::ReadOnly => "ReadOnly",
            Self::NoSpace => "NoSpace",
            Self::NoSuchBucket => "NoSuchBucket",
            Self::WrongRegion => "WrongRegion",
            Self::ClockSkew => "ClockSkew",
            Self::Unreachable => "Unreachable",
            Self::Dns => "Dns",
            Self::Tls => "Tls",
            Self::Damaged => "Damaged",
            Self::Sealed => "Sealed",
            Self::LogEnds => "LogEnds",
            Self::BrokenPipe => "BrokenPipe",
            Self::Killed(_) => "Killed",
            Self::Other => "Failed",
        }
    }
}

/// A failure: what [`fmt::Display`] prints stands behind `Error: ` on the last line of standard error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Error {
    pub(crate) cause: Cause,
    pub(crate) text: String,
}

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn new(cause: Cause, text: impl Into<String>) -> Self {
        Self { cause, text: text.into() }
    }

    pub(crate) fn other(text: impl Into<String>) -> Self {
        Self::new(Cause::Other, text)
    }

    /// `verb path: reason`, the form in which scripts' logs know file errors.
    pub(crate) fn file(verb: &str, path: &Path, error: &io::Error) -> Self {
        Self::new(cause_of(error), format!("{verb} {}: {}", path.display(), reason(error)))
    }

    /// Puts `prefix: ` in front.
    pub(crate) fn within(mut self, prefix: impl fmt::Display) -> Self {
        self.text = format!("{prefix}: {}", self.text);
        self
    }

    pub(crate) fn is(&self, cause: Cause) -> bool {
        self.cause == cause
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {}

/// Cause of an operating system error.
pub(crate) fn cause_of(error: &io::Error) -> Cause {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::NotFound => Cause::NotFound,
        Kind::PermissionDenied => Cause::AccessDenied,
        Kind::IsADirectory => Cause::IsDirectory,
        Kind::NotADirectory => Cause::NotDirectory,
        Kind::DirectoryNotEmpty => Cause::NotEmpty,
        Kind::AlreadyExists => Cause::Exists,
        Kind::ReadOnlyFilesystem => Cause::ReadOnly,
        Kind::StorageFull | Kind::QuotaExceeded => Cause::NoSpace,
        Kind::BrokenPipe => Cause::BrokenPipe,
        _ => Cause::Other,
    }
}

/// The words of the C library for an error number, lower case, without a number behind them: what scripts' logs show.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_errors_read_like_the_contract() {
        let error = std::fs::File::open("/nonexistent/file").unwrap_err();
        assert_eq!(reason(&error), "no such file or directory");
        assert_eq!(
            Error::file("open", Path::new("x"), &error).within("push").to_string(),
            "push: open x: no such file or directory"
        );
    }
}
