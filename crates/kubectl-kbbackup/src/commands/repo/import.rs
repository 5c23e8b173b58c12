//! `repo import`: Backups come back from what their repository remembers, in a cluster that does not know them.
//!
//! Each is created with an annotation that keeps controllers away from it, then gets its status, then loses the annotation.
//! An import that was interrupted goes on where it stopped; whatever else exists is left alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use clap::Args;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Secret, SecretKeySelector};
use kbbackup_api::{
    names::annotations,
    recovery,
    v1alpha1::{Backup, BackupRepo, DeletionPolicy, EncryptionAlgorithm, EncryptionConfig},
};
use kbbackup_core::catalogue::Found;
use kube::{
    Api, Resource, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

use super::catalogue::{self, Scope};
use crate::{
    app::{App, check_name, list_all},
    args::{DryRun, WriteArgs, duration, words},
    build::import::{Import, parents_first, released},
    error::{CliError, Doing, Result},
    exit::Exit,
    follow,
    install::foreign,
    manifest::{How, Manifest, announce, previewed},
    output::{human, object},
    source::{self, Source},
    ui::Ui,
};

/// Bring Backups back from what lies in a repository: after the loss of a cluster, or in another one
///
/// Objects and status are those that the backups stored themselves. What exists is left alone, parents come before
/// their children, and the deletion policy becomes Retain unless told otherwise, so that two clusters that share a
/// bucket cannot delete each other's data. The operator has the mover read the repository; no credentials leave the
/// cluster. A log comes back as far as its archiver has told, which it does every minute and at its end; its archiving
/// does not go on here. Volume snapshots are not in a repository, so they leave nothing to import.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup repo import s3-main --dry-run
  kubectl kbbackup repo import s3-main --create-namespaces
  kubectl kbbackup repo import s3-main --from-namespace prod --into-namespace drill --source pg")]
pub(crate) struct ImportArgs {
    /// The repository [default: the default one]
    pub name: Option<String>,

    /// Only backups of this source; may be repeated
    #[arg(long, value_name = "SOURCE")]
    pub source: Vec<String>,

    /// Only backups that were made in this namespace
    #[arg(long, value_name = "NS")]
    pub from_namespace: Option<String>,

    /// Create the Backups in this namespace instead of the one they were made in
    #[arg(long, value_name = "NS")]
    pub into_namespace: Option<String>,

    /// Create namespaces that do not exist
    #[arg(long)]
    pub create_namespaces: bool,

    /// Secret of the operator's namespace, and its key, with the passphrase of encrypted backups
    #[arg(long, value_name = "SECRET/KEY", value_parser = secret_key)]
    pub passphrase_secret: Option<(String, String)>,

    /// Cipher of the encrypted backups
    #[arg(long, value_name = "CIPHER", requires = "passphrase_secret", value_parser = words::<EncryptionAlgorithm>(EncryptionAlgorithm::WORDS), hide_possible_values = true)]
    pub encryption_algorithm: Option<EncryptionAlgorithm>,

    /// Retain or Delete: what happens to the data when an imported Backup is deleted
    #[arg(long, value_name = "POLICY", value_parser = words::<DeletionPolicy>(DeletionPolicy::WORDS), default_value = "Retain", hide_possible_values = true)]
    pub deletion_policy: DeletionPolicy,

    /// Stop waiting for the repository's catalogue after this time
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10m")]
    pub timeout: Duration,

    #[command(flatten)]
    pub write: WriteArgs,
}

fn secret_key(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((secret, key)) if !secret.is_empty() && !key.is_empty() => Ok((secret.to_owned(), key.to_owned())),
        _ => Err("not of the form SECRET/KEY".to_owned()),
    }
}

