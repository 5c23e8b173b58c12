//! Names of log files: what the administrator chose, and a number that counts up.

use std::fmt;

use crate::error::{Error, Result};

/// `mysql-bin.000012`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    pub(crate) base: String,
    pub(crate) number: u64,
}

impl Name {
    /// Reads a name without folders; `None` when it is none.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let (base, number) = text.rsplit_once('.')?;
        let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
        let digits = number.len() >= 6 && number.bytes().all(|digit| digit.is_ascii_digit());
        let name = Self { base: base.to_owned(), number: number.parse().ok()? };
        // What is read is written the same way.
        (digits && !base.is_empty() && base.chars().all(plain) && name.to_string() == text).then_some(name)
    }

    /// # Errors
    /// When it is a name that this program cannot store under.
    pub(crate) fn of_server(text: &str) -> Result<Self> {
        let file = text.rsplit('/').next().unwrap_or_default();
        Self::read(file).ok_or_else(|| Error::other(format!("{text:?} is no name of a binary log that can be stored")))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.base, self.number)
    }
}

/// A byte in a log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) file: Name,
    pub(crate) at: u64,
}

impl Place {
    /// # Errors
    /// When it is not `file:position`.
    pub(crate) fn read(text: &str) -> Result<Self> {
        let read = || {
            let (file, at) = text.rsplit_once(':')?;
            Some(Self { file: Name::read(file)?, at: at.parse().ok()? })
        };
        read().ok_or_else(|| Error::other(format!("{text:?} is no place in a binary log, which is file:position")))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_count_up() {
        let name = Name::read("mysql-bin.000012").unwrap();
        assert_eq!((name.number, name.to_string().as_str()), (12, "mysql-bin.000012"));
        assert_eq!(Name::read("a.b.1000000").unwrap().to_string(), "a.b.1000000");
        for wrong in ["", "x", "x.12", ".000012", "x.00001a", "x.0000012", "a/b.000001", "a~b.000001"] {
            assert_eq!(Name::read(wrong), None, "{wrong}");
        }
        assert_eq!(Name::of_server("/var/lib/mysql/x.000001").unwrap().to_string(), "x.000001");
        assert_eq!(Place::read("x.000001:4").unwrap().to_string(), "x.000001:4");
        assert!(Place::read("x.000001").is_err() && Place::read("x:4").is_err());
    }
}
