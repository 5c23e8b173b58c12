//! `MariaDB`'s ids. A state is the last one of each server in each domain.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::error::{Cause, Error, Result};

/// `domain-server-sequence`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Gtid {
    pub(crate) domain: u32,
    pub(crate) server: u32,
    pub(crate) sequence: u64,
}

impl fmt::Display for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.domain, self.server, self.sequence)
    }
}

impl FromStr for Gtid {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let read = || {
            let mut parts = text.trim().split('-');
            let gtid = Self {
                domain: parts.next()?.parse().ok()?,
                server: parts.next()?.parse().ok()?,
                sequence: parts.next()?.parse().ok()?,
            };
            parts.next().is_none().then_some(gtid)
        };
        read().ok_or_else(|| Error::other(format!("{text:?} is no GTID, which is domain-server-sequence")))
    }
}

/// Where a log is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    latest: BTreeMap<(u32, u32), u64>,
    /// Which server wrote last to a domain.
    last: BTreeMap<u32, u32>,
}

impl State {
    /// Reads the content of a list event, the state at the beginning of a file.
    ///
    /// # Errors
    /// [`Cause::Damaged`].
    pub(crate) fn read(body: &[u8]) -> Result<Self> {
        let damaged = || Error::new(Cause::Damaged, "its list of GTIDs cannot be read");
        let (count, mut rest) = body.split_first_chunk::<4>().ok_or_else(damaged)?;
        let mut state = Self::default();
        // The four highest bits are flags.
        for _ in 0..u32::from_le_bytes(*count) & 0x0fff_ffff {
            let (entry, after) = rest.split_first_chunk::<16>().ok_or_else(damaged)?;
            let number = |at: usize| u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]);
            let sequence = u64::from(number(8)) | u64::from(number(12)) << 32;
            state.take(Gtid { domain: number(0), server: number(4), sequence });
            rest = after;
        }
        Ok(state)
    }

    /// Takes the next transaction in.
    pub(crate) fn take(&mut self, gtid: Gtid) {
        self.latest.insert((gtid.domain, gtid.server), gtid.sequence);
        self.last.insert(gtid.domain, gtid.server);
    }

    /// The last transaction of each domain.
    pub(crate) fn position(&self) -> Vec<Gtid> {
        let of = |(domain, server): (&u32, &u32)| {
            let sequence = self.latest.get(&(*domain, *server)).copied().unwrap_or_default();
            Gtid { domain: *domain, server: *server, sequence }
        };
        self.last.iter().map(of).collect()
    }

    /// Whether a transaction was before.
    pub(crate) fn has(&self, gtid: Gtid) -> bool {
        self.latest.get(&(gtid.domain, gtid.server)).is_some_and(|latest| *latest >= gtid.sequence)
    }

    /// Everything that it knows, as text.
    pub(crate) fn all(&self) -> String {
        let all: Vec<String> = self.latest.iter().map(|((d, s), n)| format!("{d}-{s}-{n}")).collect();
        all.join(",")
    }
}

/// As the server writes it: `0-1-5,1-1-9`.
pub(crate) fn text(position: &[Gtid]) -> String {
    position.iter().map(Gtid::to_string).collect::<Vec<_>>().join(",")
}

/// Reads a position; the empty text is the beginning.
///
/// # Errors
/// When it is none.
pub(crate) fn position(text: &str) -> Result<Vec<Gtid>> {
    let mut all: Vec<Gtid> =
        text.split(',').filter(|gtid| !gtid.trim().is_empty()).map(str::parse).collect::<Result<_>>()?;
    all.sort_unstable();
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_or_refused() {
        assert_eq!("0-1-5".parse::<Gtid>().unwrap().to_string(), "0-1-5");
        for wrong in ["", "0-1", "0-1-5-6", "a-1-5", "0-1-5,0-2-6"] {
            assert!(wrong.parse::<Gtid>().is_err(), "{wrong}");
        }
        assert_eq!(text(&position("1-1-9, 0-1-5").unwrap()), "0-1-5,1-1-9");
        assert_eq!(position("").unwrap(), []);
    }

    #[test]
    fn a_state_follows_its_transactions() {
        let entry = |d: u32, s: u32, n: u64| [&d.to_le_bytes()[..], &s.to_le_bytes(), &n.to_le_bytes()].concat();
        let list = [&(3_u32 | 1 << 28).to_le_bytes()[..], &entry(0, 2, 7), &entry(0, 1, 5), &entry(3, 1, 1)].concat();
        let mut state = State::read(&list).unwrap();
        assert_eq!(text(&state.position()), "0-1-5,3-1-1", "the last of a domain counts, not the highest");
        let before = state.all();
        state.take("0-2-8".parse().unwrap());
        assert_eq!(text(&state.position()), "0-2-8,3-1-1");
        assert_ne!(state.all(), before);
        assert!(state.has("0-1-5".parse().unwrap()) && !state.has("0-1-6".parse().unwrap()));
        assert!(!state.has("9-1-1".parse().unwrap()));
        assert!(State::read(&list[..20]).is_err());
    }
}
