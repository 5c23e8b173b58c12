//! Many entries in little memory: a million of them take what their names take and 24 bytes each.

use jiff::Timestamp;

use super::{Entry, Visit};
use crate::error::Result;

/// Entries that are handed on at once.
const PAGE: usize = 1000;
/// Bits of a row's first number: where the name begins, how long it is, whether it is a directory.
const LENGTH: u32 = 17;
const LONGEST: usize = (1 << (LENGTH - 1)) - 1;

/// Entries that are kept to be sorted.
#[derive(Debug, Default)]
pub(crate) struct Held {
    names: String,
    rows: Vec<Row>,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    place: u64,
    size: i64,
    /// Microseconds.
    modified: i64,
}

/// What to sort by; ties go by ascending name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Name,
    Size,
    Modified,
}

impl Row {
    fn name(self, names: &str) -> &str {
        let start = (self.place >> LENGTH) as usize;
        let length = (self.place >> 1) as usize & LONGEST;
        &names[start..start + length]
    }

    fn is_dir(self) -> bool {
        self.place & 1 == 1
    }
}

impl Held {
    pub(crate) fn push(&mut self, entry: &Entry) {
        // Back ends allow far shorter names.
        let name = &entry.key[..entry.key.floor_char_boundary(LONGEST)];
        let place = (self.names.len() as u64) << LENGTH | (name.len() as u64) << 1 | u64::from(entry.dir);
        self.names.push_str(name);
        self.rows.push(Row { place, size: entry.size, modified: entry.modified.as_microsecond() });
    }

    pub(crate) fn sort(&mut self, by: By, reverse: bool) {
        let turn = |order: std::cmp::Ordering| if reverse { order.reverse() } else { order };
        let names = &self.names;
        self.rows.sort_unstable_by(|left, right| {
            let name = left.name(names).cmp(right.name(names));
            match by {
                By::Name => turn(name),
                By::Size => turn(left.size.cmp(&right.size)).then(name),
                By::Modified => turn(left.modified.cmp(&right.modified)).then(name),
            }
        });
    }

    /// Drops what is there twice; of sorted entries only.
    pub(crate) fn dedup(&mut self) {
        let names = &self.names;
        self.rows.dedup_by(|left, right| left.name(names) == right.name(names) && left.is_dir() == right.is_dir());
    }

    /// Hands the entries on, some at a time.
    pub(crate) fn visit(&self, visit: Visit<'_>) -> Result<()> {
        for rows in self.rows.chunks(PAGE) {
            let entries = rows.iter().map(|row| Entry {
                key: row.name(&self.names).to_owned(),
                dir: row.is_dir(),
                size: row.size,
                modified: Timestamp::from_microsecond(row.modified).unwrap_or(Timestamp::UNIX_EPOCH),
                etag: None,
            });
            visit(entries.collect())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(entries: &[(&str, bool, i64, i64)]) -> Held {
        let mut held = Held::default();
        for &(key, dir, size, second) in entries {
            let modified = Timestamp::from_second(second).unwrap();
            held.push(&Entry { key: key.to_owned(), dir, size, modified, etag: None });
        }
        held
    }

    fn keys(held: &Held) -> Vec<String> {
        let mut keys = Vec::new();
        let mut visit = |entries: Vec<Entry>| {
            keys.extend(entries.into_iter().map(|entry| entry.key + if entry.dir { "/" } else { "" }));
            Ok(())
        };
        held.visit(&mut visit).unwrap();
        keys
    }

    #[test]
    fn entries_come_back_as_they_were_in_any_order() {
        let mut held = held(&[("b", false, 1, -5), ("ä/ö", true, -1, 7), ("", false, i64::MAX, 0), ("b", false, 2, 3)]);
        held.sort(By::Size, true);
        assert_eq!(keys(&held), ["", "b", "b", "ä/ö/"]);
        held.sort(By::Modified, false);
        let mut entries = Vec::new();
        held.visit(&mut |page| {
            entries.extend(page);
            Ok(())
        })
        .unwrap();
        assert_eq!(entries[0].modified.as_second(), -5);
        assert_eq!((entries[1].key.as_str(), entries[1].size), ("", i64::MAX));
        assert!(entries[3].dir && entries[3].size == -1);
        held.sort(By::Name, false);
        held.dedup();
        assert_eq!(keys(&held), ["", "b", "ä/ö/"]);
    }

    #[test]
    fn ties_go_by_ascending_name_also_downwards() {
        let mut held = held(&[("c", false, 1, 0), ("a", false, 1, 0), ("b", false, 2, 0)]);
        held.sort(By::Size, true);
        assert_eq!(keys(&held), ["b", "a", "c"]);
        held.sort(By::Name, true);
        assert_eq!(keys(&held), ["c", "b", "a"]);
    }
}
