//! The age v1 format: authenticated, a fresh key per object, readable by any age tool.
//!
//! The key material says what a process may do. `age1…` lines are recipients: the process can write and not read.
//! `AGE-SECRET-KEY-1…` lines are identities: it can read, and write to itself. Anything else is a passphrase.

use std::io::{self, BufReader, Read, Write};
use std::sync::Arc;

use age::secrecy::SecretString;
use age::stream::{StreamReader, StreamWriter};
use age::{DecryptError, Decryptor, Encryptor, Identity, Recipient, scrypt, x25519};

use super::{Link, Stage};
use crate::error::{Cause, Error, Result};

/// Work for a passphrase: 64 MiB of memory and about a tenth of a second, for each object. The usual second and 256 MiB are
/// made for passwords that people remember; these come from a Secret.
const WORK: u8 = 16;
/// The most work that a foreign object may ask for: 256 MiB.
const WORK_MAX: u8 = 18;
const READ: usize = 128 << 10;

/// Who can read, and what we can read.
pub(crate) struct Keys {
    recipients: Vec<Box<dyn Recipient + Send + Sync>>,
    identities: Vec<Box<dyn Identity + Send + Sync>>,
}

impl Keys {
    /// Reads key material.
    ///
    /// # Errors
    /// When a line that looks like a key is none. The line itself is not shown.
    pub(crate) fn parse(material: &str) -> Result<Arc<Self>> {
        let mut keys = Self { recipients: Vec::new(), identities: Vec::new() };
        let is_key = |line: &str| line.starts_with("age1") || line.starts_with("AGE-SECRET-KEY-1");
        if material.lines().any(|line| is_key(line.trim())) {
            let lines = material.lines().map(str::trim).enumerate();
            for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
                let wrong = |why: &str| Error::other(format!("age key, line {}: {why}", number + 1));
                if line.starts_with("age1") {
                    let recipient: x25519::Recipient = line.parse().map_err(|why: &str| wrong(why))?;
                    keys.recipients.push(Box::new(recipient));
                } else {
                    let identity: x25519::Identity = line.parse().map_err(|why: &str| wrong(why))?;
                    keys.recipients.push(Box::new(identity.to_public()));
                    keys.identities.push(Box::new(identity));
                }
            }
        } else {
            let passphrase = SecretString::from(material.to_owned());
            let mut recipient = scrypt::Recipient::new(passphrase.clone());
            recipient.set_work_factor(WORK);
            let mut identity = scrypt::Identity::new(passphrase);
            identity.set_max_work_factor(WORK_MAX);
            keys.recipients.push(Box::new(recipient));
            keys.identities.push(Box::new(identity));
        }
        Ok(Arc::new(keys))
    }

    pub(super) fn encrypt(&self, next: Link) -> io::Result<Encoder> {
        let recipients = self.recipients.iter().map(|recipient| &**recipient as &dyn Recipient);
        let encryptor = Encryptor::with_recipients(recipients).map_err(io::Error::other)?;
        Ok(Encoder(encryptor.wrap_output(next)?))
    }

    pub(super) fn decrypt<R: Read>(&self, input: R) -> io::Result<Decoder<R>> {
        if self.identities.is_empty() {
            return Err(io::Error::other(Error::new(
                Cause::AccessDenied,
                "this process holds only an age recipient (age1…), with which objects can be written but not read",
            )));
        }
        let decryptor = Decryptor::new_buffered(BufReader::with_capacity(READ, input)).map_err(translate)?;
        let identities = self.identities.iter().map(|identity| &**identity as &dyn Identity);
        Ok(Decoder(decryptor.decrypt(identities).map_err(translate)?))
    }
}

