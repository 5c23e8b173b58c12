//! Encryption. The contract's: AES in cipher feedback mode behind a random initial vector, without authentication. Ours:
//! the age format, see [`super::age_format`].

use std::io::{self, Read, Write};
use std::sync::Arc;

use aes::cipher::{AsyncStreamCipher, KeyIvInit};
use aes::{Aes128, Aes192, Aes256};
use hkdf::Hkdf;
use sha2::Sha256;

use super::age_format::Keys;
use super::{Link, Stage};
use crate::error::{Error, Result};

const IV: usize = 16;
const SALT: &[u8] = b"encryption";
/// A multiple of the block size, so that chunks can be worked on one after the other.
const CHUNK: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Aes128,
    Aes192,
    Aes256,
}

/// Algorithm and key of a process.
#[derive(Clone)]
pub(crate) enum Encryption {
    /// The contract's modes.
    Cfb(Cfb),
    /// Ours.
    Age(Arc<Keys>),
}

/// A contract's mode and its key.
#[derive(Clone)]
pub(crate) struct Cfb {
    algorithm: Algorithm,
    key: [u8; 32],
}

impl Encryption {
    /// Bytes that encryption adds to each object, where that is always the same. The header of an age object depends on
    /// its readers, so such objects are listed with their stored size.
    pub(crate) fn overhead(&self) -> i64 {
        match self {
            Self::Cfb(_) => IV as i64,
            Self::Age(_) => 0,
        }
    }

    /// # Errors
    /// An unknown name, or no pass phrase.
    pub(crate) fn new(name: &str, pass_phrase: &[u8]) -> Result<Self> {
        if pass_phrase.is_empty() {
            return Err(Error::other("encryption pass phrase should not be empty"));
        }
        let algorithm = match name.to_uppercase().as_str() {
            "AES-128-CFB" => Algorithm::Aes128,
            "AES-192-CFB" => Algorithm::Aes192,
            "AES-256-CFB" => Algorithm::Aes256,
            "AGE" => {
                let material =
                    std::str::from_utf8(pass_phrase).map_err(|_| Error::other("age key material is not UTF-8"))?;
                return Ok(Self::Age(Keys::parse(material)?));
            }
            other => return Err(Error::other(format!("unknown encryption algorithm: {other}"))),
        };
        Ok(Self::Cfb(Cfb { algorithm, key: derive(pass_phrase) }))
    }

    /// Puts encryption in front of a link.
    pub(crate) fn encrypt(&self, next: Link) -> io::Result<Link> {
        Ok(match self {
            Self::Cfb(cfb) => Box::new(EncryptWriter::new(next, cfb.clone())),
            Self::Age(keys) => Box::new(keys.encrypt(next)?),
        })
    }

    /// Puts decryption behind a reader.
    pub(crate) fn decrypt<'a>(&self, input: Box<dyn Read + Send + 'a>) -> io::Result<Box<dyn Read + Send + 'a>> {
        Ok(match self {
            Self::Cfb(cfb) => Box::new(DecryptReader::new(input, cfb.clone())),
            Self::Age(keys) => Box::new(keys.decrypt(input)?),
        })
    }
}

fn derive(pass_phrase: &[u8]) -> [u8; 32] {
    let mut key = [0; 32];
    // 32 bytes are within what the function can give, so it cannot fail.
    let _ = Hkdf::<Sha256>::new(Some(SALT), pass_phrase).expand(&[], &mut key);
    key
}

macro_rules! per_key_size {
    ($self:expr, $mode:ident, $iv:expr, $chunk:expr, $call:ident) => {
        match $self.algorithm {
            Algorithm::Aes128 => {
                cfb_mode::$mode::<Aes128>::new_from_slices(&$self.key[..16], $iv).map(|cipher| cipher.$call($chunk))
            }
            Algorithm::Aes192 => {
                cfb_mode::$mode::<Aes192>::new_from_slices(&$self.key[..24], $iv).map(|cipher| cipher.$call($chunk))
            }
            Algorithm::Aes256 => {
                cfb_mode::$mode::<Aes256>::new_from_slices(&$self.key, $iv).map(|cipher| cipher.$call($chunk))
            }
        }
    };
}

/// The last block of ciphertext is the next chunk's initial vector.
fn next_iv(iv: &mut [u8; IV], ciphertext: &[u8]) {
    if let Some(last) = ciphertext.last_chunk::<IV>() {
        *iv = *last;
    }
}

/// Encrypts what is written to it.
struct EncryptWriter<W> {
    inner: W,
    encryption: Cfb,
    iv: [u8; IV],
    begun: bool,
    /// Plaintext that does not fill a chunk yet.
    waiting: Vec<u8>,
}

