//! A MariaDB or MySQL under load, and what must be true of it after a restore.

use std::collections::BTreeMap;
use std::process::Child;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::fixtures::list;
use crate::kubectl::Kubectl;
use crate::ledger::{self, Entry, Ledger, Tongue};
use crate::lsn::Lsn;

/// Where its data lies.
pub const DATA: &str = "/var/lib/mysql";
/// Its Secret, with the account that backups log in with; the password holds what option files, SQL and shells trip over.
pub const BACKUP_PASSWORD: &str = r#"cor"rect\horse #7'x"#;

/// Which of the two it is.
#[derive(Clone, Copy)]
pub struct Product {
    /// Name of the container, and in labels.
    pub name: &'static str,
    image: &'static str,
    arguments: &'static [&'static str],
    client: &'static str,
    tongue: Tongue,
}

/// Its positions are the numbers of its own transactions (of domain 0), so a row is there exactly if its number is not
/// above the restored one's.
pub const MARIADB: Product = Product {
    name: "mariadb",
    image: "kbbackup.test/mariadb:11.8",
    arguments: &["--server-id=1", "--log-bin=binlog", "--innodb-flush-log-at-trx-commit=1"],
    client: "MYSQL_PWD=$MYSQL_ROOT_PASSWORD exec mariadb -u root -NBn",
    tongue: Tongue {
        client: &["bash", "-c", "MYSQL_PWD=$MYSQL_ROOT_PASSWORD exec mariadb -u root -NBn app"],
        insert: |id| format!("insert into ledger values ({id}, sha2('{id}', 256)); {MARIADB_POSITION}"),
        position: MARIADB_POSITION,
    },
};
/// The series before it, whose tools leave other names and do not encrypt by themselves.
pub const MARIADB_10: Product = Product { image: "kbbackup.test/mariadb:10.11", ..MARIADB };
const MARIADB_POSITION: &str = "select concat('0/', hex(cast(substring_index(@@last_gtid, '-', -1) as unsigned)));";

/// Its positions are the highest number in the one interval of transactions that it has executed: before the row's own
/// commit, and after it.
pub const MYSQL: Product = Product {
    name: "mysql",
    image: "kbbackup.test/mysql:9.7",
    arguments: &["--server-id=1", "--gtid-mode=ON", "--enforce-gtid-consistency=ON"],
    client: "MYSQL_PWD=$MYSQL_ROOT_PASSWORD exec mysql -u root -NBn",
    tongue: Tongue {
        client: &["bash", "-c", "MYSQL_PWD=$MYSQL_ROOT_PASSWORD exec mysql -u root -NBn app"],
        insert: |id| format!("{MYSQL_POSITION} insert into ledger values ({id}, sha2('{id}', 256));"),
        position: MYSQL_POSITION,
    },
};
const MYSQL_POSITION: &str =
    "select concat('0/', hex(cast(regexp_substr(@@global.gtid_executed, '[0-9]+$') as unsigned)));";

/// Money moves between accounts until it is told to stop, some two hundred times a second; the sum of all is always 0. Rows come and
/// go as well.
const LOAD: &str = "
create table account (id int primary key, balance bigint not null, filler varchar(500) not null);
insert into account with recursive n as (select 1 id union all select id + 1 from n where id < 1000) select id, 0, repeat(sha2(id, 256), 6) from n;
create table event (id bigint auto_increment primary key, text varchar(200) not null);
create table control (running int not null);
insert into control values (1);
delimiter //
create procedure move_money() begin
  while (select running from control) do
    set @one = 1 + floor(rand() * 1000), @other = 1 + floor(rand() * 1000), @sum = floor(rand() * 100);
    start transaction;
    update account set balance = balance - @sum where id = @one;
    update account set balance = balance + @sum where id = @other;
    insert into event (text) values (repeat('e', 150));
    delete from event where id < last_insert_id() - 2000;
    commit;
    do sleep(0.005);
  end while;
