//! `push --once`: an object is created once. The same content again is a success, other content under the same name an error.
//!
//! What is compared is the plain content, because compressing or encrypting it again gives other bytes.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Cause, Error, Result};
use crate::repo::Repo;
use crate::storage::Entry;
use crate::stream::{self, Input, Output, Transform, Written};

/// Takes the digest of what passes.
#[derive(Clone, Default)]
pub(crate) struct Digest(Arc<Mutex<blake3::Hasher>>);

impl Digest {
    pub(crate) fn update(&self, bytes: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).update(bytes);
    }

    fn value(&self) -> blake3::Hash {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).finalize()
    }

    /// The input, watched.
    pub(super) fn of(&self, input: Input) -> Input {
        Input { name: input.name, reader: Box::new(Watched { inner: input.reader, digest: self.clone() }) }
    }
}

struct Watched<R> {
    inner: R,
    digest: Digest,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.digest.update(&buffer[..read]);
        Ok(read)
    }
}

/// Reads an input whose name is taken to its end, for its digest.
pub(super) async fn read_on(input: Input) -> Result<()> {
    let (to, from) = tokio::sync::oneshot::channel();
    // A thread of its own: what waits for input must not keep the process when it is stopped.
    std::thread::spawn(move || {
        let Input { name, mut reader } = input;
        let copied = io::copy(&mut reader, &mut io::sink()).map(drop);
        to.send(copied.map_err(|error| Error::file("read", name.as_ref(), &error)))
    });
    from.await.unwrap_or_else(|_| Err(Error::other("the reading thread has died")))
}

/// Compares an object that is there with what was to be stored. Gives what it is.
///
/// # Errors
/// [`Cause::Exists`] when it is another, or cannot be read for comparison.
pub(super) async fn same(repo: &Repo, entry: &Entry, transform: Transform, wanted: &Digest) -> Result<Written> {
    let found = Digest::default();
    let source = repo.store.read(entry).await?;
    let other = |why: String| Error::new(Cause::Exists, format!("the object exists already, {why}"));
    match stream::pull(source, transform, Output::Digest(found.clone())).await {
        Ok(written) if found.value() == wanted.value() => Ok(written),
        Ok(_) => Err(other("with other content".to_owned())),
        Err(error) if error.is(Cause::Damaged) || error.is(Cause::AccessDenied) => {
            Err(other(format!("and cannot be compared: {error}")))
        }
        Err(error) => Err(error),
    }
}
