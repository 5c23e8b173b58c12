//! Sorting what need not fit into memory: runs go to a temporary file and are merged.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::output;

/// What is held in memory before a run is written.
const BUDGET: usize = 16 << 20;
/// What is read of a run at once.
const READ: usize = 64 << 10;
/// Lengths of key and value.
const HEAD: usize = 8;

/// A key and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) key: String,
    pub(crate) value: Vec<u8>,
}

/// Takes records in any order.
#[derive(Debug)]
pub(crate) struct Sorter {
    budget: usize,
    bytes: Vec<u8>,
    /// Where each record begins.
    starts: Vec<usize>,
    file: Option<File>,
    /// Ends of the runs in the file.
    runs: Vec<u64>,
}

impl Sorter {
    pub(crate) fn new() -> Self {
        Self::with_budget(BUDGET)
    }

    fn with_budget(budget: usize) -> Self {
        Self { budget, bytes: Vec::new(), starts: Vec::new(), file: None, runs: Vec::new() }
    }

    /// # Errors
    /// When the temporary file cannot be written.
    pub(crate) fn push(&mut self, key: &str, value: &[u8]) -> Result<()> {
        if self.bytes.len() >= self.budget {
            self.spill()?;
        }
        let length = |bytes: &[u8]| {
            u32::try_from(bytes.len()).map(u32::to_le_bytes).map_err(|_| Error::other("a record of 4 GiB"))
        };
        self.starts.push(self.bytes.len());
        self.bytes.extend_from_slice(&length(key.as_bytes())?);
        self.bytes.extend_from_slice(&length(value)?);
        self.bytes.extend_from_slice(key.as_bytes());
        self.bytes.extend_from_slice(value);
        Ok(())
    }

    /// By key; records of one key in the order in which they came.
    fn sort(&mut self) {
        let bytes = &self.bytes;
        self.starts.sort_unstable_by(|left, right| key(bytes, *left).cmp(key(bytes, *right)).then(left.cmp(right)));
    }

    /// Writes what is in memory as a sorted run.
    fn spill(&mut self) -> Result<()> {
        let file = match self.file.take() {
            Some(file) => file,
            None => match tempfile::tempfile() {
                Ok(file) => file,
                Err(error) => {
                    // An image may have no place for temporary files. Memory is worse than a file and better than no seal.
                    output::note(&format!(
                        "NOTICE: no temporary file in {}, so a long list is sorted in memory: {}",
                        std::env::temp_dir().display(),
                        crate::error::reason(&error)
                    ));
                    self.budget = usize::MAX;
                    return Ok(());
                }
            },
        };
        self.sort();
        let failed = |error: io::Error| Error::file("write", &std::env::temp_dir(), &error);
        let mut writer = io::BufWriter::with_capacity(READ, &file);
        for start in &self.starts {
            writer.write_all(record(&self.bytes, *start)).map_err(failed)?;
        }
        writer.flush().map_err(failed)?;
        drop(writer);
        self.runs.push(self.runs.last().copied().unwrap_or(0) + self.bytes.len() as u64);
        self.bytes.clear();
        self.starts.clear();
        self.file = Some(file);
        Ok(())
    }

    /// Gives the records in order.
    ///
    /// # Errors
    /// When the temporary file cannot be written or read.
    pub(crate) fn finish(mut self) -> Result<Sorted> {
        if self.file.is_some() && !self.starts.is_empty() {
            self.spill()?;
        }
        let Some(file) = self.file.take() else {
            self.sort();
            return Ok(Sorted::Memory { bytes: self.bytes, starts: self.starts.into_iter() });
        };
        let file = Arc::new(file);
        let mut runs = Vec::new();
        let mut at = 0;
        for end in self.runs {
            runs.push(BufReader::with_capacity(READ, Section { file: file.clone(), at, end }));
            at = end;
        }
        let mut heads = BinaryHeap::new();
        for (run, reader) in runs.iter_mut().enumerate() {
            heads.extend(read(reader)?.map(|record| Head { record, run }));
        }
        Ok(Sorted::Runs { runs, heads })
    }
}