impl<W: Write> EncryptWriter<W> {
    fn new(inner: W, encryption: Cfb) -> Self {
        Self { inner, encryption, iv: rand::random(), begun: false, waiting: Vec::with_capacity(CHUNK) }
    }

    fn encrypt_waiting(&mut self) -> io::Result<()> {
        if !self.begun {
            self.begun = true;
            self.inner.write_all(&self.iv)?;
        }
        per_key_size!(self.encryption, Encryptor, &self.iv, &mut self.waiting, encrypt).map_err(io::Error::other)?;
        next_iv(&mut self.iv, &self.waiting);
        self.inner.write_all(&self.waiting)?;
        self.waiting.clear();
        Ok(())
    }

    /// Writes the rest and gives the inner writer back.
    fn complete(mut self) -> io::Result<W> {
        self.encrypt_waiting()?;
        Ok(self.inner)
    }
}

impl<W: Write> Write for EncryptWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK - self.waiting.len());
        self.waiting.extend_from_slice(&bytes[..taken]);
        if self.waiting.len() == CHUNK {
            self.encrypt_waiting()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stage for EncryptWriter<Link> {
    fn finish(self: Box<Self>) -> io::Result<()> {
        self.complete()?.finish()
    }
}

/// Decrypts what is read from it.
struct DecryptReader<R> {
    inner: R,
    encryption: Cfb,
    iv: Option<[u8; IV]>,
    chunk: Vec<u8>,
    at: usize,
}

impl<R: Read> DecryptReader<R> {
    fn new(inner: R, encryption: Cfb) -> Self {
        Self { inner, encryption, iv: None, chunk: Vec::new(), at: 0 }
    }

    /// Fills `buffer` as far as the input goes.
    fn read_full(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.inner.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn refill(&mut self) -> io::Result<()> {
        let mut iv = if let Some(iv) = self.iv {
            iv
        } else {
            let mut iv = [0; IV];
            let why = match self.read_full(&mut iv)? {
                IV => None,
                0 => Some("EOF"),
                _ => Some("unexpected EOF"),
            };
            if let Some(why) = why {
                return Err(io::Error::other(format!("unable to read iv from cipherText, error: {why}")));
            }
            iv
        };
        let mut chunk = std::mem::take(&mut self.chunk);
        chunk.resize(CHUNK, 0);
        let filled = self.read_full(&mut chunk)?;
        chunk.truncate(filled);
        let before = iv;
        next_iv(&mut iv, &chunk);
        per_key_size!(self.encryption, Decryptor, &before, &mut chunk, decrypt).map_err(io::Error::other)?;
        (self.chunk, self.at, self.iv) = (chunk, 0, Some(iv));
        Ok(())
    }
}

impl<R: Read> Read for DecryptReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.chunk.len() {
            self.refill()?;
        }
        let taken = buffer.len().min(self.chunk.len() - self.at);
        buffer[..taken].copy_from_slice(&self.chunk[self.at..self.at + taken]);
        self.at += taken;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::tests::{collect, encode};

    /// Pass phrases and keys as the contract's files list them.
    #[test]
    fn keys_are_the_contracts() {
        let manifest: serde_json::Value = serde_json::from_str(include_str!("../../tests/data/manifest.json")).unwrap();
        let samples = manifest["key_derivation"]["samples"].as_array().unwrap();
        assert!(samples.len() > 5);
        for sample in samples {
            let key = derive(sample["passphrase"].as_str().unwrap().as_bytes());
            assert_eq!(key.as_slice(), bytes(sample["hkdf32_hex"].as_str().unwrap()), "{sample}");
        }
    }

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn the_contracts_files_are_read() {
        for (name, hex) in [
            ("AES-128-CFB", "3f531b215a8b0774edeb5f07f451f811c6ba0b"),
            ("aes-192-cfb", "65cce058982cde6dec94ee7965c737bd2e9044"),
            ("AES-256-CFB", "cd68a8ba7e886f00326ebd9da560bfca0ad5c4"),
        ] {
            let encryption = Encryption::new(name, b"01234567890123456789012345678901").unwrap();
            let stored = bytes(hex);
            let plain = collect(encryption.decrypt(Box::new(stored.as_slice())).unwrap()).unwrap();
            assert_eq!(plain, b"foo", "{name}");
        }
    }

    #[test]
    fn sizes_around_the_chunk_come_back() {
        for size in [0, 1, 15, 16, 17, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5] {
            let encryption = Encryption::new("AES-256-CFB", b"pw").unwrap();
            let plain: Vec<u8> = (0..size).map(|at| (at * 7 % 251) as u8).collect();
            let stored = encode(&plain, |next| encryption.encrypt(next).unwrap());
            assert_eq!(stored.len(), size + IV);
            let back = collect(encryption.decrypt(Box::new(stored.as_slice())).unwrap()).unwrap();
            assert!(back == plain, "{size}");
        }
    }
}
