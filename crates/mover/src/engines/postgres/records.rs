//! The log's records, as far as archiving needs them: where they end, whether they are whole, and when transactions ended.
//!
//! The structures are those of `access/xlog_internal.h` and `access/xlogrecord.h`, the same from `PostgreSQL` 13 to 18: pages of
//! 8 KiB with a header, records aligned to 8 bytes that may go on in the next page, a CRC-32C over each.

use crate::engines::postgres::position::{History, Lsn};
use crate::error::{Cause, Error, Result};

const PAGE: u64 = 8192;
/// Header of a page, and of the first page of a segment.
const SHORT: usize = 24;
const LONG: usize = 40;
/// Header of a record.
const RECORD: usize = 24;
/// So much of a record is kept: header, the ids in front of its data, and the time.
const KEPT: usize = 64;

/// `xlp_info`: the page begins with the rest of a record.
const CONTINUES: u16 = 0x0001;

/// A transaction that was committed or rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    /// Where its record ends.
    pub(crate) lsn: Lsn,
    /// Its time as recovery compares it, in microseconds since the Unix epoch.
    pub(crate) micros: i64,
}

/// Reads a stretch of log that begins with a segment, in pieces of any size.
pub(crate) struct Records {
    identifier: u64,
    /// The timeline and where its ancestors ended, when pages must say so.
    timeline: Option<(u32, History)>,
    segment_size: u64,
    at: u64,
    header: Vec<u8>,
    /// What is left of a record that began before the stretch.
    foreign: u64,
    /// A switch of segments: nothing follows in this one.
    switched: bool,
    record: Option<Partial>,
    endings: Vec<Ending>,
}

/// A record that is being read.
#[derive(Default)]
struct Partial {
    kept: Vec<u8>,
    seen: u64,
    crc: u32,
}

impl Partial {
    fn total(&self) -> Option<u64> {
        self.kept.first_chunk().map(|bytes| u64::from(u32::from_le_bytes(*bytes)))
    }
}

impl Records {
    /// Begins at `start`, the first byte of a segment of a cluster with this system identifier.
    pub(crate) fn new(identifier: u64, start: Lsn, segment_size: u64) -> Self {
        Self {
            identifier,
            timeline: None,
            segment_size,
            at: start.0,
            header: Vec::with_capacity(LONG),
            foreign: 0,
            switched: false,
            record: None,
            endings: Vec::new(),
        }
    }

    /// Wants every page to have been written on this timeline, or before it began on the ancestor of that time.
    pub(crate) fn on(mut self, timeline: u32, history: History) -> Self {
        self.timeline = Some((timeline, history));
        self
    }

