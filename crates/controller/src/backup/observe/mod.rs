//! Everything the Backup controller reads.

mod children;
mod targets;

use std::collections::BTreeMap;

use futures::future::{try_join, try_join_all};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kbbackup_api::names::{annotations, labels};
use kbbackup_api::v1alpha1::{
    ActionSet, Availability, Backup, BackupMethod, BackupPolicy, BackupRepo, BackupRepoPhase, BackupStatus,
    BackupStatusTarget, BackupTarget, BackupType, EncryptionConfig,
};
use kbbackup_core::chain;
use kube::{Api, ResourceExt as _};

pub(super) use self::children::stored_job;
pub use self::children::{SeenAction, children, is_ours};
pub(super) use self::targets::{effective_targets, not_selected, pods_of, strategy};
use self::targets::{recorded, target_pods, workload_of};
use super::{apply, continuous, link, plan, volumes};
use crate::cluster::record::{self, Record};
use crate::context::Context;
use crate::worker::error::{A_WHILE, Doing as _, Error, LONG, Refusal, SOON};
use crate::worker::repo::Way;
use crate::worker::select::SelectError;
use crate::worker::{RepoAccess, account, read};

/// Everything that a new backup rests on.
#[derive(Debug)]
pub struct Graph {
    /// The policy.
    pub policy: BackupPolicy,
    /// Its method.
    pub method: BackupMethod,
    /// The recipe.
    pub action_set: ActionSet,
    /// The repository, Ready; none for snapshots alone.
    pub repo: Option<BackupRepo>,
    /// How it is reached.
    pub way: Option<Way>,
    /// Whether the namespace has the Secret or claim for that.
    pub prepared: bool,
    /// Targets and their pods.
    pub targets: Vec<(BackupTarget, Vec<Pod>)>,
    /// Whether the targets come from a list.
    pub several: bool,
    /// Parent and base of an incremental backup.
    pub parent: Option<Parent>,
    /// The KubeBlocks cluster that the first pod belongs to.
    pub cluster: Option<Record>,
    /// The workload's manifest, when a StatefulSet runs the first pod.
    pub workload: Option<String>,
}

/// What an incremental backup builds on.
#[derive(Clone, Debug, PartialEq)]
pub struct Parent {
    /// The parent.
    pub name: String,
    /// The full backup at the root.
    pub base: String,
    /// The parent's encryption, which the child inherits.
    pub encryption: Option<EncryptionConfig>,
    /// The pods that the parent was taken from, by target.
    pub targets: Vec<BackupStatusTarget>,
}

/// Behaviour 4.3, steps 1 to 11.
///
/// # Errors
/// [`Error::Refused`] when something is missing or unfit, else those of the API server.
pub async fn graph(ctx: &Context, backup: &Backup) -> Result<Graph, Error> {
    let namespace = backup.namespace().unwrap_or_default();
    if backup.name_any().len() > kbbackup_core::names::MAX_NAME {
        return Err(Refusal::fatal(
            "the backup's name is longer than 63 characters, so it cannot be a label of its workers",
        )
        .into());
    }
    let policy = policy(ctx, backup, &namespace).await?;
    let method = method(&policy, backup)?;
    let action_set = action_set(ctx, &method).await?;
    supported(&method, &action_set)?;
    parameters(backup, &action_set)?;
    if action_set.spec.backup_type == BackupType::Continuous {
        continuous::observe::schedule_is_available(ctx, backup, &namespace).await?;
    }
    let repo = if plan::needs_repo(&action_set.spec, method.snapshot_volumes()) {
        Some(repo(ctx, backup, &policy).await?)
    } else {
        None
    };
    let way = repo.as_ref().map(Way::of).transpose().map_err(|error| Refusal::not_yet(LONG, error))?;
    let parent = match &repo {
        Some(repo) => parent(ctx, backup, &method, &action_set, repo, &policy).await?,
        None => None,
    };
    let encryption = match &parent {
        Some(parent) => parent.encryption.as_ref(),
        None => policy.spec.encryption_config.as_ref(),
    };
    let (several, wanted) = effective_targets(&policy, &method)?;
    let check_encryption = check_encryption(ctx, &namespace, encryption);
    let prepared = async {
        let Some(way) = &way else { return Ok(true) };
        read::prepared(&ctx.client, &namespace, way)
            .await
            .doing(|| format!("looking for the repository's Secret or claim in {namespace}"))
    };
    let targets = try_join_all(wanted.iter().map(|target| {
        let recorded = recorded(backup, target, parent.as_ref());
        target_pods(ctx, &namespace, target, recorded)
    }));
    let ((), (prepared, targets)) = try_join(check_encryption, try_join(prepared, targets)).await?;
    let targets: Vec<_> = wanted.into_iter().zip(targets).collect();
    if method.snapshot_volumes() {
        let pods: Vec<&Pod> = targets.iter().flat_map(|(_, pods)| pods).collect();
        volumes::build::all_exist(&pods, &method)?;
        try_join_all(pods.into_iter().map(|pod| volumes::observe::sources(ctx, pod, &method))).await?;
    }
    let first = targets.first().and_then(|(_, pods)| pods.first());
    let of = targets.last().and_then(|(_, pods)| pods.first()).and_then(|pod| pod.labels().get(labels::INSTANCE));
    let cluster = match of {
        Some(name) => record::read(ctx, &namespace, name).await?,
        None => None,
    };
    let workload = match first {
        Some(pod) => workload_of(ctx, pod).await?,
        None => None,
    };
    Ok(Graph { policy, method, action_set, repo, way, prepared, targets, several, parent, cluster, workload })
}

