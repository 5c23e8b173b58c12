//! S3 and its relatives: the contract's keys as options of the back end.

mod address;
mod credentials;
mod keys;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};
use opendal::services::S3;
use opendal::{HttpTransporter, Operator};
use reqsign_aws_v4::RequestSigner;
use reqsign_core::{Context, ProvideCredentialChain, Signer};

use self::address::{REGION, bucket, endpoint, lists_with_v1, virtual_host};
use self::credentials::Credentials;
use super::http;
use super::leftovers::Leftovers;
use super::remote::Remote;
use super::transport::{Patience, Transport};
use super::upload::Limits;
use crate::config::value::Options;
use crate::error::{Error, Result};

pub(super) fn open(options: &Options<'_>) -> Result<Remote> {
    options.permit("s3", keys::USED, keys::IGNORED, keys::REFUSED)?;
    let chunk = options.size("chunk_size")?.unwrap_or(5 << 20);
    if chunk < 5 << 20 {
        return Err(Error::other(format!("s3: chunk size: {chunk} is less than 5Mi")));
    }
    let client = http::client(!options.bool("no_check_certificate", false)?)?;
    let transport = HttpTransporter::new(Transport::new(client.clone(), Patience::QUICK));
    let credentials = credentials::find(options, &transport)?;
    let (bucket, prefix) = bucket(options)?;
    let mut builder = S3::default()
        .bucket(bucket)
        .root(prefix)
        .region(options.text("region").unwrap_or(REGION))
        .endpoint(&endpoint(options)?)
        .disable_config_load()
        .disable_ec2_metadata();
    builder = match &credentials {
        Some(found) => builder.credential_provider_chain(ProvideCredentialChain::new().push(found.clone())),
        None => builder.skip_signature(),
    };
    if virtual_host(options)? {
        builder = builder.enable_virtual_host_style();
    }
    if lists_with_v1(options)? {
        builder = builder.disable_list_objects_v2();
    }
    if options.bool("requester_pays", false)? {
        builder = builder.enable_request_payer();
    }
    if let Some(acl) = options.text("acl") {
        builder = builder.default_acl(acl);
    }
    builder = encrypted(builder.default_storage_class(options.text("storage_class").unwrap_or_default()), options)?;
    let operator = Operator::new(builder).map_err(|error| Error::other(format!("s3: {error}")))?;
    let leftovers = leftovers(options, client.clone(), credentials)?;
    Ok(Remote::new(&operator, &client, Limits::S3).with_leftovers(leftovers))
}

/// Encryption by the server: with its own keys, or with one that every request brings.
fn encrypted(builder: S3, options: &Options<'_>) -> Result<S3> {
    let builder = builder
        .server_side_encryption(options.text("server_side_encryption").unwrap_or_default())
        .server_side_encryption_aws_kms_key_id(options.text("sse_kms_key_id").unwrap_or_default());
    let Some((key, md5)) = customer_key(options)? else { return Ok(builder) };
    Ok(builder
        .server_side_encryption_customer_algorithm(options.text("sse_customer_algorithm").unwrap_or("AES256"))
        .server_side_encryption_customer_key(&key)
        .server_side_encryption_customer_key_md5(&md5))
}

/// The customer's key and its MD5, both in base64.
fn customer_key(options: &Options<'_>) -> Result<Option<(String, String)>> {
    let key = match (options.text("sse_customer_key"), options.text("sse_customer_key_base64")) {
        (None, None) if options.text("sse_customer_algorithm").or(options.text("sse_customer_key_md5")).is_some() => {
            return Err(Error::other("s3: sse_customer_algorithm and sse_customer_key_md5 need sse_customer_key"));
        }
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => {
            return Err(Error::other("s3: only one of sse_customer_key and sse_customer_key_base64 can be given"));
        }
        (Some(raw), None) => raw.as_bytes().to_vec(),
        // The text itself is not shown: it is a key.
        (None, Some(text)) => {
            STANDARD.decode(text).map_err(|_| Error::other("s3: sse_customer_key_base64 is not base64"))?
        }
    };
    let md5 = options.text("sse_customer_key_md5").map(str::to_owned);
    Ok(Some((STANDARD.encode(&key), md5.unwrap_or_else(|| STANDARD.encode(Md5::digest(&key))))))
}

/// What finds unfinished uploads.
fn leftovers(options: &Options<'_>, client: reqwest::Client, credentials: Option<Credentials>) -> Result<Leftovers> {
    let (bucket, prefix) = bucket(options)?;
    let endpoint = endpoint(options)?;
    let address = match endpoint.split_once("://") {
        Some((scheme, host)) if virtual_host(options)? => format!("{scheme}://{bucket}.{host}"),
        _ => format!("{endpoint}/{bucket}"),
    };
    let request = RequestSigner::new("s3", options.text("region").unwrap_or(REGION));
    let signer = credentials.map(|found| Signer::new(Context::new(), found, request));
    Ok(Leftovers::new(client, signer, address, prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ini::Ini;

    fn ini(lines: &str) -> Ini {
        Ini::parse(&format!("[storage]\ntype = s3\n{lines}")).unwrap()
    }

    #[test]
    fn mistakes_are_named() {
        for (lines, text) in [
            ("root = b\naccess_key_id = a", "secret_access_key not found"),
            ("root = b\nsecret_access_key = a", "access_key_id not found"),
            ("endpoint = x", "s3: root must name a bucket, optionally followed by /prefix"),
            ("root = b\nchunk_size = 1Mi", "s3: chunk size: 1048576 is less than 5Mi"),
            ("root = b\nv2_auth = true", "s3: v2_auth cannot be used: signatures of version 2 are not made any more"),
            ("root = b\nsse_customer_key_base64 = %", "s3: sse_customer_key_base64 is not base64"),
        ] {
            let ini = ini(lines);
            let error = open(&Options::new(&ini)).err().unwrap();
            assert_eq!(error.to_string(), text);
        }
        let ini = ini("root = b\nsecret_acess_key = typo");
        let error = open(&Options::new(&ini)).err().unwrap();
        assert!(error.to_string().starts_with("unknown key \"secret_acess_key\""), "{error}");
    }
    #[test]
    fn known_keys_never_stand_in_the_way_unless_they_are_refused() {
        for key in keys::IGNORED {
            open(&Options::new(&ini(&format!("root = b\n{key} = true"))))
                .unwrap_or_else(|error| panic!("{key}: {error}"));
        }
        for (key, why) in keys::REFUSED {
            let error = open(&Options::new(&ini(&format!("root = b\n{key} = true")))).err().unwrap().to_string();
            assert_eq!(error, format!("s3: {key} cannot be used: {why}"));
            open(&Options::new(&ini(&format!("root = b\n{key} = false")))).unwrap();
        }
    }

    #[test]
    fn a_customer_key_is_told_with_its_digest() {
        let told = |lines: &str| customer_key(&Options::new(&ini(lines)));
        // openssl: printf %s KEY | base64, and printf %s KEY | openssl md5 -binary | base64.
        let expected =
            Some(("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=".to_owned(), "KYvwGXoFFJ42a2u2GDWhwQ==".to_owned()));
        assert_eq!(told("sse_customer_key = 01234567890123456789012345678901").unwrap(), expected);
        let encoded = "sse_customer_key_base64 = MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
        assert_eq!(told(encoded).unwrap(), expected);
        assert_eq!(told("").unwrap(), None);
        assert!(told(&format!("{encoded}\nsse_customer_key = x")).is_err());
        assert!(told("sse_customer_algorithm = AES256").is_err());
    }
}
