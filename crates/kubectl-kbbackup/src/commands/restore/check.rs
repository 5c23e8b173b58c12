//! Everything that can be known before the first write.

use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{PersistentVolumeClaim, Secret},
    storage::v1::StorageClass,
};
use kbbackup_api::v1alpha1::{Backup, BackupPhase, Restore};
use kube::ResourceExt;

use super::Chosen;
use crate::{
    app::{App, get},
    build::restore::{Recorded, Wish, claim_names},
    commands::repo,
    error::{CliError, Result},
    exit::Exit,
    follow,
};

/// Whether the backup as such can be restored.
pub(super) fn restorable(backup: &Backup) -> Result<()> {
    let name = backup.name_any();
    let what = format!("backup/{name} cannot be restored");
    match follow::backup_phase(backup) {
        Some(BackupPhase::Completed) => Ok(()),
        Some(BackupPhase::Failed) => Err(CliError::usage(
            what,
            format!("it failed: {}", follow::backup_reason(backup).lines().next().unwrap_or_default()),
        )
        .hint("kubectl kbbackup list --status Completed")),
        phase => Err(CliError::usage(
            what,
            format!("it is not completed but {}", phase.map_or_else(|| "new".to_owned(), |phase| phase.to_string())),
        )
        .hint(format!("kubectl kbbackup describe {name}"))),
    }
}

/// Names free, Secrets there, storage class there, repository ready.
pub(super) async fn all(
    app: &App,
    chosen: &Chosen,
    run: Option<&Recorded>,
    wish: &Wish,
    restore: &Restore,
) -> Result<()> {
    let (from, flag) = (chosen.backup.name_any(), format!("{}{}", chosen.time_flag(), app.namespace_flag()));
    let backup = chosen.origin();
    if let Some(recorded) = run {
        let name = &wish.target;
        if app.here::<StatefulSet>().get_opt(name).await.ok().flatten().is_some() {
            return Err(CliError::usage(
                format!("statefulset/{name} exists in namespace {}", app.namespace),
                "nothing that exists is overwritten",
            )
            .hint(format!("kubectl kbbackup restore {name}-restored --from {from}{flag}")));
        }
        secrets(app, backup, recorded).await?;
    }
    for name in claim_names(restore) {
        if name.len() > 253 {
            return Err(CliError::usage(
                format!("persistentvolumeclaim/{name} cannot be made"),
                "its name is too long",
            ));
        }
        if app.here::<PersistentVolumeClaim>().get_opt(&name).await.ok().flatten().is_some() {
            return Err(CliError::usage(
                format!("persistentvolumeclaim/{name} exists in namespace {}", app.namespace),
                "a restore needs a new volume",
            )
            .hint(format!("kubectl delete pvc {name}{}", app.namespace_flag()))
            .hint(format!("kubectl kbbackup restore {}-restored --from {from}{flag}", wish.target)));
        }
    }
    storage_classes(app, restore).await?;
    readable(app, backup).await?;
    if chosen.aim.is_some() {
        readable(app, &chosen.backup).await?;
    }
    Ok(())
}

/// Whether what a backup stored can be read: its repository, its pass phrase, its snapshots.
async fn readable(app: &App, backup: &Backup) -> Result<()> {
    let status = backup.status.clone().unwrap_or_default();
    if let Some(repo) = status.backup_repo_name.as_deref().filter(|repo| !repo.is_empty()) {
        repo::resolve_ready(app, Some(repo)).await?;
    }
    if let Some(config) = &status.encryption_config {
        let secret = &config.pass_phrase_secret_key_ref.name;
        if app.here::<Secret>().get_opt(secret).await.ok().flatten().is_none() {
            return Err(CliError::usage(
                format!("backup/{} is encrypted", backup.name_any()),
                format!("secret/{secret} with the pass phrase does not exist in namespace {}", app.namespace),
            )
            .hint(copy_secret(backup, secret, app)));
        }
    }
    let snapshots = status.actions.iter().any(|action| !action.volume_snapshots.is_empty());
    if snapshots && backup.namespace().is_some_and(|namespace| namespace != app.namespace) {
        return Err(CliError::usage(
            format!("backup/{} cannot be restored into another namespace", backup.name_any()),
            "volume snapshots belong to their namespace",
        ));
    }
    Ok(())
}

async fn secrets(app: &App, backup: &Backup, recorded: &Recorded) -> Result<()> {
    let mut missing = Vec::new();
    for name in &recorded.secrets {
        if app.here::<Secret>().get_opt(name).await.ok().flatten().is_none() {
            missing.push(name.clone());
        }
    }
    let Some(first) = missing.first() else { return Ok(()) };
    Err(CliError::usage(
        format!("statefulset/{} cannot run in namespace {}", recorded.name(), app.namespace),
        format!("its Secrets are missing there: {}", missing.join(", ")),
    )
    .hint(copy_secret(backup, first, app)))
}

fn copy_secret(backup: &Backup, secret: &str, app: &App) -> String {
    let from = backup.namespace().unwrap_or_default();
    if from == app.namespace {
        return format!("kubectl create secret generic {secret} -n {from} --from-literal=KEY=VALUE");
    }
    format!(
        "kubectl get secret {secret} -n {from} -o json | jq 'del(.metadata.namespace,.metadata.uid,.metadata.resourceVersion,.metadata.ownerReferences)' | kubectl apply -n {} -f -",
        app.namespace
    )
}

async fn storage_classes(app: &App, restore: &Restore) -> Result<()> {
    let config = restore.spec.prepare_data_config.as_ref();
    let templates =
        config.and_then(|config| config.volume_claims_template.as_ref()).map(|template| template.templates.as_slice());
    for claim in templates.unwrap_or_default() {
        let Some(class) = claim.volume_claim_spec.storage_class_name.as_deref().filter(|class| !class.is_empty())
        else {
            continue;
        };
        match get(&app.everywhere::<StorageClass>(), &format!("storageclass/{class}")).await {
            Err(error) if error.exit == Exit::NotFound => {
                return Err(CliError::usage(
                    format!("volume {} cannot be made", claim.metadata.name.clone().unwrap_or_default()),
                    format!("storage class {class} does not exist in this cluster"),
                )
                .hint("add --storage-class NAME, one of: kubectl get storageclasses"));
            }
            // Without the right to read storage classes the API server will judge.
            _ => {}
        }
    }
    Ok(())
}
