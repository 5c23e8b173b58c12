//! Multipart uploads. A part whose place is known goes straight there, so that completing an upload is usually a rename,
//! whatever its size.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use s3s::{S3Result, s3_error};

use super::disk::{Disk, Unfinished, io_error};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The uploads of this process.
#[derive(Debug, Default)]
pub(super) struct Uploads(Mutex<HashMap<String, Arc<Upload>>>);

/// One upload.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) bucket: String,
    pub(super) key: String,
    /// The object to be, with the parts that came in order.
    whole: Arc<Unfinished>,
    parts: Mutex<Parts>,
    /// Shared by everything that is writing a part. A client that hung up may have left one behind.
    writing: Arc<()>,
    touched: Mutex<Instant>,
}

#[derive(Debug, Default)]
struct Parts {
    by_number: BTreeMap<i32, Part>,
    /// The object is being put together: parts that come now are too late.
    closed: bool,
}

#[derive(Clone, Debug)]
struct Part {
    size: u64,
    place: Place,
    /// Unset while the part is being written.
    etag: Option<String>,
}

#[derive(Clone, Debug)]
enum Place {
    /// At this offset of the whole.
    Whole(u64),
    /// In a file of its own.
    Own(Arc<Unfinished>),
}

impl Uploads {
    pub(super) fn begin(&self, disk: &Disk, bucket: &str, key: &str) -> S3Result<String> {
        disk.object(bucket, key)?;
        let id = format!("{:032x}", rand::random::<u128>());
        let upload = Upload {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            whole: Arc::new(disk.begin().map_err(|error| io_error(&error))?),
            parts: Mutex::default(),
            writing: Arc::default(),
            touched: Mutex::new(Instant::now()),
        };
        lock(&self.0).insert(id.clone(), Arc::new(upload));
        Ok(id)
    }

    pub(super) fn get(&self, id: &str, bucket: &str, key: &str) -> S3Result<Arc<Upload>> {
        let upload = lock(&self.0).get(id).cloned().filter(|upload| upload.bucket == bucket && upload.key == key);
        let upload = upload.ok_or_else(|| s3_error!(NoSuchUpload))?;
        *lock(&upload.touched) = Instant::now();
        Ok(upload)
    }

    pub(super) fn end(&self, id: &str) {
        lock(&self.0).remove(id);
    }

    pub(super) fn all(&self) -> Vec<(String, Arc<Upload>)> {
        lock(&self.0).iter().map(|(id, upload)| (id.clone(), upload.clone())).collect()
    }

    pub(super) fn forget_idle(&self, limit: Duration) {
        lock(&self.0).retain(|_, upload| lock(&upload.touched).elapsed() < limit);
    }
}

/// Where to write a part.
pub(super) struct Slot {
    place: Place,
    size: u64,
    number: i32,
    upload: Arc<Upload>,
}

impl Upload {
    /// Reserves the place of a part.
    pub(super) fn slot(self: &Arc<Self>, disk: &Disk, number: i32, size: Option<u64>) -> S3Result<Slot> {
        if !(1..=10_000).contains(&number) {
            return Err(s3_error!(InvalidArgument, "part numbers are 1 to 10000"));
        }
        let mut parts = lock(&self.parts);
        if parts.closed {
            return Err(s3_error!(NoSuchUpload));
        }
        let known = size.and_then(|size| match parts.by_number.get(&number) {
            // A part that is sent again goes where it was, unless somebody may still be writing there.
            Some(Part { size: before, place: Place::Whole(offset), .. }) if *before == size && !self.is_written() => {
                Some(*offset)
            }
            Some(_) => None,
            None => offset_of(&parts.by_number, number),
        });
        let place = match known {
            Some(offset) => Place::Whole(offset),
            None => Place::Own(Arc::new(disk.begin().map_err(|error| io_error(&error))?)),
        };
        let size = size.unwrap_or(0);
        parts.by_number.insert(number, Part { size, place: place.clone(), etag: None });
        Ok(Slot { place, size, number, upload: self.clone() })
    }

    /// Numbers, tags and sizes of the parts that are there.
    pub(super) fn parts(&self) -> Vec<(i32, String, u64)> {
        let parts = lock(&self.parts);
        parts.by_number.iter().filter_map(|(number, part)| Some((*number, part.etag.clone()?, part.size))).collect()
    }

