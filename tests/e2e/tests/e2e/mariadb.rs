//! MariaDB by kbb-mariadb-full and kbb-mariadb-incremental: under load, lost, back at the very transaction; and what is
//! refused on the way.

use kbbackup_e2e::{LIMIT, must_fail, phase};
use kbbackup_testing::fixtures;
use kbbackup_testing::mysql::{self, BACKUP_PASSWORD, DATA, MARIADB, MARIADB_10, Product, Server};
use serde_json::{Value, json};

use crate::begin;
use crate::recipes::{account, amid, lose, method, policy, restore, restored, take};

/// The account of the page that people read, with the password that the policy's Secret has.
pub(crate) fn create_account(server: &Server) {
    let password = BACKUP_PASSWORD.replace('\\', r"\\").replace('\'', r"\'");
    server.sql(&account("MariaDB").replace('…', &password)).unwrap();
}

fn methods() -> Value {
    policy(
        "db",
        &mysql::labels(MARIADB, "db"),
        "mariadb",
        "mysql",
        &[
            method("full", "kbb-mariadb-full", DATA, None),
            method("incremental", "kbb-mariadb-incremental", DATA, Some("full")),
        ],
    )
}

#[test]
fn mariadb_comes_back_at_the_transaction_of_its_last_increment() {
    comes_back("mariadb", MARIADB);
}

#[test]
fn mariadb_10_11_comes_back_at_the_transaction_of_its_last_increment() {
    comes_back("mariadb-10", MARIADB_10);
}

fn comes_back(test: &str, product: Product) {
    let (cluster, space) = begin(test).unwrap();
    let server = Server::create(&space.kubectl, product, "db", "1Gi").unwrap();
    create_account(&server);
    server.fill().unwrap();
    space.kubectl.apply(&methods().to_string()).unwrap();
    let load = server.load().unwrap();
    let ledger = server.ledger().unwrap();

    amid(&ledger, || take(&space, "full", "full"));
    amid(&ledger, || take(&space, "i1", "incremental"));
    let (acknowledged, last) = amid(&ledger, || take(&space, "i2", "incremental"));
    let entries = ledger.stop().unwrap();
    drop(load);
    assert_eq!(last["status"]["parentBackupName"], "i1");
    let extras = &last["status"]["extras"][0];
    assert_eq!(extras["parent"], "i1");
    assert!(extras["from_lsn"].as_str().unwrap().parse::<u64>().unwrap() > 0, "{extras}");

    let elsewhere = lose(&space, &cluster, "i2");
    for (backup, from) in [("full", &space.name), ("i2", &space.name)] {
        let allowed = format!("kbbackup.io/allow-restore-to={}", elsewhere.name);
        space.kubectl.run(&["annotate", "backup", backup, &allowed, "--overwrite"]).unwrap();
        let name = format!("r-{backup}");
        let claim = if backup == "i2" { "data-db-0" } else { "of-the-full-one" };
        elsewhere.kubectl.apply(&restore(&name, backup, from, claim, DATA).to_string()).unwrap();
    }
    let first = restored(&elsewhere, "r-full");
    let reached = restored(&elsewhere, "r-i2");
    let number =
        |facts: &Value| facts["position"].as_str().unwrap().rsplit('-').next().unwrap().parse::<u64>().unwrap();
    assert!(number(&first) < number(&reached), "{first} {reached}");

    let server = Server::create(&elsewhere.kubectl, product, "db", "1Gi").unwrap();
    let rows = server.check(&entries, reached["position"].as_str().unwrap()).unwrap();
    assert!(rows >= acknowledged, "{rows} rows of {acknowledged} that were acknowledged before the last backup");

    // The numbers of its transactions go on behind the source's at that time, instead of being given twice.
    let gtid = server.sql("insert into app.control values (0); select @@last_gtid").unwrap();
    assert!(number(&json!({"position": gtid})) > number(&reached), "{gtid} after {reached}");
}

