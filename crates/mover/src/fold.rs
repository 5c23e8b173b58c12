//! Many small fragments become one. A continuous backup stores one with each push, and is never sealed: a month of it would
//! leave hundreds of thousands.
//!
//! The merged fragment is durable before the first of the others goes, and holds the last note about each path, removals too.
//! Its name sorts behind all that it replaces but the last of them, which says the same. So whoever dies between any two
//! requests leaves notes that add up to the same, and so do two that fold at once: who misses a fragment while reading gives up.

use std::time::Duration;

use bytes::Bytes;
use kbbackup_core::contract::ManifestEntry;

use crate::error::{Cause, Result};
use crate::manifest::lines;
use crate::notes::Lines;
use crate::sort::{Record, Sorted, Sorter};
use crate::storage::{Entry, Store};

/// Of so many pushes one folds, on average.
pub(crate) const EVERY: u32 = 256;
/// Fewer are not worth it.
const FEWEST: usize = 128;
/// No more at once: a push waits for it.
const MOST: usize = 1024;
const PIECE: usize = 256 << 10;
const EXTENSION: &str = ".jsonl";

/// Younger fragments are left alone: one that was begun before them may not have appeared yet, and would come too late.
pub(crate) const AGE: Duration = Duration::from_mins(15);

/// Folds the fragments of one attempt, which lie in `dir`, as far as they are older than `age`.
///
/// # Errors
/// When the store refuses. Nothing is lost then.
pub(crate) async fn fold(store: &Store, dir: &str, age: Duration) -> Result<()> {
    // Names begin with the time in nanoseconds.
    let until = jiff::Timestamp::now().as_nanosecond() - age.as_nanos() as i128;
    let until = format!("{dir}/{until:020}");
    let mut fragments: Vec<Entry> = Vec::new();
    let mut keep = |entry: Entry| {
        if entry.key < until && entry.key.strip_suffix(EXTENSION).is_some() {
            fragments.push(entry);
        }
        Ok(())
    };
    store.objects(dir, &mut keep).await?;
    fragments.sort_unstable_by(|left, right| left.key.cmp(&right.key));
    fragments.truncate(MOST);
    let Some(last) = fragments.last().filter(|_| fragments.len() >= FEWEST) else { return Ok(()) };
    let notes = match read(store, &fragments).await {
        // Somebody else is folding.
        Err(error) if error.is(Cause::NotFound) => return Ok(()),
        other => other?,
    };
    let name = last.key.strip_suffix(EXTENSION).unwrap_or(&last.key);
    write(store, &format!("{name}-{:08x}{EXTENSION}", rand::random::<u32>()), notes).await?;
    for fragment in &fragments {
        store.remove(&fragment.key).await?;
    }
    Ok(())
}

async fn read(store: &Store, fragments: &[Entry]) -> Result<Sorted> {
    let mut sorter = Sorter::new();
    for fragment in fragments {
        let mut whole = Lines::new(&*fragment.key);
        let mut source = store.read(fragment).await?;
        while let Some(bytes) = source.next().await? {
            whole.feed(&bytes, |entry: ManifestEntry| sorter.push(&entry.path, &lines([&entry])?))?;
        }
    }
    sorter.finish()
}