/// The length that stands at a place.
fn length(bytes: &[u8], at: usize) -> usize {
    bytes[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize)
}

fn record(bytes: &[u8], start: usize) -> &[u8] {
    &bytes[start..start + HEAD + length(bytes, start) + length(bytes, start + 4)]
}

fn key(bytes: &[u8], start: usize) -> &[u8] {
    &bytes[start + HEAD..start + HEAD + length(bytes, start)]
}

/// A part of the temporary file.
#[derive(Debug)]
pub(crate) struct Section {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min((self.end - self.at) as usize);
        let read = self.file.read_at(&mut buffer[..wanted], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// The next record of a run.
fn read(run: &mut BufReader<Section>) -> Result<Option<Record>> {
    let failed = |error: io::Error| Error::file("read", &std::env::temp_dir(), &error);
    if io::BufRead::fill_buf(run).map_err(failed)?.is_empty() {
        return Ok(None);
    }
    let mut head = [0; HEAD];
    run.read_exact(&mut head).map_err(failed)?;
    let mut key = vec![0; length(&head, 0)];
    let mut value = vec![0; length(&head, 4)];
    run.read_exact(&mut key).map_err(failed)?;
    run.read_exact(&mut value).map_err(failed)?;
    let key = String::from_utf8(key).map_err(|_| Error::other("the temporary file is damaged"))?;
    Ok(Some(Record { key, value }))
}

/// The first record of a run that was not given yet. The greatest is the one to give next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head {
    record: Record,
    run: usize,
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        other.record.key.cmp(&self.record.key).then(other.run.cmp(&self.run))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Records in order.
#[derive(Debug)]
pub(crate) enum Sorted {
    Memory { bytes: Vec<u8>, starts: std::vec::IntoIter<usize> },
    Runs { runs: Vec<BufReader<Section>>, heads: BinaryHeap<Head> },
}

impl Sorted {
    /// The next record.
    ///
    /// # Errors
    /// When the temporary file cannot be read.
    pub(crate) fn next(&mut self) -> Result<Option<Record>> {
        match self {
            Self::Memory { bytes, starts } => {
                let Some(start) = starts.next() else { return Ok(None) };
                let key = key(bytes, start);
                let value = record(bytes, start)[HEAD + key.len()..].to_vec();
                let key = String::from_utf8(key.to_vec()).map_err(|_| Error::other("a key that is not text"))?;
                Ok(Some(Record { key, value }))
            }
            Self::Runs { runs, heads } => {
                let Some(Head { record, run }) = heads.pop() else { return Ok(None) };
                heads.extend(read(&mut runs[run])?.map(|record| Head { record, run }));
                Ok(Some(record))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(budget: usize, records: &[(String, Vec<u8>)]) -> Vec<(String, Vec<u8>)> {
        let mut sorter = Sorter::with_budget(budget);
        for (key, value) in records {
            sorter.push(key, value).unwrap();
        }
        let mut sorted = sorter.finish().unwrap();
        std::iter::from_fn(|| sorted.next().unwrap()).map(|record| (record.key, record.value)).collect()
    }

    proptest::proptest! {
        #![proptest_config(crate::testing::cases(64))]

        /// In memory or over many runs: what a stable sort of the whole gives.
        #[test]
        fn runs_make_no_difference(
            records in proptest::collection::vec(("[a-c/.-]{0,4}", proptest::collection::vec(0u8.., 0..4)), 0..200),
            budget in 1usize..400,
        ) {
            let mut expected = records.clone();
            expected.sort_by(|left, right| left.0.cmp(&right.0));
            proptest::prop_assert_eq!(&sorted(budget, &records), &expected);
            proptest::prop_assert_eq!(&sorted(usize::MAX, &records), &expected);
        }
    }
}
