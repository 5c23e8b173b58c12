//! What a continuous backup consists of in the cluster: behaviour 4.9. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapProjection, Container, DownwardAPIProjection, DownwardAPIVolumeFile, KeyToPath,
    ObjectFieldSelector, PodTemplateSpec, ProjectedVolumeSource, ServiceAccountTokenProjection, Volume, VolumeMount,
    VolumeProjection,
};
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kbbackup_api::names::{annotations, labels};
use kbbackup_api::v1alpha1::{Backup, BackupStatusTarget};
use kbbackup_core::contract::{self, channel};
use kbbackup_core::retention::RetentionPeriod;
use kbbackup_core::{archive, names};
use kube::{Resource as _, ResourceExt as _};
use md5::{Digest as _, Md5};

use super::record;
use crate::backup::build::{Site, Work, worker_labels};
use crate::backup::plan;
use crate::settings::Settings;
use crate::worker::env;
use crate::worker::error::Refusal;
use crate::worker::pod as worker_pod;

/// Where a client in a pod looks for its token.
const TOKEN_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Volume of the side-car's token.
const TOKEN_VOLUME: &str = "kbbackup-channel-token";

/// Name of the StatefulSet of a target.
pub fn set_name(backup: &Backup, target: &BackupStatusTarget) -> String {
    names::archiver(target.target.name.as_deref().unwrap_or_default(), &backup.name_any())
}

/// The StatefulSet of the target at `index`, whose entry in the schedule is `cron`. What exists keeps its selector, which
/// cannot be changed.
///
/// # Errors
/// [`Refusal::Fatal`] when the recipe has no such action, or its target's port does not exist.
pub fn stateful_set(
    site: &Site<'_>,
    index: usize,
    cron: &str,
    found: Option<&StatefulSet>,
) -> Result<StatefulSet, Refusal> {
    let (backup, settings) = (site.backup, site.settings);
    let set = &site.ingredients.action_set.spec;
    let targets = plan::targets(site.status);
    let changed = || Refusal::fatal(format!("ActionSet {} has no backupData", site.ingredients.action_set.name_any()));
    let data = set.backup.as_ref().and_then(|actions| actions.backup_data.as_ref()).ok_or_else(changed)?;
    let planned = plan::archivers(targets).into_iter().nth(index).ok_or_else(changed)?;
    let name = set_name(backup, &targets[index]);

    let mut pod = site.work(&planned, &data.job, Work::Archive)?;
    pod.restart_policy = Some("Always".to_owned());
    if let Some(main) = pod.containers.first_mut() {
        let list = main.env.get_or_insert_default();
        list.push(env::var("DP_ARCHIVE_INTERVAL", archive::interval(cron)));
        let kept = RetentionPeriod::parse(backup.spec.retention_period.as_deref().unwrap_or_default());
        let seconds = kept.map_err(Refusal::fatal)?.seconds();
        if seconds > 0 {
            list.push(env::var("DP_TTL_SECONDS", seconds.to_string()));
        }
        // The last lines of its log stand in the pod's status when it dies, which is all that we watch.
        main.termination_message_policy = Some("FallbackToLogsOnError".to_owned());
    }
    let interval = data.sync_progress.as_ref().and_then(|progress| progress.interval_seconds);
    pod.init_containers.get_or_insert_default().push(manager(backup, &channel::name(&name), interval, settings));
    pod.volumes.get_or_insert_default().push(token());

    let mut labels = worker_labels(backup);
    labels.insert(labels::ACTION.to_owned(), names::cut63(&planned.name));
    labels.insert(labels::MANAGED_BY.to_owned(), labels::MANAGED_BY_DATAPROTECTION.to_owned());
    let selector = found.and_then(|found| found.spec.as_ref()?.selector.match_labels.clone()).unwrap_or(labels.clone());
    labels.extend(selector.clone());
    let mut spec = StatefulSetSpec {
        replicas: Some(1),
        selector: LabelSelector { match_labels: Some(selector), match_expressions: None },
        // With the default a pod that cannot start, on a node that is gone, would wait for ever for its own success.
        pod_management_policy: Some("Parallel".to_owned()),
        // Old templates are of no use to anybody.
        revision_history_limit: Some(1),
        template: PodTemplateSpec {
            metadata: Some(ObjectMeta { labels: Some(labels.clone()), ..ObjectMeta::default() }),
            spec: Some(pod),
        },
        ..StatefulSetSpec::default()
    };
    let digest = digest(&spec);
    let metadata = spec.template.metadata.get_or_insert_default();
    metadata.annotations = Some(record::documents(site));
    Ok(StatefulSet {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: backup.namespace(),
            labels: Some(labels),
            annotations: Some(BTreeMap::from([(annotations::SPEC_DIGEST.to_owned(), digest)])),
            owner_references: backup.controller_owner_ref(&()).map(|owner| vec![owner]),
            resource_version: found.and_then(|found| found.metadata.resource_version.clone()),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: None,
    })
}