#[test]
fn mariadb_refuses_what_would_not_be_a_backup_or_would_cost_data() {
    let (_cluster, space) = begin("mariadb-no").unwrap();
    let server = Server::create(&space.kubectl, MARIADB, "db", "1Gi").unwrap();
    create_account(&server);
    space.kubectl.apply(&methods().to_string()).unwrap();
    take(&space, "full", "full");

    // A volume with data in it.
    let used = restore("used", "full", &space.name, "copy", DATA);
    space.kubectl.apply(&used.to_string()).unwrap();
    restored(&space, "used");
    space.kubectl.apply(&restore("again", "full", &space.name, "copy", DATA).to_string()).unwrap();
    let over = |object: &Value| matches!(phase(object), "Completed" | "Failed");
    let refused = space.kubectl.wait_for("restore", "again", LIMIT, over).unwrap();
    assert_eq!(phase(&refused), "Failed");
    assert!(refused["status"].to_string().contains("is not empty"), "{}", refused["status"]);

    // Another place than that of a volume.
    space.kubectl.apply(&restore("astray", "full", &space.name, "astray", "/elsewhere").to_string()).unwrap();
    let refused = space.kubectl.wait_for("restore", "astray", LIMIT, over).unwrap();
    assert!(refused["status"].to_string().contains("no volume is mounted at /var/lib/mysql"), "{}", refused["status"]);

    // An increment to a server that went another way since: the same files, restored.
    space.kubectl.run(&["scale", "statefulset/db", "--replicas=0"]).unwrap();
    space.kubectl.wait_gone("pod", "db-0", LIMIT).unwrap();
    space.kubectl.run(&["delete", "pvc", "data-db-0", "--timeout=180s"]).unwrap();
    space.kubectl.apply(&restore("back", "full", &space.name, "data-db-0", DATA).to_string()).unwrap();
    restored(&space, "back");
    space.kubectl.run(&["scale", "statefulset/db", "--replicas=1"]).unwrap();
    space.kubectl.wait_for("statefulset", "db", LIMIT, |set| set["status"]["readyReplicas"] == 1).unwrap();
    space.kubectl.apply(&fixtures::backup("stray", "db", "incremental").to_string()).unwrap();
    let why = must_fail(&space, "stray", LIMIT).unwrap();
    assert!(why.contains("is of the time before this server was restored"), "{why}");

    // An account that may not.
    server.sql("revoke binlog monitor, reload on *.* from 'kbbackup'@'%'").unwrap();
    space.kubectl.apply(&fixtures::backup("poor", "db", "full").to_string()).unwrap();
    let why = must_fail(&space, "poor", LIMIT).unwrap();
    for privilege in ["RELOAD", "BINLOG MONITOR"] {
        assert!(why.contains(privilege), "{why}");
    }
    assert!(!why.contains("PROCESS"), "{why}");
}

/// What a producer left that died before its end, and that somebody called a backup all the same.
const TORN: &str = r#"export PATH="$PATH:$DP_DATASAFED_BIN_PATH" DATASAFED_BACKEND_BASE_PATH="$DP_BACKUP_BASE_PATH"
echo torn | datasafed push -z zstd - /data.mbstream.zst && echo '{}' > $DP_BACKUP_INFO_FILE"#;

#[test]
fn mariadb_takes_nothing_for_a_backup_that_was_never_finished() {
    let (cluster, space) = begin("mariadb-torn").unwrap();
    Server::create(&space.kubectl, MARIADB, "db", "1Gi").unwrap();
    let shipped = cluster.get(&["actionset", "kbb-mariadb-full"]).unwrap();
    let mut set = json!({"apiVersion": shipped["apiVersion"], "kind": "ActionSet", "spec": shipped["spec"]});
    set["metadata"] = json!({"name": space.name});
    set["spec"]["backup"]["backupData"]["command"] = json!(["bash", "-c", TORN]);
    let methods = [method("full", &space.name, DATA, None)];
    let rules = policy("db", &mysql::labels(MARIADB, "db"), "mariadb", "mysql", &methods);
    space.kubectl.apply(&fixtures::list(&[set, rules]).to_string()).unwrap();
    take(&space, "torn", "full");
    space.kubectl.apply(&restore("r", "torn", &space.name, "new", DATA).to_string()).unwrap();
    let over = |object: &Value| matches!(phase(object), "Completed" | "Failed");
    let refused = space.kubectl.wait_for("restore", "r", LIMIT, over).unwrap();
    assert!(refused["status"].to_string().contains("backup torn has no COMPLETE object"), "{}", refused["status"]);
    let name = space.name.clone();
    drop(space);
    drop(cluster.try_run(&["delete", "actionset", &name, "--wait=false"]));
}
