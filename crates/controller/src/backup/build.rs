//! The Jobs of a backup as plain values: behaviour 4.7 and 4.8.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Container, EnvVar, Pod, PodSpec};
use kbbackup_api::names::{annotations, labels};
use kbbackup_api::v1alpha1::{ActionSetSpec, Backup, BackupStatus, BackupStatusTarget, JobActionSpec};
use kbbackup_core::{contract, layout, names};
use kube::{Resource as _, ResourceExt as _};

use super::continuous::record;
use super::observe::Ingredients;
use super::plan::{self, Kind, Planned};
use crate::settings::Settings;
use crate::worker::error::Refusal;
use crate::worker::job::{self, Shell};
use crate::worker::pod::{self as worker_pod, Account};
use crate::worker::{RepoAccess, env, exec};

/// What the Jobs of one backup are made from.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// The backup.
    pub backup: &'a Backup,
    /// Its status as it will be written.
    pub status: &'a BackupStatus,
    /// What was read for it.
    pub ingredients: &'a Ingredients,
    /// The operator's settings.
    pub settings: &'a Settings,
}

/// What a pod works at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// `backupData` that ends: beside it waits a reporter, which stores the journal.
    Data,
    /// `backupData` that never ends: what it pushes is noted in the repository at once.
    Archive,
    /// A `preBackup` or `postBackup` entry.
    Hook,
}