    fn is_written(&self) -> bool {
        Arc::strong_count(&self.writing) > 1
    }

    /// Puts the named parts together and makes them an object. Blocks. Parts that come meanwhile or later are refused, so
    /// that nobody writes into what is an object already.
    pub(super) fn complete(&self, disk: &Disk, wanted: &[(i32, String)], create: bool) -> S3Result<std::fs::Metadata> {
        if std::mem::replace(&mut lock(&self.parts).closed, true) {
            return Err(s3_error!(OperationAborted, "the upload is being completed"));
        }
        let done = self.assemble(disk, wanted).and_then(|whole| disk.commit(&whole, &self.bucket, &self.key, create));
        if done.is_err() {
            lock(&self.parts).closed = false;
        }
        done
    }

    fn assemble(&self, disk: &Disk, wanted: &[(i32, String)]) -> S3Result<Arc<Unfinished>> {
        let parts = lock(&self.parts).by_number.clone();
        let mut chosen = Vec::with_capacity(wanted.len());
        let mut last = 0;
        for (number, etag) in wanted {
            let part = parts.get(number).filter(|part| part.etag.as_ref() == Some(etag));
            let part = part.ok_or_else(|| s3_error!(InvalidPart, "part {number} is not there"))?;
            if *number <= last {
                return Err(s3_error!(InvalidPartOrder));
            }
            last = *number;
            chosen.push(part);
        }
        let mut total = 0;
        let in_place = chosen.iter().all(|part| {
            let fits = matches!(part.place, Place::Whole(offset) if offset == total);
            total += part.size;
            fits
        });
        if in_place && !self.is_written() {
            self.whole.file.set_len(total).map_err(|error| io_error(&error))?;
            return Ok(self.whole.clone());
        }
        let copy = || -> io::Result<Unfinished> {
            let target = disk.begin()?;
            let mut at = 0;
            for part in &chosen {
                let (file, offset) = match &part.place {
                    Place::Whole(offset) => (&self.whole.file, *offset),
                    Place::Own(own) => (&own.file, 0),
                };
                copy_range(file, offset, &target.file, at, part.size)?;
                at += part.size;
            }
            Ok(target)
        };
        copy().map(Arc::new).map_err(|error| io_error(&error))
    }
}

/// Offset of a part: known when all parts before it are in place.
fn offset_of(parts: &BTreeMap<i32, Part>, number: i32) -> Option<u64> {
    let mut offset = 0;
    for before in 1..number {
        match parts.get(&before) {
            Some(Part { size, place: Place::Whole(_), .. }) => offset += size,
            _ => return None,
        }
    }
    Some(offset)
}

/// Copies bytes between files at offsets.
pub(super) fn copy_range(from: &File, mut read: u64, to: &File, mut write: u64, size: u64) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    let end = read + size;
    while read < end {
        let wanted = buffer.len().min((end - read) as usize);
        let got = from.read_at(&mut buffer[..wanted], read)?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        to.write_all_at(&buffer[..got], write)?;
        read += got as u64;
        write += got as u64;
    }
    Ok(())
}

/// A file that a part is being written to, as long as somebody holds it.
#[derive(Clone)]
pub(super) struct PartFile {
    file: Arc<File>,
    _writing: Arc<()>,
}

impl Deref for PartFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl Slot {
    /// File and offset to write to. The file stays as long as somebody holds this.
    pub(super) fn file(&self) -> S3Result<(PartFile, u64)> {
        let (unfinished, offset) = match &self.place {
            Place::Whole(offset) => (&self.upload.whole, *offset),
            Place::Own(own) => (own, 0),
        };
        let file = unfinished.file.try_clone().map_err(|error| io_error(&error))?;
        Ok((PartFile { file: Arc::new(file), _writing: self.upload.writing.clone() }, offset))
    }

    /// Says that the part is written. Returns its tag.
    pub(super) fn done(self, size: u64) -> S3Result<String> {
        if matches!(self.place, Place::Whole(_)) && size != self.size {
            return Err(s3_error!(IncompleteBody));
        }
        let etag = format!("{:032x}-1", rand::random::<u128>());
        let mut parts = lock(&self.upload.parts);
        parts.by_number.insert(self.number, Part { size, place: self.place, etag: Some(etag.clone()) });
        Ok(etag)
    }
}