pub(super) async fn run(ui: &Ui, app: &App, args: &ImportArgs) -> Result<Exit> {
    if let Some(namespace) = &args.into_namespace {
        check_name("namespace", namespace)?;
    }
    let repo = super::resolve_ready(app, args.name.as_deref()).await?;
    if let Some(name) = foreign::controllers(app).await.unwrap_or_default().first() {
        let why = format!(
            "KubeBlocks' deployment {name} works on Backups here as well, and may not respect what is imported"
        );
        return Err(CliError::missing("backups cannot be imported", why));
    }
    let found = found(ui, app, args, &repo).await?;
    let plan = plan(app, args, &repo, &found).await?;
    plan.tell(ui);
    if plan.create.is_empty() {
        return Ok(Exit::Done);
    }
    let manifests = plan.manifests()?;
    if args.write.dry_run == DryRun::Client || args.write.dry_run == DryRun::Server && plan.namespaces.is_empty() {
        previewed(app, ui, &manifests, How::Create, &args.write).await?;
        return Ok(Exit::Done);
    }
    if args.write.dry_run == DryRun::Server {
        let why = format!("namespace {} does not exist, and a dry run cannot create it", plan.namespaces[0]);
        return Err(CliError::usage("the server cannot check what would be imported", why));
    }
    if let Some(missing) = plan.namespaces.first().filter(|_| !args.create_namespaces) {
        let why = format!("{} backups belong there", plan.within(missing));
        return Err(CliError::usage(format!("namespace {missing} does not exist"), why)
            .hint("add --create-namespaces, or --into-namespace NS"));
    }
    for namespace in &plan.namespaces {
        create_namespace(app, namespace).await?;
    }
    let mut written = Vec::with_capacity(plan.create.len());
    for (index, backup) in plan.create.iter().enumerate() {
        ui.progress_if_live(&format!("importing backup {} of {}", index + 1, plan.create.len()));
        written.push(serde_json::from_value(object::with_type(&bring_back(app, backup).await?)?)?);
    }
    announce(ui, &written, "imported", args.write.output)?;
    Ok(Exit::Done)
}

/// What the repository tells of the wanted sources.
async fn found(ui: &Ui, app: &App, args: &ImportArgs, repo: &BackupRepo) -> Result<Vec<Found>> {
    let encryption = match &args.passphrase_secret {
        Some((secret, key)) => Some(encryption(app, secret, key, args.encryption_algorithm).await?),
        None => None,
    };
    let scope = Scope {
        namespace: args.from_namespace.as_deref(),
        brief: false,
        encryption,
        limit: Some(args.timeout).filter(|limit| !limit.is_zero()),
    };
    catalogue::fetch(ui, app, repo, &scope).await
}

async fn encryption(
    app: &App,
    secret: &str,
    key: &str,
    algorithm: Option<EncryptionAlgorithm>,
) -> Result<EncryptionConfig> {
    let namespace = app.operator_namespace().await;
    let found = app.within::<Secret>(&namespace).get_opt(secret).await;
    // Without the right to read Secrets the mover will say what is wrong.
    if let Ok(found) = found {
        let has = found.as_ref().and_then(|found| found.data.as_ref()).is_some_and(|data| data.contains_key(key));
        if !has {
            let what = format!("secret/{secret} with key {key} is not in namespace {namespace}");
            return Err(CliError::not_found(what, "the mover that reads the repository works there"));
        }
    }
    let pass_phrase_secret_key_ref = SecretKeySelector { name: secret.to_owned(), key: key.to_owned(), optional: None };
    Ok(EncryptionConfig { algorithm: algorithm.unwrap_or_default(), pass_phrase_secret_key_ref })
}

/// What will be done, and what not.
#[derive(Debug, Default)]
struct Plan {
    /// In the order of creation.
    create: Vec<Backup>,
    /// Namespaces that they need and that do not exist.
    namespaces: Vec<String>,
    /// Backups that exist, as `namespace/name`.
    exist: Vec<String>,
    /// Path and reason.
    refused: Vec<(String, String)>,
    /// Backups without one that they build on, as `namespace/name`, and the missing one.
    orphaned: Vec<(String, String)>,
    /// Logs, as `namespace/name`, that nothing is left to be replayed on.
    baseless: Vec<String>,
    /// How many come back without a seal.
    unsealed: usize,
    /// Secrets that restores will need.
    secrets: BTreeSet<String>,
}

