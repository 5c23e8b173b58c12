//! The operations of the protocol.

use std::sync::Arc;

// The operations alone need more than a hundred of its names.
#[allow(clippy::wildcard_imports)]
use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use super::disk::{Disk, etag, io_error};
use super::listing::{self, Page, Query};
use super::transfer::{Announced, receive};
use super::uploads::{Uploads, copy_range};

/// What is read from a file at once.
const READ: usize = 512 << 10;

/// The endpoint.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) disk: Arc<Disk>,
    pub(super) uploads: Arc<Uploads>,
}

/// Runs blocking work off the runtime.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> S3Result<T> + Send + 'static) -> S3Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| s3_error!(InternalError, "{error}"))?
}

// Every operation ends with this, and the trait wants a result.
#[allow(clippy::unnecessary_wraps)]
fn ok<T>(output: T) -> S3Result<S3Response<T>> {
    Ok(S3Response::new(output))
}

fn modified(meta: &std::fs::Metadata) -> Option<Timestamp> {
    meta.modified().ok().map(Timestamp::from)
}

/// Size of the body itself, which a chunked signature wraps.
fn body_size<T>(request: &S3Request<T>) -> Option<u64> {
    let header = |name: &str| request.headers.get(name)?.to_str().ok()?.parse().ok();
    header("x-amz-decoded-content-length").or_else(|| header("content-length"))
}

macro_rules! announced {
    ($request:expr) => {{
        let size = body_size(&$request);
        let tail = $request.trailing_headers.take();
        let input = &mut $request.input;
        Announced {
            md5: input.content_md5.take(),
            crc32: input.checksum_crc32.take(),
            crc32c: input.checksum_crc32c.take(),
            crc64nvme: input.checksum_crc64nvme.take(),
            sha1: input.checksum_sha1.take(),
            sha256: input.checksum_sha256.take(),
            algorithm: input.checksum_algorithm.take().map(|algorithm| algorithm.as_str().to_owned()),
            tail,
            size,
        }
    }};
}

fn source(copy_source: &CopySource) -> S3Result<(String, String)> {
    match copy_source {
        CopySource::Bucket { bucket, key, .. } => Ok((bucket.to_string(), key.to_string())),
        _ => Err(s3_error!(NotImplemented)),
    }
}

impl Endpoint {
    /// Whether conditions of a write allow it; `true` means that the object must not exist.
    fn must_be_new(
        &self,
        bucket: &str,
        key: &str,
        if_match: Option<&ETagCondition>,
        if_none_match: Option<&ETagCondition>,
    ) -> S3Result<bool> {
        if let Some(condition) = if_match {
            let current = self.disk.read(bucket, key).map(|(_, meta)| etag(&meta));
            match (condition, current) {
                (ETagCondition::Any, Ok(_)) => {}
                (ETagCondition::ETag(wanted), Ok(current)) if wanted.strong_cmp(&current) => {}
                _ => return Err(s3_error!(PreconditionFailed)),
            }
        }
        match if_none_match {
            Some(ETagCondition::Any) => Ok(true),
            Some(ETagCondition::ETag(_)) => Err(s3_error!(NotImplemented)),
            None => Ok(false),
        }
    }

    async fn list(
        &self,
        bucket: String,
        prefix: Option<String>,
        delimiter: Option<String>,
        after: Option<String>,
        limit: i32,
    ) -> S3Result<Page> {
        let dir = self.disk.bucket(&bucket)?;
        blocking(move || {
            Ok(listing::list(
                &dir,
                &Query {
                    prefix: prefix.as_deref().unwrap_or_default(),
                    delimiter: delimiter.as_deref().filter(|delimiter| !delimiter.is_empty()),
                    after: after.as_deref().unwrap_or_default(),
                    limit: limit.clamp(0, 1000) as usize,
                },
            ))
        })
        .await
    }
}

fn contents(objects: Vec<(String, std::fs::Metadata)>) -> Vec<Object> {
    let objects = objects.into_iter().map(|(key, meta)| Object {
        key: Some(key),
        size: Some(meta.len() as i64),
        last_modified: modified(&meta),
        e_tag: Some(etag(&meta)),
        storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
        ..Default::default()
    });
    objects.collect()
}

fn prefixes(prefixes: Vec<String>) -> Vec<CommonPrefix> {
    prefixes.into_iter().map(|prefix| CommonPrefix { prefix: Some(prefix) }).collect()
}

