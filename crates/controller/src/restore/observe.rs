//! Everything the Restore controller reads.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::try_join_all;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount};
use kbbackup_api::names::{annotations, labels};
use kbbackup_api::v1alpha1::{
    Backup, BackupRepo, BackupRepoPhase, BackupStatus, PodSelectionStrategy, PodSelector, Restore, RestoreActionPhase,
    RestoreStatusAction,
};
use kube::api::ListParams;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;

use super::decide::{SeenTask, Task};
use super::workload;
use crate::backup::{self, plan};
use crate::context::Context;
use crate::pool;
use crate::populator::grant;
use crate::worker::error::{Doing as _, Error, LONG, Refusal, SOON};
use crate::worker::repo::Way;
use crate::worker::{Outcome, RepoAccess, logs, outcome, read, refused, select};

/// The backup that a restore names.
///
/// # Errors
/// [`Error::Refused`] when it does not exist or may not be used from the restore's namespace.
pub async fn source(ctx: &Context, restore: &Restore) -> Result<Backup, Error> {
    let of = &restore.spec.backup;
    let api = Api::<Backup>::namespaced(ctx.client.clone(), &of.namespace);
    let found = api.get_opt(&of.name).await.doing(|| format!("reading backup {}/{}", of.namespace, of.name))?;
    let backup = found
        .ok_or_else(|| Refusal::fatal(format!("backup {} does not exist in namespace {}", of.name, of.namespace)))?;
    if let Err(refusal) = allowed(&backup, &restore.namespace().unwrap_or_default())
        && !grant::of_internal(ctx, restore, &backup).await?
    {
        return Err(refusal.into());
    }
    Ok(backup)
}

/// Whether `backup` may be restored into `namespace`: its own, or one that it names.
///
/// # Errors
/// [`Refusal::Fatal`] with what would allow it.
pub fn allowed(backup: &Backup, namespace: &str) -> Result<(), Refusal> {
    if backup.namespace().as_deref() == Some(namespace) {
        return Ok(());
    }
    let list = backup.annotations().get(annotations::ALLOW_RESTORE_TO).map(String::as_str).unwrap_or_default();
    if list.split(',').map(str::trim).any(|allowed| allowed == "*" || allowed == namespace) {
        return Ok(());
    }
    let (home, name) = (backup.namespace().unwrap_or_default(), backup.name_any());
    Err(Refusal::fatal(format!(
        "backup {home}/{name} may not be restored into namespace {namespace}; whoever may edit it can allow that: kubectl -n {home} \
         annotate backup {name} {}={namespace}",
        annotations::ALLOW_RESTORE_TO
    )))
}

/// How the restore reaches the backup's repository.
#[derive(Clone, Debug, PartialEq)]
pub enum Repo {
    /// The backup lies in none.
    None,
    /// It is there, but the restore's namespace lacks the Secret or claim.
    Unprepared(String),
    /// This way.
    Ready(RepoAccess),
}

/// Behaviour 6.2: the repository of `backup`.
///
/// # Errors
/// [`Error::Refused`] when it is gone or not Ready.
pub async fn repo(ctx: &Context, restore: &Restore, backup: &Backup) -> Result<Repo, Error> {
    let status = backup.status.clone().unwrap_or_default();
    let namespace = restore.namespace().unwrap_or_default();
    if let Some(way) = Way::without_repo(&status) {
        let exists = read::prepared(&ctx.client, &namespace, &way).await;
        if !exists.doing(|| "looking for the claim that the backup lies on".to_owned())? {
            let claim = status.persistent_volume_claim_name.as_deref().unwrap_or_default();
            let why = format!(
                "the backup names no repository, and PersistentVolumeClaim {claim}, which it lies on, is not in namespace {namespace}"
            );
            return Err(Refusal::fatal(why).into());
        }
        check_encryption(ctx, &namespace, &status).await?;
        return Ok(Repo::Ready(RepoAccess::to(way, &status)));
    }
    let Some(name) = status.backup_repo_name.as_deref().filter(|name| !name.is_empty()) else { return Ok(Repo::None) };
    let api = Api::<BackupRepo>::all(ctx.client.clone());
    let found = read::find(&ctx.stores.repos, &api, name, None).await.doing(|| format!("reading BackupRepo {name}"))?;
    let repo =
        found.ok_or_else(|| Refusal::fatal(format!("BackupRepo {name}, where the backup lies, does not exist")))?;
    is_ready(&repo, super::lineage::has_started(restore))?;
    let way = Way::of(&repo).map_err(Refusal::fatal)?;
    if !read::prepared(&ctx.client, &namespace, &way)
        .await
        .doing(|| "looking for the repository's Secret or claim".to_owned())?
    {
        return Ok(Repo::Unprepared(name.to_owned()));
    }
    check_encryption(ctx, &namespace, &status).await?;
    Ok(Repo::Ready(RepoAccess::to(way, &status)))
}

