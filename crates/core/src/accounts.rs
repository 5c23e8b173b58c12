//! Passwords of system accounts as a Backup carries them: behaviour 7.2.
//!
//! The cipher is the contract's: AES-256-GCM under a key that HKDF-SHA-256 derives from the operator's secret.

use std::collections::BTreeMap;
use std::fmt;

use aes_gcm::aead::{Aead as _, Payload};
use aes_gcm::{Aes256Gcm, KeyInit as _, Nonce};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hkdf::Hkdf;
use sha2::Sha256;

/// Bytes of a nonce. One must never serve twice under the same key.
pub const NONCE: usize = 12;

/// From component or sharding to user to sealed password: the value of annotation
/// `kubeblocks.io/encrypted-system-accounts`.
pub type Accounts = BTreeMap<String, BTreeMap<String, String>>;

/// The key of all sealed passwords of an installation.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; 32]);

/// Why a sealed password cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It was never sealed, or was cut.
    #[error("it is not base64 of a nonce and a sealed text")]
    Malformed,
    /// Another key sealed it, or somebody changed it.
    #[error("it was sealed with another DP_ENCRYPTION_KEY, or was changed since")]
    OtherKey,
    /// What was sealed is no text.
    #[error("what it holds is not UTF-8")]
    NotText,
}

impl Key {
    /// Derives the key from the setting `DP_ENCRYPTION_KEY`.
    pub fn derive(secret: &str) -> Self {
        let mut key = [0; 32];
        // 32 bytes are always within what HKDF can give (255 hashes), so there is nothing to fail.
        let derived = Hkdf::<Sha256>::new(Some(b"encryption"), secret.as_bytes()).expand(&[], &mut key);
        debug_assert!(derived.is_ok());
        Self(key)
    }

    /// Seals `plain`: base64 of nonce and ciphertext. `nonce` comes from a source of randomness. `None` only for a text
    /// beyond the cipher's 64 GiB.
    pub fn seal(&self, plain: &str, nonce: [u8; NONCE]) -> Option<String> {
        let payload = Payload { msg: plain.as_bytes(), aad: &self.0 };
        let sealed = self.cipher().encrypt(Nonce::from_slice(&nonce), payload).ok()?;
        Some(STANDARD.encode([nonce.as_slice(), &sealed].concat()))
    }

    /// Opens what [`Self::seal`], or the reference, has sealed.
    ///
    /// # Errors
    /// [`OpenError`] when it is not intact or not ours.
    pub fn open(&self, sealed: &str) -> Result<String, OpenError> {
        let bytes = STANDARD.decode(sealed.trim()).map_err(|_| OpenError::Malformed)?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE).ok_or(OpenError::Malformed)?;
        let payload = Payload { msg: sealed, aad: &self.0 };
        let plain = self.cipher().decrypt(Nonce::from_slice(nonce), payload).map_err(|_| OpenError::OtherKey)?;
        String::from_utf8(plain).map_err(|_| OpenError::NotText)
    }

    fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new(&self.0.into())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed by two other implementations (OpenSSL's and Python's).
    const VECTORS: [(&str, &str); 2] = [
        ("s3cret-pa$$", "AAECAwQFBgcICQoLel9gToo6mYYgNhGAI2ePiTp4GiHpqaVITw20"),
        ("", "AAECAwQFBgcICQoLtidCwQ//Lwl2c5ZuFGP9MQ=="),
    ];
    const NONCE_OF_VECTORS: [u8; NONCE] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];

    fn key() -> Key {
        Key::derive("kb-dp-aes256")
    }

    #[test]
    fn behaviour_7_2_the_key_is_derived_as_the_reference_does() {
        let wanted = [
            0xa4, 0x50, 0xcf, 0xf7, 0x02, 0xed, 0xe3, 0xd1, 0x47, 0x87, 0x47, 0xd3, 0x8d, 0x19, 0x98, 0xbc, 0x75, 0xbe,
            0xeb, 0x96, 0x41, 0x8d, 0x0d, 0x91, 0xec, 0x3e, 0xaf, 0x43, 0x3d, 0x0a, 0x89, 0x37,
        ];
        assert_eq!(key().0, wanted);
    }

    #[test]
    fn behaviour_7_2_passwords_are_sealed_and_opened_as_the_reference_does() {
        for (plain, sealed) in VECTORS {
            assert_eq!(key().seal(plain, NONCE_OF_VECTORS).as_deref(), Some(sealed));
            assert_eq!(key().open(sealed).as_deref(), Ok(plain));
        }
    }

    #[test]
    fn behaviour_7_2_what_is_not_intact_is_refused() {
        let sealed = VECTORS[0].1;
        assert_eq!(Key::derive("another").open(sealed), Err(OpenError::OtherKey));
        assert_eq!(key().open(&sealed.replace("AAEC", "AAED")), Err(OpenError::OtherKey));
        assert_eq!(key().open("AAEC"), Err(OpenError::Malformed));
        assert_eq!(key().open("not base64!"), Err(OpenError::Malformed));
    }

    #[test]
    fn a_key_is_never_printed() {
        assert_eq!(format!("{:?}", key()), "Key(…)");
    }
}