#[async_trait::async_trait]
impl S3 for Endpoint {
    async fn create_bucket(&self, request: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        self.disk.create_bucket(&request.input.bucket)?;
        ok(CreateBucketOutput::default())
    }

    async fn delete_bucket(&self, request: S3Request<DeleteBucketInput>) -> S3Result<S3Response<DeleteBucketOutput>> {
        self.disk.delete_bucket(&request.input.bucket)?;
        ok(DeleteBucketOutput::default())
    }

    async fn head_bucket(&self, request: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.disk.bucket(&request.input.bucket)?;
        ok(HeadBucketOutput::default())
    }

    async fn get_bucket_location(
        &self,
        request: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.disk.bucket(&request.input.bucket)?;
        ok(GetBucketLocationOutput::default())
    }

    async fn list_buckets(&self, _: S3Request<ListBucketsInput>) -> S3Result<S3Response<ListBucketsOutput>> {
        let buckets = self.disk.buckets().map_err(|error| io_error(&error))?;
        let buckets = buckets.into_iter().map(|(name, meta)| Bucket {
            name: Some(name),
            creation_date: modified(&meta),
            ..Default::default()
        });
        ok(ListBucketsOutput { buckets: Some(buckets.collect()), ..Default::default() })
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = request.input;
        let (_, meta) = self.disk.read(&input.bucket, &input.key)?;
        let tag = etag(&meta);
        check_read(&tag, input.if_match.as_ref(), input.if_none_match.as_ref())?;
        ok(HeadObjectOutput {
            content_length: Some(meta.len() as i64),
            last_modified: modified(&meta),
            e_tag: Some(tag),
            accept_ranges: Some("bytes".to_owned()),
            ..Default::default()
        })
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        let (file, meta) = self.disk.read(&input.bucket, &input.key)?;
        let tag = etag(&meta);
        check_read(&tag, input.if_match.as_ref(), input.if_none_match.as_ref())?;
        let range = input.range.map(|range| range.check(meta.len())).transpose()?;
        let (start, end) = range.as_ref().map_or((0, meta.len()), |range| (range.start, range.end));
        let mut file = tokio::fs::File::from_std(file);
        file.seek(std::io::SeekFrom::Start(start)).await.map_err(|error| io_error(&error))?;
        let body = ReaderStream::with_capacity(file.take(end - start), READ);
        ok(GetObjectOutput {
            body: Some(StreamingBlob::wrap(body)),
            content_length: Some((end - start) as i64),
            content_range: range.map(|range| format!("bytes {}-{}/{}", range.start, range.end - 1, meta.len())),
            last_modified: modified(&meta),
            e_tag: Some(tag),
            accept_ranges: Some("bytes".to_owned()),
            ..Default::default()
        })
    }

    async fn put_object(&self, mut request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let announced = announced!(request);
        let input = request.input;
        let (bucket, key) = (input.bucket, input.key);
        let create = self.must_be_new(&bucket, &key, input.if_match.as_ref(), input.if_none_match.as_ref())?;
        self.disk.object(&bucket, &key)?;
        if key.ends_with('/') {
            // Markers of directories have no content; directories come with their first object.
            return ok(PutObjectOutput::default());
        }
        let unfinished = self.disk.begin().map_err(|error| io_error(&error))?;
        let file = unfinished.file.try_clone().map_err(|error| io_error(&error))?;
        receive(input.body, Arc::new(file), 0, &announced).await?;
        let disk = self.disk.clone();
        let meta = blocking(move || disk.commit(&unfinished, &bucket, &key, create)).await?;
        ok(PutObjectOutput { e_tag: Some(etag(&meta)), ..Default::default() })
    }

