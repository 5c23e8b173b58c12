//! S3 and its relatives: the contract's keys as options of the back end.

use opendal::Operator;
use opendal::services::S3;

use reqsign_aws_v4::{Credential, DefaultCredentialProvider, RequestSigner, StaticCredentialProvider};
use reqsign_core::{Context, Signer};

use super::http;
use super::leftovers::Leftovers;
use super::remote::Remote;
use super::upload::Limits;
use crate::config::value::Options;
use crate::error::{Error, Result};

/// Keys that mean something here.
const USED: &[&str] = &[
    "provider",
    "env_auth",
    "access_key_id",
    "secret_access_key",
    "session_token",
    "region",
    "endpoint",
    "force_path_style",
    "chunk_size",
    "acl",
    "storage_class",
    "server_side_encryption",
    "sse_kms_key_id",
    "sse_customer_algorithm",
    "sse_customer_key_base64",
    "sse_customer_key_md5",
    "list_version",
    "requester_pays",
    "profile",
    "role_arn",
];
/// Keys whose effect we do not have or need; their meaning is not changed by being ignored.
const IGNORED: &[&str] = &[
    "no_check_bucket",
    "use_already_exists",
    "upload_concurrency",
    "upload_cutoff",
    "copy_cutoff",
    "max_upload_parts",
    "list_chunk",
    "list_url_encode",
    "use_multipart_etag",
    "use_unsigned_payload",
    "no_head",
    "no_head_object",
    "disable_checksum",
    "leave_parts_on_error",
    "bucket_acl",
    "location_constraint",
    "disable_http2",
    "encoding",
    "memory_pool_flush_time",
    "memory_pool_use_mmap",
    "directory_markers",
    "download_url",
    "use_accept_encoding_gzip",
    "decompress",
    "might_gzip",
    "sts_endpoint",
    "use_multipart_uploads",
    "use_presigned_request",
];

pub(super) fn open(options: &Options<'_>) -> Result<Remote> {
    let known: Vec<&str> = USED.iter().chain(IGNORED).copied().collect();
    options.refuse_unknown("s3", &known)?;
    let chunk = options.size("chunk_size")?.unwrap_or(5 << 20);
    if chunk < 5 << 20 {
        return Err(Error::other(format!("s3: chunk size: {chunk} is less than 5Mi")));
    }
    let (bucket, prefix) = bucket(options)?;
    let provider = options.text("provider").unwrap_or("Other");
    let mut builder = S3::default().bucket(bucket).root(prefix).region(options.text("region").unwrap_or("us-east-1"));
    if let Some(endpoint) = endpoint(provider, options) {
        builder = builder.endpoint(&endpoint);
    }
    if virtual_host(provider, options)? {
        builder = builder.enable_virtual_host_style();
    }
    builder = credentials(builder, options)?;
    if lists_with_v1(provider, options)? {
        builder = builder.disable_list_objects_v2();
    }
    if options.bool("requester_pays", false)? {
        builder = builder.enable_request_payer();
    }
    if let Some(acl) = options.text("acl") {
        builder = builder.default_acl(acl);
    }
    builder = builder
        .default_storage_class(options.text("storage_class").unwrap_or_default())
        .server_side_encryption(options.text("server_side_encryption").unwrap_or_default())
        .server_side_encryption_aws_kms_key_id(options.text("sse_kms_key_id").unwrap_or_default())
        .server_side_encryption_customer_algorithm(options.text("sse_customer_algorithm").unwrap_or_default())
        .server_side_encryption_customer_key(options.text("sse_customer_key_base64").unwrap_or_default())
        .server_side_encryption_customer_key_md5(options.text("sse_customer_key_md5").unwrap_or_default());
    let client = http::client(!options.bool("no_check_certificate", false)?)?;
    let operator = Operator::new(builder).map_err(|error| Error::other(format!("s3: {error}")))?;
    let remote = Remote::new(&operator, &client, Limits::S3);
    Ok(match leftovers(provider, options, client)? {
        Some(leftovers) => remote.with_leftovers(leftovers),
        None => remote,
    })
}

/// What finds unfinished uploads; none under an assumed role, whose credentials only OpenDAL has.
fn leftovers(provider: &str, options: &Options<'_>, client: reqwest::Client) -> Result<Option<Leftovers>> {
    let (bucket, prefix) = bucket(options)?;
    let Some(endpoint) = endpoint(provider, options) else { return Ok(None) };
    let address = match endpoint.split_once("://") {
        Some((scheme, host)) if virtual_host(provider, options)? => format!("{scheme}://{bucket}.{host}"),
        _ => format!("{endpoint}/{bucket}"),
    };
    let request = RequestSigner::new("s3", options.text("region").unwrap_or("us-east-1"));
    let signer: Option<Signer<Credential>> = match (options.text("access_key_id"), options.text("secret_access_key")) {
        _ if options.text("role_arn").is_some() => return Ok(None),
        (Some(key), Some(secret)) => {
            let fixed = StaticCredentialProvider::new(key, secret);
            let fixed = match options.text("session_token") {
                Some(token) => fixed.with_session_token(token),
                None => fixed,
            };
            Some(Signer::new(Context::new(), fixed, request))
        }
        _ if options.bool("env_auth", false)? => {
            let found = match options.text("profile") {
                Some(profile) => DefaultCredentialProvider::builder().with_profile(profile).build(),
                None => DefaultCredentialProvider::builder().build(),
            };
            Some(Signer::new(Context::new(), found, request))
        }
        _ => None,
    };
    Ok(Some(Leftovers::new(client, signer, address, prefix)))
}