impl Site<'_> {
    /// The Job of the action called `name`.
    ///
    /// # Errors
    /// [`Refusal::Fatal`] when the recipe no longer has such an action, or its target's port does not exist.
    pub fn job(&self, name: &str, attempts: &str) -> Result<Job, Refusal> {
        let set = &self.ingredients.action_set.spec;
        let snapshots = self.status.backup_method.as_ref().is_some_and(|method| method.snapshot_volumes());
        let planned = plan::plan(set, plan::targets(self.status), snapshots);
        let changed = || {
            Refusal::fatal(format!(
                "ActionSet {} was changed while the backup ran: it has no action {name} now",
                self.ingredients.action_set.name_any()
            ))
        };
        let planned = planned.iter().find(|planned| planned.name == name).ok_or_else(changed)?;
        let actions = set.backup.as_ref().ok_or_else(changed)?;
        let hook = match planned.kind {
            Kind::Seal => return Ok(self.seal(attempts)),
            Kind::Snapshot => return Err(Refusal::fatal(format!("action {name} takes snapshots: it has no Job"))),
            Kind::Data => {
                let action = actions.backup_data.as_ref().ok_or_else(changed)?;
                return self.action(planned, &action.job, true);
            }
            Kind::Before(index) => actions.pre_backup.get(index),
            Kind::After(index) => actions.post_backup.get(index),
        };
        match hook.ok_or_else(changed)? {
            hook if hook.job.is_some() => self.action(planned, hook.job.as_ref().ok_or_else(changed)?, false),
            hook => {
                let target = self.pod(planned)?;
                let pod = exec::pod(&planned.name, hook.exec.as_ref().ok_or_else(changed)?, target, self.settings);
                Ok(job::job(self.shell(&planned.name, true), pod, self.settings))
            }
        }
    }

    fn pod(&self, planned: &Planned) -> Result<&Pod, Refusal> {
        self.ingredients
            .pods
            .get(&planned.pod)
            .ok_or_else(|| Refusal::fatal(format!("pod {} was not read", planned.pod)))
    }

    /// `backupData`, or a hook that is a Job.
    fn action(&self, planned: &Planned, action: &JobActionSpec, data: bool) -> Result<Job, Refusal> {
        let pod = self.work(planned, action, if data { Work::Data } else { Work::Hook })?;
        Ok(job::job(self.shell(&planned.name, false), pod, self.settings))
    }

    /// The pod that does an action: behaviour 4.8.1.
    pub(super) fn work(&self, planned: &Planned, action: &JobActionSpec, work: Work) -> Result<PodSpec, Refusal> {
        let target = &plan::targets(self.status)[planned.target];
        let target_pod = self.pod(planned)?;
        let list = self.env(planned, target, target_pod)?;
        let settings = self.settings;
        let name = if work == Work::Hook { planned.name.as_str() } else { "backupdata" };
        let image = env::image(&action.image, &list);
        if image.is_empty() || image.contains("$(") {
            return Err(Refusal::fatal(format!(
                "the image {:?} of action {} has a variable that no plain env value sets",
                action.image, planned.name
            )));
        }
        let mut main = worker_pod::container(name, &image, action.command.clone(), settings);
        main.env = Some(list);
        main.env_from = self.env_from(target_pod);
        let method = self.status.backup_method.as_ref();
        main.resources = method.and_then(|method| method.runtime_settings.as_ref()?.resources.clone());
        worker_pod::zero_limits(&mut main, settings);

        let account = Account::named_or_worker(target.target.service_account_name.as_deref());
        let mut pod = worker_pod::empty(&account, settings);
        if action.run_on_target_pod_node() {
            worker_pod::run_beside(&mut pod, target_pod);
            let wanted = method.and_then(|method| method.target_volumes.clone()).unwrap_or_default();
            let (volumes, mounts) = worker_pod::target_volumes(target_pod, &wanted);
            pod.volumes.get_or_insert_default().extend(volumes);
            main.volume_mounts.get_or_insert_default().extend(mounts);
        } else {
            worker_pod::run_anywhere(&mut pod, settings);
        }
        pod.volumes.get_or_insert_default().push(worker_pod::scratch("manager-shared-volume"));
        let shared = worker_pod::mount("manager-shared-volume", contract::MANAGER_DIR);
        main.volume_mounts.get_or_insert_default().push(shared);
        if work == Work::Data {
            main.env.get_or_insert_default().push(env::var(contract::ENV_JOURNAL, contract::JOURNAL_FILE));
            pod.init_containers = Some(vec![reporter(&main, settings)]);
        }
        if work == Work::Archive {
            record::attend(self, &planned.name, &mut pod);
        }
        pod.containers = vec![main];
        if let Some(access) = &self.ingredients.access {
            access.inject(&mut pod, settings);
        }
        Ok(pod)
    }

    /// Behaviour 4.7, groups 1 to 8 and the first half of 9; the rest of 9 comes with the repository.
    fn env(&self, planned: &Planned, target: &BackupStatusTarget, pod: &Pod) -> Result<Vec<EnvVar>, Refusal> {
        let set = &self.ingredients.action_set.spec;
        let (backup, status) = (self.backup, self.status);
        let path = status.path.as_deref().unwrap_or_default();
        let relative = plan::relative_path(target, &planned.pod);
        let mut list: Vec<EnvVar> =
            database_image(pod).map(|image| env::var(env::KBB_IMAGE, image)).into_iter().collect();
        list.extend(pod_env(pod));
        let role = pod.labels().get(labels::ROLE).cloned().unwrap_or_default();
        list.extend([
            env::var("DP_BACKUP_NAME", backup.name_any()),
            env::var("DP_TARGET_POD_NAME", pod.name_any()),
            env::var("DP_TARGET_POD_ROLE", role),
            env::var(contract::ENV_BACKUP_BASE_PATH, layout::join([path, &relative])),
            env::var(contract::ENV_INFO_FILE, contract::INFO_FILE),
            env::var("DP_TTL", backup.spec.retention_period.clone().unwrap_or_default()),
        ]);
        let target = &target.target;
        let connection = env::connection(pod, target.connection_credential.as_ref(), target.container_port.as_ref());
        list.extend(connection.map_err(Refusal::fatal)?);
        list.extend(set.env.iter().cloned());
        list.extend(backup.spec.parameters.iter().map(|pair| env::var(&pair.name, &pair.value)));
        let labelled = [
            ("KB_CLUSTER_UID", labels::CLUSTER_UID),
            ("KB_CLUSTER_NAME", labels::INSTANCE),
            ("KB_COMP_NAME", labels::COMPONENT_NAME),
        ];
        let label = |(name, key): (&str, &str)| backup.labels().get(key).map(|value| env::var(name, value));
        list.extend(labelled.into_iter().filter_map(label));
        list.push(env::var("KB_NAMESPACE", backup.namespace().unwrap_or_default()));
        if let Some(parent) = &status.parent_backup_name {
            let root = path.rsplit_once('/').map_or("", |(root, _)| root);
            list.extend([
                env::var("DP_PARENT_BACKUP_NAME", parent),
                env::var("DP_BASE_BACKUP_NAME", status.base_backup_name.clone().unwrap_or_default()),
                env::var("DP_TARGET_RELATIVE_PATH", relative),
                env::var(contract::ENV_BACKUP_ROOT_PATH, root),
            ]);
        }
        if let Some(method) = &status.backup_method {
            env::merge(&mut list, &method.env);
        }
        list.extend(self.ours(&planned.name));
        Ok(list)
    }

    /// Our own variables: whose bytes a pod writes.
    pub(super) fn ours(&self, action: &str) -> [EnvVar; 4] {
        [
            env::var(contract::ENV_BACKUP_PATH, self.status.path.clone().unwrap_or_default()),
            env::var(contract::ENV_BACKUP_UID, self.backup.uid().unwrap_or_default()),
            env::var(contract::ENV_ACTION, action),
            env::field(contract::ENV_ATTEMPT, "metadata.uid"),
        ]
    }

    fn env_from(&self, pod: &Pod) -> Option<Vec<k8s_openapi::api::core::v1::EnvFromSource>> {
        let first = pod.spec.as_ref().and_then(|spec| spec.containers.first());
        let mut list = first.and_then(|container| container.env_from.clone()).unwrap_or_default();
        list.extend(self.ingredients.action_set.spec.env_from.iter().cloned());
        (!list.is_empty()).then_some(list)
    }

    /// The last action: the mover writes the manifest, the copies of the objects, and then the seal.
    fn seal(&self, attempts: &str) -> Job {
        let settings = self.settings;
        let mut command = vec!["/datasafed".to_owned(), "seal".to_owned()];
        for attempt in attempts.split(',').filter(|attempt| !attempt.is_empty()) {
            command.extend(["--attempt".to_owned(), attempt.to_owned()]);
        }
        for path in plan::data_paths(self.status) {
            command.extend(["--data-path".to_owned(), path]);
        }
        let mut container = mover("seal", command, settings);
        container.env = Some(self.ours(names::SEAL_ACTION).to_vec());
        let mut pod = worker_pod::empty(&Account::Worker, settings);
        worker_pod::run_anywhere(&mut pod, settings);
        pod.containers = vec![container];
        // The list of a backup's objects may be longer than memory.
        worker_pod::temporary_files(&mut pod);
        let mut shell = self.shell(names::SEAL_ACTION, false);
        shell.pod_annotations = documents(self.backup, self.status);
        worker_pod::downward_files(&mut pod, &files(&shell.pod_annotations));
        if let Some(access) = &self.ingredients.access {
            access.attach(&mut pod);
        }
        job::job(shell, pod, settings)
    }

    fn shell(&self, action: &str, exec: bool) -> Shell {
        let backup = self.backup;
        let namespace = backup.namespace().unwrap_or_default();
        let uid = backup.uid().unwrap_or_default();
        let mut labels = worker_labels(backup);
        labels.insert(labels::ACTION.to_owned(), names::cut63(action));
        if exec {
            labels.insert(labels::BACKUP_NAMESPACE.to_owned(), namespace.clone());
        }
        let home = if exec { self.settings.manager_namespace.clone() } else { namespace.clone() };
        Shell {
            name: names::backup_job(action, &backup.name_any(), &uid),
            owner: (home == namespace).then(|| backup.controller_owner_ref(&())).flatten(),
            namespace: home,
            labels,
            pod_annotations: BTreeMap::new(),
            backoff_limit: if exec { job::BACKOFF_LIMIT } else { self.ingredients.backoff_limit },
        }
    }
}

