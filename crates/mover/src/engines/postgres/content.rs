//! Whether the bytes of a segment are what its name says, judged before a server sees them.
//!
//! A server in recovery takes the first record that it cannot read for the end of the log. So whatever is found here must be
//! found here.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use super::position::{History, Segment};
use super::records::Records;
use crate::error::{Cause, Error, Result};

/// What a file must be.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    pub(super) segment: Segment,
    /// System identifier of the cluster, and size of its segments.
    pub(super) identifier: u64,
    pub(super) size: u64,
    /// Where the ancestors of the segment's timeline ended.
    pub(super) history: History,
    /// Whether it was received to its end; else zeros follow behind what was.
    pub(super) whole: bool,
}

/// Reads a segment as recovery will.
///
/// # Errors
/// [`Cause::Damaged`] when it is damaged, or belongs elsewhere.
pub(super) fn check(path: &Path, expected: Expected) -> Result<()> {
    let failed = |error: std::io::Error| Error::file("read", path, &error);
    let Expected { segment, identifier, size, history, whole } = expected;
    let length = path.metadata().map_err(failed)?.len();
    if length != size {
        return Err(Error::new(Cause::Damaged, format!("it has {length} bytes, not {size}")));
    }
    // What was cut off in the middle of a record ends in zeros, which are no record.
    let mut left = if whole { size } else { written(path).map_err(failed)? };
    if left == 0 {
        return Err(Error::new(Cause::Damaged, "there is nothing in it"));
    }
    let mut records = Records::new(identifier, segment.start(size), size).on(segment.timeline, history);
    let mut reader = File::open(path).map_err(failed)?;
    let mut bytes = vec![0; 256 << 10];
    while left > 0 {
        let part = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        reader.read_exact(&mut bytes[..part]).map_err(failed)?;
        records.feed(&bytes[..part])?;
        left -= part as u64;
    }
    Ok(())
}

/// Up to where a file holds anything but zeros.
fn written(path: &Path) -> std::io::Result<u64> {
    let mut reader = BufReader::new(File::open(path)?);
    let (mut at, mut end) = (0, 0);
    let mut bytes = vec![0; 256 << 10];
    loop {
        let read = reader.read(&mut bytes)?;
        if read == 0 {
            return Ok(end);
        }
        if let Some(last) = bytes[..read].iter().rposition(|byte| *byte != 0) {
            end = at + last as u64 + 1;
        }
        at += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::engines::postgres::position::Lsn;

    const MIB: usize = 1 << 20;
    const CLUSTER: u64 = 7_712_605_984_098_801_068;

    /// Four segments of 1 MiB on timeline 1, from 0/600000 on; nothing is received behind 0/900090.
    fn log() -> Vec<u8> {
        let file = include_bytes!("../../../tests/data/wal/postgresql-15-0-600000.zst");
        let mut log = zstd::decode_all(&file[..]).unwrap();
        log[0x30_0090..].fill(0);
        log
    }

    fn expected(number: u64, whole: bool) -> Expected {
        let segment = Segment { timeline: 1, number };
        Expected { segment, identifier: CLUSTER, size: MIB as u64, history: History::default(), whole }
    }

    fn judge(bytes: &[u8], expected: Expected) -> Result<(), String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        check(file.path(), expected).map_err(|error| error.text)
    }

    #[test]
    fn a_segment_is_taken_for_what_it_is_and_for_nothing_else() {
        let log = log();
        let piece = |at: usize| &log[at * MIB..(at + 1) * MIB];
        for at in 0..3 {
            assert_eq!(judge(piece(at), expected(6 + at as u64, true)), Ok(()));
        }
        assert_eq!(judge(piece(3), expected(9, false)), Ok(()));
        let told = |bytes: &[u8], expected: Expected| judge(bytes, expected).unwrap_err();
        assert!(told(piece(3), expected(9, true)).contains("damaged"), "its end was never written");
        assert!(told(piece(0), expected(7, true)).contains("at 0/600000"));
        assert!(told(piece(0), Expected { identifier: 1, ..expected(6, true) }).contains("belongs to the cluster"));
        assert!(told(&piece(0)[..MIB - 1], expected(6, true)).contains("1048575 bytes"));
        assert!(told(&vec![0; MIB], expected(6, false)).contains("nothing in it"));
    }

    #[test]
    fn each_page_must_be_of_the_timeline_that_was_current_there() {
        let log = log();
        let piece = &log[MIB..2 * MIB];
        let on = |timeline, end: Option<u64>| {
            let history = History(end.map(|end| (1, Lsn(end))).into_iter().collect());
            judge(piece, Expected { segment: Segment { timeline, number: 7 }, history, ..expected(7, true) })
        };
        assert_eq!(on(2, Some(0x80_0000)), Ok(()), "the copy of an ancestor's");
        assert!(on(2, None).unwrap_err().contains("written on timeline 1"));
        assert!(on(2, Some(0x70_4000)).unwrap_err().contains("before 0/704018"));
    }

    #[test]
    fn a_begun_one_may_end_anywhere_but_not_have_a_hole() {
        let log = log();
        let whole = &log[MIB..2 * MIB];
        for cut in [100, 8192, 8200, 77_777, 500_001] {
            let mut begun = whole.to_vec();
            begun[cut..].fill(0);
            assert_eq!(judge(&begun, expected(7, false)), Ok(()), "{cut}");
            assert!(judge(&begun, expected(7, true)).is_err(), "{cut}");
            begun[cut..cut + 20_000].fill(0);
            begun[cut + 20_000..].copy_from_slice(&whole[cut + 20_000..]);
            assert!(judge(&begun, expected(7, false)).is_err(), "{cut}");
        }
    }
}
