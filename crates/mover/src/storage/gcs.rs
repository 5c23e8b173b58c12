//! Google Cloud Storage: the contract's keys as options of the back end.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use opendal::Operator;
use opendal::services::Gcs;

use super::http;
use super::remote::Remote;
use super::upload::Limits;
use crate::config::value::Options;
use crate::error::{Error, Result};

/// Keys that mean something here.
const USED: &[&str] = &[
    "service_account_file",
    "service_account_credentials",
    "access_token",
    "anonymous",
    "env_auth",
    "object_acl",
    "bucket_policy_only",
    "storage_class",
    "endpoint",
];
/// Keys that may say what they like: what is stored, read and listed stays the same.
const IGNORED: &[&str] = &[
    // Buckets are never made or listed here: a missing one is an error that says so.
    "no_check_bucket",
    "project_number",
    "location",
    "bucket_acl",
    // How an upload is cut into parts is decided here.
    "chunk_size",
    // Objects that nobody but the reference looks at, and letters that no name of a backup has.
    "directory_markers",
    "encoding",
];

const LOGIN: &str = "nobody is here to log in: use a service account, access_token, or env_auth";

/// Keys whose wish is not fulfilled here, so that going on would do something else.
const REFUSED: &[(&str, &str)] = &[
    ("user_project", "buckets whose readers pay are not supported"),
    ("decompress", "objects come back as they are stored: use pull -d"),
    ("client_id", LOGIN),
    ("client_secret", LOGIN),
    ("client_credentials", LOGIN),
    ("token", LOGIN),
    ("auth_url", LOGIN),
    ("token_url", LOGIN),
];

pub(super) fn open(options: &Options<'_>) -> Result<Remote> {
    const KIND: &str = "google cloud storage";
    options.permit(KIND, USED, IGNORED, REFUSED)?;
    let (bucket, prefix) = options.container(KIND)?;
    let mut builder = Gcs::default()
        .bucket(bucket)
        .root(prefix)
        .default_storage_class(options.text("storage_class").unwrap_or_default());
    // A bucket with one policy for all refuses requests that say who may read an object.
    if !options.bool("bucket_policy_only", false)? {
        builder = builder.predefined_acl(options.text("object_acl").unwrap_or_default());
    }
    if let Some(endpoint) = options.text("endpoint") {
        builder = builder.endpoint(&address(endpoint));
    }
    let own = |builder: Gcs| builder.disable_vm_metadata().disable_config_load();
    if let Some(json) = options.text("service_account_credentials") {
        builder = own(builder.credential(&STANDARD.encode(json)));
    } else if let Some(path) = options.text("service_account_file") {
        builder = own(builder.credential_path(path));
    } else if let Some(token) = options.text("access_token") {
        builder = own(builder.token(token.to_owned()));
    } else if options.bool("anonymous", false)? {
        builder = own(builder.skip_signature());
    } else if !options.bool("env_auth", false)? {
        return Err(Error::other("google cloud storage: no authentication method configured"));
    }
    let client = http::client(!options.bool("no_check_certificate", false)?)?;
    let operator = Operator::new(builder).map_err(|error| Error::other(format!("{KIND}: {error}")))?;
    Ok(Remote::new(&operator, &client, Limits::GCS))
}

/// A host gets its scheme, and an address of the JSON API becomes that of the service.
fn address(endpoint: &str) -> String {
    let endpoint = endpoint.trim_end_matches('/').trim_end_matches("/storage/v1");
    if endpoint.starts_with("http") { endpoint.to_owned() } else { format!("https://{endpoint}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ini::Ini;

    fn error(lines: &str) -> Option<String> {
        let ini = Ini::parse(&format!("[storage]\ntype = gcs\n{lines}")).unwrap();
        open(&Options::new(&ini)).err().map(|error| error.to_string())
    }

    #[test]
    fn authentication_is_asked_for() {
        assert!(error("root = b").unwrap().contains("no authentication"));
        for way in ["anonymous = true", "env_auth = true", "access_token = x", "service_account_file = /nowhere"] {
            assert_eq!(error(&format!("root = b\n{way}")), None, "{way}");
        }
        assert!(error("anonymous = true").unwrap().contains("root must name a container"));
    }

    #[test]
    fn known_keys_never_stand_in_the_way_unless_they_are_refused() {
        for key in IGNORED {
            assert_eq!(error(&format!("root = b\nanonymous = true\n{key} = 1")), None, "{key}");
        }
        for (key, why) in REFUSED {
            let told = error(&format!("root = b\nanonymous = true\n{key} = x")).unwrap();
            assert_eq!(told, format!("google cloud storage: {key} cannot be used: {why}"));
        }
        assert!(error("root = b\nanonymus = true").unwrap().starts_with("unknown key \"anonymus\""));
    }

    #[test]
    fn endpoints_may_be_hosts_and_addresses_of_the_json_api() {
        for (endpoint, expected) in [
            ("storage.me-central2.rep.googleapis.com", "https://storage.me-central2.rep.googleapis.com"),
            ("http://127.0.0.1:4443/storage/v1/", "http://127.0.0.1:4443"),
        ] {
            assert_eq!(address(endpoint), expected);
        }
    }
}
