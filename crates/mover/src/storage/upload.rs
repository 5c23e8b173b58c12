//! Objects on their way into a store: in parts, each sent again from its buffer, and nothing visible before the last.
//!
//! A store allows some thousand parts per object, and 5 TiB in 10,000 parts would be parts of half a gigabyte, each held in
//! memory. So the first parts go straight into the object, and what follows is collected in segments: objects of their own,
//! hidden, which the store then copies into the object without moving their bytes through here. A store that cannot copy
//! gets growing parts instead.

use std::time::Duration;

use bytes::Bytes;
use opendal::{Buffer, ErrorKind, Metadata, Operator, Writer};

use super::remote::{explain, failure};
use super::{TEMPORARY, exists};
use crate::error::{Error, Result};
use crate::output;
use crate::rpath::{join, split};

/// What uploads to one kind of store may look like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Size of a part.
    pub(super) part: usize,
    /// Parts under way at once.
    pub(super) parallel: usize,
    /// Most parts an object may have.
    pub(super) parts: usize,
    /// Parts that go straight into the object.
    pub(super) direct: usize,
    /// Parts of a segment.
    pub(super) segment: usize,
    /// Largest piece of a segment that is copied at once.
    pub(super) copy: u64,
    /// Most bytes an object may have.
    pub(super) object: u64,
}

impl Limits {
    /// 39 GiB go straight into the object; segments have 78 GiB, copied in 40 pieces: the 5,000 parts that are left reach
    /// far beyond the 5 TiB that an object may have.
    pub(super) const S3: Self = Self {
        part: 8 << 20,
        parallel: 3,
        parts: 10_000,
        direct: 5000,
        segment: 10_000,
        copy: 2 << 30,
        object: 5 << 40,
    };

    /// 50,000 blocks, of which 40,000 keep their size: 312 GiB.
    pub(super) const AZURE: Self = Self {
        part: 8 << 20,
        parallel: 3,
        parts: 50_000,
        direct: 40_000,
        segment: 40_000,
        copy: 2 << 30,
        object: 190 << 40,
    };
    pub(super) const GCS: Self = Self::S3;

    fn too_large(self) -> Error {
        Error::other(format!("the object is larger than {} TiB, the most that this store can hold", self.object >> 40))
    }

    fn too_many(self) -> Error {
        Error::other(format!("the object needs more than {} parts, the most that this store can hold", self.parts))
    }

    /// Size of the part with this number, from 0, where segments cannot be had.
    fn growing(self, number: usize) -> usize {
        let behind = number.saturating_sub(self.direct);
        let step = ((self.parts - self.direct) / 8).max(1);
        self.part << if number < self.direct { 0 } else { (behind / step + 1).min(8) }
    }
}

/// Up to this size an object is sent without asking first whether anybody answers.
const SMALL: usize = 1 << 20;

/// Where parts go.
enum Route {
    /// Into the object.
    Direct,
    /// Into segments.
    Segments(Option<Segment>),
    /// Into the object, growing.
    Growing,
}

struct Segment {
    key: String,
    writer: Writer,
    parts: usize,
    size: u64,
}

/// An object being written.
pub(crate) struct Upload {
    quick: Operator,
    patient: Operator,
    key: String,
    limits: Limits,
    writer: Option<Writer>,
    /// Bytes handed over so far.
    size: u64,
    /// The object that lay there before.
    before: Option<Metadata>,
    /// Parts of the object so far.
    number: usize,
    route: Route,
    /// Keys of the segments so far; they are removed at the end.
    segments: Vec<String>,
    part: Vec<Bytes>,
    filled: usize,
    /// Whether nothing may lie under the key yet.
    pub(super) once: bool,
}

impl Upload {
    pub(super) fn new(quick: Operator, patient: Operator, key: &str, limits: Limits) -> Self {
        Self {
            quick,
            patient,
            key: key.to_owned(),
            limits,
            writer: None,
            size: 0,
            before: None,
            number: 0,
            route: Route::Direct,
            segments: Vec::new(),
            part: Vec::new(),
            filled: 0,
            once: false,
        }
    }

    fn part_size(&self) -> usize {
        match self.route {
            Route::Growing => self.limits.growing(self.number),
            _ => self.limits.part,
        }
    }

