//! `policy set`: repository, encryption, default mark, tries. Only what was given is touched.

use clap::Args;
use k8s_openapi::api::core::v1::Secret;
use kbbackup_api::{
    names::{TRUE, annotations},
    v1alpha1::{BackupPolicy, BackupRepo, EncryptionAlgorithm},
};
use kube::{
    Api, ResourceExt,
    api::{ApiResource, DynamicObject},
};
use serde_json::{Map, Value, json};

use crate::{
    app::{App, get},
    args::{WriteArgs, words},
    error::{CliError, Result},
    exit::Exit,
    manifest, patch, source,
    ui::Ui,
};

/// Change a policy: repository, encryption, default mark, tries
///
/// What is not given stays as it is. Backups that exist keep the pass phrase that they were made with, so its Secret must stay
/// as long as they do.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  kubectl kbbackup policy set pg --repo cloud
  kubectl kbbackup policy set pg --encryption-algorithm age --passphrase-secret backup-key/passPhrase
  kubectl kbbackup policy set pg --no-encryption
  kubectl kbbackup policy set pg --default --backoff-limit 3
  kubectl kbbackup policy set pg --repo cloud --dry-run -o yaml")]
#[allow(clippy::struct_excessive_bools)] // each is a flag
pub(crate) struct SetArgs {
    /// Policy to change
    pub name: String,

    /// Repository of new backups; empty for the default one
    #[arg(long, value_name = "NAME")]
    pub repo: Option<String>,

    /// Encrypt new backups: age, or AES-128-CFB, AES-192-CFB, AES-256-CFB for exchange with KubeBlocks
    #[arg(long, value_name = "NAME", value_parser = words::<EncryptionAlgorithm>(EncryptionAlgorithm::WORDS), hide_possible_values = true)]
    pub encryption_algorithm: Option<EncryptionAlgorithm>,

    /// Secret and key of the pass phrase, in the policy's namespace
    #[arg(long, value_name = "SECRET/KEY", value_parser = secret_key)]
    pub passphrase_secret: Option<(String, String)>,

    /// Don't encrypt new backups
    #[arg(long, conflicts_with_all = ["encryption_algorithm", "passphrase_secret"])]
    pub no_encryption: bool,

    /// Make it the policy that a source's backups use unless told otherwise
    #[arg(long)]
    pub default: bool,

    /// How often a failed job is tried again
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..=10))]
    pub backoff_limit: Option<i32>,

    #[command(flatten)]
    pub write: WriteArgs,
}

/// `SECRET/KEY`.
fn secret_key(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((secret, key)) if !secret.is_empty() && !key.is_empty() => Ok((secret.to_owned(), key.to_owned())),
        _ => Err("not of the form SECRET/KEY".to_owned()),
    }
}

pub(super) async fn run(ui: &Ui, app: &App, args: &SetArgs) -> Result<Exit> {
    let policy = get(&app.here::<BackupPolicy>(), &format!("backuppolicy/{}", args.name)).await?;
    if let Some(repo) = args.repo.as_deref().filter(|repo| !repo.is_empty()) {
        get(&app.everywhere::<BackupRepo>(), &format!("backuprepo/{repo}")).await?;
    }
    if let Some((secret, key)) = &args.passphrase_secret {
        check_secret(app, secret, key).await?;
    }
    let api = Api::<DynamicObject>::namespaced_with(
        app.client.clone(),
        &app.namespace,
        &ApiResource::erase::<BackupPolicy>(&()),
    );
    let wanted = change(&policy, args)?;
    let mut changes = vec![of(&api, &policy.name_any(), wanted).await?];
    let others = if args.default { others(app, &policy).await? } else { Vec::new() };
    for other in &others {
        // Behind the new one, so that a source is never without a default. In so many words: what a manifest says nothing of,
        // `kubectl apply` leaves as it is.
        let unmark = json!({"metadata": {"annotations": {annotations::IS_DEFAULT_POLICY: "false"}}});
        changes.push(of(&api, other, unmark).await?);
    }
    if patch::previewed(app, ui, &changes, &args.write).await? {
        return Ok(Exit::Done);
    }
    let written = patch::send(app, &changes).await?;
    for other in others {
        ui.say(&format!("backuppolicy/{other} is not the default any more"));
    }
    if let Some((policy, _)) = written.into_iter().next() {
        manifest::announce(ui, &[policy], "changed", args.write.output)?;
    }
    Ok(Exit::Done)
}

/// A change of the policy of that name.
async fn of(api: &Api<DynamicObject>, name: &str, patch: Value) -> Result<patch::Change> {
    let present = get(api, &format!("backuppolicy/{name}")).await?;
    // The operator writes into the status at any time, which is no conflict.
    Ok(patch::Change { api: api.clone(), present, patch, as_read: false })
}