/// What tells one built spec from another. It need not withstand anybody's malice.
fn digest(spec: &StatefulSetSpec) -> String {
    hex::encode(Md5::digest(serde_json::to_vec(spec).unwrap_or_default()))
}

/// Whether what exists is what was built.
pub fn is_up_to_date(found: &StatefulSet, built: &StatefulSet) -> bool {
    let digest = |set: &StatefulSet| set.annotations().get(annotations::SPEC_DIGEST).cloned();
    digest(found) == digest(built) && found.spec.as_ref().and_then(|spec| spec.replicas) == Some(1)
}

/// The side-car that tells what the result file says. It knows no credentials of database and repository, and it alone
/// has a token.
fn manager(backup: &Backup, channel: &str, interval: Option<i32>, settings: &Settings) -> Container {
    let command = ["/kbbackup-controller", "report", "--config-map", channel].map(str::to_owned).to_vec();
    let mut manager = worker_pod::container("manager", &settings.controller_image, command, settings);
    let interval = interval.filter(|seconds| *seconds > 0).unwrap_or(5);
    manager.env = Some(vec![
        env::var("DP_BACKUP_NAME", backup.name_any()),
        env::var(contract::ENV_INFO_FILE, contract::INFO_FILE),
        env::var("DP_CHECK_INTERVAL", interval.to_string()),
    ]);
    manager.volume_mounts = Some(vec![
        VolumeMount { read_only: Some(true), ..worker_pod::mount("manager-shared-volume", contract::MANAGER_DIR) },
        VolumeMount { read_only: Some(true), ..worker_pod::mount(TOKEN_VOLUME, TOKEN_DIR) },
    ]);
    // A native side-car: it outlives the archiver, and so tells its last word too.
    manager.restart_policy = Some("Always".to_owned());
    manager.termination_message_policy = Some("FallbackToLogsOnError".to_owned());
    worker_pod::zero_limits(&mut manager, settings);
    manager
}

/// What the kubelet would mount into every container, for one of them.
fn token() -> Volume {
    let namespace = DownwardAPIVolumeFile {
        path: "namespace".to_owned(),
        field_ref: Some(ObjectFieldSelector {
            api_version: Some("v1".to_owned()),
            field_path: "metadata.namespace".to_owned(),
        }),
        ..DownwardAPIVolumeFile::default()
    };
    let sources = vec![
        VolumeProjection {
            service_account_token: Some(ServiceAccountTokenProjection {
                path: "token".to_owned(),
                expiration_seconds: Some(3600),
                audience: None,
            }),
            ..VolumeProjection::default()
        },
        VolumeProjection {
            config_map: Some(ConfigMapProjection {
                name: "kube-root-ca.crt".to_owned(),
                items: Some(vec![KeyToPath { key: "ca.crt".to_owned(), path: "ca.crt".to_owned(), mode: None }]),
                optional: None,
            }),
            ..VolumeProjection::default()
        },
        VolumeProjection {
            downward_api: Some(DownwardAPIProjection { items: Some(vec![namespace]) }),
            ..VolumeProjection::default()
        },
    ];
    Volume {
        name: TOKEN_VOLUME.to_owned(),
        projected: Some(ProjectedVolumeSource { sources: Some(sources), default_mode: None }),
        ..Volume::default()
    }
}

/// The channel of one archiver: an object that it alone may write, and the right to do so.
#[derive(Clone, Debug, PartialEq)]
pub struct Channel {
    /// Takes the result file's text.
    pub map: ConfigMap,
    /// Reading and writing that one object.
    pub role: Role,
    /// Given to the pod's account.
    pub binding: RoleBinding,
}

/// The channel of the archiver `set`, whose pods have the account `account`.
pub fn channel(backup: &Backup, set: &str, account: &str) -> Channel {
    let name = channel::name(set);
    let namespace = backup.namespace();
    let mut labels = worker_labels(backup);
    labels.insert(labels::MANAGED_BY.to_owned(), labels::MANAGED_BY_DATAPROTECTION.to_owned());
    let metadata = ObjectMeta {
        name: Some(name.clone()),
        namespace: namespace.clone(),
        labels: Some(labels),
        owner_references: backup.controller_owner_ref(&()).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    };
    let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    Channel {
        map: ConfigMap { metadata: metadata.clone(), ..ConfigMap::default() },
        role: Role {
            metadata: metadata.clone(),
            rules: Some(vec![PolicyRule {
                api_groups: Some(texts(&[""])),
                resources: Some(texts(&["configmaps"])),
                resource_names: Some(vec![name.clone()]),
                verbs: texts(&["get", "patch"]),
                ..PolicyRule::default()
            }]),
        },
        binding: RoleBinding {
            metadata,
            role_ref: RoleRef { api_group: "rbac.authorization.k8s.io".to_owned(), kind: "Role".to_owned(), name },
            subjects: Some(vec![Subject {
                kind: "ServiceAccount".to_owned(),
                name: account.to_owned(),
                namespace,
                api_group: None,
            }]),
        },
    }
}
