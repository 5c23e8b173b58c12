//! MySQL by kbb-mysql-clone: under load, lost, back at the GTID set of its clone; and by xtrabackup as far as that goes here.

use kbbackup_e2e::{LIMIT, must_fail};
use kbbackup_testing::fixtures;
use kbbackup_testing::mysql::{self, BACKUP_PASSWORD, DATA, MARIADB, MYSQL, Server};
use serde_json::{Value, json};

use crate::begin;
use crate::recipes::{account, amid, lose, method, policy, restore, restored, take};

pub(crate) fn create_account(server: &Server) {
    let password = BACKUP_PASSWORD.replace('\\', r"\\").replace('\'', r"\'");
    server.sql(&account("MySQL: `kbb-mysql-clone`").replace('…', &password)).unwrap();
}

fn clone_policy() -> Value {
    policy("db", &mysql::labels(MYSQL, "db"), "mysql", "mysql", &[method("full", "kbb-mysql-clone", DATA, None)])
}

#[test]
fn mysql_comes_back_at_the_gtid_set_of_its_clone() {
    let (cluster, space) = begin("mysql").unwrap();
    let server = Server::create(&space.kubectl, MYSQL, "db", "1Gi").unwrap();
    create_account(&server);
    server.fill().unwrap();
    space.kubectl.apply(&clone_policy().to_string()).unwrap();
    let load = server.load().unwrap();
    let ledger = server.ledger().unwrap();
    let (acknowledged, _) = amid(&ledger, || take(&space, "full", "full"));
    let entries = ledger.stop().unwrap();
    drop(load);
    let identity = server.sql("select @@server_uuid").unwrap();

    let elsewhere = lose(&space, &cluster, "full");
    elsewhere.kubectl.apply(&restore("r", "full", &space.name, "data-db-0", DATA).to_string()).unwrap();
    let told = restored(&elsewhere, "r");
    let set = told["position"].as_str().unwrap();
    assert!(set.starts_with(&identity), "{told}");
    let server = Server::create(&elsewhere.kubectl, MYSQL, "db", "1Gi").unwrap();
    let rows = server.check(&entries, set).unwrap();
    assert!(rows >= acknowledged, "{rows} rows of {acknowledged} that were acknowledged before the backup");
    assert_ne!(server.sql("select @@server_uuid").unwrap(), identity);
}

#[test]
fn mysql_refuses_tables_that_a_clone_would_lose_and_tools_that_are_not_there() {
    let (_cluster, space) = begin("mysql-no").unwrap();
    let server = Server::create(&space.kubectl, MYSQL, "db", "1Gi").unwrap();
    let fails = |name: &str, method: &str, wanted: &str| {
        space.kubectl.apply(&fixtures::backup(name, "db", method).to_string()).unwrap();
        let why = must_fail(&space, name, LIMIT).unwrap();
        assert!(why.contains(wanted), "{why}");
    };
    space.kubectl.apply(&clone_policy().to_string()).unwrap();
    server
        .sql(&format!(
            "create user 'kbbackup'@'%' identified by '{}'",
            BACKUP_PASSWORD.replace('\\', r"\\").replace('\'', r"\'")
        ))
        .unwrap();
    fails("poor", "full", "lacks BACKUP_ADMIN");
    server.sql("grant backup_admin on *.* to 'kbbackup'@'%'").unwrap();
    fails("plain", "full", "has no clone plugin");
    server.sql("install plugin clone soname 'mysql_clone.so'; create database app; create table app.old (a int) engine=MyISAM").unwrap();
    fails("mixed", "full", "would come back empty: app.old");
}

/// MariaDB's tool answers to the command line of the other one, but for one option that it does without.
const TOOLS: &str = r#"mkdir -p /tools; cd /tools
printf '%s\n' '#!/bin/bash' 'for word; do shift; [ "$word" = --apply-log-only ] || set -- "$@" "$word"; done' 'exec mariadb-backup "$@"' > xtrabackup
printf '%s\n' '#!/bin/bash' 'exec mbstream "$@"' > xbstream
chmod 755 xtrabackup xbstream
printf '%s\n' '[auto]' "server-uuid=$(cat /proc/sys/kernel/random/uuid)" > /var/lib/mysql/auto.cnf"#;

