//! Listing a bucket in key order, page by page, without reading more of the tree than the page needs.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

/// What a listing asks for.
#[derive(Debug, Default)]
pub(super) struct Query<'a> {
    pub(super) prefix: &'a str,
    pub(super) delimiter: Option<&'a str>,
    /// Only what sorts behind this.
    pub(super) after: &'a str,
    pub(super) limit: usize,
}

/// A page.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) objects: Vec<(String, fs::Metadata)>,
    pub(super) prefixes: Vec<String>,
    /// The last item's name, when there is more.
    pub(super) next: Option<String>,
    last: String,
}

/// Lists a bucket.
pub(super) fn list(bucket: &Path, query: &Query<'_>) -> Page {
    let mut page = Page::default();
    if query.limit == 0 {
        return page;
    }
    // The directory that the prefix names needs no search.
    let start = query.prefix.rfind('/').map_or("", |at| &query.prefix[..=at]);
    if start.split('/').any(|part| part == "..") {
        return page;
    }
    let _ = walk(&bucket.join(start.trim_matches('/')), start, query, &mut page);
    page
}

fn walk(dir: &Path, key: &str, query: &Query<'_>, page: &mut Page) -> ControlFlow<()> {
    let Ok(listing) = fs::read_dir(dir) else { return ControlFlow::Continue(()) };
    let mut names: Vec<String> = listing
        .flatten()
        .filter_map(|item| {
            let kind = item.file_type().ok()?;
            let name = item.file_name().into_string().ok()?;
            // With its slash a directory sorts where its keys do.
            (kind.is_dir() || kind.is_file()).then(|| if kind.is_dir() { name + "/" } else { name })
        })
        .collect();
    names.sort_unstable();
    for name in names {
        let full = format!("{key}{name}");
        let is_dir = name.ends_with('/');
        if !(full.starts_with(query.prefix) || is_dir && query.prefix.starts_with(&full)) {
            continue;
        }
        // Everything below sorts before the start of this page.
        if full.as_str() <= query.after && !(is_dir && query.after.starts_with(&full)) {
            continue;
        }
        if let Some(group) = group(&full, query) {
            if group > query.after
                && page.prefixes.last().map(String::as_str) != Some(group)
                && (!is_dir || has_object(&dir.join(&name)))
            {
                let group = group.to_owned();
                page.add(query, &group)?;
                page.prefixes.push(group);
            }
            if group.len() <= full.len() && is_dir && query.delimiter == Some("/") {
                continue;
            }
        }
        if is_dir {
            walk(&dir.join(&name), &full, query, page)?;
        } else if group(&full, query).is_none()
            && let Ok(meta) = fs::symlink_metadata(dir.join(&name))
        {
            page.add(query, &full)?;
            page.objects.push((full, meta));
        }
    }
    ControlFlow::Continue(())
}

/// The common prefix that a key belongs to.
fn group<'a>(key: &'a str, query: &Query<'_>) -> Option<&'a str> {
    let delimiter = query.delimiter?;
    let rest = key.strip_prefix(query.prefix)?;
    let at = rest.find(delimiter)?;
    Some(&key[..query.prefix.len() + at + delimiter.len()])
}

/// Empty directories are leftovers of races, not keys.
fn has_object(dir: &Path) -> bool {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .any(|item| item.file_type().is_ok_and(|kind| kind.is_file() || kind.is_dir() && has_object(&item.path())))
}

impl Page {
    fn add(&mut self, query: &Query<'_>, name: &str) -> ControlFlow<()> {
        if self.objects.len() + self.prefixes.len() == query.limit {
            self.next = Some(std::mem::take(&mut self.last));
            return ControlFlow::Break(());
        }
        name.clone_into(&mut self.last);
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(keys: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for key in keys {
            let path = dir.path().join(key);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, key).unwrap();
        }
        dir
    }

    /// The simple, slow answer: all keys, sorted, filtered.
    fn slow(keys: &[&str], query: &Query<'_>) -> Vec<String> {
        let mut items: Vec<String> = keys
            .iter()
            .filter(|key| key.starts_with(query.prefix))
            .map(|key| group(key, query).map_or((*key).to_owned(), str::to_owned))
            .filter(|item| item.as_str() > query.after)
            .collect();
        items.sort();
        items.dedup();
        items
    }

    #[test]
    fn pages_together_are_the_sorted_keys() {
        let keys = ["a", "a-b", "a.txt", "b/c", "b/c-", "b/d/e", "b/d/f", "b-", "c/x", "z"];
        let dir = bucket(&keys);
        for prefix in ["", "a", "b", "b/", "b/d", "b/d/", "nope/", "c/x"] {
            for delimiter in [None, Some("/"), Some("-")] {
                for limit in [1, 2, 3, 100] {
                    let (mut after, mut items) = (String::new(), Vec::new());
                    loop {
                        let page = list(dir.path(), &Query { prefix, delimiter, after: &after, limit });
                        let mut found: Vec<String> =
                            page.objects.into_iter().map(|(key, _)| key).chain(page.prefixes).collect();
                        found.sort();
                        assert!(found.len() <= limit);
                        items.extend(found);
                        match page.next {
                            Some(next) => after = next,
                            None => break,
                        }
                    }
                    let query = Query { prefix, delimiter, after: "", limit };
                    assert_eq!(items, slow(&keys, &query), "{query:?}");
                }
            }
        }
    }

    #[test]
    fn empty_directories_are_no_prefixes() {
        let dir = bucket(&["x/y"]);
        fs::create_dir_all(dir.path().join("empty/inner")).unwrap();
        let page = list(dir.path(), &Query { delimiter: Some("/"), limit: 10, ..Query::default() });
        assert_eq!(page.prefixes, ["x/"]);
    }
}
