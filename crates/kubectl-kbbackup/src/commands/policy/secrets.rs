//! Secrets of a policy: the database's login, and the pass phrase.

use k8s_openapi::{
    ByteString,
    api::core::v1::{Secret, SecretKeySelector},
};
use kbbackup_api::v1alpha1::{ConnectionCredential, EncryptionAlgorithm, EncryptionConfig};
use kube::{ResourceExt, api::ObjectMeta};
use rand::distr::{Alphanumeric, SampleString};

use super::CreateArgs;
use crate::{
    app::{self, App},
    error::{CliError, Result},
};

/// The Secret that was named, with its keys checked.
pub(super) async fn credential(app: &App, args: &CreateArgs) -> Result<Option<ConnectionCredential>> {
    let Some(name) = &args.secret else { return Ok(None) };
    let secret: Secret = app::get(&app.here(), &format!("secret/{name}")).await?;
    for key in [&args.username_key, &args.password_key] {
        has_key(&secret, key)?;
    }
    Ok(Some(ConnectionCredential {
        secret_name: name.clone(),
        username_key: Some(args.username_key.clone()),
        password_key: Some(args.password_key.clone()),
        ..ConnectionCredential::default()
    }))
}

fn has_key(secret: &Secret, key: &str) -> Result<()> {
    let keys: Vec<&String> =
        secret.data.iter().flat_map(std::collections::BTreeMap::<String, ByteString>::keys).collect();
    if keys.iter().any(|candidate| *candidate == key) {
        return Ok(());
    }
    let known = keys.iter().map(|key| key.as_str()).collect::<Vec<_>>().join(", ");
    Err(CliError::usage(format!("secret/{} has no key {key}", secret.name_any()), format!("it has {known}")))
}

pub(super) async fn encryption(
    app: &App,
    policy: &str,
    args: &CreateArgs,
) -> Result<(Option<EncryptionConfig>, Option<Secret>)> {
    let algorithm = args.encryption_algorithm.unwrap_or(EncryptionAlgorithm::Age);
    let config = |name: &str, key: &str| EncryptionConfig {
        algorithm,
        pass_phrase_secret_key_ref: SecretKeySelector { name: name.to_owned(), key: key.to_owned(), optional: None },
    };
    if let Some(reference) = &args.passphrase_secret {
        let (name, key) = reference.split_once('/').ok_or_else(|| {
            CliError::usage(format!("--passphrase-secret {reference} cannot be understood"), "write NAME/KEY")
        })?;
        let secret: Secret = app::get(&app.here(), &format!("secret/{name}")).await?;
        has_key(&secret, key)?;
        return Ok((Some(config(name, key)), None));
    }
    if !args.encrypt {
        if args.encryption_algorithm.is_some() {
            return Err(CliError::usage(
                "--encryption-algorithm alone does nothing",
                "add --encrypt or --passphrase-secret NAME/KEY",
            ));
        }
        return Ok((None, None));
    }
    let name = kbbackup_core::names::shorten63(&format!("{policy}-backup-passphrase"));
    let key = "passPhrase";
    if app.here::<Secret>().get_opt(&name).await.is_ok_and(|secret| secret.is_some()) {
        // Older backups need it: it is used again rather than replaced.
        return Ok((Some(config(&name, key)), None));
    }
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(app.namespace.clone()),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".to_owned()),
        string_data: Some([(key.to_owned(), Alphanumeric.sample_string(&mut rand::rng(), 43))].into()),
        ..Secret::default()
    };
    Ok((Some(config(&name, key)), Some(secret)))
}
