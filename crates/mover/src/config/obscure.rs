//! Obscured passwords: a disguise with a public key, not a secret. The format is the contract's.

use aes::cipher::{KeyIvInit, StreamCipher};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::error::{Error, Result};

const KEY: [u8; 32] = [
    0x9c, 0x93, 0x5b, 0x48, 0x73, 0x0a, 0x55, 0x4d, 0x6b, 0xfd, 0x7c, 0x63, 0xc8, 0x86, 0xa9, 0x2b, 0xd3, 0x90, 0x19,
    0x8e, 0xb8, 0x12, 0x8a, 0xfb, 0xf4, 0xde, 0x16, 0x2b, 0x8b, 0x95, 0xf6, 0x38,
];

type Cipher = ctr::Ctr128BE<aes::Aes256>;

/// Hides a clear text behind a random initial vector.
pub(crate) fn obscure(clear: &str) -> String {
    let iv: [u8; 16] = rand::random();
    let mut bytes = iv.to_vec();
    bytes.extend_from_slice(clear.as_bytes());
    Cipher::new(&KEY.into(), &iv.into()).apply_keystream(&mut bytes[16..]);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The clear text of an obscured value.
///
/// # Errors
/// When the value was not obscured.
pub(crate) fn reveal(obscured: &str) -> Result<String> {
    let wrong =
        |why: &str| Error::other(format!("NewFS decrypt password: {why} when revealing password - is it obscured?"));
    let mut bytes = URL_SAFE_NO_PAD.decode(obscured).map_err(|_| wrong("base64 decode failed"))?;
    if bytes.len() < 16 {
        return Err(wrong("input too short"));
    }
    let mut clear = bytes.split_off(16);
    let iv: [u8; 16] = bytes.try_into().map_err(|_| wrong("input too short"))?;
    Cipher::new(&KEY.into(), &iv.into()).apply_keystream(&mut clear);
    String::from_utf8(clear).map_err(|_| wrong("text is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_contracts_example_is_read() {
        assert_eq!(reveal("hand3zwvOZRkZqiB45vMRZ-hVFl540A").unwrap(), "sec ret");
        assert_eq!(reveal(&obscure("pässwörd")).unwrap(), "pässwörd");
        assert!(reveal("short").is_err());
    }

    proptest! {
        #![proptest_config(crate::testing::cases(256))]

        #[test]
        fn what_is_obscured_is_revealed(clear in any::<String>()) {
            let hidden = obscure(&clear);
            prop_assert!(hidden.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'));
            prop_assert_eq!(reveal(&hidden).unwrap(), clear);
        }

        #[test]
        fn noise_is_revealed_or_refused(text in any::<String>()) {
            drop(reveal(&text));
        }
    }
}