fn translate(error: DecryptError) -> io::Error {
    let (cause, why) = match error {
        DecryptError::Io(error) if error.kind() != io::ErrorKind::UnexpectedEof => return error,
        DecryptError::Io(_) => (Cause::Damaged, "the age header is cut short".to_owned()),
        DecryptError::NoMatchingKeys | DecryptError::KeyDecryptionFailed => {
            (Cause::AccessDenied, "none of the age keys at hand opens this object".to_owned())
        }
        DecryptError::InvalidHeader | DecryptError::UnknownFormat => {
            (Cause::Damaged, "this is not an age object".to_owned())
        }
        other => (Cause::Damaged, format!("age: {other}")),
    };
    io::Error::other(Error::new(cause, why))
}

/// Encrypts what is written to it.
pub(super) struct Encoder(StreamWriter<Link>);

impl Write for Encoder {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stage for Encoder {
    fn finish(self: Box<Self>) -> io::Result<()> {
        self.0.finish()?.finish()
    }
}

/// Decrypts and authenticates what is read from it.
pub(super) struct Decoder<R: Read>(StreamReader<BufReader<R>>);

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => io::Error::other(Error::new(
                Cause::Damaged,
                format!("the encrypted object is damaged or cut short: {error}"),
            )),
            _ => error,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::tests::{collect, encode};

    fn identity() -> (String, String) {
        use age::secrecy::ExposeSecret;
        let identity = x25519::Identity::generate();
        (identity.to_string().expose_secret().to_owned(), identity.to_public().to_string())
    }

    fn seal(keys: &Keys, plain: &[u8]) -> Vec<u8> {
        encode(plain, |next| Box::new(keys.encrypt(next).unwrap()))
    }

    fn open(keys: &Keys, stored: &[u8]) -> io::Result<Vec<u8>> {
        collect(keys.decrypt(stored)?)
    }

    #[test]
    fn recipients_write_and_identities_read() {
        let (secret, public) = identity();
        let (_, other) = identity();
        let writer = Keys::parse(&format!("# two readers\n{public}\n{other}\n")).unwrap();
        let stored = seal(&writer, b"plain");
        assert_eq!(open(&Keys::parse(&secret).unwrap(), &stored).unwrap(), b"plain");
        assert!(open(&writer, &stored).unwrap_err().to_string().contains("only an age recipient"));
        let stranger = Keys::parse(&identity().0).unwrap();
        assert!(open(&stranger, &stored).unwrap_err().to_string().contains("none of the age keys"));
        assert!(Keys::parse("age1notakey").is_err());
    }

    #[test]
    fn a_passphrase_works_and_another_does_not() {
        let keys = Keys::parse("correct horse").unwrap();
        let stored = seal(&keys, b"plain");
        assert_eq!(open(&keys, &stored).unwrap(), b"plain");
        assert!(open(&Keys::parse("battery").unwrap(), &stored).is_err());
    }

    #[test]
    fn every_kind_of_damage_is_found() {
        let keys = Keys::parse(&identity().0).unwrap();
        let plain: Vec<u8> = (0..200_000).map(|at| (at * 7 % 253) as u8).collect();
        let stored = seal(&keys, &plain);
        assert!(open(&keys, &stored).unwrap() == plain);
        let damaged = |stored: &[u8], what: &str| assert!(open(&keys, stored).is_err(), "{what} was not found");
        for cut in [0, 10, 100, stored.len() / 2, stored.len() - (64 << 10), stored.len() - 1] {
            damaged(&stored[..cut], "a cut");
        }
        damaged(&[&stored[..], b"x"].concat(), "an appended byte");
        damaged(&[&stored[..], &stored[..]].concat(), "a second object behind the first");
        for at in (0..stored.len()).step_by(16_381) {
            let mut flipped = stored.clone();
            flipped[at] ^= 1;
            damaged(&flipped, "a flipped bit");
        }
        // The payload's chunks have 64 KiB and a tag; their order is authenticated too.
        let chunk = (64 << 10) + 16;
        let payload = stored.len() - (plain.len() + 16 * plain.len().div_ceil(64 << 10));
        let mut swapped = stored.clone();
        let (first, second) = swapped[payload..].split_at_mut(chunk);
        first.swap_with_slice(&mut second[..chunk]);
        damaged(&swapped, "two swapped chunks");
    }
}