/// Bucket and prefix of `root`.
fn bucket<'a>(options: &Options<'a>) -> Result<(&'a str, &'a str)> {
    let root = options.text("root").unwrap_or_default().trim_matches('/');
    let (bucket, prefix) = root.split_once('/').unwrap_or((root, ""));
    if bucket.is_empty() {
        return Err(Error::other("s3: root must name a bucket, optionally followed by /prefix"));
    }
    Ok((bucket, prefix))
}

/// The endpoint, with the defaults of providers that have one per region.
fn endpoint(provider: &str, options: &Options<'_>) -> Option<String> {
    let region = options.text("region");
    let endpoint = options.text("endpoint").map(str::to_owned).or_else(|| match provider {
        "Alibaba" => Some(format!("oss-{}.aliyuncs.com", region?)),
        "TencentCOS" => Some(format!("cos.{}.myqcloud.com", region?)),
        "HuaweiOBS" => Some(format!("obs.{}.myhuaweicloud.com", region?)),
        "GCS" => Some("storage.googleapis.com".to_owned()),
        // Regions of China have a domain of their own.
        _ if region.is_some_and(|region| region.starts_with("cn-")) => Some(format!("s3.{}.amazonaws.com.cn", region?)),
        _ => region.map(|region| format!("s3.{region}.amazonaws.com")),
    })?;
    let endpoint = endpoint.trim_end_matches('/');
    Some(if endpoint.starts_with("http") { endpoint.to_owned() } else { format!("https://{endpoint}") })
}

fn virtual_host(provider: &str, options: &Options<'_>) -> Result<bool> {
    let path_style = options.bool("force_path_style", true)?;
    let bucket_has_dot = bucket(options)?.0.contains('.');
    Ok(match provider {
        // A dot in the bucket's name does not fit into a certificate, so those are addressed by path.
        "AWS" | "Alibaba" | "TencentCOS" | "HuaweiOBS" | "GCS" => !bucket_has_dot,
        _ => !path_style && !bucket_has_dot,
    })
}

fn lists_with_v1(provider: &str, options: &Options<'_>) -> Result<bool> {
    Ok(match options.text("list_version").unwrap_or("0") {
        "0" => matches!(provider, "TencentCOS" | "HuaweiOBS" | "Ceph"),
        "1" => true,
        "2" => false,
        other => return Err(Error::other(format!("s3: list_version {other:?} is none of 0, 1, 2"))),
    })
}

fn credentials(builder: S3, options: &Options<'_>) -> Result<S3> {
    let key = options.text("access_key_id");
    let secret = options.text("secret_access_key");
    let from_environment = options.bool("env_auth", false)?;
    let builder = builder.session_token(options.text("session_token").unwrap_or_default());
    let builder = builder.role_arn(options.text("role_arn").unwrap_or_default());
    match (key, secret) {
        (Some(key), Some(secret)) => {
            Ok(builder.access_key_id(key).secret_access_key(secret).disable_config_load().disable_ec2_metadata())
        }
        (Some(_), None) => Err(Error::other("secret_access_key not found")),
        (None, Some(_)) => Err(Error::other("access_key_id not found")),
        (None, None) if from_environment => Ok(builder.profile(options.text("profile").unwrap_or_default())),
        (None, None) => Ok(builder.skip_signature().disable_config_load().disable_ec2_metadata()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ini::Ini;

    fn ini(lines: &str) -> Ini {
        Ini::parse(&format!("[storage]\ntype = s3\n{lines}")).unwrap()
    }

    #[test]
    fn providers_have_their_addresses() {
        for (lines, address, by_host) in [
            ("provider = Alibaba\nregion = cn-hangzhou\nroot = b", "https://oss-cn-hangzhou.aliyuncs.com", true),
            ("provider = TencentCOS\nregion = r\nroot = b", "https://cos.r.myqcloud.com", true),
            ("provider = Minio\nendpoint = http://minio:9000/\nroot = b", "http://minio:9000", false),
            (
                "provider = Other\nendpoint = s3.example\nforce_path_style = false\nroot = b/p",
                "https://s3.example",
                true,
            ),
            (
                "provider = AWS\nregion = eu-west-1\nforce_path_style = true\nroot = b",
                "https://s3.eu-west-1.amazonaws.com",
                true,
            ),
            ("provider = AWS\nregion = eu-west-1\nroot = b.c", "https://s3.eu-west-1.amazonaws.com", false),
        ] {
            let ini = ini(lines);
            let options = Options::new(&ini);
            let provider = options.text("provider").unwrap();
            assert_eq!(endpoint(provider, &options).unwrap(), address, "{lines}");
            assert_eq!(virtual_host(provider, &options).unwrap(), by_host, "{lines}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (lines, text) in [
            ("root = b\naccess_key_id = a", "secret_access_key not found"),
            ("root = b\nsecret_access_key = a", "access_key_id not found"),
            ("endpoint = x", "s3: root must name a bucket, optionally followed by /prefix"),
            ("root = b\nchunk_size = 1Mi", "s3: chunk size: 1048576 is less than 5Mi"),
        ] {
            let ini = ini(lines);
            let error = open(&Options::new(&ini)).err().unwrap();
            assert_eq!(error.to_string(), text);
        }
        let ini = ini("root = b\nsecret_acess_key = typo");
        let error = open(&Options::new(&ini)).err().unwrap();
        assert!(error.to_string().starts_with("unknown key \"secret_acess_key\""), "{error}");
    }
}