/// Annotation of a pod that carries the Backup object.
const BACKUP_NOTE: &str = "kbbackup.io/backup";

/// The documents that are stored beside the data, as annotations of the pod that stores them.
pub(super) fn documents(backup: &Backup, status: &BackupStatus) -> BTreeMap<String, String> {
    let mut documents = BTreeMap::from([(BACKUP_NOTE.to_owned(), stored_object(backup, status))]);
    let workload = backup.annotations().get(annotations::WORKLOAD);
    documents.extend(workload.map(|workload| (annotations::WORKLOAD.to_owned(), workload.clone())));
    documents
}

/// The files that show them.
pub(super) fn files(documents: &BTreeMap<String, String>) -> Vec<(&'static str, &'static str)> {
    let all = [("backup.json", BACKUP_NOTE), ("workload.json", annotations::WORKLOAD)];
    all.into_iter().filter(|(_, note)| documents.contains_key(*note)).collect()
}

/// The Backup object as it is stored beside the data: what another cluster needs to know it again. The workload's
/// manifest is stored on its own.
fn stored_object(backup: &Backup, status: &BackupStatus) -> String {
    let mut copy = backup.clone();
    copy.metadata.managed_fields = None;
    copy.metadata.resource_version = None;
    for key in [annotations::WORKLOAD, annotations::WAITING_FOR, "kubectl.kubernetes.io/last-applied-configuration"] {
        copy.annotations_mut().remove(key);
    }
    copy.status = Some(status.clone());
    serde_json::to_string(&copy).unwrap_or_default()
}

