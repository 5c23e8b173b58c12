//! Deleting a Backup removes every byte of it, and nothing else.

use std::time::Duration;

use kbbackup_e2e::{LIMIT, S3_BUCKET, S3_KEYS, S3_NAMESPACE, drop_s3_repo, ended, phase, s3_port, s3_repo};
use kbbackup_testing::fixtures::{self, list};
use kbbackup_testing::postgres::Postgres;
use kbbackup_testing::s3::Bucket;

use crate::begin;

#[test]
fn every_byte_goes_and_the_neighbour_stays() {
    let (cluster, space) = begin("delete").unwrap();
    let repo = format!("repo-{}", space.name);
    s3_repo(&cluster, &repo, "versitygw", &space.name, S3_KEYS).unwrap();
    Postgres::create(&space.kubectl, "pg", "1Gi").unwrap();
    let policy = fixtures::policy("pg", "pg", "pg-basebackup", Some(&repo));
    space.kubectl.apply(&policy.to_string()).unwrap();
    let backups = [fixtures::backup("one", "pg", "full"), fixtures::backup("two", "pg", "full")];
    space.kubectl.apply(&list(&backups).to_string()).unwrap();
    for name in ["one", "two"] {
        let object = ended(&space, name, LIMIT).unwrap();
        assert_eq!(phase(&object), "Completed", "{}", object["status"]);
    }

    let bucket =
        Bucket::open(&cluster, S3_NAMESPACE, "svc/versitygw", s3_port("versitygw"), S3_KEYS, S3_BUCKET).unwrap();
    let below = |name: &str| {
        let prefix = format!("{}/{}/pg/{name}/", space.name, space.name);
        bucket.keys().unwrap().into_iter().filter(|key| key.starts_with(&prefix)).collect::<Vec<_>>()
    };
    let neighbour = below("two");
    assert!(below("one").iter().any(|key| key.ends_with("/base.tar.zst")), "{:?}", below("one"));
    assert!(neighbour.iter().any(|key| key.ends_with("/.kbbackup/seal.json")), "{neighbour:?}");

    space.kubectl.run(&["kbbackup", "delete", "one", "--yes", "--timeout", "2m"]).unwrap();
    space.kubectl.wait_gone("backup", "one", Duration::from_secs(5)).unwrap();
    assert_eq!(below("one"), Vec::<String>::new());
    assert_eq!(below("two"), neighbour);

    space.kubectl.run(&["kbbackup", "delete", "two", "--yes", "--timeout", "2m"]).unwrap();
    let left: Vec<_> = bucket.keys().unwrap().into_iter().filter(|key| key.starts_with(&space.name)).collect();
    assert_eq!(left, Vec::<String>::new(), "the test's prefix is not empty");
    drop(space);
    drop_s3_repo(&cluster, &repo);
}