pub(super) async fn policy(ctx: &Context, backup: &Backup, namespace: &str) -> Result<BackupPolicy, Error> {
    let name = &backup.spec.backup_policy_name;
    let api = Api::namespaced(ctx.client.clone(), namespace);
    let policy = read::find(&ctx.stores.policies, &api, name, Some(namespace))
        .await
        .doing(|| format!("reading BackupPolicy {name}"))?;
    let policy =
        policy.ok_or_else(|| Refusal::not_yet(SOON, format!("BackupPolicy {name} does not exist in {namespace}")))?;
    match policy.status.as_ref().filter(|status| status.phase == Some(Availability::Unavailable)) {
        Some(status) => {
            let message = status.message.as_deref().unwrap_or("no reason given");
            Err(Refusal::not_yet(SOON, format!("BackupPolicy {name} is Unavailable: {message}")).into())
        }
        None => Ok(policy),
    }
}

pub(super) fn method(policy: &BackupPolicy, backup: &Backup) -> Result<BackupMethod, Refusal> {
    let wanted = &backup.spec.backup_method;
    let methods = &policy.spec.backup_methods;
    methods.iter().find(|method| method.name == *wanted).cloned().ok_or_else(|| {
        let names = methods.iter().map(|method| method.name.as_str()).collect::<Vec<_>>().join(", ");
        Refusal::fatal(format!("BackupPolicy {} has no method {wanted} (it has: {names})", policy.name_any()))
    })
}

pub(super) async fn action_set(ctx: &Context, method: &BackupMethod) -> Result<ActionSet, Error> {
    let Some(name) = method.action_set_name.as_deref().filter(|name| !name.is_empty()) else {
        if method.snapshot_volumes() {
            return Ok(ActionSet::default());
        }
        let why = format!("method {} names neither an actionSetName nor snapshotVolumes", method.name);
        return Err(Refusal::fatal(why).into());
    };
    let api = Api::all(ctx.client.clone());
    let found =
        read::find(&ctx.stores.action_sets, &api, name, None).await.doing(|| format!("reading ActionSet {name}"))?;
    Ok(found.ok_or_else(|| Refusal::not_yet(SOON, format!("ActionSet {name} does not exist")))?)
}

/// What this version can do. The rest fails clearly, before anything is touched.
pub(super) fn supported(method: &BackupMethod, set: &ActionSet) -> Result<(), Refusal> {
    let name = set.name_any();
    if method.snapshot_volumes() {
        if volumes::build::wanted(method).is_empty() {
            return Err(Refusal::fatal(format!(
                "method {} takes snapshots but names no targetVolumes.volumes",
                method.name
            )));
        }
        if !matches!(set.spec.backup_type, BackupType::Full | BackupType::Selective) {
            return Err(Refusal::fatal(format!(
                "ActionSet {name} is {}, but a snapshot always holds everything: method {} needs one that is Full",
                set.spec.backup_type, method.name
            )));
        }
    }
    let Some(actions) = &set.spec.backup else {
        if method.snapshot_volumes() {
            return Ok(());
        }
        return Err(Refusal::fatal(format!("ActionSet {name} has no backup part")));
    };
    if !method.snapshot_volumes()
        && actions.backup_data.is_none()
        && actions.pre_backup.is_empty()
        && actions.post_backup.is_empty()
    {
        return Err(Refusal::fatal(format!("ActionSet {name} has no backup action")));
    }
    let mut all = actions.pre_backup.iter().chain(&actions.post_backup);
    if all.any(|action| action.exec.is_some() == action.job.is_some()) {
        return Err(Refusal::fatal(format!(
            "ActionSet {name}: each preBackup and postBackup entry needs exactly one of exec and job"
        )));
    }
    if set.spec.backup_type == BackupType::Continuous && actions.backup_data.is_none() {
        return Err(Refusal::fatal(format!("ActionSet {name} is Continuous: it needs backupData, which never ends")));
    }
    Ok(())
}

