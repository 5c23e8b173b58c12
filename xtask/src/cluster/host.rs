//! What the local node changes on the machine outside its own folder, and how each change is undone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::paths::State;
use super::process::Process;
use super::{BRIDGE, NODE_IP, process, sh};

/// A sparse file: only what the volumes hold takes space.
const POOL_SIZE: &str = "40G";

/// Kernel settings that the node's programs change.
const SYSCTLS: &[&str] = &[
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "net/bridge/bridge-nf-call-iptables",
    "net/ipv4/conf/all/route_localnet",
    "net/ipv4/ip_forward",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
];

/// Notes the settings as they were before the node first started.
pub(crate) fn remember_sysctls(state: &State) -> Result<()> {
    let file = state.join("sysctls.json");
    if file.exists() {
        return Ok(());
    }
    let read = |name: &str| fs::read_to_string(Path::new("/proc/sys").join(name)).ok();
    let found: BTreeMap<&str, String> =
        SYSCTLS.iter().filter_map(|name| Some((*name, read(name)?.trim().to_owned()))).collect();
    Ok(fs::write(file, serde_json::to_string_pretty(&found)?)?)
}

pub(crate) fn restore_sysctls(state: &State) -> Result<()> {
    let Ok(text) = fs::read_to_string(state.join("sysctls.json")) else { return Ok(()) };
    let found: BTreeMap<String, String> = serde_json::from_str(&text)?;
    for (name, value) in found {
        // Some are read-only in a container; those were never changed either.
        let _ = fs::write(Path::new("/proc/sys").join(name), value);
    }
    Ok(())
}

/// The bridge is there before anything starts: its address is the node's.
pub(crate) fn bridge_up(state: &State) -> Result<()> {
    if !Path::new("/sys/class/net").join(BRIDGE).exists() {
        ip(&["link", "add", BRIDGE, "type", "bridge"])?;
    }
    // Says whose it is.
    ip(&["link", "set", "dev", BRIDGE, "alias", &alias(state)])?;
    if !ip(&["-o", "-4", "address", "show", "dev", BRIDGE])?.contains(&format!("{NODE_IP}/16")) {
        ip(&["address", "add", &format!("{NODE_IP}/16"), "dev", BRIDGE])?;
    }
    ip(&["link", "set", BRIDGE, "up"])?;
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("cannot switch IP forwarding on")?;
    // Pods on one bridge reach each other's Services only if the bridge shows their packets to iptables.
    if !Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables").exists() {
        sh::output(&mut sh::command("modprobe", ["br_netfilter"]))?;
    }
    fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "1").context("cannot switch bridge-nf-call-iptables on")
}

/// A machine has room for one node: addresses and ports are fixed.
pub(crate) fn refuse_a_second_node(state: &State) -> Result<()> {
    let owner = fs::read_to_string(Path::new("/sys/class/net").join(BRIDGE).join("ifalias")).unwrap_or_default();
    let owner = owner.trim();
    anyhow::ensure!(
        owner.is_empty() || owner == alias(state),
        "another local node runs on this machine, with its state in {owner}; take it down with the same XDG_CACHE_HOME first"
    );
    Ok(())
}

/// The kernel keeps at most 255 bytes; the end of a path says most.
fn alias(state: &State) -> String {
    let path = state.root().to_string_lossy();
    let start = path.len().saturating_sub(255);
    path.get(start..).unwrap_or_default().to_owned()
}

pub(crate) fn bridge_down() -> Result<()> {
    if Path::new("/sys/class/net").join(BRIDGE).exists() {
        ip(&["link", "delete", BRIDGE])?;
    }
    Ok(())
}

fn ip(args: &[&str]) -> Result<String> {
    sh::output(&mut sh::command("ip", args))
}