async fn check_secret(app: &App, name: &str, key: &str) -> Result<()> {
    let secret = get(&app.here::<Secret>(), &format!("secret/{name}")).await?;
    let value = secret.data.as_ref().and_then(|data| data.get(key));
    match value {
        None => Err(CliError::usage(
            format!("secret/{name} has no key {key}"),
            format!("it has {}", secret.data.unwrap_or_default().into_keys().collect::<Vec<_>>().join(", ")),
        )),
        Some(value) if value.0.is_empty() => {
            Err(CliError::usage(format!("secret/{name} cannot be used"), format!("its key {key} is empty")))
        }
        Some(_) => Ok(()),
    }
}

/// Other default policies of the same source.
async fn others(app: &App, policy: &BackupPolicy) -> Result<Vec<String>> {
    let all = source::policies(app).await?;
    let of = source::of_policy(policy);
    let same = |other: &&BackupPolicy| {
        source::is_default(other) && source::of_policy(other) == of && other.name_any() != policy.name_any()
    };
    Ok(all.iter().filter(same).map(ResourceExt::name_any).collect())
}

fn change(policy: &BackupPolicy, args: &SetArgs) -> Result<Value> {
    let mut spec = Map::new();
    if let Some(repo) = &args.repo {
        spec.insert("backupRepoName".to_owned(), if repo.is_empty() { Value::Null } else { json!(repo) });
    }
    if let Some(limit) = args.backoff_limit {
        spec.insert("backoffLimit".to_owned(), json!(limit));
    }
    if args.no_encryption {
        spec.insert("encryptionConfig".to_owned(), Value::Null);
    }
    if args.encryption_algorithm.is_some() || args.passphrase_secret.is_some() {
        let present = policy.spec.encryption_config.as_ref();
        let whole = args.encryption_algorithm.is_some() && args.passphrase_secret.is_some();
        if present.is_none() && !whole {
            return Err(CliError::usage(
                format!("backuppolicy/{} cannot be encrypted", policy.name_any()),
                "it takes both --encryption-algorithm and --passphrase-secret",
            ));
        }
        let mut config = Map::new();
        if let Some(algorithm) = &args.encryption_algorithm {
            config.insert("algorithm".to_owned(), json!(algorithm));
        }
        if let Some((name, key)) = &args.passphrase_secret {
            config.insert("passPhraseSecretKeyRef".to_owned(), json!({"name": name, "key": key}));
        }
        spec.insert("encryptionConfig".to_owned(), Value::Object(config));
    }
    if spec.is_empty() && !args.default {
        return Err(CliError::usage(
            "nothing to change",
            "give --repo, --encryption-algorithm, --passphrase-secret, --no-encryption, --default or --backoff-limit",
        ));
    }
    let mut patch = json!({ "spec": spec });
    if args.default {
        patch["metadata"] = json!({"annotations": {annotations::IS_DEFAULT_POLICY: TRUE}});
    }
    Ok(patch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        args: SetArgs,
    }

    fn patched(words: &[&str], encrypted: bool) -> Result<Value> {
        let mut policy: BackupPolicy = serde_json::from_value(json!({
            "apiVersion": "dataprotection.kubeblocks.io/v1alpha1", "kind": "BackupPolicy", "metadata": {"name": "pg"},
            "spec": {"backupMethods": []}
        }))
        .unwrap();
        if encrypted {
            let config = json!({"algorithm": "AES-256-CFB", "passPhraseSecretKeyRef": {"name": "s", "key": "k"}});
            policy.spec.encryption_config = serde_json::from_value(config).unwrap();
        }
        change(&policy, &Only::parse_from(["x", "pg"].iter().chain(words)).args)
    }

    #[test]
    fn only_what_was_given_is_touched() {
        assert_eq!(patched(&["--repo", "cloud"], false).unwrap(), json!({"spec": {"backupRepoName": "cloud"}}));
        assert_eq!(patched(&["--repo", ""], false).unwrap(), json!({"spec": {"backupRepoName": null}}));
        assert_eq!(patched(&["--no-encryption"], true).unwrap(), json!({"spec": {"encryptionConfig": null}}));
        assert_eq!(
            patched(&["--passphrase-secret", "new/key"], true).unwrap(),
            json!({"spec": {"encryptionConfig": {"passPhraseSecretKeyRef": {"name": "new", "key": "key"}}}})
        );
        let marked = patched(&["--default"], false).unwrap();
        assert_eq!(marked["metadata"]["annotations"][annotations::IS_DEFAULT_POLICY], TRUE);
    }

    #[test]
    fn half_an_encryption_and_nothing_at_all_are_refused() {
        assert!(patched(&["--encryption-algorithm", "age"], false).is_err());
        assert!(patched(&[], false).is_err());
        assert!(Only::try_parse_from(["x", "pg", "--encryption-algorithm", "rot13"]).is_err());
        assert!(Only::try_parse_from(["x", "pg", "--passphrase-secret", "s"]).is_err());
    }
}
