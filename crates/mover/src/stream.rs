//! The pipe: read, compress, encrypt, hash and store as stages over bounded buffers.
//!
//! A thread of its own reads and transforms; the task that stores runs beside it. Between them lie at most [`DEPTH`]
//! buffers, so that memory does not depend on the amount of data.

use std::io::{self, Read, Write};
use std::path::Path;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::{self, Receiver, Sender};

use crate::codec::crypt::Encryption;
use crate::codec::{Compression, Link, Stage};
use crate::error::{Cause, Error, Result};
use crate::manifest::Progress;
use crate::pool::Pool;
use crate::signal::Stop;
use crate::storage::{self, Sink, Source};

/// Size of a buffer.
const CHUNK: usize = 512 << 10;
/// Buffers between two stages.
const DEPTH: usize = 6;
/// How long a write that is under way may take to settle when a signal asks to stop.
const SETTLE: Duration = Duration::from_secs(5);

/// Size and digest of what was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) size: u64,
    pub(crate) blake3: String,
}

/// What happens to the bytes on their way.
#[derive(Clone, Default)]
pub(crate) struct Transform {
    pub(crate) compression: Option<Compression>,
    pub(crate) encryption: Option<Encryption>,
}

/// What a push reads.
pub(crate) struct Input {
    /// For error messages.
    pub(crate) name: String,
    pub(crate) reader: Box<dyn Read + Send>,
}

/// The last link of a push: hashes, and hands buffers over to the task that stores them.
struct Outlet {
    to: Sender<Bytes>,
    pool: Pool,
    buffer: Vec<u8>,
    filled: usize,
    hasher: blake3::Hasher,
    size: u64,
    progress: Option<Progress>,
    done: std::sync::mpsc::Sender<Written>,
}

