//! Who asks: keys of the configuration, of the environment, of files, or lent by a service for a while. Those that are lent
//! are asked for again two minutes before they end, in the middle of a transfer too.

use std::fmt::{self, Debug};
use std::sync::Arc;

use bytes::Bytes;
use hyper::{Request, Response, Uri};
use opendal::HttpTransporter;
use reqsign_aws_v4::{
    AssumeRoleCredentialProvider, AssumeRoleWithWebIdentityCredentialProvider, Credential, ECSCredentialProvider,
    EnvCredentialProvider, IMDSv2CredentialProvider, ProfileCredentialProvider, RequestSigner,
    StaticCredentialProvider,
};
use reqsign_core::{Context, HttpSend, OsEnv, ProvideCredential, ProvideCredentialDyn, Signer};
use reqsign_file_read_tokio::TokioFileRead;

use super::address::REGION;
use crate::config::env;
use crate::config::value::Options;
use crate::error::{Error, Result};
use crate::output;

type Dynamic = dyn ProvideCredentialDyn<Credential = Credential>;

/// Where the keys come from. Clones ask the same sources, each for itself.
#[derive(Clone)]
pub(super) struct Credentials {
    /// In this order: the first that has keys, or should have and fails, decides.
    sources: Vec<Arc<Dynamic>>,
    /// Address of another STS than that of AWS.
    sts: Option<Uri>,
}

/// What the configuration says. None means that requests are not signed.
///
/// # Errors
/// When only one half of a key pair is given, or a role's settings make no sense.
pub(super) fn find(options: &Options<'_>, http: &HttpTransporter) -> Result<Option<Credentials>> {
    let from_environment = options.bool("env_auth", false)?;
    let sources: Vec<Arc<Dynamic>> = match (options.text("access_key_id"), options.text("secret_access_key")) {
        (Some(key), Some(secret)) => {
            let fixed = StaticCredentialProvider::new(key, secret);
            vec![match options.text("session_token") {
                Some(token) => Arc::new(fixed.with_session_token(token)),
                None => Arc::new(fixed),
            }]
        }
        (Some(_), None) => return Err(Error::other("secret_access_key not found")),
        (None, Some(_)) => return Err(Error::other("access_key_id not found")),
        (None, None) if from_environment => surroundings(options),
        (None, None) => return Ok(None),
    };
    let found = Credentials { sources, sts: sts(options)? };
    match options.text("role_arn") {
        Some(role) => found.in_role(role, options, http).map(Some),
        None => Ok(Some(found)),
    }
}

/// What a pod or a machine has, in the order of AWS's own libraries. A profile that was asked for comes first.
fn surroundings(options: &Options<'_>) -> Vec<Arc<Dynamic>> {
    let mut profile = ProfileCredentialProvider::new();
    if let Some(name) = options.text("profile") {
        profile = profile.with_profile(name);
    }
    if let Some(path) = options.text("shared_credentials_file") {
        profile = profile.with_credentials_file(path);
    }
    let mut web_identity = AssumeRoleWithWebIdentityCredentialProvider::new();
    if let Some(region) = options.text("region") {
        web_identity = web_identity.with_region(region.to_owned()).with_regional_sts_endpoint();
    }
    let mut sources: Vec<Arc<Dynamic>> = vec![
        Arc::new(EnvCredentialProvider::new()),
        Arc::new(web_identity),
        Arc::new(profile.clone()),
        Arc::new(ECSCredentialProvider::new()),
        Arc::new(IMDSv2CredentialProvider::new()),
    ];
    if options.text("profile").or(options.text("shared_credentials_file")).is_some() {
        sources.insert(0, Arc::new(profile));
    }
    sources
}

/// An STS other than that of AWS.
fn sts(options: &Options<'_>) -> Result<Option<Uri>> {
    let Some(address) = options.text("sts_endpoint").map(str::to_owned).or_else(|| env("AWS_ENDPOINT_URL_STS")) else {
        return Ok(None);
    };
    let address = if address.starts_with("http") { address } else { format!("https://{address}") };
    let uri = address.parse::<Uri>().ok().filter(|uri| uri.authority().is_some());
    uri.map(Some).ok_or_else(|| Error::other(format!("s3: sts_endpoint {address:?} is no address")))
}

impl Credentials {
    /// The same, as somebody else: these keys are only used to ask STS for those of a role.
    fn in_role(self, role: &str, options: &Options<'_>, http: &HttpTransporter) -> Result<Self> {
        let region = options.text("region").unwrap_or(REGION);
        let context = Context::new().with_file_read(TokioFileRead).with_env(OsEnv).with_http_send(http.clone());
        let sts = self.sts.clone();
        let signer = Signer::new(context, self, RequestSigner::new("sts", region));
        let mut assumed = AssumeRoleCredentialProvider::new(role.to_owned(), signer)
            .with_region(region.to_owned())
            .with_regional_sts_endpoint()
            .with_role_session_name(options.text("role_session_name").unwrap_or("kbbackup").to_owned());
        if let Some(id) = options.text("role_external_id") {
            assumed = assumed.with_external_id(id.to_owned());
        }
        if let Some(duration) = options.duration("role_session_duration")? {
            let seconds = duration.as_secs();
            let wrong = || Error::other(format!("s3: role_session_duration: {seconds} seconds are not 900 to 43200"));
            let seconds = u32::try_from(seconds).ok().filter(|seconds| (900..=43_200).contains(seconds));
            assumed = assumed.with_duration_seconds(seconds.ok_or_else(wrong)?);
        }
        Ok(Self { sources: vec![Arc::new(assumed)], sts })
    }
}

impl Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

impl ProvideCredential for Credentials {
    type Credential = Credential;

    async fn provide_credential(&self, context: &Context) -> reqsign_core::Result<Option<Credential>> {
        let context = match &self.sts {
            Some(to) => context.clone().with_http_send(Redirected { inner: context.clone(), to: to.clone() }),
            None => context.clone(),
        };
        for source in &self.sources {
            match source.provide_credential_dyn(&context).await {
                Ok(None) => {}
                Ok(found) => return Ok(found),
                Err(error) => {
                    // Who asked only hears that there are no keys.
                    output::note(&format!("ERROR : credentials: {error}"));
                    return Err(error);
                }
            }
        }
        Ok(None)
    }
}

/// Sends what is meant for AWS's STS to another one. A signed request keeps the host that it was signed for.
#[derive(Debug)]
struct Redirected {
    inner: Context,
    to: Uri,
}

impl HttpSend for Redirected {
    async fn http_send(&self, mut request: Request<Bytes>) -> reqsign_core::Result<Response<Bytes>> {
        if request.uri().host().is_some_and(|host| host.starts_with("sts.")) {
            let mut parts = std::mem::take(request.uri_mut()).into_parts();
            parts.scheme = self.to.scheme().cloned();
            parts.authority = self.to.authority().cloned();
            *request.uri_mut() = Uri::from_parts(parts)
                .map_err(|error| reqsign_core::Error::config_invalid(format!("sts_endpoint: {error}")))?;
        }
        self.inner.http_send(request).await
    }
}
