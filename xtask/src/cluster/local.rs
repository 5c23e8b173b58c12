//! The one-node Kubernetes on this machine: up, down, status.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::image::{self, Image};
use super::node::{self, Programs};
use super::paths::State;
use super::process::{self, Daemon};
use super::{COREDNS_IMAGE, Cluster, Options, PAUSE_IMAGE, Target, addons, cache, debian, host, pki, sh};
use crate::ui;

pub(crate) fn up(options: &Options) -> Result<Cluster> {
    let start = Instant::now();
    ensure!(cfg!(target_os = "linux"), "the local node needs Linux; use --context, or install Docker and kind");
    ensure!(
        rustix::process::geteuid().is_root(),
        "the local node needs root; use --context, or install Docker and kind"
    );
    let state = State::open()?;
    fs::create_dir_all(cache::root()?)?;
    let _lock = lock()?;
    debian::ensure()?;
    host::refuse_a_second_node(&state)?;
    let (programs, images) = artefacts(options)?;
    fs::create_dir_all(state.root())?;

    ui::step("configuration, certificates, network, volumes", || {
        host::remember_sysctls(&state)?;
        pki::ensure(&state)?;
        node::configure(&state)?;
        host::bridge_up(&state)?;
        host::pool_up(&state)
    })?;
    let cluster = cluster(&state, &programs);
    let etcd = node::etcd(&state);
    let containerd = node::containerd(&state);
    let apiserver = node::apiserver(&state, &programs);
    etcd.ensure(&state)?;
    containerd.ensure(&state)?;
    apiserver.ensure(&state)?;
    // Unpacking images and starting the API server take about the same time.
    std::thread::scope(|scope| -> Result<()> {
        let images = scope.spawn(|| load(&images));
        ui::step("etcd and API server", || {
            answered(&state, &[&etcd, &apiserver], "the API server", || {
                sh::output(cluster.kubectl().args(["get", "--raw=/readyz"]))
            })
        })?;
        ui::step("add-ons", || addons::apply(&cluster, &state))?;
        images.join().map_err(|_| anyhow::anyhow!("importing images stopped unexpectedly"))?
    })?;
    let workers = node::workers(&state, &programs);
    let all: Vec<&Daemon> = [&etcd, &containerd, &apiserver].into_iter().chain(&workers).collect();
    for worker in &workers {
        worker.ensure(&state)?;
    }
    ui::step("node, DNS, storage, snapshots", || {
        let mut missing = String::new();
        let up = process::wait(Duration::from_secs(120), || {
            missing = addons::missing(&cluster).unwrap_or_else(|error| format!("{error:#}"));
            missing.is_empty() || all.iter().any(|daemon| daemon.check(&state).is_err())
        });
        all.iter().try_for_each(|daemon| daemon.check(&state))?;
        ensure!(up, "not ready after two minutes: {missing}; logs are in {}", state.join("logs").display());
        Ok(())
    })?;
    ui::note(format!("{} in all", ui::seconds(start.elapsed()).trim()));
    Ok(cluster)
}

/// Fills the caches.
pub(crate) fn build(options: &Options) -> Result<()> {
    fs::create_dir_all(cache::root()?)?;
    debian::ensure()?;
    artefacts(options).map(drop)
}

/// Programs and images, from the cache or made now. Compiling keeps one core busy at times and all at others, making
/// an image mostly waits for the network: two lanes.
fn artefacts(options: &Options) -> Result<(Programs, Vec<Image>)> {
    ui::step("programs and images", || {
        std::thread::scope(|scope| {
            let engines =
                scope.spawn(|| options.images.iter().map(|name| image::known(name)).collect::<Result<Vec<_>>>());
            let programs = Programs::build()?;
            let mut images = vec![image::known(PAUSE_IMAGE)?, image::known(COREDNS_IMAGE)?];
            addons::fetch()?;
            images.extend(engines.join().map_err(|_| anyhow::anyhow!("making images stopped unexpectedly"))??);
            Ok((programs, images))
        })
    })
}

/// Repeats until it works; gives up after a minute, or at once when a daemon it depends on has ended.
fn answered(state: &State, daemons: &[&Daemon], what: &str, mut ask: impl FnMut() -> Result<String>) -> Result<()> {
    let mut last = None;
    let mut dead = None;
    let ok = process::wait(Duration::from_secs(60), || {
        dead = daemons.iter().find_map(|daemon| daemon.check(state).err());
        dead.is_some() || ask().map_err(|error| last = Some(error)).is_ok()
    });
    if let Some(error) = dead {
        return Err(error);
    }
    if !ok {
        let error = last.unwrap_or_else(|| anyhow::anyhow!("no answer"));
        let logs: Vec<String> = daemons.iter().map(|daemon| sh::tail(&state.log(daemon.name))).collect();
        return Err(error).with_context(|| format!("{what} does not answer after a minute; {}", logs.join("\n")));
    }
    Ok(())
}

fn cluster(state: &State, programs: &Programs) -> Cluster {
    Cluster { kubeconfig: state.kubeconfig(), context: None, kubectl: programs.kubectl(), target: Target::Local }
}

/// Whether the node's API server runs.
pub(crate) fn is_up() -> bool {
    State::open().is_ok_and(|state| process::running(&state, "kube-apiserver").is_some())
}