/// Mounts the file system that holds the volumes.
pub(crate) fn pool_up(state: &State) -> Result<()> {
    let (image, pool) = (state.join("pool.img"), state.join("pool"));
    if mounts_below(&pool)?.contains(&pool) {
        return Ok(());
    }
    if !image.exists() {
        let temporary = state.join("pool.img.new");
        let _ = fs::remove_file(&temporary);
        sh::output(sh::command("truncate", ["--size", POOL_SIZE]).arg(&temporary))?;
        sh::output(sh::command("mkfs.btrfs", ["--quiet", "--label", "kbbackup-test"]).arg(&temporary))?;
        fs::rename(temporary, &image)?;
    }
    fs::create_dir_all(&pool)?;
    // discard gives the space of deleted volumes back to the disk the file lies on.
    sh::output(sh::command("mount", ["-o", "loop,noatime,discard=async"]).arg(&image).arg(&pool))?;
    Ok(())
}

/// Unmounts everything below the state folder; a loop device made by `mount` goes with its mount.
pub(crate) fn unmount_all(state: &State) -> Result<()> {
    // Twice: a mount may hide another one at the same place.
    for _ in 0..2 {
        for mount in mounts_below(state.root())?.iter().rev() {
            sh::output(sh::command("umount", ["--lazy"]).arg(mount)).or_else(|error| {
                // Gone with its parent in the meantime.
                if mounts_below(mount)?.is_empty() { Ok(String::new()) } else { Err(error) }
            })?;
        }
    }
    let left = mounts_below(state.root())?;
    anyhow::ensure!(left.is_empty(), "still mounted: {left:?}");
    Ok(())
}

/// In the order of mounting.
fn mounts_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(mount_points(&table).into_iter().filter(|mount| mount.starts_with(dir)).collect())
}

fn mount_points(table: &str) -> Vec<PathBuf> {
    let unescape = |text: &str| text.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\");
    table.lines().filter_map(|line| line.split(' ').nth(4)).map(|point| PathBuf::from(unescape(point))).collect()
}

/// Removes the chains of kube-proxy, the kubelet and the CNI plugins, and every rule that leads into them.
pub(crate) fn firewall_down() -> Result<()> {
    for family in ["iptables", "ip6tables"] {
        // A kernel without the family has nothing to clean.
        let Ok(saved) = sh::output(&mut sh::command(format!("{family}-save"), [""; 0])) else { continue };
        if let Some(cleaned) = without_ours(&saved) {
            sh::fed(&mut sh::command(format!("{family}-restore"), [""; 0]), &cleaned)?;
        }
    }
    Ok(())
}

/// Nothing when there is nothing of ours in it.
fn without_ours(saved: &str) -> Option<String> {
    let ours = |line: &str| {
        let names_ours = line.contains("KUBE-") || line.contains("CNI-");
        names_ours && (line.starts_with(':') || line.starts_with("-A "))
    };
    if !saved.lines().any(ours) {
        return None;
    }
    Some(saved.lines().filter(|line| !ours(line)).flat_map(|line| [line, "\n"]).collect())
}

/// Ends what is left of containers: their processes are children of shims that name our containerd's socket.
pub(crate) fn containers_down(state: &State) -> Result<()> {
    let socket = state.containerd_socket();
    let processes = process::all()?;
    let shims: BTreeSet<i32> = processes.iter().filter(|one| is_shim_of(one, &socket)).map(|one| one.pid).collect();
    let mut doomed = shims.clone();
    // Parents may be listed behind their children, so look until nothing is added.
    loop {
        let more: Vec<i32> = processes.iter().filter(|one| doomed.contains(&one.parent)).map(|one| one.pid).collect();
        let before = doomed.len();
        doomed.extend(more);
        if doomed.len() == before {
            break;
        }
    }
    // Children first: a shim that sees its container end could otherwise be asked to start it again.
    for pid in doomed.iter().filter(|pid| !shims.contains(pid)).chain(&shims) {
        process::end(*pid, Duration::ZERO)?;
    }
    Ok(())
}