/// Writes the last line about each path.
async fn write(store: &Store, key: &str, mut notes: Sorted) -> Result<()> {
    let mut sink = store.create(key)?;
    let copied = async {
        let mut waiting = Vec::new();
        let mut before: Option<Record> = None;
        loop {
            let next = notes.next()?;
            let over = before.as_ref().is_some_and(|before| next.as_ref().is_none_or(|next| next.key != before.key));
            if let (true, Some(record)) = (over, before.take()) {
                waiting.extend(record.value);
            }
            if waiting.len() >= PIECE || next.is_none() {
                sink.write(Bytes::from(std::mem::take(&mut waiting))).await?;
            }
            if next.is_none() {
                return Ok(());
            }
            before = next;
        }
    }
    .await;
    match copied {
        Ok(()) => sink.commit().await,
        Err(error) => {
            sink.abort().await;
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::config::ini::Ini;
    use crate::notes::{Notes, Verdict, Voice};

    fn store(root: &Path) -> Store {
        let ini = format!("[storage]\ntype = local\nroot = {}\n", root.display());
        Store::open(&Ini::parse(&ini).unwrap()).unwrap()
    }

    fn run<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    }

    /// Stores a fragment for each note.
    fn begin(root: &Path, notes: &[(u8, bool)]) {
        fs::create_dir_all(root.join("d")).unwrap();
        for (number, (path, removed)) in notes.iter().enumerate() {
            let entry =
                ManifestEntry { path: format!("p{path}"), size: number as u64, blake3: "ff".into(), removed: *removed };
            fs::write(root.join(format!("d/{number:020}-{path:08x}.jsonl")), lines([&entry]).unwrap()).unwrap();
        }
    }

    fn files(root: &Path) -> Vec<(String, Vec<u8>)> {
        let found = fs::read_dir(root.join("d")).unwrap().map(|item| item.unwrap());
        let mut files: Vec<_> =
            found.map(|item| (item.file_name().into_string().unwrap(), fs::read(item.path()).unwrap())).collect();
        files.sort();
        files
    }

    /// What the fragments add up to, as sealing reads them.
    fn sum(root: &Path) -> Vec<Verdict> {
        let mut notes = Notes::new();
        for (name, bytes) in files(root) {
            Lines::new(name).feed(&bytes, |entry| notes.add(&entry, Voice::Counts)).unwrap();
        }
        let mut verdicts = notes.finish().unwrap();
        std::iter::from_fn(|| verdicts.next().unwrap()).collect()
    }

    fn history() -> impl Strategy<Value = Vec<(u8, bool)>> {
        prop::collection::vec((0u8..60, any::<bool>()), FEWEST..FEWEST + 40)
    }

    proptest! {
        #![proptest_config(crate::testing::cases(12))]

        /// Killed while the old fragments go: whichever of them are left.
        #[test]
        fn whenever_it_is_killed_the_notes_add_up_to_the_same(notes in history(), left in any::<u64>(), again in any::<bool>()) {
            let dir = tempfile::tempdir().unwrap();
            begin(dir.path(), &notes);
            let (before, expected) = (files(dir.path()), sum(dir.path()));
            run(fold(&store(dir.path()), "d", AGE)).unwrap();
            prop_assert_eq!(files(dir.path()).len(), 1);
            prop_assert_eq!(&sum(dir.path()), &expected);
            for (at, (name, bytes)) in before.iter().enumerate() {
                if left.rotate_left(at as u32 * 7) & 1 == 1 {
                    fs::write(dir.path().join("d").join(name), bytes).unwrap();
                }
            }
            prop_assert_eq!(&sum(dir.path()), &expected);
            if again {
                run(fold(&store(dir.path()), "d", AGE)).unwrap();
                prop_assert_eq!(&sum(dir.path()), &expected);
            }
        }

        #[test]
        fn two_that_fold_at_once_lose_nothing(notes in history()) {
            let dir = tempfile::tempdir().unwrap();
            begin(dir.path(), &notes);
            let expected = sum(dir.path());
            std::thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| run(fold(&store(dir.path()), "d", AGE)).unwrap());
                }
            });
            prop_assert_eq!(sum(dir.path()), expected);
            prop_assert!(files(dir.path()).len() <= 3);
        }
    }

    #[test]
    fn few_fragments_stay_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        begin(dir.path(), &[(1, false); FEWEST - 1]);
        let before = files(dir.path());
        run(fold(&store(dir.path()), "d", AGE)).unwrap();
        assert_eq!(files(dir.path()), before);
    }

    #[test]
    fn young_fragments_stay_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        begin(dir.path(), &[(1, false); FEWEST]);
        let now = jiff::Timestamp::now().as_nanosecond();
        let young = dir.path().join(format!("d/{now:020}-00000000.jsonl"));
        fs::write(&young, "").unwrap();
        run(fold(&store(dir.path()), "d", AGE)).unwrap();
        assert!(young.exists());
        assert_eq!(files(dir.path()).len(), 2);
    }
}