/// The running node, without touching it.
pub(crate) fn attach() -> Result<Cluster> {
    let state = State::open()?;
    ensure!(
        process::running(&state, "kube-apiserver").is_some(),
        "no cluster is up; start it with: cargo xtask cluster up"
    );
    Ok(cluster(&state, &Programs::build()?))
}

/// Imports images that containerd does not have in this version.
pub(crate) fn load(images: &[Image]) -> Result<()> {
    let state = State::open()?;
    let lock = File::create(state.join("images.lock"))?;
    lock.lock()?;
    let mut loaded = loaded(&state);
    for image in images {
        let archive = image.archive.to_string_lossy().into_owned();
        if loaded.get(&image.name) == Some(&archive) {
            continue;
        }
        ui::step(&format!("import {}", image.name), || {
            answered(&state, &[&node::containerd(&state)], "containerd", || sh::output(ctr(&state).arg("version")))?;
            sh::output(ctr(&state).args(["--namespace=k8s.io", "images", "import"]).arg(&image.archive))
        })?;
        loaded.insert(image.name.clone(), archive);
        let temporary = state.join("images.json.new");
        fs::write(&temporary, serde_json::to_string_pretty(&loaded)?)?;
        fs::rename(temporary, state.join("images.json"))?;
    }
    Ok(())
}

/// Which archive each image in containerd came from.
fn loaded(state: &State) -> BTreeMap<String, String> {
    let text = fs::read_to_string(state.join("images.json")).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

fn ctr(state: &State) -> std::process::Command {
    let mut command = sh::command("ctr", ["--address"]);
    command.arg(state.containerd_socket());
    command
}

/// Stops the node and removes everything but the caches.
pub(crate) fn down() -> Result<()> {
    let start = Instant::now();
    let state = State::open()?;
    let _lock = lock()?;
    if !state.root().exists() {
        ui::note("no cluster is up");
        return Ok(());
    }
    ensure!(rustix::process::geteuid().is_root(), "the local node belongs to root");
    let gentle = Duration::from_secs(5);
    ui::step("processes and containers", || {
        // First whoever would start containers again.
        for name in ["kube-controller-manager", "kube-scheduler", "kubelet"] {
            process::stop(&state, name, gentle)?;
        }
        if process::running(&state, "containerd").is_some() {
            remove_containers(&state);
        }
        host::containers_down(&state)?;
        for name in ["kube-proxy", "csi-snapshotter", "snapshot-controller", "csi-btrfs", "containerd"] {
            process::stop(&state, name, gentle)?;
        }
        // Their data goes next, so nobody waits for them to say good-bye.
        for name in process::known(&state) {
            process::stop(&state, &name, Duration::ZERO)?;
        }
        process::end_strays(&state, &cache::root()?.join("bin"))
    })?;
    ui::step("mounts", || host::unmount_all(&state))?;
    ui::step("network", || {
        host::bridge_down()?;
        host::firewall_down()
    })?;
    ui::step("state", || {
        host::sweep(&state);
        host::restore_sysctls(&state)?;
        fs::remove_dir_all(state.root()).with_context(|| format!("cannot delete {}", state.root().display()))
    })?;
    ui::note(format!("{} in all", ui::seconds(start.elapsed()).trim()));
    Ok(())
}

/// Asks containerd to end all containers, so that it removes its own leftovers. A container goes with its pod's sandbox
/// and may be gone when its turn comes, so errors say nothing; what is really left is ended without containerd.
fn remove_containers(state: &State) {
    let list = sh::output(ctr(state).args(["--namespace=k8s.io", "tasks", "list", "--quiet"])).unwrap_or_default();
    let tasks: Vec<&str> = list.split_whitespace().collect();
    if !tasks.is_empty() {
        let _ = sh::output(ctr(state).args(["--namespace=k8s.io", "tasks", "delete", "--force"]).args(tasks));
    }
}

pub(crate) fn status() -> Result<()> {
    let state = State::open()?;
    let known = process::known(&state);
    if known.is_empty() {
        bail!("no cluster is up; start it with: cargo xtask cluster up");
    }
    let mut stopped = Vec::new();
    for name in &known {
        if let Some(found) = process::running(&state, name) {
            ui::result(format!("{name:<24} running, process {}", found.pid));
        } else {
            ui::result(format!("{name:<24} NOT RUNNING, see {}", state.log(name).display()));
            stopped.push(name.as_str());
        }
    }
    for (name, _) in loaded(&state) {
        ui::result(format!("image {name}"));
    }
    ensure!(stopped.is_empty(), "not running: {}; repair with: cargo xtask cluster up", stopped.join(", "));
    let missing = addons::missing(&attach()?)?;
    ensure!(missing.is_empty(), "not ready: {missing}");
    ui::result(format!("KUBECONFIG={}", state.kubeconfig().display()));
    Ok(())
}

/// One `up` or `down` at a time.
fn lock() -> Result<File> {
    let file = File::create(cache::root()?.join("cluster.lock"))?;
    if file.try_lock().is_err() {
        ui::note("waiting for another `cargo xtask cluster` to finish");
        file.lock()?;
    }
    Ok(file)
}