fn tooled(name: &str, action_set: &str, full: Option<&str>) -> Value {
    let mut method = method(name, action_set, DATA, full);
    let mounts = method["targetVolumes"]["volumeMounts"].as_array_mut().unwrap();
    mounts.push(json!({"name": "tools", "mountPath": "/tools"}));
    method["env"] = json!([
        {"name": "PATH", "value": "/tools:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
        {"name": "KBB_DATA_DIR", "value": DATA},
    ]);
    method
}

#[test]
fn mysql_by_xtrabackup_comes_as_far_as_another_tool_behind_its_command_line() {
    let (_cluster, space) = begin("xtrabackup").unwrap();
    let mut objects = mysql::objects(MARIADB, "db", "1Gi");
    // The tools lie on a volume of their own, which the restore mounts as it is.
    let set = &mut objects["items"][2]["spec"];
    let mut tools = set["volumeClaimTemplates"][0].clone();
    tools["metadata"]["name"] = json!("tools");
    set["volumeClaimTemplates"].as_array_mut().unwrap().push(tools);
    let container = &mut set["template"]["spec"]["containers"][0];
    container["volumeMounts"].as_array_mut().unwrap().push(json!({"name": "tools", "mountPath": "/tools"}));
    let server = Server::start(&space.kubectl, MARIADB, "db", &objects).unwrap();
    server.sql(&account("MariaDB").replace('…', &BACKUP_PASSWORD.replace('\\', r"\\").replace('\'', r"\'"))).unwrap();
    server.fill().unwrap();
    let labels = mysql::labels(MARIADB, "db");
    let methods = [
        tooled("full", "kbb-mysql-xtrabackup", None),
        tooled("incremental", "kbb-mysql-xtrabackup-incremental", Some("full")),
        method("bare", "kbb-mysql-xtrabackup", DATA, None),
    ];
    space.kubectl.apply(&policy("db", &labels, "mariadb", "mysql", &methods).to_string()).unwrap();

    space.kubectl.run(&["exec", "db-0", "--", "bash", "-ec", TOOLS]).unwrap();
    space.kubectl.apply(&fixtures::backup("none", "db", "bare").to_string()).unwrap();
    let why = must_fail(&space, "none", LIMIT).unwrap();
    assert!(why.contains("no xtrabackup in this image"), "{why}");
    // Its pod is kept for who asks why, and keeps the volume.
    space.kubectl.run(&["delete", "backup", "none", "--timeout=180s"]).unwrap();

    let load = server.load().unwrap();
    let ledger = server.ledger().unwrap();
    amid(&ledger, || take(&space, "full", "full"));
    amid(&ledger, || take(&space, "i1", "incremental"));
    let (acknowledged, _) = amid(&ledger, || take(&space, "i2", "incremental"));
    let entries = ledger.stop().unwrap();
    drop(load);

    space.kubectl.run(&["scale", "statefulset/db", "--replicas=0"]).unwrap();
    space.kubectl.wait_gone("pod", "db-0", LIMIT).unwrap();
    space.kubectl.run(&["delete", "pvc", "data-db-0", "--timeout=180s"]).unwrap();
    let mut back = restore("r", "i2", &space.name, "data-db-0", DATA);
    let claims = back["spec"]["prepareDataConfig"]["volumeClaims"].as_array_mut().unwrap();
    let mut tools = claims[0].clone();
    tools["metadata"]["name"] = json!("tools-db-0");
    tools["volumeSource"] = json!("tools");
    tools["mountPath"] = json!("/tools");
    claims.push(tools);
    space.kubectl.apply(&back.to_string()).unwrap();
    let told = restored(&space, "r");
    space.kubectl.run(&["scale", "statefulset/db", "--replicas=1"]).unwrap();
    let server = Server::start(&space.kubectl, MARIADB, "db", &objects).unwrap();
    let rows = server.check(&entries, told["position"].as_str().unwrap()).unwrap();
    assert!(rows >= acknowledged, "{rows} rows of {acknowledged} that were acknowledged before the last backup");
    let identity =
        space.kubectl.run(&["exec", "db-0", "--", "bash", "-c", "ls /var/lib/mysql/auto.cnf 2>&1 || true"]).unwrap();
    assert!(identity.contains("No such file"), "the source's identity came along");
}
