//! Buffers that are used again: fresh memory for each would cost more than the copying.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Buffers of one size. Cheap to clone; clones share.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    size: usize,
    free: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Pool {
    pub(crate) fn new(size: usize) -> Self {
        Self { size, free: Arc::default() }
    }

    /// A buffer of the pool's size, with whatever was in it before.
    pub(crate) fn take(&self) -> Vec<u8> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        free.unwrap_or_else(|| vec![0; self.size])
    }

    /// Shares the beginning of a buffer. It comes back when the last reader has dropped it.
    pub(crate) fn share(&self, buffer: Vec<u8>, filled: usize) -> Bytes {
        if filled == 0 {
            self.give_back(buffer);
            return Bytes::new();
        }
        Bytes::from_owner(Shared { buffer, filled, pool: self.clone() })
    }

    fn give_back(&self, buffer: Vec<u8>) {
        if buffer.len() == self.size {
            self.free.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
        }
    }
}

struct Shared {
    buffer: Vec<u8>,
    filled: usize,
    pool: Pool,
}

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.filled]
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.pool.give_back(std::mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_its_last_reader_is_gone() {
        let pool = Pool::new(4);
        let mut buffer = pool.take();
        buffer.copy_from_slice(b"abcd");
        let bytes = pool.share(buffer, 3);
        let clone = bytes.slice(1..);
        drop(bytes);
        assert_eq!(pool.free.lock().unwrap().len(), 0);
        assert_eq!(&clone[..], b"bc");
        drop(clone);
        assert_eq!(pool.free.lock().unwrap().len(), 1);
    }
}