impl Outlet {
    fn send(&mut self, bytes: Bytes) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.hasher.update(&bytes);
        self.size += bytes.len() as u64;
        if let Some(progress) = &mut self.progress {
            progress.at(self.size);
        }
        // The other side hangs up when storing has failed; its error is the one that counts.
        self.to.blocking_send(bytes).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Outlet {
    fn send_waiting(&mut self) -> io::Result<()> {
        let waiting = self.pool.share(std::mem::take(&mut self.buffer), self.filled);
        self.filled = 0;
        self.send(waiting)
    }
}

impl Write for Outlet {
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

impl Stage for Outlet {
    fn take(&mut self, bytes: Bytes) -> io::Result<()> {
        self.send_waiting()?;
        self.send(bytes)
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.send_waiting()?;
        if let Some(progress) = &self.progress {
            progress.ended(self.size);
        }
        let _ = self.done.send(Written { size: self.size, blake3: self.hasher.finalize().to_hex().to_string() });
        Ok(())
    }
}

/// Sends everything that `input` yields into `sink` and commits it. `progress` is told how far it is.
///
/// # Errors
/// The first failure of any stage, or a signal; the sink is aborted then.
pub(crate) async fn push(
    input: Input,
    transform: Transform,
    mut sink: Sink,
    stop: &mut Stop,
    progress: Option<Progress>,
) -> Result<Written> {
    let told = progress.as_ref().map(Progress::file);
    let (to, mut from) = mpsc::channel::<Bytes>(DEPTH);
    let (done, written) = std::sync::mpsc::channel();
    let outlet = Outlet {
        to,
        pool: Pool::new(CHUNK),
        buffer: Vec::new(),
        filled: 0,
        hasher: blake3::Hasher::new(),
        size: 0,
        progress,
        done,
    };
    let (failed, failure) = tokio::sync::oneshot::channel();
    thread::spawn(move || {
        let _ = failed.send(feed(input, transform, Box::new(outlet)));
    });
    let result = store(&mut from, &mut sink, stop).await;
    drop(from);
    let result = match result {
        // The feeder's channel is closed, so it has ended or is about to.
        Ok(()) => failure.await.unwrap_or_else(|_| Err(Error::other("the transforming thread has died"))),
        Err(error) => Err(error),
    };
    match result {
        Ok(()) => {
            sink.commit().await?;
            written.try_recv().map_err(|_| Error::other("the transforming thread gave no digest"))
        }
        Err(error) => {
            sink.abort().await;
            if let Some(file) = told {
                Progress::failed(&file);
            }
            Err(error)
        }
    }
}

async fn store(from: &mut Receiver<Bytes>, sink: &mut Sink, stop: &mut Stop) -> Result<()> {
    loop {
        let chunk = tokio::select! {
            biased;
            error = stop.asked() => return Err(error),
            chunk = from.recv() => chunk,
        };
        let Some(chunk) = chunk else { return Ok(()) };
        let mut write = std::pin::pin!(sink.write(chunk));
        tokio::select! {
            biased;
            error = stop.asked() => {
                // Cut off in the middle, an upload that the server has just begun could not be aborted: its name would
                // never arrive here.
                if tokio::time::timeout(SETTLE, &mut write).await.is_err() {
                    // Failed rather than dropped, for the same reason.
                    storage::cut_off();
                    let _ = tokio::time::timeout(SETTLE, write).await;
                }
                return Err(error);
            }
            written = &mut write => written?,
        }
    }
}

/// Reads, compresses, encrypts. Runs in a thread, because all of it blocks.
fn feed(mut input: Input, transform: Transform, outlet: Link) -> Result<()> {
    let broken = |error: io::Error| Error::other(crate::error::reason(&error));
    let mut chain: Link = outlet;
    if let Some(encryption) = transform.encryption {
        chain = encryption.encrypt(chain).map_err(broken)?;
    }
    if let Some(compression) = transform.compression {
        chain = compression.encode(chain);
    }
    let pool = Pool::new(CHUNK);
    loop {
        let mut buffer = pool.take();
        let filled = read_full(&mut input.reader, &mut buffer)
            .map_err(|error| Error::file("read", Path::new(&input.name), &error))?;
        chain.take(pool.share(buffer, filled)).map_err(broken)?;
        if filled < CHUNK {
            return chain.finish().map_err(broken);
        }
    }
}

/// Fills `buffer` as far as the input goes: pipes give little at a time, and few large buffers are cheaper.
fn read_full(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Where a pull writes.
pub(crate) enum Output {
    Stdout,
    File(std::fs::File, std::path::PathBuf),
    /// Nowhere: the bytes are only decoded.
    Nothing,
}

impl Output {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let (written, path) = match self {
            Self::Stdout => (io::stdout().lock().write_all(bytes), Path::new("/dev/stdout")),
            Self::File(file, path) => (file.write_all(bytes), path.as_path()),
            Self::Nothing => return Ok(()),
        };
        written.map_err(|error| Error::file("write", path, &error))
    }

    fn finish(&mut self) -> Result<()> {
        match self {
            Self::Stdout => {
                io::stdout().lock().flush().map_err(|error| Error::file("write", Path::new("/dev/stdout"), &error))
            }
            _ => Ok(()),
        }
    }
}

/// Sends an object through the stages backwards into `output`. Returns what the stored bytes were.
///
/// # Errors
/// The first failure of any stage.
pub(crate) async fn pull(mut source: Source, transform: Transform, mut output: Output) -> Result<Written> {
    let (to, from) = mpsc::channel::<Result<Bytes>>(DEPTH);
    let writer = thread::spawn(move || -> Result<()> {
        drain(from, &transform, &mut output)?;
        output.finish()
    });
    let mut hasher = blake3::Hasher::new();
    let mut size = 0;
    let fetched = loop {
        match source.next().await {
            Ok(Some(bytes)) => {
                hasher.update(&bytes);
                size += bytes.len() as u64;
                if to.send(Ok(bytes)).await.is_err() {
                    break Ok(());
                }
            }
            Ok(None) => break Ok(()),
            Err(error) => {
                // The writer must not take this for the end.
                let _ = to.send(Err(error.clone())).await;
                break Err(error);
            }
        }
    };
    drop(to);
    let written = writer.join().unwrap_or_else(|_| Err(Error::other("the writing thread has died")));
    fetched.and(written)?;
    Ok(Written { size, blake3: hasher.finalize().to_hex().to_string() })
}

/// Decrypts, decompresses, writes. Runs in a thread, because all of it blocks.
fn drain(from: Receiver<Result<Bytes>>, transform: &Transform, output: &mut Output) -> Result<()> {
    let mut input = Inlet { from, chunk: Bytes::new() };
    if transform.compression.is_none() && transform.encryption.is_none() {
        while let Some(chunk) = input.from.blocking_recv() {
            output.write(&chunk?)?;
        }
        return Ok(());
    }
    let mut reader: Box<dyn Read + Send> = Box::new(input);
    if let Some(encryption) = &transform.encryption {
        reader = encryption.decrypt(reader).map_err(undo)?;
    }
    if let Some(compression) = transform.compression {
        reader = compression.decode(reader).map_err(undo)?;
    }
    let mut buffer = vec![0; CHUNK];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => output.write(&buffer[..read])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(undo(error)),
        }
    }
}

/// An error that passed through a decoder, as it was before.
fn undo(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(ours) => ours,
        Err(error) => Error::new(Cause::Damaged, error.to_string()),
    }
}

/// What arrives from the store, as a reader.
struct Inlet {
    from: Receiver<Result<Bytes>>,
    chunk: Bytes,
}

impl Read for Inlet {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.from.blocking_recv() {
                None => return Ok(0),
                Some(Ok(chunk)) => self.chunk = chunk,
                Some(Err(error)) => return Err(io::Error::other(error)),
            }
        }
        let taken = buffer.len().min(self.chunk.len());
        buffer[..taken].copy_from_slice(&self.chunk.split_to(taken));
        Ok(taken)
    }
}
