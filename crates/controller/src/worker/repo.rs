//! How a worker reaches the repository: configuration, encryption, and the mover's binary.

use k8s_openapi::api::core::v1::{
    Container, EmptyDirVolumeSource, EnvVar, PersistentVolumeClaimVolumeSource, PodSpec, SecretVolumeSource, Volume,
    VolumeMount,
};
use kbbackup_api::v1alpha1::{AccessMethod, BackupRepo, BackupStatus, EncryptionConfig};
use kbbackup_core::contract::BIN_DIR;
use kube::ResourceExt as _;

use super::{env, pod};
use crate::settings::Settings;

/// Volume of the tool Secret.
const CONFIG_VOLUME: &str = "dp-datasafed-config";
/// Where the tool Secret is mounted.
const CONFIG_DIR: &str = "/etc/datasafed";
/// Volume of a mounted repository.
const DATA_VOLUME: &str = "dp-backup-data";
/// Where a mounted repository lies.
const DATA_DIR: &str = "/backupdata";
/// Volume that takes the mover's binary.
const BIN_VOLUME: &str = "dp-datasafed-bin";

/// What a pod needs to use a repository.
#[derive(Clone, Debug, PartialEq)]
pub struct RepoAccess {
    /// Secret or claim, in the pod's namespace.
    pub way: Way,
    /// `status.kopiaRepoPath` of the backup.
    pub kopia_path: Option<String>,
    /// Encryption in force for the backup; its Secret lies in the pod's namespace.
    pub encryption: Option<EncryptionConfig>,
}

/// The two access methods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// By the mover's own clients, configured by this Secret.
    Tool {
        /// Name of the Secret.
        secret: String,
    },
    /// Through this claim.
    Mount {
        /// Name of the claim.
        claim: String,
    },
}

/// The repository's status does not say how to reach it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("repository {repo} does not name its {missing} yet")]
pub struct NotPrepared {
    repo: String,
    missing: &'static str,
}

impl Way {
    /// How `repo` is reached.
    ///
    /// # Errors
    /// When its status does not name the Secret or claim.
    pub fn of(repo: &BackupRepo) -> Result<Self, NotPrepared> {
        let named = |name: fn(&kbbackup_api::v1alpha1::BackupRepoStatus) -> Option<&String>, missing| {
            let name = repo.status.as_ref().and_then(name).filter(|name| !name.is_empty()).cloned();
            name.ok_or_else(|| NotPrepared { repo: repo.name_any(), missing })
        };
        Ok(match repo.spec.access_method() {
            AccessMethod::Tool => {
                Self::Tool { secret: named(|status| status.tool_config_secret_name.as_ref(), "tool Secret")? }
            }
            AccessMethod::Mount => Self::Mount { claim: named(|status| status.backup_pvc_name.as_ref(), "claim")? },
        })
    }

    /// How a backup is reached that was taken before there were repositories: it names none, only the claim that it lies on.
    pub fn without_repo(status: &BackupStatus) -> Option<Self> {
        let filled = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
        let claim = filled(&status.persistent_volume_claim_name)?;
        filled(&status.backup_repo_name).is_none().then_some(Self::Mount { claim })
    }
}

impl RepoAccess {
    /// The access of a backup's pods that go this way.
    pub fn to(way: Way, status: &BackupStatus) -> Self {
        Self { way, kopia_path: status.kopia_repo_path.clone(), encryption: status.encryption_config.clone() }
    }

    /// Gives every container that is in `pod` the repository, and the mover's binary where scripts look for it.
    pub fn inject(&self, pod: &mut PodSpec, settings: &Settings) {
        self.reach(pod);
        let bin = || mount(BIN_VOLUME, BIN_DIR, false);
        each_container(pod, |container| {
            container.volume_mounts.get_or_insert_default().push(bin());
            container.env.get_or_insert_default().push(env::var("DP_DATASAFED_BIN_PATH", BIN_DIR));
        });
        self.encrypt(pod);
        pod.volumes.get_or_insert_default().push(Volume {
            name: BIN_VOLUME.to_owned(),
            empty_dir: Some(EmptyDirVolumeSource::default()),
            ..Volume::default()
        });
        let command = ["/datasafed", "install", BIN_DIR].map(str::to_owned).to_vec();
        let mut copy = pod::container("dp-copy-datasafed", &settings.mover_image, command, settings);
        copy.volume_mounts = Some(vec![bin()]);
        pod::zero_limits(&mut copy, settings);
        pod.init_containers.get_or_insert_default().insert(0, copy);
    }

