//! What the controller and the mover agree on: environment, files in a pod, reports.
//!
//! The controller never touches repository bytes and the mover never talks to Kubernetes. A worker pod gets its task by
//! environment and files, and answers with one JSON object in its container's termination message, which Kubernetes
//! carries into the pod's status.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Absolute path of the backup in the repository (`Backup.status.path`). The manifest and the seal lie below it.
pub const ENV_BACKUP_PATH: &str = "KBBACKUP_BACKUP_PATH";
/// UID of the Backup object; a seal carries it, so that a retried action recognises its own.
pub const ENV_BACKUP_UID: &str = "KBBACKUP_BACKUP_UID";
/// Name of the action that writes, for example `dp-backup-0`.
pub const ENV_ACTION: &str = "KBBACKUP_ACTION";
/// UID of the writing pod (downward API): one attempt of an action.
pub const ENV_ATTEMPT: &str = "KBBACKUP_ATTEMPT";
/// File to which each push and each rm of the pod appends its [`ManifestEntry`]. When absent, entries go straight to the
/// repository as fragments.
pub const ENV_JOURNAL: &str = "KBBACKUP_JOURNAL";
/// Restores only: digest that the seal of the backup `<DP_BACKUP_ROOT_PATH>/<name>` must have, as `name=digest` pairs
/// separated by commas. A pull below such a backup fails unless seal, manifest and bytes agree.
pub const ENV_SEALS: &str = "KBBACKUP_SEALS";
/// The reference's variable: directory of all backups of a policy.
pub const ENV_BACKUP_ROOT_PATH: &str = "DP_BACKUP_ROOT_PATH";
/// The reference's variable: directory of this backup and target.
pub const ENV_BACKUP_BASE_PATH: &str = "DP_BACKUP_BASE_PATH";
/// The reference's variable: where a script writes its result, a JSON object.
pub const ENV_INFO_FILE: &str = "DP_BACKUP_INFO_FILE";
/// Where a report goes; the kubelet puts its content into the pod's status.
pub const TERMINATION_LOG: &str = "/dev/termination-log";
/// Kubernetes keeps at most so many bytes of a termination message.
pub const TERMINATION_MESSAGE_LIMIT: usize = 4096;

/// Where workers find the mover; scripts append it to `PATH`.
pub const BIN_DIR: &str = "/bin/datasafed";
/// Directory that the main container of a backup shares with its reporter.
pub const MANAGER_DIR: &str = "/dp-manager";
/// Value of [`ENV_INFO_FILE`].
pub const INFO_FILE: &str = "/dp-manager/backup.info";
/// Value of [`ENV_JOURNAL`].
pub const JOURNAL_FILE: &str = "/dp-manager/.kbbackup-journal";
/// Directory of downward API files.
pub const DOWNWARD_DIR: &str = "/dp_downward";
/// The Backup object as JSON, given to the sealing action; stored as `kubeblocks-backup.json`.
pub const BACKUP_OBJECT_FILE: &str = "/dp_downward/backup.json";
/// The manifest of the protected workload as JSON, given to the sealing action; stored below the hidden folder.
pub const WORKLOAD_FILE: &str = "/dp_downward/workload.json";

/// How an archiver of a continuous backup is heard while it runs: its side-car copies the result file into a ConfigMap
/// that nobody else writes.
pub mod channel {
    /// Key of the ConfigMap that holds the result file's text.
    pub const KEY: &str = "info";
    /// A longer text is not taken.
    pub const LIMIT: usize = 128 << 10;

    /// Name of the ConfigMap, and of the rights to it, of the archiver that is called `set`.
    pub fn name(set: &str) -> String {
        format!("{set}-report")
    }
}

/// How far a running backup action is: each push keeps a file beside the journal with the number of bytes that it has
/// stored so far, and the reporter writes the sum into its log when it has changed.
pub mod progress {
    use super::{Deserialize, Serialize};

    /// How often the reporter looks.
    pub const EVERY_SECONDS: u64 = 10;
    /// Names of the files of pushes begin with the journal's, and then this.
    pub const FILE: &str = ".progress-";

