//! Global transaction ids, and the state of a log: what it held before a place in it.

mod lists;
mod sets;

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// A transaction's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gtid {
    /// `domain-server-sequence`.
    MariaDb(lists::Gtid),
    /// `source:number`.
    MySql(sets::Gtid),
}

impl Gtid {
    pub(crate) fn of_mariadb(domain: u32, server: u32, sequence: u64) -> Self {
        Self::MariaDb(lists::Gtid { domain, server, sequence })
    }

    pub(crate) fn of_mysql(source: [u8; 16], number: u64) -> Self {
        Self::MySql(sets::Gtid { source: sets::Source(source), number })
    }
}

impl fmt::Display for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MariaDb(gtid) => gtid.fmt(f),
            Self::MySql(gtid) => gtid.fmt(f),
        }
    }
}

impl FromStr for Gtid {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.contains(':') { text.parse().map(Self::MySql) } else { text.parse().map(Self::MariaDb) }
    }
}

/// Where a log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The last transaction of each server in each domain.
    MariaDb(lists::State),
    /// All transactions.
    MySql(sets::Set),
}

impl Default for State {
    fn default() -> Self {
        Self::MariaDb(lists::State::default())
    }
}

impl State {
    /// Reads the list that a log file of `MariaDB` begins with.
    ///
    /// # Errors
    /// [`crate::error::Cause::Damaged`].
    pub(crate) fn of_mariadb(body: &[u8]) -> Result<Self> {
        lists::State::read(body).map(Self::MariaDb)
    }

    /// Reads the set that a log file of `MySQL` begins with.
    ///
    /// # Errors
    /// [`crate::error::Cause::Damaged`].
    pub(crate) fn of_mysql(body: &[u8]) -> Result<Self> {
        sets::Set::read(body).map(Self::MySql)
    }

    /// Takes the next transaction in.
    pub(crate) fn take(&mut self, gtid: Gtid) {
        match (self, gtid) {
            (Self::MariaDb(state), Gtid::MariaDb(gtid)) => state.take(gtid),
            (Self::MySql(set), Gtid::MySql(gtid)) => set.take(gtid.source, gtid.number, gtid.number),
            // A file has ids of one kind only.
            _ => {}
        }
    }

    /// As the server writes it, see [`position`].
    pub(crate) fn position(&self) -> String {
        match self {
            Self::MariaDb(state) => lists::text(&state.position()),
            Self::MySql(set) => set.to_string(),
        }
    }

    /// Whether a transaction was before.
    pub(crate) fn has(&self, gtid: Gtid) -> bool {
        match (self, gtid) {
            (Self::MariaDb(state), Gtid::MariaDb(gtid)) => state.has(gtid),
            (Self::MySql(set), Gtid::MySql(gtid)) => set.has(gtid),
            _ => false,
        }
    }

    /// Sixteen digits that two different states do not share.
    pub(crate) fn digest(&self) -> String {
        let text = match self {
            Self::MariaDb(state) => state.all(),
            Self::MySql(set) => set.to_string(),
        };
        blake3::hash(text.as_bytes()).to_hex()[..16].to_owned()
    }
}

/// A position as somebody writes it, in the one way in which positions are compared: `0-1-5,1-1-9`, or
/// `3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5:7`. The empty text is the beginning.
///
/// # Errors
/// When it is none.
pub(crate) fn position(text: &str) -> Result<String> {
    if text.contains(':') {
        text.parse::<sets::Set>().map(|set| set.to_string())
    } else {
        lists::position(text).map(|position| lists::text(&position))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_are_told_apart() {
        assert!(matches!("0-1-5".parse(), Ok(Gtid::MariaDb(_))));
        let text = "3e11fa47-71ca-11e1-9e33-c80aa9429562:5";
        assert!(matches!(text.parse(), Ok(Gtid::MySql(_))));
        assert_eq!(text.parse::<Gtid>().unwrap().to_string(), text);
        assert_eq!(position("1-1-9, 0-1-5").unwrap(), "0-1-5,1-1-9");
        assert_eq!(position(&format!("{text}-7")).unwrap(), format!("{text}-7"));
        assert_eq!(position("").unwrap(), "");
        assert!(position("nonsense").is_err() && position("a:b").is_err());
    }

    #[test]
    fn ids_of_the_other_kind_are_in_no_state() {
        let mut state = State::default();
        let other = Gtid::of_mysql([1; 16], 5);
        state.take(other);
        assert!(!state.has(other));
        assert_eq!(state, State::default());
    }
}
