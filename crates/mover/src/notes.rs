//! Lines of notes and manifests as they arrive, and notes put in order: however many there are, in the same memory.

use kbbackup_core::contract::{ManifestEntry, Stored};

use crate::error::{Cause, Error, Result};
use crate::sort::{Record, Sorted, Sorter};

/// No line is longer: a path has at most some thousand bytes. What is longer is no list of ours, and is not collected.
const LONGEST: usize = 64 << 10;

/// Puts pieces of a file together to lines.
#[derive(Debug)]
pub(crate) struct Lines {
    /// Of the file, for messages.
    name: String,
    number: u64,
    rest: Vec<u8>,
}

impl Lines {
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), number: 0, rest: Vec::new() }
    }

    /// Takes the next bytes and gives each entry whose line they complete.
    ///
    /// # Errors
    /// [`Cause::Damaged`] when a complete line is not an entry.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(ManifestEntry) -> Result<()>) -> Result<()> {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = bytes.split_at(end);
            bytes = &rest[1..];
            self.number += 1;
            let entry = if self.rest.is_empty() {
                self.entry(line)?
            } else {
                self.keep(line)?;
                let line = std::mem::take(&mut self.rest);
                self.entry(&line)?
            };
            if let Some(entry) = entry {
                each(entry)?;
            }
        }
        self.keep(bytes)
    }

    /// Whether the file ended in the middle of a line. Among notes that is a writer that died, and no note.
    pub(crate) fn is_cut(&self) -> bool {
        !self.rest.is_empty()
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<()> {
        if self.rest.len() + bytes.len() > LONGEST {
            return Err(self.damaged(self.number + 1, "not a manifest entry: the line is too long"));
        }
        self.rest.extend_from_slice(bytes);
        Ok(())
    }

    fn entry(&self, line: &[u8]) -> Result<Option<ManifestEntry>> {
        if line.is_empty() {
            return Ok(None);
        }
        let entry: ManifestEntry = serde_json::from_slice(line)
            .map_err(|error| self.damaged(self.number, &format!("not a manifest entry: {error}")))?;
        if is_clean(&entry.path) {
            Ok(Some(entry))
        } else {
            Err(self.damaged(self.number, &format!("path {:?} leaves the backup", entry.path)))
        }
    }

    fn damaged(&self, number: u64, why: &str) -> Error {
        Error::new(Cause::Damaged, format!("{} line {number}: {why}", self.name))
    }
}

/// Whether a manifest's path is a plain relative one.
fn is_clean(path: &str) -> bool {
    !path.is_empty() && !path.contains('\0') && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// Whose note it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Voice {
    /// An attempt's that is part of the backup.
    Counts,
    /// Any other's: it says what may be removed.
    Other,
}

/// Notes in the order in which they were made; of those about one path the last counts.
#[derive(Debug)]
pub(crate) struct Notes(Sorter);

impl Notes {
    pub(crate) fn new() -> Self {
        Self(Sorter::new())
    }

    /// # Errors
    /// When there is no room for temporary files.
    pub(crate) fn add(&mut self, entry: &ManifestEntry, voice: Voice) -> Result<()> {
        let mut value = vec![u8::from(voice == Voice::Counts), u8::from(entry.removed)];
        value.extend_from_slice(&entry.size.to_le_bytes());
        value.extend_from_slice(entry.blake3.as_bytes());
        self.0.push(&entry.path, &value)
    }

    /// # Errors
    /// When there is no room for temporary files.
    pub(crate) fn finish(self) -> Result<Verdicts> {
        Ok(Verdicts { notes: self.0.finish()?, next: None })
    }
}

/// What the notes say about a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The object belongs to the backup.
    Belongs(ManifestEntry),
    /// Only attempts that do not count wrote it.
    Leftover(String),
}

impl Verdict {
    pub(crate) fn path(&self) -> &str {
        match self {
            Self::Belongs(entry) => &entry.path,
            Self::Leftover(path) => path,
        }
    }
}

/// One verdict for each path, in the order of the paths.
#[derive(Debug)]
pub(crate) struct Verdicts {
    notes: Sorted,
    next: Option<Record>,
}

