//! A volume snapshot as the base, the log of a real archiver on top: a PostgreSQL comes back as it was at a time.

use std::time::Duration;

use jiff::Timestamp;
use kbbackup_e2e::{LIMIT, ended, phase};
use kbbackup_testing::fixtures::{self, list};
use kbbackup_testing::ledger::Ledger;
use kbbackup_testing::postgres::Postgres;
use serde_json::{Value, json};

use crate::{begin, files};

/// Streams the log; every few seconds a segment is closed, stored, and then said to be there.
const ARCHIVE: &str = r#"
export PATH="$PATH:$(echo /usr/lib/postgresql/*/bin)"
export PGHOST=$DP_DB_HOST PGPORT=$DP_DB_PORT PGUSER=$DP_DB_USER PGPASSWORD=$DP_DB_PASSWORD PGDATABASE=postgres
trap 'exit 0' TERM
mkdir /tmp/log
pg_receivewal -w -D /tmp/log & receiver=$!
until compgen -G '/tmp/log/*' > /dev/null; do sleep 0.2; done
now() { date -u +%Y-%m-%dT%H:%M:%SZ; }
first=$(now)
while kill -0 $receiver; do
  sleep 3
  end=$(now)
  closed=$(psql -XAtqw -c 'select pg_walfile_name(pg_switch_wal())')
  until test -e "/tmp/log/$closed"; do sleep 0.2; done
  for file in /tmp/log/*; do
    case $file in *.partial) continue ;; esac
    datasafed push -z zstd "$file" "/$(basename "$file").zst"
    rm "$file"
  done
  echo "{\"timeRange\":{\"start\":\"$first\",\"end\":\"$end\"}}" > $DP_BACKUP_INFO_FILE
done
exit 1"#;

/// Replays the log up to the time that is wanted, and reports how far it came.
const REPLAY: &str = r#"
export PATH="$PATH:$(echo /usr/lib/postgresql/*/bin)"
data=/var/lib/postgresql/data/pgdata
test -e $data/PG_VERSION
mkdir /tmp/log
for object in $(datasafed list -f /); do
  datasafed pull -d zstd "/${object#/}" - > "/tmp/log/$(basename "$object" .zst)"
done
rm -f $data/postmaster.pid
touch $data/recovery.signal
echo 'local all all trust' > /tmp/hba.conf
options="-c listen_addresses= -c unix_socket_directories=/tmp -c hba_file=/tmp/hba.conf -c archive_mode=off"
options+=" -c restore_command='cp /tmp/log/%f %p' -c recovery_target_action=pause"
options+=" -c recovery_target_time='$(date -u -d "@$DP_RESTORE_TIMESTAMP" '+%Y-%m-%d %H:%M:%S+00')'"
owner=$(stat -c %u $data)
chown -R "$owner" /tmp/log /tmp/hba.conf
as_owner() { setpriv --reuid "$owner" --regid "$(stat -c %g $data)" --clear-groups -- "$@"; }
as_owner pg_ctl -D $data -w -l /tmp/log/server.log -o "$options" start || { cat /tmp/log/server.log >&2; exit 1; }
ask() { psql -XAtqw -h /tmp -U postgres -d postgres -c "$1"; }
until test "$(ask 'select pg_get_wal_replay_pause_state()')" = paused; do sleep 0.2; done
position=$(ask 'select pg_last_wal_replay_lsn()')
ask 'select pg_wal_replay_resume()' > /dev/null
until test "$(ask 'select pg_is_in_recovery()')" = f; do sleep 0.2; done
as_owner pg_ctl -D $data -w -m fast stop
echo "{\"position\":\"$position\"}" > /dev/termination-log"#;