    /// One line of the reporter's log.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
    pub struct Line {
        /// Bytes stored by this pod so far.
        pub bytes: u64,
    }
}

/// Exit codes of the mover beside 0.
pub mod exit {
    /// Anything that went wrong; the last line of standard error says what.
    pub const FAILED: i32 = 1;
    /// The same from a program that a database takes the end of its log from: PostgreSQL takes 1 for the end, and stops for good
    /// at anything above 125.
    pub const ENDS_RECOVERY: i32 = 126;
}

/// One line of a journal, fragment or manifest: an object that was written, or removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManifestEntry {
    /// Key of the object relative to the backup's path, as stored (an encrypted object's name ends in `.enc`).
    pub path: String,
    /// Size as stored, in bytes.
    pub size: u64,
    /// BLAKE3 of the stored bytes, lower-case hex.
    pub blake3: String,
    /// True when this line says that the object was removed again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub removed: bool,
}

/// The content of `seal.json`, written once, last, when everything else is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seal {
    /// Version of this structure, 1.
    pub version: u32,
    /// UID of the Backup object the seal belongs to.
    pub backup_uid: String,
    /// BLAKE3 of the manifest file as stored, lower-case hex.
    pub manifest: String,
    /// Number of objects in the manifest.
    pub objects: u64,
    /// Sum of their sizes, in bytes.
    pub bytes: u64,
    /// RFC 3339, UTC, when the seal was made.
    pub sealed_at: String,
    /// Version of the mover that made it.
    pub mover: String,
    /// `status.extras` of the Backup: engine identity, positions, tool versions, as the script reported them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extras: Vec<Map<String, Value>>,
}

/// What a mover container says at its end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Version of this structure, 1.
    pub version: u32,
    /// The script's result file, as it stands. Only for the reporter of a backup action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info: Option<Map<String, Value>>,
    /// Objects and bytes stored by this attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored: Option<Stored>,
    /// Digest of the seal (BLAKE3 of `seal.json` as stored). Only for the sealing action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seal: Option<String>,
    /// Why the action failed: one sentence, what and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// A stable word for the cause, for example `AccessDenied`, `NoSuchBucket`, `Unreachable`, `Tls`, `Damaged`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

/// A count of stored objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Number of objects.
    pub objects: u64,
    /// Sum of their sizes, in bytes.
    pub bytes: u64,
}

/// Why a result file was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResultError {
    /// A key outside of the documented ones.
    #[error("the result file sets {0:?}, which a backup action may not set (allowed: totalSize, timeRange, extras)")]
    Key(String),
    /// A value of the wrong shape.
    #[error("the result file's {key} is {found}, which is not {wanted}")]
    Value {
        /// The key.
        key: &'static str,
        /// What stands there.
        found: String,
        /// What should.
        wanted: &'static str,
    },
}

/// A script's result, checked: the only parts of a Backup's status that a worker may set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActionResult {
    /// `totalSize`: a quantity, or bytes.
    pub total_size: Option<String>,
    /// `timeRange.start`, RFC 3339.
    pub start: Option<String>,
    /// `timeRange.end`, RFC 3339.
    pub end: Option<String>,
    /// `timeRange.timeZone`, `±HH:MM`.
    pub time_zone: Option<String>,
    /// `extras`, string to string.
    pub extras: Vec<std::collections::BTreeMap<String, String>>,
}

impl ActionResult {
    /// Checks a result file: only documented keys, sizes and times that parse.
    ///
    /// # Errors
    /// [`ResultError`] names the first key that is not allowed or does not parse.
    pub fn parse(info: &Map<String, Value>) -> Result<Self, ResultError> {
        let mut result = Self::default();
        for (key, value) in info {
            match key.as_str() {
                "totalSize" => result.total_size = size(value)?,
                "timeRange" => result.time_range(value)?,
                "extras" => result.extras = extras(value)?,
                other => return Err(ResultError::Key(other.to_owned())),
            }
        }
        Ok(result)
    }

