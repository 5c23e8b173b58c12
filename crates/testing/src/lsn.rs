//! PostgreSQL's positions in the write-ahead log.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, Error};

/// A byte position in the log, written as `high/low` in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lsn(pub u64);

impl FromStr for Lsn {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || format!("{text:?} is no log position");
        let (high, low) = text.trim().split_once('/').with_context(wrong)?;
        let part = |digits: &str| u64::from_str_radix(digits, 16).with_context(wrong);
        Ok(Self(part(high)? << 32 | part(low)?))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

#[cfg(test)]
mod tests {
    use super::Lsn;

    #[test]
    fn positions_are_read_and_ordered() {
        let one: Lsn = "0/6BBF778".parse().unwrap();
        let two: Lsn = "1/0".parse().unwrap();
        assert!(one < two);
        assert_eq!(one.to_string(), "0/6BBF778");
        assert!("6BBF778".parse::<Lsn>().is_err());
    }
}
