//! The configuration file's syntax. Quirks are the contract's: an unquoted value ends at the first `#` or `;`.

use crate::error::{Error, Result};

/// Sections in order, each with its keys in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ini {
    sections: Vec<(String, Vec<(String, String)>)>,
}

impl Ini {
    /// Parses a file.
    ///
    /// # Errors
    /// When a line is neither a section, a comment nor a key.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut ini = Self::default();
        let mut section = "DEFAULT".to_owned();
        let mut lines = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
        while let Some(line) = lines.next() {
            let trimmed = line.trim();
            if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
                continue;
            }
            if let Some(rest) = trimmed.strip_prefix('[') {
                let end = rest.rfind(']').ok_or_else(|| Error::other(format!("unclosed section: {trimmed}")))?;
                rest[..end].trim().clone_into(&mut section);
                ini.section_mut(&section);
                continue;
            }
            let Some(at) = trimmed.find(['=', ':']) else {
                return Err(Error::other(format!("key-value delimiter not found: {trimmed}\n")));
            };
            let key = trimmed[..at].trim();
            if key.is_empty() {
                return Err(Error::other(format!("empty key name: {trimmed}\n")));
            }
            let value = read_value(trimmed[at + 1..].trim(), &mut lines);
            ini.set(&section, key, value);
        }
        Ok(ini)
    }

    fn section_mut(&mut self, name: &str) -> &mut Vec<(String, String)> {
        let at = self.sections.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
            self.sections.push((name.to_owned(), Vec::new()));
            self.sections.len() - 1
        });
        &mut self.sections[at].1
    }

    pub(crate) fn set(&mut self, section: &str, key: &str, value: impl Into<String>) {
        let keys = self.section_mut(section);
        match keys.iter_mut().find(|(known, _)| known == key) {
            Some(slot) => slot.1 = value.into(),
            None => keys.push((key.to_owned(), value.into())),
        }
    }

    pub(crate) fn remove(&mut self, section: &str, key: &str) -> Option<String> {
        let keys = self.section_mut(section);
        let at = keys.iter().position(|(known, _)| known == key)?;
        Some(keys.remove(at).1)
    }

    pub(crate) fn get(&self, section: &str, key: &str) -> Option<&str> {
        self.keys(section).find(|(known, _)| *known == key).map(|(_, value)| value)
    }

    pub(crate) fn keys<'a>(&'a self, section: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.sections
            .iter()
            .find(|(name, _)| name == section)
            .into_iter()
            .flat_map(|(_, keys)| keys.iter().map(|(key, value)| (key.as_str(), value.as_str())))
    }
}

fn read_value<'a>(line: &str, lines: &mut impl Iterator<Item = &'a str>) -> String {
    for quote in ["\"\"\"", "`"] {
        if let Some(rest) = line.strip_prefix(quote) {
            return read_raw(rest, quote, lines);
        }
    }
    if let Some(start) = line.strip_suffix('\\') {
        let mut value = start.to_owned();
        for next in lines {
            let next = next.trim();
            let (part, more) = next.strip_suffix('\\').map_or((next, false), |part| (part, true));
            value.push_str(part);
            if !more {
                break;
            }
        }
        return value;
    }
    let value = line.find(['#', ';']).map_or(line, |at| line[..at].trim());
    for quote in ['"', '\''] {
        if let Some(inner) = value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote))
            && !inner.contains(quote)
        {
            return inner.to_owned();
        }
    }
    value.to_owned()
}

fn read_raw<'a>(first: &str, quote: &str, lines: &mut impl Iterator<Item = &'a str>) -> String {
    if let Some(end) = first.rfind(quote) {
        return first[..end].to_owned();
    }
    let mut value = first.to_owned();
    for line in lines {
        value.push('\n');
        if let Some(end) = line.find(quote) {
            value.push_str(&line[..end]);
            return value;
        }
        value.push_str(line);
    }
    value
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_follow_the_contract() {
        let ini = Ini::parse(
            "\u{feff}x = 1\n[storage]\r\nplain = a=b:c \r\ncolon: v\nhash = ab#cd\ncomment = v ; c\nquoted = \"q v\"\nsingle = 'q v'\n\
             odd = \"a\"b\"\nempty =\nback = `a;b#c`\nmulti = `one\ntwo`\njoin = a \\\n   b\nslash = a\\b\ndup = 1\ndup = 2\n\
             [other]\ny = 2\n[storage]\nlate = 3\n",
        )
        .unwrap();
        for (key, value) in [
            ("plain", "a=b:c"),
            ("colon", "v"),
            ("hash", "ab"),
            ("comment", "v"),
            ("quoted", "q v"),
            ("single", "q v"),
            ("odd", "\"a\"b\""),
            ("empty", ""),
            ("back", "a;b#c"),
            ("multi", "one\ntwo"),
            ("join", "a b"),
            ("slash", "a\\b"),
            ("dup", "2"),
            ("late", "3"),
        ] {
            assert_eq!(ini.get("storage", key), Some(value), "{key}");
        }
        assert_eq!(ini.get("DEFAULT", "x"), Some("1"));
        assert_eq!(ini.get("storage", "x"), None);
    }

    #[test]
    fn a_line_without_a_delimiter_is_named() {
        let error = Ini::parse("[storage]\ngarbage line\n").unwrap_err();
        assert_eq!(error.to_string(), "key-value delimiter not found: garbage line\n");
    }

    proptest! {
        #![proptest_config(crate::testing::cases(256))]

        #[test]
        fn nothing_makes_it_stumble(text in "[\\[\\]=:#;\"'`\\\\a-c \n\r\t\u{feff}]{0,60}") {
            drop(Ini::parse(&text));
        }

        /// Files as we write them: one key in a line, a blank on each side, no quotes.
        #[test]
        fn what_providers_render_is_read(
            pairs in prop::collection::btree_map("[a-z_]{1,12}", "[A-Za-z0-9/+=:._-]{0,30}", 0..12),
        ) {
            let lines: Vec<String> = pairs.iter().map(|(key, value)| format!("{key} = {value}")).collect();
            let ini = Ini::parse(&format!("[storage]\n{}\n", lines.join("\n"))).unwrap();
            for (key, value) in &pairs {
                prop_assert_eq!(ini.get("storage", key), Some(value.as_str()));
            }
            prop_assert_eq!(ini.keys("storage").count(), pairs.len());
        }
    }
}
