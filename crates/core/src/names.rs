//! Names of derived objects: what the contract fixes, and how a name that is too long is cut.

/// Longest name of most Kubernetes objects whose name becomes a label.
pub const MAX_NAME: usize = 63;

/// First eight characters of a UID.
pub fn uid8(uid: &str) -> &str {
    uid.get(..8).unwrap_or(uid)
}

/// Keeps `limit` characters, then drops one trailing `-`: the contract's rule for derived names.
pub fn cut(name: &str, limit: usize) -> String {
    let kept: String = name.chars().take(limit).collect();
    kept.strip_suffix('-').map(str::to_owned).unwrap_or(kept)
}

/// As [`cut`] at 63 when the name fits; a name that does not fit ends in a hash of the whole, so that two long names never
/// meet. (The reference cuts without a hash and may then adopt another backup's Job.)
pub fn cut63(name: &str) -> String {
    if name.len() <= MAX_NAME { cut(name, MAX_NAME) } else { shorten63(name) }
}

/// Unchanged up to 63 characters; else 54 characters (one trailing `-` dropped), `-`, and 8 hex digits of FNV-1a-32.
pub fn shorten63(name: &str) -> String {
    if name.len() <= MAX_NAME {
        return name.to_owned();
    }
    format!("{}-{:08x}", cut(name, 54), fnv1a32(name.as_bytes()))
}

/// Longest name of any object.
const MAX_OBJECT: usize = 253;

/// Name of the action that takes snapshots of the volumes of a target's pod.
pub fn snapshot_action(target: &str, pod_index: usize) -> String {
    format!("{SNAPSHOT_ACTION}-{}{pod_index}", target_part(target))
}

/// What the names of such actions begin with.
pub const SNAPSHOT_ACTION: &str = "createVolumeSnapshot";

/// Name of the snapshot of one volume. One that does not fit ends in a hash of the whole.
pub fn volume_snapshot(backup: &str, target: &str, pod_index: usize, volume: &str) -> String {
    let name = format!("{backup}-{}{pod_index}-{volume}", target_part(target));
    if name.len() <= MAX_OBJECT {
        return name;
    }
    format!("{}-{:08x}", cut(&name, MAX_OBJECT - 9), fnv1a32(name.as_bytes()))
}

/// Name of the Job of a backup action.
pub fn backup_job(action: &str, backup: &str, uid: &str) -> String {
    cut63(&format!("{action}-{backup}-{}", uid8(uid)))
}

/// Name of the `backupData` action of a target's pod.
pub fn backup_action(target: &str, pod_index: usize) -> String {
    format!("dp-backup-{}{pod_index}", target_part(target))
}

/// Name of a `preBackup` action.
pub fn pre_backup_action(target: &str, index: usize, pod_index: usize) -> String {
    format!("dp-prebackup-{}{index}-{pod_index}", target_part(target))
}

/// Name of a `postBackup` action.
pub fn post_backup_action(target: &str, index: usize, pod_index: usize) -> String {
    format!("dp-postbackup-{}{index}-{pod_index}", target_part(target))
}

/// Longest name of a continuous backup's StatefulSet: its pods' labels add to it.
const MAX_ARCHIVER: usize = 52;

/// Name of the StatefulSet of a continuous backup's target. One that is too long keeps a hash, as in [`cut63`].
pub fn archiver(target: &str, backup: &str) -> String {
    let name = if target.is_empty() { backup.to_owned() } else { format!("dp-backup-{target}-{backup}") };
    if name.len() <= MAX_ARCHIVER {
        return cut(&name, MAX_ARCHIVER);
    }
    format!("{}-{:08x}", cut(&name, MAX_ARCHIVER - 9), fnv1a32(name.as_bytes()))
}

/// Name of the action that seals a backup; ours, always the last.
pub const SEAL_ACTION: &str = "dp-seal";

/// Name of the Job that removes a backup's files.
pub fn delete_job(backup: &str, uid: &str) -> String {
    cut63(&format!("{}-delete-{backup}", uid8(uid)))
}

/// Name of the Job that runs an ActionSet's `preDelete`; `target` is index and name when the backup has several.
pub fn pre_delete_job(backup: &str, uid: &str, target: Option<(usize, &str)>) -> String {
    let uid = uid8(uid);
    match target {
        None => cut63(&format!("{uid}-predelete-{backup}")),
        Some((index, name)) => cut63(&format!("{uid}-predelete-{index}-{name}-{backup}")),
    }
}

/// Longest name of a CronJob: the Jobs that it makes add eleven characters.
const MAX_CRON_JOB: usize = 52;

