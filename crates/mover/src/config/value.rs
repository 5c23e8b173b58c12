//! Typed values of the configuration file: truth values, sizes.

use std::time::Duration;

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

    /// # Errors
    /// When the value is not a number.
    pub(crate) fn number(&self, key: &str) -> Result<Option<usize>> {
        let Some(text) = self.text(key) else { return Ok(None) };
        let number = text.parse().map(Some);
        number.map_err(|_| Error::other(format!("couldn't parse config item {key:?} = {text:?} as a number")))
    }

    /// A port; 0 is the usual one, because that is what templates give when nothing was said.
    ///
    /// # Errors
    /// When the value is not a port.
    pub(crate) fn port(&self, key: &str, usual: u16) -> Result<u16> {
        let Some(text) = self.text(key) else { return Ok(usual) };
        match text.parse() {
            Ok(0) => Ok(usual),
            Ok(port) => Ok(port),
            Err(_) => Err(Error::other(format!("couldn't parse config item {key:?} = {text:?} as a port"))),
        }
    }

    /// A span of time such as `1m30s`; days, weeks, months and years are known too, and a bare number means seconds.
    ///
    /// # Errors
    /// When the value is not one.
    pub(crate) fn duration(&self, key: &str) -> Result<Option<Duration>> {
        let Some(text) = self.text(key) else { return Ok(None) };
        parse_duration(text)
            .map(Some)
            .ok_or_else(|| Error::other(format!("couldn't parse config item {key:?} = {text:?} as a duration")))
    }

    /// The container or bucket of `root`, and the prefix behind it.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn container(&self, kind: &str) -> Result<(&'a str, &'a str)> {
        let root = self.text("root").unwrap_or_default().trim_matches('/');
        let (container, prefix) = root.split_once('/').unwrap_or((root, ""));
        if container.is_empty() {
            return Err(Error::other(format!("{kind}: root must name a container, optionally followed by /prefix")));
        }
        Ok((container, prefix))
    }

    /// Refuses keys that nobody knows, and those that are known and cannot be honoured.
    ///
    /// # Errors
    /// Names the key and says why.
    pub(crate) fn permit(&self, kind: &str, used: &[&str], ignored: &[&str], refused: &[(&str, &str)]) -> Result<()> {
        let known: Vec<&str> = used.iter().chain(ignored).chain(refused.iter().map(|(key, _)| key)).copied().collect();
        self.refuse_unknown(kind, &known)?;
        self.refuse(kind, refused)
    }

    /// Refuses keys that are known, are set to something, and cannot be honoured.
    ///
    /// # Errors
    /// Names the key and says why.
    pub(crate) fn refuse(&self, kind: &str, keys: &[(&str, &str)]) -> Result<()> {
        for (key, why) in keys {
            if self.text(key).is_some_and(|value| go_bool(value) != Some(false)) {
                return Err(Error::other(format!("{kind}: {key} cannot be used: {why}")));
            }
        }
        Ok(())
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

fn parse_duration(text: &str) -> Option<Duration> {
    let mut seconds = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let at = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..at].parse().ok()?;
        let unit_ends = rest[at..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |end| at + end);
        seconds += number
            * match &rest[at..unit_ends] {
                "ms" => 0.001,
                "" | "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                "d" => 86_400.0,
                "w" => 7.0 * 86_400.0,
                "M" => 30.0 * 86_400.0,
                "y" => 365.0 * 86_400.0,
                _ => return None,
            };
        rest = &rest[unit_ends..];
    }
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_sums_of_units() {
        for (text, seconds) in [("1m", 60), ("1h30m", 5400), ("90", 90), ("2d", 172_800), ("1M", 2_592_000)] {
            assert_eq!(parse_duration(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("soon"), None);
        assert_eq!(parse_duration("1 m"), None);
    }

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
