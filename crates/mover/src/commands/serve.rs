//! `serve`: the embedded S3 endpoint.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::Context;
use crate::args::{Flag, Takes, flag};
use crate::config::env;
use crate::error::{Error, Result};
use crate::output;
use crate::serve::{self, Settings};

pub(super) const FLAGS: &[Flag] = &[
    flag("root", None, Takes::Text, "directory that holds the buckets"),
    flag("listen", None, Takes::Text, "address (default 0.0.0.0:9000)"),
    flag("health", None, Takes::Text, "address that answers probes"),
    flag("bucket", None, Takes::Text, "bucket to make when it is missing (repeatable)"),
    flag("credentials", None, Takes::Text, "directory with the files accessKeyId and secretAccessKey"),
];
/// Credentials come from files or from these, never from arguments, which other processes can read.
const ACCESS_KEY: &str = "KBBACKUP_SERVE_ACCESS_KEY_ID";
const SECRET_KEY: &str = "KBBACKUP_SERVE_SECRET_ACCESS_KEY";

pub(super) async fn run(context: Context) -> Result<()> {
    context.args.exactly::<0>()?;
    let args = &context.args;
    let address = |name: &str, text: &str| -> Result<SocketAddr> {
        text.parse()
            .map_err(|_| Error::other(format!("--{name} {text:?} is not ADDRESS:PORT, for example 0.0.0.0:9000")))
    };
    let (access_key, secret_key) = credentials(args.text("credentials"))?;
    let settings = Settings {
        root: PathBuf::from(args.text("root").ok_or_else(|| Error::other("--root is missing"))?),
        listen: address("listen", args.text("listen").unwrap_or("0.0.0.0:9000"))?,
        health: args.text("health").map(|text| address("health", text)).transpose()?,
        access_key,
        secret_key,
        buckets: args.all("bucket").map(str::to_owned).collect(),
    };
    serve::run(settings, |address| output::note(&format!("NOTICE: serving on {address}"))).await
}

fn credentials(dir: Option<&str>) -> Result<(String, String)> {
    let read = |file: &str, name: &str| match dir {
        Some(dir) => {
            let path = Path::new(dir).join(file);
            let text = std::fs::read_to_string(&path).map_err(|error| Error::file("open", &path, &error))?;
            Ok(text.trim().to_owned())
        }
        None => env(name).ok_or_else(|| Error::other(format!("{name} is not set, and --credentials is missing"))),
    };
    let (access, secret) = (read("accessKeyId", ACCESS_KEY)?, read("secretAccessKey", SECRET_KEY)?);
    if access.is_empty() || secret.len() < 8 {
        return Err(Error::other("the access key is empty or the secret key has fewer than 8 characters"));
    }
    Ok((access, secret))
}
