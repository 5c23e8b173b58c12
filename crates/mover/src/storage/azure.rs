//! Azure Blob Storage: the contract's keys as options of the back end.

use opendal::Operator;
use opendal::services::Azblob;
use reqsign_azure_storage::{ClientSecretCredentialProvider, Credential, ImdsCredentialProvider};
use reqsign_core::{Context, Env, OsEnv, ProvideCredential, ProvideCredentialChain, StaticEnv};

use super::http;
use super::remote::Remote;
use super::upload::Limits;
use crate::config::value::Options;
use crate::error::{Error, Result};

/// Keys that mean something here.
const USED: &[&str] = &[
    "account",
    "key",
    "sas_url",
    "connection_string",
    "env_auth",
    "tenant",
    "client_id",
    "client_secret",
    "use_msi",
    "msi_object_id",
    "msi_client_id",
    "msi_mi_res_id",
    "endpoint",
    "use_emulator",
];
/// Keys that may say what they like: what is stored, read and listed stays the same.
const IGNORED: &[&str] = &[
    // How an upload is cut into blocks and a listing into pages is decided here.
    "chunk_size",
    "upload_concurrency",
    "upload_cutoff",
    "copy_cutoff",
    "copy_concurrency",
    "copy_total_concurrency",
    "use_copy_blob",
    "list_chunk",
    "list_parallelism",
    "use_arrow_list",
    "memory_pool_flush_time",
    "memory_pool_use_mmap",
    // Containers are never made here: a missing one is an error that says so.
    "no_check_container",
    "public_access",
    // Checks of the reference on its own work.
    "disable_checksum",
    "no_head_object",
    // Nothing here is written over in a tier that must be emptied first.
    "archive_tier_delete",
    // Objects that nobody but the reference looks at, and letters that no name of a backup has.
    "directory_markers",
    "encoding",
    // Only mean something beside keys that are refused.
    "client_certificate_password",
    "client_send_certificate_chain",
    "password",
];

const IDENTITY: &str = "this way of logging in is not known here: use client_secret, use_msi, or env_auth";

/// Keys whose wish is not fulfilled here, so that going on would do something else.
const REFUSED: &[(&str, &str)] = &[
    ("access_tier", "blobs get the account's default tier: set that one, or a lifecycle rule"),
    ("client_certificate_path", IDENTITY),
    ("username", IDENTITY),
    ("service_principal_file", IDENTITY),
    ("use_az", IDENTITY),
    ("disable_instance_discovery", "the authority is AZURE_AUTHORITY_HOST, or that of the public cloud"),
    ("delete_snapshots", "snapshots of blobs are not deleted"),
    ("hns", "data lakes are used as plain containers"),
    ("decompress", "objects come back as they are stored: use pull -d"),
];

/// What every emulator has: not a secret.
const EMULATOR: (&str, &str, &str) = (
    "devstoreaccount1",
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
    "http://127.0.0.1:10000/devstoreaccount1",
);

pub(super) fn open(options: &Options<'_>) -> Result<Remote> {
    options.permit("azureblob", USED, IGNORED, REFUSED)?;
    let (container, prefix) = options.container("azureblob")?;
    let builder = account(options)?.container(container).root(prefix);
    let client = http::client(!options.bool("no_check_certificate", false)?)?;
    let operator = Operator::new(builder).map_err(|error| Error::other(format!("azureblob: {error}")))?;
    Ok(Remote::new(&operator, &client, Limits::AZURE))
}

/// Where the account is and how to log in, the first of what is set in the reference's order.
fn account(options: &Options<'_>) -> Result<Azblob> {
    if let Some(text) = options.text("connection_string") {
        // The error does not say it: it would show the key.
        return Azblob::from_connection_string(text)
            .map_err(|_| Error::other("azureblob: connection_string cannot be read"));
    }
    let from_environment = options.bool("env_auth", false)?;
    if let (Some(url), false) = (options.text("sas_url"), from_environment) {
        return shared_access(url);
    }
    let emulator = options.bool("use_emulator", false)? && !from_environment;
    let or = |key: &str, usual: &'static str| options.text(key).or(emulator.then_some(usual));
    let (account, key) = (or("account", EMULATOR.0), or("key", EMULATOR.1));
    let builder = Azblob::default().endpoint(&address(account, or("endpoint", EMULATOR.2))?);
    let secret = (options.text("tenant"), options.text("client_id"), options.text("client_secret"));
    Ok(match (account, key, secret) {
        (Some(account), _, _) if from_environment => builder.account_name(account),
        (Some(account), Some(key), _) => builder.account_name(account).account_key(key),
        (Some(_), None, (Some(tenant), Some(client), Some(secret))) => {
            let provider = ClientSecretCredentialProvider::new()
                .with_tenant_id(tenant)
                .with_client_id(client)
                .with_client_secret(secret);
            builder.credential_provider_chain(ProvideCredentialChain::new().push(provider))
        }
        (Some(_), None, _) if options.bool("use_msi", false)? => {
            builder.credential_provider_chain(ProvideCredentialChain::new().push(ManagedIdentity::new(options)?))
        }
        _ => return Err(Error::other("azureblob: no authentication method configured")),
    })
}

