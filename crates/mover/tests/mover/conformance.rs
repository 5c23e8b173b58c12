//! One list of properties, asserted of every back end that there is a server for.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::common::servers::{Certificate, Server, Tls};
use crate::properties::PROPERTIES;

/// Asserts every property, each of a repository of its own, and names those that do not hold.
fn conforms(server: &Server) {
    conforms_but_for(&[], server);
}

/// The same without properties that this server's own gaps make impossible.
fn conforms_but_for(gaps: &[&str], server: &Server) {
    let mut broken = Vec::new();
    for (name, property) in PROPERTIES.iter().filter(|(name, _)| !gaps.contains(name)) {
        let repository = server.repository(name);
        let began = std::time::Instant::now();
        if catch_unwind(AssertUnwindSafe(|| property(&repository))).is_err() {
            broken.push(*name);
        }
        println!("{name}: {:?}", began.elapsed());
    }
    assert!(broken.is_empty(), "these properties do not hold: {}", broken.join(", "));
}

#[test]
fn local() {
    conforms(&Server::local());
}

#[test]
fn serve() {
    conforms(&Server::serve());
}

#[test]
#[ignore = "needs a server: cargo xtask test stores"]
fn versitygw() {
    conforms(&Server::versitygw(false));
}

#[test]
#[ignore = "needs a server: cargo xtask test stores"]
fn versitygw_with_tls() {
    let server = Server::versitygw(true);
    conforms(&server);
    let repository = server.repository("trust");
    let strange = Certificate::new();
    for certificates in [None, Some(strange.cert.as_str())] {
        let error = repository.run_trusting(certificates, "", &["check"]).fails();
        assert!(error.contains("invalid peer certificate"), "{error}");
        repository.run_trusting(certificates, "no_check_certificate = true\n", &["check"]).succeeds();
    }
    let error = repository.run_trusting(Some("/no/such/file"), "", &["check"]).fails();
    assert!(error.contains("SSL_CERT_FILE"), "{error}");
}

#[test]
#[ignore = "needs a server: cargo xtask test stores"]
fn azurite() {
    conforms(&Server::azurite());
}

#[test]
#[ignore = "needs a server: cargo xtask test stores"]
fn fake_gcs() {
    // It knows no uploads in parts, and of a batch of deletions only those whose heads end in an empty line. Google does.
    let gaps = ["sizes", "amount", "removing", "overwriting", "stopped", "killed", "created once", "backup"];
    conforms_but_for(&gaps, &Server::fake_gcs());
}

#[test]
#[ignore = "needs a server: cargo xtask test stores"]
fn rclone_s3() {
    conforms(&Server::rclone_s3());
}

#[test]
#[ignore = "needs a server: cargo xtask test stores"]
fn rclone_ftp() {
    conforms(&Server::rclone_ftp(""));
}

/// As old servers are: listings for people, addresses in the answer to PASV, and one connection.
#[test]
#[ignore = "needs a server: cargo xtask test stores"]
fn rclone_ftp_the_old_way() {
    conforms(&Server::rclone_ftp("disable_mlsd = true\ndisable_epsv = true\nconcurrency = 1\n"));
}

#[test]
#[ignore = "needs a server: cargo xtask test stores"]
fn vsftpd() {
    conforms(&Server::vsftpd(Tls::No));
}

#[test]
#[ignore = "needs a server: cargo xtask test stores"]
fn vsftpd_with_explicit_tls() {
    conforms(&Server::vsftpd(Tls::Explicit));
}

#[test]
#[ignore = "needs a server: cargo xtask test stores"]
fn vsftpd_with_implicit_tls() {
    conforms(&Server::vsftpd(Tls::Implicit));
}

#[test]
#[ignore = "needs a server: cargo xtask test stores"]
fn sshd() {
    conforms(&Server::sshd());
}

#[test]
#[ignore = "needs a server: cargo xtask test stores"]
fn rclone_sftp() {
    conforms(&Server::rclone_sftp());
}

#[test]
#[ignore = "needs a server: cargo xtask test stores"]
fn rclone_webdav() {
    conforms(&Server::rclone_webdav(false));
}

#[test]
#[ignore = "needs a server: cargo xtask test stores"]
fn rclone_webdav_with_tls() {
    conforms(&Server::rclone_webdav(true));
}
