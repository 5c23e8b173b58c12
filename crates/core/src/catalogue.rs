//! What a repository says of its backups by itself, as the mover tells it: one JSON line each, and a last line, without which
//! the list is not whole.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::contract::ActionResult;
use crate::layout;

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
    json!({
        "metadata": part("/metadata", &["name", "namespace", "uid", "labels", "creationTimestamp"]),
        "spec": part("/spec", &["backupMethod", "backupPolicyName", "parentBackupName", "retentionPeriod"]),
        "status": part("/status", &status),
    })
}

/// What an archiver says, written into the copy of its Backup object. What it leaves out stays as it was.
pub fn note(object: &mut Value, result: &ActionResult) {
    let status = &mut object["status"];
    let range = [("start", &result.start), ("end", &result.end), ("timeZone", &result.time_zone)];
    for (key, text) in range.into_iter().filter_map(|(key, text)| Some((key, text.as_ref()?))) {
        status["timeRange"][key] = json!(text);
    }
    if let Some(size) = &result.total_size {
        status["totalSize"] = json!(size);
    }
    if !result.extras.is_empty() {
        status["extras"] = json!(result.extras);
    }
}

/// One object of the copies that the archivers of a backup keep: together they reach only where each of them does, so there is
/// no time range as long as one of the targets has none. `None` without copies.
pub fn together(copies: &[Value]) -> Option<Value> {
    let targets =
        |copy: &Value| copy.pointer("/status/targets").and_then(Value::as_array).map_or(1, |all| all.len().max(1));
    let mut whole = copies.first()?.clone();
    let expected = copies.iter().map(targets).max().unwrap_or(1);
    if copies.len() == 1 && expected == 1 {
        return Some(whole);
    }
    let time = |copy: &Value, key: &str| {
        copy.pointer("/status/timeRange").and_then(|range| range.get(key)?.as_str()?.parse::<jiff::Timestamp>().ok())
    };
    let all = |key: &str| copies.iter().map(|copy| time(copy, key)).collect::<Option<Vec<_>>>();
    let start = all("start").and_then(|times| times.into_iter().max());
    let end = all("end").and_then(|times| times.into_iter().min());
    let size = |copy: &Value| layout::parse_size(copy.pointer("/status/totalSize")?.as_str()?);
    let extras = copies.iter().filter_map(|copy| copy.pointer("/status/extras")?.as_array().cloned()).flatten();
    let (size, extras) = (copies.iter().filter_map(size).sum::<u64>(), extras.collect::<Vec<_>>());
    let status = &mut whole["status"];
    status["totalSize"] = json!(size.to_string());
    status["extras"] = json!(extras);
    let zone = status.pointer("/timeRange/timeZone").cloned();
    status["timeRange"] = match (start, end) {
        (Some(start), Some(end)) if copies.len() >= expected => {
            json!({"start": start.to_string(), "end": end.to_string()})
        }
        _ => Value::Null,
    };
    if let (Some(zone), true) = (zone, status["timeRange"].is_object()) {
        status["timeRange"]["timeZone"] = zone;
    }
    Some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortened_object_keeps_what_a_list_shows() {
        let object = json!({"metadata": {"name": "b", "annotations": {"long": "text"}},
            "spec": {"backupMethod": "full", "parameters": []}, "status": {"path": "/demo/b", "actions": [{}]}});
        let short = json!({"metadata": {"name": "b"}, "spec": {"backupMethod": "full"}, "status": {"path": "/demo/b"}});
        assert_eq!(shorten(&object), short);
        assert_eq!(shorten(&json!(null)), json!({"metadata": {}, "spec": {}, "status": {}}));
    }

    #[test]
    fn what_an_archiver_leaves_out_stays_as_it_was() {
        let mut object = json!({"status": {"path": "/b", "totalSize": "1"}});
        let said = |text: &str| ActionResult::parse(&serde_json::from_str(text).unwrap()).unwrap();
        note(
            &mut object,
            &said(
                r#"{"timeRange": {"start": "2026-01-01T00:00:00Z", "end": "2026-01-01T01:00:00Z"}, "extras": [{"a": "b"}]}"#,
            ),
        );
        note(&mut object, &said(r#"{"totalSize": 7, "timeRange": {"end": "2026-01-01T02:00:00Z"}}"#));
        let wanted = json!({"status": {"path": "/b", "totalSize": "7", "extras": [{"a": "b"}],
            "timeRange": {"start": "2026-01-01T00:00:00Z", "end": "2026-01-01T02:00:00Z"}}});
        assert_eq!(object, wanted);
    }

    #[test]
    fn several_archivers_reach_where_each_of_them_does() {
        let copy = |start: &str, end: &str, size: &str| {
            json!({"status": {"targets": [{"name": "a"}, {"name": "b"}], "totalSize": size, "extras": [{"from": start}],
                "timeRange": {"start": format!("2026-01-01T{start}:00Z"), "end": format!("2026-01-01T{end}:00Z"), "timeZone": "+08:00"}}})
        };
        let (one, other) = (copy("01:00", "03:00", "1Ki"), copy("02:00", "04:00", "6"));
        let whole = together(&[one.clone(), other]).unwrap();
        let wanted = json!({"start": "2026-01-01T02:00:00Z", "end": "2026-01-01T03:00:00Z", "timeZone": "+08:00"});
        assert_eq!((&whole["status"]["timeRange"], &whole["status"]["totalSize"]), (&wanted, &json!("1030")));
        assert_eq!(whole["status"]["extras"], json!([{"from": "01:00"}, {"from": "02:00"}]));
        // A target that has said nothing yet has reached nothing.
        assert_eq!(together(std::slice::from_ref(&one)).unwrap()["status"]["timeRange"], Value::Null);
        let silent = json!({"status": {"targets": [{}, {}]}});
        assert_eq!(together(&[one, silent]).unwrap()["status"]["timeRange"], Value::Null);
        assert_eq!(together(&[]), None);
        let alone = json!({"status": {"timeRange": {"end": "2026-01-01T04:00:00Z"}}});
        assert_eq!(together(std::slice::from_ref(&alone)), Some(alone));
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
