//! Typed values of the configuration file: truth values, sizes.

use super::ini::Ini;
use crate::args::go_bool;
use crate::error::{Error, Result};

/// The keys of `[storage]` as one back end's options.
pub(crate) struct Options<'a> {
    ini: &'a Ini,
}

impl<'a> Options<'a> {
    pub(crate) fn new(ini: &'a Ini) -> Self {
        Self { ini }
    }

    /// A value that is set and not empty.
    pub(crate) fn text(&self, key: &str) -> Option<&'a str> {
        self.ini.get("storage", key).filter(|value| !value.is_empty())
    }

    /// # Errors
    /// When the value is not a truth value of the contract.
    pub(crate) fn bool(&self, key: &str, default: bool) -> Result<bool> {
        let Some(text) = self.text(key) else { return Ok(default) };
        go_bool(text).ok_or_else(|| {
            Error::other(format!(
                "couldn't parse config item {key:?} = {text:?} as bool: parsing {text:?} as bool failed: \
                 strconv.ParseBool: parsing {text:?}: invalid syntax"
            ))
        })
    }

    /// A size in bytes. A bare number means KiB, as the contract has it.
    ///
    /// # Errors
    /// When the value is not a size.
    pub(crate) fn size(&self, key: &str) -> Result<Option<u64>> {
        let Some(text) = self.text(key) else { return Ok(None) };
        parse_size(text)
            .map(Some)
            .ok_or_else(|| Error::other(format!("couldn't parse config item {key:?} = {text:?} as a size")))
    }

    /// Refuses keys that neither mean something here nor may be ignored.
    ///
    /// # Errors
    /// Names the key, and what the type does know.
    pub(crate) fn refuse_unknown(&self, kind: &str, known: &[&str]) -> Result<()> {
        const COMMON: &[&str] = &["type", "root", "no_check_certificate", "description"];
        for (key, _) in self.ini.keys("storage") {
            if !known.contains(&key) && !COMMON.contains(&key) {
                return Err(Error::other(format!(
                    "unknown key {key:?} in [storage] for type {kind:?} (known: {})",
                    known.join(", ")
                )));
            }
        }
        Ok(())
    }
}

fn parse_size(text: &str) -> Option<u64> {
    if text == "off" {
        return Some(u64::MAX);
    }
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..at].parse().ok()?;
    let unit = match text[at..].trim_end_matches("iB").trim_end_matches('i') {
        "b" | "B" => 0,
        "" | "k" | "K" => 1,
        "m" | "M" => 2,
        "g" | "G" => 3,
        "t" | "T" => 4,
        "p" | "P" => 5,
        "e" | "E" => 6,
        _ => return None,
    };
    Some((number * 1024f64.powi(unit)) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024_and_bare_numbers_kib() {
        for (text, bytes) in
            [("50Mi", 50 << 20), ("5", 5 << 10), ("64b", 64), ("1.5k", 1536), ("2GiB", 2 << 30), ("1T", 1 << 40)]
        {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        assert_eq!(parse_size("lots"), None);
    }
}