/// An encrypted backup is of no use where its pass phrase is not.
async fn check_encryption(ctx: &Context, namespace: &str, status: &BackupStatus) -> Result<(), Error> {
    let Some(config) = &status.encryption_config else { return Ok(()) };
    let reference = &config.pass_phrase_secret_key_ref;
    let api = Api::<Secret>::namespaced(ctx.client.clone(), namespace);
    let secret = api.get_opt(&reference.name).await.doing(|| format!("reading Secret {}", reference.name))?;
    if secret.as_ref().and_then(|secret| secret.data.as_ref()).is_some_and(|data| data.contains_key(&reference.key)) {
        return Ok(());
    }
    let why = format!(
        "the backup is encrypted and Secret {} with key {} is not in namespace {namespace}",
        reference.name, reference.key
    );
    Err(Refusal::not_yet(SOON, why).into())
}

/// A restore that runs goes on while the repository is checked again.
fn is_ready(repo: &BackupRepo, runs: bool) -> Result<(), Refusal> {
    let phase = repo.status.as_ref().and_then(|status| status.phase);
    if phase == Some(BackupRepoPhase::Ready) || runs {
        return Ok(());
    }
    let phase = phase.map_or("not checked yet", BackupRepoPhase::as_str);
    Err(Refusal::not_yet(LONG, format!("BackupRepo {} is {phase}, not Ready", repo.name_any())))
}

/// Claims that a pod which is not ours has mounted: writing below it would destroy a running database.
///
/// # Errors
/// [`Error::Refused`] naming pod and claim.
pub async fn claims_are_free(ctx: &Context, restore: &Restore, claims: &BTreeSet<String>) -> Result<(), Error> {
    if claims.is_empty() {
        return Ok(());
    }
    let namespace = restore.namespace().unwrap_or_default();
    let api = Api::<Pod>::namespaced(ctx.client.clone(), &namespace);
    let pods = api.list(&ListParams::default()).await.doing(|| format!("listing the pods of {namespace}"))?;
    Ok(free_of(&pods.items, &restore.name_any(), claims)?)
}

fn free_of(pods: &[Pod], restore: &str, claims: &BTreeSet<String>) -> Result<(), Refusal> {
    for pod in pods {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if matches!(phase, Some("Succeeded" | "Failed"))
            || pod.labels().get(labels::RESTORE).map(String::as_str) == Some(restore)
        {
            continue;
        }
        let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        let mut mounted = volumes.filter_map(|volume| Some(&volume.persistent_volume_claim.as_ref()?.claim_name));
        if let Some(claim) = mounted.find(|claim| claims.contains(*claim)) {
            return Err(Refusal::fatal(format!(
                "claim {claim} is mounted by pod {}; stop that pod, or restore into new claims",
                pod.name_any()
            )));
        }
    }
    Ok(())
}

