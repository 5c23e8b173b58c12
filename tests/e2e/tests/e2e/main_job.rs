//! Backup under load, loss, restore, comparison: on the embedded repository and on two independent S3 servers.

use kbbackup_e2e::{S3_KEYS, drop_s3_repo, s3_repo};
use kbbackup_testing::main_job::Job;

use crate::begin;

fn run(test: &str, server: Option<&str>) {
    let (cluster, space) = begin(test).unwrap();
    let repo = format!("repo-{}", space.name);
    if let Some(server) = server {
        s3_repo(&cluster, &repo, server, &space.name, S3_KEYS).unwrap();
    }
    let job = Job { kubectl: &space.kubectl, repo: server.map(|_| repo.as_str()), scale: 3 };
    let figures = job.run(&mut |step| println!("{step}")).unwrap();
    println!("{figures:?}");
    drop(space);
    if server.is_some() {
        drop_s3_repo(&cluster, &repo);
    }
}

#[test]
fn on_the_embedded_repository() {
    run("embedded", None);
}

#[test]
fn on_versitygw() {
    run("versitygw", Some("versitygw"));
}

#[test]
fn on_rclone() {
    run("rclone", Some("rclone"));
}
