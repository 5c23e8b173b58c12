//! The arithmetic of parts for objects of any size, against a store that only counts, with a byte for each MiB.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use opendal::raw::{
    OpCopy, OpCreateDir, OpDelete, OpList, OpPresign, OpRead, OpRename, OpStat, OpWrite, RpCreateDir, RpPresign,
    RpRead, RpRename, RpStat, Service, ServiceInfo, oio,
};
use opendal::{BytesRange, Capability, MetadataBuilder, OperationContext};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

/// What S3 allows: bytes of the smallest part but the last, and of the largest, in MiB.
const SMALLEST: u64 = 5;
const LARGEST: u64 = 5 << 10;
const SCALED: Limits = Limits { part: 8, copy: 2 << 10, object: 5 << 20, ..Limits::S3 };

/// Objects that are whole, by name, with the sizes of their parts.
type Objects = Arc<Mutex<HashMap<String, Vec<u64>>>>;

#[derive(Debug)]
struct Counter {
    objects: Objects,
    can_copy: bool,
}

struct Counting {
    objects: Objects,
    path: String,
    parts: Vec<u64>,
}

fn unsupported<T>() -> opendal::Result<T> {
    Err(opendal::Error::new(ErrorKind::Unsupported, "a counter only counts"))
}

impl Service for Counter {
    type Reader = oio::StreamReader<Zeros>;
    type Writer = Counting;
    type Lister = ();
    type Deleter = oio::OneShotDeleter<Forget>;
    type Copier = ();
    type Composer = ();

    fn info(&self) -> ServiceInfo {
        ServiceInfo::new("counter", "/", "counter")
    }

    fn capability(&self) -> Capability {
        Capability {
            write: true,
            write_can_multi: true,
            write_can_empty: true,
            write_multi_min_size: Some(SMALLEST as usize),
            read: true,
            write_can_copy_from: self.can_copy,
            delete: true,
            stat: true,
            ..Capability::default()
        }
    }

    async fn create_dir(&self, _: &OperationContext, _: &str, _: OpCreateDir) -> opendal::Result<RpCreateDir> {
        unsupported()
    }

    async fn stat(&self, _: &OperationContext, path: &str, _: OpStat) -> opendal::Result<RpStat> {
        match self.objects.lock().unwrap().get(path) {
            Some(parts) => Ok(RpStat::new(MetadataBuilder::file(parts.iter().sum()).build())),
            None => Err(opendal::Error::new(ErrorKind::NotFound, "not there")),
        }
    }

    fn read(&self, _: &OperationContext, _: &str, _: OpRead) -> opendal::Result<Self::Reader> {
        Ok(oio::StreamReader::new(Zeros))
    }

    fn write(&self, _: &OperationContext, path: &str, _: OpWrite) -> opendal::Result<Counting> {
        Ok(Counting { objects: self.objects.clone(), path: path.to_owned(), parts: Vec::new() })
    }

    fn delete(&self, _: &OperationContext) -> opendal::Result<Self::Deleter> {
        Ok(oio::OneShotDeleter::new(Forget(self.objects.clone())))
    }

    fn list(&self, _: &OperationContext, _: &str, _: OpList) -> opendal::Result<()> {
        unsupported()
    }

    fn copy(&self, _: &OperationContext, _: &str, _: &str, _: OpCopy) -> opendal::Result<()> {
        unsupported()
    }

    async fn rename(&self, _: &OperationContext, _: &str, _: &str, _: OpRename) -> opendal::Result<RpRename> {
        unsupported()
    }

    async fn presign(&self, _: &OperationContext, _: &str, _: OpPresign) -> opendal::Result<RpPresign> {
        unsupported()
    }
}

/// Pieces too small to be copied are read and sent again.
struct Zeros;

impl oio::StreamRead for Zeros {
    async fn open(&self, range: BytesRange) -> opendal::Result<(RpRead, Box<dyn oio::ReadStreamDyn>)> {
        let size = range.size().unwrap();
        let bytes = Buffer::from(vec![0; size as usize]);
        Ok((RpRead::new(MetadataBuilder::file(size).build()), Box::new(bytes)))
    }
}

impl oio::Write for Counting {
    async fn write(&mut self, bytes: Buffer) -> opendal::Result<()> {
        self.parts.push(bytes.len() as u64);
        Ok(())
    }

    async fn copy_from(&mut self, path: &str, _: OpRead, range: BytesRange) -> opendal::Result<()> {
        let source: u64 = self.objects.lock().unwrap()[path].iter().sum();
        let (from, size) = (range.offset(), range.size().unwrap());
        assert!(from + size <= source, "{range:?} of {source}");
        self.parts.push(size);
        Ok(())
    }

