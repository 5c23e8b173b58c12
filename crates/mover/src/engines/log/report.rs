//! The result file of a continuous backup: what is stored, and to which times that reaches.

use std::path::Path;

use jiff::Timestamp;
use kbbackup_core::pitr::{GAP_END, GAP_START};
use serde_json::{Value, json};

use super::window::Window;
use crate::error::{Error, Result};

/// The file's content: size in bytes, window, and what an engine tells of itself.
pub(crate) fn render(bytes: u64, window: &Window, facts: Value) -> Value {
    let mut extras = vec![facts];
    for (start, end) in &window.gaps {
        extras.push(json!({GAP_START: time(*start), GAP_END: time(*end)}));
    }
    let mut info = json!({"totalSize": bytes.to_string(), "extras": extras});
    if let Some((start, end)) = window.range {
        info["timeRange"] = json!({"start": time(start), "end": time(end)});
    }
    info
}

/// Seconds since the Unix epoch as RFC 3339.
pub(crate) fn time(seconds: i64) -> String {
    Timestamp::from_second(seconds).unwrap_or_default().to_string()
}

/// Replaces the file: nobody reads half of it.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn write(path: &Path, info: &Value) -> Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    std::fs::write(&new, info.to_string())
        .and_then(|()| std::fs::rename(&new, path))
        .map_err(|error| Error::file("write", path, &error))
}
