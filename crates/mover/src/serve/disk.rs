//! Buckets and objects as directories and files.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use hyper::StatusCode;
use s3s::dto::ETag;
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

use crate::error::{Error, Result};

/// Folder of unfinished things beside the buckets.
const PRIVATE: &str = ".kbbackup-serve";
/// Creating a directory and putting a file into it can race with the removal of empty directories.
const TRIES: usize = 10;

/// The directory that is served.
#[derive(Debug)]
pub(super) struct Disk {
    root: PathBuf,
}

/// An operating system error as S3 says it.
pub(super) fn io_error(error: &io::Error) -> s3s::S3Error {
    match error.kind() {
        io::ErrorKind::NotFound => s3_error!(NoSuchKey),
        io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory | io::ErrorKind::DirectoryNotEmpty => {
            s3_error!(
                InvalidRequest,
                "The key is a prefix of another key, or the other way round; here it can only be one"
            )
        }
        io::ErrorKind::InvalidFilename => s3_error!(KeyTooLongError),
        // A full disk does not get better by trying again at once.
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            let mut full = S3Error::new(S3ErrorCode::Custom("InsufficientStorage".into()));
            full.set_message("no space left on device");
            full.set_status_code(StatusCode::INSUFFICIENT_STORAGE);
            full
        }
        _ => s3_error!(InternalError, "{error}"),
    }
}

impl Disk {
    pub(super) fn open(root: PathBuf) -> Result<Self> {
        let disk = Self { root };
        // What lies there belongs to requests of an earlier process; none of it was acknowledged.
        let private = disk.root.join(PRIVATE);
        match fs::remove_dir_all(&private) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::file("remove", &private, &error));
            }
            _ => {}
        }
        fs::create_dir_all(&private).map_err(|error| Error::file("mkdir", &private, &error))?;
        Ok(disk)
    }

    /// Path of an existing bucket.
    pub(super) fn bucket(&self, name: &str) -> S3Result<PathBuf> {
        if !is_bucket_name(name) {
            return Err(s3_error!(InvalidBucketName));
        }
        let path = self.root.join(name);
        if path.is_dir() { Ok(path) } else { Err(s3_error!(NoSuchBucket)) }
    }

    pub(super) fn create_bucket(&self, name: &str) -> S3Result<()> {
        if !is_bucket_name(name) {
            return Err(s3_error!(InvalidBucketName));
        }
        match fs::create_dir(self.root.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(io_error(&error)),
            _ => {
                sync_dir(&self.root);
                Ok(())
            }
        }
    }

    pub(super) fn delete_bucket(&self, name: &str) -> S3Result<()> {
        let path = self.bucket(name)?;
        fs::remove_dir(&path).map_err(|error| match error.kind() {
            io::ErrorKind::DirectoryNotEmpty => s3_error!(BucketNotEmpty),
            _ => io_error(&error),
        })?;
        sync_dir(&self.root);
        Ok(())
    }

    pub(super) fn buckets(&self) -> io::Result<Vec<(String, fs::Metadata)>> {
        let mut buckets = Vec::new();
        for item in fs::read_dir(&self.root)? {
            let item = item?;
            let name = item.file_name().to_string_lossy().into_owned();
            let meta = item.metadata()?;
            if meta.is_dir() && is_bucket_name(&name) {
                buckets.push((name, meta));
            }
        }
        buckets.sort_by(|left, right| left.0.cmp(&right.0));
        Ok(buckets)
    }

    /// Path of an object, which need not exist.
    pub(super) fn object(&self, bucket: &str, key: &str) -> S3Result<PathBuf> {
        let mut path = self.bucket(bucket)?;
        for part in key.trim_end_matches('/').split('/') {
            if matches!(part, "" | "." | "..") || part.contains('\0') {
                return Err(s3_error!(InvalidArgument, "keys with empty parts, '.' or '..' cannot be stored here"));
            }
            if part.len() > 255 {
                return Err(s3_error!(KeyTooLongError));
            }
            path.push(part);
        }
        Ok(path)
    }

    /// Opens an object.
    pub(super) fn read(&self, bucket: &str, key: &str) -> S3Result<(File, fs::Metadata)> {
        let path = self.object(bucket, key)?;
        let missing = |error: &io::Error| match error.kind() {
            io::ErrorKind::NotADirectory => s3_error!(NoSuchKey),
            _ => io_error(error),
        };
        let file = File::open(path).map_err(|error| missing(&error))?;
        let meta = file.metadata().map_err(|error| missing(&error))?;
        if !meta.is_file() || key.ends_with('/') {
            return Err(s3_error!(NoSuchKey));
        }
        Ok((file, meta))
    }

    /// A new file that is not an object yet.
    pub(super) fn begin(&self) -> io::Result<Unfinished> {
        let path = self.root.join(PRIVATE).join(format!("{:032x}", rand::random::<u128>()));
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        Ok(Unfinished { file, path })
    }

    /// Makes a finished file an object, durably and at once. With `create`, only when there is none yet.
    pub(super) fn commit(
        &self,
        unfinished: &Unfinished,
        bucket: &str,
        key: &str,
        create: bool,
    ) -> S3Result<fs::Metadata> {
        let path = self.object(bucket, key)?;
        let dir = path.parent().unwrap_or(&self.root);
        unfinished.file.sync_all().map_err(|error| io_error(&error))?;
        let mut tried = 0;
        loop {
            make_dirs(dir).map_err(|error| io_error(&error))?;
            // A link fails when the name is taken; a rename replaces.
            let done =
                if create { fs::hard_link(&unfinished.path, &path) } else { fs::rename(&unfinished.path, &path) };
            match done {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::NotFound && tried < TRIES => tried += 1,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && create => {
                    return Err(s3_error!(PreconditionFailed));
                }
                Err(error) => return Err(io_error(&error)),
            }
        }
        sync_dir(dir);
        unfinished.file.metadata().map_err(|error| io_error(&error))
    }

    /// Removes an object and the directories that become empty; a missing one is a success.
    pub(super) fn remove(&self, bucket: &str, key: &str) -> S3Result<()> {
        let path = self.object(bucket, key)?;
        let bucket = self.bucket(bucket)?;
        if key.ends_with('/') {
            return Ok(());
        }
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(());
            }
            // A directory is not an object.
            Err(_) if path.is_dir() => return Ok(()),
            Err(error) => return Err(io_error(&error)),
        }
        let mut dir = path.parent();
        while let Some(empty) = dir.filter(|dir| **dir != *bucket && fs::remove_dir(dir).is_ok()) {
            dir = empty.parent();
        }
        if let Some(dir) = dir {
            sync_dir(dir);
        }
        Ok(())
    }
}

