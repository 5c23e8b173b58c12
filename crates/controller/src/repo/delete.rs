//! The end of a repository: not while it holds backups, and never touching what lies in the storage.

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret};
use k8s_openapi::api::storage::v1::StorageClass;
use kbbackup_api::conditions::{BackupRepoCondition, BackupRepoReason};
use kbbackup_api::events::EventReason;
use kbbackup_api::names::{FINALIZER, labels};
use kbbackup_api::v1alpha1::{Backup, BackupRepo};
use kube::api::ListParams;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::{Api, Client, Resource, ResourceExt as _};

use super::{Draft, Error, apply, observe};
use crate::context::Context;
use crate::status;

/// One step towards the end; the watches on backups and claims bring the next.
pub(super) async fn delete(ctx: &Context, api: &Api<BackupRepo>, repo: &BackupRepo) -> Result<Action, Error> {
    if !repo.finalizers().iter().any(|name| name == FINALIZER) {
        return Ok(Action::await_change());
    }
    let mut draft = Draft::new(repo, ctx.now());
    let first = draft.status.phase != Some(kbbackup_api::v1alpha1::BackupRepoPhase::Deleting);
    if first {
        ctx.event(repo, EventType::Normal, EventReason::DeletingCr.as_str(), "the repository is being deleted".into())
            .await;
    }
    let end = attempt(ctx, repo).await;
    let gone = BackupRepoCondition::DerivedObjectsDeleted;
    match &end {
        Ok(None) => draft.holds(gone, BackupRepoReason::DerivedObjectsDeleted, ""),
        Ok(Some((reason, message))) => draft.fails(gone, *reason, message),
        // Tried again; the status stays as it is.
        Err(_) => (),
    }
    let now = draft.publish(api, repo).await?;
    let repo = now.as_ref().unwrap_or(repo);
    // The watches on backups and claims tell when there is more to do.
    if end?.is_none() {
        status::hold(api, repo, false).await.map_err(Error::Hold)?;
        let note = "the repository is gone; what lies in the storage stays".to_owned();
        ctx.event(repo, EventType::Normal, EventReason::DeletedCr.as_str(), note).await;
    }
    Ok(Action::await_change())
}

/// Backups per page: each may weigh tens of KiB.
const PAGE: u32 = 100;

/// Why it cannot end yet; `None` when nothing is left.
type Obstacle = Option<(BackupRepoReason, String)>;

async fn attempt(ctx: &Context, repo: &BackupRepo) -> Result<Obstacle, Error> {
    let name = repo.name_any();
    let client = &ctx.client;
    // Asked from the server, not from the store: a backup that was created this moment counts.
    let backups: Api<Backup> = Api::all(client.clone());
    let label = format!("{}={name}", labels::BACKUP_REPO_NAME);
    let read = |source| Error::Read { what: format!("backups of {name}"), source };
    let (mut count, mut page) = (0, ListParams::default().labels(&label).limit(PAGE));
    loop {
        let some = backups.list(&page).await.map_err(read)?;
        count += some.items.iter().filter(|backup| observe::counts(backup)).count();
        match some.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => break,
        }
    }
    if count > 0 {
        let lie = if count == 1 { "1 backup lies".to_owned() } else { format!("{count} backups lie") };
        let message = format!("{lie} in the repository; the repository goes when the last one is deleted");
        return Ok(Some((BackupRepoReason::HaveAssociatedBackups, message)));
    }
    let write = |what: &'static str| move |source| Error::Write { what: what.to_owned(), source };
    remove_all::<Job>(client, repo).await.map_err(write("Jobs of the repository"))?;
    let claims = remove_all::<PersistentVolumeClaim>(client, repo).await.map_err(write("claims of the repository"))?;
    if claims > 0 {
        let message = format!("{claims} claims of the repository are being removed; a pod that uses one keeps it");
        return Ok(Some((BackupRepoReason::HaveResidualPvcs, message)));
    }
    let classes: Api<StorageClass> = Api::all(client.clone());
    let narrow = |client: &Client, _: &str| Api::all(client.clone());
    apply::remove_children(&classes, narrow, client, repo).await.map_err(write("StorageClass of the repository"))?;
    remove_all::<Secret>(client, repo).await.map_err(write("Secrets of the repository"))?;
    Ok(None)
}