/// Start of the names of what a schedule makes: `<uid8>-<schedule>-<namespace>`, cut to 30.
fn of_schedule(owner_uid: &str, schedule: &str, namespace: &str) -> String {
    cut(&format!("{}-{schedule}-{namespace}", uid8(owner_uid)), 30)
}

/// Name of the CronJob of a schedule's entry. One that would be too long for a CronJob ends in a hash of the whole.
pub fn cron_job(owner_uid: &str, schedule: &str, namespace: &str, entry: &str) -> String {
    let name = format!("{}-{entry}", of_schedule(owner_uid, schedule, namespace));
    if name.len() <= MAX_CRON_JOB {
        return name;
    }
    format!("{}-{:08x}", cut(&name, MAX_CRON_JOB - 9), fnv1a32(name.as_bytes()))
}

/// Name of the Backup of a continuous entry.
pub fn continuous_backup(owner_uid: &str, schedule: &str, namespace: &str, method: &str) -> String {
    shorten63(&format!("{}-{method}", of_schedule(owner_uid, schedule, namespace)))
}

/// Name of a scheduled Backup: `<prefix>-<entry>-<UTC yyyymmddHHMMSS>`. A prefix that makes it too long is cut, with a
/// hash of the whole before the time.
pub fn scheduled_backup(prefix: &str, entry: &str, stamp: &str) -> String {
    let name = format!("{prefix}-{entry}-{stamp}");
    if name.len() <= MAX_NAME {
        return name;
    }
    let start = format!("{prefix}-{entry}");
    format!("{}-{:08x}-{stamp}", cut(&start, MAX_NAME - 10 - stamp.len()), fnv1a32(start.as_bytes()))
}

/// Name of a repository's pre-check Job, PVC and Secret.
pub fn pre_check(repo: &str, uid: &str) -> String {
    cut63(&format!("pre-check-{}-{repo}", uid8(uid)))
}

/// Name of a `prepareData` Job of a restore; `set` is the place of its backup among those that are restored.
pub fn prepare_data_job(backup: &str, restore_uid: &str, set: usize, index: usize) -> String {
    restore_name(&format!("restore-preparedata-{}-{backup}-{index}", uid8(restore_uid)), set)
}

/// Name of a `postReady` Job of a restore.
pub fn post_ready_job(backup: &str, restore_uid: &str, set: usize, step: usize, pod_index: usize) -> String {
    restore_name(&format!("restore-post-ready-{}-{backup}-{step}-{pod_index}", uid8(restore_uid)), set)
}

/// The contract's own rule for restore Jobs: over 63, the first 57, `-`, and the last 5 characters. A base and its log are
/// often called alike, so from the second backup on a name that does not fit ends in a hash: else the second one's Job
/// would be taken for the first one's, and its data be left out.
fn restore_name(name: &str, set: usize) -> String {
    if name.len() <= MAX_NAME {
        return name.to_owned();
    }
    if set > 0 {
        return shorten63(name);
    }
    format!("{}-{}", &name[..57], &name[name.len() - 5..])
}

fn target_part(target: &str) -> String {
    if target.is_empty() { String::new() } else { format!("{target}-") }
}

