//! DNS, storage classes and the snapshot API: what a cluster of the cloud would bring along.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use super::cache::{self, Key};
use super::paths::State;
use super::{Cluster, DNS_IP, NODE, go, paths, sh};

const DRIVER: &str = "btrfs.csi.kbbackup.io";
const CRDS: &str = "github.com/kubernetes-csi/external-snapshotter/client/v8";
const KINDS: &[&str] = &["volumesnapshotclasses", "volumesnapshotcontents", "volumesnapshots"];

/// The CRDs of the snapshot API, as the module of the snapshotter brings them. Returns the file with all of them.
pub(crate) fn fetch() -> Result<PathBuf> {
    let module = paths::sources()?;
    let key = Key::default().file(&module.join("go.mod"))?.finish();
    cache::artefact("manifests", "snapshot-crds.yaml", &key, |file| {
        let dir = go::dependency(&module, CRDS)?.join("config/crd");
        let mut all = String::new();
        for kind in KINDS {
            all.push_str("---\n");
            all.push_str(&fs::read_to_string(dir.join(format!("snapshot.storage.k8s.io_{kind}.yaml")))?);
        }
        Ok(fs::write(file, all)?)
    })
}

/// Applies all manifests, unless these very ones were applied before.
pub(crate) fn apply(cluster: &Cluster, state: &State) -> Result<()> {
    let dir = paths::sources()?.join("addons");
    let crds = fetch()?;
    let files = [dir.join("coredns.yaml"), dir.join("storage.yaml"), dir.join("snapshots.yaml")];
    let mut key = Key::default().file(&crds)?;
    for file in &files {
        key = key.file(file)?;
    }
    let (key, marker) = (key.finish(), state.join("addons.applied"));
    if fs::read_to_string(&marker).is_ok_and(|applied| applied == key) {
        return Ok(());
    }
    let apply = |file: &PathBuf| {
        sh::output(cluster.kubectl().args(["apply", "--server-side", "--force-conflicts", "--filename"]).arg(file))
    };
    apply(&crds)?;
    let names = KINDS.iter().map(|kind| format!("crd/{kind}.snapshot.storage.k8s.io"));
    sh::output(cluster.kubectl().args(["wait", "--for=condition=Established", "--timeout=30s"]).args(names))?;
    files.iter().try_for_each(|file| apply(file).map(drop))?;
    Ok(fs::write(marker, key)?)
}

/// What the local node still lacks, in words; empty when it is ready.
pub(crate) fn missing(cluster: &Cluster) -> Result<String> {
    let wanted =
        ["node/node1", "csinode/node1", "deployment/coredns", "storageclass/btrfs", "volumesnapshotclass/btrfs"];
    let mut get = cluster.kubectl();
    get.args(["--namespace=kube-system", "get", "--ignore-not-found", "--output=json"]).args(wanted);
    let found: Value = serde_json::from_str(&sh::output(&mut get)?)?;
    let mut lacking = lacking(&found);
    // After a crash the objects still tell of better times, so the two that everything needs are asked themselves.
    let health = format!("--raw=/api/v1/nodes/{NODE}/proxy/healthz");
    if lacking.is_empty() && sh::output(cluster.kubectl().args(["get", &health])).is_err() {
        "the kubelet does not answer".clone_into(&mut lacking);
    }
    let dns = std::net::SocketAddr::new(DNS_IP.parse()?, 53);
    if lacking.is_empty() && std::net::TcpStream::connect_timeout(&dns, Duration::from_secs(1)).is_err() {
        lacking = format!("DNS does not answer at {DNS_IP}");
    }
    Ok(lacking)
}

fn lacking(found: &Value) -> String {
    let items = found["items"].as_array().map_or(&[][..], Vec::as_slice);
    let has = |kind: &str, name: &str, good: &dyn Fn(&Value) -> bool| {
        items.iter().any(|item| item["kind"] == kind && item["metadata"]["name"] == name && good(item))
    };
    let is_true = |item: &Value, condition: &str| {
        let conditions = item["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
        conditions.iter().any(|one| one["type"] == condition && one["status"] == "True")
    };
    let has_driver = |item: &Value| {
        let drivers = item["spec"]["drivers"].as_array().map_or(&[][..], Vec::as_slice);
        drivers.iter().any(|driver| driver["name"] == DRIVER)
    };
    let checks = [
        ("the node is not Ready", has("Node", NODE, &|item| is_true(item, "Ready"))),
        ("the storage driver is not registered", has("CSINode", NODE, &has_driver)),
        ("CoreDNS is not available", has("Deployment", "coredns", &|item| is_true(item, "Available"))),
        ("there is no StorageClass", has("StorageClass", "btrfs", &|_| true)),
        ("there is no VolumeSnapshotClass", has("VolumeSnapshotClass", "btrfs", &|_| true)),
    ];
    checks.iter().filter(|(_, ok)| !ok).map(|(text, _)| *text).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_empty_cluster_lacks_everything_and_a_ready_one_nothing() {
        assert_eq!(lacking(&json!({})).matches(", ").count(), 4);
        let named = |kind: &str, name: &str| json!({"kind": kind, "metadata": {"name": name}});
        let mut node = named("Node", "node1");
        node["status"] = json!({"conditions": [{"type": "Ready", "status": "True"}]});
        let mut csi = named("CSINode", "node1");
        csi["spec"] = json!({"drivers": [{"name": DRIVER}]});
        let mut dns = named("Deployment", "coredns");
        dns["status"] = json!({"conditions": [{"type": "Available", "status": "False"}]});
        let classes = [named("StorageClass", "btrfs"), named("VolumeSnapshotClass", "btrfs")];
        let with = |dns: &Value| json!({"items": [node, csi, dns, classes[0], classes[1]]});
        assert_eq!(lacking(&with(&dns)), "CoreDNS is not available");
        dns["status"]["conditions"][0]["status"] = "True".into();
        assert_eq!(lacking(&with(&dns)), "");
    }
}
