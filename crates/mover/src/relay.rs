//! Stages on threads of their own, so that each may keep a core busy.

use std::io::{self, Read, Write};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::codec::{Link, Stage};
use crate::pool::Pool;

/// Size of a buffer between two stages.
pub(crate) const CHUNK: usize = 512 << 10;
/// Buffers that may wait between two stages.
pub(crate) const DEPTH: usize = 4;

/// Puts a thread in front of a link: what is written here, the link gets there, in whole buffers.
pub(crate) fn relay(mut next: Link) -> Link {
    let (to, from) = sync_channel::<Option<Bytes>>(DEPTH);
    let thread = thread::spawn(move || {
        // Without the end the stage before has failed, and this one must not finish either.
        while let Ok(message) = from.recv() {
            match message {
                Some(bytes) => next.take(bytes)?,
                None => return next.finish(),
            }
        }
        Ok(())
    });
    Box::new(Relay { to, thread: Some(thread), pool: Pool::new(CHUNK), buffer: Vec::new(), filled: 0 })
}

struct Relay {
    to: SyncSender<Option<Bytes>>,
    thread: Option<JoinHandle<io::Result<()>>>,
    pool: Pool,
    buffer: Vec<u8>,
    filled: usize,
}

impl Relay {
    fn send(&mut self, message: Option<Bytes>) -> io::Result<()> {
        // The other side hangs up when it has failed; its error is the one that counts.
        if self.to.send(message).is_err() { self.join() } else { Ok(()) }
    }

    fn send_waiting(&mut self) -> io::Result<()> {
        if self.filled == 0 {
            return Ok(());
        }
        let waiting = self.pool.share(std::mem::take(&mut self.buffer), self.filled);
        self.filled = 0;
        self.send(Some(waiting))
    }

    fn join(&mut self) -> io::Result<()> {
        let died = || io::Error::other("a stage of the transfer has died");
        self.thread.take().ok_or_else(died)?.join().map_err(|_| died())?
    }
}

impl Write for Relay {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.is_empty() {
            self.buffer = self.pool.take();
        }
        let taken = bytes.len().min(CHUNK - self.filled);
        self.buffer[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
        self.filled += taken;
        if self.filled == CHUNK {
            self.send_waiting()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stage for Relay {
    fn take(&mut self, bytes: Bytes) -> io::Result<()> {
        self.send_waiting()?;
        if bytes.is_empty() { Ok(()) } else { self.send(Some(bytes)) }
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.send_waiting()?;
        self.send(None)?;
        self.join()
    }
}

/// What comes from another thread, buffer by buffer. It ends with an end that was sent: a stage that dies sends none.
pub(crate) struct Inlet {
    from: mpsc::Receiver<io::Result<Bytes>>,
    chunk: Bytes,
    ended: bool,
}

/// Where the buffers of an [`Inlet`] are put in; an empty one is the end.
pub(crate) type Supply = mpsc::Sender<io::Result<Bytes>>;

/// A way into a thread.
pub(crate) fn inlet() -> (Supply, Inlet) {
    let (to, from) = mpsc::channel(DEPTH);
    (to, Inlet { from, chunk: Bytes::new(), ended: false })
}

impl Inlet {
    /// The next buffer; `None` at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Bytes>> {
        if self.ended {
            return Ok(None);
        }
        let bytes =
            self.from.blocking_recv().unwrap_or_else(|| Err(io::Error::other("a stage of the transfer has died")))?;
        self.ended = bytes.is_empty();
        Ok(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }
}

impl Read for Inlet {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.chunk.is_empty() {
            match self.next()? {
                Some(chunk) => self.chunk = chunk,
                None => return Ok(0),
            }
        }
        let taken = buffer.len().min(self.chunk.len());
        buffer[..taken].copy_from_slice(&self.chunk.split_to(taken));
        Ok(taken)
    }
}

/// Has a thread read ahead of whoever reads here.
pub(crate) fn ahead(mut reader: Box<dyn Read + Send>) -> Inlet {
    let (supply, inlet) = inlet();
    thread::spawn(move || {
        let pool = Pool::new(CHUNK);
        loop {
            let mut buffer = pool.take();
            let (filled, ended) = fill(&mut reader, &mut buffer);
            // What was read before the end or an error is given before it.
            if filled > 0 && supply.blocking_send(Ok(pool.share(buffer, filled))).is_err() {
                return;
            }
            let last = match ended {
                Ok(false) => continue,
                Ok(true) => Ok(Bytes::new()),
                Err(error) => Err(error),
            };
            let _ = supply.blocking_send(last);
            return;
        }
    });
    inlet
}

/// Fills `buffer` as far as the input goes: pipes give little at a time, and few large buffers are cheaper. Returns how
/// far, and whether the input has ended.
pub(crate) fn fill(input: &mut dyn Read, buffer: &mut [u8]) -> (usize, io::Result<bool>) {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => return (filled, Ok(true)),
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (filled, Err(error)),
        }
    }
    (filled, Ok(false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::tests::encode;

    /// Fails at, or dies of, its first buffer.
    struct Bad(bool);

    impl Write for Bad {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            assert!(!self.0, "this is meant to happen");
            Err(io::Error::other("the disk is full"))
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Stage for Bad {
        fn finish(self: Box<Self>) -> io::Result<()> {
            Ok(())
        }
    }

    fn plain() -> Vec<u8> {
        (0..3 * CHUNK + 7).map(|at| (at * 7 % 251) as u8).collect()
    }

    #[test]
    fn bytes_pass_through_threads_in_order() {
        assert!(encode(&plain(), |next| relay(relay(next))) == plain());
        let mut back = Vec::new();
        ahead(Box::new(ahead(Box::new(io::Cursor::new(plain()))))).read_to_end(&mut back).unwrap();
        assert!(back == plain());
    }

    #[test]
    fn the_error_of_a_later_stage_is_the_one_that_is_told() {
        for (dies, told) in [(false, "the disk is full"), (true, "has died")] {
            let mut link = relay(relay(Box::new(Bad(dies))));
            let pushed = (0..100).try_for_each(|_| link.take(Bytes::from(vec![1; CHUNK])));
            let error = pushed.and_then(|()| link.finish()).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn a_stage_that_dies_is_not_taken_for_the_end() {
        struct Mortal(usize);
        impl Read for Mortal {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0 += 1;
                assert!(self.0 < 3, "this is meant to happen");
                Ok(buffer.len())
            }
        }
        let error = ahead(Box::new(Mortal(0))).read_to_end(&mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains("has died"), "{error}");
    }

    #[test]
    fn what_comes_before_an_error_is_given() {
        struct Failing;
        impl Read for Failing {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("no more"))
            }
        }
        let broken = io::Cursor::new(b"good".to_vec()).chain(Failing);
        let (mut reader, mut back) = (ahead(Box::new(broken)), Vec::new());
        assert_eq!(reader.read_to_end(&mut back).unwrap_err().to_string(), "no more");
        assert_eq!(back, b"good");
    }
}