    /// Transactions that ended since the last call.
    pub(crate) fn endings(&mut self) -> Vec<Ending> {
        std::mem::take(&mut self.endings)
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`Cause::Damaged`] at the first byte that cannot be log of this cluster at this position.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            if self.switched {
                let rest = self.segment_size - self.at % self.segment_size;
                self.skip(&mut bytes, rest);
                self.switched = !self.at.is_multiple_of(self.segment_size);
                continue;
            }
            let in_page = self.at % PAGE;
            let header = if self.at % self.segment_size < PAGE { LONG } else { SHORT };
            if in_page < header as u64 {
                let part = self.skip(&mut bytes, header as u64 - in_page);
                self.header.extend_from_slice(part);
                if self.header.len() == header {
                    self.page()?;
                }
                continue;
            }
            let room = PAGE - in_page;
            if self.foreign > 0 {
                let part = self.skip(&mut bytes, room.min(self.foreign));
                self.foreign -= part.len() as u64;
            } else if self.record.is_none() && !self.at.is_multiple_of(8) {
                self.skip(&mut bytes, 8 - self.at % 8);
            } else {
                self.gather(&mut bytes, room)?;
            }
        }
        Ok(())
    }

    fn skip<'a>(&mut self, bytes: &mut &'a [u8], most: u64) -> &'a [u8] {
        let (part, rest) = bytes.split_at(bytes.len().min(most as usize));
        *bytes = rest;
        self.at += part.len() as u64;
        part
    }

    fn page(&mut self) -> Result<()> {
        let header = std::mem::take(&mut self.header);
        let begins = self.at - header.len() as u64;
        let info = u16::from_le_bytes([header[2], header[3]]);
        let number = |at: usize| header[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        if number(8) != begins {
            return Err(self.damaged(&format!("the page says that it is at {}", Lsn(number(8)))));
        }
        let written_on = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
        if let Some((timeline, history)) = &self.timeline
            && written_on != history.timeline_at(Lsn(begins), *timeline)
        {
            return Err(
                self.damaged(&format!("the page was written on timeline {written_on}, which is not {timeline}'s here"))
            );
        }
        if header.len() == LONG {
            if number(24) != self.identifier {
                return Err(self.damaged(&format!(
                    "it belongs to the cluster {}, not {}",
                    number(24),
                    self.identifier
                )));
            }
            let sizes = (number(32) & 0xffff_ffff, number(32) >> 32);
            if sizes != (self.segment_size, PAGE) {
                return Err(
                    self.damaged(&format!("segments and pages of {sizes:?} bytes are not those of the cluster"))
                );
            }
        }
        let left = u64::from(u32::from_le_bytes([header[16], header[17], header[18], header[19]]));
        if info & CONTINUES == 0 {
            // The server died in the middle of a record, and wrote on behind it.
            self.record = None;
            self.foreign = 0;
        } else if let Some(record) = &self.record {
            if record.total().is_none_or(|total| total - record.seen != left) {
                return Err(self.damaged("the page does not continue the record before it"));
            }
        } else {
            self.foreign = left;
        }
        Ok(())
    }

    fn gather(&mut self, bytes: &mut &[u8], room: u64) -> Result<()> {
        let mut record = self.record.take().unwrap_or_default();
        // The length never crosses a page, for records are aligned; until it is known, no more is taken.
        let wanted = record.total().unwrap_or(4) - record.seen;
        let part = self.skip(bytes, room.min(wanted));
        let header_left = RECORD.saturating_sub(record.seen as usize).min(part.len());
        record.crc = crc32c::crc32c_append(record.crc, &part[header_left..]);
        let keep = KEPT.saturating_sub(record.kept.len()).min(part.len());
        record.kept.extend_from_slice(&part[..keep]);
        record.seen += part.len() as u64;
        match record.total() {
            Some(total) if total < RECORD as u64 => Err(self.damaged(&format!("a record of {total} bytes"))),
            Some(total) if total == record.seen => self.complete(&record),
            _ => {
                self.record = Some(record);
                Ok(())
            }
        }
    }

    fn complete(&mut self, record: &Partial) -> Result<()> {
        let header = &record.kept[..RECORD];
        let crc = header[20..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        if crc32c::crc32c_append(record.crc, &header[..20]) != crc {
            return Err(self.damaged("the check sum of the record that ends here is wrong"));
        }
        match (header[17], header[16] & 0xf0) {
            // RM_XLOG_ID, XLOG_SWITCH
            (0, 0x40) => self.switched = !self.at.is_multiple_of(self.segment_size),
            // RM_XACT_ID: COMMIT, ABORT, COMMIT_PREPARED, ABORT_PREPARED; the highest bit says only that more follows.
            (1, info) if matches!(info & 0x70, 0x00 | 0x20 | 0x30 | 0x40) => {
                let micros = time(&record.kept[RECORD..])
                    .ok_or_else(|| self.damaged("the end of a transaction without a time"))?;
                self.endings.push(Ending { lsn: Lsn(self.at), micros });
            }
            _ => {}
        }
        Ok(())
    }

    fn damaged(&self, why: &str) -> Error {
        Error::new(Cause::Damaged, format!("the log before {} is damaged: {why}", Lsn(self.at)))
    }
}

/// The time in front of the main data of a transaction's end.
fn time(mut data: &[u8]) -> Option<i64> {
    /// From 1970 to 2000, where the server's clock begins.
    const EPOCH: i64 = 946_684_800_000_000;
    loop {
        let (id, rest) = data.split_first()?;
        data = match id {
            255 => return rest.get(1..)?.first_chunk().map(|bytes| i64::from_le_bytes(*bytes) + EPOCH),
            254 => return rest.get(4..)?.first_chunk().map(|bytes| i64::from_le_bytes(*bytes) + EPOCH),
            // The origin of a replicated transaction, and the id of a subtransaction's parent.
            253 => rest.get(2..)?,
            252 => rest.get(4..)?,
            _ => return None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const START: Lsn = Lsn(0x60_0000);
    const CLUSTER: u64 = 7_712_605_984_098_801_068;

    /// Four segments of 1 MiB of a `PostgreSQL` 15, with large records, a switch of segments, subtransactions and prepared ones.
    fn log() -> Vec<u8> {
        zstd::decode_all(&include_bytes!("../../../tests/data/wal/postgresql-15-0-600000.zst")[..]).unwrap()
    }

    /// What `pg_waldump` says of them: where each record begins, and the microseconds after 22:10:00.
    const ENDINGS: [(u64, i64); 11] = [
        (0x60_0500, 16_501_183),
        (0x60_0720, 16_501_360),
        (0x71_E128, 17_264_071),
        (0x89_6720, 17_292_628),
        (0x89_6788, 17_318_081),
        (0x89_6830, 17_318_227),
        (0x89_6AD0, 17_341_299),
        (0x89_6B00, 17_353_896),
        (0x8E_02C8, 17_357_958),
        (0x8E_0330, 17_364_398),
        (0x90_0068, 17_378_096),
    ];

    fn read(pieces: &[&[u8]]) -> (Vec<Ending>, Option<Error>) {
        let mut records = Records::new(CLUSTER, START, MIB);
        let error = pieces.iter().find_map(|piece| records.feed(piece).err());
        (records.endings(), error)
    }

    /// The log behind its last record is zeros.
    const WRITTEN: usize = 0x30_0090;

    #[test]
    fn transactions_end_where_the_server_s_own_tool_says() {
        let base: i64 = "2026-11-26T22:10:00Z".parse::<jiff::Timestamp>().unwrap().as_microsecond();
        let log = log();
        let (endings, error) = read(&[&log[..WRITTEN]]);
        assert_eq!(error, None);
        assert_eq!(endings.len(), ENDINGS.len());
        for (ending, (begins, micros)) in endings.iter().zip(ENDINGS) {
            assert_eq!(ending.micros, base + micros);
            assert!((begins..begins + 2000).contains(&ending.lsn.0), "{}", ending.lsn);
        }
        for size in [1, 7, 8192, 100_001] {
            let pieces: Vec<&[u8]> = log[..WRITTEN].chunks(size).collect();
            assert_eq!(read(&pieces), (endings.clone(), None), "in pieces of {size}");
        }
        // Where a record that began before is cut off, the others are still found.
        let mut later = Records::new(CLUSTER, Lsn(0x70_0000), MIB);
        later.feed(&log[MIB as usize..WRITTEN]).unwrap();
        assert_eq!(later.endings(), endings[2..]);
    }

    #[test]
    fn damage_is_found_at_its_record_and_nothing_behind_it_is_believed() {
        let mut log = log();
        log.truncate(WRITTEN);
        let whole = read(&[&log]).0;
        for at in [0x10, 0x1c, 0x510, 0x11_E140, 0x20_0008, 0x2E_0340] {
            log[at] ^= 0x20;
            let (endings, error) = read(&[&log]);
            assert!(error.is_some(), "{at:x}");
            assert!(endings.iter().all(|ending| ending.lsn.0 <= START.0 + at as u64), "{at:x}");
            assert_eq!(endings, whole[..endings.len()]);
            log[at] ^= 0x20;
        }
        let told = read(&[&log[MIB as usize..]]).1.unwrap().to_string();
        assert!(told.contains("the page says that it is at 0/700000"), "{told}");
        let told = Records::new(CLUSTER + 1, START, MIB).feed(&log).unwrap_err().to_string();
        assert!(told.contains("belongs to the cluster"), "{told}");
        assert!(Records::new(CLUSTER, START, 16 * MIB).feed(&log).is_err());
        assert!(read(&[&[0; 8192]]).1.is_some());
    }
}
