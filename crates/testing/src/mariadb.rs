//! A MariaDB under load, and what must be true of it after a restore.

use std::collections::BTreeMap;
use std::process::Child;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::fixtures::list;
use crate::kubectl::Kubectl;
use crate::ledger::{self, Entry, Ledger, Tongue};
use crate::lsn::Lsn;

/// Image of the MariaDB under test.
pub const IMAGE: &str = "kbbackup.test/mariadb:11.8";
/// Where its data lies.
pub const DATA: &str = "/var/lib/mysql";
/// Its Secret, with the account that backups log in with; the password holds what option files, SQL and shells trip over.
pub const BACKUP_PASSWORD: &str = r#"cor"rect\horse #7'x"#;

/// Its positions are the numbers of its own transactions (of domain 0), so a row is there exactly if its number is not
/// above the restored one's.
const MARIADB: Tongue = Tongue {
    client: &["bash", "-c", "MYSQL_PWD=$MARIADB_ROOT_PASSWORD exec mariadb -u root -NBn app"],
    insert: |id| format!("insert into ledger values ({id}, md5('{id}')); {POSITION}"),
    position: POSITION,
};
const POSITION: &str = "select concat('0/', hex(cast(substring_index(@@last_gtid, '-', -1) as unsigned)));";

/// Money moves between accounts until it is told to stop; the sum of all is always 0. Rows come and go as well.
const LOAD: &str = "
create table account (id int primary key, balance bigint not null, filler varchar(500) not null);
insert into account select seq, 0, repeat(md5(seq), 12) from seq_1_to_5000;
create table event (id bigint auto_increment primary key, text varchar(200) not null) engine=InnoDB;
create table control (running int not null);
insert into control values (1);
delimiter //
create procedure move_money() begin
  while (select running from control) do
    set @one = 1 + floor(rand() * 5000), @other = 1 + floor(rand() * 5000), @sum = floor(rand() * 100);
    start transaction;
    update account set balance = balance - @sum where id = @one;
    update account set balance = balance + @sum where id = @other;
    insert into event (text) values (repeat('e', 150));
    delete from event where id < last_insert_id() - 2000;
    commit;
  end while;
end //
delimiter ;
";

/// A MariaDB StatefulSet in a namespace.
pub struct MariaDb {
    kubectl: Kubectl,
    name: String,
}

/// Money moving inside of the pod.
pub struct Load<'a> {
    server: &'a MariaDb,
    child: Child,
}

/// Secret, headless Service and StatefulSet with one claim, with a binary log.
pub fn objects(name: &str, storage: &str) -> Value {
    let labels = labels(name);
    list(&[
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": format!("{name}-auth")},
            "stringData": {"username": "kbbackup", "password": BACKUP_PASSWORD, "root": "ro'ot-7"},
        }),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"clusterIP": "None", "selector": labels, "ports": [{"name": "mysql", "port": 3306}]},
        }),
        json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": name, "labels": labels},
            "spec": {
                "serviceName": name, "replicas": 1, "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {
                    "terminationGracePeriodSeconds": 30,
                    "containers": [{
                        "name": "mariadb", "image": IMAGE, "imagePullPolicy": "IfNotPresent",
                        "args": ["--server-id=1", "--log-bin=binlog", "--innodb-flush-log-at-trx-commit=1"],
                        "env": [{"name": "MARIADB_ROOT_PASSWORD",
                            "valueFrom": {"secretKeyRef": {"name": format!("{name}-auth"), "key": "root"}}}],
                        "ports": [{"name": "mysql", "containerPort": 3306}],
                        "volumeMounts": [{"name": "data", "mountPath": DATA}],
                        "readinessProbe": {
                            "exec": {"command": ["mariadb-admin", "--host=127.0.0.1", "--skip-ssl", "ping"]},
                            "periodSeconds": 1, "failureThreshold": 60,
                        },
                    }],
                }},
                "volumeClaimTemplates": [{
                    "metadata": {"name": "data"},
                    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage}}},
                }],
            },
        }),
    ])
}

/// Labels of its pods.
pub fn labels(name: &str) -> Value {
    json!({"app.kubernetes.io/name": "mariadb", "app.kubernetes.io/instance": name})
}

impl MariaDb {
    /// Creates its objects, and waits until the server answers.
    ///
    /// # Errors
    /// When it is not ready within two minutes.
    pub fn create(kubectl: &Kubectl, name: &str, storage: &str) -> Result<Self> {
        kubectl.apply(&objects(name, storage).to_string())?;
        kubectl.wait_for("statefulset", name, Duration::from_secs(120), |set| set["status"]["readyReplicas"] == 1)?;
        Ok(Self { kubectl: kubectl.clone(), name: name.to_owned() })
    }

    /// Name of the first pod.
    pub fn pod(&self) -> String {
        format!("{}-0", self.name)
    }

    /// What the server answers to root, without the last line's end; values are separated by tabs.
    ///
    /// # Errors
    /// What the client said.
    pub fn sql(&self, statements: &str) -> Result<String> {
        let pod = self.pod();
        let client = "MYSQL_PWD=$MARIADB_ROOT_PASSWORD exec mariadb -u root -NB";
        let said = self.kubectl.run_with_input(&["exec", "-i", &pod, "--", "bash", "-c", client], statements)?;
        Ok(said.trim_end().to_owned())
    }

    /// Creates the database `app` with the ledger's table and those of the load.
    ///
    /// # Errors
    /// What the client said.
    pub fn fill(&self) -> Result<()> {
        self.sql(&format!("create database app; use app; {}; {LOAD}", ledger::CREATE)).map(drop)
    }

    /// Starts to move money.
    ///
    /// # Errors
    /// When kubectl cannot be started.
    pub fn load(&self) -> Result<Load<'_>> {
        let client = "MYSQL_PWD=$MARIADB_ROOT_PASSWORD exec mariadb -u root -NB app -e 'call move_money()'";
        let child = self.kubectl.spawn(&["exec", &self.pod(), "--", "bash", "-c", client])?;
        Ok(Load { server: self, child })
    }

    /// Starts the writer that keeps a record.
    ///
    /// # Errors
    /// When the session cannot be opened.
    pub fn ledger(&self) -> Result<Ledger> {
        Ledger::start_in(&self.kubectl, &self.pod(), MARIADB)
    }

    /// Checks a restored database: the ledger is the exact prefix at `gtid`, and no money was lost.
    ///
    /// # Errors
    /// The first difference.
    pub fn check(&self, acknowledged: &[Entry], gtid: &str) -> Result<u64> {
        let number = gtid.rsplit('-').next().context("a GTID has three parts")?.parse()?;
        let mut rows = BTreeMap::new();
        for line in self.sql("select id, payload = md5(id) from app.ledger order by id")?.lines() {
            let (id, intact) = line.split_once('\t').with_context(|| format!("{line:?} is no row"))?;
            rows.insert(id.parse()?, intact == "1");
        }
        let last = ledger::compare(acknowledged, &rows, Lsn(number))?;
        let sums = self.sql("select count(*), sum(balance), sum(filler = repeat(md5(id), 12)) from app.account")?;
        ensure!(sums == "5000\t0\t5000", "the accounts are not as they must be: {sums}");
        Ok(last)
    }
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        drop(self.server.sql("update app.control set running = 0"));
        drop(self.child.wait());
    }
}