pub(super) fn parameters(backup: &Backup, set: &ActionSet) -> Result<(), Refusal> {
    let takes = set.spec.backup.as_ref().map(|backup| backup.with_parameters.as_slice()).unwrap_or_default();
    let schema = set.spec.parameters_schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref());
    let given = backup.spec.parameters.iter().map(|pair| (pair.name.as_str(), pair.value.as_str()));
    kbbackup_core::parameters::check(takes, schema, given).map_err(Refusal::fatal)
}

async fn repo(ctx: &Context, backup: &Backup, policy: &BackupPolicy) -> Result<BackupRepo, Error> {
    let labelled = backup.labels().get(labels::BACKUP_REPO_NAME).filter(|name| !name.is_empty());
    let named = labelled.or(policy.spec.backup_repo_name.as_ref().filter(|name| !name.is_empty()));
    let repo = match named {
        Some(name) => {
            let api = Api::all(ctx.client.clone());
            let found =
                read::find(&ctx.stores.repos, &api, name, None).await.doing(|| format!("reading BackupRepo {name}"))?;
            found.ok_or_else(|| Refusal::not_yet(SOON, format!("BackupRepo {name} does not exist")))?
        }
        None => {
            default_repo(&ctx.stores.repos.state().iter().filter_map(|repo| repo.0.as_ref().ok()).collect::<Vec<_>>())?
        }
    };
    let phase = repo.status.as_ref().and_then(|status| status.phase);
    if phase == Some(BackupRepoPhase::Ready) {
        return Ok(repo);
    }
    let phase = phase.map_or("not checked yet", BackupRepoPhase::as_str);
    let conditions = repo.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let failed = conditions.iter().find(|condition| condition.status == "False" && !condition.message.is_empty());
    let because = failed
        .map(|condition| format!(": {}", condition.message.lines().next().unwrap_or_default()))
        .unwrap_or_default();
    Err(Refusal::not_yet(LONG, format!("BackupRepo {} is {phase}, not Ready{because}", repo.name_any())).into())
}

/// The one default repository that is Ready.
pub fn default_repo(repos: &[&BackupRepo]) -> Result<BackupRepo, Refusal> {
    let marked = |repo: &&&BackupRepo| {
        repo.annotations().get(annotations::IS_DEFAULT_REPO).map(String::as_str) == Some(kbbackup_api::names::TRUE)
    };
    let ready =
        |repo: &&&BackupRepo| repo.status.as_ref().and_then(|status| status.phase) == Some(BackupRepoPhase::Ready);
    let all: Vec<_> = repos.iter().filter(marked).collect();
    let usable: Vec<_> = all.iter().copied().filter(|repo| ready(repo)).collect();
    match (usable.as_slice(), all.as_slice()) {
        ([one], _) => Ok((**one).clone()),
        ([], []) => Err(Refusal::not_yet(SOON, "the policy names no repository and none is marked as the default one")),
        ([], [waiting, ..]) => {
            Err(Refusal::not_yet(LONG, format!("BackupRepo {}, the default one, is not Ready", waiting.name_any())))
        }
        (several, _) => {
            let names = several.iter().map(|repo| repo.name_any()).collect::<Vec<_>>().join(", ");
            Err(Refusal::fatal(format!(
                "the policy names no repository and several are marked as the default one: {names}"
            )))
        }
    }
}

