//! The claims and Jobs of a restore as plain values: behaviour 6.5 and 6.6.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::Offset;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{
    EnvVar, PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodSecurityContext, PodSpec, Volume,
    VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kbbackup_api::in_place;
use kbbackup_api::names::{annotations, labels};
use kbbackup_api::v1alpha1::{Backup, JobActionSpec, Restore, RestoreVolumeClaim};
use kbbackup_core::{contract, gotime, layout, names};
use kube::{Resource as _, ResourceExt as _};

use super::sets::{self, Set};
use crate::backup::{build as backup_build, link, workload};
use crate::settings::Settings;
use crate::worker::error::Refusal;
use crate::worker::job::{self, Shell};
use crate::worker::pod::{self as worker_pod, Account};
use crate::worker::{RepoAccess, env, exec};

/// One claim of a restore.
#[derive(Clone, Debug)]
pub struct Claim<'a> {
    /// Name in the cluster.
    pub name: String,
    /// Name of its volume in the pod.
    pub volume: String,
    /// What the restore says about it.
    pub wish: &'a RestoreVolumeClaim,
    /// Replica, when it comes from a template.
    pub replica: Option<i32>,
}

/// The claims that the Job of `replica` mounts.
pub fn claims(restore: &Restore, replica: usize) -> Vec<Claim<'_>> {
    let Some(config) = &restore.spec.prepare_data_config else { return Vec::new() };
    let mut all: Vec<_> = config
        .volume_claims
        .iter()
        .map(|wish| {
            let name = wish.metadata.name.clone().unwrap_or_default();
            Claim { volume: names::shorten63(&format!("dp-claim-{name}")), name, wish, replica: None }
        })
        .collect();
    if let Some(template) = &config.volume_claims_template {
        let ordinal = template.starting_index() + replica as i32;
        all.extend(template.templates.iter().map(|wish| {
            let name = format!("{}-{ordinal}", wish.metadata.name.as_deref().unwrap_or_default());
            Claim { volume: names::shorten63(&format!("dp-claim-tpl-{name}")), name, wish, replica: Some(ordinal) }
        }));
    }
    all
}

/// How many Jobs fill claims.
pub fn replicas(restore: &Restore) -> usize {
    let config = restore.spec.prepare_data_config.as_ref();
    let template = config.and_then(|config| config.volume_claims_template.as_ref());
    template.map_or(1, |template| usize::try_from(template.replicas).unwrap_or(1))
}

/// Whether the restore has claims to fill.
pub fn has_claims(restore: &Restore) -> bool {
    let config = restore.spec.prepare_data_config.as_ref();
    config.is_some_and(|config| !config.volume_claims.is_empty() || config.volume_claims_template.is_some())
}

/// A claim as it is created when it does not exist. It has no owner: the data outlives the restore.
pub fn claim(restore: &Restore, claim: &Claim<'_>) -> PersistentVolumeClaim {
    let meta = &claim.wish.metadata;
    let mut set = meta.labels.clone();
    if let (Some(ordinal), Some(instance), Some(component)) =
        (claim.replica, meta.labels.get(labels::INSTANCE).cloned(), meta.labels.get(labels::COMPONENT_NAME).cloned())
    {
        let owner = format!("{instance}-{component}");
        let pod = match meta.labels.get(labels::INSTANCE_TEMPLATE).filter(|name| !name.is_empty()) {
            Some(template) => format!("{owner}-{template}-{ordinal}"),
            None => format!("{owner}-{ordinal}"),
        };
        set.insert(labels::MANAGED_BY.to_owned(), labels::MANAGED_BY_KUBEBLOCKS.to_owned());
        set.insert("workloads.kubeblocks.io/managed-by".to_owned(), "InstanceSet".to_owned());
        set.insert("workloads.kubeblocks.io/instance".to_owned(), owner);
        set.entry(labels::POD_NAME.to_owned()).or_insert(pod);
    }
    let mut notes = meta.annotations.clone();
    if in_place::target(restore).is_some() {
        // Only for a time: by the one it is found when it goes, by the other it is known as ours.
        set.insert(labels::IN_PLACE.to_owned(), restore.name_any());
        notes.insert(annotations::RESTORED_BY.to_owned(), super::mark(restore));
    }
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(claim.name.clone()),
            namespace: restore.namespace(),
            labels: (!set.is_empty()).then_some(set),
            annotations: (!notes.is_empty()).then_some(notes),
            finalizers: (!meta.finalizers.is_empty()).then(|| meta.finalizers.clone()),
            ..ObjectMeta::default()
        },
        spec: Some(claim.wish.volume_claim_spec.clone()),
        status: None,
    }
}

