//! How long a backup is kept.

use std::fmt;

/// A parsed retention period; zero means for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct RetentionPeriod {
    seconds: u64,
}

/// Why a retention period was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RetentionError {
    /// A unit that is none, or a number without one.
    #[error("retention period {text:?}: {part:?} is not a number with one of the units y, mo, w, d, h, m")]
    Unit {
        /// The whole text.
        text: String,
        /// What could not be read.
        part: String,
    },
    /// The same unit twice.
    #[error("retention period {text:?} names the unit {unit} twice")]
    Repeated {
        /// The whole text.
        text: String,
        /// The unit.
        unit: &'static str,
    },
    /// More than can be counted.
    #[error("retention period {0:?} is too long")]
    TooLong(String),
}

/// Units and their seconds; `mo` stands before `m`.
const UNITS: [(&str, u64); 6] =
    [("y", 365 * 86_400), ("mo", 30 * 86_400), ("w", 7 * 86_400), ("d", 86_400), ("h", 3600), ("m", 60)];

impl RetentionPeriod {
    /// Reads `<int><unit>…` with units y (365 d), mo (30 d), w, d, h, m (minutes); empty or zero is for ever.
    ///
    /// # Errors
    /// An unknown unit, a repeated unit, or a sum that cannot be counted.
    pub fn parse(text: &str) -> Result<Self, RetentionError> {
        let mut seconds = 0u64;
        let mut seen: Vec<&str> = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let (number, tail) = rest.split_at(digits);
            let unknown = || RetentionError::Unit { text: text.to_owned(), part: rest.to_owned() };
            // A bare zero needs no unit.
            if tail.is_empty() && seen.is_empty() && !number.is_empty() && number.bytes().all(|b| b == b'0') {
                break;
            }
            let (unit, factor) = UNITS.iter().find(|(unit, _)| tail.starts_with(unit)).copied().ok_or_else(unknown)?;
            if number.is_empty() {
                return Err(unknown());
            }
            if seen.contains(&unit) {
                return Err(RetentionError::Repeated { text: text.to_owned(), unit });
            }
            seen.push(unit);
            seconds = number
                .parse::<u64>()
                .ok()
                .and_then(|count| count.checked_mul(factor))
                .and_then(|part| seconds.checked_add(part))
                .filter(|sum| i64::try_from(*sum).is_ok())
                .ok_or_else(|| RetentionError::TooLong(text.to_owned()))?;
            rest = &tail[unit.len()..];
        }
        Ok(Self { seconds })
    }

    /// Whole seconds; 0 is for ever.
    pub fn seconds(self) -> u64 {
        self.seconds
    }

    /// The moment after which a backup that counts from `start` may go; `None` is never.
    pub fn expiration(self, start: jiff::Timestamp) -> Option<jiff::Timestamp> {
        if self.seconds == 0 {
            return None;
        }
        start.checked_add(jiff::SignedDuration::from_secs(i64::try_from(self.seconds).ok()?)).ok()
    }
}

impl fmt::Display for RetentionPeriod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.seconds == 0 {
            return f.write_str("for ever");
        }
        let mut rest = self.seconds;
        for (unit, factor) in [("d", 86_400), ("h", 3600), ("m", 60)] {
            if rest >= factor {
                write!(f, "{}{unit}", rest / factor)?;
                rest %= factor;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behaviour_4_1_units_add_up() {
        for (text, seconds) in [
            ("", 0),
            ("0", 0),
            ("0d", 0),
            ("7d", 7 * 86_400),
            ("1mo", 30 * 86_400),
            ("1m", 60),
            ("1mo1m", 30 * 86_400 + 60),
            ("1y2w3h", 365 * 86_400 + 14 * 86_400 + 3 * 3600),
        ] {
            assert_eq!(RetentionPeriod::parse(text).map(RetentionPeriod::seconds), Ok(seconds), "{text}");
        }
    }

    #[test]
    fn behaviour_4_1_nonsense_is_refused() {
        for text in ["7", "d", "7s", "-7d", "1d1d", "7dd", "99999999999999999999y", "7 d"] {
            assert!(RetentionPeriod::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn behaviour_4_1_for_ever_never_expires() {
        let start = jiff::Timestamp::from_second(0).unwrap();
        assert_eq!(RetentionPeriod::parse("").unwrap().expiration(start), None);
        assert_eq!(
            RetentionPeriod::parse("1d").unwrap().expiration(start),
            Some(jiff::Timestamp::from_second(86_400).unwrap())
        );
    }
}