async fn plan(app: &App, args: &ImportArgs, repo: &BackupRepo, found: &[Found]) -> Result<Plan> {
    let import = Import {
        repo: repo.name_any(),
        into: args.into_namespace.clone(),
        deletion_policy: args.deletion_policy,
        now: Timestamp::now(),
    };
    let sources = args.source.iter().map(|source| Source::parse(source)).collect::<Result<Vec<_>>>()?;
    let existing = list_all(&app.everywhere::<Backup>(), ListParams::default(), "backups").await?;
    let mut plan = decide(&import, found, &sources, &existing);
    for namespace in plan.create.iter().filter_map(ResourceExt::namespace).collect::<BTreeSet<_>>() {
        let seen = app.everywhere::<Namespace>().get_opt(&namespace).await;
        if seen.doing(|| format!("namespace {namespace} cannot be looked up"))?.is_none() {
            plan.namespaces.push(namespace);
        }
    }
    Ok(plan)
}

/// Pure: which of the found ones are brought back.
fn decide(import: &Import, found: &[Found], sources: &[Source], existing: &[Backup]) -> Plan {
    let mut plan = Plan::default();
    let mut create = Vec::new();
    let full = |backup: &Backup| format!("{}/{}", backup.namespace().unwrap_or_default(), backup.name_any());
    let known: BTreeMap<String, &Backup> = existing.iter().map(|backup| (full(backup), backup)).collect();
    for one in found {
        let backup = match import.backup(one) {
            Ok(backup) => backup,
            // Of what cannot be read nobody knows the source.
            Err(why) => {
                if !existing.iter().any(|known| lies_at(known, &one.path)) {
                    plan.refused.push((one.path.clone(), why));
                }
                continue;
            }
        };
        if !source::is_of(&backup, sources, &[]) {
            continue;
        }
        match known.get(&full(&backup)) {
            Some(known) if !half_imported(known, &backup) => plan.exist.push(full(&backup)),
            _ => {
                plan.unsealed += usize::from(one.seal.is_none() && !follow::is_continuous(&backup));
                create.push(backup);
            }
        }
    }
    plan.create = parents_first(create);
    let is_base = |other: &Backup| recovery::kind(other).is_some() && recovery::is_completed(other);
    let logs = plan.create.iter().filter(|backup| follow::is_continuous(backup));
    let has_base = |log: &Backup| {
        let its = |other: &&Backup| other.namespace() == log.namespace() && recovery::same_database(log, other);
        existing.iter().chain(&plan.create).filter(its).any(is_base)
    };
    plan.baseless = logs.filter(|log| !has_base(log)).map(full).collect();
    let all: BTreeSet<String> = existing.iter().chain(&plan.create).map(full).collect();
    for backup in &plan.create {
        for parent in follow::parents(backup) {
            let wanted = format!("{}/{parent}", backup.namespace().unwrap_or_default());
            if !all.contains(&wanted) {
                plan.orphaned.push((full(backup), parent));
            }
        }
        let encryption = backup.status.as_ref().and_then(|status| status.encryption_config.as_ref());
        if let Some(encryption) = encryption {
            let secret = &encryption.pass_phrase_secret_key_ref;
            plan.secrets.insert(format!("{}/{} ({})", backup.namespace().unwrap_or_default(), secret.name, secret.key));
        }
    }
    plan
}

fn lies_at(backup: &Backup, path: &str) -> bool {
    backup.status.as_ref().and_then(|status| status.path.as_deref()) == Some(path)
}

/// Whether an earlier import of the same thing stopped before its end.
fn half_imported(known: &Backup, wanted: &Backup) -> bool {
    let mark = |backup: &Backup, key: &str| backup.annotations().get(key).cloned();
    mark(known, annotations::SKIP_RECONCILIATION).is_some()
        && mark(known, annotations::IMPORTED_FROM).is_some()
        && mark(known, annotations::IMPORTED_FROM) == mark(wanted, annotations::IMPORTED_FROM)
        && known.metadata.deletion_timestamp.is_none()
}

