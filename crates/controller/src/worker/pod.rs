//! Containers and pods as all workers have them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, DownwardAPIVolumeFile, DownwardAPIVolumeSource, EmptyDirVolumeSource, ObjectFieldSelector,
    Pod, PodSecurityContext, PodSpec, ResourceRequirements, SeccompProfile, SecurityContext, Toleration, Volume,
    VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kbbackup_api::v1alpha1::TargetVolumeInfo;
use kbbackup_core::contract::DOWNWARD_DIR;

use crate::settings::Settings;

/// User of the pods in which nothing but the mover runs, and group of the volumes that they mount.
const MOVER_USER: i64 = 65532;

/// A container of a worker: root inside of the container, without a way to become more. Every image of ours goes through
/// here, and so through the registry map.
pub fn container(name: &str, image: &str, command: Vec<String>, settings: &Settings) -> Container {
    Container {
        name: name.to_owned(),
        image: Some(settings.registries.rewrite(image)),
        image_pull_policy: settings.pull_policy.clone(),
        command: Some(command),
        security_context: Some(SecurityContext {
            run_as_user: Some(0),
            allow_privilege_escalation: Some(false),
            ..SecurityContext::default()
        }),
        ..Container::default()
    }
}

/// A pod in which nothing but the mover runs, anywhere: no rights of its own, and no user's either. `name` is its
/// container's; `arguments` are the mover's.
pub fn of_mover(name: &str, arguments: Vec<String>, settings: &Settings) -> PodSpec {
    let command = [vec!["/datasafed".to_owned()], arguments].concat();
    let mut container = container(name, &settings.mover_image, command, settings);
    let context = container.security_context.get_or_insert_default();
    context.run_as_user = Some(MOVER_USER);
    context.run_as_non_root = Some(true);
    context.capabilities = Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None });
    // A mover that dies without a report still says something.
    container.termination_message_policy = Some("FallbackToLogsOnError".to_owned());
    zero_limits(&mut container, settings);
    let mut pod = empty(&Account::Worker, settings);
    pod.containers = vec![container];
    pod.security_context = Some(PodSecurityContext {
        fs_group: Some(MOVER_USER),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
        ..PodSecurityContext::default()
    });
    run_anywhere(&mut pod, settings);
    pod
}

/// Behaviour 8.3: where neither request nor limit is set, the limit is 0, so that quotas and limit ranges do not
/// choose for us.
pub fn zero_limits(container: &mut Container, settings: &Settings) {
    if !settings.zero_resources {
        return;
    }
    let resources = container.resources.get_or_insert_with(ResourceRequirements::default);
    for name in ["cpu", "memory"] {
        let has = |amounts: &Option<BTreeMap<String, Quantity>>| {
            amounts.as_ref().is_some_and(|amounts| amounts.contains_key(name))
        };
        if !has(&resources.limits) && !has(&resources.requests) {
            resources.limits.get_or_insert_default().insert(name.to_owned(), Quantity("0".to_owned()));
        }
    }
}

/// Who a worker is to the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Account {
    /// Our account of the namespace: no token is mounted.
    Worker,
    /// The account that a target or restore names: with its token.
    Named(String),
}

impl Account {
    /// The named account, unless the name is absent or empty.
    pub fn named_or_worker(name: Option<&str>) -> Self {
        name.filter(|name| !name.is_empty()).map_or(Self::Worker, |name| Self::Named(name.to_owned()))
    }
}

/// An empty worker pod.
pub fn empty(account: &Account, settings: &Settings) -> PodSpec {
    let (name, token) = match account {
        Account::Worker => (&settings.worker_service_account, false),
        Account::Named(name) => (name, true),
    };
    PodSpec {
        restart_policy: Some("Never".to_owned()),
        service_account_name: Some(name.clone()),
        automount_service_account_token: Some(token),
        termination_grace_period_seconds: Some(30),
        ..PodSpec::default()
    }
}

/// The pod may run wherever the administrator lets workers run.
pub fn run_anywhere(pod: &mut PodSpec, settings: &Settings) {
    pod.tolerations = (!settings.tolerations.is_empty()).then(|| settings.tolerations.clone());
    pod.affinity.clone_from(&settings.affinity);
    pod.node_selector = (!settings.node_selector.is_empty()).then(|| settings.node_selector.clone());
}

/// The pod runs on the node of `target`, whatever keeps others away from it.
pub fn run_beside(pod: &mut PodSpec, target: &Pod) {
    let spec = target.spec.as_ref();
    pod.tolerations = spec.and_then(|spec| spec.tolerations.clone());
    pod.node_selector = spec
        .and_then(|spec| spec.node_name.clone())
        .map(|node| BTreeMap::from([("kubernetes.io/hostname".to_owned(), node)]));
}

/// Tolerates every taint.
pub fn tolerate_all() -> Vec<Toleration> {
    vec![Toleration { operator: Some("Exists".to_owned()), ..Toleration::default() }]
}

/// Volumes and mounts of `target` that a method asks for: behaviour 4.8.1.
pub fn target_volumes(target: &Pod, wanted: &TargetVolumeInfo) -> (Vec<Volume>, Vec<VolumeMount>) {
    let volumes = target.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    let chosen = |name: &str| match wanted.volumes.as_slice() {
        [] => wanted.volume_mounts.iter().any(|mount| mount.name == name),
        names => names.iter().any(|wanted| wanted == name),
    };
    let volumes: Vec<_> = volumes.iter().filter(|volume| chosen(&volume.name)).cloned().collect();
    // A mount without its volume would make the pod invalid.
    let mounts = wanted.volume_mounts.iter().filter(|mount| volumes.iter().any(|volume| volume.name == mount.name));
    let mounts = mounts.cloned().collect();
    (volumes, mounts)
}