/// Behaviour 0.4: the backup's own labels, without what describes only the backup, and its name.
pub fn worker_labels(backup: &Backup) -> BTreeMap<String, String> {
    let mut labels = backup.labels().clone();
    labels.remove(labels::COMPONENT_NAME);
    labels.remove(labels::WAIT_REPO_PREPARATION);
    // KubeBlocks' Services select by component as well. Others may select by instance alone, and would then send the
    // database's clients to a worker.
    if !backup.labels().contains_key(labels::COMPONENT_NAME) && !backup.labels().contains_key(labels::SHARDING_NAME) {
        labels.remove(labels::INSTANCE);
    }
    labels.insert(labels::BACKUP_NAME.to_owned(), backup.name_any());
    labels
}

/// The side-car that waits for the main container's end and reports its result.
fn reporter(main: &Container, settings: &Settings) -> Container {
    let mut reporter = Container {
        name: "manager".to_owned(),
        image: Some(settings.registries.rewrite(&settings.mover_image)),
        command: Some(vec!["/datasafed".to_owned(), "report".to_owned()]),
        restart_policy: Some("Always".to_owned()),
        resources: None,
        ..main.clone()
    };
    worker_pod::zero_limits(&mut reporter, settings);
    reporter
}

/// A container of the mover's own image.
pub(super) fn mover(name: &str, command: Vec<String>, settings: &Settings) -> Container {
    let mut container = worker_pod::container(name, &settings.mover_image, command, settings);
    worker_pod::zero_limits(&mut container, settings);
    container
}

/// The image of the database itself.
fn database_image(pod: &Pod) -> Option<&String> {
    pod.spec.as_ref()?.containers.first()?.image.as_ref()
}

/// The first container's env. A reference to that container's resources is pointed at our own container, for the
/// other does not exist in our pod.
pub fn pod_env(pod: &Pod) -> Vec<EnvVar> {
    let first = pod.spec.as_ref().and_then(|spec| spec.containers.first());
    let mut list = first.and_then(|container| container.env.clone()).unwrap_or_default();
    for source in list.iter_mut().filter_map(|entry| entry.value_from.as_mut()) {
        if let Some(resource) = &mut source.resource_field_ref {
            resource.container_name = None;
        }
    }
    list
}