/// Behaviour of the workload restore: nothing that exists is overwritten, and what the copy needs is there.
///
/// # Errors
/// [`Error::Refused`] naming what exists or is missing.
pub async fn workload_is_possible(
    ctx: &Context,
    restore: &Restore,
    copy: &workload::Copy,
    secrets: &[String],
    same_name: bool,
) -> Result<(), Error> {
    let namespace = restore.namespace().unwrap_or_default();
    let mark = super::mark(restore);
    let set = &copy.stateful_set;
    let name = set.name_any();
    if let Some(found) = metadata_of::<StatefulSet>(ctx, &namespace, &name).await?
        && found.annotations().get(annotations::RESTORED_BY) != Some(&mark)
    {
        return Err(Refusal::fatal(format!(
            "statefulset {name} exists in {namespace}; restore under another name, or delete it first"
        ))
        .into());
    }
    for service in &copy.services {
        let name = service.name_any();
        let found = metadata_of::<Service>(ctx, &namespace, &name).await?;
        // A Service that outlived its StatefulSet serves the exact copy as well.
        if found.is_some_and(|found| !same_name && found.annotations().get(annotations::RESTORED_BY) != Some(&mark)) {
            return Err(Refusal::fatal(format!(
                "service {name} exists in {namespace}; restore under another name, or delete it first"
            ))
            .into());
        }
    }
    let mut missing = Vec::new();
    for name in secrets {
        if metadata_of::<Secret>(ctx, &namespace, name).await?.is_none() {
            missing.push(format!("Secret {name}"));
        }
    }
    let pod = set.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    if let Some(account) =
        pod.and_then(|pod| pod.service_account_name.as_ref()).filter(|name| !name.is_empty() && *name != "default")
        && metadata_of::<ServiceAccount>(ctx, &namespace, account).await?.is_none()
    {
        missing.push(format!("ServiceAccount {account}"));
    }
    if missing.is_empty() {
        return Ok(());
    }
    let missing = missing.join(", ");
    Err(Refusal::not_yet(
        SOON,
        format!(
            "the workload needs {missing}, which namespace {namespace} does not have; create them and restore again"
        ),
    )
    .into())
}

async fn metadata_of<K>(ctx: &Context, namespace: &str, name: &str) -> Result<Option<PartialObjectMeta<K>>, Error>
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let api = Api::<K>::namespaced(ctx.client.clone(), namespace);
    api.get_metadata_opt(name).await.doing(|| format!("looking for {} {namespace}/{name}", K::kind(&())))
}

/// Looks at the Jobs of `tasks`, by the stores; what is decisive is asked of the API server.
///
/// # Errors
/// Those of the API server.
pub async fn tasks(
    ctx: &Context,
    restore: &Restore,
    actions: &[RestoreStatusAction],
    tasks: &[Task],
) -> Result<Vec<SeenTask>, Error> {
    let name = restore.name_any();
    let pods = ctx.stores.pods.group(&pool::workers_of_restore(&name));
    let mut seen = Vec::with_capacity(tasks.len());
    for task in tasks {
        let over = actions
            .iter()
            .any(|action| action.object_key == task.key() && action.status != RestoreActionPhase::Processing);
        if over {
            seen.push(SeenTask { outcome: Outcome::Absent, words: None, reported: None });
            continue;
        }
        let job = stored_job(ctx, restore, &task.job);
        let pods: Vec<&Pod> = pods.iter().map(AsRef::as_ref).collect();
        let mut outcome = Outcome::of(job.as_deref(), &pods);
        if let (Outcome::Running { obstacle: obstacle @ None }, Some(job)) = (&mut outcome, &job) {
            *obstacle = refused::obstacle(&ctx.client, job, &pods, ctx.now()).await;
        }
        if let (Outcome::Succeeded { pod: None } | Outcome::Failed { pod: None, .. }, Some(job)) = (&outcome, &job) {
            let namespace = job.namespace().unwrap_or_default();
            let selector = format!("batch.kubernetes.io/controller-uid={}", job.uid().unwrap_or_default());
            let api = Api::<Pod>::namespaced(ctx.client.clone(), &namespace);
            let list = api
                .list(&ListParams::default().labels(&selector))
                .await
                .doing(|| format!("listing the pods of job {}", task.job))?;
            outcome = Outcome::of(Some(job.as_ref()), &list.items);
        }
        let words = match (&outcome, &job) {
            (Outcome::Failed { pod: Some(pod), .. }, Some(job)) => {
                logs::of_failed(&ctx.client, &job.namespace().unwrap_or_default(), pod).await
            }
            _ => None,
        };
        let reported = match &outcome {
            Outcome::Succeeded { pod: Some(pod) } => {
                outcome::message(pod, "restore").and_then(|message| serde_json::to_string(&message).ok())
            }
            _ => None,
        };
        seen.push(SeenTask { outcome, words, reported });
    }
    Ok(seen)
}

