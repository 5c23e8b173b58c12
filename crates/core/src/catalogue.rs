//! What a repository says of its backups by itself, as the mover tells it: one JSON line each, and a last line, without which
//! the list is not whole.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Line {
    /// A backup.
    Found(Box<Found>),
    /// Everything was told.
    End {
        /// Number of lines before.
        backups: u64,
    },
}

/// A backup that lies in the repository.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Found {
    /// Its absolute path.
    pub path: String,
    /// Its seal; nothing when it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seal: Option<SealFound>,
    /// It has files of ours but no seal: a backup that was never finished.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unfinished: bool,
    /// Its object is encrypted, and the key was not given or does not fit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub locked: bool,
    /// The stored Backup object, shortened by [`shorten`] unless all of it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<Value>,
    /// The stored manifest of the workload; only when everything was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<Value>,
    /// Why something could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// What a seal says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SealFound {
    /// BLAKE3 of the seal as stored.
    pub digest: String,
    /// Number of objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// RFC 3339, UTC.
    pub sealed_at: String,
}

/// Leaves of a Backup object what a list shows: annotations, parameters, actions and the like may be long.
pub fn shorten(object: &Value) -> Value {
    let part = |path: &str, keys: &[&str]| -> Value {
        let from = object.pointer(path).and_then(Value::as_object);
        let kept = keys.iter().filter_map(|key| Some(((*key).to_owned(), from?.get(*key)?.clone())));
        Value::Object(kept.collect())
    };
    let status = [
        "phase",
        "startTimestamp",
        "completionTimestamp",
        "totalSize",
        "timeRange",
        "parentBackupName",
        "path",
        "encryptionConfig",
    ];
    serde_json::json!({
        "metadata": part("/metadata", &["name", "namespace", "uid", "labels", "creationTimestamp"]),
        "spec": part("/spec", &["backupMethod", "backupPolicyName", "parentBackupName", "retentionPeriod"]),
        "status": part("/status", &status),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_shortened_object_keeps_what_a_list_shows() {
        let object = json!({"metadata": {"name": "b", "annotations": {"long": "text"}},
            "spec": {"backupMethod": "full", "parameters": []}, "status": {"path": "/demo/b", "actions": [{}]}});
        let short = json!({"metadata": {"name": "b"}, "spec": {"backupMethod": "full"}, "status": {"path": "/demo/b"}});
        assert_eq!(shorten(&object), short);
        assert_eq!(shorten(&json!(null)), json!({"metadata": {}, "spec": {}, "status": {}}));
    }

    #[test]
    fn lines_are_told_apart() {
        let found = Line::Found(Box::new(Found { path: "/a".into(), ..Found::default() }));
        for line in [found, Line::End { backups: 1 }] {
            let text = serde_json::to_string(&line).unwrap();
            assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), line);
        }
        assert_eq!(serde_json::to_string(&Line::End { backups: 1 }).unwrap(), r#"{"end":{"backups":1}}"#);
    }
}
