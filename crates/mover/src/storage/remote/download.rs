//! Reading an object: by one request after the other while a connection is as fast as whoever reads, by several ranges at a
//! time where it is slow.
//!
//! Ranges hide what a request takes to be answered and what one connection is allowed. Where nothing of that is to be hidden
//! they only cost: more memory than a core's cache holds, and more threads than there are cores.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::TryStreamExt;
use opendal::{FuturesBytesStream, Operator};

use super::failure;
use crate::error::{Cause, Error, Result};
use crate::storage::Entry;

/// What the first request asks for: short, so that little is lost on a slow connection.
const FIRST: u64 = 8 << 20;
/// What each later one asks for.
const STRETCH: u64 = 256 << 20;
/// So fast is a connection that needs no other beside it: bytes per second.
pub(super) const FAST: u64 = 384 << 20;
/// What one of several ranges fetches, and how many are under way.
const RANGE: usize = 8 << 20;
const AT_ONCE: usize = 3;

/// An object being read.
pub(crate) struct Download {
    operator: Operator,
    key: String,
    /// Ranges of two versions of an object must not be glued together.
    etag: Option<String>,
    size: u64,
    /// Bytes per second of waiting above which one connection is enough.
    fast: u64,
    /// How much was handed on.
    at: u64,
    stretch: Option<Stretch>,
}

/// What is being fetched.
struct Stretch {
    stream: FuturesBytesStream,
    /// Where it ends in the object.
    end: u64,
    pace: Pace,
}

/// How fast a connection is. Only the time counts in which somebody waited for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Pace {
    bytes: u64,
    waited: Duration,
}

impl Pace {
    /// Whether it carries so many bytes per second of waiting.
    fn reaches(self, fast: u64) -> bool {
        u128::from(self.bytes) * 1_000_000 >= u128::from(fast) * self.waited.as_micros()
    }
}

impl Download {
    pub(super) fn new(operator: Operator, entry: &Entry, fast: u64) -> Self {
        let (key, etag, size) = (entry.key.clone(), entry.etag.clone(), entry.size as u64);
        Self { operator, key, etag, size, fast, at: 0, stretch: None }
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// When reading fails for good, the object was replaced, or it ends early.
    pub(in crate::storage) async fn next(&mut self) -> Result<Option<Bytes>> {
        if self.at == self.size {
            return Ok(None);
        }
        let mut stretch = match self.stretch.take() {
            Some(stretch) if self.at < stretch.end => stretch,
            before => self.after(before.map(|stretch| stretch.pace)).await?,
        };
        let asked = Instant::now();
        let Some(chunk) = stretch.stream.try_next().await.map_err(|error| cause(&error))? else {
            return Err(Error::new(Cause::Damaged, format!("the object ended {} bytes early", self.size - self.at)));
        };
        stretch.pace.waited += asked.elapsed();
        stretch.pace.bytes += chunk.len() as u64;
        self.at += chunk.len() as u64;
        self.stretch = Some(stretch);
        Ok(Some(chunk))
    }

    /// What comes after a stretch that was so fast.
    async fn after(&self, pace: Option<Pace>) -> Result<Stretch> {
        let (length, ranges) = match pace {
            None => (FIRST, false),
            Some(pace) if pace.reaches(self.fast) => (STRETCH, false),
            Some(_) => (self.size, true),
        };
        let end = self.size.min(self.at.saturating_add(length));
        let mut reader = self.operator.reader_with(&self.key).content_length_hint(self.size);
        if ranges {
            reader = reader.chunk(RANGE).concurrent(AT_ONCE);
        }
        if let Some(etag) = &self.etag {
            reader = reader.if_match(etag);
        }
        let reader = reader.await.map_err(|error| failure(&error))?;
        let stream = reader.into_bytes_stream(self.at..end).await.map_err(|error| failure(&error))?;
        Ok(Stretch { stream, end, pace: Pace::default() })
    }
}

/// A store's error that was packed into one of the system's.
fn cause(error: &std::io::Error) -> Error {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<opendal::Error>());
    inner.map_or_else(|| Error::other(error.to_string()), failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_slow_only_while_somebody_waits_for_it() {
        let pace = |bytes, millis| Pace { bytes, waited: Duration::from_millis(millis) };
        assert!(pace(FIRST, 10).reaches(FAST), "800 MiB/s");
        assert!(!pace(FIRST, 90).reaches(FAST), "90 MiB/s");
        assert!(!pace(STRETCH, 3_000).reaches(FAST));
        // Whoever reads was the slower one.
        assert!(pace(FIRST, 0).reaches(FAST));
    }
}