fn fnv1a32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behaviour_4_16_worked_example() {
        let uid = "6f1c2d3e-0000-4000-8000-000000000000";
        let backup = "c1-xtrabackup-20260820030000";
        assert_eq!(backup_job(&backup_action("", 0), backup, uid), "dp-backup-0-c1-xtrabackup-20260820030000-6f1c2d3e");
        assert_eq!(delete_job(backup, uid), "6f1c2d3e-delete-c1-xtrabackup-20260820030000");
        assert_eq!(pre_backup_action("", 0, 0), "dp-prebackup-0-0");
        assert_eq!(backup_action("shard-a", 1), "dp-backup-shard-a-1");
    }

    #[test]
    fn behaviour_4_9_names_of_archivers() {
        assert_eq!(archiver("", "aaaabbbb-c1-archive-binlog"), "aaaabbbb-c1-archive-binlog");
        assert_eq!(archiver("shard-a", "b"), "dp-backup-shard-a-b");
        assert_eq!(archiver("", "b-"), "b");
        let (one, two) = (archiver("", &format!("{}1", "x".repeat(60))), archiver("", &format!("{}2", "x".repeat(60))));
        assert!(one.len() <= 52 && two.len() <= 52 && one != two);
        assert_eq!(archiver("", &"y".repeat(52)), "y".repeat(52));
    }

    #[test]
    fn behaviour_5_2_names_of_scheduled_things() {
        let owner = "aaaabbbb-0000-4000-8000-000000000000";
        assert_eq!(
            continuous_backup(owner, "c1-mysql-backup-schedule", "demo", "archive-binlog"),
            "aaaabbbb-c1-mysql-backup-sched-archive-binlog"
        );
        assert_eq!(cron_job(owner, "nightly", "demo", "full"), "aaaabbbb-nightly-demo-full");
        let long = cron_job(owner, "c1-mysql-backup-schedule", "demo", "a-very-long-name-of-an-entry");
        assert!(long.len() <= 52 && long.starts_with("aaaabbbb-c1-mysql-backup-sched-a-very-"), "{long}");
        assert_ne!(long, cron_job(owner, "c1-mysql-backup-schedule", "demo", "a-very-long-name-of-an-entrz"));
        assert_eq!(scheduled_backup("c1", "full", "20260820030000"), "c1-full-20260820030000");
        let long = scheduled_backup(&"x".repeat(60), "full", "20260820030000");
        assert!(long.len() <= 63 && long.ends_with("-20260820030000"), "{long}");
        assert_ne!(long, scheduled_backup(&"x".repeat(60), "fulk", "20260820030000"));
    }

    #[test]
    fn behaviour_4_8_5_snapshot_names() {
        assert_eq!(volume_snapshot("b1", "", 0, "data"), "b1-0-data");
        assert_eq!(volume_snapshot("b1", "shard-a", 1, "wal"), "b1-shard-a-1-wal");
        assert_eq!(snapshot_action("", 0), "createVolumeSnapshot-0");
        assert_eq!(snapshot_action("shard-a", 1), "createVolumeSnapshot-shard-a-1");
        let (one, other) = (format!("{}1", "t".repeat(250)), format!("{}2", "t".repeat(250)));
        let names = [volume_snapshot("b", &one, 0, "data"), volume_snapshot("b", &other, 0, "data")];
        assert!(names.iter().all(|name| name.len() <= MAX_OBJECT) && names[0] != names[1], "{names:?}");
    }

    #[test]
    fn fnv1a_known_values() {
        assert_eq!(fnv1a32(b""), 0x811c_9dc5);
        assert_eq!(fnv1a32(b"a"), 0xe40c_292c);
        assert_eq!(fnv1a32(b"foobar"), 0xbf9c_f968);
    }

    #[test]
    fn long_names_stay_apart_and_fit() {
        let one = backup_job("dp-backup-0", &format!("{}-a", "x".repeat(60)), "6f1c2d3e");
        let two = backup_job("dp-backup-0", &format!("{}-b", "x".repeat(60)), "6f1c2d3e");
        assert_ne!(one, two);
        assert!(one.len() <= MAX_NAME && two.len() <= MAX_NAME);
    }

    #[test]
    fn a_cut_name_never_ends_in_a_dash() {
        assert_eq!(cut("abc-def", 4), "abc");
        assert_eq!(cut("abc", 10), "abc");
    }

    #[test]
    fn behaviour_6_6_a_name_that_is_too_long_keeps_its_first_57_and_its_last_5_characters() {
        let name = prepare_data_job(&"b".repeat(63), "12345678-9", 0, 12);
        assert_eq!(name, format!("{}-bb-12", &format!("restore-preparedata-12345678-{}", "b".repeat(63))[..57]));
        assert!(name.ends_with("-12"));
    }

    #[test]
    fn behaviour_6_6_job_names() {
        assert_eq!(prepare_data_job("b1", "12345678-9", 1, 0), "restore-preparedata-12345678-b1-0");
        assert_eq!(post_ready_job("b1", "12345678-9", 0, 2, 1), "restore-post-ready-12345678-b1-2-1");
    }

    #[test]
    fn jobs_of_backups_with_similar_names_stay_apart() {
        let full = "1a2b3c4d-production-postgresql-full-20260820030000";
        let diff = "1a2b3c4d-production-postgresql-diff-20260821030000";
        assert_ne!(prepare_data_job(full, "12345678", 0, 0), prepare_data_job(diff, "12345678", 1, 0));
        assert_ne!(post_ready_job(full, "12345678", 0, 0, 0), post_ready_job(diff, "12345678", 1, 0, 0));
        assert_ne!(prepare_data_job(diff, "12345678", 1, 0), prepare_data_job(diff, "12345678", 1, 1));
        assert!(post_ready_job(&"x".repeat(63), "12345678", 1, 10, 10).len() <= MAX_NAME);
    }
}
