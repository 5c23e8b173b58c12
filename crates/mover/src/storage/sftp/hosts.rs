//! Which keys a server may have: a `known_hosts` file as OpenSSH reads it.

use std::path::Path;

use ring::hmac;
use russh::keys::ssh_key::known_hosts::{Entry, HostPatterns, Marker};
use russh::keys::{Algorithm, HashAlg, PublicKey};

use crate::error::{Cause, Error, Result};
use crate::glob;

/// The keys of one server.
#[derive(Clone, Debug)]
pub(super) struct KnownHost {
    /// As the file has it: `host`, or `[host]:port` where the port is not 22.
    name: String,
    file: String,
    keys: Vec<PublicKey>,
    revoked: Vec<PublicKey>,
}

impl KnownHost {
    /// # Errors
    /// When the file cannot be read, or has no key of this server.
    pub(super) fn read(file: &Path, host: &str, port: u16) -> Result<Self> {
        let within = "sftp: known_hosts_file";
        let text = std::fs::read(file).map_err(|error| Error::file("open", file, &error).within(within))?;
        let known = Self::find(&String::from_utf8_lossy(&text), file, host, port);
        if known.keys.is_empty() && known.revoked.is_empty() {
            return Err(Error::new(
                Cause::Tls,
                format!(
                    "sftp: the host {} is not in known_hosts_file {}: add the line that `ssh-keyscan -p {port} {host}` \
                     gives, once it is sure that the key is the server's",
                    known.name, known.file
                ),
            ));
        }
        Ok(known)
    }

    fn find(text: &str, file: &Path, host: &str, port: u16) -> Self {
        let host = host.trim_matches(['[', ']']).to_lowercase();
        let name = if port == 22 { host } else { format!("[{host}]:{port}") };
        let mut known = Self { name, file: file.display().to_string(), keys: Vec::new(), revoked: Vec::new() };
        for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
            let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
            // What cannot be read names no key, as with OpenSSH.
            let Ok(entry) = line.parse::<Entry>() else { continue };
            if !names(entry.host_patterns(), &known.name) {
                continue;
            }
            match entry.marker() {
                None => known.keys.push(entry.public_key().clone()),
                Some(Marker::Revoked) => known.revoked.push(entry.public_key().clone()),
                // Host certificates are not asked for.
                Some(Marker::CertAuthority) => {}
            }
        }
        known
    }

    /// Algorithms with those first that the server has a known key for: it may have other keys too.
    pub(super) fn preferred(&self, algorithms: &[Algorithm]) -> Vec<Algorithm> {
        let is_known = |algorithm: &Algorithm| self.keys.iter().any(|key| same_kind(&key.algorithm(), algorithm));
        let (mut known, other): (Vec<_>, Vec<_>) = algorithms.iter().cloned().partition(is_known);
        known.extend(other);
        known
    }

    /// # Errors
    /// When the key is another than the known ones.
    pub(super) fn check(&self, key: &PublicKey) -> Result<()> {
        let is = |known: &PublicKey| known.key_data() == key.key_data();
        let print = key.fingerprint(HashAlg::Sha256);
        let wrong = |why: String| {
            Err(Error::new(Cause::Tls, format!("sftp: the host key of {} {why} ({}): {print}", self.name, self.file)))
        };
        if self.revoked.iter().any(is) {
            return wrong("is marked as revoked in known_hosts_file".to_owned());
        }
        if self.keys.iter().any(is) {
            return Ok(());
        }
        wrong("is not the one in known_hosts_file: somebody may be listening, or the server has a new key".to_owned())
    }
}

fn same_kind(left: &Algorithm, right: &Algorithm) -> bool {
    let is_rsa = |algorithm: &Algorithm| matches!(algorithm, Algorithm::Rsa { .. });
    left == right || is_rsa(left) && is_rsa(right)
}

/// Whether patterns, or a hash, mean a host.
fn names(patterns: &HostPatterns, name: &str) -> bool {
    match patterns {
        HostPatterns::HashedName { salt, hash } => {
            let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, salt);
            hmac::verify(&key, name.as_bytes(), hash).is_ok()
        }
        HostPatterns::Patterns(patterns) => {
            let (refused, named): (Vec<&String>, Vec<&String>) = patterns.iter().partition(|p| p.starts_with('!'));
            let is = |pattern: &str| glob::matches(&literal(pattern), name);
            named.iter().any(|pattern| is(pattern)) && !refused.iter().any(|pattern| is(&pattern[1..]))
        }
    }
}

/// Only `*` and `?` mean anything here.
fn literal(pattern: &str) -> String {
    pattern.to_lowercase().replace('\\', "\\\\").replace('[', "\\[")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHt88tyXQKJugkdV8dZbXZ97hQPo6ac6eV5fW1jC/X6f";

    fn key(text: &str) -> PublicKey {
        text.parse().unwrap()
    }

    fn find(text: &str, host: &str, port: u16) -> KnownHost {
        KnownHost::find(text, Path::new("/hosts"), host, port)
    }

    #[test]
    fn hosts_are_found_by_name_pattern_port_and_hash() {
        // Made by ssh-keygen -H.
        let hashed = "|1|v7mDfWJo+a8Y8+AvntVqji9rI0s=|OV/yb43CLbVmA3JgT9O3kzVzheo=";
        for (names, host, port, found) in [
            ("h,10.0.0.1", "h", 22, true),
            ("h,10.0.0.1", "H", 22, true),
            ("h", "h", 2222, false),
            ("[h]:2222", "h", 2222, true),
            ("*.lan", "a.lan", 22, true),
            ("*.lan,!a.lan", "a.lan", 22, false),
            ("[*.lan]:22??", "a.lan", 2222, true),
            (hashed, "backup.example", 22, true),
            (hashed, "backup.example", 23, false),
        ] {
            let known = find(&format!("# {OTHER}\nbad line\n{names}\t{ONE} comment\n"), host, port);
            assert_eq!(known.keys.len(), usize::from(found), "{names} {host} {port}");
        }
    }

    #[test]
    fn a_key_is_one_of_the_known_or_refused() {
        let known = find(&format!("h {ONE}\n"), "h", 22);
        known.check(&key(ONE)).unwrap();
        let error = known.check(&key(OTHER)).unwrap_err();
        assert!(error.is(Cause::Tls) && error.text.contains("is not the one in known_hosts_file"), "{error}");
        assert!(error.text.contains("SHA256:"), "{error}");
        let revoked = find(&format!("h {ONE}\n@revoked * {ONE}\n"), "h", 22);
        assert!(revoked.check(&key(ONE)).unwrap_err().text.contains("revoked"));
    }

    #[test]
    fn algorithms_of_known_keys_come_first() {
        let known = find(&format!("h {ONE}\n"), "h", 22);
        let rsa = Algorithm::Rsa { hash: Some(HashAlg::Sha512) };
        assert_eq!(known.preferred(&[rsa.clone(), Algorithm::Ed25519]), [Algorithm::Ed25519, rsa]);
    }
}