fn shared_access(url: &str) -> Result<Azblob> {
    let (address, token) =
        url.split_once('?').ok_or_else(|| Error::other("azureblob: sas_url has no token behind a '?'"))?;
    let host_ends = address.find("://").map_or(0, |at| at + 3);
    let end = address[host_ends..].find('/').map_or(address.len(), |at| host_ends + at);
    Ok(Azblob::default().endpoint(&address[..end]).sas_token(token))
}

/// The reference puts the account in front of a bare domain. A full address stays what it is.
fn address(account: Option<&str>, endpoint: Option<&str>) -> Result<String> {
    let endpoint = endpoint.unwrap_or("blob.core.windows.net").trim_end_matches('/');
    if endpoint.starts_with("http://") || endpoint.starts_with("https://") {
        return Ok(endpoint.to_owned());
    }
    let account = account.ok_or_else(|| Error::other("azureblob: account not found"))?;
    if endpoint.starts_with(&format!("{account}.")) {
        return Ok(format!("https://{endpoint}"));
    }
    Ok(format!("https://{account}.{endpoint}"))
}

/// The identity of the machine or pod, or which of several.
#[derive(Debug)]
struct ManagedIdentity {
    which: Option<(&'static str, String)>,
}

impl ManagedIdentity {
    fn new(options: &Options<'_>) -> Result<Self> {
        let mut named = [
            ("msi_object_id", "AZURE_OBJECT_ID"),
            ("msi_client_id", "AZURE_CLIENT_ID"),
            ("msi_mi_res_id", "AZURE_MSI_RES_ID"),
        ]
        .into_iter()
        .filter_map(|(key, variable)| Some((variable, options.text(key)?.to_owned())));
        let which = named.next();
        if named.next().is_some() {
            return Err(Error::other(
                "azureblob: only one of msi_object_id, msi_client_id, msi_mi_res_id can be given",
            ));
        }
        Ok(Self { which })
    }
}

impl ProvideCredential for ManagedIdentity {
    type Credential = Credential;

    async fn provide_credential(&self, context: &Context) -> reqsign_core::Result<Option<Credential>> {
        let mut envs = OsEnv.vars();
        if let Some((variable, value)) = &self.which {
            for other in ["AZURE_OBJECT_ID", "AZURE_CLIENT_ID", "AZURE_MSI_RES_ID", "AZURE_MSI_RESOURCE_ID"] {
                envs.remove(other);
            }
            envs.insert((*variable).to_owned(), value.clone());
        }
        let context = context.clone().with_env(StaticEnv { home_dir: OsEnv.home_dir(), envs });
        ImdsCredentialProvider::new().provide_credential(&context).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ini::Ini;

    #[test]
    fn addresses_are_those_of_the_reference() {
        for (endpoint, expected) in [
            (None, "https://acct.blob.core.windows.net"),
            (Some("blob.core.chinacloudapi.cn"), "https://acct.blob.core.chinacloudapi.cn"),
            (Some("acct.blob.core.windows.net"), "https://acct.blob.core.windows.net"),
            (Some("http://azurite:10000/acct/"), "http://azurite:10000/acct"),
        ] {
            assert_eq!(address(Some("acct"), endpoint).unwrap(), expected);
        }
    }

    fn error(lines: &str) -> Option<String> {
        let ini = Ini::parse(&format!("[storage]\ntype = azureblob\n{lines}")).unwrap();
        open(&Options::new(&ini)).err().map(|error| error.to_string())
    }

    #[test]
    fn authentication_is_asked_for() {
        assert_eq!(error("root = c\naccount = a").unwrap(), "azureblob: no authentication method configured");
        for way in [
            "key = a2V5",
            "env_auth = true",
            "use_msi = true\nmsi_client_id = x",
            "tenant = t\nclient_id = c\nclient_secret = s",
            "sas_url = https://a.blob.core.windows.net/c?sv=1&sig=x",
            "use_emulator = true",
            "connection_string = `DefaultEndpointsProtocol=https;AccountName=a;AccountKey=a2V5;EndpointSuffix=x.y`",
        ] {
            assert_eq!(error(&format!("root = c\naccount = a\n{way}")), None, "{way}");
        }
        assert_eq!(error("root = c\nuse_emulator = true"), None);
        assert!(error("account = a\nkey = a2V5").unwrap().contains("root must name a container"));
        assert!(error("root = c\naccount = a\ntenant = t\nclient_id = c").unwrap().contains("no authentication"));
        let two = error("root = c\naccount = a\nuse_msi = true\nmsi_client_id = x\nmsi_object_id = y").unwrap();
        assert!(two.contains("only one of"), "{two}");
    }

    #[test]
    fn known_keys_never_stand_in_the_way_unless_they_are_refused() {
        for key in IGNORED {
            assert_eq!(error(&format!("root = c\nuse_emulator = true\n{key} = 1")), None, "{key}");
        }
        for (key, why) in REFUSED {
            let told = error(&format!("root = c\nuse_emulator = true\n{key} = x")).unwrap();
            assert_eq!(told, format!("azureblob: {key} cannot be used: {why}"));
        }
        assert!(error("root = c\nuse_emulater = true").unwrap().starts_with("unknown key \"use_emulater\""));
    }
}