#[test]
fn behaviour_6_4_a_snapshot_and_the_log_after_it_give_the_database_of_a_time() {
    let (cluster, space) = begin("snapshot-pitr").unwrap();
    let postgres = Postgres::create(&space.kubectl, "pg", "2Gi").unwrap();
    postgres.fill(1).unwrap();
    let mut recipe = files::recipe(&space.name, "Continuous", ARCHIVE, REPLAY);
    recipe["spec"]["backup"]["backupData"]["runOnTargetPodNode"] = json!(false);
    recipe["spec"]["backup"]["backupData"]["syncProgress"] = json!({"enabled": true, "intervalSeconds": 1});
    let mut policy = fixtures::policy("pg", "pg", &space.name, None);
    let mut archive = policy["spec"]["backupMethods"][0].clone();
    archive["name"] = json!("archive");
    policy["spec"]["backupMethods"] =
        json!([archive, {"name": "snapshot", "snapshotVolumes": true, "targetVolumes": {"volumes": ["data"]}}]);
    let schedule = json!({
        "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "BackupSchedule", "metadata": {"name": "pg"},
        "spec": {"backupPolicyName": "pg", "schedules": [
            {"backupMethod": "archive", "enabled": true, "cronExpression": "*/5 * * * *", "retentionPeriod": "7d"}]},
    });
    space.kubectl.apply(&list(&[recipe, policy, schedule]).to_string()).unwrap();
    let ledger = Ledger::start(&space.kubectl, &postgres.pod()).unwrap();
    let load = postgres.load(2, 50, Duration::from_secs(300)).unwrap();

    let by_schedule = "dataprotection.kubeblocks.io/backup-schedule=pg";
    let archives = || space.kubectl.get(&["backups", "-l", by_schedule]).unwrap()["items"].clone();
    let found = (0..240).find_map(|_| {
        std::thread::sleep(Duration::from_millis(250));
        archives()[0]["metadata"]["name"].as_str().map(str::to_owned)
    });
    let log = found.expect("the schedule makes the backup");
    let end =
        |object: &Value| object["status"]["timeRange"]["end"].as_str().and_then(|end| end.parse::<Timestamp>().ok());
    space.kubectl.wait_for("backup", &log, LIMIT, |object| end(object).is_some()).unwrap();
    space.kubectl.apply(&fixtures::backup("base", "pg", "snapshot").to_string()).unwrap();
    let base = ended(&space, "base", LIMIT).unwrap();
    assert_eq!(phase(&base), "Completed", "{}", base["status"]);

    // The time lies between two looks at the ledger, and all that is wanted after the snapshot.
    ledger.wait_for(ledger.len() + 20).unwrap();
    let at_least = ledger.len();
    std::thread::sleep(Duration::from_secs(2));
    let time = Timestamp::from_second(Timestamp::now().as_second()).unwrap();
    let at_most = ledger.len() + 1;
    ledger.wait_for(at_most + 20).unwrap();
    space.kubectl.wait_for("backup", &log, LIMIT, |object| end(object).is_some_and(|end| end > time)).unwrap();
    let acknowledged = ledger.stop().unwrap();
    drop(load);
    let source = postgres.content().unwrap();

    let prepare = json!({"volumeClaimsTemplate": {"replicas": 1, "templates": [{
        "metadata": {"name": "data-copy"}, "volumeSource": "data", "mountPath": "/var/lib/postgresql/data",
        "volumeClaimSpec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}},
    }]}});
    let object = files::restore(&space, "back", &log, &prepare, Some(&time.to_string()));
    space.kubectl.apply(&object.to_string()).unwrap();
    let over = |object: &Value| matches!(phase(object), "Completed" | "Failed");
    let done = space.kubectl.wait_for("restore", "back", LIMIT, over).unwrap();
    assert_eq!(phase(&done), "Completed", "{}", done["status"]);
    let claim = space.kubectl.get(&["pvc", "data-copy-0"]).unwrap();
    assert_eq!(claim["spec"]["dataSource"]["name"], "base-0-data");
    let annotation = |key: &str| done["metadata"]["annotations"][key].as_str().unwrap_or_default();
    assert_eq!(annotation("kbbackup.io/reads"), format!("base,{log}"));
    let restored: Value = serde_json::from_str(annotation("kbbackup.io/restored")).unwrap();
    let position = restored["position"].as_str().unwrap().parse().unwrap();

    let copy = Postgres::create(&space.kubectl, "copy", "2Gi").unwrap();
    let checked = copy.check(&source, &acknowledged, position).unwrap();
    let rows = usize::try_from(checked.rows).unwrap();
    assert!((at_least..=at_most).contains(&rows), "{rows} rows came back, and not {at_least} to {at_most}");
    assert!(checked.transactions > 0);

    space.kubectl.run(&["delete", "backupschedule", "pg", "--timeout=180s"]).unwrap();
    space.kubectl.run(&["delete", "restore", "back", "--timeout=180s"]).unwrap();
    space.kubectl.run(&["delete", "backup", &log, "base", "--timeout=180s"]).unwrap();
    let recipe = space.name.clone();
    drop(space);
    drop(cluster.try_run(&["delete", "actionset", &recipe, "--wait=false"]));
}
