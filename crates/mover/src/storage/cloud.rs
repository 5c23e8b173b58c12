//! Azure Blob Storage and Google Cloud Storage: the contract's keys as options of the back ends.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use opendal::Operator;
use opendal::services::{Azblob, Gcs};

use super::http;
use super::remote::Remote;
use super::upload::Limits;
use crate::config::value::Options;
use crate::error::{Error, Result};

const AZURE: &[&str] = &[
    "account",
    "key",
    "sas_url",
    "endpoint",
    "env_auth",
    "no_check_container",
    "chunk_size",
    "upload_concurrency",
    "list_chunk",
    "use_emulator",
    "disable_checksum",
    "memory_pool_flush_time",
    "memory_pool_use_mmap",
    "encoding",
];
const GCS: &[&str] = &[
    "service_account_file",
    "service_account_credentials",
    "project_number",
    "location",
    "bucket_policy_only",
    "object_acl",
    "bucket_acl",
    "storage_class",
    "anonymous",
    "env_auth",
    "no_check_bucket",
    "endpoint",
    "encoding",
    "chunk_size",
    "decompress",
    "directory_markers",
];

/// The container or bucket of `root`, and the prefix behind it.
fn container<'a>(options: &Options<'a>, kind: &str) -> Result<(&'a str, &'a str)> {
    let root = options.text("root").unwrap_or_default().trim_matches('/');
    let (container, prefix) = root.split_once('/').unwrap_or((root, ""));
    if container.is_empty() {
        return Err(Error::other(format!("{kind}: root must name a container, optionally followed by /prefix")));
    }
    Ok((container, prefix))
}

fn finish(operator: opendal::Result<Operator>, options: &Options<'_>, limits: Limits) -> Result<Remote> {
    let client = http::client(!options.bool("no_check_certificate", false)?)?;
    let operator = operator.map_err(|error| Error::other(error.to_string()))?;
    Ok(Remote::new(&operator, &client, limits))
}

pub(super) fn azure(options: &Options<'_>) -> Result<Remote> {
    options.refuse_unknown("azureblob", AZURE)?;
    let (container, prefix) = container(options, "azureblob")?;
    let mut builder = Azblob::default().container(container).root(prefix);
    if let Some(url) = options.text("sas_url") {
        let (address, token) =
            url.split_once('?').ok_or_else(|| Error::other("azureblob: sas_url has no token behind a '?'"))?;
        let host_ends = address.find("://").map_or(0, |at| at + 3);
        let end = address[host_ends..].find('/').map_or(address.len(), |at| host_ends + at);
        builder = builder.endpoint(&address[..end]).sas_token(token);
    } else {
        let account = options.text("account");
        builder = builder.endpoint(&azure_endpoint(account, options.text("endpoint"))?);
        match (account, options.text("key")) {
            (Some(account), Some(key)) => builder = builder.account_name(account).account_key(key),
            (Some(account), None) if options.bool("env_auth", false)? => builder = builder.account_name(account),
            _ => return Err(Error::other("azureblob: no authentication method configured")),
        }
    }
    finish(Operator::new(builder), options, Limits::AZURE)
}

/// The reference puts the account in front of a bare domain. A full address stays what it is.
fn azure_endpoint(account: Option<&str>, endpoint: Option<&str>) -> Result<String> {
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

pub(super) fn gcs(options: &Options<'_>) -> Result<Remote> {
    options.refuse_unknown("google cloud storage", GCS)?;
    let (bucket, prefix) = container(options, "google cloud storage")?;
    let mut builder = Gcs::default()
        .bucket(bucket)
        .root(prefix)
        .predefined_acl(options.text("object_acl").unwrap_or_default())
        .default_storage_class(options.text("storage_class").unwrap_or_default());
    if let Some(endpoint) = options.text("endpoint") {
        builder = builder.endpoint(endpoint);
    }
    if let Some(json) = options.text("service_account_credentials") {
        builder = builder.credential(&STANDARD.encode(json)).disable_vm_metadata().disable_config_load();
    } else if let Some(path) = options.text("service_account_file") {
        builder = builder.credential_path(path).disable_vm_metadata().disable_config_load();
    } else if options.bool("anonymous", false)? {
        builder = builder.skip_signature().disable_vm_metadata().disable_config_load();
    } else if !options.bool("env_auth", false)? {
        return Err(Error::other("google cloud storage: no authentication method configured"));
    }
    finish(Operator::new(builder), options, Limits::GCS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ini::Ini;

    #[test]
    fn azure_addresses_are_those_of_the_reference() {
        for (endpoint, address) in [
            (None, "https://acct.blob.core.windows.net"),
            (Some("blob.core.chinacloudapi.cn"), "https://acct.blob.core.chinacloudapi.cn"),
            (Some("acct.blob.core.windows.net"), "https://acct.blob.core.windows.net"),
            (Some("http://azurite:10000/acct/"), "http://azurite:10000/acct"),
        ] {
            assert_eq!(azure_endpoint(Some("acct"), endpoint).unwrap(), address);
        }
    }

    #[test]
    fn authentication_is_asked_for() {
        let open = |lines: &str, azure_kind: bool| {
            let ini = Ini::parse(&format!("[storage]\ntype = x\n{lines}")).unwrap();
            let options = Options::new(&ini);
            if azure_kind { azure(&options) } else { gcs(&options) }.err().map(|error| error.to_string())
        };
        assert_eq!(open("root = c\naccount = a", true).unwrap(), "azureblob: no authentication method configured");
        assert_eq!(open("root = c\naccount = a\nkey = a2V5", true), None);
        assert_eq!(open("root = c\nsas_url = https://a.blob.core.windows.net/c?sv=1&sig=x", true), None);
        assert!(open("account = a\nkey = a2V5", true).unwrap().contains("root must name a container"));
        assert!(open("root = b", false).unwrap().contains("no authentication"));
        assert_eq!(open("root = b\nanonymous = true", false), None);
    }
}
