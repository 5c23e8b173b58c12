//! What a database costs to back up and to bring back, and how much of it a disaster takes: on the cluster, beside the same job done
//! by hand with the engine's own tools in the same run.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use kbbackup_testing::kubectl::Kubectl;
use kbbackup_testing::ledger::Ledger;
use kbbackup_testing::mysql::{self, Server};
use kbbackup_testing::namespace::TempNamespace;
use kbbackup_testing::postgres::Postgres;
use serde_json::{Value, json};

use crate::artifacts::Profile;
use crate::cluster::Options;
use crate::{site, ui};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    cluster: Options,
    /// Size of each database, in MiB about
    #[arg(long, default_value_t = 512)]
    size: u32,
    /// How long rows are written before everything is killed at once, in seconds
    #[arg(long, default_value_t = 60)]
    load: u64,
}

const LIMIT: Duration = Duration::from_secs(900);

/// How one engine is filled, and what a person without us would type. The scripts run in a pod that mounts the database's claim at
/// `source` and one of its own at `/hand`; its environment has HOST and PASSWORD.
struct Engine {
    name: &'static str,
    image: &'static str,
    source: &'static str,
    back_up: &'static str,
    /// Ends when a query was answered.
    bring_back: &'static str,
}

const POSTGRES: Engine = Engine {
    name: "PostgreSQL 17",
    image: "kbbackup.test/postgres:17",
    source: "/source",
    back_up: "export PGPASSWORD=$PASSWORD; pg_basebackup -h $HOST -U postgres -D /hand/backup -Ft -X stream -c fast",
    bring_back: "mkdir -m 700 /hand/data && tar -xf /hand/backup/base.tar -C /hand/data && tar -xf /hand/backup/pg_wal.tar -C /hand/data/pg_wal
        chown -R postgres /hand/data
        run() { setpriv --reuid postgres --regid postgres --clear-groups -- $(echo /usr/lib/postgresql/*/bin)/$*; }
        run pg_ctl -D /hand/data -o '-k/tmp' -w start > /dev/null
        psql -h /tmp -U postgres -XAtqc 'select 1'
        run pg_ctl -D /hand/data -m fast -w stop > /dev/null",
};

const MARIADB: Engine = Engine {
    name: "MariaDB 11.8",
    image: "kbbackup.test/mariadb:11.8",
    // Where its server has it, or the tool does not find the log.
    source: mysql::DATA,
    back_up: "said() { \"$@\" 2> /hand/said || { tail -3 /hand/said >&2; false; }; }
        MYSQL_PWD=$PASSWORD said mariadb-backup --backup --host=$HOST --user=root --target-dir=/hand/backup",
    bring_back: "said() { \"$@\" 2> /hand/said || { tail -3 /hand/said >&2; false; }; }
        said mariadb-backup --prepare --target-dir=/hand/backup && mkdir /hand/data
        said mariadb-backup --copy-back --target-dir=/hand/backup --datadir=/hand/data && chown -R mysql /hand/data
        mariadbd --user=mysql --datadir=/hand/data --socket=/tmp/hand.sock --pid-file=/tmp/hand.pid --skip-networking 2>/dev/null &
        until MYSQL_PWD=$PASSWORD mariadb -S /tmp/hand.sock -u root -NBe 'select 1' 2>/dev/null; do sleep 0.1; done
        kill %1; wait",
};

/// The engine's server, whichever it is.
enum Database {
    Postgres(Postgres),
    Mysql(Server),
}

impl Database {
    fn create(kubectl: &Kubectl, engine: &Engine, size: u32) -> Result<Self> {
        if engine.image == POSTGRES.image {
            let postgres = Postgres::create_of(kubectl, engine.image, NAME, "8Gi")?;
            // A scale of pgbench has some 15 MiB.
            postgres.fill((size / 15).max(1))?;
            return Ok(Self::Postgres(postgres));
        }
        let server = Server::create(kubectl, mysql::MARIADB, NAME, "8Gi")?;
        server.fill()?;
        let rows = size * 1024;
        server.sql(&format!(
            "use app;
             create table app.bulk (id int primary key, filler varchar(1024) not null);
             insert into app.bulk select seq, repeat(sha2(seq, 256), 15) from seq_1_to_{rows}"
        ))?;
        Ok(Self::Mysql(server))
    }

    fn ledger(&self, kubectl: &Kubectl) -> Result<Ledger> {
        match self {
            Self::Postgres(postgres) => Ledger::start(kubectl, &postgres.pod()),
            Self::Mysql(server) => server.ledger(),
        }
    }
}

const NAME: &str = "db";

pub(super) fn run(root: &Path, args: &Args) -> Result<()> {
    let site = site::prepare(root, &args.cluster, &["postgres:17", "mariadb:11.8"], Profile::Release)?;
    ui::result(
        "| engine | size | | back up | bring back, to the first query | lost when all is killed at once | back at the last moment |\n\
         |---|---:|---|---:|---:|---:|---:|",
    );
    for engine in [POSTGRES, MARIADB] {
        ui::result(ui::long_step(engine.name, || measure(&site.kubectl, &engine, args))?);
    }
    site.end()
}

/// Two lines of the table: ours and by hand.
fn measure(cluster: &Kubectl, engine: &Engine, args: &Args) -> Result<String> {
    let space = TempNamespace::new(cluster, "bench-recovery")?;
    let kubectl = &space.kubectl;
    let kbbackup = |words: &[&str]| kubectl.run(&[&["kbbackup"], words].concat());
    let database = Database::create(kubectl, engine, args.size)?;
    kbbackup(&["policy", "create", NAME, "--for", "statefulset/db"])?;
    kbbackup(&["schedule", "create", "statefulset/db", "--method", "log", "--cron", "*/5 * * * *", "--wait"])?;
    kubectl.apply(&hand(engine).to_string())?;
    kubectl.wait_for("pod", "hand", LIMIT, |pod| pod["status"]["phase"] == "Running")?;
    let by_hand = |script: &str| {
        timed(|| kubectl.run(&["exec", "hand", "--", "bash", "-c", &format!("set -e\n{script}")])).map(|(time, _)| time)
    };
    let hand_up = by_hand(engine.back_up)?;
    let hand_back = by_hand(engine.bring_back)?;
    kubectl.run(&["delete", "pod", "hand", "--grace-period=0", "--force"])?;

    let (up, _) = timed(|| kbbackup(&["backup", "statefulset/db", "--method", "full", "--name", "full", "--wait"]))?;
    let size = kubectl.get(&["backup", "full"])?["status"]["totalSize"].as_str().unwrap_or("?").to_owned();
    let (back, _) = timed(|| {
        kbbackup(&["restore", "db-copy", "--from", "full", "--yes", "--wait", "--timeout", "15m"])?;
        ready(kubectl, "db-copy")
    })?;
    kubectl.run(&["scale", "statefulset/db-copy", "--replicas=0"])?;

    let acknowledged = write_and_kill(kubectl, &database, Duration::from_secs(args.load))?;
    let to = ["restore", "db-latest", "--source", "statefulset/db", "--to-time", "latest", "--yes", "--wait"];
    let (latest, _) = timed(|| {
        kbbackup(&[&to[..], &["--timeout", "15m"]].concat())?;
        ready(kubectl, "db-latest")
    })?;
    let rows = restored_rows(kubectl, engine)?;
    let lost = lost(&acknowledged, rows)?;
    kubectl.run(&["delete", "backupschedule", "--all", "--timeout=60s"])?;
    let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f64());
    Ok(format!(
        "| {0} | {size} B | kbbackup | {1} | {2} | {3}, {4} of {5} commits | {6} |\n| {0} | | by hand | {7} | {8} | | |",
        engine.name,
        seconds(up),
        seconds(back),
        seconds(lost),
        acknowledged.len().saturating_sub(rows),
        acknowledged.len(),
        seconds(latest),
        seconds(hand_up),
        seconds(hand_back)
    ))
}

fn timed<T>(action: impl FnOnce() -> Result<T>) -> Result<(Duration, T)> {
    let begin = Instant::now();
    let done = action()?;
    Ok((begin.elapsed(), done))
}

fn ready(kubectl: &Kubectl, name: &str) -> Result<Value> {
    kubectl.wait_for("statefulset", name, LIMIT, |set| set["status"]["readyReplicas"] == 1)
}

/// A pod beside the database, with room of its own.
fn hand(engine: &Engine) -> Value {
    let secret = if engine.image == POSTGRES.image { "password" } else { "root" };
    kbbackup_testing::fixtures::list(&[
        json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "hand"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "8Gi"}}},
        }),
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "hand"},
            "spec": {
                "containers": [{
                    "name": "hand", "image": engine.image, "imagePullPolicy": "IfNotPresent", "command": ["sleep", "infinity"],
                    "securityContext": {"runAsUser": 0},
                    "env": [
                        {"name": "HOST", "value": format!("{NAME}-0.{NAME}")},
                        {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": format!("{NAME}-auth"), "key": secret}}},
                    ],
                    "volumeMounts": [{"name": "hand", "mountPath": "/hand"}, {"name": "source", "mountPath": engine.source}],
                }],
                "volumes": [
                    {"name": "hand", "persistentVolumeClaim": {"claimName": "hand"}},
                    {"name": "source", "persistentVolumeClaim": {"claimName": format!("data-{NAME}-0")}},
                ],
            },
        }),
    ])
}

