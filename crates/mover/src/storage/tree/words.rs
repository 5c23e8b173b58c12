//! Causes in the words of servers, for protocols whose numbers say too little.

use crate::error::Cause;

/// The cause that a server's words tell.
pub(in crate::storage) fn said(text: &str) -> Cause {
    let text = text.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    match () {
        () if says(&["denied", "not permitted", "permission"]) => Cause::AccessDenied,
        () if says(&["no space", "quota", "disk full"]) => Cause::NoSpace,
        () if says(&["read-only", "read only"]) => Cause::ReadOnly,
        () if says(&["not empty"]) => Cause::NotEmpty,
        () if says(&["not a directory"]) => Cause::NotDirectory,
        () if says(&["no such", "not found", "not exist", "doesn't exist"]) => Cause::NotFound,
        () if says(&["exist"]) => Cause::Exists,
        () => Cause::Other,
    }
}
