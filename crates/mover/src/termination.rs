//! The termination message: how a mover container answers the controller.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use kbbackup_core::contract::{Report, TERMINATION_LOG, TERMINATION_MESSAGE_LIMIT};

use crate::args::{Flag, Parsed, Takes, flag};
use crate::error::{Error, Result};

/// The flag of commands that report.
pub(crate) const FLAG: Flag = flag("termination-log", None, Takes::Text, "file for the report");

/// A report of nothing yet.
pub(crate) fn report() -> Report {
    Report { version: 1, ..Report::default() }
}

/// Says why a command failed.
pub(crate) fn failed(mut report: Report, error: &Error) -> Report {
    report.error = Some(error.text.clone());
    report.cause = Some(error.cause.word().to_owned());
    report
}

/// Writes a report where the kubelet will look for it. Outside of a pod, where nobody named a file, nothing is written.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn write(args: &Parsed, report: &Report) -> Result<()> {
    let named = args.text(FLAG.long);
    let path = Path::new(named.unwrap_or(TERMINATION_LOG));
    if named.is_none() && !path.exists() {
        return Ok(());
    }
    let text = render(report)?;
    let failed = |error: std::io::Error| Error::file("write", path, &error);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)
}

/// A report that fits: the limit is the kubelet's, which would cut JSON in the middle.
fn render(report: &Report) -> Result<String> {
    let json = |report: &Report| {
        serde_json::to_string(report).map_err(|error| Error::other(format!("the report cannot be written: {error}")))
    };
    let text = json(report)?;
    if text.len() <= TERMINATION_MESSAGE_LIMIT {
        return Ok(text);
    }
    let mut small = report.clone();
    if let Some(error) = &mut small.error {
        error.truncate(error.floor_char_boundary(1024));
    }
    let text = json(&small)?;
    if text.len() <= TERMINATION_MESSAGE_LIMIT {
        return Ok(text);
    }
    small.info = None;
    small.cause = Some("ResultTooLarge".to_owned());
    small.error = Some(format!(
        "the result file does not fit into a termination message: the report has {} bytes, at most {} are kept; \
         keep extras short",
        text.len(),
        TERMINATION_MESSAGE_LIMIT
    ));
    json(&small)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_always_fits_and_says_when_something_was_left_out() {
        let mut large = report();
        let info = serde_json::json!({"extras": [{"k": "x".repeat(5000)}]});
        large.info = info.as_object().cloned();
        let text = render(&large).unwrap();
        assert!(text.len() <= TERMINATION_MESSAGE_LIMIT);
        let read: Report = serde_json::from_str(&text).unwrap();
        assert_eq!(read.cause.as_deref(), Some("ResultTooLarge"));

        let long = failed(report(), &Error::other("ä".repeat(5000)));
        assert!(render(&long).unwrap().len() <= TERMINATION_MESSAGE_LIMIT);
    }
}