end //
delimiter ;
";

/// A StatefulSet of it in a namespace.
pub struct Server {
    kubectl: Kubectl,
    name: String,
    product: Product,
}

/// Money moving inside of the pod.
pub struct Load<'a> {
    server: &'a Server,
    child: Child,
}

/// Secret, headless Service and StatefulSet with one claim, with a binary log.
pub fn objects(product: Product, name: &str, storage: &str) -> Value {
    let labels = labels(product, name);
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
                        "name": product.name, "image": product.image, "imagePullPolicy": "IfNotPresent",
                        "args": product.arguments,
                        "env": [{"name": "MYSQL_ROOT_PASSWORD",
                            "valueFrom": {"secretKeyRef": {"name": format!("{name}-auth"), "key": "root"}}}],
                        "ports": [{"name": "mysql", "containerPort": 3306}],
                        "volumeMounts": [{"name": "data", "mountPath": DATA}],
                        "readinessProbe": {
                            // It listens only when it is itself: while it is made it has no network.
                            "tcpSocket": {"port": 3306},
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
pub fn labels(product: Product, name: &str) -> Value {
    json!({"app.kubernetes.io/name": product.name, "app.kubernetes.io/instance": name})
}

impl Server {
    /// Creates its objects, and waits until the server answers.
    ///
    /// # Errors
    /// When it is not ready within five minutes.
    pub fn create(kubectl: &Kubectl, product: Product, name: &str, storage: &str) -> Result<Self> {
        Self::start(kubectl, product, name, &objects(product, name, storage))
    }

    /// The same with objects that were changed.
    ///
    /// # Errors
    /// When it is not ready within five minutes.
    pub fn start(kubectl: &Kubectl, product: Product, name: &str, objects: &Value) -> Result<Self> {
        kubectl.apply(&objects.to_string())?;
        kubectl.wait_for("statefulset", name, Duration::from_secs(300), |set| set["status"]["readyReplicas"] == 1)?;
        Ok(Self { kubectl: kubectl.clone(), name: name.to_owned(), product })
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
        let command = ["exec", "-i", &pod, "--", "bash", "-c", self.product.client];
        let said = self.kubectl.run_with_input(&command, statements)?;
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
        let client = format!("{} app -e 'call move_money()'", self.product.client);
        let child = self.kubectl.spawn(&["exec", &self.pod(), "--", "bash", "-c", &client])?;
        Ok(Load { server: self, child })
    }

    /// Starts the writer that keeps a record.
    ///
    /// # Errors
    /// When the session cannot be opened.
    pub fn ledger(&self) -> Result<Ledger> {
        Ledger::start_in(&self.kubectl, &self.pod(), self.product.tongue)
    }

    /// Checks a restored database: the ledger is the exact prefix at `gtid`, `0-1-5` or `uuid:1-5`, and no money was lost.
    ///
    /// # Errors
    /// The first difference.
    pub fn check(&self, acknowledged: &[Entry], gtid: &str) -> Result<u64> {
        let number = gtid.rsplit(['-', ':']).next().context("a GTID ends in a number")?.parse()?;
        let mut rows = BTreeMap::new();
        for line in self.sql("select id, payload = sha2(id, 256) from app.ledger order by id")?.lines() {
            let (id, intact) = line.split_once('\t').with_context(|| format!("{line:?} is no row"))?;
            rows.insert(id.parse()?, intact == "1");
        }
        let last = ledger::compare(acknowledged, &rows, Lsn(number))?;
        let sums =
            self.sql("select count(*), sum(balance), sum(filler = repeat(sha2(id, 256), 6)) from app.account")?;
        ensure!(sums == "1000\t0\t1000", "the accounts are not as they must be: {sums}");
        Ok(last)
    }
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        drop(self.server.sql("update app.control set running = 0"));
        drop(self.child.wait());
    }
}