    pub(super) async fn write(&mut self, mut bytes: Bytes) -> Result<()> {
        self.size += bytes.len() as u64;
        if self.size > self.limits.object {
            return Err(self.limits.too_large());
        }
        while !bytes.is_empty() {
            let piece = bytes.split_to((self.part_size() - self.filled).min(bytes.len()));
            self.filled += piece.len();
            self.part.push(piece);
            if self.filled == self.part_size() {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// Sends the filled part; it stays in memory until the server has it, so that it can be sent again.
    async fn flush(&mut self) -> Result<()> {
        if self.number == self.limits.direct && matches!(self.route, Route::Direct) {
            self.route = if self.can_copy().await { Route::Segments(None) } else { Route::Growing };
        }
        let part = Buffer::from(std::mem::take(&mut self.part));
        self.filled = 0;
        if matches!(self.route, Route::Segments(_)) {
            return self.flush_to_segment(part).await;
        }
        if self.number >= self.limits.parts {
            return Err(self.limits.too_many());
        }
        if self.writer.is_none() {
            self.look().await?;
            self.writer = Some(self.begin(&self.key).await?);
        }
        self.number += 1;
        match &mut self.writer {
            Some(writer) => writer.write(part).await.map_err(|error| failure(&error)),
            None => Ok(()),
        }
    }

    /// Looks at what is there before the patient writer starts: a dead endpoint is named quickly.
    async fn look(&mut self) -> Result<()> {
        self.before = match self.quick.stat(&self.key).await {
            Ok(meta) => Some(meta),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(explain(&self.quick, &self.key, &error).await),
        };
        Ok(())
    }

    async fn begin(&self, key: &str) -> Result<Writer> {
        self.patient.writer_with(key).concurrent(self.limits.parallel).await.map_err(|error| failure(&error))
    }

    fn new_segment_key(&self) -> String {
        join(split(&self.key).0, &format!("{TEMPORARY}{:016x}", rand::random::<u64>()))
    }

    async fn flush_to_segment(&mut self, part: Buffer) -> Result<()> {
        let Route::Segments(current) = &mut self.route else { return Ok(()) };
        let mut segment = if let Some(segment) = current.take() {
            segment
        } else {
            let key = self.new_segment_key();
            self.segments.push(key.clone());
            Segment { writer: self.begin(&key).await?, key, parts: 0, size: 0 }
        };
        segment.size += part.len() as u64;
        segment.parts += 1;
        let full = segment.parts == self.limits.segment;
        let written = segment.writer.write(part).await.map_err(|error| failure(&error));
        self.route = Route::Segments(Some(segment));
        written?;
        if full { self.copy_segment().await } else { Ok(()) }
    }

    /// Completes the current segment and has the store copy it into the object.
    async fn copy_segment(&mut self) -> Result<()> {
        let Route::Segments(current) = &mut self.route else { return Ok(()) };
        let Some(segment) = current else { return Ok(()) };
        // Closed in place, so that a failure leaves it to be aborted.
        segment.writer.close().await.map_err(|error| failure(&error))?;
        let Some(segment) = current.take() else { return Ok(()) };
        let Some(writer) = &mut self.writer else { return Err(Error::other("a segment without an object")) };
        let mut at = 0;
        while at < segment.size {
            let end = (at + self.limits.copy).min(segment.size);
            if self.number >= self.limits.parts {
                return Err(self.limits.too_many());
            }
            self.number += 1;
            writer.copy_from(&segment.key, at..end).await.map_err(|error| failure(&error))?;
            at = end;
        }
        Ok(())
    }

    /// Whether the store can copy a part from another object: tried on two small ones, because too late it would cost
    /// everything sent so far.
    async fn can_copy(&self) -> bool {
        if !self.quick.info().capability().write_can_copy_from {
            return false;
        }
        let (from, to) = (self.new_segment_key(), self.new_segment_key());
        let size = self.limits.part;
        let attempt = async {
            self.quick.write(&from, vec![0u8; size]).await?;
            let mut writer = self.quick.writer(&to).await?;
            let copied = match writer.copy_from(&from, 0..size as u64).await {
                Ok(()) => writer.close().await.map(drop),
                Err(error) => Err(error),
            };
            if copied.is_err() {
                let _ = writer.abort().await;
            }
            copied
        };
        let outcome: opendal::Result<()> = attempt.await;
        let _ = self.quick.delete(&from).await;
        let _ = self.quick.delete(&to).await;
        if let Err(error) = &outcome {
            output::note(&format!(
                "NOTICE: {}: the store cannot copy parts, so they grow from here, and with them the memory: {error}",
                self.key
            ));
        }
        outcome.is_ok()
    }

    pub(super) async fn commit(mut self) -> Result<()> {
        if self.writer.is_none() && self.part_size() > self.filled {
            let whole = Buffer::from(std::mem::take(&mut self.part));
            if self.once {
                return self.put_once(whole).await;
            }
            let operator = if whole.len() > SMALL {
                self.look().await?;
                &self.patient
            } else {
                &self.quick
            };
            return operator.write(&self.key, whole).await.map(drop).map_err(|error| failure(&error));
        }
        let mut result = if self.once && self.is_taken().await { Err(exists()) } else { self.complete().await };
        if result.is_err() {
            if !self.once && self.is_done().await {
                result = Ok(());
            } else {
                self.abandon().await;
            }
        }
        self.remove_segments().await;
        result
    }

    /// One request that the server refuses when the key is taken; where it cannot, we look, which leaves a moment between.
    async fn put_once(&self, whole: Buffer) -> Result<()> {
        use ErrorKind::{AlreadyExists, ConditionNotMatch, Unsupported};
        match self.patient.write_with(&self.key, whole.clone()).if_not_exists(true).await {
            Ok(_) => Ok(()),
            Err(error) if matches!(error.kind(), ConditionNotMatch | AlreadyExists) => Err(exists()),
            Err(error) if error.kind() == Unsupported || error.to_string().contains("NotImplemented") => {
                if self.is_taken().await {
                    return Err(exists());
                }
                self.patient.write(&self.key, whole).await.map(drop).map_err(|error| failure(&error))
            }
            Err(error) => Err(failure(&error)),
        }
    }

    async fn is_taken(&self) -> bool {
        self.quick.stat(&self.key).await.is_ok()
    }

    async fn complete(&mut self) -> Result<()> {
        if self.filled > 0 {
            self.flush().await?;
        }
        self.copy_segment().await?;
        match &mut self.writer {
            Some(writer) => writer.close().await.map(drop).map_err(|error| failure(&error)),
            None => Ok(()),
        }
    }

    /// Whether the store has finished the object although it said otherwise, or nothing: its answer was lost on the way,
    /// and it does not know the upload any more when it is asked again. Nobody but us could have put an object of just
    /// this size there meanwhile, or has as good a right to it.
    async fn is_done(&self) -> bool {
        let version = |meta: &Metadata| (meta.etag().map(str::to_owned), meta.last_modified());
        match self.quick.stat(&self.key).await {
            Ok(now) => {
                now.content_length() == self.size
                    && self.before.as_ref().is_none_or(|before| version(before) != version(&now))
            }
            Err(_) => false,
        }
    }

    async fn abandon(&mut self) {
        if let Route::Segments(Some(segment)) = &mut self.route {
            let _ = segment.writer.abort().await;
        }
        if let Some(writer) = &mut self.writer {
            let _ = writer.abort().await;
        }
    }

    async fn remove_segments(&mut self) {
        for key in std::mem::take(&mut self.segments) {
            // A segment that stays is hidden, and goes with the directory or at the next seal.
            let _ = self.quick.delete(&key).await;
        }
    }

    pub(super) async fn abort(mut self) {
        // Short, because whoever stops us will not wait for long.
        let _ = tokio::time::timeout(Duration::from_secs(10), async {
            self.abandon().await;
            self.remove_segments().await;
        })
        .await;
    }
}

#[cfg(test)]
mod arithmetic;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ini::Ini;
    use crate::storage::{Depth, Found, Store};
    use crate::testing::{self, reach};

    /// An endpoint inside of this process.
    async fn endpoint(root: &std::path::Path) -> Store {
        let ini = reach(testing::endpoint(root).await);
        Store::open(&Ini::parse(&ini).unwrap()).unwrap()
    }

    async fn keys(store: &Store) -> Vec<String> {
        let mut keys = Vec::new();
        let mut visit = |entries: Vec<super::super::Entry>| {
            keys.extend(entries.into_iter().filter(|entry| !entry.dir).map(|entry| entry.key));
            Ok(())
        };
        store.walk("", Depth::All, &mut visit).await.unwrap();
        keys
    }

    fn upload(store: &Store, limits: Limits) -> Upload {
        let Store::Remote(remote) = store else { panic!("a remote store") };
        let mut upload = remote.create("dir/object").unwrap();
        upload.limits = limits;
        upload
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn objects_beyond_the_direct_parts_are_put_together_from_segments() {
        let dir = tempfile::tempdir().unwrap();
        let store = endpoint(dir.path()).await;
        let part = 5 << 20;
        let limits = Limits { part, parallel: 2, parts: 100, direct: 2, segment: 2, copy: 6 << 20, object: 1 << 40 };
        let bytes: Vec<u8> = (0..9 * part + 12_345).map(|at| (at * 31 % 251) as u8).collect();
        let mut upload = upload(&store, limits);
        for piece in bytes.chunks(777_777) {
            upload.write(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        assert!(matches!(store.lookup("dir/object").await.unwrap(), Found::Missing));
        upload.commit().await.unwrap();
        assert!(store.get("dir/object", u64::MAX).await.unwrap().unwrap() == bytes);
        assert_eq!(keys(&store).await, ["dir/object"]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_abandoned_upload_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = endpoint(dir.path()).await;
        let limits =
            Limits { part: 5 << 20, parallel: 2, parts: 100, direct: 1, segment: 2, copy: 6 << 20, object: 1 << 40 };
        let mut upload = upload(&store, limits);
        for _ in 0..6 {
            upload.write(Bytes::from(vec![1; 5 << 20])).await.unwrap();
        }
        upload.abort().await;
        assert_eq!(keys(&store).await, Vec::<String>::new());
    }
}
