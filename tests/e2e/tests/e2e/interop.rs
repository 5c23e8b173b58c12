//! Objects and files are everybody's: YAML by hand and the plugin make the same, and a bucket can be read without us.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};

use kbbackup_e2e::{LIMIT, S3_BUCKET, S3_KEYS, S3_NAMESPACE, drop_s3_repo, ended, phase, s3_port, s3_repo};
use kbbackup_testing::fixtures;
use kbbackup_testing::postgres::Postgres;
use kbbackup_testing::s3::Bucket;
use serde_json::Value;

use crate::begin;

/// All paths of a JSON value, with what may differ between two runs taken out.
fn shape(value: &Value, at: &str, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if !["managedFields", "uid", "resourceVersion", "creationTimestamp"].contains(&key.as_str()) {
                    shape(value, &format!("{at}.{key}"), into);
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                shape(item, &format!("{at}[{index}]"), into);
            }
        }
        leaf => {
            into.insert(format!("{at}:{}", if leaf.is_string() { "text" } else { "other" }));
        }
    }
}

#[test]
fn by_hand_and_by_plugin_is_the_same_and_the_bucket_needs_only_zstd_and_tar() {
    let (cluster, space) = begin("interop").unwrap();
    let repo = format!("repo-{}", space.name);
    s3_repo(&cluster, &repo, "versitygw", &space.name, S3_KEYS).unwrap();
    Postgres::create(&space.kubectl, "pg", "1Gi").unwrap();
    space.kubectl.run(&["kbbackup", "policy", "create", "pg", "--for", "statefulset/pg", "--repo", &repo]).unwrap();
    let method = space.kubectl.get(&["backuppolicy", "pg"]).unwrap()["spec"]["backupMethods"][0]["name"]
        .as_str()
        .unwrap()
        .to_owned();

    space.kubectl.apply(&fixtures::backup("by-hand", "pg", &method).to_string()).unwrap();
    space.kubectl.run(&["kbbackup", "backup", "statefulset/pg", "--name", "by-plugin", "--wait", "--yes"]).unwrap();
    let objects = ["by-hand", "by-plugin"].map(|name| {
        let object = ended(&space, name, LIMIT).unwrap();
        assert_eq!(phase(&object), "Completed", "{}", object["status"]);
        let text = object.to_string().replace(name, "NAME");
        serde_json::from_str::<Value>(&text).unwrap()
    });
    assert_eq!(objects[0]["spec"], objects[1]["spec"]);
    let [by_hand, by_plugin] = objects.map(|object| {
        let mut paths = BTreeSet::new();
        shape(&object, "", &mut paths);
        paths
    });
    assert_eq!(by_hand, by_plugin);

    let bucket =
        Bucket::open(&cluster, S3_NAMESPACE, "svc/versitygw", s3_port("versitygw"), S3_KEYS, S3_BUCKET).unwrap();
    let key = bucket
        .keys()
        .unwrap()
        .into_iter()
        .find(|key| key.starts_with(&space.name) && key.ends_with("/by-hand/base.tar.zst"))
        .expect("the base backup");
    let names = pipe(&["tar", "-tf", "-"], &pipe(&["zstd", "-dc"], &bucket.read(&key).unwrap()));
    let names = String::from_utf8(names).unwrap();
    for name in ["PG_VERSION", "backup_label", "backup_manifest", "global/pg_control"] {
        assert!(names.lines().any(|line| line.trim_start_matches("./") == name), "no {name} in the tar");
    }
    drop(space);
    drop_s3_repo(&cluster, &repo);
}

fn pipe(command: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child =
        Command::new(command[0]).args(&command[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let bytes = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&bytes));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{command:?} ended with {}", output.status);
    output.stdout
}
