//! The age v1 format: authenticated, a fresh key per object, readable by any age tool.
//!
//! The key material says what a process may do. `age1…` lines are recipients: the process can write and not read.
//! `AGE-SECRET-KEY-1…` lines are identities: it can read, and write to itself. Anything else is a passphrase.

use std::cell::Cell;
use std::collections::HashSet;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::Arc;

use age::secrecy::{ExposeSecret, SecretString};
use age::{DecryptError, Decryptor, EncryptError, Encryptor, Identity, Recipient, scrypt, x25519};
use age_core::format::{FileKey as Wrapped, Stanza};

use super::age_payload::{FileKey, Reader, SALT, TAG, Writer};
use super::{Link, Stage};
use crate::error::{Cause, Error};

/// Work for a passphrase: 64 MiB of memory and about a tenth of a second, for each object. The usual second and 256 MiB are
/// made for passwords that people remember; these come from a Secret.
const WORK: u8 = 16;
/// The most work that a foreign object may ask for: 256 MiB.
const WORK_MAX: u8 = 18;
const READ: usize = 128 << 10;
/// No header is longer: thousands of recipients fit. What has no lines would be collected whole.
const HEADER_MAX: u64 = 1 << 20;

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
    pub(crate) fn parse(material: &str) -> Result<Arc<Self>, Error> {
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

    pub(super) fn encrypt(&self, mut next: Link) -> io::Result<Encoder> {
        let key = Cell::new(None);
        let recipients: Vec<_> = self.recipients.iter().map(|inner| Witness { inner: &**inner, key: &key }).collect();
        let recipients = recipients.iter().map(|recipient| recipient as &dyn Recipient);
        let encryptor = Encryptor::with_recipients(recipients).map_err(io::Error::other)?;
        // Of the empty object that this makes, all but the payload is what is wanted.
        let mut head = encryptor.wrap_output(Vec::new())?.finish()?;
        head.truncate(head.len() - TAG);
        next.write_all(&head)?;
        let (key, salt) = witnessed(&key, &head)?;
        Ok(Encoder(Writer::new(next, &key, &salt)?))
    }

    pub(super) fn decrypt<R: Read>(&self, input: R) -> io::Result<Decoder<R>> {
        if self.identities.is_empty() {
            return Err(io::Error::other(Error::new(
                Cause::AccessDenied,
                "this process holds only an age recipient (age1…), with which objects can be written but not read",
            )));
        }
        let mut input = BufReader::with_capacity(READ, input);
        let head = read_head(&mut input)?;
        let key = Cell::new(None);
        let identities: Vec<_> = self.identities.iter().map(|inner| Witness { inner: &**inner, key: &key }).collect();
        let identities = identities.iter().map(|identity| identity as &dyn Identity);
        let decryptor = Decryptor::new_buffered(&head[..]).map_err(translate)?;
        // Checks the header with the key that it wraps.
        decryptor.decrypt(identities).map_err(translate)?;
        let (key, salt) = witnessed(&key, &head)?;
        Ok(Decoder(Reader::new(input, &key, &salt)?))
    }
}

/// Header and salt as they stand there, as far as they do.
fn read_head(input: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let (mut head, mut line) = (Vec::new(), 0);
    let mut lines = input.take(HEADER_MAX);
    while lines.read_until(b'\n', &mut head)? > 0 {
        if head[line..].starts_with(b"---") {
            lines.set_limit(SALT as u64);
            lines.read_to_end(&mut head)?;
            break;
        }
        line = head.len();
    }
    Ok(head)
}

/// The key that a [`Witness`] saw, and the salt behind the header.
fn witnessed(key: &Cell<Option<FileKey>>, head: &[u8]) -> io::Result<(FileKey, [u8; SALT])> {
    let both = key.get().zip(head.last_chunk().copied());
    both.ok_or_else(|| io::Error::other("age: a header without a key"))
}

/// A recipient or an identity that also tells which key it wrapped or unwrapped.
struct Witness<'a, T: ?Sized> {
    inner: &'a T,
    key: &'a Cell<Option<FileKey>>,
}

impl Recipient for Witness<'_, dyn Recipient + Send + Sync> {
    fn wrap_file_key(&self, key: &Wrapped) -> Result<(Vec<Stanza>, HashSet<String>), EncryptError> {
        self.key.set(Some(*key.expose_secret()));
        self.inner.wrap_file_key(key)
    }
}

