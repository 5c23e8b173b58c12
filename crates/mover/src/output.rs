//! Words for people on standard error. Results go to standard output by the commands themselves.

use std::io::Write;

/// A log line in the form of the contract, with the local time in front.
pub(crate) fn note(text: &str) {
    let now = jiff::Zoned::now().strftime("%Y/%m/%d %H:%M:%S").to_string();
    let _ = writeln!(std::io::stderr(), "{now} {text}");
}