    fn time_range(&mut self, value: &Value) -> Result<(), ResultError> {
        let wrong = |found: &Value, wanted| ResultError::Value { key: "timeRange", found: found.to_string(), wanted };
        let Value::Object(range) = value else {
            return if value.is_null() { Ok(()) } else { Err(wrong(value, "an object")) };
        };
        for (key, value) in range {
            // Scripts of the field leave parts of the range empty; an empty string is "not said".
            let text = match value {
                Value::Null => continue,
                Value::String(text) if text.is_empty() => continue,
                Value::String(text) => text.clone(),
                other => return Err(wrong(other, "text")),
            };
            match key.as_str() {
                "start" | "end" => {
                    text.parse::<jiff::Timestamp>().map_err(|_| wrong(value, "an RFC 3339 time"))?;
                    *(if key == "start" { &mut self.start } else { &mut self.end }) = Some(text);
                }
                "timeZone" if is_offset(&text) => self.time_zone = Some(text),
                "timeZone" => return Err(wrong(value, "an offset such as +08:00")),
                other => return Err(ResultError::Key(format!("timeRange.{other}"))),
            }
        }
        Ok(())
    }
}

fn is_offset(text: &str) -> bool {
    let bytes = text.as_bytes();
    let digits = |range: std::ops::Range<usize>| text.get(range).and_then(|part| part.parse::<u8>().ok());
    bytes.len() == 6
        && matches!(bytes[0], b'+' | b'-')
        && bytes[3] == b':'
        && digits(1..3).is_some_and(|hours| hours <= 13)
        && digits(4..6).is_some_and(|minutes| minutes < 60)
}

fn size(value: &Value) -> Result<Option<String>, ResultError> {
    let text = match value {
        Value::Null => return Ok(None),
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) => number.to_string(),
        other => {
            return Err(ResultError::Value { key: "totalSize", found: other.to_string(), wanted: "a size" });
        }
    };
    if text.is_empty() {
        return Ok(None);
    }
    match crate::layout::parse_size(&text) {
        Some(_) => Ok(Some(text)),
        None => Err(ResultError::Value { key: "totalSize", found: text, wanted: "a size such as 1073741824 or 1Gi" }),
    }
}

fn extras(value: &Value) -> Result<Vec<std::collections::BTreeMap<String, String>>, ResultError> {
    if value.is_null() {
        return Ok(Vec::new());
    }
    serde_json::from_value(value.clone()).map_err(|_| ResultError::Value {
        key: "extras",
        found: value.to_string(),
        wanted: "a list of objects whose values are strings",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ActionResult, ResultError> {
        ActionResult::parse(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn an_empty_result_is_a_result() {
        assert_eq!(parse("{}"), Ok(ActionResult::default()));
    }

    #[test]
    fn the_usual_result_is_read() {
        let result = parse(
            r#"{"totalSize":"1024","timeRange":{"start":"2026-01-02T03:04:05Z","end":"2026-01-02T03:05:00Z","timeZone":"+08:00"},
                "extras":[{"a":"b"}]}"#,
        )
        .unwrap();
        assert_eq!(result.total_size.as_deref(), Some("1024"));
        assert_eq!(result.end.as_deref(), Some("2026-01-02T03:05:00Z"));
        assert_eq!(result.time_zone.as_deref(), Some("+08:00"));
        assert_eq!(result.extras[0]["a"], "b");
    }

    #[test]
    fn a_result_may_not_set_the_phase() {
        assert_eq!(parse(r#"{"phase":"Completed"}"#), Err(ResultError::Key("phase".into())));
    }

    #[test]
    fn sizes_times_and_zones_must_parse() {
        for text in [
            r#"{"totalSize":"lots"}"#,
            r#"{"timeRange":{"end":"yesterday"}}"#,
            r#"{"timeRange":{"timeZone":"CET"}}"#,
            r#"{"extras":[{"n":1}]}"#,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_size_that_was_not_measured_is_no_size() {
        assert_eq!(parse(r#"{"totalSize":""}"#).unwrap().total_size, None);
    }
}