/// The claims of `replica` as volumes of a pod.
fn volumes(restore: &Restore, replica: usize) -> Vec<Volume> {
    let volume = |claim: Claim<'_>| {
        let from = PersistentVolumeClaimVolumeSource { claim_name: claim.name, read_only: None };
        Volume { name: claim.volume, persistent_volume_claim: Some(from), ..Volume::default() }
    };
    claims(restore, replica).into_iter().map(volume).collect()
}

/// Where the restore wants its pods to run.
fn schedule(restore: &Restore, pod: &mut PodSpec, settings: &Settings) {
    let config = restore.spec.prepare_data_config.as_ref();
    let Some(spec) = config.and_then(|config| config.scheduling_spec.as_ref()) else {
        return worker_pod::run_anywhere(pod, settings);
    };
    pod.tolerations = (!spec.tolerations.is_empty()).then(|| spec.tolerations.clone());
    pod.node_selector = (!spec.node_selector.is_empty()).then(|| spec.node_selector.clone());
    pod.node_name = spec.node_name.clone().filter(|name| !name.is_empty());
    pod.affinity.clone_from(&spec.affinity);
    pod.topology_spread_constraints =
        (!spec.topology_spread_constraints.is_empty()).then(|| spec.topology_spread_constraints.clone());
    pod.scheduler_name = spec.scheduler_name.clone().filter(|name| !name.is_empty());
}

/// The Job that has the claims of `replica` bound, which their driver fills from snapshots: most classes make a volume only when
/// a pod wants it.
pub fn bind(restore: &Restore, name: &str, replica: usize, settings: &Settings) -> Job {
    let mut pod = worker_pod::of_mover("restore", vec!["version".to_owned()], settings);
    if let Some(context) = &mut pod.security_context {
        // It would change owner and mode of the data.
        context.fs_group = None;
    }
    let mounts = claims(restore, replica).into_iter().map(|claim| {
        let path = format!("/volumes/{}", claim.volume);
        VolumeMount { read_only: Some(true), ..worker_pod::mount(&claim.volume, &path) }
    });
    pod.containers[0].volume_mounts.get_or_insert_default().extend(mounts);
    pod.volumes.get_or_insert_default().extend(volumes(restore, replica));
    schedule(restore, &mut pod, settings);
    job::job(shell(restore, name, settings, false), pod, settings)
}

/// What the Jobs of one set are made from.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// The restore.
    pub restore: &'a Restore,
    /// The set.
    pub set: &'a Set,
    /// How the repository is reached.
    pub access: &'a RepoAccess,
    /// The operator's settings.
    pub settings: &'a Settings,
}