async fn remove_all<K>(client: &Client, repo: &BackupRepo) -> kube::Result<usize>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug,
{
    let narrow = |client: &Client, namespace: &str| Api::namespaced(client.clone(), namespace);
    apply::remove_children(&Api::<K>::all(client.clone()), narrow, client, repo).await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use crate::fake::{Fake, guarded};

    const REPO: &str = "-/backuprepos/main";

    fn repo() -> Value {
        json!({ "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "BackupRepo",
            "metadata": { "name": "main", "uid": "u", "resourceVersion": "1",
                "finalizers": ["dataprotection.kubeblocks.io/finalizer"], "deletionTimestamp": "2026-01-01T00:00:00Z" },
            "spec": { "storageProviderRef": "s3", "pvReclaimPolicy": "Retain" } })
    }

    fn backup(kind: &str, phase: &str) -> Value {
        json!({ "metadata": { "name": "b", "namespace": "demo",
                "labels": { "dataprotection.kubeblocks.io/backup-repo-name": "main",
                    "dataprotection.kubeblocks.io/backup-type": kind } },
            "spec": { "backupPolicyName": "p", "backupMethod": "m" }, "status": { "phase": phase } })
    }

    /// Something that the repository has made, or that somebody else has.
    fn child(name: &str, owner: &str, finalizers: &[&str]) -> Value {
        let owner = json!([{ "apiVersion": "v1", "kind": "BackupRepo", "name": "main", "uid": owner }]);
        json!({ "metadata": { "name": name, "namespace": "demo", "uid": name, "ownerReferences": owner,
            "labels": { "dataprotection.kubeblocks.io/backup-repo-name": "main" }, "finalizers": finalizers } })
    }

    async fn step(fake: &Fake) {
        let repo = guarded(fake.get(REPO).unwrap());
        super::super::reconcile(Arc::new(repo), Arc::new(fake.context())).await.unwrap();
    }

    fn condition(fake: &Fake) -> (Value, Value) {
        let repo = fake.get(REPO).unwrap();
        let all = repo["status"]["conditions"].as_array().unwrap();
        let found = all.iter().find(|condition| condition["type"] == "DerivedObjectsDeleted").unwrap();
        (found["status"].clone(), found["reason"].clone())
    }

    #[tokio::test]
    async fn behaviour_1_9_a_repository_with_backups_stays() {
        let lies = [("Full", "Completed"), ("Full", "Running"), ("Continuous", "Failed")];
        for (kind, phase) in lies {
            let objects =
                [(REPO, repo()), ("demo/backups/b", backup(kind, phase)), ("demo/jobs/j", child("j", "u", &[]))];
            let fake = Fake::new(objects);
            step(&fake).await;
            assert_eq!(condition(&fake), (json!("False"), json!("HaveAssociatedBackups")), "{kind} {phase}");
            assert_eq!(fake.get(REPO).unwrap()["status"]["phase"], "Deleting");
            assert!(fake.get("demo/jobs/j").is_some(), "nothing is touched before");
        }
        let fake = Fake::new([(REPO, repo()), ("demo/backups/b", backup("Full", "Failed"))]);
        step(&fake).await;
        assert!(fake.get(REPO).is_none(), "a failed backup holds nothing that could be restored");
    }

    #[tokio::test]
    async fn behaviour_1_9_it_goes_when_its_claims_are_really_gone() {
        let fake = Fake::new([
            (REPO, repo()),
            ("demo/jobs/j", child("j", "u", &[])),
            ("demo/persistentvolumeclaims/c", child("c", "u", &["kubernetes.io/pvc-protection"])),
            ("demo/secrets/s", child("s", "u", &[])),
            ("demo/secrets/other", child("other", "v", &[])),
            ("-/storageclasses/k", child("k", "u", &[])),
            (
                "demo/backuppolicies/p",
                json!({ "metadata": { "name": "p", "namespace": "demo" },
                "spec": { "backupRepoName": "main", "backupMethods": [] } }),
            ),
        ]);
        for _ in 0..2 {
            step(&fake).await;
            assert_eq!(condition(&fake), (json!("False"), json!("HaveResidualPVCs")));
            assert!(fake.get("demo/jobs/j").is_none());
            assert!(fake.get("demo/secrets/s").is_some() && fake.get("-/storageclasses/k").is_some());
        }
        assert_eq!(fake.writes().iter().filter(|write| write.contains("persistentvolumeclaims")).count(), 1);
        // The pod that used the claim is gone.
        fake.remove("demo/persistentvolumeclaims/c");
        step(&fake).await;
        for gone in [REPO, "demo/secrets/s", "-/storageclasses/k"] {
            assert!(fake.get(gone).is_none(), "{gone}");
        }
        assert!(fake.get("demo/secrets/other").is_some(), "not ours");
        let writes = fake.writes();
        let at = |part: &str| writes.iter().position(|write| write.contains(part)).unwrap();
        assert!(
            at("storageclasses") < at("secrets") && at("secrets") < at("PATCH -/backuprepos/main/status"),
            "{writes:?}"
        );
        assert!(writes.contains(&"EVENT DeletedCR".to_owned()), "{writes:?}");
    }

    #[tokio::test]
    async fn behaviour_1_9_without_our_finalizer_nothing_is_done() {
        let mut held = repo();
        held["metadata"]["finalizers"] = json!(["example.com/other"]);
        let fake = Fake::new([(REPO, held), ("demo/secrets/s", child("s", "u", &[]))]);
        step(&fake).await;
        assert!(fake.writes().is_empty());
    }
}