    async fn copy_object(&self, request: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
        let input = request.input;
        let (from_bucket, from_key) = source(&input.copy_source)?;
        let disk = self.disk.clone();
        let meta = blocking(move || {
            let (file, meta) = disk.read(&from_bucket, &from_key)?;
            let unfinished = disk.begin().map_err(|error| io_error(&error))?;
            copy_range(&file, 0, &unfinished.file, 0, meta.len()).map_err(|error| io_error(&error))?;
            disk.commit(&unfinished, &input.bucket, &input.key, false)
        })
        .await?;
        let result =
            CopyObjectResult { e_tag: Some(etag(&meta)), last_modified: modified(&meta), ..Default::default() };
        ok(CopyObjectOutput { copy_object_result: Some(result), ..Default::default() })
    }

    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = request.input;
        let disk = self.disk.clone();
        blocking(move || disk.remove(&input.bucket, &input.key)).await?;
        ok(DeleteObjectOutput::default())
    }

    async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let DeleteObjectsInput { bucket, delete, .. } = request.input;
        let disk = self.disk.clone();
        blocking(move || {
            disk.bucket(&bucket)?;
            let (mut deleted, mut errors) = (Vec::new(), Vec::new());
            for object in delete.objects {
                match disk.remove(&bucket, &object.key) {
                    Ok(()) => deleted.push(DeletedObject { key: Some(object.key), ..Default::default() }),
                    Err(error) => errors.push(Error {
                        key: Some(object.key),
                        code: Some(error.code().as_str().to_owned()),
                        message: error.message().map(str::to_owned),
                        ..Default::default()
                    }),
                }
            }
            let deleted = if delete.quiet == Some(true) { None } else { Some(deleted) };
            ok(DeleteObjectsOutput { deleted, errors: Some(errors), ..Default::default() })
        })
        .await
    }

    async fn list_objects(&self, request: S3Request<ListObjectsInput>) -> S3Result<S3Response<ListObjectsOutput>> {
        let input = request.input;
        let limit = input.max_keys.unwrap_or(1000);
        let page = self
            .list(input.bucket.clone(), input.prefix.clone(), input.delimiter.clone(), input.marker.clone(), limit)
            .await?;
        ok(ListObjectsOutput {
            name: Some(input.bucket),
            prefix: input.prefix,
            delimiter: input.delimiter,
            marker: input.marker,
            max_keys: Some(limit),
            encoding_type: input.encoding_type,
            is_truncated: Some(page.next.is_some()),
            next_marker: page.next,
            contents: Some(contents(page.objects)),
            common_prefixes: Some(prefixes(page.prefixes)),
            ..Default::default()
        })
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        let limit = input.max_keys.unwrap_or(1000);
        // Tokens are the last item of the page before, in hexadecimal because a key may hold anything.
        let after = match &input.continuation_token {
            Some(token) => Some(from_hex(token).ok_or_else(|| s3_error!(InvalidArgument, "continuation-token"))?),
            None => input.start_after.clone(),
        };
        let page = self.list(input.bucket.clone(), input.prefix.clone(), input.delimiter.clone(), after, limit).await?;
        ok(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: input.prefix,
            delimiter: input.delimiter,
            start_after: input.start_after,
            continuation_token: input.continuation_token,
            max_keys: Some(limit),
            encoding_type: input.encoding_type,
            key_count: Some((page.objects.len() + page.prefixes.len()) as i32),
            is_truncated: Some(page.next.is_some()),
            next_continuation_token: page.next.as_deref().map(to_hex),
            contents: Some(contents(page.objects)),
            common_prefixes: Some(prefixes(page.prefixes)),
            ..Default::default()
        })
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let input = request.input;
        let id = self.uploads.begin(&self.disk, &input.bucket, &input.key)?;
        ok(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(id),
            ..Default::default()
        })
    }

    async fn upload_part(&self, mut request: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        let announced = announced!(request);
        let input = request.input;
        let upload = self.uploads.get(&input.upload_id, &input.bucket, &input.key)?;
        let slot = upload.slot(&self.disk, input.part_number, announced.size)?;
        let (file, offset) = slot.file()?;
        let size = receive(input.body, file.clone(), offset, &announced).await?;
        // Written back part by part, so that completing a large object has little left to do.
        blocking(move || file.sync_data().map_err(|error| io_error(&error))).await?;
        let tag = slot.done(size)?;
        ok(UploadPartOutput { e_tag: Some(ETag::Strong(tag)), ..Default::default() })
    }

    async fn upload_part_copy(
        &self,
        request: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        let input = request.input;
        let upload = self.uploads.get(&input.upload_id, &input.bucket, &input.key)?;
        let (from_bucket, from_key) = source(&input.copy_source)?;
        let disk = self.disk.clone();
        let tag = blocking(move || {
            let (file, meta) = disk.read(&from_bucket, &from_key)?;
            let (start, size) = match &input.copy_source_range {
                None => (0, meta.len()),
                Some(range) => copy_source_range(range, meta.len())?,
            };
            let slot = upload.slot(&disk, input.part_number, Some(size))?;
            let (target, offset) = slot.file()?;
            copy_range(&file, start, &target, offset, size)
                .and_then(|()| target.sync_data())
                .map_err(|error| io_error(&error))?;
            slot.done(size)
        })
        .await?;
        let result = CopyPartResult { e_tag: Some(ETag::Strong(tag)), ..Default::default() };
        ok(UploadPartCopyOutput { copy_part_result: Some(result), ..Default::default() })
    }

    async fn list_parts(&self, request: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
        let input = request.input;
        let upload = self.uploads.get(&input.upload_id, &input.bucket, &input.key)?;
        let after = input.part_number_marker.unwrap_or(0);
        let limit = input.max_parts.unwrap_or(1000).clamp(1, 1000) as usize;
        let mut parts: Vec<_> = upload.parts().into_iter().filter(|(number, ..)| *number > after).collect();
        let truncated = parts.len() > limit;
        parts.truncate(limit);
        let next = parts.last().map(|(number, ..)| *number).filter(|_| truncated);
        let parts = parts.into_iter().map(|(number, tag, size)| Part {
            part_number: Some(number),
            e_tag: Some(ETag::Strong(tag)),
            size: Some(size as i64),
            ..Default::default()
        });
        ok(ListPartsOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            parts: Some(parts.collect()),
            is_truncated: Some(truncated),
            next_part_number_marker: next,
            ..Default::default()
        })
    }

    async fn list_multipart_uploads(
        &self,
        request: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let input = request.input;
        self.disk.bucket(&input.bucket)?;
        let prefix = input.prefix.clone().unwrap_or_default();
        let mut uploads: Vec<_> = self
            .uploads
            .all()
            .into_iter()
            .filter(|(_, upload)| upload.bucket == input.bucket && upload.key.starts_with(&prefix))
            .map(|(id, upload)| MultipartUpload {
                key: Some(upload.key.clone()),
                upload_id: Some(id),
                ..Default::default()
            })
            .collect();
        uploads.sort_by(|left, right| left.key.cmp(&right.key));
        ok(ListMultipartUploadsOutput {
            bucket: Some(input.bucket),
            prefix: input.prefix,
            uploads: Some(uploads),
            is_truncated: Some(false),
            ..Default::default()
        })
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = request.input;
        let (bucket, key, id) = (input.bucket, input.key, input.upload_id);
        let upload = self.uploads.get(&id, &bucket, &key)?;
        let create = self.must_be_new(&bucket, &key, input.if_match.as_ref(), input.if_none_match.as_ref())?;
        let parts = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
        let wanted: Vec<(i32, String)> =
            parts.into_iter().filter_map(|part| Some((part.part_number?, part.e_tag?.into_value()))).collect();
        if wanted.is_empty() {
            return Err(s3_error!(InvalidPart, "an upload has at least one part"));
        }
        let disk = self.disk.clone();
        let meta = blocking(move || upload.complete(&disk, &wanted, create)).await?;
        self.uploads.end(&id);
        ok(CompleteMultipartUploadOutput {
            bucket: Some(bucket),
            key: Some(key),
            e_tag: Some(etag(&meta)),
            ..Default::default()
        })
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let input = request.input;
        self.uploads.get(&input.upload_id, &input.bucket, &input.key)?;
        self.uploads.end(&input.upload_id);
        ok(AbortMultipartUploadOutput::default())
    }
}