impl Site<'_> {
    /// The Job that fills the claims of `replica` with the data of `source`.
    ///
    /// # Errors
    /// [`Refusal::Fatal`] when a claim has no place, or the image is not known.
    pub fn prepare(
        &self,
        name: &str,
        action: &JobActionSpec,
        replica: usize,
        source: Option<&str>,
    ) -> Result<Job, Refusal> {
        let (restore, settings) = (self.restore, self.settings);
        let mut mounts = Vec::new();
        let mut extra_labels = BTreeMap::new();
        for claim in claims(restore, replica) {
            mounts.push(worker_pod::mount(&claim.volume, &sets::mount_path(&self.set.backup, claim.wish)?));
            // Labels of a plain workload's claims could make its Services send clients to our pod.
            if claim.replica.is_some() && claim.wish.metadata.labels.contains_key(labels::COMPONENT_NAME) {
                extra_labels.extend(claim.wish.metadata.labels.clone());
            }
        }
        let list = self.env(source);
        let mut pod = self.pod(action, list, None)?;
        pod.volumes.get_or_insert_default().extend(volumes(restore, replica));
        pod.containers[0].volume_mounts.get_or_insert_default().extend(mounts);
        schedule(restore, &mut pod, settings);
        Ok(self.finish(name, pod, extra_labels))
    }

    /// The Job of a `postReady` entry that works for `target`.
    ///
    /// # Errors
    /// [`Refusal::Fatal`] when the image is not known.
    pub fn post_ready(
        &self,
        name: &str,
        action: &JobActionSpec,
        target: &Pod,
        source: Option<&str>,
    ) -> Result<Job, Refusal> {
        let mut list = self.env(source);
        env::merge(&mut list, &backup_build::pod_env(target));
        let config = self.restore.spec.ready_config.as_ref();
        let credential = config.and_then(|config| config.connection_credential.as_ref());
        let mut connection = env::connection(target, credential, None).map_err(Refusal::fatal)?;
        // Here the contract's order is user, password, port, host.
        connection.reverse();
        env::merge(&mut list, &connection);
        let env_from = target
            .spec
            .as_ref()
            .and_then(|spec| spec.containers.first())
            .and_then(|container| container.env_from.clone());
        let mut pod = self.pod(action, list, env_from)?;
        if action.run_on_target_pod_node() {
            worker_pod::run_beside(&mut pod, target);
            let job_action = config.and_then(|config| config.job_action.as_ref());
            let volume_mounts = job_action.map(|action| action.target.volume_mounts.clone()).unwrap_or_default();
            let wanted = kbbackup_api::v1alpha1::TargetVolumeInfo { volumes: Vec::new(), volume_mounts };
            let (volumes, mounts) = worker_pod::target_volumes(target, &wanted);
            pod.volumes.get_or_insert_default().extend(volumes);
            pod.containers[0].volume_mounts.get_or_insert_default().extend(mounts);
        } else {
            pod.tolerations = target.spec.as_ref().and_then(|spec| spec.tolerations.clone());
        }
        Ok(self.finish(name, pod, BTreeMap::new()))
    }

    fn pod(
        &self,
        action: &JobActionSpec,
        list: Vec<EnvVar>,
        env_from: Option<Vec<k8s_openapi::api::core::v1::EnvFromSource>>,
    ) -> Result<PodSpec, Refusal> {
        let settings = self.settings;
        let image = env::image(&action.image, &list);
        if image.is_empty() || image.contains("$(") {
            return Err(Refusal::fatal(format!(
                "the image {:?} has a variable that nothing sets; set it in the restore's env (for example {}=postgres:16)",
                action.image,
                env::KBB_IMAGE
            )));
        }
        let mut container = worker_pod::container("restore", &image, action.command.clone(), settings);
        container.image_pull_policy = Some("IfNotPresent".to_owned());
        container.env = Some(list);
        container.env_from = env_from;
        container.resources.clone_from(&self.restore.spec.container_resources);
        worker_pod::zero_limits(&mut container, settings);
        let account = Account::named_or_worker(self.restore.spec.service_account_name.as_deref());
        let mut pod = worker_pod::empty(&account, settings);
        pod.security_context = Some(PodSecurityContext { run_as_user: Some(0), ..PodSecurityContext::default() });
        pod.containers = vec![container];
        if self.extras().is_some() {
            worker_pod::downward_files(&mut pod, &[("status_extras", annotations::BACKUP_EXTRAS)]);
        }
        self.access.inject(&mut pod, settings);
        Ok(pod)
    }

    fn finish(&self, name: &str, pod: PodSpec, extra_labels: BTreeMap<String, String>) -> Job {
        let mut shell = shell(self.restore, name, self.settings, false);
        for (key, value) in extra_labels {
            shell.labels.entry(key).or_insert(value);
        }
        shell.pod_annotations.extend(self.extras().map(|extras| (annotations::BACKUP_EXTRAS.to_owned(), extras)));
        job::job(shell, pod, self.settings)
    }

    fn extras(&self) -> Option<String> {
        let extras = &self.set.backup.status.as_ref()?.extras;
        if extras.is_empty() { None } else { serde_json::to_string(extras).ok() }
    }

    /// Behaviour 6.6: the environment up to and including the restore's own.
    fn env(&self, source: Option<&str>) -> Vec<EnvVar> {
        let Set { backup, action_set, base, ancestors, .. } = self.set;
        let spec = &self.restore.spec;
        let status = backup.status.clone().unwrap_or_default();
        let mut list: Vec<EnvVar> =
            // A log may not have noted it; its base has.
            image(backup)
                .or_else(|| base.as_ref().and_then(image))
                .map(|image| env::var(env::KBB_IMAGE, image))
                .into_iter()
                .collect();
        list.push(env::var("DP_BACKUP_NAME", backup.name_any()));
        if let Some(path) = status.path.as_deref().filter(|path| !path.is_empty()) {
            let relative =
                layout::target_relative(spec.backup.source_target_name.as_deref().unwrap_or_default(), source);
            let root = path.rsplit_once('/').map_or("", |(root, _)| root);
            list.extend([
                env::var("DP_TARGET_RELATIVE_PATH", &relative),
                env::var(contract::ENV_BACKUP_ROOT_PATH, root),
                env::var(contract::ENV_BACKUP_BASE_PATH, layout::join([path, &relative])),
            ]);
        }
        if let Some(base) = base {
            list.push(env::var("DP_BASE_BACKUP_NAME", base.name_any()));
        }
        if !ancestors.is_empty() {
            let names = ancestors.iter().map(kube::ResourceExt::name_any).collect::<Vec<_>>().join(",");
            list.push(env::var("DP_ANCESTOR_INCREMENTAL_BACKUP_NAMES", names));
        }
        let layout = env::literal(&action_set.spec.env, "DP_TIME_FORMAT").filter(|layout| !layout.is_empty());
        let layout = layout.unwrap_or_else(|| gotime::RFC3339.to_owned());
        let text = |time: Timestamp, backup: &Backup| gotime::format(&layout, time, zone(backup));
        list.extend(link::end(backup).map(|end| env::var("DP_BACKUP_STOP_TIME", text(end, backup))));
        if let Some(base) = base {
            for (name, time) in [("START", link::start(base)), ("STOP", link::end(base))] {
                let Some(time) = time else { continue };
                list.push(env::var(&format!("DP_BASE_BACKUP_{name}_TIME"), text(time, base)));
                list.push(env::var(&format!("DP_BASE_BACKUP_{name}_TIMESTAMP"), time.as_second().to_string()));
            }
        }
        if let Some(time) = spec.restore_time.as_deref().and_then(|time| time.parse::<Timestamp>().ok()) {
            list.push(env::var("DP_RESTORE_TIME", text(time, backup)));
            list.push(env::var("DP_RESTORE_TIMESTAMP", time.as_second().to_string()));
        }
        list.extend(spec.parameters.iter().map(|pair| env::var(&pair.name, &pair.value)));
        // Behind them in the contract's order, but a recipe's default does not hide what was asked for by the same name.
        let given = |entry: &&EnvVar| spec.parameters.iter().any(|pair| pair.name == entry.name);
        list.extend(action_set.spec.env.iter().filter(|entry| !given(entry)).cloned());
        if let Some(method) = &status.backup_method {
            env::merge(&mut list, &method.env);
        }
        env::merge(&mut list, &spec.env);
        let seals = self.seals();
        if !seals.is_empty() {
            list.push(env::var(contract::ENV_SEALS, seals));
        }
        list
    }

    /// The seals of everything that is read.
    fn seals(&self) -> String {
        let Set { backup, base, ancestors, .. } = self.set;
        let all = base.iter().chain(ancestors).chain(std::iter::once(backup));
        let seal = |backup: &Backup| {
            let digest = backup.annotations().get(annotations::SEAL).filter(|digest| !digest.is_empty())?;
            Some(format!("{}={digest}", backup.name_any()))
        };
        all.filter_map(seal).collect::<Vec<_>>().join(",")
    }
}