impl Verdicts {
    /// # Errors
    /// When the temporary file cannot be read.
    pub(crate) fn next(&mut self) -> Result<Option<Verdict>> {
        loop {
            let Some(first) = self.next.take().map_or_else(|| self.notes.next(), |record| Ok(Some(record)))? else {
                return Ok(None);
            };
            let path = first.key.clone();
            let (mut counts, mut other) = (None, false);
            let mut record = Some(first);
            while let Some(note) = record {
                if note.key != path {
                    self.next = Some(note);
                    break;
                }
                let [voice, removed, rest @ ..] = note.value.as_slice() else {
                    return Err(Error::other("the temporary file is damaged"));
                };
                let stands = *removed == 0;
                if *voice == 0 {
                    other = stands;
                } else {
                    counts = stands.then(|| rest.to_vec());
                }
                record = self.notes.next()?;
            }
            if let Some(rest) = counts {
                let (size, blake3) = rest.split_first_chunk().ok_or_else(|| Error::other("a note without a size"))?;
                return Ok(Some(Verdict::Belongs(ManifestEntry {
                    path,
                    size: u64::from_le_bytes(*size),
                    blake3: String::from_utf8_lossy(blake3).into_owned(),
                    removed: false,
                })));
            }
            if other {
                return Ok(Some(Verdict::Leftover(path)));
            }
        }
    }

    /// Number and size of the objects that belong to the backup.
    ///
    /// # Errors
    /// When the temporary file cannot be read.
    pub(crate) fn sum(mut self) -> Result<Stored> {
        let mut stored = Stored::default();
        while let Some(verdict) = self.next()? {
            if let Verdict::Belongs(entry) = verdict {
                stored.objects += 1;
                stored.bytes += entry.size;
            }
        }
        Ok(stored)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(pieces: &[&[u8]]) -> Result<(Vec<ManifestEntry>, bool)> {
        let mut lines = Lines::new("x");
        let mut entries = Vec::new();
        for piece in pieces {
            lines.feed(piece, |entry| {
                entries.push(entry);
                Ok(())
            })?;
        }
        Ok((entries, lines.is_cut()))
    }

    fn line(path: &str) -> String {
        let entry = ManifestEntry { path: path.into(), size: 1, blake3: "00".into(), removed: false };
        serde_json::to_string(&entry).unwrap() + "\n"
    }

    #[test]
    fn the_last_word_about_a_path_counts() {
        let mut notes = Notes::new();
        for (path, size, removed, voice) in [
            ("b", 2, false, Voice::Counts),
            ("a", 1, false, Voice::Counts),
            ("c", 7, false, Voice::Other),
            ("b", 0, true, Voice::Counts),
            ("a", 3, false, Voice::Counts),
            ("d", 1, false, Voice::Other),
            ("d", 0, true, Voice::Other),
            ("a", 9, false, Voice::Other),
            ("b", 5, false, Voice::Other),
        ] {
            notes.add(&ManifestEntry { path: path.into(), size, blake3: "ff".into(), removed }, voice).unwrap();
        }
        let mut verdicts = notes.finish().unwrap();
        let all: Vec<Verdict> = std::iter::from_fn(|| verdicts.next().unwrap()).collect();
        let a = ManifestEntry { path: "a".into(), size: 3, blake3: "ff".into(), removed: false };
        assert_eq!(all, [Verdict::Belongs(a), Verdict::Leftover("b".into()), Verdict::Leftover("c".into())]);
    }

    #[test]
    fn a_line_cut_by_death_is_no_line() {
        let text = line("a") + "{\"path\":\"b\"";
        let (entries, cut) = parse(&[text.as_bytes()]).unwrap();
        assert_eq!((entries.len(), cut), (1, true));
        assert!(parse(&[b"{}\n"]).is_err());
    }

    #[test]
    fn paths_stay_inside() {
        for path in ["../x", "/x", "a//b", "", "a/..", "a\0b"] {
            assert!(parse(&[line(path).as_bytes()]).is_err(), "{path}");
        }
    }

    #[test]
    fn what_is_no_list_is_not_collected() {
        let noise = vec![b'x'; LONGEST];
        let error = parse(&[&noise, &noise]).unwrap_err();
        assert_eq!(error.to_string(), "x line 1: not a manifest entry: the line is too long");
    }

    proptest! {
        #![proptest_config(crate::testing::cases(64))]

        /// Wherever the store cuts a file into pieces.
        #[test]
        fn pieces_make_no_difference(
            paths in prop::collection::vec("[a-z\u{e9}\"\\\\]{1,6}(/[a-z]{1,4}){0,2}", 0..20),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let text: String = paths.iter().map(|path| line(path)).collect();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &text.as_bytes()[pair[0]..pair[1]]).collect();
            let (entries, cut) = parse(&pieces).unwrap();
            prop_assert!(!cut);
            prop_assert_eq!(entries.into_iter().map(|entry| entry.path).collect::<Vec<_>>(), paths);
        }

        /// Noise, and lists with noise in them, are read or refused.
        #[test]
        fn nothing_makes_it_stumble(
            mut bytes in prop::collection::vec(any::<u8>(), 0..400),
            at in any::<prop::sample::Index>(),
        ) {
            drop(parse(&[&bytes]));
            let mut text = (line("some/path") + &line("other")).into_bytes();
            text.splice(at.index(text.len()).., bytes.drain(..));
            drop(parse(&[&text]));
        }
    }
}
