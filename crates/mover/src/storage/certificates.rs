//! Which certificates are trusted: the bundled ones, those of `SSL_CERT_FILE` and `SSL_CERT_DIR`, and those in `certs/`
//! beside the executable.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::config::env;
use crate::error::{Error, Result};

/// Folder of certificates beside the executable.
pub(crate) const CERTIFICATES: &str = "certs";

/// # Errors
/// When a certificate file that was asked for cannot be read.
pub(super) fn trusted() -> Result<Vec<CertificateDer<'static>>> {
    let mut certificates = webpki_root_certs::TLS_SERVER_ROOT_CERTS.to_vec();
    if let Some(file) = env("SSL_CERT_FILE") {
        certificates.extend(read_pem(Path::new(&file))?);
    }
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(CERTIFICATES)));
    let listed = env("SSL_CERT_DIR").unwrap_or_default();
    let folders = listed.split(':').filter(|path| !path.is_empty()).map(PathBuf::from).chain(beside);
    for folder in folders {
        // A missing folder holds no certificates; so does a file in it that is something else.
        for item in fs::read_dir(&folder).into_iter().flatten().flatten() {
            certificates.extend(read_pem(&item.path()).unwrap_or_default());
        }
    }
    Ok(certificates)
}

fn read_pem(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let bytes = fs::read(path).map_err(|error| Error::file("open", path, &error).within("SSL_CERT_FILE"))?;
    CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| Error::other(format!("SSL_CERT_FILE: {} holds no certificates: {error}", path.display())))
}

/// TLS for protocols other than HTTP.
///
/// # Errors
/// When a certificate file that was asked for cannot be read.
pub(crate) fn tls(check_certificate: bool, version_13: bool) -> Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let versions: &[_] =
        if version_13 { &[&rustls::version::TLS13, &rustls::version::TLS12] } else { &[&rustls::version::TLS12] };
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .map_err(|error| Error::other(format!("TLS cannot be set up: {error}")))?;
    Ok(if check_certificate {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(trusted()?);
        config.with_root_certificates(roots).with_no_client_auth()
    } else {
        config.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider))).with_no_client_auth()
    })
}

/// Accepts every certificate, for `no_check_certificate`.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