async fn parent(
    ctx: &Context,
    backup: &Backup,
    method: &BackupMethod,
    set: &ActionSet,
    repo: &BackupRepo,
    policy: &BackupPolicy,
) -> Result<Option<Parent>, Error> {
    let differential = match set.spec.backup_type {
        BackupType::Incremental => false,
        BackupType::Differential => true,
        BackupType::Full | BackupType::Selective | BackupType::Continuous => return Ok(None),
    };
    let asked = backup.spec.parent_backup_name.as_deref().filter(|name| !name.is_empty());
    if asked.is_some() && backup.labels().contains_key(labels::BACKUP_SCHEDULE) {
        return Err(Refusal::fatal("a scheduled backup may not name its parent").into());
    }
    let home = backup.namespace().unwrap_or_default();
    let mut around = match asked {
        // One of another policy is refused by name.
        Some(_) => ctx.stores.backups.in_namespace(&home),
        None => ctx.stores.backups.of_policy(&home, &backup.spec.backup_policy_name),
    };
    around.retain(|other| other.metadata.deletion_timestamp.is_none());
    let mut links: Vec<_> = around.iter().map(link::link).collect();
    let (_, targets) = effective_targets(policy, method)?;
    let child = chain::Link {
        method: method.name.clone(),
        compatible_method: method.compatible_method.clone().unwrap_or_default(),
        repo: repo.name_any(),
        targets: Some(targets.len()),
        ..link::link(backup)
    };
    let recorded = backup.status.as_ref().and_then(|status| status.parent_backup_name.as_deref());
    // A store keeps too little of a backup that is over, so each one chosen is read and judged again.
    let api = apply::api(&ctx.client, backup);
    let mut known = BTreeMap::<String, Backup>::new();
    let wanted = asked.or(recorded);
    loop {
        let found = if differential {
            chain::base(&child, wanted, &links).map(|full| (full, full.name.as_str()))
        } else {
            chain::parent(&child, wanted, &links)
        };
        let (parent, base) = found.map_err(Refusal::fatal)?;
        let (name, base) = (parent.name.clone(), base.to_owned());
        if let Some(status) = known.get(&name).and_then(|parent| parent.status.as_ref()) {
            let (encryption, targets) = (status.encryption_config.clone(), plan::targets(status).to_vec());
            return Ok(Some(Parent { name, base, encryption, targets }));
        }
        let found = api.get_opt(&name).await.doing(|| format!("reading backup {name}, the parent"))?;
        links.retain(|link| link.name != name);
        if let Some(found) = found.filter(|found| found.metadata.deletion_timestamp.is_none()) {
            links.push(link::link(&found));
            known.insert(name, found);
        }
    }
}

pub(super) async fn check_encryption(
    ctx: &Context,
    namespace: &str,
    config: Option<&EncryptionConfig>,
) -> Result<(), Error> {
    let Some(config) = config else { return Ok(()) };
    let reference = &config.pass_phrase_secret_key_ref;
    let secret = Api::<Secret>::namespaced(ctx.client.clone(), namespace).get_opt(&reference.name).await;
    let secret = secret.doing(|| format!("reading Secret {} of the encryption", reference.name))?;
    let has_key = secret
        .as_ref()
        .is_some_and(|secret| secret.data.as_ref().is_some_and(|data| data.contains_key(&reference.key)));
    if has_key {
        return Ok(());
    }
    let what = if secret.is_some() { format!("has no key {}", reference.key) } else { "does not exist".to_owned() };
    Err(Refusal::not_yet(SOON, format!("Secret {} of the encryption {what} in {namespace}", reference.name)).into())
}

/// What is needed to build the Jobs of a running backup.
#[derive(Debug)]
pub struct Ingredients {
    /// Retries, from the policy.
    pub backoff_limit: i32,
    /// The recipe.
    pub action_set: ActionSet,
    /// How the repository is reached; none for snapshots alone.
    pub access: Option<RepoAccess>,
    /// The target pods by name.
    pub pods: BTreeMap<String, Pod>,
}

/// Reads what the Jobs on `pods` need.
///
/// # Errors
/// [`Error::Refused`] when something has gone meanwhile, else those of the API server.
pub async fn ingredients(
    ctx: &Context,
    backup: &Backup,
    status: &BackupStatus,
    pods: &[String],
) -> Result<Ingredients, Error> {
    let namespace = backup.namespace().unwrap_or_default();
    let policies = Api::namespaced(ctx.client.clone(), &namespace);
    let name = &backup.spec.backup_policy_name;
    let policy = read::find(&ctx.stores.policies, &policies, name, Some(&namespace))
        .await
        .doing(|| format!("reading BackupPolicy {name}"))?;
    let method = status.backup_method.as_ref().ok_or_else(|| Refusal::fatal("status.backupMethod is gone"))?;
    let action_set = action_set(ctx, method).await?;
    let access = match status.backup_repo_name {
        Some(_) => Some(access(ctx, status).await?),
        None => None,
    };
    let api = Api::<Pod>::namespaced(ctx.client.clone(), &namespace);
    let found = try_join_all(pods.iter().map(|pod| api.get_opt(pod)))
        .await
        .doing(|| format!("reading pods {}", pods.join(", ")))?;
    let found: BTreeMap<_, _> = found.into_iter().flatten().map(|pod| (pod.name_any(), pod)).collect();
    if let Some(gone) = pods.iter().find(|pod| !found.contains_key(*pod)) {
        return Err(Refusal::not_yet(LONG, SelectError::Gone(gone.clone())).into());
    }
    account::ensure(&ctx.client, &namespace, &ctx.settings)
        .await
        .doing(|| format!("ensuring the workers' account in {namespace}"))?;
    let backoff_limit =
        policy.map_or(kbbackup_api::v1alpha1::BackupPolicySpec::BACKOFF_LIMIT, |policy| policy.spec.backoff_limit());
    Ok(Ingredients { backoff_limit, action_set, access, pods: found })
}

