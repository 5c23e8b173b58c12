//! What went wrong, to what, why, and what to try next.

use crate::exit::Exit;

pub(crate) type Result<T, E = CliError> = std::result::Result<T, E>;

/// An error as a person sees it: `error: <what> — <why>`, then hints.
#[derive(Debug)]
pub(crate) struct CliError {
    pub exit: Exit,
    pub what: String,
    pub why: String,
    pub hints: Vec<String>,
}

impl CliError {
    pub(crate) fn new(exit: Exit, what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { exit, what: what.into(), why: why.into(), hints: Vec::new() }
    }

    /// A value that cannot be accepted; nothing was sent.
    pub(crate) fn usage(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(Exit::Usage, what, why)
    }

    /// An object that was named and does not exist.
    pub(crate) fn not_found(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(Exit::NotFound, what, why)
    }

    pub(crate) fn missing(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(Exit::Missing, what, why)
    }

    pub(crate) fn failed(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(Exit::Failed, what, why)
    }

    pub(crate) fn refused(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(Exit::Refused, what, why)
    }

    /// Adds a line that says what to try next, usually a command to copy.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}

/// Gives an error of the client its "what": the operation that was refused.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Doing<T> for std::result::Result<T, kube::Error> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| from_kube(what(), &error))
    }
}

fn from_kube(what: String, error: &kube::Error) -> CliError {
    match error {
        kube::Error::Api(status) if is_unserved(status) => {
            CliError::missing(what, "this cluster does not serve kbbackup's resources").hint("kubectl kbbackup install")
        }
        kube::Error::Api(status) if status.is_not_found() => CliError::not_found(what, server_message(status)),
        kube::Error::Api(status) => {
            let refused = CliError::refused(what, server_message(status));
            match status.code {
                401 => refused.hint("kubectl auth whoami"),
                403 => refused.hint("kubectl kbbackup doctor"),
                _ => refused,
            }
        }
        kube::Error::HyperError(_) | kube::Error::Service(_) => {
            CliError::refused(what, format!("the API server cannot be reached: {}", root_cause(error)))
                .hint("kubectl cluster-info")
        }
        kube::Error::Auth(_) => CliError::refused(what, format!("no credentials: {}", root_cause(error))),
        _ => CliError::refused(what, root_cause(error)),
    }
}

/// The server answers so when a whole kind is unknown, and otherwise for a named object.
fn is_unserved(status: &kube::core::Status) -> bool {
    status.code == 404
        && (status.message.trim() == "404 page not found"
            || status.message.contains("could not find the requested resource"))
}

fn server_message(status: &kube::core::Status) -> String {
    if status.message.is_empty() { format!("HTTP {} {}", status.code, status.reason) } else { status.message.clone() }
}

/// The innermost causes of an error on one line, without saying the same twice.
pub(crate) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    let mut parts: Vec<String> = Vec::new();
    while let Some(source) = innermost.source() {
        innermost = source;
        parts.push(innermost.to_string());
    }
    match parts.pop() {
        Some(text) => text,
        None => error.to_string(),
    }
}

impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> Self {
        let exit = if error.kind() == std::io::ErrorKind::Interrupted { Exit::Interrupted } else { Exit::Refused };
        Self::new(exit, "the terminal or a file could not be used", error.to_string())
    }
}

impl From<serde_json::Error> for CliError {
    fn from(error: serde_json::Error) -> Self {
        Self::refused("an object could not be written as JSON", error.to_string())
    }
}

/// For errors of kube's own tasks (watches) that wrap a client error.
pub(crate) fn from_watch(what: String, error: &kube::runtime::watcher::Error) -> CliError {
    use kube::runtime::watcher::Error;
    match error {
        Error::InitialListFailed(source) | Error::WatchStartFailed(source) | Error::WatchFailed(source) => {
            from_kube(what, source)
        }
        Error::WatchError(status) => CliError::refused(what, server_message(status)),
        Error::NoResourceVersion => CliError::refused(what, "the server gave no resource version"),
    }
}

impl std::fmt::Display for CliError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} — {}", self.what, self.why)
    }
}

impl std::error::Error for CliError {}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    fn api(code: u16, message: &str, reason: &str) -> kube::Error {
        kube::Error::Api(Status::failure(message, reason).with_code(code).boxed())
    }

    #[test]
    fn an_unknown_kind_is_a_missing_installation() {
        let error = from_kube("backups cannot be listed".into(), &api(404, "404 page not found\n", "NotFound"));
        assert_eq!(error.exit, Exit::Missing);
        assert_eq!(error.hints, ["kubectl kbbackup install"]);
    }

    #[test]
    fn a_named_object_that_is_not_there_is_exit_3() {
        let error =
            from_kube("backup/x".into(), &api(404, "backups.dataprotection.kubeblocks.io \"x\" not found", "NotFound"));
        assert_eq!(error.exit, Exit::NotFound);
    }

    #[test]
    fn the_server_s_words_are_kept_in_full() {
        let error = from_kube(
            "backup/x cannot be created".into(),
            &api(403, "User \"joe\" cannot create resource", "Forbidden"),
        );
        assert_eq!(error.to_string(), "backup/x cannot be created — User \"joe\" cannot create resource");
        assert_eq!(error.exit, Exit::Refused);
    }
}
