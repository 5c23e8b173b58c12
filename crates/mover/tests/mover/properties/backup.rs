//! A backup's life on a back end, and the one object that may be made only once.

use serde_json::Value;

use crate::common::servers::Repository;
use crate::common::{Run, pseudo_random};

const BACKUP: &str = "/repo/demo/pg/b1";

fn in_pod(repository: &Repository<'_>, args: &[&str]) -> Run {
    repository
        .run(args)
        .env("KBBACKUP_BACKUP_PATH", BACKUP)
        .env("KBBACKUP_BACKUP_UID", "uid-1")
        .env("KBBACKUP_ACTION", "dp-backup-0")
        .env("KBBACKUP_ATTEMPT", "pod-1")
        .env("DATASAFED_BACKEND_BASE_PATH", BACKUP)
}

pub(super) fn one_of_several_seals_wins(repository: &Repository<'_>) {
    for round in 0..3 {
        let backup = format!("/repo/b{round}");
        repository.push(&format!("{backup}/data"), b"x");
        let seal = |uid: &str, log: &str| {
            repository
                .run(&["seal", "--termination-log", log])
                .env("KBBACKUP_BACKUP_PATH", &backup)
                .env("KBBACKUP_BACKUP_UID", uid)
        };
        let logs = tempfile::tempdir().unwrap();
        let log = |number: usize| logs.path().join(number.to_string());
        let mut racers = Vec::new();
        for number in 0..4 {
            racers.push(seal(&format!("uid-{number}"), log(number).to_str().unwrap()).spawn_and_feed(0));
            if !repository.traits().once {
                racers[number].wait();
            }
        }
        let mut winners = Vec::new();
        for (number, racer) in racers.iter_mut().enumerate() {
            if racer.wait().success() {
                winners.push(number);
                continue;
            }
            let report: Value = serde_json::from_slice(&std::fs::read(log(number)).unwrap()).unwrap();
            assert_eq!(report["cause"], "Sealed", "{report}");
        }
        assert_eq!(winners.len(), 1, "these think that they have sealed: {winners:?}");
        for number in 0..4 {
            let again = seal(&format!("uid-{number}"), log(number).to_str().unwrap());
            assert_eq!(again.output().0 == 0, winners.contains(&number), "{number} of {winners:?}");
        }
        repository.run(&["verify", &backup]).succeeds();
    }
}

pub(super) fn a_backup_is_sealed_verified_and_deleted(repository: &Repository<'_>) {
    repository.push("/repo/demo/pg/b0/data", b"a neighbour");
    let data = pseudo_random(9 << 20);
    in_pod(repository, &["push", "-", "dir/base.tar"]).stdin(&data).succeeds();
    in_pod(repository, &["push", "-z", "zstd", "-", "log.zst"]).stdin(b"text").succeeds();
    in_pod(repository, &["push", "-", "wrong"]).stdin(b"x").succeeds();
    in_pod(repository, &["rm", "wrong"]).succeeds();
    let seal = |uid: &str| {
        repository
            .run(&["seal", "--attempt=dp-backup-0=pod-1", "--termination-log", "/dev/null"])
            .env("KBBACKUP_BACKUP_PATH", BACKUP)
            .env("KBBACKUP_BACKUP_UID", uid)
    };
    seal("uid-1").succeeds();
    seal("uid-1").succeeds();
    assert!(seal("uid-2").fails().contains("is sealed for another Backup"));
    let verified = repository.run(&["verify", BACKUP]).succeeds_with_text();
    assert!(verified.contains("2 objects"), "{verified}");
    assert!(in_pod(repository, &["push", "-", "late"]).stdin(b"x").fails().contains("is sealed"));
    assert!(in_pod(repository, &["rm", "log.zst"]).fails().contains("is sealed"));
    assert_eq!(repository.lines(&["-r", "-f", BACKUP]), ["repo/demo/pg/b1/dir/base.tar", "repo/demo/pg/b1/log.zst"]);
    repository.push(&format!("{BACKUP}/log.zst"), b"other bytes");
    assert!(repository.run(&["verify", BACKUP]).fails().contains("1 object(s) are not as they were sealed"));
    repository.run(&["delete-backup", BACKUP]).succeeds();
    assert_eq!(repository.lines(&["-r", "-f", "/"]), ["repo/demo/pg/b0/data"]);
    repository.run(&["delete-backup", BACKUP]).succeeds();
    repository.run(&["delete-backup", "/repo/demo/pg/b0"]).succeeds();
    assert_eq!(repository.list(&["-r", "/"]), "", "directories above a deleted backup go with it");
    repository.is_empty();
}
