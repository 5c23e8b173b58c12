//! Positions in the log, its files' names, and which timeline a position is on.

use std::fmt;
use std::str::FromStr;

use crate::error::{Cause, Error, Result};

/// A byte position in the log, written as `high/low` in hexadecimal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lsn(pub(crate) u64);

impl FromStr for Lsn {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let part = |digits: &str| u64::from(u32::from_str_radix(digits, 16).unwrap_or(u32::MAX));
        match text.trim().split_once('/') {
            Some((high, low)) if is_hex(high) && is_hex(low) => Ok(Self(part(high) << 32 | part(low))),
            _ => Err(Error::new(Cause::Damaged, format!("{text:?} is no log position"))),
        }
    }
}

fn is_hex(text: &str) -> bool {
    (1..=8).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

/// A file of the log: the `number`th piece of `wal_segment_size` bytes on a timeline. Sorted by timeline first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Segment {
    pub(crate) timeline: u32,
    pub(crate) number: u64,
}

impl Segment {
    /// The one that holds the byte at `lsn`.
    pub(crate) fn at(timeline: u32, lsn: Lsn, size: u64) -> Self {
        Self { timeline, number: lsn.0 / size }
    }

    pub(crate) fn start(self, size: u64) -> Lsn {
        Lsn(self.number * size)
    }

    pub(crate) fn end(self, size: u64) -> Lsn {
        Lsn((self.number + 1) * size)
    }

    /// The server's name of it: 24 hexadecimal digits.
    pub(crate) fn name(self, size: u64) -> String {
        let per_file = (1 << 32) / size;
        format!("{:08X}{:08X}{:08X}", self.timeline, self.number / per_file, self.number % per_file)
    }

    /// Reads such a name; `None` when it is none for segments of this size.
    pub(crate) fn named(name: &str, size: u64) -> Option<Self> {
        if name.len() != 24 || !name.bytes().all(|byte| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte)) {
            return None;
        }
        let part = |range| u32::from_str_radix(name.get(range)?, 16).ok();
        let per_file = (1 << 32) / size;
        let (timeline, high, low) = (part(0..8)?, u64::from(part(8..16)?), u64::from(part(16..24)?));
        (timeline > 0 && low < per_file).then_some(Self { timeline, number: high * per_file + low })
    }
}

/// Where a timeline's ancestors ended, oldest first: the content of a `.history` file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct History(pub(crate) Vec<(u32, Lsn)>);

impl History {
    /// Reads a history file.
    ///
    /// # Errors
    /// [`Cause::Damaged`] when a line is not `timeline position reason`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let entry = |line: &str| {
            let mut words = line.split_whitespace();
            let (timeline, lsn) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            Some((timeline, lsn))
        };
        let damaged = |line: &str| Error::new(Cause::Damaged, format!("a timeline history has the line {line:?}"));
        lines.map(|line| entry(line).ok_or_else(|| damaged(line))).collect::<Result<_>>().map(Self)
    }

    /// Where `timeline` was left.
    pub(crate) fn end_of(&self, timeline: u32) -> Option<Lsn> {
        self.0.iter().find(|(of, _)| *of == timeline).map(|(_, end)| *end)
    }

    /// The timeline, `current` or an ancestor of it, on which the byte at `lsn` was written.
    pub(crate) fn timeline_at(&self, lsn: Lsn, current: u32) -> u32 {
        self.0.iter().find(|(_, left)| *left > lsn).map_or(current, |(timeline, _)| *timeline)
    }

    /// The timeline under whose name a server on `current` keeps the segment with `number`: one in which a timeline ended goes by
    /// the name of the next.
    pub(crate) fn timeline_of(&self, number: u64, size: u64, current: u32) -> u32 {
        let end = (number + 1) * size;
        self.0.iter().find(|(_, left)| left.0 >= end).map_or(current, |(timeline, _)| *timeline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn names_are_those_of_the_server() {
        for (timeline, lsn, size, name) in [
            (1, "0/1000000", 16 * MIB, "000000010000000000000001"),
            (1, "1/0", 16 * MIB, "000000010000000100000000"),
            (0x1f, "A/FF123456", 16 * MIB, "0000001F0000000A000000FF"),
            (2, "A/FF123456", MIB, "000000020000000A00000FF1"),
            (1, "2/C0000000", 1024 * MIB, "000000010000000200000003"),
        ] {
            let segment = Segment::at(timeline, lsn.parse().unwrap(), size);
            assert_eq!(segment.name(size), name);
            assert_eq!(Segment::named(name, size), Some(segment));
        }
        for wrong in
            ["000000010000000000000100", "00000001000000000000000", "00000000000000000000000A", "00000001.history"]
        {
            assert_eq!(Segment::named(wrong, 16 * MIB), None, "{wrong}");
        }
        for wrong in ["", "1", "/", "1/", "1/123456789", "g/0", "+1/0"] {
            assert!(wrong.parse::<Lsn>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_segment_in_which_a_timeline_ends_goes_by_the_name_of_the_next() {
        let text = "1\t0/3000000\tno recovery target specified\n\n# a remark\n2\t0/5800000\tbefore 2026-01-01\n";
        let history = History::parse(text).unwrap();
        assert_eq!(history.end_of(2), Some(Lsn(0x580_0000)));
        assert_eq!(history.end_of(3), None);
        for (number, timeline) in [(2, 1), (3, 2), (4, 2), (5, 3), (6, 3)] {
            assert_eq!(history.timeline_of(number, 16 * MIB, 3), timeline, "{number}");
        }
        for (lsn, timeline) in [(0, 1), (0x2ff_ffff, 1), (0x300_0000, 2), (0x57f_ffff, 2), (0x580_0000, 3)] {
            assert_eq!(history.timeline_at(Lsn(lsn), 3), timeline, "{lsn:x}");
        }
        assert!(History::parse("1 here\n").is_err());
    }
}