/// How pods of a started backup reach its repository. The repository need not be Ready: the mover will tell.
///
/// # Errors
/// [`Error::Refused`] when the repository is gone.
pub async fn access(ctx: &Context, status: &BackupStatus) -> Result<RepoAccess, Error> {
    let name = status.backup_repo_name.as_deref().unwrap_or_default();
    let api = Api::all(ctx.client.clone());
    let repo = read::find(&ctx.stores.repos, &api, name, None).await.doing(|| format!("reading BackupRepo {name}"))?;
    let repo: BackupRepo =
        repo.ok_or_else(|| Refusal::not_yet(A_WHILE, format!("BackupRepo {name} does not exist any more")))?;
    let way = Way::of(&repo).map_err(|error| Refusal::not_yet(LONG, error))?;
    Ok(RepoAccess::to(way, status))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn repo(name: &str, default: bool, phase: &str) -> BackupRepo {
        serde_json::from_value(
            json!({ "metadata": {"name": name, "annotations": {annotations::IS_DEFAULT_REPO: default.to_string()}},
            "spec": {"storageProviderRef": "s3", "pvReclaimPolicy": "Retain"}, "status": {"phase": phase} }),
        )
        .unwrap()
    }

    #[test]
    fn behaviour_1_8_the_default_repository() {
        let (a, b, c) = (repo("a", true, "Ready"), repo("b", true, "Failed"), repo("c", false, "Ready"));
        assert_eq!(default_repo(&[&a, &b, &c]).unwrap().name_any(), "a");
        assert!(matches!(default_repo(&[&b, &c]), Err(Refusal::NotYet { patience: LONG, .. })));
        assert!(matches!(default_repo(&[&c]), Err(Refusal::NotYet { patience: SOON, .. })));
        let d = repo("d", true, "Ready");
        assert!(matches!(default_repo(&[&a, &d]), Err(Refusal::Fatal(_))));
    }

    #[test]
    fn behaviour_4_4_what_cannot_be_done_is_refused_before_it_starts() {
        let set = |kind: &str| -> ActionSet {
            serde_json::from_value(json!({ "metadata": {"name": "a"}, "spec": {"backupType": kind,
                "backup": {"backupData": {"image": "", "command": []}}} }))
            .unwrap()
        };
        let method = |snapshot: bool| BackupMethod { snapshot_volumes: Some(snapshot), ..BackupMethod::default() };
        for kind in ["Full", "Incremental", "Differential", "Selective", "Continuous"] {
            assert_eq!(supported(&method(false), &set(kind)), Ok(()), "{kind}");
        }
        let mut archiver = set("Continuous");
        let actions = archiver.spec.backup.get_or_insert_default();
        actions.pre_backup = serde_json::from_value(json!([{ "job": {"image": "i", "command": []} }])).unwrap();
        assert_eq!(supported(&method(false), &archiver), Ok(()), "what must be done before archiving can begin");
        archiver.spec.backup.get_or_insert_default().backup_data = None;
        assert!(matches!(supported(&method(false), &archiver), Err(Refusal::Fatal(_))), "nothing archives");
        assert!(matches!(supported(&method(true), &set("Full")), Err(Refusal::Fatal(_))), "it names no volumes");
        let volumes = serde_json::from_value(json!({ "volumes": ["data"] })).unwrap();
        let snapshots = BackupMethod { target_volumes: Some(volumes), ..method(true) };
        assert_eq!(supported(&snapshots, &set("Full")), Ok(()));
        assert_eq!(supported(&snapshots, &ActionSet::default()), Ok(()), "no recipe is needed");
        assert!(matches!(supported(&snapshots, &set("Incremental")), Err(Refusal::Fatal(_))));
        let hook: ActionSet =
            serde_json::from_value(json!({ "metadata": {"name": "a"}, "spec": {"backup": {"preBackup": [{}]}} }))
                .unwrap();
        assert!(matches!(supported(&method(false), &hook), Err(Refusal::Fatal(_))));
    }
}
