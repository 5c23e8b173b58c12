//! `MySQL`'s ids: the server that a transaction came from, and its number there. A state is the set of all.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::error::{Cause, Error, Result};

/// A server's `server_uuid`, or the name of a group of servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Source(pub(crate) [u8; 16]);

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl Source {
    fn read(text: &str) -> Option<Self> {
        let digits: String = text.trim().chars().filter(|letter| *letter != '-').collect();
        let mut source = [0; 16];
        hex::decode_to_slice(digits, &mut source).ok()?;
        Some(Self(source))
    }
}

/// `source:number`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gtid {
    pub(crate) source: Source,
    pub(crate) number: u64,
}

impl fmt::Display for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.source, self.number)
    }
}

impl FromStr for Gtid {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let read = || {
            let (source, number) = text.trim().split_once(':')?;
            Some(Self { source: Source::read(source)?, number: number.parse().ok().filter(|number| *number > 0)? })
        };
        read().ok_or_else(|| Error::other(format!("{text:?} is no GTID, which is source:number")))
    }
}

/// Transactions of any number of sources: of each the stretches, first and last number, in order and apart from each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Set(BTreeMap<Source, Vec<(u64, u64)>>);

impl Set {
    /// Reads the content of the event that a log file begins with.
    ///
    /// # Errors
    /// [`Cause::Damaged`]; [`Cause::AccessDenied`] where ids have tags.
    pub(crate) fn read(mut body: &[u8]) -> Result<Self> {
        let damaged = || Error::new(Cause::Damaged, "its set of GTIDs cannot be read");
        let number = |body: &mut &[u8]| -> Result<u64> {
            let (bytes, rest) = body.split_first_chunk().ok_or_else(damaged)?;
            *body = rest;
            Ok(u64::from_le_bytes(*bytes))
        };
        let sources = number(&mut body)?;
        // The highest byte says how the rest is written.
        if sources >> 56 != 0 {
            return Err(Error::new(Cause::AccessDenied, super::super::TAGS));
        }
        let mut set = Self::default();
        for _ in 0..sources {
            let (source, rest) = body.split_first_chunk().ok_or_else(damaged)?;
            let source = Source(*source);
            body = rest;
            for _ in 0..number(&mut body)? {
                // The second is the first that does not belong to it.
                let (first, behind) = (number(&mut body)?, number(&mut body)?);
                if first == 0 || behind <= first {
                    return Err(damaged());
                }
                set.take(source, first, behind - 1);
            }
        }
        if body.is_empty() { Ok(set) } else { Err(damaged()) }
    }

    /// Takes the transactions from `first` to `last` in.
    pub(crate) fn take(&mut self, source: Source, first: u64, last: u64) {
        let stretches = self.0.entry(source).or_default();
        // Those that it touches become one with it; nearly always the last.
        let from = stretches.partition_point(|(_, end)| end.saturating_add(1) < first);
        let to = stretches.partition_point(|(begin, _)| *begin <= last.saturating_add(1));
        let touched = &stretches[from..to.max(from)];
        let begin = touched.first().map_or(first, |(begin, _)| first.min(*begin));
        let end = touched.last().map_or(last, |(_, end)| last.max(*end));
        stretches.splice(from..to.max(from), [(begin, end)]);
    }

    pub(crate) fn has(&self, gtid: Gtid) -> bool {
        let within = |(first, last): &(u64, u64)| (*first..=*last).contains(&gtid.number);
        self.0.get(&gtid.source).is_some_and(|stretches| stretches.iter().any(within))
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (source, stretches)) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            source.fmt(f)?;
            for (first, last) in stretches {
                if first == last { write!(f, ":{first}")? } else { write!(f, ":{first}-{last}")? }
            }
        }
        Ok(())
    }
}

impl FromStr for Set {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut set = Self::default();
        let mut read = |part: &str| {
            let mut parts = part.trim().split(':');
            let source = Source::read(parts.next()?)?;
            for stretch in parts {
                let (first, last) = stretch.trim().split_once('-').unwrap_or((stretch.trim(), stretch.trim()));
                let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
                (1..=last).contains(&first).then(|| set.take(source, first, last))?;
            }
            Some(())
        };
        for part in text.split(',').filter(|part| !part.trim().is_empty()) {
            read(part)
                .ok_or_else(|| Error::other(format!("{part:?} is no set of GTIDs, which is source:first-last")))?;
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
    const TWO: &str = "4e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn set(text: &str) -> Set {
        text.parse().unwrap()
    }

    #[test]
    fn a_set_has_one_way_to_be_written() {
        let text = format!("{ONE}:1-5:7:9-12,{TWO}:1");
        assert_eq!(set(&text).to_string(), text);
        let other = format!(" {TWO}:1, {}:9-12:7-7:1-3,\n{ONE}:4-5", ONE.to_uppercase());
        assert_eq!(set(&other).to_string(), text, "order, case and cuts do not matter");
        for wrong in ["x:1", "3e11:1", &format!("{ONE}:0"), &format!("{ONE}:5-4"), &format!("{ONE}:tag:1")] {
            assert!(wrong.parse::<Set>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn stretches_grow_together() {
        let mut found = set(&format!("{ONE}:1-3:5-6:9"));
        let source = Source::read(ONE).unwrap();
        found.take(source, 4, 4);
        assert_eq!(found, set(&format!("{ONE}:1-6:9")));
        found.take(source, 11, 12);
        found.take(source, 2, 10);
        assert_eq!(found, set(&format!("{ONE}:1-12")));
        found.take(source, u64::MAX, u64::MAX);
        assert!(found.has(format!("{ONE}:12").parse().unwrap()) && !found.has(format!("{ONE}:13").parse().unwrap()));
        assert!(!found.has(format!("{TWO}:1").parse().unwrap()));
    }

    #[test]
    fn a_file_s_set_is_read_or_refused() {
        let number = u64::to_le_bytes;
        let source = Source::read(ONE).unwrap();
        let body = [&number(1)[..], &source.0, &number(2), &number(1), &number(6), &number(8), &number(9)].concat();
        assert_eq!(Set::read(&body).unwrap(), set(&format!("{ONE}:1-5:8")));
        assert_eq!(Set::read(&number(0)).unwrap(), Set::default());
        for end in 0..body.len() {
            assert!(Set::read(&body[..end]).is_err(), "{end}");
        }
        assert!(Set::read(&[&body[..], &[0]].concat()).is_err());
        assert!(Set::read(&number(1 << 56)).unwrap_err().is(Cause::AccessDenied));
        let empty = [&number(1)[..], &source.0, &number(1), &number(5), &number(5)].concat();
        assert!(Set::read(&empty).is_err());
    }
}