impl Plan {
    fn within(&self, namespace: &str) -> usize {
        self.create.iter().filter(|backup| backup.namespace().as_deref() == Some(namespace)).count()
    }

    /// Says what will happen, before it does.
    fn tell(&self, ui: &Ui) {
        for (path, why) in &self.refused {
            ui.warn(&format!("{path} is left out: {why}"));
        }
        for (backup, parent) in &self.orphaned {
            ui.warn(&format!("backup {backup} builds on {parent}, which is not there: it cannot be restored"));
        }
        for log in &self.baseless {
            ui.warn(&format!(
                "backup {log} is a log, and no backup that it could be replayed on is there; volume snapshots do not lie in a repository"
            ));
        }
        if self.unsealed > 0 {
            let count = human::count(self.unsealed, "backup has no seal", "backups have no seals");
            ui.warn(&format!(
                "{count}: made by another controller, and nothing proves that all of their data is there"
            ));
        }
        for secret in &self.secrets {
            ui.say(&format!("restores need the Secret {secret} with the passphrase; it is not part of the repository"));
        }
        if !self.exist.is_empty() {
            ui.say(&human::count(
                self.exist.len(),
                "backup exists and is left alone",
                "backups exist and are left alone",
            ));
        }
        ui.say(&match self.create.len() {
            0 => "nothing to import".to_owned(),
            number => format!("to import: {}", human::count(number, "backup", "backups")),
        });
    }

    fn manifests(&self) -> Result<Vec<Manifest>> {
        let namespaces = self.namespaces.iter().map(|name| {
            Ok(Manifest::from_value(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})))
        });
        let backups = self.create.iter().map(|backup| Ok(Manifest::from_value(object::with_type(backup)?)));
        namespaces.chain(backups).collect()
    }
}

async fn create_namespace(app: &App, name: &str) -> Result<()> {
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": name}}))?;
    let params = PostParams { field_manager: Some(app.field_manager.clone()), ..PostParams::default() };
    match app.everywhere::<Namespace>().create(&params, &namespace).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        other => other.map(drop).doing(|| format!("namespace {name} cannot be created")),
    }
}

/// Object, then status, then the controller may look at it.
async fn bring_back(app: &App, backup: &Backup) -> Result<Backup> {
    let (name, namespace) = (backup.name_any(), backup.namespace().unwrap_or_default());
    let api: Api<Backup> = app.within(&namespace);
    let what = |verb: &str| format!("backup/{name} in namespace {namespace} cannot be {verb}");
    let params = PostParams { field_manager: Some(app.field_manager.clone()), ..PostParams::default() };
    let object = Backup { status: None, ..backup.clone() };
    match api.create(&params, &object).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            let known = api.get(&name).await.doing(|| what("read"))?;
            if !half_imported(&known, backup) {
                return Err(CliError::refused(what("imported"), "somebody else has created it meanwhile"));
            }
        }
        other => other.map(drop).doing(|| what("created"))?,
    }
    let params = PatchParams { field_manager: Some(app.field_manager.clone()), ..PatchParams::default() };
    let status = json!({"status": backup.status});
    api.patch_status(&name, &params, &Patch::Merge(status)).await.doing(|| what("given its status"))?;
    let mut done = api.patch(&name, &params, &Patch::Merge(released())).await.doing(|| what("released"))?;
    done.meta_mut().managed_fields = None;
    Ok(done)
}

#[cfg(test)]
mod tests {
    use kbbackup_api::names::labels;
    use kbbackup_core::catalogue::SealFound;

    use super::*;

    fn found(name: &str, parent: Option<&str>) -> Found {
        let object = json!({
            "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "Backup",
            "metadata": {"name": name, "namespace": "demo", "labels": {"app.kubernetes.io/instance": "pg"}},
            "spec": {"backupPolicyName": "pg", "backupMethod": "full"},
            "status": {"phase": "Running", "startTimestamp": "2026-01-02T03:04:05Z", "parentBackupName": parent,
                "backupMethod": {"name": "full"},
                "encryptionConfig": {"algorithm": "age", "passPhraseSecretKeyRef": {"name": "keys", "key": "k"}}}});
        Found { path: format!("/demo/{name}"), object: Some(object), ..Found::default() }
    }