/// An empty directory that lives as long as the pod.
pub fn scratch(name: &str) -> Volume {
    Volume { name: name.to_owned(), empty_dir: Some(EmptyDirVolumeSource::default()), ..Volume::default() }
}

/// A mount of a volume.
pub fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount { name: name.to_owned(), mount_path: path.to_owned(), ..VolumeMount::default() }
}

/// Shows annotations of the pod as files to its main containers. Nothing for no pair.
pub fn downward_files(pod: &mut PodSpec, files: &[(&str, &str)]) {
    if files.is_empty() {
        return;
    }
    let (volume, mount) = downward_volume(files);
    pod.volumes.get_or_insert_default().push(volume);
    for container in &mut pod.containers {
        container.volume_mounts.get_or_insert_default().push(mount.clone());
    }
}

/// Annotations of the pod as files: pairs of a file name and the annotation it shows.
pub fn downward_volume(files: &[(&str, &str)]) -> (Volume, VolumeMount) {
    const VOLUME: &str = "downward-volume";
    let item = |(path, annotation): &(&str, &str)| DownwardAPIVolumeFile {
        path: (*path).to_owned(),
        field_ref: Some(ObjectFieldSelector {
            field_path: format!("metadata.annotations['{annotation}']"),
            ..ObjectFieldSelector::default()
        }),
        ..DownwardAPIVolumeFile::default()
    };
    let source = DownwardAPIVolumeSource { items: Some(files.iter().map(item).collect()), default_mode: None };
    let volume = Volume { name: VOLUME.to_owned(), downward_api: Some(source), ..Volume::default() };
    (volume, mount(VOLUME, DOWNWARD_DIR))
}

/// A place for temporary files; the mover's image has none.
pub fn temporary_files(pod: &mut PodSpec) {
    const VOLUME: &str = "tmp";
    pod.volumes.get_or_insert_default().push(scratch(VOLUME));
    for container in &mut pod.containers {
        container.volume_mounts.get_or_insert_default().push(mount(VOLUME, "/tmp"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::worker::settings;

    #[test]
    fn behaviour_8_2_workers_are_pulled_by_the_registry_map() {
        use crate::settings::registries::Registries;
        let mut settings = settings();
        settings.registries = Registries::parse("registries: {defaultRegistry: mirror.example}").unwrap().into();
        let image = container("c", "mysql:8", vec![], &settings).image;
        assert_eq!(image.as_deref(), Some("mirror.example/library/mysql:8"));
    }

    #[test]
    fn behaviour_8_3_limits_are_zero_only_where_nothing_is_set() {
        let limits = |resources: serde_json::Value| {
            let mut container = container("c", "i", vec![], &settings());
            container.resources = serde_json::from_value(resources).unwrap();
            zero_limits(&mut container, &settings());
            serde_json::to_value(container.resources.unwrap()).unwrap()
        };
        assert_eq!(limits(json!(null)), json!({ "limits": {"cpu": "0", "memory": "0"} }));
        assert_eq!(
            limits(json!({ "requests": {"cpu": "1"} })),
            json!({ "limits": {"memory": "0"}, "requests": {"cpu": "1"} })
        );
        let mut off = settings();
        off.zero_resources = false;
        let mut untouched = container("c", "i", vec![], &off);
        zero_limits(&mut untouched, &off);
        assert_eq!(untouched.resources, None);
    }

    #[test]
    fn behaviour_4_8_1_target_volumes() {
        let pod: Pod = serde_json::from_value(json!({ "spec": { "containers": [], "volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": "data-pg-0"}}, {"name": "conf", "emptyDir": {}}] } }))
        .unwrap();
        for (wanted, volumes, mounts) in [
            (
                json!({ "volumes": ["data"], "volumeMounts": [{"name": "data", "mountPath": "/d"}] }),
                vec!["data"],
                vec!["/d"],
            ),
            (json!({ "volumeMounts": [{"name": "conf", "mountPath": "/c"}] }), vec!["conf"], vec!["/c"]),
            (json!({ "volumeMounts": [{"name": "none", "mountPath": "/n"}] }), vec![], vec![]),
            (
                json!({ "volumes": ["conf"], "volumeMounts": [{"name": "data", "mountPath": "/d"}] }),
                vec!["conf"],
                vec![],
            ),
            (json!({}), vec![], vec![]),
        ] {
            let (found, mounted) = target_volumes(&pod, &serde_json::from_value(wanted).unwrap());
            assert_eq!(found.iter().map(|volume| volume.name.as_str()).collect::<Vec<_>>(), volumes);
            assert_eq!(mounted.iter().map(|mount| mount.mount_path.as_str()).collect::<Vec<_>>(), mounts);
        }
    }

    #[test]
    fn behaviour_8_4_only_a_named_account_brings_a_token() {
        let token =
            |name: Option<&str>| empty(&Account::named_or_worker(name), &settings()).automount_service_account_token;
        assert_eq!(token(None), Some(false));
        assert_eq!(token(Some("")), Some(false));
        assert_eq!(token(Some("mine")), Some(true));
    }
}
