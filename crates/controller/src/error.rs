//! Classes of errors, and how long to wait after each.

use std::time::Duration;

use kube::core::error_boundary::InvalidObject;

/// What an error means for the next try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Only an edit of the object, or of what it refers to, can help: wait for that change.
    Invalid,
    /// Something that is expected to come: no alarm; a watch wakes us, a slow look is the safety net.
    NotYet,
    /// The API or the network: try again, with growing waits.
    Trouble,
}

/// The object in the cluster does not fit its type: it was written past the definitions, or by a newer version.
#[derive(Debug, thiserror::Error)]
#[error("the object cannot be read: {0}; correct it, or update kbbackup")]
pub struct Unreadable(pub Box<InvalidObject>);

/// Errors that know their class.
pub trait Classified: std::error::Error {
    /// The class.
    fn class(&self) -> Class;
    /// A CamelCase word for events and metrics.
    fn reason(&self) -> &'static str;
}

/// Wait after the `failures`th failure in a row: doubles from 1 s to 5 min, with up to a quarter of jitter
/// (`jitter` in 0..1), so that objects that failed together do not come back together.
pub fn backoff(failures: u32, jitter: f64) -> Duration {
    let seconds = f64::from(1u32 << failures.saturating_sub(1).min(9)).min(300.0);
    Duration::from_secs_f64(seconds * (1.0 - jitter.clamp(0.0, 1.0) / 4.0))
}

/// True for API errors that say the object does not exist.
pub fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// The class of an API error: a request that the server finds invalid will be so again; a conflict means that the
/// watch is about to bring what somebody else, or we ourselves, wrote.
pub fn api_class(error: &kube::Error) -> Class {
    match error {
        kube::Error::Api(status) if matches!(status.code, 400 | 422) => Class::Invalid,
        kube::Error::Api(status) if status.code == 409 => Class::NotYet,
        _ => Class::Trouble,
    }
}

/// True for API errors that say somebody else wrote first, or that the object exists.
pub fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behaviour_0_2_waits_double_up_to_five_minutes() {
        assert_eq!(backoff(1, 0.0), Duration::from_secs(1));
        assert_eq!(backoff(2, 0.0), Duration::from_secs(2));
        assert_eq!(backoff(9, 0.0), Duration::from_secs(256));
        assert_eq!(backoff(10, 0.0), Duration::from_secs(300));
        assert_eq!(backoff(u32::MAX, 0.0), Duration::from_secs(300));
        assert_eq!(backoff(1, 1.0), Duration::from_millis(750));
    }
}