    fn import() -> Import {
        Import { repo: "s3".into(), ..Import::default() }
    }

    fn names(backups: &[Backup]) -> Vec<String> {
        backups.iter().map(ResourceExt::name_any).collect()
    }

    #[test]
    fn what_exists_is_left_alone_unless_it_is_our_own_half() {
        let all = [found("one", None), found("two", None)];
        let mut half = import().backup(&all[0]).unwrap();
        let whole = decide(&import(), &all, &[], std::slice::from_ref(&half));
        assert_eq!(names(&whole.create), ["one", "two"]);
        assert_eq!(whole.unsealed, 2);
        let sealed = Found { seal: Some(SealFound::default()), ..all[0].clone() };
        assert_eq!(decide(&import(), &[sealed], &[], &[]).unsealed, 0);
        half.annotations_mut().remove(annotations::SKIP_RECONCILIATION);
        let rest = decide(&import(), &all, &[], std::slice::from_ref(&half));
        assert_eq!((names(&rest.create), rest.exist), (vec!["two".to_owned()], vec!["demo/one".to_owned()]));
    }

    #[test]
    fn sources_narrow_missing_parents_are_told_and_keys_are_named() {
        let all =
            [found("child", Some("base")), Found { path: "/demo/half".into(), unfinished: true, ..Found::default() }];
        let plan = decide(&import(), &all, &[Source::parse("pg").unwrap()], &[]);
        assert_eq!(plan.orphaned, [("demo/child".to_owned(), "base".to_owned())]);
        assert_eq!(plan.refused[0].0, "/demo/half");
        let mut runs = import().backup(&found("half", None)).unwrap();
        runs.status.as_mut().unwrap().path = Some("/demo/half".into());
        assert!(decide(&import(), &all, &[], &[runs]).refused.is_empty(), "what the cluster knows is no surprise");
        assert!(plan.secrets.contains("demo/keys (k)"), "{:?}", plan.secrets);
        assert!(decide(&import(), &all, &[Source::parse("other").unwrap()], &[]).create.is_empty());
        let base = decide(&import(), &[found("child", Some("base")), found("base", None)], &[], &[]);
        assert_eq!(names(&base.create), ["base", "child"]);
        assert!(base.orphaned.is_empty());
    }

    fn log(range: serde_json::Value) -> Found {
        let mut found = found("log", None);
        let object = found.object.as_mut().unwrap();
        object["metadata"]["labels"][labels::BACKUP_TYPE] = json!("Continuous");
        object["status"]["timeRange"] = range;
        found
    }

    #[test]
    fn a_log_comes_back_as_far_as_it_reaches_and_wants_a_base() {
        let range = json!({"start": "2026-01-02T03:00:00Z", "end": "2026-01-02T04:00:00Z"});
        let alone = decide(&import(), &[log(range.clone())], &[], &[]);
        assert_eq!((names(&alone.create), alone.baseless), (vec!["log".to_owned()], vec!["demo/log".to_owned()]));
        assert_eq!(alone.unsealed, 0, "nobody expects a seal of it");
        let status = alone.create[0].status.clone().unwrap();
        assert_eq!(status.completion_timestamp.unwrap().0.to_string(), "2026-01-02T04:00:00Z");
        let mut base = found("base", None);
        base.object.as_mut().unwrap()["metadata"]["labels"][labels::BACKUP_TYPE] = json!("Full");
        let both = decide(&import(), &[log(range), base.clone()], &[], &[]);
        assert_eq!((names(&both.create), both.baseless.len()), (vec!["base".to_owned(), "log".to_owned()], 0));
        let known = import().backup(&base).unwrap();
        let silent = decide(&import(), &[log(json!({"end": "2026-01-02T04:00:00Z"}))], &[], &[known]);
        assert!(silent.create.is_empty());
        assert!(silent.refused[0].1.contains("does not reach any time"), "{:?}", silent.refused);
    }
}