/// Conditions of a read.
fn check_read(current: &ETag, if_match: Option<&ETagCondition>, if_none_match: Option<&ETagCondition>) -> S3Result<()> {
    if let Some(ETagCondition::ETag(wanted)) = if_match
        && !wanted.strong_cmp(current)
    {
        return Err(s3_error!(PreconditionFailed));
    }
    match if_none_match {
        Some(ETagCondition::Any) => Err(s3_error!(NotModified)),
        Some(ETagCondition::ETag(known)) if known.weak_cmp(current) => Err(s3_error!(NotModified)),
        _ => Ok(()),
    }
}

/// Start and size of `bytes=FIRST-LAST`.
fn copy_source_range(range: &str, size: u64) -> S3Result<(u64, u64)> {
    let parsed = || -> Option<(u64, u64)> {
        let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        (first <= last && last < size).then(|| (first, last - first + 1))
    };
    parsed().ok_or_else(|| s3_error!(InvalidRange))
}

fn to_hex(text: &str) -> String {
    use std::fmt::Write;
    text.bytes().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn from_hex(hex: &str) -> Option<String> {
    let digits: Vec<u8> =
        hex.chars().map(|digit| digit.to_digit(16).map(|digit| digit as u8)).collect::<Option<_>>()?;
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    String::from_utf8(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()).ok()
}