/// The Job of this name that belongs to the restore: in its namespace, else among the exec Jobs.
pub fn stored_job(ctx: &Context, restore: &Restore, name: &str) -> Option<Arc<Job>> {
    let homes = [restore.namespace().unwrap_or_default(), ctx.settings.manager_namespace.clone()];
    homes.iter().find_map(|home| {
        let job = ctx.stores.jobs.get(&ObjectRef::new(name).within(home))?;
        is_ours(&job, restore).then_some(job)
    })
}

/// Whether a Job belongs to this very restore.
pub fn is_ours(job: &Job, restore: &Restore) -> bool {
    if job.namespace() == restore.namespace() {
        return job.owner_references().iter().any(|owner| Some(owner.uid.as_str()) == restore.uid().as_deref());
    }
    let label = |key: &str| job.labels().get(key).cloned();
    label(labels::RESTORE) == Some(restore.name_any()) && label(labels::RESTORE_NAMESPACE) == restore.namespace()
}

/// The pods that a `postReady` entry works for, in name order: behaviour 6.7.
///
/// # Errors
/// [`Error::Refused`] while there is none that can be used.
pub async fn ready_pods(ctx: &Context, restore: &Restore, exec: bool) -> Result<Vec<Pod>, Error> {
    let namespace = restore.namespace().unwrap_or_default();
    let config = restore.spec.ready_config.as_ref();
    let list = async |selector| {
        read::pods(&ctx.client, &namespace, selector).await.doing(|| "listing the pods of readyConfig".to_owned())
    };
    if exec {
        let action = config.and_then(|config| config.exec_action.as_ref());
        let target = action.and_then(|action| action.target.as_ref());
        let target = target.ok_or_else(|| {
            Refusal::fatal("the recipe has an exec action after start, so readyConfig.execAction.target is needed")
        })?;
        let pods = list(target.pod_selector.clone()).await?;
        let pods: Vec<_> = pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect();
        if pods.is_empty() {
            return Err(Refusal::not_yet(LONG, "no pod matches readyConfig.execAction.target.podSelector yet").into());
        }
        if let Some(waiting) = pods.iter().find(|pod| !select::available(pod)) {
            return Err(Refusal::not_yet(
                LONG,
                format!("pod {} of readyConfig.execAction is not ready yet", waiting.name_any()),
            )
            .into());
        }
        return Ok(pods);
    }
    let action = config.and_then(|config| config.job_action.as_ref());
    let action = action
        .ok_or_else(|| Refusal::fatal("the recipe has a job action after start, so readyConfig.jobAction is needed"))?;
    let selector: &PodSelector = &action.target.pod_selector;
    let pods = list(selector.label_selector()).await?;
    let pods = match selector.strategy() {
        PodSelectionStrategy::All => pods,
        PodSelectionStrategy::Any => pods.into_iter().find(select::available).into_iter().collect(),
    };
    if pods.is_empty() {
        return Err(Refusal::not_yet(LONG, "no ready pod matches readyConfig.jobAction.target.podSelector yet").into());
    }
    Ok(pods)
}

/// The restored StatefulSet and what keeps its pods from being ready.
///
/// # Errors
/// Those of the API server.
pub async fn stateful_set(
    ctx: &Context,
    restore: &Restore,
    name: &str,
) -> Result<(Option<StatefulSet>, Option<String>), Error> {
    let namespace = restore.namespace().unwrap_or_default();
    let api = Api::<StatefulSet>::namespaced(ctx.client.clone(), &namespace);
    let found = api.get_opt(name).await.doing(|| format!("reading statefulset {name}"))?;
    let Some(set) = found else { return Ok((None, None)) };
    let selector = set.spec.as_ref().map(|spec| spec.selector.clone()).unwrap_or_default();
    let pods = read::pods(&ctx.client, &namespace, selector)
        .await
        .doing(|| format!("listing the pods of statefulset {name}"))?;
    let obstacle = pods.iter().find_map(outcome::obstacle);
    Ok((Some(set), obstacle))
}

