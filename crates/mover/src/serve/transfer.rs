//! Request bodies into files, with the checks that the client asked for.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::TryStreamExt;
use md5::{Digest, Md5};
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Crc32, Crc32c, Crc64Nvme, Sha1, Sha256};
use s3s::dto::StreamingBlob;
use s3s::{S3Result, TrailingHeaders, s3_error};
use tokio::sync::mpsc;

use super::disk::io_error;

/// Digests that a request announces in its head; those of its tail are added when the body has been read.
#[derive(Default)]
pub(super) struct Announced {
    pub(super) md5: Option<String>,
    pub(super) crc32: Option<String>,
    pub(super) crc32c: Option<String>,
    pub(super) crc64nvme: Option<String>,
    pub(super) sha1: Option<String>,
    pub(super) sha256: Option<String>,
    /// Algorithm of a digest that comes behind the body.
    pub(super) algorithm: Option<String>,
    pub(super) tail: Option<TrailingHeaders>,
    /// Size of the body, when the request says it.
    pub(super) size: Option<u64>,
}

impl Announced {
    fn hasher(&self) -> ChecksumHasher {
        let wants = |digest: &Option<String>, name: &str| {
            digest.is_some() || self.algorithm.as_deref().is_some_and(|algorithm| algorithm.eq_ignore_ascii_case(name))
        };
        let mut hasher = ChecksumHasher::default();
        if wants(&self.crc32, "CRC32") {
            hasher.crc32 = Some(Crc32::default());
        }
        if wants(&self.crc32c, "CRC32C") {
            hasher.crc32c = Some(Crc32c::default());
        }
        if wants(&self.crc64nvme, "CRC64NVME") {
            hasher.crc64nvme = Some(Crc64Nvme::default());
        }
        if wants(&self.sha1, "SHA1") {
            hasher.sha1 = Some(Sha1::default());
        }
        if wants(&self.sha256, "SHA256") {
            hasher.sha256 = Some(Sha256::default());
        }
        hasher
    }

    /// A digest from the head of the request, or from its tail.
    fn digest(&self, head: Option<&String>, tail: &str) -> Option<String> {
        head.cloned().or_else(|| {
            self.tail.as_ref()?.read(|headers| Some(headers.get(tail)?.to_str().ok()?.to_owned())).flatten()
        })
    }
}

/// How long a body may say nothing. A client whose node is gone, or whose proxy forgot it, never ends its request, and the
/// space that it took would be held as long as this process runs.
const SILENCE: Duration = Duration::from_mins(2);

/// Writes a body at an offset of a file and checks it. Returns its size. Nothing is synced.
pub(super) async fn receive(
    body: Option<StreamingBlob>,
    file: impl Deref<Target = File> + Send + 'static,
    offset: u64,
    announced: &Announced,
) -> S3Result<u64> {
    receive_within(SILENCE, body, file, offset, announced).await
}

async fn receive_within(
    silence: Duration,
    body: Option<StreamingBlob>,
    file: impl Deref<Target = File> + Send + 'static,
    offset: u64,
    announced: &Announced,
) -> S3Result<u64> {
    let Some(mut body) = body else {
        return if announced.size.unwrap_or(0) == 0 { Ok(0) } else { Err(s3_error!(IncompleteBody)) };
    };
    // One blocking task per body: a hop per buffer instead of one per write.
    let (to, mut from) = mpsc::channel::<Bytes>(8);
    let writer = tokio::task::spawn_blocking(move || -> io::Result<u64> {
        let mut at = offset;
        while let Some(bytes) = from.blocking_recv() {
            file.write_all_at(&bytes, at)?;
            at += bytes.len() as u64;
        }
        Ok(at - offset)
    });
    let mut md5 = announced.md5.as_ref().map(|_| Md5::new());
    let mut hasher = announced.hasher();
    // After a failed write the rest is read all the same: a client that is cut off while it sends would not hear why.
    let mut writes = true;
    let received = loop {
        let Ok(next) = tokio::time::timeout(silence, body.try_next()).await else {
            break Err(s3_error!(RequestTimeout, "nothing came for {} seconds", silence.as_secs()));
        };
        match next {
            Ok(Some(bytes)) => {
                if let Some(md5) = &mut md5 {
                    md5.update(&bytes);
                }
                hasher.update(&bytes);
                if writes {
                    writes = to.send(bytes).await.is_ok();
                }
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(s3_error!(IncompleteBody, "{error}")),
        }
    };
    drop(to);
    let written = writer.await.map_err(|error| s3_error!(InternalError, "{error}"))?;
    received?;
    let size = written.map_err(|error| io_error(&error))?;
    if announced.size.is_some_and(|announced| announced != size) {
        return Err(s3_error!(IncompleteBody));
    }
    if let (Some(md5), Some(announced)) = (md5, &announced.md5)
        && STANDARD.encode(md5.finalize()) != *announced
    {
        return Err(s3_error!(BadDigest));
    }
    let found = hasher.finalize();
    for (found, head, tail) in [
        (found.checksum_crc32, &announced.crc32, "x-amz-checksum-crc32"),
        (found.checksum_crc32c, &announced.crc32c, "x-amz-checksum-crc32c"),
        (found.checksum_crc64nvme, &announced.crc64nvme, "x-amz-checksum-crc64nvme"),
        (found.checksum_sha1, &announced.sha1, "x-amz-checksum-sha1"),
        (found.checksum_sha256, &announced.sha256, "x-amz-checksum-sha256"),
    ] {
        if let (Some(found), Some(announced)) = (found, announced.digest(head.as_ref(), tail))
            && found != announced
        {
            return Err(s3_error!(BadDigest, "{tail} does not match"));
        }
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use futures::stream::{once, pending};
    use s3s::S3ErrorCode;

    use super::*;

    #[tokio::test]
    async fn a_body_that_says_nothing_more_is_given_up() {
        let held = std::sync::Arc::new(tempfile::tempfile().unwrap());
        let body = once(async { io::Result::Ok(Bytes::from_static(b"half")) }).chain(pending());
        let body = StreamingBlob::wrap(Box::pin(body));
        let silence = Duration::from_millis(50);
        let error = receive_within(silence, Some(body), held.clone(), 0, &Announced::default()).await.unwrap_err();
        assert_eq!(*error.code(), S3ErrorCode::RequestTimeout);
        assert_eq!(std::sync::Arc::strong_count(&held), 1);
    }
}