    /// Gives every container that is in `pod` the repository only: enough for containers of the mover's own image.
    pub fn attach(&self, pod: &mut PodSpec) {
        self.reach(pod);
        self.encrypt(pod);
    }

    fn encrypt(&self, pod: &mut PodSpec) {
        let Some(encryption) = &self.encryption else { return };
        let secret = &encryption.pass_phrase_secret_key_ref;
        let list = [
            env::var("DATASAFED_ENCRYPTION_ALGORITHM", encryption.algorithm.as_str()),
            env::secret("DATASAFED_ENCRYPTION_PASS_PHRASE", &secret.name, &secret.key),
        ];
        each_container(pod, |container| container.env.get_or_insert_default().extend(list.iter().cloned()));
    }

    fn reach(&self, pod: &mut PodSpec) {
        let (volume, mount, mut list) = match &self.way {
            Way::Tool { secret } => {
                let source = SecretVolumeSource { secret_name: Some(secret.clone()), ..SecretVolumeSource::default() };
                let volume = Volume { name: CONFIG_VOLUME.to_owned(), secret: Some(source), ..Volume::default() };
                (volume, mount(CONFIG_VOLUME, CONFIG_DIR, true), Vec::<EnvVar>::new())
            }
            Way::Mount { claim } => {
                let source = PersistentVolumeClaimVolumeSource { claim_name: claim.clone(), read_only: None };
                let volume =
                    Volume { name: DATA_VOLUME.to_owned(), persistent_volume_claim: Some(source), ..Volume::default() };
                (volume, mount(DATA_VOLUME, DATA_DIR, false), vec![env::var("DATASAFED_LOCAL_BACKEND_PATH", DATA_DIR)])
            }
        };
        if let Some(path) = &self.kopia_path {
            list.push(env::var("DATASAFED_KOPIA_REPO_ROOT", path));
        }
        each_container(pod, |container| {
            container.volume_mounts.get_or_insert_default().push(mount.clone());
            container.env.get_or_insert_default().extend(list.iter().cloned());
        });
        pod.volumes.get_or_insert_default().push(volume);
    }
}

fn each_container(pod: &mut PodSpec, mut change: impl FnMut(&mut Container)) {
    pod.containers.iter_mut().chain(pod.init_containers.iter_mut().flatten()).for_each(&mut change);
}

fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::worker::settings;

    fn one_container() -> PodSpec {
        PodSpec { containers: vec![pod::container("backupdata", "pg:1", vec![], &settings())], ..PodSpec::default() }
    }

    fn encryption() -> EncryptionConfig {
        serde_json::from_value(json!({ "passPhraseSecretKeyRef": {"name": "phrase", "key": "k"} })).unwrap()
    }

    #[test]
    fn behaviour_4_8_3_tool_access_with_encryption() {
        let access =
            RepoAccess { way: Way::Tool { secret: "tool".into() }, kopia_path: None, encryption: Some(encryption()) };
        let mut pod = one_container();
        access.inject(&mut pod, &settings());
        insta::assert_yaml_snapshot!(pod);
    }

    #[test]
    fn behaviour_4_8_3_mounted_repository() {
        let access =
            RepoAccess { way: Way::Mount { claim: "repo".into() }, kopia_path: Some("/k".into()), encryption: None };
        let mut pod = one_container();
        access.attach(&mut pod);
        insta::assert_yaml_snapshot!(pod);
    }

    #[test]
    fn a_repository_that_names_nothing_cannot_be_reached() {
        let repo = |status| -> BackupRepo {
            serde_json::from_value(json!({ "metadata": {"name": "main"}, "spec":
                { "storageProviderRef": "s3", "accessMethod": "Tool", "pvReclaimPolicy": "Retain" }, "status": status }))
            .unwrap()
        };
        assert!(Way::of(&repo(json!({}))).is_err());
        let named = repo(json!({ "toolConfigSecretName": "tool-config-main" }));
        assert_eq!(Way::of(&named), Ok(Way::Tool { secret: "tool-config-main".into() }));
    }
}
