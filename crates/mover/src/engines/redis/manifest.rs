//! The list of the files that make up an append-only log (`appendonly.aof.manifest`), of Redis 7 and Valkey.

use crate::error::{Cause, Error, Result};

/// A file of commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Increment {
    pub(crate) name: String,
    /// Counts up by one from file to file.
    pub(crate) number: u64,
}

/// What the server would read: the data as they were, and what was done to them since.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) base: Option<String>,
    /// In their order; the server writes to the last one.
    pub(crate) increments: Vec<Increment>,
}

impl Manifest {
    /// # Errors
    /// [`Cause::Damaged`] when it is none, or not to be followed.
    pub(crate) fn read(text: &str) -> Result<Self> {
        let mut manifest = Self::default();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            manifest.take(line).ok_or_else(|| {
                Error::new(
                    Cause::Damaged,
                    format!("{line:?} in the manifest of the append-only file is not understood"),
                )
            })?;
        }
        Ok(manifest)
    }

    fn take(&mut self, line: &str) -> Option<()> {
        // Names with blanks are quoted; a path would lead out of the folder.
        let words: Vec<&str> = line.split(' ').collect();
        let plain = |name: &str| !name.contains(['/', '"', '\\']) && !name.is_empty();
        let (mut name, mut number, mut kind) = (None, None, None);
        for pair in words.chunks(2) {
            let [key, value] = pair else { return None };
            match *key {
                "file" => name = Some((*value).to_owned()).filter(|name| plain(name)),
                "seq" => number = Some(value.parse().ok()?),
                "type" => kind = Some(*value),
                // What newer servers add.
                _ => {}
            }
        }
        match (kind?, name?) {
            ("b", name) => self.base = Some(name),
            ("i", name) => {
                let number = number?;
                if self.increments.last().is_some_and(|last| last.number + 1 != number) {
                    return None;
                }
                self.increments.push(Increment { name, number });
            }
            // What the server is about to remove.
            ("h", _) => {}
            _ => return None,
        }
        Some(())
    }

    /// The text for a log of these files, numbered from 1.
    pub(crate) fn text(base: &str, increments: &[String]) -> String {
        let mut text = format!("file {base} seq 1 type b\n");
        for (index, name) in increments.iter().enumerate() {
            text += &format!("file {name} seq {} type i\n", index + 1);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_a_server() {
        let text = "file a.aof.2.base.rdb seq 2 type b\nfile a.aof.1.incr.aof seq 1 type h\n\
                    file a.aof.3.incr.aof seq 3 type i startoffset 12\nfile a.aof.4.incr.aof seq 4 type i\n";
        let manifest = Manifest::read(text).unwrap();
        assert_eq!(manifest.base.as_deref(), Some("a.aof.2.base.rdb"));
        let numbers: Vec<u64> = manifest.increments.iter().map(|one| one.number).collect();
        assert_eq!(numbers, [3, 4]);
        assert_eq!(Manifest::read("").unwrap(), Manifest::default());
        let written = Manifest::text("b", &["x".to_owned(), "y".to_owned()]);
        assert_eq!(Manifest::read(&written).unwrap().increments[1], Increment { name: "y".to_owned(), number: 2 });
    }

    #[test]
    fn what_leads_astray_is_refused() {
        for wrong in [
            "nonsense",
            "file a seq 1",
            "file a type i",
            "file a seq x type i",
            "file ../a seq 1 type i",
            "file \"a b\" seq 1 type i",
            "file a seq 1 type z",
            "file a seq 1 type i\nfile b seq 3 type i",
        ] {
            assert_eq!(Manifest::read(wrong).unwrap_err().cause, Cause::Damaged, "{wrong}");
        }
    }
}