/// Writes rows, and kills the database and its archiver in the middle, as a node that dies would. Gives when each row was
/// acknowledged.
fn write_and_kill(kubectl: &Kubectl, database: &Database, load: Duration) -> Result<Vec<Instant>> {
    let ledger = database.ledger(kubectl)?;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let clock = scope.spawn(|| {
            let mut times = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                times.resize(ledger.len(), Instant::now());
                thread::sleep(Duration::from_millis(5));
            }
            times
        });
        thread::sleep(load);
        let pods = kubectl.run(&["get", "pods", "-o", "name"]);
        let killed = pods.and_then(|pods| {
            let running: Vec<&str> = pods.lines().collect();
            let now = ["--grace-period=0", "--force", "--wait=false"];
            // Nothing comes back meanwhile.
            kubectl.run(&["delete", "statefulset", NAME, "--cascade=orphan"])?;
            kubectl.run(&[&["delete"], &running[..], &now].concat())
        });
        thread::sleep(Duration::from_secs(2));
        stop.store(true, Ordering::Relaxed);
        killed?;
        let times = clock.join().ok().context("the clock panicked")?;
        ensure!(!times.is_empty(), "nothing was written");
        Ok(times)
    })
}

fn restored_rows(kubectl: &Kubectl, engine: &Engine) -> Result<usize> {
    let script = if engine.image == POSTGRES.image {
        "psql -XAtqU postgres -c 'select count(*) from ledger'"
    } else {
        "MYSQL_PWD=$MYSQL_ROOT_PASSWORD mariadb -u root -NBe 'select count(*) from app.ledger'"
    };
    let said = kubectl.run(&["exec", "db-latest-0", "--", "bash", "-c", script])?;
    said.trim().parse().context("no number of rows")
}

/// From the acknowledgement of the last row that came back to that of the last one at all.
fn lost(acknowledged: &[Instant], rows: usize) -> Result<Duration> {
    let last = acknowledged.last().context("nothing was written")?;
    let kept = acknowledged.get(rows.min(acknowledged.len()).saturating_sub(1)).context("nothing came back")?;
    Ok(last.duration_since(*kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_the_time_behind_the_last_row_that_came_back() {
        let begin = Instant::now();
        let rows: Vec<Instant> = (0..10).map(|second| begin + Duration::from_secs(second)).collect();
        assert_eq!(lost(&rows, 7).unwrap(), Duration::from_secs(3));
        // A row that was committed and whose acknowledgement was lost comes back as well.
        assert_eq!(lost(&rows, 11).unwrap(), Duration::ZERO);
    }
}
