//! The payload of an age object: chunks of 64 KiB under ChaCha20-Poly1305, each with its number and whether it is the last.
//!
//! The `age` crate does keys and headers, and could do this too, at half the speed of the cipher that TLS brings along anyway.

use std::io::{self, Read, Write};

use hkdf::Hkdf;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use sha2::Sha256;

use crate::relay::fill;

/// The key that a header wraps.
pub(super) type FileKey = [u8; 16];
/// What stands between header and payload.
pub(super) const SALT: usize = 16;
const CHUNK: usize = 64 << 10;
pub(super) const TAG: usize = 16;

struct Cipher {
    key: LessSafeKey,
    chunk: u64,
}

impl Cipher {
    fn new(key: &FileKey, salt: &[u8; SALT]) -> io::Result<Self> {
        let mut derived = [0; 32];
        // 32 bytes are within what the function can give, so it cannot fail.
        let _ = Hkdf::<Sha256>::new(Some(salt), key).expand(b"payload", &mut derived);
        let key = UnboundKey::new(&CHACHA20_POLY1305, &derived).map_err(|_| io::Error::other("age: no key"))?;
        Ok(Self { key: LessSafeKey::new(key), chunk: 0 })
    }

    /// The next chunk's nonce: none is used twice, since the key is fresh for each object and the number only grows.
    fn nonce(&mut self, last: bool) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[3..11].copy_from_slice(&self.chunk.to_be_bytes());
        nonce[11] = u8::from(last);
        self.chunk += 1;
        Nonce::assume_unique_for_key(nonce)
    }
}

/// Encrypts what is written to it.
pub(super) struct Writer<W> {
    inner: W,
    cipher: Cipher,
    chunk: Vec<u8>,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(inner: W, key: &FileKey, salt: &[u8; SALT]) -> io::Result<Self> {
        Ok(Self { inner, cipher: Cipher::new(key, salt)?, chunk: Vec::with_capacity(CHUNK + TAG) })
    }

    pub(super) fn seal(&mut self, last: bool) -> io::Result<()> {
        let nonce = self.cipher.nonce(last);
        self.cipher
            .key
            .seal_in_place_append_tag(nonce, Aad::empty(), &mut self.chunk)
            .map_err(|_| io::Error::other("age: a chunk cannot be encrypted"))?;
        self.inner.write_all(&self.chunk)?;
        self.chunk.clear();
        Ok(())
    }

    /// Writes the last chunk and gives the inner writer back.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.seal(true)?;
        Ok(self.inner)
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full chunk waits until more comes, because the last one is marked.
        if self.chunk.len() == CHUNK && !bytes.is_empty() {
            self.seal(false)?;
        }
        let taken = bytes.len().min(CHUNK - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Decrypts and authenticates what is read from it.
pub(super) struct Reader<R> {
    inner: R,
    cipher: Cipher,
    /// A chunk with its tag, and the first byte of the next one.
    buffer: Vec<u8>,
    /// Where the plaintext is that was not read yet.
    at: usize,
    end: usize,
    last: bool,
}

impl<R: Read> Reader<R> {
    pub(super) fn new(inner: R, key: &FileKey, salt: &[u8; SALT]) -> io::Result<Self> {
        let buffer = vec![0; CHUNK + TAG + 1];
        Ok(Self { inner, cipher: Cipher::new(key, salt)?, buffer, at: 0, end: 0, last: false })
    }

    /// Reads and opens the next chunk. Nothing of it is given unless all of it is authentic.
    fn next(&mut self) -> io::Result<()> {
        let damaged = |why| io::Error::new(io::ErrorKind::InvalidData, why);
        let first = self.cipher.chunk == 0;
        let kept = usize::from(!first);
        if kept == 1 {
            self.buffer[0] = self.buffer[CHUNK + TAG];
        }
        let (filled, ended) = fill(&mut self.inner, &mut self.buffer[kept..]);
        ended?;
        let filled = kept + filled;
        self.last = filled < self.buffer.len();
        let sealed = &mut self.buffer[..filled.min(CHUNK + TAG)];
        let nonce = self.cipher.nonce(self.last);
        let opened = self.cipher.key.open_in_place(nonce, Aad::empty(), sealed);
        let plain = opened.map_err(|_| damaged("a chunk is not authentic"))?.len();
        if plain == 0 && !first {
            return Err(damaged("the last chunk is empty"));
        }
        (self.at, self.end) = (0, plain);
        Ok(())
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.end && !self.last {
            self.next()?;
        }
        let taken = buffer.len().min(self.end - self.at);
        buffer[..taken].copy_from_slice(&self.buffer[self.at..self.at + taken]);
        self.at += taken;
        Ok(taken)
    }
}