/// A file that becomes an object, or vanishes.
#[derive(Debug)]
pub(super) struct Unfinished {
    pub(super) file: File,
    path: PathBuf,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After a commit the name is gone already, or is the second name of the object.
        let _ = fs::remove_file(&self.path);
    }
}

/// An object's version: changes with every write, and says by its form that it is not an MD5 digest.
pub(super) fn etag(meta: &fs::Metadata) -> ETag {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&meta.ino().to_le_bytes());
    hasher.update(&meta.size().to_le_bytes());
    hasher.update(&meta.mtime().to_le_bytes());
    hasher.update(&meta.mtime_nsec().to_le_bytes());
    ETag::Strong(format!("{}-1", &hasher.finalize().to_hex()[..32]))
}

fn is_bucket_name(name: &str) -> bool {
    (3..=63).contains(&name.len())
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'))
        && !name.starts_with(['-', '.'])
        && !name.ends_with(['-', '.'])
}

fn make_dirs(dir: &Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Ok(()) => {
            if let Some(parent) = dir.parent() {
                sync_dir(parent);
            }
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if dir.is_dir() {
                Ok(())
            } else {
                Err(io::ErrorKind::NotADirectory.into())
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_dirs(dir.parent().ok_or(error)?)?;
            match fs::create_dir(dir) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
                _ => {
                    if let Some(parent) = dir.parent() {
                        sync_dir(parent);
                    }
                    Ok(())
                }
            }
        }
        Err(error) => Err(error),
    }
}

fn sync_dir(dir: &Path) {
    if let Ok(dir) = File::open(dir) {
        let _ = dir.sync_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_inside_their_bucket() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(dir.path().to_owned()).unwrap();
        disk.create_bucket("bucket").unwrap();
        for key in ["../x", "a/../../x", "/x", "a//b", "."] {
            assert!(disk.object("bucket", key).is_err(), "{key}");
        }
        for bucket in ["..", ".kbbackup-serve", "a/b", "UPPER", "x"] {
            assert!(disk.create_bucket(bucket).is_err(), "{bucket}");
        }
        assert!(disk.object("bucket", "a/.b/c..d").is_ok());
    }

    #[test]
    fn create_once_means_once() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(dir.path().to_owned()).unwrap();
        disk.create_bucket("bucket").unwrap();
        assert!(disk.commit(&disk.begin().unwrap(), "bucket", "a/b", true).is_ok());
        assert!(disk.commit(&disk.begin().unwrap(), "bucket", "a/b", true).is_err());
        assert!(disk.commit(&disk.begin().unwrap(), "bucket", "a/b", false).is_ok());
        assert_eq!(fs::read_dir(dir.path().join(PRIVATE)).unwrap().count(), 0);
        disk.remove("bucket", "a/b").unwrap();
        assert!(!dir.path().join("bucket/a").exists());
    }
}