impl Identity for Witness<'_, dyn Identity + Send + Sync> {
    fn unwrap_stanza(&self, stanza: &Stanza) -> Option<Result<Wrapped, DecryptError>> {
        self.unwrap_stanzas(std::slice::from_ref(stanza))
    }

    fn unwrap_stanzas(&self, stanzas: &[Stanza]) -> Option<Result<Wrapped, DecryptError>> {
        let unwrapped = self.inner.unwrap_stanzas(stanzas);
        if let Some(Ok(key)) = &unwrapped {
            self.key.set(Some(*key.expose_secret()));
        }
        unwrapped
    }
}

fn translate(error: DecryptError) -> io::Error {
    let (cause, why) = match error {
        DecryptError::Io(error) if error.kind() != io::ErrorKind::UnexpectedEof => return error,
        DecryptError::Io(_) => (Cause::Damaged, "the age header is cut short".to_owned()),
        // A pass phrase that does not fit looks like a damaged header.
        DecryptError::NoMatchingKeys | DecryptError::KeyDecryptionFailed | DecryptError::DecryptionFailed => {
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
pub(super) struct Encoder(Writer<Link>);

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
pub(super) struct Decoder<R: Read>(Reader<BufReader<R>>);

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
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::codec::tests::{collect, encode};

    fn identity() -> (String, String) {
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

    /// The library's own payloads are the judges of ours, at all sizes around a chunk's.
    #[test]
    fn the_library_reads_ours_and_we_read_its() {
        let (secret, public) = identity();
        let keys = Keys::parse(&secret).unwrap();
        let (theirs, judge) =
            (secret.parse::<x25519::Identity>().unwrap(), public.parse::<x25519::Recipient>().unwrap());
        let chunk = 64 << 10;
        for size in [0, 1, chunk - 1, chunk, chunk + 1, 2 * chunk, 5 * chunk + 321] {
            let plain: Vec<u8> = (0..size).map(|at| (at * 7 % 253) as u8).collect();
            assert!(age::decrypt(&theirs, &seal(&keys, &plain)).unwrap() == plain, "{size}");
            assert!(open(&keys, &age::encrypt(&judge, &plain).unwrap()).unwrap() == plain, "{size}");
        }
    }

    #[test]
    fn an_empty_chunk_behind_a_full_one_is_refused() {
        let (key, salt) = ([1; 16], [2; SALT]);
        let sealed = |plain: &[u8]| {
            let mut writer = Writer::new(Vec::new(), &key, &salt).unwrap();
            writer.write_all(plain).unwrap();
            writer
        };
        // What a writer would do that does not wait for more before it seals a full chunk.
        let full = vec![7; 64 << 10];
        let mut early = sealed(&full);
        early.seal(false).unwrap();
        let stored = early.finish().unwrap();
        assert!(collect(Reader::new(&stored[..], &key, &salt).unwrap()).unwrap_err().to_string().contains("empty"));
        let stored = sealed(&full).finish().unwrap();
        assert_eq!(collect(Reader::new(&stored[..], &key, &salt).unwrap()).unwrap(), full);
    }

    #[test]
    fn an_input_without_lines_is_not_collected() {
        /// Bytes without an end that count how many were asked for.
        struct Endless(Arc<AtomicU64>);
        impl Read for Endless {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                buffer.fill(b'x');
                let given = self.0.fetch_add(buffer.len() as u64, Ordering::Relaxed);
                if given > 1 << 30 { Err(io::Error::other("no end")) } else { Ok(buffer.len()) }
            }
        }
        let keys = Keys::parse(&identity().0).unwrap();
        for start in ["", "age-encryption.org/v1\n", "age-encryption.org/v1\n-> X25519 "] {
            let given = Arc::new(AtomicU64::new(0));
            let input = start.as_bytes().chain(Endless(given.clone()));
            assert!(keys.decrypt(input).is_err());
            assert!(given.load(Ordering::Relaxed) <= HEADER_MAX + READ as u64, "{start:?}");
        }
    }

    /// Exhaustive, of a small object; `tests/damage.rs` has the chunks of larger ones.
    #[test]
    fn every_flipped_bit_and_every_cut_of_an_object_is_found() {
        let keys = Keys::parse(&identity().0).unwrap();
        let stored = seal(&keys, b"plain");
        for at in 0..stored.len() {
            assert!(open(&keys, &stored[..at]).is_err(), "a cut at {at} was not found");
            for bit in 0..8 {
                let mut flipped = stored.clone();
                flipped[at] ^= 1 << bit;
                assert!(open(&keys, &flipped).is_err(), "bit {bit} of byte {at} was not found");
            }
        }
        assert!(open(&keys, &[&stored[..], b"x"].concat()).is_err());
        assert!(open(&keys, &[&stored[..], &stored[..]].concat()).is_err());
        assert_eq!(open(&keys, &stored).unwrap(), b"plain");
    }
}