/// Claims that exist already, of those named.
///
/// # Errors
/// Those of the API server.
pub async fn existing_claims(
    ctx: &Context,
    namespace: &str,
    names: &BTreeSet<String>,
) -> Result<BTreeSet<String>, Error> {
    let api = Api::<PersistentVolumeClaim>::namespaced(ctx.client.clone(), namespace);
    let found = try_join_all(names.iter().map(|name| api.get_metadata_opt(name)))
        .await
        .doing(|| "looking for claims".to_owned())?;
    Ok(found.into_iter().flatten().map(|claim| claim.name_any()).collect())
}

/// Pods that the source backup recorded, over all targets: the default number of replicas of its copy.
pub fn recorded_pods(backup: &Backup) -> usize {
    let status = backup.status.clone().unwrap_or_default();
    let all = plan::targets(&status).iter().filter(|target| plan::strategy(target) == PodSelectionStrategy::All);
    all.map(|target| target.selected_target_pods.len()).sum::<usize>().max(1)
}

/// The manifest that the backup recorded.
///
/// # Errors
/// [`Refusal::Fatal`] when there is none, or it cannot be used.
pub fn recorded_workload(backup: &Backup) -> Result<backup::workload::Workload, Refusal> {
    let name = backup.name_any();
    let text = backup.annotations().get(annotations::WORKLOAD);
    let text = text.ok_or_else(|| {
        Refusal::fatal(format!(
            "backup {name} recorded no workload (its pod is not run by a StatefulSet); restore into claims instead"
        ))
    })?;
    let workload: backup::workload::Workload = serde_json::from_str(text)
        .map_err(|error| Refusal::fatal(format!("the workload that backup {name} recorded cannot be read: {error}")))?;
    Ok(workload)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn another_namespace_must_be_allowed() {
        let backup = |allow: serde_json::Value| -> Backup {
            serde_json::from_value(json!({ "metadata": {"name": "b", "namespace": "home", "annotations": allow},
                "spec": {"backupPolicyName": "p", "backupMethod": "m"} }))
            .unwrap()
        };
        let key = annotations::ALLOW_RESTORE_TO;
        assert_eq!(allowed(&backup(json!({})), "home"), Ok(()));
        for (list, holds) in
            [("", false), ("other", false), ("away", true), ("other, away", true), ("*", true), ("awa", false)]
        {
            assert_eq!(allowed(&backup(json!({ key: list })), "away").is_ok(), holds, "{list}");
        }
        assert!(
            allowed(&backup(json!({})), "away")
                .unwrap_err()
                .to_string()
                .contains("annotate backup b kbbackup.io/allow-restore-to=away")
        );
    }

    #[test]
    fn a_restore_goes_on_while_its_repository_is_checked_again() {
        let repo: BackupRepo = serde_json::from_value(json!({ "metadata": {"name": "r"},
            "spec": {"storageProviderRef": "s3", "pvReclaimPolicy": "Retain"}, "status": {"phase": "PreChecking"} }))
        .unwrap();
        assert_eq!(is_ready(&repo, true), Ok(()));
        assert_eq!(is_ready(&repo, false).unwrap_err().to_string(), "BackupRepo r is PreChecking, not Ready");
    }

    #[test]
    fn a_claim_of_a_running_pod_is_refused() {
        let pod = |labels: serde_json::Value, phase: &str| -> Pod {
            serde_json::from_value(json!({ "metadata": {"name": "pg-0", "labels": labels}, "status": {"phase": phase},
                "spec": {"containers": [], "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "data-pg-0"}}]} }))
            .unwrap()
        };
        let claims = BTreeSet::from(["data-pg-0".to_owned()]);
        assert!(free_of(&[pod(json!({}), "Running")], "r", &claims).is_err());
        assert!(free_of(&[pod(json!({}), "Pending")], "r", &claims).is_err());
        assert_eq!(free_of(&[pod(json!({}), "Succeeded")], "r", &claims), Ok(()));
        assert_eq!(free_of(&[pod(json!({ labels::RESTORE: "r" }), "Running")], "r", &claims), Ok(()));
        assert_eq!(free_of(&[pod(json!({}), "Running")], "r", &BTreeSet::from(["data-new-0".to_owned()])), Ok(()));
    }
}
