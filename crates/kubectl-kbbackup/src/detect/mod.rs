//! What a StatefulSet is: engine, port, login, data volume. Pure; the caller reads the cluster.

mod credential;
mod engines;

pub(crate) use credential::{Credential, Login, Value};
pub(crate) use engines::{ENGINES, Engine, by_name};

use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{Container, PodSpec},
};
use kube::ResourceExt;

/// What was found out about a workload.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub engine: &'static Engine,
    /// Name of the engine's container.
    pub container: String,
    pub image: String,
    /// Why we think so, for people.
    pub because: String,
    pub port: Port,
    pub login: Login,
    pub volume: Option<DataVolume>,
}

/// The port that clients use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    pub number: i32,
    /// Name in the container, when it has one; only then a policy can point to it.
    pub name: Option<String>,
    /// It is what workers take by themselves: the first port of the first container.
    pub is_first: bool,
}

/// The volume that holds the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DataVolume {
    pub name: String,
    pub mount_path: String,
}

/// Why nothing was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// The template has no containers.
    Empty,
    /// No container looks like a database we know.
    Engine { images: Vec<String> },
}

/// Looks at a pod template. `engine` fixes the engine; `container` the container.
pub(crate) fn detect(
    workload: &StatefulSet,
    engine: Option<&'static Engine>,
    container: Option<&str>,
) -> Result<Found, Unknown> {
    let pod = pod(workload).ok_or(Unknown::Empty)?;
    let candidates: Vec<&Container> =
        pod.containers.iter().filter(|candidate| container.is_none_or(|name| candidate.name == name)).collect();
    let images = || pod.containers.iter().map(|container| container.image.clone().unwrap_or_default()).collect();
    let (chosen, engine, because) = match engine {
        Some(engine) => {
            // Told which engine it is: the best match, else the first container.
            let best = candidates.iter().max_by_key(|candidate| score(candidate, engine).0).copied();
            let chosen = best.ok_or_else(|| Unknown::Engine { images: images() })?;
            (chosen, engine, "you said so".to_owned())
        }
        None => candidates
            .iter()
            .flat_map(|candidate| ENGINES.iter().map(move |engine| (*candidate, engine, score(candidate, engine))))
            .filter(|(_, _, (points, _))| *points >= ENOUGH)
            // The first of equals: the order of containers and of the table decides.
            .fold(None, |best: Option<(&Container, &'static Engine, (u32, String))>, next| match best {
                Some(best) if best.2.0 >= next.2.0 => Some(best),
                _ => Some(next),
            })
            .map(|(container, engine, (_, because))| (container, engine, because))
            .ok_or_else(|| Unknown::Engine { images: images() })?,
    };
    Ok(Found {
        engine,
        container: chosen.name.clone(),
        image: chosen.image.clone().unwrap_or_default(),
        because,
        port: port(pod, chosen, engine),
        login: credential::login(pod, chosen, engine),
        volume: data_volume(workload, pod, chosen, engine),
    })
}

pub(crate) fn pod(workload: &StatefulSet) -> Option<&PodSpec> {
    workload.spec.as_ref()?.template.spec.as_ref()
}

/// An image name alone is enough; a port alone is not.
const ENOUGH: u32 = 3;

fn score(container: &Container, engine: &Engine) -> (u32, String) {
    let mut points = 0;
    let mut because = Vec::new();
    let image = container.image.as_deref().unwrap_or_default();
    if engine.images.contains(&engines::image_word(image)) {
        points += 4;
        because.push(format!("image {image}"));
    }
    let env = container.env.as_deref().unwrap_or_default();
    if let Some(sign) = env.iter().find(|variable| engine.signs.contains(&variable.name.as_str())) {
        points += 3;
        because.push(format!("variable {}", sign.name));
    }
    let ports = container.ports.as_deref().unwrap_or_default();
    if ports.iter().any(|port| port.container_port == engine.port) {
        points += 1;
        because.push(format!("port {}", engine.port));
    }
    (points, because.join(", "))
}

fn port(pod: &PodSpec, container: &Container, engine: &Engine) -> Port {
    let ports = container.ports.as_deref().unwrap_or_default();
    let named = ports.iter().find(|port| port.container_port == engine.port).or_else(|| ports.first());
    let number = named.map_or(engine.port, |port| port.container_port);
    let first =
        pod.containers.first().and_then(|first| first.ports.as_deref()?.first()).map(|port| port.container_port);
    Port { number, name: named.and_then(|port| port.name.clone()), is_first: first == Some(number) }
}

fn data_volume(workload: &StatefulSet, pod: &PodSpec, container: &Container, engine: &Engine) -> Option<DataVolume> {
    let claims = claimed_volumes(workload, pod);
    let mounts: Vec<DataVolume> = container
        .volume_mounts
        .iter()
        .flatten()
        .filter(|mount| claims.contains(&mount.name))
        .map(|mount| DataVolume { name: mount.name.clone(), mount_path: mount.mount_path.clone() })
        .collect();
    let env = container.env.as_deref().unwrap_or_default();
    let told = env
        .iter()
        .filter(|variable| engine.data_env.contains(&variable.name.as_str()))
        .filter_map(|variable| variable.value.as_deref());
    let usual = engine.data_dirs.iter().copied();
    // The volume whose mount path holds the data directory, the told one first, the deepest mount first.
    for directory in told.chain(usual) {
        let holding = mounts.iter().filter(|mount| holds(&mount.mount_path, directory));
        if let Some(found) = holding.max_by_key(|mount| mount.mount_path.len()) {
            return Some(found.clone());
        }
    }
    match mounts.as_slice() {
        [only] => Some(only.clone()),
        _ => None,
    }
}

/// Whether `directory` lies in or is `mount`, or the other way round (a mount below the usual directory).
fn holds(mount: &str, directory: &str) -> bool {
    let below = |inner: &str, outer: &str| {
        inner.strip_prefix(outer.trim_end_matches('/')).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    below(directory, mount) || below(mount, directory)
}

/// Names of volumes that are persistent: templates of claims, and claims by name.
fn claimed_volumes(workload: &StatefulSet, pod: &PodSpec) -> Vec<String> {
    let templates =
        workload.spec.iter().flat_map(|spec| spec.volume_claim_templates.iter().flatten()).map(ResourceExt::name_any);
    let claims = pod.volumes.iter().flatten().filter(|volume| volume.persistent_volume_claim.is_some());
    templates.chain(claims.map(|volume| volume.name.clone())).collect()
}

/// Mounts of persistent volumes in a container, for a question.
pub(crate) fn persistent_mounts(workload: &StatefulSet, container: &str) -> Vec<DataVolume> {
    let Some(pod) = pod(workload) else { return Vec::new() };
    let claims = claimed_volumes(workload, pod);
    pod.containers
        .iter()
        .filter(|candidate| candidate.name == container)
        .flat_map(|candidate| candidate.volume_mounts.iter().flatten())
        .filter(|mount| claims.contains(&mount.name))
        .map(|mount| DataVolume { name: mount.name.clone(), mount_path: mount.mount_path.clone() })
        .collect()
}

#[cfg(test)]
mod tests;
