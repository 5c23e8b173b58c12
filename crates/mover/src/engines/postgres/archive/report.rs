//! What the result file says of the cluster.

use serde_json::{Value, json};

use super::server::Identity;
use crate::engines::postgres::position::Lsn;

/// The facts beside times and sizes; everything before `end` is stored.
pub(super) fn facts(identity: &Identity, user: &str, timeline: u32, end: Lsn) -> Value {
    json!({
        "engine": "postgresql",
        "server_version_num": identity.version.to_string(),
        "system_identifier": identity.system_identifier.to_string(),
        "wal_segment_size": identity.segment_size.to_string(),
        "data_directory": identity.data_directory,
        "superuser": user,
        "timeline": timeline.to_string(),
        "end_lsn": end.to_string(),
    })
}