/// The Job that removes a backup's files.
pub fn delete_files(backup: &Backup, status: &BackupStatus, access: &RepoAccess, settings: &Settings) -> Job {
    let path = status.path.clone().unwrap_or_default();
    let command = vec!["/datasafed".to_owned(), "delete-backup".to_owned(), path];
    let mut pod = worker_pod::empty(&Account::Worker, settings);
    worker_pod::run_anywhere(&mut pod, settings);
    pod.containers = vec![mover("deleter", command, settings)];
    access.attach(&mut pod);
    job::job(
        deletion_shell(backup, names::delete_job(&backup.name_any(), &backup.uid().unwrap_or_default())),
        pod,
        settings,
    )
}

/// The Jobs of an ActionSet's `preDelete`, one per target: behaviour 4.14. `pod` is a ready pod of each target, if there
/// is one.
///
/// # Errors
/// [`Refusal::Fatal`] when the image cannot be told.
pub fn pre_delete(
    backup: &Backup,
    status: &BackupStatus,
    set: &ActionSetSpec,
    pods: &[Option<Pod>],
    access: &RepoAccess,
    settings: &Settings,
) -> Result<Vec<Job>, Refusal> {
    let Some(action) = set.backup.as_ref().and_then(|backup| backup.pre_delete.as_ref()) else { return Ok(Vec::new()) };
    let path = status.path.as_deref().unwrap_or_default();
    let (name, uid) = (backup.name_any(), backup.uid().unwrap_or_default());
    let several = status.target.is_none() && !status.targets.is_empty();
    let targets = plan::targets(status);
    let one = |index: usize, target: Option<&BackupStatusTarget>| {
        let target_name = target.and_then(|target| target.target.name.as_deref()).unwrap_or_default();
        let base = if several { layout::join([path, target_name]) } else { path.to_owned() };
        let image = backup.annotations().get(annotations::TARGET_IMAGE);
        let mut list: Vec<EnvVar> = image.map(|image| env::var(env::KBB_IMAGE, image)).into_iter().collect();
        list.extend([env::var(contract::ENV_BACKUP_BASE_PATH, base), env::var("DP_BACKUP_NAME", &name)]);
        if let (Some(Some(pod)), Some(target)) = (pods.get(index), target) {
            list.extend(pod_env(pod));
            let (credential, port) =
                (target.target.connection_credential.as_ref(), target.target.container_port.as_ref());
            list.extend(
                env::connection(pod, credential, port)
                    .or_else(|_| env::connection(pod, credential, None))
                    .unwrap_or_default(),
            );
        }
        list.extend(set.env.iter().cloned());
        list.extend(status.backup_method.iter().flat_map(|method| method.env.iter().cloned()));
        let image = env::image(&action.image, &list);
        if image.is_empty() || image.contains("$(") {
            return Err(Refusal::fatal(format!(
                "the image {:?} of preDelete has a variable that no plain env value sets",
                action.image
            )));
        }
        let mut container = worker_pod::container("deleter", &image, action.command.clone(), settings);
        container.env = Some(list);
        worker_pod::zero_limits(&mut container, settings);
        let mut pod: PodSpec = worker_pod::empty(&Account::Worker, settings);
        worker_pod::run_anywhere(&mut pod, settings);
        pod.containers = vec![container];
        access.inject(&mut pod, settings);
        let job_name = names::pre_delete_job(&name, &uid, several.then_some((index, target_name)));
        Ok(job::job(deletion_shell(backup, job_name), pod, settings))
    };
    if targets.is_empty() {
        Ok(vec![one(0, None)?])
    } else {
        targets.iter().enumerate().map(|(index, target)| one(index, Some(target))).collect()
    }
}

fn deletion_shell(backup: &Backup, name: String) -> Shell {
    Shell {
        name,
        namespace: backup.namespace().unwrap_or_default(),
        owner: backup.controller_owner_ref(&()),
        backoff_limit: job::BACKOFF_LIMIT,
        ..Shell::default()
    }
}
