//! The result file of a continuous backup: what is stored, and to which times that reaches.

use std::path::Path;

use jiff::Timestamp;
use kbbackup_core::pitr::{GAP_END, GAP_START};
use serde_json::{Value, json};

use super::server::Identity;
use super::shelf::Window;
use crate::engines::postgres::position::Lsn;
use crate::error::{Error, Result};

/// What is told beside times and sizes.
pub(super) struct Facts<'a> {
    pub(super) identity: &'a Identity,
    pub(super) user: &'a str,
    pub(super) timeline: u32,
    /// Everything before it is stored.
    pub(super) end: Lsn,
}

/// The file's content.
pub(super) fn render(bytes: u64, window: &Window, facts: &Facts<'_>) -> Value {
    let time = |seconds: i64| Timestamp::from_second(seconds).unwrap_or_default().to_string();
    let Facts { identity, user, timeline, end } = facts;
    let mut extras = vec![json!({
        "engine": "postgresql",
        "server_version_num": identity.version.to_string(),
        "system_identifier": identity.system_identifier.to_string(),
        "wal_segment_size": identity.segment_size.to_string(),
        "data_directory": identity.data_directory,
        "superuser": user,
        "timeline": timeline.to_string(),
        "end_lsn": end.to_string(),
    })];
    for (start, end) in &window.gaps {
        extras.push(json!({GAP_START: time(*start), GAP_END: time(*end)}));
    }
    let mut info = json!({"totalSize": bytes.to_string(), "extras": extras});
    if let Some((start, end)) = window.range {
        info["timeRange"] = json!({"start": time(start), "end": time(end)});
    }
    info
}

/// Replaces the file: nobody reads half of it.
///
/// # Errors
/// When it cannot be written.
pub(super) fn write(path: &Path, info: &Value) -> Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    std::fs::write(&new, info.to_string())
        .and_then(|()| std::fs::rename(&new, path))
        .map_err(|error| Error::file("write", path, &error))
}