/// The exec Job of a `postReady` entry.
pub fn post_ready_exec(
    restore: &Restore,
    name: &str,
    action: &kbbackup_api::v1alpha1::ExecActionSpec,
    target: &Pod,
    settings: &Settings,
) -> Job {
    let mut pod = exec::pod("restore", action, target, settings);
    pod.tolerations = target.spec.as_ref().and_then(|spec| spec.tolerations.clone());
    job::job(shell(restore, name, settings, true), pod, settings)
}

fn shell(restore: &Restore, name: &str, settings: &Settings, exec: bool) -> Shell {
    let namespace = restore.namespace().unwrap_or_default();
    let home = if exec { settings.manager_namespace.clone() } else { namespace.clone() };
    let mut labels = BTreeMap::from([(labels::RESTORE.to_owned(), restore.name_any())]);
    if exec {
        labels.insert(labels::RESTORE_NAMESPACE.to_owned(), namespace.clone());
    }
    Shell {
        name: name.to_owned(),
        owner: (home == namespace).then(|| restore.controller_owner_ref(&())).flatten(),
        namespace: home,
        labels,
        pod_annotations: BTreeMap::new(),
        backoff_limit: restore.spec.backoff_limit(),
    }
}

fn zone(backup: &Backup) -> Offset {
    let range = backup.status.as_ref().and_then(|status| status.time_range.as_ref());
    gotime::offset(range.and_then(|range| range.time_zone.as_deref()).unwrap_or_default())
}

/// The image of the database that the backup is of: recorded with its workload, else noted at its start.
fn image(backup: &Backup) -> Option<String> {
    let recorded = || {
        let text = backup.annotations().get(annotations::WORKLOAD)?;
        let workload: workload::Workload = serde_json::from_str(text).ok()?;
        workload.stateful_set.spec?.template.spec?.containers.first()?.image.clone()
    };
    recorded()
        .or_else(|| backup.annotations().get(annotations::TARGET_IMAGE).cloned())
        .filter(|image| !image.is_empty())
}