    async fn close(&mut self) -> opendal::Result<Metadata> {
        let (parts, size) = (&self.parts, self.parts.iter().sum());
        assert!(parts.len() <= 10_000, "{} parts", parts.len());
        assert!(parts.iter().all(|part| *part <= LARGEST), "{:?} MiB", parts.iter().max());
        let all_but_last = &parts[..parts.len().saturating_sub(1)];
        assert!(all_but_last.iter().all(|part| *part >= SMALLEST), "{:?} MiB", all_but_last.iter().min());
        assert!(size <= 5 << 20, "{size} MiB");
        self.objects.lock().unwrap().insert(self.path.clone(), std::mem::take(&mut self.parts));
        Ok(MetadataBuilder::file(size).build())
    }

    async fn abort(&mut self) -> opendal::Result<()> {
        self.parts.clear();
        Ok(())
    }
}

struct Forget(Objects);

impl oio::OneShotDelete for Forget {
    async fn delete_once(&self, path: String, _: OpDelete) -> opendal::Result<()> {
        self.0.lock().unwrap().remove(&path);
        Ok(())
    }
}

/// Uploads so many bytes. Returns the parts that the object has at the end, or why there is none.
async fn store(size: u64, can_copy: bool, random: &mut StdRng) -> Result<Vec<u64>> {
    let objects = Objects::default();
    let counter = Counter { objects: objects.clone(), can_copy };
    let operator = Operator::from_parts(OperationContext::default(), Arc::new(counter));
    let mut upload = Upload::new(operator.clone(), operator, "object", SCALED);
    let zeros = Bytes::from(vec![0; 1 << 13]);
    let mut left = size;
    let outcome = loop {
        if left == 0 {
            break upload.commit().await;
        }
        let piece = left.min(random.random_range(1..=zeros.len() as u64));
        if let Err(error) = upload.write(zeros.slice(..piece as usize)).await {
            upload.abort().await;
            break Err(error);
        }
        assert!(upload.filled < upload.part_size(), "{} bytes wait", upload.filled);
        left -= piece;
    };
    let mut left = std::mem::take(&mut *objects.lock().unwrap());
    let parts = left.remove("object");
    assert!(left.is_empty(), "{size}: {left:?} stay");
    assert_eq!(parts.is_some(), outcome.is_ok());
    outcome.map(|()| parts.unwrap_or_default())
}

#[tokio::test]
async fn every_size_up_to_five_tebibytes_fits() {
    let direct = SCALED.direct as u64 * SCALED.part as u64;
    let segment = SCALED.segment as u64 * SCALED.part as u64;
    let mut random = StdRng::seed_from_u64(5);
    let mut sizes = vec![0, 1, 4, 5, 7, 8, 9, 16, 17, direct, direct + segment, direct + 2 * segment];
    sizes.extend(sizes.clone().into_iter().flat_map(|size| [size.saturating_sub(1), size + 1, size + 4, size + 2048]));
    sizes.extend((0..10).map(|_| random.random_range(0..4 * segment)));
    for size in sizes {
        let parts = store(size, true, &mut random).await.unwrap();
        assert_eq!(parts.iter().sum::<u64>(), size, "{size}");
    }
    let parts = store(5 << 20, true, &mut random).await.unwrap();
    assert_eq!(parts.iter().sum::<u64>(), 5 << 20);
    assert!(parts.len() < 8000, "{} parts", parts.len());
}

#[tokio::test]
async fn more_than_five_tebibytes_are_refused_and_leave_nothing() {
    let error = store((5 << 20) + 1, true, &mut StdRng::seed_from_u64(6)).await.unwrap_err();
    assert_eq!(error.to_string(), SCALED.too_large().to_string());
    let said = Limits::S3.too_large().to_string();
    assert_eq!(said, "the object is larger than 5 TiB, the most that this store can hold");
}

#[tokio::test]
async fn without_copies_parts_grow_until_there_are_no_more() {
    let mut random = StdRng::seed_from_u64(7);
    // The part that finds out that nothing can be copied was filled before.
    let sizes = (0..SCALED.parts).map(|number| SCALED.growing(number - usize::from(number == SCALED.direct)));
    let all: u64 = sizes.map(|size| size as u64).sum();
    assert!(all > 2 << 20, "{all} MiB");
    for size in [1000, SCALED.direct as u64 * 8 + 1, all / 3, all] {
        let parts = store(size, false, &mut random).await.unwrap();
        assert_eq!(parts.iter().sum::<u64>(), size);
    }
    let error = store(all + 1, false, &mut random).await.unwrap_err();
    assert_eq!(error.to_string(), "the object needs more than 10000 parts, the most that this store can hold");
}