fn is_shim_of(process: &Process, socket: &Path) -> bool {
    let is_shim = process.command.first().is_some_and(|program| program.ends_with("containerd-shim-runc-v2"));
    is_shim && process.command.iter().any(|arg| Path::new(arg) == socket)
}

/// Removes what the kubelet, containerd and CNI leave at fixed places outside the state folder.
pub(crate) fn sweep(state: &State) {
    // Groups can be removed once they are empty, children first; the kubelet makes one tree per controller.
    if let Ok(controllers) = fs::read_dir("/sys/fs/cgroup") {
        let trees = controllers.flatten().map(|entry| entry.path().join("kubepods"));
        for tree in trees.chain([PathBuf::from("/sys/fs/cgroup/kubepods")]).filter(|tree| tree.is_dir()) {
            remove_groups(&tree);
        }
    }
    // Links to the pods' logs.
    remove_matching("/var/log/containers", |path| fs::read_link(path).is_ok_and(|to| to.starts_with(state.root())));
    remove_matching("/var/lib/cni/results", |path| {
        path.file_name().is_some_and(|name| is_cni_result(&name.to_string_lossy()))
    });
    remove_matching("/var/lib/kubelet/device-plugins", |path| {
        path.file_name().is_some_and(|name| {
            ["kubelet.sock", "kubelet_internal_checkpoint", "DEPRECATION"].iter().any(|own| name == *own)
        })
    });
    // Shims of containers killed above leave their sockets; those of a living containerd are in use and answer.
    remove_matching("/run/containerd/s", |path| std::os::unix::net::UnixStream::connect(path).is_err());
    for dir in [
        "/var/lib/kubelet/device-plugins",
        "/var/lib/kubelet",
        "/var/lib/cni/results",
        "/var/lib/cni",
        "/var/log/containers",
        "/run/containerd/runc/k8s.io",
        "/run/containerd/runc",
        "/run/containerd/s",
        "/run/containerd",
    ] {
        let _ = fs::remove_dir(dir); // only when nothing is in it
    }
}

/// The loopback plugin runs for every pod under a name of containerd's own. Results of pods that live are in use only
/// when they are taken down, and after `down` no pod of ours lives.
fn is_cni_result(name: &str) -> bool {
    name.starts_with("kbbackup-") || name.starts_with("cni-loopback-")
}

fn remove_groups(dir: &Path) {
    if let Ok(entries) = fs::read_dir(dir) {
        for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
            remove_groups(&entry.path());
        }
    }
    let _ = fs::remove_dir(dir);
}

fn remove_matching(dir: &str, ours: impl Fn(&Path) -> bool) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten().filter(|entry| ours(&entry.path())) {
        let _ = fs::remove_file(entry.path());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_kubernetes_and_cni_rules_are_taken_out() {
        let saved = "*nat\n:POSTROUTING ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n-A POSTROUTING -j KUBE-POSTROUTING\n\
                     -A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE\n-A CNI-abc -j ACCEPT\nCOMMIT\n";
        let kept = "*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE\nCOMMIT\n";
        assert_eq!(without_ours(saved).as_deref(), Some(kept));
        assert_eq!(without_ours(kept), None);
    }

    #[test]
    fn a_mount_point_with_a_blank_is_read_right() {
        let table = "36 35 98:0 /mnt1 /a\\040b/c rw,noatime master:1 - ext3 /dev/root rw\n";
        assert_eq!(mount_points(table), [PathBuf::from("/a b/c")]);
    }

    #[test]
    fn a_shim_of_another_containerd_is_not_ours() {
        let shim = |socket: &str| Process {
            pid: 1,
            parent: 1,
            command: ["/usr/bin/containerd-shim-runc-v2", "-address", socket].map(str::to_owned).into(),
        };
        assert!(is_shim_of(&shim("/x/containerd.sock"), Path::new("/x/containerd.sock")));
        assert!(!is_shim_of(&shim("/run/containerd/containerd.sock"), Path::new("/x/containerd.sock")));
    }
}
