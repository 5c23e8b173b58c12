//! Where things lie in a repository: paths only, no access.
//!
//! `/<repo prefix>/<namespace>/<policy prefix>/<backup>/[<target>/][<pod>/]…` is the contract's layout. Ours is the hidden
//! folder [`HIDDEN`] below a backup's own path: the manifest of all its objects and the seal.

/// Folder of our own files below a backup; never listed, so that scripts see only what they wrote.
pub const HIDDEN: &str = ".kbbackup";
/// The copy of the Backup object, at each target's data path.
pub const BACKUP_OBJECT: &str = "kubeblocks-backup.json";
/// Folder, below the hidden one, of the copies that archivers keep.
const ARCHIVERS: &str = "archivers";
/// Key suffix of objects written under one of the encryption modes.
pub const ENCRYPTED_SUFFIX: &str = ".enc";

/// Joins segments to an absolute, clean path: empty segments and surplus slashes vanish.
pub fn join<'a>(segments: impl IntoIterator<Item = &'a str>) -> String {
    let mut path = String::new();
    for part in segments.into_iter().flat_map(|segment| segment.split('/')).filter(|part| !part.is_empty()) {
        path.push('/');
        path.push_str(part);
    }
    if path.is_empty() { "/".to_owned() } else { path }
}

/// `DP_BACKUP_ROOT_PATH`: the directory of all backups of a policy.
pub fn backup_root(repo_prefix: &str, namespace: &str, policy_prefix: &str) -> String {
    join([repo_prefix, namespace, policy_prefix])
}

/// `status.path`: the directory of one backup.
pub fn backup_path(root: &str, backup: &str) -> String {
    join([root, backup])
}

/// `DP_TARGET_RELATIVE_PATH`: `[<target>/][<pod>]`, the pod only when every pod of the target is backed up.
pub fn target_relative(target: &str, pod: Option<&str>) -> String {
    join([target, pod.unwrap_or_default()]).trim_start_matches('/').to_owned()
}

/// Folder of our own files of the backup at `backup_path`.
pub fn hidden(backup_path: &str) -> String {
    join([backup_path, HIDDEN])
}

/// The sealed list of all objects: one JSON line each, sorted by path.
pub fn manifest(backup_path: &str) -> String {
    join([backup_path, HIDDEN, "manifest.jsonl"])
}

/// The seal: written once, last.
pub fn seal(backup_path: &str) -> String {
    join([backup_path, HIDDEN, "seal.json"])
}

/// Folder of the fragments that one attempt (pod) of an action has written.
pub fn fragments(backup_path: &str, action: &str, attempt: &str) -> String {
    join([backup_path, HIDDEN, "fragments", action, attempt])
}

/// The copy of the Backup object that the archiver of one target keeps. Hidden, for scripts that archive list what they have stored.
pub fn archiver_object(backup_path: &str, action: &str) -> String {
    join([backup_path, HIDDEN, ARCHIVERS, action, BACKUP_OBJECT])
}

/// Whether a path below the hidden folder is an [`archiver_object`]; its name may end in [`ENCRYPTED_SUFFIX`].
pub fn is_archiver_object(hidden: &str) -> bool {
    let parts: Vec<&str> = hidden.trim_end_matches(ENCRYPTED_SUFFIX).split('/').collect();
    matches!(parts[..], [ARCHIVERS, _, BACKUP_OBJECT])
}

/// The manifest of the protected workload.
pub fn workload(backup_path: &str) -> String {
    join([backup_path, HIDDEN, "workload.json"])
}

/// Whether an object of a backup is about it rather than of it: what is needed to know the backup, not to restore it.
pub fn is_document(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    name.strip_suffix(ENCRYPTED_SUFFIX).unwrap_or(name) == BACKUP_OBJECT || path.split('/').any(|part| part == HIDDEN)
}

/// Bytes of a Kubernetes quantity or a bare number; `None` when it is neither.
pub fn parse_size(text: &str) -> Option<u64> {
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let factor: f64 = match unit.trim() {
        "" | "B" => 1.0,
        "k" | "K" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        "Ti" => 1024.0f64.powi(4),
        "Pi" => 1024.0f64.powi(5),
        _ => return None,
    };
    // A bare number keeps all its digits.
    if matches!(unit.trim(), "" | "B")
        && let Ok(bytes) = number.parse()
    {
        return Some(bytes);
    }
    let value = number.parse::<f64>().ok()? * factor;
    (value.is_finite() && value >= 0.0).then_some(value as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behaviour_4_5_layout() {
        let root = backup_root("prod", "demo", "/c1-uid/mysql");
        assert_eq!(root, "/prod/demo/c1-uid/mysql");
        let path = backup_path(&root, "b1");
        assert_eq!(path, "/prod/demo/c1-uid/mysql/b1");
        assert_eq!(join([path.as_str(), &target_relative("shard-a", Some("p-1"))]), format!("{path}/shard-a/p-1"));
        assert_eq!(target_relative("", None), "");
        assert_eq!(backup_root("", "demo", ""), "/demo");
        assert_eq!(backup_root("/a//b/", "demo", "///"), "/a/b/demo");
    }

    #[test]
    fn documents_are_no_data() {
        for path in [
            "kubeblocks-backup.json",
            "shard-a/kubeblocks-backup.json",
            "kubeblocks-backup.json.enc",
            ".kbbackup/workload.json",
        ] {
            assert!(is_document(path), "{path}");
        }
        for path in ["base.tar.zst", "COMPLETE", "kubeblocks-backup.json/base.tar", "a.kbbackup"] {
            assert!(!is_document(path), "{path}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("1024", 1024),
            ("1Ki", 1024),
            ("1.5Gi", 1_610_612_736),
            ("2k", 2000),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in ["", "Gi", "1X", "-1", "1..2", "lots"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}
