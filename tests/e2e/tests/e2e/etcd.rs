//! etcd by kbb-etcd: written to, lost, back at the snapshot's revision, as one member and as three.

use std::collections::BTreeMap;

use kbbackup_e2e::LIMIT;
use kbbackup_testing::kubectl::Kubectl;
use kbbackup_testing::ledger::{self, Ledger, Tongue};
use kbbackup_testing::lsn::Lsn;
use kbbackup_testing::namespace::TempNamespace;
use serde_json::{Value, json};

use crate::begin;
use crate::recipes::{amid, full_policy, lose, restore, restored, server, start, take};

const IMAGE: &str = "kbbackup.test/etcd:3.5";
/// etcdctl reads a new password up to the first blank.
const PASSWORD: &str = r#"cor"rect\horse:7'x"#;
const MEMBERS: &str = "db-0=http://db-0.db:2380,db-1=http://db-1.db:2380,db-2=http://db-2.db:2380";
/// Puts each number that it reads, and says at which revision; a position is that of the last one.
const WRITER: &str = r#"export ETCDCTL_USER="root:$0" ETCDCTL_DIAL_TIMEOUT=60s ETCDCTL_COMMAND_TIMEOUT=60s; while read -r id; do
    if [ "$id" != position ]; then
        until revision=$(etcdctl put "ledger/$id" "$((id * 7919))" -w json | grep -o '"revision":[0-9]*' | cut -d: -f2)
            [ -n "$revision" ]; do sleep 1; done
    fi
    printf '0/%X\n' "$revision"
done"#;

fn objects(cluster: &str, replicas: u32) -> Value {
    let script = format!(
        "exec etcd --name $POD --data-dir /data/etcd --listen-client-urls http://0.0.0.0:2379 --listen-peer-urls http://0.0.0.0:2380 \
         --advertise-client-urls http://$POD.db:2379 --initial-advertise-peer-urls http://$POD.db:2380 --initial-cluster {cluster}"
    );
    let auth = json!({"username": "root", "password": PASSWORD});
    server(IMAGE, &["bash", "-c", &script], ("client", 2379), replicas, &auth)
}

fn etcdctl(kubectl: &Kubectl, command: &str) -> String {
    // On a busy machine five seconds, the client's own patience, are not much.
    let patience = "ETCDCTL_DIAL_TIMEOUT=60s ETCDCTL_COMMAND_TIMEOUT=60s";
    let script = format!("export {patience} ETCDCTL_USER=\"root:$0\"; {command}");
    let ask = || kubectl.run(&["exec", "db-0", "--", "bash", "-ec", &script, PASSWORD]);
    // There, too, members that have no time choose another leader in the middle of a question.
    for _ in 0..10 {
        match ask() {
            Err(error) if error.to_string().contains("leader changed") => {
                std::thread::sleep(std::time::Duration::from_secs(2));
            }
            said => return said.unwrap(),
        }
    }
    ask().unwrap()
}

/// Everything below `ledger/`, with whether it is what was put there.
fn rows(kubectl: &Kubectl) -> BTreeMap<u64, bool> {
    let text = etcdctl(kubectl, "etcdctl get --prefix ledger/");
    let mut lines = text.lines();
    let mut rows = BTreeMap::new();
    while let (Some(key), Some(value)) = (lines.next(), lines.next()) {
        let id: u64 = key.strip_prefix("ledger/").unwrap().parse().unwrap();
        rows.insert(id, value == (id * 7919).to_string());
    }
    rows
}

/// One Restore for each member: what it records, in the members' order.
fn members(place: &TempNamespace, from: &TempNamespace, parameters: &[Value]) -> Vec<Value> {
    for (index, parameters) in parameters.iter().enumerate() {
        let mut one = restore(&format!("m{index}"), "full", &from.name, &format!("data-db-{index}"), "/data");
        one["spec"]["parameters"] = parameters.clone();
        place.kubectl.apply(&one.to_string()).unwrap();
    }
    (0..parameters.len()).map(|index| restored(place, &format!("m{index}"))).collect()
}

#[test]
fn etcd_comes_back_at_the_revision_of_its_snapshot_as_one_member_and_as_three() {
    let (cluster, space) = begin("etcd").unwrap();
    start(&space, &objects("db-0=http://db-0.db:2380", 1), 1);
    let login = "export ETCDCTL_DIAL_TIMEOUT=60s ETCDCTL_COMMAND_TIMEOUT=60s; \
        etcdctl user add root --interactive=false <<<\"$0\"; etcdctl user grant-role root root; etcdctl auth enable";
    space.kubectl.run(&["exec", "db-0", "--", "bash", "-ec", login, PASSWORD]).unwrap();
    space.kubectl.apply(&full_policy("kbb-etcd", "client").to_string()).unwrap();

    let tongue =
        Tongue { client: &["bash", "-c", WRITER, PASSWORD], insert: |id| id.to_string(), position: "position" };
    let ledger = Ledger::start_in(&space.kubectl, "db-0", tongue).unwrap();
    let (before, _) = amid(&ledger, || take(&space, "full", "full"));
    let entries = ledger.stop().unwrap();

    let check = |place: &TempNamespace, told: &Value| {
        let revision: u64 = told["backup_revision"].as_str().unwrap().parse().unwrap();
        let last = ledger::compare(&entries, &rows(&place.kubectl), Lsn(revision)).unwrap();
        assert!(last >= before, "{last} of {before}");
        // Who has seen a revision of the lost cluster must not take the restored one's for older news.
        let now = etcdctl(&place.kubectl, "etcdctl endpoint status -w json");
        let now: Value = serde_json::from_str(&now).unwrap();
        let reached = told["position"].as_str().unwrap().parse::<u64>().unwrap();
        assert!(
            now[0]["Status"]["header"]["revision"].as_u64().unwrap() >= reached && reached > 1_000_000_000,
            "{now}"
        );
    };
    let alone = lose(&space, &cluster, "full");
    let told = members(&alone, &space, &[json!([])]);
    start(&alone, &objects("db-0=http://db-0.db:2380", 1), 1);
    check(&alone, &told[0]);
    drop(alone);

    let three = TempNamespace::new(&cluster, "etcd-three").unwrap();
    let allowed = format!("kbbackup.io/allow-restore-to={}", three.name);
    space.kubectl.run(&["annotate", "backup", "full", &allowed, "--overwrite"]).unwrap();
    let parameters: Vec<_> = (0..3)
        .map(|index| json!([{"name": "member", "value": format!("db-{index}")}, {"name": "initialCluster", "value": MEMBERS}]))
        .collect();
    let told = members(&three, &space, &parameters);
    start(&three, &objects(MEMBERS, 3), 3);
    check(&three, &told[0]);
    // A member is known by its address only when it has told it to the others.
    let healthy = || -> usize {
        let health = etcdctl(&three.kubectl, "etcdctl endpoint health --cluster -w json || true");
        let health: Value = serde_json::from_str(&health).unwrap_or_default();
        health.as_array().into_iter().flatten().filter(|one| one["health"] == true).count()
    };
    let begin = std::time::Instant::now();
    while healthy() < 3 {
        assert!(begin.elapsed() < LIMIT, "{} of three members are healthy", healthy());
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
}
