//! The pipe: read, compress, encrypt, hash and store as stages over bounded buffers.
//!
//! Each stage has a thread of its own, see [`crate::relay`]; the task that fetches or stores runs beside them. A few buffers
//! lie between two stages, so that memory does not depend on the amount of data.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::{self, Receiver, Sender};

use crate::codec::crypt::Encryption;
use crate::codec::{Compression, Link, Stage};
use crate::commands::once::Digest;
use crate::error::{Cause, Error, Result};
use crate::manifest::Progress;
use crate::pool::Pool;
use crate::relay::{CHUNK, DEPTH, Inlet, ahead, fill, inlet, relay};
use crate::signal::Stop;
use crate::storage::{self, Sink, Source};

/// What a pipe may hold: the more, the less often the programs at its ends wait for each other.
const PIPE: usize = 1 << 20;
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

impl Input {
    /// Standard input, without the buffer that the standard library puts in front of it.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn stdin() -> Result<Self> {
        let (file, path) = standard(io::stdin().as_fd(), "/dev/stdin")?;
        Ok(Self { name: path.display().to_string(), reader: Box::new(file) })
    }
}

/// An end of a pipe, or whatever it is, as a file.
fn standard(fd: BorrowedFd<'_>, path: &str) -> Result<(File, PathBuf)> {
    let path = PathBuf::from(path);
    let own = fd.try_clone_to_owned().map_err(|error| Error::file("open", &path, &error))?;
    // Refused for what is no pipe, and beyond what the user may have.
    let _ = rustix::pipe::fcntl_setpipe_size(&own, PIPE);
    Ok((File::from(own), path))
}

/// The last link of a push: hashes, and hands buffers over to the task that stores them.
struct Outlet {
    to: Sender<Bytes>,
    hasher: blake3::Hasher,
    size: u64,
    progress: Option<Progress>,
    done: std::sync::mpsc::Sender<Written>,
}

impl Write for Outlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.take(Bytes::copy_from_slice(bytes)).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stage for Outlet {
    fn take(&mut self, bytes: Bytes) -> io::Result<()> {
        self.hasher.update(&bytes);
        self.size += bytes.len() as u64;
        if let Some(progress) = &mut self.progress {
            progress.at(self.size);
        }
        // The other side hangs up when storing has failed; its error is the one that counts.
        self.to.blocking_send(bytes).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn finish(self: Box<Self>) -> io::Result<()> {
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
    let outlet = Outlet { to, hasher: blake3::Hasher::new(), size: 0, progress, done };
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

/// Reads into the stages. Runs in a thread, because all of it blocks.
fn feed(mut input: Input, transform: Transform, outlet: Link) -> Result<()> {
    let broken = |error: io::Error| Error::other(crate::error::reason(&error));
    let mut chain = relay(outlet);
    if let Some(encryption) = transform.encryption {
        chain = relay(encryption.encrypt(chain).map_err(broken)?);
    }
    if let Some(compression) = transform.compression {
        chain = relay(compression.encode(chain));
    }
    let pool = Pool::new(CHUNK);
    loop {
        let mut buffer = pool.take();
        let (filled, ended) = fill(&mut input.reader, &mut buffer);
        let ended = ended.map_err(|error| Error::file("read", Path::new(&input.name), &error))?;
        chain.take(pool.share(buffer, filled)).map_err(broken)?;
        if ended {
            return chain.finish().map_err(broken);
        }
    }
}

/// Where a pull writes.
pub(crate) enum Output {
    File(File, PathBuf),
    /// Nowhere: the bytes are only decoded.
    Nothing,
    /// Nowhere, but what they are is wanted.
    Digest(Digest),
}

impl Output {
    /// Standard output, without the search for lines that the standard library does.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn stdout() -> Result<Self> {
        standard(io::stdout().as_fd(), "/dev/stdout").map(|(file, path)| Self::File(file, path))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Self::File(file, path) => file.write_all(bytes).map_err(|error| Error::file("write", path, &error)),
            Self::Nothing => Ok(()),
            Self::Digest(digest) => {
                digest.update(bytes);
                Ok(())
            }
        }
    }
}

/// Sends an object through the stages backwards into `output`. Returns what the stored bytes were.
///
/// # Errors
/// The first failure of any stage.
pub(crate) async fn pull(source: Source, transform: Transform, output: Output) -> Result<Written> {
    let mut hasher = blake3::Hasher::new();
    let mut size = 0;
    let see = |bytes: &Bytes| {
        hasher.update(bytes);
        size += bytes.len() as u64;
    };
    fetch(source, transform, output, see).await?;
    Ok(Written { size, blake3: hasher.finalize().to_hex().to_string() })
}

/// The same for an object of which nothing is known that the stored bytes could be compared with.
///
/// # Errors
/// The same.
pub(crate) async fn pull_unknown(source: Source, transform: Transform, output: Output) -> Result<()> {
    fetch(source, transform, output, |_| ()).await
}

/// Sends an object through the stages backwards, and shows the stored bytes to `see`.
async fn fetch(mut source: Source, transform: Transform, output: Output, mut see: impl FnMut(&Bytes)) -> Result<()> {
    let (to, from) = inlet();
    let writer = thread::spawn(move || drain(from, &transform, output));
    let fetched = loop {
        match source.next().await {
            Ok(Some(bytes)) if bytes.is_empty() => {}
            Ok(Some(bytes)) => {
                see(&bytes);
                if to.send(Ok(bytes)).await.is_err() {
                    break Ok(());
                }
            }
            Ok(None) => {
                let _ = to.send(Ok(Bytes::new())).await;
                break Ok(());
            }
            Err(error) => {
                // The writer must not take this for the end.
                let _ = to.send(Err(io::Error::other(error.clone()))).await;
                break Err(error);
            }
        }
    };
    drop(to);
    let written = writer.join().unwrap_or_else(|_| Err(Error::other("the writing thread has died")));
    fetched.and(written)
}

/// Decrypts, decompresses, writes. Runs in a thread, because all of it blocks.
fn drain(mut input: Inlet, transform: &Transform, mut output: Output) -> Result<()> {
    if let Some(encryption) = &transform.encryption {
        input = ahead(encryption.decrypt(Box::new(input)).map_err(undo)?);
    }
    if let Some(compression) = transform.compression {
        input = ahead(compression.decode(Box::new(input)).map_err(undo)?);
    }
    while let Some(bytes) = input.next().map_err(undo)? {
        output.write(&bytes)?;
    }
    Ok(())
}

/// An error that passed through decoders, as it was before.
fn undo(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(ours) => ours,
        Err(error) => Error::new(Cause::Damaged, error.to_string()),
    }
}
